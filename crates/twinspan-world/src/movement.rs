//! One step of a walking player, the same on the server and in the client's prediction.

use crate::TICK_HZ;
use crate::entity::{Flags, Position, Velocity};
use crate::input::Input;

/// Full walking speed in metres per second.
pub const WALK_SPEED: f64 = 5.0;
/// How many times faster a player under [`Flags::HASTE`] walks.
pub const HASTE_FACTOR: f64 = 1.5;
/// The time of one step in seconds.
pub const TICK_SECONDS: f64 = 1.0 / TICK_HZ as f64;
/// How near the far edges of the world a position can come, in metres.
pub const EDGE: f64 = 1.0 / 1_024.0;

/// Players stand at multiples of this fraction of a metre, as a power of two: their places then
/// travel exactly in a few bytes.
pub const PLACES_PER_METRE_BITS: u32 = 20;

/// How high anything can be, in metres: the wire's centimetres reach 327.67.
pub const HEIGHT_MAX: f64 = 300.0;

/// The moving part of an entity.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Body {
    /// Where it is.
    pub position: Position,
    /// How it moves.
    pub velocity: Velocity,
    /// Where it faces, degrees in `[0, 360)`.
    pub yaw: f32,
    /// How far up it looks, degrees in `[-90, 90]`.
    pub pitch: f32,
}

/// Where `body` is one tick after it was given `input`, in a world of `side` metres.
///
/// A pure function of its arguments with the same bits on every machine: it uses only exact IEEE
/// operations and `libm`. Players have no inertia, so that a position is the sum of its steps.
#[must_use]
pub fn step(body: Body, input: &Input, flags: Flags, side: f64) -> Body {
    let forward = f64::from(input.forward) / 127.0;
    let strafe = f64::from(input.strafe) / 127.0;
    // A diagonal must not be faster than a straight line.
    let length = libm::sqrt(forward * forward + strafe * strafe).max(1.0);
    let scale = speed(flags) / length;
    let yaw = input.yaw_degrees();
    let (sin, cos) = libm::sincos(f64::from(yaw).to_radians());
    let velocity = Velocity {
        x: ((forward * sin + strafe * cos) * scale) as f32,
        y: 0.0,
        z: ((forward * cos - strafe * sin) * scale) as f32,
    };
    let position = Position {
        x: inside(on_place(body.position.x + f64::from(velocity.x) * TICK_SECONDS), side),
        y: 0.0,
        z: inside(on_place(body.position.z + f64::from(velocity.z) * TICK_SECONDS), side),
    };
    Body { position, velocity, yaw, pitch: input.pitch_degrees() }
}

/// Full walking speed under `flags`, in metres per second.
pub const fn speed(flags: Flags) -> f64 {
    if flags.contains(Flags::HASTE) { WALK_SPEED * HASTE_FACTOR } else { WALK_SPEED }
}

/// The place nearest to `coordinate`, exact up to thousands of kilometres.
pub(crate) fn on_place(coordinate: f64) -> f64 {
    const PLACES: f64 = (1_u32 << PLACES_PER_METRE_BITS) as f64;
    // What is below zero is cut to it anyway; a cast is quicker than a call.
    ((coordinate * PLACES + 0.5) as i64) as f64 / PLACES
}

/// `coordinate` cut to a world of `side` metres; 0 when it is no number.
pub(crate) fn inside(coordinate: f64, side: f64) -> f64 {
    cut(coordinate, side - EDGE)
}

/// `value` cut to 0 and `max`; 0 when it is no number, where `clamp` would keep it.
pub(crate) fn cut(value: f64, max: f64) -> f64 {
    value.max(0.0).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(forward: i8, strafe: i8, yaw: u16, flags: Flags) -> Body {
        let body = Body { position: Position::ground(50.0, 50.0), ..Body::default() };
        let input = Input { sequence: 1, forward, strafe, yaw, ..Input::default() };
        (0..TICK_HZ).fold(body, |body, _| step(body, &input, flags, 100.0))
    }

    fn near(body: Body, x: f64, z: f64) -> bool {
        body.position.distance(Position::ground(x, z)) < 1e-4
    }

    #[test]
    fn a_second_of_full_speed_is_five_metres() {
        assert!(near(walk(127, 0, 0, Flags::NONE), 50.0, 55.0), "north at heading 0");
        assert!(near(walk(127, 0, 0x4000, Flags::NONE), 55.0, 50.0), "east at a quarter turn");
        assert!(near(walk(0, 127, 0, Flags::NONE), 55.0, 50.0), "strafing goes to the right");
        assert!(near(walk(-127, 0, 0, Flags::NONE), 50.0, 45.0), "backwards");
        assert!(near(walk(127, 0, 0, Flags::HASTE), 50.0, 57.5), "haste is half as fast again");
    }

    #[test]
    fn a_diagonal_is_no_faster() {
        let body = walk(127, 127, 0x2000, Flags::NONE);
        let moved = body.position.distance(Position::ground(50.0, 50.0));
        assert!((moved - 5.0).abs() < 1e-4, "moved {moved} m");
    }

    #[test]
    fn nobody_leaves_the_world() {
        let start = Body { position: Position::ground(99.99, 0.01), ..Body::default() };
        let input = Input { sequence: 1, forward: -127, strafe: 127, ..Input::default() };
        let end = (0..600).fold(start, |body, _| step(body, &input, Flags::HASTE, 100.0));
        assert_eq!(end.position, Position::ground(100.0 - EDGE, 0.0));
        assert_eq!(inside(f64::NAN, 100.0), 0.0);
        assert_eq!(inside(f64::INFINITY, 100.0), 100.0 - EDGE);
    }

    /// Pinned: a client built today must agree with a server built tomorrow.
    #[test]
    fn a_step_has_these_bits() {
        let body = Body { position: Position::ground(1234.5678, 987.654_321), ..Body::default() };
        let input =
            Input { sequence: 9, forward: 101, strafe: -77, yaw: 12_345, ..Input::default() };
        let end = (0..100).fold(body, |body, _| step(body, &input, Flags::HASTE, 4096.0));
        let bits = [end.position.x.to_bits(), end.position.z.to_bits()];
        assert_eq!(bits, PINNED);
    }
    const PINNED: [u64; 2] = [4653172397531201536, 4651993460230848512];
}
