//! What text promises: cited sections exist, invariants have their tests, links lead somewhere.

mod rules;

use std::collections::BTreeSet;

use crate::report::Finding;
use crate::tree::{Tree, join, parent};

const INVARIANTS: &str = "ARCHITECTURE.md";

/// Checks all text.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = citations(tree);
    findings.extend(invariants(tree));
    findings.extend(rules::check(tree));
    for (path, text) in tree.texts.iter().filter(|(path, _)| path.ends_with(".md")) {
        findings.extend(links(tree, path, text));
    }
    findings
}

/// `//= session 3.2` must name a numbered heading or paragraph of `docs/spec/session.md`, and so must
/// `session 3.2` within any comment.
fn citations(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in &tree.sources {
        for comment in &source.comments {
            let cited = cited(tree, &comment.text);
            if comment.text.starts_with("//=") && cited.is_empty() {
                let what = format!("`{}` cites no section", comment.text.trim());
                let remedy = "name a file in docs/spec and a section of it, `//= session 3.2`";
                findings.push(Finding::new(path, comment.line, what, remedy));
            }
            for (name, number) in cited {
                let spec = format!("docs/spec/{name}.md");
                let text = tree.texts.get(&spec).map_or("", String::as_str);
                if !sections(text).contains(number) {
                    let what = format!("{spec} has no section {number}");
                    let remedy = "cite a numbered heading or paragraph of it";
                    findings.push(Finding::new(path, comment.line, what, remedy));
                }
            }
        }
    }
    findings
}

/// The sections that a comment cites: a name in `docs/spec` and the numbers that follow it. Without
/// `//=` before it, a number without an inner dot may be a count of something.
fn cited<'a>(tree: &Tree, comment: &'a str) -> Vec<(&'a str, &'a str)> {
    let (words, least_dots) = match comment.strip_prefix("//=") {
        Some(citation) => (citation, 0),
        None => (comment, 1),
    };
    let mut found = Vec::new();
    let mut spec = None;
    for word in words.split_whitespace() {
        let word = word.trim_matches(|letter: char| !letter.is_alphanumeric());
        match spec {
            Some(name) if is_number(word) && word.matches('.').count() >= least_dots => {
                found.push((name, word));
            }
            Some(_) if matches!(word, "and" | "or" | "to") => {}
            _ => spec = tree.texts.contains_key(&format!("docs/spec/{word}.md")).then_some(word),
        }
    }
    found
}

fn is_number(word: &str) -> bool {
    let is_count = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    word.split('.').all(is_count)
}

/// The numbers that headings begin with (`## 3. Keys`), and paragraphs (`3.2. Phases ..`). A number
/// without an inner dot at the start of a paragraph is an item of a list, and no section.
fn sections(text: &str) -> BTreeSet<&str> {
    let numbers = prose(text).filter_map(|(_, line)| {
        let title = line.trim_start_matches('#');
        let is_heading = title.len() < line.len() && title.starts_with(' ');
        let word = title.split_whitespace().next()?;
        let number = word.trim_end_matches('.');
        let is_paragraph = line.starts_with(word) && number.contains('.') && number != word;
        (is_heading || is_paragraph).then_some(number)
    });
    numbers.filter(|word| is_number(word)).collect()
}

/// The lines of Markdown outside code fences, counted from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        (!fenced && !is_fence).then_some((at + 1, line))
    })
}

/// Every numbered item under the heading "Invariants" names tests that exist.
fn invariants(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.texts.get(INVARIANTS) else {
        let remedy = "write down the rooms, and the invariants with their tests";
        return vec![Finding::new(INVARIANTS, 1, "there is no ARCHITECTURE.md", remedy)];
    };
    let items = items(text);
    if items.is_empty() {
        let what = "no numbered invariant under a heading \"Invariants\"";
        return vec![Finding::new(INVARIANTS, 1, what, "list them, each with its test")];
    }
    let mut findings = Vec::new();
    for (line, item) in items {
        let quoted = item.split('`').skip(1).step_by(2);
        let tests: Vec<&str> = quoted.filter(|path| is_test_path(path)).collect();
        if tests.is_empty() {
            let remedy = "name it as `crate::path::test_name`";
            findings.push(Finding::new(INVARIANTS, line, "an invariant without a test", remedy));
        }
        for test in tests.into_iter().filter(|test| !has_test(tree, test)) {
            let what = format!("there is no test `{test}`");
            findings.push(Finding::new(INVARIANTS, line, what, "name the test that holds it"));
        }
    }
    findings
}

/// The numbered items under the heading, each with the line it begins on and all of its text.
fn items(text: &str) -> Vec<(usize, String)> {
    let mut items: Vec<(usize, String)> = Vec::new();
    let mut inside = false;
    for (number, line) in prose(text) {
        if line.starts_with('#') {
            inside = line.trim_start_matches('#').trim() == "Invariants";
        } else if inside && line.split_once(". ").is_some_and(|(head, _)| is_number(head)) {
            items.push((number, line.to_owned()));
        } else if let (true, Some((_, item))) = (inside, items.last_mut()) {
            item.push(' ');
            item.push_str(line);
        }
    }
    items
}

/// A path in lower case that begins with a crate of the house.
fn is_test_path(path: &str) -> bool {
    let is_ours = path.starts_with("twinspan") || path.starts_with("xtask");
    let is_name = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    is_ours && path.contains("::") && path.split("::").all(is_name)
}

/// Whether the crate that `path` begins with has a test of the name that it ends with, in a file that
/// the modules between them lead to.
fn has_test(tree: &Tree, path: &str) -> bool {
    let parts: Vec<&str> = path.split("::").collect();
    let [package, modules @ .., name] = parts.as_slice() else { return false };
    let directory = match *package {
        "xtask" => "xtask/".to_owned(),
        package => format!("crates/{}/", package.replace('_', "-")),
    };
    let mut files = tree.sources.iter();
    files.any(|(file, source)| {
        let inside = file.strip_prefix(&directory);
        inside.is_some_and(|file| leads_to(modules, file)) && source.has_test(name)
    })
}

/// Whether `file` of a package holds the module that `modules` name, or one around it.
fn leads_to(modules: &[&str], file: &str) -> bool {
    let Some((top, rest)) = file.trim_end_matches(".rs").split_once('/') else { return false };
    let ends = ["lib", "main", "mod"];
    let parts = rest.split('/').filter(|part| !ends.contains(part));
    matches!(top, "src" | "tests") && modules.starts_with(&parts.collect::<Vec<_>>())
}

/// Links to files of the tree must lead to one.
fn links(tree: &Tree, path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let all = prose(text).flat_map(|(at, line)| targets(line).into_iter().map(move |to| (at, to)));
    for (line, target) in all {
        let file = target.split(['#', '?']).next().unwrap_or_default();
        let elsewhere = target.contains("://") || target.starts_with("mailto:");
        if file.is_empty() || elsewhere {
            continue;
        }
        let resolved = resolve(parent(path), file);
        if !resolved.is_some_and(|file| tree.paths.contains(&file)) {
            let what = format!("the link `{target}` leads nowhere");
            findings.push(Finding::new(path, line, what, "name a file from this file's directory"));
        }
    }
    findings
}

/// What the links on a line of Markdown lead to: `[a](target)`, `![a](target "title")`, `[a]: target`.
fn targets(line: &str) -> Vec<String> {
    // What stands between backquotes is no link.
    let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("x");
    let mut found = Vec::new();
    for (_, after) in plain.match_indices("](").map(|(at, sign)| plain.split_at(at + sign.len())) {
        let inner = after.split(')').next().unwrap_or_default();
        let target = inner.split_whitespace().next().unwrap_or_default();
        found.push(target.trim_matches(['<', '>']).to_owned());
    }
    let reference = plain.trim_start().starts_with('[').then(|| plain.split_once("]: "));
    if let Some((_, target)) = reference.flatten() {
        found.push(target.split_whitespace().next().unwrap_or_default().to_owned());
    }
    found
}

/// `target` as seen from `directory`; `None` where it leaves the tree.
fn resolve(directory: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut at = directory.to_owned();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if at.is_empty() => return None,
            ".." => at = parent(&at).to_owned(),
            name => at = join(&at, name),
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests;
