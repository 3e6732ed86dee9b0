//! Reading of bytes from their front.

use crate::error::{ParseError, Reason, quoted};

/// Reads from the front, and knows how far it is.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) const fn offset(&self) -> usize {
        self.at
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(crate) fn error(&self, reason: Reason) -> ParseError {
        ParseError { offset: self.at, reason }
    }

    /// What stands here is not what was expected.
    pub(crate) fn unexpected(&self, wanted: &'static str) -> ParseError {
        let Some(byte) = self.peek() else { return self.error(Reason::Short { within: wanted }) };
        self.error(Reason::Unexpected { found: byte.escape_ascii().to_string(), wanted })
    }

    /// A text that is not what it should be.
    pub(crate) fn not_text(&self, text: &[u8], wanted: &'static str) -> ParseError {
        let text = quoted(&String::from_utf8_lossy(text.get(..64).unwrap_or(text)));
        self.error(Reason::Text { text, wanted })
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Steps over one byte if it is this one.
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    pub(crate) fn byte(&mut self, within: &'static str) -> Result<u8, ParseError> {
        let byte = self.peek().ok_or_else(|| self.error(Reason::Short { within }))?;
        self.at += 1;
        Ok(byte)
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        within: &'static str,
    ) -> Result<&'a [u8; N], ParseError> {
        let head = self.rest().first_chunk::<N>();
        let head = head.ok_or_else(|| self.error(Reason::Short { within }))?;
        self.at += N;
        Ok(head)
    }

    /// So many bytes; a count of more than is there is an error before anything is copied.
    pub(crate) fn take(&mut self, count: u64) -> Result<&'a [u8], ParseError> {
        let have = self.rest().len();
        let bytes = usize::try_from(count).ok().and_then(|count| self.rest().get(..count));
        let bytes = bytes.ok_or_else(|| self.error(Reason::Count { count, have }))?;
        self.at += bytes.len();
        Ok(bytes)
    }

    /// The bytes that fit, up to the first that does not.
    pub(crate) fn take_while(&mut self, fits: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let count = rest.iter().position(|byte| !fits(*byte)).unwrap_or(rest.len());
        self.at += count;
        rest.get(..count).unwrap_or_default()
    }

    /// What stands behind the value must be white space, or the zeros that end a text in C.
    pub(crate) fn finish(&mut self) -> Result<(), ParseError> {
        self.take_while(|byte| byte.is_ascii_whitespace() || byte == 0);
        if self.rest().is_empty() { Ok(()) } else { Err(self.error(Reason::Trailing)) }
    }

    pub(crate) fn utf8(&self, bytes: &'a [u8]) -> Result<&'a str, ParseError> {
        core::str::from_utf8(bytes).map_err(|_| self.error(Reason::Utf8))
    }
}
