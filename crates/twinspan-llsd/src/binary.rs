//! The binary form. Numbers are big-endian, but for the seconds of a date.

use std::borrow::Cow;

use uuid::Uuid;

use crate::cursor::Cursor;
use crate::date::Date;
use crate::error::{ParseError, Reason, WriteError};
use crate::limits::{Guard, Limits};
use crate::quoted;
use crate::token::{Nesting, Place, Sink, Source, Token};

/// What the form begins with when it has a header.
pub(crate) const HEADER: &[u8] = b"<? LLSD/Binary ?>\n";

/// Reads the binary form.
#[derive(Debug)]
pub(crate) struct BinarySource<'a> {
    cursor: Cursor<'a>,
    guard: Guard,
    open: Vec<Open>,
}

#[derive(Debug)]
enum Open {
    Array { left: u32 },
    Map { left: u32, has_key: bool },
}

impl<'a> BinarySource<'a> {
    pub(crate) const fn new(bytes: &'a [u8], limits: Limits) -> Self {
        Self { cursor: Cursor::new(bytes), guard: Guard::new(limits), open: Vec::new() }
    }

    /// The count before a container: of no more than could be there.
    fn count(&mut self, bytes_min: u64) -> Result<u32, ParseError> {
        let count = u32::from_be_bytes(*self.cursor.array("a count")?);
        let have = self.cursor.rest().len();
        if u64::from(count) * bytes_min > have as u64 {
            return Err(self.cursor.error(Reason::Count { count: count.into(), have }));
        }
        self.guard.enter(self.cursor.offset())?;
        Ok(count)
    }

    fn counted(&mut self) -> Result<&'a [u8], ParseError> {
        let count = u32::from_be_bytes(*self.cursor.array("a length")?);
        self.cursor.take(count.into())
    }

    fn text(&mut self) -> Result<Cow<'a, str>, ParseError> {
        let bytes = self.counted()?;
        self.cursor.utf8(bytes).map(Cow::Borrowed)
    }

    fn quoted(&mut self, quote: u8) -> Result<Cow<'a, str>, ParseError> {
        let bytes = quoted::read(&mut self.cursor, quote)?;
        quoted::text(&self.cursor, bytes)
    }

    fn key(&mut self) -> Result<Cow<'a, str>, ParseError> {
        self.guard.element(self.cursor.offset())?;
        match self.cursor.peek() {
            Some(b'k') => {
                self.cursor.byte("a key")?;
                self.text()
            }
            Some(quote @ (b'\'' | b'"')) => {
                self.cursor.byte("a key")?;
                self.quoted(quote)
            }
            _ => Err(self.cursor.unexpected("a key")),
        }
    }

    fn value(&mut self) -> Result<Token<'a>, ParseError> {
        self.guard.element(self.cursor.offset())?;
        let before = self.cursor.clone();
        Ok(match self.cursor.byte("a value")? {
            b'!' => Token::Undef,
            b'0' => Token::Boolean(false),
            b'1' => Token::Boolean(true),
            b'i' => Token::Integer(i32::from_be_bytes(*self.cursor.array("an integer")?)),
            b'r' => Token::Real(f64::from_be_bytes(*self.cursor.array("a real")?)),
            b'u' => Token::Uuid(Uuid::from_bytes(*self.cursor.array("a UUID")?)),
            b's' => Token::String(self.text()?),
            b'l' => Token::Uri(self.text()?),
            b'b' => Token::Binary(Cow::Borrowed(self.counted()?)),
            // Little-endian, whatever descriptions say: so do the viewer and all its kin.
            b'd' => Token::Date(Date(f64::from_le_bytes(*self.cursor.array("a date")?))),
            quote @ (b'\'' | b'"') => Token::String(self.quoted(quote)?),
            b'[' => {
                let left = self.count(1)?;
                self.open.push(Open::Array { left });
                Token::ArrayStart
            }
            b'{' => {
                // A key of no letters has two quotes, and its value a letter.
                let left = self.count(3)?;
                self.open.push(Open::Map { left, has_key: false });
                Token::MapStart
            }
            _ => return Err(before.unexpected("a value")),
        })
    }

    fn end(&mut self, byte: u8, token: Token<'a>) -> Result<Token<'a>, ParseError> {
        if !self.cursor.eat(byte) {
            return Err(self.cursor.unexpected("the end of a container"));
        }
        self.open.pop();
        self.guard.leave();
        Ok(token)
    }
}

impl<'a> Source<'a> for BinarySource<'a> {
    fn next(&mut self) -> Result<Token<'a>, ParseError> {
        match self.open.last_mut() {
            Some(Open::Array { left: 0 }) => self.end(b']', Token::ArrayEnd),
            Some(Open::Map { left: 0, has_key: false }) => self.end(b'}', Token::MapEnd),
            Some(Open::Map { left, has_key: has_key @ false }) => {
                *left -= 1;
                *has_key = true;
                self.key().map(Token::Key)
            }
            Some(Open::Map { has_key, .. }) => {
                *has_key = false;
                self.value()
            }
            Some(Open::Array { left }) => {
                *left -= 1;
                self.value()
            }
            None => self.value(),
        }
    }

    fn finish(&mut self) -> Result<(), ParseError> {
        self.cursor.finish()
    }

    fn offset(&self) -> usize {
        self.cursor.offset()
    }
}

/// Writes the binary form.
#[derive(Debug, Default)]
pub(crate) struct BinarySink {
    out: Vec<u8>,
    nesting: Nesting,
    /// Where the counts of the open containers stand, to be filled in at their ends.
    counts: Vec<usize>,
}

impl BinarySink {
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    fn counted(&mut self, kind: u8, bytes: &[u8]) -> Result<(), WriteError> {
        self.out.push(kind);
        self.out.extend_from_slice(&count(bytes.len())?);
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}

fn count(count: usize) -> Result<[u8; 4], WriteError> {
    u32::try_from(count).map(u32::to_be_bytes).map_err(|_| WriteError::TooMany { count })
}

impl Sink for BinarySink {
    fn token(&mut self, token: Token<'_>) -> Result<(), WriteError> {
        let place = self.nesting.take(&token)?;
        let out = &mut self.out;
        match token {
            Token::Undef => out.push(b'!'),
            Token::Boolean(value) => out.push(if value { b'1' } else { b'0' }),
            Token::Integer(value) => {
                out.push(b'i');
                out.extend_from_slice(&value.to_be_bytes());
            }
            Token::Real(value) => {
                out.push(b'r');
                out.extend_from_slice(&value.to_be_bytes());
            }
            Token::Uuid(value) => {
                out.push(b'u');
                out.extend_from_slice(value.as_bytes());
            }
            Token::String(text) => self.counted(b's', text.as_bytes())?,
            Token::Uri(text) => self.counted(b'l', text.as_bytes())?,
            Token::Binary(bytes) => self.counted(b'b', &bytes)?,
            Token::Date(Date(seconds)) => {
                out.push(b'd');
                out.extend_from_slice(&seconds.to_le_bytes());
            }
            Token::Key(text) => self.counted(b'k', text.as_bytes())?,
            Token::ArrayStart | Token::MapStart => {
                out.push(if token == Token::ArrayStart { b'[' } else { b'{' });
                self.counts.push(out.len());
                out.extend_from_slice(&[0; 4]);
            }
            Token::ArrayEnd | Token::MapEnd => {
                let entries = if let Place::End(entries) = place { entries } else { 0 };
                let entries = count(entries)?;
                let at = self.counts.pop().unwrap_or_default();
                if let Some(place) = out.get_mut(at..at + entries.len()) {
                    place.copy_from_slice(&entries);
                }
                out.push(if token == Token::ArrayEnd { b']' } else { b'}' });
            }
        }
        Ok(())
    }
}
