//! What a simulation is made of, and the limits it keeps.

use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_provider::WallTime;

use crate::segment::TcpMode;

/// Hosts of one simulation.
pub const HOSTS_MAX: usize = 1 << 20;
/// Tasks that live at the same time.
pub const TASKS_MAX: usize = 1 << 20;
/// Timers that live at the same time.
pub const TIMERS_MAX: usize = 1 << 21;
/// Datagram sockets that are bound at the same time.
pub const SOCKETS_MAX: usize = 1 << 20;
/// Every datagram takes at least this long, so that two hosts that answer one another at once do
/// not stop time.
pub const WIRE_DELAY_MIN: Duration = Duration::from_micros(1);
/// How long a datagram takes from a host to itself. That way is clean whatever the conditions
/// between hosts are, unless [`Sim::set_link`](crate::Sim::set_link) says otherwise.
pub const LOOPBACK_DELAY: Duration = Duration::from_micros(10);

/// What a simulation starts from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimConfig {
    /// Everything that is drawn is drawn from this.
    pub seed: u64,
    /// What every link between two hosts is like at first.
    pub conditions: Conditions,
    /// Datagrams on all links together; what comes on top is dropped and counted.
    pub in_flight_max: usize,
    /// Datagrams that wait in one socket, besides the bytes that it was granted.
    pub receive_queue_datagrams_max: usize,
    /// Share of send calls with several datagrams that take only some of them, 0 to 1.
    pub short_send: f64,
    /// Share of send calls that take nothing until a moment later, 0 to 1.
    pub send_stall: f64,
    /// Share of reads from and writes to streams that move only a part of what they could, 0 to 1.
    pub short_stream: f64,
    /// Share of connections that a listener refuses though it is there, 0 to 1.
    pub connect_refuse: f64,
    /// Share of the pieces of streams, each of up to 16 KiB, that something on the way turns into a
    /// reset of both ends, 0 to 1.
    pub stream_reset: f64,
    /// What who connects to a listener with a full backlog gets.
    pub full_backlog: FullBacklog,
    /// How long a peer that is owed an answer may stay silent before a stream has timed out, unless
    /// its options say otherwise.
    pub stream_give_up: Duration,
    /// How streams travel, unless [`Sim::set_tcp_mode`](crate::Sim::set_tcp_mode) says otherwise for
    /// two hosts.
    pub tcp: TcpMode,
    /// After how long a silence an end of a stream asks whether its peer is there, unless its options
    /// say otherwise; never where none.
    pub tcp_keepalive: Option<Duration>,
    /// Whether ends by segments understand congestion marks (ECN), so that queues may mark theirs.
    pub tcp_ecn: bool,
    /// How long the name servers take to answer, where no host is one.
    pub name_delay: Duration,
    /// Share of lookups that the name servers fail, in one of three ways, 0 to 1.
    pub name_failure: f64,
    /// What the hosts' wall clocks show when the simulation begins.
    pub wall_start: WallTime,
    /// What a task that panics does.
    pub on_panic: OnPanic,
}

/// What a task that panics does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnPanic {
    /// The panic goes on, and says which task of which host it was, when, and with what seed.
    #[default]
    Raise,
    /// Its host crashes, as by a power cut, and starts again if it knows how to;
    /// [`Sim::panics`](crate::Sim::panics) tells of it.
    CrashHost,
}

/// What a listener with a full backlog does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FullBacklog {
    /// Nothing: who connects tries again until he gives up, as with Linux.
    #[default]
    Hang,
    /// It refuses.
    Refuse,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            conditions: Conditions::CLEAN,
            in_flight_max: 1 << 18,
            receive_queue_datagrams_max: 4_096,
            short_send: 0.02,
            send_stall: 0.0,
            short_stream: 0.02,
            connect_refuse: 0.0,
            stream_reset: 0.0,
            full_backlog: FullBacklog::Hang,
            stream_give_up: Duration::from_secs(60),
            tcp: TcpMode::Streams,
            tcp_keepalive: None,
            tcp_ecn: false,
            name_delay: Duration::from_millis(5),
            name_failure: 0.0,
            // The first of January 2026.
            wall_start: WallTime::from_unix_nanos(1_767_225_600_000_000_000),
            on_panic: OnPanic::Raise,
        }
    }
}
