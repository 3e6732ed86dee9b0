//! A bare ring between two processes, for floors and benchmarks: nothing but slots whose word of
//! sequence stands in line with the payload, and a cursor that comes back now and then.
#![expect(unsafe_code, reason = "long payloads are copied as slices of shared memory")]

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{SocketFlags, accept_with};

use super::greet::{Form, Greeting, Identity, Kind};
use super::layout::{CURSORS_AT, SLOT_HEAD_WORDS};
use super::line::{self, Look};
use super::map::{Segment, View};
use super::meet::{self, Heard};

/// Where slots begin.
const SLOTS_AT: usize = 8_192;
/// Bytes that all slots together aim at.
const RING_BYTES: usize = 1 << 20;
/// Payloads of up to so many bytes go word by word, longer ones as slices.
const WORDS_MAX: usize = 512;
/// How long one end waits for the other.
const MEET_MAX: Duration = Duration::from_secs(10);

/// Which end of a bare ring a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The one that is there first.
    First,
    /// The other.
    Second,
}

/// One end of two rings, one for each direction.
pub struct BareRing {
    ours: Segment,
    theirs: View,
    slots: u64,
    slot_bytes: usize,
    bytes: usize,
    sent: u64,
    taken: u64,
    /// The first number that there is no room for, as far as is known.
    open_until: u64,
    /// Messages handed over and taken in the slot that is no part of the ring.
    handed: u64,
    grasped: u64,
}

impl BareRing {
    /// Meets the other end at a name that both know. All messages have `bytes`.
    ///
    /// # Errors
    /// What the operating system says, or `TimedOut` when nobody comes for ten seconds.
    pub fn meet(name: &str, end: End, bytes: usize) -> io::Result<Self> {
        let slot_bytes = (SLOT_HEAD_WORDS * 8 + bytes).next_multiple_of(64);
        let slots = (RING_BYTES / slot_bytes).clamp(4, 256).next_power_of_two();
        let total = (SLOTS_AT + (slots + 1) * slot_bytes).next_multiple_of(4_096);
        let ours = Segment::create("twinspan.bare", total)?;
        let identity =
            Identity { form: Form::Bytes, bytes: 0, align: 1, version: 0, name: "bare".into() };
        let mut greeting = Greeting::new(Kind::Welcome, [0; 16], identity);
        greeting.segment_bytes = total as u64;
        let deadline = Instant::now() + MEET_MAX;
        let mut listener = None;
        let socket = loop {
            let found = match (end, &listener) {
                (End::First, None) => {
                    listener = meet::take_place(name)?.map(|(_, listener)| listener);
                    None
                }
                (End::First, Some(listener)) => {
                    accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok()
                }
                (End::Second, _) => meet::visit(name, 0)?,
            };
            match found {
                Some(socket) => break socket,
                None if Instant::now() > deadline => return Err(io::ErrorKind::TimedOut.into()),
                None => thread::sleep(Duration::from_micros(200)),
            }
        };
        meet::send(socket.as_fd(), &greeting, &[ours.file(), ours.file()])?;
        let theirs = loop {
            match meet::receive(socket.as_fd()) {
                Some(Heard::Greeting(greeting, with)) if greeting.segment_bytes == total as u64 => {
                    let file = with.first().ok_or(io::ErrorKind::InvalidData)?;
                    break View::open(file.as_fd(), total as u64).map_err(io::Error::other)?;
                }
                Some(_) => return Err(io::ErrorKind::InvalidData.into()),
                None if Instant::now() > deadline => return Err(io::ErrorKind::TimedOut.into()),
                None => thread::sleep(Duration::from_micros(200)),
            }
        };
        let slots = slots as u64;
        let (sent, taken, handed, grasped) = (0, 0, 0, 0);
        let open_until = slots;
        Ok(Self {
            ours,
            theirs,
            slots,
            slot_bytes,
            bytes,
            sent,
            taken,
            open_until,
            handed,
            grasped,
        })
    }

    /// The first word of the slot of message `number`, and how many there are.
    fn slot(&self, number: u64) -> (usize, usize) {
        self.slot_at((number & (self.slots - 1)) as usize)
    }

    /// The slot behind the ring.
    fn spare_slot(&self) -> (usize, usize) {
        self.slot_at(self.slots as usize)
    }

    fn slot_at(&self, index: usize) -> (usize, usize) {
        ((SLOTS_AT + index * self.slot_bytes) / 8, self.slot_bytes / 8)
    }

    /// Hands a message over in one place that both ends keep in their caches, without a ring or a
    /// cursor: what the memory itself takes. For messages that are answered one at a time.
    #[inline]
    pub fn hand(&mut self, message: &[u8]) {
        self.put(self.spare_slot(), self.handed, message);
        self.handed += 1;
    }

    /// Takes what was handed over; false when nothing was.
    #[inline]
    pub fn try_grasp(&mut self, message: &mut [u8]) -> bool {
        let is_there = self.get(self.spare_slot(), self.grasped, message);
        self.grasped += u64::from(is_there);
        is_there
    }

    /// Sends a message of the length that was agreed on; false when there is no room.
    #[inline]
    pub fn try_send(&mut self, message: &[u8]) -> bool {
        if self.sent >= self.open_until {
            let cursor = self.theirs.words(CURSORS_AT + 1).get(CURSORS_AT);
            let taken = cursor.map_or(0, |cursor| cursor.load(Ordering::Acquire));
            self.open_until = taken + self.slots;
            if self.sent >= self.open_until {
                return false;
            }
        }
        self.put(self.slot(self.sent), self.sent, message);
        self.sent += 1;
        true
    }

    /// Writes message `number`; the other end has taken what was in this slot.
    #[inline]
    fn put(&self, (first, count): (usize, usize), number: u64, message: &[u8]) {
        let words = self.ours.words(first + count);
        let [state, _, payload @ ..] = words.get(first..).unwrap_or_default() else { return };
        if message.len() <= WORDS_MAX {
            line::store_bytes(payload, message);
        } else {
            let offset = (first + SLOT_HEAD_WORDS) * 8;
            // SAFETY: the other end has taken what was in this slot, say its cursor or its answer,
            // and reads it again only when the state below has been stored; this end has no other
            // reference.
            if let Some(to) = unsafe { self.ours.slice_mut(offset, message.len()) } {
                to.copy_from_slice(message);
            }
        }
        line::finish(state, number);
    }

    /// Takes a message; false when there is none.
    #[inline]
    pub fn try_take(&mut self, message: &mut [u8]) -> bool {
        if !self.get(self.slot(self.taken), self.taken, message) {
            return false;
        }
        self.taken += 1;
        if self.taken.is_multiple_of(self.slots / 4) {
            let cursor: Option<&AtomicU64> = self.ours.words(CURSORS_AT + 1).get(CURSORS_AT);
            if let Some(cursor) = cursor {
                cursor.store(self.taken, Ordering::Release);
            }
        }
        true
    }

    /// Reads message `number`; false when it is not there.
    #[inline]
    fn get(&self, (first, count): (usize, usize), number: u64, message: &mut [u8]) -> bool {
        let words = self.theirs.words(first + count);
        let [state, _, payload @ ..] = words.get(first..).unwrap_or_default() else { return false };
        if line::look(state, number) != line::Slot::Ready {
            return false;
        }
        let message = message.get_mut(..self.bytes).unwrap_or_default();
        if message.len() <= WORDS_MAX {
            line::load_bytes(payload, message);
        } else {
            let offset = (first + SLOT_HEAD_WORDS) * 8;
            // SAFETY: the state says that the message is complete, and the other end writes to this
            // slot again only when our cursor is above it, or our answer has come.
            if let Some(from) = unsafe { self.theirs.slice(offset, message.len()) } {
                message.copy_from_slice(from);
            }
        }
        true
    }
}

impl std::fmt::Debug for BareRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BareRing").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_carry_every_message() {
        for bytes in [8, 600, 100_000] {
            let name = format!("test/bare/{}/{bytes}", std::process::id());
            thread::scope(|scope| {
                let echo = || {
                    let mut ring = BareRing::meet(&name, End::Second, bytes).unwrap();
                    let mut message = vec![0; bytes];
                    for _ in 0..1_000 {
                        while !ring.try_take(&mut message) {}
                        while !ring.try_send(&message) {}
                        while !ring.try_grasp(&mut message) {}
                        ring.hand(&message);
                    }
                };
                scope.spawn(echo);
                let mut ring = BareRing::meet(&name, End::First, bytes).unwrap();
                let mut message = vec![0; bytes];
                for number in 0..1_000_u32 {
                    let sent = vec![number as u8; bytes];
                    while !ring.try_send(&sent) {}
                    while !ring.try_take(&mut message) {}
                    assert_eq!(message, sent);
                    message.fill(7);
                    ring.hand(&message);
                    message.fill(0);
                    while !ring.try_grasp(&mut message) {}
                    assert_eq!(message, vec![7; bytes]);
                }
            });
        }
    }
}
