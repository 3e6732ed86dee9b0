//! The shape of a primitive: a profile that is moved along a path.

use crate::field::Field;
use crate::wire::{EncodeError, Reader, Short, Writer};

/// The shape of a primitive, as it travels; [`floats`](Self::floats) tells what the numbers mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is named as the field of the messages")]
pub struct Shape {
    /// 16 is a line, 32 a circle.
    pub path_curve: u8,
    pub path_begin: u16,
    pub path_end: u16,
    pub path_scale_x: u8,
    pub path_scale_y: u8,
    pub path_shear_x: u8,
    pub path_shear_y: u8,
    pub path_twist: i8,
    pub path_twist_begin: i8,
    pub path_radius_offset: i8,
    pub path_taper_x: i8,
    pub path_taper_y: i8,
    pub path_revolutions: u8,
    pub path_skew: i8,
    /// The form in the low four bits (0 is a circle, 1 a square), that of the hole in the others.
    pub profile_curve: u8,
    pub profile_begin: u16,
    pub profile_end: u16,
    pub profile_hollow: u16,
}

/// What the numbers of a [`Shape`] mean. Steps: 0.000 02 for begins, ends and hollow, 0.01 for all
/// others but revolutions, whose step is 0.015.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShapeFloats {
    /// The part of the path that is cut away at its beginning: 0 to 1.
    pub path_begin: f32,
    /// Where the path ends: 0 to 1.
    pub path_end: f32,
    /// The size of the top, or of the hole: 0 to 2, 1 as plain.
    pub path_scale: [f32; 2],
    /// How far the top is moved: -0.5 to 0.5.
    pub path_shear: [f32; 2],
    /// How far the end is turned: -1 to 1 for half turns, or whole ones on circles.
    pub path_twist: f32,
    /// How far the beginning is turned.
    pub path_twist_begin: f32,
    /// -1 to 1.
    pub path_radius_offset: f32,
    /// -1 to 1.
    pub path_taper: [f32; 2],
    /// 1 to 4.
    pub path_revolutions: f32,
    /// -1 to 1.
    pub path_skew: f32,
    /// The part of the profile that is cut away at its beginning: 0 to 1.
    pub profile_begin: f32,
    /// Where the profile ends: 0 to 1.
    pub profile_end: f32,
    /// How much of the profile is a hole: 0 to 1.
    pub profile_hollow: f32,
}

/// The step of begins, ends and hollows.
const CUT: f32 = 0.000_02;
/// Ends count down from this.
const CUT_MAX: u16 = 50_000;
const STEP: f32 = 0.01;
const REVOLUTIONS: f32 = 0.015;

impl Shape {
    /// Bytes of a shape in a compressed update.
    pub const BYTES: usize = 23;
    /// A box of full size.
    pub const BOX: Self = Self {
        path_curve: 16,
        path_begin: 0,
        path_end: 0,
        path_scale_x: 100,
        path_scale_y: 100,
        path_shear_x: 0,
        path_shear_y: 0,
        path_twist: 0,
        path_twist_begin: 0,
        path_radius_offset: 0,
        path_taper_x: 0,
        path_taper_y: 0,
        path_revolutions: 0,
        path_skew: 0,
        profile_curve: 1,
        profile_begin: 0,
        profile_end: 0,
        profile_hollow: 0,
    };

    /// Reads it in the order of a compressed update.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Short> {
        Ok(Self {
            path_curve: Field::read(reader)?,
            path_begin: Field::read(reader)?,
            path_end: Field::read(reader)?,
            path_scale_x: Field::read(reader)?,
            path_scale_y: Field::read(reader)?,
            path_shear_x: Field::read(reader)?,
            path_shear_y: Field::read(reader)?,
            path_twist: Field::read(reader)?,
            path_twist_begin: Field::read(reader)?,
            path_radius_offset: Field::read(reader)?,
            path_taper_x: Field::read(reader)?,
            path_taper_y: Field::read(reader)?,
            path_revolutions: Field::read(reader)?,
            path_skew: Field::read(reader)?,
            profile_curve: Field::read(reader)?,
            profile_begin: Field::read(reader)?,
            profile_end: Field::read(reader)?,
            profile_hollow: Field::read(reader)?,
        })
    }

    /// Writes it in the order of a compressed update.
    pub(super) fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        self.path_curve.write(writer)?;
        self.path_begin.write(writer)?;
        self.path_end.write(writer)?;
        self.path_scale_x.write(writer)?;
        self.path_scale_y.write(writer)?;
        self.path_shear_x.write(writer)?;
        self.path_shear_y.write(writer)?;
        self.path_twist.write(writer)?;
        self.path_twist_begin.write(writer)?;
        self.path_radius_offset.write(writer)?;
        self.path_taper_x.write(writer)?;
        self.path_taper_y.write(writer)?;
        self.path_revolutions.write(writer)?;
        self.path_skew.write(writer)?;
        self.profile_curve.write(writer)?;
        self.profile_begin.write(writer)?;
        self.profile_end.write(writer)?;
        self.profile_hollow.write(writer)
    }

    /// What the numbers mean.
    pub fn floats(&self) -> ShapeFloats {
        let begin = |value: u16| f32::from(value) * CUT;
        let end = |value: u16| f32::from(CUT_MAX.saturating_sub(value)) * CUT;
        // 100 is one, 0 is two: a large hole travels as a small number.
        let scale = |value: u8| f32::from(200_u8.saturating_sub(value)) * STEP;
        // Shears are signed, although their fields are not.
        let shear = |value: u8| f32::from(value.cast_signed()) * STEP;
        let signed = |value: i8| f32::from(value) * STEP;
        ShapeFloats {
            path_begin: begin(self.path_begin),
            path_end: end(self.path_end),
            path_scale: [scale(self.path_scale_x), scale(self.path_scale_y)],
            path_shear: [shear(self.path_shear_x), shear(self.path_shear_y)],
            path_twist: signed(self.path_twist),
            path_twist_begin: signed(self.path_twist_begin),
            path_radius_offset: signed(self.path_radius_offset),
            path_taper: [signed(self.path_taper_x), signed(self.path_taper_y)],
            path_revolutions: f32::from(self.path_revolutions) * REVOLUTIONS + 1.0,
            path_skew: signed(self.path_skew),
            profile_begin: begin(self.profile_begin),
            profile_end: end(self.profile_end),
            profile_hollow: begin(self.profile_hollow),
        }
    }

    /// The nearest numbers, each off by half its step at most; what is out of range is cut.
    pub fn from_floats(path_curve: u8, profile_curve: u8, floats: &ShapeFloats) -> Self {
        let begin = |value: f32| ((value / CUT).round() as u16).min(CUT_MAX);
        let end = |value: f32| CUT_MAX - begin(value);
        let scale = |value: f32| 200 - ((value / STEP).round() as u8).min(200);
        let signed = |value: f32| (value / STEP).round() as i8;
        let shear = |value: f32| signed(value).cast_unsigned();
        Self {
            path_curve,
            path_begin: begin(floats.path_begin),
            path_end: end(floats.path_end),
            path_scale_x: scale(floats.path_scale[0]),
            path_scale_y: scale(floats.path_scale[1]),
            path_shear_x: shear(floats.path_shear[0]),
            path_shear_y: shear(floats.path_shear[1]),
            path_twist: signed(floats.path_twist),
            path_twist_begin: signed(floats.path_twist_begin),
            path_radius_offset: signed(floats.path_radius_offset),
            path_taper_x: signed(floats.path_taper[0]),
            path_taper_y: signed(floats.path_taper[1]),
            path_revolutions: ((floats.path_revolutions - 1.0) / REVOLUTIONS).round() as u8,
            path_skew: signed(floats.path_skew),
            profile_curve,
            profile_begin: begin(floats.profile_begin),
            profile_end: end(floats.profile_end),
            profile_hollow: begin(floats.profile_hollow),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_plain() {
        let floats = Shape::BOX.floats();
        assert_eq!((floats.path_begin, floats.path_end), (0.0, 1.0));
        assert_eq!((floats.path_scale, floats.path_revolutions), ([1.0; 2], 1.0));
        assert_eq!(Shape::from_floats(16, 1, &floats), Shape::BOX);
    }

    #[test]
    fn numbers_come_back_from_their_meanings() {
        for value in 0..=100_u8 {
            let shape = Shape {
                path_begin: u16::from(value) * 500,
                path_end: u16::from(value) * 500,
                path_scale_x: value * 2,
                path_scale_y: value,
                path_shear_x: (-50_i8).wrapping_add_unsigned(value).cast_unsigned(),
                path_shear_y: value / 2,
                path_twist: value.cast_signed(),
                path_twist_begin: -value.cast_signed(),
                path_taper_x: -value.cast_signed(),
                path_revolutions: value * 2,
                path_skew: value.cast_signed(),
                profile_hollow: u16::from(value) * 500,
                ..Shape::BOX
            };
            assert_eq!(Shape::from_floats(16, 1, &shape.floats()), shape);
        }
    }
}
