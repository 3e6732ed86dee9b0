//! A connector with two roads in a simulated network: roads are blocked, lose and grow long, and every
//! message comes once and in order all the same.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use twinspan_core::random::Stream as Draws;
use twinspan_core::time::Timestamp;
use twinspan_topic::Probed;

use super::chooser::{CHANGES_PER_MINUTE_MAX, ChangeReason, Chooser};
use super::testing::{Setup, body};
use super::topic::{LinkId, Topic};
use super::wire::Hello;
use crate::report::Compression;

const TICK: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);
/// Bytes that a stream moves in a tick.
const BYTES_PER_TICK: usize = 2_000;
/// A stream that cannot be made is tried again.
const RETRY: Duration = Duration::from_millis(300);

/// How a road is.
#[derive(Clone, Copy, Debug)]
struct Way {
    is_cut: bool,
    delay: Duration,
    /// Of probes; a stream under loss is slow and whole.
    loss: f64,
}

const GOOD: Way = Way { is_cut: false, delay: Duration::from_millis(10), loss: 0.0 };

/// A stream that is being made, or is there. The connector is the first end.
struct Stream {
    road: usize,
    said: Hello,
    /// When the listener hears the hello, and what it answered.
    answered: Option<Hello>,
    next_at: Timestamp,
    links: [Option<LinkId>; 2],
    /// What is on the way to the end of that index.
    ways: [VecDeque<(Timestamp, Vec<u8>)>; 2],
}

struct World {
    now: Timestamp,
    ends: [Topic; 2],
    roads: [Way; 2],
    windows: [VecDeque<Option<Duration>>; 2],
    probes_at: Timestamp,
    chooser: Chooser,
    stream: Option<Stream>,
    retry_at: Timestamp,
    last: Option<[u8; 16]>,
    published: [u64; 2],
    taken: [u64; 2],
    changes: Vec<(Timestamp, usize, ChangeReason)>,
    draws: Draws,
}

/// An end. Who has not met yet gets all of it.
fn topic(id: u8) -> Topic {
    let setup = Setup {
        id,
        is_reliable: true,
        depth: 16,
        history: 16,
        longest: 1_000,
        compression: Compression::None,
    };
    setup.topic()
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Timestamp::START.after(SECOND);
        Self {
            now,
            ends: [topic(1), topic(2)],
            roads: [GOOD; 2],
            windows: Default::default(),
            probes_at: now,
            chooser: Chooser::new(now, 2, 0),
            stream: None,
            retry_at: now,
            last: None,
            published: [0; 2],
            taken: [0; 2],
            changes: Vec::new(),
            draws: Draws::new(seed, "switched", 0),
        }
    }

    /// What the last probes of both roads say.
    fn probe(&mut self) {
        if self.now < self.probes_at {
            return;
        }
        self.probes_at = self.now.after(Duration::from_millis(250));
        for (index, way) in self.roads.iter().enumerate() {
            let window = &mut self.windows[index];
            if window.len() == 32 {
                window.pop_front();
            }
            let is_lost = way.is_cut || self.draws.chance(way.loss);
            window.push_back((!is_lost).then_some(2 * way.delay));
            let mut rtts: Vec<_> = window.iter().flatten().copied().collect();
            rtts.sort_unstable();
            let probed = Probed {
                settled: window.len() as u32,
                lost: (window.len() - rtts.len()) as u32,
                rtt_min: rtts.first().copied(),
                rtt_median: rtts.get(rtts.len() / 2).copied(),
                offer: None,
            };
            self.chooser.probed(self.now, index, &probed);
        }
    }

    /// The connector lets go of its stream; the listener learns it where the road lets it through.
    fn cut_stream(&mut self) {
        let Some(stream) = self.stream.take() else { return };
        if let [Some(link), _] = stream.links {
            self.ends[0].broke(self.now, link);
        }
        if let [_, Some(link)] = stream.links
            && !self.roads[stream.road].is_cut
        {
            self.ends[1].broke(self.now, link);
        }
    }

    fn choose(&mut self) {
        let is_up = self.stream.as_ref().is_some_and(|stream| stream.links[0].is_some());
        self.chooser.stream(self.now, is_up);
        if let Some(change) = self.chooser.poll(self.now) {
            self.changes.push((self.now, change.to, change.why));
            self.cut_stream();
            self.retry_at = self.now;
        }
        if self.stream.is_none() && self.now >= self.retry_at {
            self.retry_at = self.now.after(RETRY);
            let road = self.chooser.active();
            if self.roads[road].is_cut {
                return;
            }
            let next_at = self.now.after(self.roads[road].delay);
            let (said, answered) = (self.ends[0].hello(self.last), None);
            let ways = Default::default();
            self.stream = Some(Stream { road, said, answered, next_at, links: [None; 2], ways });
        }
    }

    /// The greetings of a stream.
    fn greet(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        let way = self.roads[stream.road];
        if way.is_cut || stream.links[0].is_some() || self.now < stream.next_at {
            return;
        }
        let Some(answer) = &stream.answered else {
            let answer = self.ends[1].hello(Some(stream.said.greeting.id));
            let link = self.ends[1].admit(self.now, &stream.said, &answer.standing).unwrap();
            (stream.answered, stream.links[1]) = (Some(answer), Some(link));
            stream.next_at = self.now.after(way.delay);
            return;
        };
        let link = self.ends[0].admit(self.now, answer, &stream.said.standing).unwrap();
        self.last = Some(answer.greeting.id);
        stream.links[0] = Some(link);
    }

    /// Moves bytes of the stream; what a blocked road holds is not lost before the stream is.
    fn carry(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        let way = self.roads[stream.road];
        if way.is_cut {
            return;
        }
        for from in 0..2 {
            let Some(link) = stream.links[from] else { continue };
            let pieces = self.ends[from].transmit(self.now, link);
            let most = BYTES_PER_TICK - (BYTES_PER_TICK as f64 * way.loss) as usize;
            let bytes: Vec<u8> = pieces.concat().into_iter().take(most).collect();
            self.ends[from].sent(self.now, link, bytes.len());
            if !bytes.is_empty() {
                stream.ways[1 - from].push_back((self.now.after(way.delay), bytes));
            }
        }
        for to in 0..2 {
            let Some(link) = stream.links[to] else { continue };
            while let Some((at, mut bytes)) = stream.ways[to].pop_front() {
                if at > self.now {
                    stream.ways[to].push_front((at, bytes));
                    break;
                }
                let space = self.ends[to].space(link).expect("a good peer keeps to its credit");
                let count = space.len().min(bytes.len());
                space[..count].copy_from_slice(&bytes[..count]);
                self.ends[to].filled(self.now, link, count).expect("a good peer keeps the rules");
                let rest = bytes.split_off(count);
                if !rest.is_empty() {
                    stream.ways[to].push_front((at, rest));
                }
            }
        }
    }

    fn work(&mut self, messages: u64) {
        for end in 0..2 {
            self.ends[end].handle_timeout(self.now);
            if self.published[end] < messages
                && self.last.is_some()
                && self.ends[end].publish(&body(self.published[end])).is_ok()
            {
                self.published[end] += 1;
            }
            let mut room = Vec::new();
            if let Some(taken) = self.ends[end].take(&mut room) {
                assert_eq!((taken.number, taken.lost), (self.taken[end], 0), "once and in order");
                assert_eq!(room, body(taken.number));
                self.taken[end] += 1;
            }
        }
    }

    fn run(&mut self, time: Duration, messages: u64) {
        let end = self.now.after(time);
        while self.now < end {
            self.now = self.now.after(TICK);
            self.probe();
            self.choose();
            self.greet();
            self.carry();
            self.work(messages);
        }
    }

    fn is_done(&self, messages: u64) -> bool {
        self.taken == [messages; 2]
    }

    /// Heals all and waits until everything has come.
    fn finish(&mut self, messages: u64) {
        self.roads = [GOOD; 2];
        for _ in 0..120 {
            if self.is_done(messages) {
                return;
            }
            self.run(SECOND, messages);
        }
        panic!("taken {:?} of {messages}", self.taken);
    }
}

#[test]
fn a_blocked_road_is_left_and_taken_again_without_a_lost_or_doubled_message() {
    let mut world = World::new(1);
    world.run(20 * SECOND, 100_000);
    assert_eq!(world.changes, []);
    let before = world.taken;
    world.roads[0].is_cut = true;
    world.run(20 * SECOND, 100_000);
    let [(_, 1, ChangeReason::Loss(_))] = world.changes[..] else { panic!("{:?}", world.changes) };
    assert!(world.taken[0] > before[0] + 1_000, "it goes on by the other road");
    world.roads[0].is_cut = false;
    world.run(30 * SECOND, 100_000);
    let [_, (_, 0, ChangeReason::Better(_))] = world.changes[..] else {
        panic!("{:?}", world.changes)
    };
    let messages = world.published[0].max(world.published[1]);
    world.finish(messages);
}

#[test]
fn a_road_that_grows_long_is_left_for_the_other() {
    let mut world = World::new(2);
    world.run(20 * SECOND, 20_000);
    world.roads[0].delay = Duration::from_millis(150);
    world.run(20 * SECOND, 20_000);
    assert!(
        matches!(world.changes[..], [(_, 1, ChangeReason::Latency(_, _))]),
        "{:?}",
        world.changes
    );
    let messages = world.published[0].max(world.published[1]);
    world.finish(messages);
}

#[derive(Clone, Copy, Debug)]
struct Step {
    road: usize,
    way: Way,
    ticks: u32,
}

fn step() -> impl Strategy<Value = Step> {
    (0_usize..2, any::<bool>(), 1_u64..200, 0_u8..60, 1_u32..400).prop_map(
        |(road, is_cut, delay, loss, ticks)| Step {
            road,
            way: Way { is_cut, delay: Duration::from_millis(delay), loss: f64::from(loss) / 100.0 },
            ticks,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn whatever_the_roads_do_messages_come_once_and_in_order_and_changes_are_few(
        seed: u64,
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let messages = 2_000;
        let mut world = World::new(seed);
        for Step { road, way, ticks } in steps {
            world.roads[road] = way;
            // Longer than a subscriber is waited for would be a loss that is told, and no promise.
            if world.roads.iter().all(|way| way.is_cut) {
                world.roads[1 - road].is_cut = false;
            }
            world.run(TICK * ticks, messages);
        }
        world.finish(messages);
        for window in world.changes.windows(CHANGES_PER_MINUTE_MAX + 1) {
            let time = window[CHANGES_PER_MINUTE_MAX].0.since(window[0].0);
            prop_assert!(time >= Duration::from_secs(60), "{time:?}");
        }
    }
}
