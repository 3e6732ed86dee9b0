//! Sizes of files, where `unsafe` may stand, unfinished work, and paths of one machine.

use crate::report::Finding;
use crate::source::Source;
use crate::tree::Tree;

/// A longer file holds two things.
const LINES_MAX: usize = 800;

/// A file that begins with this in its first line was written by a generator.
const GENERATED: &str = "@generated";

/// Where `unsafe` may stand, as beginnings of paths.
const UNSAFE_ALLOWED: &[&str] = &[
    "bench/hub/src/iceoryx.rs",
    "bench/src/enet.rs",
    "crates/twinspan-aead/src/sys.rs",
    "crates/twinspan-core/src/prefetch.rs",
    "crates/twinspan-net/src/shm",
    "crates/twinspan-net/src/sys",
    "crates/twinspan-fence/src/sys.rs",
    "crates/twinspan-cli/src/allocator.rs",
    // Generated.
    "crates/twinspan/examples/trade/messages.rs",
];

/// Files whose text is read by people or machines of other places.
const TEXT_ENDINGS: &[&str] = &[
    ".css", ".html", ".js", ".json", ".md", ".rs", ".sh", ".toml", ".txt", ".yaml", ".yml", "/run",
];

/// Beginnings of paths that only one machine has; written apart so that this file passes.
const MACHINE_PATHS: &[&str] =
    &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];

/// Checks all files.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in &tree.sources {
        let first = tree.texts.get(path).and_then(|text| text.lines().next()).unwrap_or_default();
        if source.lines > LINES_MAX && !first.contains(GENERATED) {
            let what = format!("{} lines, more than {LINES_MAX}", source.lines);
            findings.push(Finding::new(path, LINES_MAX + 1, what, "split it into two modules"));
        }
        findings.extend(unsafe_code(path, source));
        findings.extend(unfinished(path, source));
    }
    findings.extend(crate_roots(tree));
    findings.extend(machine_paths(tree));
    findings
}

fn unsafe_code(path: &str, source: &Source) -> Option<Finding> {
    let in_tests = path.contains("/tests/") && !path.contains("/src/");
    if in_tests || UNSAFE_ALLOWED.iter().any(|start| path.starts_with(start)) {
        return None;
    }
    let token = source.tokens.iter().find(|token| token.text == "unsafe")?;
    let remedy = "use a safe call, or move it to a place in UNSAFE_ALLOWED of xtask/src/hygiene.rs";
    Some(Finding::new(path, token.line, "`unsafe` outside its places", remedy))
}

/// Crates without a place for `unsafe` forbid it at their root; the others may not.
fn crate_roots(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in &tree.sources {
        let Some(package) =
            path.strip_suffix("/src/lib.rs").or_else(|| path.strip_suffix("/src/main.rs"))
        else {
            continue;
        };
        let is_allowed = |file: &&String| {
            file.starts_with(&format!("{package}/"))
                && UNSAFE_ALLOWED.iter().any(|start| file.starts_with(start))
        };
        let forbid = ["#", "!", "[", "forbid", "(", "unsafe_code", ")", "]"];
        let forbids = (0..source.tokens.len()).any(|at| source.reads(at, &forbid));
        if !forbids && !tree.sources.keys().any(|file| is_allowed(&file)) {
            let remedy = "add #![forbid(unsafe_code)] below the crate's first comment";
            findings.push(Finding::new(path, 1, "the crate does not forbid unsafe code", remedy));
        }
    }
    findings
}

/// Macros and attributes that stand for work not done.
fn unfinished(path: &str, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        let called = matches!(token.text.as_str(), "todo" | "unimplemented");
        if called && source.reads(at + 1, &["!"]) {
            let what = format!("`{}!` stands for code that is not there", token.text);
            findings.push(Finding::new(
                path,
                token.line,
                what,
                "write it, or leave its caller out",
            ));
        }
        if token.text == "#" && ignores(source, at) {
            let what = "a test that is never run";
            findings.push(Finding::new(path, token.line, what, "mend it or remove it"));
        }
    }
    let fence = |text: &str| {
        let text = text.trim_start_matches(['/', '!', '*', ' ']);
        text.strip_prefix("```")
            .is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == "ignore"))
    };
    for comment in source.comments.iter().filter(|comment| fence(&comment.text)) {
        let what = "an example that is never compiled";
        let remedy = "let it compile (`no_run` where it must not run), or mark it `text`";
        findings.push(Finding::new(path, comment.line, what, remedy));
    }
    findings
}

/// Whether the attribute at `at` is `ignore`, by itself or inside `cfg_attr`.
fn ignores(source: &Source, at: usize) -> bool {
    let mut inside = source.texts(at).take_while(|text| *text != "]").skip(1);
    if inside.next() != Some("[") {
        return false;
    }
    match inside.next() {
        Some("ignore") => true,
        Some("cfg_attr") => inside.any(|text| text == "ignore"),
        _ => false,
    }
}

fn machine_paths(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_read = |path: &str| TEXT_ENDINGS.iter().any(|ending| path.ends_with(ending));
    for (path, text) in tree.texts.iter().filter(|(path, _)| is_read(path)) {
        for (at, line) in text.lines().enumerate() {
            if let Some(found) = MACHINE_PATHS.iter().find(|found| names_path(line, found)) {
                let what = format!("`{found}` is a path of one machine");
                let remedy = "name it from the root of the tree, or find it at run time";
                findings.push(Finding::new(path, at + 1, what, remedy));
            }
        }
    }
    findings
}

/// Whether `line` names `path` as a whole path, and not as a part of a longer one or of an address.
fn names_path(line: &str, path: &str) -> bool {
    let is_inner = |letter: char| letter.is_alphanumeric() || "._-)}".contains(letter);
    line.match_indices(path).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        !before.is_some_and(is_inner)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORBID: &str = "#![forbid(unsafe_code)]";

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&Tree::of(&[(path, text)])).iter().map(ToString::to_string).collect()
    }

    fn caught(path: &str, text: &str, what: &str) {
        let lines = found(path, text);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(what), "{lines:?}");
    }

    #[test]
    fn a_long_file_is_caught_and_a_generated_one_is_not() {
        let long = "\n".repeat(801);
        caught("crates/a/src/b.rs", &long, "b.rs:801: 801 lines, more than 800");
        assert_eq!(found("crates/a/src/b.rs", &"\n".repeat(800)), Vec::<String>::new());
        assert_eq!(
            found("crates/a/src/b.rs", &format!("// @generated{long}")),
            Vec::<String>::new()
        );
    }

    #[test]
    fn unsafe_outside_its_places_is_caught() {
        let text = "fn f() {\n unsafe { g() } }";
        caught("crates/twinspan-core/src/a.rs", text, "a.rs:2: `unsafe` outside");
        caught("crates/twinspan-net/src/batch.rs", text, "`unsafe` outside");
        for path in [
            "crates/twinspan-net/src/sys.rs",
            "crates/twinspan-net/src/sys/linux.rs",
            "crates/twinspan-net/src/shm.rs",
            "crates/twinspan-fence/src/sys.rs",
            "crates/twinspan-cli/src/allocator.rs",
            "crates/twinspan-session/tests/allocations.rs",
        ] {
            assert_eq!(found(path, text), Vec::<String>::new(), "{path}");
        }
    }

    #[test]
    fn a_crate_that_does_not_forbid_unsafe_is_caught() {
        caught("crates/twinspan-core/src/lib.rs", "//! unsafe", "does not forbid unsafe");
        caught("xtask/src/main.rs", "// #![forbid(unsafe_code)]", "does not forbid unsafe");
        assert_eq!(found("crates/twinspan-core/src/lib.rs", FORBID), Vec::<String>::new());
        let tree = Tree::of(&[
            ("crates/twinspan-net/src/lib.rs", "mod sys;"),
            ("crates/twinspan-net/src/sys.rs", ""),
        ]);
        assert_eq!(check(&tree), []);
    }

    #[test]
    fn unfinished_work_is_caught_in_tests_too() {
        for name in ["todo", "unimplemented"] {
            caught("crates/a/src/b.rs", &format!("fn f() {{\n {name}!() }}"), "b.rs:2: `");
            let test = format!("#[cfg(test)] mod t {{ fn f() {{ {name}!(\"x\") }} }}");
            caught("crates/a/src/b.rs", &test, "stands for code");
        }
        let name = "ignore";
        caught("crates/a/src/b.rs", &format!("#[test]\n#[{name}]\nfn f() {{}}"), "b.rs:2: a test");
        caught("crates/a/src/b.rs", &format!("#[{name} = \"why\"] fn f() {{}}"), "never run");
        caught("crates/a/src/b.rs", &format!("#[cfg_attr(unix, {name})] fn f() {{}}"), "never run");
        caught("crates/a/src/b.rs", &format!("/// ```rust,{name}\nfn f() {{}}"), "never compiled");
        let fine =
            "fn todo(ignore: u8) { a[ignore]; } // todo! ```ignore\n#[rustfmt::skip] fn f() {}";
        assert_eq!(found("crates/a/src/b.rs", fine), Vec::<String>::new());
    }

    #[test]
    fn paths_of_one_machine_are_caught() {
        for start in MACHINE_PATHS {
            caught("docs/a.md", &format!("see\n`{start}x`"), "a.md:2: `/");
            caught(".ci/run", &format!("cd {start}x"), "path of one machine");
            let inner = format!("https://example.org{start} a{start} {{root}}{start}");
            assert_eq!(found("docs/a.md", &inner), Vec::<String>::new());
        }
    }
}
