//! What one state costs to put together, measured alone in a process of its own: no sessions, no
//! sockets, every client's acknowledgements two states behind.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use twinspan_core::random::Stream;
use twinspan_game::ServerConfig;
use twinspan_session::Endpoint;
use twinspan_world::{
    Baselines, CellEncodings, ClaimedPosition, EntityId, Input, Kind, PlanInput, StateHeader,
    StatePlan, Subscriptions, TICK_HZ, TICKS_PER_STATE, World,
};

use crate::error::BenchError;
use crate::lines::Parent;
use crate::plan::Placement;

/// States until a client's acknowledgement is there: 100 ms.
const ACK_STATES: usize = 2;
/// Ticks before anything is measured, so that clients hold keyframes.
const WARM_UP_TICKS: u32 = 3 * TICK_HZ;
/// Ticks that are measured.
const TICKS: u32 = 3 * TICK_HZ;
/// Ticks between two turns of a player, on average.
const TICKS_PER_TURN: u64 = 120;

/// To the process: how many players, and where it runs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct AssemblyPlan {
    /// Where it runs.
    pub placement: Placement,
    /// Players who each get states.
    pub players: u32,
}

/// From it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct AssemblyReport {
    /// Time per state: what is encoded for all and what is put together for one.
    pub ns_per_state: f64,
    /// Time of a simulation step with its grid, in microseconds.
    pub step_us: f64,
}

/// Runs it as its parent says.
///
/// # Errors
/// [`BenchError`] when the world cannot be or the parent is not to be understood.
pub fn run() -> Result<(), BenchError> {
    let mut parent = Parent::default();
    let plan: AssemblyPlan = parent.hear()?;
    plan.placement.apply()?;
    let report = measure(plan.players)?;
    parent.tell(&report)
}

fn unusable(error: impl std::fmt::Display) -> BenchError {
    BenchError::Plan(error.to_string())
}

/// One client as far as states go.
struct Viewer {
    player: EntityId,
    subscriptions: Subscriptions,
    baselines: Baselines,
    /// Tags of the parts that were sent and not acknowledged yet, a state each.
    sent: VecDeque<Vec<u32>>,
    wish: Input,
    turn_at: u32,
}

fn measure(players: u32) -> Result<AssemblyReport, BenchError> {
    let config = ServerConfig::for_players(players);
    let mut world = World::new(config.world, Stream::new(1, "world", 0)).map_err(unusable)?;
    let mut random = Stream::new(1, "assembly", 0);
    let mut viewers = Vec::new();
    for _ in 0..players {
        viewers.push(Viewer {
            player: world.spawn_anywhere(Kind::Player).map_err(unusable)?,
            subscriptions: Subscriptions::new(config.interest),
            baselines: Baselines::new(),
            sent: VecDeque::with_capacity(ACK_STATES + 1),
            wish: Input::default(),
            turn_at: random.below(TICKS_PER_TURN) as u32,
        });
    }
    for (kind, count) in [(Kind::Npc, config.npcs), (Kind::Projectile, config.projectiles)] {
        for _ in 0..count {
            world.spawn_anywhere(kind).map_err(unusable)?;
        }
    }
    let mut encodings = CellEncodings::new(&world);
    let mut plan = StatePlan::new(Endpoint::message_room());
    let (mut assembly, mut step, mut states) = (Duration::ZERO, Duration::ZERO, 0_u64);
    for tick in 0..WARM_UP_TICKS + TICKS {
        walk(&mut world, &mut viewers, &mut random, tick);
        let began = Instant::now();
        world.step();
        let stepped = Instant::now();
        encodings.update(&world);
        let phase = tick as usize % usize::from(TICKS_PER_STATE);
        let mut made = 0;
        for viewer in viewers.iter_mut().skip(phase).step_by(usize::from(TICKS_PER_STATE)) {
            viewer.state(&world, &mut encodings, &mut plan);
            made += 1;
        }
        if tick >= WARM_UP_TICKS {
            step += stepped - began;
            assembly += stepped.elapsed();
            states += made;
        }
    }
    Ok(AssemblyReport {
        ns_per_state: assembly.as_nanos() as f64 / states.max(1) as f64,
        step_us: step.as_secs_f64() * 1e6 / f64::from(TICKS),
    })
}

impl Viewer {
    /// Makes this client's next state, and takes the acknowledgement of an older one.
    fn state(&mut self, world: &World, encodings: &mut CellEncodings, plan: &mut StatePlan) {
        let Some(entity) = world.entity(self.player) else { return };
        self.subscriptions.update(world.tick(), entity.position, world.grid());
        let Some(header) = StateHeader::of(world, self.player, &self.subscriptions) else { return };
        let mut tags = match self.sent.len() {
            ACK_STATES => self.sent.pop_front().unwrap_or_default(),
            _ => Vec::new(),
        };
        tags.iter().for_each(|tag| self.baselines.on_acked(*tag));
        tags.clear();
        plan.plan(PlanInput {
            header,
            subscriptions: &self.subscriptions,
            baselines: &mut self.baselines,
            encodings,
            world,
            budget: usize::MAX,
        });
        tags.extend((0..plan.parts()).map(|part| plan.tag(part)));
        self.sent.push_back(tags);
    }
}

/// Lets players walk and turn as the generator's do.
fn walk(world: &mut World, viewers: &mut [Viewer], random: &mut Stream, tick: u32) {
    for viewer in viewers {
        if tick >= viewer.turn_at {
            let forward = if random.chance(0.125) { 0.0 } else { 1.0 };
            let heading = random.between(0.0, 360.0) as f32;
            viewer.wish = Input::toward(forward, 0.0, heading, 0.0);
            viewer.turn_at = tick + 1 + random.below(2 * TICKS_PER_TURN) as u32;
        }
        let input = Input { sequence: tick + 1, claimed: ClaimedPosition::NONE, ..viewer.wish };
        // The inputs follow one another: none is refused.
        let _ = world.submit(viewer.player, input);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_made_and_take_time() {
        let report = measure(20).unwrap();
        assert!(report.ns_per_state > 0.0 && report.step_us > 0.0, "{report:?}");
    }
}
