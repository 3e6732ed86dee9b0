//! Serde's way out of a document.

use std::borrow::Cow;
use std::fmt::{self, Display};

use serde::de::{self, Deserialize, DeserializeSeed, IntoDeserializer, Visitor};

use crate::convert;
use crate::date::Date;
use crate::error::{ParseError, quoted};
use crate::form::{Form, with_source};
use crate::limits::{DEPTH_MAX, Limits};
use crate::ser::{DATE, URI, UUID, VALUE};
use crate::token::{Source, Token, ValueSource};
use crate::value::{Map, Uri, Value};

/// Why a document is not the value of Rust that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FromError {
    /// It is no document.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A value that cannot be converted.
    #[error("{found} where {wanted} is expected, before byte {offset}")]
    Type {
        /// What it is.
        found: String,
        /// What was asked for.
        wanted: &'static str,
        /// The byte behind it, counted from 0; always 0 in a [`Value`].
        offset: usize,
    },
    /// What the type itself said: a missing field and the like.
    #[error("{text}")]
    Message {
        /// The text.
        text: String,
    },
}

impl de::Error for FromError {
    fn custom<T: Display>(text: T) -> Self {
        Self::Message { text: text.to_string() }
    }
}

/// Reads a document straight into a type, without a [`Value`] between.
///
/// # Errors
/// [`FromError`]
pub fn from_slice<'de, T: Deserialize<'de>>(
    bytes: &'de [u8],
    form: Form,
    limits: &Limits,
) -> Result<T, FromError> {
    let (result, skipped) = with_source!(bytes, form, limits, |source| all(&mut source));
    result.map_err(|error| match error {
        FromError::Parse(error) => ParseError { offset: error.offset + skipped, ..error }.into(),
        FromError::Type { found, wanted, offset } => {
            FromError::Type { found, wanted, offset: offset + skipped }
        }
        error => error,
    })
}

/// Makes a type of a value.
///
/// # Errors
/// [`FromError`]
pub fn from_value<'de, T: Deserialize<'de>>(value: &'de Value) -> Result<T, FromError> {
    all(&mut ValueSource::new(value))
}

fn all<'de, T: Deserialize<'de>>(source: &mut impl Source<'de>) -> Result<T, FromError> {
    let mut deserializer = Deserializer { source, ahead: None, depth: 0 };
    let value = T::deserialize(&mut deserializer)?;
    source.finish()?;
    Ok(value)
}

struct Deserializer<'s, 'de, S> {
    source: &'s mut S,
    /// A token that was looked at.
    ahead: Option<Token<'de>>,
    /// Containers in one another.
    depth: usize,
}

impl<'de, S: Source<'de>> Deserializer<'_, 'de, S> {
    fn take(&mut self) -> Result<Token<'de>, FromError> {
        match self.ahead.take() {
            Some(token) => Ok(token),
            None => Ok(self.source.next()?),
        }
    }

    fn peek(&mut self) -> Result<&Token<'de>, FromError> {
        let token = self.take()?;
        Ok(self.ahead.insert(token))
    }

    fn wrong(&self, token: &Token<'_>, wanted: &'static str) -> FromError {
        let found = match token {
            Token::String(text) | Token::Uri(text) => format!("the text `{}`", quoted(text)),
            Token::Integer(value) => format!("the integer {value}"),
            Token::Real(value) => format!("the real {value}"),
            token => token.name().into(),
        };
        FromError::Type { found, wanted, offset: self.source.offset() }
    }

    /// The next value, converted.
    fn scalar<T>(
        &mut self,
        wanted: &'static str,
        convert: impl Fn(&Token<'de>) -> Option<T>,
    ) -> Result<T, FromError> {
        let token = self.take()?;
        convert(&token).ok_or_else(|| self.wrong(&token, wanted))
    }

    fn text(&mut self) -> Result<Cow<'de, str>, FromError> {
        let token = self.take()?;
        let kept = self.wrong(&token, "a string");
        convert::to_text(token).ok_or(kept)
    }

    fn enter(&mut self) -> Result<(), FromError> {
        self.depth += 1;
        // Only a value that a user made can be deeper; sources are bounded.
        if self.depth > DEPTH_MAX {
            let found = format!("more than {DEPTH_MAX} containers in one another");
            return Err(FromError::Type { found, wanted: "fewer", offset: self.source.offset() });
        }
        Ok(())
    }

    /// Steps over the rest of a container whose start was read.
    fn skip_rest(&mut self) -> Result<(), FromError> {
        let mut depth = 1_usize;
        while depth > 0 {
            match self.take()? {
                Token::ArrayStart | Token::MapStart => depth += 1,
                Token::ArrayEnd | Token::MapEnd => depth -= 1,
                _ => {}
            }
        }
        Ok(())
    }

    fn seq<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, FromError> {
        self.enter()?;
        let mut is_over = false;
        let value = visitor.visit_seq(Entries { de: &mut *self, is_over: &mut is_over })?;
        if !is_over {
            self.skip_rest()?;
        }
        self.depth -= 1;
        Ok(value)
    }

    fn map<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, FromError> {
        self.enter()?;
        let mut is_over = false;
        let value = visitor.visit_map(Entries { de: &mut *self, is_over: &mut is_over })?;
        if !is_over {
            self.skip_rest()?;
        }
        self.depth -= 1;
        Ok(value)
    }
}

fn visit_text<'de, V: Visitor<'de>, E: de::Error>(
    visitor: V,
    text: Cow<'de, str>,
) -> Result<V::Value, E> {
    match text {
        Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
        Cow::Owned(text) => visitor.visit_string(text),
    }
}

fn visit_bytes<'de, V: Visitor<'de>, E: de::Error>(
    visitor: V,
    bytes: Cow<'de, [u8]>,
) -> Result<V::Value, E> {
    match bytes {
        Cow::Borrowed(bytes) => visitor.visit_borrowed_bytes(bytes),
        Cow::Owned(bytes) => visitor.visit_byte_buf(bytes),
    }
}

/// A whole number with sign that fits the type.
fn signed<T: TryFrom<i64>>(token: &Token<'_>) -> Option<T> {
    convert::to_i64(token)?.try_into().ok()
}

/// A whole number of 8 or 16 bits without sign: no sender makes it negative.
fn small<T: TryFrom<i64>>(token: &Token<'_>) -> Option<T> {
    signed(token)
}

macro_rules! scalars {
    ($($name:ident, $visit:ident, $wanted:literal, $convert:expr;)*) => { $(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FromError> {
            visitor.$visit(self.scalar($wanted, $convert)?)
        }
    )* };
}

impl<'de, S: Source<'de>> de::Deserializer<'de> for &mut Deserializer<'_, 'de, S> {
    type Error = FromError;

    scalars! {
        deserialize_bool, visit_bool, "a boolean", convert::to_bool;
        deserialize_i8, visit_i8, "an integer of 8 bits", signed;
        deserialize_i16, visit_i16, "an integer of 16 bits", signed;
        deserialize_i32, visit_i32, "an integer of 32 bits", signed;
        deserialize_i64, visit_i64, "an integer of 64 bits", convert::to_i64;
        deserialize_u8, visit_u8, "an integer of 8 bits without sign", small;
        deserialize_u16, visit_u16, "an integer of 16 bits without sign", small;
        deserialize_u32, visit_u32, "an integer of 32 bits without sign", convert::to_u32;
        deserialize_u64, visit_u64, "an integer of 64 bits without sign", convert::to_u64;
        deserialize_f64, visit_f64, "a real", convert::to_f64;
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FromError> {
        visitor.visit_f32(self.scalar("a real", convert::to_f64)? as f32)
    }

    /// As it is: ids, URIs and dates as texts.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FromError> {
        match self.take()? {
            Token::Undef => visitor.visit_unit(),
            Token::Boolean(value) => visitor.visit_bool(value),
            Token::Integer(value) => visitor.visit_i32(value),
            Token::Real(value) => visitor.visit_f64(value),
            Token::String(text) | Token::Uri(text) => visit_text(visitor, text),
            Token::Uuid(value) => visitor.visit_string(value.to_string()),
            Token::Date(Date(seconds)) => visitor.visit_f64(seconds),
            Token::Binary(bytes) => visit_bytes(visitor, bytes),
            Token::ArrayStart => self.seq(visitor),
            Token::MapStart => self.map(visitor),
            token @ (Token::Key(_) | Token::ArrayEnd | Token::MapEnd) => {
                Err(self.wrong(&token, "a value"))
            }
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FromError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FromError> {
        let text = self.text()?;
        visit_text(visitor, text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FromError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FromError> {
        let token = self.take()?;
        let kept = self.wrong(&token, "binary");
        visit_bytes(visitor, convert::to_bytes(token).ok_or(kept)?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FromError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FromError> {
        if *self.peek()? == Token::Undef {
            self.take()?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FromError> {
        self.scalar("undef", |token| (*token == Token::Undef).then_some(()))?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FromError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FromError> {
        match name {
            VALUE => visitor.visit_enum(Typed(self)),
            UUID => {
                let uuid = self.scalar("a UUID", convert::to_uuid)?;
                visitor.visit_string(uuid.to_string())
            }
            DATE => visitor.visit_f64(self.scalar("a date", convert::to_date)?.0),
            URI => self.deserialize_str(visitor),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FromError> {
        match self.take()? {
            Token::ArrayStart => self.seq(visitor),
            Token::Undef => {
                visitor.visit_seq(de::value::SeqDeserializer::new(core::iter::empty::<bool>()))
            }
            // A list of bytes may come as what it is.
            Token::Binary(bytes) => {
                let bytes = bytes.into_owned().into_iter();
                visitor.visit_seq(de::value::SeqDeserializer::new(bytes))
            }
            token => Err(self.wrong(&token, "an array")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, FromError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, FromError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FromError> {
        match self.take()? {
            Token::MapStart => self.map(visitor),
            Token::Undef => visitor
                .visit_map(de::value::MapDeserializer::new(core::iter::empty::<(bool, bool)>())),
            token => Err(self.wrong(&token, "a map")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FromError> {
        match self.peek()? {
            // In the order of the fields, without their names.
            Token::ArrayStart => self.deserialize_seq(visitor),
            _ => self.deserialize_map(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FromError> {
        match self.take()? {
            Token::String(text) => visitor.visit_enum(text.as_ref().into_deserializer()),
            Token::MapStart => {
                self.enter()?;
                let value = visitor.visit_enum(Variant(&mut *self))?;
                match self.take()? {
                    Token::MapEnd => {
                        self.depth -= 1;
                        Ok(value)
                    }
                    token => Err(self.wrong(&token, "the end of a map with one entry")),
                }
            }
            token => Err(self.wrong(&token, "the name of a variant, or a map with it")),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FromError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FromError> {
        if matches!(self.take()?, Token::ArrayStart | Token::MapStart) {
            self.skip_rest()?;
        }
        visitor.visit_unit()
    }
}

/// The entries of an open container.
struct Entries<'e, 's, 'de, S> {
    de: &'e mut Deserializer<'s, 'de, S>,
    /// Its end was read.
    is_over: &'e mut bool,
}

impl<'de, S: Source<'de>> de::SeqAccess<'de> for Entries<'_, '_, 'de, S> {
    type Error = FromError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, FromError> {
        if *self.is_over {
            return Ok(None);
        }
        if *self.de.peek()? == Token::ArrayEnd {
            self.de.take()?;
            *self.is_over = true;
            return Ok(None);
        }
        seed.deserialize(&mut *self.de).map(Some)
    }
}

impl<'de, S: Source<'de>> de::MapAccess<'de> for Entries<'_, '_, 'de, S> {
    type Error = FromError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, FromError> {
        if *self.is_over {
            return Ok(None);
        }
        match self.de.take()? {
            Token::Key(key) => seed.deserialize(Key(key)).map(Some),
            _ => {
                *self.is_over = true;
                Ok(None)
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, FromError> {
        seed.deserialize(&mut *self.de)
    }
}

/// A key: a text, or the number in it.
struct Key<'de>(Cow<'de, str>);

macro_rules! key_numbers {
    ($($name:ident, $visit:ident, $wanted:literal;)*) => { $(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FromError> {
            let number = self.0.parse();
            visitor.$visit(number.map_err(|_| FromError::Type {
                found: format!("the key `{}`", quoted(&self.0)),
                wanted: $wanted,
                offset: 0,
            })?)
        }
    )* };
}

impl<'de> de::Deserializer<'de> for Key<'de> {
    type Error = FromError;

    key_numbers! {
        deserialize_i8, visit_i8, "an integer of 8 bits";
        deserialize_i16, visit_i16, "an integer of 16 bits";
        deserialize_i32, visit_i32, "an integer of 32 bits";
        deserialize_i64, visit_i64, "an integer of 64 bits";
        deserialize_u8, visit_u8, "an integer of 8 bits without sign";
        deserialize_u16, visit_u16, "an integer of 16 bits without sign";
        deserialize_u32, visit_u32, "an integer of 32 bits without sign";
        deserialize_u64, visit_u64, "an integer of 64 bits without sign";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FromError> {
        visit_text(visitor, self.0)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FromError> {
        match name {
            UUID | URI => visit_text(visitor, self.0),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FromError> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FromError> {
        visitor.visit_enum(self.0.as_ref().into_deserializer())
    }

    serde::forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// A variant in a map with its name.
struct Variant<'e, 's, 'de, S>(&'e mut Deserializer<'s, 'de, S>);

impl<'de, S: Source<'de>> de::EnumAccess<'de> for Variant<'_, '_, 'de, S> {
    type Error = FromError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), FromError> {
        match self.0.take()? {
            Token::Key(key) => Ok((seed.deserialize(Key(key))?, self)),
            token => Err(self.0.wrong(&token, "the name of a variant")),
        }
    }
}

impl<'de, S: Source<'de>> de::VariantAccess<'de> for Variant<'_, '_, 'de, S> {
    type Error = FromError;

    fn unit_variant(self) -> Result<(), FromError> {
        Deserialize::deserialize(self.0)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, FromError> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, FromError> {
        de::Deserializer::deserialize_seq(self.0, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FromError> {
        de::Deserializer::deserialize_map(self.0, visitor)
    }
}

/// A value together with its type, for [`Value`] alone.
struct Typed<'e, 's, 'de, S>(&'e mut Deserializer<'s, 'de, S>);

/// Types that serde tells apart by itself, and those that it does not.
const PLAIN: u32 = 0;
const ID: u32 = 1;
const MOMENT: u32 = 2;
const ADDRESS: u32 = 3;

impl<'e, 's, 'de, S: Source<'de>> de::EnumAccess<'de> for Typed<'e, 's, 'de, S> {
    type Error = FromError;
    type Variant = Variant<'e, 's, 'de, S>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self::Variant), FromError> {
        let kind = match self.0.peek()? {
            Token::Uuid(_) => ID,
            Token::Date(_) => MOMENT,
            Token::Uri(_) => ADDRESS,
            _ => PLAIN,
        };
        let kind: de::value::U32Deserializer<FromError> = kind.into_deserializer();
        Ok((seed.deserialize(kind)?, Variant(self.0)))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(VALUE, TypedVisitor)
    }
}

/// Takes the type first where the format tells it.
struct TypedVisitor;

impl<'de> Visitor<'de> for TypedVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of LLSD")
    }

    fn visit_newtype_struct<D: de::Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Value, D::Error> {
        deserializer.deserialize_any(PlainVisitor)
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        let (kind, content) = access.variant::<u32>()?;
        Ok(match kind {
            ID => {
                let text: String = de::VariantAccess::newtype_variant(content)?;
                let id = uuid::Uuid::try_parse(&text);
                Value::Uuid(id.map_err(de::Error::custom)?)
            }
            MOMENT => Value::Date(de::VariantAccess::newtype_variant(content)?),
            ADDRESS => Value::Uri(de::VariantAccess::newtype_variant(content)?),
            _ => de::VariantAccess::newtype_variant_seed(content, Plain)?,
        })
    }
}

/// A value of a type that serde tells apart by itself.
struct Plain;

impl<'de> DeserializeSeed<'de> for Plain {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(PlainVisitor)
    }
}

struct PlainVisitor;

impl PlainVisitor {
    fn whole<E: de::Error>(number: impl TryInto<i32> + Display + Copy) -> Result<Value, E> {
        let text = || E::custom(format!("the number {number} does not fit the 32 bits of LLSD"));
        number.try_into().map(Value::Integer).map_err(|_| text())
    }
}

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of LLSD")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Self::whole(value)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Self::whole(value)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Real(value))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(bytes.into())
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Value, E> {
        Ok(bytes.into())
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Undef)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Undef)
    }

    fn visit_some<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = access.next_element()? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Map::new();
        while let Some((key, value)) = access.next_entry()? {
            entries.insert(key, value);
        }
        Ok(Value::Map(entries))
    }
}

impl<'de> Deserialize<'de> for Date {
    /// A date, a text of one, or seconds; elsewhere than in LLSD, seconds.
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seconds;

        impl<'de> Visitor<'de> for Seconds {
            type Value = Date;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds since 1970")
            }

            fn visit_newtype_struct<D: de::Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Date, D::Error> {
                f64::deserialize(deserializer).map(Date)
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Date, E> {
                Ok(Date(seconds))
            }
        }

        deserializer.deserialize_newtype_struct(DATE, Seconds)
    }
}

impl<'de> Deserialize<'de> for Uri {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}
