//! What a lone datagram and a train cost by calls and by a completion ring: a short measurement over
//! loopback, once per process.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{RingOptions, RingPoller, RingSends, TrainOptions, TrainSocket};
use crate::cores::allowed_cores;
use crate::threads::thread_cpu_time;

/// When the measurement ends, whatever is missing then.
const PATIENCE: Duration = Duration::from_millis(20);
/// Exchanges of lone datagrams until then.
const PATIENCE_LONE: Duration = Duration::from_millis(12);
/// Exchanges in a row on one of the two, before it is the other's turn.
const EXCHANGES: usize = 24;
/// Turns at most, and the fewest that say something.
const TURNS_MAX: usize = 12;
const TURNS_MIN: usize = 2;
/// How long an answer is waited for.
const ANSWER_MAX: Duration = Duration::from_millis(3);
/// A train: datagrams, and bytes of each.
const TRAIN_DATAGRAMS: usize = 32;
const TRAIN_BYTES: usize = 1_200;
const LONE_BYTES: usize = 64;
/// How much one must save, one in so many, to be better: repeats differ.
const SAVING_MIN: u32 = 10;
/// How much it may lose on what it is not chosen for, one in so many.
const LOSS_MAX: u32 = 20;

/// What datagrams cost here, in nanoseconds; `None` where it was not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrainCosts {
    /// From sending a lone datagram to its sight by another thread that looks all the time, by calls.
    pub lone_calls_ns: Option<u32>,
    /// The same by a ring.
    pub lone_ring_ns: Option<u32>,
    /// Processor time of a datagram of a train, sent and received by calls.
    pub train_calls_ns: Option<u32>,
    /// The same received by a ring.
    pub train_ring_ns: Option<u32>,
    /// The same sent by requests on the ring too.
    pub train_requests_ns: Option<u32>,
    /// The same sent without a copy, as far as the kernel does so.
    pub train_zero_copy_ns: Option<u32>,
    /// Whether the kernel copied nevertheless.
    pub is_copied: bool,
    /// What the system says where there is no ring.
    pub ring_errno: Option<i32>,
    /// How long measuring took.
    pub took: Duration,
}

impl TrainCosts {
    /// Whether a ring is the better way here: it saves a tenth on one of the two, and costs no more than
    /// a twentieth on the other.
    pub fn ring_is_better(&self) -> bool {
        let (Some(lone_calls), Some(lone_ring), Some(train_calls), Some(train_ring)) =
            (self.lone_calls_ns, self.lone_ring_ns, self.train_calls_ns, self.train_ring_ns)
        else {
            return false;
        };
        saves(lone_ring, lone_calls) && is_bearable(train_ring, train_calls)
            || saves(train_ring, train_calls) && is_bearable(lone_ring, lone_calls)
    }

    /// Who is to send on a ring: whoever saves a tenth, the simplest first.
    pub fn best_sends(&self) -> RingSends {
        let Some(calls) = self.train_ring_ns else { return RingSends::Calls };
        match (self.train_requests_ns, self.train_zero_copy_ns) {
            (requests, Some(zero_copy))
                if !self.is_copied
                    && saves(zero_copy, calls)
                    && requests.is_none_or(|requests| saves(zero_copy, requests)) =>
            {
                RingSends::ZeroCopy
            }
            (Some(requests), _) if saves(requests, calls) => RingSends::Requests,
            _ => RingSends::Calls,
        }
    }
}

const fn saves(cost: u32, than: u32) -> bool {
    cost < than.saturating_sub(than / SAVING_MIN)
}

const fn is_bearable(cost: u32, than: u32) -> bool {
    cost <= than.saturating_add(than / LOSS_MAX)
}

/// The measurement of this process, made on first use: at most 20 ms, on two threads.
pub fn train_costs() -> TrainCosts {
    static COSTS: OnceLock<TrainCosts> = OnceLock::new();
    *COSTS.get_or_init(|| {
        let began = Instant::now();
        // What fails is what cannot be had: it is not measured.
        let mut costs = measure(began).unwrap_or_default();
        costs.took = began.elapsed();
        costs
    })
}

/// What a lone datagram costs on a ring without and with a thread of the kernel that looks for requests:
/// a measurement of 12 ms, which takes three cores to say something. `None` where there is none.
pub fn poller_costs(poller: RingPoller) -> Option<[u32; 2]> {
    let pair = || {
        let ring = RingOptions { sends: RingSends::Requests, poller: Some(poller) };
        let polled = TrainSocket::bind_on_ring(local(), &options(), &ring);
        Ok([by_ring(RingSends::Calls)?, polled.map_err(io::Error::from)?])
    };
    let [without, with] = lone(Instant::now(), pair).ok()?;
    Some([without?, with?])
}

fn options() -> TrainOptions {
    TrainOptions { buffer_bytes: 1 << 20, ..TrainOptions::default() }
}

fn local() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn by_calls() -> io::Result<TrainSocket> {
    TrainSocket::bind(local(), &options())
}

fn by_ring(sends: RingSends) -> io::Result<TrainSocket> {
    let ring = RingOptions { sends, poller: None };
    Ok(TrainSocket::bind_on_ring(local(), &options(), &ring)?)
}

fn measure(began: Instant) -> io::Result<TrainCosts> {
    let mut costs = TrainCosts::default();
    if let Err(error) = by_ring(RingSends::Calls) {
        costs.ring_errno = error.raw_os_error();
        return Ok(costs);
    }
    if allowed_cores()?.len() > 1 {
        let pair = || Ok([by_calls()?, by_ring(RingSends::Calls)?]);
        let [calls, ring] = lone(began, pair)?;
        (costs.lone_calls_ns, costs.lone_ring_ns) = (calls, ring);
    }
    trains(began, &mut costs)?;
    Ok(costs)
}

/// The best median of turns.
#[derive(Default)]
struct Best(Option<u32>, usize);

impl Best {
    fn saw(&mut self, ns: u32) {
        self.0 = Some(self.0.map_or(ns, |best| best.min(ns)));
        self.1 += 1;
    }

    fn told(self) -> Option<u32> {
        self.0.filter(|_| self.1 >= TURNS_MIN)
    }
}

/// Two threads hand a datagram to each other, on two kinds of sockets in turns.
fn lone(
    began: Instant,
    pair: impl Fn() -> io::Result<[TrainSocket; 2]> + Sync,
) -> io::Result<[Option<u32>; 2]> {
    let mut ours = pair()?;
    let is_over = AtomicBool::new(false);
    let (tell, told) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let (is_over, pair) = (&is_over, &pair);
        scope.spawn(move || {
            // A ring's request belongs to the thread that made it, as elsewhere.
            let Ok(mut theirs) = pair() else { return };
            if tell.send(theirs.each_ref().map(TrainSocket::local_addr)).is_err() {
                return;
            }
            while !is_over.load(Ordering::Relaxed) {
                for socket in &mut theirs {
                    // One that fails gives no answer, and is not chosen.
                    let _ = echo(socket);
                }
            }
        });
        let others = told.recv_timeout(ANSWER_MAX * 2).ok();
        let mut best = [Best::default(), Best::default()];
        if let Some(others) = others {
            for _ in 0..TURNS_MAX {
                for ((socket, other), best) in ours.iter_mut().zip(others).zip(&mut best) {
                    if let Some(ns) = exchange(socket, other, began) {
                        best.saw(ns);
                    }
                }
                if began.elapsed() > PATIENCE_LONE {
                    break;
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
        Ok(best.map(Best::told))
    })
}

/// Sends back what came.
fn echo(socket: &mut TrainSocket) -> io::Result<()> {
    if !socket.receive()? {
        return Ok(());
    }
    while let Some((from, _)) = socket.take_next() {
        put(socket, from, LONE_BYTES);
    }
    socket.send().map(|_| ())
}

fn put(socket: &mut TrainSocket, to: SocketAddr, bytes: usize) {
    if socket.room().len() >= bytes {
        socket.push(to, bytes);
    }
}

/// Exchanges some datagrams: half of the median round trip; `None` where one was lost or late.
fn exchange(socket: &mut TrainSocket, other: SocketAddr, whole: Instant) -> Option<u32> {
    let mut times = [0_u32; EXCHANGES];
    for time in &mut times {
        let began = Instant::now();
        if began.saturating_duration_since(whole) > PATIENCE_LONE {
            return None;
        }
        put(socket, other, LONE_BYTES);
        socket.send().ok()?;
        while !socket.receive().ok()? {
            if began.elapsed() > ANSWER_MAX {
                return None;
            }
        }
        while socket.take_next().is_some() {}
        *time = u32::try_from(began.elapsed().as_nanos() / 2).unwrap_or(u32::MAX);
    }
    times.sort_unstable();
    times.get(EXCHANGES / 2).copied()
}

/// One thread sends and receives trains.
fn trains(began: Instant, costs: &mut TrainCosts) -> io::Result<()> {
    let mut sender = by_calls()?;
    let mut receivers = [by_calls()?, by_ring(RingSends::Calls)?];
    // What cannot be had is not measured.
    let mut rings = [by_ring(RingSends::Requests).ok(), by_ring(RingSends::ZeroCopy).ok()];
    let mut best: [Best; 4] = Default::default();
    for _ in 0..TURNS_MAX {
        let [by_calls, by_ring, rest @ ..] = &mut best;
        for (receiver, best) in receivers.iter_mut().zip([by_calls, by_ring]) {
            if let Some(ns) = train(&mut sender, receiver)? {
                best.saw(ns);
            }
        }
        let [_, receiver] = &mut receivers;
        for (ring, best) in rings.iter_mut().zip(rest) {
            if let Some(Some(ns)) = ring.as_mut().map(|ring| train(ring, receiver)).transpose()? {
                best.saw(ns);
            }
        }
        if began.elapsed() > PATIENCE {
            break;
        }
    }
    let [by_calls, by_ring, requests, zero_copy] = best.map(Best::told);
    (costs.train_calls_ns, costs.train_ring_ns) = (by_calls, by_ring);
    (costs.train_requests_ns, costs.train_zero_copy_ns) = (requests, zero_copy);
    let [_, ring] = &rings;
    costs.is_copied = ring.as_ref().is_some_and(|ring| ring.report().zero_copy_copied > 0);
    Ok(())
}

/// Sends one train and takes it in: processor time of each datagram; `None` where some were lost.
fn train(sender: &mut TrainSocket, receiver: &mut TrainSocket) -> io::Result<Option<u32>> {
    let to = receiver.local_addr();
    let began = thread_cpu_time();
    for _ in 0..TRAIN_DATAGRAMS {
        put(sender, to, TRAIN_BYTES);
    }
    sender.send()?;
    let mut came = 0;
    while receiver.receive()? {
        while receiver.take_next().is_some() {
            came += 1;
        }
    }
    let spent = thread_cpu_time().saturating_sub(began).as_nanos() / TRAIN_DATAGRAMS as u128;
    let is_whole = came == TRAIN_DATAGRAMS;
    Ok(is_whole.then(|| u32::try_from(spent).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(lone: [u32; 2], train: [u32; 2]) -> TrainCosts {
        let [lone_calls, lone_ring] = lone;
        let [train_calls, train_ring] = train;
        TrainCosts {
            lone_calls_ns: Some(lone_calls),
            lone_ring_ns: Some(lone_ring),
            train_calls_ns: Some(train_calls),
            train_ring_ns: Some(train_ring),
            ..TrainCosts::default()
        }
    }

    #[test]
    fn a_ring_must_save_a_tenth_and_may_cost_a_twentieth() {
        for (lone, train, is_better) in [
            ([1_000, 890], [100, 100], true),
            ([1_000, 890], [100, 105], true),
            ([1_000, 890], [100, 106], false),
            ([1_000, 900], [100, 100], false),
            ([1_000, 1_050], [100, 89], true),
            ([1_000, 1_051], [100, 50], false),
            ([1_000, 1_000], [100, 100], false),
        ] {
            assert_eq!(costs(lone, train).ring_is_better(), is_better, "{lone:?} {train:?}");
        }
        let unknown = TrainCosts { lone_ring_ns: None, ..costs([1_000, 1], [100, 1]) };
        assert!(!unknown.ring_is_better(), "what was not measured is not chosen");
        assert!(!TrainCosts::default().ring_is_better());
    }

    #[test]
    fn who_sends_without_a_copy_must_win_and_really_not_copy() {
        let base = costs([1, 1], [100, 100]);
        for (requests, zero_copy, is_copied, best) in [
            (None, None, false, RingSends::Calls),
            (Some(95), Some(95), false, RingSends::Calls),
            (Some(80), Some(95), false, RingSends::Requests),
            (Some(95), Some(80), false, RingSends::ZeroCopy),
            (Some(80), Some(75), false, RingSends::Requests),
            (Some(95), Some(50), true, RingSends::Calls),
            (Some(80), Some(50), true, RingSends::Requests),
        ] {
            let costs = TrainCosts {
                train_requests_ns: requests,
                train_zero_copy_ns: zero_copy,
                is_copied,
                ..base
            };
            assert_eq!(costs.best_sends(), best, "{requests:?} {zero_copy:?} {is_copied}");
        }
    }

    #[test]
    fn the_measurement_is_made_once() {
        assert_eq!(train_costs(), train_costs());
        println!("{:?}", train_costs());
    }
}
