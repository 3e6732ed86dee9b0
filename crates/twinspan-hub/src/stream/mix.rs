//! Several carriers of the same topics: a listener and connectors, or roads of which one takes over from
//! another. To the topic a stream is a stream, whichever of them brings it.
//!
//! //= hub 9.6

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::epoll;
use twinspan_core::time::Timestamp;

use super::core::{Carrier, Seats};
use super::node::Waited;
use crate::effect::SettingReport;

/// Carriers that one topic has at most.
pub(crate) const PARTS_MAX: usize = 65;

/// One carrier.
struct Part {
    key: u64,
    carrier: Box<dyn Waited>,
    /// Nothing new is begun on it, and it goes when its streams have ended.
    is_leaving: bool,
}

/// The carriers of a node's topics.
pub(crate) struct Mix {
    epoll: Arc<OwnedFd>,
    parts: Vec<Part>,
    next_key: u64,
    seat: usize,
}

impl Mix {
    /// No carrier yet. Those that are [hung up](Self::hang_up) are of the topic that will have the first seat.
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        Ok(Self { epoll, parts: Vec::new(), next_key: 0, seat: 0 })
    }

    /// Adds a carrier, and gives the number that stands for it; `None` where there are too many.
    pub(crate) fn add(&mut self, carrier: Box<dyn Waited>) -> io::Result<Option<u64>> {
        if self.parts.len() >= PARTS_MAX {
            return Ok(None);
        }
        let readiness = carrier.readiness();
        epoll::add(&self.epoll, &readiness, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        let key = self.next_key;
        self.next_key += 1;
        self.parts.push(Part { key, carrier, is_leaving: false });
        Ok(Some(key))
    }

    /// Begins nothing new on a carrier; it goes when its streams have ended.
    pub(crate) fn hang_up(&mut self, key: u64) {
        if let Some(part) = self.parts.iter_mut().find(|part| part.key == key) {
            part.is_leaving = true;
            part.carrier.hang_up();
        }
    }

    fn remove(&mut self, seats: &mut Seats, at: usize) {
        let mut part = self.parts.swap_remove(at);
        part.carrier.vacate(seats, self.seat);
        part.carrier.close();
        // One that cannot be taken out was never in.
        let _ = epoll::delete(&self.epoll, part.carrier.readiness());
    }

    /// Does something with a carrier.
    pub(crate) fn with<R>(
        &mut self,
        key: u64,
        act: impl FnOnce(&mut dyn Carrier) -> R,
    ) -> Option<R> {
        let part = self.parts.iter_mut().find(|part| part.key == key)?;
        Some(act(&mut *part.carrier))
    }
}

impl Carrier for Mix {
    fn look(&mut self, now: Timestamp, seats: &mut Seats) {
        for part in &mut self.parts {
            part.carrier.look(now, seats);
        }
    }

    fn turn(&mut self, now: Timestamp, seats: &mut Seats) {
        for part in &mut self.parts {
            part.carrier.turn(now, seats);
        }
        let seat = self.seat;
        while let Some(at) =
            self.parts.iter().position(|part| part.is_leaving && part.carrier.is_silent(seat))
        {
            self.remove(seats, at);
        }
    }

    fn pump(&mut self, now: Timestamp, seats: &mut Seats, seat: usize) {
        for part in &mut self.parts {
            part.carrier.pump(now, seats, seat);
        }
    }

    fn poll_timeout(&self) -> Timestamp {
        let times = self.parts.iter().map(|part| part.carrier.poll_timeout());
        times.min().unwrap_or(Timestamp::NEVER)
    }

    fn arm(&mut self) -> bool {
        self.parts.iter_mut().all(|part| part.carrier.arm())
    }

    fn urgent_at(&self) -> Timestamp {
        let times = self.parts.iter().map(|part| part.carrier.urgent_at());
        times.min().unwrap_or(Timestamp::NEVER)
    }

    fn settings(&self) -> Vec<SettingReport> {
        self.parts.iter().flat_map(|part| part.carrier.settings()).collect()
    }

    fn is_silent(&self, seat: usize) -> bool {
        self.parts.iter().all(|part| part.carrier.is_silent(seat))
    }

    fn vacate(&mut self, seats: &mut Seats, seat: usize) {
        for part in &mut self.parts {
            part.carrier.vacate(seats, seat);
        }
    }

    fn close(&mut self) {
        for part in &mut self.parts {
            part.carrier.close();
        }
        self.parts.clear();
    }
}

impl Waited for Mix {
    fn readiness(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.epoll)
    }
}
