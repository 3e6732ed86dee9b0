//! The sending half: what leaves, what is lost, what the peer has.

mod frames;
mod fresh;
mod levels;
mod outbox;
mod parked;
mod same;
mod sent;
mod store;

use core::mem::offset_of;
use core::time::Duration;

use twinspan_core::need::Periods;
use twinspan_core::{prefetch, random::Stream, time::Timestamp};

use crate::backoff::{doubled, nanos, parts_per_million, spread};
use crate::congestion::Congestion;
use crate::{
    Ack, AckError, Channel, Config, Fragment, OutFrame, ResendIdentity, RttEstimator, SendError,
    SenderStats,
};
use frames::{Frames, NONE};
use fresh::Fresh;
use outbox::{Outbox, Taken};
pub use parked::ParkedSender;
use same::Same;
use sent::SentNumbers;
use store::Key;

/// Longer packets may vanish where a path is narrow, which [`Sender::long_lost`] tells.
pub const LONG_PACKET_BYTES: usize = 1_200;

/// The sending half of one connection.
///
/// Queue messages with [`send`](Self::send). To fill a packet, call
/// [`poll_frame`](Self::poll_frame) until it says `None` or the packet is full, then tell
/// [`on_sent`](Self::on_sent) under which number the packet left: a polled frame belongs to the
/// next packet that is reported, so every poll that gave a frame must be followed by that call.
/// Feed it [`handle_ack`](Self::handle_ack) and [`handle_credit`](Self::handle_credit), and call
/// [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout); after each of
/// these [`wants_to_send`](Self::wants_to_send) may have become true.
///
/// Of what may travel, lost frames leave first, then control messages, the unreliable classes, the
/// rest, and bulk. A frame that does not fit the room lets later lanes ride along instead.
///
/// Nothing is allocated once its tables have grown to what the traffic needs; an idle sender that
/// never sent holds no heap memory.
#[derive(Debug)]
#[repr(C)]
pub struct Sender {
    /// Frames polled since the last packet left.
    polled: u32,
    /// Whether any frame was polled since, unreliable ones included.
    is_polled: bool,
    /// Whether one of them waited for room in the window.
    is_paced: bool,
    /// With resends under the same number: the number under which the polled frame must leave.
    resend_of: Option<u64>,
    packets: Packets,
    shared: Shared,
}

/// Bytes of a [`Sender`] that every packet touches.
const HOT_BYTES: usize = offset_of!(Sender, shared.numbers) + size_of::<u64>();

/// What both kinds of packet records work on; what every packet touches comes first.
#[derive(Debug)]
#[repr(C)]
struct Shared {
    stats: SenderStats,
    ack_delay_max_ns: u64,
    late_ack_window_ns: u64,
    /// Timeouts in a row without an ack in between.
    backoff_level: u32,
    /// Share of the packets that were lost, in millionths, smoothed over some 64 packets.
    loss_ppm: u32,
    long_lost: u32,
    /// When tables are looked at.
    periods: Periods,
    validate_acks: bool,
    /// Whether reliable frames wait for the window and the pace.
    gated: bool,
    congestion: Congestion,
    rtt: RttEstimator,
    numbers: SentNumbers,
    outbox: Outbox,
    frames: Frames,
    jitter: Stream,
    /// The random part of the current resend delay.
    backoff_draw: u64,
    rto_max_ns: u64,
    probe_min_ns: u64,
    probe_packets_max: u32,
    jitter_ppm: u32,
}

impl Shared {
    /// How long after its sending the oldest packet in flight leaves again.
    ///
    /// The first time it is a probe of what may be the last packet for a while (RFC 8985, section
    /// 7): it waits for little more than a round trip, for nobody else would tell of the loss.
    fn resend_delay(&self) -> Duration {
        if self.backoff_level == 0 && self.rtt.samples() > 0 {
            let wait = self.rtt.probe_ns(self.probe_min_ns).saturating_add(self.ack_delay_max_ns);
            return Duration::from_nanos(wait.min(self.rto_max_ns));
        }
        self.delay(self.backoff_level, self.backoff_draw)
    }

    /// How long the message waits before its next resend, by how often it was resent.
    fn resend_delay_of(&mut self, key: Key) -> Duration {
        let draw = self.jitter.next_u64();
        self.delay(self.outbox.resends(key), draw)
    }

    fn delay(&self, level: u32, draw: u64) -> Duration {
        let base = self.rtt.rto_ns().saturating_add(self.ack_delay_max_ns);
        let base = doubled(base.min(self.rto_max_ns), level, self.rto_max_ns);
        Duration::from_nanos(spread(base, self.jitter_ppm, draw))
    }

    fn lengthen_backoff(&mut self) {
        self.backoff_level = self.backoff_level.saturating_add(1);
        self.backoff_draw = self.jitter.next_u64();
    }

    fn restart_backoff(&mut self) {
        if self.backoff_level > 0 {
            self.backoff_level = 0;
            self.backoff_draw = self.jitter.next_u64();
        }
    }

    /// Until when an ack of a packet is of interest that is not in flight from `now` on.
    const fn late_until(&self, now: Timestamp) -> Timestamp {
        now.after(Duration::from_nanos(self.late_ack_window_ns))
    }

    /// One more packet is known to have arrived, or to be lost.
    const fn count_loss(&mut self, lost: bool) {
        let sample = if lost { 1_000_000 } else { 0 };
        self.loss_ppm = (self.loss_ppm * 63 + sample) / 64;
    }

    /// How long an overtaken packet is waited for.
    fn overtaken(&self) -> Duration {
        Duration::from_nanos(self.rtt.overtaken_ns())
    }
}

/// Records of packets, by resend identity.
#[derive(Debug)]
enum Packets {
    Fresh(Fresh),
    Same(Same),
}

/// A packet that leaves.
#[derive(Clone, Copy, Debug)]
struct Leaving {
    number: u64,
    tag: u32,
    /// Its reliable frames.
    head: u32,
    bytes: u16,
    eliciting: bool,
    /// Whether it carries frames that wait for room in the window.
    paced: bool,
}

impl Sender {
    /// Nothing queued. `config` passed [`Config::check`]; `jitter` is this connection's own stream.
    pub fn new(config: &Config, jitter: Stream) -> Self {
        let mut jitter = jitter;
        let backoff_draw = jitter.next_u64();
        let shared = Shared {
            outbox: Outbox::new(config),
            frames: Frames::new(),
            numbers: SentNumbers::new(),
            rtt: RttEstimator::new(config.rto_initial, config.rto_min, config.rto_max)
                .with_granularity(config.granularity),
            congestion: Congestion::new().with_bursts(config.burst_bytes_max),
            stats: SenderStats::default(),
            jitter,
            backoff_level: 0,
            backoff_draw,
            rto_max_ns: nanos(config.rto_max),
            probe_min_ns: nanos(config.probe_min),
            probe_packets_max: config.probe_packets_max,
            jitter_ppm: parts_per_million(config.jitter_fraction),
            ack_delay_max_ns: nanos(config.ack_delay_max),
            late_ack_window_ns: nanos(config.late_ack_window),
            validate_acks: config.knobs.validate_acks,
            gated: config.knobs.congestion && config.identity == ResendIdentity::FreshNumber,
            loss_ppm: 0,
            long_lost: 0,
            periods: Periods::new(),
        };
        let packets = match config.identity {
            ResendIdentity::FreshNumber => Packets::Fresh(Fresh::new()),
            ResendIdentity::SameNumber => Packets::Same(Same::new()),
        };
        Self { shared, packets, polled: NONE, is_polled: false, is_paced: false, resend_of: None }
    }

    /// Queues a copy of `payload`. Longer than [`Config::fragment_bytes_max`], it is cut, except in
    /// the unreliable class, whose messages have no number to be put together by, on the reliable
    /// control stream, and with [`ResendIdentity::SameNumber`].
    ///
    /// Messages of the unreliable classes are sent once. When too many of them wait, the oldest
    /// are dropped; a sequenced one takes the place of an older one of its channel.
    ///
    /// # Errors
    /// [`SendError::Full`] for reliable messages past the limits, [`SendError::TooLong`], and
    /// [`SendError::Dead`].
    pub fn send(
        &mut self,
        _now: Timestamp,
        channel: Channel,
        payload: &[u8],
    ) -> Result<(), SendError> {
        self.shared.outbox.send(channel, payload, &mut self.shared.stats)
    }

    /// Queues a reliable message without copying it: the buffer is the sender's until the message is
    /// done, and then [`take_back`](Self::take_back) gives it back. Take all back now and then: nothing
    /// else bounds those that lie there.
    ///
    /// # Errors
    /// As [`send`](Self::send), with the buffer.
    ///
    /// # Panics
    /// For the unreliable classes, which are dropped for each other.
    pub fn send_given(
        &mut self,
        _now: Timestamp,
        channel: Channel,
        body: Vec<u8>,
    ) -> Result<(), (SendError, Vec<u8>)> {
        assert!(channel.delivery.is_reliable(), "what is given is kept until it is acknowledged");
        self.shared.outbox.send_given(channel, body, &mut self.shared.stats)
    }

    /// A buffer that was [given](Self::send_given) with a message that is done since, with that
    /// message's bytes still in it.
    pub fn take_back(&mut self) -> Option<Vec<u8>> {
        self.shared.outbox.take_back()
    }

    /// The next frame that may travel now and that with its head
    /// ([`Config::frame_head_bytes`]) fits `room` bytes. `None`: nothing may travel or nothing
    /// fits. With [`ResendIdentity::SameNumber`] a packet takes one frame.
    pub fn poll_frame(&mut self, now: Timestamp, room: usize) -> Option<OutFrame<'_>> {
        self.poll_any(now, room, true)
    }

    /// The next frame that never left, as [`poll_frame`](Self::poll_frame) gives it: for who keeps
    /// resends to a rate of their own. [`lost_waiting`](Self::lost_waiting) tells of those.
    pub fn poll_new_frame(&mut self, now: Timestamp, room: usize) -> Option<OutFrame<'_>> {
        self.poll_any(now, room, false)
    }

    fn poll_any(&mut self, now: Timestamp, room: usize, resends: bool) -> Option<OutFrame<'_>> {
        if self.shared.outbox.is_vacant() {
            // Whatever is due can only give up packets, and bring no frame.
            return None;
        }
        if self.losses_at() <= now {
            self.handle_timeout(now);
        }
        if self.is_polled && matches!(self.packets, Packets::Same(_)) {
            return None;
        }
        let gate = self.gate(now);
        let shared = &mut self.shared;
        let taken: Taken = shared.outbox.take(room, gate, resends, &mut shared.stats)?;
        self.is_polled = true;
        self.is_paced |= taken.counted;
        self.resend_of = taken.resend_of;
        if taken.reliable {
            self.polled = shared.frames.push(self.polled, taken);
        }
        let (message, body) = shared.outbox.lend(taken)?;
        let fragment = Fragment { index: taken.fragment, last: message.fragments - 1 };
        Some(OutFrame {
            channel: message.channel,
            number: message.channel.delivery.is_numbered().then_some(message.number),
            fragment: (fragment.last > 0).then_some(fragment),
            resend_of: taken.resend_of,
            body,
        })
    }

    /// A packet of `bytes` bytes left as `number` with all frames polled since the last call.
    ///
    /// `tag` comes back when it is acknowledged. `eliciting`: the peer will acknowledge it; a
    /// packet with reliable frames always is. A number that is passed over counts as skipped, and
    /// an ack of it as a lie. Numbers only rise, except when
    /// [`OutFrame::resend_of`] told to use an old one.
    ///
    /// # Panics
    /// When the number is not larger than all before it and no polled frame asked for it.
    pub fn on_sent(
        &mut self,
        now: Timestamp,
        number: u64,
        tag: u32,
        bytes: usize,
        eliciting: bool,
    ) {
        let shared = &mut self.shared;
        shared.outbox.settle();
        shared.stats.packets_sent += 1;
        shared.stats.packet_bytes_sent += bytes as u64;
        let head = core::mem::replace(&mut self.polled, NONE);
        let resend_of = self.resend_of.take();
        self.is_polled = false;
        let eliciting = eliciting || head != NONE;
        let paced = core::mem::take(&mut self.is_paced);
        // No datagram is longer.
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        let leaving = Leaving { number, tag, head, bytes, eliciting, paced };
        if let (Packets::Same(same), Some(asked)) = (&mut self.packets, resend_of) {
            assert!(number == asked, "a resend leaves under its old number");
            return same.on_resent(now, leaving, shared);
        }
        assert!(number >= shared.numbers.next() && number < u64::MAX, "packet numbers only rise");
        match &mut self.packets {
            Packets::Fresh(fresh) => fresh.on_sent(now, leaving, shared),
            Packets::Same(same) => same.on_sent(now, leaving, shared),
        }
    }

    /// Whether the packet that leaves now shall ask for an ack at once: on a path that loses packets,
    /// once for each packet with reliable frames that left a while ago, so that its loss is known a
    /// round trip after this and not when the peer has something to say. Whoever is told so asks.
    pub fn take_ask(&mut self, now: Timestamp) -> bool {
        match &mut self.packets {
            Packets::Fresh(fresh) => fresh.take_ask(now, &self.shared),
            Packets::Same(_) => false,
        }
    }

    /// Takes the next message number of a channel for a message that the caller itself writes into
    /// a packet right now, outside the queue. Meant for the sequenced class; 0 for the unreliable
    /// class, which has no numbers.
    ///
    /// # Panics
    /// For reliable channels: a number without a message would never be finished.
    pub fn next_number(&mut self, channel: Channel) -> u64 {
        assert!(!channel.delivery.is_reliable(), "reliable messages pass through the queue");
        if channel.delivery.is_numbered() { self.shared.outbox.take_number(channel) } else { 0 }
    }

    /// Takes in the peer's ack. `on_acked` gets number and tag of each packet that is acknowledged
    /// for the first time, in rising order, those given up as lost included while they are
    /// remembered ([`Config::late_ack_window`]).
    ///
    /// # Errors
    /// [`AckError`], and nothing was changed.
    pub fn handle_ack(
        &mut self,
        now: Timestamp,
        ack: &Ack,
        on_acked: &mut dyn FnMut(u64, u32),
    ) -> Result<(), AckError> {
        let shared = &mut self.shared;
        shared.outbox.settle();
        if shared.validate_acks {
            shared.numbers.check(ack)?;
        }
        match &mut self.packets {
            Packets::Fresh(fresh) => fresh.handle_ack(now, ack, shared, on_acked),
            Packets::Same(same) => {
                for number in ack.numbers() {
                    if let Some(tag) = same.handle_ack(number, shared)? {
                        on_acked(number, tag);
                    }
                }
            }
        }
        self.fit(now);
        Ok(())
    }

    /// Once in a while: what a rare burst made the tables take is given back.
    fn fit(&mut self, now: Timestamp) {
        if self.shared.periods.has_ended(now) {
            self.shared.outbox.fit();
            self.shared.frames.fit();
            match &mut self.packets {
                Packets::Fresh(fresh) => fresh.fit(),
                Packets::Same(same) => same.fit(),
            }
        }
    }

    /// Takes in the ack of one packet number; says whether that was news.
    ///
    /// # Errors
    /// [`AckError`], and nothing was changed.
    pub fn handle_ack_one(&mut self, now: Timestamp, number: u64) -> Result<bool, AckError> {
        let shared = &mut self.shared;
        if let Packets::Same(same) = &mut self.packets {
            shared.outbox.settle();
            let is_news = same.handle_ack(number, shared)?.is_some();
            self.fit(now);
            return Ok(is_news);
        }
        let mut is_news = false;
        let ack = Ack::single(number, Duration::ZERO);
        self.handle_ack(now, &ack, &mut |_, _| is_news = true)?;
        Ok(is_news)
    }

    /// When the packet `number` leaves again if nothing is heard of it: [`Timestamp::NEVER`] while it
    /// waits for that already, `None` when it is not in flight. For [`ResendIdentity::SameNumber`];
    /// with fresh numbers no packet leaves again.
    pub fn resend_at(&self, number: u64) -> Option<Timestamp> {
        match &self.packets {
            Packets::Fresh(_) => None,
            Packets::Same(same) => same.due(number),
        }
    }

    /// Lets the packet `number` leave again at `at`, or when it would anyway if that is before. It
    /// changes nothing for a packet that is not in flight, or with fresh numbers.
    pub fn hasten_resend(&mut self, number: u64, at: Timestamp) {
        if let Packets::Same(same) = &mut self.packets {
            same.hasten(number, at);
        }
    }

    /// Gives up the packet `number` and with it its message: it does not leave again, and its ack is
    /// no news. Returns its tag, or `None` when it is not in flight; with fresh numbers always.
    pub fn abandon(&mut self, number: u64) -> Option<u32> {
        let shared = &mut self.shared;
        match &mut self.packets {
            Packets::Fresh(_) => None,
            Packets::Same(same) => same.abandon(number, shared),
        }
    }

    /// The lowest packet number in flight, with [`ResendIdentity::SameNumber`].
    pub fn oldest_in_flight(&self) -> Option<u64> {
        match &self.packets {
            Packets::Fresh(_) => None,
            Packets::Same(same) => same.oldest(),
        }
    }

    /// Lost frames that wait to leave again.
    pub const fn lost_waiting(&self) -> u32 {
        self.shared.outbox.lost_waiting()
    }

    /// Whether a reliable message of `len` bytes, were it queued now, would be what
    /// [`poll_new_frame`](Self::poll_new_frame) gives: no other of its urgency waits, and the limits
    /// in flight leave room.
    pub fn would_leave(&self, channel: Channel, len: usize) -> bool {
        self.shared.outbox.would_leave(channel, len)
    }

    /// The peer allows `max_total` charged bytes in total since the start. A smaller number than
    /// before changes nothing, so credit may arrive out of order.
    pub fn handle_credit(&mut self, max_total: u64) {
        self.shared.outbox.raise_credit(max_total);
    }

    /// Takes in a round trip that was measured otherwise: with [`ResendIdentity::SameNumber`] acks
    /// tell none (Karn's ambiguity), so RTT comes from pings.
    pub fn on_rtt_sample(&mut self, _now: Timestamp, rtt: Duration, delay: Duration) {
        self.shared.rtt.on_sample(rtt, delay);
    }

    /// Gives up what is overdue. Harmless when called early.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let shared = &mut self.shared;
        shared.congestion.refill(now);
        match &mut self.packets {
            Packets::Fresh(fresh) => fresh.handle_timeout(now, shared),
            Packets::Same(same) => same.handle_timeout(now, shared),
        }
        self.fit(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next. It may be early, never
    /// late.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        Some(self.timeout_at()).filter(|at| *at != Timestamp::NEVER)
    }

    /// The same while all but [urgent](Self::wants_to_send_urgently) frames wait for company: the pace
    /// of those that wait is not asked.
    pub fn poll_urgent_timeout(&self) -> Option<Timestamp> {
        let outbox = &self.shared.outbox;
        let paced = !outbox.is_vacant() && outbox.is_urgent(true) && !outbox.is_urgent(false);
        let at = if paced { self.timeout_at() } else { self.losses_at() };
        Some(at).filter(|at| *at != Timestamp::NEVER)
    }

    fn timeout_at(&self) -> Timestamp {
        let at = self.losses_at();
        let paced = matches!(self.packets, Packets::Fresh(_)) && !self.shared.outbox.is_vacant();
        if paced { at.min(self.pace_at()) } else { at }
    }

    /// When packets in flight are to be looked at.
    fn losses_at(&self) -> Timestamp {
        match &self.packets {
            Packets::Fresh(fresh) => fresh.poll_timeout(&self.shared),
            Packets::Same(same) => same.poll_timeout(),
        }
    }

    /// Whether a frame may travel now: new, or lost, within credit and the limits in flight. True
    /// too when a timeout is overdue.
    pub fn wants_to_send(&self, now: Timestamp) -> bool {
        let is_ready =
            !self.shared.outbox.is_vacant() && self.shared.outbox.is_ready(self.gate(now));
        is_ready || self.timeout_at() <= now
    }

    /// The same for frames that were lost and those of the control stream alone: for who lets others
    /// wait for company.
    pub fn wants_to_send_urgently(&self, now: Timestamp) -> bool {
        let is_urgent =
            !self.shared.outbox.is_vacant() && self.shared.outbox.is_urgent(self.gate(now));
        is_urgent || self.losses_at() <= now
    }

    /// Whether reliable frames may leave: within the window and the pace, or alone, so that loose
    /// packets that fill the window cannot keep them for ever.
    fn gate(&self, now: Timestamp) -> bool {
        let congestion = &self.shared.congestion;
        let guarded = matches!(&self.packets, Packets::Fresh(fresh) if fresh.is_guarded());
        !self.shared.gated || congestion.next_at() <= now && (congestion.has_room() || !guarded)
    }

    /// When the pace lets the next frame leave, if one waits for nothing else.
    fn pace_at(&self) -> Timestamp {
        let at = self.shared.congestion.next_at();
        let waits = || self.shared.outbox.is_ready(true) && !self.shared.outbox.is_ready(false);
        let paced = self.shared.gated
            && self.shared.outbox.unacknowledged() > 0
            && self.shared.congestion.has_room()
            && waits();
        // What may leave at once waits for the caller, and needs no timer.
        if paced && at != Timestamp::START { at } else { Timestamp::NEVER }
    }

    /// Bytes that may leave now before something in flight is acknowledged or lost.
    pub const fn send_window(&self) -> u64 {
        let congestion = &self.shared.congestion;
        congestion.window().saturating_sub(congestion.in_flight())
    }

    /// Bytes a second that the path bears as far as is known: a window each round trip. What is
    /// sent outside the queue, such as states, keeps to it of its own.
    pub const fn budget_bytes_per_second(&self) -> u64 {
        let rtt = &self.shared.rtt;
        let smoothed = if rtt.samples() == 0 { 0 } else { rtt.smoothed_ns() };
        self.shared.congestion.rate(smoothed)
    }

    /// Bytes that may be in flight.
    pub const fn congestion_window(&self) -> u64 {
        self.shared.congestion.window()
    }

    /// Share of the packets that were lost of late, 0 to 1.
    pub fn loss(&self) -> f64 {
        f64::from(self.shared.loss_ppm) / 1e6
    }

    /// Packets of more than [`LONG_PACKET_BYTES`] lost since the last that was acknowledged.
    pub const fn long_lost(&self) -> u32 {
        self.shared.long_lost
    }

    /// Starts to count them anew.
    pub const fn forget_long_lost(&mut self) {
        self.shared.long_lost = 0;
    }

    /// The path changed: what was known of how much it bears is forgotten.
    pub fn on_path_changed(&mut self) {
        self.shared.congestion.restart();
    }

    /// Whether a frame was resent more often than [`Config::attempts_max`] allows, counted over
    /// all fragments of its message: the peer is gone.
    pub const fn is_dead(&self) -> bool {
        self.shared.outbox.is_dead()
    }

    /// Reliable messages that are queued or in flight.
    pub const fn unacknowledged(&self) -> usize {
        self.shared.outbox.unacknowledged()
    }

    /// The number that the next message of a channel will have.
    pub fn next_message(&self, channel: Channel) -> u64 {
        self.shared.outbox.next_message(channel)
    }

    /// Whether the peer has acknowledged message `number` of a reliable channel.
    pub fn is_done(&self, channel: Channel, number: u64) -> bool {
        self.shared.outbox.is_done(channel, number)
    }

    /// Charged bytes that may leave for the first time before the peer gives more credit.
    pub const fn credit_left(&self) -> u64 {
        self.shared.outbox.credit_left()
    }

    /// What is known of the round-trip time.
    pub const fn rtt(&self) -> &RttEstimator {
        &self.shared.rtt
    }

    /// Wishes for what a packet with `number` touches while no message waits: when it leaves, and
    /// when its ack comes.
    pub fn prefetch(&self, number: u64) {
        prefetch::bytes(core::ptr::from_ref(self).cast(), HOT_BYTES);
        self.shared.numbers.prefetch(number);
        self.shared.outbox.prefetch();
    }

    /// Wishes for the records of packets; after [`prefetch`](Self::prefetch).
    pub fn prefetch_records(&self) {
        if let Packets::Fresh(fresh) = &self.packets {
            fresh.prefetch_records();
        }
    }

    /// Counters.
    pub const fn stats(&self) -> &SenderStats {
        &self.shared.stats
    }

    /// Bytes of the heap that it holds, for tests of the bounds.
    #[cfg(test)]
    fn heap_bytes(&self) -> usize {
        let packets = match &self.packets {
            Packets::Fresh(fresh) => fresh.heap_bytes(),
            Packets::Same(same) => same.heap_bytes(),
        };
        let shared = &self.shared;
        let numbers = shared.numbers.heap_bytes();
        shared.outbox.heap_bytes() + shared.frames.heap_bytes() + numbers + packets
    }
}

#[cfg(test)]
mod tests;
