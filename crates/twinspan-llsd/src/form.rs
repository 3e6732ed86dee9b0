//! The three forms of a document.

use crate::binary::{self, BinarySink};
use crate::error::{ParseError, Reason, WriteError};
use crate::limits::Limits;
use crate::notation::{self, NotationSink};
use crate::token::{CopyError, Sink, Source, ValueSink, ValueSource, copy};
use crate::value::Value;
use crate::xml::{self, XmlSink};

/// How a value is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// `<llsd><map>..</map></llsd>`.
    Xml,
    /// Lengths and bytes.
    Binary,
    /// `{'key':i1}`.
    Notation,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Xml, Self::Binary, Self::Notation];

    /// What HTTP calls it.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Xml => "application/llsd+xml",
            Self::Binary => "application/llsd+binary",
            Self::Notation => "application/llsd+notation",
        }
    }

    /// The bytes that may stand before a document to tell its form.
    pub const fn header(self) -> &'static [u8] {
        match self {
            Self::Xml => xml::HEADER,
            Self::Binary => binary::HEADER,
            Self::Notation => notation::HEADER,
        }
    }

    /// The form of a document by its header, or else by its first bytes. Servers name wrong types,
    /// so that this is more certain than what HTTP says.
    ///
    /// Without a header, what begins with `<` is XML; a container whose count begins with a zero,
    /// and a value whose letter is followed by a byte that no text has, are binary; all else is
    /// notation.
    pub fn detect(bytes: &[u8]) -> Self {
        if let Some((form, _)) = split_header(bytes) {
            return form;
        }
        let text = bytes.trim_ascii_start();
        let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
        match text {
            [b'<', ..] => Self::Xml,
            [b'{' | b'[' | b's' | b'l' | b'b' | b'i' | b'r' | b'u' | b'd', second, ..]
                if *second < b' ' && !second.is_ascii_whitespace() =>
            {
                Self::Binary
            }
            _ => Self::Notation,
        }
    }

    /// Writes a value, without a header before it; XML has its root element.
    ///
    /// # Errors
    /// [`WriteError`] when the value cannot be told in this form.
    pub fn write(self, value: &Value) -> Result<Vec<u8>, WriteError> {
        fn all(value: &Value, sink: &mut impl Sink) -> Result<(), WriteError> {
            match copy(&mut ValueSource::new(value), sink) {
                Err(CopyError::Write(error)) => Err(error),
                // A value has nothing in it that cannot be read.
                Ok(()) | Err(CopyError::Read(_)) => Ok(()),
            }
        }
        match self {
            Self::Xml => {
                let mut sink = XmlSink::default();
                all(value, &mut sink)?;
                Ok(sink.into_bytes())
            }
            Self::Binary => {
                let mut sink = BinarySink::default();
                all(value, &mut sink)?;
                Ok(sink.into_bytes())
            }
            Self::Notation => {
                let mut sink = NotationSink::default();
                all(value, &mut sink)?;
                Ok(sink.into_bytes())
            }
        }
    }

    /// Writes a value behind the header of the form.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_with_header(self, value: &Value) -> Result<Vec<u8>, WriteError> {
        Ok([self.header(), &self.write(value)?].concat())
    }
}

/// A header, the form that it names, and the bytes before the document.
fn split_header(bytes: &[u8]) -> Option<(Form, usize)> {
    let begin = bytes.len() - bytes.trim_ascii_start().len();
    let text = bytes.get(begin..)?.strip_prefix(b"<?")?;
    // Headers are short; what is longer is no header.
    let end = text.iter().take(64).position(|byte| *byte == b'>')?;
    let name = text.get(..end)?.strip_suffix(b"?")?.trim_ascii();
    let form = if name.eq_ignore_ascii_case(b"llsd/binary") {
        Form::Binary
    } else if name.eq_ignore_ascii_case(b"llsd/notation") {
        Form::Notation
    } else if name.eq_ignore_ascii_case(b"llsd/xml") {
        Form::Xml
    } else {
        return None;
    };
    let behind = begin + 2 + end + 1;
    // One end of line: a binary value may begin with another.
    let rest = bytes.get(behind..)?;
    let line = if rest.starts_with(b"\r\n") { 2 } else { usize::from(rest.starts_with(b"\n")) };
    Some((form, behind + line))
}

/// Calls what handles a source, once the form of a document is known. The macro stands for a
/// closure that is generic over its argument.
macro_rules! with_source {
    ($bytes:expr, $form:expr, $limits:expr, |$source:ident| $body:expr) => {{
        let (body, skipped) = $crate::form::body($bytes, $form, $limits)?;
        let result = match $form {
            $crate::Form::Xml => match $crate::xml::XmlSource::new(body, *$limits) {
                Ok(mut $source) => $body,
                Err(error) => Err(error.into()),
            },
            $crate::Form::Binary => {
                let mut $source = $crate::binary::BinarySource::new(body, *$limits);
                $body
            }
            $crate::Form::Notation => {
                let mut $source = $crate::notation::NotationSource::new(body, *$limits);
                $body
            }
        };
        (result, skipped)
    }};
}
pub(crate) use with_source;

/// The document without its header, and the bytes of that.
pub(crate) fn body<'a>(
    bytes: &'a [u8],
    form: Form,
    limits: &Limits,
) -> Result<(&'a [u8], usize), ParseError> {
    limits.check_len(bytes.len())?;
    let skipped = match split_header(bytes) {
        None => 0,
        Some((named, skipped)) if named == form => skipped,
        Some((named, _)) => {
            let found = format!("{named:?}");
            let reason = Reason::Unexpected { found, wanted: "the header of another form" };
            return Err(ParseError { offset: 0, reason });
        }
    };
    Ok((bytes.get(skipped..).unwrap_or_default(), skipped))
}

/// Reads a document in this form; its header may be missing.
///
/// # Errors
/// [`ParseError`]
pub fn parse(bytes: &[u8], form: Form, limits: &Limits) -> Result<Value, ParseError> {
    fn all<'a>(source: &mut impl Source<'a>) -> Result<Value, ParseError> {
        let mut sink = ValueSink::default();
        match copy(source, &mut sink) {
            Ok(()) => Ok(sink.into_value()),
            Err(CopyError::Read(error)) => Err(error),
            // Sources keep to the order and to the depth.
            Err(CopyError::Write(_)) => {
                let reason = Reason::TooDeep { max: crate::DEPTH_MAX };
                Err(ParseError { offset: source.offset(), reason })
            }
        }
    }
    let (result, skipped) = with_source!(bytes, form, limits, |source| all(&mut source));
    result.map_err(|error: ParseError| ParseError { offset: error.offset + skipped, ..error })
}

/// Reads a document in the form that it seems to have, see [`Form::detect`].
///
/// # Errors
/// [`ParseError`]
pub fn parse_any(bytes: &[u8], limits: &Limits) -> Result<Value, ParseError> {
    parse(bytes, Form::detect(bytes), limits)
}
