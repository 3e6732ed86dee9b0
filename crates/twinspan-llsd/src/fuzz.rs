//! Fuzz bodies: what holds for any bytes.

use twinspan_core::fuzz::{Body, digest};

use crate::{Form, Limits, Value, from_slice, from_value, parse, to_value, to_vec};

/// Every body by its name.
pub const TARGETS: &[(&str, Body)] = &[
    ("llsd-xml", |data| document(data, Form::Xml)),
    ("llsd-binary", |data| document(data, Form::Binary)),
    ("llsd-notation", |data| document(data, Form::Notation)),
];

/// Small, so that mutated seeds come to the limits.
const LIMITS: Limits = Limits { bytes_max: 4_000, depth_max: 12, elements_max: 400 };

/// Any bytes are a document or name a reason; what was read is written and read as the same in each
/// form that can hold it, by way of values and by way of serde.
fn document(data: &[u8], form: Form) -> u64 {
    let value = match parse(data, form, &LIMITS) {
        Ok(value) => value,
        Err(error) => {
            assert!(error.offset <= data.len() + 1, "an error behind the end: {error}");
            return digest(&error);
        }
    };
    let by_serde = from_slice::<Value>(data, form, &LIMITS);
    assert_eq!(by_serde.as_ref().map(text), Ok(text(&value)), "serde reads another value");
    assert_eq!(to_value(&value).as_ref().map(text), Ok(text(&value)), "serde makes another value");
    assert_eq!(from_value::<Value>(&value).as_ref().map(text), Ok(text(&value)), "another copy");
    for form in Form::ALL {
        let written = match form.write(&value) {
            Ok(written) => written,
            // Text forms lack some characters and dates; binary has them all.
            Err(error) => {
                assert_ne!(form, Form::Binary, "{error}");
                continue;
            }
        };
        assert_eq!(to_vec(&value, form).as_ref(), Ok(&written), "serde writes other bytes");
        let again = parse(&written, form, &Limits::DEFAULT);
        let same = again.as_ref().is_ok_and(|again| {
            // Texts keep microseconds of dates.
            form != Form::Binary && has_date(&value) || text(again) == text(&value)
        });
        assert!(same, "{form:?}: {value:?} is read as {again:?}");
    }
    digest(&value)
}

/// What compares NaN as equal.
fn text(value: &Value) -> String {
    format!("{value:?}")
}

fn has_date(value: &Value) -> bool {
    match value {
        Value::Date(_) => true,
        Value::Array(elements) => elements.iter().any(has_date),
        Value::Map(entries) => entries.values().any(has_date),
        _ => false,
    }
}
