//! Typed messages between players: every promise on a lossy link, and bad ones.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_core::random::Stream;
use twinspan_game::{
    Client, ClientConfig, EVENTS, SendMessageError, ServerConfig, ServerKeys, ServerMessages,
    ShardedServer,
};
use twinspan_messages::{Encoder, Limits, MessageBuf, MessageId, Refusals, Registry};
use twinspan_provider::{
    Machine, NetworkProvider, RandomProvider, TaskProvider, UdpOptions, drive,
};
use twinspan_reliable::{Channel, Delivery, StreamId};
use twinspan_session::{CloseReason, ServerIdentity, SessionConfig, TokenIssuer, TokenKey, UserId};
use twinspan_sim::{Sim, SimConfig, SimEnv, SimTask};

use crate::rig::{Rig, SERVER, Shared, address, shared, suites};
use crate::rogue::Rogue;
use generated::town::{Chat, Item, Mood, Trade};

#[rustfmt::skip]
#[allow(dead_code, missing_docs, unreachable_pub, rust_2018_idioms, clippy::all)]
#[allow(clippy::redundant_closure_for_method_calls, clippy::undocumented_unsafe_blocks)]
#[path = "../../../twinspan-messages/tests/it/generated.rs"]
mod generated;

/// Every fourth datagram is lost, some come twice, many overtake.
const HARSH: Conditions = Conditions {
    loss: 0.25,
    delay: Duration::from_millis(20),
    jitter: Duration::from_millis(60),
    duplicate: 0.1,
    reorder: 0.2,
    ..Conditions::CLEAN
};

fn channel(delivery: Delivery, stream: u8) -> Channel {
    Channel::new(delivery, StreamId::new(stream).unwrap())
}

fn trade_channel() -> Channel {
    channel(Delivery::Ordered, 6)
}

fn chat_channel() -> Channel {
    channel(Delivery::Unreliable, 5)
}

fn registry() -> Arc<Registry> {
    let mut registry = Registry::new(Limits::default());
    registry
        .register::<Chat>(MessageId(1), chat_channel())
        .and_then(|registry| registry.register::<Trade>(MessageId(2), trade_channel()))
        .and_then(|registry| registry.register::<Item>(MessageId(3), trade_channel()))
        .unwrap();
    Arc::new(registry)
}

/// Trades go to their partners, chats to everybody, and items have no handler.
fn handlers() -> ServerMessages {
    ServerMessages::new(registry())
        .on::<Trade>(|context, trade| {
            let from = context.user().0;
            let mut trade = Trade::try_from(trade).unwrap();
            let to = UserId(core::mem::replace(&mut trade.partner, from));
            context.send(to, &trade).unwrap();
        })
        .and_then(|handlers| {
            handlers.on::<Chat>(|context, chat| {
                context.send_all(&Chat::try_from(chat).unwrap()).unwrap();
            })
        })
        .unwrap()
}

fn add_player(rig: &mut Rig, number: u32) -> Shared<Client> {
    let (env, token) = (rig.env(number), rig.token(number));
    let config = ClientConfig { messages: Some(registry()), ..ClientConfig::default() };
    let (secrets, random) = (env.secrets(), env.stream("client", 0));
    let client = Client::new(config, suites(), &token, SERVER, secrets, random).unwrap();
    let client = shared(client);
    rig.launch(address(number), Rc::clone(&client));
    client
}

fn offer(partner: u64, gold: u32) -> Trade {
    let item = Item { kind: 7, count: gold, weight: 1.5 };
    let note = Some(format!("offer {gold}"));
    Trade { partner, give: Some(vec![item]), note, ..Trade::default() }
}

/// The trades that a client received so far, taken out.
fn trades(client: &Shared<Client>) -> Vec<Trade> {
    let mut buffer = MessageBuf::default();
    let mut found = Vec::new();
    while client.borrow_mut().poll_message(&mut buffer) {
        found.extend(buffer.read::<Trade>().map(|trade| Trade::try_from(trade).unwrap()));
    }
    found
}

/// Six players on three cores, each trading with the next, whoever's core that one is on.
#[test]
fn typed_messages_reach_players_on_every_core() {
    const PLAYERS: u32 = 6;
    const OFFERS: u32 = 30;
    let mut sim = Sim::new(SimConfig { seed: 5, conditions: HARSH, ..SimConfig::default() });
    let env = sim.host("server", SERVER.ip());
    let mut secrets = env.secrets();
    let identity = ServerIdentity::new(secrets.as_mut());
    let tokens = TokenKey::new(secrets.as_mut());
    let issuer = TokenIssuer::new(tokens.clone(), identity.public_key());
    let mut keys = || ServerKeys { identity: identity.clone(), tokens: tokens.clone() };
    let random = &mut |name, shard| env.stream(name, shard);
    let (config, messages) = (ServerConfig::default(), Some(handlers()));
    let secrets = &mut || env.secrets();
    let server =
        ShardedServer::with_messages(&config, 3, messages, &suites(), &mut keys, secrets, random);
    let server = shared(server.unwrap());
    server.borrow_mut().mislead_every(5);
    let mut tasks = vec![launch(&env, SERVER, Rc::clone(&server))];
    let mut login = Stream::new(5, "login", 0);
    let players: Vec<_> = (1..=PLAYERS)
        .map(|number| {
            let env = sim.host(&format!("host {number}"), address(number).ip());
            let user = UserId(u64::from(number));
            let token = issuer.issue(&mut login, user, SERVER, u64::MAX);
            let config = ClientConfig { messages: Some(registry()), ..ClientConfig::default() };
            let (secrets, random) = (env.secrets(), env.stream("client", 0));
            let client = Client::new(config, suites(), &token, SERVER, secrets, random).unwrap();
            let client = shared(client);
            tasks.push(launch(&env, address(number), Rc::clone(&client)));
            client
        })
        .collect();
    sim.run_for(Duration::from_secs(10));
    assert!(players.iter().all(|player| player.borrow().own().is_some()));
    let by_shard = server.borrow().sessions_by_shard();
    assert!(by_shard.iter().filter(|players| **players > 0).count() > 1, "{by_shard:?}");
    let mut seen = vec![Vec::new(); players.len()];
    for number in 0..OFFERS {
        for (player, partner) in players.iter().zip((2..=PLAYERS).chain([1])) {
            let offer = offer(u64::from(partner), number);
            player.borrow_mut().send_message(sim.now(), &offer).unwrap();
        }
        sim.run_for(Duration::from_millis(50));
        players.iter().zip(&mut seen).for_each(|(player, seen)| seen.extend(trades(player)));
    }
    sim.run_for(Duration::from_secs(10));
    for ((player, mut seen), partner) in
        players.iter().zip(seen).zip([PLAYERS].into_iter().chain(1..))
    {
        seen.extend(trades(player));
        // All of them, once, in order, from who sent them.
        let wanted: Vec<_> = (0..OFFERS).map(|number| offer(u64::from(partner), number)).collect();
        assert_eq!(seen, wanted, "from {partner}");
    }
    let stats = server.borrow().message_stats();
    let all = u64::from(PLAYERS * OFFERS);
    assert_eq!((stats.received, stats.sent, stats.unsent), (all, all, 0), "{stats:?}");
}

fn launch<M: Machine + 'static>(env: &SimEnv, at: SocketAddr, mut machine: M) -> SimTask {
    let task_env = env.clone();
    env.spawn("machine", async move {
        let mut socket = task_env.bind_udp(at, &UdpOptions::default()).await.unwrap();
        drive(&task_env, &mut socket, &mut machine).await.unwrap();
    })
}

#[test]
fn two_players_trade_over_a_harsh_network() {
    const OFFERS: u32 = 120;
    let mut rig = Rig::empty(HARSH, |_| {});
    rig.server.borrow_mut().set_messages(handlers());
    let (alice, bob) = (add_player(&mut rig, 1), add_player(&mut rig, 2));
    rig.wait("both to enter", |_| alice.borrow().own().is_some() && bob.borrow().own().is_some());
    let (mut to_alice, mut to_bob) = (Vec::new(), Vec::new());
    for number in 0..OFFERS {
        let now = rig.now();
        alice.borrow_mut().send_message(now, &offer(2, number)).unwrap();
        bob.borrow_mut().send_message(now, &offer(1, 1_000 + number)).unwrap();
        let chat = Chat { text: "well?".into(), mood: Mood::Cheerful, at: None };
        alice.borrow_mut().send_message(now, &chat).unwrap();
        rig.run_for(Duration::from_millis(50));
        to_alice.extend(trades(&alice));
        to_bob.extend(trades(&bob));
    }
    rig.run_for(Duration::from_secs(10));
    to_alice.extend(trades(&alice));
    to_bob.extend(trades(&bob));
    // Exactly once and in order, each with all that was in it, and from whom.
    let expected = |from: u64, first: u32| (first..first + OFFERS).map(move |n| offer(from, n));
    assert_eq!(to_bob, expected(1, 0).collect::<Vec<_>>());
    assert_eq!(to_alice, expected(2, 1_000).collect::<Vec<_>>());
    let stats = rig.server.borrow().message_stats();
    assert_eq!(stats.refused, Refusals::default());
    assert_eq!((stats.unsent, stats.flooding), (0, 0));
    // Unreliable words: some were lost, most were heard.
    let heard = bob.borrow().message_stats().received - u64::from(OFFERS);
    assert!((30..=100).contains(&heard), "{heard} of 120 words through 44 % loss, some twice");
}

#[test]
fn what_cannot_be_sent_is_an_error() {
    let mut rig = Rig::empty(Conditions::CLEAN, |_| {});
    let now = rig.now();
    let to_none = rig.server.borrow_mut().send_message(now, UserId(9), &Item::default());
    assert_eq!(to_none, Err(SendMessageError::NoRegistry));
    rig.server.borrow_mut().set_messages(handlers());
    let to_none = rig.server.borrow_mut().send_message(now, UserId(9), &Item::default());
    assert_eq!(to_none, Err(SendMessageError::NotHere { user: UserId(9) }));
    let player = add_player(&mut rig, 1);
    rig.wait("the player to enter", |_| player.borrow().own().is_some());
    let now = rig.now();
    rig.server.borrow_mut().send_message(now, UserId(1), &offer(3, 4)).unwrap();
    rig.run_for(Duration::from_millis(100));
    assert_eq!(trades(&player), [offer(3, 4)]);
}

/// Bytes as an honest client would send them.
fn encoded<T: twinspan_messages::Message>(message: &T) -> Vec<u8> {
    registry().encode(message, &mut Encoder::new()).unwrap().bytes.to_vec()
}

/// Lets a rogue on host 40 queue these messages at once, so that they share a packet.
fn rogue_sends(rig: &mut Rig, messages: Vec<(Channel, Vec<u8>)>, times: u64) -> Shared<Rogue> {
    let session = rig.session(40, SessionConfig::default());
    let rogue = shared(Rogue::new(session, 20, move |turn| {
        if turn.number < times {
            messages.iter().for_each(|(channel, bytes)| turn.queue(*channel, bytes));
        }
    }));
    rig.launch(address(40), Rc::clone(&rogue));
    rig.wait("the rogue's turns", |_| {
        let rogue = rogue.borrow();
        rogue.turns() > times || rogue.closed().is_some()
    });
    rig.run_for(Duration::from_millis(300));
    rogue
}

#[test]
fn a_bad_message_costs_only_itself() {
    //= messages 5
    let mut rig = Rig::new(|_| {});
    rig.server.borrow_mut().set_messages(handlers());
    let good = encoded(&offer(40, 5));
    let mut malformed = good.clone();
    malformed.truncate(good.len() / 2);
    let mut unknown = good.clone();
    unknown[0] = 200;
    let events = EVENTS;
    let sent = vec![
        (trade_channel(), good.clone()),
        (trade_channel(), malformed),
        (events, vec![0xee; 3]),
        (trade_channel(), unknown),
        (trade_channel(), vec![2]),
        (chat_channel(), good.clone()),
        (trade_channel(), encoded(&Item::default())),
        (trade_channel(), good),
    ];
    let rogue = rogue_sends(&mut rig, sent, 1);
    let stats = rig.server.borrow().message_stats();
    assert_eq!(stats.received, 2, "the good ones before and behind");
    let expected =
        Refusals { short: 1, unknown: 1, channel: 1, malformed: 1, unhandled: 1, over_limit: 0 };
    assert_eq!(stats.refused, expected);
    assert_eq!(rig.server.borrow().player_stats().malformed, 6, "each is one offence");
    assert_eq!(rogue.borrow().closed(), None, "the session goes on");
    assert_eq!(rig.server.borrow().endpoint_stats().violations, 0);
    rig.assert_honest_unharmed();
}

#[test]
fn who_keeps_sending_bad_messages_is_closed() {
    //= messages 5
    let mut rig = Rig::new(|_| {});
    // No rate that could end it first.
    rig.server.borrow_mut().set_messages(handlers().with_rate(10_000, 1 << 20));
    let bad = vec![(trade_channel(), vec![2, 0, 9]); 12];
    let rogue = rogue_sends(&mut rig, bad, 40);
    assert_eq!(rogue.borrow().closed(), Some(CloseReason::ProtocolViolation));
    let refused = rig.server.borrow().message_stats().refused.malformed;
    assert!((100..200).contains(&refused), "{refused} were forgiven");
    rig.assert_honest_unharmed();
}

#[test]
fn messages_over_the_rate_are_dropped_and_held_against_their_sender() {
    let mut rig = Rig::new(|_| {});
    rig.server.borrow_mut().set_messages(handlers());
    let many = vec![(trade_channel(), encoded(&offer(40, 1))); 20];
    let rogue = rogue_sends(&mut rig, many, 100);
    assert_eq!(rogue.borrow().closed(), Some(CloseReason::Flooding));
    let stats = rig.server.borrow().message_stats();
    assert!(stats.received <= 2 * 60, "{stats:?}");
    assert!(stats.flooding > 60, "{stats:?}");
    rig.assert_honest_unharmed();
}
