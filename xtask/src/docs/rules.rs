//! The tables of specs that say which test holds which rule: each test exists, each rule has one.

use super::{is_number, leads_to, prose, sections};
use crate::report::Finding;
use crate::tree::Tree;

const SPECS: &str = "docs/spec/";

/// Checks the table of every spec that has one.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let specs = tree.texts.iter().filter_map(|(path, text)| {
        let name = path.strip_prefix(SPECS)?.strip_suffix(".md")?;
        Some((path, name, text))
    });
    specs.flat_map(|(path, name, text)| spec(tree, path, name, text)).collect()
}

fn spec(tree: &Tree, path: &str, name: &str, text: &str) -> Vec<Finding> {
    let rows = rows(text);
    let Some((first, ..)) = rows.first() else { return Vec::new() };
    let mut findings = Vec::new();
    for (line, rules, tests) in &rows {
        let what = named(tree, &format!("twinspan-{name}"), tests);
        for what in what.unwrap_or_else(|| vec![format!("rule {rules} has no test")]) {
            let remedy = "name the file in backquotes and behind it its tests, or `all` of them";
            findings.push(Finding::new(path, *line, what, remedy));
        }
    }
    let spans: Vec<_> = rows.iter().flat_map(|(_, rules, _)| spans(rules)).collect();
    let held = |rule: &str| spans.iter().any(|span| span.holds(rule));
    for rule in sections(text).into_iter().filter(|rule| rule.contains('.') && !held(rule)) {
        let what = format!("no row of the table of tests is about rule {rule}");
        findings.push(Finding::new(path, *first, what, "add a row that names its test"));
    }
    findings
}

/// The rows of the table whose head begins with "rule": the line, the rules, the tests.
fn rows(text: &str) -> Vec<(usize, &str, &str)> {
    let lines = prose(text).skip_while(|(_, line)| !line.starts_with("| rule "));
    let lines = lines.take_while(|(_, line)| line.starts_with('|')).skip(2);
    lines
        .filter_map(|(at, line)| {
            let mut cells = line.trim_matches('|').splitn(2, '|');
            Some((at, cells.next()?.trim(), cells.next()?.trim()))
        })
        .collect()
}

/// The rules that a row is about.
#[derive(Debug, PartialEq, Eq)]
enum Span<'a> {
    All,
    /// From the first to the last, both with all that is below them.
    Of(&'a str, &'a str),
}

impl Span<'_> {
    fn holds(&self, rule: &str) -> bool {
        let Self::Of(first, last) = self else { return true };
        let numbers = |text: &str| -> Vec<u32> {
            text.split('.').map(|part| part.parse().unwrap_or(u32::MAX)).collect()
        };
        let (first, last, rule) = (numbers(first), numbers(last), numbers(rule));
        // `3` stands for all of section 3.
        let cut = |to: &[u32]| rule.iter().copied().take(to.len()).collect::<Vec<_>>();
        cut(&first) >= first && cut(&last) <= last
    }
}

/// `1.2, 1.4`, `2.2 to 2.4`, `2-5`, `all`; words without a number say what of a rule is meant.
fn spans(rules: &str) -> Vec<Span<'_>> {
    rules
        .split(',')
        .filter_map(|part| {
            let part = part.trim();
            if part == "all" {
                return Some(Span::All);
            }
            let (first, last) =
                part.split_once(" to ").or_else(|| part.split_once('-')).unwrap_or((part, part));
            let (first, last) = (first.trim(), last.trim());
            (is_number(first) && is_number(last)).then_some(Span::Of(first, last))
        })
        .collect()
}

/// What is wrong with the tests that a row names; `None` where it names none. Files are looked for in
/// the package that the same part of the row names, in `own`, and in the one that an earlier part did.
fn named(tree: &Tree, own: &str, tests: &str) -> Option<Vec<String>> {
    let (mut wrong, mut count, mut before) = (Vec::new(), 0, None);
    for segment in tests.split(';') {
        let (mut package, mut file) = (None, None);
        let mut pieces = segment.split('`');
        pieces.next();
        while let Some(word) = pieces.next() {
            let behind = pieces.next().unwrap_or_default();
            if word.starts_with("twinspan-") {
                (package, before) = (Some(word), Some(word));
            } else if word.ends_with(".rs") {
                let mut packages = package.into_iter().chain([own]).chain(before);
                file = packages.find_map(|package| find(tree, package, word));
                let all = behind.trim_start_matches([':', ' ']).starts_with("all");
                count += usize::from(all);
                match &file {
                    None => wrong.push(format!("there is no file `{word}`")),
                    Some(file) if all && !has_tests(tree, file) => {
                        wrong.push(format!("`{word}` has no test"));
                    }
                    Some(_) => {}
                }
            } else if word.contains("::") {
                count += 1;
                if !module_has_tests(tree, word) {
                    wrong.push(format!("there is no test below `{word}`"));
                }
            } else if word.contains('_') {
                count += 1;
                if file.as_ref().is_some_and(|file| !has_test(tree, file, word)) {
                    wrong.push(format!("there is no test `{word}` where the row says"));
                } else if file.is_none() && wrong.is_empty() {
                    wrong.push(format!("no file is named for the test `{word}`"));
                }
            }
        }
        // What is told in words is of the file that stands before them.
        count += usize::from(file.is_some());
    }
    (count > 0).then_some(wrong)
}

/// The file of a package by the name that a table has for it.
fn find(tree: &Tree, package: &str, file: &str) -> Option<String> {
    let places = [format!("crates/{package}/{file}"), format!("crates/{package}/src/{file}")];
    places.into_iter().find(|place| tree.sources.contains_key(place))
}

/// A file, and the one to which its tests moved.
fn files(file: &str) -> [String; 2] {
    [file.to_owned(), format!("{}/tests.rs", file.trim_end_matches(".rs"))]
}

fn has_test(tree: &Tree, file: &str, name: &str) -> bool {
    let sources = files(file).into_iter().filter_map(|file| tree.sources.get(&file));
    sources.into_iter().any(|source| source.has_test(name))
}

fn has_tests(tree: &Tree, file: &str) -> bool {
    let sources = files(file).into_iter().filter_map(|file| tree.sources.get(&file));
    sources.into_iter().any(crate::source::Source::has_tests)
}

/// Whether a module, `crate::module::tests`, has a test in its file or in one around it.
fn module_has_tests(tree: &Tree, path: &str) -> bool {
    let parts: Vec<&str> = path.split("::").collect();
    let [package, modules @ ..] = parts.as_slice() else { return false };
    let directory = format!("crates/{}/", package.replace('_', "-"));
    tree.sources.iter().any(|(file, source)| {
        let inside = file.strip_prefix(&directory);
        inside.is_some_and(|file| leads_to(modules, file)) && source.has_tests()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(spec: &str) -> Vec<String> {
        let tree = Tree::of(&[
            ("docs/spec/session.md", spec),
            ("crates/twinspan-session/src/header.rs", "#[cfg(test)] mod tests; fn helper_of() {}"),
            ("crates/twinspan-session/src/header/tests.rs", "#[test] fn it_holds() {}"),
            ("crates/twinspan-session/src/empty.rs", "fn nothing_here() {}"),
            ("crates/twinspan-game/tests/it/late.rs", "#[test] fn late_ones_too() {}"),
        ]);
        check(&tree).iter().map(ToString::to_string).collect()
    }

    fn table(rows: &str) -> String {
        format!("## 1. A\n1.1. One.\n1.2. Two.\n2.1. Three.\n| rule | test |\n|---|---|\n{rows}\n")
    }

    #[test]
    fn tables_whose_tests_exist_pass() {
        for rows in [
            "| 1.1 to 2.1 | `header.rs`: `it_holds` |",
            "| 1, 2.1 | `header.rs`: all |",
            "| 1-2 | `header/tests.rs`: all |",
            "| all | `twinspan_session::header::tests`: words |",
            "| 1.1, 1.2 | `header.rs`: golden bytes of all |\n| 2 | `twinspan-game`, `tests/it/late.rs`: `late_ones_too` |",
            "| 1.1 | `header.rs`: `it_holds` |\n| 1.2, a part of it | `twinspan-game`, `tests/it/late.rs`: all; `header.rs`: `it_holds` |\n| 2.1 | `header.rs`: all |",
        ] {
            assert_eq!(found(&table(rows)), Vec::<String>::new(), "{rows}");
        }
        assert_eq!(found("## 1. A\n1.1. No table at all.\n"), Vec::<String>::new());
    }

    #[test]
    fn a_test_that_is_not_there_is_caught() {
        for (cell, what) in [
            ("`header.rs`: `it_is_gone`", "there is no test `it_is_gone` where the row says"),
            ("`header.rs`: `helper_of`", "there is no test `helper_of` where the row says"),
            ("`gone.rs`: all", "there is no file `gone.rs`"),
            ("`gone.rs`: `it_holds`", "there is no file `gone.rs`"),
            ("`empty.rs`: all", "`empty.rs` has no test"),
            ("`it_holds`", "no file is named for the test `it_holds`"),
            ("`twinspan_session::gone`", "there is no test below `twinspan_session::gone`"),
            ("somewhere", "rule 1, 2 has no test"),
        ] {
            let lines = found(&table(&format!("| 1, 2 | {cell} |")));
            assert_eq!(lines.len(), 1, "{cell}: {lines:?}");
            assert!(lines[0].starts_with(&format!("docs/spec/session.md:7: {what};")), "{lines:?}");
        }
    }

    #[test]
    fn a_rule_without_a_row_is_caught() {
        let lines = found(&table("| 1.1 | `header.rs`: all |\n| 2 | `header.rs`: all |"));
        assert_eq!(lines.len(), 1, "{lines:?}");
        let what = "docs/spec/session.md:7: no row of the table of tests is about rule 1.2;";
        assert!(lines[0].starts_with(what), "{lines:?}");
    }
}
