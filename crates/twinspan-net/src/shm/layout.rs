//! Where things lie in segments: heads that any bytes may stand in for, and what is computed from a
//! good one.
//!
//! //= hub 2

use super::line::NUMBER_MAX;
use super::map::SEGMENT_BYTES_MAX;

/// The first word of every segment, "TWINHUB1" in memory.
const MAGIC: u64 = u64::from_le_bytes(*b"TWINHUB1");
/// The version of the layout that this program speaks.
pub const LAYOUT_VERSION: u32 = 2;
/// Words of a head that carry something.
pub(super) const HEAD_WORDS: usize = 8;
/// Bytes before the slots.
const SLOTS_AT: usize = 4_096;
const PAGE: usize = 4_096;

/// The word of a publisher's segment that counts its messages.
pub(super) const PUBLISHED_AT: usize = 64;
/// The word of a publisher's segment that says that it sleeps until there is room.
pub(super) const WAITING_AT: usize = 80;
/// The word of a subscriber's segment that says that it sleeps.
pub(super) const NAP_AT: usize = 64;
/// The word of a subscriber's segment, in the same line, that asks publishers for a fence behind each
/// message.
pub(super) const ASKS_AT: usize = 65;
/// The first of the words of a subscriber's segment that say which message it wants next, one line
/// for each publisher.
pub(super) const CURSORS_AT: usize = 512;
/// The first of the words of a subscriber's segment that name blocks in use.
pub(super) const HOLDS_AT: usize = 1_024;
/// Words of a subscriber's segment.
pub(super) const SUBSCRIBER_WORDS: usize = 1_536;

/// Publishers that one subscriber hears at most, and subscribers that one publisher has at most.
pub const PEERS_MAX: usize = 64;
/// Blocks that one subscriber holds at a time at most.
pub const HOLDS_MAX: usize = 16;
/// Bytes of a slot before the payload: its state, and what the payload is.
pub(super) const SLOT_HEAD_WORDS: usize = 2;
/// The most bytes of a message that lies in its slot.
pub const INLINE_BYTES_MAX: usize = 4_096;
/// The most messages that a publisher's ring holds.
pub const SLOTS_MAX: u32 = 65_536;
/// The most blocks of a publisher's pool.
pub const BLOCKS_MAX: u32 = 64;
/// The longest message.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;

const LINE: usize = 64;
const SLOT_BYTES_MAX: u32 =
    ((SLOT_HEAD_WORDS * 8 + INLINE_BYTES_MAX).next_multiple_of(LINE)) as u32;

const _: () = assert!(CURSORS_AT + PEERS_MAX * 8 <= HOLDS_AT);
const _: () = assert!(HOLDS_AT + HOLDS_MAX <= SUBSCRIBER_WORDS);
const _: () = assert!(SLOTS_MAX.is_power_of_two() && (SLOTS_MAX as u64) < NUMBER_MAX);

/// What is wrong with the head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// It is no segment of this project.
    #[error("the memory is no segment of a hub")]
    Magic,
    /// It has another version.
    #[error("the segment has layout {0}, this program {LAYOUT_VERSION}: use one version")]
    Version(u32),
    /// A publisher's stands where a subscriber's is expected, or the other way round.
    #[error("the segment is of another kind")]
    Kind,
    /// A size is outside its limits, or the sizes do not add up.
    #[error("the segment's sizes are impossible")]
    Sizes,
}

/// The sizes of a publisher's segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    slots: u32,
    slot_bytes: u32,
    blocks: u32,
    block_bytes: u32,
    identity: u64,
}

impl Geometry {
    /// Sizes for messages of up to `message_bytes`, `slots` of them (rounded up to a power of two),
    /// with `blocks` for those that do not lie in their slots. `None` outside the limits.
    ///
    /// Every message lies in its slot when the longest one is at most [`INLINE_BYTES_MAX`];
    /// otherwise those of up to `inline_bytes` do.
    pub fn new(
        message_bytes: usize,
        inline_bytes: usize,
        slots: u32,
        blocks: u32,
        identity: u64,
    ) -> Option<Self> {
        let is_inline = message_bytes <= INLINE_BYTES_MAX;
        let inline = if is_inline { message_bytes } else { inline_bytes.min(INLINE_BYTES_MAX) };
        let slot_bytes = (SLOT_HEAD_WORDS * 8 + inline).next_multiple_of(LINE);
        if message_bytes > MESSAGE_BYTES_MAX || slots > SLOTS_MAX {
            return None;
        }
        let block_bytes = if is_inline { 0 } else { message_bytes.next_multiple_of(PAGE) };
        let geometry = Self {
            slots: slots.next_power_of_two().max(2),
            slot_bytes: u32::try_from(slot_bytes).ok()?,
            blocks: if is_inline { 0 } else { blocks },
            block_bytes: u32::try_from(block_bytes).ok()?,
            identity,
        };
        geometry.is_possible().then_some(geometry)
    }

    fn is_possible(&self) -> bool {
        let is_pool = if self.blocks == 0 {
            self.block_bytes == 0
        } else {
            self.blocks <= BLOCKS_MAX
                && self.block_bytes > 0
                && (self.block_bytes as usize).is_multiple_of(PAGE)
                && self.block_bytes as usize <= MESSAGE_BYTES_MAX
        };
        is_pool
            && self.slots.is_power_of_two()
            && (2..=SLOTS_MAX).contains(&self.slots)
            && (LINE as u32..=SLOT_BYTES_MAX).contains(&self.slot_bytes)
            && (self.slot_bytes as usize).is_multiple_of(LINE)
            && self.bytes() <= SEGMENT_BYTES_MAX
    }

    /// The head of a segment of these sizes.
    pub fn to_words(&self) -> [u64; HEAD_WORDS] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        [
            MAGIC,
            pair(LAYOUT_VERSION, 1),
            self.bytes() as u64,
            pair(self.slots, self.slot_bytes),
            pair(self.blocks, self.block_bytes),
            self.identity,
            0,
            0,
        ]
    }

    /// Reads the head of a publisher's segment of `bytes`.
    ///
    /// # Errors
    /// [`LayoutError`] says what is wrong with it.
    pub fn parse(head: [u64; HEAD_WORDS], bytes: u64) -> Result<Self, LayoutError> {
        let [_, _, total, ring, pool, identity, ..] = check(head, 1)?;
        let (slots, slot_bytes) = (ring as u32, (ring >> 32) as u32);
        let (blocks, block_bytes) = (pool as u32, (pool >> 32) as u32);
        let geometry = Self { slots, slot_bytes, blocks, block_bytes, identity };
        let fits = geometry.is_possible() && total == bytes && geometry.bytes() as u64 == bytes;
        if fits { Ok(geometry) } else { Err(LayoutError::Sizes) }
    }

    /// Messages that the ring holds, a power of two.
    pub const fn slots(&self) -> u64 {
        self.slots as u64
    }

    /// Bytes of a message that fit its slot.
    pub const fn inline_bytes(&self) -> usize {
        self.slot_bytes as usize - SLOT_HEAD_WORDS * 8
    }

    /// Blocks of the pool.
    pub const fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Bytes of a block.
    pub const fn block_bytes(&self) -> usize {
        self.block_bytes as usize
    }

    /// A number that stands for the type of the messages.
    pub const fn identity(&self) -> u64 {
        self.identity
    }

    /// The longest message.
    pub const fn message_bytes(&self) -> usize {
        if self.blocks == 0 { self.inline_bytes() } else { self.block_bytes() }
    }

    /// The words of the segment before its pool.
    pub(super) const fn words(&self) -> usize {
        (SLOTS_AT + self.slots as usize * self.slot_bytes as usize) / 8
    }

    /// The first word of the slot of message `number`, and how many there are.
    #[inline]
    pub(super) const fn slot(&self, number: u64) -> (usize, usize) {
        let index = (number & (self.slots as u64 - 1)) as usize;
        let words = self.slot_bytes as usize / 8;
        (SLOTS_AT / 8 + index * words, words)
    }

    /// Where a block begins; `None` when there is no such block.
    pub(super) const fn block(&self, index: u32) -> Option<usize> {
        if index >= self.blocks {
            return None;
        }
        Some(self.pool_at() + index as usize * self.block_bytes as usize)
    }

    const fn pool_at(&self) -> usize {
        (self.words() * 8).next_multiple_of(PAGE)
    }

    /// Bytes of the whole segment.
    pub const fn bytes(&self) -> usize {
        // At most 65,536 slots of 4,160 bytes and 64 blocks of 256 MiB: no overflow of 64 bits.
        (self.pool_at() + self.blocks as usize * self.block_bytes as usize).next_multiple_of(PAGE)
    }
}

/// The head of a subscriber's segment.
pub(super) const fn subscriber_head() -> [u64; HEAD_WORDS] {
    let counts = PEERS_MAX as u64 | (HOLDS_MAX as u64) << 32;
    let kind = LAYOUT_VERSION as u64 | 2 << 32;
    [MAGIC, kind, SUBSCRIBER_WORDS as u64 * 8, counts, 0, 0, 0, 0]
}

/// Checks the head of a subscriber's segment.
///
/// # Errors
/// [`LayoutError`] says what is wrong with it.
pub(super) fn check_subscriber(head: [u64; HEAD_WORDS]) -> Result<(), LayoutError> {
    let head = check(head, 2)?;
    if head == subscriber_head() { Ok(()) } else { Err(LayoutError::Sizes) }
}

fn check(head: [u64; HEAD_WORDS], kind: u32) -> Result<[u64; HEAD_WORDS], LayoutError> {
    let [magic, version, ..] = head;
    if magic != MAGIC {
        return Err(LayoutError::Magic);
    }
    if version as u32 != LAYOUT_VERSION {
        return Err(LayoutError::Version(version as u32));
    }
    if (version >> 32) as u32 != kind {
        return Err(LayoutError::Kind);
    }
    Ok(head)
}

/// What the second word of a slot says: how long the payload is, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// In the slot.
    Inline { length: usize },
    /// In a block, whose index is the word behind.
    Pooled { length: usize },
}

const POOLED: u64 = 1 << 32;

impl Content {
    pub(super) const fn to_word(self) -> u64 {
        match self {
            Self::Inline { length } => length as u64,
            Self::Pooled { length } => length as u64 | POOLED,
        }
    }

    /// Bytes of the message.
    pub(super) const fn length(self) -> usize {
        match self {
            Self::Inline { length } | Self::Pooled { length } => length,
        }
    }

    /// `None` for what no publisher of these sizes writes.
    pub(super) fn parse(word: u64, geometry: &Geometry) -> Option<Self> {
        let length = word as u32 as usize;
        match word >> 32 {
            0 if length <= geometry.inline_bytes() => Some(Self::Inline { length }),
            1 if length <= geometry.block_bytes() => Some(Self::Pooled { length }),
            _ => None,
        }
    }
}

/// Any bytes are the head of a segment or name a reason; of a good one every place lies inside.
pub fn fuzz(data: &[u8]) -> String {
    let (chunks, _) = data.as_chunks::<8>();
    let mut words = chunks.iter().map(|chunk| u64::from_le_bytes(*chunk));
    let mut head = [0; HEAD_WORDS];
    for (to, from) in head.iter_mut().zip(&mut words) {
        *to = from;
    }
    let announced = words.next().unwrap_or(head[2]);
    let subscriber = check_subscriber(head);
    let result = Geometry::parse(head, announced);
    if let Ok(geometry) = &result {
        assert_eq!(geometry.to_words()[..6], head[..6], "what was read is not what is written");
        for number in [0, 1, geometry.slots(), u64::MAX] {
            let (first, count) = geometry.slot(number);
            assert!(first + count <= geometry.words(), "a slot outside the ring");
        }
        for index in [0, 1, BLOCKS_MAX, u32::MAX] {
            let inside = |at| at + geometry.block_bytes() <= geometry.bytes();
            assert!(geometry.block(index).is_none_or(inside), "a block outside the segment");
        }
        for word in words {
            if let Some(Content::Inline { length }) = Content::parse(word, geometry) {
                assert!(length <= geometry.inline_bytes(), "a payload longer than its slot");
            }
        }
    }
    format!("{result:?} {subscriber:?}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_head_has_its_golden_words() {
        let geometry = Geometry::new(48, 240, 256, 8, 0xabcd).unwrap();
        let head = geometry.to_words();
        assert_eq!(head[0].to_le_bytes(), *b"TWINHUB1");
        assert_eq!(head[1], 0x0000_0001_0000_0002);
        assert_eq!(head[2], 4_096 + 256 * 64);
        assert_eq!(head[3], 64 << 32 | 256);
        assert_eq!(head[4..], [0, 0xabcd, 0, 0]);
        assert_eq!(Geometry::parse(head, head[2]), Ok(geometry));
        let large = Geometry::new(1 << 20, 240, 100, 8, 1).unwrap();
        assert_eq!((large.slots(), large.inline_bytes(), large.blocks()), (128, 240, 8));
        assert_eq!(large.to_words()[4], (1 << 20) << 32 | 8);
        assert_eq!(large.bytes(), (4_096 + 128 * 256 + (8 << 20)));
        assert_eq!(large.block(7).map(|at| at + (1 << 20)), Some(large.bytes()));
        assert_eq!(large.block(8), None);
        assert_eq!(check_subscriber(subscriber_head()), Ok(()));
    }

    #[test]
    fn sizes_outside_their_limits_are_none() {
        assert_eq!(Geometry::new(MESSAGE_BYTES_MAX + 1, 0, 2, 2, 0), None);
        assert_eq!(Geometry::new(8, 0, SLOTS_MAX + 1, 0, 0), None);
        assert_eq!(Geometry::new(8_192, 48, 8, BLOCKS_MAX + 1, 0), None);
        assert_eq!(Geometry::new(MESSAGE_BYTES_MAX, 48, 8, 64, 0), None, "over a gigabyte");
        assert_eq!(Geometry::new(0, 0, 0, 0, 0).map(|least| least.slots()), Some(2));
    }

    #[test]
    fn a_head_that_differs_anywhere_is_refused_with_its_reason() {
        let geometry = Geometry::new(8_192, 240, 64, 4, 9).unwrap();
        let (head, bytes) = (geometry.to_words(), geometry.bytes() as u64);
        for (at, value, error) in [
            (0, 0, LayoutError::Magic),
            (1, 1 | 1 << 32, LayoutError::Version(1)),
            (1, 2 | 2 << 32, LayoutError::Kind),
            (2, bytes + 4_096, LayoutError::Sizes),
            (3, 63 | 256 << 32, LayoutError::Sizes),
            (3, 64 | 257 << 32, LayoutError::Sizes),
            (4, 65 | 8_192 << 32, LayoutError::Sizes),
            (4, 4 | 8_193 << 32, LayoutError::Sizes),
            (4, 4, LayoutError::Sizes),
        ] {
            let mut wrong = head;
            wrong[at] = value;
            assert_eq!(Geometry::parse(wrong, bytes), Err(error), "word {at}");
        }
        assert_eq!(Geometry::parse(head, bytes + 1), Err(LayoutError::Sizes));
        let mut wrong = subscriber_head();
        wrong[3] += 1;
        assert_eq!(check_subscriber(wrong), Err(LayoutError::Sizes));
    }

    #[test]
    fn a_payload_longer_than_its_place_is_none() {
        let geometry = Geometry::new(8_192, 240, 64, 4, 9).unwrap();
        for content in [Content::Inline { length: 240 }, Content::Pooled { length: 8_192 }] {
            assert_eq!(Content::parse(content.to_word(), &geometry), Some(content));
        }
        for word in [241, POOLED | 8_193, 2 << 32, u64::MAX] {
            assert_eq!(Content::parse(word, &geometry), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_head_or_name_a_reason(
            mut data in prop::collection::vec(any::<u8>(), 0..120),
            sizes in (0_usize..70_000, 0_usize..300, 2_u32..5_000, 1_u32..70),
            good in 0_usize..9,
        ) {
            if let Some(geometry) = Geometry::new(sizes.0, sizes.1, sizes.2, sizes.3, 7) {
                let head = geometry.to_words();
                let mut bytes: Vec<u8> = head.iter().flat_map(|word| word.to_le_bytes()).collect();
                bytes.truncate(good * 8);
                bytes.append(&mut data);
                data = bytes;
            }
            fuzz(&data);
        }
    }
}
