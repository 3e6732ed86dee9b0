//! A user of the engine shaped like Second Life's UDP, to keep resends under one number honest.
//!
//! Packet: flags, sequence (u32, big-endian), kind, body, and when the flag says so the acks: each
//! a u32, big-endian, then their count in one byte. A resend keeps its sequence and says RESENT;
//! duplicates are acknowledged again and delivered once; RTT comes from pings.

use std::collections::BTreeMap;
use std::time::Duration;

use twinspan_core::number::Sighting;
use twinspan_core::{random::Stream, time::Timestamp};
use twinspan_reliable::{
    AckError, Channel, Config, Delivery, DuplicateFilter, ResendIdentity, Sender, StreamId,
};

use crate::line::{Conditions, Line};

const CHANNEL: Channel = Channel::new(Delivery::Unordered, StreamId::EVENTS);

pub(crate) const RELIABLE: u8 = 0x40;
pub(crate) const RESENT: u8 = 0x20;
pub(crate) const APPENDED_ACKS: u8 = 0x10;

const MESSAGE: u8 = 0;
const PING: u8 = 1;
const PONG: u8 = 2;
const ACKS: u8 = 3;

/// Acks that ride in one packet.
const ACKS_MAX: usize = 255;
const PING_PERIOD: Duration = Duration::from_millis(500);
/// How long acks wait for a packet to ride in.
const ACK_DELAY: Duration = Duration::from_millis(20);

pub(crate) fn config() -> Config {
    Config {
        identity: ResendIdentity::SameNumber,
        credit_bytes: u64::MAX,
        attempts_max: 40,
        rto_max: Duration::from_secs(2),
        ..Config::default()
    }
}

/// One end of a circuit.
#[derive(Debug)]
pub(crate) struct Circuit {
    pub(crate) sender: Sender,
    filter: DuplicateFilter,
    next: u32,
    acks: Vec<u32>,
    acks_due: Timestamp,
    ping_at: Timestamp,
    ping_id: u8,
    pings: BTreeMap<u8, Timestamp>,
    pub(crate) got: Vec<u32>,
    pub(crate) resent_received: u64,
    pub(crate) failure: Option<AckError>,
}

impl Circuit {
    pub(crate) fn new(config: &Config, seed: u64, instance: u64) -> Self {
        Self {
            sender: Sender::new(config, Stream::new(seed, "jitter", instance)),
            filter: DuplicateFilter::new(config),
            next: 1,
            acks: Vec::new(),
            acks_due: Timestamp::NEVER,
            ping_at: Timestamp::START,
            ping_id: 0,
            pings: BTreeMap::new(),
            got: Vec::new(),
            resent_received: 0,
            failure: None,
        }
    }

    pub(crate) fn send(&mut self, now: Timestamp, value: u32) {
        self.sender.send(now, CHANNEL, &value.to_be_bytes()).unwrap();
    }

    /// Writes a packet and appends the acks that wait.
    fn packet(&mut self, flags: u8, sequence: u32, kind: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![flags];
        packet.extend(sequence.to_be_bytes());
        packet.push(kind);
        packet.extend(body);
        if !self.acks.is_empty() {
            packet[0] |= APPENDED_ACKS;
            let count = self.acks.len().min(ACKS_MAX);
            for ack in self.acks.drain(..count) {
                packet.extend(ack.to_be_bytes());
            }
            packet.push(count as u8);
        }
        if self.acks.is_empty() {
            self.acks_due = Timestamp::NEVER;
        }
        packet
    }

    fn send_unreliable(&mut self, now: Timestamp, kind: u8, body: &[u8], line: &mut Line<Vec<u8>>) {
        let sequence = self.next;
        self.next += 1;
        let packet = self.packet(0, sequence, kind, body);
        self.sender.on_sent(now, u64::from(sequence), 0, packet.len(), false);
        line.send(now, packet);
    }

    pub(crate) fn transmit(&mut self, now: Timestamp, line: &mut Line<Vec<u8>>) {
        self.sender.handle_timeout(now);
        while let Some(frame) = self.sender.poll_frame(now, 1_200) {
            let body = frame.body.to_vec();
            let (flags, sequence) = match frame.resend_of {
                Some(number) => (RELIABLE | RESENT, number as u32),
                None => (RELIABLE, self.next),
            };
            self.next = self.next.max(sequence + 1);
            let packet = self.packet(flags, sequence, MESSAGE, &body);
            self.sender.on_sent(now, u64::from(sequence), 0, packet.len(), true);
            line.send(now, packet);
        }
        if self.ping_at <= now {
            self.ping_at = now.after(PING_PERIOD);
            self.ping_id = self.ping_id.wrapping_add(1);
            self.pings.insert(self.ping_id, now);
            self.send_unreliable(now, PING, &[self.ping_id], line);
        }
        if self.acks_due <= now {
            self.send_unreliable(now, ACKS, &[], line);
        }
    }

    pub(crate) fn receive(&mut self, now: Timestamp, packet: &[u8], line: &mut Line<Vec<u8>>) {
        let Some(Parsed { sequence, flags, kind, body, acks }) = parse(packet) else {
            return;
        };
        for ack in acks {
            let done = self.sender.handle_ack_one(now, u64::from(ack));
            self.failure = self.failure.or(done.err());
        }
        self.resent_received += u64::from(flags & RESENT != 0);
        let sighting = self.filter.on_packet(u64::from(sequence));
        if flags & RELIABLE != 0 && sighting != Sighting::TooOld {
            self.acks.push(sequence);
            self.acks_due = self.acks_due.min(now.after(ACK_DELAY));
        }
        if sighting != Sighting::Fresh {
            return;
        }
        match (kind, body) {
            (MESSAGE, body) => {
                if let Ok(value) = body.try_into() {
                    self.got.push(u32::from_be_bytes(value));
                }
            }
            (PING, [id]) => self.send_unreliable(now, PONG, &[*id], line),
            (PONG, [id]) => {
                if let Some(at) = self.pings.remove(id) {
                    self.sender.on_rtt_sample(now, now.since(at), Duration::ZERO);
                }
            }
            _ => {}
        }
    }

    fn next_deadline(&self) -> Timestamp {
        let resend = self.sender.poll_timeout().unwrap_or(Timestamp::NEVER);
        resend.min(self.acks_due).min(self.ping_at)
    }
}

/// A packet taken apart.
#[derive(Debug)]
pub(crate) struct Parsed<'a> {
    sequence: u32,
    flags: u8,
    kind: u8,
    body: &'a [u8],
    pub(crate) acks: Vec<u32>,
}

pub(crate) fn parse(packet: &[u8]) -> Option<Parsed<'_>> {
    let ([flags, s0, s1, s2, s3, kind], mut body) = packet.split_first_chunk()?;
    let mut acks = Vec::new();
    if flags & APPENDED_ACKS != 0 {
        let (count, before) = body.split_last()?;
        let list;
        (body, list) = before.split_at(before.len().checked_sub(4 * usize::from(*count))?);
        acks = list.as_chunks::<4>().0.iter().map(|ack| u32::from_be_bytes(*ack)).collect();
    }
    let sequence = u32::from_be_bytes([*s0, *s1, *s2, *s3]);
    Some(Parsed { sequence, flags: *flags, kind: *kind, body, acks })
}

/// Two ends and the line between them.
#[derive(Debug)]
pub(crate) struct Circuits {
    pub(crate) ends: [Circuit; 2],
    pub(crate) lines: [Line<Vec<u8>>; 2],
    pub(crate) now: Timestamp,
}

impl Circuits {
    pub(crate) fn new(config: &Config, conditions: Conditions, seed: u64) -> Self {
        let line = |instance| Line::new(conditions, Stream::new(seed, "line", instance));
        Self {
            ends: [Circuit::new(config, seed, 0), Circuit::new(config, seed, 1)],
            lines: [line(0), line(1)],
            now: Timestamp::START,
        }
    }

    pub(crate) fn run_until(&mut self, until: Timestamp) {
        loop {
            for side in [0, 1] {
                let [forth, back] = &mut self.lines;
                let (out, into) = if side == 0 { (forth, back) } else { (back, forth) };
                while let Some(packet) = into.receive(self.now) {
                    self.ends[side].receive(self.now, &packet, out);
                }
                self.ends[side].transmit(self.now, out);
            }
            let arrivals = self.lines.iter().filter_map(Line::arrival);
            let next = arrivals.chain(self.ends.iter().map(Circuit::next_deadline)).min();
            let next = next.unwrap_or(Timestamp::NEVER);
            if next > until {
                self.now = until;
                return;
            }
            self.now = next.max(self.now.after(Duration::from_micros(100)));
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.ends.iter().all(|end| end.sender.unacknowledged() == 0)
    }
}
