//! One world on several cores: the world on the first, sessions on all, and what goes between them.
//!
//! An [`Office`] keeps the world and answers the shards; a [`Member`] is one shard with its own copy
//! of what states are made of. They share nothing but bounded lanes and images that never change
//! while somebody reads them. On real sockets each member has a thread; [`ShardedServer`] runs all
//! of them in a fixed order on one, for the simulator.

mod image;
mod letters;
mod member;
mod office;
mod remote;
mod sharded;
mod switch;

pub use letters::LinkStats;
#[cfg(test)]
mod tests;

pub(crate) use member::{Front, Member};
#[cfg(target_os = "linux")]
pub(crate) use office::{Office, Outpost, connect};
pub use sharded::ShardedServer;
