//! The measurement itself: round trips, streams, and what is counted of them, the same for all libraries.

use std::hint::{black_box, spin_loop};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{Mode, Plan, Touch, process};

/// Bytes of the number that a message begins with.
pub const WORD: usize = 8;
/// The number of the last message.
pub const LAST: u64 = u64::MAX;
/// The share of the time that does not count.
const WARM_UP: u32 = 5;
/// Samples that are kept.
const SAMPLES_MAX: usize = 4_000_000;
/// Messages between two looks at the clock.
const MESSAGES_PER_CLOCK: u64 = 64;

/// What the measuring process saw.
#[derive(Debug, Default)]
pub struct Figures {
    samples: Vec<u64>,
    pub sent: u64,
    pub seconds: f64,
    pub cpu: Duration,
}

impl Figures {
    /// A part of all samples, in nanoseconds one way.
    pub fn at(&mut self, part: f64) -> u64 {
        self.samples.sort_unstable();
        let index = (self.samples.len() as f64 * part) as usize;
        self.samples.get(index.min(self.samples.len().saturating_sub(1))).copied().unwrap_or(0)
    }
}

/// What the other process counted.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Counted {
    pub messages: u64,
    /// From the first message to the last.
    pub seconds: f64,
    pub cpu_seconds: f64,
}

/// Counts messages until the last one.
pub struct Counter {
    counted: Counted,
    began: Option<(Instant, Duration)>,
}

impl Counter {
    pub const fn new() -> Self {
        let counted = Counted { messages: 0, seconds: 0.0, cpu_seconds: 0.0 };
        Self { counted, began: None }
    }

    /// Counts one; false for the last.
    #[inline]
    pub fn count(&mut self, number: u64) -> bool {
        let began = *self.began.get_or_insert_with(|| (Instant::now(), process::cpu_time()));
        if number == LAST {
            self.counted.seconds = began.0.elapsed().as_secs_f64();
            self.counted.cpu_seconds = process::cpu_time().saturating_sub(began.1).as_secs_f64();
            return false;
        }
        self.counted.messages += 1;
        true
    }

    pub const fn messages(&self) -> u64 {
        self.counted.messages
    }

    pub fn into_counted(self) -> Counted {
        self.counted
    }
}

/// Writes a message in place.
#[inline]
pub fn write(message: &mut [u8], number: u64, touch: Touch) {
    if touch != Touch::First {
        message.fill(number as u8);
    }
    if let Some(first) = message.first_chunk_mut::<WORD>() {
        *first = number.to_le_bytes();
    }
}

/// Reads a message in place and returns its number.
#[inline]
pub fn read(message: &[u8], touch: Touch) -> u64 {
    if touch == Touch::All {
        let (words, _) = message.as_chunks::<WORD>();
        let add = |sum: u64, word: &[u8; WORD]| sum.wrapping_add(u64::from_le_bytes(*word));
        black_box(words.iter().fold(0, add));
    }
    message.first_chunk::<WORD>().map_or(LAST, |first| u64::from_le_bytes(*first))
}

/// One end of a road: it sends, and waits for what comes.
pub trait End {
    /// Sends a message; waits while there is no room.
    fn send(&mut self, number: u64) -> Result<()>;
    /// Waits for a message and returns its number.
    fn receive(&mut self) -> Result<u64>;
}

/// Measures from this end, the other one being served.
pub fn drive(end: &mut impl End, plan: &Plan, figures: &mut Figures) -> Result<()> {
    figures.samples.reserve_exact(SAMPLES_MAX);
    let (began, cpu) = (Instant::now(), process::cpu_time());
    match plan.mode {
        Mode::Latency => ping_pong(end, plan, figures)?,
        Mode::Throughput => stream(end, plan, figures)?,
    }
    figures.seconds = began.elapsed().as_secs_f64();
    figures.cpu = process::cpu_time().saturating_sub(cpu);
    end.send(LAST)
}

fn ping_pong(end: &mut impl End, plan: &Plan, figures: &mut Figures) -> Result<()> {
    let began = Instant::now();
    let (warm, time) = (plan.time() / WARM_UP, plan.time());
    let mut number = 0;
    loop {
        let sent = Instant::now();
        end.send(number)?;
        end.receive()?;
        let back = Instant::now();
        number += 1;
        figures.sent = number;
        let elapsed = back.duration_since(began);
        if elapsed >= time {
            return Ok(());
        }
        if elapsed >= warm && figures.samples.len() < SAMPLES_MAX {
            let trip = back.duration_since(sent).as_nanos() / 2;
            figures.samples.push(u64::try_from(trip).unwrap_or(u64::MAX));
        }
        while back.elapsed() < plan.gap() {
            spin_loop();
        }
    }
}

fn stream(end: &mut impl End, plan: &Plan, figures: &mut Figures) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < plan.time() {
        for _ in 0..MESSAGES_PER_CLOCK {
            end.send(figures.sent)?;
            figures.sent += 1;
        }
    }
    Ok(())
}

/// Answers each message, or counts it, until the last one.
pub fn answer(end: &mut impl End, plan: &Plan) -> Result<Counted> {
    let mut counter = Counter::new();
    loop {
        let number = end.receive()?;
        if !counter.count(number) {
            return Ok(counter.into_counted());
        }
        if plan.mode == Mode::Latency {
            end.send(number)?;
        }
    }
}
