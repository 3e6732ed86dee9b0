//! What all forms consist of: tokens, which sources give and sinks take.

use std::borrow::Cow;
use std::collections::btree_map;

use uuid::Uuid;

use crate::date::Date;
use crate::error::{ParseError, WriteError};
use crate::limits::DEPTH_MAX;
use crate::value::{Map, Uri, Value};

/// A scalar, or a part of a container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    Undef,
    Boolean(bool),
    Integer(i32),
    Real(f64),
    Uuid(Uuid),
    String(Cow<'a, str>),
    Binary(Cow<'a, [u8]>),
    Date(Date),
    Uri(Cow<'a, str>),
    ArrayStart,
    ArrayEnd,
    MapStart,
    Key(Cow<'a, str>),
    MapEnd,
}

impl Token<'_> {
    /// What an error calls it.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Undef => "undef",
            Self::Boolean(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Real(_) => "a real",
            Self::Uuid(_) => "a UUID",
            Self::String(_) => "a string",
            Self::Binary(_) => "binary",
            Self::Date(_) => "a date",
            Self::Uri(_) => "a URI",
            Self::ArrayStart | Self::ArrayEnd => "an array",
            Self::MapStart | Self::MapEnd => "a map",
            Self::Key(_) => "a key",
        }
    }
}

/// Gives the tokens of one value, containers balanced, a key before each value of a map.
pub(crate) trait Source<'a> {
    /// The next token. Not called behind the end of the value.
    fn next(&mut self) -> Result<Token<'a>, ParseError>;

    /// What comes behind the value must be nothing.
    fn finish(&mut self) -> Result<(), ParseError>;

    /// Bytes read so far, for errors.
    fn offset(&self) -> usize;
}

/// Takes the tokens of one value.
pub(crate) trait Sink {
    /// Takes the next token.
    fn token(&mut self, token: Token<'_>) -> Result<(), WriteError>;
}

/// Why [`copy`] stopped.
pub(crate) enum CopyError {
    Read(ParseError),
    Write(WriteError),
}

/// Hands all tokens of a value on.
pub(crate) fn copy<'a>(
    source: &mut impl Source<'a>,
    sink: &mut impl Sink,
) -> Result<(), CopyError> {
    let mut depth = 0_usize;
    loop {
        let token = source.next().map_err(CopyError::Read)?;
        match token {
            Token::ArrayStart | Token::MapStart => depth += 1,
            Token::ArrayEnd | Token::MapEnd => depth = depth.saturating_sub(1),
            _ => {}
        }
        let is_key = matches!(token, Token::Key(_));
        sink.token(token).map_err(CopyError::Write)?;
        if depth == 0 && !is_key {
            return source.finish().map_err(CopyError::Read);
        }
    }
}

/// Where a sink is: which containers are open.
#[derive(Debug, Default)]
pub(crate) struct Nesting {
    open: Vec<Open>,
    /// A whole value was taken.
    done: bool,
}

#[derive(Debug)]
struct Open {
    is_map: bool,
    /// In a map: a key came, its value did not.
    has_key: bool,
    count: usize,
}

/// Where a value or a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The first of its container, or the whole.
    First,
    /// Another one.
    Next,
    /// Behind its key.
    Value,
    /// An end: of a container with so many entries.
    End(usize),
}

impl Nesting {
    /// Checks that the token may come, and says where it stands.
    pub(crate) fn take(&mut self, token: &Token<'_>) -> Result<Place, WriteError> {
        let depth = self.open.len();
        let place = match (token, self.open.last_mut()) {
            (Token::ArrayEnd, Some(Open { is_map: false, count, .. })) => Place::End(*count),
            (Token::MapEnd, Some(Open { is_map: true, has_key: false, count })) => {
                Place::End(*count)
            }
            (Token::ArrayEnd | Token::MapEnd, _) => return Err(WriteError::Order),
            (Token::Key(_), Some(Open { is_map: true, has_key, count })) if !*has_key => {
                *has_key = true;
                *count += 1;
                if *count == 1 { Place::First } else { Place::Next }
            }
            (Token::Key(_), _) => return Err(WriteError::Order),
            (_, Some(Open { is_map: true, has_key, .. })) if *has_key => {
                *has_key = false;
                Place::Value
            }
            (_, Some(Open { is_map: false, count, .. })) => {
                *count += 1;
                if *count == 1 { Place::First } else { Place::Next }
            }
            (_, None) if !self.done => {
                self.done = true;
                Place::First
            }
            (_, _) => return Err(WriteError::Order),
        };
        match token {
            Token::ArrayStart | Token::MapStart if depth >= DEPTH_MAX => {
                return Err(WriteError::TooDeep { max: DEPTH_MAX });
            }
            Token::ArrayStart | Token::MapStart => {
                let is_map = *token == Token::MapStart;
                self.open.push(Open { is_map, has_key: false, count: 0 });
            }
            Token::ArrayEnd | Token::MapEnd => {
                self.open.pop();
            }
            _ => {}
        }
        Ok(place)
    }
}

/// Gives the tokens of a value.
#[derive(Debug)]
pub(crate) struct ValueSource<'a> {
    whole: Option<&'a Value>,
    open: Vec<Walk<'a>>,
}

#[derive(Debug)]
enum Walk<'a> {
    Array(core::slice::Iter<'a, Value>),
    Map(btree_map::Iter<'a, String, Value>),
    /// The value behind a key.
    Entry(&'a Value),
}

impl<'a> ValueSource<'a> {
    pub(crate) const fn new(value: &'a Value) -> Self {
        Self { whole: Some(value), open: Vec::new() }
    }

    fn start(&mut self, value: &'a Value) -> Token<'a> {
        match value {
            Value::Array(elements) => {
                self.open.push(Walk::Array(elements.iter()));
                Token::ArrayStart
            }
            Value::Map(entries) => {
                self.open.push(Walk::Map(entries.iter()));
                Token::MapStart
            }
            scalar => scalar.scalar().unwrap_or(Token::Undef),
        }
    }
}

impl<'a> Source<'a> for ValueSource<'a> {
    fn next(&mut self) -> Result<Token<'a>, ParseError> {
        let value = match self.open.last_mut() {
            None => self.whole.take().unwrap_or(&Value::Undef),
            Some(Walk::Array(elements)) => match elements.next() {
                Some(element) => element,
                None => {
                    self.open.pop();
                    return Ok(Token::ArrayEnd);
                }
            },
            Some(Walk::Map(entries)) => match entries.next() {
                Some((key, value)) => {
                    self.open.push(Walk::Entry(value));
                    return Ok(Token::Key(Cow::Borrowed(key)));
                }
                None => {
                    self.open.pop();
                    return Ok(Token::MapEnd);
                }
            },
            Some(Walk::Entry(value)) => {
                let value = *value;
                self.open.pop();
                value
            }
        };
        Ok(self.start(value))
    }

    fn finish(&mut self) -> Result<(), ParseError> {
        Ok(())
    }

    fn offset(&self) -> usize {
        0
    }
}

/// Makes a value of tokens.
#[derive(Debug, Default)]
pub(crate) struct ValueSink {
    nesting: Nesting,
    open: Vec<Partial>,
    whole: Value,
}

#[derive(Debug)]
enum Partial {
    Array(Vec<Value>),
    Map(Map, String),
}

impl ValueSink {
    /// The value, once all of its tokens came.
    pub(crate) fn into_value(self) -> Value {
        self.whole
    }

    fn put(&mut self, value: Value) {
        match self.open.last_mut() {
            None => self.whole = value,
            Some(Partial::Array(elements)) => elements.push(value),
            Some(Partial::Map(entries, key)) => {
                entries.insert(core::mem::take(key), value);
            }
        }
    }
}

impl Sink for ValueSink {
    fn token(&mut self, token: Token<'_>) -> Result<(), WriteError> {
        self.nesting.take(&token)?;
        let value = match token {
            Token::Undef => Value::Undef,
            Token::Boolean(value) => Value::Boolean(value),
            Token::Integer(value) => Value::Integer(value),
            Token::Real(value) => Value::Real(value),
            Token::Uuid(value) => Value::Uuid(value),
            Token::String(text) => Value::String(text.into_owned()),
            Token::Binary(bytes) => Value::Binary(bytes.into_owned()),
            Token::Date(date) => Value::Date(date),
            Token::Uri(text) => Value::Uri(Uri(text.into_owned())),
            Token::ArrayStart => {
                self.open.push(Partial::Array(Vec::new()));
                return Ok(());
            }
            Token::MapStart => {
                self.open.push(Partial::Map(Map::new(), String::new()));
                return Ok(());
            }
            Token::Key(text) => {
                if let Some(Partial::Map(_, key)) = self.open.last_mut() {
                    *key = text.into_owned();
                }
                return Ok(());
            }
            Token::ArrayEnd | Token::MapEnd => match self.open.pop() {
                Some(Partial::Array(elements)) => Value::Array(elements),
                Some(Partial::Map(entries, _)) => Value::Map(entries),
                None => return Err(WriteError::Order),
            },
        };
        self.put(value);
        Ok(())
    }
}
