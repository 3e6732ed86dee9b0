//! How much a document may be.

use crate::error::{ParseError, Reason};

/// The most containers that stand in one another, whatever [`Limits::depth_max`] says: what walks a
/// value by calling itself needs a stack for it.
pub const DEPTH_MAX: usize = 128;

/// How much a document may be; what is more is an error that names the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest document, in bytes.
    pub bytes_max: usize,
    /// The most containers in one another, at most [`DEPTH_MAX`].
    pub depth_max: usize,
    /// The most values, containers included, and keys. It bounds the memory that a document of
    /// many tiny parts can take: a map with one entry takes up to a kilobyte.
    pub elements_max: usize,
}

impl Limits {
    /// 16 MiB, 96 deep, 250,000 values: more than any reply of a grid that is known.
    pub const DEFAULT: Self = Self { bytes_max: 16 << 20, depth_max: 96, elements_max: 250_000 };

    /// Refuses a document that is too long.
    pub(crate) const fn check_len(&self, len: usize) -> Result<(), ParseError> {
        if len > self.bytes_max {
            let reason = Reason::TooLong { have: len, max: self.bytes_max };
            return Err(ParseError { offset: self.bytes_max, reason });
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Counts what was read against the limits.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    limits: Limits,
    depth: usize,
    elements: usize,
}

impl Guard {
    pub(crate) const fn new(limits: Limits) -> Self {
        Self { limits, depth: 0, elements: 0 }
    }

    /// Another value or key.
    pub(crate) fn element(&mut self, offset: usize) -> Result<(), ParseError> {
        self.elements += 1;
        if self.elements > self.limits.elements_max {
            let reason = Reason::TooMany { max: self.limits.elements_max };
            return Err(ParseError { offset, reason });
        }
        Ok(())
    }

    /// Another container within the present one.
    pub(crate) fn enter(&mut self, offset: usize) -> Result<(), ParseError> {
        self.depth += 1;
        let max = self.limits.depth_max.min(DEPTH_MAX);
        if self.depth > max {
            return Err(ParseError { offset, reason: Reason::TooDeep { max } });
        }
        Ok(())
    }

    /// The container is over.
    pub(crate) const fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }
}
