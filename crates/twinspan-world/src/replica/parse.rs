//! Reads a whole state message without changing anything.

use core::ops::Range;

use twinspan_core::bytes::Reader;

use super::coverage::Scope;
use super::view::{Member, Views};
use super::{ReplicaError, window_contains};
use crate::bits::BitReader;
use crate::content::{Content, read_id};
use crate::crowd::{SECTION_FAR, SECTION_NEAR, SECTION_PRIVATE, SECTION_SPAN, WINDOW_BITS};
use crate::encode::{COUNT_BITS, FORM_BITS, FORM_DELTA, FORM_ESTABLISH, FORM_FULL};
use crate::far;
use crate::grid::CellId;
use crate::header::{Context, StateHeader, Status, Statuses};
use crate::id::EntityId;
use crate::interest::{WINDOW_CELLS, cell_at};
use crate::state::StateError;

/// The most members of a keyframe that is worth keeping.
const MEMBERS_LIMIT: usize = 256;

/// An entity as a message tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) id: EntityId,
    pub(super) content: Content,
}

/// A keyframe to keep.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) tick: u32,
    pub(super) members: Range<usize>,
    /// Whether it was told whole: it then replaces what is kept of it.
    pub(super) is_whole: bool,
}

/// One thing that a message says; ranges are of [`Scratch::entities`] and [`Scratch::members`].
#[derive(Clone, Debug)]
pub(super) enum Word {
    /// Everybody in a cell, and a keyframe to keep.
    Cell { cell: CellId, present: Range<usize>, baseline: Option<Key> },
    /// Everybody in a span.
    Span { scope: Scope, present: Range<usize> },
    /// One entity.
    Near { cell: CellId, at: usize },
    /// One entity that not all may see.
    Private { cell: CellId, at: usize },
}

/// What a message says; its memory is used again.
#[derive(Clone, Debug, Default)]
pub(super) struct Scratch {
    pub(super) words: Vec<Word>,
    pub(super) entities: Vec<Told>,
    pub(super) members: Vec<Member>,
    /// Records whose keyframe is not there.
    pub(super) unreadable: u64,
    pub(super) has_private: bool,
    /// What is said of far regions, if anything is.
    pub(super) far: Option<Range<usize>>,
    pub(super) regions: Vec<far::Told>,
    ids: Vec<EntityId>,
}

/// What the numbers of a message are relative to.
#[derive(Clone, Copy)]
struct Scale {
    tick: u32,
    cell_m: u8,
    slot_bits: u32,
}

impl Scratch {
    /// Reads what follows a header.
    pub(super) fn parse(
        &mut self,
        header: &StateHeader,
        context: &Context,
        statuses: Statuses,
        bytes: &[u8],
        views: &Views,
    ) -> Result<(), ReplicaError> {
        self.words.clear();
        self.entities.clear();
        self.members.clear();
        self.unreadable = 0;
        self.has_private = false;
        self.far = None;
        self.regions.clear();
        let scale = Scale {
            tick: header.tick,
            cell_m: header.cell_m,
            slot_bits: u32::from(context.slot_bits),
        };
        let mut reader = Reader::new(bytes);
        let mut rest = header.mask;
        while rest != 0 {
            let bit = rest.trailing_zeros();
            rest &= rest - 1;
            let cell = cell_at(header.base, bit as usize);
            match statuses.get(bit) {
                Status::Absent => {}
                Status::Empty => self.say_cell(cell, self.entities.len(), None)?,
                Status::Same => self.same(cell, header.tick, views)?,
                Status::Record => self.record(cell, &mut reader, scale, views)?,
            }
        }
        while !reader.is_empty() {
            self.section(header, &mut reader, scale)?;
        }
        Ok(())
    }

    /// Notes a cell whose entities begin at `from`.
    fn say_cell(
        &mut self,
        cell: CellId,
        from: usize,
        baseline: Option<Key>,
    ) -> Result<(), ReplicaError> {
        let present = from..self.entities.len();
        self.check_twice(present.clone())?;
        self.words.push(Word::Cell { cell, present, baseline });
        Ok(())
    }

    fn check_twice(&mut self, present: Range<usize>) -> Result<(), ReplicaError> {
        let Self { ids, entities, .. } = self;
        ids.clear();
        ids.extend(entities.get(present).unwrap_or_default().iter().map(|told| told.id));
        ids.sort_unstable();
        for pair in ids.windows(2) {
            if let [a, b] = pair
                && a == b
            {
                return Err(ReplicaError::Order { id: *a });
            }
        }
        Ok(())
    }

    fn same(&mut self, cell: CellId, tick: u32, views: &Views) -> Result<(), ReplicaError> {
        let Some(members) = views.newest_keyframe(cell, tick) else {
            self.unreadable += 1;
            return Ok(());
        };
        let from = self.entities.len();
        let present = members.iter().flatten();
        self.entities.extend(present.map(|(id, content)| Told { id: *id, content: *content }));
        self.say_cell(cell, from, None)
    }

    fn record(
        &mut self,
        cell: CellId,
        reader: &mut Reader<'_>,
        scale: Scale,
        views: &Views,
    ) -> Result<(), ReplicaError> {
        let short = StateError::from;
        let head = reader.varint().map_err(short)?;
        let form = (head & ((1 << FORM_BITS) - 1)) as u8;
        let age = reader.varint().map_err(short)?;
        let key = tick_before(scale.tick, age)?;
        let gap = if form == FORM_ESTABLISH { reader.varint().map_err(short)? } else { 0 };
        let older = tick_before(key, gap)?;
        let len = usize::try_from(head >> FORM_BITS).unwrap_or(usize::MAX);
        let bytes = reader.take(len).map_err(short)?;
        let mut bits = BitReader::new(bytes);
        let (from, members_from) = (self.entities.len(), self.members.len());
        match form {
            FORM_DELTA | FORM_ESTABLISH => {
                let Some(members) = views.keyframe(cell, older) else {
                    self.unreadable += 1;
                    return Ok(());
                };
                if !self.changes(members, form, &mut bits, scale)? {
                    self.entities.truncate(from);
                    self.members.truncate(members_from);
                    self.unreadable += 1;
                    return Ok(());
                }
            }
            FORM_FULL => self.full(&mut bits, scale)?,
            number => return Err(StateError::Form { number }.into()),
        }
        self.newcomers(form, &mut bits, scale)?;
        if bits.left() >= 8 {
            return Err(StateError::Count { count: self.entities.len() - from }.into());
        }
        let members = members_from..self.members.len();
        if members.len() > MEMBERS_LIMIT {
            return Err(StateError::Count { count: members.len() }.into());
        }
        let is_whole = form == FORM_FULL;
        let baseline = (form != FORM_DELTA).then_some(Key { tick: key, members, is_whole });
        self.say_cell(cell, from, baseline)
    }

    /// What became of the members of a keyframe. False when it builds on somebody of whom nothing is
    /// known: a late record, older than the keyframe that it came after.
    fn changes(
        &mut self,
        members: &[Member],
        form: u8,
        bits: &mut BitReader<'_>,
        scale: Scale,
    ) -> Result<bool, StateError> {
        let establishes = form == FORM_ESTABLISH;
        let Scale { tick, cell_m, .. } = scale;
        for member in members {
            // Changes in groups: 0 none, 10 path, 110 slip, 1110 everything, 1111 gone.
            let mut marks = 0;
            while marks < 4 && bits.flag()? {
                marks += 1;
            }
            if marks == 4 {
                if establishes && bits.flag()? {
                    self.members.push(None);
                }
                continue;
            }
            let Some((id, known)) = *member else { return Ok(false) };
            let content = match marks {
                0 => known,
                1 => known.with_path(bits, cell_m, tick)?,
                2 => known.with_slip(bits)?,
                _ => Content::read(bits, cell_m, tick)?,
            };
            self.entities.push(Told { id, content });
            if establishes {
                self.members.push(Some((id, content)));
            }
        }
        Ok(true)
    }

    /// A keyframe whole.
    fn full(&mut self, bits: &mut BitReader<'_>, scale: Scale) -> Result<(), StateError> {
        for _ in 0..bits.read(COUNT_BITS)? {
            let is_here = bits.flag()?;
            let id = read_id(bits, scale.slot_bits)?;
            if is_here {
                let content = Content::read(bits, scale.cell_m, scale.tick)?;
                self.entities.push(Told { id, content });
                self.members.push(Some((id, content)));
            } else {
                self.members.push(None);
            }
        }
        Ok(())
    }

    /// Who came since the keyframe; or, with one that is being established, who is new in it.
    fn newcomers(
        &mut self,
        form: u8,
        bits: &mut BitReader<'_>,
        scale: Scale,
    ) -> Result<(), StateError> {
        while bits.flag()? {
            let is_member = form == FORM_ESTABLISH && bits.flag()?;
            let is_here = !is_member || bits.flag()?;
            let id = read_id(bits, scale.slot_bits)?;
            let mut member = None;
            if is_here {
                let content = Content::read(bits, scale.cell_m, scale.tick)?;
                self.entities.push(Told { id, content });
                member = Some((id, content));
            }
            if is_member {
                self.members.push(member);
            }
        }
        Ok(())
    }

    fn section(
        &mut self,
        header: &StateHeader,
        reader: &mut Reader<'_>,
        scale: Scale,
    ) -> Result<(), ReplicaError> {
        let short = StateError::from;
        let kind = reader.u8().map_err(short)?;
        let len = usize::try_from(reader.varint().map_err(short)?).unwrap_or(usize::MAX);
        let bytes = reader.take(len).map_err(short)?;
        match kind {
            SECTION_NEAR | SECTION_PRIVATE => self.singles(kind, header, bytes, scale),
            SECTION_SPAN => self.span(header, bytes, scale),
            SECTION_FAR => self.far(header, bytes),
            number => Err(StateError::Section { number }.into()),
        }
    }

    fn far(&mut self, header: &StateHeader, bytes: &[u8]) -> Result<(), ReplicaError> {
        // One is enough; of several the last counts, and all are bounded by the message.
        let from = self.regions.len();
        far::read(bytes, header.own_cell(), &mut self.regions)?;
        self.far = Some(from..self.regions.len());
        Ok(())
    }

    fn singles(
        &mut self,
        kind: u8,
        header: &StateHeader,
        bytes: &[u8],
        scale: Scale,
    ) -> Result<(), ReplicaError> {
        let from = self.entities.len();
        let mut bits = BitReader::new(bytes);
        while bits.flag().map_err(StateError::from)? {
            let bit = bits.read(WINDOW_BITS).map_err(StateError::from)? as usize;
            let cell = seen_cell(header, bit)?;
            let id = read_id(&mut bits, scale.slot_bits)?;
            let content = Content::read(&mut bits, scale.cell_m, scale.tick)?;
            let at = self.entities.len();
            self.entities.push(Told { id, content });
            self.words.push(if kind == SECTION_NEAR {
                Word::Near { cell, at }
            } else {
                Word::Private { cell, at }
            });
        }
        self.has_private |= kind == SECTION_PRIVATE;
        self.check_twice(from..self.entities.len())
    }

    fn span(
        &mut self,
        header: &StateHeader,
        bytes: &[u8],
        scale: Scale,
    ) -> Result<(), ReplicaError> {
        let mut reader = Reader::new(bytes);
        let short = StateError::from;
        let cell = seen_cell(header, usize::from(reader.u8().map_err(short)?))?;
        let first = reader.u32().map_err(short)?;
        let last = reader.u32().map_err(short)?;
        if first > last {
            return Err(StateError::Span.into());
        }
        let from = self.entities.len();
        // After the largest id of all nothing may follow.
        let mut next = Some(first);
        let mut bits = BitReader::new(reader.rest());
        while bits.flag().map_err(short)? {
            let id = read_id(&mut bits, scale.slot_bits)?;
            if id.to_bits() > last || next.is_none_or(|next| id.to_bits() < next) {
                return Err(ReplicaError::Order { id });
            }
            next = id.to_bits().checked_add(1);
            let content = Content::read(&mut bits, scale.cell_m, scale.tick)?;
            self.entities.push(Told { id, content });
        }
        let present = from..self.entities.len();
        self.words.push(Word::Span { scope: Scope { cell, first, last }, present });
        Ok(())
    }
}

/// The cell of the window at `bit`, if the client sees it.
fn seen_cell(header: &StateHeader, bit: usize) -> Result<CellId, ReplicaError> {
    let cell = cell_at(header.base, bit.min(WINDOW_CELLS));
    let is_seen = bit < WINDOW_CELLS && window_contains(header.base, header.mask, cell);
    if is_seen { Ok(cell) } else { Err(ReplicaError::Unsubscribed { x: cell.x, z: cell.z }) }
}

fn tick_before(tick: u32, age: u64) -> Result<u32, StateError> {
    let age = u32::try_from(age).map_err(|_| StateError::Age)?;
    tick.checked_sub(age).ok_or(StateError::Age)
}
