//! Checks bytes against a schema, within limits, before anybody reads them.

use core::str;

use crate::schema::{Element, EnumAt, Field, Inline, Kind, Schema, Table, Variant};

/// The largest depth that [`Limits`] may allow: the check goes down by recursion.
pub const DEPTH_LIMIT: u16 = 64;

/// How much one message may ask of whoever reads it.
///
/// FlatBuffers may point to one part from many places, so a short message can unfold to a huge one;
/// what is counted here is the unfolded one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest message in bytes, its number left out.
    pub bytes_max: usize,
    /// Tables within tables, the root included, at most [`DEPTH_LIMIT`].
    pub depth_max: u16,
    /// Tables, each counted as often as it is pointed to.
    pub tables_max: u32,
    /// Bytes of tables, strings and vectors, each counted as often as it is pointed to.
    pub unfolded_bytes_max: usize,
    /// Whether floating-point numbers must be finite.
    pub finite_floats: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_max: 16 << 10,
            depth_max: 16,
            tables_max: 1_024,
            unfolded_bytes_max: 64 << 10,
            finite_floats: true,
        }
    }
}

/// Why bytes are not a message of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The message is longer than the limit.
    #[error("the message has {bytes} bytes, the limit is {limit}")]
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Something lies outside the message.
    #[error("{table}: something it points to lies outside the message")]
    Outside {
        /// The table that points there.
        table: &'static str,
    },
    /// A table's list of fields is none.
    #[error("{table}: its list of fields is malformed")]
    Vtable {
        /// The table.
        table: &'static str,
    },
    /// A field that must be there is not.
    #[error("{table}.{field} must be there and is not")]
    Missing {
        /// The table.
        table: &'static str,
        /// The field.
        field: &'static str,
    },
    /// Text is not UTF-8.
    #[error("{table}.{field} is not UTF-8")]
    Text {
        /// The table.
        table: &'static str,
        /// The field.
        field: &'static str,
    },
    /// An enum or a union's tag has a value that the schema does not name.
    #[error("{table}.{field} has the value {value}, which the schema does not name")]
    Value {
        /// The table.
        table: &'static str,
        /// The field.
        field: &'static str,
        /// The value's bits.
        value: u64,
    },
    /// A number is not finite.
    #[error("{table}.{field} is not a finite number")]
    NotFinite {
        /// The table.
        table: &'static str,
        /// The field.
        field: &'static str,
    },
    /// Tables lie deeper within each other than the limit.
    #[error("{table} lies deeper than {limit} tables")]
    TooDeep {
        /// The table that is one too deep.
        table: &'static str,
        /// The limit.
        limit: u16,
    },
    /// There are more tables than the limit.
    #[error("more than {limit} tables")]
    TooManyTables {
        /// The limit.
        limit: u32,
    },
    /// The message unfolds to more bytes than the limit.
    #[error("the message unfolds to more than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The schema names a table that it does not have; generated ones do not.
    #[error("the schema has no table {index}")]
    Schema {
        /// The table's index.
        index: usize,
    },
}

/// Checks that `bytes` are a message of `schema` within `limits`: every part lies inside, is of
/// its type, and can be read to the end without an error.
///
/// Takes time in proportion to what the limits allow, and allocates nothing. Parts need not be
/// aligned: they are read byte by byte.
///
/// # Errors
/// [`VerifyError`] names what is wrong, and where.
pub fn verify(schema: &Schema, limits: &Limits, bytes: &[u8]) -> Result<(), VerifyError> {
    if bytes.len() > limits.bytes_max {
        return Err(VerifyError::TooLong { bytes: bytes.len(), limit: limits.bytes_max });
    }
    let depth = limits.depth_max.min(DEPTH_LIMIT);
    let mut check = Check { schema, limits, bytes, tables: 0, unfolded: 0 };
    let at = check.follow(schema.name, 0)?;
    check.table(schema.root, at, depth)
}

struct Check<'a> {
    schema: &'a Schema,
    limits: &'a Limits,
    bytes: &'a [u8],
    tables: u32,
    unfolded: usize,
}

/// Where a table's fields lie.
struct Layout<'a> {
    at: usize,
    size: usize,
    slots: &'a [u8],
}

impl Layout<'_> {
    /// Where a field lies within its table; `None` where it was left out.
    fn field(&self, slot: u16) -> Option<usize> {
        let offset = self.slots.get(usize::from(slot) * 2..)?.first_chunk()?;
        Some(usize::from(u16::from_le_bytes(*offset))).filter(|offset| *offset != 0)
    }
}

impl<'a> Check<'a> {
    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(*self.bytes.get(at..)?.first_chunk()?))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(*self.bytes.get(at..)?.first_chunk()?))
    }

    /// Where the offset at `at` leads: inside the message.
    fn follow(&self, table: &'static str, at: usize) -> Result<usize, VerifyError> {
        let target = self.u32(at).and_then(|offset| at.checked_add(offset as usize));
        target.filter(|target| *target < self.bytes.len()).ok_or(VerifyError::Outside { table })
    }

    /// Counts bytes that a reader comes by.
    fn unfold(&mut self, bytes: usize) -> Result<(), VerifyError> {
        self.unfolded = self.unfolded.saturating_add(bytes);
        let limit = self.limits.unfolded_bytes_max;
        if self.unfolded > limit { Err(VerifyError::TooLarge { limit }) } else { Ok(()) }
    }

    /// Checks the table with `index` at `at`, with `depth` levels left for it and those below.
    fn table(&mut self, index: usize, at: usize, depth: u16) -> Result<(), VerifyError> {
        let schema = self.schema;
        let table = schema.tables.get(index).ok_or(VerifyError::Schema { index })?;
        let too_deep = VerifyError::TooDeep { table: table.name, limit: self.limits.depth_max };
        let below = depth.checked_sub(1).ok_or(too_deep)?;
        self.tables += 1;
        if self.tables > self.limits.tables_max {
            return Err(VerifyError::TooManyTables { limit: self.limits.tables_max });
        }
        let layout = self.layout(table, at)?;
        self.unfold(layout.size)?;
        for field in table.fields {
            self.field(table, field, &layout, below)?;
        }
        Ok(())
    }

    fn layout(&self, table: &Table, at: usize) -> Result<Layout<'a>, VerifyError> {
        let (outside, malformed) =
            (VerifyError::Outside { table: table.name }, VerifyError::Vtable { table: table.name });
        // The distance is signed and counts backwards.
        let back = i64::from(self.u32(at).ok_or(outside)? as i32);
        let vtable = usize::try_from(at as i64 - back).map_err(|_| outside)?;
        let vtable_size = usize::from(self.u16(vtable).ok_or(outside)?);
        let size = usize::from(self.u16(vtable.saturating_add(2)).ok_or(outside)?);
        if vtable_size < 4 || !vtable_size.is_multiple_of(2) || size < 4 {
            return Err(malformed);
        }
        let slots = self.bytes.get(vtable + 4..vtable + vtable_size).ok_or(outside)?;
        if self.bytes.len() - at < size {
            return Err(outside);
        }
        Ok(Layout { at, size, slots })
    }

    fn field(
        &mut self,
        table: &'static Table,
        field: &'static Field,
        layout: &Layout<'_>,
        depth: u16,
    ) -> Result<(), VerifyError> {
        if let Kind::Union(variants) = field.kind {
            return self.union(table, field, variants, layout, depth);
        }
        let Some(offset) = layout.field(field.slot) else {
            let missing = VerifyError::Missing { table: table.name, field: field.name };
            return if field.required { Err(missing) } else { Ok(()) };
        };
        let size = match &field.kind {
            Kind::Inline(inline) => usize::from(inline.size),
            _ => 4,
        };
        if offset < 4 || offset + size > layout.size {
            return Err(VerifyError::Vtable { table: table.name });
        }
        let at = layout.at + offset;
        match &field.kind {
            Kind::Inline(inline) => self.inline(table, field, inline, at),
            Kind::String => self.string(table, field, at),
            Kind::Table(index) => {
                let target = self.follow(table.name, at)?;
                self.table(*index, target, depth)
            }
            Kind::Vector(element) => self.vector(table, field, element, at, depth),
            Kind::Union(_) => Ok(()),
        }
    }

    fn union(
        &mut self,
        table: &'static Table,
        field: &'static Field,
        variants: &'static [Variant],
        layout: &Layout<'_>,
        depth: u16,
    ) -> Result<(), VerifyError> {
        let missing = VerifyError::Missing { table: table.name, field: field.name };
        let malformed = VerifyError::Vtable { table: table.name };
        let tag_at = layout.field(field.slot);
        let value_at = layout.field(field.slot + 1);
        let tag = match tag_at {
            Some(offset) if offset < 4 || offset >= layout.size => return Err(malformed),
            Some(offset) => self.bytes.get(layout.at + offset).copied().ok_or(malformed)?,
            None => 0,
        };
        let (0, None) = (tag, value_at) else {
            let named = usize::from(tag).checked_sub(1).and_then(|index| variants.get(index));
            let unknown =
                VerifyError::Value { table: table.name, field: field.name, value: u64::from(tag) };
            let variant = named.ok_or(unknown)?;
            let offset = value_at.ok_or(missing)?;
            if offset < 4 || offset + 4 > layout.size {
                return Err(malformed);
            }
            let at = layout.at + offset;
            return match variant {
                Variant::String => self.string(table, field, at),
                Variant::Table(index) => {
                    let target = self.follow(table.name, at)?;
                    self.table(*index, target, depth)
                }
            };
        };
        if field.required { Err(missing) } else { Ok(()) }
    }

    /// The elements' place and count of the vector that the offset at `at` leads to.
    fn elements(
        &mut self,
        table: &'static Table,
        at: usize,
        stride: usize,
    ) -> Result<(usize, usize), VerifyError> {
        let outside = VerifyError::Outside { table: table.name };
        let target = self.follow(table.name, at)?;
        let count = self.u32(target).ok_or(outside)? as usize;
        let bytes = count.checked_mul(stride).ok_or(outside)?;
        let from = target + 4;
        if self.bytes.len().saturating_sub(from) < bytes {
            return Err(outside);
        }
        self.unfold(bytes + 4)?;
        Ok((from, count))
    }

    fn string(
        &mut self,
        table: &'static Table,
        field: &'static Field,
        at: usize,
    ) -> Result<(), VerifyError> {
        let (from, len) = self.elements(table, at, 1)?;
        let text = self.bytes.get(from..from + len).unwrap_or_default();
        let wrong = VerifyError::Text { table: table.name, field: field.name };
        str::from_utf8(text).map(|_| ()).map_err(|_| wrong)
    }

    fn vector(
        &mut self,
        table: &'static Table,
        field: &'static Field,
        element: &'static Element,
        at: usize,
        depth: u16,
    ) -> Result<(), VerifyError> {
        match element {
            Element::Inline(inline) => {
                let size = usize::from(inline.size);
                let (from, count) = self.elements(table, at, size)?;
                if inline.enums.is_empty() && inline.floats.is_empty() {
                    return Ok(());
                }
                (0..count).try_for_each(|n| self.inline(table, field, inline, from + n * size))
            }
            Element::String => {
                let (from, count) = self.elements(table, at, 4)?;
                (0..count).try_for_each(|n| self.string(table, field, from + n * 4))
            }
            Element::Table(index) => {
                let (from, count) = self.elements(table, at, 4)?;
                (0..count).try_for_each(|n| {
                    let target = self.follow(table.name, from + n * 4)?;
                    self.table(*index, target, depth)
                })
            }
        }
    }

    /// Checks what a value of fixed size may not be; its bytes are there.
    fn inline(
        &self,
        table: &'static Table,
        field: &'static Field,
        inline: &'static Inline,
        at: usize,
    ) -> Result<(), VerifyError> {
        for EnumAt { offset, size, values } in inline.enums {
            let value = self.bits(at + usize::from(*offset), *size);
            if values.binary_search(&value).is_err() {
                return Err(VerifyError::Value { table: table.name, field: field.name, value });
            }
        }
        if !self.limits.finite_floats {
            return Ok(());
        }
        for (offset, is_double) in inline.floats {
            let bits = self.bits(at + usize::from(*offset), if *is_double { 8 } else { 4 });
            let is_finite = if *is_double {
                f64::from_bits(bits).is_finite()
            } else {
                f32::from_bits(bits as u32).is_finite()
            };
            if !is_finite {
                return Err(VerifyError::NotFinite { table: table.name, field: field.name });
            }
        }
        Ok(())
    }

    fn bits(&self, at: usize, size: u16) -> u64 {
        let bytes = self.bytes.get(at..at + usize::from(size)).unwrap_or_default();
        bytes.iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte))
    }
}
