//! How NPCs and projectiles move by themselves.

use twinspan_core::random::Stream;

use crate::TICK_HZ;
use crate::entity::{Flags, Kind, Velocity, wrap_degrees};
use crate::movement::{self, Body, EDGE, TICK_SECONDS};

/// Walking speed of an NPC in metres per second.
pub(crate) const NPC_SPEED: f64 = 2.0;
/// Speed of a projectile over the ground in metres per second; fits the wire's 31.75.
pub(crate) const PROJECTILE_SPEED: f64 = 20.0;
/// Upward speed of a projectile when it leaves the ground, in metres per second.
const BOUNCE_SPEED: f32 = 12.0;
/// What pulls projectiles down, in metres per second squared.
pub(crate) const GRAVITY: f64 = 9.81;
/// Mean time between two turns of an NPC, in ticks.
const TURN_TICKS: u32 = 2 * TICK_HZ;

/// The body of an entity that has just appeared: it faces anywhere, and moves unless a client will.
pub(crate) fn start(kind: Kind, mut body: Body, random: &mut Stream) -> Body {
    match kind {
        Kind::Player => {}
        Kind::Npc => turn(&mut body, random.between(0.0, 360.0), NPC_SPEED),
        Kind::Projectile => {
            turn(&mut body, random.between(0.0, 360.0), PROJECTILE_SPEED);
            body.velocity.y = BOUNCE_SPEED;
        }
    }
    body
}

/// One tick of an NPC: it walks, turns now and then, and turns back at the edge of the world.
pub(crate) fn wander(body: &mut Body, flags: Flags, side: f64, random: &mut Stream) {
    if random.below(u64::from(TURN_TICKS)) == 0 {
        let angle = random.between(-120.0, 120.0);
        turn(body, f64::from(body.yaw) + angle, NPC_SPEED);
    }
    // The direction is kept in the velocity; haste changes only its length.
    let factor = movement::speed(flags) / movement::WALK_SPEED;
    fly(body, factor, side);
}

/// One tick of a projectile: it falls, bounces off the ground as fast as it was launched, and off
/// the edges of the world, so that it flies for ever.
pub(crate) fn bounce(body: &mut Body, side: f64) {
    fly(body, 1.0, side);
    body.velocity.y -= (GRAVITY * TICK_SECONDS) as f32;
    if body.position.y <= 0.0 && body.velocity.y < 0.0 {
        body.position.y = 0.0;
        body.velocity.y = BOUNCE_SPEED;
    }
}

fn fly(body: &mut Body, factor: f64, side: f64) {
    let time = TICK_SECONDS * factor;
    let at = &mut body.position;
    at.x += f64::from(body.velocity.x) * time;
    at.y = movement::cut(at.y + f64::from(body.velocity.y) * time, movement::HEIGHT_MAX);
    at.z += f64::from(body.velocity.z) * time;
    let (beyond_x, beyond_z) = (is_beyond(at.x, side), is_beyond(at.z, side));
    if beyond_x || beyond_z {
        at.x = movement::inside(at.x, side);
        at.z = movement::inside(at.z, side);
        let yaw = f64::from(body.yaw);
        body.yaw = wrap_degrees(match (beyond_x, beyond_z) {
            (true, false) => -yaw,
            (false, _) => 180.0 - yaw,
            (true, true) => 180.0 + yaw,
        } as f32);
        body.velocity.x *= if beyond_x { -1.0 } else { 1.0 };
        body.velocity.z *= if beyond_z { -1.0 } else { 1.0 };
    }
}

fn is_beyond(coordinate: f64, side: f64) -> bool {
    !(0.0..=side - EDGE).contains(&coordinate)
}

/// Faces `degrees` and moves that way with `speed` over the ground.
fn turn(body: &mut Body, degrees: f64, speed: f64) {
    body.yaw = wrap_degrees(degrees as f32);
    let (sin, cos) = libm::sincos(f64::from(body.yaw).to_radians());
    let up = body.velocity.y;
    body.velocity = Velocity { x: (sin * speed) as f32, y: up, z: (cos * speed) as f32 };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::Position;

    #[test]
    fn nothing_leaves_the_world_or_stands_still() {
        let side = 96.0;
        let mut random = Stream::new(3, "roam", 0);
        for kind in [Kind::Npc, Kind::Projectile] {
            let at = Body { position: Position::ground(95.0, 1.0), ..Body::default() };
            let mut body = start(kind, at, &mut random);
            for _ in 0..20_000 {
                let before = body.position;
                match kind {
                    Kind::Npc => wander(&mut body, Flags::HASTE, side, &mut random),
                    _ => bounce(&mut body, side),
                }
                assert!(!is_beyond(body.position.x, side) && !is_beyond(body.position.z, side));
                assert!((0.0..20.0).contains(&body.position.y), "flies at {}", body.position.y);
                assert!((0.0..360.0).contains(&body.yaw));
                assert!(body.position != before);
                let facing = libm::atan2(f64::from(body.velocity.x), f64::from(body.velocity.z));
                let off = wrap_degrees(facing.to_degrees() as f32 - body.yaw);
                assert!(!(0.01..=359.99).contains(&off), "faces {off} degrees off its course");
            }
        }
    }
}
