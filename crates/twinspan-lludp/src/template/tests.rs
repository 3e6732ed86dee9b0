//! Tests of templates.

use proptest::prelude::*;

use super::*;
use crate::{DynamicMessage, Tail, Value};

const GOOD: &str = "// A comment { of any kind }\nversion 2.0\n\n{\n\tHello High 200 Trusted Zerocoded \
    UDPBlackListed // behind it\n\t{ Who Single { ID U32 } { Name Variable 1 } }\n\t{Near Multiple 2\
    {Port IPPORT}}\n\t{ Rest Variable { Data Fixed 3 } }\n}\n{ Bye Fixed 0xFFFFFFFE NotTrusted \
    Unencoded }\n";

#[test]
fn a_template_is_read() {
    let template = Template::parse(GOOD).unwrap();
    assert_eq!(template.version(), "2.0");
    assert_eq!(template.messages().len(), 2);
    let hello = template.layout(MessageId::high(200).unwrap()).unwrap();
    assert_eq!(template.named("Hello"), Some(hello));
    assert_eq!(
        (hello.trust, hello.zero_coded, hello.deprecation),
        (Trust::Trusted, true, Deprecation::UdpRefused)
    );
    let quantities: Vec<_> = hello.blocks.iter().map(|block| block.quantity).collect();
    assert_eq!(quantities, [Quantity::Single, Quantity::Multiple(2), Quantity::Variable]);
    let kinds: Vec<_> =
        hello.blocks.iter().flat_map(|block| block.fields.iter()).map(|field| field.kind).collect();
    assert_eq!(kinds, [FieldKind::U32, FieldKind::Variable1, FieldKind::Port, FieldKind::Fixed(3)]);
    let bye = template.named("Bye").unwrap();
    assert_eq!((bye.id.wire(), bye.blocks.len()), (0xFFFF_FFFE, 0));
}

#[test]
fn messages_of_a_template_are_read_and_written() {
    let template = Template::parse(GOOD).unwrap();
    let id = MessageId::high(200).unwrap();
    let body = [5, 0, 0, 0, 2, b'H', 0, 0x23, 0x28, 0x23, 0x29, 1, 7, 8, 9, 0xEE];
    let (hello, tail) = template.decode(id, &body).unwrap();
    assert_eq!(tail, Tail::Extra(&[0xEE]));
    assert_eq!(hello.value("Who", 0, "ID"), Some(&Value::U32(5)));
    assert_eq!(hello.value("Near", 1, "Port"), Some(&Value::Port(crate::Port(9_001))));
    assert_eq!(hello.value("Rest", 0, "Data"), Some(&Value::Bytes(vec![7, 8, 9])));
    assert_eq!(hello.value("Rest", 1, "Data"), None);
    let mut out = [0; 32];
    let len = template.encode(&hello, tail, &mut out).unwrap();
    assert_eq!(out[..len], body);
    let error = template.decode(id, &body[..8]).unwrap_err().to_string();
    assert_eq!(error, "Hello ends in Near[0].Port: 1 bytes left where 2 are needed");
}

#[test]
fn what_does_not_fit_the_layout_is_not_written() {
    let template = Template::parse(GOOD).unwrap();
    let id = MessageId::high(200).unwrap();
    let (good, _) = template.decode(id, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let write = |change: &dyn Fn(&mut DynamicMessage)| {
        let mut hello = good.clone();
        change(&mut hello);
        template.encode(&hello, Tail::Exact, &mut [0; 64]).map_err(|error| error.to_string())
    };
    assert_eq!(write(&|_| {}), Ok(10));
    for change in [
        &(|hello: &mut DynamicMessage| hello.blocks[0].items[0][0] = Value::Bool(true))
            as &dyn Fn(&mut DynamicMessage),
        &|hello| hello.blocks[0].items[0].truncate(1),
        &|hello| hello.blocks[0].items.clear(),
        &|hello| hello.blocks[1].items.truncate(1),
        &|hello| hello.blocks.truncate(2),
        &|hello| hello.blocks[2].items = vec![vec![Value::Bytes(vec![1])]],
        &|hello| hello.blocks[0].items[0][1] = Value::Bytes(vec![0; 256]),
        &|hello| hello.blocks[2].items = vec![vec![Value::Bytes(vec![0; 3])]; 256],
    ] {
        assert!(write(change).is_err(), "something was written");
    }
    let (_, other) = (Template::builtin(), MessageId::high(1).unwrap());
    let error = template.decode(other, &[]).unwrap_err().to_string();
    assert!(error.starts_with("no message is numbered high 1"), "{error}");
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let head = "version 2.0\n{ A Low 1 Trusted Unencoded\n";
    for (text, wanted) in [
        ("", "line 1: expected `version`, found the end"),
        ("\n\nverzion 2.0", "line 3: expected `version`, found `verzion`"),
        ("version {", "line 1: expected a version number, found `{`"),
        ("version 2.0\n}", "line 2: expected `{` or the end, found `}`"),
        ("version 2.0 { { ", "line 1: expected the name of a message, found `{`"),
        ("version 2.0 { A Often", "line 1: expected High, Medium, Low or Fixed, found `Often`"),
        ("version 2.0 { A Low x", "line 1: expected the number of a message, found `x`"),
        (
            "version 2.0 { A High 255",
            "line 1: expected a number that this frequency has, found `255`",
        ),
        ("version 2.0 { A Fixed 7", "line 1: expected a number that this frequency has, found `7`"),
        ("version 2.0 { A Low 1 Maybe", "line 1: expected Trusted or NotTrusted, found `Maybe`"),
        ("version 2.0 { A Low 1 Trusted X", "line 1: expected Zerocoded or Unencoded, found `X`"),
    ] {
        assert_eq!(Template::parse(text).unwrap_err().to_string(), wanted);
    }
    for (rest, wanted) in [
        ("{ B Single }", "line 3: expected `{` or `}`, found the end"),
        (
            "Old",
            "line 3: expected `{`, `}`, Deprecated, UDPDeprecated, UDPBlackListed or NotDeprecated, found `Old`",
        ),
        ("{ B Twice", "line 3: expected Single, Multiple or Variable, found `Twice`"),
        ("{ B Multiple 256", "line 3: expected 0 to 255 blocks, found `256`"),
        ("{ B Single { C", "line 3: expected the type of a field, found the end"),
        ("{ B Single\n{ C U9", "line 4: expected the type of a field, found `U9`"),
        ("{ B Single { C Variable 3", "line 3: expected 1 or 2, found `3`"),
        ("{ B Single { C Fixed 65536", "line 3: expected 0 to 65535 bytes, found `65536`"),
        ("{ B Single { C U8 {", "line 3: expected `}`, found `{`"),
        ("{ B Single { C U8 } { C U8 } } }", "line 3: a second field `C`"),
        ("{ B Single } { B Single } }", "line 3: a second block `B`"),
        ("}\n{ A Low 2 Trusted Unencoded }", "line 4: a second message `A`"),
        ("}\n{ B Low 1 Trusted Unencoded }", "line 4: a second number `low 1`"),
    ] {
        let text = format!("{head}{rest}");
        assert_eq!(Template::parse(&text).unwrap_err().to_string(), wanted, "{text}");
    }
}

#[test]
fn templates_are_bounded() {
    let error = |text: &str| Template::parse(text).unwrap_err().to_string();
    let long = format!("version 2.0 {}", " ".repeat(TEMPLATE_BYTES_MAX));
    assert!(error(&long).ends_with("more than 4194304 bytes"));
    let name = "x".repeat(65);
    assert!(error(&format!("version {name}")).ends_with("more than 64 bytes in a name"));
    let message = |blocks: &str| format!("version 2.0 {{ A Low 1 Trusted Unencoded {blocks} }}");
    let blocks: String = (0..65).map(|at| format!("{{ B{at} Single }}")).collect();
    assert!(error(&message(&blocks)).ends_with("more than 64 blocks in a message"));
    let fields: String = (0..257).map(|at| format!("{{ C{at} U8 }}")).collect();
    let fields = format!("{{ B Single {fields} }}");
    assert!(error(&message(&fields)).ends_with("more than 256 fields in a block"));
}

#[test]
fn the_messages_of_this_library_are_a_template() {
    let template = Template::builtin();
    assert_eq!(template.messages().len(), 483);
    let (dynamic, tail) = template.decode(MessageId::high(1).unwrap(), &[7, 1, 0, 0, 0]).unwrap();
    assert_eq!(dynamic.value("PingID", 0, "OldestUnacked"), Some(&Value::U32(1)));
    assert_eq!((dynamic.name.as_str(), tail), ("StartPingCheck", Tail::Exact));
}

proptest! {
    #[test]
    fn any_text_is_a_template_or_names_a_reason(
        words in proptest::collection::vec(
            prop_oneof![
                Just("{"), Just("}"), Just("High"), Just("Single"), Just("Variable"), Just("1"),
                Just("U8"), Just("Trusted"), Just("Zerocoded"), Just("A"), Just("// x\n"), Just("é"),
            ],
            0..40,
        ),
    ) {
        let text = format!("version 2.0 {}", words.join(" "));
        if let Err(error) = Template::parse(&text) {
            prop_assert!(error.to_string().starts_with("line "), "{error}");
        }
    }
}
