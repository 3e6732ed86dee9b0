//! Planted promises that nothing keeps, and kept ones.

use super::*;

const SPEC: &str = "# Session\n## 3. Keys\n### 3.2 Phases\n3.4. *Text*.\n1. item\n 3.5. item\n```\n## 9 no heading\n```\n";

fn cited(comment: &str) -> Vec<String> {
    let tree = Tree::of(&[
        ("docs/spec/session.md", SPEC),
        ("crates/twinspan-session/src/a.rs", &format!("\n{comment}\nfn f() {{}}")),
    ]);
    citations(&tree).iter().map(ToString::to_string).collect()
}

#[test]
fn a_citation_of_a_missing_section_is_caught() {
    let start = "crates/twinspan-session/src/a.rs:2: ";
    for (comment, what) in [
        ("//= session 3.3", "docs/spec/session.md has no section 3.3"),
        ("//= session 9", "docs/spec/session.md has no section 9"),
        ("//= session 1", "docs/spec/session.md has no section 1"),
        ("//= session 3.5", "docs/spec/session.md has no section 3.5"),
        ("//= lludp 3.2", "`//= lludp 3.2` cites no section"),
        ("/// The keys, session 3.2 and 3.3.", "docs/spec/session.md has no section 3.3"),
        ("//= session", "`//= session` cites no section"),
        ("//= session keys", "`//= session keys` cites no section"),
    ] {
        let lines = cited(comment);
        assert!(lines[0].starts_with(&format!("{start}{what};")), "{lines:?}");
    }
}

#[test]
fn citations_of_headings_and_numbered_paragraphs_pass() {
    for comment in [
        "//= session 3",
        "//= session 3.2: why",
        "// As session 3.4, 3.2 to 3.4 say",
        "// session 9",
    ] {
        assert_eq!(cited(comment), Vec::<String>::new(), "{comment}");
    }
}

fn promised(architecture: &str) -> Vec<String> {
    let tree = Tree::of(&[
        ("ARCHITECTURE.md", architecture),
        (
            "crates/twinspan-core/src/a.rs",
            "#[cfg(test)] mod t { #[test] fn holds() {} }\nfn no() {}",
        ),
        ("crates/twinspan/tests/it/main.rs", "#[test]\nfn holds_outside() {}"),
        ("crates/twinspan/tests/it/deep.rs", "#[test]\nfn holds_deep() {}"),
    ]);
    invariants(&tree).iter().map(ToString::to_string).collect()
}

#[test]
fn an_invariant_without_a_living_test_is_caught() {
    for (item, what) in [
        ("1. A. `twinspan_core::a::gone`", "there is no test `twinspan_core::a::gone`"),
        ("1. A. `twinspan_core::b::holds`", "there is no test `twinspan_core::b::holds`"),
        ("1. A. `twinspan_core::a::no`", "there is no test `twinspan_core::a::no`"),
        ("1. A. `twinspan_world::a::holds`", "there is no test `twinspan_world::a::holds`"),
        ("1. A.\n   `holds`", "an invariant without a test"),
        ("1. A. `twinspan_core::Type`", "an invariant without a test"),
    ] {
        let lines = promised(&format!("# X\n## Invariants\n{item}\n"));
        assert_eq!(lines.len(), 1, "{item}: {lines:?}");
        assert!(lines[0].starts_with(&format!("ARCHITECTURE.md:3: {what};")), "{lines:?}");
    }
    assert!(promised("# Nothing")[0].contains("no numbered invariant"));
    assert_eq!(invariants(&Tree::of(&[])).len(), 1);
}

#[test]
fn invariants_with_their_tests_pass() {
    let text = "## Invariants\nText.\n1. A:\n   `twinspan_core::a::t::holds`.\n2. B: \
                `twinspan::it::holds_outside`, `twinspan::it::deep::holds_deep` and `Type`.\n## More\n1. C.\n";
    assert_eq!(promised(text), Vec::<String>::new());
}

fn linked(line: &str) -> Vec<String> {
    let tree =
        Tree::of(&[("docs/a.md", &format!("x\n{line}\n")), ("docs/adr/b.md", ""), ("C.md", "")]);
    check(&tree).iter().filter(|f| f.path == "docs/a.md").map(ToString::to_string).collect()
}

#[test]
fn a_link_that_leads_nowhere_is_caught() {
    for line in [
        "see [b](b.md)",
        "![b](adr/b.png \"title\")",
        "[b]: ../adr/b.md",
        "[out](../../C.md)",
        "[root](/C.md)",
        "[fine](adr/b.md) and [not](c.md#part)",
    ] {
        let lines = linked(line);
        assert_eq!(lines.len(), 1, "{line}: {lines:?}");
        assert!(lines[0].starts_with("docs/a.md:2: the link `"), "{lines:?}");
    }
}

#[test]
fn links_that_lead_somewhere_pass() {
    for line in [
        "[b](adr/b.md#part) [c](../C.md) [dir](adr/) [up](..)",
        "[web](https://example.org/x) [mail](mailto:a@example.org) [here](#part)",
        "[b]: <https://example.org>",
        "code `[b](gone.md)` and `a[0](1)`",
    ] {
        assert_eq!(linked(line), Vec::<String>::new(), "{line}");
    }
    assert_eq!(linked("```\n[b](gone.md)\n```"), Vec::<String>::new());
}
