//! What a client tells: the network's events, and the world's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use twinspan_circuit::{CloseReason, EndReason, Journey, TeleportError};
use twinspan_lludp::content::{Audible, ChatSource, ChatType, Dialog};
use twinspan_lludp::{AnyMessage, DecodeError, MessageId, Uuid, Vector3};
use twinspan_provider::SocketReport;

use crate::bus::{Degree, Event};
use crate::login::LoginError;
use crate::queue::QueueBody;
use crate::region::RegionInfo;
use crate::session_info::SessionInfo;
use crate::status::NetworkStatus;
use crate::world::Avatar;

/// Why a client is not connected any more.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The grid did not let the avatar in.
    Login(Arc<LoginError>),
    /// The avatar's time on the grid is over.
    Ended(EndReason),
    /// The event queue of the avatar's region failed too often.
    QueueGivenUp {
        /// What the last failure was.
        last: String,
    },
    /// No datagrams can be sent.
    Transport(String),
    /// The user gave up before the grid answered.
    Cancelled,
    /// The client was dropped.
    Dropped,
}

impl DisconnectReason {
    /// Whether another login may go better.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Login(error) => error.is_passing(),
            Self::Ended(reason) => {
                !matches!(reason, EndReason::LoggedOut { .. } | EndReason::Kicked { .. })
            }
            Self::QueueGivenUp { .. } | Self::Transport(_) => true,
            Self::Cancelled | Self::Dropped => false,
        }
    }
}

impl std::fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Login(error) => error.fmt(f),
            Self::Ended(reason) => reason.fmt(f),
            Self::QueueGivenUp { last } => {
                write!(f, "the event queue of the region failed too often, at last: {last}")
            }
            Self::Transport(why) => write!(f, "no datagrams can be sent: {why}"),
            Self::Cancelled => f.write_str("given up before the grid answered"),
            Self::Dropped => f.write_str("the client was dropped"),
        }
    }
}

/// Something went wrong; what it means for the connection, other events tell.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The grid did not let the avatar in.
    #[error("login: {0}")]
    Login(Arc<LoginError>),
    /// A message could not be read.
    #[error("a message {id} of {from} could not be read: {error}")]
    Decode {
        /// Whose.
        from: SocketAddr,
        /// Which.
        id: MessageId,
        /// Why.
        error: DecodeError,
    },
    /// A handler failed.
    #[error("the handler {handler} failed at {message}: {reason}")]
    HandlerFailed {
        /// Its type.
        handler: &'static str,
        /// The message.
        message: &'static str,
        /// What it said.
        reason: String,
    },
    /// A handler panicked. It goes on with the next message.
    #[error("the handler {handler} panicked at {message}: {reason}")]
    HandlerPanicked {
        /// Its type.
        handler: &'static str,
        /// The message.
        message: &'static str,
        /// What it said.
        reason: String,
    },
    /// Handlers are so far behind that a message was dropped for them.
    #[error("{handlers} handlers are too far behind for a message {id}")]
    HandlersBehind {
        /// How many.
        handlers: u64,
        /// The message.
        id: MessageId,
    },
    /// The capabilities of a region could not be had.
    #[error("the capabilities of {address}: {reason}")]
    Capabilities {
        /// The region.
        address: SocketAddr,
        /// Why, for people.
        reason: String,
    },
    /// A message of an event queue could not be used.
    #[error("the message {name} of the event queue of {address}: {reason}")]
    QueueMessage {
        /// The region.
        address: SocketAddr,
        /// The message.
        name: String,
        /// Why.
        reason: String,
    },
    /// A poll of an event queue failed; it will be polled again.
    #[error("the event queue of {address}: {reason}")]
    Queue {
        /// The region.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The association with the proxy was lost; another one is made.
    #[error("the proxy was lost: {reason}")]
    ProxyLost {
        /// Why.
        reason: String,
    },
    /// No datagrams can be sent.
    #[error("no datagrams can be sent: {reason}")]
    Transport {
        /// Why.
        reason: String,
    },
}

/// What happens on the network.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NetworkEvent {
    /// The status is another one.
    StatusChanged {
        /// What it was.
        old: NetworkStatus,
        /// What it is.
        new: NetworkStatus,
    },
    /// The avatar is in its first region.
    Connected {
        /// What login gave.
        session: Arc<SessionInfo>,
    },
    /// A region answered.
    CircuitConnected {
        /// Its simulator.
        address: SocketAddr,
    },
    /// A region said what it is.
    RegionKnown {
        /// What it said.
        region: Arc<RegionInfo>,
    },
    /// The avatar is in another region from now on, or in its first.
    RegionEntered {
        /// Its simulator.
        address: SocketAddr,
        /// Its place on the grid.
        handle: u64,
        /// Where in it, in metres.
        position: Vector3,
        /// How the avatar came there.
        journey: Journey,
    },
    /// A region gave its capabilities.
    CapabilitiesReceived {
        /// Its simulator.
        address: SocketAddr,
        /// Their names.
        names: Arc<[String]>,
    },
    /// A circuit is over.
    CircuitClosed {
        /// Whose.
        address: SocketAddr,
        /// Why; `None` when the region sent the avatar away.
        reason: Option<CloseReason>,
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
    /// A message of an event queue.
    QueueMessage {
        /// The region.
        address: SocketAddr,
        /// Its name.
        name: Arc<str>,
        /// Its content, as it came.
        body: QueueBody,
    },
    /// A message came.
    MessageReceived {
        /// The message.
        packet: Arc<AnyMessage>,
        /// The simulator that sent it.
        from: SocketAddr,
    },
    /// Another login is tried after this time.
    ReconnectPlanned {
        /// Which attempt it is, from 1.
        attempt: u32,
        /// When.
        after: Duration,
    },
    /// Datagrams go through another association of the proxy: regions see another address and may
    /// not know it.
    ProxyRestored,
    /// This client takes any certificate, as it was told to: anyone on the way may be the server.
    /// Told once, with the first login.
    CertificatesUnchecked,
    /// A socket for datagrams to simulators is open.
    SocketOpened {
        /// Where it is bound.
        local: SocketAddr,
        /// What it is like: how large the buffers are that the kernel granted, above all.
        socket: SocketReport,
    },
    /// The client is not connected any more, and does not try to be.
    Disconnected {
        /// Why.
        reason: DisconnectReason,
    },
    /// Something went wrong.
    Error {
        /// What.
        error: NetworkError,
    },
    /// The subscriber was too slow for so many events; those that follow are whole again.
    Lagged {
        /// How many.
        missed: u64,
    },
}

impl Event for NetworkEvent {
    fn lagged(missed: u64) -> Self {
        Self::Lagged { missed }
    }

    fn degree(&self) -> Degree {
        // Whatever a peer can send at will must not push out the rest.
        match self {
            Self::StatusChanged { .. }
            | Self::Connected { .. }
            | Self::Disconnected { .. }
            | Self::ReconnectPlanned { .. }
            | Self::ProxyRestored
            | Self::CertificatesUnchecked
            | Self::SocketOpened { .. } => Degree::State,
            Self::RegionEntered { .. }
            | Self::TeleportedHere { .. }
            | Self::TravelFailed { .. } => Degree::Outcome,
            Self::CircuitConnected { .. }
            | Self::CircuitClosed { .. }
            | Self::RegionKnown { .. }
            | Self::CapabilitiesReceived { .. }
            | Self::Lagged { .. } => Degree::Report,
            Self::MessageReceived { .. }
            | Self::QueueMessage { .. }
            | Self::TeleportStarted
            | Self::TeleportProgress { .. } => Degree::Traffic,
            Self::Error { error } => match error {
                NetworkError::Login(_)
                | NetworkError::ProxyLost { .. }
                | NetworkError::Transport { .. } => Degree::State,
                NetworkError::Capabilities { .. } | NetworkError::Queue { .. } => Degree::Report,
                NetworkError::Decode { .. }
                | NetworkError::HandlerFailed { .. }
                | NetworkError::HandlerPanicked { .. }
                | NetworkError::HandlersBehind { .. }
                | NetworkError::QueueMessage { .. } => Degree::Traffic,
            },
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::QueueMessage { body, .. } => body.bytes(),
            _ => 0,
        }
    }
}

/// Something that was said.
#[derive(Clone, Debug, PartialEq)]
pub struct Chat {
    /// Who says it: an avatar or an object.
    pub source_id: Uuid,
    /// Its name.
    pub from_name: String,
    /// Whose object it is, or the avatar itself.
    pub owner_id: Uuid,
    /// What says it.
    pub source: ChatSource,
    /// How it is said.
    pub kind: ChatType,
    /// Whether it is near enough to be heard.
    pub audible: Audible,
    /// Where, in metres.
    pub position: Vector3,
    /// What.
    pub text: String,
}

/// An instant message.
#[derive(Clone, Debug, PartialEq)]
pub struct InstantMessage {
    /// Who sent it.
    pub from: Uuid,
    /// Its name.
    pub from_name: String,
    /// What kind it is of.
    pub dialog: Dialog,
    /// The session that it belongs to, or the offer.
    pub session: Uuid,
    /// Whether it waited for the avatar to come in.
    pub was_offline: bool,
    /// What.
    pub text: String,
    /// What belongs to it, by its kind.
    pub bucket: Vec<u8>,
}

/// What happens in the world.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum WorldEvent {
    /// Somebody said something.
    Chat(Chat),
    /// Somebody sent an instant message.
    InstantMessage(InstantMessage),
    /// The region has something to tell.
    Alert(String),
    /// An avatar is around.
    AvatarAppeared(Avatar),
    /// An avatar is around no more.
    AvatarLeft {
        /// Who.
        id: Uuid,
    },
    /// The avatar sits.
    Sat {
        /// On what.
        on: Uuid,
    },
    /// The subscriber was too slow for so many events.
    Lagged {
        /// How many.
        missed: u64,
    },
}

impl Event for WorldEvent {
    fn lagged(missed: u64) -> Self {
        Self::Lagged { missed }
    }

    fn degree(&self) -> Degree {
        match self {
            Self::Sat { .. } => Degree::Outcome,
            Self::Chat(_) | Self::InstantMessage(_) | Self::Alert(_) | Self::Lagged { .. } => {
                Degree::Report
            }
            Self::AvatarAppeared(_) | Self::AvatarLeft { .. } => Degree::Traffic,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::bus::{EVENTS_KEPT, EventBus, Subscription};

    const FROM: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 9_000);

    fn waits(slow: &mut Subscription<NetworkEvent>) -> NetworkEvent {
        match pin!(slow.recv()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(event) => event.unwrap(),
            Poll::Pending => panic!("events wait"),
        }
    }

    /// Whether a word on the connection is kept whatever comes as often as this.
    fn stays(word: &NetworkEvent, flood: &NetworkEvent) -> bool {
        let bus = EventBus::new();
        let mut slow = bus.subscribe();
        bus.tell(word.clone());
        (0..EVENTS_KEPT * 2).for_each(|_| bus.tell(flood.clone()));
        bus.tell(NetworkEvent::Disconnected { reason: DisconnectReason::Cancelled });
        let kept = format!("{word:?}") == format!("{:?}", waits(&mut slow));
        if kept {
            let lagged = waits(&mut slow);
            let wanted = EVENTS_KEPT as u64 + 2;
            assert!(matches!(lagged, NetworkEvent::Lagged { missed } if missed == wanted));
        }
        let last = std::iter::from_fn(|| slow.try_recv()).last();
        assert!(matches!(last, Some(NetworkEvent::Disconnected { .. })), "{last:?}");
        kept
    }

    #[test]
    fn what_a_peer_sends_at_will_pushes_out_no_word_on_the_connection() {
        let position = Vector3::new(1.0, 2.0, 3.0);
        let (journey, error) = (Journey::Teleport, TeleportError::Superseded);
        let id = MessageId::low(1).unwrap();
        let (old, new) = (NetworkStatus::Idle, NetworkStatus::Authenticating);
        let status = NetworkEvent::StatusChanged { old, new };
        let proxy = NetworkError::ProxyLost { reason: "it went".into() };
        let proxy = NetworkEvent::Error { error: proxy };
        let ended = NetworkEvent::TravelFailed { journey, error };
        let arrived = NetworkEvent::RegionEntered { address: FROM, handle: 7, position, journey };
        let here = NetworkEvent::TeleportedHere { position };
        let circuit = NetworkEvent::CircuitConnected { address: FROM };
        let queue = NetworkError::Queue { address: FROM, reason: "it stopped".into() };
        let reports = [circuit, NetworkEvent::Error { error: queue }];
        let traffic = [
            NetworkEvent::TeleportStarted,
            NetworkEvent::TeleportProgress { text: "contacting".into() },
            NetworkEvent::Error { error: NetworkError::HandlersBehind { handlers: 1, id } },
            NetworkEvent::QueueMessage {
                address: FROM,
                name: "x".into(),
                body: QueueBody::new(twinspan_llsd::Value::Undef),
            },
        ];
        for state in [&status, &proxy] {
            for flood in [&ended, &arrived, &here].into_iter().chain(&reports).chain(&traffic) {
                assert!(stays(state, flood), "{flood:?} pushes out {state:?}");
            }
        }
        for outcome in [&ended, &arrived, &here] {
            for flood in reports.iter().chain(&traffic) {
                assert!(stays(outcome, flood), "{flood:?} pushes out {outcome:?}");
            }
            assert!(!stays(outcome, &status), "nor is there room without an end");
        }
        for (report, flood) in
            reports.iter().flat_map(|report| traffic.iter().map(move |f| (report, f)))
        {
            assert!(stays(report, flood), "{flood:?} pushes out {report:?}");
        }
    }
}
