//! The packages of the tree and what they depend on, as cargo resolves them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::env;
use std::path::Path;
use std::process::Command;

use crate::json::{self, Value};

/// Where the house's programs run; `deny.toml` names the same.
const PLATFORMS: [&str; 4] = [
    "aarch64-apple-darwin",
    "aarch64-unknown-linux-gnu",
    "x86_64-pc-windows-msvc",
    "x86_64-unknown-linux-gnu",
];

/// What cargo knows of the workspace.
#[derive(Default)]
pub(crate) struct Metadata {
    /// By cargo's id of them.
    pub(crate) packages: BTreeMap<String, Package>,
    /// The ids of this workspace's own packages.
    pub(crate) members: BTreeSet<String>,
}

/// One package in the resolved tree.
#[derive(Default)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    /// Where it comes from; `None` for a path.
    pub(crate) source: Option<String>,
    /// Its manifest, from the root of the workspace where it lies inside.
    pub(crate) manifest: String,
    /// What its manifest asks for.
    pub(crate) declared: Vec<Declared>,
    /// Ids of what it is built from, tests of its own left out.
    pub(crate) built_from: Vec<String>,
}

/// One line of a manifest that asks for a package.
pub(crate) struct Declared {
    pub(crate) name: String,
    /// Whether only tests and examples of the package use it.
    pub(crate) dev: bool,
}

impl Metadata {
    /// Asks cargo, with every feature on, so that optional arrows count too.
    ///
    /// # Errors
    /// One line: what cargo said, or why its answer cannot be read.
    pub(crate) fn read(root: &Path) -> Result<Self, String> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--all-features"])
            // What others would need in a browser, say, is nobody's here.
            .args(PLATFORMS.map(|platform| format!("--filter-platform={platform}")))
            .current_dir(root)
            .output()
            .map_err(|error| format!("cargo metadata did not start: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " | ");
            return Err(format!("cargo metadata failed: {said}"));
        }
        Self::parse(&String::from_utf8_lossy(&output.stdout))
    }

    /// Reads the answer of `cargo metadata --format-version 1`.
    ///
    /// # Errors
    /// One line that says what cannot be read.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let value = json::parse(text)?;
        let root = need(&value, "workspace_root")?;
        let mut packages = BTreeMap::new();
        for package in value.get("packages").list() {
            packages.insert(need(package, "id")?.to_owned(), read_package(package, root)?);
        }
        let manifests: BTreeMap<&str, &Value> = value
            .get("packages")
            .list()
            .iter()
            .filter_map(|package| Some((package.get("id").text()?, package)))
            .collect();
        let mut used_by: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for node in value.get("resolve").get("nodes").list() {
            let id = need(node, "id")?;
            let mut built_from = Vec::new();
            for dep in node.get("deps").list() {
                let to = need(dep, "pkg")?;
                let name = manifests.get(to).map_or(&Value::Null, |package| package.get("name"));
                let manifest = manifests.get(id).copied().unwrap_or(&Value::Null);
                if !is_asked_for(manifest, node, name.text().unwrap_or_default()) {
                    continue;
                }
                used_by.entry(id).or_default().push(to);
                if is_built_from(dep) {
                    built_from.push(to.to_owned());
                }
            }
            if let Some(package) = packages.get_mut(id) {
                package.built_from = built_from;
            }
        }
        let members = value.get("workspace_members").list().iter();
        let members: BTreeSet<String> =
            members.filter_map(Value::text).map(str::to_owned).collect();
        let mut left: Vec<&str> = members.iter().map(String::as_str).collect();
        let mut reached = BTreeSet::new();
        while let Some(id) = left.pop() {
            if reached.insert(id) {
                left.extend(used_by.get(id).into_iter().flatten());
            }
        }
        packages.retain(|id, _| reached.contains(id.as_str()));
        Ok(Self { packages, members })
    }

    /// This workspace's own packages.
    pub(crate) fn own(&self) -> impl Iterator<Item = (&str, &Package)> {
        let own = self.packages.iter().filter(|(id, _)| self.members.contains(*id));
        own.map(|(id, package)| (id.as_str(), package))
    }

    /// The shortest chain of names from the package `id` to one that `is_wanted`, both ends in it.
    pub(crate) fn chain(
        &self,
        id: &str,
        is_wanted: impl Fn(&Package) -> bool,
    ) -> Option<Vec<String>> {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut left = VecDeque::from([id]);
        while let Some(here) = left.pop_front() {
            let package = self.packages.get(here)?;
            if is_wanted(package) {
                let mut ids = vec![here];
                while let Some(before) = ids.last().and_then(|id| came_from.get(id)) {
                    ids.push(before);
                }
                let names = ids.iter().rev().filter_map(|id| self.packages.get(*id));
                return Some(names.map(|package| package.name.clone()).collect());
            }
            for next in &package.built_from {
                if next != id && !came_from.contains_key(next.as_str()) {
                    came_from.insert(next, here);
                    left.push_back(next);
                }
            }
        }
        None
    }
}

fn need<'a>(value: &'a Value, name: &str) -> Result<&'a str, String> {
    value.get(name).text().ok_or_else(|| format!("cargo metadata: no text in `{name}`"))
}

fn read_package(package: &Value, root: &str) -> Result<Package, String> {
    let manifest = need(package, "manifest_path")?;
    let inside = manifest.strip_prefix(root).map(|path| path.trim_start_matches('/'));
    let text = |name: &str| package.get(name).text().map(str::to_owned);
    let declared = package.get("dependencies").list().iter().map(|dependency| {
        let dev = dependency.get("kind").text() == Some("dev");
        need(dependency, "name").map(|name| Declared { name: name.to_owned(), dev })
    });
    Ok(Package {
        name: need(package, "name")?.to_owned(),
        version: need(package, "version")?.to_owned(),
        license: text("license"),
        source: text("source"),
        manifest: inside.unwrap_or(manifest).to_owned(),
        declared: declared.collect::<Result<_, String>>()?,
        built_from: Vec::new(),
    })
}

/// Whether a package really uses the one named `name`.
///
/// The lock file, and with it cargo's answer, also names what a weak feature (`name?/feature`) would
/// use if anybody asked for it; that is neither fetched for a build nor built.
fn is_asked_for(manifest: &Value, node: &Value, name: &str) -> bool {
    let is_member = manifest.get("source").text().is_none();
    let mut lines = manifest.get("dependencies").list().iter().filter(|line| {
        line.get("name").text() == Some(name)
            && (is_member || line.get("kind").text() != Some("dev"))
    });
    let optional = |line: &Value| matches!(line.get("optional"), Value::Bool(true));
    let keys: Vec<&str> =
        lines.clone().map(|line| line.get("rename").text().unwrap_or(name)).collect();
    if keys.is_empty() || lines.any(|line| !optional(line)) {
        return true;
    }
    let asks = |word: &str| {
        let asked = word.strip_prefix("dep:").unwrap_or(word);
        let asked = asked.split('/').next().unwrap_or_default();
        keys.contains(&asked)
    };
    let enabled = node.get("features").list().iter().filter_map(Value::text);
    enabled.into_iter().any(|feature| {
        let words = manifest.get("features").get(feature).list();
        asks(feature) || words.iter().filter_map(Value::text).any(asks)
    })
}

/// Whether a resolved dependency is more than a dev-dependency.
fn is_built_from(dep: &Value) -> bool {
    let kinds = dep.get("dep_kinds").list();
    kinds.is_empty() || kinds.iter().any(|kind| kind.get("kind").text() != Some("dev"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A workspace of the packages `(name, version, licence, source)` and arrows `(from, kind, to)`;
    /// packages without a source are members in `crates/`.
    pub(crate) fn planted(
        packages: &[(&str, &str, &str, Option<&str>)],
        arrows: &[(&str, &str, &str)],
    ) -> Metadata {
        let mut metadata = Metadata::default();
        for (name, version, license, source) in packages {
            let from = arrows.iter().filter(|(from, _, _)| from == name);
            let dev = |kind: &str| kind == "dev";
            let declared = from
                .clone()
                .map(|(_, kind, to)| Declared { name: (*to).to_owned(), dev: dev(kind) });
            let built_from = from.filter(|(_, kind, _)| *kind != "dev");
            let package = Package {
                name: (*name).to_owned(),
                version: (*version).to_owned(),
                license: (!license.is_empty()).then(|| (*license).to_owned()),
                source: source.map(str::to_owned),
                manifest: format!("crates/{name}/Cargo.toml"),
                declared: declared.collect(),
                built_from: built_from.map(|(_, _, to)| (*to).to_owned()).collect(),
            };
            if source.is_none() {
                metadata.members.insert((*name).to_owned());
            }
            // Only the first version of a name has arrows.
            let taken = metadata.packages.contains_key(*name);
            let id = if taken { format!("{name} {version}") } else { (*name).to_owned() };
            metadata.packages.insert(id, package);
        }
        metadata
    }

    const SAMPLE: &str = r#"{"packages": [
        {"id": "a-id", "name": "a", "version": "0.1.0", "license": "MIT", "source": null,
         "manifest_path": "/x/crates/a/Cargo.toml", "dependencies": [
            {"name": "b", "kind": null}, {"name": "c", "kind": "dev"}]},
        {"id": "b-id", "name": "b", "version": "1.0.0", "license": null, "source": "registry+r",
         "manifest_path": "/y/b/Cargo.toml", "dependencies": []},
        {"id": "c-id", "name": "c", "version": "1.0.0", "license": "MIT", "source": "registry+r",
         "manifest_path": "/y/c/Cargo.toml", "dependencies": []}],
        "workspace_members": ["a-id"], "workspace_root": "/x",
        "resolve": {"nodes": [{"id": "a-id", "deps": [
            {"pkg": "b-id", "dep_kinds": [{"kind": null}, {"kind": "dev"}]},
            {"pkg": "c-id", "dep_kinds": [{"kind": "dev"}]}]}]}}"#;

    #[test]
    fn cargos_answer_is_read() {
        let metadata = Metadata::parse(SAMPLE).unwrap();
        let (id, a) = metadata.own().next().unwrap();
        assert_eq!((id, a.manifest.as_str()), ("a-id", "crates/a/Cargo.toml"));
        assert_eq!(a.built_from, ["b-id"]);
        assert_eq!(a.declared.iter().map(|d| d.dev).collect::<Vec<_>>(), [false, true]);
        assert_eq!(metadata.packages["b-id"].license, None);
    }

    /// `b` can use `w` by a feature of its own, and only touches it weakly by another.
    fn weak(enabled: &str) -> Metadata {
        let text = r#"{"packages": [
            {"id": "a", "name": "a", "version": "0.1.0", "license": "MIT", "source": null,
             "manifest_path": "/x/crates/a/Cargo.toml", "dependencies": [{"name": "b"}]},
            {"id": "b", "name": "b", "version": "1.0.0", "license": "MIT", "source": "r",
             "manifest_path": "/y/b/Cargo.toml", "dependencies": [
                {"name": "w", "kind": null, "optional": true}, {"name": "w", "kind": "dev"}],
             "features": {"alloc": ["w?/alloc"], "with": ["dep:w"], "deep": ["w/deep"]}},
            {"id": "w", "name": "w", "version": "1.0.0", "license": "MIT", "source": "r",
             "manifest_path": "/y/w/Cargo.toml", "dependencies": []}],
            "workspace_members": ["a"], "workspace_root": "/x",
            "resolve": {"nodes": [
                {"id": "a", "deps": [{"pkg": "b", "dep_kinds": [{"kind": null}]}]},
                {"id": "b", "features": ["FEATURE"],
                 "deps": [{"pkg": "w", "dep_kinds": [{"kind": null}]}]}]}}"#;
        Metadata::parse(&text.replace("FEATURE", enabled)).unwrap()
    }

    #[test]
    fn what_only_a_weak_feature_names_is_not_in_the_tree() {
        for (feature, is_there) in [("alloc", false), ("with", true), ("deep", true), ("w", true)] {
            let metadata = weak(feature);
            assert_eq!(metadata.packages.contains_key("w"), is_there, "{feature}");
            assert_eq!(metadata.chain("a", |p| p.name == "w").is_some(), is_there, "{feature}");
        }
    }

    #[test]
    fn chains_are_shortest_and_leave_out_dev() {
        let metadata = Metadata::parse(SAMPLE).unwrap();
        assert_eq!(metadata.chain("a-id", |p| p.name == "b").unwrap(), ["a", "b"]);
        assert_eq!(metadata.chain("a-id", |p| p.name == "c"), None);
    }

    #[test]
    fn an_answer_without_ids_is_an_error() {
        let error = Metadata::parse(r#"{"workspace_root": "/x", "packages": [{}]}"#).err().unwrap();
        assert!(error.contains("`id`"));
    }
}
