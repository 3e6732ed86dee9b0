//! What a process asks of the machine: one core, a scheduling class that others do not disturb.

use anyhow::Result;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Pins this process to `core`. The scheduling class is inherited from who started it (`chrt`).
pub fn settle(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// Resident memory in bytes.
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0u64);
    pages * 4_096
}
