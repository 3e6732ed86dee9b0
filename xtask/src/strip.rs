//! Takes comments, strings and character literals out of Rust text, and keeps every line in place.

/// A comment with its slashes, at the line where it begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Comment {
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl Comment {
    /// Whether it contains one of `words`.
    pub(crate) fn says_any(&self, words: &[&str]) -> bool {
        words.iter().any(|words| self.text.contains(words))
    }
}

/// Rust text taken apart.
pub(crate) struct Stripped {
    /// The text with blanks where comments, string contents and character literals stood; byte for
    /// byte as long as the text, with the same line breaks.
    pub(crate) code: String,
    pub(crate) comments: Vec<Comment>,
}

/// Takes `text` apart. Never fails: what is cut short reaches to the end of the text.
pub(crate) fn strip(text: &str) -> Stripped {
    let mut scanner = Scanner {
        text,
        at: 0,
        line: 1,
        code: Vec::with_capacity(text.len()),
        comments: Vec::new(),
    };
    scanner.run();
    Stripped {
        code: String::from_utf8_lossy(&scanner.code).into_owned(),
        comments: scanner.comments,
    }
}

/// Whether `byte` may stand in an identifier; all of a non-ASCII letter counts.
pub(crate) const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    code: Vec<u8>,
    comments: Vec<Comment>,
}

impl Scanner<'_> {
    fn run(&mut self) {
        while let Some(&byte) = self.rest().first() {
            if self.rest().starts_with(b"//") {
                self.comment(line_comment_len(self.rest()));
            } else if self.rest().starts_with(b"/*") {
                self.comment(block_comment_len(self.rest()));
            } else if byte == b'"' {
                self.literal(string_len(self.rest()));
            } else if byte == b'\'' {
                match char_len(self.rest()) {
                    Some(len) => self.blank(len),
                    None => self.keep(1),
                }
            } else if is_word(byte) {
                self.word();
            } else {
                self.keep(1);
            }
        }
    }

    fn rest(&self) -> &[u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn keep(&mut self, len: usize) {
        for _ in 0..len {
            let Some(&byte) = self.rest().first() else { return };
            self.line += usize::from(byte == b'\n');
            self.code.push(byte);
            self.at += 1;
        }
    }

    fn blank(&mut self, len: usize) {
        for _ in 0..len {
            let Some(&byte) = self.rest().first() else { return };
            self.line += usize::from(byte == b'\n');
            self.code.push(if byte == b'\n' { b'\n' } else { b' ' });
            self.at += 1;
        }
    }

    fn comment(&mut self, len: usize) {
        let bytes = self.rest().get(..len).unwrap_or_default();
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.comments.push(Comment { line: self.line, text });
        self.blank(len);
    }

    /// Keeps the first and the last byte, so that a literal is still seen to be there.
    fn literal(&mut self, len: usize) {
        self.keep(1);
        self.blank(len.saturating_sub(2));
        match self.rest().first() {
            Some(b'"' | b'#') if len > 1 => self.keep(1),
            _ => self.blank(len.min(1)),
        }
    }

    fn word(&mut self) {
        let len = self.rest().iter().take_while(|byte| is_word(**byte)).count();
        let (word, after) = self.rest().split_at(len);
        let raw = matches!(word, b"r" | b"br" | b"cr");
        let raw_len = raw.then(|| raw_string_len(after)).flatten();
        self.keep(len);
        if let Some(len) = raw_len {
            self.literal(len);
        }
    }
}

fn line_comment_len(rest: &[u8]) -> usize {
    rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
}

/// Block comments nest in Rust.
fn block_comment_len(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let here = rest.get(at..).unwrap_or_default();
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn string_len(rest: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = rest.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a raw string from its first `#` or quote, if one begins here; `r#name` is none.
fn raw_string_len(rest: &[u8]) -> Option<usize> {
    let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
    if rest.get(hashes) != Some(&b'"') {
        return None;
    }
    let mut at = hashes + 1;
    while at < rest.len() {
        let closing = rest.get(at + 1..at + 1 + hashes).unwrap_or_default();
        let closes = closing.len() == hashes && closing.iter().all(|byte| *byte == b'#');
        if rest.get(at) == Some(&b'"') && closes {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(rest.len())
}

/// The length of a character literal, or `None` where the quote begins a lifetime.
fn char_len(rest: &[u8]) -> Option<usize> {
    let first = *rest.get(1)?;
    if first == b'\\' {
        let after = rest.get(3..)?;
        return Some(after.iter().position(|byte| *byte == b'\'')? + 4);
    }
    let width = match first {
        0..0x80 => 1,
        0x80..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    };
    (rest.get(1 + width) == Some(&b'\'')).then_some(width + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words left in the code.
    fn words(text: &str) -> Vec<String> {
        let stripped = strip(text);
        assert_eq!(stripped.code.len(), text.len());
        assert_eq!(stripped.code.lines().count(), text.lines().count());
        let split = stripped.code.split(|c: char| !c.is_alphanumeric() && c != '_');
        split.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn line_comments_go_and_are_kept_apart() {
        let stripped = strip("a // b \"c\n/// d\ne");
        assert_eq!(words("a // b \"c\n/// d\ne"), ["a", "e"]);
        let comment = |line, text: &str| Comment { line, text: text.to_owned() };
        assert_eq!(stripped.comments, [comment(1, "// b \"c"), comment(2, "/// d")]);
    }

    #[test]
    fn block_comments_nest() {
        assert_eq!(words("a /* b /* c */ d\n */ e"), ["a", "e"]);
        assert_eq!(words("a /* never closed"), ["a"]);
    }

    #[test]
    fn strings_go_with_their_escapes() {
        assert_eq!(words(r#"a("b \" // c \\") d"#), ["a", "d"]);
        assert_eq!(words("a b\"c\" c\"d\" e"), ["a", "b", "c", "e"]);
        assert_eq!(words("a \"two\nlines\" e"), ["a", "e"]);
        assert_eq!(words("a \"never closed"), ["a"]);
    }

    #[test]
    fn raw_strings_end_at_their_own_hashes() {
        assert_eq!(words("a r##\"b \"# c\"## d"), ["a", "r", "d"]);
        assert_eq!(words("a br\"b \\\" d"), ["a", "br", "d"]);
        assert_eq!(words("r#type r"), ["r", "type", "r"]);
    }

    #[test]
    fn quotes_are_characters_or_lifetimes() {
        assert_eq!(words(r"a('\'') b"), ["a", "b"]);
        assert_eq!(words("a('\"') b // c"), ["a", "b"]);
        assert_eq!(words("a('é', '\\u{e9}') b"), ["a", "b"]);
        assert_eq!(words("fn f<'a>(x: &'a str) -> &'a u8"), {
            ["fn", "f", "a", "x", "a", "str", "a", "u8"]
        });
    }

    #[test]
    fn wide_letters_in_comments_keep_lengths() {
        assert_eq!(words("a // ä → ö\nb \"→\" c"), ["a", "b", "c"]);
    }
}
