//! Whole packets from messages.

use crate::frame::{Flags, HEADER_BYTES, PAYLOAD_BYTES_MAX, Sequence, WriteError, ZeroCoding};
use crate::frame::{write_head, write_packet};
use crate::message::Message;
use crate::messages::AnyMessage;
use crate::number::MessageId;
use crate::wire::EncodeError;

/// Writes messages as packets. Holds the space that zero-coding takes, and allocates nothing after.
///
/// ```
/// use twinspan_lludp::messages::CompletePingCheck;
/// use twinspan_lludp::{Encoder, Flags, Sequence};
///
/// let mut encoder = Encoder::default();
/// let mut out = [0; 1_200];
/// let pong = CompletePingCheck::default();
/// let len = encoder.packet(&mut out, Flags::NONE, Sequence(9), &pong)?;
/// assert_eq!(out[..len], [0, 0, 0, 0, 9, 0, 2, 0]);
/// # Ok::<(), twinspan_lludp::WriteError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Encoder {
    space: Box<[u8; PAYLOAD_BYTES_MAX]>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { space: Box::new([0; PAYLOAD_BYTES_MAX]) }
    }
}

impl Encoder {
    /// Writes a packet with this message and returns its length. It is zero-coded if the message
    /// asks for it and that makes it shorter. Acks are appended by
    /// [`append_acks`](crate::append_acks).
    ///
    /// # Errors
    /// [`WriteError::NoRoom`], [`WriteError::Message`]
    //= lludp 3.3
    #[inline]
    pub fn packet<M: Message>(
        &mut self,
        out: &mut [u8],
        flags: Flags,
        sequence: Sequence,
        message: &M,
    ) -> Result<usize, WriteError> {
        let body = |out: &mut [u8]| message.encode(out);
        self.write(out, flags, sequence, M::ID, M::ZERO_CODED, &body)
    }

    /// Writes a packet as [`packet`](Self::packet) does.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`], [`WriteError::Message`]
    pub fn any(
        &mut self,
        out: &mut [u8],
        flags: Flags,
        sequence: Sequence,
        message: &AnyMessage,
    ) -> Result<usize, WriteError> {
        let body = |out: &mut [u8]| message.encode(out);
        let zero_coded = message.layout().zero_coded;
        self.write(out, flags, sequence, message.id(), zero_coded, &body)
    }

    #[inline]
    fn write(
        &mut self,
        out: &mut [u8],
        flags: Flags,
        sequence: Sequence,
        id: MessageId,
        zero_coded: bool,
        body: &dyn Fn(&mut [u8]) -> Result<usize, EncodeError>,
    ) -> Result<usize, WriteError> {
        if zero_coded {
            let len = payload(self.space.as_mut_slice(), id, body)?;
            let plain = self.space.get(..len).unwrap_or_default();
            return write_packet(out, flags, sequence, 0, plain, ZeroCoding::IfShorter);
        }
        let rest = write_head(out, flags.without(Flags::ZERO_CODED), sequence, 0)?;
        Ok(HEADER_BYTES + payload(rest, id, body)?)
    }
}

/// Writes number and body, and returns their length.
#[inline]
fn payload(
    out: &mut [u8],
    id: MessageId,
    body: &dyn Fn(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<usize, WriteError> {
    let no_room = WriteError::NoRoom { room: out.len() };
    let (number, rest) = out.split_at_mut_checked(id.wire_bytes()).ok_or(no_room)?;
    for (place, byte) in number.iter_mut().rev().zip(id.to_bytes().iter().rev()) {
        *place = *byte;
    }
    match body(rest) {
        Ok(len) => Ok(id.wire_bytes() + len),
        Err(EncodeError::NoRoom) => Err(no_room),
        Err(error) => Err(WriteError::Message(error)),
    }
}
