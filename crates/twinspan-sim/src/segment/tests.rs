//! Two ends and a network between them that does what each test says.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;

use super::connection::{Connection, Phase, SEGMENT_BYTES_MAX, Settings, TIME_WAIT, Wakes};
use super::header::{Flags, Header};
use super::inbound::ACK_DELAY;

const MS: Duration = Duration::from_millis(1);
/// One way.
const DELAY: Duration = Duration::from_millis(50);
const HOUR: Duration = Duration::from_secs(3_600);

fn settings(first_seq: u32) -> Settings {
    Settings {
        first_seq,
        inbox_max: 256 << 10,
        outbox_max: 256 << 10,
        mss: SEGMENT_BYTES_MAX as u16,
        nodelay: true,
        has_ecn: false,
        keepalive: None,
        give_up: Duration::from_secs(60),
    }
}

/// What the network does with a segment.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Passes,
    Lost,
    Late(Duration),
    Twice,
    Marked,
}

#[derive(Clone, Debug)]
struct Flying {
    to: usize,
    header: Header,
    bytes: Vec<u8>,
    is_marked: bool,
}

/// What was sent: when, by whom, what it said, how many bytes.
type Log = Vec<(Timestamp, usize, Header, usize)>;

/// Decides about a segment of a side, by its header and its length.
type Decide<'a> = Box<dyn FnMut(usize, &Header, usize) -> Fate + 'a>;

struct Pair<'a> {
    now: Timestamp,
    ends: Vec<Connection>,
    air: BTreeMap<(Timestamp, u64), Flying>,
    sent: u64,
    log: Log,
    fate: Decide<'a>,
}

impl<'a> Pair<'a> {
    /// A client that begins to connect, and a server as soon as it hears of it.
    fn new(
        [client, server]: [Settings; 2],
        fate: impl FnMut(usize, &Header, usize) -> Fate + 'a,
    ) -> Self {
        let now = Timestamp::START;
        let mut client = Connection::connect(now, client);
        let mut scratch = [0; SEGMENT_BYTES_MAX];
        let (opening, _) = client.poll_transmit(now, &mut scratch).unwrap();
        assert_eq!(opening.flags.bits() & 0x3f, Flags::SYN.bits());
        let now = now.after(DELAY);
        let server = Connection::accept(now, server, &opening);
        let (ends, air) = (vec![client, server], BTreeMap::new());
        let mut pair = Self { now, ends, air, sent: 0, log: Vec::new(), fate: Box::new(fate) };
        pair.pump();
        pair
    }

    fn open(settings: [Settings; 2], fate: impl FnMut(usize, &Header, usize) -> Fate + 'a) -> Self {
        let mut pair = Self::new(settings, fate);
        pair.run(4 * DELAY);
        assert_eq!(pair.phases(), [Phase::Established; 2]);
        pair
    }

    fn plain() -> Self {
        Self::open([settings(1), settings(2)], |_, _, _| Fate::Passes)
    }

    fn phases(&self) -> [Phase; 2] {
        [self.ends[0].phase(), self.ends[1].phase()]
    }

    /// Puts on its way what the ends have to send.
    fn pump(&mut self) {
        for side in 0..2 {
            let mut scratch = [0; SEGMENT_BYTES_MAX];
            while let Some((header, len)) = self.ends[side].poll_transmit(self.now, &mut scratch) {
                self.log.push((self.now, side, header, len));
                let fate = (self.fate)(side, &header, len);
                let late = if let Fate::Late(late) = fate { late } else { Duration::ZERO };
                let copies = match fate {
                    Fate::Lost => 0,
                    Fate::Twice => 2,
                    _ => 1,
                };
                for copy in 0..copies {
                    let at = self.now.after(DELAY + late + copy * MS);
                    self.sent += 1;
                    let (to, bytes) = (1 - side, scratch[..len].to_vec());
                    let is_marked = fate == Fate::Marked;
                    self.air.insert((at, self.sent), Flying { to, header, bytes, is_marked });
                }
            }
        }
    }

    /// Lets this much time pass.
    fn run(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        loop {
            self.pump();
            let timeouts = self.ends.iter().filter_map(Connection::poll_timeout);
            let arrival = self.air.keys().next().map(|(at, _)| *at);
            let Some(at) = timeouts.chain(arrival).min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            while let Some(((at, number), _)) = self.air.first_key_value()
                && *at <= self.now
            {
                let key = (*at, *number);
                let flying = self.air.remove(&key).unwrap();
                self.take(&flying);
                self.pump();
            }
            for side in 0..2 {
                if self.ends[side].poll_timeout().is_some_and(|at| at <= self.now) {
                    self.ends[side].handle_timeout(self.now);
                }
            }
        }
        self.now = end;
    }

    fn take(&mut self, flying: &Flying) -> Wakes {
        let Flying { to, header, bytes, is_marked } = flying;
        self.ends[*to].handle_segment(self.now, header, bytes, *is_marked)
    }

    /// Writes as much as there is room for; how much.
    fn write(&mut self, side: usize, bytes: &[u8]) -> usize {
        let len = self.ends[side].room().min(bytes.len());
        self.ends[side].write(&bytes[..len]);
        len
    }

    fn read(&mut self, side: usize) -> Vec<u8> {
        let mut out = vec![0; self.ends[side].ready()];
        let len = self.ends[side].read(self.now, &mut out);
        out.truncate(len);
        out
    }

    /// Carries `len` bytes from 0 to 1, read as they come, and checks them.
    fn carry(&mut self, len: usize) -> Duration {
        let began = self.now;
        let bytes = pattern(len);
        let (mut written, mut read) = (0, Vec::new());
        while read.len() < len {
            written += self.write(0, &bytes[written..]);
            self.run(MS);
            read.extend(self.read(1));
            assert!(self.now.since(began) < HOUR, "{} of {len} bytes came", read.len());
        }
        assert!(read == bytes);
        self.now.since(began)
    }

    /// Segments with bytes that a side sent.
    fn data(&self, side: usize) -> Vec<(Timestamp, Header, usize)> {
        let of_side = self.log.iter().filter(|one| one.1 == side && one.3 > 0);
        of_side.map(|(at, _, header, len)| (*at, *header, *len)).collect()
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

#[test]
fn a_handshake_takes_a_round_trip_and_agrees_on_lengths_and_scales() {
    let client = Settings { mss: 1_000, inbox_max: 1 << 20, ..settings(7) };
    let server = Settings { mss: 1_200, inbox_max: 4 << 10, ..settings(9) };
    let mut pair = Pair::new([client, server], |_, _, _| Fate::Passes);
    pair.run(DELAY);
    assert_eq!(pair.phases(), [Phase::Established, Phase::SynReceived]);
    pair.run(DELAY);
    assert_eq!(pair.phases(), [Phase::Established; 2]);
    let [opened, last] = [pair.log[0].2, pair.log[1].2];
    assert_eq!(opened.opening.map(|it| (it.mss, it.scale)), Some((1_200, 0)));
    // A megabyte fits 16 bits when it is shifted by five.
    assert_eq!((last.window, last.ack), (1 << 15, 10));
    pair.write(0, &pattern(3_000));
    pair.write(1, &pattern(3_000));
    pair.run(HOUR);
    let lens = |side| pair.data(side).iter().map(|one| one.2).collect::<Vec<_>>();
    assert_eq!((lens(0), lens(1)), (vec![1_000; 3], vec![1_000; 3]));
}

#[test]
fn a_lost_opening_or_answer_is_sent_again_after_a_second_and_two() {
    for lost in [0, 1] {
        let mut count = 0;
        let mut pair = Pair::new([settings(1), settings(2)], |side, header, _| {
            // The first segment is not the network's: the second end was made from it.
            let is_opening = header.flags.has(Flags::SYN) && side == 1;
            count += u32::from(is_opening);
            if is_opening && count <= 1 + lost { Fate::Lost } else { Fate::Passes }
        });
        pair.run(Duration::from_secs(10));
        assert_eq!(pair.phases(), [Phase::Established; 2]);
        let answers: Vec<_> =
            pair.log.iter().filter(|one| one.1 == 1 && one.2.flags.has(Flags::SYN)).collect();
        assert!(answers.len() > 1 + lost as usize);
        assert!(answers[1].0.since(answers[0].0) <= Duration::from_secs(1));
    }
}

#[test]
fn a_clean_way_needs_each_segment_once_and_acknowledges_every_second() {
    let mut pair = Pair::plain();
    let took = pair.carry(1_000_000);
    // Windows of 12, 24, 48 .. kilobytes in a round trip each.
    assert!(took < 12 * 2 * DELAY, "{took:?}");
    let (data, acks) = (pair.data(0).len(), pair.log.iter().filter(|one| one.1 == 1).count());
    assert!((685..700).contains(&data), "{data}");
    assert!((data / 2 - 20..data / 2 + 60).contains(&acks), "{acks} acks of {data} segments");
    assert_eq!(pair.ends[0].counts().resent, 0);
}

#[test]
fn one_lost_segment_is_noticed_by_those_behind_it() {
    let mut number = 0;
    let mut pair = Pair::open([settings(1), settings(2)], |side, _, len| {
        number += u32::from(side == 0 && len > 0);
        if side == 0 && len > 0 && number == 40 { Fate::Lost } else { Fate::Passes }
    });
    let before = pair.carry(200_000);
    let counts = pair.ends[0].counts();
    assert_eq!((counts.resent, counts.timeouts, counts.reductions), (1, 0, 1));
    assert!(before < 10 * 2 * DELAY, "{before:?}");
}

#[test]
fn many_losses_in_one_window_cost_one_reduction() {
    let mut number = 0;
    let mut pair = Pair::open([settings(1), settings(2)], |side, _, len| {
        number += u32::from(side == 0 && len > 0);
        let is_lost = side == 0 && len > 0 && (60..80).contains(&number) && number % 2 == 0;
        if is_lost { Fate::Lost } else { Fate::Passes }
    });
    pair.carry(400_000);
    let counts = pair.ends[0].counts();
    assert_eq!((counts.resent, counts.timeouts, counts.reductions), (10, 0, 1));
}

#[test]
fn a_lost_tail_is_sent_again_when_the_timer_runs_out_and_ever_later() {
    let mut pair = Pair::open([settings(1), settings(2)], |side, _, len| {
        if side == 0 && len > 0 { Fate::Lost } else { Fate::Passes }
    });
    pair.write(0, b"lost");
    pair.run(Duration::from_secs(59));
    let times: Vec<_> = pair.data(0).iter().map(|one| one.0).collect();
    let gaps: Vec<_> = times.windows(2).map(|two| two[1].since(two[0])).collect();
    assert!(gaps[0] >= 200 * MS && gaps[0] < 400 * MS, "{gaps:?}");
    for two in gaps.windows(2) {
        // Doubled, up to a quarter of the patience.
        assert_eq!(two[1], (two[0] * 2).min(Duration::from_secs(15)), "{gaps:?}");
    }
    assert_eq!(pair.ends[0].outbound().window(), SEGMENT_BYTES_MAX as u64);
    pair.run(Duration::from_secs(30));
    assert_eq!(pair.ends[0].phase(), Phase::Closed);
    assert_eq!(pair.ends[0].take_error(), Some(ErrorKind::TimedOut));
}

#[test]
fn a_reader_who_waits_stops_the_sender_who_asks_now_and_then() {
    let small = Settings { inbox_max: 8 << 10, ..settings(2) };
    let mut pair = Pair::open([settings(1), small], |_, _, _| Fate::Passes);
    pair.write(0, &pattern(50_000));
    // For longer than a silent peer would be borne.
    pair.run(Duration::from_secs(600));
    assert_eq!(pair.ends[1].ready(), 8 << 10);
    assert_eq!(pair.phases(), [Phase::Established; 2]);
    let probes = pair.ends[0].counts().probes;
    assert!((10..60).contains(&probes), "{probes}");
    let mut read = pair.read(1);
    let began = pair.now;
    while read.len() < 50_000 {
        pair.run(MS);
        read.extend(pair.read(1));
    }
    assert!(read == pattern(50_000));
    assert!(pair.now.since(began) < 8 * 2 * DELAY, "the open window is told at once");
}

#[test]
fn a_lost_word_of_an_open_window_is_made_good_by_a_probe() {
    let small = Settings { inbox_max: 8 << 10, ..settings(2) };
    let silent = Rc::new(Cell::new(false));
    let told = Rc::clone(&silent);
    let mut pair = Pair::open([settings(1), small], move |side, _, _| {
        if side == 1 && told.get() { Fate::Lost } else { Fate::Passes }
    });
    pair.write(0, &pattern(20_000));
    pair.run(Duration::from_secs(5));
    silent.set(true);
    let mut read = pair.read(1);
    pair.run(MS);
    silent.set(false);
    while read.len() < 20_000 {
        pair.run(MS);
        read.extend(pair.read(1));
        assert!(pair.now < Timestamp::START.after(Duration::from_secs(60)));
    }
}

#[test]
fn an_acknowledgement_waits_a_little_for_company() {
    let mut pair = Pair::plain();
    pair.log.clear();
    pair.write(0, b"one");
    let began = pair.now;
    pair.run(Duration::from_secs(1));
    let ack = pair.log.iter().find(|one| one.1 == 1).unwrap();
    assert_eq!(ack.0.since(began), DELAY + ACK_DELAY);
}

#[test]
fn small_writes_wait_for_each_other_where_that_is_wanted() {
    for (nodelay, segments) in [(true, 5), (false, 2)] {
        let talks = Settings { nodelay, ..settings(1) };
        let mut pair = Pair::open([talks, settings(2)], |_, _, _| Fate::Passes);
        for _ in 0..5 {
            pair.write(0, &[7; 100]);
            pair.run(MS);
        }
        pair.run(Duration::from_secs(1));
        assert_eq!(pair.data(0).len(), segments);
        assert_eq!(pair.ends[1].ready(), 500);
    }
}

#[test]
fn numbers_wrap_without_notice() {
    let near_end = [settings(u32::MAX - 5_000), settings(u32::MAX)];
    let mut pair = Pair::open(near_end, |_, _, _| Fate::Passes);
    pair.carry(300_000);
    assert_eq!(pair.ends[0].counts().resent, 0);
}

/// A segment for the client as the server would send it, and as others might.
fn forged(pair: &Pair<'_>, flags: Flags, off: u32) -> Header {
    let (_, _, last, len) = *pair.log.iter().rfind(|one| one.1 == 1).unwrap();
    let (_, _, own, _) = *pair.log.iter().rfind(|one| one.1 == 0).unwrap();
    let seq = own.ack.wrapping_add(off);
    assert!(len == 0 && last.flags.has(Flags::ACK));
    Header { flags, seq, ack: last.ack, window: 100, ..Header::default() }
}

fn talked() -> Pair<'static> {
    let mut pair = Pair::plain();
    pair.write(0, b"hello");
    pair.run(Duration::from_secs(1));
    pair.log.push((pair.now, 1, pair.log.last().unwrap().2, 0));
    pair.log.retain(|one| one.3 == 0);
    pair
}

#[test]
fn a_reset_counts_only_where_it_is_exactly_in_order() {
    for (off, phase, answers) in [
        (0, Phase::Closed, 0),
        (1, Phase::Established, 1),
        (1_000, Phase::Established, 1),
        (1 << 30, Phase::Established, 0),
        (0_u32.wrapping_sub(1), Phase::Established, 0),
    ] {
        let mut pair = talked();
        let header = forged(&pair, Flags::RST, off);
        pair.log.clear();
        pair.take(&Flying { to: 0, header, bytes: Vec::new(), is_marked: false });
        pair.run(MS);
        assert_eq!(pair.ends[0].phase(), phase, "{off}");
        assert_eq!(pair.log.len(), answers, "{off}");
        let error = (phase == Phase::Closed).then_some(ErrorKind::ConnectionReset);
        assert_eq!(pair.ends[0].take_error(), error);
    }
}

#[test]
fn an_opening_in_the_middle_is_asked_about_a_few_times_a_second() {
    let mut pair = talked();
    let header = forged(&pair, Flags::SYN, 1);
    pair.log.clear();
    for _ in 0..100 {
        pair.take(&Flying { to: 0, header, bytes: Vec::new(), is_marked: false });
        pair.pump();
    }
    assert_eq!(pair.log.len(), 10);
    assert_eq!(pair.ends[0].challenged, 10);
    assert_eq!(pair.ends[0].phase(), Phase::Established);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_changes_nothing() {
    let mut pair = talked();
    let mut header = forged(&pair, Flags::ACK, 0);
    header.ack = header.ack.wrapping_add(1_000);
    let bytes = b"forged".to_vec();
    pair.take(&Flying { to: 0, header, bytes, is_marked: false });
    assert_eq!(pair.ends[0].ready(), 0);
    assert_eq!(pair.ends[0].phase(), Phase::Established);
}

#[test]
fn an_answer_to_an_opening_that_was_never_sent_is_reset() {
    let mut client = Connection::connect(Timestamp::START, settings(1));
    let mut scratch = [0; SEGMENT_BYTES_MAX];
    client.poll_transmit(Timestamp::START, &mut scratch);
    let flags = Flags::SYN.with(Flags::ACK);
    let header = Header { flags, seq: 5, ack: 77, ..Header::default() };
    client.handle_segment(Timestamp::START, &header, &[], false);
    let (reset, _) = client.poll_transmit(Timestamp::START, &mut scratch).unwrap();
    assert_eq!((reset.flags, reset.seq), (Flags::RST, 77));
    assert_eq!(client.phase(), Phase::SynSent);
    // A refusal must acknowledge the opening.
    let refusal = Header { flags: Flags::RST.with(Flags::ACK), ack: 77, ..Header::default() };
    client.handle_segment(Timestamp::START, &refusal, &[], false);
    assert_eq!(client.phase(), Phase::SynSent);
    client.handle_segment(Timestamp::START, &Header { ack: 2, ..refusal }, &[], false);
    assert_eq!(client.take_error(), Some(ErrorKind::ConnectionRefused));
}

#[test]
fn both_may_begin_at_once() {
    let now = Timestamp::START;
    let ends = [settings(1), settings(2)].map(|settings| Connection::connect(now, settings));
    let fate = Box::new(|_: usize, _: &Header, _: usize| Fate::Passes);
    let (ends, air) = (ends.into(), BTreeMap::new());
    let mut pair = Pair { now, ends, air, sent: 0, log: Vec::new(), fate };
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.phases(), [Phase::Established; 2]);
    assert!(pair.log.len() < 10, "{} segments", pair.log.len());
    pair.carry(10_000);
}

#[test]
fn who_closes_first_remembers_the_connection_for_a_minute() {
    let mut pair = Pair::plain();
    pair.write(0, b"goodbye");
    assert!(pair.ends[0].shut());
    assert!(!pair.ends[0].shut());
    pair.run(DELAY);
    assert_eq!(pair.phases(), [Phase::FinWait1, Phase::CloseWait]);
    pair.run(DELAY);
    assert_eq!(pair.phases(), [Phase::FinWait2, Phase::CloseWait]);
    // The other way is still open.
    assert_eq!(pair.read(1), b"goodbye");
    assert!(pair.ends[1].peer_has_ended());
    pair.write(1, b"and you");
    pair.run(2 * DELAY);
    assert_eq!(pair.read(0), b"and you");
    pair.ends[1].shut();
    pair.run(MS);
    assert_eq!(pair.phases(), [Phase::FinWait2, Phase::LastAck]);
    pair.run(2 * DELAY);
    assert_eq!(pair.phases(), [Phase::TimeWait, Phase::Closed]);
    assert_eq!(pair.ends[1].take_error(), None);
    pair.run(TIME_WAIT);
    assert_eq!(pair.phases(), [Phase::Closed; 2]);
}

#[test]
fn both_may_close_at_once() {
    let mut pair = Pair::plain();
    for end in &mut pair.ends {
        end.shut();
    }
    pair.run(DELAY);
    assert_eq!(pair.phases(), [Phase::Closing; 2]);
    pair.run(DELAY);
    assert_eq!(pair.phases(), [Phase::TimeWait; 2]);
}

#[test]
fn a_lost_end_is_sent_again() {
    let mut lost = 0;
    let mut pair = Pair::open([settings(1), settings(2)], |_, header, _| {
        if header.flags.has(Flags::FIN) && lost < 2 {
            lost += 1;
            return Fate::Lost;
        }
        Fate::Passes
    });
    pair.ends[0].shut();
    pair.run(Duration::from_secs(2));
    pair.ends[1].shut();
    pair.run(Duration::from_secs(2));
    assert_eq!(pair.phases(), [Phase::TimeWait, Phase::Closed]);
}

#[test]
fn what_comes_for_a_user_who_has_gone_is_reset() {
    let mut pair = Pair::plain();
    let now = pair.now;
    pair.ends[0].abandon(now);
    pair.run(2 * DELAY);
    assert_eq!(pair.phases(), [Phase::FinWait2, Phase::CloseWait]);
    pair.write(1, b"anybody there?");
    pair.run(4 * DELAY);
    assert_eq!(pair.phases(), [Phase::Closed; 2]);
    assert_eq!(pair.ends[1].take_error(), Some(ErrorKind::BrokenPipe));
    // Where the peer never closes its way, the end is forgotten.
    let mut pair = Pair::plain();
    let now = pair.now;
    pair.ends[0].abandon(now);
    pair.run(Duration::from_secs(120));
    assert_eq!(pair.phases(), [Phase::Closed, Phase::CloseWait]);
}

#[test]
fn a_silent_peer_is_asked_and_then_given_up() {
    let keepalive = Some(Duration::from_secs(20));
    let asks = Settings { keepalive, ..settings(1) };
    let mut pair = Pair::open([asks, settings(2)], |_, _, _| Fate::Passes);
    pair.run(Duration::from_secs(600));
    assert_eq!(pair.phases(), [Phase::Established; 2], "it answers");
    pair.fate = Box::new(|_, _, _| Fate::Lost);
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.ends[0].take_error(), Some(ErrorKind::TimedOut));
    let mut pair = Pair::plain();
    pair.fate = Box::new(|_, _, _| Fate::Lost);
    pair.run(24 * HOUR);
    assert_eq!(pair.phases(), [Phase::Established; 2], "nobody asks");
}

#[test]
fn a_mark_slows_the_sender_down_and_costs_no_segment() {
    let with_ecn = [1, 2].map(|seq| Settings { has_ecn: true, ..settings(seq) });
    let mut number = 0;
    let mut pair = Pair::open(with_ecn, |side, _, len| {
        number += u32::from(side == 0 && len > 0);
        if side == 0 && len > 0 && number == 60 { Fate::Marked } else { Fate::Passes }
    });
    assert!(pair.ends.iter().all(Connection::can_be_marked));
    pair.carry(400_000);
    let counts = pair.ends[0].counts();
    assert_eq!((counts.resent, counts.reductions), (0, 1));
    let has = |side: usize, flag| {
        pair.log
            .iter()
            .filter(|one| one.1 == side && one.3 + side > 0 && one.2.flags.has(flag))
            .count()
    };
    assert_eq!(has(0, Flags::CWR), 1);
    assert!(has(1, Flags::ECE) > 1, "until the sender says that it heard");
    let mut pair = Pair::open([with_ecn[0], settings(2)], |_, _, _| Fate::Passes);
    pair.run(MS);
    assert!(!pair.ends.iter().any(Connection::can_be_marked), "both must want it");
}

#[test]
fn what_is_too_long_for_a_link_goes_again_in_smaller_parts() {
    let mut pair = Pair::open([settings(1), settings(2)], |side, _, len| {
        if side == 0 && len > 1_000 { Fate::Lost } else { Fate::Passes }
    });
    pair.write(0, &pattern(20_000));
    pair.run(MS);
    pair.ends[0].handle_too_long(1_000);
    pair.run(Duration::from_secs(60));
    assert!(pair.read(1) == pattern(20_000));
}

#[test]
fn a_silence_before_a_write_is_not_held_against_the_peer() {
    let small = Settings { inbox_max: 4 << 10, ..settings(2) };
    let mut pair = Pair::open([settings(1), small], |_, _, _| Fate::Passes);
    pair.run(24 * HOUR);
    pair.write(0, &pattern(10_000));
    pair.run(Duration::from_secs(200));
    assert_eq!(pair.phases(), [Phase::Established; 2]);
}

#[test]
fn a_storm_of_losses_is_survived() {
    for seed in 0..20 {
        let mut stream = Stream::new(seed, "storm", 0);
        let mut pair =
            Pair::new([settings(1), settings(2)], move |_, _, _| match stream.below(100) {
                0..20 => Fate::Lost,
                20..25 => Fate::Twice,
                25..40 => Fate::Late(MS * stream.below(100) as u32),
                _ => Fate::Passes,
            });
        pair.carry(200_000);
        pair.ends[0].shut();
        pair.run(Duration::from_secs(100));
        pair.ends[1].shut();
        pair.run(Duration::from_secs(200));
        assert_eq!(pair.phases(), [Phase::Closed; 2], "seed {seed}");
        assert!(pair.ends.iter_mut().all(|end| end.take_error().is_none()), "seed {seed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Both ways at once, in writes and reads of any size, over a way that loses, doubles, delays:
    /// all comes as it went, and both ends agree that it is over.
    #[test]
    fn both_ways_arrive_as_they_went(
        seed: u64,
        loss in 0_u64..15,
        steps in proptest::collection::vec((0_usize..2, 0_usize..9_000, 0_usize..9_000), 1..60),
        inbox in 4_usize..64,
    ) {
        let mut stream = Stream::new(seed, "ways", 0);
        let both = [seed as u32, (seed >> 32) as u32].map(|seq| Settings {
            inbox_max: inbox << 10,
            nodelay: seed % 2 == 0,
            ..settings(seq)
        });
        let mut pair = Pair::new(both, move |_, _, _| {
            match stream.below(100) {
                share if share < loss => Fate::Lost,
                98 => Fate::Twice,
                99 => Fate::Late(MS * stream.below(200) as u32),
                _ => Fate::Passes,
            }
        });
        let mut written = [Vec::new(), Vec::new()];
        let mut read = [Vec::new(), Vec::new()];
        for (side, write, wait) in steps {
            let bytes: Vec<u8> =
                (0..write).map(|at| (at + written[side].len()) as u8).collect();
            let len = pair.write(side, &bytes);
            written[side].extend_from_slice(&bytes[..len]);
            pair.run(Duration::from_micros(wait as u64 * 10));
            if wait % 3 == 0 {
                let some = pair.read(1 - side);
                read[side].extend(some);
            }
        }
        for end in &mut pair.ends {
            end.shut();
        }
        for _ in 0..2_000 {
            pair.run(100 * MS);
            for (side, read) in read.iter_mut().enumerate() {
                read.extend(pair.read(1 - side));
            }
        }
        prop_assert!(read == written);
        prop_assert!(pair.ends.iter().all(Connection::peer_has_ended));
        pair.run(4 * TIME_WAIT);
        prop_assert_eq!(pair.phases(), [Phase::Closed; 2]);
    }

    /// Whatever a segment says, an end survives it and sends nothing beyond what was written.
    #[test]
    fn any_segment_is_survived(
        segments in proptest::collection::vec(
            (any::<u8>(), any::<u32>(), any::<u32>(), any::<u16>(), 0_usize..100, any::<bool>()),
            1..50,
        ),
    ) {
        let mut pair = Pair::plain();
        pair.write(0, b"hello");
        for (bits, seq, ack, window, len, is_near) in segments {
            let mut flags = Flags::default();
            for flag in [Flags::FIN, Flags::SYN, Flags::RST, Flags::ACK, Flags::ECE, Flags::CWR] {
                flags = flags.with_if(bits & flag.bits() != 0, flag);
            }
            // Half of them close to what is expected.
            let (seq, ack) = if is_near { (3 + seq % 200, 2 + ack % 10) } else { (seq, ack) };
            let header = Header { flags, seq, ack, window, ..Header::default() };
            let flying = Flying { to: 0, header, bytes: vec![1; len], is_marked: false };
            pair.take(&flying);
            pair.run(MS);
        }
        let data: usize = pair.data(0).iter().filter(|one| one.1.seq == 2).map(|one| one.2).sum();
        prop_assert!(data.is_multiple_of(5));
    }
}
