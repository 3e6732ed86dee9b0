//! Topics in the memory of a simulated host: what `twinspan_net::shm` does, without its memory.
//!
//! A handle stands for a process that uses a topic: dropping it is leaving, and planned faults kill the
//! process while it writes or holds a sample. A message is there for all at the moment that it is
//! published. Memory of a host is gone with the host.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_core::random::draw;
use twinspan_core::time::Timestamp;
use twinspan_provider::{
    TOPIC_HOLDS_MAX, Timer, TopicInbox, TopicJoinError, TopicMessage, TopicOptions, TopicOutbox,
    TopicPolicy, TopicProvider, TopicPublishError, TopicSample, TopicTakeError,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::chaos::Strike;
use crate::env::SimEnv;
use crate::network::Waiting;
use crate::plan::{Place, site_key};
use crate::timer::{SimTimer, keep_waker};
use crate::trace::TraceKind;
use crate::world::{HostId, State, World};

/// Participants of one topic.
pub const TOPIC_MEMBERS_MAX: usize = 64;
/// Topics of one simulation.
pub const TOPICS_MAX: usize = 1 << 16;
/// Bytes of a topic's name.
const NAME_BYTES_MAX: usize = 80;
/// The longest message, most messages and blocks that a topic's memory may be asked for.
const MESSAGE_BYTES_MAX: usize = 256 << 20;
const SLOTS_MAX: u32 = 1 << 16;
const BLOCKS_MAX: u32 = 1 << 16;
/// Up to so many bytes every message lies in its slot.
const INLINE_BYTES_MAX: usize = 4_096;
/// How long a reader that stalls takes nothing.
const STALL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(3));

/// A host, which of its starts, and a topic's name.
type Name = (HostId, u32, Rc<str>);

/// All topics of a simulation.
#[derive(Default)]
pub(crate) struct Topics {
    by_name: BTreeMap<Name, Topic>,
    /// Which start of a host it is, and how many joined topics on it. Kept when a topic is forgotten:
    /// a sample that outlives its topic must not stand for one of another.
    joined: BTreeMap<HostId, (u32, u64)>,
}

#[derive(Default)]
struct Topic {
    writers: BTreeMap<u64, Writer>,
    readers: BTreeMap<u64, Reader>,
}

/// One publisher's memory.
struct Writer {
    /// What stands for it in messages.
    id: u64,
    inline_bytes: usize,
    message_bytes: usize,
    slots: u64,
    blocks: u64,
    history: u64,
    /// The number of the next message.
    next: u64,
    /// The messages before it that the ring still has, the last of them at the end.
    ring: VecDeque<Slot>,
    /// Messages that are held, though the ring may have them no more: by which subscribers.
    held: BTreeMap<u64, BTreeSet<u64>>,
    is_gone: bool,
}

enum Slot {
    Inline(Rc<[u8]>),
    Pooled(Rc<[u8]>),
    /// Its block was taken back.
    Retired,
}

struct Reader {
    policy: TopicPolicy,
    message_bytes: usize,
    lanes: BTreeMap<u64, Lane>,
    /// The publisher that is looked at first.
    turn: u64,
    held: usize,
    stalled_until: Timestamp,
    waiting: Waiting,
}

/// How far a subscriber is with one publisher.
struct Lane {
    next: u64,
    /// Messages missed since the last one that was taken.
    lost: u64,
    /// The first message whose loss is one: those before it were history.
    joined_at: u64,
}

impl Writer {
    fn new(id: u64, options: &TopicOptions) -> Self {
        let is_inline = options.message_bytes <= INLINE_BYTES_MAX;
        let inline = options.inline_bytes.min(INLINE_BYTES_MAX);
        Self {
            id,
            inline_bytes: if is_inline { options.message_bytes } else { inline },
            message_bytes: options.message_bytes,
            slots: u64::from(options.slots.next_power_of_two()),
            blocks: u64::from(options.blocks),
            history: u64::from(options.history),
            next: 0,
            ring: VecDeque::new(),
            held: BTreeMap::new(),
            is_gone: false,
        }
    }

    /// The oldest message that the ring has a slot for.
    fn oldest(&self) -> u64 {
        self.next - self.ring.len() as u64
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let index = usize::try_from(number.checked_sub(self.oldest())?).ok()?;
        self.ring.get_mut(index)
    }

    fn free_blocks(&self) -> u64 {
        let is_pooled = |slot: &&Slot| matches!(slot, Slot::Pooled(_));
        let published = self.ring.iter().filter(is_pooled).count() as u64;
        // Held ones whose message is still in the ring count there.
        let first = self.oldest();
        let in_ring = |number: &u64| {
            let index = number.checked_sub(first).and_then(|index| usize::try_from(index).ok());
            index.and_then(|index| self.ring.get(index)).is_some_and(|slot| is_pooled(&slot))
        };
        let loose = self.held.keys().filter(|number| !in_ring(number)).count() as u64;
        self.blocks.saturating_sub(published + loose)
    }

    /// Nobody begins to read the messages before `end` any more.
    fn take_back_before(&mut self, end: u64) {
        let count = usize::try_from(end.saturating_sub(self.oldest())).unwrap_or(usize::MAX);
        for slot in self.ring.iter_mut().take(count) {
            if matches!(slot, Slot::Pooled(_)) {
                *slot = Slot::Retired;
            }
        }
    }

    /// Takes the oldest long message back; false when there is none.
    fn force(&mut self) -> bool {
        let oldest = self.ring.iter_mut().find(|slot| matches!(slot, Slot::Pooled(_)));
        oldest.map(|slot| *slot = Slot::Retired).is_some()
    }

    /// A subscriber holds these messages no more.
    fn let_go(&mut self, member: u64, which: impl Fn(u64) -> bool) {
        self.held.retain(|number, holders| {
            if which(*number) {
                holders.remove(&member);
            }
            !holders.is_empty()
        });
    }

    fn push(&mut self, bytes: &[u8]) -> u64 {
        let bytes: Rc<[u8]> = bytes.into();
        let is_long = bytes.len() > self.inline_bytes;
        self.ring.push_back(if is_long { Slot::Pooled(bytes) } else { Slot::Inline(bytes) });
        self.next += 1;
        if self.ring.len() as u64 > self.slots {
            self.ring.pop_front();
        }
        self.next - 1
    }
}

impl Lane {
    /// Leaves messages out.
    fn skip_to(&mut self, next: u64) {
        let from = self.next.max(self.joined_at);
        self.lost += next.saturating_sub(from);
        self.next = next;
    }
}

/// What was taken: which publisher's it is, what is known of it, its bytes, and whether they lie in a block.
type Took = (u64, TopicMessage, Rc<[u8]>, bool);

impl Topic {
    /// Whether nobody takes part any more.
    fn is_empty(&self) -> bool {
        self.readers.is_empty() && self.writers.values().all(|writer| writer.is_gone)
    }

    fn add_writer(&mut self, member: u64, id: u64, options: &TopicOptions) {
        self.writers.insert(member, Writer::new(id, options));
        for reader in self.readers.values_mut() {
            reader.lanes.insert(member, Lane { next: 0, lost: 0, joined_at: 0 });
        }
    }

    fn add_reader(&mut self, member: u64, options: &TopicOptions) {
        let history = u64::from(options.history);
        let lane = |writer: &Writer| {
            let start = writer.next.saturating_sub(history.min(writer.slots / 2));
            Lane { next: start, lost: 0, joined_at: writer.next }
        };
        // Who is gone is met by nobody.
        let here = self.writers.iter().filter(|(_, writer)| !writer.is_gone);
        let reader = Reader {
            policy: options.policy,
            message_bytes: options.message_bytes,
            lanes: here.map(|(member, writer)| (*member, lane(writer))).collect(),
            turn: 0,
            held: 0,
            stalled_until: Timestamp::START,
            waiting: Waiting::default(),
        };
        self.readers.insert(member, reader);
    }

    /// A publisher goes; its memory stays until those who were there have read it.
    fn leave_writer(&mut self, member: u64) {
        if let Some(writer) = self.writers.get_mut(&member) {
            writer.is_gone = true;
        }
        self.readers.values_mut().for_each(|reader| reader.waiting.wake());
        self.forget_drained();
    }

    /// Forgets publishers that are gone and whom nobody reads any more.
    fn forget_drained(&mut self) {
        let readers = &self.readers;
        self.writers.retain(|member, writer| {
            !writer.is_gone || readers.values().any(|reader| reader.lanes.contains_key(member))
        });
    }

    /// A subscriber goes; what it held is free.
    fn leave_reader(&mut self, member: u64) -> Option<Reader> {
        let reader = self.readers.remove(&member);
        self.forget_drained();
        reader
    }

    fn publish(&mut self, member: u64, bytes: &[u8]) -> Result<u64, TopicPublishError> {
        let Self { writers, readers, .. } = self;
        let Some(writer) = writers.get_mut(&member).filter(|writer| !writer.is_gone) else {
            return Err(TopicPublishError::Gone);
        };
        let (have, max) = (bytes.len(), writer.message_bytes);
        if have > max {
            return Err(TopicPublishError::TooLong { have, max });
        }
        let lanes = || {
            let of = |reader: &Reader| Some((reader.policy, reader.lanes.get(&member)?.next));
            readers.values().filter_map(of).collect::<Vec<_>>()
        };
        let strict = |policy: TopicPolicy| policy != TopicPolicy::Overwrite;
        // Of several that are full, one that drops decides: nobody waits for nothing.
        let refusal = |full: &mut dyn Iterator<Item = TopicPolicy>| {
            let policies: Vec<_> = full.collect();
            match policies.as_slice() {
                [] => None,
                some if some.contains(&TopicPolicy::DropNew) => Some(TopicPublishError::Dropped),
                _ => Some(TopicPublishError::Full),
            }
        };
        let (next, slots) = (writer.next, writer.slots);
        let full = |(policy, at): &(TopicPolicy, u64)| strict(*policy) && next - at >= slots;
        let mut slow = lanes().into_iter().filter(full).map(|(policy, _)| policy);
        if let Some(error) = refusal(&mut slow) {
            return Err(error);
        }
        if have > writer.inline_bytes {
            if writer.free_blocks() == 0 {
                let read = lanes().iter().map(|(_, at)| *at).min().unwrap_or(next);
                writer.take_back_before(read.min(next.saturating_sub(writer.history)));
            }
            if writer.free_blocks() == 0 {
                let is_loose = !writer.held.is_empty();
                let needs =
                    |(policy, at): &(TopicPolicy, u64)| strict(*policy) && (*at < next || is_loose);
                let mut needs = lanes().into_iter().filter(needs).map(|(policy, _)| policy);
                if let Some(error) = refusal(&mut needs) {
                    return Err(error);
                }
            }
            while writer.free_blocks() == 0 {
                if !writer.force() {
                    return Err(TopicPublishError::Exhausted);
                }
            }
        }
        let number = writer.push(bytes);
        readers.values_mut().for_each(|reader| reader.waiting.wake());
        Ok(number)
    }

    /// The next message for a subscriber. One that would have to be held stays where it is when
    /// there is no place for that.
    fn take(&mut self, member: u64, holds: bool) -> Result<Option<Took>, TopicTakeError> {
        let Self { writers, readers, .. } = self;
        let Some(reader) = readers.get_mut(&member) else { return Err(TopicTakeError::Gone) };
        let order: Vec<u64> = {
            let after = reader.lanes.range(reader.turn..).map(|(key, _)| *key);
            after.chain(reader.lanes.range(..reader.turn).map(|(key, _)| *key)).collect()
        };
        let mut drained = Vec::new();
        let mut outcome = Ok(None);
        for key in order {
            let Some(writer) = writers.get_mut(&key) else {
                drained.push(key);
                continue;
            };
            match Self::take_from(reader, (member, key), writer, holds) {
                Ok(None) if writer.is_gone => drained.push(key),
                Ok(None) => {}
                taken => {
                    outcome = taken;
                    reader.turn = key + 1;
                    break;
                }
            }
        }
        if !drained.is_empty() {
            reader.lanes.retain(|key, _| !drained.contains(key));
            self.forget_drained();
        }
        outcome
    }

    fn take_from(
        reader: &mut Reader,
        (member, key): (u64, u64),
        writer: &mut Writer,
        holds: bool,
    ) -> Result<Option<Took>, TopicTakeError> {
        let (slots, id) = (writer.slots, writer.id);
        let Some(lane) = reader.lanes.get_mut(&key) else { return Ok(None) };
        while lane.next < writer.next {
            if lane.next < writer.oldest() {
                // Goes on with what will not be overwritten at once.
                let kept = slots - slots / 8 - 1;
                lane.skip_to(writer.next.saturating_sub(kept).max(lane.next + 1));
                continue;
            }
            let (bytes, is_long) = match writer.slot(lane.next) {
                Some(Slot::Inline(bytes)) => (Rc::clone(bytes), false),
                Some(Slot::Pooled(bytes)) => (Rc::clone(bytes), true),
                _ => {
                    lane.skip_to(lane.next + 1);
                    continue;
                }
            };
            if bytes.len() > reader.message_bytes {
                lane.skip_to(lane.next + 1);
                continue;
            }
            let is_held = holds && is_long;
            if is_held {
                if reader.held >= TOPIC_HOLDS_MAX {
                    return Err(TopicTakeError::TooManyHeld);
                }
                reader.held += 1;
                writer.held.entry(lane.next).or_default().insert(member);
            }
            let taken = TopicMessage { publisher: id, number: lane.next, lost: lane.lost };
            lane.lost = 0;
            lane.next += 1;
            return Ok(Some((key, taken, bytes, is_held)));
        }
        Ok(None)
    }

    fn release(&mut self, (member, key, number): (u64, u64, u64)) {
        if let Some(reader) = self.readers.get_mut(&member) {
            reader.held = reader.held.saturating_sub(1);
        }
        let Some(writer) = self.writers.get_mut(&key) else { return };
        writer.let_go(member, |held| held == number);
    }

    /// A subscriber's process ends, and what it holds is free.
    fn kill_reader(&mut self, member: u64) -> Option<Reader> {
        self.writers.values_mut().for_each(|writer| writer.let_go(member, |_| true));
        self.leave_reader(member)
    }
}

impl Topics {
    fn at(&mut self, name: &Name) -> Option<&mut Topic> {
        self.by_name.get_mut(name)
    }

    /// The number of the next member on this start of a host.
    fn next_member(&mut self, (host, start, _): &Name) -> u64 {
        let (of, joined) = self.joined.entry(*host).or_default();
        if *of != *start {
            (*of, *joined) = (*start, 0);
        }
        *joined += 1;
        *joined
    }

    fn is_full(&self, name: &Name) -> bool {
        match self.by_name.get(name) {
            Some(topic) => topic.readers.len() + topic.writers.len() >= TOPIC_MEMBERS_MAX,
            None => self.by_name.len() >= TOPICS_MAX,
        }
    }

    fn forget_empty(&mut self, name: &Name) {
        if self.by_name.get(name).is_some_and(Topic::is_empty) {
            self.by_name.remove(name);
        }
    }
}

/// What one handle is: where it belongs, and what its draws are keyed by.
struct Handle {
    world: Rc<World>,
    name: Name,
    ip: IpAddr,
    member: u64,
    site: Box<str>,
    key: u64,
    /// Calls up to now.
    calls: u64,
}

impl Handle {
    /// Does something with the topic, unless its host was stopped.
    fn with<T>(&self, work: impl FnOnce(&mut Topic, &mut State, Timestamp) -> T) -> Option<T> {
        let state = &mut *self.world.state.borrow_mut();
        state.hosts.running(self.name.0, self.name.1)?;
        let mut topic = state.topics.by_name.remove(&self.name)?;
        let outcome = work(&mut topic, state, self.world.now.get());
        if !topic.is_empty() {
            state.topics.by_name.insert(self.name.clone(), topic);
        }
        Some(outcome)
    }

    fn strike(&self, state: &mut State, kind: FaultKind) -> Option<Strike> {
        if !state.chaos.is_on || !state.chaos.can(kind) {
            return None;
        }
        let (ip, site) = (self.ip, &self.site);
        state.strike((kind, self.key, self.calls), || Place::Site(ip, site.to_string()))
    }

    fn record(&self, state: &mut State, now: Timestamp, what: [u64; 2]) {
        let [first, second] = what;
        state.trace.record(now, TraceKind::Topic, [self.key, self.member, first, second]);
    }
}

/// Whether this may be a topic's name, and such sizes a topic's.
fn check(topic: &str, options: &TopicOptions) -> Result<(), TopicJoinError> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:".contains(&byte);
    if !(1..=NAME_BYTES_MAX).contains(&topic.len()) || !topic.bytes().all(is_good) {
        return Err(TopicJoinError::Name(topic.escape_default().take(100).collect()));
    }
    let TopicOptions { message_bytes, slots, blocks, history, .. } = *options;
    let is_long = message_bytes > INLINE_BYTES_MAX;
    let fits = message_bytes <= MESSAGE_BYTES_MAX
        && (2..=SLOTS_MAX).contains(&slots)
        && blocks <= BLOCKS_MAX
        && history < slots.next_power_of_two()
        && (!is_long || history.saturating_add(2) <= blocks);
    if fits { Ok(()) } else { Err(TopicJoinError::Sizes) }
}

impl SimEnv {
    fn join_topic(
        &self,
        topic: &str,
        options: &TopicOptions,
        add: impl FnOnce(&mut Topic, u64, u64),
    ) -> Result<Handle, TopicJoinError> {
        check(topic, options)?;
        let (world, host, incarnation) = self.parts();
        let state = &mut *world.state.borrow_mut();
        let now = world.now.get();
        if state.hosts.running(host, incarnation).is_none() {
            return Err(TopicJoinError::HostStopped);
        }
        let name: Name = (host, incarnation, topic.into());
        if state.topics.is_full(&name) {
            return Err(TopicJoinError::Full(topic.to_owned()));
        }
        let ip = self.ip();
        // Told apart by who joined, or tried to, before, on this start of the host.
        let member = state.topics.next_member(&name);
        let site = format!("{topic}#{member}");
        let key = site_key(ip, &site);
        let refused = FaultKind::TopicMemory;
        if state.chaos.is_on
            && state.chaos.can(refused)
            && state.strike((refused, key, 0), || Place::Site(ip, site.clone())).is_some()
        {
            state.faults.observe(refused);
            return Err(TopicJoinError::Memory(topic.to_owned()));
        }
        let id = draw(key, &[u64::from(incarnation)]);
        add(state.topics.by_name.entry(name.clone()).or_default(), member, id);
        let handle =
            Handle { world: Rc::clone(world), name, ip, member, site: site.into(), key, calls: 0 };
        handle.record(state, now, [0, xxh3_64(topic.as_bytes())]);
        Ok(handle)
    }
}

impl TopicProvider for SimEnv {
    type Outbox = SimOutbox;
    type Inbox = SimInbox;

    fn publish_to(&self, topic: &str, options: &TopicOptions) -> Result<SimOutbox, TopicJoinError> {
        let handle = self
            .join_topic(topic, options, |held, member, id| held.add_writer(member, id, options))?;
        Ok(SimOutbox { handle })
    }

    fn subscribe_to(
        &self,
        topic: &str,
        options: &TopicOptions,
    ) -> Result<SimInbox, TopicJoinError> {
        let handle =
            self.join_topic(topic, options, |held, member, _| held.add_reader(member, options))?;
        let timer = SimTimer::new(&handle.world, handle.name.0);
        Ok(SimInbox { handle, timer })
    }
}

/// A process of a simulated host that publishes to a topic.
pub struct SimOutbox {
    handle: Handle,
}

impl TopicOutbox for SimOutbox {
    fn try_publish(&mut self, message: &[u8]) -> Result<u64, TopicPublishError> {
        self.handle.calls += 1;
        let handle = &self.handle;
        let outcome = handle.with(|topic, state, now| {
            let torn = FaultKind::TopicTorn;
            if topic.writers.get(&handle.member).is_some_and(|writer| !writer.is_gone)
                && handle.strike(state, torn).is_some()
            {
                // Begun and never complete: nobody ever reads it.
                topic.leave_writer(handle.member);
                state.faults.observe(torn);
            }
            let outcome = topic.publish(handle.member, message);
            // 0 where nobody gets it.
            let told = outcome.map_or(0, |number| number + 1);
            handle.record(state, now, [told, xxh3_64(message)]);
            outcome
        });
        outcome.unwrap_or(Err(TopicPublishError::Gone))
    }
}

impl Drop for SimOutbox {
    fn drop(&mut self) {
        let state = &mut *self.handle.world.state.borrow_mut();
        if let Some(topic) = state.topics.at(&self.handle.name) {
            topic.leave_writer(self.handle.member);
        }
        state.topics.forget_empty(&self.handle.name);
    }
}

impl fmt::Debug for SimOutbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimOutbox").field("site", &self.handle.site).finish_non_exhaustive()
    }
}

/// A process of a simulated host that subscribes to a topic.
pub struct SimInbox {
    handle: Handle,
    timer: SimTimer,
}

impl SimInbox {
    fn take(&mut self, holds: bool) -> Result<Option<Took>, TopicTakeError> {
        self.handle.calls += 1;
        let handle = &self.handle;
        let mut killed = None;
        let outcome = handle.with(|topic, state, now| {
            if handle.stalls(topic, state, now) {
                return Ok(None);
            }
            let outcome = topic.take(handle.member, holds);
            if let Ok(Some((_, taken, bytes, is_held))) = &outcome {
                handle.record(state, now, [1 + taken.number, xxh3_64(bytes)]);
                let dies = FaultKind::TopicHolder;
                if *is_held && handle.strike(state, dies).is_some() {
                    // Its publisher sees that it is gone, and has its blocks back.
                    state.faults.observe(dies);
                    killed = topic.kill_reader(handle.member);
                    return Err(TopicTakeError::Gone);
                }
            }
            outcome
        });
        // A waker may hold the last of a task: dropped with the world free.
        drop(killed);
        outcome.unwrap_or(Err(TopicTakeError::Gone))
    }

    fn held(&self, key: u64, number: u64, bytes: Rc<[u8]>) -> SimHeld {
        let handle = &self.handle;
        let place = (handle.member, key, number);
        SimHeld { world: Rc::clone(&handle.world), name: handle.name.clone(), place, bytes }
    }
}

impl Handle {
    /// Whether a subscriber takes nothing now, though there may be something.
    fn stalls(&self, topic: &mut Topic, state: &mut State, now: Timestamp) -> bool {
        let kind = FaultKind::TopicStall;
        let strike = self.strike(state, kind);
        let Some(reader) = topic.readers.get_mut(&self.member) else { return false };
        if let Some(strike) = strike {
            reader.stalled_until = now.after(strike.duration(0, STALL.0, STALL.1));
        }
        let stalls = now < reader.stalled_until;
        let behind = |(key, lane): (&u64, &Lane)| {
            topic.writers.get(key).is_some_and(|writer| lane.next < writer.next)
        };
        if stalls && reader.lanes.iter().any(behind) {
            state.faults.observe(kind);
        }
        stalls
    }
}

impl TopicInbox for SimInbox {
    type Held = SimHeld;

    fn try_take(&mut self, room: &mut Vec<u8>) -> Result<Option<TopicMessage>, TopicTakeError> {
        let Some((_, taken, bytes, _)) = self.take(false)? else { return Ok(None) };
        room.clear();
        room.extend_from_slice(&bytes);
        Ok(Some(taken))
    }

    fn try_hold(
        &mut self,
        room: &mut Vec<u8>,
    ) -> Result<Option<TopicSample<SimHeld>>, TopicTakeError> {
        let Some((key, taken, bytes, is_held)) = self.take(true)? else { return Ok(None) };
        if is_held {
            return Ok(Some((taken, Some(self.held(key, taken.number, bytes)))));
        }
        room.clear();
        room.extend_from_slice(&bytes);
        Ok(Some((taken, None)))
    }

    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut Vec<u8>,
    ) -> Poll<Result<TopicMessage, TopicTakeError>> {
        match self.try_take(room) {
            Ok(None) => {}
            Ok(Some(taken)) => return Poll::Ready(Ok(taken)),
            Err(error) => return Poll::Ready(Err(error)),
        }
        let handle = &self.handle;
        let until = handle.with(|topic, _, now| {
            let reader = topic.readers.get_mut(&handle.member)?;
            keep_waker(&mut reader.waiting.waker, cx);
            reader.waiting.is_armed = true;
            Some(reader.stalled_until).filter(|until| now < *until)
        });
        match until {
            None => Poll::Ready(Err(TopicTakeError::Gone)),
            Some(None) => Poll::Pending,
            Some(until) => {
                self.timer.set(until);
                if self.timer.poll_expired(cx).is_ready() {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for SimInbox {
    fn drop(&mut self) {
        let mut state = self.handle.world.state.borrow_mut();
        let topics = &mut state.topics;
        let gone = topics.at(&self.handle.name).map(|it| it.leave_reader(self.handle.member));
        topics.forget_empty(&self.handle.name);
        // A waker may hold the last of a task: dropped with the world free.
        drop(state);
        drop(gone);
    }
}

impl fmt::Debug for SimInbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimInbox").field("site", &self.handle.site).finish_non_exhaustive()
    }
}

/// A long message that its publisher keeps for as long as this lives.
pub struct SimHeld {
    world: Rc<World>,
    name: Name,
    /// The subscriber, the publisher and the message.
    place: (u64, u64, u64),
    bytes: Rc<[u8]>,
}

impl AsRef<[u8]> for SimHeld {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for SimHeld {
    fn drop(&mut self) {
        let state = &mut *self.world.state.borrow_mut();
        if let Some(topic) = state.topics.at(&self.name) {
            topic.release(self.place);
        }
    }
}

impl fmt::Debug for SimHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimHeld").field("len", &self.bytes.len()).finish_non_exhaustive()
    }
}
