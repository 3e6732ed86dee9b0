//! What bots do, seen at the other end: by the grid, and by another avatar.

use std::time::Duration;

use twinspan_circuit::TeleportError;
use twinspan_core::link::Conditions;
use twinspan_grid::{Activity, AvatarBody, GridServer};
use twinspan_lludp::content::Dialog;
use twinspan_lludp::{Uuid, Vector3};
use twinspan_sim::{SimEnv, SimTask};
use twinspan_viewer::{
    Bot, BotError, CONTROL_UP, DeliveryError, InstantMessage, JourneyError, SeatError, SeenObject,
    StartLocation, ViewerConfig, WalkError, WorldEvent,
};

use crate::rig::{OTHER, USER, Viewer, Visit, World, credentials, sleep, start_viewer};

/// Two avatars near each other.
struct Pair {
    env: SimEnv,
    server: GridServer<SimEnv>,
    one: Bot,
    other: Bot,
    ids: [Uuid; 2],
    _tasks: [SimTask; 2],
}

impl Pair {
    /// How the grid has an avatar.
    fn body(&self, id: Uuid) -> AvatarBody {
        let body = |grid: &twinspan_grid::Grid| grid.body(grid.code_of(id)?);
        self.server.with_grid(body).expect("the avatar is in a region")
    }

    /// How one sees another.
    async fn seen(&self, by: &Bot, id: Uuid) -> Option<Vector3> {
        let avatars = by.avatars().await.expect("connected");
        avatars.iter().find(|avatar| avatar.id == id).map(|avatar| avatar.position)
    }

    /// Waits until something is so at the grid.
    async fn until(&self, what: &str, id: Uuid, is_so: impl Fn(&AvatarBody) -> bool) {
        for _ in 0..600 {
            if is_so(&self.body(id)) {
                return;
            }
            sleep(&self.env, Duration::from_millis(100)).await;
        }
        panic!("{what} never came: {:?}", self.body(id));
    }

    /// Waits until one sees another where the grid has it, to a metre.
    async fn agree(&self, by: &Bot, id: Uuid) {
        for _ in 0..600 {
            let (real, seen) = (self.body(id).position, self.seen(by, id).await);
            if seen.is_some_and(|seen| distance(seen, real) < 1.0) {
                return;
            }
            sleep(&self.env, Duration::from_millis(100)).await;
        }
        panic!("{:?} is seen at {:?}", self.body(id), self.seen(by, id).await);
    }

    async fn thing(&self, text: &str) -> SeenObject {
        loop {
            let near = self.one.objects_within(300.0).await.expect("connected");
            if let Some(found) = near.into_iter().find(|object| object.text == text) {
                return found;
            }
            sleep(&self.env, Duration::from_millis(100)).await;
        }
    }
}

fn distance(one: Vector3, other: Vector3) -> f32 {
    let (dx, dy, dz) = (one.x - other.x, one.y - other.y, one.z - other.z);
    (dx * dx + dy * dy + dz * dz).sqrt()
}

/// Plays a story of two avatars, on a clean network and on a poor one.
fn story<F: Future<Output = ()> + 'static>(seed: u64, play: impl Fn(Pair) -> F) {
    for (seed, conditions) in
        [(seed, Conditions::CLEAN), (seed + 1, Conditions { loss: 0.1, ..Conditions::WIFI })]
    {
        let mut world = World::new(seed, conditions);
        let Visit { server, bot, handle, task, .. } = world.log_in(ViewerConfig::default());
        let env = world.viewer.clone();
        let pair = world.run(async move {
            let Viewer { handle: with, task: other_task, .. } =
                start_viewer(&env, ViewerConfig::default());
            let manager = with.network_manager.clone();
            manager.connect(credentials(OTHER, server.login_url())).await.expect("let in");
            let id = |handle: &twinspan_viewer::ClientHandle| {
                handle.network_manager.session().expect("a session").agent_id
            };
            let ids = [id(&handle), id(&with)];
            Pair { env, server, one: bot, other: with.bot(), ids, _tasks: [task, other_task] }
        });
        world.run(play(pair));
    }
}

#[test]
fn a_bot_follows_another_avatar_until_it_is_told_to_stop() {
    story(61, |pair| async move {
        let [one, other] = pair.ids;
        let here = pair.body(other).position;
        pair.one.follow(other, 3.0).await.expect("begun");
        let there = Vector3::new(here.x + 24.0, here.y + 18.0, here.z);
        pair.other.walk_to(there, Duration::from_secs(60)).await.expect("walked");
        let near = |body: &AvatarBody| distance(body.position, there) < 6.0;
        pair.until("who follows", one, near).await;
        pair.until("the end of the walk", one, |body| body.activity == Activity::Stand).await;
        pair.agree(&pair.other, one).await;

        pair.one.stop().await.expect("connected");
        let stays = pair.body(one).position;
        let back = Vector3::new(there.x - 20.0, there.y, there.z);
        pair.other.walk_to(back, Duration::from_secs(60)).await.expect("walked");
        sleep(&pair.env, Duration::from_secs(2)).await;
        assert!(distance(pair.body(one).position, stays) < 0.5);
    });
}

#[test]
fn a_bot_flies_up_and_comes_down() {
    story(63, |pair| async move {
        let [one, _] = pair.ids;
        let ground = pair.body(one).position.z;
        pair.one.fly(true).await.expect("connected");
        pair.until("hovering", one, |body| body.activity == Activity::Hover).await;
        pair.one.press(CONTROL_UP).await.expect("connected");
        pair.until("height", one, |body| body.position.z > ground + 15.0).await;
        pair.one.stop().await.expect("connected");
        pair.until("the end of the rise", one, |body| body.velocity.z == 0.0).await;
        assert_eq!(pair.body(one).activity, Activity::Hover, "it lets go of all but flying");
        pair.agree(&pair.other, one).await;
        pair.one.fly(false).await.expect("connected");
        pair.until("the ground", one, |body| body.position.z == 22.0).await;
        pair.agree(&pair.other, one).await;
    });
}

#[test]
fn a_bot_jumps_and_another_sees_it() {
    story(65, |pair| async move {
        let [one, _] = pair.ids;
        pair.until("the ground", one, |body| body.position.z == 22.0).await;
        pair.agree(&pair.other, one).await;
        pair.one.jump().await.expect("connected");
        let (mut jumped, mut seen_at) = (false, 0.0_f32);
        for _ in 0..60 {
            sleep(&pair.env, Duration::from_millis(50)).await;
            jumped |= pair.body(one).activity == Activity::Jump;
            let seen = pair.seen(&pair.other, one).await;
            seen_at = seen_at.max(seen.map_or(0.0, |seen| seen.z));
        }
        assert!(jumped && seen_at > 22.5, "{jumped} {seen_at}");
        pair.until("the ground", one, |body| body.activity == Activity::Stand).await;
        assert_eq!(pair.body(one).position.z, 22.0);
        pair.agree(&pair.other, one).await;
    });
}

#[test]
fn a_bot_turns_to_a_place_and_walks_there() {
    story(67, |pair| async move {
        let [one, _] = pair.ids;
        let here = pair.body(one).position;
        pair.one.turn_to(Vector3::new(here.x, here.y + 5.0, here.z)).await.expect("turned");
        let north = core::f32::consts::FRAC_1_SQRT_2;
        pair.until("the turn", one, |body| (body.rotation.z - north).abs() < 0.01).await;
        let nowhere = pair.one.turn_to(Vector3::new(f32::NAN, 0.0, 0.0)).await;
        assert_eq!(nowhere, Err(BotError::NoPlace));

        let there = Vector3::new(here.x - 10.0, here.y + 4.0, here.z);
        pair.one.walk_to(there, Duration::from_secs(60)).await.expect("walked");
        pair.until("the end of the walk", one, |body| body.activity == Activity::Stand).await;
        assert!(distance(pair.body(one).position, Vector3 { z: 22.0, ..there }) < 2.5);
        pair.agree(&pair.other, one).await;
        // A place that is too far for the time.
        let far = Vector3::new(there.x + 90.0, there.y, there.z);
        let late = pair.one.walk_to(far, Duration::from_secs(3)).await;
        assert_eq!(late, Err(BotError::Walk(WalkError::TimedOut)));
    });
}

#[test]
fn a_bot_sits_down_and_stands_up() {
    story(69, |pair| async move {
        let [one, _] = pair.ids;
        let bench = pair.thing("Bench").await;
        pair.one.sit_on(bench.id).await.expect("sat");
        pair.until("the seat", one, |body| body.seat == Some(bench.id)).await;
        assert_eq!(pair.body(one).activity, Activity::Sit);
        // The other sees the avatar where the bench is.
        for _ in 0..100 {
            let seen = pair.seen(&pair.other, one).await;
            if seen.is_some_and(|seen| distance(seen, bench.position) < 1.5) {
                break;
            }
            sleep(&pair.env, Duration::from_millis(100)).await;
        }
        let seen = pair.seen(&pair.other, one).await.expect("it is seen");
        assert!(distance(seen, bench.position) < 1.5, "{seen:?}");
        pair.one.stand().await.expect("connected");
        pair.until("standing", one, |body| body.seat.is_none()).await;

        pair.one.sit_on_ground().await.expect("connected");
        pair.until("the ground", one, |body| body.activity == Activity::SitOnGround).await;
        pair.one.stand().await.expect("connected");
        pair.until("standing", one, |body| body.activity == Activity::Stand).await;

        let nothing = pair.one.sit_on(Uuid::from_u128(7)).await;
        assert_eq!(nothing, Err(BotError::Seat(SeatError::NotOffered)));
    });
}

#[test]
fn a_bot_goes_home_from_far_away_and_from_next_door() {
    story(71, |pair| async move {
        let [one, other] = pair.ids;
        pair.one.teleport_to("Gamma", Vector3::new(20.0, 30.0, 22.0)).await.expect("arrived");
        assert_ne!(pair.body(one).region, pair.body(other).region);
        pair.one.teleport_home().await.expect("arrived");
        let body = pair.body(one);
        assert_eq!(body.region, pair.body(other).region);
        assert!(distance(body.position, Vector3::new(128.0, 128.0, 22.0)) < 0.5, "{body:?}");
        pair.agree(&pair.other, one).await;
        // From elsewhere in the same region.
        let there = Vector3::new(60.0, 60.0, 22.0);
        let alpha = pair.one.find_region("Alpha").await.expect("on the map");
        pair.one.teleport(alpha, there).await.expect("arrived");
        let arrived = pair.one.teleport_home().await.expect("arrived");
        assert!(distance(arrived.position, Vector3::new(128.0, 128.0, 22.0)) < 0.5);
    });
}

#[test]
fn a_bot_makes_itself_a_home_and_logs_in_there() {
    let mut world = World::new(78, Conditions { loss: 0.05, ..Conditions::WIFI });
    let Visit { server, manager, bot, task, .. } = world.log_in(ViewerConfig::default());
    let viewer = world.viewer.clone();
    world.run(async move {
        let mut told = bot.listen();
        bot.teleport_to("Beta", Vector3::new(30.0, 40.0, 22.0)).await.expect("arrived");
        bot.set_home().await.expect("heard");
        let said = loop {
            if let WorldEvent::Alert(said) = told.recv().await.expect("connected") {
                break said;
            }
        };
        assert_eq!(said, "Home position set.");
        bot.teleport_to("Gamma", Vector3::new(20.0, 30.0, 22.0)).await.expect("arrived");
        let arrived = bot.teleport_home().await.expect("arrived");
        assert!(distance(arrived.position, Vector3::new(30.0, 40.0, 22.0)) < 1.0, "{arrived:?}");
        bot.teleport_to("Gamma", Vector3::new(20.0, 30.0, 22.0)).await.expect("arrived");
        manager.disconnect().await;
        sleep(&viewer, Duration::from_secs(2)).await;
        let at_home = credentials(USER, server.login_url()).with_start(StartLocation::Home);
        manager.connect(at_home).await.expect("let in");
        while manager.region().is_none() {
            sleep(&viewer, Duration::from_millis(100)).await;
        }
        assert_eq!(manager.region().expect("known").name, "Beta");
        manager.disconnect().await;
        drop(task);
    });
}

/// The next offer of a teleport that an avatar is made.
async fn offered(told: &mut twinspan_viewer::Subscription<WorldEvent>) -> InstantMessage {
    loop {
        if let WorldEvent::InstantMessage(message) = told.recv().await.expect("events")
            && message.dialog == Dialog::TeleportOffered
        {
            return message;
        }
    }
}

#[test]
fn a_bot_takes_an_offer_of_a_teleport_once() {
    story(73, |pair| async move {
        let [one, other] = pair.ids;
        let mut told = pair.one.listen();
        pair.other.teleport_to("Gamma", Vector3::new(20.0, 30.0, 22.0)).await.expect("arrived");
        pair.other.offer_teleport(one, "come and see").await.expect("sent");
        let offer = offered(&mut told).await;
        assert_eq!((offer.from, offer.text.as_str()), (other, "come and see"));
        pair.one.accept_teleport(offer.session).await.expect("arrived");
        let [mine, theirs] = [one, other].map(|id| pair.body(id));
        assert_eq!(mine.region, theirs.region);
        assert!(distance(mine.position, theirs.position) < 1.0, "{mine:?} {theirs:?}");
        pair.agree(&pair.other, one).await;

        // It was good once, and one that was never made is not good at all.
        for id in [offer.session, Uuid::from_u128(9)] {
            let refused = pair.one.accept_teleport(id).await;
            let Err(BotError::Journey(JourneyError::Failed(error))) = refused else {
                panic!("{refused:?}")
            };
            assert!(matches!(error, TeleportError::Refused(_)), "{error:?}");
        }
        // Nor is it good for others.
        pair.one.offer_teleport(other, "and back").await.expect("sent");
        assert!(pair.one.offer_teleport(other, &"x".repeat(255)).await.is_err());
    });
}

#[test]
fn a_bot_sees_objects_and_avatars_around() {
    story(75, |pair| async move {
        let [one, other] = pair.ids;
        pair.one.see(200.0).await.expect("connected");
        pair.until("how far it sees", one, |body| body.far == 200.0).await;
        for text in ["Bench", "Sign", "Stone"] {
            let thing = pair.thing(text).await;
            assert_eq!(thing.text, text);
        }
        let near = pair.one.objects_within(300.0).await.expect("connected");
        assert_eq!(near.len(), 3, "{near:?}");
        assert_eq!(pair.one.objects_within(0.1).await.expect("connected").len(), 0);
        pair.agree(&pair.one, other).await;
        let avatars = pair.one.avatars().await.expect("connected");
        let named = avatars.iter().find(|avatar| avatar.id == other).expect("it is seen");
        assert_eq!(named.name, "Max Miller");
    });
}

#[test]
fn a_bot_without_a_connection_says_so() {
    let mut world = World::new(77, Conditions::CLEAN);
    let viewer = world.viewer.clone();
    world.run(async move {
        let core = start_viewer(&viewer, ViewerConfig::default());
        let bot = core.handle.bot();
        let id = Uuid::from_u128(1);
        let place = Vector3::new(1.0, 2.0, 3.0);
        let not_connected = [
            bot.follow(id, 2.0).await,
            bot.fly(true).await,
            bot.jump().await,
            bot.stand().await,
            bot.sit_on_ground().await,
            bot.sit_on(id).await,
            bot.stop().await,
            bot.see(10.0).await,
            bot.turn_to(place).await,
            bot.say("hello").await,
            bot.offer_teleport(id, "come").await,
            bot.contents(id).await.map(|_| ()),
        ];
        for outcome in not_connected {
            assert_eq!(outcome, Err(BotError::NotConnected));
        }
        for journey in [bot.teleport_home().await, bot.accept_teleport(id).await] {
            assert_eq!(journey, Err(BotError::Journey(JourneyError::NotConnected)));
        }
        let circuit = core.handle.core().main_circuit();
        let sent = circuit.send(twinspan_lludp::messages::AgentPause::default()).await;
        assert_eq!(sent, Err(DeliveryError::NotConnected));
    });
}
