//! When each client's state leaves: spread over the state period, so that no burst of sends delays
//! the datagrams that wait to be received.

use core::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_session::SessionKey;

use crate::wire::TICKS_PER_STATE;

/// Slots into which one tick is divided: 1 ms each at 60 Hz, rounded down.
pub(crate) const SLOTS_PER_TICK: usize = 16;
const SLOTS: usize = SLOTS_PER_TICK * TICKS_PER_STATE as usize;
// A slot's number fits a byte.
const _: () = assert!(SLOTS <= 256);

/// One state to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) session: SessionKey,
    /// The moment the send was scheduled for; latency counts from here.
    pub(crate) slot_at: Timestamp,
}

/// Which sessions send in which slot, and how far the present tick's sends have come.
#[derive(Debug)]
pub(crate) struct SendSchedule {
    slots: Vec<Vec<SessionKey>>,
    /// The slot of each session; index: [`SessionKey::index`]. Only for sessions that are in.
    homes: Vec<u8>,
    slot_length: Duration,
    /// When the tick began whose slots are being served.
    tick_at: Timestamp,
    /// First slot of the present tick.
    first: usize,
    /// Slots of the present tick that are done.
    done: usize,
    /// Sessions of the slot in progress that are done.
    position: usize,
}

impl SendSchedule {
    pub(crate) fn new(tick_length: Duration) -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            homes: Vec::new(),
            slot_length: tick_length / SLOTS_PER_TICK as u32,
            tick_at: Timestamp::START,
            first: 0,
            done: SLOTS_PER_TICK,
            position: 0,
        }
    }

    /// Gives the session the emptiest slot; among equals the first. One whose moment has passed comes
    /// in the next period.
    pub(crate) fn add(&mut self, now: Timestamp, session: SessionKey) {
        self.pass_served(now);
        let slots = self.slots.iter_mut().zip(0_u8..);
        let Some((slot, number)) = slots.min_by_key(|(slot, _)| slot.len()) else { return };
        slot.push(session);
        if session.index() >= self.homes.len() {
            self.homes.resize(session.index() + 1, 0);
        }
        if let Some(home) = self.homes.get_mut(session.index()) {
            *home = number;
        }
    }

    pub(crate) fn remove(&mut self, session: SessionKey) {
        let Some(index) = self.homes.get(session.index()).map(|home| usize::from(*home)) else {
            return;
        };
        let Some(slot) = self.slots.get_mut(index) else { return };
        let Some(place) = slot.iter().position(|other| *other == session) else { return };
        slot.remove(place);
        if index == self.first + self.done && place < self.position {
            self.position -= 1;
        }
    }

    /// How many states `tick` would send if it were run.
    pub(crate) fn states_in(&self, tick: u32) -> u64 {
        let slots = self.slots.iter().skip(first_slot(tick));
        slots.take(SLOTS_PER_TICK).map(|slot| slot.len() as u64).sum()
    }

    /// Begins the sends of `tick`, which was scheduled for `tick_at`. What was left of the tick
    /// before is returned as a count: those states are lost to lateness.
    pub(crate) fn begin_tick(&mut self, tick: u32, tick_at: Timestamp) -> u64 {
        let missed = self.left_in_tick();
        self.tick_at = tick_at;
        self.first = first_slot(tick);
        self.done = 0;
        self.position = 0;
        missed
    }

    /// States of the present tick that have not been sent.
    pub(crate) fn left_in_tick(&self) -> u64 {
        let slots = self.slots.iter().skip(self.first + self.done);
        let left: usize = slots.take(SLOTS_PER_TICK - self.done).map(Vec::len).sum();
        (left - self.position.min(left)) as u64
    }

    fn slot_at(&self, slot: usize) -> Timestamp {
        self.tick_at.after(self.slot_length * slot as u32)
    }

    /// Leaves behind the slots whose moment has come and in which all are served.
    fn pass_served(&mut self, now: Timestamp) {
        while self.done < SLOTS_PER_TICK
            && now >= self.slot_at(self.done)
            && let Some(slot) = self.slots.get(self.first + self.done)
            && slot.len() <= self.position
        {
            self.done += 1;
            self.position = 0;
        }
    }

    /// The next state whose slot has come.
    pub(crate) fn next_due(&mut self, now: Timestamp) -> Option<Due> {
        self.pass_served(now);
        let slot_at = self.slot_at(self.done);
        if self.done == SLOTS_PER_TICK || now < slot_at {
            return None;
        }
        let session = *self.slots.get(self.first + self.done)?.get(self.position)?;
        self.position += 1;
        Some(Due { session, slot_at })
    }

    /// The session whose state comes `ahead` places after the next one in the present slot.
    pub(crate) fn upcoming(&self, ahead: usize) -> Option<SessionKey> {
        let slot = self.slots.get(self.first + self.done)?;
        slot.get(self.position + ahead).copied()
    }

    /// When the next slot with a session in it comes; `None` when this tick has no more.
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        (self.done..SLOTS_PER_TICK).find_map(|slot| {
            let sessions = self.slots.get(self.first + slot)?;
            let sent = if slot == self.done { self.position } else { 0 };
            (sessions.len() > sent).then(|| self.slot_at(slot))
        })
    }
}

/// The first slot of `tick`.
const fn first_slot(tick: u32) -> usize {
    (tick % TICKS_PER_STATE) as usize * SLOTS_PER_TICK
}

#[cfg(test)]
mod tests;
