//! The simulator's ruler: events for each second of processor time, a world of many clients
//! against real time, seeds a minute, and how long it takes to shrink a failing run.
//!
//! Each part runs in a process of its own, one after the other, so that its memory is its own.

mod echo;
mod seeds;
mod streams;
mod world;

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use twinspan_core::link::Conditions;

use crate::child::Child;
use crate::error::BenchError;
use crate::lines::{Parent, write_line};
use crate::process;

/// Clients of the two echoes.
pub const ECHO_CLIENTS: u8 = 100;
/// Clients of the world at most.
pub const WORLD_CLIENTS_MAX: u32 = 20_000;
/// The seed of every part.
const SEED: u64 = 1;

/// What is measured, each in a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SimPart {
    /// Machines under the drive loop.
    Machines,
    /// Async functions on streams.
    Streams,
    /// The world, its packets protected by the simulator's tag.
    World,
    /// The same with the real ciphers.
    Sealed,
    /// Seeds of a small scenario.
    Seeds,
    /// The shrinking of a long run.
    Shrink,
}

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct SimOptions {
    /// Clients of the world.
    pub world_clients: u32,
    /// Virtual seconds of the world that are measured, after all have come in.
    pub world_seconds: u64,
    /// Virtual seconds of each echo that are measured.
    pub echo_seconds: u64,
    /// This part alone; all without it.
    pub part: Option<SimPart>,
}

/// What came of it; what was not measured is left out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SimSummary {
    /// Trace events of machines under the drive loop: 100 clients send 100 bytes at 60 Hz over a
    /// rough network, one host sends them back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_events_per_cpu_second: Option<f64>,
    /// Trace events of async functions on streams: 100 clients write a KiB, one host reads it and
    /// writes it back, over 1 to 10 ms each way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub async_events_per_cpu_second: Option<f64>,
    /// Messages of that, there and back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub async_messages_per_cpu_second: Option<f64>,
    /// Virtual time of that to processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub async_times_real_time: Option<f64>,
    /// Clients of the world, each on a host of its own with a session and a replica.
    pub world_clients: u32,
    /// Those that stood in the world when the measurement began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub world_connected: Option<u32>,
    /// Virtual time to processor time, packets protected by the simulator's tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub world_times_real_time: Option<f64>,
    /// The same with the real ciphers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub world_times_real_time_aead: Option<f64>,
    /// Trace events of the world for each second of processor time, with the tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub world_events_per_cpu_second: Option<f64>,
    /// Most memory of the process of the world with the tag, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub world_rss_mb: Option<f64>,
    /// Bytes that each of its clients takes from the allocator, what the network and the server keep
    /// for it included; left out where nobody counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub world_bytes_per_client: Option<f64>,
    /// The cipher of the world with real ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub world_cipher: Option<String>,
    /// Seeds of the scenario `echo` in a minute of processor time, each with faults of its own and
    /// the time after their healing in which all must settle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeds_per_minute: Option<f64>,
    /// Processor time to shrink a failing run of the scenario `planted`, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shrink_seconds: Option<f64>,
    /// Faults that struck in that run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shrink_faults_before: Option<u64>,
    /// Those that were left: without any one of them it does not fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shrink_faults_after: Option<u64>,
}

/// What a process is told to measure.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Part {
    Echo { seconds: u64 },
    Streams { seconds: u64 },
    World { clients: u32, seconds: u64, real_ciphers: bool },
    Seeds,
    Shrink,
}

/// What it says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Measured {
    /// Trace events while it was measured.
    events: u64,
    /// Virtual nanoseconds.
    virtual_nanos: u64,
    /// Nanoseconds of processor time.
    cpu_nanos: u64,
    /// What the part counts besides: messages, clients that came in, seeds, faults that are left.
    count: u64,
    /// Faults that there were before.
    before: u64,
    /// Most memory of the process, in bytes.
    resident_bytes: u64,
    /// Bytes that were taken from the allocator and are out; 0 where nobody counts.
    live_bytes: u64,
    cipher: String,
}

impl Measured {
    /// The same, having taken that much processor time.
    fn taking(self, cpu: Duration) -> Self {
        Self { cpu_nanos: nanos(cpu), ..self }
    }

    fn per_cpu_second(&self, count: u64) -> f64 {
        count as f64 * 1e9 / self.cpu_nanos.max(1) as f64
    }

    fn times_real_time(&self) -> f64 {
        self.virtual_nanos as f64 / self.cpu_nanos.max(1) as f64
    }
}

/// Measures each part in a process of its own.
///
/// # Errors
/// [`BenchError`] when a process cannot be run or a machine cannot be set up.
pub fn run(options: SimOptions) -> Result<SimSummary, BenchError> {
    let SimOptions { world_clients: clients, world_seconds: seconds, echo_seconds, part } = options;
    if !(1..=WORLD_CLIENTS_MAX).contains(&clients) {
        return Err(BenchError::Clients { players: clients, max: WORLD_CLIENTS_MAX });
    }
    let wants = |one| part.is_none_or(|part| part == one);
    let mut summary = SimSummary { world_clients: clients, ..SimSummary::default() };
    if wants(SimPart::Machines) {
        let echo = measure(Part::Echo { seconds: echo_seconds })?;
        summary.machine_events_per_cpu_second = Some(echo.per_cpu_second(echo.events));
    }
    if wants(SimPart::Streams) {
        let streams = measure(Part::Streams { seconds: echo_seconds })?;
        summary.async_events_per_cpu_second = Some(streams.per_cpu_second(streams.events));
        summary.async_messages_per_cpu_second = Some(streams.per_cpu_second(streams.count));
        summary.async_times_real_time = Some(streams.times_real_time());
    }
    if wants(SimPart::World) {
        let world = measure(Part::World { clients, seconds, real_ciphers: false })?;
        summary.world_connected = Some(u32::try_from(world.count).unwrap_or(u32::MAX));
        summary.world_times_real_time = Some(world.times_real_time());
        summary.world_events_per_cpu_second = Some(world.per_cpu_second(world.events));
        summary.world_rss_mb = Some(world.resident_bytes as f64 / f64::from(1 << 20));
        summary.world_bytes_per_client =
            (world.live_bytes > 0).then(|| world.live_bytes as f64 / f64::from(clients));
    }
    if wants(SimPart::Sealed) {
        let sealed = measure(Part::World { clients, seconds, real_ciphers: true })?;
        summary.world_times_real_time_aead = Some(sealed.times_real_time());
        summary.world_cipher = Some(sealed.cipher);
    }
    if wants(SimPart::Seeds) {
        let swept = measure(Part::Seeds)?;
        summary.seeds_per_minute = Some(swept.per_cpu_second(swept.count) * 60.0);
    }
    if wants(SimPart::Shrink) {
        let shrunk = measure(Part::Shrink)?;
        summary.shrink_seconds = Some(shrunk.cpu_nanos as f64 / 1e9);
        summary.shrink_faults_before = Some(shrunk.before);
        summary.shrink_faults_after = Some(shrunk.count);
    }
    Ok(summary)
}

fn measure(part: Part) -> Result<Measured, BenchError> {
    let mut child = Child::start("sim-part")?;
    child.tell(&part)?;
    child.hear()
}

/// One part, as the parent says.
///
/// # Errors
/// [`BenchError`] when it cannot be measured or the parent is not to be understood.
pub fn run_part() -> Result<(), BenchError> {
    let mut measured = match Parent::default().hear()? {
        Part::Echo { seconds } => echo::run(Duration::from_secs(seconds)),
        Part::Streams { seconds } => streams::run(Duration::from_secs(seconds)),
        Part::World { clients, seconds, real_ciphers } => {
            world::run(clients, Duration::from_secs(seconds), real_ciphers)?
        }
        Part::Seeds => seeds::run(),
        Part::Shrink => seeds::shrink_long_run()?,
    };
    measured.resident_bytes = process::resident_bytes_max().unwrap_or(0);
    Ok(write_line(&mut io::stdout().lock(), &measured)?)
}

/// The network of the echo of machines and of the world: 1 % lost, 0.1 % twice, 5 to 45 ms.
const ROUGH: Conditions = Conditions {
    loss: 0.01,
    delay: Duration::from_millis(5),
    jitter: Duration::from_millis(40),
    duplicate: 0.001,
    ..Conditions::CLEAN
};

/// Lets the simulation run for `time` and says what that cost.
fn meter(sim: &mut twinspan_sim::Sim, time: Duration) -> Measured {
    let (events, began) = (sim.events(), process::cpu_time());
    sim.run_for(time);
    let cpu = process::cpu_time().saturating_sub(began);
    let events = sim.events() - events;
    Measured { events, virtual_nanos: nanos(time), ..Measured::default() }.taking(cpu)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl SimSummary {
    /// The summary as a table for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Some(events) = self.machine_events_per_cpu_second {
            text += &format!(
                "machines   {:.2} million events a second of processor time\n",
                events / 1e6
            );
        }
        if let (Some(events), Some(messages)) =
            (self.async_events_per_cpu_second, self.async_messages_per_cpu_second)
        {
            text += &format!(
                "async      {:.2} million events, {:.2} million messages a second of processor time\n",
                events / 1e6,
                messages / 1e6,
            );
        }
        if let (Some(connected), Some(times), Some(events)) =
            (self.world_connected, self.world_times_real_time, self.world_events_per_cpu_second)
        {
            text += &format!(
                "world      {connected} of {} clients in; {times:.2} times real time with the \
                 simulator's tag\n\
                 \u{20}          {:.2} million events a second of processor time, {:.0} MiB at most, \
                 {:.1} KiB a client\n",
                self.world_clients,
                events / 1e6,
                self.world_rss_mb.unwrap_or_default(),
                self.world_bytes_per_client.unwrap_or_default() / 1_024.0,
            );
        }
        if let (Some(times), Some(cipher)) = (self.world_times_real_time_aead, &self.world_cipher) {
            text += &format!("sealed     the same {times:.2} times real time with {cipher}\n");
        }
        if let Some(seeds) = self.seeds_per_minute {
            text += &format!("seeds      {seeds:.0} a minute of processor time\n");
        }
        if let (Some(seconds), Some(before), Some(after)) =
            (self.shrink_seconds, self.shrink_faults_before, self.shrink_faults_after)
        {
            text +=
                &format!("shrinking  {after} of {before} faults are left after {seconds:.2} s\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_functions_of_their_arguments() {
        for run in [echo::run, streams::run] {
            let (first, again) = (run(Duration::from_secs(1)), run(Duration::from_secs(1)));
            assert!(first.events > 1_000, "{first:?}");
            assert_eq!((first.events, first.count), (again.events, again.count));
        }
        let small = || world::run(5, Duration::from_secs(1), false).unwrap();
        let (first, again) = (small(), small());
        assert_eq!((first.events, first.count), (again.events, 5));
    }

    #[test]
    fn what_was_not_measured_is_left_out() {
        let summary = SimSummary {
            world_clients: 7,
            seeds_per_minute: Some(1_234.4),
            ..SimSummary::default()
        };
        assert_eq!(summary.text(), "seeds      1234 a minute of processor time\n");
        let json = serde_json::to_string(&summary).unwrap();
        assert_eq!(json, r#"{"world_clients":7,"seeds_per_minute":1234.4}"#);
    }

    #[test]
    fn of_a_thousand_faults_the_two_are_left_that_are_needed() {
        let shrunk = seeds::shrink_long_run().unwrap();
        assert!(shrunk.before > 900, "{shrunk:?}");
        assert_eq!(shrunk.count, 2, "{shrunk:?}");
    }

    #[test]
    fn shares_are_of_processor_time() {
        let measured = Measured { virtual_nanos: 3_000, cpu_nanos: 1_500, ..Measured::default() };
        assert!((measured.times_real_time() - 2.0).abs() < 1e-9);
        assert!((measured.per_cpu_second(3) - 2e6).abs() < 1e-3);
    }
}
