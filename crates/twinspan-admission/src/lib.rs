//! A typed admission filter: who may come in, how much a connection may send, what follows from misconduct.
//!
//! Four kinds of checks. *Sources*: so many handshakes and failures for an address and its
//! network, in tables of fixed size. *Messages*: so many a second for each connection, channel and
//! kind. *Scores*: points for what cannot be decoded, floods, implausible movement and refused
//! actions, which decay. *Bans*: users that are let in no more for a time. What follows is ordered:
//! observe, throttle, shadow, disconnect, ban. Rules are data, have names, are counted one by one,
//! can run dry and be replaced while the filter works; their file is read by [`Rules::parse`], whose
//! errors name the line and the nearest right word.
//!
//! [`Filter`] is a machine: no clock, no sockets, time as an argument. It takes all of its memory
//! at the start and when rules are replaced.
#![forbid(unsafe_code)]

mod bans;
mod filter;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod gauge;
mod judge;
mod rules;
pub mod settings;
mod sources;

pub use bans::BANS_MAX;
pub use filter::{Door, Filter, FilterConfig, FilterStats, RuleCount};
pub use judge::{Conduct, Judge, Ruling, THROTTLE_FACTOR};
pub use rules::{
    Action, BANNED_USERS_MAX, DEFAULT_RULES, MESSAGE_RULES_MAX, MessageRule, NAME_BYTES_MAX,
    Prefix, Rules, SOURCE_RULES_MAX, STEPS_MAX, ScoreRule, Signal, SourceRule, Step, TRUSTED_MAX,
};
pub use settings::SettingsError;
pub use sources::{Counted, Network, SOURCES_MAX, SOURCES_MIN};
