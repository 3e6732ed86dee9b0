//! A small Second Life grid to try viewers on: login, capabilities, event queues, regions with
//! avatars and things, chat, messages, teleports and crossings.
//!
//! [`GridServer`] runs a whole grid on one node, on real sockets or in the simulator. What it does
//! is in machines: [`Grid`] is one machine for all regions and speaks to viewers over UDP; login
//! tells it whom to expect ([`Grid::admit`]), and it gives out what belongs on their event queues
//! ([`Grid::poll_queue`]). [`RegionMachine`] drives one region over a socket of any side of the
//! seam.
#![forbid(unsafe_code)]

mod account;
mod assets;
mod avatar;
mod bodies;
mod config;
mod desk;
mod door;
mod event;
mod files;
mod front;
mod grid;
mod homes;
mod intake;
mod inventory;
mod login;
mod lures;
mod machine;
mod queue;
mod reply;
#[cfg(feature = "scenarios")]
pub mod scenario;
mod scene;
mod seats;
mod seeds;
mod server;
mod talk;
mod travel;
mod uploads;

pub use account::{
    ACCOUNTS_MAX, Account, FAILURES_MAX, FAILURES_WINDOW, LoginScript, NAME_BYTES_MAX,
    ScriptedAnswer,
};
pub use assets::{MESH, NOTECARD, TEXTURE, UPLOADED_BYTES_MAX, UPLOADS_MAX, UPLOADS_PER_USER_MAX};
pub use avatar::{Activity, AvatarBody};
pub use config::{
    AdmitError, GridConfig, GridError, Guest, QUEUE_EVENTS_MAX, REGIONS_MAX, RegionConfig,
    RegionId, SESSIONS_MAX, THINGS_MAX, THINGS_PER_MESSAGE_MAX,
};
pub use desk::HttpStats;
pub use event::{GridEvent, GridStats, Queued};
pub use files::{FILES_PER_VISITOR_MAX, NAMED_FILES_MAX};
pub use grid::Grid;
pub use intake::{
    UDP_UPLOAD_BYTES_MAX, UDP_UPLOAD_IDLE_MAX, UDP_UPLOAD_TIME_MAX, UDP_UPLOADS_PER_USER_MAX,
};
pub use login::LoginStats;
pub use lures::{LURE_LIFETIME, LURES_MAX, LURES_PER_USER_MAX};
pub use machine::RegionMachine;
pub use server::{
    GridServer, GridServerConfig, GridServerError, REGION_NAME_BYTES_MAX, REGION_PLACE_MAX,
    RegionPlan,
};
/// What circuits count.
pub use twinspan_circuit::CircuitStats;
