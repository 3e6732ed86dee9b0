//! A whole grid and its visitors, in the simulator and on loopback.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use twinspan_circuit::{AgentEvent, Journey};
use twinspan_core::link::Conditions;
use twinspan_grid::{
    Account, GridEvent, GridServer, GridServerConfig, MESH, NOTECARD, RegionConfig, TEXTURE,
};
use twinspan_http::{ClientConfig, HttpClient, Request, StatusCode, Url};
use twinspan_llsd::{Limits, Value, parse_any};
use twinspan_lludp::content::{LayerReader, Motion, PatchSize, TerseUpdate};
use twinspan_lludp::messages::{
    AgentRequestSit, AgentSit, AvatarAnimation, AvatarSitResponse, ChatFromSimulator,
    CoarseLocationUpdate, ImprovedInstantMessage, ImprovedTerseObjectUpdate, KillObject, LayerData,
    MapBlockReply, MapNameRequest, ObjectUpdate, UUIDNameReply, UUIDNameRequest,
    UUIDNameRequestUUIDNameBlock,
};
use twinspan_lludp::{Quaternion, Uuid, Var1, Vector3};
use twinspan_provider::Env;
use twinspan_sim::{Sim, SimConfig};
use twinspan_xmlrpc::login::{AccountName, LoginReply, RefusalReason, StartLocation};

use crate::visitor::{Visitor, ask_to_log_in, request, sleep};

const AT: u32 = 1;
const STAND_UP: u32 = 1 << 16;
const SIT_ON_GROUND: u32 = 1 << 17;
const SAY: u8 = 1;
const WHISPER: u8 = 0;

/// A grid on one node and visitors on another.
pub(crate) struct Stage<E: Env> {
    env: E,
    /// Where visitors' sockets are.
    local: SocketAddr,
    pub(crate) server: GridServer<E>,
}

impl<E: Env> Stage<E> {
    pub(crate) async fn set(grid: E, env: E, [ip, local]: [IpAddr; 2]) -> Self {
        let account = |name| Account::new(AccountName::parse(name).unwrap(), "sesame");
        let config = GridServerConfig {
            listen: (ip, 0).into(),
            accounts: ["Ruth Tester", "Max Tester", "Eve Tester"].map(account).to_vec(),
            ..GridServerConfig::default()
        };
        let server = GridServer::start(grid, config).await.unwrap();
        Self { env, local: (local, 0).into(), server }
    }

    pub(crate) async fn enter(&self, name: &str, region: &str, position: [u16; 3]) -> Visitor<E> {
        let start = StartLocation::Region { name: region.into(), position };
        self.enter_with(name, start).await
    }

    async fn enter_with(&self, name: &str, start: StartLocation) -> Visitor<E> {
        let url = self.server.login_url();
        Visitor::enter(&self.env, self.local, url, &request(name, start)).await
    }

    fn region(&self, name: &str) -> RegionConfig {
        let mut regions = self.server.regions().into_iter();
        regions.find(|(_, config)| config.name == name).unwrap().1
    }

    fn events(&self) -> Vec<GridEvent> {
        std::iter::from_fn(|| self.server.poll_event()).collect()
    }
}

/// Plays a story on two simulated hosts.
pub(crate) fn simulated<F: Future<Output = ()> + 'static>(
    seed: u64,
    conditions: Conditions,
    story: impl FnOnce(twinspan_sim::SimEnv, twinspan_sim::SimEnv, [IpAddr; 2]) -> F,
) -> u64 {
    let mut sim = Sim::new(SimConfig { seed, conditions, ..SimConfig::default() });
    let ips = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
    let grid = sim.host("grid", ips[0]);
    let visitors = sim.host("visitors", ips[1]);
    let story = story(grid, visitors.clone(), ips);
    sim.block_on(&visitors, Duration::from_secs(3_600), story).expect("the story ends");
    sim.trace_hash()
}

pub(crate) fn near() -> Conditions {
    Conditions { delay: Duration::from_millis(20), ..Conditions::CLEAN }
}

fn poor(loss: f64) -> Conditions {
    let (delay, jitter) = (Duration::from_millis(40), Duration::from_millis(30));
    Conditions { loss, delay, jitter, duplicate: 0.02, reorder: 0.05, ..Conditions::CLEAN }
}

/// Plays a story on this machine.
fn real<F: Future<Output = ()> + 'static>(
    story: impl FnOnce(twinspan_provider::TokioEnv, twinspan_provider::TokioEnv, [IpAddr; 2]) -> F
    + 'static,
) {
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    twinspan_provider::run(move |env| story(env.clone(), env, [ip; 2])).unwrap();
}

fn number_of(update: &ObjectUpdate, id: Uuid) -> Option<u32> {
    update.object_data.iter().find(|object| object.full_id == id).map(|object| object.id)
}

/// The number that an avatar has for a visitor, once it was told of.
fn seen<E: Env>(visitor: &Visitor<E>, id: Uuid) -> Option<u32> {
    visitor.heard::<ObjectUpdate>().iter().find_map(|(_, update)| number_of(update, id))
}

fn places_of<E: Env>(visitor: &Visitor<E>, local_id: u32) -> Vec<Vector3> {
    let all = visitor.heard::<ImprovedTerseObjectUpdate>();
    let blocks = all.iter().flat_map(|(_, message)| &message.object_data);
    blocks
        .map(|block| {
            let update = TerseUpdate::read_parts(block.data.bytes(), &[]).unwrap();
            (update.local_id, update.motion.position)
        })
        .filter(|(id, _)| *id == local_id)
        .map(|(_, position)| position)
        .collect()
}

fn heard_text<E: Env>(visitor: &Visitor<E>, text: &str) -> usize {
    let all = visitor.heard::<ChatFromSimulator>();
    all.iter().filter(|(_, chat)| chat.chat_data.message.to_text() == text).count()
}

async fn two_meet<E: Env>(grid: E, env: E, ips: [IpAddr; 2]) {
    let stage = Stage::set(grid, env.clone(), ips).await;
    let ruth = stage.enter("Ruth Tester", "Alpha", [128, 128, 22]).await;
    let max = stage.enter("Max Tester", "Alpha", [133, 128, 22]).await;
    let (ruth_id, max_id) = (ruth.login.agent_id, max.login.agent_id);

    // Each sees itself and the other.
    for id in [ruth_id, max_id] {
        ruth.until("an avatar", |ruth| seen(ruth, id).is_some()).await;
        max.until("an avatar", |max| seen(max, id).is_some()).await;
    }
    assert_ne!(seen(&max, ruth_id), seen(&max, max_id));

    // What is said is heard near by; what is whispered, not five metres further than it carries.
    ruth.say("hello", SAY);
    max.until("a word", |max| heard_text(max, "hello") == 1).await;
    ruth.until("her own word", |ruth| heard_text(ruth, "hello") == 1).await;
    let chat = &max.heard::<ChatFromSimulator>()[0].1.chat_data;
    assert_eq!((chat.from_name.to_text().as_str(), chat.source_id), ("Ruth Tester", ruth_id));
    max.teleport(stage.region("Alpha").handle(), [148.0, 128.0, 22.0]);
    let there = |event: &AgentEvent| matches!(event, AgentEvent::TeleportedHere { .. });
    max.until("the other place", |max| max.events().iter().any(there)).await;
    ruth.say("psst", WHISPER);
    ruth.until("her own whisper", |ruth| heard_text(ruth, "psst") == 1).await;
    ruth.say("still there?", SAY);
    max.until("a word", |max| heard_text(max, "still there?") == 1).await;
    assert_eq!(heard_text(&max, "psst"), 0);

    // Messages go to one alone, under the name that the grid knows.
    max.write_to(ruth_id, "a secret");
    ruth.until("a message", |ruth| !ruth.heard::<ImprovedInstantMessage>().is_empty()).await;
    let message = ruth.heard::<ImprovedInstantMessage>().remove(0).1;
    assert_eq!(message.message_block.from_agent_name.to_text(), "Max Tester");
    assert_eq!(message.message_block.message.to_text(), "a secret");
    assert_eq!(message.agent_data.agent_id, max_id);
    assert!(message.agent_data.session_id.is_nil());
    max.write_to(Uuid::from_u128(77), "nobody?");
    max.until("an answer", |max| !max.heard::<ImprovedInstantMessage>().is_empty()).await;
    assert_eq!(max.heard::<ImprovedInstantMessage>()[0].1.message_block.dialog, 20);

    walk_and_sit(&stage, &ruth, &max).await;

    // Who goes is forgotten.
    let number = seen(&max, ruth_id).unwrap();
    ruth.leave().await;
    max.until("the end of an avatar", |max| {
        let all = max.heard::<KillObject>();
        all.iter().any(|(_, kill)| kill.object_data.iter().any(|object| object.id == number))
    })
    .await;
    max.leave().await;
    let left = |event: &&GridEvent| matches!(event, GridEvent::Left { asked: true, .. });
    assert_eq!(stage.events().iter().filter(left).count(), 2);
    assert_eq!(stage.server.with_grid(|grid| grid.stats().dropped), 0);
}

async fn walk_and_sit<E: Env>(stage: &Stage<E>, ruth: &Visitor<E>, max: &Visitor<E>) {
    let ruth_id = ruth.login.agent_id;
    let number = seen(max, ruth_id).unwrap();
    // A quarter turn to the left: north.
    let north = Quaternion::new(0.0, 0.0, core::f32::consts::FRAC_1_SQRT_2);
    ruth.stance(north, AT);
    max.until("steps", |max| {
        places_of(max, number).iter().any(|place| place.y > 130.0 && (place.x - 128.0).abs() < 0.1)
    })
    .await;
    ruth.stance(north, 0);
    // Whatever was lost or late on the way, its end is told for good.
    let end = || stage.server.with_grid(|grid| grid.position(ruth.login.circuit_code));
    for visitor in [max, ruth] {
        let stops = |visitor: &Visitor<E>| places_of(visitor, number).last().copied() == end();
        visitor.until("the end of the way", stops).await;
    }

    // On the ground, and up again.
    ruth.stance(north, SIT_ON_GROUND);
    let does = |max: &Visitor<E>, animation: u128| {
        let all = max.heard::<AvatarAnimation>();
        let last = all.iter().rfind(|(_, message)| message.sender.id == ruth_id);
        last.is_some_and(|(_, message)| message.animation_list[0].anim_id.as_u128() == animation)
    };
    max.until("a seat", |max| does(max, 0x1a2b_d58e_87ff_0df8_0b4c_53e0_47b0_bb6e)).await;
    ruth.stance(north, STAND_UP);
    max.until("a stand", |max| does(max, 0x2408_fe9e_df1d_1d7d_f4ff_1384_fa7b_350f)).await;
    ruth.stance(north, 0);

    // On the bench, which every region has.
    let updates = ruth.heard::<ObjectUpdate>();
    let things: Vec<_> = updates.iter().flat_map(|(_, update)| &update.object_data).collect();
    let bench = things.iter().find(|thing| thing.text.to_text() == "Bench").unwrap();
    let mut ask = AgentRequestSit::default();
    (ask.agent_data.agent_id, ask.agent_data.session_id) = ruth.ids();
    ask.target_object.target_id = bench.full_id;
    ruth.send(&ask);
    ruth.until("an offer", |ruth| !ruth.heard::<AvatarSitResponse>().is_empty()).await;
    let mut sit = AgentSit::default();
    (sit.agent_data.agent_id, sit.agent_data.session_id) = ruth.ids();
    ruth.send(&sit);
    max.until("somebody on the bench", |max| {
        let all = max.heard::<ObjectUpdate>();
        let mut all = all.iter().flat_map(|(_, update)| &update.object_data);
        all.any(|object| {
            let motion = Motion::read_full(object.object_data.bytes()).unwrap();
            object.full_id == ruth_id && object.parent_id == bench.id && motion.position.x == 0.0
        })
    })
    .await;
    ruth.stance(north, STAND_UP);
    max.until("a stand", |max| does(max, 0x2408_fe9e_df1d_1d7d_f4ff_1384_fa7b_350f)).await;
}

async fn what_is_there<E: Env>(grid: E, env: E, ips: [IpAddr; 2]) {
    let stage = Stage::set(grid, env.clone(), ips).await;
    let ruth = stage.enter("Ruth Tester", "Alpha", [128, 128, 22]).await;
    // The ground, all of it.
    let alpha = ruth.region().unwrap();
    let patches = |ruth: &Visitor<E>| {
        let mut seen = std::collections::BTreeSet::new();
        for (_, layer) in ruth.heard::<LayerData>().iter().filter(|(from, _)| *from == alpha) {
            let mut reader = LayerReader::new(layer.layer_data.data.bytes()).unwrap();
            let mut heights = [0.0; PatchSize::HEIGHTS_MAX];
            while let Some(place) = reader.next_patch(&mut heights).unwrap() {
                seen.insert((place.x, place.y));
            }
        }
        seen.len()
    };
    ruth.until("the ground", |ruth| patches(ruth) == 256).await;
    // The neighbour, and its things.
    ruth.until("a neighbour", |ruth| ruth.regions().len() == 2).await;
    let beta = stage.region("Beta").addr;
    ruth.until("the neighbour's things", |ruth| {
        let all = ruth.heard::<ObjectUpdate>();
        all.iter().any(|(from, update)| *from == beta && update.object_data.len() == 3)
    })
    .await;
    // Who is where, what people are called, where regions are.
    ruth.until("a map", |ruth| !ruth.heard::<CoarseLocationUpdate>().is_empty()).await;
    let map = ruth.heard::<CoarseLocationUpdate>().remove(0).1;
    assert_eq!((map.index.you, map.location[0].x, map.location[0].y), (0, 128, 128));
    let asked = vec![UUIDNameRequestUUIDNameBlock { id: ruth.login.agent_id }];
    let names = UUIDNameRequest { uuid_name_block: asked };
    ruth.send(&names);
    ruth.until("a name", |ruth| !ruth.heard::<UUIDNameReply>().is_empty()).await;
    let name = &ruth.heard::<UUIDNameReply>()[0].1.uuid_name_block[0];
    assert_eq!(
        (name.first_name.to_text(), name.last_name.to_text()),
        ("Ruth".into(), "Tester".into())
    );
    for (asked, access, x) in [("gam", 13, 1_010), ("Nowhere", 255, 0)] {
        let before = ruth.heard::<MapBlockReply>().len();
        let mut map = MapNameRequest::default();
        (map.agent_data.agent_id, map.agent_data.session_id) = ruth.ids();
        map.name_data.name = Var1::text(asked).unwrap();
        ruth.send(&map);
        ruth.until("the map", |ruth| ruth.heard::<MapBlockReply>().len() > before).await;
        let found = &ruth.heard::<MapBlockReply>()[before].1.data[0];
        assert_eq!((found.access, found.x), (access, x), "{asked}");
    }
    capabilities(&ruth).await;
    // With nothing to tell, polls end by themselves.
    ruth.until("an empty poll", |ruth| ruth.polls_empty() > 0).await;
    ruth.leave().await;
}

async fn capabilities<E: Env>(ruth: &Visitor<E>) {
    let seed = ruth.login.seed_capability.reveal();
    let names = ["FetchInventoryDescendents2", "GetTexture", "GetMesh", "ViewerAsset", "MadeUp"];
    let names = Value::Array(names.map(Value::from).to_vec());
    let known = parse_any(&ruth.post(seed, &names).await.body, &Limits::DEFAULT).unwrap();
    let url = |name: &str| known.get(name).and_then(Value::as_text).map(str::to_owned);
    assert_eq!(url("MadeUp"), None);
    let root = ruth.login.inventory_root.unwrap();
    let folder = Value::map([("folder_id", Value::from(root))]);
    let ask = Value::map([("folders", Value::Array(vec![folder]))]);
    let reply = ruth.post(&url("FetchInventoryDescendents2").unwrap(), &ask).await;
    let reply = parse_any(&reply.body, &Limits::DEFAULT).unwrap();
    let folder = reply.get("folders").unwrap().at(0).unwrap();
    let told = folder.get("descendents").unwrap().to_i64().unwrap() as usize;
    assert_eq!(told, ruth.login.inventory_skeleton.len() - 1);
    for (name, query, id) in [
        ("GetTexture", "texture_id", TEXTURE),
        ("GetMesh", "mesh_id", MESH),
        ("ViewerAsset", "notecard_id", NOTECARD),
    ] {
        let url = format!("{}/?{query}={id}", url(name).unwrap());
        let url = Url::parse(&url).unwrap();
        let whole = ruth.client.send(Request::get(url.clone())).await.unwrap();
        assert_eq!(whole.status, StatusCode::OK, "{name}");
        let part = ruth.client.send(Request::get(url).with_range(2, Some(5))).await.unwrap();
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT, "{name}");
        assert_eq!(part.body, whole.body[2..6], "{name}");
    }
}

async fn journeys<E: Env>(grid: E, env: E, ips: [IpAddr; 2]) {
    let stage = Stage::set(grid, env.clone(), ips).await;
    let ruth = stage.enter("Ruth Tester", "Alpha", [250, 100, 22]).await;
    let max = stage.enter("Max Tester", "Alpha", [245, 100, 22]).await;
    let eve = stage.enter("Eve Tester", "Beta", [10, 100, 22]).await;
    let (alpha, beta, gamma) = (stage.region("Alpha"), stage.region("Beta"), stage.region("Gamma"));
    let ruth_id = ruth.login.agent_id;
    ruth.until("the neighbour", |ruth| ruth.regions().contains(&beta.addr)).await;
    max.until("an avatar", |max| seen(max, ruth_id).is_some()).await;
    let number = seen(&max, ruth_id).unwrap();

    // She walks east, over the border.
    ruth.stance(Quaternion::default(), AT);
    ruth.until("the crossing", |ruth| ruth.region() == Some(beta.addr)).await;
    ruth.stance(Quaternion::default(), 0);
    let arrived = |ruth: &Visitor<E>, wanted: Journey| {
        let events = ruth.events();
        events
            .iter()
            .any(|event| matches!(event, AgentEvent::Arrived { journey, .. } if *journey == wanted))
    };
    assert!(arrived(&ruth, Journey::Crossing));
    // Who stays behind forgets her there, and sees her next door.
    max.until("her going", |max| {
        let all = max.heard::<KillObject>();
        all.iter().any(|(from, kill)| *from == alpha.addr && kill.object_data[0].id == number)
    })
    .await;
    for other in [&max, &eve] {
        other
            .until("her coming", |other| {
                let all = other.heard::<ObjectUpdate>();
                all.iter().any(|(from, update)| {
                    *from == beta.addr && number_of(update, ruth_id).is_some()
                })
            })
            .await;
    }
    // Words cross the border as well.
    eve.say("welcome", SAY);
    ruth.until("a word", |ruth| heard_text(ruth, "welcome") == 1).await;

    // To a region far away: what was left behind is over, its queues too.
    ruth.teleport(gamma.handle(), [30.0, 40.0, 22.0]);
    ruth.until("the other place", |ruth| ruth.region() == Some(gamma.addr)).await;
    assert!(arrived(&ruth, Journey::Teleport));
    ruth.until("the end of the old", |ruth| ruth.regions() == [gamma.addr]).await;
    ruth.until("the end of the queues", |ruth| ruth.queues_gone() >= 2).await;
    let code = ruth.login.circuit_code;
    let position = stage.server.with_grid(|grid| grid.position(code)).unwrap();
    assert_eq!((position.x, position.y), (30.0, 40.0));

    // Nobody walks off the map.
    ruth.stance(Quaternion::new(0.0, 0.0, 1.0), AT);
    sleep(&env, Duration::from_secs(15)).await;
    let position = stage.server.with_grid(|grid| grid.position(code)).unwrap();
    assert!(position.x > 0.0 && position.x < 0.5, "{position:?}");
    assert_eq!(ruth.region(), Some(gamma.addr));
    // And who comes back is where he was.
    ruth.leave().await;
    let ruth = stage.enter_with("Ruth Tester", StartLocation::Last).await;
    assert_eq!(ruth.region(), Some(gamma.addr));
}

async fn one_session<E: Env>(grid: E, env: E, ips: [IpAddr; 2]) {
    let stage = Stage::set(grid, env.clone(), ips).await;
    let first = stage.enter("Ruth Tester", "Alpha", [128, 128, 22]).await;
    let client = HttpClient::new(env.clone(), ClientConfig::default()).unwrap();
    let again = request("Ruth Tester", StartLocation::Last);
    let LoginReply::Refused(refusal) =
        ask_to_log_in(&client, stage.server.login_url(), &again).await
    else {
        panic!("she is in already")
    };
    assert_eq!(refusal.reason, RefusalReason::Presence);
    first
        .until("the kick", |first| {
            first.events().iter().any(|event| matches!(event, AgentEvent::Ended { .. }))
        })
        .await;
    first.until("the end of the queues", |first| first.queues_gone() >= 1).await;
    let second = stage.enter("Ruth Tester", "Alpha", [128, 128, 22]).await;
    second.leave().await;
    stage.server.stop("closing").await;
}

#[test]
fn two_agents_meet_talk_walk_and_sit() {
    simulated(1, near(), two_meet);
}

#[test]
fn a_region_shows_what_is_there() {
    simulated(1, near(), what_is_there);
}

#[test]
fn one_walks_over_borders_and_teleports() {
    simulated(1, near(), journeys);
}

#[test]
fn an_agent_has_one_session() {
    simulated(1, near(), one_session);
}

#[test]
fn all_of_it_holds_at_losses_up_to_30_percent() {
    for (seed, loss) in [(1, 0.1), (2, 0.2), (3, 0.3)] {
        simulated(seed, poor(loss), two_meet);
        simulated(seed, poor(loss), journeys);
    }
}

#[test]
fn the_same_seed_gives_the_same_grid() {
    let [one, again, other] = [5, 5, 6].map(|seed| simulated(seed, poor(0.1), journeys));
    assert_eq!(one, again);
    assert_ne!(one, other);
}

#[test]
fn it_is_the_same_grid_on_loopback() {
    real(two_meet);
    real(one_session);
}
