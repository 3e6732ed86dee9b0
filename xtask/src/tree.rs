//! The files of the tree, read once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use crate::source::Source;

/// Larger files are data, and no rule reads data.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Directories at which the walk stops; a build directory is known by its cache tag.
const SKIPPED: &[&str] = &[".git", "node_modules"];

/// Every text file by its path from the root, and every Rust file taken apart.
pub(crate) struct Tree {
    pub(crate) texts: BTreeMap<String, String>,
    pub(crate) sources: BTreeMap<String, Source>,
    /// Every path that exists, directories and data included; the root is the empty one.
    pub(crate) paths: BTreeSet<String>,
}

impl Tree {
    /// Reads the tree below `root`.
    ///
    /// # Errors
    /// What the file system answers.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let mut paths = BTreeSet::from([String::new()]);
        let mut texts = BTreeMap::new();
        let mut left = vec![String::new()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(root.join(&directory))? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = join(&directory, &name);
                if entry.file_type()?.is_dir() {
                    let built = entry.path().join("CACHEDIR.TAG").exists();
                    if !built && !SKIPPED.contains(&name.as_str()) {
                        left.push(path.clone());
                        paths.insert(path);
                    }
                    continue;
                }
                let small = entry.metadata()?.len() <= FILE_BYTES_MAX;
                if let (true, Ok(text)) = (small, String::from_utf8(fs::read(entry.path())?)) {
                    texts.insert(path.clone(), text);
                }
                paths.insert(path);
            }
        }
        Ok(Self::new(texts, paths))
    }

    fn new(texts: BTreeMap<String, String>, paths: BTreeSet<String>) -> Self {
        let rust = texts.iter().filter(|(path, _)| path.ends_with(".rs"));
        let mut sources: BTreeMap<String, Source> =
            rust.map(|(path, text)| (path.clone(), Source::new(text))).collect();
        mark_test_files(&mut sources);
        Self { texts, sources, paths }
    }

    /// A tree of these files, for tests of rules.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let texts: BTreeMap<String, String> =
            files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        let mut paths: BTreeSet<String> = BTreeSet::from([String::new()]);
        for path in texts.keys() {
            let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            paths.extend(ends.filter_map(|end| path.get(..end)).map(str::to_owned));
        }
        Self::new(texts, paths)
    }
}

/// `directory` and `name` as one path from the root.
pub(crate) fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// The directory a path stands in; empty at the root.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// Files that only tests compile: those under a package's `tests`, `benches` or `examples`, and the
/// modules that are declared under `#[cfg(test)]`.
fn mark_test_files(sources: &mut BTreeMap<String, Source>) {
    let mut roots = Vec::new();
    for (path, source) in sources.iter() {
        let name = path.rsplit('/').next().unwrap_or_default();
        let directory = match name {
            "lib.rs" | "main.rs" | "mod.rs" => parent(path).to_owned(),
            _ => path.trim_end_matches(".rs").to_owned(),
        };
        roots.extend(source.test_modules.iter().map(|module| join(&directory, module)));
    }
    for (path, source) in sources.iter_mut() {
        let below = |root: &String| {
            let rest = path.strip_prefix(root.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        let outside = ["/tests/", "/benches/", "/examples/"];
        let apart = !path.contains("/src/") && outside.iter().any(|name| path.contains(name));
        if apart || roots.iter().any(below) {
            source.mark_all_tests();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_tests(tree: &Tree, path: &str) -> bool {
        tree.sources[path].tokens.iter().all(|token| token.test)
    }

    #[test]
    fn modules_under_cfg_test_are_tests_to_the_bottom() {
        let tree = Tree::of(&[
            ("crates/a/src/lib.rs", "#[cfg(test)] mod tests; mod b;"),
            ("crates/a/src/tests.rs", "mod deep;"),
            ("crates/a/src/tests/deep.rs", "fn f() {}"),
            ("crates/a/src/b.rs", "#[cfg(test)] mod tests; fn f() {}"),
            ("crates/a/src/b/tests.rs", "fn f() {}"),
            ("crates/a/src/b/other.rs", "fn f() {}"),
            ("crates/a/tests/it/main.rs", "fn f() {}"),
        ]);
        assert!(all_tests(&tree, "crates/a/src/tests.rs"));
        assert!(all_tests(&tree, "crates/a/src/tests/deep.rs"));
        assert!(all_tests(&tree, "crates/a/src/b/tests.rs"));
        assert!(all_tests(&tree, "crates/a/tests/it/main.rs"));
        assert!(!all_tests(&tree, "crates/a/src/b.rs"));
        assert!(!all_tests(&tree, "crates/a/src/b/other.rs"));
    }

    #[test]
    fn paths_hold_directories_too() {
        let tree = Tree::of(&[("a/b/c.md", "")]);
        assert_eq!(tree.paths.iter().collect::<Vec<_>>(), ["", "a", "a/b", "a/b/c.md"]);
    }
}
