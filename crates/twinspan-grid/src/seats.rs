//! Whose the circuits of a region are.
//!
//! Nothing in these packets proves who wrote them, and a circuit code is no secret to who sees
//! them. So a code opens a circuit, and whoever first says more than that on it holds the code. It
//! is taken from him by nobody while he is heard; when he is not, as after a change of his address,
//! who comes with the code from elsewhere takes his place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use twinspan_core::time::Timestamp;

use crate::config::SESSIONS_MAX;

/// Who holds a code and was heard within this time keeps it: two pings and some.
const HELD: Duration = Duration::from_secs(12);
/// Circuits of one code that may wait to be spoken on.
const CIRCUITS_PER_CODE_MAX: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Seat {
    code: u32,
    heard: Timestamp,
}

/// The circuits of one region, with the codes that opened them.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    seats: BTreeMap<SocketAddr, Seat>,
    /// Where those are who said more than their code.
    holders: BTreeMap<u32, SocketAddr>,
    /// Those who see what the region shows.
    ready: BTreeSet<u32>,
    /// Where who has a code was last, for as long as he is on the grid.
    lasts: BTreeMap<u32, SocketAddr>,
}

impl Seats {
    /// A code comes from an address without a circuit; true when it opens one.
    pub(crate) fn open(&mut self, now: Timestamp, addr: SocketAddr, code: u32) -> bool {
        let of_code = self.seats.values().filter(|seat| seat.code == code).count();
        if self.is_held(now, code) || of_code >= CIRCUITS_PER_CODE_MAX {
            return false;
        }
        self.seats.insert(addr, Seat { code, heard: now });
        true
    }

    /// Where who comes with a code was before: where the code was held last, else where somebody
    /// came with it first.
    pub(crate) fn former(&self, code: u32) -> Option<SocketAddr> {
        let first = || self.seats.iter().find(|(_, seat)| seat.code == code).map(|(at, _)| *at);
        self.lasts.get(&code).copied().or_else(first)
    }

    /// Who had a code has left the grid.
    pub(crate) fn forget(&mut self, code: u32) {
        self.lasts.remove(&code);
    }

    fn is_held(&self, now: Timestamp, code: u32) -> bool {
        let seat = self.holders.get(&code).and_then(|addr| self.seats.get(addr));
        seat.is_some_and(|seat| now < seat.heard.after(HELD))
    }

    /// Something came from an address.
    pub(crate) fn on_heard(&mut self, now: Timestamp, addr: SocketAddr) {
        if let Some(seat) = self.seats.get_mut(&addr) {
            seat.heard = now;
        }
    }

    /// The code of a circuit.
    pub(crate) fn code_of(&self, addr: SocketAddr) -> Option<u32> {
        self.seats.get(&addr).map(|seat| seat.code)
    }

    /// Somebody says more than his code. Returns the circuits that are of no more use, and were
    /// forgotten; `None` when another one holds the code.
    pub(crate) fn speak(&mut self, now: Timestamp, addr: SocketAddr) -> Option<Vec<SocketAddr>> {
        let code = self.code_of(addr)?;
        if self.holders.get(&code) == Some(&addr) {
            return Some(Vec::new());
        }
        if self.is_held(now, code) {
            return None;
        }
        let others = self.seats.iter().filter(|(at, seat)| seat.code == code && **at != addr);
        let others: Vec<SocketAddr> = others.map(|(at, _)| *at).collect();
        for other in &others {
            self.leave(*other);
        }
        self.holders.insert(code, addr);
        // Codes of who has left may still be spoken on for a moment.
        if self.lasts.len() >= SESSIONS_MAX {
            self.lasts.pop_first();
        }
        self.lasts.insert(code, addr);
        Some(others)
    }

    /// A circuit is no more: the code that it had.
    pub(crate) fn leave(&mut self, addr: SocketAddr) -> Option<u32> {
        let code = self.seats.remove(&addr)?.code;
        if self.holders.get(&code) == Some(&addr) {
            self.holders.remove(&code);
            // Who comes instead is shown everything.
            self.ready.remove(&code);
        }
        Some(code)
    }

    /// The circuits of a code; that of its holder alone when it has one.
    pub(crate) fn of(&self, code: u32) -> impl Iterator<Item = SocketAddr> {
        let holder = self.holders.get(&code).copied();
        let of_code = move |addr: &SocketAddr, seat: &Seat| {
            seat.code == code && holder.is_none_or(|holder| holder == *addr)
        };
        let found = self.seats.iter().filter(move |(addr, seat)| of_code(addr, seat));
        found.map(|(addr, _)| *addr)
    }

    /// Whether this circuit is that of the code's holder.
    pub(crate) fn is_holder(&self, addr: SocketAddr) -> bool {
        self.code_of(addr).is_some_and(|code| self.holders.get(&code) == Some(&addr))
    }

    /// Codes that somebody holds.
    pub(crate) fn held(&self) -> impl Iterator<Item = u32> {
        self.holders.keys().copied()
    }

    pub(crate) fn set_ready(&mut self, code: u32) {
        self.ready.insert(code);
    }

    pub(crate) fn unset_ready(&mut self, code: u32) {
        self.ready.remove(&code);
    }

    /// Who sees what the region shows, and where he hears it.
    pub(crate) fn audience(&self) -> impl Iterator<Item = (SocketAddr, u32)> {
        let ready = self.holders.iter().filter(|(code, _)| self.ready.contains(code));
        ready.map(|(code, addr)| (*addr, *code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: u32 = 7;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::START.after(Duration::from_secs(seconds))
    }

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn who_speaks_first_holds_the_code_and_others_are_forgotten() {
        let mut seats = Seats::default();
        assert!(seats.open(at(0), addr(1), CODE) && seats.open(at(0), addr(2), CODE));
        assert_eq!(seats.of(CODE).count(), 2);
        assert_eq!(seats.speak(at(0), addr(2)), Some(vec![addr(1)]));
        assert!(seats.is_holder(addr(2)));
        assert_eq!(seats.of(CODE).collect::<Vec<_>>(), [addr(2)]);
        assert_eq!(seats.speak(at(0), addr(1)), None, "his circuit is gone");
    }

    #[test]
    fn a_code_is_not_taken_from_who_is_heard() {
        let mut seats = Seats::default();
        assert!(seats.open(at(0), addr(1), CODE));
        assert_eq!(seats.speak(at(0), addr(1)), Some(Vec::new()));
        seats.on_heard(at(10), addr(1));
        assert!(!seats.open(at(21), addr(2), CODE));
        assert!(seats.open(at(22), addr(2), CODE), "silent for twelve seconds");
        seats.on_heard(at(23), addr(1));
        assert_eq!(seats.speak(at(24), addr(2)), None, "he is heard again");
        assert_eq!(seats.speak(at(35), addr(2)), Some(vec![addr(1)]));
        assert!(seats.is_holder(addr(2)));
    }

    #[test]
    fn a_code_opens_no_more_than_its_circuits() {
        let mut seats = Seats::default();
        let opened = (1..100).filter(|port| seats.open(at(0), addr(*port), CODE)).count();
        assert_eq!(opened, CIRCUITS_PER_CODE_MAX);
        assert!(seats.open(at(0), addr(200), CODE + 1));
    }

    #[test]
    fn who_left_sees_nothing_and_the_code_is_free() {
        let mut seats = Seats::default();
        assert!(seats.open(at(0), addr(1), CODE));
        assert!(seats.speak(at(0), addr(1)).is_some());
        seats.set_ready(CODE);
        assert_eq!(seats.audience().collect::<Vec<_>>(), [(addr(1), CODE)]);
        assert_eq!(seats.leave(addr(1)), Some(CODE));
        assert_eq!(seats.audience().count() + seats.held().count(), 0);
        assert!(seats.open(at(0), addr(2), CODE));
    }
}
