//! Whatever is lost, doubled or late: once the newest state has come, the replica is the truth.

use proptest::prelude::*;
use twinspan_core::bytes::Writer;
use twinspan_core::random::Stream;
use twinspan_world::{
    CellEncodings, EntityId, Input, InterestConfig, Kind, Position, Replica, STATE_ROOM_MIN,
    StateHeader, StatePlan, Subscriptions, World, WorldConfig,
};

/// A server with a crowd and one player who watches.
struct Server {
    world: World,
    player: EntityId,
    subscriptions: Subscriptions,
    encodings: CellEncodings,
    plan: StatePlan,
    random: Stream,
    sequence: u32,
}

impl Server {
    fn new(seed: u64, npcs: usize, spread: f64) -> Self {
        let config = WorldConfig { side: 320.0, entities_max: 1_000, ..WorldConfig::default() };
        let mut world = World::new(config, Stream::new(seed, "world", 0)).unwrap();
        let player = world.spawn(Kind::Player, Position::ground(160.0, 160.0)).unwrap();
        let mut random = Stream::new(seed, "server", 0);
        for index in 0..npcs {
            let kind = if index % 4 == 0 { Kind::Projectile } else { Kind::Npc };
            let mut around = || 160.0 + random.between(-spread, spread);
            world.spawn(kind, Position::ground(around(), around())).unwrap();
        }
        Self {
            world,
            player,
            subscriptions: Subscriptions::new(InterestConfig::default()),
            encodings: CellEncodings::new(),
            plan: StatePlan::new(STATE_ROOM_MIN),
            random,
            sequence: 0,
        }
    }

    /// Some ticks of life, then the messages of one state.
    fn state(&mut self) -> Vec<Vec<u8>> {
        for _ in 0..self.random.below(5) {
            let (forward, yaw) = (1.0, self.random.between(0.0, 90.0) as f32);
            self.sequence += 1;
            let input = Input { sequence: self.sequence, ..Input::toward(forward, 0.0, yaw, 0.0) };
            self.world.submit(self.player, input).unwrap();
            self.world.step();
        }
        if self.random.chance(0.1) {
            let mut around = || 160.0 + self.random.between(-40.0, 40.0);
            assert!(self.world.place(self.player, Position::ground(around(), around())));
        }
        self.world.step();
        // Births and deaths between the step and the state: the grid does not know of them yet.
        for _ in 0..self.random.below(4) {
            let others: Vec<_> = self.world.entities().map(|entity| entity.id).collect();
            let pick = others[self.random.below(others.len() as u64) as usize];
            if pick != self.player {
                assert!(self.world.despawn(pick));
            }
            let mut around = || 160.0 + self.random.between(-60.0, 60.0);
            self.world.spawn(Kind::Npc, Position::ground(around(), around())).unwrap();
            self.world.check_invariants().unwrap();
        }
        self.messages()
    }

    fn messages(&mut self) -> Vec<Vec<u8>> {
        let at = self.world.entity(self.player).unwrap().position;
        self.subscriptions.update(self.world.tick(), at, self.world.grid());
        self.encodings.encode_all(&self.world);
        let header = StateHeader::of(&self.world, self.player, &self.subscriptions).unwrap();
        self.plan.plan(header, &self.subscriptions, &self.encodings);
        (0..self.plan.parts())
            .map(|part| {
                let mut packet = [0; STATE_ROOM_MIN];
                let mut out = Writer::new(&mut packet);
                self.plan.write_part(part, &self.encodings, &mut out).unwrap();
                out.written().to_vec()
            })
            .collect()
    }

    fn assert_is_shown_by(&self, replica: &Replica) {
        let grid = self.world.grid();
        let seen = |at| self.subscriptions.contains(grid.cell_of(at));
        let truth: Vec<_> = self.world.entities().filter(|entity| seen(entity.position)).collect();
        let shown: Vec<_> = replica.entities().collect();
        let ids = |entities: &[twinspan_world::EntityState]| {
            entities.iter().map(|entity| entity.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&shown), ids(&truth));
        for (shown, truth) in shown.iter().zip(&truth) {
            assert!(shown.position.distance(truth.position) <= 0.01);
            assert_eq!((shown.kind, shown.flags), (truth.kind, truth.flags));
        }
        assert!(replica.cells().eq(self.subscriptions.cells()));
        assert_eq!(replica.own(), self.world.own_state(self.player));
        assert!(replica.is_complete());
    }
}

/// Takes the messages at random, each up to twice, and some not at all.
fn shuffled(messages: &[Vec<u8>], loss: f64, random: &mut Stream) -> Vec<Vec<u8>> {
    let mut order = Vec::new();
    for message in messages {
        for _ in 0..1 + random.below(2) {
            if !random.chance(loss) {
                order.push((random.next_u64(), message.clone()));
            }
        }
    }
    order.sort();
    order.into_iter().map(|(_, message)| message).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_replica_that_has_the_newest_state_is_the_truth(
        seed: u64, npcs in 0_usize..400, spread in 5.0_f64..120.0, loss in 0.0_f64..0.9,
        states in 1_usize..25,
    ) {
        let mut server = Server::new(seed, npcs, spread);
        let mut network = Stream::new(seed, "network", 0);
        let old: Vec<_> = (0..states).flat_map(|_| server.state()).collect();
        // Time stands still for the last one: what the grid lists is what lives.
        server.world.step();
        let last = server.messages();

        // Old and new in one heap, the newest whole.
        let mut heap = shuffled(&old, loss, &mut network);
        heap.extend(shuffled(&last, 0.0, &mut network));
        let mut replica = Replica::new();
        for message in shuffled(&heap, 0.0, &mut network) {
            replica.apply(&message).unwrap();
        }
        server.assert_is_shown_by(&replica);

        // What comes after that is stale, all of it.
        let before = format!("{:?}", replica.entities().collect::<Vec<_>>());
        for message in shuffled(&old, loss, &mut network) {
            replica.apply(&message).unwrap();
        }
        prop_assert_eq!(format!("{:?}", replica.entities().collect::<Vec<_>>()), before);
    }

    #[test]
    fn a_stationary_world_converges_although_most_is_lost(
        seed: u64, npcs in 0_usize..400, spread in 5.0_f64..60.0, loss in 0.0_f64..0.8,
    ) {
        let mut server = Server::new(seed, npcs, spread);
        let mut network = Stream::new(seed, "network", 0);
        let mut replica = Replica::new();
        let moving: Vec<_> = (0..5).flat_map(|_| server.state()).collect();
        for message in shuffled(&moving, loss, &mut network) {
            replica.apply(&message).unwrap();
        }
        server.world.step();
        // The same state again and again: every part comes through some day.
        let state = server.messages();
        for _ in 0..100 {
            for message in shuffled(&state, loss, &mut network) {
                replica.apply(&message).unwrap();
            }
        }
        server.assert_is_shown_by(&replica);
    }
}
