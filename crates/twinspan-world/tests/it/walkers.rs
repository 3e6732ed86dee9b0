//! Honest players are never accused and liars always, over whole clients and a bad network.

use twinspan_core::bytes::Writer;
use twinspan_core::random::Stream;
use twinspan_world::{
    CellEncodings, EntityId, INPUT_BUNDLE_BYTES_MAX, Input, InputBundle, InterestConfig, Kind,
    Position, Prediction, Replica, Standing, Verdict, World, WorldConfig,
};

use crate::feed::{Feed, Packet};
use crate::link::{Conditions, Link};

const TICK_US: u64 = 16_667;

/// What the input channel does with a bundle that arrives after a newer one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    Any,
    NewestOnly,
}

/// What a client does to its inputs before it sends them.
type Lie = fn(&mut Input, u32);

struct Scene {
    world: World,
    player: EntityId,
    other: EntityId,
    prediction: Prediction,
    replica: Replica,
    encodings: CellEncodings,
    feed: Feed,
    up: Link<Vec<u8>>,
    down: Link<Packet>,
    order: Order,
    newest_bundle: u32,
    random: Stream,
    wish: Input,
    now_us: u64,
}

impl Scene {
    fn new(seed: u64, conditions: Conditions, order: Order) -> Self {
        let config = WorldConfig { side: 128.0, entities_max: 64, ..WorldConfig::default() };
        let mut world = World::new(config, Stream::new(seed, "world", 0)).unwrap();
        let player = world.spawn_anywhere(Kind::Player).unwrap();
        let other = world.spawn_anywhere(Kind::Player).unwrap();
        let encodings = CellEncodings::new(&world);
        Self {
            world,
            player,
            other,
            prediction: Prediction::new(),
            replica: Replica::new(),
            encodings,
            feed: Feed::new(player, InterestConfig::default()),
            up: Link::new(conditions, Stream::new(seed, "up", 0)),
            down: Link::new(conditions, Stream::new(seed, "down", 0)),
            order,
            newest_bundle: 0,
            random: Stream::new(seed, "walk", 0),
            wish: Input::default(),
            now_us: 0,
        }
    }

    /// The client's half of a tick: hear, walk, send.
    fn client(&mut self, tick: u32, lie: Option<Lie>) {
        while let Some((message, tag)) = self.down.receive(self.now_us) {
            let applied = self.replica.apply(&message).unwrap();
            self.feed.baselines.on_acked(tag);
            let header = applied.header();
            self.prediction.reconcile(header.last_input, header.own);
        }
        if self.random.chance(1.0 / 40.0) {
            let forward = if self.random.chance(0.2) { 0.0 } else { 1.0 };
            let strafe = self.random.between(-1.0, 1.0) as f32;
            let yaw = self.random.between(0.0, 360.0) as f32;
            self.wish = Input::toward(forward, strafe, yaw, 0.0);
        }
        self.prediction.predict(self.wish);
        let bundle = match lie {
            None => InputBundle::of(&self.prediction, 0, self.now_us as u32),
            Some(lie) => {
                let inputs = self.prediction.pending().map(|mut input| {
                    lie(&mut input, tick);
                    input
                });
                InputBundle::new(0, inputs.collect::<Vec<_>>().into_iter())
            }
        };
        let mut bytes = [0; INPUT_BUNDLE_BYTES_MAX];
        let mut out = Writer::new(&mut bytes);
        bundle.unwrap().encode(&mut out).unwrap();
        self.up.send(self.now_us, &out.written().to_vec());
    }

    /// The server's half of a tick: take inputs, step, send.
    fn server(&mut self, tick: u32) -> Verdict {
        while let Some(bytes) = self.up.receive(self.now_us) {
            let bundle = InputBundle::decode(&bytes).unwrap();
            if self.order == Order::NewestOnly && bundle.newest() < self.newest_bundle {
                continue;
            }
            self.newest_bundle = bundle.newest();
            for input in bundle.inputs() {
                // Most are known already.
                let _ = self.world.submit(self.player, *input);
            }
        }
        if self.world.tick().is_multiple_of(401) {
            let near = self.world.entity(self.player).unwrap().position;
            self.world.place(self.other, Position::ground(near.x + 1.0, near.z));
            self.world.apply_effect(self.other, self.player).unwrap();
        }
        self.world.step();
        self.encodings.update(&self.world);
        if tick.is_multiple_of(3) {
            self.send_state();
        }
        self.world.verdict(self.player)
    }

    fn send_state(&mut self) {
        for packet in self.feed.packets(&self.world, &mut self.encodings) {
            self.down.send(self.now_us, &packet);
        }
    }

    /// Plays until the player is accused; the tick at which that was.
    fn play(&mut self, ticks: u32, lie: Option<Lie>) -> Option<u32> {
        (0..ticks).find(|tick| {
            self.now_us += TICK_US;
            self.client(*tick, lie);
            self.server(*tick) == Verdict::Lying
        })
    }

    fn standing(&self) -> Standing {
        self.world.standing(self.player).unwrap()
    }

    fn play_honestly(&mut self, seed: u64, seconds: u32) {
        let accused = self.play(seconds * 60, None);
        assert_eq!(accused, None, "seed {seed}: {:?}", self.standing());
    }
}

#[test]
fn an_honest_walker_on_a_bad_network_is_never_accused() {
    let mut worst = 0;
    for seed in 0..60 {
        let mut scene = Scene::new(seed, Conditions::ROUGH, Order::Any);
        for _ in 0..30 {
            scene.play_honestly(seed, 1);
            worst = worst.max(scene.standing().score);
        }
        let Standing { applied, skipped: skips, .. } = scene.standing();
        assert!(applied + skips > 29 * 60, "inputs keep up with time");
    }
    assert!(worst < 300, "a quarter of what an accusation takes: {worst}");
}

#[test]
fn an_honest_walker_is_not_accused_either_when_late_bundles_are_dropped() {
    let mut worst = 0;
    for seed in 0..60 {
        let mut scene = Scene::new(seed, Conditions::ROUGH, Order::NewestOnly);
        for _ in 0..30 {
            scene.play_honestly(seed, 1);
            worst = worst.max(scene.standing().score);
        }
        assert!(scene.standing().skipped > 0, "inputs were lost for good");
    }
    assert!(worst < 300, "a quarter of what an accusation takes: {worst}");
}

#[test]
fn an_honest_walker_survives_outages_of_either_direction() {
    for seed in 0..40 {
        let mut scene = Scene::new(seed, Conditions::ROUGH, Order::Any);
        scene.play_honestly(seed, 10);
        let silence = Conditions { loss: 1.0, ..Conditions::ROUGH };
        let seconds = 1 + (seed % 8) as u32;
        if seed % 3 != 0 {
            scene.up.set(silence);
        }
        if seed % 3 != 1 {
            scene.down.set(silence);
        }
        scene.play_honestly(seed, seconds);
        scene.up.set(Conditions::ROUGH);
        scene.down.set(Conditions::ROUGH);
        scene.play_honestly(seed, 10);
    }
}

#[test]
fn a_clean_network_needs_no_correction_but_for_the_effect() {
    let clean = Conditions { loss: 0.0, duplicate: 0.0, delay_us: 20_000, jitter_us: 3_000 };
    let mut scene = Scene::new(1, clean, Order::Any);
    scene.play_honestly(1, 60);
    let Standing { skipped, flooded, corrected, score, .. } = scene.standing();
    assert_eq!((skipped, flooded, score), (0, 0, 0));
    assert!(corrected < 60, "{corrected} claims beyond the tolerance");
}

#[test]
fn who_stops_ends_where_the_server_has_it() {
    for seed in 0..20 {
        let mut scene = Scene::new(seed, Conditions::ROUGH, Order::Any);
        scene.play_honestly(seed, 10);
        scene.up.set(Conditions { loss: 0.0, duplicate: 0.0, delay_us: 1_000, jitter_us: 0 });
        scene.down.set(Conditions { loss: 0.0, duplicate: 0.0, delay_us: 1_000, jitter_us: 0 });
        for tick in 0..120 {
            scene.now_us += TICK_US;
            scene.wish = Input::default();
            scene.random = Stream::new(0, "never turns", 0);
            scene.client(tick, None);
            scene.server(tick + 1);
        }
        let truth = scene.world.entity(scene.player).unwrap().position;
        assert_eq!(scene.prediction.position(), truth, "seed {seed}");
    }
}

fn liar(conditions: Conditions, lie: Lie) {
    for seed in 0..20 {
        let mut scene = Scene::new(seed, conditions, Order::Any);
        scene.play_honestly(seed, 5);
        let before = scene.world.entity(scene.player).unwrap().position;
        let accused = scene.play(20 * 60, Some(lie));
        let ticks = accused.unwrap_or_else(|| panic!("seed {seed}: {:?}", scene.standing()));
        let after = scene.world.entity(scene.player).unwrap().position;
        let seconds = f64::from(ticks + 60) / 60.0;
        assert!(before.distance(after) <= 7.5 * seconds, "no lie moves a player");
    }
}

#[test]
fn a_teleporter_is_caught_whatever_the_network() {
    let lie: Lie = |input, tick| input.claimed.x_cm = 1_000 * (tick / 120 % 12) as i32;
    let clean = Conditions { loss: 0.0, duplicate: 0.0, delay_us: 20_000, jitter_us: 3_000 };
    liar(clean, lie);
    liar(Conditions::ROUGH, lie);
}

#[test]
fn who_claims_to_walk_twice_as_far_is_caught_whatever_the_network() {
    // Ahead of its true place by as much as it walks: five metres more each second.
    let lie: Lie = |input, tick| {
        input.claimed.x_cm = input.claimed.x_cm.saturating_add((tick * 500 / 60) as i32);
    };
    let clean = Conditions { loss: 0.0, duplicate: 0.0, delay_us: 20_000, jitter_us: 3_000 };
    liar(clean, lie);
    liar(Conditions::ROUGH, lie);
}
