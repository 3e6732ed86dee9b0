//! The scheduling class of the calling thread.

use std::io;
use std::mem;

use super::outcome;

/// The policy and the priority of the calling thread, as the kernel numbers them.
pub(crate) fn class() -> io::Result<(libc::c_int, libc::c_int)> {
    // SAFETY: no argument is a pointer; 0 means the calling thread.
    let policy = unsafe { libc::sched_getscheduler(0) };
    outcome(policy)?;
    // SAFETY: `sched_param` is a plain C struct of integers; all zeroes is a value of it.
    let mut param: libc::sched_param = unsafe { mem::zeroed() };
    // SAFETY: `param` is a live sched_param, borrowed mutably for the call; 0 means the calling
    // thread.
    outcome(unsafe { libc::sched_getparam(0, &raw mut param) })?;
    Ok((policy, param.sched_priority))
}

/// Asks for the first-in-first-out class at `priority` for the calling thread. Threads and processes
/// that it starts begin in the usual class, or in this one where `inherited`.
pub(crate) fn ask_for_fifo(priority: libc::c_int, inherited: bool) -> io::Result<()> {
    // SAFETY: `sched_param` is a plain C struct of integers; all zeroes is a value of it.
    let mut param: libc::sched_param = unsafe { mem::zeroed() };
    param.sched_priority = priority;
    let reset = if inherited { 0 } else { libc::SCHED_RESET_ON_FORK };
    let policy = libc::SCHED_FIFO | reset;
    // SAFETY: `param` is a live sched_param for the whole call and the kernel only reads it; 0
    // means the calling thread.
    outcome(unsafe { libc::sched_setscheduler(0, policy, &raw const param) }).map(|_| ())
}
