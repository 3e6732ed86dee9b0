//! What a simulation is made of, and the limits it keeps.

use std::time::Duration;

use twinspan_core::link::Conditions;

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
        }
    }
}
