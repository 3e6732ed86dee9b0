//! Messages of the bulk stream, compressed where that makes them shorter: session 6.8.

use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};
use twinspan_core::bytes::{Reader, Writer};
use twinspan_reliable::{Channel, StreamId};

use crate::frames::Violation;

/// Shorter messages are not compressed: there is next to nothing to gain.
const COMPRESSED_FROM: usize = 64;
/// Bytes that one byte of an LZ4 block can stand for at most; so much more is a lie.
const RATIO_MAX: usize = 255;
/// Room that is kept from one message to the next.
const KEPT_BYTES: usize = 8_192;
/// Bytes of the longest prefix: a length of at most 65,536.
const PREFIX_BYTES_MAX: usize = 3;

/// Whether messages of the channel are of the bulk stream.
pub(crate) fn is_bulk(channel: Channel) -> bool {
    channel.stream == StreamId::BULK
}

/// Buffers that grow to the longest message and shrink again.
#[derive(Debug, Default)]
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    /// Lends what a bulk message is on the wire.
    pub(crate) fn pack<T>(&mut self, message: &[u8], lend: impl FnOnce(&[u8]) -> T) -> T {
        let out = &mut self.0;
        out.clear();
        if message.len() >= COMPRESSED_FROM {
            out.resize(PREFIX_BYTES_MAX + get_maximum_output_size(message.len()), 0);
            let mut writer = Writer::new(out.as_mut_slice());
            let prefix = writer.varint(message.len() as u64).map(|()| writer.len());
            if let Ok(prefix) = prefix
                && let Some(room) = out.get_mut(prefix..)
                && let Ok(len) = compress_into(message, room)
                && prefix + len <= message.len()
            {
                out.truncate(prefix + len);
                return self.lend(lend);
            }
        }
        out.clear();
        out.push(0);
        out.extend_from_slice(message);
        self.lend(lend)
    }

    fn lend<T>(&mut self, lend: impl FnOnce(&[u8]) -> T) -> T {
        let done = lend(&self.0);
        if self.0.capacity() > KEPT_BYTES {
            self.0 = Vec::new();
        }
        done
    }

    /// Lends the message that `bytes` are on the wire; it has at most `max` bytes.
    pub(crate) fn unpack(
        &mut self,
        bytes: &[u8],
        max: usize,
        lend: impl FnOnce(&[u8]),
    ) -> Result<(), Violation> {
        let mut reader = Reader::new(bytes);
        let len = usize::try_from(reader.varint()?).map_err(|_| Violation)?;
        let packed = reader.rest();
        if len == 0 {
            lend(packed);
            return Ok(());
        }
        if len > max || len > packed.len().saturating_mul(RATIO_MAX) {
            return Err(Violation);
        }
        self.0.clear();
        self.0.resize(len, 0);
        if decompress_into(packed, &mut self.0).ok() != Some(len) {
            return Err(Violation);
        }
        self.lend(lend);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packed(message: &[u8]) -> Vec<u8> {
        Scratch::default().pack(message, <[u8]>::to_vec)
    }

    fn unpacked(bytes: &[u8], max: usize) -> Result<Vec<u8>, Violation> {
        let mut got = Vec::new();
        Scratch::default().unpack(bytes, max, |message| got = message.to_vec()).map(|()| got)
    }

    #[test]
    fn bulk_messages_have_their_golden_bytes() {
        assert_eq!(packed(b"short"), b"\0short");
        assert_eq!(packed(b""), b"\0");
        assert!(packed(&[b'a'; 100]).len() < 20, "another encoder may choose other matches");
        // Raw length 100; a literal, a match of 94 at distance 1, five literals.
        let expected = [100, 0x1f, b'a', 1, 0, 75, 0x50, b'a', b'a', b'a', b'a', b'a'];
        assert_eq!(unpacked(&expected, 100), Ok(vec![b'a'; 100]));
        assert_eq!(unpacked(&expected, 99), Err(Violation), "the bound holds");
    }

    #[test]
    fn what_does_not_shrink_travels_as_it_is() {
        let noise: Vec<u8> =
            (0..1_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert!(packed(&noise).len() <= 1_001);
        assert_eq!(unpacked(&packed(&noise), 1_000), Ok(noise));
    }

    #[test]
    fn a_length_that_the_bytes_cannot_hold_is_refused_before_memory_is_taken() {
        let mut scratch = Scratch::default();
        let mut lie = vec![0x80, 0x80, 0x04];
        lie.extend([0; 200]);
        assert_eq!(scratch.unpack(&lie, 65_536, |_| panic!("lent")), Err(Violation));
        assert_eq!(scratch.0.capacity(), 0);
    }

    #[test]
    fn room_for_long_messages_is_given_back() {
        let mut scratch = Scratch::default();
        let message = vec![7; 65_000];
        let bytes = scratch.pack(&message, <[u8]>::to_vec);
        scratch.unpack(&bytes, 65_536, |got| assert_eq!(got, message)).unwrap();
        assert_eq!(scratch.0.capacity(), 0);
    }

    proptest! {
        #[test]
        fn a_message_comes_back(
            message in prop::collection::vec(0_u8..4, 0..3_000), max in 0_usize..4_000,
        ) {
            let result = unpacked(&packed(&message), max);
            if packed(&message)[0] == 0 || message.len() <= max {
                prop_assert_eq!(result, Ok(message));
            } else {
                prop_assert_eq!(result, Err(Violation));
            }
        }

        #[test]
        fn any_bytes_unpack_within_the_bound_or_are_a_violation(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Ok(message) = unpacked(&bytes, 1_000) {
                prop_assert!(message.len() <= 1_000);
            }
        }
    }
}
