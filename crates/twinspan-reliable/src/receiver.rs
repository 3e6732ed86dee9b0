//! The receiving half: puts messages together and delivers them as their class promises.

mod parked;
mod pieces;

use std::collections::VecDeque;

use core::time::Duration;

use twinspan_core::need::{Need, Periods, fit_ring};
use twinspan_core::{number::widen, prefetch, time::Timestamp};

use crate::backoff::nanos;
use crate::bits::DoneSet;
use crate::buffers::{CHANNELS_FIRST, make_room};
use crate::config::{
    CONTROL_MESSAGE_BYTES_MAX, CONTROL_MESSAGES_AHEAD_MAX, FRAGMENTS_PER_MESSAGE_MAX,
    FRAME_CHARGE_BYTES, MESSAGES_AHEAD_MAX,
};
use crate::{Channel, Config, Delivery, Fragment, FrameError, InFrame, ReceiverStats, StreamId};
pub use parked::ParkedReceiver;
use pieces::{Id, Pieces};

/// Bits of a message number on the wire.
const WIRE_BITS: u32 = 16;

// A sender that keeps to its window is never misread, and what comes up to 64,000 messages late is
// still known to be late.
const _: () = assert!(MESSAGES_AHEAD_MAX < 1 << (WIRE_BITS - 2));

/// The receiving half of one connection.
///
/// Hand it each frame of each packet that authenticated with [`handle_frame`](Self::handle_frame),
/// then send what [`poll_credit`](Self::poll_credit) says on a reliable control channel, and call
/// [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout). What it took
/// is delivered or held, so its packet may be acknowledged at once, whatever the application does.
///
/// A message counts as consumed when it was delivered. What is held stays within
/// [`Config::credit_bytes`] for reliable classes, within
/// [`CONTROL_MESSAGES_AHEAD_MAX`] messages for each class of the control stream, and within
/// [`Config::partial_bytes_max`] for the sequenced class.
#[derive(Debug)]
#[repr(C)]
pub struct Receiver {
    /// Incomplete sequenced messages, oldest first.
    partials: VecDeque<Partial>,
    /// Sorted by channel; 192 at most.
    channels: Vec<RxChannel>,
    pieces: Pieces,
    partial_charged: u64,
    /// Charged bytes that arrived, and of those the delivered ones.
    arrived: u64,
    consumed: u64,
    /// Charged bytes that the peer was told that it may send.
    credit_total: u64,
    credit_bytes: u64,
    message_bytes_max: usize,
    partial_messages_max: usize,
    partial_bytes_max: u64,
    partial_deadline_ns: u64,
    suppress_duplicates: bool,
    partials_need: Need,
    periods: Periods,
    stats: ReceiverStats,
}

/// What has arrived on one channel.
#[derive(Debug)]
struct RxChannel {
    channel: Channel,
    /// Numbers that are delivered, or for the sequenced class no longer wanted.
    done: DoneSet,
    /// Messages that arrived in part or ahead of their turn, by number.
    held: VecDeque<Held>,
    held_need: Need,
}

/// Messages for which a channel keeps room whether it holds any or not. Were a peer to fill one
/// channel after the other, room for a full window in each of 128 would be 2 MiB that no credit
/// covers.
const HELD_KEPT: usize = 32;

/// A message of a reliable channel that waits.
#[derive(Clone, Copy, Debug)]
struct Held {
    number: u64,
    id: Id,
}

/// A sequenced message that waits for the rest of itself.
#[derive(Clone, Copy, Debug)]
struct Partial {
    channel: Channel,
    number: u64,
    id: Id,
    until: Timestamp,
}

type Deliver<'a> = dyn FnMut(Channel, &[u8]) + 'a;

impl Receiver {
    /// Nothing has arrived. `config` passed [`Config::check`].
    pub fn new(config: &Config) -> Self {
        Self {
            channels: Vec::new(),
            pieces: Pieces::new(config.recycled_bytes_max),
            partials: VecDeque::new(),
            partial_charged: 0,
            arrived: 0,
            consumed: 0,
            credit_total: config.credit_bytes,
            credit_bytes: config.credit_bytes,
            message_bytes_max: config.message_bytes_max,
            partial_messages_max: config.partial_messages_max.max(1),
            partial_bytes_max: config.partial_bytes_max as u64,
            partial_deadline_ns: nanos(config.partial_deadline),
            suppress_duplicates: config.knobs.suppress_duplicates,
            partials_need: Need::new(),
            periods: Periods::new(),
            stats: ReceiverStats::default(),
        }
    }

    /// Takes in a frame and calls `deliver` with each message that became due by it.
    ///
    /// # Errors
    /// [`FrameError`]: the peer breaks the protocol; the frame was not taken in.
    pub fn handle_frame(
        &mut self,
        now: Timestamp,
        frame: InFrame<'_>,
        deliver: &mut dyn FnMut(Channel, &[u8]),
    ) -> Result<(), FrameError> {
        let done = self.route(now, frame, deliver);
        self.stats.violations += u64::from(done.is_err());
        if self.periods.has_ended(now) {
            self.fit();
        }
        done
    }

    /// A period ended: what was not needed is given back.
    fn fit(&mut self) {
        self.pieces.fit();
        fit_ring(&mut self.partials, &mut self.partials_need);
        self.channels.iter_mut().for_each(|rx| fit_ring(&mut rx.held, &mut rx.held_need));
    }

    fn route(
        &mut self,
        now: Timestamp,
        frame: InFrame<'_>,
        deliver: &mut Deliver<'_>,
    ) -> Result<(), FrameError> {
        let InFrame { channel, body, .. } = frame;
        let fragment = frame.fragment.unwrap_or(Fragment { index: 0, last: 0 });
        let is_whole = fragment.last == 0;
        let may_be_cut = channel.delivery.is_numbered()
            && !(channel.delivery.is_reliable() && channel.stream == StreamId::CONTROL);
        if fragment.index > fragment.last
            || usize::from(fragment.last) >= FRAGMENTS_PER_MESSAGE_MAX
            || !(is_whole || may_be_cut)
        {
            return Err(bad_fragment(channel, fragment));
        }
        match channel.delivery {
            Delivery::Unreliable => {
                self.check_len(channel, body.len())?;
                self.count_loose(body.len());
                deliver(channel, body);
                Ok(())
            }
            Delivery::Sequenced => self.handle_sequenced(now, frame, fragment, deliver),
            Delivery::Unordered | Delivery::Ordered => {
                self.handle_reliable(frame, fragment, deliver)
            }
        }
    }

    fn check_len(&self, channel: Channel, len: usize) -> Result<(), FrameError> {
        let is_control = channel.delivery.is_reliable() && channel.stream == StreamId::CONTROL;
        let max = if is_control { CONTROL_MESSAGE_BYTES_MAX } else { self.message_bytes_max };
        if len > max {
            return Err(FrameError::TooLong { channel, len, max });
        }
        Ok(())
    }

    const fn count_loose(&mut self, len: usize) {
        self.stats.loose_delivered += 1;
        self.stats.loose_bytes += len as u64;
    }

    /// Where the channel is in the table; it is made when it is new.
    fn place(&mut self, channel: Channel) -> usize {
        match self.channels.binary_search_by_key(&channel, |rx| rx.channel) {
            Ok(place) => place,
            Err(place) => {
                let done = DoneSet::default();
                make_room(&mut self.channels, CHANNELS_FIRST);
                self.channels.insert(place, RxChannel::new(channel, done));
                place
            }
        }
    }

    fn handle_reliable(
        &mut self,
        frame: InFrame<'_>,
        fragment: Fragment,
        deliver: &mut Deliver<'_>,
    ) -> Result<(), FrameError> {
        let InFrame { channel, body, .. } = frame;
        let place = self.place(channel);
        let Some(rx) = self.channels.get(place) else {
            return Ok(());
        };
        let oldest = rx.done.base();
        let charged = channel.is_charged();
        let ahead = if charged { MESSAGES_AHEAD_MAX } else { CONTROL_MESSAGES_AHEAD_MAX };
        let number = widen_reliable(frame.number, oldest);
        if number >= oldest + ahead {
            return Err(FrameError::TooFarAhead { channel, number, oldest });
        }
        if rx.done.contains(number) {
            self.stats.duplicates += 1;
            if !self.suppress_duplicates && fragment.last == 0 {
                deliver(channel, body);
            }
            return Ok(());
        }
        let found = rx.find(number);
        if let Ok(held) = found {
            if self.pieces.last(held) != Some(fragment.last) {
                return Err(bad_fragment(channel, fragment));
            }
            if self.pieces.has(held, fragment.index) {
                self.stats.duplicates += 1;
                return Ok(());
            }
        }
        let so_far = found.map_or(0, |held| self.pieces.bytes(held));
        self.check_len(channel, so_far + body.len())?;
        let cost = if charged { FRAME_CHARGE_BYTES + body.len() as u64 } else { 0 };
        let arrived = self.arrived.saturating_add(cost);
        if arrived > self.credit_total {
            return Err(FrameError::CreditExceeded { charged: arrived, credit: self.credit_total });
        }
        self.arrived = arrived;
        let is_due = channel.delivery == Delivery::Unordered || number == oldest;
        if fragment.last == 0 && is_due {
            self.consumed += cost;
            self.deliver_now(place, number, body, deliver);
            return Ok(());
        }
        let id = match found {
            Ok(id) => id,
            Err(at) => self.hold(place, at, number, fragment.last),
        };
        self.pieces.add(id, fragment.index, body);
        if !self.pieces.is_whole(id) {
            return Ok(());
        }
        if channel.delivery == Delivery::Unordered {
            self.release_unordered(place, number, deliver);
        } else if number == oldest {
            self.release_ordered(place, deliver);
        } else {
            self.stats.held += 1;
        }
        Ok(())
    }

    /// Makes room for a message at `at` among the held ones of a channel.
    fn hold(&mut self, place: usize, at: usize, number: u64, last: u8) -> Id {
        let id = self.pieces.open(last);
        if let Some(rx) = self.channels.get_mut(place) {
            rx.held.insert(at, Held { number, id });
            rx.held_need.note(rx.held.len());
        }
        id
    }

    /// Delivers a message straight from its packet, and what waited for it.
    fn deliver_now(&mut self, place: usize, number: u64, body: &[u8], deliver: &mut Deliver<'_>) {
        let Some(rx) = self.channels.get_mut(place) else {
            return;
        };
        rx.done.insert(number);
        self.stats.reliable_delivered += 1;
        self.stats.reliable_bytes += body.len() as u64;
        deliver(rx.channel, body);
        if rx.channel.delivery == Delivery::Ordered && !rx.held.is_empty() {
            self.release_ordered(place, deliver);
        }
    }

    /// Delivers the held messages whose turn it is.
    fn release_ordered(&mut self, place: usize, deliver: &mut Deliver<'_>) {
        while let Some(rx) = self.channels.get_mut(place)
            && let Some(first) = rx.held.front().copied()
            && first.number == rx.done.base()
            && self.pieces.is_whole(first.id)
        {
            rx.held.pop_front();
            rx.fit_held();
            rx.done.insert(first.number);
            let channel = rx.channel;
            self.finish(channel, first.id, deliver);
        }
    }

    /// Delivers a message of an unordered channel that just became whole.
    fn release_unordered(&mut self, place: usize, number: u64, deliver: &mut Deliver<'_>) {
        let Some(rx) = self.channels.get_mut(place) else {
            return;
        };
        let Ok(at) = rx.held.binary_search_by_key(&number, |held| held.number) else {
            return;
        };
        let Some(held) = rx.held.remove(at) else {
            return;
        };
        rx.fit_held();
        rx.done.insert(number);
        let channel = rx.channel;
        self.finish(channel, held.id, deliver);
    }

    fn finish(&mut self, channel: Channel, id: Id, deliver: &mut Deliver<'_>) {
        if channel.is_charged() {
            self.consumed += self.pieces.charged(id);
        }
        self.stats.reliable_delivered += 1;
        self.stats.reliable_bytes += self.pieces.bytes(id) as u64;
        self.pieces.finish(id, &mut |bytes| deliver(channel, bytes));
    }

    fn handle_sequenced(
        &mut self,
        now: Timestamp,
        frame: InFrame<'_>,
        fragment: Fragment,
        deliver: &mut Deliver<'_>,
    ) -> Result<(), FrameError> {
        let InFrame { channel, body, .. } = frame;
        let place = self.place(channel);
        let Some(rx) = self.channels.get(place) else {
            return Ok(());
        };
        let wanted = rx.done.base();
        let number = widen(u64::from(frame.number), WIRE_BITS, wanted);
        if number < wanted {
            self.stats.stale += 1;
            if !self.suppress_duplicates && fragment.last == 0 {
                deliver(channel, body);
            }
            return Ok(());
        }
        if fragment.last == 0 {
            self.check_len(channel, body.len())?;
            self.raise(place, number + 1);
            self.drop_partials_before(channel, number + 1);
            self.count_loose(body.len());
            deliver(channel, body);
            return Ok(());
        }
        let Some(id) = self.partial(now, channel, number, fragment, body.len())? else {
            self.stats.stale += 1;
            return Ok(());
        };
        self.pieces.add(id, fragment.index, body);
        self.partial_charged += FRAME_CHARGE_BYTES + body.len() as u64;
        if !self.pieces.is_whole(id) {
            self.fit_partials();
            return Ok(());
        }
        self.raise(place, number + 1);
        self.partials.retain(|partial| partial.id != id);
        self.partial_charged -= self.pieces.charged(id);
        self.count_loose(self.pieces.bytes(id));
        self.pieces.finish(id, &mut |bytes| deliver(channel, bytes));
        self.drop_partials_before(channel, number + 1);
        Ok(())
    }

    /// Nothing below `number` is wanted on a sequenced channel any more.
    fn raise(&mut self, place: usize, number: u64) {
        if let Some(rx) = self.channels.get_mut(place) {
            rx.done.raise(number);
        }
    }

    /// The incomplete message that the fragment belongs to; it is made when it is new. `None` when
    /// the fragment is there already.
    fn partial(
        &mut self,
        now: Timestamp,
        channel: Channel,
        number: u64,
        fragment: Fragment,
        len: usize,
    ) -> Result<Option<Id>, FrameError> {
        let found =
            self.partials.iter().find(|other| other.channel == channel && other.number == number);
        if let Some(Partial { id, .. }) = found.copied() {
            if self.pieces.last(id) != Some(fragment.last) {
                return Err(bad_fragment(channel, fragment));
            }
            self.check_len(channel, self.pieces.bytes(id) + len)?;
            return Ok((!self.pieces.has(id, fragment.index)).then_some(id));
        }
        self.check_len(channel, len)?;
        if self.partials.len() >= self.partial_messages_max {
            self.evict_partial();
        }
        let id = self.pieces.open(fragment.last);
        let until = now.after(Duration::from_nanos(self.partial_deadline_ns));
        self.partials.push_back(Partial { channel, number, id, until });
        self.partials_need.note(self.partials.len());
        Ok(Some(id))
    }

    /// Evicts the oldest incomplete messages until the rest fits its limit.
    fn fit_partials(&mut self) {
        while self.partial_charged > self.partial_bytes_max {
            self.evict_partial();
        }
    }

    fn evict_partial(&mut self) {
        if self.remove_partial(0) {
            self.stats.partial_evicted += 1;
        } else {
            self.partial_charged = 0;
        }
    }

    fn remove_partial(&mut self, index: usize) -> bool {
        let Some(partial) = self.partials.remove(index) else {
            return false;
        };
        self.partial_charged -= self.pieces.charged(partial.id);
        self.pieces.release(partial.id);
        true
    }

    /// Drops incomplete messages of a channel that a newer one overtook.
    fn drop_partials_before(&mut self, channel: Channel, number: u64) {
        let mut index = 0;
        while let Some(partial) = self.partials.get(index) {
            if partial.channel == channel && partial.number < number {
                self.remove_partial(index);
                self.stats.partial_evicted += 1;
            } else {
                index += 1;
            }
        }
    }

    /// Drops incomplete sequenced messages whose deadline passed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        while self.partials.front().is_some_and(|partial| partial.until <= now) {
            self.remove_partial(0);
            self.stats.partial_expired += 1;
        }
    }

    /// Wishes for what tells when something is due.
    pub fn prefetch(&self) {
        prefetch::value(&self.partials);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.partials.front().map(|partial| partial.until)
    }

    /// New credit for the peer, in charged bytes since the start, once a quarter of the window was
    /// consumed. Tell it reliably: it is said once.
    pub fn poll_credit(&mut self) -> Option<u64> {
        let total = self.consumed.saturating_add(self.credit_bytes);
        if total - self.credit_total < self.credit_bytes.div_ceil(4) {
            return None;
        }
        self.credit_total = total;
        Some(total)
    }

    /// Charged bytes that are held undelivered.
    pub const fn held_bytes(&self) -> u64 {
        self.arrived - self.consumed
    }

    /// Counters.
    pub const fn stats(&self) -> &ReceiverStats {
        &self.stats
    }

    /// Bytes of the heap that it holds, for tests of the bounds.
    #[cfg(test)]
    fn heap_bytes(&self) -> usize {
        let channels: usize = self
            .channels
            .iter()
            .map(|rx| rx.done.heap_bytes() + rx.held.capacity() * size_of::<Held>())
            .sum();
        self.channels.capacity() * size_of::<RxChannel>()
            + channels
            + self.partials.capacity() * size_of::<Partial>()
            + self.pieces.heap_bytes()
    }
}

impl RxChannel {
    fn new(channel: Channel, done: DoneSet) -> Self {
        Self { channel, done, held: VecDeque::new(), held_need: Need::new() }
    }

    /// Gives back room that is far more than what is held needs.
    fn fit_held(&mut self) {
        let room = (2 * self.held.len()).max(HELD_KEPT);
        if self.held.capacity() > 2 * room {
            self.held.shrink_to(room);
        }
    }

    /// The held message `number`, or where it would be inserted.
    fn find(&self, number: u64) -> Result<Id, usize> {
        // What comes last belongs last, most of the time.
        if self.held.back().is_none_or(|last| last.number < number) {
            return Err(self.held.len());
        }
        let at = self.held.binary_search_by_key(&number, |held| held.number)?;
        self.held.get(at).map(|held| held.id).ok_or(at)
    }
}

const fn bad_fragment(channel: Channel, fragment: Fragment) -> FrameError {
    FrameError::BadFragment { channel, index: fragment.index, last: fragment.last }
}

/// Widens the number of a reliable message. A sender goes at most [`MESSAGES_AHEAD_MAX`] ahead of
/// the oldest unfinished number, while copies may come late, so nearly all of the 2^16 numbers that
/// one can mean lie behind.
fn widen_reliable(wire: u16, oldest: u64) -> u64 {
    let half = 1 << (WIRE_BITS - 1);
    widen(u64::from(wire), WIRE_BITS, (oldest + MESSAGES_AHEAD_MAX - 1).saturating_sub(half))
}

#[cfg(test)]
mod tests;
