//! What planned faults do to the sockets of one host.

use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_core::packet::DatagramBatch;
use twinspan_core::time::Timestamp;
use twinspan_provider::Offload;

use crate::plan::{Place, socket_key};
use crate::slab::Key;
use crate::udp::before_first_run;
use crate::world::State;

/// What befalls one call that sends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SendStrikes {
    /// It takes this many datagrams at most.
    pub(crate) take_max: Option<usize>,
    /// It takes nothing for a moment.
    pub(crate) stalls: bool,
    /// Its first datagram is refused.
    pub(crate) fails: bool,
    /// Its first run of datagrams is refused, before which so many go as ever.
    pub(crate) refused_run: Option<usize>,
}

/// How much one call may receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Supply {
    All,
    /// One, and the next one so much later.
    One(Duration),
    None,
}

impl State {
    /// What befalls a call that sends a batch.
    pub(crate) fn strike_send(
        &mut self,
        now: Timestamp,
        key: Key,
        batch: &DatagramBatch,
    ) -> SendStrikes {
        let mut strikes = SendStrikes::default();
        let Some(socket) = self.network.sockets.get(key) else { return strikes };
        if now < socket.stalled_until {
            return strikes;
        }
        let (local, number) = (socket.local, socket.send_calls);
        let splits = socket.segmentation == Offload::On && self.chaos.can(FaultKind::RunRefused);
        let first_run = splits.then(|| before_first_run(batch)).flatten();
        let place_key = socket_key(local);
        let mut strike = |kind| {
            if !self.chaos.can(kind) {
                return None;
            }
            self.strike((kind, place_key, number), || Place::Socket(local))
        };
        strikes.stalls = strike(FaultKind::SendStall).is_some();
        if strikes.stalls {
            // The call does not come to more.
            return strikes;
        }
        let count = batch.len();
        if count > 1
            && let Some(strike) = strike(FaultKind::ShortSend)
        {
            let few = strike.below(0, count as u64 - 1);
            strikes.take_max = usize::try_from(few + 1).ok();
        }
        strikes.fails = strike(FaultKind::NoBuffers).is_some();
        if let Some(before) = first_run
            && strike(FaultKind::RunRefused).is_some()
        {
            strikes.refused_run = Some(before);
        }
        if strikes.fails {
            self.faults.observe(FaultKind::NoBuffers);
        }
        strikes
    }

    /// Whether a send fails because of an ICMP answer to an earlier one.
    pub(crate) fn take_error(&mut self, key: Key) -> bool {
        let socket = self.network.sockets.get_mut(key);
        socket.is_some_and(|socket| std::mem::take(&mut socket.has_error))
    }

    /// How much a call may receive.
    pub(crate) fn supply(&mut self, now: Timestamp, key: Key) -> Supply {
        let Some(socket) = self.network.sockets.get(key) else { return Supply::All };
        if socket.queue.is_empty() {
            return Supply::All;
        }
        let takes_at = socket.takes_at;
        let Some(ip) = self.hosts.get(socket.host).map(|host| host.ip) else { return Supply::All };
        if self.chaos.troubles.lacks_buffers(now, ip) {
            self.faults.observe(FaultKind::OutOfBuffers);
            return Supply::None;
        }
        match self.chaos.troubles.pace(now, ip) {
            Some(_) if now < takes_at => {
                self.faults.observe(FaultKind::SlowConsumer);
                Supply::None
            }
            Some(pace) => Supply::One(pace),
            None => Supply::All,
        }
    }
}
