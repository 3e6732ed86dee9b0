//! Messages that borrow from their packet: nothing is copied but numbers.

use core::fmt;
use core::marker::PhantomData;

use crate::layout::Quantity;
use crate::message::{Block, Blocks, DecodeError, Message, short_of};
use crate::wire::{Reader, Short, Tail};

/// One block that may borrow from the body.
pub trait BlockRef<'a>: Sized + Copy + PartialEq + fmt::Debug {
    /// The same without the loan.
    type Owned: Block;

    /// Reads it from the front.
    ///
    /// # Errors
    /// [`Short`] when the body ends within it.
    fn read_ref(reader: &mut Reader<'a>) -> Result<Self, Short>;

    /// Copies what is borrowed.
    fn owned(&self) -> Self::Owned;
}

/// Blocks that have nothing to borrow.
impl<'a, B: Block + Copy> BlockRef<'a> for B {
    type Owned = B;

    #[inline]
    fn read_ref(reader: &mut Reader<'a>) -> Result<Self, Short> {
        B::read(reader)
    }

    fn owned(&self) -> B {
        *self
    }
}

/// Variable blocks that stay in the body and are read one after the other.
///
/// They were read once already, so that none of them is cut.
#[derive(Clone, Copy)]
pub struct BlocksRef<'a, B> {
    bytes: &'a [u8],
    count: u8,
    kind: PhantomData<fn() -> B>,
}

impl<'a, B: BlockRef<'a>> BlocksRef<'a, B> {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Each of them, in the order of the packet.
    pub const fn iter(&self) -> BlocksIter<'a, B> {
        BlocksIter { reader: Reader::new(self.bytes), left: self.count, kind: PhantomData }
    }
}

impl<'a, B: BlockRef<'a>> IntoIterator for BlocksRef<'a, B> {
    type Item = B;
    type IntoIter = BlocksIter<'a, B>;

    fn into_iter(self) -> BlocksIter<'a, B> {
        self.iter()
    }
}

impl<'a, B: BlockRef<'a>> IntoIterator for &BlocksRef<'a, B> {
    type Item = B;
    type IntoIter = BlocksIter<'a, B>;

    fn into_iter(self) -> BlocksIter<'a, B> {
        self.iter()
    }
}

impl<'a, B: BlockRef<'a>> PartialEq for BlocksRef<'a, B> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a, B: BlockRef<'a>> fmt::Debug for BlocksRef<'a, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Reads [`BlocksRef`] one after the other.
#[derive(Clone, Debug)]
pub struct BlocksIter<'a, B> {
    reader: Reader<'a>,
    left: u8,
    kind: PhantomData<fn() -> B>,
}

impl<'a, B: BlockRef<'a>> Iterator for BlocksIter<'a, B> {
    type Item = B;

    #[inline]
    fn next(&mut self) -> Option<B> {
        self.left = self.left.checked_sub(1)?;
        B::read_ref(&mut self.reader).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.into(), Some(self.left.into()))
    }
}

impl<'a, B: BlockRef<'a>> ExactSizeIterator for BlocksIter<'a, B> {}

/// All blocks of one name, borrowed.
pub trait BlocksOf<'a>: Sized {
    /// The same without the loan.
    type Owned: Blocks;

    /// Reads them from the front.
    ///
    /// # Errors
    /// [`Short`] when the body ends within one.
    fn read_all_ref(reader: &mut Reader<'a>) -> Result<Self, Short>;

    /// Copies what is borrowed.
    fn owned_all(&self) -> Self::Owned;
}

impl<'a, B: BlockRef<'a>> BlocksOf<'a> for B {
    type Owned = B::Owned;

    #[inline]
    fn read_all_ref(reader: &mut Reader<'a>) -> Result<Self, Short> {
        B::read_ref(reader)
    }

    fn owned_all(&self) -> B::Owned {
        self.owned()
    }
}

impl<'a, B: BlockRef<'a>> BlocksOf<'a> for BlocksRef<'a, B> {
    type Owned = Vec<B::Owned>;

    #[inline]
    fn read_all_ref(reader: &mut Reader<'a>) -> Result<Self, Short> {
        const { assert!(matches!(<Vec<B::Owned> as Blocks>::QUANTITY, Quantity::Variable)) };
        let count = reader.count(B::Owned::BYTES_MIN)?;
        let from = reader.rest();
        for _ in 0..count {
            B::read_ref(reader)?;
        }
        let taken = from.len() - reader.rest().len();
        let bytes = from.get(..taken).unwrap_or_default();
        Ok(Self { bytes, count: count as u8, kind: PhantomData })
    }

    fn owned_all(&self) -> Vec<B::Owned> {
        self.iter().map(|block| block.owned()).collect()
    }
}

/// A message that borrows from its packet, or has nothing to borrow.
///
/// ```
/// use twinspan_lludp::MessageRef;
/// use twinspan_lludp::messages::PacketAckRef;
///
/// let (acks, _) = PacketAckRef::decode_ref(&[2, 5, 0, 0, 0, 6, 0, 0, 0])?;
/// assert_eq!(acks.packets.iter().map(|packet| packet.id).collect::<Vec<_>>(), [5, 6]);
/// # Ok::<(), twinspan_lludp::DecodeError>(())
/// ```
pub trait MessageRef<'a>: Sized {
    /// The same without the loan.
    type Owned: Message;

    /// Reads its blocks.
    ///
    /// # Errors
    /// [`Short`] when the body ends within one.
    fn read_ref(reader: &mut Reader<'a>) -> Result<Self, Short>;

    /// Copies what is borrowed.
    fn owned(&self) -> Self::Owned;

    /// Decodes a body, and says how it ends.
    ///
    /// # Errors
    /// [`DecodeError::Short`] names the field that is cut.
    #[inline]
    fn decode_ref(body: &'a [u8]) -> Result<(Self, Tail<'a>), DecodeError> {
        let mut reader = Reader::new(body);
        match Self::read_ref(&mut reader) {
            Ok(message) => Ok((message, reader.tail())),
            Err(Short) => Err(short_of::<Self::Owned>(body)),
        }
    }
}

/// An `AgentUpdate` has nothing to borrow.
pub type AgentUpdateRef = crate::messages::AgentUpdate;

impl<'a> MessageRef<'a> for AgentUpdateRef {
    type Owned = Self;

    #[inline]
    fn read_ref(reader: &mut Reader<'a>) -> Result<Self, Short> {
        Self::read(reader)
    }

    fn owned(&self) -> Self {
        self.clone()
    }
}
