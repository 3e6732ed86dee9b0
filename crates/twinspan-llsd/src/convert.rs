//! How values of one type become another.

use std::borrow::Cow;

use uuid::Uuid;

use crate::date::Date;
use crate::token::Token;

/// Doubles up to this size are whole numbers without a gap.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

pub(crate) fn to_i64(token: &Token<'_>) -> Option<i64> {
    match token {
        Token::Undef => Some(0),
        Token::Boolean(value) => Some((*value).into()),
        Token::Integer(value) => Some((*value).into()),
        Token::Real(value) => whole(*value),
        Token::Date(Date(seconds)) => whole(*seconds),
        Token::String(text) => text.trim().parse().ok(),
        // Fewer than eight bytes have no sign.
        Token::Binary(bytes) => be(bytes).map(|bits| bits as i64),
        _ => None,
    }
}

pub(crate) fn to_u32(token: &Token<'_>) -> Option<u32> {
    match token {
        Token::Integer(value) => Some(*value as u32),
        Token::String(text) => {
            let text = text.trim();
            let signed = || text.parse::<i32>().ok().map(|value| value as u32);
            text.parse().ok().or_else(signed)
        }
        token => to_i64(token)?.try_into().ok(),
    }
}

pub(crate) fn to_u64(token: &Token<'_>) -> Option<u64> {
    match token {
        Token::Integer(value) => Some((*value as u32).into()),
        Token::String(text) => text.trim().parse().ok(),
        Token::Binary(bytes) => be(bytes),
        token => to_i64(token)?.try_into().ok(),
    }
}

pub(crate) fn to_f64(token: &Token<'_>) -> Option<f64> {
    match token {
        Token::Undef => Some(0.0),
        Token::Boolean(value) => Some(f64::from(*value)),
        Token::Integer(value) => Some((*value).into()),
        Token::Real(value) | Token::Date(Date(value)) => Some(*value),
        Token::String(text) => real(text.trim()),
        _ => None,
    }
}

pub(crate) fn to_bool(token: &Token<'_>) -> Option<bool> {
    match token {
        Token::Undef => Some(false),
        Token::Boolean(value) => Some(*value),
        Token::Integer(value) => Some(*value != 0),
        Token::Real(value) => Some(*value != 0.0),
        Token::String(text) => boolean(text.trim()),
        _ => None,
    }
}

pub(crate) fn to_text<'a>(token: Token<'a>) -> Option<Cow<'a, str>> {
    Some(match token {
        Token::Undef => Cow::Borrowed(""),
        Token::Boolean(true) => Cow::Borrowed("true"),
        Token::Boolean(false) => Cow::Borrowed("false"),
        Token::Integer(value) => value.to_string().into(),
        Token::Real(value) => real_text(value).into(),
        Token::Uuid(value) => value.to_string().into(),
        Token::String(text) | Token::Uri(text) => text,
        Token::Date(date) => date.to_text()?.into(),
        _ => return None,
    })
}

pub(crate) fn to_uuid(token: &Token<'_>) -> Option<Uuid> {
    match token {
        Token::Undef => Some(Uuid::nil()),
        Token::Uuid(value) => Some(*value),
        Token::String(text) => uuid(text.trim()),
        Token::Binary(bytes) => Uuid::from_slice(bytes).ok(),
        _ => None,
    }
}

pub(crate) fn to_date(token: &Token<'_>) -> Option<Date> {
    match token {
        Token::Date(date) => Some(*date),
        Token::String(text) => Date::parse(text),
        token => to_f64(token).map(Date),
    }
}

pub(crate) fn to_bytes<'a>(token: Token<'a>) -> Option<Cow<'a, [u8]>> {
    match token {
        Token::Undef => Some(Cow::Borrowed(&[])),
        Token::Binary(bytes) => Some(bytes),
        Token::Uuid(value) => Some(Cow::Owned(value.as_bytes().to_vec())),
        _ => None,
    }
}

/// Up to eight bytes, big-endian.
fn be(bytes: &[u8]) -> Option<u64> {
    let sum = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
    (!bytes.is_empty() && bytes.len() <= 8).then(|| bytes.iter().fold(0, sum))
}

fn whole(value: f64) -> Option<i64> {
    (value.abs() <= WHOLE_MAX && value.trunc() == value).then_some(value as i64)
}

/// A boolean's text; an empty one is false.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "" | "0" => Some(false),
        "1" => Some(true),
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// A real's text; an empty one is 0.
pub(crate) fn real(text: &str) -> Option<f64> {
    if text.is_empty() { Some(0.0) } else { text.parse().ok() }
}

/// A real as all known readers take it: the shortest text that is read as the same.
pub(crate) fn real_text(value: f64) -> String {
    if value.is_nan() { "nan".into() } else { format!("{value:?}") }
}

/// A UUID's text; an empty one is the nil UUID.
pub(crate) fn uuid(text: &str) -> Option<Uuid> {
    if text.is_empty() { Some(Uuid::nil()) } else { Uuid::try_parse(text).ok() }
}
