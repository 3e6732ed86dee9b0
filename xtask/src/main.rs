//! `cargo xtask check`: the rules of the house that cargo, clippy and the compiler cannot say.
#![forbid(unsafe_code)]

mod deny;
mod docs;
mod hygiene;
mod json;
mod layers;
mod lludp;
mod metadata;
mod names;
mod paths;
mod report;
mod source;
mod strip;
mod tree;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use metadata::Metadata;
use tree::Tree;

const USAGE: &str = "usage: cargo xtask check   the rules of CONTRIBUTING.md over the whole tree
       cargo xtask lludp   makes crates/twinspan-lludp/src/messages from messages.txt there";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["check"] => check(),
        ["lludp"] => match lludp::generate(&root()) {
            Ok(files) => {
                println!("xtask lludp: {files} files");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("xtask lludp: {error}");
                ExitCode::FAILURE
            }
        },
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        [] => refuse("no task given"),
        ["check", rest @ ..] => refuse(&format!("check takes no argument `{}`", rest.join(" "))),
        [task, ..] => refuse(&format!("unknown task `{task}`")),
    }
}

/// A mistake of the caller: status 2, as every command of Twinspan answers it.
fn refuse(what: &str) -> ExitCode {
    eprintln!("xtask: {what}; {USAGE}");
    ExitCode::from(2)
}

/// Runs every rule and prints one line for each finding.
fn check() -> ExitCode {
    let root = root();
    let tree = match Tree::read(&root) {
        Ok(tree) => tree,
        Err(error) => return refuse(&format!("the tree cannot be read: {error}")),
    };
    let metadata = match Metadata::read(&root) {
        Ok(metadata) => metadata,
        Err(error) => return refuse(&error),
    };
    let mut findings = layers::check(&tree, &metadata);
    findings.extend(deny::check(&tree, &metadata));
    findings.extend(names::check(&tree));
    findings.extend(names::check_table(&tree));
    findings.extend(hygiene::check(&tree));
    findings.extend(lludp::check(&tree));
    findings.extend(docs::check(&tree));
    findings.sort();
    for finding in &findings {
        eprintln!("{finding}");
    }
    for duplicate in deny::duplicates(&metadata) {
        println!("note: several versions of one package: {duplicate}");
    }
    let (files, packages) = (tree.sources.len(), metadata.packages.len());
    if findings.is_empty() {
        println!("xtask check: ok, {files} Rust files and {packages} packages");
        return ExitCode::SUCCESS;
    }
    eprintln!("xtask check: {} findings in {files} Rust files", findings.len());
    ExitCode::FAILURE
}

/// The root of the workspace: this package's directory is right below it.
fn root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    package.as_deref().and_then(Path::parent).map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}
