//! From a failing run to the few faults that matter.

use twinspan_core::link::FaultKind;

use crate::plan::Fault;
use crate::scenario::{Case, Scenario, Verdict};

/// Runs that a shrink makes at most; what it has then is still a failing run, but perhaps not a
/// least one, and it says so.
pub const SHRINK_RUNS_MAX: usize = 10_000;

/// What is left of a failing run.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The scenario's name.
    pub scenario: &'static str,
    /// The options of the run, which stay.
    pub options: String,
    /// How many faults struck before.
    pub before: usize,
    /// Those that are left: without any one of them the run does not fail.
    pub faults: Vec<Fault>,
    /// What the run breaks with them.
    pub broken: Vec<String>,
    /// Runs that it took.
    pub runs: usize,
    /// Whether every one of them was shown to be needed, within [`SHRINK_RUNS_MAX`].
    pub is_least: bool,
}

/// Why a run cannot be shrunk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShrinkError {
    /// It breaks no promise.
    Kept,
    /// More faults struck than are written down.
    Unrecorded(u64),
    /// It breaks no promise when it is given the list of its own faults. That is a defect of the
    /// simulator or of the scenario: the same faults must give the same run.
    NotAgain,
}

impl std::fmt::Display for ShrinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kept => f.write_str("this run breaks no promise; there is nothing to shrink"),
            Self::Unrecorded(count) => write!(
                f,
                "{count} faults of this run were too many to be written down; choose lower rates"
            ),
            Self::NotAgain => f.write_str(
                "the run breaks no promise when it is given its own faults one by one; \
                 it is not a function of its seed",
            ),
        }
    }
}

impl std::error::Error for ShrinkError {}

/// Takes faults away from a failing run until none can be taken without it being well.
///
/// # Errors
/// [`ShrinkError`] when the run does not fail, or cannot be given again.
pub fn shrink(scenario: &dyn Scenario, case: &Case) -> Result<Shrunk, ShrinkError> {
    let first = scenario.play(case);
    if first.is_kept() {
        return Err(ShrinkError::Kept);
    }
    if first.unrecorded > 0 {
        return Err(ShrinkError::Unrecorded(first.unrecorded));
    }
    // What a size drew is told from here on, so that nothing is drawn again.
    let options = first.options.parse().unwrap_or_else(|_| case.options.clone());
    let again = Case { options, faults: None };
    let mut runs = 1;
    let mut last: Option<Verdict> = None;
    let mut fails = |faults: &[Fault]| {
        if runs >= SHRINK_RUNS_MAX {
            return false;
        }
        runs += 1;
        let verdict = scenario.play(&Case { faults: Some(faults.to_vec()), ..again.clone() });
        let is_broken = !verdict.is_kept();
        if is_broken {
            last = Some(verdict);
        }
        is_broken
    };
    let mut all = first.struck.clone();
    all.sort_unstable();
    all.dedup();
    if !fails(&all) {
        return Err(ShrinkError::NotAgain);
    }
    let before = all.len();
    let faults = least(all, &mut fails);
    Ok(Shrunk {
        scenario: scenario.name(),
        options: first.options,
        before,
        faults,
        broken: last.map_or(first.broken, |verdict| verdict.broken),
        is_least: runs < SHRINK_RUNS_MAX,
        runs,
    })
}

/// Takes items away while what is left still fails: halves first, then ever smaller parts, at last
/// one by one (Zeller's ddmin). Without any one of what it returns it does not fail.
pub fn least<T: Clone>(items: Vec<T>, fails: &mut impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut items = items;
    if items.is_empty() || fails(&[]) {
        return Vec::new();
    }
    let mut parts = 2;
    while items.len() > 1 {
        let size = items.len().div_ceil(parts);
        let Some(left) = smaller(&items, size, fails) else {
            if size == 1 {
                break;
            }
            parts = (parts * 2).min(items.len());
            continue;
        };
        // A part alone is split in two again; with a part less, the parts stay as they are.
        parts = if left.len() <= size { 2 } else { (parts - 1).max(2) };
        items = left;
    }
    items
}

/// A part that fails alone, or the rest that fails without one.
fn smaller<T: Clone>(
    items: &[T],
    size: usize,
    fails: &mut impl FnMut(&[T]) -> bool,
) -> Option<Vec<T>> {
    // A single item alone comes up as the rest without the other, where there are two.
    if size > 1 || items.len() > 2 {
        for part in items.chunks(size) {
            if part.len() < items.len() && fails(part) {
                return Some(part.to_vec());
            }
        }
    }
    for start in (0..items.len()).step_by(size) {
        let end = (start + size).min(items.len());
        let (before, after) = (items.get(..start)?, items.get(end..)?);
        let rest = [before, after].concat();
        if fails(&rest) {
            return Some(rest);
        }
    }
    None
}

impl Shrunk {
    /// The kinds that are left.
    pub fn kinds(&self) -> Vec<FaultKind> {
        self.faults.iter().map(|fault| fault.kind).collect()
    }

    /// A test that fails while the defect is there, ready to be pasted. `path` is the scenario as
    /// Rust names it, such as `twinspan_sim::scenario::Echo`.
    pub fn regression_test(&self, path: &str) -> String {
        let name = self.scenario.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let seed = self.options.split(' ').next().unwrap_or_default().replace('=', "_");
        let mut text = format!(
            "#[test]\nfn {name}_{seed}_keeps_its_promises() {{\n    \
             let options = {:?};\n    let faults = [\n",
            self.options
        );
        for fault in &self.faults {
            text += &format!("        {:?},\n", fault.to_string());
        }
        text += &format!(
            "    ];\n    \
             let case = twinspan_sim::scenario::Case::listed(options, &faults).unwrap();\n    \
             let verdict = twinspan_sim::scenario::Scenario::play(&{path}, &case);\n    \
             assert_eq!(verdict.broken, Vec::<String>::new());\n}}\n"
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shrunk(count: u32, needed: &[u32]) -> (Vec<u32>, usize) {
        let mut runs = 0;
        let left = least((0..count).collect(), &mut |items: &[u32]| {
            runs += 1;
            needed.iter().all(|one| items.contains(one))
        });
        (left, runs)
    }

    #[test]
    fn what_is_needed_is_left_and_nothing_else() {
        for needed in [
            &[][..],
            &[0],
            &[999],
            &[3, 4],
            &[0, 999],
            &[1, 500, 998],
            &[10, 11, 12, 13, 400, 401, 900],
        ] {
            assert_eq!(shrunk(1_000, needed).0, needed);
        }
        assert_eq!(shrunk(1, &[0]).0, [0]);
        assert_eq!(shrunk(2, &[0, 1]).0, [0, 1]);
        assert_eq!(shrunk(0, &[]).0, [0; 0]);
    }

    #[test]
    fn two_of_a_thousand_take_few_runs() {
        for (one, other) in [(0, 1), (0, 999), (499, 500), (123, 877)] {
            let (_, runs) = shrunk(1_000, &[one, other]);
            assert!(runs < 150, "{runs} runs for {one} and {other}");
        }
    }

    #[test]
    fn what_fails_for_other_reasons_too_ends_with_a_least_part_of_it() {
        // Fails with any two that are next to one another: ever another pair may be left.
        let mut fails = |items: &[u32]| items.windows(2).any(|pair| pair[1] == pair[0] + 1);
        let left = least((0..300).collect(), &mut fails);
        assert_eq!(left.len(), 2);
        assert_eq!(left[1], left[0] + 1);
    }
}
