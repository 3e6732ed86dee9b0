//! Entities that are told one by one: those of crowds, those that not all may see, and what stands
//! for whole regions far away.

use crate::bits::BitWriter;
use crate::content::{Content, id_bits, slip_bits};
use crate::encode::{CellEncodings, RECORD_BYTES_MAX, WHOLE_BITS_MAX};
use crate::far::FAR_BYTES_MAX;
use crate::grid::CellId;
use crate::header::push_varint;
use crate::id::EntityId;
use crate::interest::{WINDOW_CELLS, cell_at};
use crate::state::{PlanInput, SECTION_HEAD_BYTES};
use crate::store::state_of;

/// Entities this near to the player are told first where there is a crowd, in metres.
pub const NEAR_METRES: f64 = 12.0;
/// The most near entities of one state.
pub const NEAR_MAX: usize = 256;
/// The most private entities of one state; nearer ones go first.
pub const PRIVATE_MAX: usize = 32;

/// Entities as they are now; nothing is said about others.
pub(crate) const SECTION_NEAR: u8 = 1;
/// All entities that this client is told in private.
pub(crate) const SECTION_PRIVATE: u8 = 2;
/// All entities of one cell whose ids lie in one span.
pub(crate) const SECTION_SPAN: u8 = 3;
/// How many are in each region around.
pub(crate) const SECTION_FAR: u8 = 4;
/// Bits of a cell's place in the window.
pub(crate) const WINDOW_BITS: u32 = 6;
const _: () = assert!(WINDOW_CELLS <= 1 << WINDOW_BITS);
/// Bytes of the longest section's payload.
/// Two fit a packet.
const PAYLOAD_BYTES_MAX: usize = 490;
const _: () = assert!(PAYLOAD_BYTES_MAX + SECTION_HEAD_BYTES <= RECORD_BYTES_MAX);
const _: () = assert!(FAR_BYTES_MAX <= PAYLOAD_BYTES_MAX);
/// Cell, first id, last id.
const SPAN_HEAD_BYTES: usize = 1 + 4 + 4;
/// A teammate counts as if it were so much nearer, squared.
const TEAM_NEARNESS: f64 = 4.0;

/// Where a section lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    pub(crate) start: u32,
    pub(crate) len: u32,
}

/// A crowd in sight.
#[derive(Clone, Copy, Debug)]
struct Place {
    bit: u32,
    cell: CellId,
    number: u32,
}

/// Somebody to be told.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// Square metres.
    distance: f64,
    id: EntityId,
    bit: u32,
    number: u32,
}

/// Collects one client's sections.
#[derive(Clone, Debug)]
pub(crate) struct Crowd {
    bytes: Vec<u8>,
    bytes_max: usize,
    sections: Vec<Section>,
    places: Vec<Place>,
    candidates: Vec<Candidate>,
    entities: usize,
    left_out: usize,
}

impl Crowd {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes_max),
            bytes_max,
            sections: Vec::with_capacity(bytes_max / RECORD_BYTES_MAX * 8),
            places: Vec::with_capacity(WINDOW_CELLS),
            candidates: Vec::with_capacity(2 * NEAR_MAX),
            entities: 0,
            left_out: 0,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.sections.clear();
        self.places.clear();
        (self.entities, self.left_out) = (0, 0);
    }

    /// A cell's entities are to be told one by one.
    pub(crate) fn note(&mut self, bit: u32, cell: CellId, number: u32) {
        if self.places.len() < WINDOW_CELLS {
            self.places.push(Place { bit, cell, number });
        }
    }

    /// Whether no crowd is in sight.
    pub(crate) const fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many crowds are in sight.
    pub(crate) const fn cells(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn sections(&self) -> &[Section] {
        &self.sections
    }

    pub(crate) fn bytes(&self, start: u32, len: u32) -> &[u8] {
        self.bytes.get(start as usize..(start + len) as usize).unwrap_or_default()
    }

    pub(crate) const fn entities(&self) -> usize {
        self.entities
    }

    pub(crate) const fn left_out(&self) -> usize {
        self.left_out
    }

    /// Makes the section about the regions around the player; nothing when it takes more than `left`
    /// bytes. Returns what it takes.
    pub(crate) fn put_far(&mut self, input: &mut PlanInput<'_>, left: usize) -> usize {
        let start = self.bytes.len();
        let (own, reach) = (input.subscriptions.own_cell(), input.subscriptions.far_reach());
        input.encodings.put_far(input.world, own, reach, &mut self.bytes);
        if self.bytes.len() - start + SECTION_HEAD_BYTES > left {
            self.bytes.truncate(start);
            return 0;
        }
        input.baselines.far_at = input.header.tick;
        self.close(SECTION_FAR, start)
    }

    /// Makes the sections of a state whose records took `used` bytes.
    pub(crate) fn fill(&mut self, input: &mut PlanInput<'_>, used: usize) {
        let mut left = input.budget.saturating_sub(used);
        if input.world.has_rules() {
            left = left.saturating_sub(self.put_private(input, left));
        }
        if self.places.is_empty() {
            return;
        }
        if left < usize::MAX / 2 {
            left = left.saturating_sub(self.put_near(input, left / 2));
        }
        self.sweep(input, left);
    }

    /// Entities that this client may see and others not, or of which it may know more.
    fn put_private(&mut self, input: &PlanInput<'_>, left: usize) -> usize {
        let own = input.header.own;
        let team = input.world.team(own.id);
        let (base, mask) = input.subscriptions.base_and_mask();
        let grid = input.world.grid();
        self.candidates.clear();
        let mut rest = mask;
        while rest != 0 {
            let bit = rest.trailing_zeros();
            rest &= rest - 1;
            let Some(number) = grid.number(cell_at(base, bit as usize)) else { continue };
            for id in grid.listed(number) {
                let may_know = |side: u8| *id == own.id || (side != 0 && side == team);
                let is_private = input
                    .world
                    .store()
                    .traits(*id)
                    .is_some_and(|traits| traits.has_rule() && may_know(traits.team));
                if is_private {
                    let at = input.world.entity(*id).map_or(own.position, |entity| entity.position);
                    let distance = at.ground_distance_squared(own.position);
                    self.keep(Candidate { distance, id: *id, bit, number });
                }
            }
        }
        if self.candidates.is_empty() {
            return 0;
        }
        self.sort_candidates(PRIVATE_MAX);
        let room = left.min(PAYLOAD_BYTES_MAX);
        let start = self.bytes.len();
        let Self { bytes, candidates, .. } = self;
        let (cell_m, slot_bits) = (input.encodings.cell_metres(), input.encodings.slot_bits());
        let mut told = 0;
        let mut bits = 1;
        let mut out = BitWriter::new(bytes);
        for candidate in candidates.iter() {
            let Some(traits) = input.world.store().traits(candidate.id) else { continue };
            let Some(body) = input.world.store().bodies.get(candidate.id.index()) else { continue };
            let entity = state_of(candidate.id, body, traits);
            let cell = grid.id_of(candidate.number);
            let content = Content::of(&entity, cell, cell_m, input.header.tick);
            let packed = [
                id_bits(candidate.id, slot_bits),
                content.trait_bits(),
                content.path_bits(cell_m),
                slip_bits(0),
            ];
            let more = packed.iter().map(|packed| packed.count as usize).sum::<usize>();
            bits += more + 1 + WINDOW_BITS as usize;
            if bits.div_ceil(8) > room {
                break;
            }
            out.push(1 | u64::from(candidate.bit) << 1, 1 + WINDOW_BITS);
            packed.iter().for_each(|packed| out.push_wide(packed.bits, packed.count));
            told += 1;
        }
        out.push(0, 1);
        out.finish();
        self.entities += told;
        self.left_out += self.candidates.len() - told;
        self.close(SECTION_PRIVATE, start)
    }

    /// Who is nearest to the player, teammates before others.
    fn put_near(&mut self, input: &PlanInput<'_>, left: usize) -> usize {
        let own = input.header.own;
        let team = input.world.team(own.id);
        let grid = input.world.grid();
        self.candidates.clear();
        for index in 0..self.places.len() {
            let Some(Place { bit, cell, number }) = self.places.get(index).copied() else {
                continue;
            };
            if grid.distance_squared(cell, own.position) > NEAR_METRES * NEAR_METRES {
                continue;
            }
            for id in grid.listed(number) {
                let Some(body) = input.world.store().bodies.get(id.index()) else { continue };
                let mut distance = body.position.ground_distance_squared(own.position);
                if distance > NEAR_METRES * NEAR_METRES {
                    continue;
                }
                if team != 0 && input.world.team(*id) == team {
                    distance /= TEAM_NEARNESS;
                }
                self.keep(Candidate { distance, id: *id, bit, number });
            }
        }
        self.sort_candidates(NEAR_MAX);
        let mut spent = 0;
        let mut next = 0;
        while next < self.candidates.len() {
            let room = (left - spent).min(PAYLOAD_BYTES_MAX + SECTION_HEAD_BYTES);
            let room = room.saturating_sub(SECTION_HEAD_BYTES);
            if room < WHOLE_BITS_MAX.div_ceil(8) + 1 || !self.has_room() {
                break;
            }
            let start = self.bytes.len();
            let before = next;
            let mut out = BitWriter::new(&mut self.bytes);
            let mut bits = 1;
            while let Some(candidate) = self.candidates.get(next) {
                let whole = input.encodings.whole_bits(candidate.id, candidate.number);
                bits += whole + 1 + WINDOW_BITS as usize;
                if bits.div_ceil(8) > room {
                    break;
                }
                next += 1;
                if whole > 0 {
                    out.push(1 | u64::from(candidate.bit) << 1, 1 + WINDOW_BITS);
                    input.encodings.push_whole(&mut out, candidate.id, candidate.number);
                }
            }
            out.push(0, 1);
            out.finish();
            self.entities += next - before;
            spent += self.close(SECTION_NEAR, start);
            if next == before {
                break;
            }
        }
        spent
    }

    /// Goes on with the round through all crowds, as far as the bytes reach.
    fn sweep(&mut self, input: &mut PlanInput<'_>, left: usize) {
        let (cell, from) = input.baselines.sweep;
        // Where it is not this cell's turn, the round goes on at the next one.
        let first = self.places.iter().position(|place| place.cell >= cell).unwrap_or(0);
        let goes_on = self.places.get(first).is_some_and(|place| place.cell == cell);
        let from = if goes_on { from } else { 0 };
        let mut spent = 0;
        for step in 0..=self.places.len() {
            let place = self.places.get((first + step) % self.places.len()).copied();
            let Some(place) = place else { return };
            let listed = input.world.grid().listed(place.number);
            let mut next = if step == 0 { from } else { 0 };
            // The place where the round began is gone through to where that was.
            let end = if step == self.places.len() { from } else { u32::MAX };
            loop {
                if next >= end && end != u32::MAX {
                    return;
                }
                let room = (left - spent).min(PAYLOAD_BYTES_MAX + SECTION_HEAD_BYTES);
                let room = room.saturating_sub(SECTION_HEAD_BYTES);
                if room < SPAN_HEAD_BYTES + WHOLE_BITS_MAX.div_ceil(8) + 1 || !self.has_room() {
                    input.baselines.sweep = (place.cell, next);
                    self.left_out += 1;
                    return;
                }
                let (bytes, last) = self.put_span(input.encodings, place, listed, next, room);
                spent += bytes;
                match last.checked_add(1) {
                    Some(after) => next = after,
                    None => break,
                }
            }
            if step == self.places.len() {
                return;
            }
        }
    }

    /// One section with the entities of a cell from id `first` on; returns its bytes and the last
    /// id of its span.
    fn put_span(
        &mut self,
        encodings: &CellEncodings,
        place: Place,
        listed: &[EntityId],
        first: u32,
        room: usize,
    ) -> (usize, u32) {
        let start = self.bytes.len();
        self.bytes.push(place.bit as u8);
        self.bytes.extend_from_slice(&first.to_le_bytes());
        let last_at = self.bytes.len();
        self.bytes.extend_from_slice(&[0xff; 4]);
        let mut last = u32::MAX;
        let mut out = BitWriter::new(&mut self.bytes);
        let mut bits = SPAN_HEAD_BYTES * 8 + 1;
        let from = listed.partition_point(|id| id.to_bits() < first);
        for id in listed.iter().skip(from) {
            let whole = encodings.whole_bits(*id, place.number);
            if whole == 0 {
                continue;
            }
            bits += whole + 1;
            if bits.div_ceil(8) > room {
                last = id.to_bits() - 1;
                break;
            }
            out.push(1, 1);
            encodings.push_whole(&mut out, *id, place.number);
            self.entities += 1;
        }
        out.push(0, 1);
        out.finish();
        if let Some(place) = self.bytes.get_mut(last_at..last_at + 4) {
            place.copy_from_slice(&last.to_le_bytes());
        }
        (self.close(SECTION_SPAN, start), last)
    }

    fn has_room(&self) -> bool {
        self.bytes.len() + RECORD_BYTES_MAX + SECTION_HEAD_BYTES <= self.bytes_max
            && self.sections.len() < self.sections.capacity()
    }

    fn keep(&mut self, candidate: Candidate) {
        if self.candidates.len() == self.candidates.capacity() {
            self.sort_candidates(NEAR_MAX);
        }
        self.candidates.push(candidate);
    }

    /// Nearest first, and no more than `most`.
    fn sort_candidates(&mut self, most: usize) {
        self.candidates
            .sort_unstable_by(|a, b| a.distance.total_cmp(&b.distance).then(a.id.cmp(&b.id)));
        self.left_out += self.candidates.len().saturating_sub(most);
        self.candidates.truncate(most);
    }

    /// Puts kind and length before the payload that begins at `start`; returns the whole length.
    fn close(&mut self, kind: u8, start: usize) -> usize {
        let payload = self.bytes.len() - start;
        self.bytes.push(kind);
        push_varint(&mut self.bytes, payload as u64);
        let len = self.bytes.len() - start;
        if let Some(section) = self.bytes.get_mut(start..) {
            section.rotate_right(len - payload);
        }
        self.sections.push(Section { start: start as u32, len: len as u32 });
        len
    }
}
