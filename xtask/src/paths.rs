//! The paths that code names: imports with their groups written out, and paths in expressions.

use crate::source::{Source, Token};
use crate::strip::is_word;

/// One path as code names it.
#[derive(Debug)]
pub(crate) struct NamedPath {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    /// Whether only tests see it.
    pub(crate) test: bool,
    pub(crate) kind: Kind,
}

/// How a path is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Imported under its own name.
    Import,
    /// Imported under another name.
    Renamed,
    /// Written in an expression, a type or an attribute.
    Plain,
}

impl NamedPath {
    /// Whether the path begins with these segments.
    pub(crate) fn starts_with(&self, start: &[&str]) -> bool {
        self.segments.len() >= start.len() && self.segments.iter().zip(start).all(|(a, b)| a == b)
    }
}

/// All paths of a file, in order.
pub(crate) fn paths(source: &Source) -> Vec<NamedPath> {
    let mut reader = Reader { tokens: &source.tokens, at: 0, found: Vec::new() };
    while reader.at < reader.tokens.len() {
        reader.step();
    }
    reader.found
}

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    found: Vec<NamedPath>,
}

impl<'a> Reader<'a> {
    fn text(&self, at: usize) -> &'a str {
        self.tokens.get(at).map_or("", |token| &token.text)
    }

    fn is_name(&self, at: usize) -> bool {
        self.text(at).bytes().next().is_some_and(|byte| is_word(byte) && !byte.is_ascii_digit())
    }

    fn step(&mut self) {
        let after_dot = self.at > 0 && self.text(self.at - 1) == ".";
        if self.text(self.at) == "use" && !after_dot && self.text(self.at + 1) != "<" {
            self.at += 1;
            self.tree(&mut Vec::new());
        } else if self.is_name(self.at) && !after_dot {
            self.plain();
        } else {
            self.at += 1;
        }
    }

    fn push(&mut self, segments: Vec<String>, at: usize, kind: Kind) {
        let Some(token) = self.tokens.get(at) else { return };
        if segments.is_empty() {
            return;
        }
        self.found.push(NamedPath { segments, line: token.line, test: token.test, kind });
    }

    fn plain(&mut self) {
        let start = self.at;
        let mut segments = vec![self.text(self.at).to_owned()];
        self.at += 1;
        while self.text(self.at) == "::" && self.is_name(self.at + 1) {
            segments.push(self.text(self.at + 1).to_owned());
            self.at += 2;
        }
        self.push(segments, start, Kind::Plain);
    }

    /// One branch of an import: `a::b`, `a::{b, c as d}`, `a::*`.
    fn tree(&mut self, segments: &mut Vec<String>) {
        let kept = segments.len();
        let start = self.at;
        loop {
            match self.text(self.at) {
                "::" => self.at += 1,
                "{" => {
                    self.group(segments);
                    break;
                }
                "*" => {
                    segments.push("*".to_owned());
                    self.at += 1;
                    self.push(segments.clone(), start, Kind::Import);
                    break;
                }
                "as" => {
                    self.at += 2;
                    self.push(segments.clone(), start, Kind::Renamed);
                    break;
                }
                _ if self.is_name(self.at) => {
                    segments.push(self.text(self.at).to_owned());
                    self.at += 1;
                }
                _ => {
                    self.push(segments.clone(), start, Kind::Import);
                    break;
                }
            }
        }
        segments.truncate(kept);
    }

    fn group(&mut self, segments: &mut Vec<String>) {
        self.at += 1;
        loop {
            match self.text(self.at) {
                "" => return,
                "}" => {
                    self.at += 1;
                    return;
                }
                "," => self.at += 1,
                _ => {
                    let before = self.at;
                    self.tree(segments);
                    // Text that is no Rust must not hold the reader in place.
                    self.at = self.at.max(before + 1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<String> {
        paths(&Source::new(text)).iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn groups_are_written_out() {
        let text = "use std::{time::{self, Duration}, net::*, io as other};";
        let want = ["std::time::self", "std::time::Duration", "std::net::*", "std::io"];
        assert_eq!(named(text), want);
    }

    #[test]
    fn renames_are_seen() {
        let source = Source::new("use a::b as c;");
        assert_eq!(paths(&source)[0].kind, Kind::Renamed);
    }

    #[test]
    fn paths_in_expressions_are_whole_and_methods_are_not_paths() {
        assert_eq!(named("a::b::c(1).d::<e::f>()"), ["a::b::c", "e::f"]);
        assert_eq!(named("::std::thread::spawn(f)"), ["std::thread::spawn", "f"]);
    }

    #[test]
    fn text_that_is_no_rust_ends() {
        assert_eq!(named("use {{{ ; = ) use"), ["use"]);
        assert_eq!(named("use"), Vec::<String>::new());
    }
}
