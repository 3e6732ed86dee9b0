//! What the processes of a measurement say to each other.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use twinspan_core::time::Timestamp;
use twinspan_game::Percentiles;
use twinspan_net::{pin_to_core, request_fifo, request_fifo_inherited, scheduling_class};

use crate::error::BenchError;

/// Real-time priority that the measured processes ask for: above programs that came by, below what
/// keeps the machine alive.
const FIFO_PRIORITY: u8 = 10;
/// The most that a thread can have without real-time scheduling.
const NICEST_TO_ITSELF: i32 = -20;

/// Where a process runs and before whom.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Placement {
    /// The processor to stay on; `None` for any.
    pub core: Option<usize>,
    /// Whether to ask for real-time scheduling.
    pub realtime: bool,
    /// Whether others on this core that ask for it go first. Real-time scheduling is not for such a
    /// one: the kernel halts a core's real-time threads, all of them, once they use 95 % of it together.
    pub last: bool,
}

impl Placement {
    /// Lets the calling thread go before those that [`apply`](Self::apply) placed: one that only
    /// takes the time must not wait for those that use it.
    pub fn go_first(self) {
        if self.realtime {
            let _ = request_fifo(FIFO_PRIORITY + 1);
        }
    }

    /// Puts the calling thread, and those that it starts, where the plan says; returns the
    /// scheduling class that was had.
    pub fn apply(self) -> Result<String, BenchError> {
        if let Some(core) = self.core {
            pin_to_core(core)?;
        }
        // Without the privilege the run goes on and says what it had.
        if self.realtime && self.last {
            let _ = rustix::process::setpriority_process(None, NICEST_TO_ITSELF);
        } else if self.realtime {
            let _ = request_fifo_inherited(FIFO_PRIORITY);
        }
        Ok(scheduling_class().to_string())
    }
}

/// A span of the shared clock, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Window {
    /// Its beginning.
    pub from_nanos: u64,
    /// Its end.
    pub to_nanos: u64,
}

impl Window {
    /// Its length in seconds.
    pub fn seconds(&self) -> f64 {
        self.to_nanos.saturating_sub(self.from_nanos) as f64 / 1e9
    }
}

/// What came when: a count for each [`Spread::SPAN_NANOS`] of a window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Spread {
    from_nanos: u64,
    counts: Vec<u32>,
}

impl Spread {
    /// How finely moments are told apart.
    pub const SPAN_NANOS: u64 = 5_000_000;

    /// Nothing yet. What comes outside of the window is not counted.
    pub fn over(window: Window) -> Self {
        let spans = window.to_nanos.saturating_sub(window.from_nanos).div_ceil(Self::SPAN_NANOS);
        let spans = usize::try_from(spans).unwrap_or(0);
        Self { from_nanos: window.from_nanos, counts: vec![0; spans] }
    }

    /// One came.
    pub fn note(&mut self, at: Timestamp) {
        let since = at.as_nanos().checked_sub(self.from_nanos);
        let span = since.and_then(|since| usize::try_from(since / Self::SPAN_NANOS).ok());
        if let Some(count) = span.and_then(|span| self.counts.get_mut(span)) {
            *count += 1;
        }
    }

    /// How many came in a window.
    pub fn within(&self, window: Window) -> u64 {
        let span = |nanos: u64| {
            let since = nanos.saturating_sub(self.from_nanos);
            usize::try_from(since / Self::SPAN_NANOS).unwrap_or(usize::MAX).min(self.counts.len())
        };
        let (from, to) = (span(window.from_nanos), span(window.to_nanos));
        let counts = self.counts.get(from..to).unwrap_or_default();
        counts.iter().map(|count| u64::from(*count)).sum()
    }
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half are no longer than this.
    pub p50_ms: f64,
    /// 99 % are no longer than this.
    pub p99_ms: f64,
    /// 99.9 % are no longer than this.
    pub p999_ms: f64,
}

impl From<Percentiles> for Quantiles {
    fn from(seen: Percentiles) -> Self {
        Self { p50_ms: seen.p50_ms, p99_ms: seen.p99_ms, p999_ms: seen.p999_ms }
    }
}

/// To the server: what to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerPlan {
    /// Where it runs.
    pub placement: Placement,
    /// Players to expect; the world is made so large that each sees about forty others.
    pub players: u32,
    /// Sessions at once at most.
    pub sessions_max: u32,
    /// Connect tokens to issue.
    pub tokens: u32,
    /// Bytes of a state when there is no world, 0 for no states; `None` for the world.
    pub transport_state_bytes: Option<u32>,
    /// The relays behind which the players are; `None` when they come directly.
    pub relay: Option<RelayPlan>,
}

/// Relays, each a flow of the generator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RelayPlan {
    /// Where they speak to the server from.
    pub addresses: Vec<SocketAddr>,
    /// The trunk key. Secret.
    pub key: [u8; 32],
    /// What lengths are padded to a multiple of.
    pub pad_to: usize,
}

/// To the server, once it is ready.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum ServerOrder {
    /// Measure in this window, and report.
    Measure(Window),
    /// Tell the last counters and end.
    End,
}

/// From the server: it listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerReady {
    /// Where.
    pub address: SocketAddr,
    /// Where its clock starts, in nanoseconds of the machine's monotonic clock.
    pub epoch_nanos: u64,
    /// How its socket moves datagrams.
    pub io_path: String,
    /// Whether its socket coalesces what it receives.
    pub gro: bool,
    /// How it is scheduled.
    pub priority: String,
    /// One connect token a player, as text. Secret.
    pub tokens: Vec<String>,
    /// Resident bytes before anybody came.
    pub resident_bytes: u64,
}

/// From the server, after the window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServerReport {
    /// Processor time of the whole process in the window, in nanoseconds.
    pub cpu_nanos: u64,
    /// Time in which it was ready to run and something else ran, in nanoseconds.
    pub waited_nanos: u64,
    /// Over which the counts below were taken: the window, moved by little more than a second.
    pub counted: Window,
    /// Input messages that reached the application.
    pub inputs: u64,
    /// State messages that the schedule asked for.
    pub states_scheduled: u64,
    /// State messages that were not sent.
    pub states_unsent: u64,
    /// States of clients, of one message or several.
    pub states: u64,
    /// Sum over those of the entities in sight.
    pub visible_entities: u64,
    /// Ticks run.
    pub ticks: u64,
    /// Ticks that ended late.
    pub late_ticks: u64,
    /// Ticks left out.
    pub skipped_ticks: u64,
    /// When late ticks were scheduled, in nanoseconds of the shared clock.
    pub late_at_nanos: Vec<u64>,
    /// Median time of a tick, in microseconds.
    pub tick_p50_us: f64,
    /// 99th percentile of it.
    pub tick_p99_us: f64,
    /// One-way latency of inputs.
    pub up: Quantiles,
    /// Datagrams received.
    pub packets_in: u64,
    /// Datagrams sent.
    pub packets_out: u64,
    /// Their payload bytes at the socket.
    pub bytes_in: u64,
    /// Payload bytes sent.
    pub bytes_out: u64,
    /// Datagrams that sessions dropped.
    pub dropped: u64,
    /// HELLOs without a cookie that were answered.
    pub retries: u64,
    /// Times that memory was taken from the allocator in the window.
    pub allocations: Option<u64>,
    /// Bytes that were out at the end of the window.
    pub live_bytes: Option<i64>,
    /// Bytes that were out before anybody came.
    pub live_bytes_before: Option<i64>,
    /// Sessions at the end of the window.
    pub sessions: u64,
    /// The cipher of the sessions.
    pub cipher: String,
    /// Whether it encrypts.
    pub encrypted: bool,
    /// Resident bytes at the end of the window.
    pub resident_bytes: u64,
    /// The same a minute after the beginning of a longer window.
    pub resident_bytes_after_minute_one: Option<u64>,
    /// Most bytes ever resident.
    pub resident_bytes_max: u64,
    /// Checks of the world that failed.
    pub invariants_broken: u64,
    /// The most ticks from one state of a client to its next, 0 where nobody says.
    pub ticks_per_state_max: u8,
}

impl ServerReport {
    /// Bytes from the allocator that were out at the end of the window and not before anybody came;
    /// `None` where nobody counts.
    pub fn taken_bytes(&self) -> Option<i64> {
        Some(self.live_bytes?.saturating_sub(self.live_bytes_before?))
    }
}

/// From the server at the end.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ServerEnd {
    /// Reliable messages handed to sessions.
    pub reliable_sent: u64,
    /// Reliable messages taken from clients.
    pub reliable_received: u64,
    /// Actions out of order or twice.
    pub out_of_order: u64,
    /// Sessions closed before the end.
    pub closed: u64,
}

/// Whom the generator plays against.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Opponent {
    /// The world server: one token a player.
    World {
        /// As text. Secret.
        tokens: Vec<String>,
    },
    /// Sessions without a world: one token a player.
    Transport {
        /// As text. Secret.
        tokens: Vec<String>,
    },
    /// A floor that knows the players' keys.
    Floor {
        /// From which all keys are made. Secret.
        secret: [u8; 32],
    },
}

/// To the generator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GeneratorPlan {
    /// Where it runs.
    pub placement: Placement,
    /// The server's address.
    pub server: SocketAddr,
    /// Where the shared clock starts, in nanoseconds of the machine's monotonic clock.
    pub epoch_nanos: u64,
    /// How many players.
    pub players: u32,
    /// Sockets that they share.
    pub flows: u32,
    /// The one cipher that they offer, by its number on the wire; `None` for their measured order.
    pub cipher: Option<u8>,
    /// Whether players only log in and then say nothing.
    pub idle: bool,
    /// The windows, one after the other.
    pub windows: Vec<WindowPlan>,
    /// Tokens of those who come, see the world and leave at once. Secret.
    pub visitors: Vec<String>,
    /// Whom they play against.
    pub opponent: Opponent,
    /// The relays as which the flows speak; `None` when players come directly.
    pub relay: Option<RelayPlan>,
}

/// One window of a generator's plan.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct WindowPlan {
    /// Its length.
    pub seconds: u64,
    /// How many visitors come in it, evenly spread.
    pub visitors: u32,
}

/// From the generator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum GeneratorWord {
    /// All players are in, and this is when to measure next.
    Window(Window),
    /// What was seen.
    Report(Box<GeneratorReport>),
}

/// What the generator saw, in the window unless something else is said.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GeneratorReport {
    /// Players that came in.
    pub joined: u32,
    /// From the first HELLO until the last player was in, in milliseconds.
    pub connect_ms_max: f64,
    /// Sessions that the server closed.
    pub closed: u32,
    /// How it is scheduled.
    pub priority: String,
    /// Processor time used, in nanoseconds.
    pub cpu_nanos: u64,
    /// Time in which it was ready to run and something else ran, in nanoseconds.
    pub waited_nanos: u64,
    /// Inputs handed to the kernel.
    pub inputs_sent: u64,
    /// Inputs that the kernel had no room for.
    pub inputs_unsent: u64,
    /// Bytes of one input's message.
    pub input_bytes: u64,
    /// State messages received, by their headers.
    pub states: u64,
    /// Those of them that were decrypted.
    pub states_opened: u64,
    /// State messages that full clients applied.
    pub states_applied: u64,
    /// Their plaintext bytes with the state's own headers.
    pub states_applied_bytes: u64,
    /// Datagrams that belonged to nobody or did not authenticate.
    pub strays: u64,
    /// Messages that full clients could not decode.
    pub malformed: u64,
    /// One-way latency of states.
    pub down: Quantiles,
    /// Their age, from the tick that made them.
    pub state_age: Quantiles,
    /// Round trips of reliable actions.
    pub reliable_rtt: Quantiles,
    /// Sizes of state datagrams at even quantiles.
    pub state_datagram_bytes: Vec<u16>,
    /// Slots of the schedule that began over 5 ms late.
    pub slots_late: u64,
    /// The latest that a slot began, in milliseconds.
    pub slot_late_ms_max: f64,
    /// When it was first over 20 ms late, in nanoseconds of the shared clock.
    pub late_at_nanos: Option<u64>,
    /// Reliable messages that clients sent, over the whole run.
    pub reliable_sent: u64,
    /// Reliable messages that clients got, over the whole run.
    pub reliable_received: u64,
    /// Results out of order or twice.
    pub out_of_order: u64,
    /// State messages that came for visitors, in the window and after it.
    pub visitor_states: Spread,
    /// Visitors that came in and left.
    pub visits: u64,
    /// From a visitor's HELLO until it was in.
    pub visit: Quantiles,
}

/// To the floor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FloorPlan {
    /// Where it runs.
    pub placement: Placement,
    /// How many players.
    pub players: u32,
    /// From which all keys are made. Secret.
    pub secret: [u8; 32],
    /// The cipher, by its number on the wire.
    pub cipher: u8,
    /// Sizes of state datagrams, each as likely as the next.
    pub state_datagram_bytes: Vec<u16>,
    /// Datagrams to one player in a twentieth of a second, on average: what states really took.
    pub datagrams_per_state: f64,
}

/// To the flood: where to, how much, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FloodPlan {
    /// Where it runs.
    pub placement: Placement,
    /// The server's address.
    pub server: SocketAddr,
    /// Where the shared clock starts, in nanoseconds of the machine's monotonic clock.
    pub epoch_nanos: u64,
    /// Tokens whose HELLOs are sent over and over. Secret.
    pub tokens: Vec<String>,
    /// HELLOs in a second.
    pub per_second: u32,
    /// When.
    pub window: Window,
}

/// From the flood.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct FloodReport {
    /// HELLOs handed to the kernel.
    pub sent: u64,
    /// HELLOs that the kernel did not take.
    pub unsent: u64,
    /// Bytes of one.
    pub hello_bytes: u64,
}

/// From the floor: it listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FloorReady {
    /// Where.
    pub address: SocketAddr,
    /// Where its clock starts, in nanoseconds of the machine's monotonic clock.
    pub epoch_nanos: u64,
}

/// From the floor, after the window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FloorReport {
    /// Processor time in the window, in nanoseconds.
    pub cpu_nanos: u64,
    /// Time in which it was ready to run and something else ran, in nanoseconds.
    pub waited_nanos: u64,
    /// Datagrams received.
    pub received: u64,
    /// Those of them that authenticated and were fresh.
    pub opened: u64,
    /// Datagrams handed to the kernel.
    pub sent: u64,
    /// Time in receive calls, in nanoseconds.
    pub receive_nanos: u64,
    /// Time in send calls.
    pub send_nanos: u64,
    /// Time opening.
    pub open_nanos: u64,
    /// Time sealing.
    pub seal_nanos: u64,
    /// Processor time of going to sleep and waking up.
    pub sleep_nanos: u64,
}
