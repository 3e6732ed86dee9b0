//! What an entity is: its kind, flags, place and motion.

use core::ops::{BitOr, BitOrAssign};

use crate::id::EntityId;

/// Health of an entity that nothing has hurt.
pub const HEALTH_FULL: u8 = 100;

/// What moves an entity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Moved by the inputs of a client.
    #[default]
    Player = 0,
    /// Walks about by itself.
    Npc = 1,
    /// Flies and bounces.
    Projectile = 2,
}

impl Kind {
    /// The kind with this number on the wire.
    pub const fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Player,
            1 => Self::Npc,
            2 => Self::Projectile,
            _ => return None,
        })
    }
}

/// Facts about an entity that are either so or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flags(u8);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// Under the timed effect: walks 1.5 times as fast.
    pub const HASTE: Self = Self(1);
    /// Its velocity is not zero.
    pub const MOVING: Self = Self(2);
    /// Every flag that has a meaning.
    pub const ALL: Self = Self(3);

    /// The flags as bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The flags with these bits; `None` when one of them has no meaning.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits & !Self::ALL.0 == 0 { Some(Self(bits)) } else { None }
    }

    /// Whether all of `flags` are set.
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These flags with `flags` set or cleared.
    #[must_use]
    pub const fn with(self, flags: Self, set: bool) -> Self {
        if set { Self(self.0 | flags.0) } else { Self(self.0 & !flags.0) }
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// A place, in metres.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Position {
    /// East.
    pub x: f64,
    /// Up.
    pub y: f64,
    /// North.
    pub z: f64,
}

impl Position {
    /// The place on the ground at `x`, `z`.
    pub const fn ground(x: f64, z: f64) -> Self {
        Self { x, y: 0.0, z }
    }

    /// The square of the distance over the ground to `other`, in square metres.
    pub fn ground_distance_squared(self, other: Self) -> f64 {
        let (dx, dz) = (self.x - other.x, self.z - other.z);
        dx * dx + dz * dz
    }

    /// The distance to `other`, in metres.
    pub fn distance(self, other: Self) -> f64 {
        let dy = self.y - other.y;
        libm::sqrt(self.ground_distance_squared(other) + dy * dy)
    }

    /// Whether no coordinate is infinite or not a number.
    pub const fn is_finite(self) -> bool {
        self.x.is_finite() && self.y.is_finite() && self.z.is_finite()
    }
}

/// A motion, in metres per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Velocity {
    /// To the east.
    pub x: f32,
    /// Upwards.
    pub y: f32,
    /// To the north.
    pub z: f32,
}

impl Velocity {
    /// No motion.
    pub const ZERO: Self = Self { x: 0.0, y: 0.0, z: 0.0 };

    /// Whether no component is infinite or not a number.
    pub const fn is_finite(self) -> bool {
        self.x.is_finite() && self.y.is_finite() && self.z.is_finite()
    }
}

/// All that is known about one entity at one tick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EntityState {
    /// Its name.
    pub id: EntityId,
    /// What moves it.
    pub kind: Kind,
    /// Where it is.
    pub position: Position,
    /// How it moves.
    pub velocity: Velocity,
    /// Where it faces, degrees in `[0, 360)`: 0 is north (+z), 90 is east (+x).
    pub yaw: f32,
    /// How far up it looks, degrees in `[-90, 90]`.
    pub pitch: f32,
    /// What holds for it.
    pub flags: Flags,
    /// 0 to 255; [`HEALTH_FULL`] is unhurt.
    pub health: u8,
}

/// `degrees` brought into `[0, 360)`; 0 when it is infinite or not a number.
pub fn wrap_degrees(degrees: f32) -> f32 {
    let wrapped = degrees.rem_euclid(360.0);
    // A tiny negative angle rounds up to 360 itself.
    if wrapped.is_finite() && wrapped < 360.0 { wrapped } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_wrap_into_one_turn() {
        assert_eq!(wrap_degrees(-90.0), 270.0);
        assert_eq!(wrap_degrees(720.5), 0.5);
        assert_eq!(wrap_degrees(-1e-30), 0.0);
        assert_eq!(wrap_degrees(f32::NAN), 0.0);
        assert_eq!(wrap_degrees(f32::INFINITY), 0.0);
    }

    #[test]
    fn flags_without_meaning_are_refused() {
        assert_eq!(Flags::from_bits(3), Some(Flags::HASTE | Flags::MOVING));
        assert_eq!(Flags::from_bits(4), None);
        assert_eq!(Flags::ALL.with(Flags::HASTE, false), Flags::MOVING);
    }
}
