//! Processes that take part in a topic are killed at any instant: who is left goes on, nothing is
//! torn, nothing is left behind, and the next one joins at once.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use twinspan_core::random::Stream;
use twinspan_hub::{Bytes, Hub, HubStats, Policy, PublishError, Roles, Wait};
use twinspan_net::shm::is_topic_taken;

use crate::child::Child;
use crate::error::BenchError;
use crate::lines::Parent;

/// The hidden command of a process that is killed.
const VICTIM: &str = "hub-victim";
/// Victims that live at a time.
const VICTIMS: usize = 2;
/// The longest that a victim lives after it has joined.
const LIFE_US_MAX: u64 = 2_500;
/// How long those who are left may take to move on before they count as hanging.
const PROGRESS_MAX: Duration = Duration::from_secs(20);
/// The longest message: some lie in their slots and some in blocks.
const BYTES_MAX: usize = 12_000;
const LENGTHS: [usize; 5] = [16, 48, 200, 5_000, BYTES_MAX];
/// Messages that are published together: several groups of the ring.
const BATCH: usize = 20;
/// Samples that a victim keeps.
const KEPT: usize = 12;

/// What a victim does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// It publishes.
    Publish,
    /// It receives, and may miss messages.
    Receive,
    /// It receives, and publishers wait for it.
    Block,
    /// It receives and keeps samples.
    Keep,
    /// It does both.
    Both,
}

impl Part {
    const ALL: [Self; 5] = [Self::Publish, Self::Receive, Self::Block, Self::Keep, Self::Both];
}

/// What a victim is told.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    topic: String,
    part: Part,
    seed: u64,
}

/// What a victim says.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    Joined { micros: u64 },
    Wrong { what: String },
}

/// What came out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct KillReport {
    /// The seed that the instants are drawn from.
    pub seed: u64,
    /// Processes killed.
    pub kills: u64,
    /// Those of them that published, received, or did both.
    pub killed_publishers: u64,
    /// Those that received.
    pub killed_subscribers: u64,
    /// Messages that those who are left checked byte by byte.
    pub checked: u64,
    /// Messages that were not whole, or not in order, or whose gaps were told wrong.
    pub torn: u64,
    /// What the first of them was.
    pub first_torn: Option<String>,
    /// Times that somebody who is left did not move on.
    pub hangs: u64,
    /// Segments that are still mapped, and places still taken, at the end.
    pub leaked_segments: u64,
    /// Median time in which a process joined, in milliseconds.
    pub rejoin_p50_ms: f64,
    /// The 99th percentile.
    pub rejoin_p99_ms: f64,
    /// The longest.
    pub rejoin_max_ms: f64,
    /// Messages that the ones who are left missed, all of them told.
    pub lost: u64,
}

impl KillReport {
    /// Whether nobody was harmed.
    pub const fn is_good(&self) -> bool {
        self.torn == 0 && self.hangs == 0 && self.leaked_segments == 0 && self.checked > 0
    }
}

/// The word that message `number` of the publisher `nonce` consists of.
const fn word(nonce: u64, number: u64) -> u64 {
    let mixed = (nonce ^ number.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

/// Writes a message: who, which, and a word that follows from both, to the end.
fn write(bytes: &mut [u8], nonce: u64, number: u64) {
    let word = word(nonce, number).to_le_bytes();
    let (words, _) = bytes.as_chunks_mut::<8>();
    words.fill(word);
    if let [first, second, ..] = words {
        (*first, *second) = (nonce.to_le_bytes(), number.to_le_bytes());
    }
}

/// What is wrong with a message, if anything is.
fn check(bytes: &[u8]) -> Result<(u64, u64), String> {
    let (words, _) = bytes.as_chunks::<8>();
    let [nonce, number, rest @ ..] = words else { return Err("it is too short".into()) };
    let (nonce, number) = (u64::from_le_bytes(*nonce), u64::from_le_bytes(*number));
    let expected = word(nonce, number).to_le_bytes();
    match rest.iter().position(|word| *word != expected) {
        Some(at) => Err(format!("message {number} is another one from word {at} on")),
        None => Ok((nonce, number)),
    }
}

/// What somebody who is left does, and how far it is.
struct Survivor {
    progress: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<(HubStats, u64, Option<String>)>,
}

impl Survivor {
    fn start(
        mut turn: impl FnMut() -> Result<bool, String> + Send + 'static,
        stats: impl FnOnce() -> HubStats + Send + 'static,
    ) -> Self {
        let (progress, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, over) = (Arc::clone(&progress), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            let (mut torn, mut first) = (0, None);
            while !over.load(Ordering::Relaxed) {
                match turn() {
                    Ok(moved) => {
                        counted.fetch_add(u64::from(moved), Ordering::Relaxed);
                    }
                    Err(what) => {
                        torn += 1;
                        first.get_or_insert(what);
                    }
                }
            }
            (stats(), torn, first)
        });
        Self { progress, is_over, thread }
    }
}

/// Somebody who receives and checks: each publisher's messages whole, in order, with exact gaps.
fn receiver(hub: Arc<Hub<Bytes>>) -> impl FnMut() -> Result<bool, String> {
    let mut expected = std::collections::BTreeMap::new();
    move || {
        let message = hub.recv_timeout_message(Duration::from_millis(20));
        let Some(message) = message.map_err(|error| error.to_string())? else { return Ok(false) };
        let (_, number) = check(&message.value)?;
        let next = expected.insert(message.publisher, message.number + 1);
        if number != message.number {
            return Err(format!("message {number} came as {}", message.number));
        }
        match next {
            Some(next) if next + message.lost != number => {
                Err(format!("{number} after {next} with {} told as lost", message.lost))
            }
            _ => Ok(true),
        }
    }
}

/// Somebody who publishes messages of many lengths.
fn sender(hub: Arc<Hub<Bytes>>, seed: u64) -> impl FnMut() -> Result<bool, String> {
    let mut random = Stream::new(seed, "lengths", 0);
    let nonce = random.next_u64();
    let mut number = 0;
    let mut batch = vec![Bytes(vec![0; LENGTHS[2]]); BATCH];
    move || {
        if random.below(4) == 0 {
            for (message, number) in batch.iter_mut().zip(number..) {
                write(message, nonce, number);
            }
            return match hub.publish_all(&batch) {
                Ok(count) => {
                    number += count as u64;
                    Ok(true)
                }
                Err((count, error)) => {
                    number += count as u64;
                    if is_refusal(&error) { Ok(count > 0) } else { Err(error.to_string()) }
                }
            };
        }
        let length = LENGTHS[random.below(LENGTHS.len() as u64) as usize % LENGTHS.len()];
        let mut loan = match hub.loan_bytes(length) {
            Ok(loan) => loan,
            Err(error) => {
                return if is_refusal(&error) { Ok(false) } else { Err(error.to_string()) };
            }
        };
        write(&mut loan, nonce, number);
        match loan.publish() {
            Ok(given) if given == number => {
                number += 1;
                Ok(true)
            }
            Ok(given) => Err(format!("message {number} was given {given}")),
            Err(error) if is_refusal(&error) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Whether others are at their limit, which they may be for a moment.
const fn is_refusal(error: &PublishError) -> bool {
    use twinspan_net::shm::PublishError as Road;
    matches!(error, PublishError::Road(Road::Exhausted | Road::Dropped))
}

fn build(topic: &str, roles: Roles, policy: Policy, wait: Wait) -> Result<Hub<Bytes>, BenchError> {
    let builder = Hub::<Bytes>::builder(topic).roles(roles).policy(policy).wait(wait);
    Ok(builder.depth(64).pool_blocks(48).message_bytes_max(BYTES_MAX).build()?)
}

/// Kills `kills` processes, at instants drawn from `seed`.
///
/// # Errors
/// [`BenchError`] when processes cannot be started or the topic cannot be had.
pub fn run(kills: u64, seed: u64) -> Result<KillReport, BenchError> {
    let topic = format!("bench/kill/{}", std::process::id());
    let survivors = [
        (Roles::Publisher, Policy::Overwrite, Wait::Adaptive),
        (Roles::Subscriber, Policy::Overwrite, Wait::Adaptive),
        (Roles::Subscriber, Policy::Block, Wait::Block),
    ];
    let mut left = Vec::new();
    for (roles, policy, wait) in survivors {
        let hub = Arc::new(build(&topic, roles, policy, wait)?);
        let end = Arc::clone(&hub);
        let stats = move || end.stats();
        left.push(match roles {
            Roles::Publisher => Survivor::start(sender(hub, seed), stats),
            _ => Survivor::start(receiver(hub), stats),
        });
    }
    let mut random = Stream::new(seed, "kills", 0);
    let mut report = KillReport { seed, ..KillReport::default() };
    let mut joins = Vec::new();
    while report.kills < kills {
        let before: Vec<_> = left.iter().map(|one| one.progress.load(Ordering::Relaxed)).collect();
        round(&topic, &mut random, &mut report, &mut joins)?;
        let began = Instant::now();
        while left
            .iter()
            .zip(&before)
            .any(|(one, was)| one.progress.load(Ordering::Relaxed) == *was)
        {
            if began.elapsed() > PROGRESS_MAX {
                report.hangs += 1;
                break;
            }
            thread::sleep(Duration::from_micros(100));
        }
    }
    for Survivor { is_over, thread, .. } in left {
        is_over.store(true, Ordering::Relaxed);
        let Ok((stats, torn, first)) = thread.join() else {
            report.hangs += 1;
            continue;
        };
        report.torn += torn + stats.corrupt;
        report.first_torn = report.first_torn.take().or(first);
        report.checked += stats.received;
        report.lost += stats.lost;
    }
    report.leaked_segments = leaked() + u64::from(is_topic_taken(&topic).unwrap_or(true));
    joins.sort_unstable();
    let at = |part: usize| joins.get(joins.len().saturating_sub(1) * part / 100);
    let ms = |micros: Option<&u64>| micros.map_or(0.0, |micros| *micros as f64 / 1_000.0);
    report.rejoin_p50_ms = ms(at(50));
    report.rejoin_p99_ms = ms(at(99));
    report.rejoin_max_ms = ms(joins.last());
    Ok(report)
}

/// Starts victims, lets each live for a moment, and kills them.
fn round(
    topic: &str,
    random: &mut Stream,
    report: &mut KillReport,
    joins: &mut Vec<u64>,
) -> Result<(), BenchError> {
    let mut victims = Vec::new();
    for _ in 0..VICTIMS {
        let part = Part::ALL[random.below(Part::ALL.len() as u64) as usize % Part::ALL.len()];
        let mut child = Child::start(VICTIM)?;
        child.tell(&Plan { topic: topic.to_owned(), part, seed: random.next_u64() })?;
        victims.push((part, child));
        // One in eight is not even waited for: it is killed while it starts or joins.
        if random.below(8) == 0 {
            thread::sleep(Duration::from_micros(random.below(4_000)));
            continue;
        }
        if let Some((_, child)) = victims.last_mut() {
            match child.hear()? {
                Said::Joined { micros } => joins.push(micros),
                Said::Wrong { what } => wrong(report, what),
            }
        }
    }
    for (part, mut child) in victims {
        thread::sleep(Duration::from_micros(random.below(LIFE_US_MAX)));
        child.kill();
        while let Ok(said) = child.hear() {
            match said {
                Said::Joined { .. } => {}
                Said::Wrong { what } => wrong(report, what),
            }
        }
        report.kills += 1;
        report.killed_publishers += u64::from(matches!(part, Part::Publish | Part::Both));
        report.killed_subscribers += u64::from(part != Part::Publish);
    }
    Ok(())
}

fn wrong(report: &mut KillReport, what: String) {
    report.torn += 1;
    report.first_torn.get_or_insert(what);
}

/// Segments that this process still has mapped.
fn leaked() -> u64 {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines().filter(|line| line.contains("memfd:twinspan.hub/bench/kill")).count() as u64
}

/// A victim: it does its part until it is killed.
///
/// # Errors
/// [`BenchError`] when it cannot join.
pub fn run_victim() -> Result<(), BenchError> {
    let mut parent = Parent::default();
    let Plan { topic, part, seed } = parent.hear()?;
    let (roles, policy) = match part {
        Part::Publish => (Roles::Publisher, Policy::Overwrite),
        Part::Receive | Part::Keep => (Roles::Subscriber, Policy::Overwrite),
        Part::Block => (Roles::Subscriber, Policy::Block),
        Part::Both => (Roles::Both, Policy::Overwrite),
    };
    let wait = if seed & 1 == 0 { Wait::Adaptive } else { Wait::Block };
    let began = Instant::now();
    let hub = Arc::new(build(&topic, roles, policy, wait)?);
    let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    parent.tell(&Said::Joined { micros })?;
    let mut send = sender(Arc::clone(&hub), seed);
    let mut receive = receiver(Arc::clone(&hub));
    let mut kept = std::collections::VecDeque::new();
    loop {
        let done = match part {
            Part::Publish => send(),
            Part::Receive | Part::Block => receive(),
            Part::Both => send().and_then(|_| receive()),
            Part::Keep => hub.recv_bytes().map_err(|error| error.to_string()).and_then(|sample| {
                kept.push_back(sample);
                // What is kept stays what it was.
                let first = if kept.len() > KEPT { kept.pop_front() } else { None };
                first.map_or(Ok(()), |first| check(&first).map(|_| ())).map(|()| true)
            }),
        };
        if let Err(what) = done {
            parent.tell(&Said::Wrong { what: format!("{part:?}: {what}") })?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_two_is_noticed() {
        let mut bytes = vec![0; 200];
        write(&mut bytes, 7, 9);
        assert_eq!(check(&bytes), Ok((7, 9)));
        let mut other = vec![0; 200];
        write(&mut other, 7, 10);
        bytes[96..].copy_from_slice(&other[96..]);
        assert_eq!(check(&bytes), Err("message 9 is another one from word 10 on".into()));
        assert!(check(&[0; 15]).is_err());
    }
}
