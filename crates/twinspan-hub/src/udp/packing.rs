//! Messages of a datagram road that are packed where that pays, each behind a byte that says how.
//!
//! //= hub 10.4

use twinspan_topic::{Compressions, Greeting, Refusal, Room, copy_to};

use crate::compress::{
    CompressionError, CompressionStats, Packer, Packs, Stopwatch, Unpacker, Unpacks,
};
use crate::report::Compression;

/// In front of a message that is as it was. A packed one begins with its codec, which is never this.
const PLAIN: u8 = 0;

/// What packs the messages of a road, and undoes what others packed.
#[derive(Debug)]
pub(crate) struct Packing {
    packer: Packer,
    unpacker: Unpacker,
    unpacks: Unpacks,
    message_bytes_max: usize,
    /// A message behind its byte.
    framed: Vec<u8>,
}

impl Packing {
    /// # Errors
    /// [`CompressionError`] where codec and dictionary do not fit.
    pub(crate) fn new(
        compression: Compression,
        dictionary: Option<&[u8]>,
        stopwatch: Stopwatch,
        message_bytes_max: usize,
    ) -> Result<Self, CompressionError> {
        Ok(Self {
            packer: Packer::new(compression, dictionary, stopwatch)?,
            unpacker: Unpacker::new(dictionary),
            unpacks: Unpacks::ours(dictionary),
            message_bytes_max,
            framed: Vec::new(),
        })
    }

    /// Says in a greeting what is packed and undone.
    pub(crate) fn greet(&self, greeting: &mut Greeting) {
        greeting.compressions = Compressions(self.unpacks.codecs);
        greeting.dictionary = self.unpacks.dictionary;
        greeting.packs = match self.packer.packs() {
            Packs::Nothing => Compressions::NONE,
            Packs::Lz4 => Compressions::LZ4,
            Packs::Zstd { .. } => Compressions::ZSTD,
        };
    }

    /// Whether messages have a byte in front of them that says how they are packed.
    pub(crate) fn is_on(&self) -> bool {
        self.packer.packs() != Packs::Nothing
    }

    /// Refuses a message that is too long before it is packed.
    pub(crate) const fn check(&self, message: &[u8]) -> Result<(), Refusal> {
        let (have, max) = (message.len(), self.message_bytes_max);
        if have > max { Err(Refusal::TooLong { have, max }) } else { Ok(()) }
    }

    /// The message as it is sent.
    pub(crate) fn frame(&mut self, message: &[u8]) -> &[u8] {
        if let Some(packed) = self.packer.pack(message) {
            return packed;
        }
        self.framed.clear();
        self.framed.push(PLAIN);
        self.framed.extend_from_slice(message);
        &self.framed
    }

    /// Copies a message that came to its place, as it was: its length, or nothing where it is none.
    pub(crate) fn take(&mut self, framed: &[u8], room: &mut (impl Room + ?Sized)) -> Option<usize> {
        match framed.strip_prefix(&[PLAIN]) {
            Some(message) if message.len() > self.message_bytes_max => None,
            Some(message) => copy_to(message, room),
            None => self.unpacker.take(framed, self.message_bytes_max, room),
        }
    }

    pub(crate) const fn stats(&self) -> CompressionStats {
        self.packer.stats()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn packing(compression: Compression) -> Packing {
        Packing::new(compression, None, || Duration::ZERO, 1_000).unwrap()
    }

    #[test]
    fn what_does_not_pay_has_one_byte_more_and_no_message_is_too_long() {
        let mut packing = packing(Compression::Lz4);
        let short = packing.frame(b"short").to_vec();
        assert_eq!(short, b"\0short");
        let long = packing.frame(&[7; 1_000]).to_vec();
        assert!(long.len() < 100 && long[0] == 1, "{long:?}");
        let mut out = Vec::new();
        assert_eq!((packing.take(&long, &mut out), out.as_slice()), (Some(1_000), &[7; 1_000][..]));
        assert_eq!((packing.take(&short, &mut out), out.as_slice()), (Some(5), &b"short"[..]));
        assert_eq!(packing.check(&[0; 1_000]), Ok(()));
        assert_eq!(packing.check(&[0; 1_001]), Err(Refusal::TooLong { have: 1_001, max: 1_000 }));
        // Nor is one that came.
        assert_eq!(packing.take(&[0; 1_002], &mut out), None);
        let mut other = Packing::new(Compression::Lz4, None, || Duration::ZERO, 2_000).unwrap();
        let longer = other.frame(&[7; 1_001]).to_vec();
        assert_eq!((packing.take(&longer, &mut out), packing.take(&[], &mut out)), (None, None));
        assert_eq!(packing.take(&[9, 1, 0, 0, 0, 0], &mut out), None);
    }

    proptest! {
        #[test]
        fn every_message_comes_out_as_it_went_in(
            message in proptest::collection::vec(0_u8..4, 0..1_000),
            is_zstd: bool,
        ) {
            let mut packing =
                packing(if is_zstd { Compression::Zstd } else { Compression::Lz4 });
            let framed = packing.frame(&message).to_vec();
            prop_assert!(framed.len() <= message.len() + 1);
            let mut out = Vec::new();
            prop_assert_eq!(packing.take(&framed, &mut out), Some(message.len()));
            prop_assert_eq!(out, message);
        }

        #[test]
        fn any_bytes_are_a_message_within_its_bound_or_none(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut out = Vec::new();
            let taken = packing(Compression::None).take(&bytes, &mut out);
            prop_assert!(taken.is_none_or(|length| length <= 1_000 && length == out.len()));
        }
    }
}
