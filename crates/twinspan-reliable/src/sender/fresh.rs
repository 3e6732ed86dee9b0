//! Packets in flight when every packet has its own number: acks, losses, timeouts.

use std::collections::VecDeque;

use core::time::Duration;

use twinspan_core::need::{Need, fit_ring};
use twinspan_core::prefetch;
use twinspan_core::time::Timestamp;

use super::frames::NONE;
use super::sent::{runs, within};
use super::{Leaving, Shared};
use crate::backoff::nanos;
use crate::{Ack, bits};

/// How many numbers the largest acknowledged one may be ahead of a packet before that counts as
/// lost (RFC 9002, section 6.1.1).
const OVERTAKEN_BY: u64 = 3;

/// Share of lost packets, in millionths, from which on acks are asked for: a path that loses nothing
/// needs no packets for acks alone.
const ASK_LOSS_PPM: u32 = 5_000;
/// The least time from one ack that is asked for to the next.
const ASK_INTERVAL: Duration = Duration::from_millis(25);

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its number was skipped: there is no packet.
    Skipped,
    /// It left and wants no ack.
    Quiet,
    /// It left and wants an ack.
    Flying,
    /// It was given up, yet a late ack still counts.
    Lost,
    /// The peer has it.
    Acked,
}

/// What is remembered of a packet.
#[derive(Clone, Copy, Debug)]
struct Record {
    sent_at: Timestamp,
    /// How long after its sending it was given up, in microseconds.
    lost_after_us: u32,
    tag: u32,
    /// Its reliable frames.
    head: u32,
    bytes: u16,
    fate: Fate,
}

const _: () = assert!(size_of::<Record>() == 24);

/// Why a packet is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Later ones were acknowledged: the path dropped it.
    Overtaken,
    /// Nothing was heard of it, which says nothing of the path.
    Silence,
}

impl Record {
    const SKIPPED: Self = Self {
        sent_at: Timestamp::START,
        lost_after_us: 0,
        tag: 0,
        head: NONE,
        bytes: 0,
        fate: Fate::Skipped,
    };

    /// Whether an ack of it would come too late to be of interest, if it is not in flight.
    const fn is_over(&self, now: Timestamp, shared: &Shared) -> bool {
        let lost_at = self.sent_at.after(Duration::from_micros(self.lost_after_us as u64));
        shared.late_until(lost_at).as_nanos() <= now.as_nanos()
    }
}

/// A packet that others have left behind: it was given up or wants no ack, and all before it are done.
#[derive(Clone, Copy, Debug)]
struct Late {
    number: u64,
    record: Record,
}

/// Records of the packets from `base` on, by number.
///
/// Three sets of bits in [`Shared`] answer an ack in a few word operations, however many packets it
/// names: which numbers were sent, which are open to an ack, and which are in flight. Neither of the
/// latter two has a number without a record.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Fresh {
    /// How many are in flight.
    flying_count: u32,
    base: u64,
    /// One past the largest acknowledged number; 0 before the first.
    acked_next: u64,
    /// When a packet that was overtaken counts as lost.
    loss_at: Timestamp,
    records: VecDeque<Record>,
    /// Packets before `base` of which an ack is of interest all the same, by number: without this one
    /// that was lost would keep the records of all that leave in the two seconds after it.
    late: VecDeque<Late>,
    /// Numbers in flight with reliable frames, oldest first; some may have landed since.
    guarded: VecDeque<u64>,
    /// Of packets with reliable frames below this number an ack was asked for.
    asked_next: u64,
    /// When one was asked for last.
    asked_at: Timestamp,
    records_need: Need,
    late_need: Need,
    guarded_need: Need,
}

impl Fresh {
    pub(super) fn new() -> Self {
        Self {
            flying_count: 0,
            base: 0,
            records: VecDeque::new(),
            late: VecDeque::new(),
            guarded: VecDeque::new(),
            acked_next: 0,
            loss_at: Timestamp::NEVER,
            asked_next: 0,
            asked_at: Timestamp::START,
            records_need: Need::new(),
            late_need: Need::new(),
            guarded_need: Need::new(),
        }
    }

    /// A period ended: what was not needed is given back.
    pub(super) fn fit(&mut self) {
        fit_ring(&mut self.records, &mut self.records_need);
        fit_ring(&mut self.late, &mut self.late_need);
        fit_ring(&mut self.guarded, &mut self.guarded_need);
    }

    /// Whether the packet that leaves now shall be acknowledged at once: on a path that loses packets
    /// one with reliable frames left so long ago that it is lost if an ack of this one comes without
    /// it. Says so once for each such packet.
    pub(super) fn take_ask(&mut self, now: Timestamp, shared: &Shared) -> bool {
        if shared.loss_ppm < ASK_LOSS_PPM || now < self.asked_at.after(ASK_INTERVAL) {
            return false;
        }
        let patience = Duration::from_nanos(shared.rtt.reordered_ns());
        let overdue = |number: &u64| {
            let record = self.record(*number).filter(|record| record.fate == Fate::Flying);
            *number >= self.asked_next
                && record.is_some_and(|record| record.sent_at.after(patience) <= now)
        };
        let Some(newest) = self.guarded.iter().rev().copied().find(overdue) else {
            return false;
        };
        (self.asked_next, self.asked_at) = (newest + 1, now);
        true
    }

    /// A packet left. Its number is not below `shared.numbers.next()`.
    pub(super) fn on_sent(&mut self, now: Timestamp, leaving: Leaving, shared: &mut Shared) {
        let Leaving { number, tag, head, bytes, eliciting, paced } = leaving;
        self.retire(now, shared);
        while let Some(oldest) = self.oldest()
            && oldest + shared.numbers.span() <= number
        {
            if shared.numbers.span() < bits::SPAN {
                shared.numbers.widen();
            } else {
                self.forget_oldest(now, shared);
            }
        }
        if self.records.is_empty() {
            self.base = number;
        }
        let end = self.base + self.records.len() as u64;
        for _skipped in end..number {
            self.records.push_back(Record::SKIPPED);
        }
        let fate = if eliciting { Fate::Flying } else { Fate::Quiet };
        let sent_at = now;
        self.records.push_back(Record { sent_at, lost_after_us: 0, tag, head, bytes, fate });
        self.records_need.note(self.records.len());
        shared.numbers.open(number);
        if eliciting {
            shared.numbers.fly(number);
            self.flying_count += 1;
            let rtt = shared.rtt.smoothed_ns();
            shared.congestion.on_sent(now, u64::from(bytes), paced, rtt);
        }
        if head != NONE {
            self.guarded.push_back(number);
            self.guarded_need.note(self.guarded.len());
        }
        shared.numbers.advance(number);
        // Only with validation switched off can an ack have come before its packet.
        if number < self.acked_next {
            self.acknowledge(now, number, shared);
        }
        self.trim_guarded(shared);
    }

    /// The least number of which anything is remembered.
    fn oldest(&self) -> Option<u64> {
        let late = self.late.front().map(|late| late.number);
        late.or_else(|| (!self.records.is_empty()).then_some(self.base))
    }

    fn find_late(&self, number: u64) -> Option<usize> {
        self.late.binary_search_by_key(&number, |late| late.number).ok()
    }

    fn record(&self, number: u64) -> Option<&Record> {
        match number.checked_sub(self.base) {
            Some(index) => self.records.get(usize::try_from(index).ok()?),
            None => self.late.get(self.find_late(number)?).map(|late| &late.record),
        }
    }

    fn record_mut(&mut self, number: u64) -> Option<&mut Record> {
        match number.checked_sub(self.base) {
            Some(index) => self.records.get_mut(usize::try_from(index).ok()?),
            None => {
                let at = self.find_late(number)?;
                self.late.get_mut(at).map(|late| &mut late.record)
            }
        }
    }

    /// An ack that was checked, or that is believed unchecked.
    pub(super) fn handle_ack(
        &mut self,
        now: Timestamp,
        ack: &Ack,
        shared: &mut Shared,
        on_acked: &mut dyn FnMut(u64, u32),
    ) {
        let next = shared.numbers.next();
        let before = shared.stats.packets_acked;
        self.sample_rtt(now, ack, shared);
        let oldest = self.oldest().unwrap_or(next);
        for (low, claimed) in runs(ack) {
            if low + 63 < oldest {
                continue;
            }
            let mut newly = claimed & within(low, oldest, next) & shared.numbers.open_run(low);
            while newly != 0 {
                let number = low + u64::from(newly.trailing_zeros());
                newly &= newly - 1;
                if let Some(tag) = self.acknowledge(now, number, shared) {
                    on_acked(number, tag);
                }
            }
        }
        if (oldest..next).contains(&ack.largest)
            && shared.numbers.is_open(ack.largest)
            && let Some(tag) = self.acknowledge(now, ack.largest, shared)
        {
            on_acked(ack.largest, tag);
        }
        self.acked_next = self.acked_next.max(ack.largest.saturating_add(1));
        if shared.stats.packets_acked > before {
            shared.restart_backoff();
        }
        self.detect_losses(now, shared);
        self.retire(now, shared);
        self.trim_guarded(shared);
    }

    /// The largest number tells the round trip when this is its first ack; numbers are unique, so
    /// it does even if the packet had been given up.
    fn sample_rtt(&self, now: Timestamp, ack: &Ack, shared: &mut Shared) {
        if let Some(record) = self.record(ack.largest)
            && matches!(record.fate, Fate::Flying | Fate::Lost)
        {
            let delay = ack.delay.min(Duration::from_nanos(shared.ack_delay_max_ns));
            let rtt = now.since(record.sent_at);
            shared.rtt.on_sample(rtt, delay);
            shared.congestion.on_rtt(now, record.sent_at, nanos(rtt));
        }
    }

    /// Marks a packet as acknowledged; returns its tag.
    fn acknowledge(&mut self, now: Timestamp, number: u64, shared: &mut Shared) -> Option<u32> {
        shared.numbers.close(number);
        let record = self.record_mut(number)?;
        let Record { fate, head, tag, bytes, sent_at, .. } = *record;
        let was_flying = u32::from(fate == Fate::Flying);
        record.fate = Fate::Acked;
        record.head = NONE;
        self.flying_count -= was_flying;
        shared.stats.packets_acked += 1;
        shared.stats.packet_bytes_acked += u64::from(bytes);
        match fate {
            Fate::Flying => {
                let rtt = shared.rtt.smoothed_ns();
                shared.congestion.on_acked(now, u64::from(bytes), sent_at, rtt);
                shared.count_loss(false);
                if bytes as usize > super::LONG_PACKET_BYTES {
                    shared.long_lost = 0;
                }
            }
            Fate::Lost => {
                shared.stats.spurious += 1;
                shared.congestion.on_spurious(sent_at);
            }
            Fate::Skipped | Fate::Quiet | Fate::Acked => {}
        }
        let mut index = head;
        while let Some((node, next)) = shared.frames.get(index) {
            if fate != Fate::Lost {
                shared.outbox.release_flight(node.counted);
            }
            shared.outbox.on_frame_acked(node.key, node.fragment, &mut shared.stats);
            index = next;
        }
        shared.frames.release(head);
        if number < self.base
            && let Some(at) = self.find_late(number)
        {
            self.late.remove(at);
        }
        Some(tag)
    }

    /// Gives a packet in flight up: its frames leave again, a late ack still counts.
    fn give_up(&mut self, now: Timestamp, number: u64, why: Why, shared: &mut Shared) {
        shared.numbers.land(number);
        let Some(record) = self.record_mut(number) else {
            return;
        };
        record.fate = Fate::Lost;
        let lost_after = now.since(record.sent_at).as_micros();
        record.lost_after_us = u32::try_from(lost_after).unwrap_or(u32::MAX);
        let mut index = record.head;
        let bytes = u64::from(record.bytes);
        shared.long_lost += u32::from(bytes > super::LONG_PACKET_BYTES as u64);
        match why {
            Why::Overtaken => {
                shared.congestion.on_lost(now, bytes, record.sent_at);
                shared.count_loss(true);
            }
            Why::Silence => shared.congestion.on_forgotten(bytes),
        }
        self.flying_count -= 1;
        shared.stats.packets_lost += 1;
        while let Some((node, next)) = shared.frames.get(index) {
            shared.outbox.release_flight(node.counted);
            shared.outbox.on_frame_lost(node.key, node.fragment);
            index = next;
        }
    }

    /// Gives up what acknowledged packets overtook, by number or by time.
    fn detect_losses(&mut self, now: Timestamp, shared: &mut Shared) {
        self.loss_at = Timestamp::NEVER;
        if self.flying_count == 0 {
            return;
        }
        let Some(largest) = self.acked_next.checked_sub(1) else {
            return;
        };
        let end = largest.min(shared.numbers.next());
        let patience = shared.overtaken();
        let mut low = self.base;
        while low < end {
            let mut run = shared.numbers.flying_run(low) & within(low, low, end);
            while run != 0 {
                let number = low + u64::from(run.trailing_zeros());
                run &= run - 1;
                let sent_at = self.record(number).map_or(Timestamp::NEVER, |record| record.sent_at);
                let by = sent_at.after(patience);
                if largest - number >= OVERTAKEN_BY || by <= now {
                    self.give_up(now, number, Why::Overtaken, shared);
                } else {
                    self.loss_at = self.loss_at.min(by);
                }
            }
            low += 64;
        }
    }

    /// Drops records from the old end that nobody asks about any more, and puts aside those that
    /// only a late ack could concern.
    fn retire(&mut self, now: Timestamp, shared: &mut Shared) {
        while self.late.front().is_some_and(|late| late.record.is_over(now, shared)) {
            self.forget_oldest_late(shared);
        }
        while let Some(front) = self.records.front().copied() {
            match front.fate {
                Fate::Skipped | Fate::Acked => self.forget_oldest_record(now, shared),
                Fate::Quiet | Fate::Lost => {
                    if front.is_over(now, shared) {
                        self.forget_oldest_record(now, shared);
                    } else {
                        self.records.pop_front();
                        self.late.push_back(Late { number: self.base, record: front });
                        self.late_need.note(self.late.len());
                        self.base += 1;
                    }
                }
                // Nothing in it is resent; it only counts as lost.
                Fate::Flying if front.head == NONE && front.is_over(now, shared) => {
                    self.forget_oldest_record(now, shared);
                }
                Fate::Flying => return,
            }
        }
    }

    fn forget_oldest(&mut self, now: Timestamp, shared: &mut Shared) {
        if self.late.is_empty() {
            self.forget_oldest_record(now, shared);
        } else {
            self.forget_oldest_late(shared);
        }
    }

    fn forget_oldest_late(&mut self, shared: &mut Shared) {
        if let Some(Late { number, record }) = self.late.pop_front() {
            shared.frames.release(record.head);
            shared.numbers.close(number);
        }
    }

    fn forget_oldest_record(&mut self, now: Timestamp, shared: &mut Shared) {
        let number = self.base;
        if self.record(number).is_some_and(|record| record.fate == Fate::Flying) {
            self.give_up(now, number, Why::Silence, shared);
        }
        if let Some(record) = self.records.pop_front() {
            shared.frames.release(record.head);
            self.base += 1;
        }
        shared.numbers.close(number);
    }

    fn trim_guarded(&mut self, shared: &Shared) {
        while let Some(number) = self.guarded.front() {
            if *number >= self.base && shared.numbers.is_flying(*number) {
                return;
            }
            self.guarded.pop_front();
        }
    }

    /// When the oldest packet with reliable frames is resent if nothing is heard.
    fn resend_at(&self, shared: &Shared) -> Timestamp {
        let oldest = self.guarded.front().and_then(|number| self.record(*number));
        oldest.map_or(Timestamp::NEVER, |record| record.sent_at.after(shared.resend_delay()))
    }

    pub(super) fn poll_timeout(&self, shared: &Shared) -> Timestamp {
        self.loss_at.min(self.resend_at(shared))
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp, shared: &mut Shared) {
        if self.loss_at <= now {
            self.detect_losses(now, shared);
            self.trim_guarded(shared);
        }
        if self.resend_at(shared) <= now {
            // Nothing but the first wait is so short that an ack may only be late.
            let is_probe = shared.backoff_level == 0 && shared.rtt.samples() > 0;
            let mut left = if is_probe { shared.probe_packets_max } else { u32::MAX };
            while left > 0
                && self.resend_at(shared) <= now
                && let Some(number) = self.guarded.pop_front()
            {
                self.give_up(now, number, Why::Silence, shared);
                self.trim_guarded(shared);
                left -= 1;
            }
            shared.stats.timeouts += 1;
            shared.lengthen_backoff();
            shared.congestion.on_timeout(now, shared.backoff_level);
            shared.outbox.on_timeout(shared.backoff_level);
        }
        self.retire(now, shared);
        self.trim_guarded(shared);
    }

    /// Wishes for the oldest and the newest record and the place of the next.
    pub(super) fn prefetch_records(&self) {
        if let Some(front) = self.records.front() {
            prefetch::value(front);
        }
        if let Some(back) = self.records.back() {
            prefetch::bytes(core::ptr::from_ref(back).cast(), 2 * size_of::<Record>());
        }
    }

    /// Whether a packet with reliable frames is in flight.
    pub(super) fn is_guarded(&self) -> bool {
        !self.guarded.is_empty()
    }

    /// Whether no packet waits for its ack.
    pub(super) const fn is_quiet(&self) -> bool {
        self.flying_count == 0
    }

    /// Bytes of the heap that it holds, for tests of the bounds.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.records.capacity() * size_of::<Record>()
            + self.late.capacity() * size_of::<Late>()
            + self.guarded.capacity() * 8
    }
}

#[cfg(test)]
mod tests;
