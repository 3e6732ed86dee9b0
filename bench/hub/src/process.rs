//! Processes, cores, and what the kernel says of them.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// The cores that this process may use.
pub fn cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Keeps this thread, and those that it starts, on one core.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None::<Pid>, &set)?)
}

/// The kernel ends this process when its parent ends.
pub fn end_with_parent() -> Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// A port that nobody uses now, neither for TCP nor for UDP.
pub fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free for both TCP and UDP")
}

/// Processor time of this process.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// Processor time of this process's children that have ended.
pub fn children_cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<u64> =
        behind.split_whitespace().skip(1).map(|word| word.parse().unwrap_or(0)).collect();
    // `cutime` and `cstime`, the 16th and 17th field of the line.
    ticks(fields.get(12).copied().unwrap_or(0) + fields.get(13).copied().unwrap_or(0))
}

/// Processor time that the machine has spent on anything.
pub fn machine_busy() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> = first.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // User, nice, system; then idle and waiting; then interrupts.
    ticks(
        fields
            .iter()
            .enumerate()
            .filter(|(at, _)| matches!(at, 0..=2 | 5..=6))
            .map(|(_, it)| it)
            .sum(),
    )
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 1_000 / rustix::param::clock_ticks_per_second().max(1))
}

/// The kernel's request for the latency of processors, at 0 while this lives.
pub struct Guard(#[expect(dead_code, reason = "it is open, which is all")] File);

impl Guard {
    pub fn request() -> Result<Self> {
        let mut file = OpenOptions::new().write(true).open("/dev/cpu_dma_latency")?;
        file.write_all(&0_i32.to_ne_bytes())?;
        Ok(Self(file))
    }
}

/// The other process of a run, which ends with this.
pub struct Other {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Other {
    pub fn start(args: &[String]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("other")
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("the other process has no output")?;
        Ok(Self { child, lines: BufReader::new(out).lines() })
    }

    fn line(&mut self) -> Result<String> {
        Ok(self.lines.next().context("the other process ended early")??)
    }

    pub fn expect(&mut self, word: &str) -> Result<()> {
        let line = self.line()?;
        if line != word {
            bail!("the other process said `{line}`, not `{word}`");
        }
        Ok(())
    }

    /// What it counted, which it says last.
    pub fn counted<T: serde::de::DeserializeOwned>(&mut self) -> Result<T> {
        let counted = serde_json::from_str(&self.line()?)?;
        // Its processor time counts as ours once it was waited for.
        let _ = self.child.wait();
        Ok(counted)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A broker that a library needs, which ends with this, and with this process.
pub struct Broker(Child);

impl Broker {
    pub fn start(program: &str, args: &[&str]) -> Result<Self> {
        // `setpriv` is there so that a broker does not outlive a run that was killed.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", program])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Self(child))
    }

    /// Whether it has ended by itself.
    pub fn is_over(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|status| status.is_some())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
