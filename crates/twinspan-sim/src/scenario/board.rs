//! The scenario `board`: processes of one host tell one another numbers over topics in its memory, and
//! are killed while they write and while they hold what they read.
//!
//! Promises: what is taken is whole, in the order of its publisher, and each gap is told to the message;
//! who blocks misses nothing; once faults are healed every subscriber sees every publisher's last
//! number.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_provider::{
    TaskProvider, TopicInbox, TopicMessage, TopicOptions, TopicPolicy, TopicProvider,
    TopicPublishError, publish_patiently,
};
use xxhash_rust::xxh3::xxh3_64;

use super::{Hosted, Running, sleep};
use crate::env::SimEnv;
use crate::sim::Sim;
use crate::swarm::Options;
use crate::topic::{SimInbox, SimOutbox};

/// The kinds that this scenario alone can show.
pub const BOARD_KINDS: &[FaultKind] =
    &[FaultKind::TopicTorn, FaultKind::TopicHolder, FaultKind::TopicStall, FaultKind::TopicMemory];

/// The host that all processes are of.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 4, 1));
const TOPIC: &str = "board";
/// Words of a message before what fills it: who, which of its lives, what number, and a tag.
const HEAD_BYTES: usize = 32;
/// How long a process that was killed, or refused, takes to come again.
const RETRY: Duration = Duration::from_millis(20);
/// How long a publisher waits for who blocks it.
const ROOM_WAIT: Duration = Duration::from_millis(200);
/// Messages that a subscriber holds before it lets go of the first.
const HELD_MAX: usize = 3;

/// The scenario.
#[derive(Clone, Copy, Debug)]
pub struct Board;

impl Hosted for Board {
    fn name(&self) -> &'static str {
        "board"
    }

    fn kinds(&self) -> Vec<FaultKind> {
        use FaultKind as K;
        let hosts = [K::Crash, K::Pause, K::SlowCpu, K::TaskOrder];
        BOARD_KINDS.iter().copied().chain(hosts).collect()
    }

    fn marks(&self) -> &'static [&'static str] {
        &[
            "a message was missed",
            "a publisher came again",
            "a subscriber came again",
            "a publisher had no room",
            "a sample was held",
        ]
    }

    fn start(&self, sim: &mut Sim, options: &Options) -> Box<dyn Running> {
        let shape = Shape {
            writers: options.size("writers", 2, 1..=3),
            numbers: options.size("numbers", 60, 1..=200),
            bytes: options.size("bytes", 5_000, HEAD_BYTES as u64..=9_000),
            slots: options.size("slots", 8, 2..=32) as u32,
            blocks: options.size("blocks", 8, 4..=16) as u32,
            spacing: options.time(
                "spacing_us",
                Duration::from_millis(20),
                Duration::ZERO..=Duration::from_millis(60),
            ),
            pace: options.time(
                "pace_us",
                Duration::from_millis(5),
                Duration::ZERO..=Duration::from_millis(80),
            ),
        };
        let seen = Rc::new(RefCell::new(Seen::default()));
        let kept = Rc::clone(&seen);
        sim.boot("machine", HOST, move |env, _| {
            let mut tasks = Vec::new();
            for writer in 0..shape.writers {
                let seen = Rc::clone(&kept);
                tasks.push(env.spawn("writes", write(env.clone(), shape, writer, seen)));
            }
            for (reader, policy) in POLICIES.into_iter().enumerate() {
                let seen = Rc::clone(&kept);
                let who = (reader, policy);
                tasks.push(env.spawn("reads", read(env.clone(), shape, who, seen)));
            }
            tasks
        });
        Box::new(Boarding { shape, seen })
    }
}

/// What the subscribers do when they fall behind. One that drops new messages would starve the
/// others, which is what it is for; tests of the topics have it.
const POLICIES: [TopicPolicy; 2] = [TopicPolicy::Overwrite, TopicPolicy::Block];

/// How much is told, and how.
#[derive(Clone, Copy)]
struct Shape {
    writers: u64,
    /// Numbers that each publisher tells.
    numbers: u64,
    /// Bytes of a message.
    bytes: u64,
    slots: u32,
    blocks: u32,
    /// How long a publisher leaves between two messages.
    spacing: Duration,
    /// How long a subscriber takes for one.
    pace: Duration,
}

impl Shape {
    fn options(&self, policy: TopicPolicy) -> TopicOptions {
        TopicOptions {
            slots: self.slots,
            blocks: self.blocks,
            history: 1,
            policy,
            ..TopicOptions::new(self.bytes as usize)
        }
    }
}

/// What the scenario knows, whoever was killed.
#[derive(Default)]
struct Seen {
    /// Lives of publishers so far.
    lives: u64,
    /// How far each publisher has come.
    written: BTreeMap<u64, u64>,
    /// The highest number that a subscriber saw of a publisher.
    read: BTreeMap<(usize, u64), u64>,
    broken: Vec<String>,
}

impl Seen {
    fn break_promise(&mut self, what: String) {
        if self.broken.len() < 16 {
            self.broken.push(what);
        }
    }
}

fn message(shape: Shape, writer: u64, life: u64, number: u64) -> Vec<u8> {
    let mut bytes = vec![number as u8; shape.bytes as usize];
    for (room, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip([writer, life, number]) {
        *room = word.to_le_bytes();
    }
    let tag = tag(&bytes);
    if let Some(room) = bytes.as_chunks_mut::<8>().0.get_mut(3) {
        *room = tag.to_le_bytes();
    }
    bytes
}

/// Over all but the tag itself.
fn tag(bytes: &[u8]) -> u64 {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES).unwrap_or((bytes, &[]));
    xxh3_64(head.get(..24).unwrap_or_default()) ^ xxh3_64(rest).rotate_left(1)
}

/// Publisher, life and number; `None` when a message is not as it was written.
fn parse(bytes: &[u8]) -> Option<(u64, u64, u64)> {
    let mut words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    let parsed = (words.next()?, words.next()?, words.next()?);
    (words.next()? == tag(bytes)).then_some(parsed)
}

/// Tells all numbers, and then the last one again and again, for those who were not there.
async fn write(env: SimEnv, shape: Shape, writer: u64, seen: Rc<RefCell<Seen>>) {
    loop {
        if let Ok(outbox) = env.publish_to(TOPIC, &shape.options(TopicPolicy::Overwrite)) {
            tell(&env, shape, writer, outbox, &seen).await;
            crate::reachable!("a publisher came again");
        }
        sleep(&env, RETRY).await;
    }
}

/// Until the process is killed.
async fn tell(
    env: &SimEnv,
    shape: Shape,
    writer: u64,
    mut outbox: SimOutbox,
    seen: &RefCell<Seen>,
) {
    let life = {
        let mut seen = seen.borrow_mut();
        seen.lives += 1;
        seen.lives
    };
    loop {
        let next = seen.borrow().written.get(&writer).map_or(1, |last| last + 1);
        let number = next.min(shape.numbers);
        let bytes = message(shape, writer, life, number);
        match publish_patiently(env, &mut outbox, &bytes, ROOM_WAIT).await {
            Ok(_) => {
                seen.borrow_mut().written.insert(writer, number);
            }
            Err(TopicPublishError::Full | TopicPublishError::Exhausted) => {
                crate::reachable!("a publisher had no room");
            }
            Err(_) => return,
        }
        let spacing = if next > shape.numbers { RETRY } else { shape.spacing };
        sleep(env, spacing.max(Duration::from_micros(100))).await;
    }
}

async fn read(env: SimEnv, shape: Shape, who: (usize, TopicPolicy), seen: Rc<RefCell<Seen>>) {
    loop {
        if let Ok(inbox) = env.subscribe_to(TOPIC, &shape.options(who.1)) {
            hear(&env, shape, who, inbox, &seen).await;
            crate::reachable!("a subscriber came again");
        }
        sleep(&env, RETRY).await;
    }
}

/// Until the process is killed.
async fn hear(
    env: &SimEnv,
    shape: Shape,
    (reader, policy): (usize, TopicPolicy),
    mut inbox: SimInbox,
    seen: &RefCell<Seen>,
) {
    // What is expected next of each publisher's life, by what stands for it.
    let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
    let (mut room, mut held) = (Vec::new(), Vec::new());
    loop {
        let Ok(got) = inbox.try_hold(&mut room) else { return };
        let (taken, bytes) = match got {
            Some((taken, Some(sample))) => {
                crate::reachable!("a sample was held");
                let bytes = sample.as_ref().to_vec();
                held.push(sample);
                if held.len() > HELD_MAX {
                    held.remove(0);
                }
                (taken, bytes)
            }
            Some((taken, None)) => (taken, room.clone()),
            None => {
                held.clear();
                let taken = poll_fn(|cx| inbox.poll_take(cx, &mut room)).await;
                let Ok(taken) = taken else { return };
                (taken, room.clone())
            }
        };
        note(taken, &bytes, (reader, policy), &mut expected, &mut seen.borrow_mut());
        if !shape.pace.is_zero() {
            sleep(env, shape.pace).await;
        }
    }
}

fn note(
    taken: TopicMessage,
    bytes: &[u8],
    (reader, policy): (usize, TopicPolicy),
    expected: &mut BTreeMap<u64, u64>,
    seen: &mut Seen,
) {
    let Some((writer, _, number)) = parse(bytes) else {
        seen.break_promise(format!("subscriber {reader} got a message that is not whole"));
        return;
    };
    let next = expected.insert(taken.publisher, taken.number + 1);
    crate::sometimes!(taken.lost > 0, "a message was missed");
    if next.is_some_and(|next| next + taken.lost != taken.number) {
        seen.break_promise(format!(
            "subscriber {reader} was told of {} missed messages before message {}",
            taken.lost, taken.number
        ));
    }
    if policy == TopicPolicy::Block && taken.lost > 0 {
        seen.break_promise(format!("subscriber {reader} blocks and missed {}", taken.lost));
    }
    let last = seen.read.entry((reader, writer)).or_default();
    *last = number.max(*last);
}

/// The scenario in progress.
struct Boarding {
    shape: Shape,
    seen: Rc<RefCell<Seen>>,
}

impl Boarding {
    fn open(&self) -> usize {
        let seen = self.seen.borrow();
        let pairs =
            (0..POLICIES.len()).flat_map(|it| (0..self.shape.writers).map(move |by| (it, by)));
        pairs.filter(|pair| seen.read.get(pair) != Some(&self.shape.numbers)).count()
    }
}

impl Running for Boarding {
    fn is_settled(&self) -> bool {
        self.open() == 0
    }

    fn unsettled(&self) -> String {
        format!("{} last numbers of publishers were not seen by a subscriber", self.open())
    }

    fn broken(&self) -> Vec<String> {
        self.seen.borrow().broken.clone()
    }

    fn states(&self) -> Vec<(IpAddr, String)> {
        let seen = self.seen.borrow();
        let (written, lives) = (seen.written.values().sum::<u64>(), seen.lives);
        vec![(HOST, format!("{written} numbers told in {lives} lives of publishers"))]
    }
}
