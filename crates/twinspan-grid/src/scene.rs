//! What a region shows: its ground, its things, and the avatars in it.

use std::net::SocketAddr;
use std::time::Duration;

use twinspan_circuit::{SendOptions, ThrottleClass};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_lludp::content::{LayerKind, LayerWriter, PatchPlace, PatchSize};
use twinspan_lludp::messages::{LayerData, ObjectUpdate};
use twinspan_lludp::{Message, Quaternion, Uuid, Var2, Vector3};

use crate::assets::NOTECARD;
use crate::avatar::{GROUND, News};
use crate::config::{REGION_METRES, RegionConfig, RegionId, THINGS_MAX, THINGS_PER_MESSAGE_MAX};
use crate::grid::Grid;
use crate::reply;

/// Time between two steps of the avatars.
const STEP: Duration = Duration::from_millis(100);
/// Time between two maps of who is where.
const MAP: Duration = Duration::from_secs(5);
/// Avatars on one such map; it fits one datagram.
pub(crate) const MAP_AVATARS_MAX: usize = 50;
/// Avatars told of in one datagram: a short update has up to 60 bytes.
const MOVED_PER_MESSAGE: usize = 16;
/// Patches along a region's side.
const PATCHES: u16 = 16;
/// Messages that may wait in a circuit before things add to them.
const THINGS_WAITING_MAX: usize = 64;
/// Things are tried for longer than words: on a slow line they wait for their turn.
const THINGS: SendOptions = SendOptions::RELIABLE.within(Duration::from_secs(60));
/// A field of the ground is closed when it has so many bytes.
const LAYER_BYTES: usize = 900;

/// An object that does not move.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Thing {
    pub(crate) local_id: u32,
    pub(crate) id: Uuid,
    pub(crate) text: &'static str,
    pub(crate) position: Vector3,
    pub(crate) scale: Vector3,
    /// What lies in it.
    pub(crate) note: Option<Note>,
}

/// A notecard in a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) item_id: Uuid,
    pub(crate) asset_id: Uuid,
    pub(crate) name: &'static str,
}

/// What stands for a notecard in the id of the thing that has it.
const NOTE_MARK: u128 = 0x207E << 64;
/// The first number of the things that stand in rows, and metres between two of them.
const ROWS_FROM: u32 = 1 << 24;
const ROW_METRES: f32 = 2.0;
/// Things in a row, and rows in a layer.
const ROW_THINGS: usize = 100;

impl Thing {
    /// What every region has.
    pub(crate) fn all(random: &mut Stream, more: usize) -> Vec<Self> {
        let usual = [
            ("Bench", [130.0, 128.0, GROUND + 0.25], [0.5, 2.0, 0.5]),
            ("Sign", [128.0, 132.0, GROUND + 1.5], [2.0, 0.1, 1.0]),
            ("Stone", [124.0, 126.0, GROUND + 0.5], [1.0, 1.0, 1.0]),
        ]
        .into_iter()
        .zip(1..)
        .map(|((text, [x, y, z], [width, depth, height]), local_id)| {
            let id = Uuid::from_u64_pair(random.next_u64(), random.next_u64());
            let item_id = Uuid::from_u128(id.as_u128() ^ NOTE_MARK);
            let note = Note { item_id, asset_id: NOTECARD, name: "Read me" };
            Self {
                local_id,
                id,
                text,
                position: Vector3::new(x, y, z),
                scale: Vector3::new(width, depth, height),
                note: (text == "Sign").then_some(note),
            }
        });
        let mut all: Vec<Self> = usual.collect();
        let more = more.min(THINGS_MAX - all.len());
        all.extend((0..more).zip(ROWS_FROM..).map(|(index, local_id)| {
            let (column, row) = (index % ROW_THINGS, index / ROW_THINGS % ROW_THINGS);
            let layer = index / (ROW_THINGS * ROW_THINGS);
            let at = |place: usize| 28.0 + place as f32 * ROW_METRES;
            Self {
                local_id,
                id: Uuid::from_u64_pair(random.next_u64(), random.next_u64()),
                text: "",
                position: Vector3::new(at(column), at(row), GROUND + 40.0 + 4.0 * layer as f32),
                scale: Vector3::new(0.5, 0.5, 0.5),
                note: None,
            }
        }));
        all
    }
}

/// Numbers from here on are avatars'.
pub(crate) const AVATAR_IDS_FROM: u32 = 1_000;

/// The ground of a region, as it travels.
pub(crate) fn ground() -> Vec<LayerData> {
    let heights = [GROUND; PatchSize::P16.heights()];
    let mut fields = Vec::new();
    let mut writer = LayerWriter::new(LayerKind::Land, PatchSize::P16, false);
    for place in (0..PATCHES * PATCHES).map(|n| PatchPlace { x: n % PATCHES, y: n / PATCHES }) {
        // A flat patch at a place that a layer can tell is always written.
        let written = writer.push(place, &heights);
        debug_assert_eq!(written, Ok(()));
        if writer.len() >= LAYER_BYTES {
            let next = LayerWriter::new(LayerKind::Land, PatchSize::P16, false);
            fields.push(std::mem::replace(&mut writer, next).finish());
        }
    }
    if !writer.is_empty() {
        fields.push(writer.finish());
    }
    let message = |field: Vec<u8>| {
        let mut message = LayerData::default();
        message.layer_id.r#type = LayerKind::Land.wire(false);
        message.layer_data.data = Var2::new(field).unwrap_or_default();
        message
    };
    fields.into_iter().map(message).collect()
}

impl Grid {
    /// Somebody is ready for what a region shows: all of it is told.
    pub(crate) fn on_ready(&mut self, now: Timestamp, region: RegionId, code: u32) {
        if !self.sessions.get(&code).is_some_and(|session| session.may_enter(region)) {
            return;
        }
        let Some(place) = self.regions.get_mut(region.0) else { return };
        place.seats.set_ready(code);
        place.showing.insert(code, 0);
        let land = SendOptions::RELIABLE.at_rate_of(ThrottleClass::Land);
        for patches in self.ground.clone() {
            self.send_to(now, region, code, &patches, land);
        }
        self.show_things(now, region);
        for other in self.present(region) {
            if other != code {
                self.show(now, region, other, Some(code));
            }
        }
    }

    /// Tells those who do not know all things yet of more, as far as their circuits have room.
    pub(crate) fn show_things(&mut self, now: Timestamp, region: RegionId) {
        let Some(place) = self.regions.get_mut(region.0) else { return };
        if place.showing.is_empty() {
            return;
        }
        // What people say and do waits behind few things, unless a burst is wanted.
        let waiting_max = match self.config.ignores_throttles {
            false => THINGS_WAITING_MAX,
            true => self.config.circuits.queued_messages_max / 2,
        };
        let mut showing = std::mem::take(&mut place.showing);
        for (code, shown) in &mut showing {
            let per_message = self.config.things_per_message.clamp(1, THINGS_PER_MESSAGE_MAX);
            let Some(addr) = self.addr_of(region, *code) else { continue };
            let Some(place) = self.regions.get_mut(region.0) else { continue };
            while *shown < place.things.len() && place.circuits.waiting(addr) < waiting_max {
                let rest = place.things.get(*shown..).unwrap_or_default();
                let some = rest.get(..per_message).unwrap_or(rest);
                let message = reply::things(some, place.config.handle());
                if place.circuits.send(now, addr, &message, THINGS).is_err() {
                    break;
                }
                *shown += some.len();
            }
        }
        let Some(place) = self.regions.get_mut(region.0) else { return };
        let all = place.things.len();
        showing.retain(|_, shown| *shown < all);
        place.showing = showing;
    }

    /// Tells of an avatar in full: somebody, or everybody who sees the region.
    pub(crate) fn show(&mut self, now: Timestamp, region: RegionId, code: u32, to: Option<u32>) {
        let Some(update) = self.avatar_update(region, code) else { return };
        match to {
            Some(to) => self.send_to(now, region, to, &update, SendOptions::RELIABLE),
            None => self.broadcast(now, region, &update, SendOptions::RELIABLE, None),
        }
        self.animate(now, region, code, to);
    }

    /// Tells what an avatar does.
    fn animate(&mut self, now: Timestamp, region: RegionId, code: u32, to: Option<u32>) {
        let Some(session) = self.sessions.get_mut(&code) else { return };
        let activity = session.avatar.activity();
        if to.is_none() && session.animated != activity {
            session.animated = activity;
            session.animations += 1;
        }
        let (id, number) = (session.guest.ids.agent_id, session.animations);
        let message = reply::animation(id, activity, number);
        match to {
            Some(to) => self.send_to(now, region, to, &message, SendOptions::RELIABLE),
            None => self.broadcast(now, region, &message, SendOptions::RELIABLE, None),
        }
    }

    pub(crate) fn avatar_update(&self, region: RegionId, code: u32) -> Option<ObjectUpdate> {
        let session = self.sessions.get(&code)?;
        let handle = self.region(region)?.handle();
        Some(reply::avatar(&session.guest, &session.avatar, handle))
    }

    /// An avatar is no longer in a region: who sees it forgets it.
    pub(crate) fn hide(&mut self, now: Timestamp, region: RegionId, code: u32) {
        let Some(session) = self.sessions.get(&code) else { return };
        let message = reply::kill(session.avatar.local_id);
        self.broadcast(now, region, &message, SendOptions::RELIABLE, Some(code));
    }

    /// Sends a message to everybody who sees a region, but for one.
    pub(crate) fn broadcast<M: Message>(
        &mut self,
        now: Timestamp,
        region: RegionId,
        message: &M,
        options: SendOptions,
        except: Option<u32>,
    ) {
        let Some(place) = self.regions.get_mut(region.0) else { return };
        let mut hearers = std::mem::take(&mut self.hearers);
        hearers.clear();
        hearers.extend(place.audience().filter(|(_, code)| Some(*code) != except));
        for (addr, _) in hearers.drain(..) {
            let sent = place.circuits.send(now, addr, message, options);
            self.stats.dropped += u64::from(sent.is_err());
        }
        self.hearers = hearers;
    }

    /// Somebody's viewer said how he stands and what he does.
    pub(crate) fn on_stance(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        (rotation, flags, far): (Quaternion, u32, f32),
    ) {
        let Some(session) = self.sessions.get_mut(&code) else { return };
        if session.home == Some(region) && far.is_finite() {
            session.far = far;
        }
        if session.home == Some(region) && session.avatar.on_stance(rotation, flags) {
            self.show(now, region, code, None);
        }
    }

    /// Somebody wants to sit on a thing.
    pub(crate) fn on_sit_asked(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        target: Uuid,
    ) {
        let Some(place) = self.regions.get(region.0) else { return };
        let thing = place.things.iter().find(|thing| thing.id == target).cloned();
        let session = self.sessions.get_mut(&code);
        let session = session.filter(|session| session.home == Some(region));
        let (Some(thing), Some(session)) = (thing, session) else {
            self.stats.stale += 1;
            return;
        };
        // Half of the thing, and the half of the avatar that is above its seat.
        let offset = Vector3::new(0.0, 0.0, thing.scale.z / 2.0 + 0.4);
        session.avatar.offer(thing.local_id, offset);
        let message = reply::seat(target, offset);
        self.send_to(now, region, code, &message, SendOptions::RELIABLE);
    }

    /// Somebody takes the seat that he was offered.
    pub(crate) fn on_sit(&mut self, now: Timestamp, region: RegionId, code: u32) {
        let Some(place) = self.regions.get(region.0) else { return };
        let things = &place.things;
        let find = |id| things.iter().find(|thing| thing.local_id == id);
        let session = self.sessions.get_mut(&code);
        let session = session.filter(|session| session.home == Some(region));
        let sits =
            session.is_some_and(|session| session.avatar.sit(|id| find(id).map(|t| t.position)));
        if sits {
            self.show(now, region, code, None);
        } else {
            self.stats.stale += 1;
        }
    }

    /// Somebody asks for objects again that he does not have.
    pub(crate) fn on_objects_asked(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        ids: &[u32],
    ) {
        let Some(place) = self.regions.get(region.0) else { return };
        let things: Vec<Thing> =
            place.things.iter().filter(|thing| ids.contains(&thing.local_id)).cloned().collect();
        let handle = place.config.handle();
        for some in things.chunks(THINGS_PER_MESSAGE_MAX) {
            let message = reply::things(some, handle);
            self.send_to(now, region, code, &message, SendOptions::RELIABLE);
        }
        for other in self.present(region) {
            let id = self.sessions.get(&other).map(|session| session.avatar.local_id);
            if id.is_some_and(|id| ids.contains(&id)) {
                self.show(now, region, other, Some(code));
            }
        }
    }

    /// Moves avatars on, lets them cross borders, and tells of it.
    pub(crate) fn step(&mut self, now: Timestamp) {
        if now < self.step_at {
            return;
        }
        let took = now.since(self.stepped_at);
        (self.stepped_at, self.step_at) = (now, now.after(STEP));
        let mut moved = std::mem::take(&mut self.moved);
        moved.clear();
        for (code, session) in &mut self.sessions {
            let Some(home) = session.home else { continue };
            if session.coming.is_some() {
                // Nobody walks while he is on his way elsewhere.
                session.avatar.halt();
            }
            session.avatar.step(took);
            moved.push((home, *code, News::None));
        }
        for (region, code, _) in &moved {
            self.look_at_border(now, *region, *code);
        }
        moved.retain_mut(|(_, code, news)| {
            *news = self.sessions.get_mut(code).map_or(News::None, |one| one.avatar.news());
            *news != News::None
        });
        moved.sort_unstable_by_key(|(region, code, news)| (*region, *news == News::Lasting, *code));
        self.tell_moved(now, &moved);
        self.moved = moved;
        if self.map_at <= now {
            self.map_at = now.after(MAP);
            for region in 0..self.regions.len() {
                self.tell_map(now, RegionId(region));
            }
        }
    }

    /// Who is beyond the border goes to the neighbour there, or no further.
    fn look_at_border(&mut self, now: Timestamp, region: RegionId, code: u32) {
        let side = REGION_METRES as f32;
        let Some(session) = self.sessions.get_mut(&code) else { return };
        let Vector3 { x, y, z } = session.avatar.position();
        let over = |metres: f32| i64::from(metres >= side) - i64::from(metres < 0.0);
        let (east, north) = (over(x), over(y));
        if (east, north) == (0, 0) {
            return;
        }
        session.avatar.confine();
        let to = self.region(region).and_then(|config| {
            let column = u32::try_from(i64::from(config.x) + east).ok()?;
            let row = u32::try_from(i64::from(config.y) + north).ok()?;
            let mut regions = self.regions();
            regions.find(|(_, at)| (at.x, at.y) == (column, row)).map(|(id, _)| id)
        });
        if let Some(to) = to {
            let wrapped = |metres: f32, over: i64| metres - over as f32 * side;
            self.cross(now, code, to, Vector3::new(wrapped(x, east), wrapped(y, north), z));
        }
    }

    /// Short updates of those who moved, sorted by region and kind.
    fn tell_moved(&mut self, now: Timestamp, moved: &[(RegionId, u32, News)]) {
        for group in moved.chunk_by(|one, two| (one.0, one.2) == (two.0, two.2)) {
            let Some((region, _, news)) = group.first().copied() else { continue };
            let Some(handle) = self.region(region).map(RegionConfig::handle) else { continue };
            let options = match news {
                News::Lasting => SendOptions::RELIABLE,
                _ => SendOptions::UNRELIABLE.at_rate_of(ThrottleClass::Task),
            };
            for part in group.chunks(MOVED_PER_MESSAGE) {
                let avatars = part.iter().filter_map(|(_, code, _)| self.sessions.get(code));
                let message = reply::moved(avatars.map(|session| &session.avatar), handle);
                self.broadcast(now, region, &message, options, None);
            }
            for (_, code, _) in group {
                let session = self.sessions.get(code);
                if session.is_some_and(|session| session.animated != session.avatar.activity()) {
                    self.animate(now, region, *code, None);
                }
            }
        }
    }

    /// Who is where in a region, for everybody who sees it.
    fn tell_map(&mut self, now: Timestamp, region: RegionId) {
        let here = self.sessions.iter().filter(|(_, session)| session.home == Some(region));
        let here: Vec<(u32, Uuid, Vector3)> = here
            .take(MAP_AVATARS_MAX)
            .map(|(code, one)| (*code, one.guest.ids.agent_id, one.avatar.position()))
            .collect();
        let Some(place) = self.regions.get_mut(region.0) else { return };
        if here.is_empty() {
            return;
        }
        let mut message = reply::map(here.iter().map(|(_, id, position)| (*id, *position)));
        let hearers: Vec<(SocketAddr, u32)> = place.audience().collect();
        for (addr, code) in hearers {
            let you = here.iter().position(|(of, ..)| *of == code);
            message.index.you = you.and_then(|you| i16::try_from(you).ok()).unwrap_or(-1);
            let sent = place.circuits.send(now, addr, &message, SendOptions::UNRELIABLE);
            self.stats.dropped += u64::from(sent.is_err());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_lludp::content::LayerReader;

    #[test]
    fn the_ground_is_all_there_and_flat_in_datagrams_of_a_usual_size() {
        let fields = ground();
        let mut seen = std::collections::BTreeSet::new();
        for field in &fields {
            assert_eq!(field.layer_id.r#type, b'L');
            assert!(field.layer_data.data.bytes().len() <= 1_000);
            let mut reader = LayerReader::new(field.layer_data.data.bytes()).unwrap();
            let mut heights = [0.0; PatchSize::HEIGHTS_MAX];
            while let Some(place) = reader.next_patch(&mut heights).unwrap() {
                let patch = &heights[..PatchSize::P16.heights()];
                assert!(patch.iter().all(|height| (height - GROUND).abs() < 0.01), "{patch:?}");
                seen.insert((place.x, place.y));
            }
        }
        assert_eq!(seen.len(), 256);
        assert!(fields.len() <= 8, "{}", fields.len());
    }

    #[test]
    fn things_have_numbers_below_those_of_avatars() {
        let things = Thing::all(&mut Stream::new(1, "things", 0), 0);
        assert!(things.iter().all(|thing| (1..AVATAR_IDS_FROM).contains(&thing.local_id)));
    }

    #[test]
    fn things_in_rows_have_numbers_of_their_own_and_are_within_their_region() {
        let things = Thing::all(&mut Stream::new(1, "things", 0), usize::MAX);
        assert_eq!(things.len(), THINGS_MAX);
        let numbers: std::collections::BTreeSet<u32> =
            things.iter().map(|thing| thing.local_id).collect();
        assert_eq!(numbers.len(), THINGS_MAX);
        let within = |at: f32| (0.0..REGION_METRES as f32).contains(&at);
        assert!(things.iter().all(|thing| within(thing.position.x) && within(thing.position.y)));
    }
}
