//! Agreement with another implementation: that of Python's own library, in the environment that
//! `.ci/run` makes for peers.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use twinspan_llsd::{base64, from_base64};
use twinspan_xmlrpc::{Limits, Value, parse_response, write_response};

use crate::documents::values;
use crate::hippolyzer::Peer;

/// Random values.
const VALUES: usize = 150;

/// Whether a text has a carriage return in it, which the peer writes so that readers of XML lose it.
fn has_return(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\r'),
        Value::Array(elements) => elements.iter().any(has_return),
        Value::Map(entries) => {
            entries.iter().any(|(key, value)| key.contains('\r') || has_return(value))
        }
        _ => false,
    }
}

#[test]
fn another_implementation_reads_and_writes_the_same_values() {
    let Some(mut peer) = Peer::open("peer.py") else { return };
    let mut runner = TestRunner::deterministic();
    let mut compared = 0;
    for _ in 0..VALUES {
        let value = values().new_tree(&mut runner).unwrap().current();
        if has_return(&value) {
            continue;
        }
        let written = write_response(Ok(&value)).unwrap();
        let answer = peer.ask(&base64(&written));
        let shown = written.escape_ascii();
        let theirs = answer["written"].as_str().unwrap_or_else(|| panic!("{answer} of {shown}"));
        let theirs = from_base64(theirs.as_bytes()).unwrap();
        let read = parse_response(&theirs, &Limits::DEFAULT);
        assert_eq!(read, Ok(Ok(value)), "{}", theirs.escape_ascii());
        compared += 1;
    }
    assert!(compared > VALUES / 2, "{compared} values were compared");
}
