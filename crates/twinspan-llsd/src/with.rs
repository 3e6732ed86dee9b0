//! Helpers for fields that serde cannot tell: `#[serde(with = "twinspan_llsd::with::uuid")]`.
//!
//! Without one, an id is a string, bytes are an array of integers, and numbers of more than 32 bits
//! are refused.

/// An id, as the UUID that LLSD has.
pub mod uuid {
    use std::fmt;

    use serde::de::{self, Deserialize, Deserializer, Visitor};
    use serde::ser::Serializer;
    use uuid::Uuid;

    use crate::ser::UUID;

    /// A UUID in LLSD, a text elsewhere.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(UUID, &id.to_string())
    }

    /// Of a UUID, a text of one, 16 bytes, or undef.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Uuid;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a UUID")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Uuid, D::Error> {
                self.visit_string(String::deserialize(deserializer)?)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Uuid, E> {
                Uuid::try_parse(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_newtype_struct(UUID, Text)
    }
}

/// Bytes, as binary: a `Vec<u8>`.
pub mod binary {
    use std::fmt;

    use serde::de::{self, Deserializer, SeqAccess, Visitor};
    use serde::ser::Serializer;

    /// Binary.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    /// Of binary, undef, or an array of small integers.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = access.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }

        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// Numbers that grids send as big-endian binary: `u32`, `u64`, and addresses of IPv4.
pub mod be {
    use std::net::Ipv4Addr;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    use crate::Value;

    /// A number with big-endian bytes.
    pub trait BigEndian: Sized {
        /// Its bytes.
        fn bytes(&self) -> Vec<u8>;

        /// The number that a value is, see [`Value::to_u32`] and [`Value::to_u64`]; `None` when it
        /// is none.
        fn of(value: &Value) -> Option<Self>;
    }

    impl BigEndian for u32 {
        fn bytes(&self) -> Vec<u8> {
            self.to_be_bytes().to_vec()
        }

        fn of(value: &Value) -> Option<Self> {
            value.to_u32()
        }
    }

    impl BigEndian for u64 {
        fn bytes(&self) -> Vec<u8> {
            self.to_be_bytes().to_vec()
        }

        fn of(value: &Value) -> Option<Self> {
            value.to_u64()
        }
    }

    impl BigEndian for Ipv4Addr {
        fn bytes(&self) -> Vec<u8> {
            self.octets().to_vec()
        }

        /// Four bytes, a text like `10.0.0.1`, or an integer of 32 bits.
        fn of(value: &Value) -> Option<Self> {
            match value {
                Value::String(text) => text.trim().parse().ok(),
                value => value.to_u32().map(Self::from_bits),
            }
        }
    }

    /// Big-endian binary.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<T: BigEndian, S: Serializer>(
        number: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&number.bytes())
    }

    /// Of binary, an array of bytes, an integer, a text, or undef.
    ///
    /// # Errors
    /// When it is none of these, or does not fit.
    pub fn deserialize<'de, T: BigEndian, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let value = match Value::deserialize(deserializer)? {
            // What bytes are in formats that have no binary.
            Value::Array(elements) => {
                let byte = |element: &Value| element.to_i64()?.try_into().ok();
                elements.iter().map(byte).collect::<Option<Vec<u8>>>().into()
            }
            value => value,
        };
        T::of(&value).ok_or_else(|| D::Error::custom("no big-endian number in binary"))
    }
}
