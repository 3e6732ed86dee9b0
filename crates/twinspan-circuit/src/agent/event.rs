//! What an agent is told by event queues, and what it tells.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use twinspan_lludp::{Uuid, Vector3};

use crate::message::{CloseReason, DeliveryId, Outcome};

/// Who somebody is on a grid, as login said. Sessions and codes let others act for the agent:
/// `Debug` does not show them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AgentIds {
    /// The agent.
    pub agent_id: Uuid,
    /// Its session.
    pub session_id: Uuid,
    /// What opens circuits to simulators.
    pub circuit_code: u32,
}

impl fmt::Debug for AgentIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentIds").field("agent_id", &self.agent_id).finish_non_exhaustive()
    }
}

/// The address of a region's first capability. Who has it acts for the agent: `Debug` does not show
/// it.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed(String);

/// Bytes of a seed that are taken.
pub const SEED_BYTES_MAX: usize = 2_048;

impl Seed {
    /// A seed, or `None` when it is longer than [`SEED_BYTES_MAX`] or empty.
    pub fn new(url: impl Into<String>) -> Option<Self> {
        let url = url.into();
        (1..=SEED_BYTES_MAX).contains(&url.len()).then_some(Self(url))
    }

    /// The address.
    pub fn url(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed")
    }
}

/// What a region's event queue says that concerns circuits. These never come over UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueEvent {
    /// There is a neighbour: a circuit is to be opened.
    EnableSimulator {
        /// Where.
        addr: SocketAddr,
        /// Its place on the grid.
        handle: u64,
    },
    /// The seed of a neighbour.
    EstablishAgentCommunication {
        /// Where.
        addr: SocketAddr,
        /// Its first capability.
        seed: Seed,
    },
    /// The agent walked over a border.
    CrossedRegion {
        /// Where it is now.
        addr: SocketAddr,
        /// Its place on the grid.
        handle: u64,
        /// Its first capability, if it was named.
        seed: Option<Seed>,
    },
    /// A teleport leads here.
    TeleportFinish {
        /// Where.
        addr: SocketAddr,
        /// Its place on the grid.
        handle: u64,
        /// Its first capability, if it was named.
        seed: Option<Seed>,
    },
    /// A teleport was refused.
    TeleportFailed {
        /// Why, for people.
        reason: String,
    },
}

/// Where a teleport goes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Destination {
    /// A place in a region.
    Location {
        /// The region's place on the grid.
        handle: u64,
        /// Where in it, in metres.
        position: Vector3,
        /// Which way to look.
        look_at: Vector3,
    },
    /// A landmark; the nil id is home.
    Landmark(Uuid),
    /// An offer of somebody else.
    Lure {
        /// The offer.
        id: Uuid,
        /// As the offer has them.
        flags: u32,
    },
}

/// Why a teleport could not be asked for, or cancelled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TravelError {
    /// The agent is in no region.
    #[error("the agent is in no region, wait for its arrival")]
    NotInWorld,
    /// It is on its way already, or there is nothing to cancel.
    #[error("{0}")]
    Wrong(&'static str),
    /// The request could not be sent.
    #[error("the request could not be sent: {0}")]
    Send(#[from] crate::SendError),
}

/// Why a teleport or a crossing came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TeleportError {
    /// The region refused, and says why.
    #[error("refused: {0}")]
    Refused(String),
    /// The request was not acknowledged.
    #[error("the region did not acknowledge the request")]
    RequestLost,
    /// Nothing was heard of it for too long.
    #[error("nothing was heard of it for {0:?}")]
    TimedOut(Duration),
    /// There were signs of it for as long as it may take, but it did not end.
    #[error("it was under way for {0:?} and did not end, ask again")]
    Endless(Duration),
    /// The region where it leads to did not answer.
    #[error("the destination {addr} did not answer within {after:?}")]
    ArrivalTimedOut {
        /// Where.
        addr: SocketAddr,
        /// How long it was waited for.
        after: Duration,
    },
    /// No circuit to the destination could be opened.
    #[error("no circuit to the destination: {0}")]
    NoCircuit(crate::OpenCircuitError),
    /// It was cancelled at this end.
    #[error("cancelled")]
    Cancelled,
    /// Another journey took its place.
    #[error("another journey took its place")]
    Superseded,
    /// The circuit to the region it began in ended.
    #[error("the region it began in was lost")]
    RegionLost,
}

/// How an agent came to the region that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Journey {
    /// By login.
    Login,
    /// On foot or in a vehicle.
    Crossing,
    /// By teleport from another region.
    Teleport,
}

/// Why an agent's time on the grid is over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// As it asked for.
    LoggedOut {
        /// Whether the region confirmed it.
        confirmed: bool,
    },
    /// The grid removed it.
    Kicked {
        /// Why, for people.
        reason: String,
    },
    /// The first region did not let it in within the time for that.
    HandshakeTimedOut,
    /// The region that it was in is gone.
    Lost(CloseReason),
    /// The region that it was in sent it away.
    Disabled,
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoggedOut { confirmed: true } => f.write_str("logged out"),
            Self::LoggedOut { confirmed: false } => {
                f.write_str("logged out, and the region did not confirm it")
            }
            Self::Kicked { reason } => write!(f, "kicked: {reason}"),
            Self::HandshakeTimedOut => f.write_str("the first region did not let the agent in"),
            Self::Lost(reason) => write!(f, "the region is gone: {reason}"),
            Self::Disabled => f.write_str("the region sent the agent away"),
        }
    }
}

/// What an agent tells.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum AgentEvent {
    /// A region answered for the first time.
    CircuitUp {
        /// Where.
        addr: SocketAddr,
    },
    /// A region said what it is.
    Handshake {
        /// Where.
        addr: SocketAddr,
        /// Its name.
        name: String,
        /// Its id.
        region_id: Uuid,
        /// What is allowed in it, as the protocol has it.
        flags: u32,
    },
    /// The seed of a region is known.
    Seed {
        /// Where.
        addr: SocketAddr,
        /// Its first capability.
        seed: Seed,
    },
    /// The agent is in this region from now on.
    Arrived {
        /// Where.
        addr: SocketAddr,
        /// Its place on the grid.
        handle: u64,
        /// Where in it, in metres.
        position: Vector3,
        /// How it came there.
        journey: Journey,
    },
    /// A teleport has begun.
    TeleportStarted,
    /// A teleport goes on.
    TeleportProgress {
        /// What the region says of it, for people.
        text: String,
    },
    /// A teleport within the region is done.
    TeleportedHere {
        /// Where in it, in metres.
        position: Vector3,
    },
    /// A teleport or a crossing came to nothing.
    TravelFailed {
        /// Which of them.
        journey: Journey,
        /// Why.
        error: TeleportError,
    },
    /// A region is gone.
    CircuitDown {
        /// Where.
        addr: SocketAddr,
        /// Why; `None` when it sent the agent away.
        reason: Option<CloseReason>,
    },
    /// What became of messages sent with a result.
    Delivery {
        /// To whom.
        addr: SocketAddr,
        /// What sending gave.
        id: DeliveryId,
        /// What became of them.
        outcome: Outcome,
    },
    /// Other rates are asked for from now on, in bits a second.
    Throttled {
        /// Their sum.
        total: f32,
    },
    /// It is over. Nothing follows.
    Ended {
        /// Why.
        reason: EndReason,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_appear_in_no_debug_output() {
        let ids = AgentIds {
            agent_id: Uuid::from_u128(1),
            session_id: Uuid::from_u128(0xabcd_ef01),
            circuit_code: 123_456_789,
        };
        let seed = Seed::new("http://grid/CAPS/secret").unwrap();
        let addr = ([10, 0, 0, 1], 9_000).into();
        let event = QueueEvent::EstablishAgentCommunication { addr, seed: seed.clone() };
        let shown = format!("{ids:?} {event:?} {:?}", AgentEvent::Seed { addr, seed });
        for secret in ["abcdef01", "123456789", "secret"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn a_seed_has_a_length() {
        assert_eq!(Seed::new(""), None);
        assert_eq!(Seed::new("x".repeat(SEED_BYTES_MAX + 1)), None);
        assert_eq!(Seed::new("http://a/").unwrap().url(), "http://a/");
    }
}
