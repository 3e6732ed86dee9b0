//! Tests of topics over streams in memory that are cut and joined again.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::testing::Setup;
use super::super::wire;
use super::*;
use crate::report::Compression;

mod beside;

const LONGEST: usize = 1_000;

const SETUP: Setup = Setup {
    id: 1,
    is_reliable: true,
    depth: 8,
    history: 0,
    longest: LONGEST,
    compression: Compression::None,
};

fn topic(setup: Setup) -> Topic {
    setup.topic()
}

/// Two ends and the bytes between them.
struct Pair {
    now: Timestamp,
    ends: [Topic; 2],
    links: Option<[LinkId; 2]>,
    /// What is on the way to the end of that index.
    ways: [VecDeque<u8>; 2],
    last: [Option<[u8; 16]>; 2],
}

impl Pair {
    fn new(left: Setup, right: Setup) -> Self {
        let ends = [topic(left), topic(Setup { id: right.id.max(2), ..right })];
        Self { now: Timestamp::START, ends, links: None, ways: Default::default(), last: [None; 2] }
    }

    /// The first end connects to the second.
    fn connect(&mut self) -> Result<(), Refusal> {
        let [left, right] = &mut self.ends;
        let ours = left.hello(self.last[0]);
        let theirs = right.hello(Some(ours.greeting.id));
        let there = right.admit(self.now, &ours, &theirs.standing)?;
        let here = left.admit(self.now, &theirs, &ours.standing)?;
        self.last[0] = Some(theirs.greeting.id);
        self.links = Some([here, there]);
        Ok(())
    }

    /// The stream breaks: what is on the way is gone.
    fn cut(&mut self) {
        if let Some(links) = self.links.take() {
            for (end, link) in self.ends.iter_mut().zip(links) {
                end.broke(self.now, link);
            }
        }
        self.ways = Default::default();
    }

    /// One end writes at most so many bytes.
    fn write(&mut self, from: usize, most: usize) -> usize {
        let Some(links) = self.links else { return 0 };
        let (now, link) = (self.now, links[from]);
        let pieces = self.ends[from].transmit(now, link);
        let bytes: Vec<u8> = pieces.concat().into_iter().take(most).collect();
        self.ends[from].sent(now, link, bytes.len());
        self.ways[1 - from].extend(&bytes);
        bytes.len()
    }

    /// One end reads at most so many bytes.
    fn read(&mut self, to: usize, most: usize) -> Result<usize, FrameError> {
        let Some(links) = self.links else { return Ok(0) };
        let space = self.ends[to].space(links[to]).unwrap();
        let count = self.ways[to].len().min(most).min(space.len());
        for (place, byte) in space.iter_mut().zip(self.ways[to].drain(..count)) {
            *place = byte;
        }
        if count > 0 {
            self.ends[to].filled(self.now, links[to], count)?;
        }
        Ok(count)
    }

    /// Moves all bytes that can move.
    fn settle(&mut self) {
        loop {
            let mut moved = 0;
            for end in 0..2 {
                moved += self.write(end, 333);
                moved += self.read(1 - end, 777).unwrap();
            }
            if moved == 0 {
                return;
            }
        }
    }

    fn take(&mut self, end: usize) -> Option<(u64, u64, Vec<u8>)> {
        let mut room = Vec::new();
        let taken = self.ends[end].take(&mut room)?;
        Some((taken.number, taken.lost, room))
    }

    fn publish(&mut self, end: usize, text: &str) -> Result<u64, LogFull> {
        self.ends[end].publish(text.as_bytes())
    }

    fn later(&mut self, time: Duration) {
        self.now = self.now.after(time);
        for end in &mut self.ends {
            end.handle_timeout(self.now);
        }
    }
}

fn pair() -> Pair {
    let mut pair = Pair::new(SETUP, SETUP);
    pair.connect().unwrap();
    pair.settle();
    pair
}

#[test]
fn messages_go_both_ways_in_order() {
    let mut pair = pair();
    for at in 0..3 {
        assert_eq!(pair.publish(0, &format!("left {at}")), Ok(at));
        assert_eq!(pair.publish(1, &format!("right {at}")), Ok(at));
    }
    pair.settle();
    for at in 0..3 {
        assert_eq!(pair.take(1), Some((at, 0, format!("left {at}").into_bytes())));
        assert_eq!(pair.take(0), Some((at, 0, format!("right {at}").into_bytes())));
    }
    assert_eq!(pair.take(0), None);
    assert_eq!((pair.ends[0].subscribers(), pair.ends[0].publishers()), (1, 1));
}

#[test]
fn a_slow_subscriber_of_a_reliable_topic_holds_its_publisher_back() {
    let mut pair = pair();
    let mut published = 0;
    while pair.publish(0, "x").is_ok() {
        published += 1;
        pair.settle();
        pair.later(ACK_DELAY);
        pair.settle();
        assert!(published < 100);
    }
    assert_eq!(published, 16, "what the subscriber keeps and what the publisher keeps");
    for at in 0..8 {
        assert_eq!(pair.take(1).map(|it| it.0), Some(at));
    }
    pair.settle();
    pair.later(ACK_DELAY);
    pair.settle();
    assert_eq!(pair.publish(0, "x"), Ok(16));
}

#[test]
fn a_slow_subscriber_of_a_best_effort_topic_misses_the_oldest_and_learns_how_many() {
    let setup = Setup { is_reliable: false, ..SETUP };
    let mut pair = Pair::new(setup, setup);
    pair.connect().unwrap();
    pair.settle();
    for at in 0..40 {
        assert_eq!(pair.publish(0, "x"), Ok(at));
        pair.settle();
    }
    let mut got = Vec::new();
    while let Some((number, lost, _)) = pair.take(1) {
        got.push((number, lost));
        pair.settle();
    }
    let mut expected: Vec<_> = (0..8).map(|at| (at, 0)).collect();
    expected.push((32, 24));
    expected.extend((33..40).map(|at| (at, 0)));
    assert_eq!(got, expected);
    assert_eq!(pair.ends[1].stats().lost, 24);
}

#[test]
fn what_was_on_the_way_when_the_stream_broke_comes_again_and_once() {
    let mut pair = pair();
    for at in 0..6 {
        pair.publish(0, &format!("m{at}")).unwrap();
    }
    // Two messages and a half arrive.
    pair.write(0, 15);
    pair.read(1, 15).unwrap();
    pair.cut();
    assert_eq!(pair.ends[1].stats().ended, 1);
    pair.publish(0, "m6").unwrap();
    pair.connect().unwrap();
    pair.settle();
    for at in 0..7 {
        assert_eq!(pair.take(1), Some((at, 0, format!("m{at}").into_bytes())));
    }
    assert_eq!(pair.take(1), None);
    assert_eq!(pair.ends[0].stats().resumed, 1);
}

#[test]
fn a_publisher_waits_for_a_subscriber_that_broke_off_and_not_for_ever() {
    let mut pair = pair();
    pair.cut();
    for _ in 0..8 {
        pair.publish(0, "kept").unwrap();
    }
    assert_eq!(pair.publish(0, "x"), Err(LogFull));
    pair.later(Times::default().resume_timeout - Duration::from_nanos(1));
    assert_eq!(pair.publish(0, "x"), Err(LogFull));
    assert_eq!(
        pair.ends[0].poll_timeout(),
        Timestamp::START.after(Times::default().resume_timeout)
    );
    pair.later(Duration::from_nanos(1));
    assert_eq!(pair.publish(0, "x"), Ok(8));
    assert_eq!(pair.ends[0].stats().forgotten, 1);
    // It comes back late, and learns exactly what it missed.
    pair.connect().unwrap();
    pair.settle();
    assert_eq!(pair.take(1), Some((1, 1, b"kept".to_vec())));
}

#[test]
fn who_leaves_lets_in_only_whom_it_owes() {
    let mut pair = Pair::new(Setup { history: 8, ..SETUP }, Setup { history: 8, ..SETUP });
    pair.connect().unwrap();
    pair.publish(1, "a").unwrap();
    pair.settle();
    pair.cut();
    pair.publish(1, "b").unwrap();
    pair.ends[1].leave();
    // The one whose stream broke gets the rest, and is told that nothing follows.
    pair.connect().unwrap();
    pair.settle();
    for (number, text) in [(0, b"a"), (1, b"b")] {
        assert_eq!(pair.take(0), Some((number, 0, text.to_vec())));
    }
    let [here, there] = pair.links.unwrap();
    assert_eq!(pair.ends[0].over(here), Some(EndReason::Left));
    assert_eq!(pair.ends[1].over(there), Some(EndReason::Left));
    pair.cut();
    // It has forgotten whom it heard, and history would be heard twice.
    assert_eq!(pair.connect(), Err(Refusal::Leaving));
}

#[test]
fn room_made_while_a_stream_was_being_made_is_told() {
    let setup = Setup { depth: 1, ..SETUP };
    let mut pair = Pair::new(setup, setup);
    pair.connect().unwrap();
    pair.publish(1, "a").unwrap();
    pair.settle();
    pair.cut();
    let [left, right] = &mut pair.ends;
    let ours = left.hello(pair.last[0]);
    assert_eq!(ours.standing.credit.messages, 0, "one message waits, and there is room for one");
    let theirs = right.hello(Some(ours.greeting.id));
    let there = right.admit(pair.now, &ours, &theirs.standing).unwrap();
    let mut room = Vec::new();
    assert!(left.take(&mut room).is_some());
    let here = left.admit(pair.now, &theirs, &ours.standing).unwrap();
    pair.links = Some([here, there]);
    pair.settle();
    pair.publish(1, "b").unwrap();
    pair.settle();
    assert_eq!(pair.take(0), Some((1, 0, b"b".to_vec())));
}

#[test]
fn who_left_is_waited_for_no_more_and_heard_out() {
    let mut pair = pair();
    pair.publish(1, "last words").unwrap();
    pair.ends[1].leave();
    pair.settle();
    let links = pair.links.unwrap();
    assert_eq!(pair.ends[0].over(links[0]), Some(EndReason::Left));
    assert_eq!(pair.ends[1].over(links[1]), Some(EndReason::Left));
    pair.cut();
    for _ in 0..20 {
        pair.publish(0, "nobody hears").unwrap();
    }
    assert_eq!(pair.ends[0].publishers(), 1);
    assert_eq!(pair.take(0), Some((0, 0, b"last words".to_vec())));
    assert_eq!(pair.ends[0].publishers(), 0);
    assert!(pair.ends[0].peers.iter().all(Option::is_none));
}

#[test]
fn who_comes_late_gets_the_history_that_both_sides_want() {
    for (kept, wanted, gets) in [(0, 5, 0), (3, 5, 3), (5, 3, 3), (5, 100, 5)] {
        let mut pair =
            Pair::new(Setup { history: kept, ..SETUP }, Setup { history: wanted, ..SETUP });
        for at in 0..20 {
            pair.publish(0, &format!("{at}")).unwrap();
        }
        pair.connect().unwrap();
        pair.settle();
        let got: Vec<_> = std::iter::from_fn(|| pair.take(1)).map(|it| (it.0, it.1)).collect();
        let expected: Vec<_> = (20 - gets..20).map(|at| (at, 0)).collect();
        assert_eq!(got, expected, "kept {kept}, wanted {wanted}");
    }
}

#[test]
fn ends_that_do_not_agree_refuse_each_other() {
    let mut pair = Pair::new(SETUP, Setup { is_reliable: false, ..SETUP });
    let refusal = pair.connect().unwrap_err();
    assert_eq!(refusal, Refusal::Disagreement(Disagreement::Reliability(true)));
    assert_eq!(refusal.reason(), EndReason::Disagreement);
    let mut alone = topic(SETUP);
    let hello = alone.hello(None);
    assert_eq!(alone.admit(Timestamp::START, &hello, &hello.standing), Err(Refusal::Oneself));
    // What one packs the other must undo.
    let mut packs = topic(Setup { compression: Compression::Zstd, ..SETUP });
    let mut theirs = topic(Setup { id: 2, ..SETUP }).hello(None);
    theirs.greeting.compressions.0 = 1;
    let refusal = packs.admit(Timestamp::START, &theirs, &hello.standing);
    assert_eq!(refusal, Err(Refusal::Compression));
}

#[test]
fn peers_are_bounded_and_those_gone_longest_make_room() {
    let mut hub = topic(SETUP);
    let hello = |id: usize| {
        let mut hello = topic(SETUP).hello(None);
        hello.greeting.id[..8].copy_from_slice(&(id as u64 + 1_000).to_le_bytes());
        hello
    };
    let ours = hub.hello(None).standing;
    let links: Vec<_> =
        (0..PEERS_MAX).map(|id| hub.admit(Timestamp::START, &hello(id), &ours).unwrap()).collect();
    assert_eq!(hub.admit(Timestamp::START, &hello(PEERS_MAX), &ours), Err(Refusal::Full));
    hub.broke(Timestamp::from_nanos(5), links[7]);
    hub.broke(Timestamp::from_nanos(4), links[9]);
    let link = hub.admit(Timestamp::START, &hello(PEERS_MAX), &ours).unwrap();
    assert_eq!(link.peer, 9);
    assert_eq!(hub.stats().forgotten, 1);
    // What is still told of the old stream touches nobody.
    assert!(hub.space(links[9]).is_none());
    assert_eq!(hub.over(links[9]), Some(EndReason::Replaced));
}

#[test]
fn another_stream_of_the_same_peer_replaces_the_first() {
    let mut pair = pair();
    let old = pair.links.unwrap();
    pair.publish(0, "once").unwrap();
    pair.connect().unwrap();
    pair.ways = Default::default();
    assert_eq!(pair.ends[1].over(old[1]), Some(EndReason::Replaced));
    pair.settle();
    assert_eq!(pair.take(1), Some((0, 0, b"once".to_vec())));
    assert_eq!(pair.ends[0].subscribers(), 1);
}

/// What an end took.
fn taken_numbers(topic: &mut Topic) -> Vec<u64> {
    let mut room = Vec::new();
    std::iter::from_fn(|| topic.take(&mut room)).map(|taken| taken.number).collect()
}

#[test]
fn who_was_met_and_does_not_say_so_gets_what_was_not_acknowledged() {
    let mut pair = pair();
    for number in 0..5 {
        assert_eq!(pair.ends[1].publish(b"message"), Ok(number));
    }
    // The answer to its hello was lost, and so was all that came behind it.
    pair.links = None;
    pair.ways = Default::default();
    pair.ends[0] = topic(SETUP);
    pair.last = [None; 2];
    pair.connect().unwrap();
    pair.settle();
    assert_eq!(taken_numbers(&mut pair.ends[0]), [0, 1, 2, 3, 4]);
}

#[test]
fn a_stream_that_was_greeted_before_another_brought_messages_is_greeted_anew() {
    let mut pair = pair();
    pair.ends[1].publish(b"0").unwrap();
    pair.settle();
    // Greeted in another way, while this one goes on to bring messages.
    for last in [None, pair.last[0]] {
        let ours = pair.ends[0].hello(last);
        pair.ends[1].publish(b"more").unwrap();
        pair.settle();
        let theirs = pair.ends[1].hello(Some(ours.greeting.id));
        let there = pair.ends[1].admit(pair.now, &ours, &theirs.standing).unwrap();
        let admitted = pair.ends[0].admit(pair.now, &theirs, &ours.standing);
        assert_eq!(admitted, Err(Refusal::Outdated));
        assert!(pair.ends[0].is_linked(theirs.greeting.id));
        pair.ends[1].broke(pair.now, there);
        pair.connect().unwrap();
        pair.settle();
    }
    pair.ends[1].publish(b"last").unwrap();
    pair.settle();
    assert_eq!(taken_numbers(&mut pair.ends[0]), [0, 1, 2, 3]);
}

#[test]
fn silence_is_broken_by_pings_and_a_dead_link_is_found() {
    let mut pair = pair();
    for _ in 0..10 {
        pair.later(Times::default().keepalive_interval);
        pair.settle();
    }
    let links = pair.links.unwrap();
    assert_eq!(pair.ends[0].over(links[0]), None);
    // Nothing goes through any more.
    for _ in 0..3 {
        pair.later(Times::default().keepalive_interval);
        pair.write(0, 1_000);
    }
    assert_eq!(pair.ends[0].over(links[0]), Some(EndReason::Silent));
}

#[test]
fn messages_longer_than_a_subscriber_takes_pass_it_by_and_are_counted() {
    let mut pair = Pair::new(SETUP, Setup { longest: 10, ..SETUP });
    pair.connect().unwrap();
    for text in ["short", "much longer than ten", "another of great length", "end"] {
        pair.publish(0, text).unwrap();
    }
    pair.settle();
    assert_eq!(pair.take(1), Some((0, 0, b"short".to_vec())));
    assert_eq!(pair.take(1), Some((3, 2, b"end".to_vec())));
}

#[test]
fn packed_messages_arrive_as_they_were() {
    let mut pair = Pair::new(Setup { compression: Compression::Lz4, ..SETUP }, SETUP);
    pair.connect().unwrap();
    let text = "again and ".repeat(50);
    pair.publish(0, &text).unwrap();
    let before: usize = pair.ends[0].log.bytes(0, 10_000).iter().map(|it| it.len()).sum();
    pair.settle();
    assert!(before > 0 && pair.ends[0].log.place(1) < 100, "it left packed");
    assert_eq!(pair.take(1), Some((0, 0, text.into_bytes())));
    assert_eq!(pair.ends[0].compression().packed, 1);
}

#[test]
fn an_ack_of_what_was_never_sent_ends_the_stream() {
    let mut pair = pair();
    pair.publish(0, "one").unwrap();
    let credit = wire::Credit { received: 2, messages: 9, bytes: 9_999 };
    let mut bytes = Vec::new();
    wire::Frame::Credit(credit).write(&mut bytes);
    pair.ways[0].extend(&bytes);
    assert_eq!(pair.read(0, 1_000), Err(FrameError::Number));
    let links = pair.links.unwrap();
    pair.write(0, 1_000);
    assert_eq!(pair.ends[0].over(links[0]), Some(EndReason::Left), "its last word left");
}

#[test]
fn numbers_that_leap_as_far_as_they_may_are_counted() {
    let mut pair = pair();
    let mut bytes = Vec::new();
    for number in [u64::MAX / 2 - 1, u64::MAX / 2] {
        wire::Frame::Next(number).write(&mut bytes);
        bytes.extend_from_slice(&wire::head(Kind::Message, 1));
        bytes.push(b'x');
    }
    pair.ways[0].extend(&bytes);
    pair.read(0, 1_000).unwrap();
    let leap = u64::MAX / 2 - 1;
    assert_eq!(pair.take(0), Some((leap, leap, b"x".to_vec())));
    assert_eq!(pair.take(0), Some((leap + 1, 0, b"x".to_vec())));
    assert_eq!(pair.ends[0].stats().lost, leap);
}

/// What may happen between two ends.
#[derive(Clone, Debug)]
enum Step {
    Publish(usize, usize),
    Write(usize, usize),
    Read(usize, usize),
    Take(usize),
    Cut,
    Connect,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let end = 0_usize..2;
    prop_oneof![
        4 => (end.clone(), 0_usize..300).prop_map(|(end, bytes)| Step::Publish(end, bytes)),
        6 => (end.clone(), 1_usize..400).prop_map(|(end, bytes)| Step::Write(end, bytes)),
        6 => (end.clone(), 1_usize..400).prop_map(|(end, bytes)| Step::Read(end, bytes)),
        4 => end.prop_map(Step::Take),
        1 => Just(Step::Cut),
        2 => Just(Step::Connect),
        2 => (1_u64..30).prop_map(Step::Wait),
    ]
}

/// Runs steps; checks each message and, at the end, that all is accounted for.
fn run(is_reliable: bool, compression: Compression, steps: &[Step]) -> Result<(), TestCaseError> {
    let setup = Setup { is_reliable, compression, depth: 4, ..SETUP };
    let mut pair = Pair::new(setup, setup);
    let body = |end: usize, number: u64, bytes: usize| {
        format!("{end} {number} {}", "ab".repeat(bytes / 2)).into_bytes()
    };
    let mut sent: [Vec<Vec<u8>>; 2] = Default::default();
    // The number that each end expects, once it heard of one.
    let mut wanted: [Option<u64>; 2] = [None; 2];
    let mut check = |pair: &mut Pair, end: usize, sent: &[Vec<Vec<u8>>; 2]| {
        let Some((number, lost, message)) = pair.take(end) else { return Ok(false) };
        prop_assert_eq!(Some(&message), sent[1 - end].get(number as usize));
        if let Some(wanted) = wanted[end] {
            prop_assert_eq!(number, wanted + lost, "no gap that is not told, and none twice");
        }
        if is_reliable {
            prop_assert_eq!(lost, 0);
        }
        wanted[end] = Some(number + 1);
        Ok(true)
    };
    for step in steps {
        match *step {
            Step::Publish(end, bytes) => {
                let message = body(end, sent[end].len() as u64, bytes);
                match pair.ends[end].publish(&message) {
                    Ok(number) => {
                        prop_assert_eq!(number, sent[end].len() as u64);
                        sent[end].push(message);
                    }
                    Err(LogFull) => prop_assert!(is_reliable),
                }
            }
            Step::Write(end, most) => drop(pair.write(end, most)),
            Step::Read(end, most) => {
                let read = pair.read(end, most);
                prop_assert!(read.is_ok(), "{:?}", read);
            }
            Step::Take(end) => drop(check(&mut pair, end, &sent)?),
            Step::Cut => pair.cut(),
            Step::Connect => {
                if pair.links.is_none() {
                    pair.connect().unwrap();
                }
            }
            Step::Wait(ms) => pair.later(Duration::from_millis(ms)),
        }
    }
    if pair.links.is_none() {
        pair.connect().unwrap();
    }
    for _ in 0..50 {
        pair.settle();
        pair.later(ACK_DELAY);
        for end in 0..2 {
            while check(&mut pair, end, &sent)? {}
        }
    }
    for end in 0..2 {
        let last = sent[1 - end].len() as u64;
        // Who heard of any heard of all behind it, up to the last one.
        prop_assert!(wanted[end].is_none_or(|wanted| wanted == last), "{:?} {}", wanted, last);
        prop_assert!(pair.ends[end].is_delivered());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn reliable_messages_are_neither_lost_nor_doubled_wherever_streams_break(
        steps in prop::collection::vec(step(), 1..150),
        is_packed in any::<bool>(),
    ) {
        let compression = if is_packed { Compression::Zstd } else { Compression::None };
        run(true, compression, &steps)?;
    }

    #[test]
    fn best_effort_messages_come_in_order_without_doubles_and_the_gaps_are_exact(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        run(false, Compression::None, &steps)?;
    }
}
