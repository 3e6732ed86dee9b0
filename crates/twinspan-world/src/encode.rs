//! Every cell of a world encoded once a tick, to be copied to all who see it.
//!
//! The server follows the same paths as its clients and notes when an entity leaves its path. What
//! a cell's record holds is then a question of who changed since which keyframe: most entities did
//! not, and take a single bit.

mod scribe;

use crate::bits::BitWriter;
use crate::content::{Content, PATH_TICKS_MAX, POSITION_ERROR, id_bits, is_slip, slip_bits};
use crate::entity::{EntityState, Flags, HEALTH_FULL, Kind, Velocity};
use crate::far::FarRegions;
use crate::grid::{CellId, Grid, NO_CELL};
use crate::id::EntityId;
use crate::image::WorldImage;
use crate::movement::{Body, TICK_SECONDS};
use crate::roam;
use crate::store::{Traits, state_of};
use crate::world::World;
use scribe::{Scribe, push_packed, push_wire, stamp_of};

/// The most entities of a cell that keyframes list; a cell with more is a crowd, whose entities are
/// told one by one as the budget allows.
pub const MEMBERS_MAX: usize = 40;
/// Bytes of the longest record of a cell; what would be longer is told as a crowd is.
pub const RECORD_BYTES_MAX: usize = 640;
/// Ticks between two keyframes of a cell in which something changes.
pub const KEYFRAME_TICKS: u32 = 30;

/// Bits of the longest entity that is told whole: marks, id, traits, path, slip.
pub(crate) const WHOLE_BITS_MAX: usize = 2 + 33 + 13 + 128 + 5;
/// Variants of one cell's record.
const VARIANTS: usize = 4;
/// How much of the promised error the server leaves to rounding, along each axis, in metres.
const DEVIATION_MAX: f64 = POSITION_ERROR / 2.0;
/// The same for heights: the rounding of the rise adds up.
const RISE_DEVIATION_MAX: f64 = POSITION_ERROR * 0.75;
/// How far a shown rise can be off before it is told anew, in metres per second.
const RISE_SPEED_DEVIATION_MAX: f64 = 0.05;
/// A variant that is too long for a record.
const TOO_LONG: u16 = u16::MAX;

/// When an entity last changed, by slot; what records are made by.
#[derive(Clone, Copy, Debug, Default)]
struct Stamp {
    /// The entity's id; 0 when nobody is there whom all may see.
    id: u32,
    /// Its cell: the number and which use of it.
    number: u32,
    serial: u32,
    /// The tick at which it came into the cell.
    entered: u32,
    /// The tick at which anything about it changed.
    since: u32,
}

/// What the server compares an entity with each tick, by slot.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Track {
    x: f64,
    z: f64,
    y: f32,
    /// Metres per tick.
    rate_x: f32,
    rate_z: f32,
    /// Metres per second.
    rise: f32,
    /// The tick at which it would have been there, its slip included.
    base: u32,
    renew_at: u32,
    /// What it looked like when it was compared last.
    velocity_x: f32,
    velocity_z: f32,
    yaw: f32,
    pitch: f32,
    look: Look,
    is_in_air: bool,
}

const _: () = assert!(size_of::<Track>() == 64);

/// What rarely changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Look {
    kind: Kind,
    flags: Flags,
    health: u8,
}

/// What records are written from, by slot: half a line of the processor's memory.
#[derive(Clone, Copy, Debug, Default)]
struct Wire {
    path: u128,
    path_since: u32,
    traits_since: u32,
    traits: u16,
    path_bits: u8,
    trait_bits: u8,
    slip: i8,
}

const _: () = assert!(size_of::<Wire>() == 32);

/// What it was packed from, and what stands for it in digests.
#[derive(Clone, Copy, Debug)]
struct Told {
    content: Content,
    digest: u32,
}

/// What every record of a cell needs to know, by cell number.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Head {
    serial: u32,
    /// The tick at which anything in the cell changed.
    changed: u32,
    /// Entities that all may see.
    shared: u32,
    /// Which of the two keyframes is the newer one, 0 or 1.
    newer: u32,
    /// The ticks of the keyframes; 0 is none.
    keys: [u32; 2],
    /// The variants that were encoded at `made`.
    made: [u32; VARIANTS],
    offsets: [u32; VARIANTS],
    lens: [u16; VARIANTS],
}

const _: () = assert!(size_of::<Head>() == 64);

/// Whom a keyframe lists.
#[derive(Clone, Copy, Debug)]
struct Members {
    len: u8,
    /// How many of them, at the front, the keyframe before lists too.
    survivors: u8,
    ids: [u32; MEMBERS_MAX],
}

const NOBODY: Members = Members { len: 0, survivors: 0, ids: [0; MEMBERS_MAX] };

/// A variant of a cell's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Variant {
    /// What changed since the newer keyframe.
    Delta = 0,
    /// What changed since the older one.
    OldDelta = 1,
    /// The same, and which of it the newer keyframe is.
    Establish = 2,
    /// The newer keyframe whole, and what changed since.
    Full = 3,
}

/// What a record is, on the wire.
pub(crate) const FORM_DELTA: u8 = 0;
pub(crate) const FORM_ESTABLISH: u8 = 1;
pub(crate) const FORM_FULL: u8 = 2;
/// Bits of the form below a record's length.
pub(crate) const FORM_BITS: u32 = 2;
/// Bits of the number of entities in a full record.
pub(crate) const COUNT_BITS: u32 = 6;
const _: () = assert!(MEMBERS_MAX < 1 << COUNT_BITS);

/// What a cell is at this tick, for one client to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CellState {
    /// Nobody is in it whom all may see.
    Empty,
    /// More than keyframes list.
    Crowd,
    /// Records can be had.
    Keyed {
        /// The tick of the last change.
        changed: u32,
        /// The tick of the newer keyframe.
        newer: u32,
        /// The tick of the older one; 0 is none.
        older: u32,
    },
}

/// Every cell of one world at one tick, as bytes that are made when first asked for.
///
/// [`CellEncodings::update`] once a tick, after [`World::step`]; then [`StatePlan::plan`] for each
/// client whose state is due. Nothing is allocated after [`CellEncodings::new`].
///
/// [`StatePlan::plan`]: crate::StatePlan::plan
#[derive(Clone, Debug)]
pub struct CellEncodings {
    tick: u32,
    cell_m: u8,
    slot_bits: u32,
    stamps: Vec<Stamp>,
    tracks: Vec<Track>,
    wires: Vec<Wire>,
    told: Vec<Told>,
    heads: Vec<Head>,
    members: Vec<[Members; 2]>,
    /// Of each cell, the tick and the sum of its last digest.
    digests: Vec<(u32, u32)>,
    arena: Vec<u8>,
    arena_max: usize,
    far: FarRegions,
    refused: u64,
}

impl CellEncodings {
    /// Takes the room that any state of this world needs.
    pub fn new(world: &World) -> Self {
        let entities = world.config().entities_max;
        let numbers = world.grid().numbers_max();
        // Each entity in each variant, at half of its greatest length, and each record's head.
        let arena_max = entities * VARIANTS * WHOLE_BITS_MAX / 16 + entities.min(numbers) * 16;
        let arena_max = arena_max + RECORD_BYTES_MAX * VARIANTS;
        let nothing = Content::of(&nobody(), world.grid().id_of(NO_CELL), 32, 0);
        let told = Told { content: nothing, digest: 0 };
        Self {
            tick: 0,
            cell_m: world.config().cell_metres(),
            slot_bits: slot_bits(entities),
            stamps: vec![Stamp::default(); entities],
            tracks: vec![Track::default(); entities],
            wires: vec![Wire::default(); entities],
            told: vec![told; entities],
            digests: vec![(0, 0); numbers],
            heads: vec![Head::default(); numbers],
            members: vec![[NOBODY; 2]; numbers],
            arena: Vec::with_capacity(arena_max),
            arena_max,
            far: FarRegions::new(entities),
            refused: 0,
        }
    }

    /// Appends what is said of the regions around the cell `own`.
    pub(crate) fn put_far(&mut self, world: &World, own: CellId, reach: u8, out: &mut Vec<u8>) {
        self.far.put(world, own, reach, out);
    }

    /// Follows `world` to its present tick: compares every entity with its path and forgets the
    /// records of earlier ticks.
    pub fn update(&mut self, world: &World) {
        self.tick = world.tick();
        self.arena.clear();
        let (store, grid) = (world.store(), world.grid());
        let entities = store.ids.iter().zip(&store.bodies).zip(&store.traits).enumerate();
        for (slot, ((id, body), traits)) in entities {
            let Some(id) = id.filter(|_| !traits.is_hidden()) else {
                self.leave(slot);
                continue;
            };
            let number = grid.number_at(id);
            if number == NO_CELL {
                // It was spawned since the last step and is not in the grid yet.
                self.leave(slot);
            } else if !self.is_on_path(slot, id, number, grid, body, traits) {
                self.note_change(slot, id, number, grid, state_of(id, body, traits), traits);
            }
        }
    }

    /// Makes the keyframes that are due, also of cells that nobody asks for here: others will, from
    /// a copy.
    pub(crate) fn make_due_keyframes(&mut self, grid: &Grid) {
        for number in 0..self.heads.len() {
            self.cell_state(number as u32, grid);
        }
    }

    /// Copies what records are made of, for entities in the first `slots`, without allocating; both
    /// are of one world.
    pub(crate) fn copy_tables(&mut self, from: &Self, slots: usize) {
        self.tick = from.tick;
        self.arena.clear();
        copy_front(&mut self.stamps, &from.stamps, slots);
        copy_front(&mut self.wires, &from.wires, slots);
        copy_front(&mut self.told, &from.told, slots);
        let cells = self.heads.iter_mut().zip(&mut self.members).zip(&from.heads);
        for (((head, members), theirs), listed) in cells.zip(&from.members) {
            // Most cells make no keyframe from one copy to the next.
            if (head.serial, head.keys) != (theirs.serial, theirs.keys) {
                *members = *listed;
            }
            *head = Head { made: [0; VARIANTS], ..*theirs };
        }
    }

    /// Follows a world to the tick of `image`, without allocating: what
    /// [`CellEncodings::update`] is to who has the world itself.
    pub fn follow(&mut self, image: &WorldImage) {
        self.copy_tables(image.encodings(), image.world().slots());
    }

    /// Whether clients who follow its path see the entity as it is. It may be said to slip.
    #[inline]
    fn is_on_path(
        &mut self,
        slot: usize,
        id: EntityId,
        number: u32,
        grid: &Grid,
        body: &Body,
        traits: &Traits,
    ) -> bool {
        let (Some(stamp), Some(track)) = (self.stamps.get_mut(slot), self.tracks.get_mut(slot))
        else {
            return false;
        };
        if stamp.id != id.to_bits()
            || stamp.number != number
            || stamp.serial != grid.serial(number)
            || track.look != Look::of(traits)
            || (track.velocity_x, track.velocity_z) != (body.velocity.x, body.velocity.z)
            || (track.yaw, track.pitch) != (body.yaw, body.pitch)
        {
            return false;
        }
        let ticks = f64::from(self.tick.wrapping_sub(track.base) as i32);
        let off_x = (body.position.x - track.x - f64::from(track.rate_x) * ticks).abs();
        let off_z = (body.position.z - track.z - f64::from(track.rate_z) * ticks).abs();
        if track.is_in_air {
            return off_x <= DEVIATION_MAX
                && off_z <= DEVIATION_MAX
                && self.tick < track.renew_at
                && is_falling_along(track, ticks, body);
        }
        let is_level =
            (body.position.y - f64::from(track.y)).abs() <= DEVIATION_MAX && body.velocity.y == 0.0;
        if !is_level || self.tick >= track.renew_at {
            return false;
        }
        if off_x <= DEVIATION_MAX && off_z <= DEVIATION_MAX {
            return true;
        }
        self.slips(slot, body)
    }

    /// Whether the entity is where it would be some ticks earlier or later, as players are whose
    /// inputs come unevenly; it is then noted how many.
    fn slips(&mut self, slot: usize, body: &Body) -> bool {
        let Some(track) = self.tracks.get_mut(slot) else { return false };
        let (Some(told), Some(stamp)) = (self.told.get_mut(slot), self.stamps.get_mut(slot)) else {
            return false;
        };
        let (x, z) = (body.position.x - track.x, body.position.z - track.z);
        let (rate_x, rate_z) = (f64::from(track.rate_x), f64::from(track.rate_z));
        let length = rate_x * rate_x + rate_z * rate_z;
        if length == 0.0 {
            return false;
        }
        let steps = libm::round((x * rate_x + z * rate_z) / length);
        let began = told.content.path.began;
        let slip = i64::from(self.tick.wrapping_sub(began) as i32) - steps as i64;
        let is_there = (x - rate_x * steps).abs() <= DEVIATION_MAX
            && (z - rate_z * steps).abs() <= DEVIATION_MAX;
        if !is_there || !is_slip(slip) {
            return false;
        }
        told.content.slip = slip as i8;
        if let Some(wire) = self.wires.get_mut(slot) {
            wire.slip = slip as i8;
        }
        told.digest =
            told.content.digest(EntityId::from_bits(stamp.id).unwrap_or(FIRST), self.cell_m);
        track.base = began.wrapping_add(slip as u32);
        stamp.since = self.tick;
        if let Some(head) = self.heads.get_mut(stamp.number as usize) {
            head.changed = self.tick;
        }
        true
    }

    /// Sets the entity on a new path, or on its old one when nothing is to be seen of the change.
    fn note_change(
        &mut self,
        slot: usize,
        id: EntityId,
        number: u32,
        grid: &Grid,
        mut entity: EntityState,
        traits: &Traits,
    ) {
        let (cell, serial) = (grid.id_of(number), grid.serial(number));
        if traits.has_private_health {
            entity.health = HEALTH_FULL;
        }
        let stamp = self.stamps.get(slot).copied().unwrap_or_default();
        let stays = (stamp.id, stamp.number, stamp.serial) == (id.to_bits(), number, serial);
        if !stays {
            self.leave(slot);
            self.enter(slot, id, number, serial);
        }
        let tick = self.tick;
        let mut content = Content::of(&entity, cell, self.cell_m, tick);
        let (Some(told), Some(stamp)) = (self.told.get_mut(slot), self.stamps.get_mut(slot)) else {
            return;
        };
        let (Some(track), Some(wire)) = (self.tracks.get_mut(slot), self.wires.get_mut(slot))
        else {
            return;
        };
        let motion = content.motion(cell, self.cell_m, tick);
        let is_same = stays && content == told.content;
        *track = Track {
            x: motion.position.x,
            z: motion.position.z,
            y: motion.position.y as f32,
            rate_x: (motion.rate_x * TICK_SECONDS) as f32,
            rate_z: (motion.rate_z * TICK_SECONDS) as f32,
            rise: motion.velocity.y,
            base: tick,
            renew_at: if content.path.course.is_still() {
                u32::MAX
            } else {
                tick.saturating_add(PATH_TICKS_MAX)
            },
            is_in_air: matches!(content.path.course, crate::content::Course::Air { .. }),
            velocity_x: entity.velocity.x,
            velocity_z: entity.velocity.z,
            yaw: entity.yaw,
            pitch: entity.pitch,
            look: Look::of(traits),
        };
        if is_same {
            return;
        }
        content.slip = 0;
        let has_new_traits = !stays
            || (content.kind, content.flags, content.health)
                != (told.content.kind, told.content.flags, told.content.health);
        *told = Told { digest: content.digest(id, self.cell_m), content };
        let (path, traits) = (content.path_bits(self.cell_m), content.trait_bits());
        *wire = Wire {
            path: path.bits,
            path_since: tick,
            traits_since: if has_new_traits { tick } else { wire.traits_since },
            traits: traits.bits as u16,
            path_bits: path.count as u8,
            trait_bits: traits.count as u8,
            slip: 0,
        };
        stamp.since = tick;
        if let Some(head) = self.heads.get_mut(number as usize) {
            head.changed = tick;
        }
    }

    fn enter(&mut self, slot: usize, id: EntityId, number: u32, serial: u32) {
        let Some(head) = self.heads.get_mut(number as usize) else { return };
        if head.serial != serial {
            *head = Head { serial, ..Head::default() };
        }
        head.changed = self.tick;
        head.shared += 1;
        if let Some(stamp) = self.stamps.get_mut(slot) {
            let (entered, since) = (self.tick, self.tick);
            *stamp = Stamp { id: id.to_bits(), number, serial, entered, since };
        }
    }

    fn leave(&mut self, slot: usize) {
        let Some(stamp) = self.stamps.get_mut(slot).filter(|stamp| stamp.id != 0) else { return };
        stamp.id = 0;
        let serial = stamp.serial;
        let head = self.heads.get_mut(stamp.number as usize);
        if let Some(head) = head.filter(|head| head.serial == serial) {
            head.changed = self.tick;
            head.shared = head.shared.saturating_sub(1);
        }
    }

    /// The tick of the world that was followed to.
    pub const fn tick(&self) -> u32 {
        self.tick
    }

    /// The side of a cell in whole metres.
    pub const fn cell_metres(&self) -> u8 {
        self.cell_m
    }

    /// Entities in the cell with this number that all may see.
    pub(crate) fn shared(&self, number: u32) -> usize {
        self.heads.get(number as usize).map_or(0, |head| head.shared as usize)
    }

    /// Bits of an entity's slot.
    pub(crate) const fn slot_bits(&self) -> u32 {
        self.slot_bits
    }

    /// Records that found no room in the memory for one tick; their cells waited for the next.
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// What the cell with this number is; makes a keyframe when one is due.
    #[inline]
    pub(crate) fn cell_state(&mut self, number: u32, grid: &Grid) -> CellState {
        let tick = self.tick;
        let Some(head) = self.heads.get(number as usize) else { return CellState::Empty };
        if head.shared == 0 {
            return CellState::Empty;
        }
        if head.shared as usize > MEMBERS_MAX {
            return CellState::Crowd;
        }
        let [newer, older] = newer_first(head);
        // Cells take turns, so that no tick makes all keyframes.
        let turn =
            |tick: u32| (u64::from(tick) + u64::from(number) * 7) / u64::from(KEYFRAME_TICKS);
        if newer == 0 || (head.changed > newer && turn(tick) > turn(newer)) {
            return self.make_keyframe(number, grid);
        }
        CellState::Keyed { changed: head.changed, newer, older }
    }

    /// Lists who is in the cell: first those whom the last keyframe lists too, then the others.
    fn make_keyframe(&mut self, number: u32, grid: &Grid) -> CellState {
        let Self { heads, members, stamps, tick, .. } = self;
        let (Some(head), Some(both)) =
            (heads.get_mut(number as usize), members.get_mut(number as usize))
        else {
            return CellState::Empty;
        };
        let [last_tick, _] = newer_first(head);
        let [first, second] = both;
        let (last, next) =
            if head.newer == 0 { (&*first, &mut *second) } else { (&*second, &mut *first) };
        let mut made = NOBODY;
        let mut push = |id: u32| {
            if let Some(place) = made.ids.get_mut(usize::from(made.len)) {
                *place = id;
                made.len += 1;
            }
        };
        if last_tick > 0 {
            for id in last.ids.iter().take(usize::from(last.len)) {
                if stamp_of(stamps, *id, head.serial).is_some_and(|at| at.entered <= last_tick) {
                    push(*id);
                }
            }
        }
        let survivors = made.len;
        for id in grid.listed(number) {
            let bits = id.to_bits();
            let stamp = stamp_of(stamps, bits, head.serial);
            if stamp.is_some_and(|at| at.entered > last_tick || last_tick == 0)
                && let Some(place) = made.ids.get_mut(usize::from(made.len))
            {
                *place = bits;
                made.len += 1;
            }
        }
        *next = Members { survivors, ..made };
        head.newer = 1 - head.newer.min(1);
        if let Some(key) = head.keys.get_mut(head.newer as usize) {
            *key = *tick;
        }
        head.made = [0; VARIANTS];
        CellState::Keyed { changed: head.changed, newer: *tick, older: last_tick }
    }

    /// One variant of the record of a keyed cell; `None` when it is too long.
    #[inline]
    pub(crate) fn record(&mut self, number: u32, variant: Variant, grid: &Grid) -> Option<Span> {
        let which = variant as usize;
        let head = self.heads.get(number as usize)?;
        if head.made.get(which) != Some(&self.tick) {
            self.encode(number, variant, grid);
        }
        let head = self.heads.get(number as usize)?;
        let (offset, len) = (*head.offsets.get(which)?, *head.lens.get(which)?);
        (len != TOO_LONG).then_some(Span { offset, len })
    }

    /// The bytes of a record.
    #[inline]
    pub(crate) fn bytes(&self, span: Span) -> &[u8] {
        let start = span.offset as usize;
        self.arena.get(start..start + usize::from(span.len)).unwrap_or_default()
    }

    fn encode(&mut self, number: u32, variant: Variant, grid: &Grid) {
        let which = variant as usize;
        let start = self.arena.len();
        let mut len = TOO_LONG;
        if let Some(head) = self.heads.get(number as usize).copied()
            && let Some(members) = self.members.get(number as usize)
        {
            let newer = head.newer as usize;
            let key = |which: usize| head.keys.get(which).copied().unwrap_or(0);
            let older = 1 - newer;
            let (new, old) = (members.get(newer), members.get(older));
            let (new, old) = (new.unwrap_or(&NOBODY), old.unwrap_or(&NOBODY));
            let worst = (head.shared as usize + 2 * MEMBERS_MAX) * WHOLE_BITS_MAX / 8;
            if start + worst > self.arena_max {
                self.refused += 1;
            } else {
                let mut scribe = Scribe {
                    stamps: &self.stamps,
                    wires: &self.wires,
                    slot_bits: self.slot_bits,
                    serial: head.serial,
                    out: BitWriter::new(&mut self.arena),
                };
                let listed = grid.listed(number);
                match variant {
                    Variant::Delta => scribe.delta(new, key(newer), listed),
                    Variant::OldDelta => scribe.delta(old, key(older), listed),
                    Variant::Establish => {
                        scribe.establish([old, new], [key(older), key(newer)], listed);
                    }
                    Variant::Full => scribe.full(new, key(newer), listed),
                }
                scribe.out.finish();
                len = self.put_head(start, variant, [key(newer), key(older)]);
            }
        }
        let tick = self.tick;
        let Some(head) = self.heads.get_mut(number as usize) else { return };
        let places =
            (head.made.get_mut(which), head.offsets.get_mut(which), head.lens.get_mut(which));
        if let (Some(made), Some(offset), Some(place)) = places {
            (*made, *offset, *place) = (tick, start as u32, len);
        }
    }

    /// Puts form, length and ages before the bits that begin at `start`; returns the whole length.
    fn put_head(&mut self, start: usize, variant: Variant, [newer, older]: [u32; 2]) -> u16 {
        let bits = self.arena.len() - start;
        let mut head = [0_u8; 16];
        let mut len = 0;
        let mut put = |mut value: u64| {
            while let Some(place) = head.get_mut(len) {
                len += 1;
                *place = value as u8 & 0x7f;
                value >>= 7;
                if value == 0 {
                    break;
                }
                *place |= 0x80;
            }
        };
        let form = match variant {
            Variant::Delta | Variant::OldDelta => FORM_DELTA,
            Variant::Establish => FORM_ESTABLISH,
            Variant::Full => FORM_FULL,
        };
        put((bits as u64) << FORM_BITS | u64::from(form));
        let base = if variant == Variant::OldDelta { older } else { newer };
        put(u64::from(self.tick.wrapping_sub(base)));
        if variant == Variant::Establish {
            put(u64::from(newer.wrapping_sub(older)));
        }
        if bits + len > RECORD_BYTES_MAX {
            self.arena.truncate(start);
            return TOO_LONG;
        }
        let head = head.get(..len).unwrap_or_default();
        self.arena.extend_from_slice(head);
        if let Some(record) = self.arena.get_mut(start..) {
            record.rotate_right(len);
        }
        (bits + len) as u16
    }

    /// A number for what all may see in the cell; see [`Content::digest`].
    pub(crate) fn digest(&mut self, number: u32, grid: &Grid) -> u32 {
        let Self { heads, digests, stamps, told, tick, .. } = self;
        let Some(head) = heads.get(number as usize) else { return 0 };
        let Some((digest_at, digest)) = digests.get_mut(number as usize) else { return 0 };
        if *digest_at != *tick {
            let listed = grid.listed(number).iter();
            let shared = listed.filter(|id| stamp_of(stamps, id.to_bits(), head.serial).is_some());
            *digest = shared.fold(0, |sum: u32, id| {
                sum.wrapping_add(told.get(id.index()).map_or(0, |told| told.digest))
            });
            *digest_at = *tick;
        }
        *digest
    }

    /// Appends an entity that all may see, whole; false when it is not in the cell.
    pub(crate) fn push_whole(&self, out: &mut BitWriter<'_>, id: EntityId, number: u32) -> bool {
        let serial = self.heads.get(number as usize).map_or(0, |head| head.serial);
        let Some(_) = stamp_of(&self.stamps, id.to_bits(), serial) else { return false };
        let Some(wire) = self.wires.get(id.index()) else { return false };
        push_packed(out, id_bits(id, self.slot_bits));
        push_wire(out, wire);
        true
    }

    /// Bits that [`CellEncodings::push_whole`] appends; 0 when it appends none.
    pub(crate) fn whole_bits(&self, id: EntityId, number: u32) -> usize {
        let serial = self.heads.get(number as usize).map_or(0, |head| head.serial);
        let wire = self.wires.get(id.index());
        match (stamp_of(&self.stamps, id.to_bits(), serial), wire) {
            (Some(_), Some(wire)) => {
                let id = id_bits(id, self.slot_bits).count;
                let slip = slip_bits(wire.slip).count;
                (id + u32::from(wire.path_bits) + u32::from(wire.trait_bits) + slip) as usize
            }
            _ => 0,
        }
    }

    /// The bytes that are shared about one cell at this tick, every variant, for tests.
    #[doc(hidden)]
    pub fn shared_bytes(&mut self, cell: crate::CellId, grid: &Grid) -> Vec<Vec<u8>> {
        let Some(number) = grid.number(cell) else { return Vec::new() };
        let CellState::Keyed { .. } = self.cell_state(number, grid) else { return Vec::new() };
        let mut all = Vec::new();
        for variant in [Variant::Delta, Variant::OldDelta, Variant::Establish, Variant::Full] {
            let span = self.record(number, variant, grid);
            all.extend(span.map(|span| self.bytes(span).to_vec()));
        }
        all
    }
}

/// Where a record lies in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) offset: u32,
    pub(crate) len: u16,
}

/// Makes the first `count` of `to` those of `from`.
fn copy_front<T: Copy>(to: &mut [T], from: &[T], count: usize) {
    if let (Some(to), Some(from)) = (to.get_mut(..count), from.get(..count)) {
        to.copy_from_slice(from);
    }
}

fn newer_first(head: &Head) -> [u32; 2] {
    let [first, second] = head.keys;
    if head.newer == 0 { [first, second] } else { [second, first] }
}

/// Bits that name any of `entities` slots.
pub(crate) const fn slot_bits(entities: usize) -> u32 {
    entities.next_power_of_two().trailing_zeros()
}

/// Whether an entity in the air is where its path has it after so many ticks.
fn is_falling_along(track: &Track, ticks: f64, body: &Body) -> bool {
    let time = ticks * TICK_SECONDS;
    let fallen = 0.5 * roam::GRAVITY * time * (time - TICK_SECONDS);
    let (start, first) = (f64::from(track.y), f64::from(track.rise));
    let y = crate::movement::cut(start + first * time - fallen, crate::movement::HEIGHT_MAX);
    let rise = first - roam::GRAVITY * time;
    (body.position.y - y).abs() <= RISE_DEVIATION_MAX
        && (f64::from(body.velocity.y) - rise).abs() <= RISE_SPEED_DEVIATION_MAX
}

impl Look {
    fn of(traits: &Traits) -> Self {
        let health = if traits.has_private_health { HEALTH_FULL } else { traits.health };
        Self { kind: traits.kind, flags: traits.flags, health }
    }
}

/// The first id of all.
const FIRST: EntityId = EntityId::FIRST;

/// Stands in the slots that nobody was in yet.
fn nobody() -> EntityState {
    EntityState {
        id: FIRST,
        kind: Kind::Player,
        position: crate::Position::default(),
        velocity: Velocity::ZERO,
        yaw: 0.0,
        pitch: 0.0,
        flags: Flags::NONE,
        health: HEALTH_FULL,
    }
}

#[cfg(test)]
mod tests;
