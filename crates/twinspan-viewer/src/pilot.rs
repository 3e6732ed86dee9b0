//! Walks an avatar to a place or after another avatar.

use std::time::Duration;

use tokio::sync::oneshot;
use twinspan_circuit::Body;
use twinspan_core::time::Timestamp;
use twinspan_lludp::{Quaternion, Uuid, Vector3};

/// Walks ahead.
pub const CONTROL_AHEAD: u32 = 0x0000_0001;
/// Walks back.
pub const CONTROL_BACK: u32 = 0x0000_0002;
/// Walks to the left.
pub const CONTROL_LEFT: u32 = 0x0000_0004;
/// Walks to the right.
pub const CONTROL_RIGHT: u32 = 0x0000_0008;
/// Jumps, or rises where it flies.
pub const CONTROL_UP: u32 = 0x0000_0010;
/// Crouches, or sinks where it flies.
pub const CONTROL_DOWN: u32 = 0x0000_0020;
/// Flies.
pub const CONTROL_FLY: u32 = 0x0000_2000;
/// Stands up.
pub const CONTROL_STAND_UP: u32 = 0x0001_0000;
/// Sits down on the ground.
pub const CONTROL_SIT_ON_GROUND: u32 = 0x0002_0000;

/// All that walks.
const CONTROLS_WALK: u32 = CONTROL_AHEAD | CONTROL_BACK | CONTROL_LEFT | CONTROL_RIGHT;
/// How often the way is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Why a walk did not lead to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// There is no connection, or it ended.
    #[error("the client is not connected")]
    NotConnected,
    /// It took too long: something may be in the way.
    #[error("the place was not reached in time, something may be in the way")]
    TimedOut,
    /// Another walk, or a stop, took its place.
    #[error("another walk took its place")]
    Superseded,
    /// The place is none.
    #[error("no place in a region")]
    NoPlace,
}

/// Where to walk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// To a place in the region, in metres.
    Place(Vector3),
    /// After an avatar or an object, until told otherwise.
    Follow(Uuid),
}

#[derive(Debug)]
struct Walk {
    goal: Goal,
    /// How near is near enough, in metres.
    within: f32,
    until: Timestamp,
    reply: Option<oneshot::Sender<Result<(), WalkError>>>,
}

/// Walks an avatar, if it is to walk.
#[derive(Debug)]
pub(crate) struct Pilot {
    walk: Option<Walk>,
    look_at: Timestamp,
}

/// Which way to face for what is at `dx`, `dy`; `None` when that is here.
pub(crate) fn facing(dx: f32, dy: f32) -> Option<Quaternion> {
    let length = (dx * dx + dy * dy).sqrt();
    if !length.is_finite() || length < 0.001 {
        return None;
    }
    // Half the angle, without one: its cosine is not negative, as the protocol wants it.
    let cosine = (dx / length).clamp(-1.0, 1.0);
    let half_sine = ((1.0 - cosine) / 2.0).sqrt();
    Some(Quaternion { x: 0.0, y: 0.0, z: if dy < 0.0 { -half_sine } else { half_sine } })
}

impl Pilot {
    pub(crate) const fn new() -> Self {
        Self { walk: None, look_at: Timestamp::NEVER }
    }

    pub(crate) fn begin(
        &mut self,
        now: Timestamp,
        goal: Goal,
        within: f32,
        limit: Option<Duration>,
        reply: Option<oneshot::Sender<Result<(), WalkError>>>,
    ) {
        self.end(Err(WalkError::Superseded));
        let until = limit.map_or(Timestamp::NEVER, |limit| now.after(limit));
        self.walk = Some(Walk { goal, within, until, reply });
        self.look_at = now;
    }

    /// Ends a walk with this outcome; true when there was one.
    pub(crate) fn end(&mut self, outcome: Result<(), WalkError>) -> bool {
        self.look_at = Timestamp::NEVER;
        let Some(walk) = self.walk.take() else { return false };
        if let Some(reply) = walk.reply {
            // Who asked may have gone.
            let _ = reply.send(outcome);
        }
        true
    }

    pub(crate) const fn poll_timeout(&self) -> Timestamp {
        self.look_at
    }

    /// Looks at the way, when it is time: how to steer from now on.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Timestamp,
        own: Option<Vector3>,
        place_of: impl FnOnce(Uuid) -> Option<Vector3>,
        body: &Body,
    ) -> Option<Body> {
        if self.look_at > now {
            return None;
        }
        self.look_at = now.after(LOOK_INTERVAL);
        let walk = self.walk.as_ref()?;
        let still = Body { control_flags: body.control_flags & !CONTROLS_WALK, ..*body };
        if walk.until <= now {
            self.end(Err(WalkError::TimedOut));
            return Some(still);
        }
        let to = match walk.goal {
            Goal::Place(place) => Some(place),
            Goal::Follow(id) => place_of(id),
        };
        // Whoever is followed may be out of sight for a while.
        let (Some(own), Some(to)) = (own, to) else { return Some(still) };
        let (dx, dy) = (to.x - own.x, to.y - own.y);
        let near = dx * dx + dy * dy <= walk.within * walk.within;
        if near && matches!(walk.goal, Goal::Place(_)) {
            self.end(Ok(()));
        }
        match facing(dx, dy).filter(|_| !near) {
            None => Some(still),
            Some(way) => Some(Body {
                body_rotation: way,
                head_rotation: way,
                control_flags: still.control_flags | CONTROL_AHEAD,
                ..still
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Vector3 = Vector3 { x: 10.0, y: 10.0, z: 20.0 };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::START.after(Duration::from_secs(seconds))
    }

    #[test]
    fn ways_to_face_have_their_quaternions() {
        let z = |dx, dy| facing(dx, dy).map(|way| (way.z * 1_000.0).round() / 1_000.0);
        assert_eq!(z(1.0, 0.0), Some(0.0), "east");
        assert_eq!(z(0.0, 1.0), Some(0.707), "north");
        assert_eq!(z(-1.0, 0.0), Some(1.0), "west");
        assert_eq!(z(0.0, -3.0), Some(-0.707), "south");
        assert_eq!(z(0.0, 0.0), None);
        assert_eq!(z(f32::NAN, 1.0), None);
    }

    #[test]
    fn a_walk_ends_where_it_leads() {
        let mut pilot = Pilot::new();
        let (reply, mut answer) = oneshot::channel();
        let place = Vector3 { x: 20.0, ..HERE };
        pilot.begin(at(0), Goal::Place(place), 1.0, Some(Duration::from_secs(9)), Some(reply));
        let body = Body::default();
        let steered = pilot.handle_timeout(at(0), Some(HERE), |_| None, &body).unwrap();
        assert_eq!(steered.control_flags, CONTROL_AHEAD);
        assert!(answer.try_recv().is_err());
        let there = Vector3 { x: 19.5, ..HERE };
        let still = pilot.handle_timeout(at(1), Some(there), |_| None, &steered).unwrap();
        assert_eq!(still.control_flags, 0);
        assert_eq!(answer.try_recv(), Ok(Ok(())));
        assert_eq!(pilot.poll_timeout(), Timestamp::NEVER);
    }

    #[test]
    fn a_walk_takes_no_longer_than_its_limit() {
        let mut pilot = Pilot::new();
        let (reply, mut answer) = oneshot::channel();
        pilot.begin(at(0), Goal::Place(HERE), 1.0, Some(Duration::from_secs(9)), Some(reply));
        pilot.handle_timeout(at(9), None, |_| None, &Body::default());
        assert_eq!(answer.try_recv(), Ok(Err(WalkError::TimedOut)));
    }

    #[test]
    fn whoever_is_followed_is_followed_until_told_otherwise() {
        let mut pilot = Pilot::new();
        let (reply, mut answer) = oneshot::channel();
        pilot.begin(at(0), Goal::Follow(Uuid::nil()), 2.0, None, Some(reply));
        let body = Body::default();
        let near = Vector3 { x: 11.0, ..HERE };
        let still = pilot.handle_timeout(at(1), Some(HERE), |_| Some(near), &body).unwrap();
        assert_eq!(still.control_flags, 0);
        let far = Vector3 { y: 30.0, ..HERE };
        let ahead = pilot.handle_timeout(at(2), Some(HERE), |_| Some(far), &body).unwrap();
        assert_eq!(ahead.control_flags, CONTROL_AHEAD);
        assert!(answer.try_recv().is_err());
        assert!(pilot.end(Err(WalkError::Superseded)));
        assert_eq!(answer.try_recv(), Ok(Err(WalkError::Superseded)));
    }
}
