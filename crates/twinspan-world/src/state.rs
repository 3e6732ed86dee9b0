//! The state message: what each client is told twenty times a second, in self-contained parts.

use twinspan_core::bytes::{NoRoom, ReadError, Writer};

use crate::baselines::{Baselines, STATE_PARTS_MAX};
use crate::crowd::{Crowd, Section};
use crate::encode::{CellEncodings, CellState, RECORD_BYTES_MAX, Span, Variant};
use crate::far::{FAR_BYTES_MAX, FAR_OVERDUE_TICKS, FAR_TICKS};
use crate::header::{Digest, STATE_HEADER_BYTES_MAX, StateHeader, Status, Statuses};
use crate::interest::{Subscriptions, WINDOW_CELLS, cell_at};
use crate::world::World;

/// The smallest room for a part: a header and the longest record.
pub const STATE_ROOM_MIN: usize = STATE_HEADER_BYTES_MAX + RECORD_BYTES_MAX + SECTION_HEAD_BYTES;
/// Ticks between two digests for one client.
pub const DIGEST_TICKS: u32 = 60;

/// Kind and length of a section.
pub(crate) const SECTION_HEAD_BYTES: usize = 4;
/// Bytes of sections that one state can hold.
const SECTION_BYTES_MAX: usize = STATE_PARTS_MAX * RECORD_BYTES_MAX;

/// Why bytes are no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The bytes end too soon, or a number is too large.
    #[error("state cut short: {0}")]
    Short(#[from] ReadError),
    /// The first byte is another version's, or has a bit without meaning.
    #[error("state version byte {version:#x}: this end reads version 2")]
    Version {
        /// The first byte.
        version: u8,
    },
    /// The header leaves out what no header before it told.
    #[error("state without context: none came before it that had it")]
    NoContext,
    /// An id has generation 0.
    #[error("entity id {bits:#x} has no generation")]
    EntityId {
        /// The id.
        bits: u32,
    },
    /// Ids have more bits than there are.
    #[error("entity slots of {bits} bits are too wide")]
    SlotBits {
        /// What it says.
        bits: u8,
    },
    /// No kind has this number.
    #[error("entity kind {number} is unknown")]
    Kind {
        /// The number.
        number: u8,
    },
    /// A flag without meaning is set.
    #[error("entity flags {bits:#x} are unknown")]
    Flags {
        /// All flags.
        bits: u8,
    },
    /// A pitch is out of range.
    #[error("pitch is out of range")]
    Angle,
    /// The world has no extent.
    #[error("world side is zero")]
    WorldSide,
    /// The side of a cell is out of range.
    #[error("cell side of {metres} m is out of range")]
    CellSide {
        /// What it says.
        metres: u8,
    },
    /// The slot lies too far from the tick.
    #[error("send slot is out of range")]
    Slot,
    /// The pace is out of range.
    #[error("a state every {ticks_per_state} ticks is out of range")]
    Pace {
        /// What it says.
        ticks_per_state: u8,
    },
    /// The window lies outside every world.
    #[error("window of cells is out of range")]
    Window,
    /// The part's number is not below the number of parts.
    #[error("part {part} of {parts} parts")]
    Part {
        /// Which part.
        part: u8,
        /// Of how many.
        parts: u8,
    },
    /// A record's ids are no span.
    #[error("span of ids is malformed")]
    Span,
    /// A keyframe would be older than the world.
    #[error("keyframe's age is out of range")]
    Age,
    /// No form of records has this number.
    #[error("record form {number} is unknown")]
    Form {
        /// The number.
        number: u8,
    },
    /// No section has this number.
    #[error("section {number} is unknown")]
    Section {
        /// The number.
        number: u8,
    },
    /// What is said of far regions fits no square of them.
    #[error("far regions are malformed")]
    Far,
    /// A record or section holds too many entities.
    #[error("record of {count} entities is too long")]
    Count {
        /// How many.
        count: usize,
    },
}

/// Something that a part holds: a record or a section.
#[derive(Clone, Copy, Debug)]
enum Item {
    Record(Choice),
    Section { start: u32, len: u32 },
}

/// A record that was chosen to be told.
#[derive(Clone, Copy, Debug)]
struct Choice {
    span: Span,
    /// The tick of the keyframe that it brings; 0 is none.
    keyframe: u32,
    /// The state in which the cell was told before.
    told: u32,
    bit: u8,
    /// The cell's place among those that the client sees.
    index: u8,
}

/// Where a part's items begin, and where its bytes.
#[derive(Clone, Copy, Debug)]
struct Part {
    items: u32,
    bytes: u32,
    has_keyframe: bool,
}

/// How many of a state's bytes are what, for whoever measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateBytes {
    /// Headers of all parts.
    pub headers: u64,
    /// Records that say what changed.
    pub deltas: u64,
    /// Records that bring a keyframe.
    pub keyframes: u64,
    /// Entities one by one: crowds, private ones.
    pub sections: u64,
}

/// One client's state, made whole and cut into packets. Reused from client to client: it does not
/// allocate after [`StatePlan::new`].
///
/// Call [`StatePlan::plan`], then [`StatePlan::write_part`] for each of [`StatePlan::parts`].
#[derive(Clone, Debug)]
pub struct StatePlan {
    /// Bytes of a part; at most `room_max`.
    room: usize,
    room_max: usize,
    /// What the first part says about cells without records.
    statuses: Statuses,
    choices: Vec<Choice>,
    items: Vec<Item>,
    parts: Vec<Part>,
    /// The parts, one after another.
    bytes: Vec<u8>,
    crowd: Crowd,
    tag_base: u32,
    entities: usize,
    left_out: usize,
    shares: StateBytes,
}

/// What [`StatePlan::plan`] makes a state of.
#[derive(Debug)]
pub struct PlanInput<'a> {
    /// Tick, times and the client's own player.
    pub header: StateHeader,
    /// What the client sees; updated at this tick.
    pub subscriptions: &'a Subscriptions,
    /// What the client holds.
    pub baselines: &'a mut Baselines,
    /// The cells, updated at this tick.
    pub encodings: &'a mut CellEncodings,
    /// The world at this tick.
    pub world: &'a World,
    /// Bytes that the state may have, all parts with their headers together. What does not fit
    /// waits, and grows in importance as it does; the header itself always goes.
    pub budget: usize,
}

impl StatePlan {
    /// A plan for packets with at most `room` bytes each, at least [`STATE_ROOM_MIN`].
    pub fn new(room: usize) -> Self {
        let room = room.max(STATE_ROOM_MIN);
        Self {
            room,
            room_max: room,
            statuses: Statuses::default(),
            choices: Vec::with_capacity(WINDOW_CELLS),
            items: Vec::with_capacity(WINDOW_CELLS + STATE_PARTS_MAX * 8),
            parts: Vec::with_capacity(STATE_PARTS_MAX),
            bytes: Vec::with_capacity(STATE_PARTS_MAX * room),
            crowd: Crowd::new(SECTION_BYTES_MAX),
            tag_base: 0,
            entities: 0,
            left_out: 0,
            shares: StateBytes::default(),
        }
    }

    /// Sets how many bytes each packet of the next states has, [`STATE_ROOM_MIN`] to what the plan was
    /// made for: paths differ in how long packets they carry.
    pub fn set_room(&mut self, room: usize) {
        self.room = room.clamp(STATE_ROOM_MIN, self.room_max);
    }

    /// Makes the state that `input` calls for.
    pub fn plan(&mut self, mut input: PlanInput<'_>) {
        self.choices.clear();
        self.parts.clear();
        self.bytes.clear();
        self.crowd.clear();
        self.statuses = Statuses::default();
        self.shares = StateBytes::default();
        (self.entities, self.left_out) = (0, 0);
        let (base, mask) = input.subscriptions.base_and_mask();
        input.baselines.begin(base, mask);
        self.tag_base = input.baselines.tag(0);
        let mut digest = Digest { cells: 0, sum: 0 };
        let budget = input.budget;
        if budget < usize::MAX / 2 {
            // Each further packet has a header.
            let further = budget / (self.room - STATE_HEADER_BYTES_MAX);
            input.budget = budget.saturating_sub(further * STATE_HEADER_BYTES_MAX);
        }
        let far_wait = input.header.tick.wrapping_sub(input.baselines.far_at);
        let is_far_due = input.subscriptions.far_reach() > 0 && far_wait >= FAR_TICKS;
        let before_far = input.budget;
        if is_far_due && far_wait >= FAR_OVERDUE_TICKS {
            // The budget is small, and it waited for long.
            input.budget = input.budget.saturating_sub(FAR_BYTES_MAX + SECTION_HEAD_BYTES);
        }
        let mut used = self.choose(&mut input, &mut digest);
        input.budget = before_far;
        input.header.digest = Some(digest).filter(|digest| digest.cells != 0);
        if is_far_due {
            used += self.crowd.put_far(&mut input, before_far.saturating_sub(used));
        }
        let is_single = self.crowd.is_empty() && self.crowd.sections().is_empty();
        if used <= self.room && is_single && !input.world.has_rules() {
            return self.write_single(&mut input);
        }
        self.crowd.fill(&mut input, used);
        self.entities += self.crowd.entities();
        self.left_out += self.crowd.left_out();
        input.budget = budget;
        self.items.clear();
        self.items.extend(self.choices.iter().map(|choice| Item::Record(*choice)));
        let sections = self.crowd.sections().iter();
        let room = self.items.capacity() - self.items.len();
        self.items.extend(
            sections
                .take(room)
                .map(|Section { start, len }| Item::Section { start: *start, len: *len }),
        );
        self.pack(&mut input);
    }

    /// Chooses the cells that this state tells, and of each how. Returns the bytes that they take,
    /// a header included.
    fn choose(&mut self, input: &mut PlanInput<'_>, digest: &mut Digest) -> usize {
        let (base, mask) = input.subscriptions.base_and_mask();
        let tick = input.header.tick;
        let wants_digest = tick.wrapping_sub(input.baselines.digest_at) >= DIGEST_TICKS;
        let grid = input.world.grid();
        let rates = input.subscriptions.rates();
        let count = input.baselines.count();
        let (sweep, from) = input.baselines.sweep;
        let half_told = (from > 0).then_some(sweep);
        let mut used = STATE_HEADER_BYTES_MAX;
        let mut rest = mask;
        let mut next = 0;
        while rest != 0 {
            let bit = rest.trailing_zeros();
            rest &= rest - 1;
            let index = next;
            next += 1;
            let cell = cell_at(base, bit as usize);
            let Some(entry) = input.baselines.entry_mut(index) else { break };
            // Cells of a ring take turns, so that a client's states are of even length.
            let turn = count.wrapping_add(cell.x as u32).wrapping_add(cell.z as u32);
            // The round through crowds does not leave a cell half told until its next turn.
            let is_half_told = half_told == Some(cell);
            if entry.told != 0 && !rates.is_turn(bit, turn) && !is_half_told {
                continue;
            }
            let number = grid.number(cell);
            let state =
                number.map_or(CellState::Empty, |number| input.encodings.cell_state(number, grid));
            let number = number.unwrap_or_default();
            let CellState::Keyed { changed, newer, older } = state else {
                if state == CellState::Crowd {
                    self.crowd.note(bit, cell, number);
                } else {
                    self.statuses.set(bit, Status::Empty);
                    entry.told = count;
                }
                continue;
            };
            let held = entry.held();
            let holds = held != 0 && (held == newer || held == older);
            if holds && changed <= held {
                self.statuses.set(bit, Status::Same);
            } else {
                let (variant, keyframe) = if held == newer {
                    (Variant::Delta, 0)
                } else if !entry.is_due(newer, count) {
                    (if holds { Variant::OldDelta } else { Variant::Delta }, 0)
                } else {
                    (if holds { Variant::Establish } else { Variant::Full }, newer)
                };
                let record = input.encodings.record(number, variant, grid);
                // What would never fit goes entity by entity.
                let most = input.budget.saturating_sub(STATE_HEADER_BYTES_MAX);
                let Some(span) = record.filter(|span| usize::from(span.len) <= most) else {
                    self.crowd.note(bit, cell, number);
                    continue;
                };
                used += usize::from(span.len);
                let told = entry.told;
                let (bit, index) = (bit as u8, index as u8);
                self.choices.push(Choice { span, keyframe, told, bit, index });
            }
            entry.told = count;
            if wants_digest && holds {
                digest.cells |= 1 << bit;
                let sum = input.encodings.digest(number, grid);
                digest.sum = digest.sum.wrapping_add(sum);
            }
            self.entities += input.encodings.shared(number);
        }
        let share = self.share_of_records(input.budget);
        if used > share { self.cut_to_budget(input, digest, share) } else { used }
    }

    /// Bytes that records may have: crowds get theirs by the number of their cells.
    fn share_of_records(&self, budget: usize) -> usize {
        let (records, crowds) = (self.choices.len(), self.crowd.cells());
        if crowds == 0 || budget >= usize::MAX / 2 {
            return budget;
        }
        let left = budget.saturating_sub(STATE_HEADER_BYTES_MAX);
        STATE_HEADER_BYTES_MAX + left * records / (records + crowds)
    }

    /// Leaves out the records that matter least until the rest fits `share`; the one that matters
    /// most may be longer.
    fn cut_to_budget(
        &mut self,
        input: &mut PlanInput<'_>,
        digest: &mut Digest,
        share: usize,
    ) -> usize {
        let rates = input.subscriptions.rates();
        let baselines = &mut *input.baselines;
        let priority = |choice: &Choice| {
            let waited = match choice.told {
                0 => u32::from(u16::MAX),
                told => baselines.states_since(told).min(u32::from(u16::MAX)),
            };
            waited.saturating_mul(rates.weight_of_bit(u32::from(choice.bit)))
        };
        let key = |choice: &Choice| (core::cmp::Reverse(priority(choice)), choice.bit);
        self.choices.sort_unstable_by_key(key);
        let mut used = STATE_HEADER_BYTES_MAX;
        let mut left_out = 0;
        self.choices.retain(|choice| {
            let bytes = usize::from(choice.span.len);
            let most = if used == STATE_HEADER_BYTES_MAX { input.budget } else { share };
            let fits = used + bytes <= most;
            if fits {
                used += bytes;
            } else {
                left_out += 1;
                if let Some(entry) = baselines.entry_mut(usize::from(choice.index)) {
                    entry.told = choice.told;
                }
            }
            fits
        });
        self.left_out += left_out;
        // Records go by the order of the mask.
        self.choices.sort_unstable_by_key(|choice| choice.bit);
        // A digest covers what is told.
        *digest = Digest { cells: 0, sum: 0 };
        used
    }

    /// Writes a state of one part without sections, as nearly all are.
    fn write_single(&mut self, input: &mut PlanInput<'_>) {
        let Self { choices, parts, bytes, shares, statuses, .. } = self;
        for choice in &*choices {
            statuses.set(u32::from(choice.bit), Status::Record);
        }
        let tag = input.baselines.tag(0);
        let slot_bits = input.encodings.slot_bits();
        let mut has_keyframe =
            begin_part(&input.header, *statuses, input.baselines, slot_bits, bytes);
        shares.headers += bytes.len() as u64;
        for choice in &*choices {
            has_keyframe |= put_record(choice, tag, input, bytes, shares);
        }
        parts.push(Part { items: 0, bytes: 0, has_keyframe });
    }

    /// Spreads the items over parts and writes them.
    fn pack(&mut self, input: &mut PlanInput<'_>) {
        let mut used = STATE_HEADER_BYTES_MAX;
        let mut before = 0;
        self.parts.push(Part { items: 0, bytes: 0, has_keyframe: false });
        for at in 0..self.items.len() {
            let Some(item) = self.items.get(at) else { break };
            let bytes = match item {
                Item::Record(choice) => usize::from(choice.span.len),
                Item::Section { len, .. } => *len as usize,
            };
            if used + bytes > self.room {
                before += used;
                let is_over = before + STATE_HEADER_BYTES_MAX + bytes > input.budget;
                if is_over || self.parts.len() == STATE_PARTS_MAX {
                    self.left_out += self.items.len() - at;
                    self.items.truncate(at);
                    break;
                }
                self.parts.push(Part { items: at as u32, bytes: 0, has_keyframe: false });
                used = STATE_HEADER_BYTES_MAX;
            }
            used += bytes;
        }
        for index in 0..self.parts.len() {
            self.write(index, input);
        }
    }

    fn write(&mut self, index: usize, input: &mut PlanInput<'_>) {
        let Self { items, parts, bytes, shares, crowd, statuses, .. } = self;
        let end = parts.get(index + 1).map_or(items.len(), |next| next.items as usize);
        let count = parts.len() as u8;
        let Some(part) = parts.get_mut(index) else { return };
        let items = items.get(part.items as usize..end).unwrap_or_default();
        let start = bytes.len();
        part.bytes = start as u32;
        let mut statuses = if index == 0 { *statuses } else { Statuses::default() };
        for item in items {
            if let Item::Record(choice) = item {
                statuses.set(u32::from(choice.bit), Status::Record);
            }
        }
        let digest = input.header.digest.filter(|_| count == 1);
        let header = StateHeader { part: index as u8, parts: count, digest, ..input.header };
        let slot_bits = input.encodings.slot_bits();
        part.has_keyframe = begin_part(&header, statuses, input.baselines, slot_bits, bytes);
        shares.headers += (bytes.len() - start) as u64;
        let tag = input.baselines.tag(index);
        for item in items {
            match item {
                Item::Record(choice) => {
                    part.has_keyframe |= put_record(choice, tag, input, bytes, shares);
                }
                Item::Section { start, len } => {
                    shares.sections += u64::from(*len);
                    bytes.extend_from_slice(crowd.bytes(*start, *len));
                }
            }
        }
    }

    /// Packets that the state needs; 0 before the first plan.
    pub const fn parts(&self) -> usize {
        self.parts.len()
    }

    /// The tag of a part, for [`Baselines::on_acked`] once the client has it; 0 when it makes no
    /// difference whether it does.
    pub fn tag(&self, index: usize) -> u32 {
        let part = self.parts.get(index).filter(|part| part.has_keyframe);
        part.map_or(0, |_| self.tag_base + index as u32)
    }

    /// Entities in the cells that the state tells of.
    pub const fn entities(&self) -> usize {
        self.entities
    }

    /// Records and entities that no part or no budget had room for.
    pub const fn left_out(&self) -> usize {
        self.left_out
    }

    /// What the bytes of the state are.
    pub const fn shares(&self) -> StateBytes {
        self.shares
    }

    /// Bytes of all parts together.
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was planned yet.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes one part.
    ///
    /// # Errors
    /// [`NoRoom`] when `out` has less room than was planned for, or when there is no such part:
    /// `out` then holds no message.
    pub fn write_part(&self, index: usize, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        out.put(self.part(index).ok_or(NoRoom)?)
    }

    /// The bytes of one part.
    pub fn part(&self, index: usize) -> Option<&[u8]> {
        let start = self.parts.get(index)?.bytes as usize;
        let end = self.parts.get(index + 1).map_or(self.bytes.len(), |next| next.bytes as usize);
        self.bytes.get(start..end)
    }
}

/// Writes a part's header; true when its acknowledgement matters, because the client has no context
/// yet.
fn begin_part(
    header: &StateHeader,
    statuses: Statuses,
    baselines: &mut Baselines,
    slot_bits: u32,
    bytes: &mut Vec<u8>,
) -> bool {
    if header.digest.is_some() {
        baselines.digest_at = header.tick;
    }
    let has_context = baselines.has_context;
    let slot_bits = (!has_context).then_some(slot_bits);
    header.encode(slot_bits, statuses, bytes);
    !has_context
}

/// Copies a record; true when it brings a keyframe.
fn put_record(
    choice: &Choice,
    tag: u32,
    input: &mut PlanInput<'_>,
    bytes: &mut Vec<u8>,
    shares: &mut StateBytes,
) -> bool {
    bytes.extend_from_slice(input.encodings.bytes(choice.span));
    let len = u64::from(choice.span.len);
    if choice.keyframe == 0 {
        shares.deltas += len;
        return false;
    }
    shares.keyframes += len;
    if let Some(entry) = input.baselines.entry_mut(usize::from(choice.index)) {
        entry.on_sent(choice.keyframe, tag);
    }
    true
}

#[cfg(test)]
pub(crate) mod tests;
