//! The reliability engine of a connection, and the little that is kept of it while there is nothing
//! for it to do: most of the sessions of a large server are idle at any moment.

use core::mem::offset_of;
use core::time::Duration;

use twinspan_core::prefetch;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_reliable::{Config, ParkedReceiver, ParkedSender, Receiver, Sender};

use super::paths::Responses;
use crate::bulk::Scratch;
use crate::frames::{CONTROL_SURE, Control, FRAME_HEAD_BYTES_MAX};
use crate::stats::{FlowStats, PathStats};

/// An engine that had nothing to do for so long is parked. Long enough that one in use at a game's
/// rates never is, not even where an overloaded server makes a third of the states and some of those
/// do not leave; short enough that a keep-alive does not keep it.
pub(super) const PARK_AFTER: Duration = Duration::from_secs(1);
/// For so long after a message its path is worth a probe.
pub(super) const IN_USE: Duration = Duration::from_millis(250);

/// Both halves of the engine. What every packet touches comes first.
#[repr(C)]
pub(super) struct Engine {
    /// When it was last asked to do anything.
    used_at: Timestamp,
    /// New credit for the peer that found no place in the queue yet.
    credit: Option<u64>,
    /// Until when queued messages may wait for others; never while none does.
    pub(super) flush_at: Timestamp,
    /// Bytes of those.
    pub(super) unflushed: usize,
    /// Until when it counts as used, for more than control messages.
    pub(super) in_use_until: Timestamp,
    /// Answers to challenges of our path.
    pub(super) responses: Responses,
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    /// For messages of the bulk stream.
    pub(super) scratch: Scratch,
}

impl Engine {
    /// A message of so many bytes was queued: it may wait for others, until they fill a packet.
    pub(super) fn wait_for_company(&mut self, now: Timestamp, delay: Duration, bytes: usize) {
        if delay.is_zero() {
            return;
        }
        let first = self.unflushed == 0;
        self.unflushed += bytes + FRAME_HEAD_BYTES_MAX;
        if self.unflushed >= super::message_room() {
            self.flush_at = Timestamp::NEVER;
        } else if first {
            self.flush_at = now.after(delay);
        }
    }

    /// Who waited for company waits no longer.
    pub(super) fn stop_waiting(&mut self, now: Timestamp) {
        if self.flush_at <= now {
            self.flush_at = Timestamp::NEVER;
        }
    }

    /// A packet takes along what waits.
    pub(super) const fn on_flush(&mut self) {
        self.flush_at = Timestamp::NEVER;
        self.unflushed = 0;
    }

    /// Tells the peer its new credit; when the queue is full, with a later packet.
    pub(super) fn send_credit(&mut self, now: Timestamp) {
        self.credit = self.receiver.poll_credit().or(self.credit);
        if let Some(total) = self.credit {
            let message = Control::Credit { total }.to_bytes();
            if self.sender.send(now, CONTROL_SURE, message.as_slice()).is_ok() {
                self.credit = None;
            }
        }
    }
}

/// What is kept of it while it is parked.
struct Parked {
    sender: ParkedSender,
    receiver: ParkedReceiver,
}

/// The engine, at work or parked.
#[repr(C)]
pub(super) struct Desk {
    engine: Option<Box<Engine>>,
    /// Out of date while there is an engine.
    parked: Parked,
    /// Counted by the engines before this one.
    packets_lost: u64,
    packets_late: u64,
}

impl Desk {
    /// One that has done nothing yet.
    pub(super) fn new(config: &Config) -> Self {
        let sender = ParkedSender::new(config);
        let receiver = ParkedReceiver::new(config);
        let parked = Parked { sender, receiver };
        Self { engine: None, parked, packets_lost: 0, packets_late: 0 }
    }

    /// The engine at work, brought back when it was parked.
    pub(super) fn live(
        &mut self,
        now: Timestamp,
        config: &Config,
        jitter: &mut Stream,
    ) -> &mut Engine {
        let parked = &self.parked;
        let engine = self.engine.get_or_insert_with(|| {
            let jitter = Stream::new(jitter.next_u64(), "session resends", 0);
            Box::new(Engine {
                sender: Sender::resume(config, jitter, &parked.sender),
                receiver: Receiver::resume(config, &parked.receiver),
                used_at: now,
                credit: None,
                responses: Responses::default(),
                in_use_until: Timestamp::START,
                scratch: Scratch::default(),
                flush_at: Timestamp::NEVER,
                unflushed: 0,
            })
        });
        engine.used_at = now;
        engine
    }

    /// Wishes for what packets around `number` touch of the engine, when it is at work.
    pub(super) fn prefetch(&self, number: u64) {
        if let Some(engine) = self.engine.as_deref() {
            prefetch::bytes(core::ptr::from_ref(engine).cast(), offset_of!(Engine, sender));
            engine.sender.prefetch(number);
            engine.receiver.prefetch();
        }
    }

    /// Whether something shall leave now: not while all that could may still wait for company, which
    /// lost frames and control messages do not.
    pub(super) fn wants_to_send(&self, now: Timestamp) -> bool {
        self.engine.as_deref().is_some_and(|engine| {
            let waits = engine.flush_at > now && engine.flush_at != Timestamp::NEVER;
            if waits {
                engine.sender.wants_to_send_urgently(now)
            } else {
                engine.sender.wants_to_send(now)
            }
        })
    }

    /// Whether there was more than control messages a moment before `at`.
    pub(super) fn is_in_use(&self, at: Timestamp) -> bool {
        self.engine.as_deref().is_some_and(|engine| at < engine.in_use_until)
    }

    /// Whether answers to challenges wait for a packet.
    pub(super) fn has_responses(&self) -> bool {
        self.engine.as_deref().is_some_and(|engine| !engine.responses.is_empty())
    }

    /// The engine, when it is at work.
    pub(super) fn working(&mut self) -> Option<&mut Engine> {
        self.engine.as_deref_mut()
    }

    pub(super) fn sender(&self) -> Option<&Sender> {
        self.engine.as_deref().map(|engine| &engine.sender)
    }

    /// When it should be looked at: for its own deadlines, or to be parked.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let engine = self.engine.as_deref()?;
        let sender = match engine.flush_at {
            Timestamp::NEVER => engine.sender.poll_timeout(),
            // Only what is urgent leaves before.
            flush_at => super::earlier(engine.sender.poll_urgent_timeout(), Some(flush_at)),
        };
        let own = super::earlier(sender, engine.receiver.poll_timeout());
        if engine.sender.is_quiet() {
            super::earlier(own, Some(engine.used_at.after(PARK_AFTER)))
        } else {
            own
        }
    }

    /// Parks the engine when it was not used for a while; says whether it is parked.
    pub(super) fn rest(&mut self, now: Timestamp) -> bool {
        let Some(engine) = self.engine.as_deref_mut() else { return true };
        if now < engine.used_at.after(PARK_AFTER) || !engine.sender.is_quiet() {
            return false;
        }
        if !engine.receiver.is_quiet() || engine.credit.is_some() || !engine.responses.is_empty() {
            // Somebody owes something: look again later.
            engine.used_at = now;
            return false;
        }
        self.packets_lost += engine.sender.stats().packets_lost;
        self.packets_late += engine.sender.stats().spurious;
        self.parked.sender = engine.sender.park();
        self.parked.receiver = engine.receiver.park();
        self.engine = None;
        true
    }

    pub(super) const fn is_parked(&self) -> bool {
        self.engine.is_none()
    }

    /// Packet `number` left, without a frame or an answer to come.
    pub(super) fn on_sent_quiet(&mut self, now: Timestamp, number: u64, bytes: usize) {
        match &mut self.engine {
            Some(engine) => engine.sender.on_sent(now, number, 0, bytes, false),
            None => self.parked.sender.on_sent_quiet(number),
        }
    }

    /// One past the largest packet number that left.
    pub(super) fn next_packet(&self) -> u64 {
        self.sender().map_or(self.parked.sender.next_packet(), Sender::next_packet)
    }

    /// The smoothed round-trip time; zero before the first sample.
    pub(super) fn smoothed_rtt(&self) -> Duration {
        let Some(sender) = self.sender() else {
            return self.parked.sender.smoothed_rtt().unwrap_or_default();
        };
        if sender.rtt().samples() == 0 { Duration::ZERO } else { sender.rtt().smoothed() }
    }

    /// What the path bears, as far as is known.
    pub(super) fn path(&self) -> PathStats {
        let Some(sender) = self.sender() else {
            let rtt = self.smoothed_rtt();
            let budget = ParkedSender::budget_bytes_per_second(rtt);
            return PathStats { rtt, budget_bytes_per_s: budget, ..PathStats::default() };
        };
        PathStats {
            rtt: self.smoothed_rtt(),
            jitter: sender.rtt().variation(),
            loss_out: sender.loss(),
            budget_bytes_per_s: sender.budget_bytes_per_second(),
            window_bytes: sender.congestion_window(),
            window_left: sender.send_window(),
        }
    }

    /// How packets fare since the engine is at work.
    pub(super) fn flow(&self) -> FlowStats {
        let Some(sender) = self.sender() else {
            let rtt = self.smoothed_rtt();
            let budget = ParkedSender::budget_bytes_per_second(rtt);
            return FlowStats {
                rtt,
                rtt_min: rtt,
                budget_bytes_per_s: budget,
                ..FlowStats::default()
            };
        };
        let stats = sender.stats();
        FlowStats {
            rtt: self.smoothed_rtt(),
            rtt_min: sender.rtt().min(),
            budget_bytes_per_s: sender.budget_bytes_per_second(),
            packets_acked: stats.packets_acked,
            bytes_acked: stats.packet_bytes_acked,
            packets_lost: stats.packets_lost,
        }
    }

    /// Packets given up as lost.
    pub(super) fn packets_lost(&self) -> u64 {
        self.packets_lost + self.sender().map_or(0, |sender| sender.stats().packets_lost)
    }

    /// Those of them that were acknowledged after all.
    pub(super) fn packets_late(&self) -> u64 {
        self.packets_late + self.sender().map_or(0, |sender| sender.stats().spurious)
    }

    pub(super) fn unacknowledged(&self) -> usize {
        self.sender().map_or(0, Sender::unacknowledged)
    }
}
