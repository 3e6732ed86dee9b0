//! Arrows between crates point to smaller layers, and machines have no runtime below them.

use crate::metadata::{Metadata, Package};
use crate::report::Finding;
use crate::tree::Tree;

/// Every crate of the house and its layer. A crate depends only on smaller numbers.
pub(crate) const LAYERS: &[(&str, u8)] = &[
    ("twinspan-core", 0),
    ("twinspan-aead", 1),
    ("twinspan-admission", 1),
    ("twinspan-llsd", 1),
    ("twinspan-reliable", 1),
    ("twinspan-world", 1),
    ("twinspan-fence", 2),
    ("twinspan-lludp", 2),
    ("twinspan-messages", 2),
    ("twinspan-messages-build", 2),
    ("twinspan-record", 2),
    ("twinspan-session", 2),
    ("twinspan-provider", 2),
    ("twinspan-circuit", 3),
    ("twinspan-http", 3),
    ("twinspan-xmlrpc", 2),
    ("twinspan-net", 3),
    ("twinspan-sim", 3),
    ("twinspan-topic", 3),
    ("twinspan-peer", 4),
    ("twinspan-relay", 4),
    ("twinspan-store", 4),
    ("twinspan-hub", 5),
    ("twinspan-viewer", 5),
    ("twinspan-grid", 5),
    ("twinspan-game", 5),
    ("twinspan", 6),
    ("twinspan-fuzz", 6),
    ("twinspan-bench", 6),
    ("twinspan-cli", 7),
];

/// Crates that no runtime may stand below, besides those of layers 0 and 1.
const RUNTIME_FREE: &[&str] =
    &["twinspan-circuit", "twinspan-lludp", "twinspan-session", "twinspan-topic"];

/// What counts as a runtime: it waits, it opens sockets, or it runs tasks.
const RUNTIMES: &[&str] = &[
    "async-executor",
    "async-io",
    "async-std",
    "compio",
    "futures-executor",
    "glommio",
    "io-uring",
    "mio",
    "monoio",
    "polling",
    "smol",
    "socket2",
    "tokio",
    "tokio-uring",
    "tokio-util",
];

const TABLE: &str = "LAYERS in xtask/src/layers.rs";

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}

/// Checks every arrow of the workspace.
pub(crate) fn check(tree: &Tree, metadata: &Metadata) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (id, package) in metadata.own() {
        if package.name == "xtask" {
            findings.extend(std_only(tree, package));
            continue;
        }
        let Some(own) = layer(&package.name) else {
            let what = format!("crate `{}` has no layer", package.name);
            findings.push(Finding::new(&package.manifest, 1, what, format!("add it to {TABLE}")));
            continue;
        };
        findings.extend(arrows(tree, metadata, package, own));
        if own <= 1 || RUNTIME_FREE.contains(&package.name.as_str()) {
            findings.extend(runtime(tree, metadata, id, package));
        }
    }
    findings
}

/// The line of a manifest on which a dependency stands; the first line where it cannot be found.
fn line_of(tree: &Tree, manifest: &str, name: &str) -> usize {
    let names = |line: &str| {
        let head = line.trim_start().trim_start_matches('"');
        let word = head.strip_prefix(name);
        let entry = word.is_some_and(|rest| rest.starts_with(['.', ' ', '=', '"']));
        entry || line.contains(&format!("dependencies.{name}]"))
    };
    let text = tree.texts.get(manifest).map_or("", String::as_str);
    text.lines().position(names).map_or(1, |at| at + 1)
}

fn std_only(tree: &Tree, package: &Package) -> Vec<Finding> {
    let remedy = "write it with std: xtask must build in a moment and without a network";
    let finding = |name: &String| {
        let line = line_of(tree, &package.manifest, name);
        Finding::new(&package.manifest, line, format!("xtask depends on `{name}`"), remedy)
    };
    package.declared.iter().map(|declared| finding(&declared.name)).collect()
}

fn arrows(tree: &Tree, metadata: &Metadata, package: &Package, own: u8) -> Vec<Finding> {
    let mut findings = Vec::new();
    for declared in package.declared.iter().filter(|declared| !declared.dev) {
        if !metadata.own().any(|(_, member)| member.name == declared.name) {
            continue;
        }
        let (what, remedy) = match layer(&declared.name) {
            Some(other) if other < own => continue,
            Some(other) => (
                format!(
                    "`{}` (layer {own}) depends on `{}` (layer {other})",
                    package.name, declared.name
                ),
                "depend only on smaller layers, or move what is shared down".to_owned(),
            ),
            None => (
                format!("`{}` depends on `{}`, which has no layer", package.name, declared.name),
                format!("add it to {TABLE}"),
            ),
        };
        let line = line_of(tree, &package.manifest, &declared.name);
        findings.push(Finding::new(&package.manifest, line, what, remedy));
    }
    findings
}

fn runtime(tree: &Tree, metadata: &Metadata, id: &str, package: &Package) -> Option<Finding> {
    let chain = metadata.chain(id, |found| RUNTIMES.contains(&found.name.as_str()))?;
    let first = chain.get(1).map_or("", String::as_str);
    Some(Finding::new(
        &package.manifest,
        line_of(tree, &package.manifest, first),
        format!("`{}` has a runtime below it: {}", package.name, chain.join(" -> ")),
        "keep waiting and sockets in drivers, behind the seam of twinspan-provider",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::tests::planted;

    const REGISTRY: Option<&str> = Some("registry+r");

    fn lines(tree: &Tree, metadata: &Metadata) -> Vec<String> {
        check(tree, metadata).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_arrow_that_points_up_is_caught_with_its_line() {
        let manifest = "[package]\n[dependencies]\ntwinspan-net.workspace = true\n";
        let tree = Tree::of(&[("crates/twinspan-session/Cargo.toml", manifest)]);
        let own = |name| (name, "1.0.0", "MIT", None);
        let metadata = planted(
            &[own("twinspan-session"), own("twinspan-net")],
            &[("twinspan-session", "", "twinspan-net")],
        );
        let found = lines(&tree, &metadata);
        let start = "crates/twinspan-session/Cargo.toml:3: `twinspan-session` (layer 2)";
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with(start), "{}", found[0]);
    }

    #[test]
    fn an_arrow_within_a_layer_and_a_build_arrow_are_caught() {
        let own = |name| (name, "1.0.0", "MIT", None);
        let members = [own("twinspan-world"), own("twinspan-reliable")];
        let arrow = [("twinspan-world", "build", "twinspan-reliable")];
        assert_eq!(check(&Tree::of(&[]), &planted(&members, &arrow)).len(), 1);
    }

    #[test]
    fn arrows_down_and_dev_arrows_pass() {
        let own = |name| (name, "1.0.0", "MIT", None);
        let metadata = planted(
            &[own("twinspan-core"), own("twinspan-game"), own("twinspan-sim")],
            &[
                ("twinspan-game", "", "twinspan-core"),
                ("twinspan-core", "dev", "twinspan-sim"),
                ("twinspan-game", "dev", "twinspan-sim"),
            ],
        );
        assert_eq!(lines(&Tree::of(&[]), &metadata), Vec::<String>::new());
    }

    #[test]
    fn an_unknown_crate_is_told_where_to_sign_in() {
        let metadata = planted(&[("twinspan-new", "1.0.0", "MIT", None)], &[]);
        let found = lines(&Tree::of(&[]), &metadata);
        assert_eq!(
            found,
            ["crates/twinspan-new/Cargo.toml:1: crate `twinspan-new` has no layer; \
              add it to LAYERS in xtask/src/layers.rs"]
        );
    }

    #[test]
    fn a_runtime_deep_below_a_machine_is_caught_with_its_chain() {
        let packages = [
            ("twinspan-session", "1.0.0", "MIT", None),
            ("helper", "1.0.0", "MIT", REGISTRY),
            ("tokio", "1.0.0", "MIT", REGISTRY),
        ];
        let arrows = [("twinspan-session", "", "helper"), ("helper", "", "tokio")];
        let found = lines(&Tree::of(&[]), &planted(&packages, &arrows));
        assert!(found[0].contains("twinspan-session -> helper -> tokio"), "{found:?}");
    }

    #[test]
    fn a_runtime_of_tests_alone_and_one_below_the_seam_pass() {
        let packages = [
            ("twinspan-session", "1.0.0", "MIT", None),
            ("twinspan-provider", "1.0.0", "MIT", None),
            ("tokio", "1.0.0", "MIT", REGISTRY),
        ];
        let arrows = [("twinspan-session", "dev", "tokio"), ("twinspan-provider", "", "tokio")];
        assert_eq!(lines(&Tree::of(&[]), &planted(&packages, &arrows)), Vec::<String>::new());
    }

    #[test]
    fn xtask_stays_std_only() {
        let packages = [("xtask", "1.0.0", "MIT", None), ("serde", "1.0.0", "MIT", REGISTRY)];
        let found = lines(&Tree::of(&[]), &planted(&packages, &[("xtask", "", "serde")]));
        assert!(found[0].contains("xtask depends on `serde`"), "{found:?}");
    }
}
