//! Patches of the ground, the wind and the clouds: the field of `LayerData`.
//!
//! A patch is a square of heights. It travels as a cosine transform, whose high frequencies are
//! told more coarsely, in as many bits a value as the patch needs.
//!
//! # What is lost
//!
//! A patch that spans `range` metres (rounded up, at least 1) is cut into steps of `range` / 1024,
//! and the frequency (i, j) of its transform is told in steps of `1 + 2 * (i + j)`. A plain patch
//! comes back to 1/2048 of its range; hills that are smooth over a few metres to 1 % of it; heights
//! of pure noise may be off by a quarter of it, because most of them is high frequencies. The tests
//! hold these figures.

mod bits;
mod transform;

use bits::{BitReader, BitWriter};
use transform::{Tables, tables};

use crate::wire::Short;

/// Patches of one field at most; a region of 256 m has 256 of them.
pub const PATCHES_MAX: usize = 1_024;

/// What stands for a patch's first byte when none follows.
const END: u32 = 97;
/// What a group's stride is; nobody uses it.
const STRIDE: u32 = 264;
/// The most bits of a value, and the fewest.
const WORD_BITS: core::ops::RangeInclusive<u32> = 2..=17;
/// What the range of a patch is cut into: 2 to the power of this.
const RANGE_BITS: u32 = 10;

/// What a layer is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is named as what it is")]
pub enum LayerKind {
    Land,
    Water,
    Wind,
    Cloud,
}

impl LayerKind {
    /// The kind of a layer by the type in its field, and whether the places of its patches are of
    /// large regions.
    pub const fn from_wire(code: u8) -> Option<(Self, bool)> {
        Some(match code {
            b'L' => (Self::Land, false),
            b'W' => (Self::Water, false),
            b'7' => (Self::Wind, false),
            b'8' => (Self::Cloud, false),
            b'M' => (Self::Land, true),
            b'X' => (Self::Water, true),
            b'9' => (Self::Wind, true),
            b':' => (Self::Cloud, true),
            _ => return None,
        })
    }

    /// The type in the field.
    pub const fn wire(self, is_large: bool) -> u8 {
        match (self, is_large) {
            (Self::Land, false) => b'L',
            (Self::Water, false) => b'W',
            (Self::Wind, false) => b'7',
            (Self::Cloud, false) => b'8',
            (Self::Land, true) => b'M',
            (Self::Water, true) => b'X',
            (Self::Wind, true) => b'9',
            (Self::Cloud, true) => b':',
        }
    }
}

/// The side of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PatchSize {
    /// 16 heights a side.
    P16,
    /// 32 heights a side.
    P32,
}

impl PatchSize {
    /// Heights a side.
    pub const fn side(self) -> usize {
        match self {
            Self::P16 => 16,
            Self::P32 => 32,
        }
    }

    /// Heights of a patch.
    pub const fn heights(self) -> usize {
        self.side() * self.side()
    }

    /// The most heights of a patch of any size.
    pub const HEIGHTS_MAX: usize = Self::P32.heights();
}

/// Where a patch is, in patches from the south-west corner: `x` to the east, `y` to the north.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the type says it")]
pub struct PatchPlace {
    pub x: u16,
    pub y: u16,
}

/// Why bytes are no layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TerrainError {
    /// They end within a patch.
    #[error("the layer ends within {what}")]
    Short {
        /// What it ends within.
        what: &'static str,
    },
    /// A kind of layer that is not known.
    #[error("a layer of the unknown type {code}")]
    Kind {
        /// The type.
        code: u8,
    },
    /// Patches of a side that is not 16 or 32.
    #[error("patches of {side} heights a side, where 16 and 32 are known")]
    Size {
        /// The side.
        side: u8,
    },
    /// Heights that are no numbers.
    #[error("a patch whose lowest height is no number")]
    Height,
    /// More patches than the limit.
    #[error("more than {PATCHES_MAX} patches")]
    TooMany,
}

/// Why a patch cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TerrainWriteError {
    /// Another count of heights than the layer's patches have.
    #[error("{have} heights where a patch has {need}")]
    Count {
        /// Heights that were given.
        have: usize,
        /// Heights of a patch.
        need: usize,
    },
    /// A height that is no number, or heights too far apart.
    #[error("heights that are no numbers, or more than 65,534 m apart")]
    Height,
    /// A place that the layer cannot tell.
    #[error("a patch at {x}, {y}, where {max} is the largest; use a layer of a large region")]
    Place {
        /// Patches to the east.
        x: u16,
        /// Patches to the north.
        y: u16,
        /// The largest of both.
        max: u16,
    },
    /// More patches than the limit.
    #[error("more than {PATCHES_MAX} patches")]
    TooMany,
}

/// Reads the patches of a field one after the other, into space of the caller's own.
#[derive(Clone, Debug)]
pub struct LayerReader<'a> {
    bits: BitReader<'a>,
    kind: LayerKind,
    is_large: bool,
    size: PatchSize,
    read: usize,
    is_over: bool,
}

impl<'a> LayerReader<'a> {
    /// Reads the head of a field.
    ///
    /// # Errors
    /// [`TerrainError`]
    pub fn new(data: &'a [u8]) -> Result<Self, TerrainError> {
        let short = |Short| TerrainError::Short { what: "its head" };
        let mut bits = BitReader::new(data);
        bits.take(16).map_err(short)?;
        let side = bits.take(8).map_err(short)? as u8;
        let code = bits.take(8).map_err(short)? as u8;
        let size = match side {
            16 => PatchSize::P16,
            32 => PatchSize::P32,
            side => return Err(TerrainError::Size { side }),
        };
        let (kind, is_large) = LayerKind::from_wire(code).ok_or(TerrainError::Kind { code })?;
        Ok(Self { bits, kind, is_large, size, read: 0, is_over: false })
    }

    /// What the layer is of.
    pub const fn kind(&self) -> LayerKind {
        self.kind
    }

    /// The side of its patches.
    pub const fn size(&self) -> PatchSize {
        self.size
    }

    /// Whether its places are of a large region.
    pub const fn is_large(&self) -> bool {
        self.is_large
    }

    /// Reads the next patch: its heights in metres (for the wind, metres per second; first all to
    /// the east, then, in the next patch, to the north), row by row from the south, each from the
    /// west, into the first [`PatchSize::heights`] places of `heights`. `None` behind the last.
    ///
    /// # Errors
    /// [`TerrainError`]; then nothing more comes.
    pub fn next_patch(
        &mut self,
        heights: &mut [f32; PatchSize::HEIGHTS_MAX],
    ) -> Result<Option<PatchPlace>, TerrainError> {
        if self.is_over {
            return Ok(None);
        }
        // Whatever goes wrong from here on, the place of the next patch is lost.
        self.is_over = true;
        let short = |what| move |Short| TerrainError::Short { what };
        let quant = self.bits.take(8).map_err(short("the end of its patches"))?;
        if quant == END {
            return Ok(None);
        }
        if self.read == PATCHES_MAX {
            return Err(TerrainError::TooMany);
        }
        let head = "the head of a patch";
        let low = f32::from_bits(self.bits.take(32).map_err(short(head))?);
        let range = self.bits.take(16).map_err(short(head))?;
        let place = self.place().map_err(short(head))?;
        if !low.is_finite() {
            return Err(TerrainError::Height);
        }
        let (word_bits, range_bits) = ((quant & 15) + 2, (quant >> 4) + 2);
        let tables = tables(self.size);
        let mut values = [0.0; PatchSize::HEIGHTS_MAX];
        self.values(tables, word_bits, &mut values).map_err(short("a patch"))?;
        tables.inverse(&mut values, heights);
        let step = range as f32 / (1_u32 << range_bits) as f32;
        let middle = step * (1_u32 << (range_bits - 1)) as f32 + low;
        for height in heights.iter_mut().take(self.size.heights()) {
            *height = *height * step + middle;
        }
        self.read += 1;
        self.is_over = false;
        Ok(Some(place))
    }

    fn place(&mut self) -> Result<PatchPlace, Short> {
        let (x, y) = if self.is_large {
            let both = self.bits.take(32)?;
            (both >> 16, both & 0xFFFF)
        } else {
            let both = self.bits.take(10)?;
            (both >> 5, both & 31)
        };
        Ok(PatchPlace { x: x as u16, y: y as u16 })
    }

    /// Reads the values of a patch's transform to their places, in their steps.
    fn values(
        &mut self,
        tables: &Tables,
        word_bits: u32,
        values: &mut [f32; PatchSize::HEIGHTS_MAX],
    ) -> Result<(), Short> {
        for (place, step) in tables.order() {
            // 0: zero; 10: zeros to the end; 110: a value; 111: a negative one.
            if self.bits.take(1)? == 0 {
                continue;
            }
            if self.bits.take(1)? == 0 {
                return Ok(());
            }
            let is_negative = self.bits.take(1)? == 1;
            let value = self.bits.take(word_bits)? as f32 * step;
            if let Some(place) = values.get_mut(place) {
                *place = if is_negative { -value } else { value };
            }
        }
        Ok(())
    }
}

/// Writes patches one after the other.
#[derive(Debug)]
pub struct LayerWriter {
    bits: BitWriter,
    is_large: bool,
    size: PatchSize,
    written: usize,
}

impl LayerWriter {
    /// Begins a field. Patches of a large region have 32-bit places, which viewers of Second Life
    /// itself do not know.
    pub fn new(kind: LayerKind, size: PatchSize, is_large: bool) -> Self {
        let mut bits = BitWriter::default();
        bits.put(STRIDE, 16);
        bits.put(size.side() as u32, 8);
        bits.put(kind.wire(is_large).into(), 8);
        Self { bits, is_large, size, written: 0 }
    }

    /// Bytes so far, without the end of the field, which needs up to two more.
    pub const fn len(&self) -> usize {
        self.bits.len()
    }

    /// Whether no patch was written.
    pub const fn is_empty(&self) -> bool {
        self.written == 0
    }

    /// Writes a patch: its heights row by row from the south, each from the west.
    ///
    /// # Errors
    /// [`TerrainWriteError`]; then nothing was written.
    pub fn push(&mut self, place: PatchPlace, heights: &[f32]) -> Result<(), TerrainWriteError> {
        let need = self.size.heights();
        if heights.len() != need {
            return Err(TerrainWriteError::Count { have: heights.len(), need });
        }
        let max = if self.is_large { u16::MAX } else { 31 };
        if place.x > max || place.y > max {
            return Err(TerrainWriteError::Place { x: place.x, y: place.y, max });
        }
        if self.written == PATCHES_MAX {
            return Err(TerrainWriteError::TooMany);
        }
        let (low, range) = span(heights)?;
        let scale = (1_u32 << RANGE_BITS) as f32 / range as f32;
        let middle = (1_u32 << (RANGE_BITS - 1)) as f32;
        let mut values = [0.0; PatchSize::HEIGHTS_MAX];
        for (value, height) in values.iter_mut().zip(heights) {
            *value = (height - low) * scale - middle;
        }
        let tables = tables(self.size);
        let mut transformed = [0; PatchSize::HEIGHTS_MAX];
        tables.forward(&mut values, &mut transformed);
        self.write(place, low, range, transformed.get(..need).unwrap_or_default());
        self.written += 1;
        Ok(())
    }

    fn write(&mut self, place: PatchPlace, low: f32, range: u32, values: &[i32]) {
        let most = values.iter().map(|value| value.unsigned_abs()).max().unwrap_or_default();
        let word_bits =
            (u32::BITS - most.leading_zeros()).clamp(*WORD_BITS.start(), *WORD_BITS.end());
        self.bits.put((RANGE_BITS - 2) << 4 | (word_bits - 2), 8);
        self.bits.put(low.to_bits(), 32);
        self.bits.put(range, 16);
        let (x, y) = (u32::from(place.x), u32::from(place.y));
        if self.is_large {
            self.bits.put(x << 16 | y, 32);
        } else {
            self.bits.put(x << 5 | y, 10);
        }
        let last = values.iter().rposition(|value| *value != 0).map_or(0, |last| last + 1);
        for value in values.iter().take(last) {
            if *value == 0 {
                self.bits.put(0, 1);
                continue;
            }
            self.bits.put(if *value < 0 { 0b111 } else { 0b110 }, 3);
            self.bits.put(value.unsigned_abs(), word_bits);
        }
        if last < values.len() {
            self.bits.put(0b10, 2);
        }
    }

    /// The whole field.
    pub fn finish(mut self) -> Vec<u8> {
        self.bits.put(END, 8);
        self.bits.into_bytes()
    }
}

/// The lowest height, and how far the highest is above it, rounded up.
fn span(heights: &[f32]) -> Result<(f32, u32), TerrainWriteError> {
    let (low, high) = heights
        .iter()
        .try_fold((f32::MAX, f32::MIN), |(low, high), height| {
            height.is_finite().then(|| (low.min(*height), high.max(*height)))
        })
        .ok_or(TerrainWriteError::Height)?;
    let range = high - low + 1.0;
    if range >= f32::from(u16::MAX) {
        return Err(TerrainWriteError::Height);
    }
    Ok((low, range as u32))
}

// Their sum is the byte before each patch.
const _: () = assert!(RANGE_BITS >= 2 && RANGE_BITS <= 17);

#[cfg(test)]
mod tests;
