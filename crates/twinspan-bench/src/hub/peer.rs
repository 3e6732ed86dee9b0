//! The other process: it sends back what comes, or counts it.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use twinspan_hub::{Bytes, Hub};
use twinspan_net::pin_to_core;
use twinspan_net::shm::End;

use super::floor::{Floor, SILENCE};
use super::{HubOptions, HubWait, Mode, allocations, build};
use crate::error::BenchError;
use crate::lines::Parent;
use crate::memory::{self, Memory};
use crate::process;

/// What the other process is told at first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) core: Option<usize>,
    /// Where the hub listens on a road over a network.
    pub(super) port: u16,
    /// Where the ends of the floor are.
    pub(super) ports: [u16; 4],
    pub(super) options: HubOptions,
}

impl Plan {
    /// Where the ends of the bare ring meet.
    pub(super) fn floor_name(&self) -> String {
        format!("{}/floor", self.name)
    }
}

/// What is done next.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Turn {
    Hub(Duration),
    Floor(Duration),
    End,
}

/// What the other process counted in a turn.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Counted {
    pub(super) messages: u64,
    pub(super) lost: u64,
    pub(super) seconds: f64,
    pub(super) cpu: Duration,
    pub(super) allocations: u64,
    /// What was read, so that reading cannot be left out.
    pub(super) sum: u64,
}

impl Counted {
    pub(super) fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.lost += other.lost;
        self.seconds += other.seconds;
        self.cpu += other.cpu;
        self.allocations += other.allocations;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// Writes a message's number to its first word.
pub(super) fn number(message: &mut [u8], number: u64) {
    if let Some(first) = message.first_chunk_mut::<8>() {
        *first = number.to_le_bytes();
    }
}

pub(super) fn number_of(message: &[u8]) -> u64 {
    message.first_chunk::<8>().map_or(0, |first| u64::from_le_bytes(*first))
}

/// Publishes as the options say.
pub(super) fn send(
    hub: &Hub<Bytes>,
    options: &HubOptions,
    message: &[u8],
) -> Result<(), BenchError> {
    if options.loan {
        let mut loan = hub.loan_bytes(message.len())?;
        if options.touch_all {
            // Written in place: nothing is read for it.
            loan.fill(number_of(message) as u8);
        }
        number(&mut loan, number_of(message));
        loan.publish()?;
    } else {
        hub.publish_bytes(message)?;
    }
    Ok(())
}

/// Receives as the options say; returns the message's number, and what was read of it, or `None` when
/// a road that loses messages brought none for long.
pub(super) fn receive(
    hub: &Hub<Bytes>,
    options: &HubOptions,
    room: &mut Bytes,
) -> Result<Option<(u64, u64)>, BenchError> {
    let read = |message: &[u8]| {
        let (words, _) = message.as_chunks::<8>();
        let sum = if options.touch_all {
            words.iter().fold(0, |sum: u64, word| sum.wrapping_add(u64::from_le_bytes(*word)))
        } else {
            number_of(message)
        };
        (number_of(message), sum)
    };
    if options.loan {
        let sample = hub.recv_bytes()?;
        return Ok(Some(read(&sample)));
    }
    if options.wait == HubWait::Async {
        *room = block_on(hub.recv_async())?;
    } else if options.loses_nothing() {
        hub.recv_into(room)?;
    } else if !hub.recv_into_timeout(room, SILENCE)? {
        return Ok(None);
    }
    Ok(Some(if options.touch_all && options.mode == Mode::Throughput {
        read(room)
    } else {
        (number_of(room), 0)
    }))
}

/// Wakes a thread that waits for a task.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs one task on this thread.
fn block_on<F: Future>(task: F) -> F::Output {
    let mut task = std::pin::pin!(task);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        match task.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// The other process.
///
/// # Errors
/// [`BenchError`] says what could not be had.
pub fn run() -> Result<(), BenchError> {
    let mut parent = Parent::default();
    let plan: Plan = parent.hear()?;
    let options = plan.options;
    if let Some(core) = plan.core {
        pin_to_core(core)?;
    }
    let mut bare = Floor::meet(&plan, End::Second)?;
    let hub = build(&plan, End::Second)?;
    if !hub.wait_for_subscribers(1, Duration::from_secs(10)) {
        return Err(BenchError::Plan("the parent did not join".into()));
    }
    parent.tell(&())?;
    let mut room = Bytes(vec![0; options.size]);
    memory::begin();
    loop {
        let turn: Turn = parent.hear()?;
        if matches!(turn, Turn::End) {
            return Ok(());
        }
        parent.tell(&())?;
        let before = (process::cpu_time(), Memory::now());
        let mut counted = match turn {
            Turn::Floor(_) => bare.answer(&options, &mut room.0)?.finish(),
            _ => hub_turn(&hub, &options, &mut room)?,
        };
        counted.cpu = process::cpu_time().saturating_sub(before.0);
        counted.allocations = allocations(before.1);
        parent.tell(&counted)?;
    }
}

/// Counts messages in order, from the first one on.
pub(super) struct Counter {
    counted: Counted,
    began: Option<Instant>,
    /// When the clock was looked at last.
    seen: Option<Instant>,
    next: u64,
}

impl Counter {
    pub(super) const fn new() -> Self {
        let counted = Counted {
            messages: 0,
            lost: 0,
            seconds: 0.0,
            cpu: Duration::ZERO,
            allocations: 0,
            sum: 0,
        };
        Self { counted, began: None, seen: None, next: 0 }
    }

    /// Counts one; false for the last.
    pub(super) fn count(&mut self, number: u64, read: u64) -> bool {
        if number == u64::MAX {
            self.counted.seconds = self.began.map_or(0.0, |began| began.elapsed().as_secs_f64());
            return false;
        }
        self.began.get_or_insert_with(Instant::now);
        if self.counted.messages & 1_023 == 0 {
            self.seen = Some(Instant::now());
        }
        // One that comes again, or behind a later one, counts as one that did not arrive.
        self.counted.lost += number.checked_sub(self.next).unwrap_or(1);
        self.next = number.wrapping_add(1);
        self.counted.messages += 1;
        self.counted.sum = self.counted.sum.wrapping_add(read);
        true
    }

    /// What was counted elsewhere.
    pub(super) const fn of_bytes(&mut self, messages: u64, seconds: f64) {
        self.counted.messages = messages;
        self.counted.seconds = seconds;
    }

    /// What was counted. Where the last message did not say so, the turn ended at the last look at
    /// the clock, some hundred messages before its end.
    pub(super) fn finish(mut self) -> Counted {
        if let (Some(began), Some(seen), true) =
            (self.began, self.seen, self.counted.seconds == 0.0)
        {
            self.counted.seconds = seen.duration_since(began).as_secs_f64();
        }
        self.counted
    }
}

fn hub_turn(
    hub: &Hub<Bytes>,
    options: &HubOptions,
    room: &mut Bytes,
) -> Result<Counted, BenchError> {
    let mut counter = Counter::new();
    loop {
        let Some((number, read)) = receive(hub, options, room)? else {
            // Nothing at all came yet: the other side has hardly begun.
            if counter.began.is_some() {
                return Ok(counter.finish());
            }
            continue;
        };
        if !counter.count(number, read) {
            return Ok(counter.finish());
        }
        if options.mode == Mode::Latency {
            if options.loan {
                let mut answer = hub.loan_bytes(options.size)?;
                super::peer::number(&mut answer, number);
                answer.publish()?;
            } else {
                hub.publish_bytes(room)?;
            }
        }
    }
}
