//! Scripts of circuits: what regions and viewers really say to one another.

use core::time::Duration;
use std::net::SocketAddr;

use twinspan_circuit::fuzz::{Action, Step, write_step};
use twinspan_circuit::{
    Admission, Circuits, Config, Farewell, Rates, Received, SendOptions, Sink, Taken,
};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::{
    AgentMovementComplete, ChatFromSimulator, ChatFromViewer, KickUser, RegionHandshake,
    TeleportFailed, TeleportLocal, TeleportStart, UseCircuitCode,
};
use twinspan_lludp::{AnyMessage, Uuid, Var1};

/// The circuit code that the bodies know.
const CODE: u32 = 7;

struct Everybody;

impl Sink for Everybody {
    fn on_message(&mut self, _now: Timestamp, _message: Received<'_>) -> Taken {
        Taken::Yes
    }

    fn on_stranger(&mut self, _: Timestamp, _: SocketAddr, _: &UseCircuitCode) -> Admission {
        Admission::Open
    }
}

fn viewer() -> SocketAddr {
    ([10, 0, 0, 99], 40_000).into()
}

fn region() -> SocketAddr {
    ([10, 0, 0, 1], 9_000).into()
}

/// What both ends send when a viewer comes, both talk, and the given end leaves; as steps of one
/// script and in the order of sending.
fn exchange(from_viewer: bool, number: u64) -> Vec<u8> {
    let now = Timestamp::START.after(Duration::from_secs(1));
    let rates = Rates::UNLIMITED;
    let stream = |name| Stream::new(number, name, 0);
    let mut viewer_end = Circuits::new(Config::default(), stream("viewer")).unwrap();
    let simulator = Config { rates, ..Config::simulator() };
    let mut region_end = Circuits::new(simulator, stream("region")).unwrap();
    viewer_end.open(now, region()).unwrap();
    let mut hello = UseCircuitCode::default();
    hello.circuit_code.code = CODE;
    viewer_end.send(now, region(), &hello, SendOptions::CRITICAL).unwrap();
    let mut script = Vec::new();
    let (mut now, mut out) = (now, [0; 1_500]);
    for turn in 0..12 {
        if turn == 2 {
            let chat = AnyMessage::from(ChatFromSimulator::default());
            region_end.send_reliable(now, viewer(), &vec![chat; 3]).unwrap();
            let chat = ChatFromViewer::default();
            viewer_end.send(now, region(), &chat, SendOptions::RELIABLE).unwrap();
        }
        if turn == 9 {
            let end = if from_viewer { &mut viewer_end } else { &mut region_end };
            end.close(if from_viewer { region() } else { viewer() }, Farewell::CloseCircuit);
        }
        viewer_end.handle_timeout(now, &mut Everybody);
        region_end.handle_timeout(now, &mut Everybody);
        let mut wait = 3;
        while let Some((_, len)) = viewer_end.poll_transmit(now, &mut out) {
            let action = Action::Datagram(&out[..len]);
            write_step(Step { peer: 0, wait, action }, &mut script);
            wait = 0;
            region_end.handle_datagram(now, viewer(), &out[..len], &mut Everybody);
        }
        while let Some((_, len)) = region_end.poll_transmit(now, &mut out) {
            let action = Action::Datagram(&out[..len]);
            write_step(Step { peer: 0, wait, action }, &mut script);
            wait = 0;
            viewer_end.handle_datagram(now, region(), &out[..len], &mut Everybody);
        }
        if turn == 5 {
            write_step(Step { peer: 0, wait, action: Action::Wish(3 | 4 << 3) }, &mut script);
        }
        now = now.after(Duration::from_millis(600));
    }
    script
}

pub(super) fn exchanges() -> Vec<Vec<u8>> {
    let mut scripts = vec![exchange(true, 1), exchange(false, 2)];
    // Four peers, one of whom nobody knows; they are closed, opened again and written to.
    let mut wishes = Vec::new();
    for (peer, wish) in [(0, 3), (1, 4 | 8 << 3), (2, 5 | 2 << 3), (3, 6), (0, 0), (0, 2), (1, 1)] {
        write_step(Step { peer, wait: 4, action: Action::Wish(wish) }, &mut wishes);
    }
    scripts.push(wishes);
    scripts
}

/// What a region sends, as one datagram each.
pub(super) struct Region(Circuits, Timestamp);

impl Region {
    pub(super) fn new(number: u64) -> Self {
        let now = Timestamp::START.after(Duration::from_secs(1));
        let config = Config { rates: Rates::UNLIMITED, ..Config::default() };
        let mut circuits = Circuits::new(config, Stream::new(number, "region", 0)).unwrap();
        circuits.open(now, viewer()).unwrap();
        Self(circuits, now)
    }

    pub(super) fn say(
        &mut self,
        peer: u8,
        wait: u8,
        message: impl Into<AnyMessage>,
        script: &mut Vec<u8>,
    ) {
        let Self(circuits, now) = self;
        let message = message.into();
        circuits.send_any(*now, viewer(), &message, SendOptions::CRITICAL).unwrap();
        let mut out = [0; 1_500];
        let (_, len) = circuits.poll_transmit(*now, &mut out).expect("it leaves at once");
        write_step(Step { peer, wait, action: Action::Datagram(&out[..len]) }, script);
    }
}

/// A region answers, names itself and lets the agent in.
pub(super) fn arrival(region: &mut Region, peer: u8, script: &mut Vec<u8>) {
    let mut handshake = RegionHandshake::default();
    handshake.region_info.sim_name = Var1::text("Alpha").unwrap();
    region.say(peer, 2, handshake, script);
    let mut complete = AgentMovementComplete::default();
    complete.agent_data.agent_id = Uuid::from_u128(1);
    complete.agent_data.session_id = Uuid::from_u128(2);
    region.say(peer, 2, complete, script);
}

pub(super) fn journeys() -> Vec<Vec<u8>> {
    let wish = |peer, wait, wish, script: &mut Vec<u8>| {
        write_step(Step { peer, wait, action: Action::Wish(wish) }, script);
    };
    let began = || {
        let (mut script, mut region) = (Vec::new(), Region::new(1));
        arrival(&mut region, 0, &mut script);
        (script, region)
    };
    // A neighbour, a crossing to it, chat, a pause, a logout.
    let (mut crossing, _) = began();
    let mut neighbour = Region::new(2);
    wish(1, 3, 0x10, &mut crossing);
    wish(1, 0, 0x14, &mut crossing);
    wish(1, 3, 0x11, &mut crossing);
    arrival(&mut neighbour, 1, &mut crossing);
    for other in [9, 11, 12, 13, 14] {
        wish(1, 4, other, &mut crossing);
    }
    // A teleport within the region, one that is refused, one to elsewhere, one that is cancelled.
    let (mut teleports, mut region) = began();
    wish(0, 3, 5, &mut teleports);
    region.say(0, 2, TeleportStart::default(), &mut teleports);
    let mut here = TeleportLocal::default();
    here.info.agent_id = Uuid::from_u128(1);
    region.say(0, 2, here, &mut teleports);
    wish(0, 3, 6, &mut teleports);
    let mut failed = TeleportFailed::default();
    failed.info.agent_id = Uuid::from_u128(1);
    region.say(0, 2, failed, &mut teleports);
    wish(0, 3, 7, &mut teleports);
    wish(0, 1, 8, &mut teleports);
    wish(0, 3, 5, &mut teleports);
    wish(2, 3, 0x12, &mut teleports);
    arrival(&mut Region::new(3), 2, &mut teleports);
    wish(0, 6, 5, &mut teleports);
    wish(0, 7, 9, &mut teleports);
    // Somebody removes the agent.
    let (mut kicked, mut region) = began();
    wish(0, 1, 9, &mut kicked);
    region.say(0, 4, KickUser::default(), &mut kicked);
    vec![crossing, teleports, kicked]
}
