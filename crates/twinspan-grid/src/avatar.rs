//! An avatar: how it stands, walks, flies and sits, and what of that others have been told.

use core::time::Duration;

use twinspan_lludp::{Quaternion, Uuid, Vector3};

use crate::config::RegionId;

/// How high the middle of an avatar is above the ground that it stands on, in metres.
const MIDDLE: f32 = 1.0;
/// The height of the ground, which is flat, in metres.
pub(crate) const GROUND: f32 = 21.0;
/// The highest place that one can fly to, in metres.
const CEILING: f32 = 4_096.0;
/// How near one comes to a region's borders without crossing them, in metres from its corner.
const EDGES: (f32, f32) = (0.125, 255.875);
/// Metres a second.
const WALKING: f32 = 3.2;
const RUNNING: f32 = 5.2;
const FLYING: f32 = 10.0;
/// Metres a second upwards at the beginning of a jump, and what it loses of them in a second: a jump
/// takes a second and is 1.3 m high.
const JUMP: f32 = 5.0;
const GRAVITY: f32 = 9.8;
/// Steps after which what was told last is told once more: by then nothing older is under way that
/// could arrive after it, for messages are given up after five seconds.
const CONFIRM_STEPS: u32 = 60;
/// How long a step takes at most: after a pause nobody leaps.
const STEP_MAX: Duration = Duration::from_millis(500);

/// Controls, as `AgentUpdate` has them.
mod control {
    pub(super) const AT_POS: u32 = 1 | 1 << 19;
    pub(super) const AT_NEG: u32 = 1 << 1 | 1 << 20;
    pub(super) const LEFT_POS: u32 = 1 << 2 | 1 << 21;
    pub(super) const LEFT_NEG: u32 = 1 << 3 | 1 << 22;
    pub(super) const UP_POS: u32 = 1 << 4 | 1 << 23;
    pub(super) const UP_NEG: u32 = 1 << 5 | 1 << 24;
    pub(super) const FLY: u32 = 1 << 13;
    pub(super) const STOP: u32 = 1 << 14;
    pub(super) const STAND_UP: u32 = 1 << 16;
    pub(super) const SIT_ON_GROUND: u32 = 1 << 17;
}

/// What an avatar sits on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Seat {
    /// It stands, walks or flies.
    #[default]
    None,
    Ground,
    /// The thing with this number in the region, and where on it.
    Thing {
        local_id: u32,
        offset: Vector3,
    },
}

/// What an avatar does, which decides how it looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// It stands.
    #[default]
    Stand,
    /// It walks.
    Walk,
    /// It runs.
    Run,
    /// It flies, and stays where it is.
    Hover,
    /// It flies somewhere.
    Fly,
    /// It sits on the ground.
    SitOnGround,
    /// It sits on a thing.
    Sit,
    /// It jumped, and is in the air.
    Jump,
}

impl Activity {
    /// The animation that every viewer has for it.
    pub(crate) const fn animation(self) -> Uuid {
        Uuid::from_u128(match self {
            Self::Stand => 0x2408_fe9e_df1d_1d7d_f4ff_1384_fa7b_350f,
            Self::Walk => 0x6ed2_4bd8_91aa_4b12_ccc7_c97c_857a_b4e0,
            Self::Run => 0x05dd_bff8_aaa9_92a1_2b74_8fe7_7a29_b445,
            Self::Hover => 0x4ae8_016b_31b9_03bb_c401_b1ea_941d_b41d,
            Self::Fly => 0xaec4_610c_757f_bc4e_c092_c6e9_caad_8daf,
            Self::SitOnGround => 0x1a2b_d58e_87ff_0df8_0b4c_53e0_47b0_bb6e,
            Self::Jump => 0x2305_bd75_1ca9_b03b_1faa_b176_b8a8_c49e,
            Self::Sit => 0x1a5f_e8ac_a804_8a5d_7cbd_56bd_8318_4568,
        })
    }
}

/// How an avatar stands and what it does, as the grid has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AvatarBody {
    /// The region that it is in.
    pub region: RegionId,
    /// Where in it, in metres from its south-west corner.
    pub position: Vector3,
    /// Which way it faces.
    pub rotation: Quaternion,
    /// Metres a second.
    pub velocity: Vector3,
    /// What it does.
    pub activity: Activity,
    /// The thing that it sits on.
    pub seat: Option<Uuid>,
    /// How far its viewer shows things, in metres; 0 until it said so.
    pub far: f32,
}

/// How others are to be told of an avatar after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// They know.
    None,
    /// It goes on: a lost word is made good by the next.
    Passing,
    /// It came to rest.
    Lasting,
}

/// What is told of an avatar in short updates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Pose {
    position: Vector3,
    rotation: Quaternion,
    velocity: Vector3,
}

/// An avatar.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Avatar {
    /// Its number, which no other object of the grid has.
    pub(crate) local_id: u32,
    pose: Pose,
    told: Pose,
    /// What was told last may have been lost.
    unsure: bool,
    /// Steps since it last changed, until that is confirmed.
    still: Option<u32>,
    flags: u32,
    runs: bool,
    /// Metres a second upwards, while it jumps.
    rise: Option<f32>,
    seat: Seat,
    /// The seat that it was offered.
    offered: Option<(u32, Vector3)>,
}

impl Avatar {
    pub(crate) fn new(local_id: u32, position: Vector3) -> Self {
        let mut avatar = Self {
            local_id,
            pose: Pose::default(),
            told: Pose::default(),
            unsure: false,
            still: None,
            flags: 0,
            runs: false,
            rise: None,
            seat: Seat::None,
            offered: None,
        };
        avatar.put(position);
        avatar
    }

    /// Stands somewhere else at once: a place in a region, on its ground or above.
    pub(crate) fn put(&mut self, position: Vector3) {
        let sound = |value: f32, low: f32, high: f32| {
            if value.is_finite() { value.clamp(low, high) } else { low }
        };
        let (low, high) = EDGES;
        let (x, y) = (sound(position.x, low, high), sound(position.y, low, high));
        let position = Vector3::new(x, y, sound(position.z, GROUND + MIDDLE, CEILING));
        self.pose = Pose { position, velocity: Vector3::default(), ..self.pose };
        self.seat = Seat::None;
        self.offered = None;
        self.rise = None;
    }

    /// Metres from the south-west corner of its region.
    pub(crate) const fn position(&self) -> Vector3 {
        self.pose.position
    }

    pub(crate) const fn rotation(&self) -> Quaternion {
        self.pose.rotation
    }

    pub(crate) const fn velocity(&self) -> Vector3 {
        self.pose.velocity
    }

    pub(crate) const fn seat(&self) -> Seat {
        self.seat
    }

    /// Takes what its viewer says of it; true when it sat down or stood up by that.
    pub(crate) fn on_stance(&mut self, rotation: Quaternion, flags: u32) -> bool {
        let Quaternion { x, y, z } = rotation;
        // What is no rotation changes nothing: it would stretch every way.
        if x * x + y * y + z * z <= 1.001 {
            self.pose.rotation = rotation;
        }
        self.flags = flags;
        let seat = self.seat;
        if flags & control::STAND_UP != 0 {
            self.seat = Seat::None;
        } else if flags & control::SIT_ON_GROUND != 0 && seat == Seat::None {
            self.seat = Seat::Ground;
            self.pose.position.z = GROUND + MIDDLE;
        }
        if self.seat != Seat::None {
            self.pose.velocity = Vector3::default();
        }
        self.seat != seat
    }

    pub(crate) const fn on_run(&mut self, runs: bool) {
        self.runs = runs;
    }

    pub(crate) const fn offer(&mut self, local_id: u32, offset: Vector3) {
        self.offered = Some((local_id, offset));
    }

    /// Takes the seat that it was offered, which is at this place; false when there is none.
    pub(crate) fn sit(&mut self, place: impl Fn(u32) -> Option<Vector3>) -> bool {
        let Some((local_id, offset)) = self.offered.take() else { return false };
        let Some(thing) = place(local_id) else { return false };
        let Vector3 { x, y, z } = thing;
        self.put(Vector3::new(x + offset.x, y + offset.y, z + offset.z));
        self.seat = Seat::Thing { local_id, offset };
        true
    }

    pub(crate) fn activity(&self) -> Activity {
        let moves = self.pose.velocity != Vector3::default();
        match self.seat {
            Seat::Ground => Activity::SitOnGround,
            Seat::Thing { .. } => Activity::Sit,
            Seat::None if self.is_flying() && moves => Activity::Fly,
            Seat::None if self.is_flying() => Activity::Hover,
            Seat::None if self.rise.is_some() => Activity::Jump,
            Seat::None if moves && self.runs => Activity::Run,
            Seat::None if moves => Activity::Walk,
            Seat::None => Activity::Stand,
        }
    }

    const fn is_flying(&self) -> bool {
        self.flags & control::FLY != 0
    }

    /// Stops at once, whatever its controls say, until they are heard anew.
    pub(crate) fn halt(&mut self) {
        self.flags &= control::FLY;
        self.rise = None;
        self.pose.velocity = Vector3::default();
    }

    /// Stays within its region.
    pub(crate) const fn confine(&mut self) {
        let position = &mut self.pose.position;
        position.x = position.x.clamp(EDGES.0, EDGES.1);
        position.y = position.y.clamp(EDGES.0, EDGES.1);
    }

    /// Goes on for a while. The place may be beyond the region's border then.
    pub(crate) fn step(&mut self, took: Duration) {
        let seconds = took.min(STEP_MAX).as_secs_f32();
        self.pose.velocity = self.wanted();
        self.jump(seconds);
        let Vector3 { x, y, z } = self.pose.velocity;
        let walks = self.seat == Seat::None && !self.is_flying();
        let position = &mut self.pose.position;
        position.x += x * seconds;
        position.y += y * seconds;
        position.z = (position.z + z * seconds).clamp(GROUND + MIDDLE, CEILING);
        if walks && self.rise.is_none() {
            position.z = GROUND + MIDDLE;
        }
    }

    /// Begins a jump, goes on with it, or lands.
    fn jump(&mut self, seconds: f32) {
        let on_foot = self.seat == Seat::None && !self.is_flying();
        self.rise = match self.rise {
            _ if !on_foot => None,
            None => (self.flags & control::UP_POS != 0).then_some(JUMP),
            Some(rise) if rise <= 0.0 && self.pose.position.z <= GROUND + MIDDLE => None,
            Some(rise) => Some(rise - GRAVITY * seconds),
        };
        if let Some(rise) = self.rise {
            self.pose.velocity.z = rise;
        }
    }

    /// The velocity that its controls ask for.
    fn wanted(&self) -> Vector3 {
        if self.seat != Seat::None || self.flags & control::STOP != 0 {
            return Vector3::default();
        }
        let way = |forth: u32, back: u32| {
            let has = |flags: u32| f32::from(u8::from(self.flags & flags != 0));
            has(forth) - has(back)
        };
        let (at, left) =
            (way(control::AT_POS, control::AT_NEG), way(control::LEFT_POS, control::LEFT_NEG));
        let up = if self.is_flying() { way(control::UP_POS, control::UP_NEG) } else { 0.0 };
        let speed = match (self.is_flying(), self.runs) {
            (true, _) => FLYING,
            (false, true) => RUNNING,
            (false, false) => WALKING,
        };
        // Both ways at once are not faster than one.
        let share = if at != 0.0 && left != 0.0 { core::f32::consts::FRAC_1_SQRT_2 } else { 1.0 };
        let Vector3 { x, y, .. } =
            rotated(self.pose.rotation, Vector3::new(at * share, left * share, 0.0));
        Vector3::new(x * speed, y * speed, up * speed)
    }

    /// What others are to be told; afterwards they count as told.
    pub(crate) fn news(&mut self) -> News {
        let news = if self.pose != self.told {
            let moves = |pose: &Pose| pose.velocity != Vector3::default();
            let ends = moves(&self.told) && !moves(&self.pose);
            self.still = Some(0);
            if ends { News::Lasting } else { News::Passing }
        } else {
            self.still = self.still.map(|steps| steps + 1);
            let confirms = self.still.take_if(|steps| *steps >= CONFIRM_STEPS).is_some();
            if self.unsure || confirms { News::Lasting } else { News::None }
        };
        self.unsure = news == News::Passing;
        self.told = self.pose;
        news
    }

    /// Everybody was told in full.
    pub(crate) const fn on_shown(&mut self) {
        self.told = self.pose;
        self.unsure = false;
    }
}

/// A vector turned by a rotation.
fn rotated(rotation: Quaternion, vector: Vector3) -> Vector3 {
    let (Quaternion { x, y, z }, w) = (rotation, rotation.w());
    let cross = |a: Vector3, b: Vector3| {
        Vector3::new(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x)
    };
    let axis = Vector3::new(x, y, z);
    let one = cross(axis, vector);
    let two =
        cross(axis, Vector3::new(one.x + w * vector.x, one.y + w * vector.y, one.z + w * vector.z));
    Vector3::new(vector.x + 2.0 * two.x, vector.y + 2.0 * two.y, vector.z + 2.0 * two.z)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u32 = 1;
    const FLY: u32 = 1 << 13;
    const UP: u32 = 1 << 4;
    const STAND_UP: u32 = 1 << 16;
    const SIT_ON_GROUND: u32 = 1 << 17;

    fn avatar() -> Avatar {
        let mut avatar = Avatar::new(1, Vector3::new(128.0, 128.0, 25.0));
        avatar.on_shown();
        avatar
    }

    /// A quarter turn to the left, so that ahead is north.
    fn north() -> Quaternion {
        let half = core::f32::consts::FRAC_1_SQRT_2;
        Quaternion::new(0.0, 0.0, half)
    }

    fn step(avatar: &mut Avatar, ms: u64) {
        avatar.step(Duration::from_millis(ms));
    }

    #[test]
    fn it_walks_the_way_it_faces_on_the_ground() {
        let mut avatar = avatar();
        avatar.on_stance(north(), AT);
        step(&mut avatar, 500);
        let Vector3 { x, y, z } = avatar.position();
        assert!((x - 128.0).abs() < 1e-3 && (y - 129.6).abs() < 1e-3, "{x} {y}");
        assert_eq!((z, avatar.activity()), (22.0, Activity::Walk));
        avatar.on_run(true);
        step(&mut avatar, 100);
        assert_eq!(avatar.activity(), Activity::Run);
        avatar.on_stance(north(), 0);
        step(&mut avatar, 100);
        assert_eq!((avatar.velocity(), avatar.activity()), (Vector3::default(), Activity::Stand));
    }

    #[test]
    fn after_a_pause_it_does_not_leap() {
        let mut avatar = avatar();
        avatar.on_stance(Quaternion::default(), AT);
        step(&mut avatar, 60_000);
        assert!((avatar.position().x - 129.6).abs() < 1e-3);
    }

    #[test]
    fn it_flies_up_and_comes_down_when_it_stops() {
        let mut avatar = avatar();
        avatar.on_stance(Quaternion::default(), FLY | UP);
        step(&mut avatar, 500);
        assert!((avatar.position().z - 30.0).abs() < 1e-3, "{}", avatar.position().z);
        assert_eq!(avatar.activity(), Activity::Fly);
        avatar.on_stance(Quaternion::default(), 0);
        step(&mut avatar, 100);
        assert_eq!(avatar.position().z, 22.0);
    }

    #[test]
    fn a_jump_goes_up_and_comes_down_again() {
        let mut avatar = avatar();
        // It comes to stand on the ground first.
        step(&mut avatar, 100);
        avatar.on_stance(Quaternion::default(), UP);
        step(&mut avatar, 100);
        assert_eq!(avatar.activity(), Activity::Jump);
        avatar.on_stance(Quaternion::default(), 0);
        let mut highest = 22.0_f32;
        let mut steps = 0;
        while avatar.activity() == Activity::Jump {
            step(&mut avatar, 100);
            highest = highest.max(avatar.position().z);
            steps += 1;
        }
        assert!((22.8..24.0).contains(&highest), "{highest}");
        assert!((8..14).contains(&steps), "{steps}");
        assert_eq!((avatar.position().z, avatar.velocity()), (22.0, Vector3::default()));
    }

    #[test]
    fn it_sits_until_it_stands_up() {
        let mut avatar = avatar();
        assert!(avatar.on_stance(Quaternion::default(), SIT_ON_GROUND));
        assert_eq!(avatar.activity(), Activity::SitOnGround);
        assert!(!avatar.on_stance(Quaternion::default(), AT));
        step(&mut avatar, 500);
        assert_eq!(avatar.position().x, 128.0);
        assert!(avatar.on_stance(Quaternion::default(), STAND_UP));
        let offset = Vector3::new(0.0, 0.0, 0.5);
        assert!(!avatar.sit(|_| Some(Vector3::default())));
        avatar.offer(7, offset);
        assert!(avatar.sit(|id| (id == 7).then_some(Vector3::new(130.0, 128.0, 22.0))));
        assert_eq!(avatar.seat(), Seat::Thing { local_id: 7, offset });
        assert_eq!(avatar.position(), Vector3::new(130.0, 128.0, 22.5));
        avatar.offer(8, offset);
        assert!(!avatar.sit(|_| None));
    }

    #[test]
    fn what_is_no_rotation_and_no_place_changes_nothing_for_the_worse() {
        let mut avatar = avatar();
        for wrong in [f32::NAN, f32::INFINITY, 100.0, -3.0] {
            avatar.on_stance(Quaternion { x: wrong, y: wrong, z: wrong }, AT);
            step(&mut avatar, 100);
            let Vector3 { x, y, z } = avatar.velocity();
            assert!((x * x + y * y + z * z).sqrt() < 3.3, "{wrong}");
        }
        avatar.put(Vector3::new(f32::NAN, f32::INFINITY, -9.0));
        assert_eq!(avatar.position(), Vector3::new(0.125, 0.125, 22.0));
    }

    #[test]
    fn a_way_is_told_in_passing_and_its_end_for_certain_and_once_more() {
        let mut avatar = avatar();
        assert_eq!(avatar.news(), News::None);
        avatar.on_stance(Quaternion::default(), AT);
        let mut told = Vec::new();
        for _ in 0..3 {
            step(&mut avatar, 100);
            told.push(avatar.news());
        }
        assert_eq!(told, [News::Passing; 3]);
        avatar.on_stance(Quaternion::default(), 0);
        step(&mut avatar, 100);
        assert_eq!([avatar.news(), avatar.news()], [News::Lasting, News::None]);
        let later: Vec<News> = (0..200).map(|_| avatar.news()).collect();
        let again = later.iter().position(|news| *news != News::None);
        assert_eq!(again, Some(CONFIRM_STEPS as usize - 2));
        assert_eq!(later.iter().filter(|news| **news != News::None).count(), 1);
        // It turns: the last word of that is certain.
        avatar.on_stance(north(), 0);
        assert_eq!(
            [avatar.news(), avatar.news(), avatar.news()],
            [News::Passing, News::Lasting, News::None]
        );
    }
}
