//! Compression of messages on roads over the network: done where it pays, bounded where it is undone.
//!
//! A packed message is one byte that names the codec, the message's length as u32, and the bytes of
//! the codec. [`Packer`] makes it, [`Unpacker`] undoes it into a place of exactly that length.
//!
//! //= hub 10

mod judge;

use std::fmt;
use std::io;
use std::time::Duration;

use judge::Judge;
use lz4_flex::block;
use twinspan_topic::Room;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use crate::report::Compression;

/// Bytes in front of what the codec made: its number and the message's length.
pub(crate) const PACKED_HEAD_BYTES: usize = 5;
/// The longest dictionary.
pub const DICTIONARY_BYTES_MAX: usize = 1 << 20;
/// Shorter messages are never packed: there is nothing to find in them.
const PACK_BYTES_MIN: usize = 64;
/// The same where a dictionary knows what to look for.
const DICTIONARY_PACK_BYTES_MIN: usize = 16;
/// Zstandard's level: the fastest that is not negative. Messages wait for it.
const ZSTD_LEVEL: i32 = 1;
/// One byte of LZ4 stands for at most so many.
const LZ4_EXPANSION_MAX: usize = 255;

/// A clock that only tells how long something took.
pub(crate) type Stopwatch = fn() -> Duration;

/// What packed a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    Lz4,
    Zstd,
    /// Zstandard with the dictionary that both ends have.
    ZstdDictionary,
}

impl Codec {
    const ALL: [Self; 3] = [Self::Lz4, Self::Zstd, Self::ZstdDictionary];

    const fn number(self) -> u8 {
        match self {
            Self::Lz4 => 1,
            Self::Zstd => 2,
            Self::ZstdDictionary => 3,
        }
    }

    fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.number() == number)
    }
}

/// What an end can unpack, as it says in its greeting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpacks {
    /// Bit 0: LZ4; bit 1: Zstandard.
    pub(crate) codecs: u8,
    /// What stands for its dictionary; 0 for none.
    pub(crate) dictionary: u64,
}

impl Unpacks {
    const LZ4: u8 = 1;
    const ZSTD: u8 = 2;

    /// What this program unpacks, with this dictionary.
    pub(crate) fn ours(dictionary: Option<&[u8]>) -> Self {
        Self { codecs: Self::LZ4 | Self::ZSTD, dictionary: dictionary.map_or(0, dictionary_number) }
    }

    /// Whether it can undo what a packer does.
    pub(crate) const fn undoes(self, packs: Packs) -> bool {
        match packs {
            Packs::Nothing => true,
            Packs::Lz4 => self.codecs & Self::LZ4 != 0,
            Packs::Zstd { dictionary } => {
                self.codecs & Self::ZSTD != 0 && (dictionary == 0 || dictionary == self.dictionary)
            }
        }
    }
}

/// What a packer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packs {
    Nothing,
    Lz4,
    /// With the dictionary of this number; 0 for none.
    Zstd {
        dictionary: u64,
    },
}

/// The number that stands for a dictionary; never 0.
fn dictionary_number(dictionary: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(dictionary).max(1)
}

/// Why compression cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompressionError {
    /// A dictionary was given to a codec that has none.
    #[error(
        "a dictionary goes with Compression::Zstd alone: choose it, or leave the dictionary out"
    )]
    Dictionary,
    /// The dictionary is empty or too long.
    #[error("a dictionary of {0} bytes cannot be used: give 1 to {DICTIONARY_BYTES_MAX}")]
    DictionaryBytes(usize),
    /// The codec refused.
    #[error("cannot set up Zstandard: {0}; check the dictionary")]
    Zstd(#[source] io::Error),
}

/// Why bytes that came are no packed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum UnpackError {
    #[error("a packed message is shorter than its head")]
    Short,
    #[error("no codec has the number {0}")]
    Codec(u8),
    #[error("a packed message says it is {said} bytes, {most} are the most")]
    Long { said: usize, most: usize },
    #[error("a packed message is not what its codec makes, or has another length than it says")]
    Broken,
}

/// What compression did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompressionStats {
    /// What was asked for.
    pub compression: Compression,
    /// Whether messages are being packed now; false while it was found not to pay.
    pub is_on: bool,
    /// Whether a dictionary is used.
    pub has_dictionary: bool,
    /// Messages that left packed.
    pub packed: u64,
    /// Messages that left as they are: too short, or packing did not pay.
    pub plain: u64,
    /// Bytes of the packed messages before.
    pub bytes_before: u64,
    /// Bytes of the packed messages after.
    pub bytes_after: u64,
    /// Time spent on packing, kept or not.
    pub packing: Duration,
    /// Times that packing was found not to pay.
    pub times_off: u64,
}

impl fmt::Display for CompressionStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match (self.compression, self.has_dictionary) {
            (Compression::None, _) => return f.write_str("no compression"),
            (Compression::Lz4, _) => "LZ4",
            (Compression::Zstd, false) => "Zstandard",
            (Compression::Zstd, true) => "Zstandard with a dictionary",
        };
        let state = if self.is_on { "on" } else { "off, it did not pay" };
        let Self { packed, plain, bytes_before, bytes_after, .. } = self;
        let all = packed + plain;
        write!(f, "{name} ({state}): {packed} of {all} messages, {bytes_before} bytes became ")?;
        write!(f, "{bytes_after}")
    }
}

/// Packs messages where that pays.
pub(crate) struct Packer {
    packs: Packs,
    zstd: Option<Compressor<'static>>,
    /// Where codecs write; kept, so that a packer that is warm allocates nothing of its own.
    scratch: Vec<u8>,
    judge: Judge,
    stopwatch: Stopwatch,
    stats: CompressionStats,
}

impl Packer {
    /// A packer; `stopwatch` measures what packing costs.
    ///
    /// # Errors
    /// [`CompressionError`] where codec and dictionary do not fit.
    pub(crate) fn new(
        compression: Compression,
        dictionary: Option<&[u8]>,
        stopwatch: Stopwatch,
    ) -> Result<Self, CompressionError> {
        if let Some(dictionary) = dictionary {
            if compression != Compression::Zstd {
                return Err(CompressionError::Dictionary);
            }
            if dictionary.is_empty() || dictionary.len() > DICTIONARY_BYTES_MAX {
                return Err(CompressionError::DictionaryBytes(dictionary.len()));
            }
        }
        let (packs, zstd) = match compression {
            Compression::None => (Packs::Nothing, None),
            Compression::Lz4 => (Packs::Lz4, None),
            Compression::Zstd => {
                let number = dictionary.map_or(0, dictionary_number);
                let zstd = compressor(dictionary).map_err(CompressionError::Zstd)?;
                (Packs::Zstd { dictionary: number }, Some(zstd))
            }
        };
        let stats = CompressionStats {
            compression,
            is_on: packs != Packs::Nothing,
            has_dictionary: dictionary.is_some(),
            ..CompressionStats::default()
        };
        Ok(Self { packs, zstd, scratch: Vec::new(), judge: Judge::default(), stopwatch, stats })
    }

    /// What it does, for peers that say what they undo.
    pub(crate) const fn packs(&self) -> Packs {
        self.packs
    }

    /// The message packed, with its head; `None` where it is better left as it is.
    pub(crate) fn pack(&mut self, message: &[u8]) -> Option<&[u8]> {
        let least =
            if self.stats.has_dictionary { DICTIONARY_PACK_BYTES_MIN } else { PACK_BYTES_MIN };
        let is_tried = self.packs != Packs::Nothing
            && message.len() >= least
            && u32::try_from(message.len()).is_ok()
            && self.judge.tries();
        if !is_tried {
            self.stats.plain += 1;
            return None;
        }
        let began = (self.stopwatch)();
        let length = self.encode(message);
        let cost = (self.stopwatch)().saturating_sub(began);
        self.stats.packing += cost;
        // What did not become smaller is as long as it was.
        let after = length.unwrap_or(message.len()).min(message.len());
        if self.judge.judge(message.len(), after, cost) {
            self.stats.times_off += 1;
        }
        self.stats.is_on = self.judge.is_on();
        if after >= message.len() {
            self.stats.plain += 1;
            return None;
        }
        self.stats.packed += 1;
        self.stats.bytes_before += message.len() as u64;
        self.stats.bytes_after += after as u64;
        self.scratch.get(..after)
    }

    /// Packs into `scratch`; the length with its head, or `None` where the codec has no room.
    fn encode(&mut self, message: &[u8]) -> Option<usize> {
        let bound = match self.packs {
            Packs::Nothing => return None,
            Packs::Lz4 => block::get_maximum_output_size(message.len()),
            // No longer than the message: more would not be used.
            Packs::Zstd { .. } => message.len(),
        };
        let most = PACKED_HEAD_BYTES + bound;
        if self.scratch.len() < most {
            self.scratch.resize(most, 0);
        }
        let (head, body) = self.scratch.split_first_chunk_mut::<PACKED_HEAD_BYTES>()?;
        let body = body.get_mut(..bound)?;
        let (codec, length) = match (self.packs, &mut self.zstd) {
            (Packs::Lz4, _) => (Codec::Lz4, block::compress_into(message, body).ok()?),
            (Packs::Zstd { dictionary }, Some(zstd)) => {
                let codec = if dictionary == 0 { Codec::Zstd } else { Codec::ZstdDictionary };
                (codec, zstd.compress_to_buffer(message, body).ok()?)
            }
            _ => return None,
        };
        let [l0, l1, l2, l3] = u32::try_from(message.len()).ok()?.to_le_bytes();
        *head = [codec.number(), l0, l1, l2, l3];
        Some(PACKED_HEAD_BYTES + length)
    }

    pub(crate) const fn stats(&self) -> CompressionStats {
        self.stats
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("packs", &self.packs).finish_non_exhaustive()
    }
}

fn compressor(dictionary: Option<&[u8]>) -> io::Result<Compressor<'static>> {
    let mut zstd = match dictionary {
        Some(dictionary) => Compressor::with_dictionary(ZSTD_LEVEL, dictionary)?,
        None => Compressor::new(ZSTD_LEVEL)?,
    };
    // The head has the length, the greeting the dictionary, the road a checksum.
    zstd.set_parameter(CParameter::ContentSizeFlag(false))?;
    zstd.set_parameter(CParameter::DictIdFlag(false))?;
    zstd.set_parameter(CParameter::ChecksumFlag(false))?;
    Ok(zstd)
}

/// Undoes packing.
pub(crate) struct Unpacker {
    dictionary: Option<Vec<u8>>,
    /// Made when the first such message comes: it takes some hundred kilobytes.
    plain: Option<Decompressor<'static>>,
    with_dictionary: Option<Decompressor<'static>>,
}

impl Unpacker {
    pub(crate) fn new(dictionary: Option<&[u8]>) -> Self {
        let dictionary = dictionary.map(<[u8]>::to_vec);
        Self { dictionary, plain: None, with_dictionary: None }
    }

    /// The length of the message in `packed`, which is at most `most`.
    ///
    /// # Errors
    /// [`UnpackError`] for bytes that are no packed message of at most that length.
    pub(crate) fn length(packed: &[u8], most: usize) -> Result<usize, UnpackError> {
        let Some(([number, length @ ..], body)) = packed.split_first_chunk::<PACKED_HEAD_BYTES>()
        else {
            return Err(UnpackError::Short);
        };
        let codec = Codec::of(*number).ok_or(UnpackError::Codec(*number))?;
        let said = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        // What a codec cannot make needs no room at all.
        let most = match codec {
            Codec::Lz4 => most.min(body.len().saturating_mul(LZ4_EXPANSION_MAX)),
            Codec::Zstd | Codec::ZstdDictionary => most,
        };
        if said > most { Err(UnpackError::Long { said, most }) } else { Ok(said) }
    }

    /// Unpacks into a place that is exactly as long as [`length`](Self::length) says. Behind an error
    /// the place holds anything.
    ///
    /// # Errors
    /// [`UnpackError`] where the bytes are not what the codec makes of such a message.
    pub(crate) fn unpack(&mut self, packed: &[u8], place: &mut [u8]) -> Result<(), UnpackError> {
        let Some(([number, length @ ..], body)) = packed.split_first_chunk::<PACKED_HEAD_BYTES>()
        else {
            return Err(UnpackError::Short);
        };
        if u32::from_le_bytes(*length) as usize != place.len() {
            return Err(UnpackError::Broken);
        }
        let codec = Codec::of(*number).ok_or(UnpackError::Codec(*number))?;
        let made = match codec {
            Codec::Lz4 => block::decompress_into(body, place).map_err(|_| UnpackError::Broken)?,
            Codec::Zstd | Codec::ZstdDictionary => {
                let zstd = self.decompressor(codec)?;
                zstd.decompress_to_buffer(body, place).map_err(|_| UnpackError::Broken)?
            }
        };
        if made == place.len() { Ok(()) } else { Err(UnpackError::Broken) }
    }

    /// Unpacks a message of at most `longest` bytes into a place of its length, which it says; nothing
    /// where it is none, or has no place.
    pub(crate) fn take(
        &mut self,
        packed: &[u8],
        longest: usize,
        room: &mut (impl Room + ?Sized),
    ) -> Option<usize> {
        let length = Self::length(packed, longest).ok()?;
        self.unpack(packed, room.room(length)?).ok()?;
        Some(length)
    }

    fn decompressor(&mut self, codec: Codec) -> Result<&mut Decompressor<'static>, UnpackError> {
        let (place, dictionary) = match (codec, &self.dictionary) {
            (Codec::ZstdDictionary, Some(dictionary)) => {
                (&mut self.with_dictionary, dictionary.as_slice())
            }
            // Nobody was told that we have one.
            (Codec::ZstdDictionary, None) => return Err(UnpackError::Codec(codec.number())),
            _ => (&mut self.plain, [].as_slice()),
        };
        if place.is_none() {
            let made = Decompressor::with_dictionary(dictionary);
            *place = Some(made.map_err(|_| UnpackError::Broken)?);
        }
        place.as_mut().ok_or(UnpackError::Broken)
    }
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_dictionary = self.dictionary.is_some();
        f.debug_struct("Unpacker").field("has_dictionary", &has_dictionary).finish_non_exhaustive()
    }
}

/// Any bytes are a packed message of at most 64 KiB or name a reason.
#[cfg(feature = "fuzz")]
pub(crate) fn fuzz(data: &[u8]) -> String {
    const MOST: usize = 64 << 10;
    let mut unpacker = Unpacker::new(Some(FUZZ_DICTIONARY));
    let outcome = Unpacker::length(data, MOST).and_then(|length| {
        assert!(length <= MOST, "more than was allowed");
        let mut place = vec![0; length];
        unpacker.unpack(data, &mut place).map(|()| place)
    });
    if let Ok(message) = &outcome {
        // What was unpacked is packed and unpacked to the same.
        for compression in [Compression::Lz4, Compression::Zstd] {
            let packer = Packer::new(compression, None, || Duration::ZERO);
            let Ok(mut packer) = packer else { continue };
            if let Some(again) = packer.pack(message) {
                let mut place = vec![0; message.len()];
                let unpacked = unpacker.unpack(again, &mut place);
                assert!(unpacked.is_ok() && place == *message, "packing changed a message");
            }
        }
    }
    format!("{outcome:?}")
}

/// The dictionary of the fuzz body.
#[cfg(feature = "fuzz")]
const FUZZ_DICTIONARY: &[u8] = b"acceleration rotation temperature";

/// Good packed messages of every codec.
#[cfg(feature = "fuzz")]
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let part = b"temperature 21.5, rotation 0.0, temperature 21.6, rotation 0.1 ";
    let codecs = [
        (Compression::Lz4, None),
        (Compression::Zstd, None),
        (Compression::Zstd, Some(FUZZ_DICTIONARY)),
    ];
    let packed = codecs.into_iter().enumerate().filter_map(|(at, (compression, dictionary))| {
        let message = part.repeat(4 + at);
        let mut packer = Packer::new(compression, dictionary, || Duration::ZERO).ok()?;
        packer.pack(&message).map(<[u8]>::to_vec)
    });
    packed.collect()
}

#[cfg(test)]
mod tests;
