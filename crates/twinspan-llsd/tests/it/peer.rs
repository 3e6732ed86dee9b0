//! Agreement with another implementation: that of Hippolyzer.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value as Json, json};
use twinspan_llsd::{Date, Form, Limits, Uri, Value, base16, base64, from_base64, parse};

use crate::forms::one_of_each;
use crate::hippolyzer::Peer;
use crate::random::values;

/// Random values of each form.
const VALUES: usize = 120;

/// What the peer says of a document.
fn ask(peer: &mut Peer, form: Form, document: &[u8]) -> Json {
    let name = format!("{form:?}").to_lowercase();
    peer.ask(&format!("{name} {}", base64(document)))
}

/// The same words as the peer's.
fn told(value: &Value) -> Json {
    match value {
        Value::Undef => json!(["undef"]),
        Value::Boolean(value) => json!(["boolean", value]),
        Value::Integer(value) => json!(["integer", value]),
        Value::Real(value) => json!(["real", base16(&value.to_be_bytes())]),
        Value::Uuid(value) => json!(["uuid", value.to_string()]),
        Value::String(text) => json!(["string", text]),
        Value::Binary(bytes) => json!(["binary", base16(bytes)]),
        Value::Date(Date(seconds)) => json!(["date", seconds]),
        Value::Uri(Uri(text)) => json!(["uri", text]),
        Value::Array(elements) => json!(["array", elements.iter().map(told).collect::<Vec<_>>()]),
        Value::Map(entries) => {
            let entries = entries.iter().map(|(key, value)| (key.clone(), told(value)));
            json!(["map", entries.collect::<serde_json::Map<_, _>>()])
        }
        value => panic!("{value:?}"),
    }
}

/// What the peer is known to do otherwise, so that the values that are compared leave it out.
fn is_shared(value: &Value) -> bool {
    match value {
        // Its dates are those of Python, which has no year 0.
        Value::Date(Date(seconds)) => (-62_135_596_800.0..253_402_300_799.0).contains(seconds),
        Value::Array(elements) => elements.iter().all(is_shared),
        Value::Map(entries) => entries.values().all(is_shared),
        _ => true,
    }
}

/// In binary it writes URIs as strings.
fn as_it_writes(value: &Value, form: Form) -> Value {
    match value {
        Value::Uri(Uri(text)) if form == Form::Binary => text.as_str().into(),
        Value::Array(elements) => {
            Value::Array(elements.iter().map(|element| as_it_writes(element, form)).collect())
        }
        Value::Map(entries) => {
            let entry = |(key, value): (&String, &Value)| (key.clone(), as_it_writes(value, form));
            Value::Map(entries.iter().map(entry).collect())
        }
        value => value.clone(),
    }
}

/// Whether a text or a key has a carriage return in it.
fn has_return(value: &Value) -> bool {
    match value {
        Value::String(text) | Value::Uri(Uri(text)) => text.contains('\r'),
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
    for form in Form::ALL {
        let random = (0..VALUES).map(|_| values().new_tree(&mut runner).unwrap().current());
        for value in [one_of_each()].into_iter().chain(random) {
            if !is_shared(&value) {
                continue;
            }
            let written = match form {
                // Its parser of notation knows no header.
                Form::Notation => form.write(&value).unwrap(),
                form => form.write_with_header(&value).unwrap(),
            };
            let answer = ask(&mut peer, form, &written);
            assert_eq!(answer["told"], told(&value), "{form:?}: {}", written.escape_ascii());
            let theirs = from_base64(answer["written"].as_str().unwrap().as_bytes()).unwrap();
            let read = parse(&theirs, form, &Limits::DEFAULT);
            let shown = theirs.escape_ascii().to_string();
            let read = read.unwrap_or_else(|error| panic!("{form:?}: {error} of {shown}"));
            // It writes ends of lines that no reader of XML gives back.
            if form != Form::Xml || !has_return(&value) {
                assert_eq!(read, as_it_writes(&value, form), "{form:?}: {shown}");
            }
            compared += 1;
        }
    }
    assert!(compared > 2 * VALUES, "{compared} values were compared");
}
