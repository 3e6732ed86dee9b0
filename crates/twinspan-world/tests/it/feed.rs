//! The server's side of one client's states.

use twinspan_world::{
    Baselines, CellEncodings, EntityId, InterestConfig, PlanInput, STATE_ROOM_MIN, StateHeader,
    StatePlan, Subscriptions, World,
};

/// A part of a state with the tag that its acknowledgement brings back.
pub(crate) type Packet = (Vec<u8>, u32);

/// What makes one client's states.
pub(crate) struct Feed {
    pub(crate) player: EntityId,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) baselines: Baselines,
    pub(crate) plan: StatePlan,
    pub(crate) budget: usize,
}

impl Feed {
    pub(crate) fn new(player: EntityId, interest: InterestConfig) -> Self {
        Self {
            player,
            subscriptions: Subscriptions::new(interest),
            baselines: Baselines::new(),
            plan: StatePlan::new(STATE_ROOM_MIN),
            budget: usize::MAX,
        }
    }

    /// Makes the state of the world's present tick.
    pub(crate) fn plan(&mut self, world: &World, encodings: &mut CellEncodings) {
        let at = world.entity(self.player).unwrap().position;
        self.subscriptions.update(world.tick(), at, world.grid());
        let Self { player, subscriptions, baselines, plan, budget } = self;
        let header = StateHeader::of(world, *player, subscriptions).unwrap();
        plan.plan(PlanInput {
            header,
            subscriptions,
            baselines,
            encodings,
            world,
            budget: *budget,
        });
    }

    /// The same as packets.
    pub(crate) fn packets(&mut self, world: &World, encodings: &mut CellEncodings) -> Vec<Packet> {
        self.plan(world, encodings);
        let part = |part| (self.plan.part(part).unwrap().to_vec(), self.plan.tag(part));
        (0..self.plan.parts()).map(part).collect()
    }
}
