//! The types of fields.

use core::fmt;
use core::net::Ipv4Addr;
use core::str::Utf8Error;

use uuid::Uuid;

use crate::layout::FieldKind;
use crate::wire::{EncodeError, Reader, Short, Writer};

/// A type that a field can have.
pub trait Field: Sized {
    /// What the layout calls it.
    const KIND: FieldKind;
    /// Zero, or no bytes.
    const EMPTY: Self;

    /// Reads it from the front.
    ///
    /// # Errors
    /// [`Short`] when the body ends within it.
    fn read(reader: &mut Reader<'_>) -> Result<Self, Short>;

    /// Writes it.
    ///
    /// # Errors
    /// [`EncodeError::NoRoom`]
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError>;

    /// The same as a value of any type.
    fn value(&self) -> ValueRef<'_>;
}

/// The value of a field, whatever its type.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is named as its type")]
pub enum ValueRef<'a> {
    U8(u8),
    S8(i8),
    Bool(bool),
    U16(u16),
    S16(i16),
    U32(u32),
    S32(i32),
    U64(u64),
    F32(f32),
    F64(f64),
    Uuid(Uuid),
    Vector3(Vector3),
    Vector3d(Vector3d),
    Vector4(Vector4),
    Quaternion(Quaternion),
    Ip(Ipv4Addr),
    Port(Port),
    /// Fields of fixed and of variable length.
    Bytes(&'a [u8]),
}

impl<'a> ValueRef<'a> {
    /// Reads a value of this type from the front.
    ///
    /// # Errors
    /// [`Short`] when the body ends within it.
    pub(crate) fn read(kind: FieldKind, reader: &mut Reader<'a>) -> Result<Self, Short> {
        Ok(match kind {
            FieldKind::U8 => Self::U8(Field::read(reader)?),
            FieldKind::S8 => Self::S8(Field::read(reader)?),
            FieldKind::Bool => Self::Bool(Field::read(reader)?),
            FieldKind::U16 => Self::U16(Field::read(reader)?),
            FieldKind::S16 => Self::S16(Field::read(reader)?),
            FieldKind::U32 => Self::U32(Field::read(reader)?),
            FieldKind::S32 => Self::S32(Field::read(reader)?),
            FieldKind::U64 => Self::U64(Field::read(reader)?),
            FieldKind::F32 => Self::F32(Field::read(reader)?),
            FieldKind::F64 => Self::F64(Field::read(reader)?),
            FieldKind::Uuid => Self::Uuid(Field::read(reader)?),
            FieldKind::Vector3 => Self::Vector3(Field::read(reader)?),
            FieldKind::Vector3d => Self::Vector3d(Field::read(reader)?),
            FieldKind::Vector4 => Self::Vector4(Field::read(reader)?),
            FieldKind::Quaternion => Self::Quaternion(Field::read(reader)?),
            FieldKind::Ip => Self::Ip(Field::read(reader)?),
            FieldKind::Port => Self::Port(Field::read(reader)?),
            FieldKind::Fixed(bytes) => Self::Bytes(reader.take(bytes.into())?),
            FieldKind::Variable1 => Self::Bytes(Var1Ref::read_ref(reader)?.bytes()),
            FieldKind::Variable2 => Self::Bytes(Var2Ref::read_ref(reader)?.bytes()),
        })
    }

    /// Writes it as a field of this type.
    ///
    /// # Errors
    /// [`EncodeError::Mismatch`] when it is of another type, [`EncodeError::TooManyBytes`],
    /// [`EncodeError::NoRoom`]
    pub(crate) fn write(self, kind: FieldKind, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        match (kind, self) {
            (FieldKind::U8, Self::U8(value)) => value.write(writer),
            (FieldKind::S8, Self::S8(value)) => value.write(writer),
            (FieldKind::Bool, Self::Bool(value)) => value.write(writer),
            (FieldKind::U16, Self::U16(value)) => value.write(writer),
            (FieldKind::S16, Self::S16(value)) => value.write(writer),
            (FieldKind::U32, Self::U32(value)) => value.write(writer),
            (FieldKind::S32, Self::S32(value)) => value.write(writer),
            (FieldKind::U64, Self::U64(value)) => value.write(writer),
            (FieldKind::F32, Self::F32(value)) => value.write(writer),
            (FieldKind::F64, Self::F64(value)) => value.write(writer),
            (FieldKind::Uuid, Self::Uuid(value)) => value.write(writer),
            (FieldKind::Vector3, Self::Vector3(value)) => value.write(writer),
            (FieldKind::Vector3d, Self::Vector3d(value)) => value.write(writer),
            (FieldKind::Vector4, Self::Vector4(value)) => value.write(writer),
            (FieldKind::Quaternion, Self::Quaternion(value)) => value.write(writer),
            (FieldKind::Ip, Self::Ip(value)) => value.write(writer),
            (FieldKind::Port, Self::Port(value)) => value.write(writer),
            (FieldKind::Fixed(count), Self::Bytes(bytes)) if bytes.len() == usize::from(count) => {
                writer.put(bytes)
            }
            (FieldKind::Variable1, Self::Bytes(bytes)) => write_counted::<255>(bytes, writer),
            (FieldKind::Variable2, Self::Bytes(bytes)) => write_counted::<65_535>(bytes, writer),
            _ => Err(EncodeError::Mismatch { wanted: kind.name() }),
        }
    }
}

macro_rules! little_endian {
    ($($type:ty, $value:ident, $zero:literal;)*) => { $(
        impl Field for $type {
            const KIND: FieldKind = FieldKind::$value;
            const EMPTY: Self = $zero;

            #[inline]
            fn read(reader: &mut Reader<'_>) -> Result<Self, Short> {
                Ok(Self::from_le_bytes(*reader.array()?))
            }

            #[inline]
            fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
                writer.array(&self.to_le_bytes())
            }

            fn value(&self) -> ValueRef<'_> {
                ValueRef::$value(*self)
            }
        }
    )* };
}

little_endian! {
    u8, U8, 0;
    i8, S8, 0;
    u16, U16, 0;
    i16, S16, 0;
    u32, U32, 0;
    i32, S32, 0;
    u64, U64, 0;
    f32, F32, 0.0;
    f64, F64, 0.0;
}

/// Any byte but 0 is read as true, and true is written as 1.
impl Field for bool {
    const KIND: FieldKind = FieldKind::Bool;
    const EMPTY: Self = false;

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self, Short> {
        Ok(u8::read(reader)? != 0)
    }

    #[inline]
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        u8::from(*self).write(writer)
    }

    fn value(&self) -> ValueRef<'_> {
        ValueRef::Bool(*self)
    }
}

impl Field for Uuid {
    const KIND: FieldKind = FieldKind::Uuid;
    const EMPTY: Self = Self::nil();

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self, Short> {
        Ok(Self::from_bytes(*reader.array()?))
    }

    #[inline]
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.array(self.as_bytes())
    }

    fn value(&self) -> ValueRef<'_> {
        ValueRef::Uuid(*self)
    }
}

impl Field for Ipv4Addr {
    const KIND: FieldKind = FieldKind::Ip;
    const EMPTY: Self = Self::UNSPECIFIED;

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self, Short> {
        Ok(Self::from_octets(*reader.array()?))
    }

    #[inline]
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.array(&self.octets())
    }

    fn value(&self) -> ValueRef<'_> {
        ValueRef::Ip(*self)
    }
}

/// A port: the one number that is big-endian in a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Port(pub u16);

impl Field for Port {
    const KIND: FieldKind = FieldKind::Port;
    const EMPTY: Self = Self(0);

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self, Short> {
        Ok(Self(u16::from_be_bytes(*reader.array()?)))
    }

    #[inline]
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.array(&self.0.to_be_bytes())
    }

    fn value(&self) -> ValueRef<'_> {
        ValueRef::Port(*self)
    }
}

macro_rules! vector {
    ($($(#[$doc:meta])* $name:ident($part:ty, $($axis:ident),*);)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        #[expect(missing_docs, reason = "the axes say it")]
        pub struct $name {
            $(pub $axis: $part,)*
        }

        impl $name {
            /// A vector from its parts.
            pub const fn new($($axis: $part),*) -> Self {
                Self { $($axis),* }
            }
        }

        impl Field for $name {
            const KIND: FieldKind = FieldKind::$name;
            const EMPTY: Self = Self { $($axis: 0.0),* };

            #[inline]
            fn read(reader: &mut Reader<'_>) -> Result<Self, Short> {
                Ok(Self { $($axis: <$part>::read(reader)?),* })
            }

            #[inline]
            fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
                $(self.$axis.write(writer)?;)*
                Ok(())
            }

            fn value(&self) -> ValueRef<'_> {
                ValueRef::$name(*self)
            }
        }
    )* };
}

vector! {
    /// Three floats.
    Vector3(f32, x, y, z);
    /// Three doubles.
    Vector3d(f64, x, y, z);
    /// Four floats.
    Vector4(f32, x, y, z, w);
    /// A rotation: a quaternion of length 1 whose fourth part is not negative and does not travel.
    Quaternion(f32, x, y, z);
}

impl Quaternion {
    /// The rotation of four parts; `(x, y, z, w)` and their negatives are one rotation.
    pub const fn from_parts(x: f32, y: f32, z: f32, w: f32) -> Self {
        if w < 0.0 { Self { x: -x, y: -y, z: -z } } else { Self { x, y, z } }
    }

    /// The part that does not travel: 0 or more.
    pub fn w(self) -> f32 {
        let rest = 1.0 - self.x * self.x - self.y * self.y - self.z * self.z;
        // `max` takes the 0 where a peer sent no numbers.
        rest.max(0.0).sqrt()
    }
}

impl<const N: usize> Field for [u8; N] {
    const KIND: FieldKind = FieldKind::Fixed(N as u16);
    const EMPTY: Self = [0; N];

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self, Short> {
        reader.array().copied()
    }

    #[inline]
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.array(self)
    }

    fn value(&self) -> ValueRef<'_> {
        ValueRef::Bytes(self)
    }
}

/// More bytes than the field can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{count} bytes where {max} are the most")]
pub struct TooLong {
    /// Bytes that were given.
    pub count: usize,
    /// Bytes that the field holds.
    pub max: usize,
}

/// Up to `MAX` bytes, often text: then a byte 0 ends it, and is counted.
///
/// ```
/// use twinspan_lludp::Var1;
///
/// let name = Var1::text("Alpha")?;
/// assert_eq!(name.bytes(), b"Alpha\0");
/// assert_eq!(name.to_text(), "Alpha");
/// assert!(Var1::new([0; 256]).is_err());
/// # Ok::<(), twinspan_lludp::TooLong>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Variable<const MAX: usize>(Vec<u8>);

/// Up to 255 bytes.
pub type Var1 = Variable<255>;
/// Up to 65,535 bytes.
pub type Var2 = Variable<65_535>;

impl<const MAX: usize> Variable<MAX> {
    /// The most bytes that it holds.
    pub const BYTES_MAX: usize = MAX;

    /// These bytes as they are.
    ///
    /// # Errors
    /// [`TooLong`]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, TooLong> {
        let bytes = bytes.into();
        if bytes.len() > MAX {
            return Err(TooLong { count: bytes.len(), max: MAX });
        }
        Ok(Self(bytes))
    }

    /// This text and the 0 that ends it.
    ///
    /// # Errors
    /// [`TooLong`]
    pub fn text(text: &str) -> Result<Self, TooLong> {
        Self::new([text.as_bytes(), &[0]].concat())
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, taken out.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The text before the 0 that ends it, if it is UTF-8.
    ///
    /// # Errors
    /// [`Utf8Error`]
    pub fn as_text(&self) -> Result<&str, Utf8Error> {
        text_of(&self.0)
    }

    /// The text before the 0 that ends it; what is not UTF-8 is replaced.
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(without_end(&self.0)).into_owned()
    }
}

fn without_end(bytes: &[u8]) -> &[u8] {
    match bytes {
        [text @ .., 0] => text,
        text => text,
    }
}

/// The text before the 0 that ends it, if it is UTF-8.
pub(crate) fn text_of(bytes: &[u8]) -> Result<&str, Utf8Error> {
    core::str::from_utf8(without_end(bytes))
}

impl<const MAX: usize> fmt::Debug for Variable<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// The length before `MAX` bytes at most: one byte, or two.
#[inline]
fn read_len<const MAX: usize>(reader: &mut Reader<'_>) -> Result<usize, Short> {
    if MAX <= 255 { Ok(u8::read(reader)?.into()) } else { Ok(u16::read(reader)?.into()) }
}

/// Writes bytes behind their length; the caller has checked that they are no more than `MAX`.
#[inline]
fn write_counted<const MAX: usize>(
    bytes: &[u8],
    writer: &mut Writer<'_>,
) -> Result<(), EncodeError> {
    let count = bytes.len();
    if count > MAX {
        return Err(EncodeError::TooManyBytes { count, max: MAX });
    }
    if MAX <= 255 {
        (count as u8).write(writer)?;
    } else {
        (count as u16).write(writer)?;
    }
    writer.put(bytes)
}

impl<const MAX: usize> Field for Variable<MAX> {
    const KIND: FieldKind = if MAX <= 255 { FieldKind::Variable1 } else { FieldKind::Variable2 };
    const EMPTY: Self = Self(Vec::new());

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self, Short> {
        let len = read_len::<MAX>(reader)?;
        // Checked against what is there before it sizes the copy.
        Ok(Self(reader.take(len)?.to_vec()))
    }

    #[inline]
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        write_counted::<MAX>(&self.0, writer)
    }

    fn value(&self) -> ValueRef<'_> {
        ValueRef::Bytes(&self.0)
    }
}

/// A [`Variable`] that borrows from the packet.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct VariableRef<'a, const MAX: usize>(&'a [u8]);

/// Up to 255 bytes, borrowed.
pub type Var1Ref<'a> = VariableRef<'a, 255>;
/// Up to 65,535 bytes, borrowed.
pub type Var2Ref<'a> = VariableRef<'a, 65_535>;

impl<'a, const MAX: usize> VariableRef<'a, MAX> {
    /// The bytes.
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The text before the 0 that ends it, if it is UTF-8.
    ///
    /// # Errors
    /// [`Utf8Error`]
    pub fn as_text(self) -> Result<&'a str, Utf8Error> {
        text_of(self.0)
    }
}

impl<const MAX: usize> fmt::Debug for VariableRef<'_, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// A type of a field that may borrow from the body.
pub trait FieldRef<'a>: Sized {
    /// The same without the loan.
    type Owned: Field;

    /// Reads it from the front.
    ///
    /// # Errors
    /// [`Short`] when the body ends within it.
    fn read_ref(reader: &mut Reader<'a>) -> Result<Self, Short>;

    /// Copies what is borrowed.
    fn owned(&self) -> Self::Owned;
}

impl<'a, F: Field + Copy> FieldRef<'a> for F {
    type Owned = F;

    #[inline]
    fn read_ref(reader: &mut Reader<'a>) -> Result<Self, Short> {
        F::read(reader)
    }

    #[inline]
    fn owned(&self) -> F {
        *self
    }
}

impl<'a, const MAX: usize> FieldRef<'a> for VariableRef<'a, MAX> {
    type Owned = Variable<MAX>;

    #[inline]
    fn read_ref(reader: &mut Reader<'a>) -> Result<Self, Short> {
        let len = read_len::<MAX>(reader)?;
        Ok(Self(reader.take(len)?))
    }

    fn owned(&self) -> Variable<MAX> {
        Variable(self.0.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both_ways<F: Field + PartialEq + fmt::Debug>(value: &F, bytes: &[u8]) {
        let mut out = [0; 64];
        let mut writer = Writer::new(&mut out);
        value.write(&mut writer).unwrap();
        let len = writer.len();
        assert_eq!(out[..len], *bytes, "{value:?}");
        assert_eq!(F::read(&mut Reader::new(bytes)).as_ref(), Ok(value));
        assert_eq!(F::read(&mut Reader::new(&bytes[..bytes.len() - 1])), Err(Short), "{value:?}");
        let mut none = Writer::new(&mut out[..bytes.len() - 1]);
        assert_eq!(value.write(&mut none), Err(EncodeError::NoRoom), "{value:?}");
    }

    #[test]
    fn fields_have_their_golden_bytes() {
        both_ways(&1_u8, &[1]);
        both_ways(&-2_i8, &[0xFE]);
        both_ways(&true, &[1]);
        both_ways(&0x0102_u16, &[2, 1]);
        both_ways(&-2_i16, &[0xFE, 0xFF]);
        both_ways(&0x0102_0304_u32, &[4, 3, 2, 1]);
        both_ways(&-2_i32, &[0xFE, 0xFF, 0xFF, 0xFF]);
        both_ways(&0x0102_0304_0506_0708_u64, &[8, 7, 6, 5, 4, 3, 2, 1]);
        both_ways(&1.0_f32, &[0, 0, 0x80, 0x3F]);
        both_ways(&1.0_f64, &[0, 0, 0, 0, 0, 0, 0xF0, 0x3F]);
        both_ways(&Uuid::from_u128(0x0102), &[&[0; 14][..], &[1, 2]].concat());
        both_ways(&Ipv4Addr::new(10, 0, 0, 1), &[10, 0, 0, 1]);
        both_ways(&Port(9_000), &[0x23, 0x28]);
        both_ways(&Vector3::new(1.0, 0.0, -0.0), &[0, 0, 0x80, 0x3F, 0, 0, 0, 0, 0, 0, 0, 0x80]);
        both_ways(&[1_u8, 2, 3, 4], &[1, 2, 3, 4]);
        both_ways(&Var1::text("Al").unwrap(), &[3, b'A', b'l', 0]);
        both_ways(&Var2::text("Al").unwrap(), &[3, 0, b'A', b'l', 0]);
    }

    #[test]
    fn a_rotation_keeps_its_fourth_part_positive() {
        let half = Quaternion::from_parts(-0.5, 0.5, -0.5, -0.5);
        assert_eq!(half, Quaternion::new(0.5, -0.5, 0.5));
        assert_eq!(half.w(), 0.5);
        assert_eq!(Quaternion::new(3.0, 0.0, 0.0).w(), 0.0);
        assert_eq!(Quaternion::new(f32::NAN, 0.0, 0.0).w(), 0.0);
        assert_eq!(Quaternion::default().w(), 1.0);
    }

    #[test]
    fn what_is_longer_than_its_field_is_refused() {
        assert_eq!(Var1::new(vec![0; 256]), Err(TooLong { count: 256, max: 255 }));
        assert!(Var1::new(vec![0; 255]).is_ok());
        assert!(Var2::new(vec![0; 65_535]).is_ok());
        assert!(Var2::text(&"x".repeat(65_535)).is_err());
    }

    #[test]
    fn text_ends_before_its_zero() {
        assert_eq!(Var1::new(*b"a\0").unwrap().as_text(), Ok("a"));
        assert_eq!(Var1::new(*b"a").unwrap().as_text(), Ok("a"));
        assert_eq!(Var1::new(*b"a\0b\0").unwrap().as_text(), Ok("a\0b"));
        assert!(Var1::new([0xFF, 0]).unwrap().as_text().is_err());
        assert_eq!(Var1::new([0xFF, 0]).unwrap().to_text(), "\u{FFFD}");
    }
}
