//! What a session did, in numbers.

use std::time::Duration;

use twinspan_circuit::{CircuitStats, StrangerStats};

/// What a session did so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionSummary {
    /// From login's answer to the arrival in the first region; `None` before that.
    pub handshake: Option<Duration>,
    /// From login's answer to the first object that was told of; `None` before that.
    pub first_object: Option<Duration>,
    /// Since login's answer.
    pub lasted: Duration,
    /// Names of the regions that said what they are, in the order in which they did.
    pub regions: Vec<String>,
    /// Circuits that were opened.
    pub circuits: u64,
    /// Circuits that are open.
    pub circuits_now: usize,
    /// The counters of all circuits together.
    pub stats: CircuitStats,
    /// Datagrams of who has no circuit.
    pub strangers: StrangerStats,
    /// The smoothed round trip to the region that the avatar is in or was in last; `None` before a
    /// ping was answered.
    pub rtt: Option<Duration>,
    /// Bytes that the kernel granted for datagrams that came and were not read yet; 0 without a
    /// socket.
    pub receive_buffer_bytes: usize,
    /// Capabilities of the first region that gave any.
    pub caps: usize,
    /// Messages of event queues.
    pub queue_messages: u64,
    /// Polls of event queues that failed.
    pub queue_failures: u64,
    /// Seeds of regions that were dropped, for no circuit came or too many waited for theirs.
    pub seeds_dropped: u64,
    /// Teleports to other regions.
    pub teleports: u64,
    /// Crossings.
    pub crossings: u64,
    /// Journeys that came to nothing.
    pub travel_failures: u64,
    /// Events and messages at a wrong time, from a wrong region or for somebody else.
    pub stale_events: u64,
    /// Messages with numbers that this library does not know, among those that somebody read.
    pub messages_unknown: u64,
    /// Messages that could not be read, among those that somebody read.
    pub decode_errors: u64,
}
