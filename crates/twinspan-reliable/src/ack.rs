//! Which packets arrived: the set that an ack carries, and the record that says when to send it.

use core::time::Duration;

use twinspan_core::time::Timestamp;

use crate::{Config, Knobs};

/// Words of the bitmap of an [`Ack`].
pub const ACK_WORDS: usize = 16;

/// Numbers before the largest that an [`Ack`] speaks of.
pub const ACK_BITS: u64 = 64 * ACK_WORDS as u64;

/// The largest packet number that arrived, and which of the 1,024 before it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The largest number that arrived.
    pub largest: u64,
    /// How long that packet has been here.
    pub delay: Duration,
    /// Bit `i` of the whole (bit `i % 64` of word `i / 64`) is number `largest - 1 - i`.
    pub bits: [u64; ACK_WORDS],
}

impl Ack {
    /// An ack of one number alone.
    pub const fn single(largest: u64, delay: Duration) -> Self {
        Self { largest, delay, bits: [0; ACK_WORDS] }
    }

    /// Whether `number` is acknowledged.
    pub fn contains(&self, number: u64) -> bool {
        let Some(back) = self.largest.checked_sub(number) else {
            return false;
        };
        let Some(bit) = back.checked_sub(1) else {
            return true;
        };
        let word = usize::try_from(bit / 64).ok().and_then(|word| self.bits.get(word));
        word.is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    /// Claims `ahead` numbers past the largest as well, see [`Knobs::ack_ahead`].
    pub fn lie(&mut self, ahead: u64) {
        let ahead = ahead.min(ACK_BITS);
        if ahead == 0 {
            return;
        }
        shift_up(&mut self.bits, ahead);
        for bit in 0..ahead {
            if let Some(word) = self.bits.get_mut((bit / 64) as usize) {
                *word |= 1 << (bit % 64);
            }
        }
        self.largest = self.largest.saturating_add(ahead);
    }

    /// The acknowledged numbers, largest first. Bits for numbers below 0 are left out.
    pub const fn numbers(&self) -> AckNumbers<'_> {
        AckNumbers { ack: self, next: 0 }
    }

    /// How many bytes of the bitmap matter, counted from bit 0: what comes after them is zero.
    /// 0 to 128.
    pub fn bitmap_bytes(&self) -> usize {
        let last = self.bits.iter().rposition(|word| *word != 0);
        last.map_or(0, |word| {
            let bits = self.bits.get(word).map_or(0, |word| 64 - word.leading_zeros());
            word * 8 + bits.div_ceil(8) as usize
        })
    }

    /// Byte `index` of the bitmap: its bit `j` is number `largest - 1 - 8 * index - j`.
    pub fn bitmap_byte(&self, index: usize) -> u8 {
        let word = self.bits.get(index / 8).copied().unwrap_or(0);
        (word >> (index % 8 * 8)) as u8
    }

    /// All bytes of the bitmap, as [`Ack::bitmap_byte`] gives them.
    pub fn bitmap(&self) -> [u8; ACK_WORDS * 8] {
        let mut bitmap = [0; ACK_WORDS * 8];
        for (place, word) in bitmap.as_chunks_mut::<8>().0.iter_mut().zip(self.bits) {
            *place = word.to_le_bytes();
        }
        bitmap
    }

    /// The ack whose bitmap is `bytes`, the reverse of [`Ack::bitmap_byte`]; `None` when there are
    /// more than 128.
    pub fn from_bitmap(largest: u64, delay: Duration, bytes: &[u8]) -> Option<Self> {
        if bytes.len() > ACK_WORDS * 8 {
            return None;
        }
        let mut ack = Self::single(largest, delay);
        for (word, chunk) in ack.bits.iter_mut().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole.iter_mut().zip(chunk).for_each(|(place, byte)| *place = *byte);
            *word = u64::from_le_bytes(whole);
        }
        Some(ack)
    }
}

/// Iterates over the numbers of an [`Ack`], largest first.
#[derive(Clone, Debug)]
pub struct AckNumbers<'a> {
    ack: &'a Ack,
    /// How far behind the largest to look next.
    next: u64,
}

impl Iterator for AckNumbers<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.next == 0 {
            self.next = 1;
            return Some(self.ack.largest);
        }
        loop {
            let bit = self.next - 1;
            let word = self.ack.bits.get(usize::try_from(bit / 64).ok()?)?;
            let rest = word >> (bit % 64);
            if rest == 0 {
                self.next = (bit / 64 + 1) * 64 + 1;
                continue;
            }
            let back = self.next + u64::from(rest.trailing_zeros());
            self.next = back + 1;
            return self.ack.largest.checked_sub(back);
        }
    }
}

/// Says when the peer is to be told which packets arrived; the set itself is kept elsewhere.
///
/// It is for protocols whose replay window knows that set already; [`AckTracker`] keeps its own.
#[derive(Clone, Copy, Debug)]
pub struct AckClock {
    /// When the largest number arrived.
    largest_at: Timestamp,
    /// When the packets that want an ack must have it; never when none waits.
    due: Timestamp,
    /// Packets that wait for an ack.
    waiting: u32,
}

impl Default for AckClock {
    fn default() -> Self {
        Self { largest_at: Timestamp::START, due: Timestamp::NEVER, waiting: 0 }
    }
}

impl AckClock {
    /// A packet arrived and authenticated. `is_largest`: its number is above all before it;
    /// `eliciting`: it wants an ack, by and by; `at_once`: now.
    pub fn on_packet(
        &mut self,
        now: Timestamp,
        config: &Config,
        is_largest: bool,
        eliciting: bool,
        at_once: bool,
    ) {
        if is_largest {
            self.largest_at = now;
        }
        if eliciting || at_once {
            self.want(now, at_once, config.ack_packets_max, config.ack_delay_max);
        }
    }

    fn want(&mut self, now: Timestamp, at_once: bool, waiting_max: u32, delay_max: Duration) {
        self.waiting = self.waiting.saturating_add(1);
        let now_due = at_once || self.waiting >= waiting_max.max(1);
        let by = if now_due { now } else { now.after(delay_max) };
        self.due = self.due.min(by);
    }

    /// When an ack must leave at the latest; `None` when nobody waits for one.
    pub fn ack_due(&self) -> Option<Timestamp> {
        Some(self.due).filter(|due| *due != Timestamp::NEVER)
    }

    /// How long the packet with the largest number has been here.
    pub const fn delay(&self, now: Timestamp) -> Duration {
        now.since(self.largest_at)
    }

    /// An ack is on its way: nobody waits any more.
    pub const fn on_ack_sent(&mut self) {
        self.due = Timestamp::NEVER;
        self.waiting = 0;
    }
}

/// Remembers which packets arrived and when the peer is to be told.
///
/// For each packet that authenticated call [`AckTracker::on_packet`]; when a packet leaves anyway,
/// or at [`AckTracker::ack_due`], put [`AckTracker::build`] into it and, once it is on its way,
/// call [`AckTracker::on_ack_sent`]. Nothing here waits for the application.
#[derive(Clone, Debug)]
pub struct AckTracker {
    /// One past the largest number that arrived; 0 when none did.
    next: u64,
    /// As in [`Ack`].
    bits: [u64; ACK_WORDS],
    clock: AckClock,
    waiting_max: u32,
    delay_max: Duration,
    /// How far this tracker lies, see [`Knobs::ack_ahead`].
    ack_ahead: u64,
}

impl AckTracker {
    /// Nothing has arrived.
    pub fn new(config: &Config) -> Self {
        let Knobs { ack_ahead, .. } = config.knobs;
        Self {
            next: 0,
            bits: [0; ACK_WORDS],
            clock: AckClock::default(),
            waiting_max: config.ack_packets_max,
            delay_max: config.ack_delay_max,
            ack_ahead,
        }
    }

    /// Packet `number` arrived and authenticated. `eliciting`: it wants an ack, by and by;
    /// `at_once`: now. Call it for duplicates too where the peer resends under the same number.
    pub fn on_packet(&mut self, now: Timestamp, number: u64, eliciting: bool, at_once: bool) {
        self.record(now, number);
        if eliciting || at_once {
            self.clock.want(now, at_once, self.waiting_max, self.delay_max);
        }
    }

    fn record(&mut self, now: Timestamp, number: u64) {
        // The last number there is would have no successor; nobody sends 2^64 packets.
        if number == u64::MAX {
            return;
        }
        if number >= self.next {
            self.advance(number);
            self.clock.largest_at = now;
            return;
        }
        let back = self.next - 1 - number;
        let Some(bit) = back.checked_sub(1) else {
            return;
        };
        let word = usize::try_from(bit / 64).ok().and_then(|word| self.bits.get_mut(word));
        if let Some(word) = word {
            *word |= 1 << (bit % 64);
        }
    }

    /// Makes `number` the largest: the old largest becomes a bit, and all bits move up.
    fn advance(&mut self, number: u64) {
        let Some(largest) = self.next.checked_sub(1) else {
            self.next = number + 1;
            return;
        };
        let by = number - largest;
        if by > ACK_BITS {
            self.bits = [0; ACK_WORDS];
        } else {
            shift_up(&mut self.bits, by);
            let bit = by - 1;
            if let Some(word) = self.bits.get_mut((bit / 64) as usize) {
                *word |= 1 << (bit % 64);
            }
        }
        self.next = number + 1;
    }

    /// The largest number that arrived.
    pub const fn largest(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }

    /// When an ack must leave at the latest; `None` when nobody waits for one.
    pub fn ack_due(&self) -> Option<Timestamp> {
        self.clock.ack_due()
    }

    /// The ack as of now, whether one is due or not; `None` before the first packet.
    pub fn build(&mut self, now: Timestamp) -> Option<Ack> {
        let largest = self.largest()?;
        let delay = self.clock.delay(now);
        let mut ack = Ack { largest, delay, bits: self.bits };
        ack.lie(self.ack_ahead);
        Some(ack)
    }

    /// What [`AckTracker::build`] returned is on its way: nobody waits any more.
    pub const fn on_ack_sent(&mut self, _now: Timestamp) {
        self.clock.on_ack_sent();
    }
}

/// Moves all bits up by `by` places; those past the end are dropped.
fn shift_up(bits: &mut [u64; ACK_WORDS], by: u64) {
    if by >= ACK_BITS {
        *bits = [0; ACK_WORDS];
        return;
    }
    let words = (by / 64) as usize;
    let shift = by % 64;
    if words > 0 {
        bits.copy_within(..ACK_WORDS - words, words);
        bits.iter_mut().take(words).for_each(|word| *word = 0);
    }
    if shift > 0 {
        let mut carry = 0;
        for word in bits {
            let next = *word >> (64 - shift);
            *word = (*word << shift) | carry;
            carry = next;
        }
    }
}

#[cfg(test)]
mod tests;
