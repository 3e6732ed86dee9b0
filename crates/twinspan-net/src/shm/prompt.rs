//! Short turns on the processor, for a thread that has little to do and that others wait for.
//!
//! Where all cores are busy, a thread that wakes up waits until one of those that run has had its
//! turn, some milliseconds. One that asked for shorter turns is let in before: it gets no more of
//! the processor than others, but sooner. Linux does so since 6.12; before that nothing changes.
#![expect(unsafe_code, reason = "two system calls that no safe crate offers")]

use std::mem;

/// The shortest turn that the kernel grants, in nanoseconds.
const TURN_NS: u64 = 100_000;
/// The policy of a thread that shares the processor with all others.
const SCHED_OTHER: u32 = 0;

/// How a thread is scheduled, in the first version of the kernel's structure.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Attributes {
    bytes: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// The length of a turn in nanoseconds.
    runtime: u64,
    deadline: u64,
    period: u64,
}

const BYTES: u32 = mem::size_of::<Attributes>() as u32;
const _: () = assert!(BYTES == 48);

/// How the calling thread is scheduled; `None` where the kernel does not say.
fn attributes() -> Option<Attributes> {
    let mut found = Attributes::default();
    // SAFETY: `found` is writable and lives for the whole call, and the length says its 48 bytes;
    // thread 0 is the calling one.
    let status = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut found, BYTES, 0) };
    (status == 0).then_some(found)
}

/// Schedules the calling thread so; false when the kernel refuses.
fn apply(wanted: &Attributes) -> bool {
    // SAFETY: `wanted` lives for the whole call and begins with its own length, beyond which the
    // kernel reads nothing; thread 0 is the calling one.
    let status = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const *wanted, 0) };
    status == 0
}

/// The calling thread has short turns while this lives; a thread with real-time priority, which
/// needs none, stays as it is.
#[derive(Debug)]
pub(super) struct ShortTurns {
    /// What to go back to.
    before: Option<Attributes>,
}

impl ShortTurns {
    pub(super) fn take() -> Self {
        let before = attributes().filter(|it| it.policy == SCHED_OTHER && it.runtime != TURN_NS);
        let taken =
            before.filter(|it| apply(&Attributes { bytes: BYTES, runtime: TURN_NS, ..*it }));
        Self { before: taken }
    }
}

impl Drop for ShortTurns {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // A kernel that granted the one grants the other, which is what it gave before.
            let _ = apply(&Attributes { bytes: BYTES, ..*before });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_short_for_a_while_and_then_as_before() {
        let Some(before) = attributes().filter(|it| it.policy == SCHED_OTHER && it.runtime > 0)
        else {
            println!("skipped: this kernel tells no turns, or this thread has real-time priority");
            return;
        };
        let turns = ShortTurns::take();
        assert_eq!(attributes().map(|it| it.runtime), Some(TURN_NS));
        let inner = ShortTurns::take();
        assert_eq!(inner.before, None, "they are short already");
        drop(inner);
        assert_eq!(attributes().map(|it| it.runtime), Some(TURN_NS));
        drop(turns);
        assert_eq!(attributes(), Some(before));
    }
}
