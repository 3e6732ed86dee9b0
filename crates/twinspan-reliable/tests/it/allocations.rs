//! Once warm, an exchange asks the allocator for nothing, losses and resends included.

use std::time::Duration;

use twinspan_core::{random::Stream, time::Timestamp};
use twinspan_reliable::{
    AckTracker, Channel, Config, Delivery, Fragment, InFrame, Receiver, Sender, StreamId,
};

use crate::counting::{calls, held_bytes};

const EVENTS: Channel = Channel::new(Delivery::Ordered, StreamId::EVENTS);
const ACTIONS: Channel = Channel::new(Delivery::Unordered, StreamId::EVENTS);
const STATE: Channel = Channel::new(Delivery::Sequenced, StreamId::STATE);
const CONTROL: Channel = Channel::new(Delivery::Unordered, StreamId::CONTROL);

const FRAMES_MAX: usize = 8;

#[derive(Clone, Copy)]
struct Frame {
    channel: Channel,
    number: u16,
    fragment: Option<Fragment>,
    len: usize,
    body: [u8; 1_200],
}

/// A packet without heap memory.
#[derive(Clone, Copy)]
struct Packet {
    number: u64,
    frames: [Frame; FRAMES_MAX],
    count: usize,
}

struct End {
    sender: Sender,
    receiver: Receiver,
    tracker: AckTracker,
    next: u64,
    delivered: u64,
}

impl End {
    fn new(instance: u64) -> Self {
        let config = Config::default();
        Self {
            sender: Sender::new(&config, Stream::new(1, "jitter", instance)),
            receiver: Receiver::new(&config),
            tracker: AckTracker::new(&config),
            next: 1,
            delivered: 0,
        }
    }

    fn fill(&mut self, now: Timestamp, packet: &mut Packet) {
        packet.count = 0;
        let mut room = 1_150;
        while packet.count < FRAMES_MAX
            && let Some(frame) = self.sender.poll_frame(now, room)
        {
            let out = &mut packet.frames[packet.count];
            out.channel = frame.channel;
            out.number = frame.number.unwrap_or(0) as u16;
            out.fragment = frame.fragment;
            out.len = frame.body.len();
            out.body[..out.len].copy_from_slice(frame.body);
            room -= frame.body.len() + 8;
            packet.count += 1;
        }
        packet.number = self.next;
        self.next += 1;
        self.sender.on_sent(now, packet.number, 0, 1_200 - room, true);
    }

    fn take(&mut self, now: Timestamp, packet: &Packet) {
        self.tracker.on_packet(now, packet.number, true, false);
        for frame in &packet.frames[..packet.count] {
            let (sender, delivered) = (&mut self.sender, &mut self.delivered);
            let Frame { channel, number, fragment, len, ref body } = *frame;
            let frame = InFrame { channel, number, fragment, body: &body[..len] };
            let done = self.receiver.handle_frame(now, frame, &mut |channel, bytes| {
                *delivered += 1;
                if channel == CONTROL {
                    sender.handle_credit(u64::from_le_bytes(bytes.try_into().unwrap()));
                }
            });
            done.unwrap();
        }
    }
}

/// One period of 16 ms: both ends hear the ack of the last one, queue, and send two packets. The
/// first packet of every eighth period of each direction is lost.
fn period(ends: &mut [End; 2], round: u64, packet: &mut Packet) {
    let now = Timestamp::START.after(Duration::from_millis(16 * round));
    for side in [0, 1] {
        let [a, b] = ends;
        let (from, to) = if side == 0 { (a, b) } else { (b, a) };
        if let Some(ack) = to.tracker.build(now) {
            to.tracker.on_ack_sent(now);
            from.sender.handle_ack(now, &ack, &mut |_, _| {}).unwrap();
        }
        from.sender.send(now, EVENTS, &[1; 60]).unwrap();
        from.sender.send(now, ACTIONS, &[2; 40]).unwrap();
        from.sender.send(now, STATE, &[3; 300]).unwrap();
        if round.is_multiple_of(50) {
            from.sender.send(now, EVENTS, &[4; 2_500]).unwrap();
        }
        if let Some(total) = from.receiver.poll_credit() {
            from.sender.send(now, CONTROL, &total.to_le_bytes()).unwrap();
        }
        from.sender.handle_timeout(now);
        for copy in 0..2 {
            from.fill(now, packet);
            if copy > 0 || !(round + 3 * side as u64).is_multiple_of(8) {
                to.take(now, packet);
            }
        }
    }
}

/// A packet in which nothing is yet.
const fn blank() -> Packet {
    let frame = Frame { channel: EVENTS, number: 0, fragment: None, len: 0, body: [0; 1_200] };
    Packet { number: 0, frames: [frame; FRAMES_MAX], count: 0 }
}

#[test]
fn a_warm_exchange_allocates_nothing() {
    let mut packet = blank();
    let mut ends = [End::new(0), End::new(1)];
    // Long, so that the rarest meeting of a long message, a loss and new credit is behind us.
    for round in 0..10_000 {
        period(&mut ends, round, &mut packet);
    }
    let before = calls();
    for round in 10_000..20_000 {
        period(&mut ends, round, &mut packet);
    }
    assert_eq!(calls() - before, 0);
    for end in &ends {
        assert!(end.delivered > 12_000, "{}", end.delivered);
        assert!(end.sender.stats().frames_resent > 400);
        assert!(end.receiver.stats().held > 100);
    }
}

/// A moment in which both ends have much to say and only some of it arrives.
fn burst(ends: &mut [End; 2], round: u64, packet: &mut Packet) {
    let now = Timestamp::START.after(Duration::from_millis(16 * round));
    for side in [0, 1] {
        let [a, b] = ends;
        let (from, to) = if side == 0 { (a, b) } else { (b, a) };
        for number in 0..12 {
            from.sender.send(now, EVENTS, &[number; 90]).unwrap();
            from.sender.send(now, ACTIONS, &[number; 70]).unwrap();
        }
        for copy in 0..3 {
            from.fill(now, packet);
            if copy == 2 {
                to.take(now, packet);
            }
        }
    }
}

/// Rounds of so many minutes.
const fn rounds_of(minutes: u64) -> u64 {
    minutes * 60_000 / 16
}

#[test]
fn what_a_burst_took_is_given_back_and_asked_for_no_more() {
    let mut packet = blank();
    let mut ends = [End::new(0), End::new(1)];
    let mut rounds = 0_u64..;
    let mut go = |count: u64, round: fn(&mut [End; 2], u64, &mut Packet)| {
        rounds.by_ref().take(count as usize).for_each(|now| round(&mut ends, now, &mut packet));
        (held_bytes(), calls())
    };
    let (before, _) = go(10_000, period);
    go(12, burst);
    let (worst, _) = go(2_000, period);
    assert!(worst > before + 40_000, "{before} bytes, {worst} after a burst");
    // The period of the burst and two more.
    let (after, _) = go(rounds_of(45), period);
    assert!(after < before + before / 4, "{before} bytes, {worst} after a burst, {after} later");
    // What is left some time later is what is needed.
    let (later, asked) = go(rounds_of(60), period);
    assert!(later <= after, "{after} bytes, {later} later");
    assert_eq!(go(rounds_of(60), period), (later, asked));
}
