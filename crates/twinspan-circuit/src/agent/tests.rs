//! An agent and regions that do as they are told, over a line without faults.

use super::*;
use core::time::Duration;

use twinspan_lludp::messages::{
    AgentMovementComplete, AgentUpdate, ChatFromSimulator, CompleteAgentMovement, DisableSimulator,
    KickUser, LogoutReply, RegionHandshake, RegionHandshakeReply, TeleportFailed, TeleportLocal,
    TeleportLocationRequest, TeleportProgress, TeleportStart, UseCircuitCode,
};
use twinspan_lludp::{MessageId, Uuid, Var1, Var2, Vector3};

use crate::message::{Admission, Received, Taken};
use crate::throttle::Rates;

const CODE: u32 = 11;

/// What came to a region, by name of message.
#[derive(Debug, Default)]
struct Seen(Vec<MessageId>);

impl Sink for Seen {
    fn on_message(&mut self, _now: Timestamp, message: Received<'_>) -> Taken {
        self.0.push(message.id);
        Taken::Yes
    }

    fn on_stranger(&mut self, _: Timestamp, _: SocketAddr, ask: &UseCircuitCode) -> Admission {
        if ask.circuit_code.code == CODE { Admission::Open } else { Admission::Refuse }
    }
}

#[derive(Debug)]
struct World {
    agent: Agent,
    regions: Vec<(SocketAddr, Circuits, Seen)>,
    /// Regions that hear nothing.
    dead: Vec<SocketAddr>,
    now: Timestamp,
    events: Vec<AgentEvent>,
}

fn viewer() -> SocketAddr {
    ([10, 0, 0, 99], 40_000).into()
}

fn region(index: usize) -> SocketAddr {
    ([10, 0, 0, 1 + index as u8], 9_000).into()
}

fn ids() -> AgentIds {
    AgentIds { agent_id: Uuid::from_u128(1), session_id: Uuid::from_u128(2), circuit_code: CODE }
}

impl World {
    fn new() -> Self {
        let stream = |instance| Stream::new(1, "agent tests", instance);
        let silence_max = Duration::from_secs(100);
        let config = Config { rates: Rates::UNLIMITED, silence_max, ..Config::simulator() };
        let regions = (0..3).map(|index| {
            let circuits = Circuits::new(config.clone(), stream(index as u64)).unwrap();
            (region(index), circuits, Seen::default())
        });
        Self {
            agent: Agent::new(ids(), AgentConfig::default(), stream(9)).unwrap(),
            regions: regions.collect(),
            dead: Vec::new(),
            now: Timestamp::START.after(Duration::from_secs(1)),
            events: Vec::new(),
        }
    }

    /// Lets time pass in steps of 20 ms; everything arrives at once.
    fn run(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        let mut out = [0; 1_500];
        let mut nothing = |_, _: Received<'_>| Taken::Yes;
        while self.now <= end {
            let now = self.now;
            self.agent.handle_timeout(now, &mut nothing);
            for (addr, circuits, seen) in &mut self.regions {
                circuits.handle_timeout(now, seen);
                while let Some((to, len)) = circuits.poll_transmit(now, &mut out) {
                    assert_eq!(to, viewer());
                    if !self.dead.contains(addr) {
                        self.agent.handle_datagram(now, *addr, &out[..len], &mut nothing);
                    }
                }
                while circuits.poll_event().is_some() {}
            }
            while let Some((to, len)) = self.agent.poll_transmit(now, &mut out) {
                let found = self.regions.iter_mut().find(|(addr, ..)| *addr == to);
                if let Some((_, circuits, seen)) = found.filter(|_| !self.dead.contains(&to)) {
                    circuits.handle_datagram(now, viewer(), &out[..len], seen);
                }
            }
            assert!(
                self.agent.poll_timeout() > now || self.agent.poll_timeout() == Timestamp::START
            );
            while let Some(event) = self.agent.poll_event() {
                self.events.push(event);
            }
            self.now = now.after(Duration::from_millis(20));
        }
    }

    fn settle(&mut self) {
        self.run(Duration::from_millis(600));
    }

    fn say<M: Message>(&mut self, index: usize, message: &M) {
        let (_, circuits, _) = &mut self.regions[index];
        circuits.send(self.now, viewer(), message, SendOptions::CRITICAL).unwrap();
        self.settle();
    }

    fn handshake(&mut self, index: usize) {
        let mut handshake = RegionHandshake::default();
        handshake.region_info.sim_name = Var1::text(&format!("Region {index}")).unwrap();
        self.say(index, &handshake);
    }

    fn complete(&mut self, index: usize) {
        let mut complete = AgentMovementComplete::default();
        complete.agent_data.agent_id = ids().agent_id;
        complete.agent_data.session_id = ids().session_id;
        complete.data.region_handle = 1_000 + index as u64;
        complete.data.position = Vector3::new(1.0, 2.0, 3.0);
        self.say(index, &complete);
    }

    fn seen<M: Message>(&self, index: usize) -> usize {
        self.regions[index].2.0.iter().filter(|id| **id == M::ID).count()
    }

    fn told(&self, wanted: impl Fn(&AgentEvent) -> bool) -> usize {
        self.events.iter().filter(|event| wanted(event)).count()
    }

    fn queue(&mut self, from: usize, event: QueueEvent) {
        self.agent.handle_event(self.now, region(from), event);
        self.settle();
    }

    fn ended(&self) -> Option<&EndReason> {
        match self.events.last() {
            Some(AgentEvent::Ended { reason }) => Some(reason),
            _ => None,
        }
    }

    /// An agent in region 0, with region 1 as its neighbour.
    fn in_world() -> Self {
        let mut world = Self::new();
        world.agent.enter(world.now, region(0), 0).unwrap();
        world.settle();
        world.handshake(0);
        world.complete(0);
        world.queue(0, QueueEvent::EnableSimulator { addr: region(1), handle: 1_001 });
        world.handshake(1);
        assert_eq!(world.agent.region(), Some(region(0)));
        assert_eq!(world.agent.regions().count(), 2);
        world
    }

    fn ask(&mut self) {
        let to = Destination::Location {
            handle: 1_002,
            position: Vector3::default(),
            look_at: Vector3::default(),
        };
        self.agent.teleport(self.now, to).unwrap();
        self.settle();
    }
}

#[test]
fn login_leads_into_the_first_region_and_neighbours_follow() {
    let world = World::in_world();
    assert_eq!(world.seen::<UseCircuitCode>(0), 1);
    assert_eq!(world.seen::<CompleteAgentMovement>(0), 1);
    assert_eq!(world.seen::<RegionHandshakeReply>(0), 1);
    assert_eq!(world.seen::<twinspan_lludp::messages::AgentThrottle>(0), 1);
    assert!(world.seen::<twinspan_lludp::messages::AgentUpdate>(0) >= 1);
    // A neighbour gets a circuit and an answer, but not the agent.
    assert_eq!(world.seen::<UseCircuitCode>(1), 1);
    assert_eq!(world.seen::<RegionHandshakeReply>(1), 1);
    assert_eq!(world.seen::<CompleteAgentMovement>(1), 0);
    let arrived = |event: &AgentEvent| {
        matches!(event, AgentEvent::Arrived { journey: Journey::Login, handle: 1_000, .. })
    };
    assert_eq!(world.told(arrived), 1);
    let named = |event: &AgentEvent| matches!(event, AgentEvent::Handshake { name, .. } if name == "Region 0");
    assert_eq!(world.told(named), 1);
}

#[test]
fn acks_leave_with_updates_of_stance() {
    let mut world = World::in_world();
    let before = world.agent.circuits().total();
    let updates = world.seen::<AgentUpdate>(0);
    for _ in 0..100 {
        let (_, circuits, _) = &mut world.regions[0];
        let chat = ChatFromSimulator::default();
        circuits.send(world.now, viewer(), &chat, SendOptions::RELIABLE).unwrap();
        world.run(Duration::from_millis(280));
    }
    world.settle();
    let after = world.agent.circuits().total();
    assert_eq!(after.reliable_in - before.reliable_in, 100);
    assert!(after.packet_acks_out - before.packet_acks_out <= 5, "{after:?}");
    // One for each word in 30 s in place of one each second and one ack for each word.
    let updates = world.seen::<AgentUpdate>(0) - updates;
    assert!((90..=110).contains(&updates), "{updates} updates");
    assert_eq!(world.regions[0].1.total().resends_out, 0);
}

#[test]
fn a_handshake_is_answered_each_time_and_told_once() {
    let mut world = World::in_world();
    world.handshake(0);
    world.handshake(0);
    assert_eq!(world.seen::<RegionHandshakeReply>(0), 3);
    assert_eq!(world.told(|event| matches!(event, AgentEvent::Handshake { .. })), 2);
}

#[test]
fn a_region_that_does_not_let_in_ends_it() {
    let mut world = World::new();
    world.agent.enter(world.now, region(0), 0).unwrap();
    world.run(Duration::from_secs(19));
    assert_eq!(world.ended(), None);
    world.run(Duration::from_secs(20));
    assert_eq!(world.ended(), Some(&EndReason::HandshakeTimedOut));
    assert!(world.agent.is_ended());
    let mut silent = World::new();
    silent.dead.push(region(0));
    silent.agent.enter(silent.now, region(0), 0).unwrap();
    silent.run(Duration::from_secs(40));
    assert_eq!(silent.ended(), Some(&EndReason::HandshakeTimedOut));
}

#[test]
fn the_last_round_trip_is_known_after_the_end() {
    let mut fresh = World::new();
    fresh.agent.enter(fresh.now, region(0), 0).unwrap();
    assert_eq!(fresh.agent.last_rtt(), None);

    let mut world = World::in_world();
    let here = world.agent.circuits().rtt(region(0));
    assert!(here.is_some_and(|rtt| rtt > Duration::ZERO), "{here:?}");
    assert_eq!(world.agent.last_rtt(), here);
    // In a region that answered no ping yet it is that of the one before.
    world.queue(0, QueueEvent::TeleportFinish { addr: region(2), handle: 1_002, seed: None });
    world.complete(2);
    assert_eq!(world.agent.region(), Some(region(2)));
    assert!(world.agent.last_rtt().is_some());
    world.agent.logout(world.now);
    world.say(2, &LogoutReply::default());
    assert_eq!(world.ended(), Some(&EndReason::LoggedOut { confirmed: true }));
    assert_eq!((world.agent.circuits().len(), world.agent.region()), (0, None));
    let last = world.agent.circuits().last_rtt(region(2));
    assert!(last.is_some() && world.agent.last_rtt() == last, "{last:?}");
    assert_eq!(world.agent.circuits().rtt(region(2)), None);

    let mut lost = World::in_world();
    lost.dead.extend([region(0), region(1)]);
    lost.run(Duration::from_secs(120));
    assert!(matches!(lost.ended(), Some(EndReason::Lost(_))), "{:?}", lost.ended());
    assert_eq!(lost.agent.last_rtt(), lost.agent.circuits().last_rtt(region(0)));
    assert!(lost.agent.last_rtt().is_some());
}

#[test]
fn crossing_moves_the_agent_over_the_open_circuit() {
    let mut world = World::in_world();
    let crossed =
        QueueEvent::CrossedRegion { addr: region(1), handle: 1_001, seed: Seed::new("http://r1") };
    world.queue(0, crossed.clone());
    assert_eq!(world.seen::<CompleteAgentMovement>(1), 1);
    assert_eq!(world.agent.region(), Some(region(0)), "until the region lets it in");
    world.queue(0, crossed);
    assert_eq!(world.seen::<CompleteAgentMovement>(1), 1, "told twice, asked once");
    world.complete(1);
    assert_eq!(world.agent.region(), Some(region(1)));
    assert_eq!((world.agent.stats().crossings, world.agent.regions().count()), (1, 2));
    assert_eq!(world.told(|event| matches!(event, AgentEvent::Seed { .. })), 1);
    world.say(0, &DisableSimulator::default());
    assert_eq!((world.agent.regions().count(), world.ended()), (1, None));
}

#[test]
fn a_region_that_lets_the_agent_go_while_it_comes_back_means_the_former_visit() {
    let mut world = World::in_world();
    let go = |to: usize| QueueEvent::TeleportFinish {
        addr: region(to),
        handle: 1_000 + to as u64,
        seed: None,
    };
    world.ask();
    world.queue(0, go(2));
    world.handshake(2);
    world.complete(2);
    assert_eq!(world.agent.region(), Some(region(2)));
    // Back at once: the word of farewell is still under way.
    world.ask();
    world.queue(2, go(0));
    world.say(0, &DisableSimulator::default());
    world.complete(0);
    assert_eq!((world.agent.region(), world.ended()), (Some(region(0)), None));
    assert_eq!((world.agent.stats().teleports, world.agent.stats().failures), (2, 0));
}

#[test]
fn a_crossing_that_nobody_answers_fails_and_the_agent_stays() {
    let mut world = World::in_world();
    world.dead.push(region(1));
    let crossed = QueueEvent::CrossedRegion { addr: region(1), handle: 1_001, seed: None };
    world.queue(0, crossed);
    world.run(Duration::from_secs(31));
    let failed = |event: &AgentEvent| {
        matches!(
            event,
            AgentEvent::TravelFailed {
                journey: Journey::Crossing,
                error: TeleportError::ArrivalTimedOut { .. },
            }
        )
    };
    assert_eq!((world.told(failed), world.agent.region()), (1, Some(region(0))));
    // The grid decides where the agent is: if it is let in late, it goes.
    world.dead.clear();
    world.complete(1);
    assert_eq!(world.agent.region(), Some(region(1)));
}

#[test]
fn a_teleport_within_the_region_is_done_there() {
    let mut world = World::in_world();
    world.ask();
    assert_eq!(world.seen::<TeleportLocationRequest>(0), 1);
    world.say(0, &TeleportStart::default());
    world.say(0, &TeleportLocal::default());
    assert_eq!(world.told(|event| matches!(event, AgentEvent::TeleportStarted)), 1);
    assert_eq!(world.told(|event| matches!(event, AgentEvent::TeleportedHere { .. })), 1);
    world.ask();
}

#[test]
fn a_teleport_leads_to_another_region_and_the_old_one_goes() {
    let mut world = World::in_world();
    world.ask();
    let error = world.agent.teleport(world.now, Destination::Landmark(Uuid::nil())).unwrap_err();
    assert!(matches!(error, TravelError::Wrong(_)));
    let finish =
        QueueEvent::TeleportFinish { addr: region(2), handle: 1_002, seed: Seed::new("http://r2") };
    world.queue(0, finish);
    // Both at once: nobody waits for the circuit.
    assert_eq!(world.seen::<UseCircuitCode>(2), 1);
    assert_eq!(world.seen::<CompleteAgentMovement>(2), 1);
    // The old region may go first.
    world.say(0, &DisableSimulator::default());
    assert_eq!((world.agent.region(), world.ended()), (None, None));
    world.handshake(2);
    world.complete(2);
    assert_eq!((world.agent.region(), world.agent.stats().teleports), (Some(region(2)), 1));
    let arrived = |event: &AgentEvent| {
        matches!(event, AgentEvent::Arrived { journey: Journey::Teleport, handle: 1_002, .. })
    };
    assert_eq!(world.told(arrived), 1);
}

#[test]
fn a_teleport_is_refused_lost_or_cancelled_with_its_reason() {
    let mut world = World::in_world();
    world.ask();
    let mut refused = TeleportFailed::default();
    refused.info.reason = Var1::text("no entry").unwrap();
    world.say(0, &refused);
    world.ask();
    world.agent.cancel_teleport(world.now).unwrap();
    assert!(world.agent.cancel_teleport(world.now).is_err());
    world.settle();
    assert_eq!(world.seen::<twinspan_lludp::messages::TeleportCancel>(0), 1);
    world.ask();
    world.run(Duration::from_secs(31));
    world.dead.push(region(0));
    world.ask();
    world.run(Duration::from_secs(31));
    let errors: Vec<&TeleportError> = world
        .events
        .iter()
        .filter_map(|event| match event {
            AgentEvent::TravelFailed { error, .. } => Some(error),
            _ => None,
        })
        .collect();
    assert_eq!(
        errors,
        [
            &TeleportError::Refused("no entry".into()),
            &TeleportError::Cancelled,
            &TeleportError::TimedOut(Duration::from_secs(30)),
            &TeleportError::RequestLost,
        ]
    );
    assert_eq!(world.told(|event| matches!(event, AgentEvent::Delivery { .. })), 0);
    assert_eq!(world.agent.own, [], "every request has its outcome");
}

#[test]
fn a_teleport_of_which_there_are_signs_for_ever_fails_all_the_same() {
    let mut world = World::in_world();
    let began = world.now;
    world.ask();
    let mut progress = TeleportProgress::default();
    progress.info.message = Var1::text("contacting").unwrap();
    let whole = Duration::from_secs(30) * TELEPORT_TIMEOUTS_MAX;
    let mut said = 0;
    while world.now < began.after(whole - Duration::from_secs(10)) {
        world.say(0, &progress);
        world.run(Duration::from_secs(9));
        said += 1;
    }
    // Longer than the time without a sign: each of them prolonged it.
    assert!(said > 10 && world.agent.is_travelling(), "{said} signs");
    for _ in 0..3 {
        world.say(0, &progress);
        world.run(Duration::from_secs(9));
    }
    assert!(!world.agent.is_travelling());
    let failed = AgentEvent::TravelFailed {
        journey: Journey::Teleport,
        error: TeleportError::Endless(whole),
    };
    assert_eq!(world.told(|event| *event == failed), 1);
    world.ask();
}

#[test]
fn a_cancelled_teleport_that_went_through_is_followed() {
    let mut world = World::in_world();
    world.ask();
    world.agent.cancel_teleport(world.now).unwrap();
    world.queue(0, QueueEvent::TeleportFinish { addr: region(2), handle: 1_002, seed: None });
    world.complete(2);
    assert_eq!(world.agent.region(), Some(region(2)));
}

#[test]
fn a_destination_that_never_answers_fails_the_teleport() {
    let mut world = World::in_world();
    world.dead.push(region(2));
    world.ask();
    world.queue(0, QueueEvent::TeleportFinish { addr: region(2), handle: 1_002, seed: None });
    world.run(Duration::from_secs(31));
    assert_eq!((world.agent.region(), world.agent.stats().failures), (Some(region(0)), 1));
    // Where the old region is gone as well, so is the agent.
    world.dead.clear();
    world.dead.push(region(2));
    world.queue(0, QueueEvent::TeleportFinish { addr: region(2), handle: 1_002, seed: None });
    world.say(0, &DisableSimulator::default());
    world.run(Duration::from_secs(31));
    assert!(matches!(world.ended(), Some(EndReason::HandshakeTimedOut | EndReason::Lost(_))));
}

#[test]
fn events_at_the_wrong_time_or_from_elsewhere_change_nothing() {
    let mut world = World::in_world();
    let finish = QueueEvent::TeleportFinish { addr: region(2), handle: 1_002, seed: None };
    // From a neighbour, and from where there is no circuit.
    world.queue(1, finish.clone());
    world.queue(2, finish);
    world.complete(1);
    world.say(0, &LogoutReply::default());
    world.say(1, &TeleportLocal::default());
    assert_eq!((world.agent.region(), world.agent.regions().count()), (Some(region(0)), 2));
    assert_eq!(world.agent.stats().stale, 5);
    assert_eq!(world.ended(), None);
}

#[test]
fn logout_ends_with_the_regions_answer_or_without() {
    let mut world = World::in_world();
    world.agent.logout(world.now);
    world.settle();
    assert_eq!(world.seen::<LogoutRequest>(0), 1);
    world.say(0, &LogoutReply::default());
    assert_eq!(world.ended(), Some(&EndReason::LoggedOut { confirmed: true }));
    assert!(world.agent.is_ended());
    let mut silent = World::in_world();
    silent.dead.push(region(0));
    silent.agent.logout(silent.now);
    silent.run(Duration::from_secs(7));
    assert_eq!(silent.ended(), Some(&EndReason::LoggedOut { confirmed: false }));
}

#[test]
fn a_silent_region_is_given_up_with_a_last_word() {
    let mut world = World::in_world();
    world.dead.push(region(0));
    world.run(Duration::from_secs(57));
    assert_eq!(world.ended(), None);
    world.run(Duration::from_secs(4));
    // It hears again, but the agent has made up its mind.
    world.dead.clear();
    world.run(Duration::from_secs(6));
    assert_eq!(world.ended(), Some(&EndReason::Lost(CloseReason::Silence)));
    assert_eq!(world.seen::<LogoutRequest>(0), 1);
}

#[test]
fn a_journey_that_the_end_cuts_short_has_its_outcome_first() {
    let mut world = World::in_world();
    world.ask();
    world.queue(0, QueueEvent::TeleportFinish { addr: region(2), handle: 1_002, seed: None });
    assert!(world.agent.is_travelling());
    world.say(0, &KickUser::default());
    let failed =
        AgentEvent::TravelFailed { journey: Journey::Teleport, error: TeleportError::RegionLost };
    assert_eq!(world.told(|event| *event == failed), 1);
    assert!(matches!(world.ended(), Some(EndReason::Kicked { .. })));
    world.agent.allow_rate(world.now, 500_000.0);
    assert_eq!(world.agent.poll_event(), None, "nothing follows the end");
}

#[test]
fn a_teleport_that_is_said_to_lead_to_where_the_agent_is_times_out() {
    let mut world = World::in_world();
    world.ask();
    world.queue(0, QueueEvent::TeleportFinish { addr: region(0), handle: 1_000, seed: None });
    assert!(world.agent.is_travelling());
    world.run(Duration::from_secs(31));
    let timed_out = |event: &AgentEvent| {
        matches!(event, AgentEvent::TravelFailed { error: TeleportError::TimedOut(_), .. })
    };
    assert_eq!(world.told(timed_out), 1);
    assert!(!world.agent.is_travelling());
}

#[test]
fn a_region_that_goes_and_is_announced_again_at_once_stays() {
    let mut world = World::in_world();
    let (now, mut out) = (world.now, [0; 2048]);
    let (_, circuits, _) = &mut world.regions[1];
    circuits.send(now, viewer(), &DisableSimulator::default(), SendOptions::RELIABLE).unwrap();
    while let Some((_, len)) = circuits.poll_transmit(now, &mut out) {
        world.agent.handle_datagram(now, region(1), &out[..len], &mut Seen::default());
    }
    assert_eq!(world.agent.regions().count(), 1);
    let event = QueueEvent::EnableSimulator { addr: region(1), handle: 1_001 };
    world.agent.handle_event(now, region(0), event);
    world.settle();
    world.handshake(1);
    assert_eq!(world.agent.regions().count(), 2);
    let down = |event: &AgentEvent| matches!(event, AgentEvent::CircuitDown { .. });
    assert_eq!(world.told(down), 1);
    assert_eq!(world.seen::<RegionHandshakeReply>(1), 2);
}

#[test]
fn kicked_is_kicked() {
    let mut world = World::in_world();
    let chat = twinspan_lludp::messages::ChatFromViewer::default();
    world.dead.push(region(0));
    let id = world.agent.send_reliable(world.now, &[chat.into()]).unwrap();
    world.settle();
    world.dead.clear();
    let mut kick = KickUser::default();
    kick.user_info.reason = Var2::text("maintenance").unwrap();
    world.say(0, &kick);
    assert_eq!(world.ended(), Some(&EndReason::Kicked { reason: "maintenance".into() }));
    let told =
        |event: &AgentEvent| matches!(event, AgentEvent::Delivery { id: of, .. } if *of == id);
    assert_eq!(world.told(told), 1);
    assert_eq!(
        world.agent.send(world.now, &LogoutRequest::default(), SendOptions::RELIABLE),
        Err(SendError::NoRegion)
    );
}

#[test]
fn the_end_tells_nothing_of_what_the_agent_sent_for_itself() {
    let mut world = World::in_world();
    world.dead.push(region(0));
    world.ask();
    world.dead.clear();
    world.say(0, &KickUser::default());
    let failed = |event: &AgentEvent| {
        matches!(event, AgentEvent::TravelFailed { error: TeleportError::RegionLost, .. })
    };
    assert_eq!(world.told(failed), 1);
    assert_eq!(world.told(|event| matches!(event, AgentEvent::Delivery { .. })), 0);
    assert_eq!(world.ended(), Some(&EndReason::Kicked { reason: String::new() }));
}

#[test]
fn neighbours_are_bounded_and_may_fall_silent() {
    let mut world = World::in_world();
    for index in 0..200 {
        let addr = SocketAddr::from(([10, 9, 0, index], 9_000));
        world.agent.handle_event(
            world.now,
            region(0),
            QueueEvent::EnableSimulator { addr, handle: 7 },
        );
    }
    assert_eq!(world.agent.regions().count(), 64);
    // Those that never answer are given up.
    world.run(Duration::from_secs(21));
    assert_eq!(world.agent.regions().count(), 2);
    assert_eq!(world.ended(), None);
}
