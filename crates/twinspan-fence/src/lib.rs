//! A fence around code that must be a function of its arguments: what brings in the outside is
//! refused by the kernel and named.
//!
//! [`guard`] runs a closure on a thread of its own. Before it begins, that thread gets a filter of
//! system calls (seccomp) that lets through what memory, locks, output and the thread's end take,
//! and nothing else; and the processor's time stamp counter is switched off for it, so that clocks
//! read without a system call are seen as well. A call that is not let through fails with `EPERM`,
//! is noted with where it came from, and makes the whole of [`guard`] an error whatever the closure
//! came to. It covers what libraries in C do, and costs nothing while nothing is wrong.
//!
//! ```
//! # fn main() -> Result<(), twinspan_fence::FenceError> {
//! let sum: u64 = twinspan_fence::guard(|| (1..=100_u64).sum())?;
//! assert_eq!(sum, 5_050);
//!
//! let seeded = || std::collections::HashMap::<u8, u8>::new().len();
//! let outcome = twinspan_fence::guard(seeded);
//! # if twinspan_fence::ENFORCEMENT == twinspan_fence::Enforcement::Kernel {
//! let error = outcome.expect_err("the map's seed comes from the system");
//! assert!(error.to_string().contains("getrandom"));
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! This is for x86-64 Linux. Elsewhere [`ENFORCEMENT`] says that lints alone hold, and [`guard`]
//! only runs the closure.
//!
//! # What it does not see
//! The coarse clocks and `time(2)` of the C library, which read a page that the kernel keeps
//! current; `RDRAND` and `CPUID`; on which core the thread runs; addresses of memory, which differ
//! from process to process; what the closure was given, such as a map that was made outside; the
//! environment, which is memory too. Comparing trace hashes over processes finds those.
#![deny(unsafe_code)]

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod calls;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod elsewhere;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod frames;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod sys;

use std::fmt;
use std::io;

/// What keeps the outside out on this system.
pub const ENFORCEMENT: Enforcement = if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
    Enforcement::Kernel
} else {
    Enforcement::LintsAlone
};

/// Leaks that are told one by one; the others are counted.
pub const LEAKS_TOLD_MAX: usize = 8;
/// After this many leaks of one closure the process ends: it would go on for ever.
pub const LEAKS_MAX: u64 = 10_000;
/// The status that such a process ends with.
pub const EXIT_STATUS: i32 = 86;
/// How deep the stack of one leak is told.
pub const FRAMES_MAX: usize = 64;
/// Memory for the stack of the closure.
pub const STACK_BYTES: usize = 64 << 20;

/// What keeps the outside out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Enforcement {
    /// The kernel refuses calls.
    Kernel,
    /// Nothing at run time: there are the lints, and comparing trace hashes.
    LintsAlone,
}

impl Enforcement {
    /// As a word for machines: `kernel` or `lints`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::LintsAlone => "lints",
        }
    }
}

/// One call that came through to the fence.
#[derive(Clone, PartialEq, Eq)]
pub struct Leak {
    /// The name of the system call, `rdtsc` for the time stamp counter, `call N` for one that this
    /// crate has no name for.
    pub call: String,
    /// What it would have brought in: "a clock", "entropy".
    pub what: &'static str,
    /// The innermost function that is neither the system's, nor the standard library's, nor that of
    /// a package from a registry, and where it is; `None` where nothing is known of such a one.
    pub by: Option<String>,
    /// The functions that led there, innermost first, up to the closure.
    pub frames: Vec<String>,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.call, self.what)?;
        match &self.by {
            Some(by) => write!(f, " in {by}"),
            None => Ok(()),
        }
    }
}

/// On one line: what a failed `unwrap` prints should be read.
impl fmt::Debug for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why [`guard`] has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FenceError {
    /// The closure called out; what it returned is void.
    #[error("{}", leaked(.leaks, *.count))]
    Leaked {
        /// The first leaks, in order.
        leaks: Vec<Leak>,
        /// All of them.
        count: u64,
    },
    /// The kernel does not put up the fence.
    #[error("the kernel refuses the fence ({0}); run where seccomp is allowed, or without a fence")]
    Refused(String),
    /// There is no thread for the closure.
    #[error("there is no thread to put a fence around: {0}")]
    Thread(io::Error),
}

fn leaked(leaks: &[Leak], count: u64) -> String {
    let told = leaks.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let rest = count.saturating_sub(leaks.len() as u64);
    let more = if rest > 0 { format!("; and {rest} more") } else { String::new() };
    format!("what must be a function of its seed called out: {told}{more}")
}

/// Runs `body` on a thread of its own behind the fence and returns what it returned.
///
/// # Errors
/// [`FenceError::Leaked`] when it called out, also when it panicked because of that;
/// [`FenceError::Refused`] where the kernel puts up no fence.
///
/// # Panics
/// When `body` does and did not call out.
pub fn guard<T: Send>(body: impl FnOnce() -> T + Send) -> Result<T, FenceError> {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    return frames::guard(body);
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    return elsewhere::guard(body);
}

/// Whether the calling thread is behind a fence.
pub fn is_up() -> bool {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    return sys::is_up();
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leak(call: &str, by: Option<&str>) -> Leak {
        Leak { call: call.into(), what: "a clock", by: by.map(str::to_owned), frames: Vec::new() }
    }

    #[test]
    fn a_leak_names_the_call_and_whose_it_is() {
        let one = leak("rdtsc", Some("tick at src/tick.rs:7"));
        assert_eq!(format!("{one} {one:?}"), [one.to_string(), one.to_string()].join(" "));
        let error = FenceError::Leaked { leaks: vec![one, leak("time", None)], count: 5 };
        assert_eq!(
            error.to_string(),
            "what must be a function of its seed called out: rdtsc (a clock) in tick at \
             src/tick.rs:7; time (a clock); and 3 more"
        );
    }
}
