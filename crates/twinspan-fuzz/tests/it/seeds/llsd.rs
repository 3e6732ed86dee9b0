//! Documents of LLSD.

use twinspan_llsd::{Date, Form, Uri, Uuid, Value};

/// One of each type, an event of a region, and a broken one.
pub(super) fn documents(form: Form) -> Vec<Vec<u8>> {
    let each = Value::map([
        ("array", Value::Array(vec![1.into(), "two".into(), Value::Undef, true.into()])),
        ("binary", Value::Binary(vec![1, 2, 3])),
        ("date", Date(1_138_804_193.0).into()),
        ("real", (-0.25).into()),
        ("string", "a'b<&>\\".into()),
        ("uri", Uri("http://localhost/".into()).into()),
        ("uuid", Uuid::from_u128(7).into()),
    ]);
    let simulator = Value::map([
        ("Handle", Value::Binary(vec![0, 3, 0xE8, 0, 0, 3, 0xE8, 0])),
        ("IP", Value::Binary(vec![127, 0, 0, 1])),
        ("Port", 9_000.into()),
    ]);
    let body = Value::map([("SimulatorInfo", Value::Array(vec![simulator]))]);
    let event = Value::map([("body", body), ("message", "EnableSimulator".into())]);
    let events = Value::map([("events", Value::Array(vec![event])), ("id", 5.into())]);
    let mut seeds = vec![form.write_with_header(&each).unwrap(), form.write(&events).unwrap()];
    seeds.push(match form {
        Form::Xml => b"<llsd><map><key>a</key><binary encoding='base16'>0aff</binary>\
            <key>b</key><string>&#65;<![CDATA[x]]></string></map></llsd>"
            .to_vec(),
        Form::Binary => b"{\0\0\0\x02'a'\"b\"k\0\0\0\x01c[\0\0\0\0]}".to_vec(),
        Form::Notation => {
            b"{'a':s(2)\"hi\",\"b\":b16\"0aff\",'c':[t,FALSE,rnan,'\\x41',]}".to_vec()
        }
    });
    let broken = form.write(&"text".into()).unwrap();
    seeds.push(broken[..broken.len() - 1].to_vec());
    seeds
}
