//! A small user of the engine with fresh numbers: a replay window, piggybacked acks, credit.

use std::time::Duration;

use twinspan_core::number::{ReplayWindow, Sighting};
use twinspan_core::{random::Stream, time::Timestamp};
use twinspan_reliable::{
    Ack, AckError, AckTracker, Channel, Config, Delivery, Fragment, FrameError, InFrame, Receiver,
    Sender, StreamId,
};

use crate::line::{Conditions, Line};

pub(crate) const ORDERED: Channel = Channel::new(Delivery::Ordered, StreamId::EVENTS);
pub(crate) const UNORDERED: Channel = Channel::new(Delivery::Unordered, StreamId::EVENTS);
pub(crate) const BULK: Channel = Channel::new(Delivery::Ordered, StreamId::BULK);
pub(crate) const STATE: Channel = Channel::new(Delivery::Sequenced, StreamId::STATE);
const CONTROL: Channel = Channel::new(Delivery::Unordered, StreamId::CONTROL);

const PACKET_ROOM: usize = 1_150;
const FRAME_HEAD: usize = 8;

#[derive(Clone, Debug)]
struct Frame {
    channel: Channel,
    number: u16,
    fragment: Option<Fragment>,
    body: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) struct Packet {
    number: u64,
    eliciting: bool,
    ack: Option<Ack>,
    frames: Vec<Frame>,
}

/// Why an end gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Ack(AckError),
    Frame(FrameError),
    Dead,
}

/// One end.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    tracker: AckTracker,
    window: ReplayWindow,
    skips: Stream,
    next: u64,
    /// What was delivered, in order.
    pub(crate) got: Vec<(Channel, Vec<u8>)>,
    /// Tags of acknowledged packets.
    pub(crate) tags: Vec<u32>,
    pub(crate) failure: Option<Failure>,
}

impl End {
    pub(crate) fn new(config: &Config, seed: u64, instance: u64) -> Self {
        Self {
            sender: Sender::new(config, Stream::new(seed, "jitter", instance)),
            receiver: Receiver::new(config),
            tracker: AckTracker::new(config),
            window: ReplayWindow::default(),
            skips: Stream::new(seed, "skips", instance),
            next: 1,
            got: Vec::new(),
            tags: Vec::new(),
            failure: None,
        }
    }

    /// Packet numbers rise, and now and then one is skipped.
    fn next_packet(&mut self) -> u64 {
        self.next += 1 + u64::from(self.skips.below(20) == 0);
        self.next
    }

    /// Sends a state past the queue, as a server does with what it writes into its packets itself.
    pub(crate) fn send_state(&mut self, now: Timestamp, tag: u32, line: &mut Line<Packet>) {
        let number = self.sender.next_number(STATE);
        let body = number.to_le_bytes().to_vec();
        let frame = Frame { channel: STATE, number: number as u16, fragment: None, body };
        self.send_packet(now, tag, vec![frame], line);
    }

    fn send_packet(
        &mut self,
        now: Timestamp,
        tag: u32,
        mut frames: Vec<Frame>,
        line: &mut Line<Packet>,
    ) {
        let mut room = PACKET_ROOM;
        while let Some(frame) = self.sender.poll_frame(now, room) {
            room -= frame.body.len() + FRAME_HEAD;
            frames.push(Frame {
                channel: frame.channel,
                number: frame.number.unwrap_or(0) as u16,
                fragment: frame.fragment,
                body: frame.body.to_vec(),
            });
        }
        let number = self.next_packet();
        let eliciting = !frames.is_empty();
        let ack = self.tracker.build(now);
        if ack.is_some() {
            self.tracker.on_ack_sent(now);
        }
        self.sender.on_sent(now, number, tag, PACKET_ROOM - room + 44, eliciting);
        line.send(now, Packet { number, eliciting, ack, frames });
    }

    /// Sends whatever wants to leave.
    pub(crate) fn transmit(&mut self, now: Timestamp, line: &mut Line<Packet>) {
        self.sender.handle_timeout(now);
        self.receiver.handle_timeout(now);
        if let Some(total) = self.receiver.poll_credit() {
            self.sender.send(now, CONTROL, &total.to_le_bytes()).unwrap();
        }
        let is_due = self.tracker.ack_due().is_some_and(|due| due <= now);
        if is_due && !self.sender.wants_to_send(now) {
            self.send_packet(now, 0, Vec::new(), line);
        }
        while self.sender.wants_to_send(now) {
            self.send_packet(now, 0, Vec::new(), line);
        }
        if self.sender.is_dead() {
            self.failure = self.failure.or(Some(Failure::Dead));
        }
    }

    pub(crate) fn receive(&mut self, now: Timestamp, packet: &Packet) {
        if self.window.commit(packet.number) != Sighting::Fresh || self.failure.is_some() {
            return;
        }
        self.tracker.on_packet(now, packet.number, packet.eliciting, false);
        if let Some(ack) = &packet.ack {
            let tags = &mut self.tags;
            let done = self.sender.handle_ack(now, ack, &mut |_, tag| tags.push(tag));
            self.failure = done.err().map(Failure::Ack);
        }
        for frame in &packet.frames {
            let Frame { channel, number, fragment, body } = frame;
            let frame = InFrame { channel: *channel, number: *number, fragment: *fragment, body };
            let (got, sender) = (&mut self.got, &mut self.sender);
            let done = self.receiver.handle_frame(now, frame, &mut |channel, bytes| {
                if channel == CONTROL {
                    sender.handle_credit(u64::from_le_bytes(bytes.try_into().unwrap()));
                } else {
                    got.push((channel, bytes.to_vec()));
                }
            });
            self.failure = self.failure.or(done.err().map(Failure::Frame));
        }
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let deadlines =
            [self.sender.poll_timeout(), self.receiver.poll_timeout(), self.tracker.ack_due()];
        deadlines.into_iter().flatten().min()
    }
}

/// Two ends and the line between them.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) ends: [End; 2],
    pub(crate) lines: [Line<Packet>; 2],
    pub(crate) now: Timestamp,
}

impl Pair {
    pub(crate) fn new(configs: [&Config; 2], conditions: Conditions, seed: u64) -> Self {
        let [a, b] = configs;
        let line = |instance| Line::new(conditions, Stream::new(seed, "line", instance));
        Self {
            ends: [End::new(a, seed, 0), End::new(b, seed, 1)],
            lines: [line(0), line(1)],
            now: Timestamp::START,
        }
    }

    /// Lets both ends send and receive until nothing happens before `until`.
    pub(crate) fn run_until(&mut self, until: Timestamp) {
        loop {
            for side in [0, 1] {
                let [forth, back] = &mut self.lines;
                let (out, into) = if side == 0 { (forth, back) } else { (back, forth) };
                let end = &mut self.ends[side];
                while let Some(packet) = into.receive(self.now) {
                    end.receive(self.now, &packet);
                }
                if end.failure.is_none() {
                    end.transmit(self.now, out);
                }
            }
            let arrivals = self.lines.iter().filter_map(Line::arrival);
            let living = self.ends.iter().filter(|end| end.failure.is_none());
            let deadlines = living.filter_map(End::next_deadline);
            let next = arrivals.chain(deadlines).min().unwrap_or(Timestamp::NEVER);
            if next > until {
                self.now = until;
                return;
            }
            // A tick at least, as a real loop has; otherwise equal deadlines would spin.
            self.now = next.max(self.now.after(Duration::from_micros(100)));
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.ends.iter().all(|end| end.sender.unacknowledged() == 0)
    }
}
