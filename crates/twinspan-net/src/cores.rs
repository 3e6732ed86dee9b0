//! Where a thread runs and how urgently, and what of that the system granted.

use std::fmt;
use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::sys;

/// The processor cores that the calling thread may run on, in ascending order.
///
/// # Errors
/// What the operating system says.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Lets the calling thread run on `core` alone.
///
/// # Errors
/// `InvalidInput` when there is no such core or this process may not use it, or what else the
/// operating system says.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    if core >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// How the system orders a thread among others that want its core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchedulingClass {
    /// The usual class: cores are shared fairly.
    Other,
    /// Ahead of the usual class, until it waits; 1 to 99, the highest first.
    Fifo(u8),
    /// Ahead of the usual class, in turns with its equals.
    RoundRobin(u8),
    /// A class that this program has no name for.
    Unknown,
}

impl fmt::Display for SchedulingClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other => f.write_str("other"),
            Self::Fifo(priority) => write!(f, "fifo {priority}"),
            Self::RoundRobin(priority) => write!(f, "round-robin {priority}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// The scheduling class of the calling thread.
pub fn scheduling_class() -> SchedulingClass {
    let Ok((policy, priority)) = sys::class() else { return SchedulingClass::Unknown };
    let priority = u8::try_from(priority).unwrap_or(0);
    match policy & !libc::SCHED_RESET_ON_FORK {
        libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE => SchedulingClass::Other,
        libc::SCHED_FIFO => SchedulingClass::Fifo(priority),
        libc::SCHED_RR => SchedulingClass::RoundRobin(priority),
        _ => SchedulingClass::Unknown,
    }
}

/// Why the first-in-first-out class was not granted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FifoError {
    /// The priority is none.
    #[error("priority {0} is not from 1 to 99")]
    Priority(u8),
    /// The process lacks the privilege.
    #[error("not permitted to use the fifo class; grant CAP_SYS_NICE or a limit on RTPRIO")]
    NotPermitted,
    /// Anything else the operating system says.
    #[error("cannot use the fifo class: {0}")]
    Os(#[source] io::Error),
}

/// Asks for the first-in-first-out class at `priority`, 1 to 99, for the calling thread.
///
/// Such a thread runs whenever it can. One that never waits starves what else wants its core.
///
/// # Errors
/// [`FifoError`] says why not; the class is then what it was.
pub fn request_fifo(priority: u8) -> Result<(), FifoError> {
    ask(priority, false)
}

/// The same for the threads and processes too that the calling thread starts from now on.
///
/// # Errors
/// [`FifoError`] says why not; the class is then what it was.
pub fn request_fifo_inherited(priority: u8) -> Result<(), FifoError> {
    ask(priority, true)
}

fn ask(priority: u8, inherited: bool) -> Result<(), FifoError> {
    if !(1..=99).contains(&priority) {
        return Err(FifoError::Priority(priority));
    }
    sys::ask_for_fifo(i32::from(priority), inherited).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => FifoError::NotPermitted,
        _ => FifoError::Os(error),
    })
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_pinned_thread_may_run_on_its_core_alone() {
        thread::spawn(|| {
            let cores = allowed_cores().unwrap();
            let last = *cores.last().unwrap();
            pin_to_core(last).unwrap();
            assert_eq!(allowed_cores().unwrap(), [last]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_core_that_is_not_there_is_refused() {
        for core in [CpuSet::MAX_CPU - 1, CpuSet::MAX_CPU, usize::MAX] {
            let error = pin_to_core(core).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "core {core}");
        }
    }

    #[test]
    fn a_thread_begins_in_the_class_that_its_maker_passes_on() {
        thread::spawn(|| {
            let class = || thread::spawn(scheduling_class).join().unwrap();
            let before = class();
            match request_fifo(1) {
                Err(FifoError::NotPermitted) => {
                    println!("skipped: this user may not use the fifo class");
                    return;
                }
                other => other.unwrap(),
            }
            assert_eq!(class(), before);
            request_fifo_inherited(1).unwrap();
            assert_eq!(class().to_string(), "fifo 1");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_class_is_what_was_granted() {
        thread::spawn(|| {
            let before = scheduling_class();
            match request_fifo(1) {
                Ok(()) => assert_eq!(scheduling_class().to_string(), "fifo 1"),
                Err(FifoError::NotPermitted) => {
                    println!("skipped: this user may not use the fifo class");
                    assert_eq!(scheduling_class(), before);
                }
                Err(error) => panic!("fifo is granted or not permitted, not: {error}"),
            }
            for priority in [0, 100] {
                assert!(matches!(request_fifo(priority), Err(FifoError::Priority(_))));
            }
        })
        .join()
        .unwrap();
    }
}
