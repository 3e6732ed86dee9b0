use super::*;
use proptest::prelude::*;

#[test]
fn the_default_rules_are_legal_and_named() {
    let rules = Rules::default();
    assert_eq!((rules.sources.len(), rules.messages.len(), rules.scores.len()), (8, 2, 4));
    assert!(!rules.dry_run);
    let inputs = rules.messages.iter().find(|rule| rule.name == "inputs").unwrap();
    assert_eq!((inputs.stream, inputs.per_second, inputs.burst), (1, 120.0, 120));
}

/// Each line of the golden file: a text (`\n` for the ends of its lines), a tab, what is said of it.
#[test]
fn every_error_names_the_line_and_what_to_write() {
    let golden = include_str!("golden.txt");
    let cases = golden.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let mut count = 0;
    for case in cases {
        let (text, wanted) = case.split_once('\t').expect("a text, a tab, what is said of it");
        let told = match Rules::parse(&text.replace("\\n", "\n")) {
            Ok(_) => "legal".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(told, wanted, "of {text}");
        count += 1;
    }
    assert!(count > 30, "{count} cases");
}

#[test]
fn a_prefix_holds_its_addresses() {
    let holds = |prefix: &str, address: &str| {
        Prefix::parse(prefix).unwrap().contains(address.parse().unwrap())
    };
    assert!(holds("192.0.2.0/24", "192.0.2.255"));
    assert!(holds("192.0.2.0/24", "::ffff:192.0.2.255"));
    assert!(!holds("192.0.2.0/24", "192.0.3.0"));
    assert!(holds("0.0.0.0/0", "203.0.113.9") && !holds("0.0.0.0/0", "::1"));
    assert!(holds("2001:db8::/32", "2001:db8:ffff::1") && !holds("2001:db8::/32", "2001:db9::"));
    assert!(holds("::1/128", "::1") && !holds("::1/128", "::2"));
    for wrong in ["", "192.0.2.0", "192.0.2.0/33", "::/129", "a/1", "1.2.3.4/-1", "1.2.3.4/"] {
        assert!(Prefix::parse(wrong).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn any_text_is_rules_or_names_a_line(text in "\\PC*") {
        if let Err(error) = Rules::parse(&text) {
            prop_assert!(error.line >= 1 && !error.what.is_empty());
        }
    }

    /// One byte of the default rules is another: what comes of it is legal or named.
    #[test]
    fn changed_rules_are_rules_or_name_a_line(at in 0..DEFAULT_RULES.len(), byte in 0_u8..128) {
        let mut bytes = DEFAULT_RULES.as_bytes().to_vec();
        bytes[at] = byte;
        let text = String::from_utf8(bytes).unwrap();
        if let Err(error) = Rules::parse(&text) {
            let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
            prop_assert!((1..=lines).contains(&error.line), "{}", error);
            prop_assert!(!error.what.contains('\n'), "{}", error);
        }
    }
}
