//! What planned faults do to connections by segments: what they do to those in pieces.

use std::io;
use std::net::SocketAddr;

use twinspan_core::link::FaultKind;
use twinspan_core::time::Timestamp;

use super::{Conn, Wire};
use crate::chaos::Ending;
use crate::config::FullBacklog;
use crate::segment::header::{Flags, Header};
use crate::slab::Key;
use crate::streams::EndKey;
use crate::world::{HostId, State};

impl State {
    /// Who sent a segment, by what its draws are keyed by and its addresses as it knows them, whatever
    /// boxes on the way wrote on it.
    fn sender_of(&self, wire: &Wire) -> Option<(u64, (SocketAddr, SocketAddr))> {
        self.segments.conns.get(wire.origin).map(|conn| (conn.key, (conn.local, conn.peer)))
    }

    /// What befalls a wish to connect that somebody listens for; true when that was all of it.
    pub(super) fn strike_opening(&mut self, now: Timestamp, wire: &Wire, id: HostId) -> bool {
        let Some(wants) = self.sender_of(wire) else { return false };
        // Of the whole connection, not of one try.
        if self.strike_connect(FaultKind::ConnectHang, wants) {
            return true;
        }
        if self.strike_connect(FaultKind::ConnectRefuse, wants) {
            self.refuse_segment(now, wire, id);
            return true;
        }
        let full = FaultKind::BacklogFull;
        if self.strike_way(full, wants.1, wire.arrival.number).is_none() {
            return false;
        }
        self.faults.observe(full);
        if self.config.full_backlog == FullBacklog::Refuse {
            self.refuse_segment(now, wire, id);
        }
        true
    }

    /// What befalls a segment where it comes; true when that was all of it. `known` is the end that it
    /// is for.
    pub(super) fn strike_wire(&mut self, now: Timestamp, wire: &Wire, known: Option<Key>) -> bool {
        let ends = [Some(wire.origin), known];
        let is_silenced = |key: Key| self.segments.conns.get(key).is_some_and(|it| it.is_silenced);
        if ends.into_iter().flatten().any(is_silenced) {
            self.faults.observe(FaultKind::HalfOpen);
            return true;
        }
        if wire.payload.as_slice().is_empty() {
            return false;
        }
        let Some((_, way)) = self.sender_of(wire) else { return false };
        let number = wire.arrival.number;
        if self.strike_way(FaultKind::HalfOpen, way, number).is_some() {
            self.faults.observe(FaultKind::HalfOpen);
            for key in ends.into_iter().flatten() {
                if let Some(conn) = self.segments.conns.get_mut(key) {
                    conn.is_silenced = true;
                }
            }
            return true;
        }
        let receiver = known.and_then(|key| self.segments.conns.get(key).map(|conn| (key, conn)));
        if let Some((key, conn)) = receiver
            && conn.machine.takes_next(&wire.header)
        {
            if self.strike_early_end(now, wire, key, way) {
                return true;
            }
            if self.strike_way(FaultKind::HalfClose, way, number).is_some() {
                self.close_half(now, wire.origin);
            }
        }
        if let Some(strike) = self.strike_way(FaultKind::ZeroWindow, way, number)
            && let Some(conn) = self.segments.conns.get_mut(wire.origin)
            && conn.machine.shut_window()
        {
            let until = now.after(Self::shut_time(strike));
            let ending = Ending::Window(EndKey::Segments(wire.origin));
            self.chaos.troubles.end_with(until, ending);
        }
        false
    }

    /// Whether a stream ends within this segment: the receiver finds the end there, the sender a reset.
    fn strike_early_end(
        &mut self,
        now: Timestamp,
        wire: &Wire,
        receiver: Key,
        way: (SocketAddr, SocketAddr),
    ) -> bool {
        let bytes = wire.payload.as_slice();
        let kind = FaultKind::EarlyEnd;
        let Some(strike) = self.strike_way(kind, way, wire.arrival.number) else { return false };
        let part = usize::try_from(strike.below(0, bytes.len() as u64)).unwrap_or_default();
        let header = Header { flags: wire.header.flags.with(Flags::FIN), ..wire.header };
        let Some(conn) = self.segments.conns.get_mut(receiver) else { return false };
        let before = conn.machine.phase();
        let bytes = bytes.get(..part).unwrap_or_default();
        let wakes = conn.machine.handle_segment(now, &header, bytes, false);
        conn.tell(wakes);
        self.faults.observe(kind);
        // Before the receiver's answer, which finds nobody.
        self.fail_conn(now, wire.origin, io::ErrorKind::ConnectionReset);
        self.settle(before, receiver);
        self.flush(now, receiver);
        true
    }

    /// A connection's way out ends with what was sent; what was written beyond it is lost.
    fn close_half(&mut self, now: Timestamp, key: Key) {
        let Some(conn) = self.segments.conns.get_mut(key) else { return };
        if conn.machine.cut_short() {
            conn.writer.wake();
            self.faults.observe(FaultKind::HalfClose);
            self.flush(now, key);
        }
    }

    /// The window of a stream's peer opens again.
    pub(crate) fn open_segments_window(&mut self, now: Timestamp, key: Key) {
        let Some(conn) = self.segments.conns.get_mut(key) else { return };
        if conn.machine.open_window() {
            self.faults.observe(FaultKind::ZeroWindow);
        }
        self.flush(now, key);
    }
}

impl Conn {
    /// The addresses as this end knows them.
    pub(in crate::segment) fn way(&self) -> (SocketAddr, SocketAddr) {
        (self.local, self.peer)
    }
}
