//! What a message can be: plain data, a type of serde's, bytes.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::Serialize;
use serde::de::DeserializeOwned;
use twinspan_net::shm::{Form, Identity, Room};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A value cannot be encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot encode a message: {0}")]
pub struct EncodeError(String);

/// Bytes that came are no value of the type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode a message: {0}")]
pub struct DecodeError(String);

/// What a message can be. Implemented for all plain data, [`Serde`] and [`Bytes`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a message of a hub",
    note = "plain data: derive `FromBytes`, `IntoBytes`, `Immutable` and `KnownLayout` of `twinspan_hub::zerocopy` on a `#[repr(C)]` type",
    note = "a type of serde's: put it in `twinspan_hub::Serde<..>`",
    note = "bytes: `twinspan_hub::Bytes`"
)]
pub trait Payload: Sized + Send + 'static {
    /// Where a message is received.
    type Inbox: Room + Send;

    /// Bytes of every message; `None` where they vary.
    const BYTES: Option<usize>;

    /// What both ends must agree on.
    fn identity(version: u32) -> Identity;

    /// A place to receive messages at.
    fn inbox() -> Self::Inbox;

    /// The bytes of the value, perhaps in `scratch`.
    ///
    /// # Errors
    /// [`EncodeError`] when the value has none.
    fn encode<'a>(&'a self, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], EncodeError>;

    /// The bytes of a value that are its own; `None` where it has to be encoded.
    fn own_bytes(&self) -> Option<&[u8]> {
        None
    }

    /// The value in an inbox.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none.
    fn decode(inbox: &mut Self::Inbox) -> Result<Self, DecodeError>;

    /// The same in place of a value, whose memory is used again where that is possible.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none.
    fn decode_into(inbox: &mut Self::Inbox, value: &mut Self) -> Result<(), DecodeError> {
        *value = Self::decode(inbox)?;
        Ok(())
    }
}

/// Plain data: every value is its bytes and any bytes are a value. Derive zerocopy's four traits.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no plain data, as a message of a hub or a loan",
    note = "derive `FromBytes`, `IntoBytes`, `Immutable` and `KnownLayout` of `twinspan_hub::zerocopy` on a `#[repr(C)]` type; \
            as a message, a type of serde's goes in `twinspan_hub::Serde<..>`, bytes in `twinspan_hub::Bytes`"
)]
pub trait Plain: FromBytes + IntoBytes + KnownLayout + Immutable + Send + 'static {}

// So that a compiler names what a message can be, and not one of four traits that it lacks.
#[diagnostic::do_not_recommend]
impl<T: FromBytes + IntoBytes + KnownLayout + Immutable + Send + 'static> Plain for T {}

/// The last part of a type's name: the same in programs that declare it in different modules.
fn name_of<T>() -> String {
    let whole = std::any::type_name::<T>();
    // Parts of generic arguments stay: `Pair<a::B>` is `Pair<B>`.
    let mut name = String::new();
    let mut part_at = 0;
    for letter in whole.chars() {
        name.push(letter);
        if name.ends_with("::") {
            name.truncate(part_at);
        } else if !letter.is_alphanumeric() && letter != '_' && letter != ':' {
            part_at = name.len();
        }
    }
    name
}

/// Room for one value of plain data.
#[derive(Debug)]
pub struct PlainInbox<T>(Box<T>);

impl<T: Plain> Room for PlainInbox<T> {
    fn room(&mut self, length: usize) -> Option<&mut [u8]> {
        (length == size_of::<T>()).then(|| self.0.as_mut_bytes())
    }
}

#[diagnostic::do_not_recommend]
impl<T: Plain> Payload for T {
    type Inbox = PlainInbox<T>;

    const BYTES: Option<usize> = Some(size_of::<T>());

    fn identity(version: u32) -> Identity {
        Identity {
            form: Form::Plain,
            bytes: size_of::<T>() as u64,
            align: align_of::<T>() as u32,
            version,
            name: name_of::<T>(),
        }
    }

    fn inbox() -> PlainInbox<T> {
        // Memory that cannot be had for one value ends the program, as everywhere in Rust.
        PlainInbox(T::new_box_zeroed().unwrap_or_else(|_| Box::new(T::new_zeroed())))
    }

    fn encode<'a>(&'a self, _scratch: &'a mut Vec<u8>) -> Result<&'a [u8], EncodeError> {
        Ok(self.as_bytes())
    }

    fn own_bytes(&self) -> Option<&[u8]> {
        Some(self.as_bytes())
    }

    fn decode(inbox: &mut PlainInbox<T>) -> Result<T, DecodeError> {
        let read = T::read_from_bytes(inbox.0.as_bytes());
        // An inbox of T is as long as a T.
        read.map_err(|_| DecodeError("the length is another".into()))
    }
}

/// A value of serde's, in postcard's encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Serde<T>(pub T);

impl<T> Deref for Serde<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Payload for Serde<T> {
    type Inbox = Vec<u8>;

    const BYTES: Option<usize> = None;

    fn identity(version: u32) -> Identity {
        Identity { form: Form::Postcard, bytes: 0, align: 1, version, name: name_of::<T>() }
    }

    fn inbox() -> Vec<u8> {
        Vec::new()
    }

    fn encode<'a>(&'a self, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], EncodeError> {
        let mut room = std::mem::take(scratch);
        room.clear();
        *scratch =
            postcard::to_extend(&self.0, room).map_err(|error| EncodeError(error.to_string()))?;
        Ok(scratch)
    }

    fn decode(inbox: &mut Vec<u8>) -> Result<Self, DecodeError> {
        let decoded = postcard::take_from_bytes(inbox);
        match decoded.map_err(|error| DecodeError(error.to_string()))? {
            (value, []) => Ok(Self(value)),
            (_, rest) => Err(DecodeError(format!("{} bytes are left over", rest.len()))),
        }
    }
}

/// Bytes without a type.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} bytes)", self.0.len())
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Payload for Bytes {
    type Inbox = Vec<u8>;

    const BYTES: Option<usize> = None;

    fn identity(version: u32) -> Identity {
        Identity { form: Form::Bytes, bytes: 0, align: 1, version, name: "bytes".into() }
    }

    fn inbox() -> Vec<u8> {
        Vec::new()
    }

    fn encode<'a>(&'a self, _scratch: &'a mut Vec<u8>) -> Result<&'a [u8], EncodeError> {
        Ok(&self.0)
    }

    fn own_bytes(&self) -> Option<&[u8]> {
        Some(&self.0)
    }

    fn decode(inbox: &mut Vec<u8>) -> Result<Self, DecodeError> {
        Ok(Self(std::mem::take(inbox)))
    }

    fn decode_into(inbox: &mut Vec<u8>, value: &mut Self) -> Result<(), DecodeError> {
        // The memory of the value before receives the next message.
        std::mem::swap(inbox, &mut value.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Inner;
    struct Outer<T>(std::marker::PhantomData<T>);

    #[test]
    fn names_are_those_of_types_without_their_modules() {
        assert_eq!(name_of::<Inner>(), "Inner");
        assert_eq!(name_of::<Outer<Inner>>(), "Outer<Inner>");
        assert_eq!(name_of::<[Outer<u8>; 3]>(), "[Outer<u8>; 3]");
        assert_eq!(name_of::<(Inner, Vec<Inner>)>(), "(Inner, Vec<Inner>)");
        assert_eq!(name_of::<f64>(), "f64");
    }

    #[test]
    fn bytes_that_are_no_value_are_told() {
        assert!(PlainInbox(Box::new(7_u32)).room(3).is_none());
        let mut scratch = Vec::new();
        let value = Serde(("abc".to_owned(), 7_u64));
        let mut bytes = value.encode(&mut scratch).unwrap().to_vec();
        assert_eq!(Serde::decode(&mut bytes), Ok(value));
        bytes.push(0);
        let error = Serde::<(String, u64)>::decode(&mut bytes).unwrap_err();
        assert_eq!(error.to_string(), "cannot decode a message: 1 bytes are left over");
        bytes.truncate(2);
        assert!(Serde::<(String, u64)>::decode(&mut bytes).is_err());
    }
}
