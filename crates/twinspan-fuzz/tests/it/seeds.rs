//! Good inputs of every target, from the encoders themselves.

use std::net::SocketAddr;
use std::sync::Arc;

use twinspan_core::aead::AeadSuite;
use twinspan_core::bytes::Writer;
use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_fuzz::TRUNK_KEY;
use twinspan_messages::fuzz::SCHEMAS;
use twinspan_messages::{Limits, verify};
use twinspan_provider::dns::{DnsQuery, DnsReply, RecordKind, Verdict};
use twinspan_record::{FileHead, Purpose, RecordWriter};
use twinspan_relay::{Direction, TrunkKey, TrunkTags};
use twinspan_session::{
    ClientSession, CryptoSuite, Endpoint, ServerIdentity, SessionConfig, TokenIssuer, TokenKey,
    UserId,
};
use twinspan_world::event::{ActionOutcome, ClientEvent, EVENT_BYTES_MAX, ServerEvent};
use twinspan_world::{
    Baselines, CellEncodings, EntityId, Input, InputBundle, InterestConfig, Kind, PlanInput,
    Prediction, StateHeader, StatePlan, Subscriptions, World, WorldConfig,
};

mod circuit;
mod contents;
mod http;
mod llsd;
mod lludp;
mod viewer;
mod xmlrpc;

/// The seeds of one target; none for a target that this file does not know.
pub(crate) fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "session-header" | "session-handshake" => handshake(),
        "session-token" => tokens(),
        "session-frames" => frames(),
        "session-bulk" => bulk(),
        "reliable-fragments" => fragments(),
        "world-state" => states(),
        "world-input" => inputs(),
        "world-event" => events(),
        "messages-verify" => messages(),
        "admission-rules" => rules(),
        "record-file" => records(),
        "relay-frame" => trunk(),
        "dns-message" => names(),
        #[cfg(target_os = "linux")]
        target if target.starts_with("hub-") => twinspan_hub::fuzz::seeds(target),
        "lludp-frame" => lludp::packets(),
        "lludp-zero" => lludp::payloads(),
        "lludp-message" => lludp::messages(),
        "lludp-template" => lludp::templates(),
        "lludp-object" => contents::objects(),
        "lludp-content" => contents::contents(),
        "lludp-terrain" => contents::layers(),
        "circuit-datagrams" => circuit::exchanges(),
        "circuit-agent" => circuit::journeys(),
        "xmlrpc-document" => xmlrpc::documents(),
        "xmlrpc-login" => xmlrpc::logins(),
        "socks5-reply" => http::replies(),
        "socks5-datagram" => http::datagrams(),
        "http-connect" => http::connects(),
        "http-response" => http::responses(),
        "viewer-login" => viewer::logins(),
        "viewer-grid-info" => viewer::grid_infos(),
        "viewer-queue" => viewer::queues(),
        "viewer-answer" => viewer::answers(),
        "viewer-region" => viewer::regions(),
        "llsd-xml" => llsd::documents(twinspan_llsd::Form::Xml),
        "llsd-binary" => llsd::documents(twinspan_llsd::Form::Binary),
        "llsd-notation" => llsd::documents(twinspan_llsd::Form::Notation),
        _ => Vec::new(),
    }
}

/// A whole handshake and the first sealed packets, as they travelled.
fn handshake() -> Vec<Vec<u8>> {
    let server: SocketAddr = "10.0.0.1:7000".parse().unwrap();
    let mut random = Stream::new(1, "seeds", 0);
    let identity = ServerIdentity::new(&mut random);
    let tokens = TokenKey::new(&mut random);
    let issuer = TokenIssuer::new(tokens.clone(), identity.public_key());
    let token = issuer.issue(&mut random, UserId(1), server, u64::MAX);
    let suites: Arc<dyn AeadSuite> = Arc::new(CryptoSuite::CHACHA_FIRST);
    let (config, stream) = (SessionConfig::default(), |name| Stream::new(1, name, 0));
    let mut endpoint = Endpoint::new(
        config.clone(),
        Arc::clone(&suites),
        identity,
        tokens,
        Box::new(stream("server secrets")),
        stream("jitter"),
        0,
    )
    .unwrap();
    let secrets = Box::new(stream("client secrets"));
    let mut client =
        ClientSession::new(config, suites, &token, server, secrets, stream("client")).unwrap();
    let pool = PacketPool::new(64);
    let peer: SocketAddr = "10.0.0.2:5000".parse().unwrap();
    let mut travelled = Vec::new();
    let mut now = Timestamp::START;
    for _ in 0..8 {
        let mut batch = DatagramBatch::new(16);
        client.handle_timeout(now, &mut |_| {});
        client.poll_transmit(now, &pool, &mut batch);
        while let Some(mut datagram) = batch.pop() {
            travelled.push(datagram.packet.to_vec());
            endpoint.handle_datagram(now, peer, &mut datagram.packet, &mut |_| {});
        }
        endpoint.handle_timeout(now, &mut |_| {});
        endpoint.poll_transmit(now, &pool, &mut batch);
        while let Some(mut datagram) = batch.pop() {
            travelled.push(datagram.packet.to_vec());
            client.handle_datagram(now, &mut datagram.packet, &mut |_| {});
        }
        now = now.after(core::time::Duration::from_millis(50));
    }
    assert!(travelled.len() >= 5, "{} datagrams travelled", travelled.len());
    travelled
}

fn tokens() -> Vec<Vec<u8>> {
    let mut random = Stream::new(2, "seeds", 0);
    let identity = ServerIdentity::new(&mut random);
    let issuer = TokenIssuer::new(TokenKey::new(&mut random), identity.public_key());
    let mut issue = |address: &str| {
        issuer.issue(&mut random, UserId(9), address.parse().unwrap(), 1_900_000_000)
    };
    let (four, six) = (issue("10.0.0.1:7000"), issue("[2001:db8::1]:7000"));
    vec![
        four.to_bytes().to_vec(),
        six.to_bytes().to_vec(),
        four.to_text().into_bytes(),
        six.to_text().to_uppercase().into_bytes(),
    ]
}

/// Channel and flags, then the text of a packet: each form that section 6 of the protocol has.
fn frames() -> Vec<Vec<u8>> {
    let ack = [9, 0, 0, 0, 3, 0, 2, 0b1011, 1];
    let ordered = 0xc3;
    let mut both = vec![0, 0x04 | 0x10];
    both.extend(ack);
    // A whole ordered message, a fragment, a PING, a CREDIT.
    both.extend([10, ordered, 1, 0, b'a', b'b', b'c']);
    both.extend([13, ordered, 2, 0, 0, 1, b'x', b'y']);
    both.extend([2, 0, 1]);
    both.extend([22, 0x80, 0, 0, 3, 0, 0, 4, 0, 0, 0, 0, 0]);
    vec![
        [&[0, 0x04][..], &ack].concat(),
        vec![ordered, 0, 7, 0, b'h', b'e', b'y'],
        vec![ordered, 0x08, 7, 0, 1, 3, 1, 2, 3, 4],
        vec![0x01, 0x40, 1, 2, 3],
        vec![0, 0, 2, 0],
        both,
        // A TICKET.
        [&[0x80, 0, 0, 0, 13][..], &[9; 176]].concat(),
    ]
}

/// Raw lengths, then LZ4 blocks or the messages themselves.
fn bulk() -> Vec<Vec<u8>> {
    let run = [100, 0x1f, b'a', 1, 0, 75, 0x50, b'a', b'a', b'a', b'a', b'a'];
    let literals = [9, 0x90, b'l', b'i', b't', b'e', b'r', b'a', b'l', b's', b'!'];
    vec![b"\0as it is".to_vec(), run.to_vec(), literals.to_vec()]
}

/// Channel, number, index, last, length, bytes.
fn fragments() -> Vec<Vec<u8>> {
    let piece = |channel: u8, number: u16, index: u8, last: u8, body: &[u8]| {
        let [n0, n1] = number.to_le_bytes();
        [&[channel, n0, n1, index, last, body.len() as u8], body].concat()
    };
    let mut turned: Vec<_> =
        (0..4).rev().map(|index| piece(0xc3, 0, index, 3, &[index; 100])).collect();
    turned.push(piece(0xc3, 1, 0, 255, b"behind"));
    let ahead = (0..20).rev().map(|number| piece(0xc6, number, 0, 255, &[1; 30]));
    let sequenced = (0..6).map(|number| piece(0x45, number, 0, 1, &[2; 60]));
    vec![
        turned.concat(),
        ahead.collect::<Vec<_>>().concat(),
        sequenced.collect::<Vec<_>>().concat(),
        [piece(0x85, 0, 0, 255, b"unordered"), piece(0x05, 0, 0, 255, b"loose")].concat(),
    ]
}

fn states() -> Vec<Vec<u8>> {
    let config = WorldConfig { side: 200.0, ..WorldConfig::default() };
    let mut world = World::new(config, Stream::new(3, "world", 0)).unwrap();
    let player = world.spawn_anywhere(Kind::Player).unwrap();
    for kind in [Kind::Npc, Kind::Projectile, Kind::Player] {
        for _ in 0..15 {
            world.spawn_anywhere(kind).unwrap();
        }
    }
    let mut encodings = CellEncodings::new(&world);
    let mut baselines = Baselines::new();
    let mut subscriptions = Subscriptions::new(InterestConfig::default());
    let mut plan = StatePlan::new(Endpoint::message_room());
    let mut seeds = Vec::new();
    for _ in 0..4 {
        (0..20).for_each(|_| world.step());
        let position = world.entity(player).unwrap().position;
        subscriptions.update(world.tick(), position, world.grid());
        encodings.update(&world);
        let header = StateHeader::of(&world, player, &subscriptions).unwrap().with_times(7, 9);
        plan.plan(PlanInput {
            header,
            subscriptions: &subscriptions,
            baselines: &mut baselines,
            encodings: &mut encodings,
            world: &world,
            budget: usize::MAX,
        });
        for part in 0..plan.parts() {
            let mut bytes = [0; 1_200];
            let mut writer = Writer::new(&mut bytes);
            plan.write_part(part, &mut writer).unwrap();
            baselines.on_acked(plan.tag(part));
            seeds.push(writer.written().to_vec());
        }
    }
    // Several behind one another, as the second half of the body reads them.
    let several = seeds
        .iter()
        .flat_map(|seed| (seed.len() as u16).to_le_bytes().into_iter().chain(seed.iter().copied()));
    let several = several.take(3_000).collect();
    seeds.push(several);
    seeds
}

fn inputs() -> Vec<Vec<u8>> {
    let mut prediction = Prediction::new();
    let mut seeds = Vec::new();
    for (forward, yaw) in [(1.0, 0.0), (-1.0, 90.0), (0.5, 359.0), (0.0, 12.5)] {
        prediction.predict(Input::toward(forward, 0.25, yaw, -10.0));
        let mut bytes = [0; 1_200];
        let mut writer = Writer::new(&mut bytes);
        InputBundle::of(&prediction, 0, 1_234).unwrap().encode(&mut writer).unwrap();
        seeds.push(writer.written().to_vec());
    }
    seeds
}

fn events() -> Vec<Vec<u8>> {
    let mut world = World::new(WorldConfig::default(), Stream::new(3, "world", 0)).unwrap();
    let id: EntityId = world.spawn_anywhere(Kind::Player).unwrap();
    let mut bytes = [0; EVENT_BYTES_MAX];
    let mut seeds = Vec::new();
    let len = ClientEvent::ApplyEffect { action: 5, target: id }.encode(&mut bytes).unwrap();
    seeds.push(bytes[..len].to_vec());
    for event in [
        ServerEvent::Welcome {
            own: id,
            tick: 9,
            tick_hz: 60,
            state_hz: 20,
            side: 1_000.0,
            cell: 32.0,
        },
        ServerEvent::ActionResult { action: 5, outcome: ActionOutcome::Applied { until_tick: 99 } },
        ServerEvent::EffectOn { actor: id, until_tick: 99 },
        ServerEvent::Draining,
    ] {
        let len = event.encode(&mut bytes).unwrap();
        seeds.push(bytes[..len].to_vec());
    }
    seeds
}

/// Messages of the schemas of the body, laid out by hand.
fn messages() -> Vec<Vec<u8>> {
    let only_text = vec![
        12, 0, 0, 0, 0, 0, 6, 0, 8, 0, 4, 0, 6, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, b'h', b'i', 0, 0,
    ];
    // `a` with a text, a mood of 9 and one spot.
    let mut full = vec![16, 0, 0, 0, 0, 0, 10, 0, 16, 0, 4, 0, 12, 0, 8, 0];
    full.extend([10, 0, 0, 0, 12, 0, 0, 0, 14, 0, 0, 0, 9, 0, 0, 0]);
    full.extend([2, 0, 0, 0, b'h', b'i', 1, 0, 0, 0]);
    full.extend(1.5_f32.to_le_bytes());
    full.extend((-2.0_f32).to_le_bytes());
    // `b` with a number, and one in it.
    let mut nested = vec![20, 0, 0, 0, 14, 0, 16, 0, 8, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0];
    nested.extend([16, 0, 0, 0, 12, 0, 0, 0]);
    nested.extend(2.5_f64.to_le_bytes());
    nested.extend([0xf0, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    nested.extend(3.5_f64.to_le_bytes());
    nested.extend([6, 0, 16, 0, 8, 0]);
    let limits = Limits::default();
    let [a, b] = &SCHEMAS;
    assert_eq!(verify(a, &limits, &only_text), Ok(()));
    assert_eq!(verify(a, &limits, &full), Ok(()));
    assert_eq!(verify(b, &limits, &nested), Ok(()));
    vec![only_text, full, nested]
}

fn rules() -> Vec<Vec<u8>> {
    let short =
        "[[message]]\nname = \"say\"\nstream = 5\nper_second = 2\nburst = 4\naction = \"drop\"\n";
    vec![twinspan_admission::DEFAULT_RULES.as_bytes().to_vec(), short.as_bytes().to_vec()]
}

fn records() -> Vec<Vec<u8>> {
    let head = FileHead { purpose: Purpose::RECORDING, id: 0 };
    let mut writer = RecordWriter::create(Vec::new(), head).unwrap();
    for payload in [&b"first"[..], b"", &[7; 300]] {
        writer.append(payload).unwrap();
    }
    let file = writer.into_inner();
    // Whole, as frames behind the head that the body makes, torn, and with a damaged head.
    let mut damaged = file.clone();
    damaged[40] ^= 1;
    vec![file.clone(), file[32..].to_vec(), file[..70].to_vec(), damaged]
}

fn trunk() -> Vec<Vec<u8>> {
    let tags = TrunkTags::new(&TrunkKey::from_bytes(TRUNK_KEY), None, Direction::ToServer);
    let pool = PacketPool::new(1);
    ["10.1.2.3:4000", "[2001:db8::7]:9", "192.0.2.1:65535"]
        .into_iter()
        .zip([0, 64, 200])
        .map(|(client, pad_to)| {
            let mut packet = pool.take().unwrap();
            assert!(packet.fill(&[5; 90]));
            let client = client.parse().unwrap();
            assert!(twinspan_relay::encode(&mut packet, client, pad_to, tags.present()));
            packet.to_vec()
        })
        .collect()
}

/// A question and answers to it: known, behind an alias, unknown.
fn names() -> Vec<Vec<u8>> {
    let query = DnsQuery { id: 0x1234, name: "a.bc".to_owned(), kind: RecordKind::A };
    let ttl = std::time::Duration::from_secs(300);
    let known = DnsReply::known(query.clone(), &[[10, 0, 0, 7].into()], ttl).to_bytes(512);
    let mut alias = query.to_bytes();
    (alias[2], alias[7]) = (0x81, 2);
    alias.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 4, 1, b'x', 0xc0, 14]);
    alias.extend([0xc0, 34, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 8]);
    let unknown = DnsReply::without(query.clone(), Verdict::Unknown).to_bytes(512);
    vec![query.to_bytes(), known, alias, unknown]
}
