//! Messages beside the stream: datagrams that are lost, late or doubled, and the stream between them.
//!
//! //= hub 11.5

use super::*;
use crate::stream::inbound::LOOSE_MESSAGES_MAX;
use crate::stream::loose::{self, TAIL_DELAY};

const BEST_EFFORT: Setup = Setup { is_reliable: false, ..SETUP };
/// Bytes of a datagram.
const DATAGRAM: usize = 100;

/// Two ends, the stream between them, and datagrams beside it.
struct Beside {
    pair: Pair,
    /// Datagrams on the way to the end of that index.
    ways: [Vec<Vec<u8>>; 2],
}

impl Beside {
    fn new(left: Setup, right: Setup) -> Self {
        let mut pair = Pair::new(left, right);
        pair.connect().unwrap();
        Self { pair, ways: Default::default() }
    }

    /// One end says what goes beside the stream; how many datagrams that are.
    fn loosen(&mut self, from: usize) -> usize {
        let Some(links) = self.pair.links else { return 0 };
        let mut count = 0;
        loop {
            let mut datagram = Vec::new();
            loose::begin(0, &mut datagram);
            let topic = &mut self.pair.ends[from];
            if !topic.loosen(self.pair.now, links[from], DATAGRAM, &mut datagram) {
                assert_eq!(datagram.len(), 4, "nothing was appended");
                return count;
            }
            assert!(datagram.len() <= DATAGRAM, "{} bytes", datagram.len());
            self.ways[1 - from].push(datagram);
            count += 1;
        }
    }

    /// A datagram comes.
    fn come(&mut self, to: usize, datagram: &[u8]) -> Result<(), FrameError> {
        let Some(links) = self.pair.links else { return Ok(()) };
        let (_, rest) = loose::split(datagram).unwrap();
        self.pair.ends[to].take_loose(self.pair.now, links[to], rest)
    }

    /// Moves all that can move; nothing is lost.
    fn settle(&mut self) {
        loop {
            let mut moved = 0;
            for end in 0..2 {
                moved += self.loosen(end);
                for datagram in std::mem::take(&mut self.ways[1 - end]) {
                    self.come(1 - end, &datagram).unwrap();
                }
                moved += self.pair.write(end, 333);
                moved += self.pair.read(1 - end, 777).unwrap();
            }
            if moved == 0 {
                return;
            }
        }
    }

    fn publish(&mut self, bytes: usize) -> u64 {
        let number = self.pair.ends[0].log.next();
        let message = body(number, bytes);
        assert_eq!(self.pair.ends[0].publish(&message), Ok(number));
        number
    }

    /// Number and gap of each message that the second end takes.
    fn take_all(&mut self) -> Vec<(u64, u64)> {
        let mut taken = Vec::new();
        while let Some((number, lost, message)) = self.pair.take(1) {
            assert_eq!(message, body(number, message.len()), "message {number}");
            taken.push((number, lost));
        }
        taken
    }

    /// The number that the second end wants next.
    fn wanted(&self) -> u64 {
        self.pair.ends[1].hello(Some([1; 16])).standing.credit.received
    }
}

fn body(number: u64, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (number as usize + at) as u8).collect()
}

fn beside() -> Beside {
    let mut beside = Beside::new(BEST_EFFORT, BEST_EFFORT);
    beside.settle();
    beside
}

#[test]
fn messages_go_beside_the_stream_many_in_a_datagram() {
    let mut it = beside();
    for _ in 0..8 {
        it.publish(20);
    }
    assert_eq!(it.loosen(0), 2, "four of 22 bytes behind 12 in each");
    assert_eq!(it.pair.write(0, 1_000), 0, "nothing is left for the stream");
    it.settle();
    assert_eq!(it.take_all(), (0..8).map(|number| (number, 0)).collect::<Vec<_>>());
    assert_eq!(it.pair.ends[0].stats().lost, 0);
}

#[test]
fn what_fits_no_datagram_goes_by_the_stream_and_nothing_overtakes_it() {
    let mut it = beside();
    for bytes in [20, 300, 20] {
        it.publish(bytes);
    }
    assert_eq!(it.loosen(0), 1, "the first alone");
    while it.pair.write(0, 1_000) > 0 {}
    it.publish(86);
    assert_eq!(it.loosen(0), 0, "the long one is on its way");
    it.settle();
    assert_eq!(it.take_all(), [(0, 0), (1, 0), (2, 0), (3, 0)]);
    it.pair.later(ACK_DELAY);
    it.settle();
    it.publish(86);
    assert_eq!(it.loosen(0), 1, "it arrived: 86 bytes fit beside the stream again");
    it.publish(87);
    assert_eq!(it.loosen(0), 0, "and 87 do not");
    it.settle();
    assert_eq!(it.take_all(), [(4, 0), (5, 0)]);
}

#[test]
fn what_is_lost_is_counted_exactly_and_the_loss_of_the_last_is_known_soon() {
    let mut it = beside();
    for at in 0..7 {
        it.publish(60);
        assert_eq!(it.loosen(0), 1);
        if [1, 2, 5, 6].contains(&at) {
            it.ways[1].clear();
        }
        it.settle();
    }
    assert_eq!(it.take_all(), [(0, 0), (3, 2), (4, 0)]);
    assert_eq!((it.pair.ends[1].stats().lost, it.wanted()), (2, 5));
    assert_eq!(it.pair.ends[0].tail_at(), it.pair.now.after(TAIL_DELAY));
    it.pair.later(TAIL_DELAY);
    assert_eq!(it.pair.ends[0].tail_at(), Timestamp::NEVER, "it is said once");
    it.settle();
    assert_eq!((it.pair.ends[1].stats().lost, it.wanted()), (4, 7));
    it.publish(60);
    it.settle();
    assert_eq!(it.take_all(), [(7, 2)]);
    assert_eq!(it.pair.ends[1].stats().lost, 4, "each is counted once");
}

#[test]
fn who_leaves_says_how_far_messages_came() {
    let mut it = beside();
    it.publish(60);
    assert_eq!(it.loosen(0), 1);
    it.ways[1].clear();
    it.pair.ends[0].leave();
    it.settle();
    assert_eq!((it.pair.ends[1].stats().lost, it.wanted()), (1, 1));
}

#[test]
fn a_datagram_that_comes_late_or_twice_is_left_out() {
    let mut it = beside();
    for _ in 0..3 {
        it.publish(60);
        it.loosen(0);
    }
    let came = std::mem::take(&mut it.ways[1]);
    for at in [1, 0, 1, 2, 2] {
        it.come(1, &came[at]).unwrap();
    }
    assert_eq!(it.take_all(), [(1, 1), (2, 0)]);
    assert_eq!(it.pair.ends[1].stats().lost, 1);
}

#[test]
fn before_the_stream_says_where_it_begins_nothing_counts() {
    let mut it = Beside::new(BEST_EFFORT, BEST_EFFORT);
    it.publish(20);
    assert_eq!(it.loosen(0), 0, "the stream speaks first");
    let mut it = Beside::new(BEST_EFFORT, BEST_EFFORT);
    while it.pair.write(0, 1_000) > 0 {}
    it.publish(20);
    assert_eq!(it.loosen(0), 1);
    let came = std::mem::take(&mut it.ways[1]);
    it.come(1, &came[0]).unwrap();
    assert_eq!(it.take_all(), [], "it overtook the word that says where it begins");
    it.settle();
    it.publish(20);
    it.settle();
    assert_eq!(it.take_all(), [(1, 1)]);
}

#[test]
fn who_takes_nothing_misses_the_oldest_within_its_room() {
    let setup = Setup { depth: 4, longest: 80, ..BEST_EFFORT };
    let mut it = Beside::new(setup, setup);
    it.settle();
    let count = LOOSE_MESSAGES_MAX as u64 + 1_000;
    for _ in 0..count {
        it.publish(8);
        it.settle();
    }
    assert_eq!(it.pair.ends[1].waiting, LOOSE_MESSAGES_MAX);
    let taken = it.take_all();
    assert_eq!(taken.first(), Some(&(1_000, 1_000)));
    assert_eq!(taken.len(), LOOSE_MESSAGES_MAX);
    assert_eq!(it.pair.ends[1].stats().lost, 1_000);
    assert_eq!(it.pair.ends[1].stats().taken, LOOSE_MESSAGES_MAX as u64);
}

#[test]
fn a_reliable_topic_says_all_by_the_stream_and_takes_nothing_else() {
    let mut it = Beside::new(SETUP, SETUP);
    it.publish(20);
    assert_eq!(it.loosen(0), 0);
    it.settle();
    assert_eq!(it.take_all(), [(0, 0)]);
    let mut datagram = Vec::new();
    loose::begin(0, &mut datagram);
    loose::write_head(1, &mut datagram);
    loose::write_message(false, [b"x", b""], &mut datagram);
    assert_eq!(it.come(1, &datagram), Err(FrameError::Place("datagram")));
    let [_, there] = it.pair.links.unwrap();
    while it.pair.write(1, 1_000) > 0 {}
    assert_eq!(it.pair.ends[1].over(there), Some(EndReason::Left), "the last word was said");
}

#[test]
fn what_is_no_datagram_of_messages_ends_the_stream() {
    let mut it = beside();
    assert_eq!(it.come(1, &[0; 5]), Err(FrameError::Length("datagram")));
    let mut far = vec![0; 4];
    far.extend_from_slice(&u64::MAX.to_le_bytes());
    far.extend_from_slice(&[0, 0]);
    assert_eq!(beside().come(1, &far), Err(FrameError::Number));
}

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    Publish(usize),
    Loosen,
    /// The datagram of that place comes, and stays on the way where it is to come once more.
    Come(usize, bool),
    Drop(usize),
    Write(usize, usize),
    Read(usize, usize),
    Take,
    Cut,
    Connect,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..200).prop_map(Step::Publish),
        6 => Just(Step::Loosen),
        6 => (0_usize..4, prop::bool::weighted(0.1)).prop_map(|(at, again)| Step::Come(at, again)),
        2 => (0_usize..4).prop_map(Step::Drop),
        4 => (0_usize..2, 1_usize..400).prop_map(|(end, bytes)| Step::Write(end, bytes)),
        4 => (0_usize..2, 1_usize..400).prop_map(|(end, bytes)| Step::Read(end, bytes)),
        4 => Just(Step::Take),
        1 => Just(Step::Cut),
        2 => Just(Step::Connect),
        2 => (1_u64..30).prop_map(Step::Wait),
    ]
}

fn run_step(it: &mut Beside, step: &Step) {
    match *step {
        Step::Publish(bytes) => {
            it.publish(bytes);
        }
        Step::Loosen => {
            it.loosen(0);
        }
        Step::Come(at, again) => {
            if at < it.ways[1].len() {
                let datagram = if again { it.ways[1][at].clone() } else { it.ways[1].remove(at) };
                it.come(1, &datagram).unwrap();
            }
        }
        Step::Drop(at) => {
            if at < it.ways[1].len() {
                it.ways[1].remove(at);
            }
        }
        Step::Write(end, bytes) => {
            it.pair.write(end, bytes);
        }
        Step::Read(end, bytes) => {
            it.pair.read(end, bytes).unwrap();
        }
        Step::Take => {}
        Step::Cut => {
            it.pair.cut();
            it.ways = Default::default();
        }
        Step::Connect => {
            if it.pair.links.is_none() {
                let _ = it.pair.connect();
            }
        }
        Step::Wait(millis) => it.pair.later(Duration::from_millis(millis)),
    }
}

proptest! {
    #[test]
    fn whatever_the_ways_do_messages_come_in_order_and_gaps_are_counted_exactly(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let setup = Setup { depth: 16, ..BEST_EFFORT };
        let mut it = Beside::new(setup, setup);
        it.settle();
        let (mut wanted, mut counted) = (0, 0);
        let mut take = |it: &mut Beside, most: usize| {
            for _ in 0..most {
                let Some((number, lost, message)) = it.pair.take(1) else { break };
                prop_assert_eq!(&message, &body(number, message.len()));
                prop_assert_eq!(number, wanted + lost, "no gap that is not told, and none twice");
                (wanted, counted) = (number + 1, counted + lost + 1);
            }
            Ok(())
        };
        for step in &steps {
            run_step(&mut it, step);
            if matches!(step, Step::Take) {
                take(&mut it, 1)?;
            }
        }
        if it.pair.links.is_none() {
            it.pair.connect().unwrap();
        }
        // What is on the way is gone; the rest comes, and then the word that says how far it came.
        it.ways = Default::default();
        for _ in 0..4 {
            it.settle();
            it.pair.later(TAIL_DELAY);
            it.settle();
            // Room for what goes by the stream.
            take(&mut it, usize::MAX)?;
        }
        let published = it.pair.ends[0].stats().published;
        prop_assert_eq!(it.wanted(), published, "all is accounted for");
        let stats = it.pair.ends[1].stats();
        prop_assert_eq!(stats.taken + stats.lost, published);
        prop_assert!(counted <= published);
    }
}
