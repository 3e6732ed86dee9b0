//! The other process: it sends back what comes, or counts it.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use twinspan_hub::{Bytes, Hub};
use twinspan_net::pin_to_core;
use twinspan_net::shm::End;

use super::floor::{Certificate, Floor, SILENCE};
use super::options::{HubOptions, HubWait, Mode, Touch};
use super::{Steady, WARM_UP, build, inside, settle};
use crate::error::BenchError;
use crate::lines::Parent;
use crate::memory;
use crate::process;

/// Messages between two looks at the clock, where many come.
const MESSAGES_PER_CLOCK: u64 = 1_024;

/// Where the ends are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Net {
    pub(super) first: IpAddr,
    pub(super) second: IpAddr,
    /// The device that leads to the first, where the second is in a namespace of its own.
    pub(super) device: Option<String>,
}

impl Net {
    pub(super) const fn loopback() -> Self {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self { first: here, second: here, device: None }
    }
}

/// What the other process is told at first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) core: Option<usize>,
    pub(super) net: Net,
    /// Where the hub listens on a road over a network.
    pub(super) port: u16,
    /// Where the ends of the floor are.
    pub(super) ports: [u16; 4],
    /// What the floor of QUIC shows and believes.
    pub(super) certificate: Option<Certificate>,
    pub(super) options: HubOptions,
}

impl Plan {
    /// Where the ends of the bare ring meet.
    pub(super) fn floor_name(&self) -> String {
        format!("{}/floor", self.name)
    }
}

/// That the other process has joined.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    /// The ports of its floor that the first end has to know.
    pub(super) ports: Vec<u16>,
}

/// What is done next.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Turn {
    Hub(Duration),
    Floor(Duration),
    Memory(Duration),
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
}

impl Counted {
    pub(super) fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.lost += other.lost;
        self.seconds += other.seconds;
        self.cpu += other.cpu;
        self.allocations += other.allocations;
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

/// The byte that all of a message but its first word is made of.
const fn filling(options: &HubOptions, number: u64) -> u8 {
    // A loan is written for each message; what is copied is zeros behind the number.
    if options.loan { number as u8 } else { 0 }
}

/// A message as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    /// What its first word says.
    pub(super) number: u64,
    /// Whether what was read of it is what was written.
    pub(super) is_intact: bool,
}

impl Arrived {
    /// One of which nothing but the number is read.
    pub(super) const fn unread(number: u64) -> Self {
        Self { number, is_intact: true }
    }

    /// Reads as much of a message as was asked for.
    pub(super) fn read(message: &[u8], options: &HubOptions) -> Self {
        let number = number_of(message);
        if options.touch != Touch::All {
            return Self::unread(number);
        }
        let (words, _) = message.as_chunks::<8>();
        let sum =
            words.iter().fold(0, |sum: u64, word| sum.wrapping_add(u64::from_le_bytes(*word)));
        let filled = u64::from_le_bytes([filling(options, number); 8]);
        let others = words.len().saturating_sub(1) as u64;
        let expected = number.wrapping_add(filled.wrapping_mul(others));
        Self { number, is_intact: message.len() == options.size && sum == expected }
    }
}

/// Publishes as the options say.
pub(super) fn send(
    hub: &Hub<Bytes>,
    options: &HubOptions,
    message: &[u8],
) -> Result<(), BenchError> {
    if options.loan {
        let mut loan = hub.loan_bytes(message.len())?;
        if options.touch != Touch::First {
            // Written in place: nothing is read for it.
            loan.fill(filling(options, number_of(message)));
        }
        number(&mut loan, number_of(message));
        loan.publish()?;
    } else {
        hub.publish_bytes(message)?;
    }
    Ok(())
}

/// Who receives, on a thread or as a task.
pub(super) struct Ear<'a> {
    hub: &'a Hub<Bytes>,
    tasks: Option<Tasks<'a>>,
}

/// A runtime whose tasks wait for a hub's descriptor.
struct Tasks<'a> {
    runtime: Runtime,
    fd: AsyncFd<BorrowedFd<'a>>,
}

impl<'a> Ear<'a> {
    #[expect(
        deprecated,
        reason = "sound for descriptors that Rust owns; what replaces it is unsafe"
    )]
    pub(super) fn new(hub: &'a Hub<Bytes>, options: &HubOptions) -> Result<Self, BenchError> {
        let is_waited_for = options.wait == HubWait::Async;
        let Some(fd) = hub.fd().filter(|_| is_waited_for) else {
            return Ok(Self { hub, tasks: None });
        };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        drop(entered);
        Ok(Self { hub, tasks: Some(Tasks { runtime, fd }) })
    }

    /// Receives as a task; false when none came for long.
    fn hear(&self, Tasks { runtime, fd }: &Tasks<'_>, room: &mut Bytes) -> io::Result<bool> {
        // As the floor does: a timer only where nothing is there.
        match fd.try_io(Interest::READABLE, |_| self.hub.recv_into_nonblocking(room)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done.map(|()| true),
        }
        let came = fd.async_io(Interest::READABLE, |_| self.hub.recv_into_nonblocking(room));
        match runtime.block_on(async { timeout(SILENCE, came).await }) {
            Ok(came) => came.map(|()| true),
            Err(_) => Ok(false),
        }
    }
}

/// Receives as the options say; `None` when a road that loses messages brought none for long.
pub(super) fn receive(
    ear: &Ear<'_>,
    options: &HubOptions,
    room: &mut Bytes,
) -> Result<Option<Arrived>, BenchError> {
    let hub = ear.hub;
    if options.loan {
        let sample = hub.recv_bytes()?;
        return Ok(Some(Arrived::read(&sample, options)));
    }
    if let Some(tasks) = &ear.tasks {
        while !ear.hear(tasks, room)? {
            if !options.loses_nothing() {
                return Ok(None);
            }
        }
    } else if options.loses_nothing() {
        hub.recv_into(room)?;
    } else if !hub.recv_into_timeout(room, SILENCE)? {
        return Ok(None);
    }
    // What was copied has been read; throughput counts what the application reads of its copy.
    let is_read = options.mode == Mode::Throughput;
    Ok(Some(if is_read { Arrived::read(room, options) } else { Arrived::unread(number_of(room)) }))
}

/// The other process.
///
/// # Errors
/// [`BenchError`] says what could not be had.
pub fn run() -> Result<(), BenchError> {
    let mut parent = Parent::default();
    let plan: Plan = parent.hear()?;
    let options = plan.options;
    if let Some(device) = &plan.net.device {
        // The parent moves the device here only now, when it is sure that there is a namespace.
        parent.tell(&std::process::id())?;
        let () = parent.hear()?;
        inside::take_device(device, plan.net.second)?;
    }
    if let Some(core) = plan.core {
        pin_to_core(core)?;
    }
    let mut bare = Floor::meet(&plan, End::Second)?;
    let hubs: Vec<_> = (0..options.destinations.max(1))
        .map(|_| build(&plan, End::Second))
        .collect::<Result<_, _>>()?;
    settle(&options);
    for hub in &hubs {
        if !hub.wait_for_subscribers(1, Duration::from_secs(10)) {
            return Err(BenchError::Plan("the parent did not join".into()));
        }
    }
    parent.tell(&Ready { ports: bare.ports()? })?;
    let Some(hub) = hubs.first() else { return Ok(()) };
    let ear = Ear::new(hub, &options)?;
    let mut room = Bytes(vec![0; options.size]);
    memory::begin();
    loop {
        let turn: Turn = parent.hear()?;
        let time = match turn {
            Turn::End => return Ok(()),
            Turn::Hub(time) | Turn::Floor(time) | Turn::Memory(time) => time,
        };
        parent.tell(&())?;
        let mut counter = Counter::new(time);
        match turn {
            Turn::Floor(_) => bare.answer(&options, &mut room.0, &mut counter)?,
            Turn::Memory(_) => bare.memory_answer(&mut room.0, &mut counter),
            _ if hubs.len() > 1 => fan_turn(&hubs, &options, &mut counter)?,
            _ => hub_turn(&ear, &options, &mut room, &mut counter)?,
        }
        parent.tell(&counter.finish())?;
    }
}

/// Counts messages in order, from the first one on.
pub(super) struct Counter {
    counted: Counted,
    began: Option<Instant>,
    /// When the clock was looked at last.
    seen: Option<Instant>,
    next: u64,
    /// From then on the turn is warm.
    warm_after: Duration,
    /// Processor time at the beginning, and when the clock was looked at last.
    cpu: [Duration; 2],
    steady: Steady,
}

impl Counter {
    /// For a turn of such a time.
    pub(super) fn new(time: Duration) -> Self {
        Self {
            counted: Counted::default(),
            began: None,
            seen: None,
            next: 0,
            warm_after: time / WARM_UP,
            cpu: [process::cpu_time(); 2],
            steady: Steady::default(),
        }
    }

    /// Whether anything came.
    pub(super) const fn has_begun(&self) -> bool {
        self.began.is_some()
    }

    /// Counts one; false for the last.
    #[inline]
    pub(super) fn count(&mut self, Arrived { number, is_intact }: Arrived) -> bool {
        if number == u64::MAX {
            self.counted.seconds = self.began.map_or(0.0, |began| began.elapsed().as_secs_f64());
            self.cpu[1] = process::cpu_time();
            return false;
        }
        let messages = self.counted.messages;
        if messages.is_power_of_two() || messages.is_multiple_of(MESSAGES_PER_CLOCK) {
            self.look();
        }
        // One that comes again, or behind a later one, counts as one that did not arrive.
        self.counted.lost += number.checked_sub(self.next).unwrap_or(1);
        self.next = number.wrapping_add(1);
        if is_intact {
            self.counted.messages += 1;
        } else {
            self.counted.lost += 1;
        }
        true
    }

    /// Looks at the clock.
    fn look(&mut self) {
        let now = Instant::now();
        let began = *self.began.get_or_insert(now);
        self.seen = Some(now);
        self.cpu[1] = process::cpu_time();
        if now.duration_since(began) >= self.warm_after {
            self.steady.begin();
        }
    }

    /// What was counted elsewhere.
    pub(super) fn of_bytes(&mut self, messages: u64, seconds: f64) {
        self.counted.messages = messages;
        self.counted.seconds = seconds;
        self.cpu[1] = process::cpu_time();
    }

    /// What was counted. Where the last message did not say so, the turn ended at the last look at
    /// the clock, some hundred messages before its end.
    pub(super) fn finish(mut self) -> Counted {
        if let (Some(began), Some(seen), true) =
            (self.began, self.seen, self.counted.seconds == 0.0)
        {
            self.counted.seconds = seen.duration_since(began).as_secs_f64();
        }
        let [before, seen] = self.cpu;
        self.counted.cpu = seen.saturating_sub(before);
        self.counted.allocations = self.steady.end();
        self.counted
    }
}

fn hub_turn(
    ear: &Ear<'_>,
    options: &HubOptions,
    room: &mut Bytes,
    counter: &mut Counter,
) -> Result<(), BenchError> {
    let hub = ear.hub;
    if options.batch > 1 && options.loses_nothing() {
        return batch_turn(hub, options, counter);
    }
    loop {
        let Some(arrived) = receive(ear, options, room)? else {
            // Nothing at all came yet: the other side has hardly begun.
            if counter.has_begun() {
                return Ok(());
            }
            continue;
        };
        if !counter.count(arrived) {
            return Ok(());
        }
        if options.is_latency() {
            // A loan is written as the question was; a copy is the message that came.
            number(room, arrived.number);
            send(hub, options, room)?;
        }
    }
}

/// Takes as many messages at once as there are.
fn batch_turn(
    hub: &Hub<Bytes>,
    options: &HubOptions,
    counter: &mut Counter,
) -> Result<(), BenchError> {
    let mut rooms = vec![Bytes(Vec::with_capacity(options.size)); options.batch];
    loop {
        let count = hub.recv_all(&mut rooms).map_err(|(_, error)| error)?;
        for message in rooms.iter().take(count) {
            if !counter.count(Arrived::read(message, options)) {
                return Ok(());
            }
        }
    }
}

/// Messages taken from one subscriber before the next has its turn.
const FAN_BATCH: usize = 64;

/// Counts what all subscribers get, until nobody gets anything.
fn fan_turn(
    hubs: &[Hub<Bytes>],
    options: &HubOptions,
    counter: &mut Counter,
) -> Result<(), BenchError> {
    let mut rooms = vec![Bytes(Vec::with_capacity(options.size)); FAN_BATCH];
    let mut nexts = vec![0_u64; hubs.len()];
    let mut idle_since: Option<Instant> = None;
    loop {
        let mut came = 0;
        for (hub, next) in hubs.iter().zip(&mut nexts) {
            let count = hub.try_recv_all(&mut rooms).map_err(|(_, error)| error)?;
            for message in rooms.iter().take(count) {
                let Arrived { number, is_intact } = Arrived::read(message, options);
                if number == u64::MAX {
                    continue;
                }
                let lost = number.saturating_sub(*next);
                *next = number.wrapping_add(1);
                // In the order of all of them together: each has its own numbers.
                counter.count(Arrived { number: counter.next, is_intact });
                counter.counted.lost += lost;
            }
            came += count;
        }
        if came > 0 {
            idle_since = None;
        } else {
            let since = *idle_since.get_or_insert_with(Instant::now);
            if counter.has_begun() && since.elapsed() >= SILENCE {
                return Ok(());
            }
        }
    }
}
