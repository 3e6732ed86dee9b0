//! Writing of XML-RPC.

use twinspan_llsd::markup::escape;
use twinspan_llsd::{Uri, Value, base64};

use crate::{Call, Fault};

/// The most containers in one another.
const DEPTH_MAX: usize = 128;

/// Why a value is none of XML-RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XmlRpcWriteError {
    /// A character that XML cannot hold.
    #[error("the character {found:?}, which XML cannot hold")]
    Character {
        /// The character.
        found: char,
    },
    /// A number that XML-RPC cannot hold.
    #[error("a number that is infinite or none, which XML-RPC cannot hold")]
    NotFinite,
    /// A date that has no text.
    #[error("a date outside of the years 0 to 9999")]
    Date,
    /// More containers in one another than any reader takes.
    #[error("more than {max} containers in one another")]
    TooDeep {
        /// The limit.
        max: usize,
    },
    /// A value of a kind that this library does not write.
    #[error("a value of a kind that XML-RPC cannot hold")]
    Kind,
}

/// Writes a call.
///
/// # Errors
/// [`XmlRpcWriteError`]
pub fn write_call(call: &Call) -> Result<Vec<u8>, XmlRpcWriteError> {
    let mut out = head();
    out.extend_from_slice(b"<methodCall><methodName>");
    text(&call.method, &mut out)?;
    out.extend_from_slice(b"</methodName><params>");
    for param in &call.params {
        out.extend_from_slice(b"<param>");
        value(param, 0, &mut out)?;
        out.extend_from_slice(b"</param>");
    }
    out.extend_from_slice(b"</params></methodCall>");
    Ok(out)
}

/// Writes a response, or a fault.
///
/// # Errors
/// [`XmlRpcWriteError`]
pub fn write_response(response: Result<&Value, &Fault>) -> Result<Vec<u8>, XmlRpcWriteError> {
    let mut out = head();
    out.extend_from_slice(b"<methodResponse>");
    match response {
        Ok(result) => {
            out.extend_from_slice(b"<params><param>");
            value(result, 0, &mut out)?;
            out.extend_from_slice(b"</param></params>");
        }
        Err(fault) => {
            let entries = [
                ("faultCode", Value::Integer(fault.code)),
                ("faultString", fault.message.as_str().into()),
            ];
            out.extend_from_slice(b"<fault>");
            value(&Value::map(entries), 0, &mut out)?;
            out.extend_from_slice(b"</fault>");
        }
    }
    out.extend_from_slice(b"</methodResponse>");
    Ok(out)
}

fn head() -> Vec<u8> {
    b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_vec()
}

/// Never CDATA: OpenSimulator reads it as nothing.
fn text(text: &str, out: &mut Vec<u8>) -> Result<(), XmlRpcWriteError> {
    escape(text, out).map_err(|found| XmlRpcWriteError::Character { found })
}

fn element(name: &str, content: &str, out: &mut Vec<u8>) -> Result<(), XmlRpcWriteError> {
    out.extend_from_slice(format!("<{name}>").as_bytes());
    text(content, out)?;
    out.extend_from_slice(format!("</{name}>").as_bytes());
    Ok(())
}

fn value(of: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), XmlRpcWriteError> {
    if depth > DEPTH_MAX {
        return Err(XmlRpcWriteError::TooDeep { max: DEPTH_MAX });
    }
    out.extend_from_slice(b"<value>");
    match of {
        Value::Undef => out.extend_from_slice(b"<nil/>"),
        Value::Boolean(value) => element("boolean", if *value { "1" } else { "0" }, out)?,
        Value::Integer(value) => element("i4", &value.to_string(), out)?,
        Value::Real(value) if !value.is_finite() => return Err(XmlRpcWriteError::NotFinite),
        // Without an exponent: XML-RPC has none.
        Value::Real(value) => element("double", &value.to_string(), out)?,
        Value::Uuid(value) => element("string", &value.to_string(), out)?,
        Value::String(text) | Value::Uri(Uri(text)) => element("string", text, out)?,
        Value::Binary(bytes) => element("base64", &base64(bytes), out)?,
        Value::Date(date) => {
            let text = date.to_text().ok_or(XmlRpcWriteError::Date)?;
            // The day has no dashes, and there is no zone.
            let (day, time) = text.split_once('T').ok_or(XmlRpcWriteError::Date)?;
            let text = format!("{}T{}", day.replace('-', ""), time.trim_end_matches('Z'));
            element("dateTime.iso8601", &text, out)?;
        }
        Value::Array(elements) => {
            out.extend_from_slice(b"<array><data>");
            for element in elements {
                value(element, depth + 1, out)?;
            }
            out.extend_from_slice(b"</data></array>");
        }
        Value::Map(entries) => {
            out.extend_from_slice(b"<struct>");
            for (name, entry) in entries {
                out.extend_from_slice(b"<member>");
                element("name", name, out)?;
                value(entry, depth + 1, out)?;
                out.extend_from_slice(b"</member>");
            }
            out.extend_from_slice(b"</struct>");
        }
        _ => return Err(XmlRpcWriteError::Kind),
    }
    out.extend_from_slice(b"</value>");
    Ok(())
}
