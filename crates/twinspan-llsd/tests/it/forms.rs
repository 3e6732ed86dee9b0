//! Documents whose bytes are written out.

use twinspan_llsd::{
    DEPTH_MAX, Date, Form, Limits, ParseError, Reason, Uri, Uuid, Value, WriteError, parse,
    parse_any,
};

const ID: &str = "67153d5b-3659-afb4-8510-adda2c034649";

/// One of each type.
pub(crate) fn one_of_each() -> Value {
    Value::map([
        ("array", Value::Array(vec![1.into(), "two".into()])),
        ("binary", Value::Binary(b"wxyz".to_vec())),
        ("boolean", true.into()),
        ("date", Date(1_138_804_193.0).into()),
        ("empty", Value::Map(Default::default())),
        ("integer", Value::Integer(-289_343)),
        ("real", Value::Real(-0.25)),
        ("string", "a'b\"c<&>\\\n".into()),
        ("undef", Value::Undef),
        ("uri", Uri("http://localhost/?a=1&b".into()).into()),
        ("uuid", Uuid::try_parse(ID).unwrap().into()),
    ])
}

fn read(text: &[u8], form: Form) -> Value {
    parse(text, form, &Limits::DEFAULT)
        .unwrap_or_else(|error| panic!("{}: {error}", text.escape_ascii()))
}

fn reason(text: &[u8], form: Form) -> Reason {
    let error =
        parse(text, form, &Limits::DEFAULT).expect_err(&format!("{} is read", text.escape_ascii()));
    assert!(error.offset <= text.len());
    error.reason
}

#[test]
fn xml_has_its_golden_bytes() {
    let golden = format!(
        "<llsd><map><key>array</key><array><integer>1</integer><string>two</string></array>\
         <key>binary</key><binary encoding=\"base64\">d3h5eg==</binary>\
         <key>boolean</key><boolean>1</boolean>\
         <key>date</key><date>2006-02-01T14:29:53Z</date>\
         <key>empty</key><map></map>\
         <key>integer</key><integer>-289343</integer>\
         <key>real</key><real>-0.25</real>\
         <key>string</key><string>a'b\"c&lt;&amp;&gt;\\\n</string>\
         <key>undef</key><undef/>\
         <key>uri</key><uri>http://localhost/?a=1&amp;b</uri>\
         <key>uuid</key><uuid>{ID}</uuid></map></llsd>"
    );
    let written = Form::Xml.write(&one_of_each()).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), golden);
    assert_eq!(read(golden.as_bytes(), Form::Xml), one_of_each());
}

#[test]
fn notation_has_its_golden_bytes() {
    let golden = format!(
        "{{'array':[i1,'two'],'binary':b64\"d3h5eg==\",'boolean':1,\
         'date':d\"2006-02-01T14:29:53Z\",'empty':{{}},'integer':i-289343,'real':r-0.25,\
         'string':'a\\'b\"c<&>\\\\\\n','undef':!,'uri':l\"http://localhost/?a=1&b\",'uuid':u{ID}}}"
    );
    let written = Form::Notation.write(&one_of_each()).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), golden);
    assert_eq!(read(golden.as_bytes(), Form::Notation), one_of_each());
}

#[test]
fn binary_has_its_golden_bytes() {
    let value = Value::map([
        ("a", Value::Array(vec![Value::Undef, false.into(), true.into(), 258.into()])),
        ("b", Value::Binary(vec![9, 8])),
        ("d", Date(1.0).into()),
        ("r", 1.0.into()),
        ("s", "é".into()),
        ("u", Uuid::from_u128(0x0102).into()),
        ("w", Uri("x".into()).into()),
    ]);
    let mut golden = b"{\0\0\0\x07k\0\0\0\x01a[\0\0\0\x04!01i\0\0\x01\x02]".to_vec();
    golden.extend_from_slice(b"k\0\0\0\x01bb\0\0\0\x02\x09\x08");
    // Little-endian, other than the real behind it.
    golden.extend_from_slice(b"k\0\0\0\x01dd\0\0\0\0\0\0\xF0\x3F");
    golden.extend_from_slice(b"k\0\0\0\x01rr\x3F\xF0\0\0\0\0\0\0");
    golden.extend_from_slice(b"k\0\0\0\x01ss\0\0\0\x02\xC3\xA9");
    golden.extend_from_slice(b"k\0\0\0\x01uu\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x02");
    golden.extend_from_slice(b"k\0\0\0\x01wl\0\0\0\x01x}");
    assert_eq!(Form::Binary.write(&value).unwrap(), golden);
    assert_eq!(read(&golden, Form::Binary), value);
    for cut in 0..golden.len() {
        let reason = reason(&golden[..cut], Form::Binary);
        assert!(matches!(reason, Reason::Short { .. } | Reason::Count { .. }), "{cut}: {reason}");
    }
}

#[test]
fn headers_may_be_there_in_any_case_or_missing() {
    let value = Value::map([("a", 1.into())]);
    for form in Form::ALL {
        let plain = form.write(&value).unwrap();
        let headed = form.write_with_header(&value).unwrap();
        assert!(headed.len() > plain.len());
        for text in [plain, headed] {
            assert_eq!(Form::detect(&text), form, "{}", text.escape_ascii());
            assert_eq!(parse_any(&text, &Limits::DEFAULT), Ok(value.clone()));
            assert_eq!(read(&text, form), value);
        }
    }
    for header in ["<?llsd/binary?>\n", "<? LLSD/Binary ?>\r\n", " <? llsd/BINARY ?>"] {
        let text = [header.as_bytes(), b"[\0\0\0\x011]"].concat();
        assert_eq!(parse_any(&text, &Limits::DEFAULT), Ok(Value::Array(vec![true.into()])));
    }
    assert_eq!(
        parse_any(b"<?llsd/xml?><llsd><integer>1</integer></llsd>", &Limits::DEFAULT),
        Ok(1.into())
    );
    assert!(matches!(reason(b"<?llsd/binary?>\n!", Form::Notation), Reason::Unexpected { .. }));
    let error = parse(b"<?llsd/binary?>\nq", Form::Binary, &Limits::DEFAULT).unwrap_err();
    assert_eq!(error.offset, 16);
}

#[test]
fn xml_of_real_grids_is_read() {
    for (text, value) in [
        ("<llsd/>", Value::Undef),
        ("<llsd><undef /></llsd>", Value::Undef),
        (
            "\n<?xml version='1.0' encoding='utf-8'?>\n<!-- x --><llsd>\n<map/>\n</llsd>\n",
            Value::map::<&str, 0>([]),
        ),
        ("\u{FEFF}<llsd><boolean/></llsd>", false.into()),
        ("<llsd><boolean> True </boolean></llsd>", true.into()),
        ("<llsd><integer/></llsd>", 0.into()),
        ("<llsd><integer> 5 </integer></llsd>", 5.into()),
        ("<llsd><real/></llsd>", 0.0.into()),
        ("<llsd><real>-Infinity</real></llsd>", f64::NEG_INFINITY.into()),
        ("<llsd><real>1e3</real></llsd>", 1_000.0.into()),
        ("<llsd><uuid/></llsd>", Uuid::nil().into()),
        ("<llsd><date/></llsd>", Date(0.0).into()),
        ("<llsd><string/></llsd>", "".into()),
        ("<llsd><string> a </string></llsd>", " a ".into()),
        ("<llsd><string><![CDATA[<a>]]>&#65;</string></llsd>", "<a>A".into()),
        ("<llsd><uri/></llsd>", Uri::default().into()),
        ("<llsd><binary/></llsd>", Value::Binary(vec![])),
        ("<llsd><binary encoding='base16'>0A ff</binary></llsd>", Value::Binary(vec![10, 255])),
        ("<llsd><binary encoding='base64'>\n AP8= \n</binary></llsd>", Value::Binary(vec![0, 255])),
        ("<llsd><binary encoding='base85'>z</binary></llsd>", Value::Binary(vec![0; 4])),
        // Without the element around it.
        ("<integer>1</integer>", 1.into()),
        (
            "<map><key>a</key><integer>1</integer><key>a</key><integer>2</integer></map>",
            Value::map([("a", 2.into())]),
        ),
    ] {
        assert_eq!(read(text.as_bytes(), Form::Xml), value, "{text}");
    }
    let Value::Real(real) = read(b"<llsd><real>NaN</real></llsd>", Form::Xml) else { panic!() };
    assert!(real.is_nan());
}

#[test]
fn notation_of_real_grids_is_read() {
    for (text, value) in [
        ("!", Value::Undef),
        (
            " [ t , f,T,F, true ,false,TRUE,FALSE,1,0] ",
            Value::Array([true, false].repeat(5).into_iter().map(Into::into).collect()),
        ),
        ("[i1,i2,]", Value::Array(vec![1.into(), 2.into()])),
        ("[r0.9,r-1e-3,rnan]", Value::Undef),
        ("s(5)\"a'\\\"b\"", "a'\\\"b".into()),
        ("\"\\x41\\a\\b\\f\\n\\r\\t\\v\\'\\q\"", "A\u{7}\u{8}\u{c}\n\r\t\u{b}'q".into()),
        ("'\\xc3\\xa9'", "é".into()),
        ("b(3)\"a\"b\"", Value::Binary(b"a\"b".to_vec())),
        ("b16\"0aFF\"", Value::Binary(vec![10, 255])),
        ("b64'AP8='", Value::Binary(vec![0, 255])),
        ("d\"1970-01-01T00:00:01Z\"", Date(1.0).into()),
        (
            "{ 'a' : i1 , \"b\" : { } , s(1)'c':[ ] }",
            Value::map([
                ("a", 1.into()),
                ("b", Value::map::<&str, 0>([])),
                ("c", Value::Array(vec![])),
            ]),
        ),
        (
            "{'region_handle':[r256000,r256256], 'look_at':[r-0.5,r1,r0]}",
            Value::map([
                ("region_handle", Value::Array(vec![256_000.0.into(), 256_256.0.into()])),
                ("look_at", Value::Array(vec![(-0.5).into(), 1.0.into(), 0.0.into()])),
            ]),
        ),
    ] {
        let read = read(text.as_bytes(), Form::Notation);
        if text.contains("nan") {
            assert_eq!(read.at(0), Some(&0.9.into()));
            assert!(read.at(2).and_then(Value::to_f64).unwrap().is_nan());
        } else {
            assert_eq!(read, value, "{text}");
        }
    }
}

#[test]
fn binary_takes_quoted_keys_and_texts() {
    let value = Value::map([("a", "b'".into())]);
    assert_eq!(read(b"{\0\0\0\x01'a'\"b'\"}", Form::Binary), value);
    assert_eq!(read(b"{\0\0\0\x01\"a\"'b\\''}\n", Form::Binary), value);
}

#[test]
fn broken_documents_name_what_is_wrong() {
    for (text, form) in [
        ("<llsd><map><integer>1</integer></map></llsd>", Form::Xml),
        ("<llsd><map><key>a</key></map></llsd>", Form::Xml),
        ("<llsd><integer>1.5</integer></llsd>", Form::Xml),
        ("<llsd><integer>4000000000</integer></llsd>", Form::Xml),
        ("<llsd><boolean>yes</boolean></llsd>", Form::Xml),
        ("<llsd><uuid>1</uuid></llsd>", Form::Xml),
        ("<llsd><date>today</date></llsd>", Form::Xml),
        ("<llsd><binary>&amp;</binary></llsd>", Form::Xml),
        ("<llsd><binary encoding='base32'/></llsd>", Form::Xml),
        ("<llsd><undef>1</undef></llsd>", Form::Xml),
        ("<llsd><number/></llsd>", Form::Xml),
        ("<llsd>1</llsd>", Form::Xml),
        ("<llsd><array>", Form::Xml),
        ("", Form::Xml),
        ("<html><body>502</body></html>", Form::Xml),
        ("", Form::Notation),
        ("i", Form::Notation),
        ("i5x", Form::Notation),
        ("10", Form::Notation),
        ("'a", Form::Notation),
        ("'\\x4", Form::Notation),
        ("'\\xzz'", Form::Notation),
        ("s(3)\"ab\"", Form::Notation),
        ("s(99999999999999999999)\"\"", Form::Notation),
        ("b(5)\"ab\"", Form::Notation),
        ("b32\"ab\"", Form::Notation),
        ("[i1 i2]", Form::Notation),
        ("[i1", Form::Notation),
        ("{'a' i1}", Form::Notation),
        ("{'a':i1", Form::Notation),
        ("{a:i1}", Form::Notation),
        ("u123", Form::Notation),
        ("d\"x\"", Form::Notation),
        ("'\\xff'", Form::Notation),
        ("?", Form::Binary),
        ("", Form::Binary),
    ] {
        let reason = reason(text.as_bytes(), form);
        assert!(!matches!(reason, Reason::Trailing | Reason::TooDeep { .. }), "{text}: {reason}");
    }
    assert_eq!(reason(b"<llsd><integer/><integer/></llsd>", Form::Xml), Reason::Trailing);
    assert_eq!(reason(b"<llsd/><llsd/>", Form::Xml), Reason::Trailing);
    assert_eq!(reason(b"i1,", Form::Notation), Reason::Trailing);
    assert_eq!(reason(b"!!", Form::Binary), Reason::Trailing);
    assert_eq!(reason(b"s\0\0\0\x01\xFF", Form::Binary), Reason::Utf8);
    let bomb =
        b"<!DOCTYPE l [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><llsd><string>&b;</string></llsd>";
    assert_eq!(reason(bomb, Form::Xml), Reason::DocType);
    let file = b"<llsd><string>&file;</string></llsd>";
    assert_eq!(reason(file, Form::Xml), Reason::Entity { name: "file".into() });
}

#[test]
fn no_count_makes_more_than_is_there() {
    for text in [&b"[\xFF\xFF\xFF\xFF"[..], b"{\x7F\0\0\0k", b"s\xFF\xFF\xFF\xFFa", b"b\0\x01\0\0"]
    {
        assert!(matches!(reason(text, Form::Binary), Reason::Count { .. }));
    }
}

#[test]
fn limits_are_kept() {
    let limits = Limits { bytes_max: 1_000, depth_max: 3, elements_max: 10 };
    for form in Form::ALL {
        let nested = |depth| (0..depth).fold(Value::Undef, |inner, _| Value::Array(vec![inner]));
        assert!(parse(&form.write(&nested(3)).unwrap(), form, &limits).is_ok());
        let error = parse(&form.write(&nested(4)).unwrap(), form, &limits).unwrap_err();
        assert_eq!(error.reason, Reason::TooDeep { max: 3 });

        let wide = |count| Value::Array(vec![Value::Undef; count]);
        assert!(parse(&form.write(&wide(9)).unwrap(), form, &limits).is_ok());
        let error = parse(&form.write(&wide(10)).unwrap(), form, &limits).unwrap_err();
        assert_eq!(error.reason, Reason::TooMany { max: 10 });

        let long = form.write(&"x".repeat(1_001).into()).unwrap();
        let error = parse(&long, form, &limits).unwrap_err();
        assert_eq!(
            error,
            ParseError { offset: 1_000, reason: Reason::TooLong { have: long.len(), max: 1_000 } }
        );

        let unlimited = Limits { bytes_max: 1 << 30, depth_max: 1 << 20, elements_max: 1 << 30 };
        assert!(parse(&form.write(&nested(DEPTH_MAX)).unwrap(), form, &unlimited).is_ok());
        assert_eq!(form.write(&nested(DEPTH_MAX + 1)), Err(WriteError::TooDeep { max: DEPTH_MAX }));
        let bytes = match form {
            Form::Xml => "<array>".repeat(100_000),
            Form::Binary => "[\0\0\0\u{1}".repeat(100_000),
            Form::Notation => "[".repeat(100_000),
        };
        let error = parse(bytes.as_bytes(), form, &unlimited).unwrap_err();
        assert_eq!(error.reason, Reason::TooDeep { max: DEPTH_MAX });
    }
}

#[test]
fn what_a_form_cannot_hold_is_refused() {
    assert_eq!(Form::Xml.write(&"a\0".into()), Err(WriteError::Character { found: '\0' }));
    assert!(Form::Notation.write(&"a\0".into()).is_ok());
    let never = Value::Date(Date(f64::INFINITY));
    assert_eq!(Form::Xml.write(&never), Err(WriteError::Date { seconds: "inf".into() }));
    assert_eq!(Form::Notation.write(&never), Err(WriteError::Date { seconds: "inf".into() }));
    assert_eq!(read(&Form::Binary.write(&never).unwrap(), Form::Binary), never);
}

#[test]
fn values_become_one_another_as_llsd_has_it() {
    let handle = Value::Binary(vec![0, 3, 0xE8, 0, 0, 3, 0xE8, 0]);
    assert_eq!(handle.to_u64(), Some(256_000 << 32 | 256_000));
    assert_eq!(Value::Binary(vec![127, 0, 0, 1]).to_u32(), Some(0x7F00_0001));
    assert_eq!(Value::Integer(-1).to_u32(), Some(u32::MAX));
    assert_eq!(Value::Integer(-1).to_i64(), Some(-1));
    assert_eq!(Value::from("42").to_u32(), Some(42));
    assert_eq!(Value::from(" -1 ").to_u32(), Some(u32::MAX));
    assert_eq!(Value::from("x").to_i64(), None);
    assert_eq!(Value::Real(3.0).to_i64(), Some(3));
    assert_eq!(Value::Real(3.5).to_i64(), None);
    assert_eq!(Value::Real(1e300).to_i64(), None);
    assert_eq!(Value::Undef.to_f64(), Some(0.0));
    assert_eq!(Value::Boolean(true).to_u32(), Some(1));
    assert_eq!(Value::from("TRUE").to_bool(), Some(true));
    assert_eq!(Value::from("maybe").to_bool(), None);
    assert_eq!(Value::Integer(7).to_text().as_deref(), Some("7"));
    assert_eq!(Value::Binary(vec![]).to_text(), None);
    assert_eq!(Value::from(ID).to_uuid(), Uuid::try_parse(ID).ok());
    assert_eq!(Value::Binary(vec![1; 16]).to_uuid(), Some(Uuid::from_bytes([1; 16])));
    assert_eq!(Value::from("1970-01-01T00:00:01Z").to_date(), Some(Date(1.0)));
    assert_eq!(Value::Array(vec![]).to_bool(), None);
    assert_eq!(Value::Binary(vec![0; 9]).to_u64(), None);
}
