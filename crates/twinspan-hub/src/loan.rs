//! Values in shared memory: written where subscribers read them, and read where publishers wrote
//! them.

use std::fmt;
use std::ops::{Deref, DerefMut};

use twinspan_net::lock;
use twinspan_net::shm::{Block, Got, Held, INLINE_BYTES_MAX, Room};

use crate::error::{PublishError, RecvError};
use crate::hub::{Hub, Receiving, Sending};
use crate::payload::{Bytes, Payload, Plain};
use crate::side::Outlet;

enum Place<T> {
    /// In a block of shared memory.
    Block(Block),
    /// Beside it, for values that lie in their slots; `None` once it was published.
    Own(Option<Box<T>>),
}

/// A value that is filled before it is published. Values longer than 4,096 bytes lie in shared
/// memory and are published without a copy; shorter ones are copied to their slots.
///
/// What it holds at first is left over from an earlier message. Dropped, it is not published.
pub struct Loan<'a, T: Payload + Plain> {
    hub: &'a Hub<T>,
    place: Place<T>,
}

impl<T: Payload + Plain> Hub<T> {
    /// A value to be filled and published.
    ///
    /// # Errors
    /// [`PublishError`] says why there is no memory for it.
    pub fn loan(&self) -> Result<Loan<'_, T>, PublishError> {
        let mut sending = lock(self.sending()?);
        let block = match &mut sending.outlet {
            Outlet::Memory(publisher) if size_of::<T>() > INLINE_BYTES_MAX => {
                Some(publisher.loan(size_of::<T>())?)
            }
            _ => None,
        };
        let place = if let Some(block) = block {
            Place::Block(block)
        } else {
            let spare = sending.spare.take();
            Place::Own(Some(spare.unwrap_or_else(|| Box::new(T::new_zeroed()))))
        };
        Ok(Loan { hub: self, place })
    }

    /// Receives a value where its publisher wrote it, waiting for one: no copy for values longer than
    /// 4,096 bytes, which their publisher keeps for as long as the sample lives. Up to 15 can be held.
    ///
    /// # Errors
    /// [`RecvError`] says why there is none.
    pub fn recv_sample(&self) -> Result<Sample<T>, RecvError> {
        let mut side = lock(self.receiving().ok_or(RecvError::NoSubscriber)?);
        let Receiving { inlet, inbox } = &mut *side;
        loop {
            let got = inlet.get(inbox);
            if let Some(got) = got {
                return sample(got?, inbox);
            }
        }
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// [`RecvError`] says why a value that is there cannot be had.
    pub fn try_recv_sample(&self) -> Result<Option<Sample<T>>, RecvError> {
        let side = self.receiving().ok_or(RecvError::NoSubscriber)?;
        let Ok(mut side) = side.try_lock() else { return Ok(None) };
        let Receiving { inlet, inbox } = &mut *side;
        inlet.try_get(inbox)?.map(|got| sample(got, inbox)).transpose()
    }
}

fn sample<T: Payload + Plain>(
    got: Got,
    inbox: &mut <T as Payload>::Inbox,
) -> Result<Sample<T>, RecvError> {
    Ok(match got {
        // One of another length has no value in it: what is read then is the copy's error.
        Got::Held(_, held) if T::ref_from_bytes(held.bytes()).is_ok() => Sample(Kept::Held(held)),
        Got::Held(_, held) => {
            if let Some(room) = inbox.room(held.bytes().len()) {
                room.copy_from_slice(held.bytes());
            }
            Sample(Kept::Own(Box::new(T::decode(inbox)?)))
        }
        Got::Copied(_) => Sample(Kept::Own(Box::new(T::decode(inbox)?))),
    })
}

impl<T: Payload + Plain> Loan<'_, T> {
    /// Publishes the value and returns its number.
    ///
    /// # Errors
    /// [`PublishError`] says why nobody gets it.
    pub fn publish(mut self) -> Result<u64, PublishError> {
        let mut sending = lock(self.hub.sending()?);
        let Sending { outlet, spare, .. } = &mut *sending;
        match std::mem::replace(&mut self.place, Place::Own(None)) {
            Place::Block(block) => outlet.publish_block(block),
            Place::Own(None) => Ok(outlet.next_number()),
            Place::Own(Some(value)) => {
                let published = outlet.publish(value.as_bytes());
                *spare = Some(value);
                published
            }
        }
    }
}

#[expect(clippy::expect_used, reason = "the block was made for a T: length and alignment are its")]
impl<T: Payload + Plain> Deref for Loan<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.place {
            Place::Block(block) => T::ref_from_bytes(block).expect("a block holds a T"),
            Place::Own(value) => value.as_deref().expect("only publishing takes it"),
        }
    }
}

#[expect(clippy::expect_used, reason = "the block was made for a T: length and alignment are its")]
impl<T: Payload + Plain> DerefMut for Loan<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.place {
            Place::Block(block) => T::mut_from_bytes(block).expect("a block holds a T"),
            Place::Own(value) => value.as_deref_mut().expect("only publishing takes it"),
        }
    }
}

impl<T: Payload + Plain> Drop for Loan<'_, T> {
    fn drop(&mut self) {
        if let (Place::Own(Some(_)), Ok(sending)) = (&self.place, self.hub.sending())
            && let Place::Own(value) = &mut self.place
            && let Ok(mut sending) = sending.try_lock()
        {
            sending.spare = value.take();
        }
    }
}

impl<T: Payload + Plain> fmt::Debug for Loan<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan").finish_non_exhaustive()
    }
}

enum Kept<T> {
    Held(Held),
    Own(Box<T>),
}

/// A value that was received. One longer than 4,096 bytes lies in shared memory: its publisher,
/// which is a process of the same user or group, does not change it while it is held, unless it
/// breaks the protocol; who does not trust it copies first and then looks.
pub struct Sample<T>(Kept<T>);

impl<T: Plain> Deref for Sample<T> {
    type Target = T;

    #[expect(clippy::expect_used, reason = "it was looked at when the sample was made")]
    fn deref(&self) -> &T {
        match &self.0 {
            Kept::Held(held) => T::ref_from_bytes(held.bytes()).expect("it is one"),
            Kept::Own(value) => value,
        }
    }
}

impl<T> Sample<T> {
    /// Whether the value lies in shared memory.
    pub const fn is_shared(&self) -> bool {
        matches!(self.0, Kept::Held(_))
    }
}

impl<T> fmt::Debug for Sample<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sample").field("is_shared", &self.is_shared()).finish()
    }
}

enum BytesPlace {
    Block(Block),
    Own(Vec<u8>),
}

/// Bytes that are filled before they are published, in shared memory where they do not fit a slot.
///
/// What they hold at first is left over from an earlier message.
pub struct BytesLoan<'a> {
    hub: &'a Hub<Bytes>,
    place: BytesPlace,
}

impl Hub<Bytes> {
    /// `length` bytes to be filled and published.
    ///
    /// # Errors
    /// [`PublishError`] says why there is no memory for them.
    pub fn loan_bytes(&self, length: usize) -> Result<BytesLoan<'_>, PublishError> {
        let mut sending = lock(self.sending()?);
        let block = match &mut sending.outlet {
            Outlet::Memory(publisher) if length > publisher.geometry().inline_bytes() => {
                Some(publisher.loan(length)?)
            }
            _ => None,
        };
        let place = if let Some(block) = block {
            BytesPlace::Block(block)
        } else {
            let mut bytes = std::mem::take(&mut sending.spare_bytes);
            bytes.resize(length, 0);
            BytesPlace::Own(bytes)
        };
        Ok(BytesLoan { hub: self, place })
    }

    /// Publishes bytes that are nobody's `Bytes`.
    ///
    /// # Errors
    /// [`PublishError`] says why nobody gets them.
    pub fn publish_bytes(&self, bytes: &[u8]) -> Result<u64, PublishError> {
        lock(self.sending()?).outlet.publish(bytes)
    }

    /// Receives bytes where their publisher wrote them, waiting for some: no copy where they did not
    /// fit a slot. Up to 15 messages can be held.
    ///
    /// # Errors
    /// [`RecvError`] says why there are none.
    pub fn recv_bytes(&self) -> Result<BytesSample, RecvError> {
        let mut side = lock(self.receiving().ok_or(RecvError::NoSubscriber)?);
        let Receiving { inlet, inbox } = &mut *side;
        loop {
            let got = inlet.get(inbox);
            match got.transpose()? {
                Some(Got::Held(_, held)) => return Ok(BytesSample(BytesKept::Held(held))),
                Some(Got::Copied(_)) => {
                    return Ok(BytesSample(BytesKept::Own(std::mem::take(inbox))));
                }
                None => {}
            }
        }
    }
}

impl BytesLoan<'_> {
    /// Publishes the bytes and returns their number.
    ///
    /// # Errors
    /// [`PublishError`] says why nobody gets them.
    pub fn publish(self) -> Result<u64, PublishError> {
        let mut sending = lock(self.hub.sending()?);
        match self.place {
            BytesPlace::Block(block) => sending.outlet.publish_block(block),
            BytesPlace::Own(bytes) => {
                let published = sending.outlet.publish(&bytes);
                sending.spare_bytes = bytes;
                published
            }
        }
    }
}

impl Deref for BytesLoan<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.place {
            BytesPlace::Block(block) => block,
            BytesPlace::Own(bytes) => bytes,
        }
    }
}

impl DerefMut for BytesLoan<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.place {
            BytesPlace::Block(block) => block,
            BytesPlace::Own(bytes) => bytes,
        }
    }
}

impl fmt::Debug for BytesLoan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BytesLoan").field("len", &self.len()).finish_non_exhaustive()
    }
}

enum BytesKept {
    Held(Held),
    Own(Vec<u8>),
}

/// Bytes that were received, in shared memory where they did not fit a slot; see [`Sample`].
pub struct BytesSample(BytesKept);

impl Deref for BytesSample {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            BytesKept::Held(held) => held.bytes(),
            BytesKept::Own(bytes) => bytes,
        }
    }
}

impl fmt::Debug for BytesSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BytesSample").field("len", &self.len()).finish()
    }
}
