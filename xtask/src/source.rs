//! A Rust file as tokens, each with its line and whether only tests see it.

use crate::strip::{Comment, is_word, strip};

/// One Rust file, taken apart once for all rules.
pub(crate) struct Source {
    pub(crate) tokens: Vec<Token>,
    pub(crate) comments: Vec<Comment>,
    /// Names of modules in files of their own that only tests compile.
    pub(crate) test_modules: Vec<String>,
    pub(crate) lines: usize,
}

/// A word, a `::`, or any other single character of code.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    /// Counted from 1.
    pub(crate) line: usize,
    /// Whether it stands in an item under `#[cfg(test)]` or `#[test]`.
    pub(crate) test: bool,
}

impl Source {
    pub(crate) fn new(text: &str) -> Self {
        let stripped = strip(text);
        let mut tokens = tokenize(&stripped.code);
        let test_modules = mark_tests(&mut tokens);
        let comments = stripped.comments;
        Self { tokens, comments, test_modules, lines: text.lines().count() }
    }

    /// Marks all of the file as seen by tests alone.
    pub(crate) fn mark_all_tests(&mut self) {
        self.tokens.iter_mut().for_each(|token| token.test = true);
    }

    /// The tokens' texts from `at` on, as far as they go.
    pub(crate) fn texts(&self, at: usize) -> impl Iterator<Item = &str> {
        self.tokens.iter().skip(at).map(|token| token.text.as_str())
    }

    /// Whether the tokens from `at` on begin with `texts`.
    pub(crate) fn reads(&self, at: usize, texts: &[&str]) -> bool {
        self.texts(at).take(texts.len()).eq(texts.iter().copied())
    }

    /// Whether a comment on `line` or the line before contains one of `words`.
    pub(crate) fn is_remarked(&self, line: usize, words: &[&str]) -> bool {
        let near = |comment: &&Comment| comment.line == line || comment.line + 1 == line;
        self.comments.iter().filter(near).any(|comment| comment.says_any(words))
    }

    /// Whether there is a test function of this name.
    pub(crate) fn has_test(&self, name: &str) -> bool {
        (0..self.tokens.len()).any(|at| self.reads(at, &["fn", name]) && self.is_test_item(at))
    }

    /// Whether there is any test function.
    pub(crate) fn has_tests(&self) -> bool {
        (0..self.tokens.len()).any(|at| self.reads(at, &["fn"]) && self.is_test_item(at))
    }

    /// Whether an attribute that makes a test stands right before the `fn` at `at`.
    fn is_test_item(&self, at: usize) -> bool {
        let mut end = at;
        loop {
            while end > 0 && matches!(self.word_before(end), "pub" | "async" | "unsafe") {
                end -= 1;
            }
            if end == 0 || self.word_before(end) != "]" {
                return false;
            }
            let Some(start) = self.attribute_start(end - 1) else { return false };
            if is_test_attribute(self.tokens.get(start + 2..end - 1).unwrap_or_default()) {
                return true;
            }
            end = start;
        }
    }

    fn word_before(&self, at: usize) -> &str {
        at.checked_sub(1).and_then(|at| self.tokens.get(at)).map_or("", |token| &token.text)
    }

    /// Where the attribute whose `]` is at `close` has its `#`.
    fn attribute_start(&self, close: usize) -> Option<usize> {
        let mut depth = 0_usize;
        for at in (0..=close).rev() {
            match self.tokens.get(at)?.text.as_str() {
                "]" => depth += 1,
                "[" => depth = depth.checked_sub(1)?,
                _ => {}
            }
            if depth == 0 {
                return at.checked_sub(1).filter(|at| self.reads(*at, &["#"]));
            }
        }
        None
    }
}

fn tokenize(code: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let word = rest.bytes().take_while(|byte| is_word(*byte)).count();
        let len = match word {
            0 if rest.starts_with("::") => 2,
            0 => first.len_utf8(),
            len => len,
        };
        let (text, after) = rest.split_at(len);
        if !first.is_whitespace() {
            tokens.push(Token { text: text.to_owned(), line, test: false });
        }
        line += usize::from(first == '\n');
        rest = after;
    }
    tokens
}

/// Marks the items that only tests see and returns the names of such modules in other files.
fn mark_tests(tokens: &mut [Token]) -> Vec<String> {
    let mut modules = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let Some((end, attribute)) = attribute_at(tokens, at) else {
            at += 1;
            continue;
        };
        if !is_test_attribute(attribute) {
            at = end;
            continue;
        }
        if text(tokens, at + 1) == "!" {
            tokens.iter_mut().for_each(|token| token.test = true);
            return modules;
        }
        let mut item = end;
        while let Some((next, _)) = attribute_at(tokens, item) {
            item = next;
        }
        let close = item_end(tokens, item);
        let named = if text(tokens, item) == "pub" { item + 1 } else { item };
        if text(tokens, named) == "mod" && text(tokens, named + 2) == ";" {
            modules.push(text(tokens, named + 1).to_owned());
        }
        let inside = tokens.get_mut(at..close).unwrap_or_default();
        inside.iter_mut().for_each(|token| token.test = true);
        at = close;
    }
    modules
}

fn text(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| &token.text)
}

/// The attribute that begins at `at`: where it ends, and what stands between its brackets.
fn attribute_at(tokens: &[Token], at: usize) -> Option<(usize, &[Token])> {
    if text(tokens, at) != "#" {
        return None;
    }
    let open = if text(tokens, at + 1) == "!" { at + 2 } else { at + 1 };
    if text(tokens, open) != "[" {
        return None;
    }
    let mut depth = 0_usize;
    for (offset, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "[" => depth += 1,
            "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((offset + 1, tokens.get(open + 1..offset)?));
        }
    }
    None
}

/// `test`, `anything::test`, `cfg(test)` and `cfg(all(test, ..))`; not `cfg(any(test, ..))` and not
/// `cfg(not(test))`, which are compiled without tests too.
fn is_test_attribute(attribute: &[Token]) -> bool {
    let words: Vec<&str> = attribute.iter().map(|token| token.text.as_str()).collect();
    match words.as_slice() {
        ["test"] | [.., "::", "test"] | ["cfg", "(", "test", ")"] => true,
        ["cfg", "(", "all", "(", inner @ .., ")", ")"] => {
            let mut depth = 0_usize;
            inner.iter().any(|word| {
                match *word {
                    "(" => depth += 1,
                    ")" => depth = depth.saturating_sub(1),
                    _ => {}
                }
                depth == 0 && *word == "test"
            })
        }
        _ => false,
    }
}

/// Where the item that begins at `at` ends: after its first outer block or `;`, or before the
/// bracket that closes what it stands in.
fn item_end(tokens: &[Token], at: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, token) in tokens.iter().enumerate().skip(at) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" if depth == 0 => return offset,
            ")" | "]" => depth -= 1,
            "}" => {
                depth -= 1;
                if depth == 0 {
                    return offset + 1;
                }
            }
            ";" if depth == 0 => return offset + 1,
            _ => {}
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain_words(text: &str) -> Vec<String> {
        let source = Source::new(text);
        let plain = source.tokens.iter().filter(|token| !token.test);
        plain.map(|token| token.text.clone()).filter(|text| is_word(text.as_bytes()[0])).collect()
    }

    #[test]
    fn test_modules_are_marked_to_their_last_brace() {
        let text = "a\n#[cfg(test)]\nmod tests { fn b() { c } }\nd";
        assert_eq!(plain_words(text), ["a", "d"]);
    }

    #[test]
    fn test_functions_and_imports_are_marked() {
        assert_eq!(plain_words("#[test]\n#[should_panic]\nfn b() -> [u8; 2] { c }\nd"), ["d"]);
        assert_eq!(plain_words("#[cfg(all(test, unix))]\nuse a::b;\nd"), ["d"]);
        assert_eq!(plain_words("#[tokio::test]\nasync fn a() {}\nd"), ["d"]);
        assert_eq!(plain_words("#![cfg(test)]\nd"), Vec::<String>::new());
    }

    #[test]
    fn what_is_compiled_without_tests_too_is_not_marked() {
        assert_eq!(plain_words("#[cfg(any(test, unix))] fn b() {}").last().unwrap(), "b");
        assert_eq!(plain_words("#[cfg(not(test))] fn b() {}").last().unwrap(), "b");
        assert_eq!(plain_words("#[cfg(all(unix, not(test)))] fn b() {}").last().unwrap(), "b");
    }

    #[test]
    fn a_marked_last_field_does_not_hide_what_follows() {
        assert_eq!(plain_words("struct S { #[cfg(test)] a: u8 } fn d() {}"), {
            ["struct", "S", "fn", "d"]
        });
    }

    #[test]
    fn test_modules_in_other_files_are_named() {
        assert_eq!(Source::new("#[cfg(test)]\nmod tests;\nmod a;").test_modules, ["tests"]);
    }

    #[test]
    fn tests_are_found_by_name() {
        let source = Source::new("#[test]\n/// Doc.\n#[cfg(unix)]\nfn yes() {}\nfn no() {}");
        assert!(source.has_test("yes"));
        assert!(!source.has_test("no"));
        assert!(!source.has_test("absent"));
    }

    #[test]
    fn lines_are_counted_from_one() {
        let source = Source::new("a\n/* b\n */ c \"\n\" d");
        let lines: Vec<usize> = source.tokens.iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 3, 3, 4, 4]);
    }
}
