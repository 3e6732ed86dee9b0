//! Game state as pure functions: entities, grid, interest, authority, effects, replication codec.
//!
//! Coordinates are metres: `x` and `z` are horizontal, `y` is up. Positions are `f64`, so that a
//! millimetre stays exact 10,000 km from the origin; velocities and angles are `f32`. Nothing here
//! reads a clock, opens a socket or allocates per tick; the same calls give the same bits anywhere.
//!
//! ```
//! use twinspan_core::bytes::Writer;
//! use twinspan_core::random::Stream;
//! use twinspan_world::{
//!     Baselines, CellEncodings, InterestConfig, Kind, PlanInput, Replica, STATE_ROOM_MIN,
//!     StateHeader, StatePlan, Subscriptions, World, WorldConfig,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut world = World::new(WorldConfig::default(), Stream::new(7, "world", 0))?;
//! let player = world.spawn_anywhere(Kind::Player)?;
//! world.step();
//!
//! // Once per state tick, for all clients together:
//! let mut encodings = CellEncodings::new(&world);
//! encodings.update(&world);
//!
//! // Per client; the plan is reused:
//! let mut plan = StatePlan::new(STATE_ROOM_MIN);
//! let mut subscriptions = Subscriptions::new(InterestConfig::default());
//! let at = world.entity(player).ok_or("the player is gone")?.position;
//! subscriptions.update(world.tick(), at, world.grid());
//! let header = StateHeader::of(&world, player, &subscriptions).ok_or("the player is gone")?;
//! let mut baselines = Baselines::new();
//! plan.plan(PlanInput {
//!     header,
//!     subscriptions: &subscriptions,
//!     baselines: &mut baselines,
//!     encodings: &mut encodings,
//!     world: &world,
//!     budget: usize::MAX,
//! });
//!
//! // At the other end:
//! let mut replica = Replica::new();
//! for part in 0..plan.parts() {
//!     let mut packet = [0; STATE_ROOM_MIN];
//!     let mut out = Writer::new(&mut packet);
//!     plan.write_part(part, &mut out)?;
//!     replica.apply(out.written())?;
//!     // When the packet was acknowledged, the next states may build on it:
//!     baselines.on_acked(plan.tag(part));
//! }
//! assert_eq!(replica.len(), 1);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod authority;
mod baselines;
mod bits;
mod config;
mod content;
mod crowd;
mod encode;
mod entity;
pub mod event;
mod far;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod grid;
mod header;
mod id;
mod image;
mod input;
mod interest;
pub mod movement;
mod prediction;
mod replica;
mod roam;
mod state;
mod store;
mod world;

pub use authority::{
    CATCH_UP_PER_TICK_MAX, INPUT_CREDIT_MAX, INPUT_WINDOW, Standing, SubmitError, Verdict,
};
pub use baselines::{Baselines, STATE_PARTS_MAX};
pub use config::{
    CELL_METRES_MAX, CELL_METRES_MIN, CELLS_PER_AXIS_MAX, ConfigError, ENTITIES_LIMIT, WorldConfig,
};
pub use content::POSITION_ERROR;
pub use crowd::{NEAR_MAX, NEAR_METRES, PRIVATE_MAX};
pub use encode::{CellEncodings, KEYFRAME_TICKS, MEMBERS_MAX, RECORD_BYTES_MAX};
pub use entity::{EntityState, Flags, HEALTH_FULL, Kind, Position, Velocity, wrap_degrees};
pub use event::{ActionRefused, EffectApplied};
pub use far::{FAR_REACH_MAX, FAR_TICKS, FarRegion, REGION_CELLS};
pub use grid::{CellId, Grid};
pub use header::{
    Digest, OwnState, STATE_HEADER_BYTES_MAX, StateHeader, TICKS_PER_STATE, TICKS_PER_STATE_MAX,
};
pub use id::EntityId;
pub use image::WorldImage;
pub use input::{
    ClaimedPosition, INPUT_BUNDLE_BYTES_MAX, INPUT_BYTES, INPUTS_PER_BUNDLE_MAX, Input,
    InputBundle, InputError, angle_from_degrees, pitch_from_degrees,
};
pub use interest::{
    DWELL_TICKS_MAX, InterestConfig, InterestError, RATE_STATES_MAX, Subscriptions, WINDOW_CELLS,
    WINDOW_SPAN,
};
pub use prediction::{INPUTS_PENDING_MAX, Prediction};
pub use replica::{
    Applied, EDGE_LAG_TICKS, REPLICA_ENTITIES_MAX, Replica, ReplicaError, SharedKeyframes,
};
pub use state::{DIGEST_TICKS, PlanInput, STATE_ROOM_MIN, StateBytes, StateError, StatePlan};
pub use world::{HealthPrivacy, InvariantBroken, SpoiltPart, Stealth, World, WorldFull};

use core::time::Duration;

/// Simulation ticks per second.
pub const TICK_HZ: u32 = 60;

/// The time between two ticks, to the nanosecond.
pub const fn tick_duration() -> Duration {
    Duration::from_nanos(16_666_667)
}
