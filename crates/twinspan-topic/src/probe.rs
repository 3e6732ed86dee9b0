//! Probes: whether somebody listens at an address, how long the way there is, and what it loses.
//!
//! //= hub 14.1

use core::time::Duration;
use std::collections::VecDeque;

use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;

use crate::wire::Packet;

/// Bytes of a probe; its answer is shorter.
pub const PROBE_BYTES: usize = 48;
/// Probes that are looked at: the last ones.
const WINDOW: usize = 32;

/// Bytes of a probe of QUIC: shorter ones are not answered.
const QUIC_PROBE_BYTES: usize = 1_200;
/// A version that no QUIC has, from those that are kept free for asking which there are.
const QUIC_NO_VERSION: [u8; 4] = [0x1a, 0x2a, 0x3a, 0x4a];
/// Bytes of the token, which stands for both ends' ids in a probe of QUIC.
const TOKEN_BYTES: usize = 8;

/// What is said to who is probed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// This protocol's own probe.
    #[default]
    Hub,
    /// A packet of a QUIC version that there is not, which every QUIC listener answers with those that
    /// there are, and keeps nothing for.
    Quic,
}

impl Dialect {
    fn write(self, token: u64, out: &mut Vec<u8>) {
        out.clear();
        if self == Self::Hub {
            return Packet::Probe { token }.write(out);
        }
        out.push(0xc0);
        out.extend_from_slice(&QUIC_NO_VERSION);
        for _ in 0..2 {
            out.push(TOKEN_BYTES as u8);
            out.extend_from_slice(&token.to_le_bytes());
        }
        out.resize(QUIC_PROBE_BYTES, 0);
    }

    /// The token of an answer.
    fn parse(self, bytes: &[u8]) -> Option<(u64, Option<Offer>)> {
        if self == Self::Hub {
            let Ok(Packet::Here { token, offer }) = Packet::parse(bytes) else { return None };
            return Some((token, Some(offer)));
        }
        let (&[first, 0, 0, 0, 0, 8], rest) = bytes.split_first_chunk::<6>()? else { return None };
        let (to, rest) = rest.split_first_chunk::<TOKEN_BYTES>()?;
        let (&[8], rest) = rest.split_first_chunk::<1>()? else { return None };
        let (from, versions) = rest.split_first_chunk::<TOKEN_BYTES>()?;
        let is_answer = first & 0x80 != 0 && to == from && versions.len() >= 4;
        is_answer.then_some((u64::from_le_bytes(*to), None))
    }
}

/// Roads that a listener has beside the one that is probed, a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfferedRoads(pub u8);

impl OfferedRoads {
    /// Shared memory, for who is on the same machine.
    pub const MEMORY: Self = Self(1);
    /// Streams of topics over datagrams, at the address that is probed.
    pub const UDP: Self = Self(2);
    /// TCP at the port that is probed.
    pub const TCP: Self = Self(4);
    /// QUIC at the port that the offer says.
    pub const QUIC: Self = Self(8);
    const ALL: u8 = 15;

    /// Whether all of `others` are among them.
    pub const fn contain(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// These and others.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

/// What a listener tells who probes for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// What stands for its machine: equal only between processes that can share memory; zeros where
    /// it is not told.
    pub host: [u8; 16],
    /// Which roads it has.
    pub roads: OfferedRoads,
    /// The port of its QUIC; 0 for none.
    pub quic_port: u16,
}

impl Offer {
    /// Nothing but that somebody is there.
    pub const NONE: Self = Self { host: [0; 16], roads: OfferedRoads(0), quic_port: 0 };
    pub(crate) const BYTES: usize = 20;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let [host @ .., _, _, _, _] = &mut bytes;
        host.copy_from_slice(&self.host);
        let [p0, p1] = self.quic_port.to_le_bytes();
        let [.., roads, _, q0, q1] = &mut bytes;
        (*roads, *q0, *q1) = (self.roads.0, p0, p1);
        bytes
    }

    pub(crate) fn parse(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let [host @ .., roads, zero, q0, q1] = bytes;
        if *zero != 0 || roads & !OfferedRoads::ALL != 0 {
            return None;
        }
        let quic_port = u16::from_le_bytes([*q0, *q1]);
        Some(Self { host: *host, roads: OfferedRoads(*roads), quic_port })
    }
}

/// How a way is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProberConfig {
    /// The time between two probes.
    pub interval: Duration,
    /// A probe without an answer for so long is lost.
    pub answer_timeout: Duration,
    /// How many there are; `None` for no end.
    pub count: Option<u64>,
    /// What is said.
    pub dialect: Dialect,
}

impl ProberConfig {
    /// 16 probes in 30 ms. Each has a second to be answered: hubs may be half a world away, and who has
    /// all answers waits no longer.
    pub const BRIEF: Self = Self {
        interval: Duration::from_millis(2),
        answer_timeout: Duration::from_secs(1),
        count: Some(16),
        dialect: Dialect::Hub,
    };
}

/// What is known of a way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// Probes whose fate is known, of the last 32.
    pub settled: u32,
    /// Those of them that were not answered in time.
    pub lost: u32,
    /// The shortest round trip.
    pub rtt_min: Option<Duration>,
    /// The middle one.
    pub rtt_median: Option<Duration>,
    /// What the listener said last.
    pub offer: Option<Offer>,
}

impl Probed {
    /// The share that was lost, 0 to 1; 0 where nothing is known.
    pub fn loss(&self) -> f64 {
        if self.settled == 0 { 0.0 } else { f64::from(self.lost) / f64::from(self.settled) }
    }

    /// Whether anything was answered.
    pub const fn is_there(&self) -> bool {
        self.settled > self.lost
    }
}

#[derive(Clone, Copy, Debug)]
struct Shot {
    token: u64,
    sent_at: Timestamp,
    rtt: Option<Duration>,
}

/// Probes one address: drain [`poll_transmit`](Self::poll_transmit) when
/// [`poll_timeout`](Self::poll_timeout) says so.
///
/// It keeps nothing but the last 32 probes, and an answer counts once, and only to a token that nobody
/// who does not see the way can know.
#[derive(Debug)]
pub struct Prober {
    config: ProberConfig,
    tokens: Stream,
    shots: VecDeque<Shot>,
    sent: u64,
    next_at: Timestamp,
    offer: Option<Offer>,
}

impl Prober {
    /// A prober whose tokens are drawn from `seed`, which nobody else knows.
    pub fn new(config: ProberConfig, now: Timestamp, seed: u64) -> Self {
        Self {
            config,
            tokens: Stream::new(seed, "hub probe", 0),
            shots: VecDeque::with_capacity(WINDOW),
            sent: 0,
            next_at: now,
            offer: None,
        }
    }

    fn has_more(&self) -> bool {
        self.config.count.is_none_or(|count| self.sent < count)
    }

    /// Writes the next probe into `out` if one is due, and returns its length.
    pub fn poll_transmit(&mut self, now: Timestamp, out: &mut Vec<u8>) -> bool {
        if now < self.next_at || !self.has_more() {
            return false;
        }
        // Who was kept from it for long does not make up for it.
        self.next_at = now.after(self.config.interval);
        self.sent += 1;
        if self.shots.len() >= WINDOW {
            self.shots.pop_front();
        }
        let token = self.tokens.next_u64();
        self.shots.push_back(Shot { token, sent_at: now, rtt: None });
        self.config.dialect.write(token, out);
        true
    }

    /// Takes in what came; whether it was an answer.
    pub fn handle_datagram(&mut self, now: Timestamp, bytes: &[u8]) -> bool {
        let Some((token, offer)) = self.config.dialect.parse(bytes) else { return false };
        let is_it = |shot: &&mut Shot| shot.token == token && shot.rtt.is_none();
        let Some(shot) = self.shots.iter_mut().find(is_it) else { return false };
        shot.rtt = Some(now.since(shot.sent_at));
        self.offer = offer.or(self.offer);
        true
    }

    /// When the next probe is due; never when there are no more.
    pub fn poll_timeout(&self) -> Timestamp {
        if self.has_more() { self.next_at } else { Timestamp::NEVER }
    }

    /// Whether there are no more probes, and each was answered or counts as lost.
    pub fn is_over(&self, now: Timestamp) -> bool {
        let is_settled = |shot: &Shot| self.is_settled(now, shot);
        !self.has_more() && self.shots.iter().all(is_settled)
    }

    fn is_settled(&self, now: Timestamp, shot: &Shot) -> bool {
        shot.rtt.is_some() || now.since(shot.sent_at) >= self.config.answer_timeout
    }

    /// What is known now.
    pub fn probed(&self, now: Timestamp) -> Probed {
        let settled = self.shots.iter().filter(|shot| self.is_settled(now, shot));
        let (mut rtts, mut count) = ([Duration::ZERO; WINDOW], 0);
        let mut answered = 0;
        for shot in settled {
            count += 1;
            if let (Some(rtt), Some(place)) = (shot.rtt, rtts.get_mut(answered)) {
                *place = rtt;
                answered += 1;
            }
        }
        let rtts = rtts.get_mut(..answered).unwrap_or_default();
        rtts.sort_unstable();
        Probed {
            settled: count,
            lost: count - answered as u32,
            rtt_min: rtts.first().copied(),
            rtt_median: rtts.get(answered / 2).copied(),
            offer: self.offer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Offer = Offer { host: [7; 16], roads: OfferedRoads(5), quic_port: 0 };

    fn at(micros: u64) -> Timestamp {
        Timestamp::START.after(Duration::from_micros(micros))
    }

    /// What a listener says to a probe.
    fn answer(probe: &[u8]) -> Vec<u8> {
        let Ok(Packet::Probe { token }) = Packet::parse(probe) else { panic!("it is a probe") };
        let mut bytes = Vec::new();
        Packet::Here { token, offer: HERE }.write(&mut bytes);
        assert!(bytes.len() < probe.len(), "an answer is shorter than what it answers");
        bytes
    }

    #[test]
    fn sixteen_probes_measure_round_trips_and_loss() {
        let mut prober = Prober::new(ProberConfig::BRIEF, at(0), 1);
        let (mut probe, mut now) = (Vec::new(), at(0));
        for index in 0..16 {
            assert!(!prober.is_over(now));
            now = prober.poll_timeout();
            assert!(prober.poll_transmit(now, &mut probe) && probe.len() == PROBE_BYTES);
            assert!(!prober.poll_transmit(now, &mut Vec::new()));
            // Each fourth is lost; the others take 100 to 115 us.
            if index % 4 != 0 {
                let then = now.after(Duration::from_micros(100 + index));
                assert!(prober.handle_datagram(then, &answer(&probe)));
                assert!(!prober.handle_datagram(then, &answer(&probe)), "an answer counts once");
            }
        }
        assert_eq!(prober.poll_timeout(), Timestamp::NEVER);
        let end = now.after(ProberConfig::BRIEF.answer_timeout);
        assert!(!prober.is_over(now) && prober.is_over(end) && end <= at(1_050_000));
        let probed = prober.probed(end);
        assert_eq!((probed.settled, probed.lost, probed.offer), (16, 4, Some(HERE)));
        assert_eq!(probed.rtt_min, Some(Duration::from_micros(101)));
        assert_eq!(probed.rtt_median, Some(Duration::from_micros(109)));
        assert!((probed.loss() - 0.25).abs() < 1e-9 && probed.is_there());
    }

    #[test]
    fn answers_that_take_long_count_and_the_last_one_ends_it() {
        for millis in [21, 60, 300, 900] {
            let mut prober = Prober::new(ProberConfig::BRIEF, at(0), 1);
            let (mut probe, mut answers) = (Vec::new(), Vec::new());
            let rtt = Duration::from_millis(millis);
            while prober.poll_timeout() < Timestamp::NEVER {
                let now = prober.poll_timeout();
                assert!(prober.poll_transmit(now, &mut probe));
                answers.push((now.after(rtt), answer(&probe)));
            }
            for (then, answer) in answers {
                assert!(!prober.is_over(then), "{millis} ms: others may come");
                assert!(prober.handle_datagram(then, &answer));
                if prober.is_over(then) {
                    let probed = prober.probed(then);
                    assert_eq!((probed.settled, probed.lost), (16, 0), "{millis} ms");
                    assert_eq!(probed.rtt_median, Some(rtt));
                }
            }
            assert!(prober.is_over(at(30_000 + 1_000 * millis)), "{millis} ms: it waits no longer");
        }
    }

    #[test]
    fn nobody_there_is_all_lost_and_strangers_words_are_no_answers() {
        let mut prober = Prober::new(ProberConfig::BRIEF, at(0), 1);
        assert_eq!(prober.probed(at(0)), Probed::default());
        let mut probe = Vec::new();
        let mut forged = Vec::new();
        Packet::Here { token: 5, offer: HERE }.write(&mut forged);
        while prober.poll_timeout() < Timestamp::NEVER {
            assert!(prober.poll_transmit(prober.poll_timeout(), &mut probe));
            assert!(!prober.handle_datagram(at(0), &forged));
            assert!(!prober.handle_datagram(at(0), &probe));
            assert!(!prober.handle_datagram(at(0), b"nonsense"));
        }
        let probed = prober.probed(at(2_000_000));
        assert_eq!((probed.settled, probed.lost, probed.offer), (16, 16, None));
        assert!(!probed.is_there());
    }

    #[test]
    fn quic_is_asked_for_its_versions() {
        let config = ProberConfig { dialect: Dialect::Quic, ..ProberConfig::BRIEF };
        let mut prober = Prober::new(config, at(0), 1);
        let mut probe = Vec::new();
        assert!(prober.poll_transmit(at(0), &mut probe) && probe.len() == QUIC_PROBE_BYTES);
        assert_eq!(probe[..6], [0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8]);
        // Ids change places, and the version is none.
        let token = probe[6..14].to_vec();
        let answer = [&[0xff, 0, 0, 0, 0, 8], &token[..], &[8], &token, &[0, 0, 0, 1]].concat();
        for cut in 0..answer.len() {
            assert!(!prober.handle_datagram(at(9), &answer[..cut]));
        }
        let mut strange = answer.clone();
        strange[6] ^= 1;
        assert!(!prober.handle_datagram(at(9), &strange));
        assert!(prober.handle_datagram(at(9), &answer));
        assert_eq!(prober.probed(at(9)).rtt_min, Some(Duration::from_micros(9)));
    }

    #[test]
    fn a_watch_without_an_end_looks_at_the_last_probes_alone() {
        let config = ProberConfig { count: None, ..ProberConfig::BRIEF };
        let mut prober = Prober::new(config, at(0), 1);
        let mut probe = Vec::new();
        for index in 0..200 {
            let now = prober.poll_timeout();
            assert!(prober.poll_transmit(now, &mut probe));
            if index >= 168 {
                prober.handle_datagram(now.after(Duration::from_micros(5)), &answer(&probe));
            }
        }
        assert!(!prober.is_over(at(u64::MAX / 2_000)));
        let probed = prober.probed(prober.poll_timeout().after(Duration::from_secs(2)));
        assert_eq!((probed.settled, probed.lost), (32, 0));
    }
}
