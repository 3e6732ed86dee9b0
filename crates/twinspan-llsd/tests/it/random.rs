//! Random values and random bytes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use twinspan_llsd::{
    Date, Form, Limits, Uri, Uuid, Value, from_slice, parse, parse_any, to_value, to_vec,
};

/// Texts that all forms hold.
const TEXT: &str = "[\\t\\n\\r -\u{D7FF}\u{E000}-\u{FFFD}\u{10000}-\u{10FFFF}]{0,12}";

/// Any value; dates are whole seconds, which all forms keep.
pub(crate) fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Undef),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("NaN is unequal to itself", |real| !real.is_nan())
            .prop_map(Value::from),
        any::<u128>().prop_map(|bits| Uuid::from_u128(bits).into()),
        TEXT.prop_map(Value::from),
        any::<Vec<u8>>().prop_map(Value::from),
        (-62_167_219_200_i64..253_402_300_800).prop_map(|seconds| Date(seconds as f64).into()),
        TEXT.prop_map(|text| Uri(text).into()),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(TEXT, inner, 0..6)
                .prop_map(|entries: BTreeMap<String, Value>| Value::from(entries)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_is_read_as_the_same(value in values()) {
        for form in Form::ALL {
            let written = form.write(&value).unwrap();
            prop_assert_eq!(parse(&written, form, &Limits::DEFAULT), Ok(value.clone()));
            let headed = form.write_with_header(&value).unwrap();
            prop_assert_eq!(parse_any(&headed, &Limits::DEFAULT), Ok(value.clone()));
            // And by way of serde.
            prop_assert_eq!(to_vec(&value, form), Ok(written.clone()));
            prop_assert_eq!(from_slice(&written, form, &Limits::DEFAULT), Ok(value.clone()));
        }
        prop_assert_eq!(to_value(&value), Ok(value));
    }

    #[test]
    fn any_bytes_parse_or_name_a_reason(bytes: Vec<u8>) {
        for form in Form::ALL {
            if let Err(error) = parse(&bytes, form, &Limits::DEFAULT) {
                prop_assert!(error.offset <= bytes.len() + 1, "{}", error);
            }
        }
    }

    #[test]
    fn a_changed_document_parses_or_names_a_reason(
        value in values(),
        at: prop::sample::Index,
        byte: u8,
        cut: prop::sample::Index,
    ) {
        for form in Form::ALL {
            let mut bytes = form.write(&value).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = parse(&bytes, form, &Limits::DEFAULT);
            bytes.truncate(cut.index(bytes.len()));
            let _ = parse(&bytes, form, &Limits::DEFAULT);
        }
    }
}
