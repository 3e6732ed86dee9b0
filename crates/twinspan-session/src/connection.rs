//! A sealed connection between two ends that share keys: what server and client have in common.

use core::mem::offset_of;
use core::time::Duration;
use std::sync::Arc;

use twinspan_core::aead::TAG_BYTES;
use twinspan_core::number::{ReplayWindow, Sighting, widen};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_reliable::{Ack, AckClock, Channel, Delivery, InFrame, StreamId};

use crate::bulk::is_bulk;
use crate::config::Common;
use crate::coverage::Coverage;
use crate::exchange::Rekey;
use crate::frames::{
    ACK_BLOCK_BYTES_MAX, AckBlock, CONTROL_ONCE, CONTROL_SURE, Control, IdPair, SPARE_IDS, Text,
    Violation,
};
use crate::header::{HEADER_BYTES, Header, PACKET_BYTES_MAX, flag};
use crate::identity::PublicKey;
use crate::keys::Keys;
use crate::mtu::{BLACK_HOLE_LOSSES, Mtu};
use crate::protection::Role;
use crate::reason::CloseReason;
use crate::route::{Aim, Token};
use crate::stats::{DropCause, FlowStats, PacketNumbers, PathStats};
use crate::ticket::Ticket;

mod closing;
mod engine;
mod intake;
mod paths;
mod rekey;
mod sending;

use closing::Closing;
use engine::{Desk, Engine, IN_USE, PARK_AFTER};
use intake::Intake;
pub(crate) use paths::CHALLENGE_BYTES;

/// Bytes that [`write_packet`](crate::Endpoint::write_packet)'s writer can surely use.
pub const fn message_room() -> usize {
    PACKET_BYTES_MAX - HEADER_BYTES - TAG_BYTES - ACK_BLOCK_BYTES_MAX - 2
}

/// After how many packets a number is skipped: this many and up to [`SKIP_SPREAD`] - 1 more.
pub(crate) const SKIP_LEAST: u64 = 16;
pub(crate) const SKIP_SPREAD: u64 = 256;
/// Packets for each number that is skipped, on average.
const SKIP_MEAN: u64 = SKIP_LEAST + SKIP_SPREAD / 2;

/// What a connection tells whoever holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notice<'a> {
    Message { channel: Channel, bytes: &'a [u8] },
    Acked { number: u64, tag: u32 },
    Time { nanos: u64 },
    PathResponse { token: Token },
    NewIds { ids: [u32; SPARE_IDS] },
    RetiredIds { ids: [u32; SPARE_IDS] },
    OwnIds { pairs: &'a [IdPair] },
    Ticket { ticket: &'a Ticket, server_key: PublicKey },
    Closed { reason: CloseReason },
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Open,
    Closing(Closing),
    Closed(CloseReason),
}

/// Packets and bytes that passed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) packets_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) packets_out: u64,
    pub(crate) bytes_out: u64,
}

/// What a packet may have changed of when and whether to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Stir {
    Nothing,
    Perhaps,
}

/// How soon an arrived packet wants its ack, session 7.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    #[default]
    None,
    /// With the next packet that goes anyway.
    Lazy,
    Soon,
}

/// What the frames of one packet said beside messages.
#[derive(Debug, Default)]
struct Heard {
    urgency: Urgency,
    close: Option<u8>,
    credit: Option<u64>,
    time: Option<u64>,
    rekey: Option<Rekey>,
    challenge: Option<Token>,
    response: Option<Token>,
    ids: [u32; SPARE_IDS],
    retired: [u32; SPARE_IDS],
    ticket: Option<Box<(Ticket, PublicKey)>>,
    /// Empty, and then without memory, in all packets but a few of a session.
    pairs: Vec<IdPair>,
    violation: bool,
    /// Control frames, but for one CREDIT.
    control: u32,
    /// Whether the reliability engine took a frame.
    engaged: bool,
}

impl Heard {
    fn on_control(&mut self, channel: Channel, bytes: &[u8]) {
        self.control += 1;
        match Control::parse(channel, bytes) {
            Ok(Control::Ping) => self.urgency = Urgency::Soon,
            Ok(Control::Close { reason }) => self.close = Some(reason),
            Ok(Control::Credit { total }) => {
                // How many there are follows from what we send.
                self.control -= u32::from(self.credit.is_none());
                self.credit = self.credit.max(Some(total));
            }
            Ok(Control::Time { nanos }) => {
                self.urgency = Urgency::Soon;
                self.time = Some(nanos);
            }
            // One packet has no reason to carry two steps of one exchange.
            Ok(Control::Rekey(_)) if self.rekey.is_some() => self.violation = true,
            Ok(Control::Rekey(rekey)) => self.rekey = Some(rekey),
            Ok(Control::Padding) => {}
            Ok(Control::PathChallenge { token }) => self.challenge = Some(token),
            Ok(Control::PathResponse { token }) => self.response = Some(token),
            Ok(Control::NewIds { ids }) => ids.into_iter().for_each(|id| add(&mut self.ids, id)),
            Ok(Control::RetireId { id }) => add(&mut self.retired, id),
            Ok(Control::OwnIds { pairs }) => self.pairs.extend(pairs),
            Ok(Control::Ticket(renewal)) => match renewal.read() {
                // The next is sent once this one was acknowledged.
                Ok(read) if self.ticket.is_none() => self.ticket = Some(Box::new(read)),
                _ => self.violation = true,
            },
            Err(Violation) => self.violation = true,
        }
    }
}

/// Adds an id to a list in which 0 is no id. There are never more than fit.
fn add(ids: &mut [u32; SPARE_IDS], id: u32) {
    if let Some(place) = ids.iter_mut().find(|place| **place == 0) {
        *place = id;
    }
}

impl From<Violation> for CloseReason {
    fn from(_: Violation) -> Self {
        Self::ProtocolViolation
    }
}

/// One end of a sealed connection.
///
/// Packets: [`open`](Self::open), then [`process`](Self::process). Sending: while
/// [`wants_transmit`](Self::wants_transmit), [`build`](Self::build). Time:
/// [`deadline`](Self::deadline), then [`handle_timeout`](Self::handle_timeout).
///
/// What every packet touches comes first.
#[repr(C)]
pub(crate) struct Connection {
    common: Arc<Common>,
    phase: Phase,
    /// By which ids the other end is addressed.
    aim: Aim,
    role: Role,
    /// Something arrived since the last ack left that is worth an ack.
    ack_wanted: bool,
    /// An ack or a CLOSE is due and waits for its packet alone.
    ready: bool,
    ping_due: bool,
    /// The next PING asks for an ack at once.
    probe: bool,
    /// Whether the packet that authenticated last has the highest number so far.
    newest: bool,
    /// The number of the next packet.
    next_number: u64,
    /// The number that is skipped next.
    skip_at: u64,
    /// The number that was skipped last, 0 before the first: known even when the engine was parked
    /// and has forgotten which numbers were sent.
    skipped: u64,
    /// When the lazy ack leaves at the latest; never while none waits.
    lazy_ack_at: Timestamp,
    heard_at: Timestamp,
    spoke_at: Timestamp,
    keepalive_wait: Duration,
    /// Server: what the client sent of late.
    intake: Intake,
    acks: AckClock,
    coverage: Coverage,
    /// How long packets may be.
    mtu: Mtu,
    traffic: Traffic,
    keys: Keys,
    /// Which packets arrived: against replays, and for acks.
    replay: ReplayWindow,
    desk: Desk,
    skips: Stream,
    jitter: Stream,
}

/// Bytes of a [`Connection`] that every packet touches.
pub(crate) const HOT_BYTES: usize = offset_of!(Connection, desk) + size_of::<usize>();

/// What makes a connection beside its configuration.
pub(crate) struct ConnectionParts {
    pub(crate) role: Role,
    pub(crate) keys: Keys,
    pub(crate) peer_id: u32,
    pub(crate) jitter: Stream,
    /// From which the skipped numbers are drawn: the peer must not foresee them.
    pub(crate) skips: Stream,
}

/// What a [`LoadClient`](crate::LoadClient) goes on with.
#[cfg(feature = "load")]
pub(crate) struct LoadParts {
    pub(crate) common: Arc<Common>,
    pub(crate) keys: Keys,
    pub(crate) peer_id: u32,
    pub(crate) next_number: u64,
    pub(crate) skip_at: u64,
    pub(crate) skips: Option<Stream>,
    pub(crate) replay: ReplayWindow,
}

impl Connection {
    /// Gives up all but the keys and the numbers.
    #[cfg(feature = "load")]
    pub(crate) fn into_load_parts(self) -> LoadParts {
        let Self { common, keys, aim, next_number, skip_at, skips, replay, .. } = self;
        let peer_id = aim.id;
        let skips = common.config.skip_numbers.then_some(skips);
        LoadParts { common, keys, peer_id, next_number, skip_at, skips, replay }
    }

    pub(crate) fn new(now: Timestamp, common: &Arc<Common>, parts: ConnectionParts) -> Self {
        let config = &common.config;
        let ConnectionParts { role, keys, peer_id, mut jitter, mut skips } = parts;
        let skip_at = 1 + SKIP_LEAST + skips.below(SKIP_SPREAD);
        let keepalive_wait = spread(config.keepalive_interval, &mut jitter);
        Self {
            common: Arc::clone(common),
            phase: Phase::Open,
            role,
            keys,
            aim: Aim::at(peer_id),
            replay: ReplayWindow::default(),
            desk: Desk::new(&config.reliable),
            acks: AckClock::default(),
            coverage: Coverage::default(),
            next_number: 1,
            skip_at,
            skipped: 0,
            skips,
            jitter,
            ack_wanted: false,
            lazy_ack_at: Timestamp::NEVER,
            ready: false,
            ping_due: false,
            probe: false,
            heard_at: now,
            spoke_at: now,
            keepalive_wait,
            intake: Intake::default(),
            newest: false,
            mtu: Mtu::new(now, config.packet_bytes_max),
            traffic: Traffic::default(),
        }
    }

    /// Wishes for the memory that a packet from the peer needs, beside this value itself.
    /// `acks`: it acknowledges packets.
    pub(crate) fn prefetch_to_open(&self, acks: bool) {
        self.keys.prefetch_to_open();
        if acks {
            self.desk.prefetch(self.next_number);
        }
    }

    /// Wishes for the memory that a packet to the peer needs, beside this value itself.
    pub(crate) fn prefetch_to_seal(&self) {
        self.keys.prefetch_to_seal();
        self.desk.prefetch(self.next_number);
    }

    /// Wishes for what is remembered of packets in flight; after the engine was wished for.
    pub(crate) fn prefetch_records(&self) {
        if let Some(sender) = self.desk.sender() {
            sender.prefetch_records();
        }
    }

    /// Authenticates a packet in place, session 5.4, and returns its text.
    pub(crate) fn open<'a>(
        &mut self,
        now: Timestamp,
        header: &Header,
        packet: &'a mut [u8],
    ) -> Result<&'a [u8], DropCause> {
        if matches!(self.phase, Phase::Closed(_)) {
            return Err(DropCause::Closing);
        }
        match self.replay.look(header.number) {
            Sighting::Fresh => {}
            Sighting::Repeat => return Err(DropCause::Replayed),
            Sighting::TooOld => return Err(DropCause::TooOld),
        }
        let bytes = packet.len() as u64;
        let (means, desk) = (self.common.means(), &self.desk);
        let text = self.keys.open(means, now, || desk.smoothed_rtt(), header, packet)?;
        self.on_authentic(now, header, bytes);
        if let Phase::Closing(closing) = self.phase {
            self.hear_while_closing(now, closing, bytes, (header, text));
            return Err(DropCause::Closing);
        }
        Ok(text)
    }

    /// A packet of this connection authenticated: only now does the replay window move.
    pub(crate) fn on_authentic(&mut self, now: Timestamp, header: &Header, bytes: u64) {
        self.newest = self.replay.largest().is_none_or(|largest| header.number > largest);
        self.replay.commit(header.number);
        self.heard_at = now;
        self.traffic.packets_in += 1;
        self.traffic.bytes_in += bytes;
    }

    /// Works off the text of an authentic packet. Says whether [`deadline`](Self::deadline) or
    /// [`wants_transmit`](Self::wants_transmit) may have changed: most packets are one message that
    /// is sent once, and to look would cost more than the message.
    pub(crate) fn process(
        &mut self,
        now: Timestamp,
        header: &Header,
        text: &[u8],
        sink: &mut dyn FnMut(Notice<'_>),
    ) -> Stir {
        // A phase that was opened may end a time-out or make the own phase due.
        let waiting = self.lazy_ack_at != Timestamp::NEVER && !self.keys.take_moved();
        match self.take_in(now, header, text, sink) {
            Ok(Heard { close: Some(reason), .. }) => {
                let reason = CloseReason::from_wire(reason);
                self.phase = Phase::Closed(reason);
                sink(Notice::Closed { reason });
            }
            Ok(heard) => {
                self.on_heard(now, header, &heard, sink);
                let plain = header.flags & !flag::PHASE == 0;
                if waiting && plain && heard.urgency == Urgency::Lazy {
                    return Stir::Nothing;
                }
            }
            Err(reason) => self.fail(now, reason, sink),
        }
        Stir::Perhaps
    }

    /// Works off a packet unless it is one too many, or has too many control frames.
    fn take_in(
        &mut self,
        now: Timestamp,
        header: &Header,
        text: &[u8],
        sink: &mut dyn FnMut(Notice<'_>),
    ) -> Result<Heard, CloseReason> {
        let limited = self.role == Role::Server;
        if limited && !self.intake.takes_packet(now, &self.common.intake) {
            return Err(CloseReason::Flooding);
        }
        let heard = self.try_process(now, header, text, sink)?;
        // An ack at once costs what a PING does.
        let frames = heard.control + u32::from(header.flags & flag::PROBE != 0);
        if limited && !self.intake.takes_control(now, &self.common.intake, frames) {
            return Err(CloseReason::Flooding);
        }
        Ok(heard)
    }

    fn try_process(
        &mut self,
        now: Timestamp,
        header: &Header,
        text: &[u8],
        sink: &mut dyn FnMut(Notice<'_>),
    ) -> Result<Heard, CloseReason> {
        let (ack, mut text) = Text::parse(header, text)?;
        if let Some(block) = ack {
            self.on_ack(now, &block, sink)?;
        }
        let mut heard = Heard::default();
        while let Some(frame) = text.next_frame()? {
            let channel = frame.channel;
            if channel == CONTROL_ONCE {
                // It has no number and no parts: the engine has nothing to add.
                heard.on_control(channel, frame.body);
            } else if channel.delivery == Delivery::Unreliable && !is_bulk(channel) {
                // Neither has it, and most packets of a game are such.
                heard.urgency = heard.urgency.max(Urgency::Lazy);
                sink(Notice::Message { channel, bytes: frame.body });
            } else {
                let control = channel.stream == StreamId::CONTROL;
                if control && channel != CONTROL_SURE {
                    return Err(CloseReason::ProtocolViolation);
                }
                let reliable = channel.delivery.is_reliable();
                let urgency = if reliable { Urgency::Soon } else { Urgency::Lazy };
                heard.urgency = heard.urgency.max(urgency);
                let (number, fragment, body) = (frame.number, frame.fragment, frame.body);
                let frame = InFrame { channel, number, fragment, body };
                heard.engaged = true;
                let config = &self.common.config.reliable;
                let max = config.message_bytes_max;
                let Engine { receiver, scratch, in_use_until, .. } =
                    self.desk.live(now, config, &mut self.jitter);
                if !control {
                    *in_use_until = now.after(IN_USE);
                }
                receiver
                    .handle_frame(now, frame, &mut |channel, bytes| {
                        if channel.stream == StreamId::CONTROL {
                            heard.on_control(channel, bytes);
                        } else if is_bulk(channel) {
                            let lend = |bytes: &[u8]| sink(Notice::Message { channel, bytes });
                            heard.violation |= scratch.unpack(bytes, max, lend).is_err();
                        } else {
                            sink(Notice::Message { channel, bytes });
                        }
                    })
                    .map_err(|_| CloseReason::ProtocolViolation)?;
            }
            let of_server =
                heard.time.is_some() || heard.ids != [0; SPARE_IDS] || heard.ticket.is_some();
            let misplaced = match self.role {
                Role::Server => of_server,
                Role::Client => heard.retired != [0; SPARE_IDS] || !heard.pairs.is_empty(),
            };
            if heard.violation || misplaced {
                return Err(CloseReason::ProtocolViolation);
            }
        }
        if let Some(rekey) = heard.rekey {
            self.keys.on_rekey(now, rekey)?;
        }
        Ok(heard)
    }

    fn on_ack(
        &mut self,
        now: Timestamp,
        block: &AckBlock<'_>,
        sink: &mut dyn FnMut(Notice<'_>),
    ) -> Result<(), CloseReason> {
        let largest = widen(u64::from(block.largest_low), 32, self.next_number);
        let ack = Ack::from_bitmap(largest, block.delay, block.bitmap).ok_or(Violation)?;
        let validated = self.common.config.reliable.knobs.validate_acks;
        if validated && self.skipped != 0 && ack.contains(self.skipped) {
            return Err(CloseReason::AckOfUnsent);
        }
        let (coverage, mtu) = (&mut self.coverage, &mut self.mtu);
        let Some(engine) = self.desk.working() else {
            // Nothing is in flight: it can tell only that the peer has our last acks, or lie.
            if validated && largest >= self.desk.next_packet() {
                return Err(CloseReason::AckOfUnsent);
            }
            coverage.on_quiet_ack(&ack);
            self.keys.on_acked(largest);
            return Ok(());
        };
        engine
            .sender
            .handle_ack(now, &ack, &mut |number, tag| {
                coverage.on_acked(number);
                mtu.on_acked(now, number);
                if tag != 0 {
                    sink(Notice::Acked { number, tag });
                }
            })
            .map_err(|_| CloseReason::AckOfUnsent)?;
        coverage.on_ack_done(largest);
        self.keys.on_acked(largest);
        Ok(())
    }

    fn on_heard(
        &mut self,
        now: Timestamp,
        header: &Header,
        heard: &Heard,
        sink: &mut dyn FnMut(Notice<'_>),
    ) {
        let at_once = header.flags & flag::PROBE != 0;
        let soon = heard.urgency == Urgency::Soon;
        self.acks.on_packet(now, &self.common.config.reliable, self.newest, soon, at_once);
        self.coverage.on_packet(header.number);
        if heard.urgency != Urgency::None || at_once {
            self.ack_wanted = true;
            self.lazy_ack_at = self.lazy_ack_at.min(now.after(self.common.config.lazy_ack_delay));
        }
        self.ready |= self.acks.ack_due().is_some_and(|at| at <= now);
        if let Some(total) = heard.credit {
            self.desk
                .live(now, &self.common.config.reliable, &mut self.jitter)
                .sender
                .handle_credit(total);
        }
        if let Some(nanos) = heard.time {
            sink(Notice::Time { nanos });
        }
        if let Some(token) = heard.challenge {
            self.on_challenge(now, token);
        }
        if let Some(token) = heard.response {
            sink(Notice::PathResponse { token });
        }
        if heard.ids != [0; SPARE_IDS] {
            sink(Notice::NewIds { ids: heard.ids });
        }
        if heard.retired != [0; SPARE_IDS] {
            sink(Notice::RetiredIds { ids: heard.retired });
        }
        if !heard.pairs.is_empty() {
            sink(Notice::OwnIds { pairs: &heard.pairs });
        }
        if let Some((ticket, server_key)) = heard.ticket.as_deref() {
            sink(Notice::Ticket { ticket, server_key: *server_key });
        }
        if heard.engaged
            && let Some(engine) = self.desk.working()
        {
            engine.send_credit(now);
        }
    }

    /// Why it is closing or closed; `None` while open.
    pub(crate) const fn close_reason(&self) -> Option<CloseReason> {
        match self.phase {
            Phase::Open => None,
            Phase::Closing(Closing { reason, .. }) | Phase::Closed(reason) => Some(reason),
        }
    }

    /// Whether nothing more will come of it.
    pub(crate) const fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    pub(crate) const fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The smoothed round-trip time; zero before the first sample.
    pub(crate) fn smoothed_rtt(&self) -> Duration {
        self.desk.smoothed_rtt()
    }

    /// What the path bears, as far as is known.
    pub(crate) fn path(&self) -> PathStats {
        self.desk.path()
    }

    /// How packets fare since the session was idle last.
    pub(crate) fn flow(&self) -> FlowStats {
        self.desk.flow()
    }

    /// Packets given up as lost.
    pub(crate) fn packets_lost(&self) -> u64 {
        self.desk.packets_lost()
    }

    /// Those of them that were acknowledged after all.
    pub(crate) fn packets_late(&self) -> u64 {
        self.desk.packets_late()
    }

    /// Reliable messages queued or not yet acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.desk.unacknowledged()
    }

    /// Share of the peer's packets that did not arrive, but for the numbers it skipped.
    pub(crate) fn loss_in(&self) -> f64 {
        let Some(largest) = self.replay.largest() else { return 0.0 };
        let sent = largest - if self.common.config.skip_numbers { largest / SKIP_MEAN } else { 0 };
        let lost = sent.saturating_sub(self.traffic.packets_in);
        lost as f64 / sent.max(1) as f64
    }

    /// Seals a text that the protocol would not make, for tests of the other end.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn seal_raw(&mut self, channel: u8, flags: u8, text: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; HEADER_BYTES + text.len() + TAG_BYTES];
        if let Some(room) = packet.get_mut(HEADER_BYTES..HEADER_BYTES + text.len()) {
            room.copy_from_slice(text);
        }
        let built = crate::frames::Built {
            len: HEADER_BYTES + text.len(),
            channel,
            flags,
            has_frames: true,
        };
        let sealing = sending::Sealing::default();
        let len = self.seal(Timestamp::START, built, sealing, &mut packet);
        packet.truncate(len.unwrap_or_default());
        packet
    }

    /// Makes the next packet's number this one.
    #[cfg(test)]
    pub(crate) const fn set_number(&mut self, number: u64) {
        self.next_number = number;
    }

    /// The numbers that only ever grow.
    pub(crate) fn packet_numbers(&self) -> PacketNumbers {
        let received = self.replay.largest().unwrap_or(0);
        PacketNumbers { next: self.next_number, received }
    }

    /// The number of the next packet, and the number that is skipped next.
    #[cfg(test)]
    pub(crate) const fn numbers(&self) -> (u64, u64) {
        (self.next_number, self.skip_at)
    }

    /// Asks for an answer from the peer, at once.
    pub(crate) const fn probe(&mut self) {
        self.ping_due = true;
        self.probe = true;
    }

    fn ack_is_due(&self, now: Timestamp) -> bool {
        self.acks.ack_due().is_some_and(|at| at <= now) || self.lazy_ack_at <= now
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest. What is due already and
    /// waits for [`build`](Self::build) alone has no deadline.
    pub(crate) fn deadline(&self) -> Timestamp {
        match self.phase {
            Phase::Open => {}
            Phase::Closing(ref closing) => return self.closing_deadline(closing),
            Phase::Closed(_) => return Timestamp::NEVER,
        }
        let mut at = self.heard_at.after(self.common.config.idle_timeout).min(self.rest_at());
        at = at.min(self.keys.deadline());
        if !self.ping_due {
            at = at.min(self.spoke_at.after(self.keepalive_wait));
        }
        let probe_at = self.mtu.next_at();
        if !self.ready && self.desk.is_in_use(probe_at) {
            at = at.min(probe_at);
        }
        let acks =
            if self.ready { None } else { earlier(self.acks.ack_due(), Some(self.lazy_ack_at)) };
        earlier(acks, self.desk.poll_timeout()).map_or(at, |other| at.min(other))
    }

    /// Does what is due by `now`.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp, sink: &mut dyn FnMut(Notice<'_>)) {
        match self.phase {
            Phase::Open => self.handle_open_timeout(now, sink),
            Phase::Closing(closing) => self.handle_closing_timeout(now, closing, sink),
            Phase::Closed(_) => {}
        }
    }

    fn handle_open_timeout(&mut self, now: Timestamp, sink: &mut dyn FnMut(Notice<'_>)) {
        if now >= self.heard_at.after(self.common.config.idle_timeout) {
            let reason = CloseReason::IdleTimeout;
            self.phase = Phase::Closed(reason);
            sink(Notice::Closed { reason });
            return;
        }
        if let Some(engine) = self.desk.working() {
            engine.stop_waiting(now);
            if engine.sender.long_lost() >= BLACK_HOLE_LOSSES {
                engine.sender.forget_long_lost();
                self.mtu.on_black_hole(now);
            }
            engine.sender.handle_timeout(now);
            engine.receiver.handle_timeout(now);
            if engine.sender.is_dead() {
                return self.fail(now, CloseReason::PeerUnresponsive, sink);
            }
        }
        self.rest(now);
        if self.keys_timed_out(now, sink) {
            return;
        }
        self.ready |= self.ack_is_due(now) || self.wants_mtu_probe(now);
        if now >= self.spoke_at.after(self.keepalive_wait) {
            // An answer at once measures the round trip without the delay of acks.
            self.probe();
        }
    }

    /// Gives back the memory that an idle session has no use for.
    fn rest(&mut self, now: Timestamp) {
        if self.desk.rest(now) && now >= self.spoke_at.after(PARK_AFTER) {
            self.keys.rest();
        }
    }

    /// When [`rest`](Self::rest) has something to do.
    fn rest_at(&self) -> Timestamp {
        let idle = self.desk.is_parked() && self.keys.is_awake();
        if idle { self.spoke_at.after(PARK_AFTER) } else { Timestamp::NEVER }
    }
}

fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The interval ± a fifth.
fn spread(interval: Duration, jitter: &mut Stream) -> Duration {
    let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
    let least = nanos / 5 * 4;
    Duration::from_nanos(least.saturating_add(jitter.below(nanos / 5 * 2)))
}

#[cfg(test)]
mod tests;
