//! Reading of XML-RPC.

use twinspan_llsd::markup::{Content, Markup, Tag};
use twinspan_llsd::{Date, Limits, Map, ParseError, Reason, Value, from_base64};

use crate::{Call, Fault};

/// The most containers in one another, whatever the limits say: the reader calls itself.
const DEPTH_MAX: usize = 128;

/// Why bytes are no call, or no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// They are no XML-RPC.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// They are a page for people, as proxies and broken servers send them.
    #[error("a page of HTML where {wanted} was expected")]
    Html {
        /// What was expected.
        wanted: &'static str,
    },
}

/// Reads a call.
///
/// # Errors
/// [`ReadError`]
pub fn parse_call(bytes: &[u8], limits: &Limits) -> Result<Call, ReadError> {
    let mut reader = Reader::new(bytes, limits)?;
    reader.root("methodCall")?;
    let (mut method, mut params) = (None, Vec::new());
    while let Some(tag) = reader.markup.child()? {
        match tag.name() {
            "methodName" => method = Some(reader.markup.text()?.trim().to_owned()),
            "params" => params = reader.params()?,
            _ => return Err(reader.markup.unexpected(&tag, "methodName or params").into()),
        }
    }
    reader.markup.finish()?;
    let short = || reader.markup.error(Reason::Short { within: "a call without a methodName" });
    Ok(Call { method: method.ok_or_else(short)?, params })
}

/// Reads a response: its one value, or the server's fault. A response without a value is undef.
///
/// # Errors
/// [`ReadError`]
pub fn parse_response(bytes: &[u8], limits: &Limits) -> Result<Result<Value, Fault>, ReadError> {
    let mut reader = Reader::new(bytes, limits)?;
    reader.root("methodResponse")?;
    let response = match reader.markup.child()? {
        None => {
            let reason = Reason::Short { within: "a response without params or fault" };
            return Err(reader.markup.error(reason).into());
        }
        Some(tag) => match tag.name() {
            "params" => Ok(reader.params()?.into_iter().next().unwrap_or_default()),
            "fault" => Err(reader.fault()?),
            _ => return Err(reader.markup.unexpected(&tag, "params or fault").into()),
        },
    };
    if let Some(tag) = reader.markup.child()? {
        return Err(reader.markup.unexpected(&tag, "the end of the response").into());
    }
    reader.markup.finish()?;
    Ok(response)
}

struct Reader<'a> {
    markup: Markup<'a>,
    depth_max: usize,
    elements_max: usize,
    depth: usize,
    elements: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], limits: &Limits) -> Result<Self, ReadError> {
        let (have, max) = (bytes.len(), limits.bytes_max);
        if have > max {
            let reason = Reason::TooLong { have, max };
            return Err(ParseError { offset: max, reason }.into());
        }
        let depth_max = limits.depth_max.min(DEPTH_MAX);
        let elements_max = limits.elements_max;
        let markup = Markup::new(bytes)?;
        Ok(Self { markup, depth_max, elements_max, depth: 0, elements: 0 })
    }

    fn root(&mut self, wanted: &'static str) -> Result<(), ReadError> {
        match self.markup.child() {
            Ok(Some(tag)) if tag.name() == wanted => Ok(()),
            Ok(Some(tag)) if tag.name().eq_ignore_ascii_case("html") => {
                Err(ReadError::Html { wanted })
            }
            Ok(Some(tag)) => Err(self.markup.unexpected(&tag, wanted).into()),
            Ok(None) => Err(self.markup.error(Reason::Short { within: "a document" }).into()),
            // Pages declare their type; documents of XML-RPC do not.
            Err(ParseError { reason: Reason::DocType, .. }) => Err(ReadError::Html { wanted }),
            Err(error) => Err(error.into()),
        }
    }

    /// The values of the element `params`, which is open.
    fn params(&mut self) -> Result<Vec<Value>, ParseError> {
        let mut params = Vec::new();
        while let Some(tag) = self.markup.child()? {
            self.expect(&tag, "param")?;
            let value = self.markup.child()?;
            let value = value.ok_or_else(|| self.short("a param"))?;
            self.expect(&value, "value")?;
            params.push(self.value()?);
            self.end("the end of a param")?;
        }
        Ok(params)
    }

    fn fault(&mut self) -> Result<Fault, ParseError> {
        let tag = self.markup.child()?.ok_or_else(|| self.short("a fault"))?;
        self.expect(&tag, "value")?;
        let value = self.value()?;
        self.end("the end of a fault")?;
        let code = value.get("faultCode").and_then(Value::to_i64);
        let message = value.get("faultString").and_then(Value::to_text);
        Ok(Fault {
            // Servers leave out either.
            code: code.and_then(|code| code.try_into().ok()).unwrap_or_default(),
            message: message.unwrap_or_default().into_owned(),
        })
    }

    fn short(&self, within: &'static str) -> ParseError {
        self.markup.error(Reason::Short { within })
    }

    fn expect(&self, tag: &Tag<'_>, wanted: &'static str) -> Result<(), ParseError> {
        if tag.name() == wanted { Ok(()) } else { Err(self.markup.unexpected(tag, wanted)) }
    }

    /// Nothing more may be in the present element.
    fn end(&mut self, wanted: &'static str) -> Result<(), ParseError> {
        match self.markup.child()? {
            None => Ok(()),
            Some(tag) => Err(self.markup.unexpected(&tag, wanted)),
        }
    }

    /// The value of the element `value`, which is open. A text without a type is a string.
    fn value(&mut self) -> Result<Value, ParseError> {
        self.elements += 1;
        if self.elements > self.elements_max {
            return Err(self.markup.error(Reason::TooMany { max: self.elements_max }));
        }
        let tag = match self.markup.content()? {
            Content::Text(text) => return Ok(Value::String(text.into_owned())),
            Content::Element(tag) => tag,
        };
        let value = match tag.name() {
            "array" | "struct" => {
                self.depth += 1;
                if self.depth > self.depth_max {
                    return Err(self.markup.error(Reason::TooDeep { max: self.depth_max }));
                }
                let value = if tag.name() == "array" { self.array()? } else { self.structure()? };
                self.depth -= 1;
                value
            }
            name => self.scalar(&tag, name)?,
        };
        self.end("the end of a value")?;
        Ok(value)
    }

    fn scalar(&mut self, tag: &Tag<'_>, name: &str) -> Result<Value, ParseError> {
        // Names of extensions have a prefix.
        let name = name.rsplit_once(':').map_or(name, |(_, name)| name);
        let (wanted, read): (_, fn(&str) -> Option<Value>) = match name {
            "string" => return Ok(Value::String(self.markup.text()?.into_owned())),
            "int" | "i4" | "i1" | "i2" | "i8" => ("an integer", integer),
            "boolean" => ("a boolean", boolean),
            "double" | "float" => ("a double", |text| text.parse().ok().map(Value::Real)),
            "dateTime.iso8601" | "dateTime" => ("a date", |text| date(text).map(Value::Date)),
            "base64" => ("base 64", |text| from_base64(text.as_bytes()).ok().map(Value::Binary)),
            "nil" => ("nothing", |text| text.is_empty().then_some(Value::Undef)),
            _ => return Err(self.markup.unexpected(tag, "a type of XML-RPC")),
        };
        let text = self.markup.text()?;
        read(text.trim()).ok_or_else(|| self.markup.not_text(text.trim(), wanted))
    }

    fn array(&mut self) -> Result<Value, ParseError> {
        let mut elements = Vec::new();
        while let Some(tag) = self.markup.child()? {
            self.expect(&tag, "data")?;
            while let Some(tag) = self.markup.child()? {
                self.expect(&tag, "value")?;
                elements.push(self.value()?);
            }
        }
        Ok(Value::Array(elements))
    }

    fn structure(&mut self) -> Result<Value, ParseError> {
        let mut entries = Map::new();
        while let Some(tag) = self.markup.child()? {
            self.expect(&tag, "member")?;
            let (mut name, mut value) = (None, None);
            while let Some(tag) = self.markup.child()? {
                match tag.name() {
                    "name" => name = Some(self.markup.text()?.into_owned()),
                    "value" => value = Some(self.value()?),
                    _ => return Err(self.markup.unexpected(&tag, "name or value")),
                }
            }
            let (name, value) =
                name.zip(value).ok_or_else(|| self.short("a member: it lacks name or value"))?;
            entries.insert(name, value);
        }
        Ok(Value::Map(entries))
    }
}

/// A whole number. One that needs 32 bits without a sign is taken for the same bits with one, as
/// grids write circuit codes; a larger one is a double if that is exact.
fn integer(text: &str) -> Option<Value> {
    let number: i64 = if text.is_empty() { 0 } else { text.parse().ok()? };
    if let Ok(number) = i32::try_from(number) {
        return Some(Value::Integer(number));
    }
    if let Ok(bits) = u32::try_from(number) {
        return Some(Value::Integer(bits.cast_signed()));
    }
    let real = number as f64;
    (real as i64 == number && number != i64::MAX).then_some(Value::Real(real))
}

fn boolean(text: &str) -> Option<Value> {
    match text {
        "1" => Some(Value::Boolean(true)),
        "" | "0" => Some(Value::Boolean(false)),
        text if text.eq_ignore_ascii_case("true") => Some(Value::Boolean(true)),
        text if text.eq_ignore_ascii_case("false") => Some(Value::Boolean(false)),
        _ => None,
    }
}

/// `20060201T14:29:53`, or with dashes.
fn date(text: &str) -> Option<Date> {
    if text.is_empty() {
        return Some(Date::default());
    }
    let digits = text.get(..8).filter(|day| day.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(day) = digits else { return Date::parse(text) };
    let (year, month, day) = (day.get(..4)?, day.get(4..6)?, day.get(6..)?);
    Date::parse(&format!("{year}-{month}-{day}{}", text.get(8..)?))
}
