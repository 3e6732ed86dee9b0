//! Whatever the network does to states and acknowledgements: what a replica shows was true at the
//! tick it says, and once everything comes through the replica is the truth.

use std::collections::BTreeMap;

use proptest::prelude::*;
use twinspan_core::random::Stream;
use twinspan_world::{
    CellEncodings, CellId, EntityId, EntityState, Input, InterestConfig, Kind, MEMBERS_MAX,
    POSITION_ERROR, Position, Replica, World, WorldConfig,
};

use crate::feed::{Feed, Packet};

/// Every cell in every state: what is shown can then be compared at one tick.
const EVERY_STATE: InterestConfig =
    InterestConfig { enter: 32.0, leave: 48.0, dwell_ticks: 30, rates: [1; 4], far_reach: 2 };

/// The entities of one tick, each with its cell.
type Moment = BTreeMap<EntityId, (EntityState, CellId)>;

/// The server's side: a world, a player that walks, and comings and goings around it.
struct Server {
    world: World,
    encodings: CellEncodings,
    feed: Feed,
    random: Stream,
    sequence: u32,
    moments: BTreeMap<u32, Moment>,
}

impl Server {
    fn new(seed: u64, npcs: usize, spread: f64, interest: InterestConfig) -> Self {
        let config = WorldConfig { side: 320.0, entities_max: 500, ..WorldConfig::default() };
        let mut world = World::new(config, Stream::new(seed, "world", 0)).unwrap();
        let player = world.spawn(Kind::Player, Position::ground(160.0, 160.0)).unwrap();
        let mut random = Stream::new(seed, "server", 0);
        for index in 0..npcs {
            let kind = if index % 4 == 0 { Kind::Projectile } else { Kind::Npc };
            let mut around = || 160.0 + random.between(-spread, spread);
            world.spawn(kind, Position::ground(around(), around())).unwrap();
        }
        let encodings = CellEncodings::new(&world);
        let feed = Feed::new(player, interest);
        Self { world, encodings, feed, random, sequence: 0, moments: BTreeMap::new() }
    }

    /// Some ticks of life, then the packets of one state.
    fn state(&mut self) -> Vec<Packet> {
        let player = self.feed.player;
        for _ in 0..1 + self.random.below(4) {
            let (forward, yaw) = (1.0, self.random.between(0.0, 90.0) as f32);
            // Now and then an input is late, and two are there at the next tick.
            for _ in 0..self.random.below(3) {
                self.sequence += 1;
                let input =
                    Input { sequence: self.sequence, ..Input::toward(forward, 0.0, yaw, 0.0) };
                let _ = self.world.submit(player, input);
            }
            self.tick();
        }
        if self.random.chance(0.05) {
            let mut around = || 160.0 + self.random.between(-40.0, 40.0);
            assert!(self.world.place(player, Position::ground(around(), around())));
        }
        if self.random.chance(0.2) {
            let health = self.random.below(101) as u8;
            let others: Vec<_> = self.world.entities().map(|entity| entity.id).collect();
            let pick = others[self.random.below(others.len() as u64) as usize];
            assert!(self.world.set_health(pick, health));
            // Too far away, or cooling down: that is as well.
            let _ = self.world.apply_effect(player, pick);
        }
        // Births and deaths between the step and the state: the grid does not know of them yet.
        for _ in 0..self.random.below(4) {
            let others: Vec<_> = self.world.entities().map(|entity| entity.id).collect();
            let pick = others[self.random.below(others.len() as u64) as usize];
            if pick != player {
                assert!(self.world.despawn(pick));
            }
            let mut around = || 160.0 + self.random.between(-60.0, 60.0);
            self.world.spawn(Kind::Npc, Position::ground(around(), around())).unwrap();
            self.world.check_invariants().unwrap();
        }
        self.tick();
        self.feed.packets(&self.world, &mut self.encodings)
    }

    fn tick(&mut self) {
        self.world.step();
        self.encodings.update(&self.world);
        let grid = self.world.grid();
        let entities = self.world.entities();
        let moment =
            entities.map(|entity| (entity.id, (entity, grid.cell_of(entity.position)))).collect();
        self.moments.insert(self.world.tick(), moment);
    }

    /// Whatever is shown was so at the tick that it is shown for, and whoever was in a cell then is
    /// shown.
    fn assert_is_true(&self, replica: &Replica) {
        for (shown, tick) in replica.entities_with_ticks() {
            let moment = &self.moments[&tick];
            let Some((real, _)) = moment.get(&shown.id) else {
                panic!("{:?} is shown at tick {tick} but was not there", shown.id);
            };
            assert_alike(&shown, real, tick);
        }
        for (cell, told) in replica.cells_with_ticks() {
            let Some(told_at) = told else { continue };
            let since = || self.moments.range(told_at..).map(|(_, moment)| moment);
            let count = |moment: &Moment| moment.values().filter(|(_, at)| *at == cell).count();
            // Of a crowd, or of what is nearly one and whose record is too long, spans are told at
            // different ticks.
            if since().map(count).max() > Some(MEMBERS_MAX * 3 / 4) {
                continue;
            }
            for (id, _) in since().take(1).flatten().filter(|(_, (_, at))| *at == cell) {
                let is_shown = replica.get(*id).is_some();
                // Or a newer word put it where this client does not see.
                let left = replica.cells_with_ticks().any(|(_, newer)| newer > told);
                assert!(is_shown || left, "{id:?} of {cell:?} is not shown");
            }
        }
    }

    fn assert_is_shown_by(&self, replica: &Replica) {
        let grid = self.world.grid();
        let seen = |at| self.feed.subscriptions.contains(grid.cell_of(at));
        let truth: Vec<_> = self.world.entities().filter(|entity| seen(entity.position)).collect();
        let shown: Vec<_> = replica.entities().collect();
        let ids =
            |entities: &[EntityState]| entities.iter().map(|entity| entity.id).collect::<Vec<_>>();
        assert_eq!(ids(&shown), ids(&truth));
        for (shown, truth) in shown.iter().zip(&truth) {
            assert_alike(shown, truth, self.world.tick());
        }
        assert!(replica.cells().eq(self.feed.subscriptions.cells()));
        assert_eq!(replica.own(), self.world.own_state(self.feed.player));
        assert!(replica.is_complete());
    }
}

fn assert_alike(shown: &EntityState, real: &EntityState, tick: u32) {
    let (a, b) = (shown.position, real.position);
    for (a, b) in [(a.x, b.x), (a.y, b.y), (a.z, b.z)] {
        assert!((a - b).abs() <= POSITION_ERROR, "tick {tick}: {shown:?} was {real:?}");
    }
    let (a, b) = (shown.velocity, real.velocity);
    for (a, b) in [(a.x, b.x), (a.y, b.y), (a.z, b.z)] {
        assert!((a - b).abs() <= 0.125, "tick {tick}: {shown:?} was {real:?}");
    }
    let turn = (shown.yaw - real.yaw).abs();
    assert!(turn.min(360.0 - turn) <= 1.0 && (shown.pitch - real.pitch).abs() <= 1.0);
    assert_eq!(
        (shown.kind, shown.flags, shown.health),
        (real.kind, real.flags, real.health),
        "tick {tick}"
    );
}

/// A network that loses, doubles and delays packets by some states, and acknowledgements too.
struct Network {
    random: Stream,
    loss: f64,
    delay: u64,
    states: u64,
    down: BTreeMap<(u64, u64), Packet>,
    up: BTreeMap<(u64, u64), u32>,
    sent: u64,
}

impl Network {
    fn new(seed: u64, loss: f64, delay: u64) -> Self {
        let random = Stream::new(seed, "network", 0);
        Self { random, loss, delay, states: 0, down: BTreeMap::new(), up: BTreeMap::new(), sent: 0 }
    }

    /// One state's time: packets go out, and what is due arrives.
    fn carry(&mut self, server: &mut Server, replica: &mut Replica, packets: Vec<Packet>) {
        self.states += 1;
        for packet in packets {
            for _ in 0..1 + self.random.below(2) {
                if !self.random.chance(self.loss) {
                    self.sent += 1;
                    let at = self.states + self.random.below(self.delay + 1);
                    self.down.insert((at, self.random.next_u64()), packet.clone());
                }
            }
        }
        while let Some(first) = self.down.first_entry().filter(|at| at.key().0 <= self.states) {
            let (bytes, tag) = first.remove();
            replica.apply(&bytes).unwrap();
            server.assert_is_true(replica);
            if !self.random.chance(self.loss) {
                let at = self.states + self.random.below(self.delay + 1);
                self.up.insert((at, self.random.next_u64()), tag);
            }
        }
        while let Some(first) = self.up.first_entry().filter(|at| at.key().0 <= self.states) {
            server.feed.baselines.on_acked(first.remove());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_replica_shows_what_was_and_then_what_is(
        seed: u64, npcs in 0_usize..400, spread in 5.0_f64..120.0, loss in 0.0_f64..0.7,
        delay in 0_u64..6, states in 1_usize..80,
    ) {
        let mut server = Server::new(seed, npcs, spread, EVERY_STATE);
        let mut network = Network::new(seed, loss, delay);
        let mut replica = Replica::new();
        for _ in 0..states {
            let packets = server.state();
            network.carry(&mut server, &mut replica, packets);
        }
        // What was under way arrives, and from now on everything does.
        (network.loss, network.delay) = (0.0, 0);
        for _ in 0..20 {
            let packets = server.state();
            network.carry(&mut server, &mut replica, packets);
        }
        // Time stands still for the last one: what the grid lists is what lives.
        server.assert_is_shown_by(&replica);
        prop_assert_eq!(replica.mismatches(), 0);
    }

    #[test]
    fn rings_told_less_often_lag_no_more_than_promised(
        seed: u64, npcs in 0_usize..300, loss in 0.0_f64..0.5,
    ) {
        let mut server = Server::new(seed, npcs, 150.0, InterestConfig::default());
        let mut network = Network::new(seed, loss, 2);
        let mut replica = Replica::new();
        for _ in 0..60 {
            let packets = server.state();
            network.carry(&mut server, &mut replica, packets);
        }
        network.loss = 0.0;
        // From here on nobody is put elsewhere, and all that was sent arrives.
        for _ in 0..30 {
            server.tick();
            let packets = server.feed.packets(&server.world, &mut server.encodings);
            network.carry(&mut server, &mut replica, packets);
        }
        prop_assert!(replica.cells_with_ticks().all(|(_, told)| told.is_some()));
    }

    #[test]
    fn a_small_budget_is_kept_and_everybody_is_told_in_the_end(
        seed: u64, npcs in 100_usize..400, spread in 5.0_f64..60.0, budget in 400_usize..900,
    ) {
        let mut server = Server::new(seed, npcs, spread, EVERY_STATE);
        server.feed.budget = budget;
        let mut network = Network::new(seed, 0.0, 0);
        let mut replica = Replica::new();
        for _ in 0..60 {
            let packets = server.state();
            prop_assert!(packets.iter().map(|(bytes, _)| bytes.len()).sum::<usize>() <= budget);
            network.carry(&mut server, &mut replica, packets);
        }
        for _ in 0..60 {
            server.tick();
            let packets = server.feed.packets(&server.world, &mut server.encodings);
            prop_assert!(packets.iter().map(|(bytes, _)| bytes.len()).sum::<usize>() <= budget);
            network.carry(&mut server, &mut replica, packets);
        }
        let oldest = server.world.tick().saturating_sub(300);
        for (cell, told) in replica.cells_with_ticks() {
            prop_assert!(told.is_some_and(|told| told >= oldest), "{cell:?}: {told:?}");
        }
    }
}

#[test]
fn a_spoilt_replica_is_found_out_and_repaired() {
    let mut server = Server::new(5, 60, 60.0, EVERY_STATE);
    let mut network = Network::new(5, 0.0, 1);
    let mut replica = Replica::new();
    for _ in 0..40 {
        let packets = server.state();
        network.carry(&mut server, &mut replica, packets);
    }
    // From here on nothing moves, so that nothing repairs itself.
    for _ in 0..5 {
        server.tick();
        let packets = server.feed.packets(&server.world, &mut server.encodings);
        network.carry(&mut server, &mut replica, packets);
    }
    assert!(replica.spoil());
    let mut asked = None;
    for state in 0..60 {
        server.world.step();
        server.encodings.update(&server.world);
        for (bytes, tag) in server.feed.packets(&server.world, &mut server.encodings) {
            replica.apply(&bytes).unwrap();
            server.feed.baselines.on_acked(tag);
        }
        if replica.take_keyframe_wish() {
            asked.get_or_insert(state);
            server.feed.baselines.forget();
        }
    }
    assert!(asked.is_some_and(|state| state <= 60), "{asked:?}");
    assert_eq!(replica.mismatches(), 1);
    server.assert_is_shown_by(&replica);
}
