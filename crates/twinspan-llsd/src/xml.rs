//! The XML form.

use std::borrow::Cow;

use crate::convert;
use crate::date::Date;
use crate::error::{ParseError, Reason, WriteError};
use crate::limits::{Guard, Limits};
use crate::markup::{Markup, Tag, escape};
use crate::texts::{base64, from_base16, from_base64, from_base85};
use crate::token::{Nesting, Sink, Source, Token};

/// What the form begins with.
pub(crate) const HEADER: &[u8] = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// Reads the XML form.
#[derive(Debug)]
pub(crate) struct XmlSource<'a> {
    markup: Markup<'a>,
    guard: Guard,
    open: Vec<Open>,
    root: Root,
}

#[derive(Debug)]
enum Open {
    Array,
    Map { has_key: bool },
}

/// What surrounds the value.
#[derive(Debug, PartialEq, Eq)]
enum Root {
    Unknown,
    /// The element `llsd`, which is open.
    Element,
    /// Nothing, or an element that is over.
    Nothing,
}

impl<'a> XmlSource<'a> {
    pub(crate) fn new(bytes: &'a [u8], limits: Limits) -> Result<Self, ParseError> {
        let markup = Markup::new(bytes)?;
        Ok(Self { markup, guard: Guard::new(limits), open: Vec::new(), root: Root::Unknown })
    }

    fn element(&mut self) -> Result<(), ParseError> {
        self.guard.element(self.markup.offset())
    }

    /// The whole document.
    fn whole(&mut self) -> Result<Token<'a>, ParseError> {
        let Some(tag) = self.markup.child()? else {
            return Err(self
                .markup
                .error(Reason::Short { within: "a document without an element" }));
        };
        if tag.name() != "llsd" {
            self.root = Root::Nothing;
            return self.value(&tag);
        }
        match self.markup.child()? {
            Some(tag) => {
                self.root = Root::Element;
                self.value(&tag)
            }
            None => {
                self.root = Root::Nothing;
                Ok(Token::Undef)
            }
        }
    }

    fn parsed<T>(
        &mut self,
        wanted: &'static str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ParseError> {
        let text = self.markup.text()?;
        let text = text.trim();
        read(text).ok_or_else(|| self.markup.not_text(text, wanted))
    }

    fn value(&mut self, tag: &Tag<'_>) -> Result<Token<'a>, ParseError> {
        self.element()?;
        Ok(match tag.name() {
            "undef" => {
                self.parsed("nothing", |text| text.is_empty().then_some(()))?;
                Token::Undef
            }
            "boolean" => Token::Boolean(self.parsed("a boolean", convert::boolean)?),
            "integer" => {
                let read = |text: &str| if text.is_empty() { Some(0) } else { text.parse().ok() };
                Token::Integer(self.parsed("an integer of 32 bits", read)?)
            }
            "real" => Token::Real(self.parsed("a real", convert::real)?),
            "uuid" => Token::Uuid(self.parsed("a UUID", convert::uuid)?),
            "string" => Token::String(self.markup.text()?),
            "uri" => Token::Uri(self.markup.text()?),
            "date" => {
                let read = |text: &str| {
                    if text.is_empty() { Some(Date::default()) } else { Date::parse(text) }
                };
                Token::Date(self.parsed("a date", read)?)
            }
            "binary" => Token::Binary(self.binary(tag)?),
            "array" => {
                self.guard.enter(self.markup.offset())?;
                self.open.push(Open::Array);
                Token::ArrayStart
            }
            "map" => {
                self.guard.enter(self.markup.offset())?;
                self.open.push(Open::Map { has_key: false });
                Token::MapStart
            }
            _ => return Err(self.markup.unexpected(tag, "an element of LLSD")),
        })
    }

    fn binary(&mut self, tag: &Tag<'_>) -> Result<Cow<'a, [u8]>, ParseError> {
        let read = match tag.attribute("encoding").as_deref() {
            None | Some("" | "base64") => from_base64,
            Some("base16") => from_base16,
            Some("base85") => from_base85,
            Some(other) => {
                return Err(self.markup.not_text(other, "an encoding: base16, base64 or base85"));
            }
        };
        let text = self.markup.text()?;
        let bytes = read(text.as_bytes());
        bytes.map(Cow::Owned).map_err(|error| {
            self.markup.not_text(
                &text,
                match error {
                    crate::TextError::Base16 => "base 16",
                    crate::TextError::Base64 => "base 64",
                    crate::TextError::Base85 => "base 85",
                },
            )
        })
    }

    fn end(&mut self, token: Token<'a>) -> Token<'a> {
        self.open.pop();
        self.guard.leave();
        token
    }
}

impl<'a> Source<'a> for XmlSource<'a> {
    fn next(&mut self) -> Result<Token<'a>, ParseError> {
        if self.open.is_empty() {
            return self.whole();
        }
        let tag = self.markup.child()?;
        match (self.open.last_mut(), tag) {
            (Some(Open::Array), Some(tag)) => self.value(&tag),
            (Some(Open::Array) | None, None) => Ok(self.end(Token::ArrayEnd)),
            (Some(Open::Map { has_key: true }), None) => {
                Err(self.markup.error(Reason::Short { within: "a map: a key has no value" }))
            }
            (Some(Open::Map { .. }), None) => Ok(self.end(Token::MapEnd)),
            (Some(Open::Map { has_key: has_key @ true }), Some(tag)) => {
                *has_key = false;
                self.value(&tag)
            }
            (Some(Open::Map { has_key }), Some(tag)) if tag.name() == "key" => {
                *has_key = true;
                self.element()?;
                self.markup.text().map(Token::Key)
            }
            (_, Some(tag)) => Err(self.markup.unexpected(&tag, "a key")),
        }
    }

    fn finish(&mut self) -> Result<(), ParseError> {
        if self.root == Root::Element && self.markup.child()?.is_some() {
            return Err(self.markup.error(Reason::Trailing));
        }
        self.markup.finish()
    }

    fn offset(&self) -> usize {
        self.markup.offset()
    }
}

/// Writes the XML form.
#[derive(Debug)]
pub(crate) struct XmlSink {
    out: Vec<u8>,
    nesting: Nesting,
}

impl Default for XmlSink {
    fn default() -> Self {
        Self { out: b"<llsd>".to_vec(), nesting: Nesting::default() }
    }
}

impl XmlSink {
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        self.out.extend_from_slice(b"</llsd>");
        self.out
    }

    fn text(&mut self, name: &str, text: &str) -> Result<(), WriteError> {
        self.raw(&["<", name, ">"]);
        escape(text, &mut self.out).map_err(|found| WriteError::Character { found })?;
        self.raw(&["</", name, ">"]);
        Ok(())
    }

    fn raw(&mut self, pieces: &[&str]) {
        for piece in pieces {
            self.out.extend_from_slice(piece.as_bytes());
        }
    }
}

impl Sink for XmlSink {
    fn token(&mut self, token: Token<'_>) -> Result<(), WriteError> {
        self.nesting.take(&token)?;
        match token {
            Token::Undef => self.raw(&["<undef/>"]),
            Token::Boolean(true) => self.raw(&["<boolean>1</boolean>"]),
            Token::Boolean(false) => self.raw(&["<boolean>0</boolean>"]),
            Token::Integer(value) => self.text("integer", &value.to_string())?,
            Token::Real(value) => self.text("real", &convert::real_text(value))?,
            Token::Uuid(value) => self.text("uuid", &value.to_string())?,
            Token::String(text) => self.text("string", &text)?,
            Token::Uri(text) => self.text("uri", &text)?,
            Token::Binary(bytes) => {
                self.raw(&["<binary encoding=\"base64\">", &base64(&bytes), "</binary>"]);
            }
            Token::Date(date) => {
                let seconds = || WriteError::Date { seconds: date.0.to_string() };
                self.text("date", &date.to_text().ok_or_else(seconds)?)?;
            }
            Token::ArrayStart => self.raw(&["<array>"]),
            Token::ArrayEnd => self.raw(&["</array>"]),
            Token::MapStart => self.raw(&["<map>"]),
            Token::MapEnd => self.raw(&["</map>"]),
            Token::Key(text) => self.text("key", &text)?,
        }
        Ok(())
    }
}
