//! What the kernel says of this process and of the machine.

use std::fs;
use std::time::Duration;

/// Processor time that this process has used, all threads, in user and kernel mode.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// Most memory that this process has had resident so far, in bytes; `None` where the kernel does
/// not say.
pub fn resident_bytes_max() -> Option<u64> {
    field_kib(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Memory that this process has resident now, in bytes; `None` where the kernel does not say.
pub fn resident_bytes() -> Option<u64> {
    field_kib(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Time in which threads of this process were ready to run and something else ran; `None` where the
/// kernel does not say.
pub fn waited_time() -> Option<Duration> {
    let mut nanos = 0_u64;
    for task in fs::read_dir("/proc/self/task").ok()?.flatten() {
        // A thread may have ended since the folder was read.
        let line = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        nanos = nanos.saturating_add(waited(&line).unwrap_or(0));
    }
    Some(Duration::from_nanos(nanos))
}

/// The second number of a thread's `schedstat`.
fn waited(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().nth(1)?.parse().ok()
}

/// The number behind `name` in a table of kibibytes, in bytes.
fn field_kib(table: &str, name: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// Time that the machine's processors were ready to run but the host ran somebody else; `None`
/// where the kernel does not say. Counts in steps of 10 ms.
pub fn stolen_time() -> Option<Duration> {
    stolen(&fs::read_to_string("/proc/stat").ok()?)
}

fn stolen(stat: &str) -> Option<Duration> {
    let ticks: u64 =
        stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().nth(7)?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis(ticks.saturating_mul(1_000) / per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_tables_are_read() {
        let status = "Name:\ttwinspan\nVmHWM:\t   12345 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(field_kib(status, "VmHWM:"), Some(12_345 * 1_024));
        assert_eq!(field_kib(status, "VmSwap:"), None);
        let stat = "cpu  1 2 3 4 5 6 7 800 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        let ticks = rustix::param::clock_ticks_per_second();
        assert_eq!(stolen(stat), Some(Duration::from_millis(800_000 / ticks)));
        assert_eq!(stolen("cpu  1 2\n"), None);
        assert_eq!(waited("21264404 5849 263\n"), Some(5_849));
        assert_eq!(waited(""), None);
    }
}
