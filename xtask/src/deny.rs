//! Bans, licences and sources of all packages in the tree, as `deny.toml` lists them.

use std::collections::BTreeMap;
use std::mem;

use crate::metadata::{Metadata, Package};
use crate::report::Finding;
use crate::tree::Tree;

const POLICY: &str = "deny.toml";

/// The one place packages come from, by the name that cargo writes into the lock file.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The part of `deny.toml` that is checked here. The file is the truth for cargo-deny too.
#[derive(Debug, Default, PartialEq, Eq)]
struct Policy {
    banned: Vec<String>,
    licenses: Vec<String>,
}

/// Checks every package.
pub(crate) fn check(tree: &Tree, metadata: &Metadata) -> Vec<Finding> {
    let Some(text) = tree.texts.get(POLICY) else {
        return vec![Finding::new(POLICY, 1, "there is no deny.toml", "write the policy down")];
    };
    let policy = Policy::parse(text);
    let mut findings = Vec::new();
    for (list, name) in [(&policy.banned, "[bans] deny"), (&policy.licenses, "[licenses] allow")] {
        if list.is_empty() {
            let what = format!("no entry under {name}");
            findings.push(Finding::new(POLICY, 1, what, "a policy without entries checks nothing"));
        }
    }
    for package in metadata.packages.values() {
        findings.extend(package_findings(metadata, package, &policy));
    }
    findings
}

/// Packages that are there in more than one version, each with its versions.
pub(crate) fn duplicates(metadata: &Metadata) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in metadata.packages.values() {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    let several = versions.into_iter().filter(|(_, versions)| versions.len() > 1);
    several.map(|(name, versions)| format!("{name} {}", versions.join(", "))).collect()
}

fn package_findings(metadata: &Metadata, package: &Package, policy: &Policy) -> Vec<Finding> {
    let name = format!("package `{} {}`", package.name, package.version);
    let mut findings = Vec::new();
    if policy.banned.contains(&package.name) {
        let chains = metadata
            .own()
            .filter_map(|(own, _)| metadata.chain(own, |found| found.name == package.name));
        let shortest = chains.min_by_key(Vec::len);
        let used = shortest.map_or_else(|| "in tests only".to_owned(), |chain| chain.join(" -> "));
        let what = format!("{name} is banned ({used})");
        let remedy = "turn off the feature that asks for it, or take another package";
        findings.push(Finding::new("Cargo.lock", 1, what, remedy));
    }
    match package.source.as_deref() {
        None | Some(REGISTRY) => {}
        Some(source) => {
            let what = format!("{name} comes from {source}");
            findings.push(Finding::new("Cargo.lock", 1, what, "take a release from crates.io"));
        }
    }
    let license = package.license.as_deref().unwrap_or_default();
    if !is_allowed(license, &policy.licenses) {
        let what = format!("{name} has the licence `{license}`");
        let remedy = "take another package, or argue for the licence in deny.toml";
        findings.push(Finding::new("Cargo.lock", 1, what, remedy));
    }
    findings
}

impl Policy {
    /// Reads the two lists; all else in the file is for cargo-deny alone.
    fn parse(text: &str) -> Self {
        let mut policy = Self::default();
        let mut section = String::new();
        let mut statement = String::new();
        for line in text.lines() {
            statement.push_str(line.split('#').next().unwrap_or_default());
            statement.push(' ');
            // A list may run over lines.
            if statement.matches('[').count() > statement.matches(']').count() {
                continue;
            }
            let whole = mem::take(&mut statement);
            let whole = whole.trim();
            if let Some(name) = whole.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
                name.clone_into(&mut section);
            } else if let Some((key, value)) = whole.split_once('=') {
                match (section.as_str(), key.trim()) {
                    ("bans", "deny") => policy.banned = entries(value),
                    ("licenses", "allow") => policy.licenses = entries(value),
                    _ => {}
                }
            }
        }
        policy
    }
}

/// The entries of a list: `"a"`, or the crate of `{ crate = "a", reason = ".." }`.
fn entries(list: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in list.split(['{', '}']) {
        let is_table = part.trim_start().starts_with("crate");
        let quoted = part.split('"').skip(1).step_by(2).map(str::to_owned);
        found.extend(quoted.take(if is_table { 1 } else { usize::MAX }));
    }
    found
}

/// Whether an SPDX expression can be met by allowed licences alone.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut reader = Spdx { words: &words, at: 0, allowed };
    let allowed = reader.either();
    allowed && reader.at == words.len()
}

struct Spdx<'a> {
    words: &'a [&'a str],
    at: usize,
    allowed: &'a [String],
}

impl Spdx<'_> {
    fn take(&mut self, word: &str) -> bool {
        let found = self.words.get(self.at) == Some(&word);
        self.at += usize::from(found);
        found
    }

    fn either(&mut self) -> bool {
        let mut any = self.both();
        while self.take("OR") {
            any |= self.both();
        }
        any
    }

    fn both(&mut self) -> bool {
        let mut all = self.one();
        while self.take("AND") {
            all &= self.one();
        }
        all
    }

    fn one(&mut self) -> bool {
        if self.take("(") {
            let inner = self.either();
            return self.take(")") && inner;
        }
        let Some(word) = self.words.get(self.at) else { return false };
        self.at += 1;
        let mut name = (*word).to_owned();
        if self.take("WITH") {
            let exception = self.words.get(self.at).copied().unwrap_or_default();
            self.at += 1;
            name = format!("{name} WITH {exception}");
        }
        self.allowed.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::tests::planted;

    const DENY: &str = r#"
        [bans]
        multiple-versions = "warn"
        deny = [
            { crate = "ring", reason = "one crypto provider" }, # "not this"
            "instant",
        ]
        [licenses]
        confidence-threshold = 0.9
        allow = ["MIT", "Apache-2.0 WITH LLVM-exception"]
        [sources]
        allow-git = ["no"]
    "#;

    fn found(packages: &[(&str, &str, &str, Option<&str>)]) -> Vec<String> {
        let tree = Tree::of(&[("deny.toml", DENY)]);
        check(&tree, &planted(packages, &[])).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_policy_is_read() {
        let policy = Policy::parse(DENY);
        assert_eq!(policy.banned, ["ring", "instant"]);
        assert_eq!(policy.licenses, ["MIT", "Apache-2.0 WITH LLVM-exception"]);
    }

    #[test]
    fn a_banned_package_is_caught() {
        let lines = found(&[("ring", "0.17.0", "MIT", Some(REGISTRY))]);
        assert!(lines[0].contains("`ring 0.17.0` is banned"), "{lines:?}");
    }

    #[test]
    fn a_licence_outside_the_list_is_caught() {
        let lines = found(&[("a", "1.0.0", "LGPL-3.0", Some(REGISTRY))]);
        assert!(lines[0].contains("licence `LGPL-3.0`"), "{lines:?}");
        let lines = found(&[("a", "1.0.0", "", Some(REGISTRY))]);
        assert_eq!(lines.len(), 1, "a package without a licence is caught: {lines:?}");
    }

    #[test]
    fn another_source_is_caught() {
        let lines = found(&[("a", "1.0.0", "MIT", Some("git+https://example.org/a"))]);
        assert!(lines[0].contains("comes from git+https://example.org/a"), "{lines:?}");
    }

    #[test]
    fn what_the_policy_allows_passes() {
        let packages =
            [("a", "1.0.0", "MIT OR LGPL-3.0", Some(REGISTRY)), ("b", "1.0.0", "MIT", None)];
        assert_eq!(found(&packages), Vec::<String>::new());
    }

    #[test]
    fn an_empty_or_absent_policy_is_caught() {
        let none = Metadata::default();
        assert_eq!(check(&Tree::of(&[("deny.toml", "")]), &none).len(), 2);
        assert_eq!(check(&Tree::of(&[]), &none).len(), 1);
    }

    #[test]
    fn licence_expressions_are_weighed() {
        let allowed = ["MIT".to_owned(), "Apache-2.0 WITH LLVM-exception".to_owned()];
        let weigh = |expression| is_allowed(expression, &allowed);
        assert!(weigh("MIT"));
        assert!(weigh("GPL-3.0 OR MIT"));
        assert!(weigh("GPL-3.0/MIT"));
        assert!(weigh("MIT AND (GPL-3.0 OR Apache-2.0 WITH LLVM-exception)"));
        assert!(!weigh("MIT AND GPL-3.0"));
        assert!(!weigh("Apache-2.0"));
        assert!(!weigh("(MIT"));
        assert!(!weigh("MIT MIT"));
        assert!(!weigh(""));
    }

    #[test]
    fn two_versions_are_noted() {
        let packages = [
            ("a", "1.0.0", "MIT", Some(REGISTRY)),
            ("a", "2.0.0", "MIT", Some(REGISTRY)),
            ("b", "1.0.0", "MIT", Some(REGISTRY)),
        ];
        assert_eq!(duplicates(&planted(&packages, &[])), ["a 1.0.0, 2.0.0"]);
    }
}
