//! Which way of moving datagrams is the cheapest here: a short measurement over loopback, once per
//! process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_core::time::Timestamp;
use twinspan_provider::{BindError, IoPath, PathCosts, UdpError, UdpOptions};

use crate::ReactorEnv;
use crate::bare::BareSocket;

/// Datagrams of one round on each rung, as many as one call of a busy server receives.
const ROUND_DATAGRAMS: usize = 64;
/// Payload bytes of a sealed input: what a server receives most.
const DATAGRAM_BYTES: usize = 78;
/// Rounds at most. The best one counts: disturbance only ever adds.
const ROUNDS: usize = 60;
/// When to stop, finished or not.
const PATIENCE: Duration = Duration::from_millis(60);
/// How much of its cost a later rung must save to be chosen, one in so many: repeats differ by a
/// few percent, and of two that cost the same the simpler one is better.
const SAVING_MIN: u32 = 20;

/// What the measurement said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ladder {
    pub(crate) costs: PathCosts,
    pub(crate) best: IoPath,
    /// Why, for people.
    pub(crate) reason: &'static str,
}

impl Ladder {
    /// The measurement of this process, made on first use.
    pub(crate) fn of_this_process() -> Self {
        static LADDER: OnceLock<Ladder> = OnceLock::new();
        *LADDER.get_or_init(|| Self::choose(measure().unwrap_or_default()))
    }

    /// The cheapest rung that can be had. Batches where nothing could be measured.
    fn choose(costs: PathCosts) -> Self {
        let saves = |cost: u32, than: u32| cost < than.saturating_sub(than / SAVING_MIN);
        let mut best = (IoPath::Batch, costs.batch_ns);
        if let (Some(plain), Some(batch)) = (costs.plain_ns, costs.batch_ns)
            && !saves(batch, plain)
        {
            best = (IoPath::Plain, Some(plain));
        }
        if let (Some(ring), Some(known)) = (costs.ring_ns, best.1)
            && saves(ring, known)
        {
            best = (IoPath::Ring, Some(ring));
        }
        let reason = match (costs.batch_ns, costs.ring_ns) {
            (None, _) => "not measured: no datagrams over loopback",
            (Some(_), None) => "cheapest of those measured; io_uring cannot be had here",
            (Some(_), Some(_)) => "cheapest of those measured",
        };
        Self { costs, best: best.0, reason }
    }
}

/// One rung and the best round so far.
struct Rung {
    socket: BareSocket,
    best_ns: Option<u32>,
}

impl Rung {
    fn bind(path: IoPath) -> Result<Self, BindError> {
        // No more than a round is ever on its way; the pools stay small.
        let options = UdpOptions {
            receive_buffer_bytes: 1 << 20,
            send_buffer_bytes: 1 << 20,
            pool_packets: ROUND_DATAGRAMS * 2,
            path,
            segment_sends: false,
            ..UdpOptions::default()
        };
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Ok(Self { socket: BareSocket::bind(local, &options)?, best_ns: None })
    }

    /// Sends a round to this rung and measures how long receiving it takes this thread.
    fn round(
        &mut self,
        sender: &mut BareSocket,
        batch: &mut DatagramBatch,
    ) -> Result<(), UdpError> {
        batch.clear();
        while batch.room() > 0 {
            let Some(mut packet) = sender.pool().take() else { break };
            packet.set_len(DATAGRAM_BYTES);
            let peer = self.socket.local_addr();
            drop(batch.push(Datagram { peer, at: Timestamp::START, packet }));
        }
        sender.send(batch)?;
        batch.clear();
        let began = thread_ns();
        // On the loopback interface all have come; what has not is lost, and the round with it.
        while batch.room() > 0 && self.socket.recv(batch)? > 0 {}
        let spent = thread_ns().saturating_sub(began);
        if batch.room() == 0 {
            let each = u32::try_from(spent / ROUND_DATAGRAMS as u64).unwrap_or(u32::MAX);
            self.best_ns = Some(self.best_ns.map_or(each, |best| best.min(each)));
        }
        Ok(())
    }
}

/// Processor time of the calling thread, in nanoseconds.
fn thread_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// Measures the rungs in turns, so that a disturbance befalls all of them. A rung that fails is one
/// that cannot be had.
fn measure() -> Option<PathCosts> {
    let began = ReactorEnv::clock_ns();
    let mut sender = Rung::bind(IoPath::Batch).ok()?.socket;
    let mut rungs = [IoPath::Plain, IoPath::Batch, IoPath::Ring].map(|path| Rung::bind(path).ok());
    let mut batch = DatagramBatch::new(ROUND_DATAGRAMS);
    for _ in 0..ROUNDS {
        for place in &mut rungs {
            let failed =
                place.as_mut().is_some_and(|rung| rung.round(&mut sender, &mut batch).is_err());
            if failed {
                *place = None;
            }
        }
        let spent = ReactorEnv::clock_ns().saturating_sub(began);
        if Duration::from_nanos(spent) > PATIENCE {
            break;
        }
    }
    batch.clear();
    let [plain_ns, batch_ns, ring_ns] = rungs.map(|rung| rung.and_then(|rung| rung.best_ns));
    Some(PathCosts { plain_ns, batch_ns, ring_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(plain: Option<u32>, batch: Option<u32>, ring: Option<u32>) -> IoPath {
        Ladder::choose(PathCosts { plain_ns: plain, batch_ns: batch, ring_ns: ring }).best
    }

    #[test]
    fn the_cheapest_rung_is_chosen_and_the_simpler_of_equals() {
        assert_eq!(chosen(Some(300), Some(200), Some(150)), IoPath::Ring);
        assert_eq!(chosen(Some(300), Some(200), Some(195)), IoPath::Batch);
        assert_eq!(chosen(Some(300), Some(200), Some(250)), IoPath::Batch);
        assert_eq!(chosen(Some(200), Some(199), Some(198)), IoPath::Plain);
        assert_eq!(chosen(Some(200), Some(300), Some(100)), IoPath::Ring);
    }

    #[test]
    fn what_cannot_be_had_is_not_chosen() {
        assert_eq!(chosen(Some(300), Some(200), None), IoPath::Batch);
        assert_eq!(chosen(None, None, None), IoPath::Batch);
        assert_eq!(chosen(None, None, Some(1)), IoPath::Batch);
        let none = Ladder::choose(PathCosts::default());
        assert_eq!(none.reason, "not measured: no datagrams over loopback");
    }

    #[test]
    fn the_measurement_is_made_once() {
        let ladder = Ladder::of_this_process();
        assert!(ladder.costs.plain_ns.is_some() && ladder.costs.batch_ns.is_some(), "{ladder:?}");
        assert_eq!(Ladder::of_this_process(), ladder);
    }
}
