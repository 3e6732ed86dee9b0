//! Roads of simulated hosts: the drivers of real ones, over simulated sockets.

mod datagrams;
mod doors;
mod forger;
mod found;
mod quic;
mod sockets;
mod streams;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::task::Waker;
use std::time::Duration;

use twinspan_provider::RandomProvider;
use twinspan_sim::SimEnv;
use twinspan_topic::{Compressions, Form, Greeting, Identity, Seal};

use crate::ends::PairEnd;
use crate::road::More;

pub(super) use datagrams::open as open_datagrams;
pub(super) use doors::Doors;
pub(super) use found::{announce, lie};
pub(super) use quic::Endpoint;
pub(super) use streams::open as open_streams;

/// A thread sleeps no shorter.
const NAP_MIN: Duration = Duration::from_micros(50);
/// How late a thread comes that comes late.
const LATE: Duration = Duration::from_millis(30);
/// Turns of a road in a row, before other tasks of the host have theirs.
const TURNS_MAX: u32 = 16;
/// How long messages of a burst wait for company.
pub(super) const FLUSH_INTERVAL: Duration = Duration::from_micros(100);

/// A message that was taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(super) publisher: u64,
    pub(super) number: u64,
    pub(super) lost: u64,
}

/// What a road is like.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    /// Links that ended, for whatever reason.
    pub(super) ended: u64,
    /// Hubs that were refused, or that refused.
    pub(super) refused: u64,
    /// Links that went on where one had broken.
    pub(super) resumed: u64,
    /// Whether all queues keep their limits.
    pub(super) is_bounded: bool,
    /// Messages that left packed.
    pub(super) packed: u64,
}

/// One hub's road, as its user has it.
pub(crate) trait Road {
    /// Publishes where there is room, and gives the number.
    fn publish(&self, bytes: &[u8], more: More) -> Option<u64>;

    /// Sends what waits for company.
    fn flush(&self);

    /// Takes a message, and looks for one where none is here.
    fn take(&self, room: &mut Vec<u8>) -> Option<Message>;

    /// Leaves a waker for the next message.
    fn wait(&self, waker: &Waker);

    /// Begins to leave.
    fn leave(&self);

    /// Whether nothing holds back the end any more.
    fn has_left(&self) -> bool;

    /// Ends it.
    fn end(&self);

    fn facts(&self) -> Facts;

    /// Ends of links since this was asked last.
    fn take_ends(&self) -> Vec<PairEnd>;
}

/// Wakes the task that moves a road on.
#[derive(Debug)]
pub(crate) struct Bell(RefCell<Waker>);

impl Default for Bell {
    fn default() -> Self {
        Self(RefCell::new(Waker::noop().clone()))
    }
}

impl Bell {
    fn set(&self, waker: &Waker) {
        self.0.borrow_mut().clone_from(waker);
    }

    fn waker(&self) -> Waker {
        self.0.borrow().clone()
    }

    /// Lets the task look again.
    pub(super) fn ring(&self) {
        let waker = self.waker();
        waker.wake();
    }
}

/// Which end of a road a hub is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Listen(SocketAddr),
    Connect(SocketAddr),
    /// At the first address, of the group that the second one stands for.
    Group(SocketAddr, SocketAddr),
}

/// What a hub of the scenario is.
#[derive(Clone, Debug)]
pub(crate) struct HubConfig {
    pub(super) greeting: Greeting,
    pub(super) end: End,
    /// Where what goes to the group goes to: to all of it, who sends included.
    pub(super) members: Vec<SocketAddr>,
    /// The topic is sealed, so that its seal finds what was changed on the way; not all have the key.
    pub(super) is_sealed: bool,
    pub(super) seal: Option<Seal>,
    pub(super) depth: u32,
    pub(super) batch_size: usize,
    pub(super) datagram_bytes: usize,
    /// Packet buffers of a socket.
    pub(super) pool: usize,
    pub(super) compression: crate::report::Compression,
    pub(super) drops_oldest: bool,
    /// How long silence is borne: of datagrams, of streams, of streams that broke, of connections.
    pub(super) datagram_silence: Duration,
    pub(super) stream_silence: Duration,
    pub(super) resume_timeout: Duration,
    pub(super) idle_timeout: Duration,
}

/// What a hub says of itself.
pub(super) fn greeting(
    env: &SimEnv,
    (topic, version): (usize, u32),
    is_reliable: bool,
    (bytes_max, history): (u32, u32),
) -> Greeting {
    let mut id = [0; 16];
    env.secrets().fill(&mut id);
    // Topics of different types: of bytes, of serde's, plain ones.
    let form = [Form::Bytes, Form::Postcard, Form::Plain].get(topic % 3).copied();
    Greeting {
        id,
        publishes: true,
        receives: true,
        reliable: is_reliable,
        message_bytes_max: bytes_max,
        history,
        compressions: Compressions(3),
        packs: Compressions::NONE,
        dictionary: 0,
        topic: format!("topic/{topic}"),
        identity: Identity {
            form: form.unwrap_or(Form::Bytes),
            bytes: topic as u64 * 8,
            align: 8,
            version,
            name: format!("type {topic}"),
        },
    }
}
