//! The form for people: notation.

use std::borrow::Cow;

use crate::convert;
use crate::cursor::Cursor;
use crate::date::Date;
use crate::error::{ParseError, Reason, WriteError};
use crate::limits::{Guard, Limits};
use crate::quoted;
use crate::texts::{base64, from_base16, from_base64, from_base85};
use crate::token::{Nesting, Place, Sink, Source, Token};

/// What the form begins with when it has a header.
pub(crate) const HEADER: &[u8] = b"<? llsd/notation ?>\n";

/// Reads notation.
#[derive(Debug)]
pub(crate) struct NotationSource<'a> {
    cursor: Cursor<'a>,
    guard: Guard,
    open: Vec<Open>,
}

#[derive(Clone, Copy, Debug)]
enum Open {
    Array { is_first: bool },
    Map { is_first: bool, has_key: bool },
}

impl<'a> NotationSource<'a> {
    pub(crate) const fn new(bytes: &'a [u8], limits: Limits) -> Self {
        Self { cursor: Cursor::new(bytes), guard: Guard::new(limits), open: Vec::new() }
    }

    fn skip_space(&mut self) {
        self.cursor.take_while(|byte| byte.is_ascii_whitespace());
    }

    /// Steps over what stands between two entries. A comma before the end does no harm.
    fn separator(&mut self, is_first: bool, end: u8) -> Result<(), ParseError> {
        self.skip_space();
        if is_first || self.cursor.peek() == Some(end) {
            return Ok(());
        }
        if !self.cursor.eat(b',') {
            return Err(self.cursor.unexpected("`,` or the end of the container"));
        }
        self.skip_space();
        Ok(())
    }

    fn end(&mut self, byte: u8, token: Token<'a>) -> Option<Token<'a>> {
        if !self.cursor.eat(byte) {
            return None;
        }
        self.open.pop();
        self.guard.leave();
        Some(token)
    }

    /// A quote, and what stands up to the other one.
    fn quoted(&mut self) -> Result<Cow<'a, [u8]>, ParseError> {
        match self.cursor.peek() {
            Some(quote @ (b'\'' | b'"')) => {
                self.cursor.eat(quote);
                quoted::read(&mut self.cursor, quote)
            }
            _ => Err(self.cursor.unexpected("a quote")),
        }
    }

    /// `(count)"raw"`: bytes without escapes.
    fn raw(&mut self) -> Result<&'a [u8], ParseError> {
        if !self.cursor.eat(b'(') {
            return Err(self.cursor.unexpected("`(` and a length"));
        }
        let digits = self.cursor.take_while(|byte| byte.is_ascii_digit());
        let count = core::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        let count = count.ok_or_else(|| self.cursor.not_text(digits, "a length"))?;
        if !self.cursor.eat(b')') {
            return Err(self.cursor.unexpected("`)` behind a length"));
        }
        let quote = self.cursor.peek();
        let Some(quote @ (b'\'' | b'"')) = quote else {
            return Err(self.cursor.unexpected("a quote"));
        };
        self.cursor.eat(quote);
        let bytes = self.cursor.take(count)?;
        if !self.cursor.eat(quote) {
            return Err(self.cursor.unexpected("the quote behind the bytes"));
        }
        Ok(bytes)
    }

    fn text(&mut self) -> Result<Cow<'a, str>, ParseError> {
        let bytes = self.quoted()?;
        quoted::text(&self.cursor, bytes)
    }

    fn raw_text(&mut self) -> Result<Cow<'a, str>, ParseError> {
        let bytes = self.raw()?;
        self.cursor.utf8(bytes).map(Cow::Borrowed)
    }

    fn key(&mut self) -> Result<Cow<'a, str>, ParseError> {
        self.guard.element(self.cursor.offset())?;
        let key = match self.cursor.peek() {
            Some(b'\'' | b'"') => self.text()?,
            Some(b's') => {
                self.cursor.eat(b's');
                self.raw_text()?
            }
            _ => return Err(self.cursor.unexpected("a key")),
        };
        self.skip_space();
        if !self.cursor.eat(b':') {
            return Err(self.cursor.unexpected("`:` behind a key"));
        }
        self.skip_space();
        Ok(key)
    }

    /// A text up to what cannot be a part of a number, an id or a word.
    fn word(&mut self) -> &'a [u8] {
        let fits =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_');
        self.cursor.take_while(fits)
    }

    fn parsed<T>(
        &mut self,
        wanted: &'static str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ParseError> {
        let word = self.word();
        let text = core::str::from_utf8(word).unwrap_or_default();
        let value = if text.is_empty() { None } else { read(text) };
        value.ok_or_else(|| self.cursor.not_text(word, wanted))
    }

    fn binary(&mut self) -> Result<Cow<'a, [u8]>, ParseError> {
        if self.cursor.peek() == Some(b'(') {
            return self.raw().map(Cow::Borrowed);
        }
        let base = self.cursor.take_while(|byte| byte.is_ascii_digit());
        let read = match base {
            b"16" => from_base16,
            b"64" => from_base64,
            b"85" => from_base85,
            _ => return Err(self.cursor.not_text(base, "a base of binary: 16, 64 or 85")),
        };
        let text = self.quoted()?;
        let bytes = read(&text);
        bytes.map(Cow::Owned).map_err(|_| self.cursor.not_text(&text, "binary of its base"))
    }

    fn boolean(&mut self) -> Result<Token<'a>, ParseError> {
        let value = self.parsed("a boolean", |word| match word {
            "1" => Some(true),
            "0" => Some(false),
            word if word.eq_ignore_ascii_case("t") => Some(true),
            word if word.eq_ignore_ascii_case("f") => Some(false),
            word => convert::boolean(word),
        })?;
        Ok(Token::Boolean(value))
    }

    fn value(&mut self) -> Result<Token<'a>, ParseError> {
        self.guard.element(self.cursor.offset())?;
        let Some(kind) = self.cursor.peek() else {
            return Err(self.cursor.error(Reason::Short { within: "a value" }));
        };
        if matches!(kind, b'1' | b'0' | b't' | b'T' | b'f' | b'F') {
            return self.boolean();
        }
        if matches!(kind, b'\'' | b'"') {
            return self.text().map(Token::String);
        }
        let before = self.cursor.clone();
        self.cursor.eat(kind);
        Ok(match kind {
            b'!' => Token::Undef,
            b'i' => Token::Integer(self.parsed("an integer", |word| word.parse().ok())?),
            b'r' => Token::Real(self.parsed("a real", convert::real)?),
            b'u' => Token::Uuid(self.parsed("a UUID", convert::uuid)?),
            b's' => Token::String(self.raw_text()?),
            b'l' => Token::Uri(self.text()?),
            b'd' => {
                let text = self.text()?;
                let date = if text.is_empty() { Some(Date(0.0)) } else { Date::parse(&text) };
                Token::Date(date.ok_or_else(|| self.cursor.not_text(text.as_bytes(), "a date"))?)
            }
            b'b' => Token::Binary(self.binary()?),
            b'[' => {
                self.guard.enter(self.cursor.offset())?;
                self.open.push(Open::Array { is_first: true });
                Token::ArrayStart
            }
            b'{' => {
                self.guard.enter(self.cursor.offset())?;
                self.open.push(Open::Map { is_first: true, has_key: false });
                Token::MapStart
            }
            _ => return Err(before.unexpected("a value")),
        })
    }
}

impl<'a> Source<'a> for NotationSource<'a> {
    fn next(&mut self) -> Result<Token<'a>, ParseError> {
        let open = self.open.last_mut();
        let before = open.as_deref().copied();
        match open {
            Some(Open::Array { is_first }) => *is_first = false,
            Some(Open::Map { is_first, has_key }) => {
                *is_first = false;
                *has_key = !*has_key;
            }
            None => {}
        }
        match before {
            Some(Open::Array { is_first }) => {
                self.separator(is_first, b']')?;
                match self.end(b']', Token::ArrayEnd) {
                    Some(end) => Ok(end),
                    None => self.value(),
                }
            }
            Some(Open::Map { is_first, has_key: false }) => {
                self.separator(is_first, b'}')?;
                match self.end(b'}', Token::MapEnd) {
                    Some(end) => Ok(end),
                    None => self.key().map(Token::Key),
                }
            }
            Some(Open::Map { has_key: true, .. }) => self.value(),
            None => {
                self.skip_space();
                self.value()
            }
        }
    }

    fn finish(&mut self) -> Result<(), ParseError> {
        self.cursor.finish()
    }

    fn offset(&self) -> usize {
        self.cursor.offset()
    }
}

/// Writes notation.
#[derive(Debug, Default)]
pub(crate) struct NotationSink {
    out: Vec<u8>,
    nesting: Nesting,
}

impl NotationSink {
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.out
    }
}

impl Sink for NotationSink {
    fn token(&mut self, token: Token<'_>) -> Result<(), WriteError> {
        let place = self.nesting.take(&token)?;
        let out = &mut self.out;
        if place == Place::Next {
            out.push(b',');
        }
        match token {
            Token::Undef => out.push(b'!'),
            Token::Boolean(value) => out.push(if value { b'1' } else { b'0' }),
            Token::Integer(value) => out.extend_from_slice(format!("i{value}").as_bytes()),
            Token::Real(value) => {
                out.push(b'r');
                out.extend_from_slice(convert::real_text(value).as_bytes());
            }
            Token::Uuid(value) => out.extend_from_slice(format!("u{value}").as_bytes()),
            Token::String(text) => quoted::write(&text, b'\'', out),
            Token::Uri(text) => {
                out.push(b'l');
                quoted::write(&text, b'"', out);
            }
            Token::Binary(bytes) => {
                out.extend_from_slice(b"b64\"");
                out.extend_from_slice(base64(&bytes).as_bytes());
                out.push(b'"');
            }
            Token::Date(date) => {
                let seconds = || WriteError::Date { seconds: date.0.to_string() };
                let text = date.to_text().ok_or_else(seconds)?;
                out.extend_from_slice(format!("d\"{text}\"").as_bytes());
            }
            Token::ArrayStart => out.push(b'['),
            Token::ArrayEnd => out.push(b']'),
            Token::MapStart => out.push(b'{'),
            Token::MapEnd => out.push(b'}'),
            Token::Key(text) => {
                quoted::write(&text, b'\'', out);
                out.push(b':');
            }
        }
        Ok(())
    }
}
