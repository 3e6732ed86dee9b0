//! What an agent says of itself again and again: its stance, its camera, its controls.

use core::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::AgentUpdate;
use twinspan_lludp::{Quaternion, Vector3};

use super::event::AgentIds;

/// Stance, camera and controls, as `AgentUpdate` has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Body {
    /// Which way the body faces.
    pub body_rotation: Quaternion,
    /// Which way the head faces.
    pub head_rotation: Quaternion,
    /// Typing and editing, as the protocol has it.
    pub state: u8,
    /// Where the camera is, in metres.
    pub camera_center: Vector3,
    /// Where it looks.
    pub camera_at: Vector3,
    /// Left of it.
    pub camera_left: Vector3,
    /// Above it.
    pub camera_up: Vector3,
    /// How far it sees, in metres.
    pub far: f32,
    /// Walking, turning, flying and the like, as the protocol has it.
    pub control_flags: u32,
    /// As the protocol has it.
    pub flags: u8,
}

impl Default for Body {
    /// Stands at the middle of a region and looks east, 128 m far.
    fn default() -> Self {
        let facing = Quaternion { x: 0.0, y: 0.0, z: 0.0 };
        Self {
            body_rotation: facing,
            head_rotation: facing,
            state: 0,
            camera_center: Vector3 { x: 128.0, y: 128.0, z: 25.0 },
            camera_at: Vector3 { x: 1.0, y: 0.0, z: 0.0 },
            camera_left: Vector3 { x: 0.0, y: 1.0, z: 0.0 },
            camera_up: Vector3 { x: 0.0, y: 0.0, z: 1.0 },
            far: 128.0,
            control_flags: 0,
            flags: 0,
        }
    }
}

/// Least share of the longest time between two updates after which one may leave early.
const CARRY_SHARE: u32 = 4;

/// When to say it.
#[derive(Clone, Debug)]
pub(crate) struct Updates {
    body: Body,
    /// Longest and shortest time between two.
    idle: Duration,
    active: Duration,
    last: Timestamp,
    due: Timestamp,
    /// The first in a region is sent reliably: much of it is only sent to who said something.
    first: bool,
}

impl Updates {
    pub(crate) fn new(idle: Duration, active: Duration) -> Self {
        let body = Body::default();
        Self { body, idle, active, last: Timestamp::START, due: Timestamp::NEVER, first: false }
    }

    pub(crate) const fn body(&self) -> &Body {
        &self.body
    }

    /// The agent is in a region from now on.
    pub(crate) const fn begin(&mut self, now: Timestamp) {
        self.first = true;
        self.due = now;
    }

    /// The agent is in no region.
    pub(crate) const fn end(&mut self) {
        self.due = Timestamp::NEVER;
    }

    /// Says something else from now on; a change is told as soon as the pace allows.
    pub(crate) fn set(&mut self, body: Body) {
        if self.body != body {
            self.body = body;
            if self.due != Timestamp::NEVER {
                self.due = self.due.min(self.last.after(self.active));
            }
        }
    }

    pub(crate) const fn due(&self) -> Timestamp {
        self.due
    }

    /// Acks to the agent's region leave now: the next update goes along, unless the last one has
    /// just gone. One packet less, for the next one in turn is due later by that.
    pub(crate) fn carry(&mut self, now: Timestamp) {
        if self.due != Timestamp::NEVER && self.last.after(self.idle / CARRY_SHARE) <= now {
            self.due = self.due.min(now);
        }
    }

    /// The update that is to leave now and whether reliably.
    pub(crate) fn take(&mut self, now: Timestamp, ids: &AgentIds) -> Option<(AgentUpdate, bool)> {
        if self.due > now {
            return None;
        }
        self.last = now;
        self.due = now.after(self.idle);
        let mut update = AgentUpdate::default();
        let data = &mut update.agent_data;
        data.agent_id = ids.agent_id;
        data.session_id = ids.session_id;
        data.body_rotation = self.body.body_rotation;
        data.head_rotation = self.body.head_rotation;
        data.state = self.body.state;
        data.camera_center = self.body.camera_center;
        data.camera_at_axis = self.body.camera_at;
        data.camera_left_axis = self.body.camera_left;
        data.camera_up_axis = self.body.camera_up;
        data.far = self.body.far;
        data.control_flags = self.body.control_flags;
        data.flags = self.body.flags;
        Some((update, core::mem::take(&mut self.first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_lludp::Uuid;

    #[test]
    fn updates_come_each_second_and_at_changes_no_faster_than_the_pace() {
        let ids = AgentIds { agent_id: Uuid::nil(), session_id: Uuid::nil(), circuit_code: 1 };
        let at = |ms| Timestamp::START.after(Duration::from_millis(ms));
        let mut updates = Updates::new(Duration::from_secs(1), Duration::from_millis(50));
        updates.set(Body { far: 64.0, ..Body::default() });
        assert_eq!(updates.due(), Timestamp::NEVER, "nobody is there to be told");
        updates.begin(at(5));
        let (update, reliable) = updates.take(at(5), &ids).unwrap();
        assert_eq!((update.agent_data.far, reliable), (64.0, true));
        assert_eq!(updates.due(), at(1_005));
        updates.set(Body { control_flags: 1, ..*updates.body() });
        assert_eq!(updates.due(), at(55));
        assert!(updates.take(at(54), &ids).is_none());
        assert!(matches!(updates.take(at(55), &ids), Some((_, false))));
        let same = *updates.body();
        updates.set(same);
        assert_eq!(updates.due(), at(1_055));
        updates.end();
        assert_eq!(updates.due(), Timestamp::NEVER);
    }

    #[test]
    fn an_update_goes_along_with_acks_when_the_last_one_is_a_quarter_of_the_time_ago() {
        let ids = AgentIds { agent_id: Uuid::nil(), session_id: Uuid::nil(), circuit_code: 1 };
        let at = |ms| Timestamp::START.after(Duration::from_millis(ms));
        let mut updates = Updates::new(Duration::from_secs(1), Duration::from_millis(50));
        updates.carry(at(5_000));
        assert_eq!(updates.due(), Timestamp::NEVER, "nobody is there to be told");
        updates.begin(at(5_000));
        updates.take(at(5_000), &ids).unwrap();
        updates.carry(at(5_249));
        assert_eq!(updates.due(), at(6_000));
        updates.carry(at(5_250));
        assert!(updates.take(at(5_250), &ids).is_some());
        assert_eq!(updates.due(), at(6_250));
    }
}
