//! What there is to send and in which order: messages, lanes, credit and limits in flight.

use std::collections::VecDeque;

use twinspan_core::need::{Need, fit_ring};
use twinspan_core::prefetch;

use super::levels::Levels;
use super::store::{Body, Key, Message, Queue, Store};
use crate::bits::DoneSet;
use crate::buffers::{CHANNELS_FIRST, make_room};
use crate::config::{
    CONTROL_MESSAGE_BYTES_MAX, CONTROL_MESSAGES_AHEAD_MAX, CONTROL_MESSAGES_QUEUED_MAX,
    FRAME_CHARGE_BYTES, MESSAGES_AHEAD_MAX,
};
use crate::{Channel, Config, Delivery, ResendIdentity, SendError, SenderStats, StreamId};

/// Numbering of one channel.
#[derive(Debug)]
struct TxChannel {
    channel: Channel,
    /// Number of its next message.
    next: u64,
    /// Numbers that the peer has; stays empty for the unreliable classes.
    done: DoneSet,
}

/// Messages with the same urgency, first in, first out. The first lane with a frame that may
/// travel and fits wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// Lost frames, control ones at its front.
    Resend,
    /// Reliable messages of the control stream.
    Control,
    /// The unreliable classes: old news is worth least, so they never wait behind reliable ones.
    Loose,
    /// Reliable messages of other streams, by priority.
    Level(usize),
}

/// A frame that was taken out to travel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) key: Key,
    pub(crate) fragment: u8,
    pub(crate) reliable: bool,
    /// Whether it counts against the limit in flight.
    pub(crate) counted: bool,
    /// The packet number that it had before, when it must keep it.
    pub(crate) resend_of: Option<u64>,
}

/// What is kept of a quiet outbox.
#[derive(Debug, Default)]
pub(crate) struct ParkedOutbox {
    numbering: Box<[(Channel, u64)]>,
    credit_used: u64,
    pub(crate) credit_total: u64,
}

impl ParkedOutbox {
    pub(crate) fn new(config: &Config) -> Self {
        Self { credit_total: config.credit_bytes, ..Self::default() }
    }
}

/// See the module. What tells that there is nothing to do comes first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Outbox {
    /// Reliable messages that are not done: of the control stream, and others with their bytes.
    control_messages: u32,
    messages: u32,
    loose: Queue,
    in_flight: u32,
    /// A loose message whose last frame was lent out; its slot is freed by the next change.
    spent: Option<Key>,
    /// Lost frames that wait: of the control stream, and others.
    lost_control: u32,
    lost_other: u32,
    bytes: usize,
    loose_bytes: usize,
    credit_used: u64,
    credit_total: u64,
    dead: bool,
    store: Store,
    channels: Vec<TxChannel>,
    resend: VecDeque<Key>,
    resend_need: Need,
    control: Queue,
    levels: Levels,
    limits: Limits,
}

/// The fields of [`Config`] that matter here, narrow because servers have thousands of these.
#[derive(Debug)]
struct Limits {
    same_number: bool,
    resend: bool,
    piece: u32,
    head: u32,
    message_bytes: u32,
    messages: u32,
    bytes: u32,
    loose_messages: u32,
    in_flight: u32,
    attempts: u32,
}

impl Outbox {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            store: Store::new(config.recycled_bytes_max),
            channels: Vec::new(),
            resend: VecDeque::new(),
            resend_need: Need::new(),
            control: Queue::new(),
            loose: Queue::new(),
            levels: Levels::new(&config.priorities),
            spent: None,
            lost_control: 0,
            lost_other: 0,
            in_flight: 0,
            credit_used: 0,
            credit_total: config.credit_bytes,
            control_messages: 0,
            messages: 0,
            bytes: 0,
            loose_bytes: 0,
            dead: false,
            limits: Limits {
                same_number: config.identity == ResendIdentity::SameNumber,
                resend: config.knobs.resend,
                piece: narrow(config.fragment_bytes_max).max(1),
                head: narrow(config.frame_head_bytes),
                message_bytes: narrow(config.message_bytes_max),
                messages: narrow(config.queued_messages_max),
                bytes: narrow(config.queued_bytes_max),
                loose_messages: narrow(config.loose_messages_max).max(1),
                in_flight: narrow(config.in_flight_frames_max),
                attempts: config.attempts_max,
            },
        }
    }

    pub(crate) const fn unacknowledged(&self) -> usize {
        (self.messages + self.control_messages) as usize
    }

    /// Whether there is no message, so that nothing can leave before the next one is queued.
    pub(crate) const fn is_vacant(&self) -> bool {
        self.messages == 0 && self.control_messages == 0 && self.loose.is_empty()
    }

    /// Wishes for what tells that there is nothing to do.
    pub(crate) fn prefetch(&self) {
        prefetch::bytes(core::ptr::from_ref(self).cast(), prefetch::LINE_BYTES);
    }

    /// Whether nothing waits and nothing is in flight.
    pub(crate) const fn is_quiet(&self) -> bool {
        self.unacknowledged() == 0 && self.loose.is_empty() && self.in_flight == 0
    }

    /// What the numbering and the credit of a quiet outbox come to.
    pub(crate) fn park(&self) -> ParkedOutbox {
        let numbering = self.channels.iter().map(|tx| (tx.channel, tx.next));
        ParkedOutbox {
            numbering: numbering.collect(),
            credit_used: self.credit_used,
            credit_total: self.credit_total,
        }
    }

    /// Goes on where a quiet outbox stopped.
    pub(crate) fn resume(&mut self, parked: &ParkedOutbox) {
        self.credit_used = parked.credit_used;
        self.credit_total = parked.credit_total;
        self.channels.extend(parked.numbering.iter().map(|(channel, next)| {
            let mut done = DoneSet::default();
            done.raise(*next);
            TxChannel { channel: *channel, next: *next, done }
        }));
    }

    /// So many timeouts in a row, without any ack: as often as a frame may leave again, and the
    /// peer is gone, whichever frames had room to leave.
    pub(crate) fn on_timeout(&mut self, level: u32) {
        self.dead |= level > self.limits.attempts && self.limits.resend;
    }

    pub(crate) const fn is_dead(&self) -> bool {
        self.dead
    }

    pub(crate) fn raise_credit(&mut self, total: u64) {
        self.credit_total = self.credit_total.max(total);
    }

    pub(crate) const fn credit_left(&self) -> u64 {
        self.credit_total.saturating_sub(self.credit_used)
    }

    pub(crate) const fn release_flight(&mut self, counted: bool) {
        if counted {
            self.in_flight -= 1;
        }
    }

    /// Number of the channel's next message.
    pub(crate) fn next_message(&self, channel: Channel) -> u64 {
        self.channels.iter().find(|tx| tx.channel == channel).map_or(0, |tx| tx.next)
    }

    /// Whether the peer has this message of a reliable channel.
    pub(crate) fn is_done(&self, channel: Channel, number: u64) -> bool {
        let found = self.channels.iter().find(|tx| tx.channel == channel);
        found.is_some_and(|tx| tx.done.contains(number))
    }

    /// Next number of the channel, which is taken.
    pub(crate) fn take_number(&mut self, channel: Channel) -> u64 {
        let place = self.place(channel);
        self.number_at(place)
    }

    fn number_at(&mut self, place: u16) -> u64 {
        let Some(tx) = self.channels.get_mut(usize::from(place)) else {
            return 0;
        };
        tx.next += 1;
        tx.next - 1
    }

    /// Where the channel is in the table. There are 256 channels at most, few are used, and places
    /// stay, so a scan of some bytes does.
    fn place(&mut self, channel: Channel) -> u16 {
        let found = self.channels.iter().position(|tx| tx.channel == channel);
        let place = found.unwrap_or_else(|| {
            make_room(&mut self.channels, CHANNELS_FIRST);
            self.channels.push(TxChannel { channel, next: 0, done: DoneSet::default() });
            self.channels.len() - 1
        });
        place as u16
    }

    /// Longest message of the channel.
    fn longest(&self, channel: Channel) -> usize {
        let limits = &self.limits;
        if channel.delivery == Delivery::Unreliable || limits.same_number {
            // Without a message number there is nothing to put pieces together by.
            limits.piece.min(limits.message_bytes) as usize
        } else if channel.delivery.is_reliable() && channel.stream == StreamId::CONTROL {
            CONTROL_MESSAGE_BYTES_MAX.min(limits.piece as usize)
        } else {
            limits.message_bytes as usize
        }
    }

    pub(crate) fn send(
        &mut self,
        channel: Channel,
        payload: &[u8],
        stats: &mut SenderStats,
    ) -> Result<(), SendError> {
        self.settle();
        if self.dead {
            return Err(SendError::Dead);
        }
        let max = self.longest(channel);
        if payload.len() > max {
            return Err(SendError::TooLong { len: payload.len(), max });
        }
        if !channel.delivery.is_reliable() {
            let fragments = self.fragments(payload.len());
            self.send_loose(channel, payload, fragments, stats);
            return Ok(());
        }
        if self.is_full(channel, payload.len()) {
            return Err(SendError::Full { messages: self.unacknowledged(), bytes: self.bytes });
        }
        let body = self.store.copy(payload);
        self.queue(channel, body, stats);
        Ok(())
    }

    /// Queues a reliable message without a copy; the buffer comes back when the message is done.
    pub(crate) fn send_given(
        &mut self,
        channel: Channel,
        body: Vec<u8>,
        stats: &mut SenderStats,
    ) -> Result<(), (SendError, Vec<u8>)> {
        self.settle();
        let (len, max) = (body.len(), self.longest(channel));
        let error = if self.dead {
            SendError::Dead
        } else if len > max {
            SendError::TooLong { len, max }
        } else if self.is_full(channel, len) {
            SendError::Full { messages: self.unacknowledged(), bytes: self.bytes }
        } else {
            self.queue(channel, Body::Given(body), stats);
            return Ok(());
        };
        Err((error, body))
    }

    /// A buffer that was given with a message that is done since.
    pub(crate) fn take_back(&mut self) -> Option<Vec<u8>> {
        self.store.take_back()
    }

    /// How many pieces a message of `len` bytes, which is not too long, is cut into.
    fn fragments(&self, len: usize) -> u8 {
        len.div_ceil(self.limits.piece as usize).max(1) as u8
    }

    /// Queues a reliable message that finds its place.
    fn queue(&mut self, channel: Channel, body: Body, stats: &mut SenderStats) {
        let (len, fragments) = (body.len(), self.fragments(body.len()));
        let place = self.place(channel);
        let number = self.number_at(place);
        let key = self.store.insert(channel, place, number, fragments, body);
        if channel.is_charged() {
            self.messages += 1;
            self.bytes += len;
        } else {
            self.control_messages += 1;
        }
        stats.messages_sent += 1;
        stats.bytes_sent += len as u64;
        let lane = match channel.stream {
            StreamId::CONTROL => Some(&mut self.control),
            stream => {
                let level = self.levels.of(stream);
                self.levels.queue_mut(level)
            }
        };
        if let Some(lane) = lane {
            self.store.push_back(lane, key);
        }
    }

    /// Whether a reliable message of `len` bytes finds no place.
    const fn is_full(&self, channel: Channel, len: usize) -> bool {
        if channel.is_charged() {
            self.messages >= self.limits.messages || self.bytes + len > self.limits.bytes as usize
        } else {
            self.control_messages as usize >= CONTROL_MESSAGES_QUEUED_MAX
        }
    }

    fn send_loose(
        &mut self,
        channel: Channel,
        payload: &[u8],
        fragments: u8,
        stats: &mut SenderStats,
    ) {
        // One that has not begun to leave would be discarded by the receiver once this is there.
        if channel.delivery == Delivery::Sequenced
            && self.drop_loose(|old| old.channel == channel && old.waiting == old.whole())
        {
            stats.loose_replaced += 1;
        }
        let before = (self.limits.bytes as usize).saturating_sub(payload.len());
        while self.loose.len() >= self.limits.loose_messages
            || (!self.loose.is_empty() && self.loose_bytes > before)
        {
            self.drop_loose(|_| true);
            stats.loose_dropped += 1;
        }
        let numbered = channel.delivery.is_numbered();
        let place = if numbered { self.place(channel) } else { 0 };
        let number = if numbered { self.number_at(place) } else { 0 };
        let body = self.store.copy(payload);
        let key = self.store.insert(channel, place, number, fragments, body);
        self.store.push_back(&mut self.loose, key);
        self.loose_bytes += payload.len();
        stats.loose_sent += 1;
    }

    /// Drops the oldest queued message of the unreliable classes of which `wanted` holds.
    fn drop_loose(&mut self, wanted: impl FnMut(&Message) -> bool) -> bool {
        let Some(key) = self.store.remove_first(&mut self.loose, wanted) else {
            return false;
        };
        self.loose_bytes -= self.store.get(key).map_or(0, |message| message.body.len());
        self.store.release(key);
        true
    }

    /// Frees what was lent out by the last [`Outbox::take`].
    pub(crate) fn settle(&mut self) {
        if let Some(key) = self.spent.take() {
            self.store.release(key);
        }
    }

    fn head(&self, lane: Lane) -> Option<(Key, &Message)> {
        let key = match lane {
            Lane::Resend => self.resend.front().copied(),
            Lane::Control => self.store.front(&self.control),
            Lane::Loose => self.store.front(&self.loose),
            Lane::Level(level) => self.store.front(self.levels.queue(level)?),
        }?;
        self.store.get(key).map(|message| (key, message))
    }

    fn pop(&mut self, lane: Lane) {
        let queue = match lane {
            Lane::Resend => {
                self.resend.pop_front();
                return;
            }
            Lane::Control => Some(&mut self.control),
            Lane::Loose => Some(&mut self.loose),
            Lane::Level(level) => self.levels.queue_mut(level),
        };
        if let Some(queue) = queue {
            self.store.pop_front(queue);
        }
    }

    /// Whether the next frame of a lane's first message may travel, whatever its length.
    /// `gate`: whether the path has room for frames that wait for it.
    fn may_leave(&self, lane: Lane, message: &Message, gate: bool) -> bool {
        let charged = message.channel.is_charged();
        let in_flight = !charged || gate && self.in_flight < self.limits.in_flight;
        match lane {
            Lane::Loose => true,
            Lane::Resend => in_flight,
            Lane::Control | Lane::Level(_) => {
                let ahead = if charged { MESSAGES_AHEAD_MAX } else { CONTROL_MESSAGES_AHEAD_MAX };
                let done = self.channels.get(usize::from(message.place));
                let oldest = done.map_or(0, |tx| tx.done.base());
                let cost = self.charge(message, message.waiting);
                let begins = message.fragments > 1 && message.waiting == message.whole();
                in_flight
                    && message.number < oldest + ahead
                    && cost <= self.credit_left()
                    && (!begins || self.levels.may_begin())
            }
        }
    }

    /// What the lowest fragment of `set` costs of credit.
    fn charge(&self, message: &Message, set: u64) -> u64 {
        if message.channel.is_charged() {
            let len = self.range(message, set.trailing_zeros() as u8).len();
            FRAME_CHARGE_BYTES + len as u64
        } else {
            0
        }
    }

    fn range(&self, message: &Message, fragment: u8) -> core::ops::Range<usize> {
        let piece = self.limits.piece as usize;
        let from = (usize::from(fragment) * piece).min(message.body.len());
        from..(from + piece).min(message.body.len())
    }

    /// Whether a frame may travel now.
    pub(crate) fn is_ready(&self, gate: bool) -> bool {
        if !self.loose.is_empty() || self.is_urgent(gate) {
            return true;
        }
        self.messages > 0 && self.levels.order().any(|at| self.may(Lane::Level(at), gate))
    }

    /// Whether a frame may travel now that waits for no company: a lost one, or one of the control
    /// stream.
    pub(crate) fn is_urgent(&self, gate: bool) -> bool {
        if self.lost_control > 0 {
            return true;
        }
        if gate && self.lost_other > 0 && self.in_flight < self.limits.in_flight {
            return true;
        }
        self.may(Lane::Control, gate)
    }

    /// Whether the next frame of a lane may travel now.
    fn may(&self, lane: Lane, gate: bool) -> bool {
        self.head(lane).is_some_and(|(_, message)| self.may_leave(lane, message, gate))
    }

    /// Lost frames that wait to leave again.
    pub(crate) const fn lost_waiting(&self) -> u32 {
        self.lost_control + self.lost_other
    }

    /// Whether a reliable message of `len` bytes, were it queued now, would leave with the next
    /// poll for new frames.
    pub(crate) fn would_leave(&self, channel: Channel, len: usize) -> bool {
        let charged = channel.is_charged();
        let queued = if charged {
            let level = self.levels.of(channel.stream);
            self.levels.queue(level).is_some_and(|queue| !queue.is_empty())
        } else {
            !self.control.is_empty()
        };
        if self.dead || queued || self.is_full(channel, len) {
            return false;
        }
        let ahead = if charged { MESSAGES_AHEAD_MAX } else { CONTROL_MESSAGES_AHEAD_MAX };
        let found = self.channels.iter().find(|tx| tx.channel == channel);
        let within = found.is_none_or(|tx| tx.next < tx.done.base() + ahead);
        let cost = if charged { FRAME_CHARGE_BYTES + len as u64 } else { 0 };
        // A lost frame keeps its place in flight, or new ones could hold it back.
        let flying = self.in_flight + self.lost_other;
        within && cost <= self.credit_left() && (!charged || flying < self.limits.in_flight)
    }

    /// Takes out the next frame whose body and head fit `room`; of lost ones only where `resends`
    /// says so.
    pub(crate) fn take(
        &mut self,
        room: usize,
        gate: bool,
        resends: bool,
        stats: &mut SenderStats,
    ) -> Option<Taken> {
        self.settle();
        self.skip_stale();
        let levels = self.levels.order().map(Lane::Level);
        let first = if resends { Some(Lane::Resend) } else { None };
        for lane in first.into_iter().chain([Lane::Control, Lane::Loose]).chain(levels) {
            let Some((key, message)) = self.head(lane) else {
                continue;
            };
            let set = if lane == Lane::Resend { message.lost } else { message.waiting };
            let fragment = set.trailing_zeros() as u8;
            let need = self.range(message, fragment).len() + self.limits.head as usize;
            if need > room || !self.may_leave(lane, message, gate) {
                continue;
            }
            return Some(self.take_from(lane, key, fragment, stats));
        }
        None
    }

    /// Drops entries at the front of the resend lane that late acks made pointless.
    fn skip_stale(&mut self) {
        while let Some(key) = self.resend.front() {
            match self.store.get_mut(*key) {
                Some(message) if message.lost != 0 => return,
                Some(message) => message.in_resend = false,
                None => {}
            }
            self.resend.pop_front();
        }
    }

    fn take_from(&mut self, lane: Lane, key: Key, fragment: u8, stats: &mut SenderStats) -> Taken {
        let mut taken = Taken { key, fragment, reliable: true, counted: false, resend_of: None };
        let bit = 1_u64 << fragment;
        let cost = self.store.get(key).map_or(0, |message| self.charge(message, bit));
        let Some(message) = self.store.get_mut(key) else {
            return taken;
        };
        taken.reliable = lane != Lane::Loose;
        taken.counted = message.channel.is_charged();
        message.waiting &= !bit;
        message.lost &= !bit;
        let left = if lane == Lane::Resend { message.lost } else { message.waiting };
        match lane {
            Lane::Resend => {
                message.resends += 1;
                let limit = self.limits.attempts.saturating_mul(u32::from(message.fragments));
                self.dead |= message.resends > limit;
                message.in_resend = left != 0;
                taken.resend_of = self.limits.same_number.then_some(message.packet);
                *lost_of(&mut self.lost_control, &mut self.lost_other, taken.counted) -= 1;
                stats.frames_resent += 1;
            }
            Lane::Loose if left == 0 => {
                self.loose_bytes -= message.body.len();
                self.spent = Some(key);
            }
            Lane::Loose => {}
            Lane::Control | Lane::Level(_) => {
                if let Lane::Level(level) = lane {
                    let cut = message.fragments > 1;
                    let begins = cut && message.waiting | bit == message.whole();
                    self.levels.on_taken(level, begins, cut && left == 0);
                }
                self.credit_used += cost;
                stats.frames_sent += 1;
            }
        }
        if left == 0 {
            self.pop(lane);
        }
        self.in_flight += u32::from(taken.counted);
        taken
    }

    /// The message of a frame just taken, and the frame's bytes.
    pub(crate) fn lend(&self, taken: Taken) -> Option<(&Message, &[u8])> {
        let message = self.store.get(taken.key)?;
        let body = message.body.as_slice().get(self.range(message, taken.fragment))?;
        Some((message, body))
    }

    /// Remembers under which packet number the message left first.
    pub(crate) fn set_packet(&mut self, key: Key, packet: u64) {
        if let Some(message) = self.store.get_mut(key) {
            message.packet = packet;
        }
    }

    /// How often frames of the message left again.
    pub(crate) fn resends(&self, key: Key) -> u32 {
        self.store.get(key).map_or(0, |message| message.resends)
    }

    /// The peer has this frame. When it was the last one, the message is done.
    pub(crate) fn on_frame_acked(&mut self, key: Key, fragment: u8, stats: &mut SenderStats) {
        let bit = 1_u64 << fragment;
        let Some(message) = self.store.get_mut(key) else {
            return;
        };
        message.acked |= bit;
        if message.lost & bit != 0 {
            message.lost &= !bit;
            let counted = message.channel.is_charged();
            *lost_of(&mut self.lost_control, &mut self.lost_other, counted) -= 1;
        }
        if message.acked != message.whole() {
            return;
        }
        stats.messages_acked += 1;
        self.finish(key);
    }

    /// Forgets a message that nobody waits for any more, though the peer may not have it.
    pub(crate) fn abandon(&mut self, key: Key) {
        let Some(message) = self.store.get_mut(key) else {
            return;
        };
        let lost = core::mem::take(&mut message.lost).count_ones();
        let counted = message.channel.is_charged();
        *lost_of(&mut self.lost_control, &mut self.lost_other, counted) -= lost;
        self.finish(key);
    }

    /// The message is over: it counts no more, and its slot is free.
    fn finish(&mut self, key: Key) {
        let Some(message) = self.store.get(key) else {
            return;
        };
        let (place, number, len) = (message.place, message.number, message.body.len());
        if message.channel.is_charged() {
            self.messages -= 1;
            self.bytes -= len;
        } else {
            self.control_messages -= 1;
        }
        if let Some(tx) = self.channels.get_mut(usize::from(place)) {
            tx.done.insert(number);
        }
        self.store.release(key);
    }

    /// This frame was lost: unless the peer has it after all, it leaves again before new ones.
    pub(crate) fn on_frame_lost(&mut self, key: Key, fragment: u8) {
        let bit = 1_u64 << fragment;
        if !self.limits.resend {
            return;
        }
        let Some(message) = self.store.get_mut(key) else {
            return;
        };
        if (message.acked | message.lost | message.waiting) & bit != 0 {
            return;
        }
        message.lost |= bit;
        let counted = message.channel.is_charged();
        *lost_of(&mut self.lost_control, &mut self.lost_other, counted) += 1;
        if message.in_resend {
            return;
        }
        message.in_resend = true;
        if counted {
            self.resend.push_back(key);
        } else {
            self.resend.push_front(key);
        }
        self.compact_resend();
        self.resend_need.note(self.resend.len());
    }

    /// A period ended: what was not needed is given back.
    pub(crate) fn fit(&mut self) {
        self.store.fit();
        fit_ring(&mut self.resend, &mut self.resend_need);
    }

    /// Entries whose message was completed by a late ack go when they reach the front; were the
    /// front stuck, they could pile up without this.
    fn compact_resend(&mut self) {
        if self.resend.len() > 2 * self.unacknowledged() + 16 {
            let store = &self.store;
            self.resend.retain(|key| store.get(*key).is_some_and(|message| message.in_resend));
        }
    }

    /// Bytes of the heap that it holds, for tests of the bounds.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.store.heap_bytes()
            + self.resend.capacity() * size_of::<Key>()
            + self.channels.capacity() * size_of::<TxChannel>()
            + self.channels.iter().map(|tx| tx.done.heap_bytes()).sum::<usize>()
    }
}

/// The count of lost frames that a frame belongs to.
const fn lost_of<'a>(control: &'a mut u32, other: &'a mut u32, counted: bool) -> &'a mut u32 {
    if counted { other } else { control }
}

/// A limit as it is kept; larger ones are beyond what [`Config::check`] lets pass.
fn narrow(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}
