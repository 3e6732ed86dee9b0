//! Fields of a map, taken out one by one.

use std::net::Ipv4Addr;

use twinspan_llsd::{Map, Uuid, Value};

use super::{LoginReadError, Secret};

/// A map whose fields are taken out; what is left was not known.
pub(super) struct Fields(pub(super) Map);

impl Fields {
    pub(super) fn of(value: Value) -> Result<Self, LoginReadError> {
        match value {
            Value::Map(map) => Ok(Self(map)),
            _ => Err(LoginReadError::NotAMap),
        }
    }

    /// A field that is there and not undef.
    pub(super) fn take(&mut self, field: &str) -> Option<Value> {
        self.0.remove(field).filter(|value| !value.is_undef())
    }

    /// A field that may be missing, and stays where it is when it cannot be read.
    pub(super) fn optional<T>(
        &mut self,
        field: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = read(self.0.get(field).filter(|value| !value.is_undef())?)?;
        self.0.remove(field);
        Some(value)
    }

    /// A field that may be missing but must be readable.
    pub(super) fn checked<T>(
        &mut self,
        field: &'static str,
        wanted: &'static str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, LoginReadError> {
        let Some(value) = self.take(field) else { return Ok(None) };
        read(&value).map(Some).ok_or(LoginReadError::Field { field, wanted })
    }

    /// A field that must be there.
    pub(super) fn required<T>(
        &mut self,
        field: &'static str,
        wanted: &'static str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<T, LoginReadError> {
        self.checked(field, wanted, read)?.ok_or(LoginReadError::Missing { field })
    }

    /// A text; empty where it is missing.
    pub(super) fn text(&mut self, field: &str) -> String {
        self.optional(field, text).unwrap_or_default()
    }

    /// A secret; none where it is missing.
    pub(super) fn secret(&mut self, field: &str) -> Secret {
        self.optional(field, secret).unwrap_or_default()
    }
}

pub(super) fn text(value: &Value) -> Option<String> {
    value.to_text().map(std::borrow::Cow::into_owned)
}

/// A text that is not empty.
pub(super) fn filled(value: &Value) -> Option<String> {
    text(value).filter(|text| !text.is_empty())
}

pub(super) fn secret(value: &Value) -> Option<Secret> {
    filled(value).map(Secret::new)
}

/// An id: none where the text is empty.
pub(super) fn id(value: &Value) -> Option<Uuid> {
    match value {
        Value::String(text) if text.is_empty() => None,
        value => value.to_uuid(),
    }
}

pub(super) fn u16_of(value: &Value) -> Option<u16> {
    value.to_i64()?.try_into().ok()
}

/// True or false: grids write 1, true, Y and their opposites.
pub(super) fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::String(text) if text.eq_ignore_ascii_case("y") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("n") => Some(false),
        value => value.to_bool(),
    }
}

/// Four bytes, or a text like `10.0.0.1`.
pub(super) fn ip(value: &Value) -> Option<Ipv4Addr> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        Value::Binary(bytes) => <[u8; 4]>::try_from(bytes.as_slice()).ok().map(Into::into),
        _ => None,
    }
}

/// Three numbers: an array, or a text like `[r0.5,r1,r0]`, with its `r` or without.
pub(super) fn vector(value: &Value) -> Option<[f32; 3]> {
    let [x, y, z] = numbers::<3>(value)?;
    Some([x as f32, y as f32, z as f32])
}

/// So many finite numbers.
pub(super) fn numbers<const N: usize>(value: &Value) -> Option<[f64; N]> {
    let mut numbers = [0.0; N];
    match value {
        Value::Array(elements) if elements.len() == N => {
            for (number, element) in numbers.iter_mut().zip(elements) {
                *number = element.to_f64()?;
            }
        }
        Value::String(text) => numbers = numbers_of_text(text)?,
        _ => return None,
    }
    numbers.iter().all(|number| number.is_finite()).then_some(numbers)
}

fn numbers_of_text<const N: usize>(text: &str) -> Option<[f64; N]> {
    let mut numbers = [0.0; N];
    let text = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    let mut parts = text.split(',');
    for number in &mut numbers {
        let part = parts.next()?.trim();
        *number = part.strip_prefix(['r', 'i']).unwrap_or(part).parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// So many numbers behind a key in a text that is something like a map.
pub(super) fn numbers_behind<const N: usize>(text: &str, key: &str) -> Option<[f64; N]> {
    let at = text.find(&format!("'{key}'")).or_else(|| text.find(&format!("\"{key}\"")))?;
    let rest = text.get(at..)?;
    let begin = rest.find('[')?;
    let end = rest.find(']')?;
    // The list must be that of the key.
    let between = rest.get(key.len() + 2..begin)?;
    if !between.chars().all(|letter| letter == ':' || letter.is_whitespace()) {
        return None;
    }
    numbers(&rest.get(begin..=end)?.into())
}
