//! Agreement with another implementation: that of Python's own library, in the environment that
//! `.ci/run` makes for peers.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::Value as Json;
use twinspan_llsd::{base64, from_base64};
use twinspan_xmlrpc::{Limits, Value, parse_response, write_response};

use crate::documents::values;

/// Random values.
const VALUES: usize = 150;

/// The peer's process; it ends with this.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The interpreter. Without one the caller's test is over, unless `TWINSPAN_REQUIRE_PEERS` is 1: then
/// the test fails.
fn python() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let python = std::env::var_os("TWINSPAN_HIPPOLYZER")
        .map_or(target.join("peers/hippolyzer/bin/python"), PathBuf::from);
    if python.exists() {
        return Some(python);
    }
    let reason = "skipped: this test needs the environment target/peers/hippolyzer of .ci/run";
    assert!(std::env::var("TWINSPAN_REQUIRE_PEERS").as_deref() != Ok("1"), "{reason}");
    println!("{reason}");
    None
}

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
    let Some(python) = python() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/peer.py");
    let mut command = Command::new(python);
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut peer = Peer(command.spawn().unwrap());
    let mut requests = peer.0.stdin.take().unwrap();
    let mut answers = BufReader::new(peer.0.stdout.take().unwrap());
    let mut runner = TestRunner::deterministic();
    let mut compared = 0;
    for _ in 0..VALUES {
        let value = values().new_tree(&mut runner).unwrap().current();
        if has_return(&value) {
            continue;
        }
        let written = write_response(Ok(&value)).unwrap();
        writeln!(requests, "{}", base64(&written)).unwrap();
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        let answer: Json = serde_json::from_str(&line).unwrap();
        let shown = written.escape_ascii();
        let theirs = answer["written"].as_str().unwrap_or_else(|| panic!("{answer} of {shown}"));
        let theirs = from_base64(theirs.as_bytes()).unwrap();
        let read = parse_response(&theirs, &Limits::DEFAULT);
        assert_eq!(read, Ok(Ok(value)), "{}", theirs.escape_ascii());
        compared += 1;
    }
    assert!(compared > VALUES / 2, "{compared} values were compared");
}
