//! Types of a user's own.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use twinspan_llsd::{
    Date, Form, FromError, Limits, ToError, Uri, Uuid, Value, from_slice, from_value, to_value,
    to_vec,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Simulator {
    #[serde(with = "twinspan_llsd::with::be")]
    handle: u64,
    #[serde(rename = "IP", with = "twinspan_llsd::with::be")]
    ip: Ipv4Addr,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Nothing,
    Number(i32),
    Pair(i32, String),
    Named { a: bool },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    #[serde(with = "twinspan_llsd::with::uuid")]
    id: Uuid,
    #[serde(with = "twinspan_llsd::with::binary")]
    bytes: Vec<u8>,
    date: Date,
    uri: Uri,
    numbers: (i8, u8, i16, u16, i32, f32, f64),
    letter: char,
    some: Option<i32>,
    none: Option<i32>,
    kinds: Vec<Kind>,
    by_number: BTreeMap<u16, bool>,
    any: Value,
    simulator: Simulator,
}

fn everything() -> Everything {
    Everything {
        id: Uuid::from_u128(7),
        bytes: vec![1, 2],
        date: Date(1.5),
        uri: Uri("http://a".into()),
        numbers: (-1, 255, -2, 65_535, i32::MIN, 0.5, -0.25),
        letter: 'é',
        some: Some(5),
        none: None,
        kinds: vec![
            Kind::Nothing,
            Kind::Number(1),
            Kind::Pair(2, "x".into()),
            Kind::Named { a: true },
        ],
        by_number: BTreeMap::from([(9_000, true)]),
        any: Value::Array(vec![
            Uuid::from_u128(1).into(),
            Date(2.0).into(),
            Uri("b".into()).into(),
            Value::Binary(vec![3]),
            Value::map([("x", Value::Undef)]),
        ]),
        simulator: Simulator {
            handle: 256_000 << 32 | 256_000,
            ip: Ipv4Addr::new(127, 0, 0, 1),
            port: 9_000,
        },
    }
}

#[test]
fn a_type_comes_back_from_each_form_and_from_a_value() {
    for form in Form::ALL {
        let written = to_vec(&everything(), form).unwrap();
        assert_eq!(from_slice(&written, form, &Limits::DEFAULT), Ok(everything()), "{form:?}");
        let value = to_value(&everything()).unwrap();
        assert_eq!(form.write(&value).unwrap().len(), written.len());
    }
    let value = to_value(&everything()).unwrap();
    assert_eq!(value.get("id"), Some(&Uuid::from_u128(7).into()));
    assert_eq!(value.get("date"), Some(&Date(1.5).into()));
    let kinds = value.get("kinds").unwrap();
    assert_eq!(kinds.at(0), Some(&"Nothing".into()));
    assert_eq!(kinds.at(3), Some(&Value::map([("Named", Value::map([("a", true.into())]))])));
    let simulator = value.get("simulator").unwrap();
    assert_eq!(simulator.get("IP"), Some(&Value::Binary(vec![127, 0, 0, 1])));
    assert_eq!(from_value(&value), Ok(everything()));
}

#[test]
fn another_format_sees_plain_values() {
    let json = serde_json::to_value(everything()).unwrap();
    assert_eq!(json["id"], "00000000-0000-0000-0000-000000000007");
    assert_eq!(json["date"], 1.5);
    assert_eq!(json["any"][2], "b");
    assert_eq!(serde_json::from_value::<Everything>(json.clone()).unwrap().date, Date(1.5));
    let value: Value = serde_json::from_value(json).unwrap();
    assert_eq!(value.get("letter"), Some(&"é".into()));
    assert_eq!(serde_json::from_str::<Value>("null").unwrap(), Value::Undef);
    assert!(serde_json::from_str::<Value>("5000000000").is_err());
}

#[test]
fn fields_are_converted_where_grids_send_other_types() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Mixed {
        code: u32,
        flag: bool,
        count: i32,
        size: f64,
        name: String,
        list: Vec<i32>,
        #[serde(default)]
        missing: u8,
    }
    let text = b"{'code':i-1,'flag':i1,'count':'7','size':i2,'name':u67153d5b-3659-afb4-8510-adda2c034649,'list':!,'extra':[i1,{'a':!}]}";
    let mixed: Mixed = from_slice(text, Form::Notation, &Limits::DEFAULT).unwrap();
    assert_eq!(
        mixed,
        Mixed {
            code: u32::MAX,
            flag: true,
            count: 7,
            size: 2.0,
            name: "67153d5b-3659-afb4-8510-adda2c034649".into(),
            list: vec![],
            missing: 0,
        }
    );
    let simulator: Simulator = from_value(&Value::map([
        ("Handle", 5.into()),
        ("IP", "10.0.0.1".into()),
        ("Port", "80".into()),
    ]))
    .unwrap();
    assert_eq!(simulator, Simulator { handle: 5, ip: Ipv4Addr::new(10, 0, 0, 1), port: 80 });
}

#[test]
fn a_wrong_type_is_named_with_its_place() {
    let error = from_slice::<Vec<i32>>(b"[i1,'x']", Form::Notation, &Limits::DEFAULT);
    assert_eq!(
        error,
        Err(FromError::Type {
            found: "the text `x`".into(),
            wanted: "an integer of 32 bits",
            offset: 7
        })
    );
    let error = from_value::<Simulator>(&Value::map([("Port", 1.into())])).unwrap_err();
    assert!(error.to_string().contains("Handle"), "{error}");
    assert!(from_value::<u8>(&Value::Integer(256)).is_err());
    assert!(from_value::<u8>(&Value::Integer(-1)).is_err());
    assert!(from_slice::<i32>(b"i1 i2", Form::Notation, &Limits::DEFAULT).is_err());
}

#[test]
fn numbers_that_do_not_fit_are_refused() {
    let large = ToError::TooLarge { number: "4294967295".into() };
    assert_eq!(to_value(&u32::MAX), Err(large));
    assert!(to_value(&i64::MIN).is_err());
    assert_eq!(to_value(&5_u64), Ok(5.into()));
    assert_eq!(to_value(&BTreeMap::from([(false, 1)])), Err(ToError::Key { found: "a boolean" }));
}

#[test]
fn flattened_and_borrowed_fields_work() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        message: &'a str,
        #[serde(flatten)]
        rest: BTreeMap<String, Value>,
    }
    let text = b"<llsd><map><key>message</key><string>Hi</string><key>id</key><integer>3</integer></map></llsd>";
    let event: Event<'_> = from_slice(text, Form::Xml, &Limits::DEFAULT).unwrap();
    assert_eq!(event.message, "Hi");
    assert_eq!(event.rest["id"], Value::Integer(3));
}
