//! The bits of a cell's record.

use super::{COUNT_BITS, Members, Stamp, Wire};
use crate::bits::{BitWriter, Packed};
use crate::content::{bare_slip_bits, id_bits, slip_bits};
use crate::id::EntityId;

/// Writes the bits of one record.
pub(super) struct Scribe<'a> {
    pub(super) stamps: &'a [Stamp],
    pub(super) wires: &'a [Wire],
    pub(super) slot_bits: u32,
    pub(super) serial: u32,
    pub(super) out: BitWriter<'a>,
}

impl Scribe<'_> {
    /// What became of `members` since `key`, and who came.
    pub(super) fn delta(&mut self, members: &Members, key: u32, listed: &[EntityId]) {
        for id in members.ids.iter().take(usize::from(members.len)) {
            match self.stamp(*id).filter(|stamp| stamp.entered <= key) {
                Some(stamp) if stamp.since <= key => self.out.push(0, 1),
                Some(_) => self.change(*id, key),
                None => self.out.push(0b1111, 4),
            }
        }
        for id in listed {
            if self.stamp(id.to_bits()).is_some_and(|stamp| stamp.entered > key) {
                self.out.push(1, 1);
                self.whole(id.to_bits());
            }
        }
        self.out.push(0, 1);
    }

    /// The same since the older key, with what the newer keyframe lists.
    pub(super) fn establish(
        &mut self,
        [old, new]: [&Members; 2],
        keys: [u32; 2],
        listed: &[EntityId],
    ) {
        let [old_key, new_key] = keys;
        let mut survivors = new.ids.iter().take(usize::from(new.survivors)).peekable();
        for id in old.ids.iter().take(usize::from(old.len)) {
            let is_in_new = survivors.next_if_eq(&id).is_some();
            match self.stamp(*id).filter(|stamp| stamp.entered <= old_key) {
                Some(stamp) if stamp.since <= old_key => self.out.push(0, 1),
                Some(_) => self.change(*id, old_key),
                None => self.out.push(0b1111 | u64::from(is_in_new) << 4, 5),
            }
        }
        let fresh = new.ids.iter().take(usize::from(new.len)).skip(usize::from(new.survivors));
        for id in fresh {
            let is_here = self.stamp(*id).is_some_and(|stamp| stamp.entered <= new_key);
            self.out.push(0b11 | u64::from(is_here) << 2, 3);
            if is_here {
                self.whole(*id);
            } else {
                self.id(*id);
            }
        }
        for id in listed {
            if self.stamp(id.to_bits()).is_some_and(|stamp| stamp.entered > new_key) {
                self.out.push(0b01, 2);
                self.whole(id.to_bits());
            }
        }
        self.out.push(0, 1);
    }

    /// `members` whole as they are now, and who came since.
    pub(super) fn full(&mut self, members: &Members, key: u32, listed: &[EntityId]) {
        self.out.push(u64::from(members.len), COUNT_BITS);
        for id in members.ids.iter().take(usize::from(members.len)) {
            let is_here = self.stamp(*id).is_some_and(|stamp| stamp.entered <= key);
            self.out.push(u64::from(is_here), 1);
            if is_here {
                self.whole(*id);
            } else {
                self.id(*id);
            }
        }
        for id in listed {
            if self.stamp(id.to_bits()).is_some_and(|stamp| stamp.entered > key) {
                self.out.push(1, 1);
                self.whole(id.to_bits());
            }
        }
        self.out.push(0, 1);
    }

    #[inline]
    fn stamp(&self, id: u32) -> Option<Stamp> {
        stamp_of(self.stamps, id, self.serial)
    }

    fn change(&mut self, id: u32, key: u32) {
        let Some(wire) = self.wires.get(slot_of(id)) else { return };
        if wire.traits_since > key {
            self.out.push(0b0111, 4);
            push_wire(&mut self.out, wire);
        } else if wire.path_since > key {
            self.out.push(0b01, 2);
            push_path(&mut self.out, wire);
        } else {
            self.out.push(0b011, 3);
            let (slip, bits) = bare_slip_bits(wire.slip);
            self.out.push(slip, bits);
        }
    }

    fn id(&mut self, id: u32) {
        if let Some(id) = EntityId::from_bits(id) {
            push_packed(&mut self.out, id_bits(id, self.slot_bits));
        }
    }

    fn whole(&mut self, id: u32) {
        self.id(id);
        if let Some(wire) = self.wires.get(slot_of(id)) {
            push_wire(&mut self.out, wire);
        }
    }
}

pub(super) fn push_packed(out: &mut BitWriter<'_>, packed: Packed) {
    out.push_wide(packed.bits, packed.count);
}

pub(super) fn push_wire(out: &mut BitWriter<'_>, wire: &Wire) {
    out.push(u64::from(wire.traits), u32::from(wire.trait_bits));
    push_path(out, wire);
}

#[inline]
fn push_path(out: &mut BitWriter<'_>, wire: &Wire) {
    let bits = u32::from(wire.path_bits);
    // A path and the mark of no slip fit one word but for what flies.
    if bits < 64 && wire.slip == 0 {
        return out.push(wire.path as u64, bits + 1);
    }
    out.push_wide(wire.path, bits);
    push_packed(out, slip_bits(wire.slip));
}

/// The stamp of an entity that all may see and that is in the cell.
#[inline]
pub(super) fn stamp_of(stamps: &[Stamp], id: u32, serial: u32) -> Option<Stamp> {
    stamps.get(slot_of(id)).filter(|stamp| stamp.id == id && stamp.serial == serial).copied()
}

fn slot_of(id: u32) -> usize {
    EntityId::from_bits(id).map_or(usize::MAX, EntityId::index)
}
