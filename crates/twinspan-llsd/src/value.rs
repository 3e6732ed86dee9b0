//! Values.

use core::fmt;
use std::borrow::Cow;
use std::collections::BTreeMap;

use uuid::Uuid;

use crate::convert;
use crate::date::Date;
use crate::token::Token;

/// The entries of a map, in the order of their keys.
pub type Map = BTreeMap<String, Value>;

/// An address of the web, which LLSD keeps apart from other texts. It is not checked.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uri(pub String);

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A value of LLSD.
///
/// Conversions (`to_*`) follow LLSD: numbers, booleans and texts become one another where nothing
/// is lost, undef is a zero, and numbers that do not fit 32 bits come as big-endian binary. What
/// cannot be converted is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// No value.
    #[default]
    Undef,
    /// True or false.
    Boolean(bool),
    /// A whole number of 32 bits.
    Integer(i32),
    /// A double; NaN and infinities travel.
    Real(f64),
    /// An id.
    Uuid(Uuid),
    /// A text.
    String(String),
    /// Bytes.
    Binary(Vec<u8>),
    /// A moment.
    Date(Date),
    /// An address of the web.
    Uri(Uri),
    /// Values in order.
    Array(Vec<Value>),
    /// Values by their keys.
    Map(Map),
}

impl Value {
    /// A map of these entries; of equal keys the last counts.
    pub fn map<K: Into<String>, const N: usize>(entries: [(K, Value); N]) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    /// The entry of a map; `None` also when it is no map.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_map()?.get(key)
    }

    /// The element of an array, counted from 0; `None` also when it is no array.
    pub fn at(&self, index: usize) -> Option<&Value> {
        self.as_array()?.get(index)
    }

    /// Its entries, if it is a map.
    pub const fn as_map(&self) -> Option<&Map> {
        if let Self::Map(entries) = self { Some(entries) } else { None }
    }

    /// Its elements, if it is an array.
    pub fn as_array(&self) -> Option<&[Value]> {
        if let Self::Array(elements) = self { Some(elements) } else { None }
    }

    /// Its text, if it is a string or an address.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::Uri(Uri(text)) => Some(text),
            _ => None,
        }
    }

    /// Its bytes, if it is binary.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Self::Binary(bytes) = self { Some(bytes) } else { None }
    }

    /// Whether it is undef.
    pub const fn is_undef(&self) -> bool {
        matches!(self, Self::Undef)
    }

    /// A whole number: of an integer, a real without fraction, a boolean, a text of digits, a date,
    /// undef, or up to eight bytes of binary, big-endian (a full eight have a sign).
    pub fn to_i64(&self) -> Option<i64> {
        convert::to_i64(&self.scalar()?)
    }

    /// A number of 32 bits without sign: as [`to_i64`](Self::to_i64), and a negative integer is
    /// taken for the same 32 bits, as grids that know no unsigned integers send them.
    pub fn to_u32(&self) -> Option<u32> {
        convert::to_u32(&self.scalar()?)
    }

    /// A number of 64 bits without sign: as [`to_u32`](Self::to_u32), or eight bytes of binary.
    pub fn to_u64(&self) -> Option<u64> {
        convert::to_u64(&self.scalar()?)
    }

    /// A double: of a real, an integer, a boolean, a text of a number, a date, or undef.
    pub fn to_f64(&self) -> Option<f64> {
        convert::to_f64(&self.scalar()?)
    }

    /// True or false: of a boolean, a number (0 is false), undef, or one of the texts `1`, `true`,
    /// `0`, `false` and none at all, in any case.
    pub fn to_bool(&self) -> Option<bool> {
        convert::to_bool(&self.scalar()?)
    }

    /// A text: of anything but binary, arrays and maps.
    pub fn to_text(&self) -> Option<Cow<'_, str>> {
        convert::to_text(self.scalar()?)
    }

    /// An id: of a UUID, a text of one, 16 bytes of binary, or undef.
    pub fn to_uuid(&self) -> Option<Uuid> {
        convert::to_uuid(&self.scalar()?)
    }

    /// A moment: of a date, a text of one, a number of seconds, or undef.
    pub fn to_date(&self) -> Option<Date> {
        convert::to_date(&self.scalar()?)
    }

    /// The token of a value that is no container.
    pub(crate) fn scalar(&self) -> Option<Token<'_>> {
        Some(match self {
            Self::Undef => Token::Undef,
            Self::Boolean(value) => Token::Boolean(*value),
            Self::Integer(value) => Token::Integer(*value),
            Self::Real(value) => Token::Real(*value),
            Self::Uuid(value) => Token::Uuid(*value),
            Self::String(text) => Token::String(Cow::Borrowed(text)),
            Self::Binary(bytes) => Token::Binary(Cow::Borrowed(bytes)),
            Self::Date(date) => Token::Date(*date),
            Self::Uri(Uri(text)) => Token::Uri(Cow::Borrowed(text)),
            Self::Array(_) | Self::Map(_) => return None,
        })
    }
}

macro_rules! from {
    ($($type:ty => $variant:ident;)*) => { $(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        }
    )* };
}

from! {
    bool => Boolean;
    i32 => Integer;
    i16 => Integer;
    u16 => Integer;
    i8 => Integer;
    u8 => Integer;
    f64 => Real;
    f32 => Real;
    Uuid => Uuid;
    String => String;
    &str => String;
    Date => Date;
    Uri => Uri;
    Vec<u8> => Binary;
    &[u8] => Binary;
    Vec<Value> => Array;
    Map => Map;
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Undef, Into::into)
    }
}
