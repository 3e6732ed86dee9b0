//! Reading and writing of bodies, with what a message must know of its end.

/// The body ends before the value does. Which value that is, is found out by walking the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short;

/// Why a message could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The message is longer than the space for it.
    #[error("the message does not fit the space for it")]
    NoRoom,
    /// More blocks than a byte can count.
    #[error("{count} blocks where 255 are the most")]
    TooManyBlocks {
        /// How many there are.
        count: usize,
    },
    /// More bytes than the length before them can tell.
    #[error("{count} bytes where {max} are the most")]
    TooManyBytes {
        /// How many there are.
        count: usize,
        /// How many the field can hold.
        max: usize,
    },
    /// A block that may be left out was, and one behind it was not.
    #[error("a block that stands before others was left out")]
    Gap,
    /// A value that the layout does not have at this place.
    #[error("a value that does not belong here; the layout has `{wanted}`")]
    Mismatch {
        /// What the layout has.
        wanted: &'static str,
    },
}

/// Reads a body from its front.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// Variable blocks that were not there at all.
    absent: u8,
}

impl<'a> Reader<'a> {
    /// Reads from the first byte.
    pub const fn new(body: &'a [u8]) -> Self {
        Self { rest: body, absent: 0 }
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`Short`] when fewer are left.
    #[inline]
    pub const fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Short> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else { return Err(Short) };
        self.rest = rest;
        Ok(head)
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`Short`] when fewer are left.
    #[inline]
    pub const fn take(&mut self, count: usize) -> Result<&'a [u8], Short> {
        let Some((head, rest)) = self.rest.split_at_checked(count) else { return Err(Short) };
        self.rest = rest;
        Ok(head)
    }

    /// The count before a variable block: 0 if the body is over, which peers with an older layout
    /// rely on.
    ///
    /// Checks that `bytes_min` bytes a block are there, so that the count can size an allocation.
    ///
    /// # Errors
    /// [`Short`] when they are not.
    //= lludp 4.3
    #[inline]
    pub const fn count(&mut self, bytes_min: usize) -> Result<usize, Short> {
        let Some((count, rest)) = self.rest.split_first() else {
            self.absent = self.absent.saturating_add(1);
            return Ok(0);
        };
        let count = *count as usize;
        if count * bytes_min > rest.len() {
            return Err(Short);
        }
        self.rest = rest;
        Ok(count)
    }

    /// What has not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// What there is to say of the end, once all blocks were read.
    pub const fn tail(&self) -> Tail<'a> {
        match (self.rest, self.absent) {
            ([], 0) => Tail::Exact,
            ([], absent) => Tail::Absent(absent),
            (rest, _) => Tail::Extra(rest),
        }
    }
}

/// How a body ended, where its sender has another layout than this library.
///
/// A message is written again to the same bytes by [`Message::encode_with`](crate::Message) with the
/// tail that it came with.
//= lludp 4.4
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tail<'a> {
    /// As the layout has it.
    #[default]
    Exact,
    /// Bytes that the layout does not have.
    Extra(&'a [u8]),
    /// So many variable blocks at the end were not there, not even as a count of 0.
    Absent(u8),
}

/// Writes a body.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
    /// Variable blocks without items, one behind the other, up to here.
    empty: u8,
    /// Whether a block was left out: then nothing may follow.
    gap: bool,
}

impl<'a> Writer<'a> {
    /// Writes from the first byte of `out`.
    pub const fn new(out: &'a mut [u8]) -> Self {
        Self { out, len: 0, empty: 0, gap: false }
    }

    /// Bytes written.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends an array.
    ///
    /// # Errors
    /// [`EncodeError::NoRoom`]
    #[inline]
    pub fn array<const N: usize>(&mut self, bytes: &[u8; N]) -> Result<(), EncodeError> {
        let space = self.out.get_mut(self.len..).and_then(<[u8]>::first_chunk_mut);
        *space.ok_or(EncodeError::NoRoom)? = *bytes;
        self.len += N;
        Ok(())
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`EncodeError::NoRoom`]
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let space = self.out.get_mut(self.len..).and_then(|space| space.get_mut(..bytes.len()));
        space.ok_or(EncodeError::NoRoom)?.copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }

    /// Appends the count before a variable block.
    ///
    /// # Errors
    /// [`EncodeError::TooManyBlocks`], [`EncodeError::NoRoom`], [`EncodeError::Gap`]
    #[inline]
    pub fn count(&mut self, count: usize) -> Result<(), EncodeError> {
        if self.gap {
            // Where a block is left out, so are empty ones behind it, to their count.
            return if count == 0 { Ok(()) } else { Err(EncodeError::Gap) };
        }
        let byte = u8::try_from(count).map_err(|_| EncodeError::TooManyBlocks { count })?;
        self.array(&[byte])?;
        self.empty = if count == 0 { self.empty + 1 } else { 0 };
        Ok(())
    }

    /// Says that a block follows that is not variable.
    ///
    /// # Errors
    /// [`EncodeError::Gap`]
    #[inline]
    pub const fn fixed_block(&mut self) -> Result<(), EncodeError> {
        self.empty = 0;
        if self.gap { Err(EncodeError::Gap) } else { Ok(()) }
    }

    /// Says that a block is left out.
    pub const fn leave_out(&mut self) {
        self.empty = 0;
        self.gap = true;
    }

    /// Ends the body as its sender had it. Blocks that were absent and have items now stay.
    ///
    /// # Errors
    /// [`EncodeError::NoRoom`]
    pub fn end(&mut self, tail: Tail<'_>) -> Result<(), EncodeError> {
        match tail {
            Tail::Exact => Ok(()),
            Tail::Extra(bytes) => self.put(bytes),
            Tail::Absent(absent) => {
                // An empty block is its count alone.
                self.len -= usize::from(absent.min(self.empty));
                Ok(())
            }
        }
    }
}
