//! A server's counters at one moment, copied into reused memory, and what happened between two.

use twinspan_core::aead::Cipher;
use twinspan_core::time::Timestamp;
use twinspan_game::{Latency, StatsSnapshot, Traffic};

use super::cipher_facts;
use crate::plan::{ServerReport, Window};
use crate::transport::TransportCounts;

/// Late ticks whose moments are kept.
const LATE_KEPT: usize = 1_024;

/// Counters of either kind of server.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) is_world: bool,
    pub(super) transport: TransportCounts,
    at: Timestamp,
    inputs: u64,
    states_scheduled: u64,
    states_unsent: u64,
    states: u64,
    visible_entities: u64,
    ticks: u64,
    late_ticks: u64,
    skipped_ticks: u64,
    late_at: Vec<Timestamp>,
    tick_time: Latency,
    up: Latency,
    traffic: Traffic,
    dropped: u64,
    retries: u64,
    sessions: u64,
    cipher: Option<Cipher>,
    invariants_broken: u64,
    pub(super) ticks_per_state: u8,
    pub(super) reliable_sent: u64,
    pub(super) reliable_received: u64,
    pub(super) out_of_order: u64,
    pub(super) closed: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            is_world: false,
            transport: TransportCounts::default(),
            at: Timestamp::START,
            inputs: 0,
            states_scheduled: 0,
            states_unsent: 0,
            states: 0,
            visible_entities: 0,
            ticks: 0,
            late_ticks: 0,
            skipped_ticks: 0,
            late_at: Vec::with_capacity(LATE_KEPT),
            tick_time: Latency::default(),
            up: Latency::default(),
            traffic: Traffic::default(),
            dropped: 0,
            retries: 0,
            sessions: 0,
            cipher: None,
            invariants_broken: 0,
            ticks_per_state: 0,
            reliable_sent: 0,
            reliable_received: 0,
            out_of_order: 0,
            closed: 0,
        }
    }
}

impl Counters {
    pub(super) fn copy_world(&mut self, from: &StatsSnapshot) {
        self.at = from.at;
        self.inputs = from.players.inputs;
        self.states_scheduled = from.stats.states_scheduled;
        self.states_unsent = from.stats.states_unsent;
        self.states = from.stats.visible_samples;
        self.visible_entities = from.stats.visible_entities;
        self.ticks = from.stats.ticks;
        self.late_ticks = from.stats.late_ticks;
        self.skipped_ticks = from.stats.skipped_ticks;
        self.late_at.clear();
        self.late_at.extend(from.stats.late_at.iter().take(LATE_KEPT));
        self.tick_time.clone_from(&from.stats.tick_time);
        self.up.clone_from(&from.players.up);
        self.dropped = from.endpoint.drops.total();
        self.retries = from.endpoint.cookie_missing;
        self.sessions = from.session_count as u64;
        self.cipher = from.cipher;
        self.invariants_broken = from.stats.invariants_broken;
        self.ticks_per_state = from.ticks_per_state;
        self.reliable_sent = from.players.reliable_sent;
        self.reliable_received = from.players.reliable_received;
        self.out_of_order = from.players.actions_out_of_order;
        self.closed = from.endpoint.closed;
    }

    pub(super) const fn copy_traffic(&mut self, traffic: Traffic) {
        self.traffic = traffic;
    }

    /// Takes over what a transport server counted, once its counts were copied.
    pub(super) fn settle(&mut self) {
        if self.is_world {
            return;
        }
        let from = &self.transport;
        self.at = from.at;
        self.inputs = from.inputs;
        self.states_scheduled = from.states;
        self.states_unsent = from.unsent;
        self.states = from.states;
        self.late_ticks = from.late;
        self.up.clone_from(&from.up);
        self.dropped = from.dropped;
        self.sessions = from.sessions;
        self.cipher = from.cipher;
        self.reliable_received = from.events;
        self.closed = from.closed;
    }

    /// What happened since `first`.
    pub(super) fn since(&self, first: &Self) -> ServerReport {
        let mut up = self.up.clone();
        up.subtract(&first.up);
        let mut tick_time = self.tick_time.clone();
        tick_time.subtract(&first.tick_time);
        let late_at = self.late_at.iter().filter(|at| **at >= first.at);
        let (cipher, encrypted) = cipher_facts(self.cipher);
        ServerReport {
            counted: Window { from_nanos: first.at.as_nanos(), to_nanos: self.at.as_nanos() },
            inputs: self.inputs - first.inputs,
            states_scheduled: self.states_scheduled - first.states_scheduled,
            states_unsent: self.states_unsent - first.states_unsent,
            states: self.states - first.states,
            visible_entities: self.visible_entities - first.visible_entities,
            ticks: self.ticks - first.ticks,
            late_ticks: self.late_ticks - first.late_ticks,
            skipped_ticks: self.skipped_ticks - first.skipped_ticks,
            late_at_nanos: late_at.map(|at| at.as_nanos()).collect(),
            tick_p50_us: tick_time.micros_at(0.5),
            tick_p99_us: tick_time.micros_at(0.99),
            up: up.percentiles().into(),
            packets_in: self.traffic.packets_in - first.traffic.packets_in,
            packets_out: self.traffic.packets_out - first.traffic.packets_out,
            bytes_in: self.traffic.bytes_in - first.traffic.bytes_in,
            bytes_out: self.traffic.bytes_out - first.traffic.bytes_out,
            dropped: self.dropped - first.dropped,
            retries: self.retries - first.retries,
            sessions: self.sessions,
            cipher,
            encrypted,
            invariants_broken: self.invariants_broken,
            ..ServerReport::default()
        }
    }
}
