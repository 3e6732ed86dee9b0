//! Second Life circuits: reliable UDP to many simulators over one socket, and an agent's way
//! through their regions.
//!
//! [`Circuits`] is the machine of both ends: a viewer opens circuits to simulators, a simulator has
//! them opened by viewers. It stands on the project's one reliability engine
//! (`twinspan-reliable`): lost packets leave again under their number, with budgets by kind of
//! message ([`Retry`]); what came is acknowledged before anybody works on it; each message is
//! handed on once.
//!
//! [`Agent`] is what a viewer does with circuits: one pure machine from login's answer to the end,
//! driven by datagrams, time and what event queues say ([`QueueEvent`]).
#![forbid(unsafe_code)]

mod acks;
mod agent;
mod circuit;
mod circuits;
mod config;
mod flight;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod message;
mod order;
mod patience;
mod ping;
mod queue;
mod shared;
mod stats;
mod throttle;

pub use agent::{
    Agent, AgentConfig, AgentEvent, AgentIds, AgentStats, Body, Destination, EndReason, Journey,
    QueueEvent, SEED_BYTES_MAX, Seed, TELEPORT_TIMEOUTS_MAX, TeleportError, TravelError,
};
pub use circuits::{Circuits, Farewell};
pub use config::{
    ACKS_PER_PACKET_MAX, ACKS_WAITING_MAX, CIRCUITS_MAX, Config, ConfigError, EVENTS_WAITING_MAX,
    GROUP_MESSAGES_MAX, IN_FLIGHT_MAX, NUMBERS_IN_FLIGHT_SPAN, NUMBERS_REMEMBERED,
    ORDERED_MESSAGES_MAX, PINGS_IN_FLIGHT_MAX, Role,
};
pub use message::{
    Admission, CircuitEvent, CloseReason, DeliveryId, OpenCircuitError, Outcome, Received, Retry,
    SendError, SendOptions, Sink, Taken,
};
pub use stats::{CircuitStats, StrangerStats};
pub use throttle::{
    ADJUST_INTERVAL, LOSS_LITTLE, LOSS_TOO_MUCH, RATE_MIN, RATE_TOTAL_RANGE, RATES_BYTES, Rates,
    THROTTLE_CLASSES, ThrottleClass, ThrottleControl,
};
