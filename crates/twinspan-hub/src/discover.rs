//! How hubs on a bare topic find each other: announcements on the machine, and peers that were given.
//!
//! //= hub 15

mod announcement;
mod given;
mod herald;
mod host;
mod meetings;
mod mesh;
mod roster;

#[cfg(feature = "scenarios")]
pub(crate) use announcement::{Announcement, OfferedRoad};
#[cfg(feature = "fuzz")]
pub(crate) use announcement::{fuzz, seeds};
pub(crate) use given::{Given, place_for};
pub(crate) use herald::announced;
pub(crate) use host::Host;
#[cfg(feature = "scenarios")]
pub(crate) use meetings::Meetings;
pub(crate) use mesh::open;
#[cfg(feature = "scenarios")]
pub(crate) use roster::{GUESTS_MAX, Heard, Roster};
