//! What planned faults do to streams.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_core::time::Timestamp;

use super::Strike;
use super::troubles::{Carried, Ending};
use crate::plan::{Place, flow_key, host_key, socket_key};
use crate::slab::Key;
use crate::streams::{Body, EndKey, Segment};
use crate::world::{HostId, State};

/// How long the window of a peer is shut.
const SHUT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));
/// What a process says that has no descriptors left.
const EMFILE: i32 = 24;

impl State {
    /// Strikes one way of a connection, by the end that sends.
    pub(crate) fn strike_end(
        &mut self,
        kind: FaultKind,
        sender: Key,
        number: u64,
    ) -> Option<Strike> {
        if !self.chaos.can(kind) {
            return None;
        }
        let end = self.streams.ends.get(sender)?;
        let ends = (end.local, end.peer);
        self.strike_way(kind, ends, number)
    }

    /// Strikes one way of a connection, by the addresses as the end that sends knows them.
    pub(crate) fn strike_way(
        &mut self,
        kind: FaultKind,
        (local, peer): (SocketAddr, SocketAddr),
        number: u64,
    ) -> Option<Strike> {
        if !self.chaos.can(kind) {
            return None;
        }
        self.strike((kind, flow_key(local, peer), number), || Place::Flow(local, peer))
    }

    /// Strikes a whole connection, by what its draws are keyed by and the addresses as the end that
    /// wants it knows them.
    pub(crate) fn strike_connect(
        &mut self,
        kind: FaultKind,
        (name, ends): (u64, (SocketAddr, SocketAddr)),
    ) -> bool {
        let strikes = self.chaos.is_struck(kind, name) || {
            let struck = self.strike_way(kind, ends, 0).is_some();
            if struck {
                self.chaos.remember_struck(kind, name);
            }
            struck
        };
        if strikes {
            self.faults.observe(kind);
        }
        strikes
    }

    /// How much a call moves of `len` bytes.
    pub(crate) fn shorten(
        &mut self,
        kind: FaultKind,
        ends: (SocketAddr, SocketAddr),
        (call, len): (u64, usize),
    ) -> usize {
        if len < 2 {
            return len;
        }
        let Some(strike) = self.strike_way(kind, ends, call) else { return len };
        self.faults.observe(kind);
        let few = strike.below(0, len as u64 - 1) + 1;
        usize::try_from(few).unwrap_or(len)
    }

    /// For how long a window is shut.
    pub(crate) fn shut_time(strike: Strike) -> Duration {
        strike.duration(0, SHUT.0, SHUT.1)
    }

    /// Whether accepting fails this time.
    pub(crate) fn strike_accept(&mut self, now: Timestamp, listener: Key) -> Option<io::Error> {
        let (host, local, accepts) = self.streams.listener_calls(listener)?;
        let ip = self.hosts.get(host)?.ip;
        if self.lacks_fds(now, ip) {
            return Some(io::Error::from_raw_os_error(EMFILE));
        }
        let kind = FaultKind::AcceptExhausted;
        if !self.chaos.can(kind) {
            return None;
        }
        let coordinates = (kind, socket_key(local), accepts);
        self.strike(coordinates, || Place::Socket(local))?;
        self.faults.observe(kind);
        Some(io::Error::from_raw_os_error(EMFILE))
    }

    /// What a host without descriptors says; counted.
    pub(crate) fn no_descriptor(&mut self, now: Timestamp, host: HostId) -> Option<io::Error> {
        if !self.chaos.is_on {
            return None;
        }
        let ip = self.hosts.get(host)?.ip;
        self.lacks_fds(now, ip).then(|| io::Error::from_raw_os_error(EMFILE))
    }

    fn lacks_fds(&mut self, now: Timestamp, ip: IpAddr) -> bool {
        let lacks = self.chaos.troubles.lacks_fds(now, ip);
        if lacks {
            self.faults.observe(FaultKind::OutOfFds);
        }
        lacks
    }

    /// Strikes a look-up of a host.
    pub(crate) fn strike_lookup(
        &mut self,
        kind: FaultKind,
        (ip, number): (IpAddr, u64),
    ) -> Option<Strike> {
        if !self.chaos.can(kind) {
            return None;
        }
        self.strike((kind, host_key(ip), number), || Place::Host(ip))
    }

    /// Why a piece or segment is swallowed where it is sent or where it comes, if so.
    pub(crate) fn piece_blocked(&mut self, now: Timestamp, link: u32) -> Option<FaultKind> {
        let (from, to) = self.network.way(link)?;
        let kind = self.chaos.troubles.blocked(now, from, to)?;
        self.faults.observe(kind);
        Some(kind)
    }

    /// When a piece or segment comes, given when its link lets it; or why it does not.
    pub(crate) fn piece_later(
        &mut self,
        now: Timestamp,
        link: u32,
        bytes: usize,
        at: Timestamp,
    ) -> Result<Timestamp, FaultKind> {
        let Some(way) = self.network.way(link) else { return Ok(at) };
        let mut at = at;
        match self.chaos.troubles.narrow(now, way, bytes, Carried::Piece) {
            Some((kind, None)) => {
                self.faults.observe(kind);
                return Err(kind);
            }
            Some((kind, Some(later))) => {
                self.faults.observe(kind);
                at = at.after(later);
            }
            None => {}
        }
        if let Some((until, kind)) = self.chaos.troubles.send_clog(now, way.0)
            && at < until
        {
            self.faults.observe(kind);
            at = until;
        }
        Ok(at)
    }

    /// Until when a piece that comes now is held.
    pub(crate) fn piece_held(&mut self, now: Timestamp, link: u32) -> Option<Timestamp> {
        let (_, to) = self.network.way(link)?;
        let (until, kind) = self.chaos.troubles.receive_clog(now, to)?;
        self.faults.observe(kind);
        Some(until)
    }

    /// What befalls a piece with bytes where it comes; true when that was all of it.
    pub(crate) fn strike_piece(&mut self, now: Timestamp, segment: &Segment) -> bool {
        let ends = [segment.to, segment.from];
        if ends.iter().any(|key| self.streams.is_silenced(*key)) {
            self.faults.observe(FaultKind::HalfOpen);
            return true;
        }
        let Body::Bytes { offset, len, .. } = segment.body else { return false };
        let (sender, number) = (segment.from, segment.arrival.number);
        if self.strike_end(FaultKind::StreamReset, sender, number).is_some() {
            self.faults.observe(FaultKind::StreamReset);
            ends.iter().for_each(|key| self.take_reset(*key, io::ErrorKind::ConnectionReset));
            return true;
        }
        if self.strike_end(FaultKind::HalfOpen, sender, number).is_some() {
            self.faults.observe(FaultKind::HalfOpen);
            ends.iter().for_each(|key| self.streams.silence(*key));
            return true;
        }
        if len > 0 && self.streams.takes_next(segment.to, offset) {
            if let Some(strike) = self.strike_end(FaultKind::EarlyEnd, sender, number) {
                let part = usize::try_from(strike.below(0, len as u64)).unwrap_or_default();
                self.take_bytes(now, segment, (offset, part, true));
                self.take_reset(sender, io::ErrorKind::ConnectionReset);
                self.faults.observe(FaultKind::EarlyEnd);
                return true;
            }
            if self.strike_end(FaultKind::HalfClose, sender, number).is_some() {
                self.take_bytes(now, segment, (offset, len, true));
                self.streams.cut_short(sender, offset + len as u64);
                self.faults.observe(FaultKind::HalfClose);
                return true;
            }
        }
        if let Some(strike) = self.strike_end(FaultKind::ZeroWindow, sender, number)
            && self.streams.shut_window(sender)
        {
            let until = now.after(Self::shut_time(strike));
            self.chaos.troubles.end_with(until, Ending::Window(EndKey::Pieces(sender)));
        }
        false
    }

    /// The window of a stream's peer opens again.
    pub(super) fn open_window(&mut self, now: Timestamp, end: EndKey) {
        match end {
            EndKey::Pieces(end) => {
                if self.streams.open_window(end) {
                    self.faults.observe(FaultKind::ZeroWindow);
                }
                self.pump(now, end);
            }
            EndKey::Segments(end) => self.open_segments_window(now, end),
        }
    }
}
