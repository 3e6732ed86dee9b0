//! The fuzz body of an agent among regions that say anything.

use core::net::SocketAddr;
use core::time::Duration;

use twinspan_core::fuzz::digest;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::ChatFromViewer;
use twinspan_lludp::{AnyMessage, Uuid, Vector3};

use super::script::{Action, peer_addr, steps, wait_of};
use crate::{
    Agent, AgentConfig, AgentEvent, AgentIds, Body, Destination, Journey, QueueEvent, Received,
    Seed, Taken,
};

/// Times that a timer may ring within one wait.
const RINGS_MAX: u32 = 20_000;
/// Datagrams that may leave at one moment.
const BURST_MAX: u32 = 2_000;

#[derive(Debug)]
struct World {
    agent: Agent,
    now: Timestamp,
    /// Teleports that were asked for, and what became of such.
    asked: u64,
    answered: u64,
    deliveries: i64,
    ended: bool,
    seen: u64,
}

/// Any datagrams and events of regions leave the agent somewhere, and in the end it is out: each
/// teleport has an outcome, each delivery one, the end is told once and nothing after it.
pub(super) fn fuzz_agent(data: &[u8]) -> u64 {
    let ids =
        AgentIds { agent_id: Uuid::from_u128(1), session_id: Uuid::from_u128(2), circuit_code: 7 };
    let Ok(agent) = Agent::new(ids, AgentConfig::default(), Stream::new(1, "fuzz", 0)) else {
        unreachable!("the configuration is in range")
    };
    let now = Timestamp::START.after(Duration::from_secs(1));
    let mut world =
        World { agent, now, asked: 0, answered: 0, deliveries: 0, ended: false, seen: 0 };
    assert!(world.agent.enter(now, peer_addr(0), 0).is_ok(), "it is in no region yet");
    for step in steps(data) {
        world.wait(wait_of(&step));
        let (addr, now) = (peer_addr(step.peer), world.now);
        match step.action {
            Action::Datagram(bytes) => world.agent.handle_datagram(now, addr, bytes, &mut taker()),
            Action::Wish(wish) => world.wish(addr, wish),
        }
        world.drain();
    }
    world.agent.logout(world.now);
    world.drain();
    world.wait(Duration::from_secs(10));
    assert!(world.ended && world.agent.is_ended(), "the logout has no end");
    assert!(!world.agent.is_travelling(), "it travels after its end");
    assert_eq!(world.deliveries, 0, "outcomes that were never told, or told again");
    assert!(world.answered >= world.asked, "a teleport without an outcome");
    digest(&(world.agent.stats(), world.agent.circuits().total(), world.seen, world.answered))
}

/// Takes every message.
fn taker() -> impl FnMut(Timestamp, Received<'_>) -> Taken {
    |_, _| Taken::Yes
}

impl World {
    fn wish(&mut self, addr: SocketAddr, wish: u8) {
        let now = self.now;
        let handle = u64::from(wish >> 4);
        let seed = Seed::new("http://region/seed").filter(|_| wish & 0x10 != 0);
        // Events come from the queue of the region that the agent is in, or of another.
        let from = if wish & 0x20 == 0 { self.agent.region() } else { None };
        let from = from.unwrap_or_else(|| peer_addr(wish >> 6));
        let event = match wish % 16 {
            0 => QueueEvent::EnableSimulator { addr, handle },
            1 => QueueEvent::CrossedRegion { addr, handle, seed },
            2 => QueueEvent::TeleportFinish { addr, handle, seed },
            3 => QueueEvent::TeleportFailed { reason: "no".into() },
            4 => match seed {
                Some(seed) => QueueEvent::EstablishAgentCommunication { addr, seed },
                None => return,
            },
            other => return self.user(addr, other),
        };
        self.agent.handle_event(now, from, event);
    }

    fn user(&mut self, addr: SocketAddr, wish: u8) {
        let now = self.now;
        let (position, look_at) = (Vector3::default(), Vector3::default());
        let to = match wish % 3 {
            0 => Destination::Location { handle: 1_000, position, look_at },
            1 => Destination::Landmark(Uuid::nil()),
            _ => Destination::Lure { id: Uuid::from_u128(3), flags: 1 },
        };
        match wish {
            5..=7 => self.asked += u64::from(self.agent.teleport(now, to).is_ok()),
            8 => drop(self.agent.cancel_teleport(now)),
            9 | 10 => {
                let chat = [AnyMessage::from(ChatFromViewer::default())];
                self.deliveries += i64::from(self.agent.send_reliable(now, &chat).is_ok());
            }
            11 => drop(self.agent.set_paused(now, true)),
            12 => self.agent.allow_rate(now, 500_000.0),
            13 => self.agent.set_body(Body::default()),
            14 => self.agent.logout(now),
            _ => {
                self.agent.circuits_mut().close(addr, crate::Farewell::Silent);
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now.after(time);
        let mut rings = 0;
        while self.agent.poll_timeout() <= until {
            self.now = self.now.max(self.agent.poll_timeout());
            self.agent.handle_timeout(self.now, &mut taker());
            self.drain();
            rings += 1;
            assert!(rings < RINGS_MAX, "it rings without an end");
        }
        self.now = until;
    }

    fn drain(&mut self) {
        let mut out = [0; 1_500];
        let mut burst = 0;
        while let Some((_, len)) = self.agent.poll_transmit(self.now, &mut out) {
            self.seen = self.seen.wrapping_mul(31).wrapping_add(len as u64);
            burst += 1;
            assert!(burst < BURST_MAX, "it sends without an end");
        }
        while let Some(event) = self.agent.poll_event() {
            assert!(!self.ended, "{event:?} after the end");
            self.seen = self.seen.wrapping_mul(31).wrapping_add(digest(&event));
            match event {
                AgentEvent::Ended { .. } => self.ended = true,
                AgentEvent::Delivery { .. } => self.deliveries -= 1,
                AgentEvent::TeleportedHere { .. }
                | AgentEvent::Arrived { journey: Journey::Teleport, .. }
                | AgentEvent::TravelFailed { journey: Journey::Teleport, .. } => self.answered += 1,
                _ => {}
            }
        }
    }
}
