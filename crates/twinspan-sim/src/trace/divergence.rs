//! Where two traces part.

use std::collections::VecDeque;
use std::fmt;

/// Events before the first difference that are told.
pub const EVENTS_BEFORE: usize = 12;
/// Events from the first difference on that are told, of each trace.
pub const EVENTS_AFTER: usize = 4;

/// The first event in which two traces differ, and what is around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// How many events from where the comparison began are the same.
    pub same: u64,
    /// The last events that are the same.
    pub before: Vec<String>,
    /// What the one trace has then; nothing where it ends.
    pub left: Vec<String>,
    /// What the other has.
    pub right: Vec<String>,
}

/// Compares two traces, event by event, in one pass and in constant memory; `None` when they are the
/// same to their ends.
///
/// Each yields one line for each event, as [`TraceEvent`](super::TraceEvent) writes itself or as
/// [`TraceLegend::describe`](super::TraceLegend::describe) does.
pub fn first_difference(
    left: impl IntoIterator<Item = String>,
    right: impl IntoIterator<Item = String>,
) -> Option<Divergence> {
    let (mut left, mut right) = (left.into_iter(), right.into_iter());
    let mut before = VecDeque::with_capacity(EVENTS_BEFORE);
    let mut same = 0;
    loop {
        match (left.next(), right.next()) {
            (None, None) => return None,
            (Some(one), Some(other)) if one == other => {
                if before.len() == EVENTS_BEFORE {
                    before.pop_front();
                }
                before.push_back(one);
                same += 1;
            }
            (one, other) => {
                let rest = EVENTS_AFTER - 1;
                return Some(Divergence {
                    same,
                    before: before.into(),
                    left: one.into_iter().chain(left.take(rest)).collect(),
                    right: other.into_iter().chain(right.take(rest)).collect(),
                });
            }
        }
    }
}

/// On several lines: what is the same, then each side with a sign of its own.
impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.before {
            writeln!(f, "  {line}")?;
        }
        for (sign, lines) in [('-', &self.left), ('+', &self.right)] {
            for line in lines {
                writeln!(f, "{sign} {line}")?;
            }
            if lines.is_empty() {
                writeln!(f, "{sign} the trace ends here")?;
            }
        }
        Ok(())
    }
}
