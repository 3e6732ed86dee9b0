//! The state message: what each client is told twenty times a second, in self-contained parts.

use twinspan_core::bytes::{NoRoom, ReadError, Writer};

use crate::baselines::{Baselines, STATE_PARTS_MAX};
use crate::crowd::{Crowd, Section};
use crate::encode::{CellEncodings, CellState, RECORD_BYTES_MAX, Span, Variant};
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
    /// A record or section holds too many entities.
    #[error("record of {count} entities is too long")]
    Count {
        /// How many.
        count: usize,
    },
}

/// Something that a part holds: a cell's status, record included, or a section.
#[derive(Clone, Copy, Debug)]
enum Item {
    Status { bit: u32, status: Status },
    Record { bit: u32, index: u32, span: Span, keyframe: u32 },
    Section { start: u32, len: u32 },
}

/// One cell that was chosen to be told.
#[derive(Clone, Copy, Debug)]
struct Choice {
    bit: u32,
    index: u32,
    bytes: u32,
    priority: u32,
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
    room: usize,
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
    /// A plan for packets with `room` bytes each, at least [`STATE_ROOM_MIN`].
    pub fn new(room: usize) -> Self {
        let room = room.max(STATE_ROOM_MIN);
        Self {
            room,
            items: Vec::with_capacity(2 * WINDOW_CELLS + STATE_PARTS_MAX * 8),
            parts: Vec::with_capacity(STATE_PARTS_MAX),
            bytes: Vec::with_capacity(STATE_PARTS_MAX * room),
            crowd: Crowd::new(SECTION_BYTES_MAX),
            tag_base: 0,
            entities: 0,
            left_out: 0,
            shares: StateBytes::default(),
        }
    }

    /// Makes the state that `input` calls for.
    pub fn plan(&mut self, mut input: PlanInput<'_>) {
        self.items.clear();
        self.parts.clear();
        self.bytes.clear();
        self.crowd.clear();
        (self.entities, self.left_out) = (0, 0);
        let (base, mask) = input.subscriptions.base_and_mask();
        input.baselines.begin(base, mask);
        self.tag_base = input.baselines.tag(0);
        input.header.digest = None;
        let mut digest = Digest { cells: 0, sum: 0 };
        let budget = input.budget;
        // Each further packet has a header.
        let further = budget / (self.room - STATE_HEADER_BYTES_MAX);
        if budget < usize::MAX / 2 {
            input.budget = budget.saturating_sub(further * STATE_HEADER_BYTES_MAX);
        }
        let used = self.choose(&mut input, &mut digest);
        self.crowd.fill(&mut input, used);
        self.entities += self.crowd.entities();
        self.left_out += self.crowd.left_out();
        let sections = self.crowd.sections().iter();
        let room = self.items.capacity() - self.items.len();
        self.items.extend(
            sections
                .take(room)
                .map(|Section { start, len }| Item::Section { start: *start, len: *len }),
        );
        input.header.digest = Some(digest).filter(|digest| digest.cells != 0);
        input.budget = budget;
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
        let mut used = STATE_HEADER_BYTES_MAX;
        let mut spent = false;
        let mut rest = mask;
        let mut index = 0;
        while rest != 0 {
            let bit = rest.trailing_zeros();
            rest &= rest - 1;
            let cell = cell_at(base, bit as usize);
            let at = index;
            index += 1;
            let told = input.baselines.entry_mut(at).map_or(0, |entry| entry.told);
            let is_new = told == 0;
            let rate = rates.of_bit(bit);
            // Cells of a ring take turns, so that a client's states are of even length.
            let turn = count.wrapping_add(cell.x as u32).wrapping_add(cell.z as u32);
            if rate > 1 && !is_new && !turn.is_multiple_of(rate) {
                continue;
            }
            let number = grid.number(cell);
            let state =
                number.map_or(CellState::Empty, |number| input.encodings.cell_state(number, grid));
            let number = number.unwrap_or_default();
            let mut is_record = false;
            match state {
                CellState::Empty => {
                    self.items.push(Item::Status { bit, status: Status::Empty });
                }
                CellState::Crowd => {
                    self.crowd.note(bit, cell, number);
                    continue;
                }
                CellState::Keyed { changed, newer, older } => {
                    let Some(entry) = input.baselines.entry_mut(at) else { continue };
                    let held = entry.held;
                    let holds = held != 0 && (held == newer || held == older);
                    if holds && changed <= held {
                        self.items.push(Item::Status { bit, status: Status::Same });
                    } else {
                        let (variant, keyframe) = if held == newer {
                            (Variant::Delta, 0)
                        } else if !entry.is_due(newer, count) {
                            (if holds { Variant::OldDelta } else { Variant::Delta }, 0)
                        } else {
                            (if holds { Variant::Establish } else { Variant::Full }, newer)
                        };
                        let Some(span) = input.encodings.record(number, variant, grid) else {
                            self.crowd.note(bit, cell, number);
                            continue;
                        };
                        let bytes = usize::from(span.len);
                        if STATE_HEADER_BYTES_MAX + bytes > input.budget {
                            // It would never fit: its entities go one by one.
                            self.crowd.note(bit, cell, number);
                            continue;
                        }
                        if used + bytes > input.budget {
                            spent = true;
                        }
                        used += bytes;
                        self.items.push(Item::Record { bit, index: at as u32, span, keyframe });
                        is_record = true;
                    }
                    if wants_digest && holds {
                        digest.cells |= 1 << bit;
                        let sum = input.encodings.digest(number, grid);
                        digest.sum = digest.sum.wrapping_add(sum);
                    }
                    self.entities += input.encodings.shared(number);
                }
            }
            if !is_record && let Some(entry) = input.baselines.entry_mut(at) {
                entry.told = count;
            }
        }
        if spent {
            return self.cut_to_budget(input, digest);
        }
        for item in &self.items {
            if let Item::Record { index, .. } = *item
                && let Some(entry) = input.baselines.entry_mut(index as usize)
            {
                entry.told = count;
            }
        }
        used
    }

    /// Leaves out the records that matter least until the rest fits the budget.
    fn cut_to_budget(&mut self, input: &mut PlanInput<'_>, digest: &mut Digest) -> usize {
        const NONE: Choice = Choice { bit: 0, index: 0, bytes: 0, priority: 0 };
        let mut choices = [NONE; WINDOW_CELLS];
        let mut len = 0;
        for item in &self.items {
            let Item::Record { bit, index, span, .. } = *item else { continue };
            let Some(entry) = input.baselines.entry_mut(index as usize).copied() else { continue };
            let waited = if entry.told == 0 {
                u32::from(u16::MAX)
            } else {
                input.baselines.states_since(entry.told).min(u32::from(u16::MAX))
            };
            let weight = input.subscriptions.rates().weight_of_bit(bit);
            if let Some(place) = choices.get_mut(len) {
                let priority = waited.saturating_mul(weight);
                *place = Choice { bit, index, bytes: u32::from(span.len), priority };
                len += 1;
            }
        }
        let choices = choices.get_mut(..len).unwrap_or_default();
        choices.sort_unstable_by_key(|choice| (core::cmp::Reverse(choice.priority), choice.bit));
        let mut used = STATE_HEADER_BYTES_MAX;
        let mut cut = 0_u64;
        for choice in choices {
            if used + choice.bytes as usize > input.budget {
                cut |= 1 << choice.bit;
                self.left_out += 1;
                continue;
            }
            used += choice.bytes as usize;
            let count = input.baselines.count();
            if let Some(entry) = input.baselines.entry_mut(choice.index as usize) {
                entry.told = count;
            }
        }
        self.items.retain(|item| !matches!(item, Item::Record { bit, .. } if cut >> bit & 1 != 0));
        // A digest covers what is told.
        *digest = Digest { cells: 0, sum: 0 };
        used
    }

    /// Spreads the items over parts and writes them.
    fn pack(&mut self, input: &mut PlanInput<'_>) {
        let mut used = STATE_HEADER_BYTES_MAX;
        let mut before = 0;
        self.parts.push(Part { items: 0, bytes: 0, has_keyframe: false });
        for at in 0..self.items.len() {
            let Some(item) = self.items.get(at) else { break };
            let bytes = match item {
                Item::Status { .. } => 0,
                Item::Record { span, .. } => usize::from(span.len),
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
        self.shares = StateBytes::default();
        for index in 0..self.parts.len() {
            self.write(index, input);
        }
    }

    fn write(&mut self, index: usize, input: &mut PlanInput<'_>) {
        let Self { items, parts, bytes, room, shares, crowd, .. } = self;
        let end = parts.get(index + 1).map_or(items.len(), |next| next.items as usize);
        let count = parts.len() as u8;
        let Some(part) = parts.get_mut(index) else { return };
        let items = items.get(part.items as usize..end).unwrap_or_default();
        let start = bytes.len();
        part.bytes = start as u32;
        let mut statuses = Statuses::default();
        for item in items {
            match *item {
                Item::Status { bit, status } => statuses.set(bit, status),
                Item::Record { bit, .. } => statuses.set(bit, Status::Record),
                Item::Section { .. } => {}
            }
        }
        let digest = input.header.digest.filter(|_| count == 1);
        if digest.is_some() {
            input.baselines.digest_at = input.header.tick;
        }
        let header = StateHeader { part: index as u8, parts: count, digest, ..input.header };
        let has_context = input.baselines.has_context;
        let slot_bits = (!has_context).then_some(input.encodings.slot_bits());
        header.encode(slot_bits, statuses, bytes);
        shares.headers += (bytes.len() - start) as u64;
        let tag = input.baselines.tag(index);
        for item in items {
            let more: &[u8] = match *item {
                Item::Status { .. } => continue,
                Item::Record { index, span, keyframe, .. } => {
                    let record = input.encodings.bytes(span);
                    if bytes.len() - start + record.len() > *room {
                        continue;
                    }
                    if keyframe == 0 {
                        shares.deltas += record.len() as u64;
                    } else {
                        shares.keyframes += record.len() as u64;
                        part.has_keyframe = true;
                        if let Some(entry) = input.baselines.entry_mut(index as usize) {
                            entry.on_sent(keyframe, tag);
                        }
                    }
                    record
                }
                Item::Section { start, len } => {
                    shares.sections += u64::from(len);
                    crowd.bytes(start, len)
                }
            };
            if bytes.len() - start + more.len() <= *room {
                bytes.extend_from_slice(more);
            }
        }
        // Who has no context yet must acknowledge any packet.
        part.has_keyframe |= !has_context;
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

#[cfg(test)]
pub(crate) mod tests;
