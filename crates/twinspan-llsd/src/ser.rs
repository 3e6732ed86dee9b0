//! Serde's way into a document.

use std::borrow::Cow;
use std::fmt::Display;

use serde::ser::{self, Serialize};
use uuid::Uuid;

use crate::binary::BinarySink;
use crate::date::Date;
use crate::error::WriteError;
use crate::form::Form;
use crate::notation::NotationSink;
use crate::token::{Sink, Token, ValueSink};
use crate::value::{Uri, Value};
use crate::xml::XmlSink;

/// Names of types that serde does not know and LLSD does. A serializer of another format sees
/// through them.
pub(crate) const UUID: &str = "$twinspan_llsd::Uuid";
pub(crate) const DATE: &str = "$twinspan_llsd::Date";
pub(crate) const URI: &str = "$twinspan_llsd::Uri";
pub(crate) const VALUE: &str = "$twinspan_llsd::Value";

/// Why a value of Rust is not one of LLSD.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ToError {
    /// It cannot be written in this form.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A number that does not fit.
    #[error("the number {number} does not fit the 32 bits of LLSD; send it by `with::be`")]
    TooLarge {
        /// The number.
        number: String,
    },
    /// A key that is no text and no number.
    #[error("a key that is {found}; a key is a text")]
    Key {
        /// What it is.
        found: &'static str,
    },
    /// A text that is no id.
    #[error("`{text}` is no UUID")]
    Uuid {
        /// The text.
        text: String,
    },
    /// What the type itself said.
    #[error("{text}")]
    Message {
        /// The text.
        text: String,
    },
}

impl ser::Error for ToError {
    fn custom<T: Display>(text: T) -> Self {
        Self::Message { text: text.to_string() }
    }
}

/// Makes a value of anything that serde can serialize.
///
/// # Errors
/// [`ToError`]
pub fn to_value<T: Serialize + ?Sized>(value: &T) -> Result<Value, ToError> {
    let mut sink = ValueSink::default();
    value.serialize(&mut Serializer::new(&mut sink))?;
    Ok(sink.into_value())
}

/// Writes anything that serde can serialize, without a header, and without a [`Value`] between.
///
/// # Errors
/// [`ToError`]
pub fn to_vec<T: Serialize + ?Sized>(value: &T, form: Form) -> Result<Vec<u8>, ToError> {
    Ok(match form {
        Form::Xml => {
            let mut sink = XmlSink::default();
            value.serialize(&mut Serializer::new(&mut sink))?;
            sink.into_bytes()
        }
        Form::Binary => {
            let mut sink = BinarySink::default();
            value.serialize(&mut Serializer::new(&mut sink))?;
            sink.into_bytes()
        }
        Form::Notation => {
            let mut sink = NotationSink::default();
            value.serialize(&mut Serializer::new(&mut sink))?;
            sink.into_bytes()
        }
    })
}

/// Which type a text or a number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Itself,
    Uuid,
    Date,
    Uri,
}

struct Serializer<'s, S> {
    sink: &'s mut S,
    meaning: Meaning,
}

impl<'s, S: Sink> Serializer<'s, S> {
    const fn new(sink: &'s mut S) -> Self {
        Self { sink, meaning: Meaning::Itself }
    }

    fn put(&mut self, token: Token<'_>) -> Result<(), ToError> {
        Ok(self.sink.token(token)?)
    }

    fn integer<N: TryInto<i32> + Display + Copy>(&mut self, number: N) -> Result<(), ToError> {
        let fits = number.try_into();
        let fits = fits.map_err(|_| ToError::TooLarge { number: number.to_string() })?;
        self.put(Token::Integer(fits))
    }

    fn key(&mut self, name: &str) -> Result<(), ToError> {
        self.put(Token::Key(Cow::Borrowed(name)))
    }
}

macro_rules! integers {
    ($($name:ident: $type:ty;)*) => { $(
        fn $name(self, value: $type) -> Result<(), ToError> {
            self.integer(value)
        }
    )* };
}

impl<'s, S: Sink> ser::Serializer for &mut Serializer<'s, S> {
    type Ok = ();
    type Error = ToError;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Variant<Self>;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Variant<Self>;

    integers! {
        serialize_i8: i8;
        serialize_i16: i16;
        serialize_i32: i32;
        serialize_i64: i64;
        serialize_i128: i128;
        serialize_u8: u8;
        serialize_u16: u16;
        serialize_u32: u32;
        serialize_u64: u64;
        serialize_u128: u128;
    }

    fn serialize_bool(self, value: bool) -> Result<(), ToError> {
        self.put(Token::Boolean(value))
    }

    fn serialize_f32(self, value: f32) -> Result<(), ToError> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), ToError> {
        let is_date = self.meaning == Meaning::Date;
        self.put(if is_date { Token::Date(Date(value)) } else { Token::Real(value) })
    }

    fn serialize_char(self, value: char) -> Result<(), ToError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, text: &str) -> Result<(), ToError> {
        let token = match self.meaning {
            Meaning::Uuid => {
                let uuid = Uuid::try_parse(text);
                Token::Uuid(uuid.map_err(|_| ToError::Uuid { text: text.into() })?)
            }
            Meaning::Uri => Token::Uri(Cow::Borrowed(text)),
            Meaning::Itself | Meaning::Date => Token::String(Cow::Borrowed(text)),
        };
        self.put(token)
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), ToError> {
        self.put(Token::Binary(Cow::Borrowed(bytes)))
    }

    fn serialize_none(self) -> Result<(), ToError> {
        self.put(Token::Undef)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), ToError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), ToError> {
        self.put(Token::Undef)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), ToError> {
        self.put(Token::Undef)
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), ToError> {
        self.put(Token::String(Cow::Borrowed(variant)))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), ToError> {
        let before = self.meaning;
        self.meaning = match name {
            UUID => Meaning::Uuid,
            DATE => Meaning::Date,
            URI => Meaning::Uri,
            _ => before,
        };
        let done = value.serialize(&mut *self);
        self.meaning = before;
        done
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), ToError> {
        self.put(Token::MapStart)?;
        self.key(variant)?;
        value.serialize(&mut *self)?;
        self.put(Token::MapEnd)
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Self, ToError> {
        self.put(Token::ArrayStart)?;
        Ok(self)
    }

    fn serialize_tuple(self, _len: usize) -> Result<Self, ToError> {
        self.serialize_seq(None)
    }

    fn serialize_tuple_struct(self, _name: &'static str, _len: usize) -> Result<Self, ToError> {
        self.serialize_seq(None)
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Variant<Self>, ToError> {
        self.put(Token::MapStart)?;
        self.key(variant)?;
        self.serialize_seq(None).map(Variant)
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Self, ToError> {
        self.put(Token::MapStart)?;
        Ok(self)
    }

    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Self, ToError> {
        self.serialize_map(None)
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Variant<Self>, ToError> {
        self.put(Token::MapStart)?;
        self.key(variant)?;
        self.serialize_map(None).map(Variant)
    }
}

/// Whatever has elements alone is an array.
macro_rules! arrays {
    ($($kind:ident by $method:ident,)*) => {$(
        impl<S: Sink> ser::$kind for &mut Serializer<'_, S> {
            type Ok = ();
            type Error = ToError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ToError> {
                value.serialize(&mut **self)
            }

            fn end(self) -> Result<(), ToError> {
                self.put(Token::ArrayEnd)
            }
        }
    )*};
}

arrays! {
    SerializeSeq by serialize_element,
    SerializeTuple by serialize_element,
    SerializeTupleStruct by serialize_field,
}

impl<S: Sink> ser::SerializeMap for &mut Serializer<'_, S> {
    type Ok = ();
    type Error = ToError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), ToError> {
        // Keys are short, and this way any type that is one scalar can be one.
        let key = to_value(key)?;
        let text = match &key {
            Value::String(_) | Value::Uri(_) | Value::Integer(_) | Value::Uuid(_) => key.to_text(),
            _ => None,
        };
        let found = key.scalar().map_or("a container", |token| token.name());
        let text = text.ok_or(ToError::Key { found })?;
        self.key(&text)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ToError> {
        value.serialize(&mut **self)
    }

    fn end(self) -> Result<(), ToError> {
        self.put(Token::MapEnd)
    }
}

impl<S: Sink> ser::SerializeStruct for &mut Serializer<'_, S> {
    type Ok = ();
    type Error = ToError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), ToError> {
        self.key(name)?;
        value.serialize(&mut **self)
    }

    fn end(self) -> Result<(), ToError> {
        self.put(Token::MapEnd)
    }
}

/// The contents of an enum's variant, in a map whose key is its name.
struct Variant<I>(I);

impl<S: Sink> ser::SerializeTupleVariant for Variant<&mut Serializer<'_, S>> {
    type Ok = ();
    type Error = ToError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ToError> {
        value.serialize(&mut *self.0)
    }

    fn end(self) -> Result<(), ToError> {
        self.0.put(Token::ArrayEnd)?;
        self.0.put(Token::MapEnd)
    }
}

impl<S: Sink> ser::SerializeStructVariant for Variant<&mut Serializer<'_, S>> {
    type Ok = ();
    type Error = ToError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), ToError> {
        self.0.key(name)?;
        value.serialize(&mut *self.0)
    }

    fn end(self) -> Result<(), ToError> {
        self.0.put(Token::MapEnd)?;
        self.0.put(Token::MapEnd)
    }
}

impl Serialize for Date {
    /// A date in LLSD, its seconds elsewhere.
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(DATE, &self.0)
    }
}

impl Serialize for Uri {
    /// A URI in LLSD, its text elsewhere.
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(URI, &self.0)
    }
}

impl Serialize for Value {
    /// The same value in LLSD; elsewhere ids and URIs are texts, dates are seconds, undef is none.
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Undef => serializer.serialize_none(),
            Self::Boolean(value) => serializer.serialize_bool(*value),
            Self::Integer(value) => serializer.serialize_i32(*value),
            Self::Real(value) => serializer.serialize_f64(*value),
            Self::Uuid(value) => serializer.serialize_newtype_struct(UUID, &value.to_string()),
            Self::String(text) => serializer.serialize_str(text),
            Self::Binary(bytes) => serializer.serialize_bytes(bytes),
            Self::Date(date) => date.serialize(serializer),
            Self::Uri(uri) => uri.serialize(serializer),
            Self::Array(elements) => serializer.collect_seq(elements),
            Self::Map(entries) => serializer.collect_map(entries),
        }
    }
}
