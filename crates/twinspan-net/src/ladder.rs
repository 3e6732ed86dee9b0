//! Which way of moving datagrams is the cheapest here: a short measurement over loopback, once per
//! process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_core::time::Timestamp;
use twinspan_provider::{BindError, IoPath, PathCosts, UdpError, UdpOptions};

use crate::ReactorEnv;
use crate::bare::BareSocket;
use crate::threads::thread_cpu_time;

/// Datagrams of one round on each rung, as many as one call of a busy server receives.
const ROUND_DATAGRAMS: usize = 64;
/// Payload bytes of a sealed input: what a server receives most.
const DATAGRAM_BYTES: usize = 78;
/// Rounds at most. The best one counts: disturbance only ever adds.
const ROUNDS: u32 = 60;
/// Rounds below which the best one may have been disturbed on one rung and not on another.
const ROUNDS_MIN: u32 = 6;
/// When to stop with rounds enough to choose by.
const PATIENCE: Duration = Duration::from_millis(60);
/// When to stop with fewer: a start must not hang on a machine that gives this thread no time.
const PATIENCE_MAX: Duration = Duration::from_millis(500);
/// How much of its cost a later rung must save to be chosen, one in so many: repeats differ by a
/// few percent, and of two that cost the same the simpler one is better.
const SAVING_MIN: u32 = 20;

/// Why a socket has batches although a ring was the cheapest: other sockets, or a limit on locked
/// memory, may have taken what the measurement had.
pub(crate) const RING_LOST: &str = "io_uring was the cheapest, but none is left for this socket";

/// What the rungs cost, and how much that says.
#[derive(Clone, Copy, Debug)]
struct Measured {
    costs: PathCosts,
    /// Rounds that were made of all that were wanted.
    rounds: u32,
}

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
        *LADDER.get_or_init(|| Self::choose(measure(ReactorEnv::clock_ns)))
    }

    /// The cheapest rung that can be had. Batches where nothing could be measured.
    fn choose(measured: Option<Measured>) -> Self {
        let usual = |costs, reason| Self { costs, best: IoPath::Batch, reason };
        let Some(Measured { costs, rounds }) = measured else {
            return usual(PathCosts::default(), "not measured: no datagrams over loopback");
        };
        if rounds < ROUNDS_MIN {
            return usual(costs, "the usual one: measuring took too long to choose by");
        }
        if costs.batch_ns.is_none() {
            return usual(costs, "not measured: no datagrams over loopback");
        }
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
        let reason = match (costs.ring_ns, rounds < ROUNDS) {
            (Some(_), false) => "cheapest of those measured",
            (Some(_), true) => "cheapest of those measured before time was up",
            (None, false) => "cheapest of those measured; io_uring cannot be had here",
            (None, true) => {
                "cheapest of those measured before time was up; io_uring cannot be had here"
            }
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
        let began = thread_cpu_time();
        // On the loopback interface all have come; what has not is lost, and the round with it.
        while batch.room() > 0 && self.socket.recv(batch)? > 0 {}
        let spent = thread_cpu_time().saturating_sub(began).as_nanos();
        if batch.room() == 0 {
            let each = u32::try_from(spent / ROUND_DATAGRAMS as u128).unwrap_or(u32::MAX);
            self.best_ns = Some(self.best_ns.map_or(each, |best| best.min(each)));
        }
        Ok(())
    }
}

/// Measures the rungs in turns, so that a disturbance befalls all of them. A rung that fails is one
/// that cannot be had. `clock` tells nanoseconds of time as it passes for everybody.
fn measure(mut clock: impl FnMut() -> u64) -> Option<Measured> {
    let began = clock();
    let mut sender = Rung::bind(IoPath::Batch).ok()?.socket;
    let mut rungs = [IoPath::Plain, IoPath::Batch, IoPath::Ring].map(|path| Rung::bind(path).ok());
    let mut batch = DatagramBatch::new(ROUND_DATAGRAMS);
    let mut rounds = 0;
    while rounds < ROUNDS {
        let spent = Duration::from_nanos(clock().saturating_sub(began));
        if spent > PATIENCE_MAX || (spent > PATIENCE && rounds >= ROUNDS_MIN) {
            break;
        }
        for place in &mut rungs {
            let failed =
                place.as_mut().is_some_and(|rung| rung.round(&mut sender, &mut batch).is_err());
            if failed {
                *place = None;
            }
        }
        rounds += 1;
    }
    batch.clear();
    let [plain_ns, batch_ns, ring_ns] = rungs.map(|rung| rung.and_then(|rung| rung.best_ns));
    Some(Measured { costs: PathCosts { plain_ns, batch_ns, ring_ns }, rounds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ladder(costs: [Option<u32>; 3], rounds: u32) -> Ladder {
        let [plain_ns, batch_ns, ring_ns] = costs;
        let costs = PathCosts { plain_ns, batch_ns, ring_ns };
        Ladder::choose(Some(Measured { costs, rounds }))
    }

    fn chosen(plain: Option<u32>, batch: Option<u32>, ring: Option<u32>) -> IoPath {
        ladder([plain, batch, ring], ROUNDS).best
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
        let none = Ladder::choose(None);
        assert_eq!(none.reason, "not measured: no datagrams over loopback");
    }

    #[test]
    fn too_few_rounds_choose_nothing_and_fewer_than_wanted_are_told() {
        let costs = [Some(300), Some(200), Some(100)];
        for (rounds, best, reason) in [
            (0, IoPath::Batch, "the usual one: measuring took too long to choose by"),
            (5, IoPath::Batch, "the usual one: measuring took too long to choose by"),
            (6, IoPath::Ring, "cheapest of those measured before time was up"),
            (59, IoPath::Ring, "cheapest of those measured before time was up"),
            (60, IoPath::Ring, "cheapest of those measured"),
        ] {
            let Ladder { best: got, reason: why, .. } = ladder(costs, rounds);
            assert_eq!((got, why), (best, reason), "{rounds} rounds");
        }
        let [plain, batch, _] = costs;
        let reason = ladder([plain, batch, None], 6).reason;
        assert!(reason.ends_with("before time was up; io_uring cannot be had here"), "{reason}");
    }

    /// A clock that moves on by so much whenever it is read.
    fn clock(step: Duration) -> impl FnMut() -> u64 {
        let mut nanos = 0;
        move || {
            nanos += step.as_nanos() as u64;
            nanos
        }
    }

    #[test]
    fn a_slow_machine_ends_the_measurement_early() {
        for (step_ms, rounds) in [(0, 60), (10, 6), (1_000, 0)] {
            let measured = measure(clock(Duration::from_millis(step_ms))).unwrap();
            assert_eq!(measured.rounds, rounds, "{step_ms} ms a round");
        }
        let never = Ladder::choose(measure(clock(PATIENCE_MAX * 2)));
        assert!(never.best == IoPath::Batch && never.reason.contains("too long"), "{never:?}");
    }

    #[test]
    fn the_measurement_is_made_once() {
        let ladder = Ladder::of_this_process();
        assert!(ladder.costs.plain_ns.is_some() && ladder.costs.batch_ns.is_some(), "{ladder:?}");
        assert_eq!(Ladder::of_this_process(), ladder);
    }
}
