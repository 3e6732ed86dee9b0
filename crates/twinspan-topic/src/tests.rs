//! Two and more ends over a network that loses, doubles and reorders, in virtual time.

mod grouped;
mod sealed;

use core::time::Duration;
use std::net::SocketAddr;

use proptest::prelude::*;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;

use crate::Taken;
use crate::config::{LINKS_MAX, NodeConfig, NodeSide};
use crate::greet::{Greeting, example};
use crate::inbox::{Inbox, Overflow};
use crate::node::{Event, Node, Refusal};
use crate::probe::{Offer, OfferedRoads, Prober, ProberConfig};
use crate::wire::{EndReason, Packet};

/// What a network does.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    loss: f64,
    twice: f64,
    /// Added to some datagrams.
    late: Duration,
}

struct End {
    node: Node,
    inbox: Inbox,
    at: SocketAddr,
}

/// Ends, and what is under way between them.
struct Net {
    now: Timestamp,
    ends: Vec<End>,
    under_way: Vec<(Timestamp, u64, usize, SocketAddr, Vec<u8>)>,
    count: u64,
    faults: Faults,
    draws: Stream,
    is_cut: bool,
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, index as u8], 9_000))
}

fn config(index: usize, reliable: bool) -> NodeConfig {
    let greeting = Greeting { id: [index as u8 + 1; 16], reliable, history: 0, ..example() };
    let side = if index == 0 { NodeSide::Listen } else { NodeSide::Connect(address(0)) };
    NodeConfig { overflow: Overflow::DropNew, depth: 1 << 20, ..NodeConfig::new(greeting, side) }
}

fn end(index: usize, config: NodeConfig, now: Timestamp) -> End {
    let inbox = Inbox::new(config.inbox_limits());
    let mut secrets = Stream::new(1, "secrets", index as u64 + now.as_nanos());
    End { node: Node::new(config, now, &mut secrets), inbox, at: address(index) }
}

impl Net {
    fn new(seed: u64, faults: Faults, configs: impl IntoIterator<Item = NodeConfig>) -> Self {
        let now = Timestamp::START.after(Duration::from_secs(1));
        let ends = configs.into_iter().enumerate().map(|(at, config)| end(at, config, now));
        let ends = ends.collect();
        let draws = Stream::new(seed, "net", 0);
        Self { now, ends, under_way: Vec::new(), count: 0, faults, draws, is_cut: false }
    }

    fn pair(seed: u64, faults: Faults, reliable: bool) -> Self {
        Self::new(seed, faults, [config(0, reliable), config(1, reliable)])
    }

    fn transmit(&mut self) {
        let mut out = [0; 1_200];
        for from in 0..self.ends.len() {
            loop {
                let end = &mut self.ends[from];
                let credits = !end.inbox.is_full();
                let Some(sent) = end.node.poll_transmit_to(self.now, &mut out, credits) else {
                    break;
                };
                let at = end.at;
                if self.is_cut {
                    continue;
                }
                let is_group = sent.to.ip().is_multicast();
                for to in 0..self.ends.len() {
                    // What is sent to a group comes back too.
                    if !is_group && self.ends[to].at != sent.to {
                        continue;
                    }
                    self.carry(at, to, &out[..sent.bytes]);
                }
            }
        }
    }

    /// Puts a datagram on its way, or loses it.
    fn carry(&mut self, at: SocketAddr, to: usize, bytes: &[u8]) {
        let copies = if self.draws.chance(self.faults.loss) {
            0
        } else if self.draws.chance(self.faults.twice) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let mut delay = Duration::from_micros(500);
            if self.draws.chance(0.2) {
                delay += self.faults.late;
            }
            self.count += 1;
            self.under_way.push((self.now.after(delay), self.count, to, at, bytes.to_vec()));
        }
    }

    /// Goes on to the next thing that happens, at most until `limit`.
    fn step(&mut self, limit: Timestamp) {
        self.transmit();
        let arrives = self.under_way.iter().map(|(at, ..)| *at).min();
        let due = self.ends.iter().map(|end| end.node.poll_timeout()).min();
        let next = arrives.unwrap_or(limit).min(due.unwrap_or(limit)).min(limit);
        self.now = self.now.max(next);
        self.under_way.sort_unstable_by_key(|(at, count, ..)| (*at, *count));
        while self.under_way.first().is_some_and(|(at, ..)| *at <= self.now) {
            let (_, _, to, from, bytes) = self.under_way.remove(0);
            let end = &mut self.ends[to];
            end.node.handle_datagram(self.now, from, &bytes, &mut end.inbox);
        }
        for end in &mut self.ends {
            if end.node.poll_timeout() <= self.now {
                end.node.handle_timeout(self.now);
            }
        }
        self.transmit();
        // A due moment that is not over would stop time: nothing is due twice in one microsecond.
        self.now = self.now.after(Duration::from_micros(1));
    }

    fn run(&mut self, time: Duration) {
        let until = self.now.after(time);
        while self.now < until {
            self.step(until);
        }
    }

    fn run_until(&mut self, mut is_done: impl FnMut(&mut Self) -> bool) {
        let until = self.now.after(Duration::from_secs(300));
        while !is_done(self) {
            assert!(self.now < until, "it never ends");
            self.step(until);
        }
    }

    fn meet(&mut self) {
        let others = self.ends.len() - 1;
        self.run_until(|net| {
            net.ends[0].node.subscribers() == others
                && net.ends.iter().skip(1).all(|end| end.node.subscribers() == 1)
        });
    }

    fn take(&mut self, at: usize) -> Vec<(Taken, Vec<u8>)> {
        let inbox = &mut self.ends[at].inbox;
        let mut all = Vec::new();
        let mut message = Vec::new();
        while let Some(taken) = inbox.take(&mut message) {
            all.push((taken, message.clone()));
        }
        all
    }

    /// The second end publishes so many, and the first takes each once and in order.
    fn hear_all(&mut self, count: u64) {
        self.meet();
        let mut taken = Vec::new();
        for number in 0..count {
            self.publish(1, &message(number));
            taken.extend(self.take(0));
        }
        self.ends[1].node.flush();
        self.run_until(|net| {
            taken.extend(net.take(0));
            taken.len() as u64 == count
        });
        for (number, (taken, bytes)) in (0..).zip(&taken) {
            assert_eq!((taken.number, taken.lost), (number, 0));
            assert_eq!(*bytes, message(number));
        }
    }

    /// Publishes when there is room.
    fn publish(&mut self, at: usize, message: &[u8]) {
        loop {
            match self.ends[at].node.publish(message) {
                Ok(_) => return,
                Err(Refusal::Full) => {
                    let until = self.now.after(Duration::from_millis(10));
                    self.step(until);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A message that tells its number, of a length that follows from it.
fn message(number: u64) -> Vec<u8> {
    let length = match number % 17 {
        3 => 2_000 + number as usize % 30_000,
        7 => 1_100 + number as usize % 100,
        other => 8 + other as usize * 5,
    };
    let mut bytes: Vec<u8> = (0..length).map(|at| (at as u64 * 31 + number) as u8).collect();
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

#[test]
fn reliable_comes_once_and_in_order_at_any_loss() {
    for (seed, loss) in [(1, 0.0), (2, 0.01), (3, 0.1), (4, 0.3)] {
        let faults = Faults { loss, twice: 0.05, late: Duration::from_millis(3) };
        let mut net = Net::pair(seed, faults, true);
        net.hear_all(400);
        net.run_until(|net| net.ends[1].node.unacknowledged() == 0);
        assert!(net.take(0).is_empty());
    }
}

#[test]
fn best_effort_comes_in_order_without_doubles_and_counts_exactly() {
    for (seed, loss) in [(1, 0.0), (2, 0.05), (3, 0.3)] {
        let faults = Faults { loss, twice: 0.1, late: Duration::from_millis(2) };
        let mut net = Net::pair(seed, faults, false);
        net.meet();
        let mut taken = Vec::new();
        for number in 0..500 {
            net.publish(0, &message(number));
            if number % 5 == 0 {
                net.ends[0].node.flush();
                let until = net.now.after(Duration::from_millis(1));
                net.step(until);
            }
            taken.extend(net.take(1));
        }
        net.ends[0].node.flush();
        net.run(Duration::from_secs(5));
        taken.extend(net.take(1));
        let mut next = 0;
        for (taken, bytes) in &taken {
            assert_eq!(taken.number, next + taken.lost);
            assert_eq!(*bytes, message(taken.number));
            next = taken.number + 1;
        }
        let stats = net.ends[1].inbox.stats();
        assert_eq!(stats.taken + stats.lost, 500, "all are accounted for");
        assert_eq!(stats.lost == 0, loss == 0.0 && seed == 1 && taken.len() == 500);
        assert!(taken.len() > 100, "{}", taken.len());
    }
}

#[test]
fn the_loss_of_the_last_is_known_soon() {
    let mut net = Net::pair(1, Faults::default(), false);
    net.meet();
    net.run(Duration::from_millis(100));
    net.publish(0, b"first");
    net.ends[0].node.flush();
    net.run(Duration::from_millis(1));
    net.is_cut = true;
    net.publish(0, b"second");
    net.ends[0].node.flush();
    net.run(Duration::from_millis(5));
    net.is_cut = false;
    net.run(Duration::from_millis(50));
    assert_eq!(net.take(1).len(), 1);
    assert_eq!(net.ends[1].inbox.stats().lost, 1);
}

#[test]
fn a_partition_on_a_reliable_topic_is_a_counted_gap_or_none() {
    for seconds in [1, 5, 30] {
        let mut net = Net::pair(seconds, Faults::default(), true);
        net.meet();
        let mut taken = Vec::new();
        let mut number = 0;
        let mut publish = |net: &mut Net, taken: &mut Vec<_>| {
            for _ in 0..50 {
                let _ = net.ends[1].node.publish(&message(number));
                number = net.ends[1].node.published();
                net.ends[1].node.flush();
                net.run(Duration::from_millis(20));
                taken.extend(net.take(0));
            }
        };
        publish(&mut net, &mut taken);
        net.is_cut = true;
        net.run(Duration::from_secs(seconds));
        publish(&mut net, &mut taken);
        net.is_cut = false;
        net.run_until(|net| net.ends[1].node.subscribers() == 1);
        net.run(Duration::from_secs(3));
        publish(&mut net, &mut taken);
        net.run(Duration::from_secs(3));
        taken.extend(net.take(0));
        let mut next = 0;
        for (taken, bytes) in &taken {
            assert_eq!(taken.number, next + taken.lost, "after {seconds} s");
            assert_eq!(*bytes, message(taken.number));
            next = taken.number + 1;
        }
        assert_eq!(next, net.ends[1].node.published());
        let ended = net.ends[1].node.stats().ended;
        let lost = net.ends[0].inbox.stats().lost;
        assert_eq!((lost > 0, ended > 0), (seconds == 30, seconds == 30), "after {seconds} s");
    }
}

#[test]
fn a_subscriber_that_takes_nothing_stops_its_publisher_within_its_credit() {
    let mut net = Net::pair(1, Faults::default(), true);
    net.meet();
    let mut published = 0_u64;
    let mut idle = 0;
    while idle < 100 {
        if net.ends[1].node.publish(&[7; 1_000]).is_ok() {
            published += 1;
            idle = 0;
        } else {
            idle += 1;
            net.run(Duration::from_millis(20));
        }
    }
    let held = net.ends[0].inbox.messages() * 1_000;
    assert!(held <= (4 << 20) + (2 << 20), "{held}");
    assert!(net.ends[1].node.unacknowledged() <= 1_024 + 64 + 1);
    let mut taken = 0;
    net.run_until(|net| {
        taken += net.take(0).len() as u64;
        net.ends[1].node.flush();
        taken == published
    });
    assert_eq!(net.ends[0].inbox.stats().lost, 0);
}

#[test]
fn pieces_wait_past_the_limit_by_one_message_and_no_more() {
    let mut configs = [config(0, true), config(1, true)];
    configs.iter_mut().for_each(|config| config.greeting.message_bytes_max = 1 << 20);
    let mut net = Net::new(5, Faults::default(), configs);
    net.meet();
    let node = &mut net.ends[0].node;
    // 58 pieces of a message of 64 KiB, and 915 of one of a mebibyte.
    for (length, waiting) in [(64 << 10, 58), (1 << 20, 128)] {
        assert!(node.publish(&vec![7; length]).is_ok());
        assert_eq!(node.chunks_waiting(), waiting);
    }
    assert_eq!(node.publish(b"short"), Err(Refusal::Full));
    net.run(Duration::from_secs(1));
    let lengths: Vec<_> = net.take(1).into_iter().map(|(_, bytes)| bytes.len()).collect();
    assert_eq!(lengths, [64 << 10, 1 << 20]);
    assert_eq!(net.ends[0].node.chunks_waiting(), 0);
}

#[test]
fn what_is_longer_than_one_takes_is_missed_and_counted() {
    let short = config(1, false);
    let greeting = Greeting { message_bytes_max: 2_000, ..short.greeting.clone() };
    let mut net =
        Net::new(1, Faults::default(), [config(0, false), NodeConfig { greeting, ..short }]);
    net.meet();
    for length in [2_000, 2_001, 10] {
        net.publish(0, &vec![1; length]);
    }
    net.ends[0].node.flush();
    net.run(Duration::from_secs(1));
    let taken: Vec<_> = net.take(1).into_iter().map(|(it, _)| (it.bytes, it.lost)).collect();
    assert_eq!(taken, [(2_000, 0), (10, 1)]);
    assert!(net.ends[1].node.stats().too_long > 0);
    let refused = net.ends[1].node.publish(&[0; 2_001]);
    assert_eq!(refused, Err(Refusal::TooLong { have: 2_001, max: 2_000 }));
}

#[test]
fn a_flood_of_hellos_leaves_nothing_and_gets_less_than_it_sends() {
    let mut listener = end(0, config(0, false), Timestamp::START);
    let (mut sent, mut got) = (0, 0);
    let mut out = [0; 1_200];
    for number in 0..10_000_u32 {
        let from = SocketAddr::from((number.to_be_bytes(), 1_000));
        let mut hello = Vec::new();
        let greeting = Greeting { id: [9; 16], ..example() };
        let token = u64::from(number);
        Packet::Hello { token, cookie: [3; 16], greeting }.write(&mut hello);
        sent += hello.len();
        listener.node.handle_datagram(Timestamp::START, from, &hello, &mut listener.inbox);
        while let Some(reply) = listener.node.poll_transmit(Timestamp::START, &mut out) {
            assert!(reply.to == from && reply.bytes < hello.len());
            got += reply.bytes;
        }
    }
    assert!(got > 0 && got < sent);
    assert_eq!((listener.node.subscribers(), listener.node.stats().joined), (0, 0));
    // Nobody is asked: what waits is bounded.
    for number in 0..1_000_u32 {
        let from = SocketAddr::from((number.to_be_bytes(), 1_000));
        let mut data = vec![5; 14];
        data[1] = 0;
        listener.node.handle_datagram(Timestamp::START, from, &data, &mut listener.inbox);
    }
    assert_eq!(listener.node.stats().replies_dropped, 1_000 - 64);
}

#[test]
fn links_are_bounded_and_a_hub_has_one() {
    let configs = (0..=LINKS_MAX + 1).map(|at| config(at, false));
    let mut net = Net::new(1, Faults::default(), configs);
    net.run(Duration::from_secs(3));
    assert_eq!(net.ends[0].node.subscribers(), LINKS_MAX);
    let refused: Vec<_> = net.ends.iter().filter(|end| end.node.stats().refused > 0).collect();
    assert_eq!(refused.len(), 2, "the listener, and who found no room");
    // The first one comes again from another place: its old link gives way.
    let now = net.now;
    let again = NodeConfig { side: NodeSide::Connect(address(0)), ..config(1, false) };
    let mut moved = end(200, again, now);
    moved.at = address(200);
    net.ends[1] = moved;
    net.run(Duration::from_millis(20));
    assert_eq!(net.ends[0].node.subscribers(), LINKS_MAX);
    assert_eq!(net.ends[1].node.subscribers(), 1);
}

#[test]
fn who_was_forgotten_begins_anew() {
    for reliable in [false, true] {
        let mut net = Net::pair(1, Faults::default(), reliable);
        net.meet();
        let now = net.now;
        net.ends[0] = end(0, config(0, reliable), now);
        net.publish(1, b"to nobody");
        net.ends[1].node.flush();
        net.meet();
        let ended = std::iter::from_fn(|| net.ends[1].node.poll_event())
            .any(|it| matches!(it, Event::Ended(ended) if ended.reason == EndReason::Forgotten));
        assert!(ended);
        net.publish(1, b"to the new one");
        net.ends[1].node.flush();
        net.run(Duration::from_millis(100));
        let taken = net.take(0);
        assert_eq!(taken.last().map(|(_, bytes)| &bytes[..]), Some(&b"to the new one"[..]));
    }
}

/// Datagrams that an end has to say now.
fn said(end: &mut End, now: Timestamp) -> Vec<Vec<u8>> {
    let mut out = [0; 1_200];
    let mut all = Vec::new();
    while let Some(sent) = end.node.poll_transmit(now, &mut out) {
        all.push(out[..sent.bytes].to_vec());
    }
    all
}

#[test]
fn what_a_link_said_that_was_never_welcomed_means_nothing_to_the_next() {
    let mut net = Net::pair(1, Faults::default(), true);
    let now = net.now;
    let [mut listener, mut caller] = net.ends.split_off(0).try_into().ok().unwrap();
    let (here, there) = (address(0), address(1));
    let give = |end: &mut End, from: SocketAddr, bytes: &[u8]| {
        end.node.handle_datagram(now, from, bytes, &mut end.inbox);
    };
    caller.node.handle_timeout(now);
    said(&mut caller, now).iter().for_each(|hello| give(&mut listener, there, hello));
    said(&mut listener, now).iter().for_each(|cookie| give(&mut caller, here, cookie));
    let hello = said(&mut caller, now);
    hello.iter().for_each(|hello| give(&mut listener, there, hello));
    // The welcome is lost, what follows it comes late, and the link is made again for one hello.
    listener.node.publish(b"former").unwrap();
    listener.node.flush();
    let former = said(&mut listener, now);
    let later = SocketAddr::from(([10, 0, 0, 1], 9_001));
    hello.iter().for_each(|hello| give(&mut listener, later, hello));
    said(&mut listener, now).iter().for_each(|cookie| give(&mut caller, here, cookie));
    said(&mut caller, now).iter().for_each(|hello| give(&mut listener, later, hello));
    said(&mut listener, now).iter().for_each(|welcome| give(&mut caller, here, welcome));
    assert_eq!(caller.node.subscribers(), 1);
    former.iter().for_each(|late| give(&mut caller, here, late));
    assert!(caller.inbox.is_empty() && caller.node.stats().unknown > 0);
    listener.node.publish(b"present").unwrap();
    listener.node.flush();
    for _ in 0..4 {
        said(&mut listener, now).iter().for_each(|data| give(&mut caller, here, data));
        said(&mut caller, now).iter().for_each(|ack| give(&mut listener, later, ack));
    }
    let mut message = Vec::new();
    assert_eq!(caller.inbox.take(&mut message).map(|it| (it.number, it.lost)), Some((1, 0)));
    assert_eq!(message, b"present");
}

#[test]
fn who_is_silent_is_given_up() {
    for reliable in [false, true] {
        let mut net = Net::pair(1, Faults::default(), reliable);
        net.meet();
        net.run(Duration::from_secs(60));
        assert_eq!(net.ends[0].node.subscribers(), 1, "signs of life keep it");
        net.is_cut = true;
        net.run(Duration::from_secs(11));
        for end in &mut net.ends {
            assert_eq!((end.node.subscribers(), end.node.stats().ended), (0, 1));
        }
    }
}

#[test]
fn many_hear_one_and_one_hears_many() {
    for reliable in [false, true] {
        let faults = Faults { loss: if reliable { 0.05 } else { 0.0 }, ..Faults::default() };
        let mut net = Net::new(1, faults, (0..5).map(|at| config(at, reliable)));
        net.meet();
        for number in 0..100 {
            net.publish(0, &message(number));
            for at in 1..5 {
                net.publish(at, &[at as u8; 20]);
            }
        }
        net.ends.iter_mut().for_each(|end| end.node.flush());
        net.run(Duration::from_secs(5));
        for at in 1..5 {
            let numbers: Vec<_> = net.take(at).iter().map(|(taken, _)| taken.number).collect();
            assert_eq!(numbers, (0..100).collect::<Vec<_>>());
        }
        assert_eq!(net.take(0).len(), 400);
    }
}

/// Ends that all listen, of which some call others.
fn mesh(calls: &[(usize, usize)], count: usize, reliable: bool) -> Net {
    let listens = |at| NodeConfig { side: NodeSide::Listen, ..config(at, reliable) };
    let mut net = Net::new(1, Faults { loss: 0.05, ..Faults::default() }, (0..count).map(listens));
    for (from, to) in calls {
        let now = net.now;
        assert!(net.ends[*from].node.call(now, address(*to)));
    }
    net
}

#[test]
fn all_who_listen_and_call_each_other_have_one_link_each() {
    // Each pair in one direction, in the other, and in both.
    for calls in [
        &[(1, 0), (2, 0), (2, 1)][..],
        &[(0, 1), (0, 2), (1, 2)],
        &[(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)],
    ] {
        let mut net = mesh(calls, 3, true);
        net.run(Duration::from_secs(5));
        let joined = |net: &Net| -> Vec<u64> {
            net.ends.iter().map(|end| end.node.stats().joined).collect()
        };
        let before = joined(&net);
        net.run(Duration::from_secs(60));
        assert_eq!(joined(&net), before, "links stay as they are");
        for at in 0..3 {
            assert_eq!((net.ends[at].node.subscribers(), net.ends[at].node.publishers()), (2, 2));
            (0..100).for_each(|number| net.publish(at, &message(number)));
            net.ends[at].node.flush();
        }
        net.run(Duration::from_secs(5));
        for at in 0..3 {
            let mut heard: Vec<_> =
                net.take(at).iter().map(|(taken, _)| (taken.publisher, taken.number)).collect();
            assert_eq!(heard.len(), 200);
            heard.sort_unstable();
            heard.dedup();
            assert_eq!(heard.len(), 200, "none twice");
        }
    }
}

/// One that was called goes without a word, and a hub with another id calls from its address.
fn come_again(configs: impl Fn(usize) -> NodeConfig, id: u8) {
    let listens = |at| NodeConfig { side: NodeSide::Listen, ..configs(at) };
    let mut net = Net::new(1, Faults::default(), (0..2).map(listens));
    let now = net.now;
    assert!(net.ends[1].node.call(now, address(0)));
    net.run(Duration::from_secs(1));
    assert_eq!((net.ends[1].node.subscribers(), net.ends[1].node.is_met(address(0))), (1, true));
    let mut again = listens(0);
    again.greeting.id = [id; 16];
    let now = net.now;
    net.ends[0] = end(0, again, now);
    assert!(net.ends[0].node.call(now, address(1)));
    assert!(!net.ends[0].node.is_met(address(1)));
    net.run(Duration::from_secs(1));
    let events: Vec<_> = std::iter::from_fn(|| net.ends[0].node.poll_event()).collect();
    let joined =
        |event: &Event| matches!(event, Event::Joined { address: at, .. } if *at == address(1));
    assert!(events.len() == 1 && events.iter().all(joined), "{id}: {events:?}");
    for end in &net.ends {
        assert_eq!((end.node.subscribers(), end.node.stats().refused), (1, 0), "{id}");
    }
    assert_eq!(net.ends[1].node.stats().joined, 2, "the first link gave way");
}

#[test]
fn who_comes_again_at_its_address_is_let_in_whatever_its_id() {
    // The one that stays has the id of twos.
    for id in [1, 3] {
        let before = |at| {
            let mut config = config(at, true);
            config.greeting.id = [[9; 16], [2; 16]][at];
            config
        };
        come_again(before, id);
    }
}

#[test]
fn who_is_called_no_more_is_let_go_when_it_goes() {
    let mut net = mesh(&[(0, 1)], 2, false);
    net.run(Duration::from_secs(2));
    assert_eq!(net.ends[0].node.subscribers(), 1);
    net.ends[0].node.hang_up(address(1));
    net.run(Duration::from_secs(30));
    assert_eq!(net.ends[0].node.subscribers(), 1, "a link that there is lives on");
    net.ends[1].node.close(net.now);
    net.run(Duration::from_secs(30));
    assert_eq!(net.ends[0].node.subscribers(), 0);
    let written = net.ends[0].node.stats().datagrams_out;
    net.run(Duration::from_secs(30));
    assert_eq!(net.ends[0].node.stats().datagrams_out, written, "nobody is called");
}

/// Sends bytes through a pipe, in pieces as there is room.
fn pipe(net: &mut Net, from: usize, to: u64, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let now = net.now;
        let room = net.ends[from].node.room_to(to).min(rest.len());
        if room > 0 {
            assert!(net.ends[from].node.send_to(now, to, &rest[..room]));
            rest = &rest[room..];
        } else {
            let until = now.after(Duration::from_millis(10));
            net.step(until);
        }
    }
}

#[test]
fn pipes_bring_bytes_to_one_hub_alone_and_begin_anew_with_each_link() {
    let faults = Faults { loss: 0.1, twice: 0.05, late: Duration::from_millis(3) };
    let piped = |at| NodeConfig { is_piped: true, ..config(at, true) };
    let mut net = Net::new(3, faults, (0..3).map(piped));
    net.meet();
    let publisher = |at: usize| Greeting { id: [at as u8 + 1; 16], ..example() }.publisher();
    let bytes =
        |seed: u64| -> Vec<u8> { (0..100_000_u64).map(|at| ((at * seed) >> 3) as u8).collect() };
    for round in 1..3 {
        for (from, to) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
            pipe(&mut net, from, publisher(to), &bytes(round * 10 + from as u64 * 3 + to as u64));
        }
        net.run(Duration::from_secs(20));
        for (from, to) in [(0, 1), (0, 2)] {
            let came: Vec<u8> = net.take(to).into_iter().flat_map(|(_, bytes)| bytes).collect();
            assert!(came == bytes(round * 10 + from as u64 * 3 + to as u64));
        }
        let came = net.take(0);
        for from in [1, 2] {
            let of = came.iter().filter(|(taken, _)| taken.publisher == publisher(from));
            let came: Vec<u8> = of.flat_map(|(_, bytes)| bytes.clone()).collect();
            assert!(came == bytes(round * 10 + from as u64 * 3));
            assert_eq!(net.ends[0].node.unacknowledged_by(publisher(from)), 0);
        }
        // A link that is dropped is told, and made again: the pipe begins anew.
        let now = net.now;
        net.ends[0].node.drop_link(now, publisher(1));
        assert_eq!(net.ends[0].node.room_to(publisher(1)), 0);
        net.run(Duration::from_secs(10));
        net.meet();
    }
}

#[test]
fn who_answers_probes_alone_lets_nobody_in() {
    let offer = Offer { roads: OfferedRoads::TCP, ..Offer::NONE };
    for (side, is_let_in) in [(NodeSide::Listen, true), (NodeSide::ProbesOnly, false)] {
        let there = NodeConfig { side, offer, ..config(0, true) };
        let mut net = Net::new(1, Faults::default(), [there, config(1, true)]);
        net.run(Duration::from_secs(3));
        assert_eq!(net.ends[1].node.subscribers() == 1, is_let_in);
        assert_eq!(net.ends[0].node.stats().joined, u64::from(is_let_in));
        let mut probe = Vec::new();
        Packet::Probe { token: 7 }.write(&mut probe);
        let (now, end) = (net.now, &mut net.ends[0]);
        end.node.handle_datagram(now, address(9), &probe, &mut end.inbox);
        let mut out = [0; 1_200];
        let sent = end.node.poll_transmit(now, &mut out).unwrap();
        assert_eq!(sent.to, address(9));
        assert_eq!(Packet::parse(&out[..sent.bytes]), Ok(Packet::Here { token: 7, offer }));
    }
}

#[test]
fn a_probe_is_answered_by_who_listens_with_less_and_nothing_is_kept() {
    let mut listens = config(0, false);
    listens.offer.host = [3; 16];
    let mut listener = end(0, listens, Timestamp::START);
    let mut prober = Prober::new(ProberConfig::BRIEF, Timestamp::START, 7);
    let (mut probe, mut out) = (Vec::new(), [0; 1_200]);
    assert!(prober.poll_transmit(Timestamp::START, &mut probe));
    listener.node.handle_datagram(Timestamp::START, address(9), &probe, &mut listener.inbox);
    let sent = listener.node.poll_transmit(Timestamp::START, &mut out).unwrap();
    assert!(sent.to == address(9) && sent.bytes < probe.len());
    assert!(prober.handle_datagram(Timestamp::START, &out[..sent.bytes]));
    let offer = prober.probed(Timestamp::START).offer.unwrap();
    assert_eq!(offer.host, [3; 16]);
    assert_eq!(listener.node.poll_timeout(), Timestamp::NEVER);
    let mut caller = end(1, config(1, false), Timestamp::START);
    caller.node.handle_datagram(Timestamp::START, address(9), &probe, &mut caller.inbox);
    let hello = caller.node.poll_transmit(Timestamp::START, &mut out).unwrap();
    assert_eq!(hello.to, address(0), "who connects answers no probes");
}

#[test]
fn secrets_appear_in_no_debug_output() {
    let end = end(0, config(0, false), Timestamp::START);
    assert!(format!("{:?}", end.node).contains("Secret { .. }"));
}

#[test]
fn a_wrong_field_is_named() {
    let config = NodeConfig { datagram_bytes_max: 100, ..config(0, false) };
    let error = config.check().unwrap_err().to_string();
    assert_eq!(error, "datagram_bytes_max is 100, set it to 512..=9000");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_datagrams_of_who_has_a_link_harm_nobody(
        reliable: bool,
        datagrams in proptest::collection::vec(
            (0_u8..128, proptest::collection::vec(any::<u8>(), 0..80)),
            0..40,
        ),
    ) {
        let mut net = Net::pair(1, Faults::default(), reliable);
        net.meet();
        for (flags, rest) in datagrams {
            let Some(token) = net.ends[0].node.token_of(0) else { break };
            let mut bytes = vec![5, flags];
            bytes.extend_from_slice(&token.to_le_bytes());
            bytes.extend_from_slice(&rest);
            let now = net.now;
            let end = &mut net.ends[0];
            end.node.handle_datagram(now, address(1), &bytes, &mut end.inbox);
            net.run(Duration::from_millis(5));
            net.take(0);
        }
        prop_assert!(net.ends[0].node.subscribers() <= 1);
    }
}
