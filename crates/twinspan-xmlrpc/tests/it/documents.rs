//! Documents whose bytes are written out.

use proptest::prelude::*;
use twinspan_xmlrpc::{
    Call, Date, Fault, Limits, ParseError, ReadError, Reason, Uuid, Value, XmlRpcWriteError,
    parse_call, parse_response, write_call, write_response,
};

/// A response with this value.
fn response(value: &str) -> String {
    format!("<methodResponse><params><param>{value}</param></params></methodResponse>")
}

fn read(value: &str) -> Value {
    let text = response(value);
    let read = parse_response(text.as_bytes(), &Limits::DEFAULT);
    read.unwrap_or_else(|error| panic!("{text}: {error}")).unwrap()
}

fn reason(text: &str) -> Reason {
    match parse_response(text.as_bytes(), &Limits::DEFAULT) {
        Err(ReadError::Parse(ParseError { reason, .. })) => reason,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn a_call_has_its_golden_bytes() {
    let call = Call {
        method: "login".into(),
        params: vec![Value::map([
            ("a", Value::Array(vec![1.into(), true.into(), (-0.5).into()])),
            ("b", Value::Binary(b"xy".to_vec())),
            ("d", Date(1_138_804_193.0).into()),
            ("n", Value::Undef),
            ("s", "<&>".into()),
        ])],
    };
    let golden = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<methodCall><methodName>login\
        </methodName><params><param><value><struct>\
        <member><name>a</name><value><array><data><value><i4>1</i4></value>\
        <value><boolean>1</boolean></value><value><double>-0.5</double></value></data></array>\
        </value></member><member><name>b</name><value><base64>eHk=</base64></value></member>\
        <member><name>d</name><value><dateTime.iso8601>20060201T14:29:53</dateTime.iso8601>\
        </value></member><member><name>n</name><value><nil/></value></member>\
        <member><name>s</name><value><string>&lt;&amp;&gt;</string></value></member>\
        </struct></value></param></params></methodCall>";
    assert_eq!(String::from_utf8(write_call(&call).unwrap()).unwrap(), golden);
    assert_eq!(parse_call(golden.as_bytes(), &Limits::DEFAULT), Ok(call));
}

#[test]
fn values_of_real_servers_are_read() {
    for (text, value) in [
        ("<value>plain &amp; text</value>", "plain & text".into()),
        ("<value/>", "".into()),
        ("<value> <string> a </string> </value>", " a ".into()),
        ("<value><string><![CDATA[<a>]]></string></value>", "<a>".into()),
        ("<value><int> 5 </int></value>", 5.into()),
        ("<value><i4>-5</i4></value>", (-5).into()),
        ("<value><i4>4000000000</i4></value>", Value::Integer(-294_967_296)),
        ("<value><i8>5000000000</i8></value>", 5e9.into()),
        ("<value><ex:i8>5</ex:i8></value>", 5.into()),
        ("<value><boolean>true</boolean></value>", true.into()),
        ("<value><boolean>0</boolean></value>", false.into()),
        ("<value><double>1e3</double></value>", 1_000.0.into()),
        ("<value><base64> eHk= </base64></value>", Value::Binary(b"xy".to_vec())),
        ("<value><nil/></value>", Value::Undef),
        (
            "<value><dateTime.iso8601>1970-01-01T00:00:01</dateTime.iso8601></value>",
            Date(1.0).into(),
        ),
        ("<value><array><data/></array></value>", Value::Array(vec![])),
        ("<value><array/></value>", Value::Array(vec![])),
        ("<value><struct/></value>", Value::map::<&str, 0>([])),
        (
            "<value><struct><member><value>1</value><name>a</name></member></struct></value>",
            Value::map([("a", "1".into())]),
        ),
    ] {
        assert_eq!(read(text), value, "{text}");
    }
    let none = "<methodResponse><params/></methodResponse>";
    assert_eq!(parse_response(none.as_bytes(), &Limits::DEFAULT), Ok(Ok(Value::Undef)));
}

#[test]
fn faults_come_back() {
    let fault = Fault { code: 4, message: "Too <many>".into() };
    let written = write_response(Err(&fault)).unwrap();
    assert_eq!(parse_response(&written, &Limits::DEFAULT), Ok(Err(fault)));
    let bare = "<methodResponse><fault><value><struct/></value></fault></methodResponse>";
    let bare = parse_response(bare.as_bytes(), &Limits::DEFAULT);
    assert_eq!(bare, Ok(Err(Fault { code: 0, message: String::new() })));
}

#[test]
fn broken_documents_name_what_is_wrong() {
    for text in [
        "",
        "text",
        "<methodResponse>",
        "<methodResponse/>",
        "<methodResponse><value/></methodResponse>",
        "<methodCall/>",
        &response(""),
        &response("<value><i4>x</i4></value>"),
        &response("<value><i4>5</i4><i4>6</i4></value>"),
        &response("<value><money>5</money></value>"),
        &response("<value><boolean>maybe</boolean></value>"),
        &response("<value><base64>&amp;</base64></value>"),
        &response("<value><dateTime.iso8601>now</dateTime.iso8601></value>"),
        &response("<value><i8>9223372036854775807</i8></value>"),
        &response("<value><struct><member><name>a</name></member></struct></value>"),
        &response("<value><array><value/></array></value>"),
        &response("<value>a<i4>5</i4></value>"),
        &response("<value>&file;</value>"),
    ] {
        reason(text);
    }
    let twice = format!("{0}{0}", response("<value/>"));
    assert_eq!(reason(&twice), Reason::Trailing);
    let page = b"<html><body>502</body></html>";
    let page = parse_response(page, &Limits::DEFAULT);
    assert_eq!(page, Err(ReadError::Html { wanted: "methodResponse" }));
    let entity = b"<!DOCTYPE a [<!ENTITY b 'c'>]><methodResponse/>";
    let entity = parse_response(entity, &Limits::DEFAULT);
    assert_eq!(entity, Err(ReadError::Html { wanted: "methodResponse" }));
}

#[test]
fn limits_are_kept() {
    let limits = Limits { bytes_max: 4_000, depth_max: 3, elements_max: 10 };
    let nested = |depth| {
        let (open, close) = ("<value><array><data>", "</data></array></value>");
        response(&format!("{}{}", open.repeat(depth), close.repeat(depth)))
    };
    assert!(parse_response(nested(3).as_bytes(), &limits).is_ok());
    let deep = parse_response(nested(4).as_bytes(), &limits);
    assert!(
        matches!(deep, Err(ReadError::Parse(error)) if error.reason == Reason::TooDeep { max: 3 })
    );
    let unlimited = Limits { bytes_max: 1 << 30, depth_max: 1 << 20, elements_max: 1 << 30 };
    let deep = parse_response(nested(50_000).as_bytes(), &unlimited);
    assert!(
        matches!(deep, Err(ReadError::Parse(error)) if error.reason == Reason::TooDeep { max: 128 })
    );
    let wide = |count| {
        response(&format!(
            "<value><array><data>{}</data></array></value>",
            "<value/>".repeat(count)
        ))
    };
    assert!(parse_response(wide(9).as_bytes(), &limits).is_ok());
    let many = parse_response(wide(10).as_bytes(), &limits);
    assert!(
        matches!(many, Err(ReadError::Parse(error)) if error.reason == Reason::TooMany { max: 10 })
    );
    let long = parse_response(wide(600).as_bytes(), &limits);
    assert!(
        matches!(long, Err(ReadError::Parse(error)) if matches!(error.reason, Reason::TooLong { .. }))
    );
    let deep = (0..130).fold(Value::Undef, |inner, _| Value::Array(vec![inner]));
    assert_eq!(write_response(Ok(&deep)), Err(XmlRpcWriteError::TooDeep { max: 128 }));
    let infinite = write_response(Ok(&f64::INFINITY.into()));
    assert_eq!(infinite, Err(XmlRpcWriteError::NotFinite));
    let zero = write_response(Ok(&"\0".into()));
    assert_eq!(zero, Err(XmlRpcWriteError::Character { found: '\0' }));
}

#[test]
fn ids_travel_as_strings() {
    let id = Uuid::from_u128(7);
    let written = write_response(Ok(&id.into())).unwrap();
    let read = parse_response(&written, &Limits::DEFAULT).unwrap().unwrap();
    assert_eq!(read, id.to_string().into());
    assert_eq!(read.to_uuid(), Some(id));
}

/// Texts that XML holds.
const TEXT: &str = "[\\t\\n\\r -\u{D7FF}\u{E000}-\u{FFFD}\u{10000}-\u{10FFFF}]{0,12}";

/// Values of the types that XML-RPC has.
pub(crate) fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        (-1e12_f64..1e12).prop_map(Value::from),
        TEXT.prop_map(Value::from),
        any::<Vec<u8>>().prop_map(Value::from),
        (-62_135_596_800_i64..253_402_300_799).prop_map(|seconds| Date(seconds as f64).into()),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(TEXT, inner, 0..6).prop_map(Value::from),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_is_read_as_the_same(value in values()) {
        let written = write_response(Ok(&value)).unwrap();
        prop_assert_eq!(parse_response(&written, &Limits::DEFAULT), Ok(Ok(value.clone())));
        let call = Call { method: "m".into(), params: vec![value] };
        let written = write_call(&call).unwrap();
        prop_assert_eq!(parse_call(&written, &Limits::DEFAULT), Ok(call));
    }

    #[test]
    fn any_bytes_parse_or_name_a_reason(bytes: Vec<u8>, at: prop::sample::Index, byte: u8) {
        let _ = parse_call(&bytes, &Limits::DEFAULT);
        let _ = parse_response(&bytes, &Limits::DEFAULT);
        let mut changed = response("<value><struct><member><name>a</name><value>1</value></member></struct></value>").into_bytes();
        let at = at.index(changed.len());
        changed[at] = byte;
        let _ = parse_response(&changed, &Limits::DEFAULT);
    }
}
