//! Message templates: layouts read from text at run time.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::layout::{
    BlockLayout, Deprecation, FieldKind, FieldLayout, MessageLayout, Quantity, Trust,
};
use crate::messages::LAYOUTS;
use crate::number::{Frequency, MessageId};

/// The longest text that is read.
pub const TEMPLATE_BYTES_MAX: usize = 4 << 20;
/// The most messages of a template.
pub const TEMPLATE_MESSAGES_MAX: usize = 65_536;
/// The most blocks of a message.
pub const BLOCKS_PER_MESSAGE_MAX: usize = 64;
/// The most fields of a block.
pub const FIELDS_PER_BLOCK_MAX: usize = 256;
/// The longest name.
pub const NAME_BYTES_MAX: usize = 64;

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// Something else was expected.
    #[error("line {line}: expected {expected}, found {found}")]
    Expected {
        /// Counted from 1.
        line: usize,
        /// What may stand here.
        expected: &'static str,
        /// What stands here, cut where it is long.
        found: String,
    },
    /// A name or a number that is there already.
    #[error("line {line}: a second {what} `{name}`")]
    Twice {
        /// Counted from 1.
        line: usize,
        /// Message, number, block or field.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// More than what is read.
    #[error("line {line}: more than {max} {what}")]
    TooMany {
        /// Counted from 1.
        line: usize,
        /// What there is too much of.
        what: &'static str,
        /// The most.
        max: usize,
    },
}

/// The layouts of messages: those of this library, or those of a file.
///
/// ```
/// use twinspan_lludp::{MessageId, Template};
///
/// let template = Template::parse("version 2.0 { Hello High 200 NotTrusted Unencoded { Who Single { ID U32 } } }")?;
/// let hello = template.layout(MessageId::high(200).unwrap()).unwrap();
/// assert_eq!(hello.name, "Hello");
/// # Ok::<(), twinspan_lludp::TemplateError>(())
/// ```
//= lludp 5.2
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    version: Cow<'static, str>,
    /// By number.
    messages: Cow<'static, [MessageLayout]>,
}

impl Template {
    /// The messages of this library.
    pub const fn builtin() -> Self {
        Self { version: Cow::Borrowed("2.0"), messages: Cow::Borrowed(LAYOUTS) }
    }

    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateError`] with the line and what was expected there.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut words = Words::new(text)?;
        words.keyword("version", "`version`")?;
        let version = words.name("a version number")?.to_owned();
        let mut messages = Vec::new();
        let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
        while words.open("`{` or the end")? {
            let line = words.line;
            words.room(messages.len(), TEMPLATE_MESSAGES_MAX, "messages")?;
            let message = words.message()?;
            if !names.insert(message.name.clone()) {
                let name = message.name.into_owned();
                return Err(TemplateError::Twice { line, what: "message", name });
            }
            if !ids.insert(message.id) {
                let name = message.id.to_string();
                return Err(TemplateError::Twice { line, what: "number", name });
            }
            messages.push(message);
        }
        messages.sort_by_key(|message| message.id);
        Ok(Self { version: version.into(), messages: messages.into() })
    }

    /// What stands behind `version`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Every message, by number.
    pub fn messages(&self) -> &[MessageLayout] {
        &self.messages
    }

    /// The message with this number.
    pub fn layout(&self, id: MessageId) -> Option<&MessageLayout> {
        let index = self.messages.binary_search_by_key(&id, |message| message.id).ok()?;
        self.messages.get(index)
    }

    /// The message with this name; looks through all of them.
    pub fn named(&self, name: &str) -> Option<&MessageLayout> {
        self.messages.iter().find(|message| message.name == name)
    }
}

/// The words of a text, one after the other: braces stand alone, comments are left out.
struct Words<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Result<Self, TemplateError> {
        let words = Self { rest: text, line: 1 };
        words.room(text.len().saturating_sub(1), TEMPLATE_BYTES_MAX, "bytes")?;
        Ok(words)
    }

    /// That one more fits.
    fn room(&self, have: usize, max: usize, what: &'static str) -> Result<(), TemplateError> {
        if have < max {
            return Ok(());
        }
        Err(TemplateError::TooMany { line: self.line, what, max })
    }

    fn skip(&mut self, bytes: usize) {
        let (skipped, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.line += skipped.bytes().filter(|byte| *byte == b'\n').count();
        self.rest = rest;
    }

    /// The next word without taking it; empty at the end.
    fn peek(&mut self) -> &'a str {
        loop {
            let blank = self.rest.len() - self.rest.trim_start().len();
            self.skip(blank);
            if !self.rest.starts_with("//") {
                break;
            }
            self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
        }
        if self.rest.starts_with(['{', '}']) {
            return self.rest.get(..1).unwrap_or_default();
        }
        let ends = |at: &(usize, char)| at.1.is_whitespace() || matches!(at.1, '{' | '}');
        let brace = self.rest.char_indices().find(ends).map_or(self.rest.len(), |(at, _)| at);
        let word = self.rest.get(..brace).unwrap_or_default();
        word.split_once("//").map_or(word, |(before, _)| before)
    }

    fn take(&mut self) -> &'a str {
        let word = self.peek();
        self.skip(word.len());
        word
    }

    #[cold]
    fn expected(&mut self, expected: &'static str) -> TemplateError {
        let word = self.peek();
        let found = if word.is_empty() {
            "the end".to_owned()
        } else {
            format!("`{}`", word.chars().take(NAME_BYTES_MAX).collect::<String>())
        };
        TemplateError::Expected { line: self.line, expected, found }
    }

    fn keyword(&mut self, word: &str, expected: &'static str) -> Result<(), TemplateError> {
        if self.peek() != word {
            return Err(self.expected(expected));
        }
        self.take();
        Ok(())
    }

    /// One of several words.
    fn one_of<T: Copy>(
        &mut self,
        words: &[(&str, T)],
        expected: &'static str,
    ) -> Result<T, TemplateError> {
        let word = self.peek();
        let Some((_, value)) = words.iter().find(|(known, _)| *known == word) else {
            return Err(self.expected(expected));
        };
        self.take();
        Ok(*value)
    }

    /// Whether a brace opens here; if not, a brace must close, or the text end.
    fn open(&mut self, expected: &'static str) -> Result<bool, TemplateError> {
        match self.peek() {
            "{" => {
                self.take();
                Ok(true)
            }
            "" if expected.ends_with("end") => Ok(false),
            "}" if !expected.ends_with("end") => Ok(false),
            _ => Err(self.expected(expected)),
        }
    }

    fn name(&mut self, expected: &'static str) -> Result<&'a str, TemplateError> {
        let word = self.peek();
        let letters =
            word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if word.is_empty() || !letters {
            return Err(self.expected(expected));
        }
        self.room(word.len() - 1, NAME_BYTES_MAX, "bytes in a name")?;
        Ok(self.take())
    }

    fn number(&mut self, expected: &'static str) -> Result<u32, TemplateError> {
        let word = self.peek();
        let value = match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => word.parse(),
        };
        let Ok(value) = value else { return Err(self.expected(expected)) };
        self.take();
        Ok(value)
    }

    /// What stands behind the opening brace of a message.
    fn message(&mut self) -> Result<MessageLayout, TemplateError> {
        let name = self.name("the name of a message")?.to_owned();
        let frequency = self.one_of(
            &[
                ("High", Frequency::High),
                ("Medium", Frequency::Medium),
                ("Low", Frequency::Low),
                ("Fixed", Frequency::Fixed),
            ],
            "High, Medium, Low or Fixed",
        )?;
        let mut before = Self { rest: self.rest, line: self.line };
        let number = self.number("the number of a message")?;
        let Some(id) = MessageId::new(frequency, number) else {
            return Err(before.expected("a number that this frequency has"));
        };
        let trust = self.one_of(
            &[("Trusted", Trust::Trusted), ("NotTrusted", Trust::NotTrusted)],
            "Trusted or NotTrusted",
        )?;
        let zero_coded =
            self.one_of(&[("Zerocoded", true), ("Unencoded", false)], "Zerocoded or Unencoded")?;
        let deprecation = if matches!(self.peek(), "{" | "}") {
            Deprecation::None
        } else {
            self.one_of(
                &[
                    ("Deprecated", Deprecation::Deprecated),
                    ("UDPDeprecated", Deprecation::UdpDeprecated),
                    ("UDPBlackListed", Deprecation::UdpRefused),
                    ("NotDeprecated", Deprecation::None),
                ],
                "`{`, `}`, Deprecated, UDPDeprecated, UDPBlackListed or NotDeprecated",
            )?
        };
        let mut blocks: Vec<BlockLayout> = Vec::new();
        while self.open("`{` or `}`")? {
            let line = self.line;
            self.room(blocks.len(), BLOCKS_PER_MESSAGE_MAX, "blocks in a message")?;
            let block = self.block()?;
            if blocks.iter().any(|other| other.name == block.name) {
                let name = block.name.into_owned();
                return Err(TemplateError::Twice { line, what: "block", name });
            }
            blocks.push(block);
        }
        self.keyword("}", "`}`")?;
        let (name, blocks) = (name.into(), blocks.into());
        Ok(MessageLayout { name, id, trust, zero_coded, deprecation, blocks })
    }

    /// What stands behind the opening brace of a block.
    fn block(&mut self) -> Result<BlockLayout, TemplateError> {
        let name = self.name("the name of a block")?.to_owned();
        let quantity = match self.one_of(
            &[("Single", 0), ("Multiple", 1), ("Variable", 2)],
            "Single, Multiple or Variable",
        )? {
            0 => Quantity::Single,
            1 => {
                let mut before = Self { rest: self.rest, line: self.line };
                let times = self.number("how many blocks")?;
                let wrong = |_| before.expected("0 to 255 blocks");
                Quantity::Multiple(u8::try_from(times).map_err(wrong)?)
            }
            _ => Quantity::Variable,
        };
        let mut fields: Vec<FieldLayout> = Vec::new();
        while self.open("`{` or `}`")? {
            let line = self.line;
            self.room(fields.len(), FIELDS_PER_BLOCK_MAX, "fields in a block")?;
            let field = self.field()?;
            if fields.iter().any(|other| other.name == field.name) {
                let name = field.name.into_owned();
                return Err(TemplateError::Twice { line, what: "field", name });
            }
            fields.push(field);
        }
        self.keyword("}", "`}`")?;
        Ok(BlockLayout { name: name.into(), quantity, fields: fields.into() })
    }

    /// What stands behind the opening brace of a field.
    fn field(&mut self) -> Result<FieldLayout, TemplateError> {
        let name = self.name("the name of a field")?.to_owned();
        let kind = self.one_of(KINDS, "the type of a field")?;
        let mut before = Self { rest: self.rest, line: self.line };
        let kind = match kind {
            FieldKind::Fixed(_) => {
                let bytes = self.number("how many bytes")?;
                let wrong = |_| before.expected("0 to 65535 bytes");
                FieldKind::Fixed(u16::try_from(bytes).map_err(wrong)?)
            }
            FieldKind::Variable1 => match self.number("1 or 2")? {
                1 => FieldKind::Variable1,
                2 => FieldKind::Variable2,
                _ => return Err(before.expected("1 or 2")),
            },
            kind => kind,
        };
        self.keyword("}", "`}`")?;
        Ok(FieldLayout { name: name.into(), kind })
    }
}

/// The types by their names in templates; the last two are followed by a number.
const KINDS: &[(&str, FieldKind)] = &[
    ("U8", FieldKind::U8),
    ("S8", FieldKind::S8),
    ("BOOL", FieldKind::Bool),
    ("U16", FieldKind::U16),
    ("S16", FieldKind::S16),
    ("U32", FieldKind::U32),
    ("S32", FieldKind::S32),
    ("U64", FieldKind::U64),
    ("F32", FieldKind::F32),
    ("F64", FieldKind::F64),
    ("LLUUID", FieldKind::Uuid),
    ("LLVector3", FieldKind::Vector3),
    ("LLVector3d", FieldKind::Vector3d),
    ("LLVector4", FieldKind::Vector4),
    ("LLQuaternion", FieldKind::Quaternion),
    ("IPADDR", FieldKind::Ip),
    ("IPPORT", FieldKind::Port),
    ("Fixed", FieldKind::Fixed(0)),
    ("Variable", FieldKind::Variable1),
];

#[cfg(test)]
mod tests;
