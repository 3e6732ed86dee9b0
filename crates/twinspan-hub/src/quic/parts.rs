//! What a QUIC connection is made of: its streams, who wants them, and how they are read.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use quinn_proto::{ClientConfig, Connection, ReadError, StreamId};
use twinspan_core::time::Timestamp;
use twinspan_reliable::Backoff;

use super::carrier::QuicCarrier;
use crate::stream::carrier::{RECONNECT_JITTER, RECONNECT_MAX, RECONNECT_MIN};
use crate::stream::node::Waited;
use crate::stream::open::Told;
use crate::stream::topic::{LinkId, PEERS_MAX};
use crate::stream::wire::{Door, EndReason, Opened as Opening, Standing};

/// Streams that one connection may have open: topics of one pair of processes.
pub(super) const STREAMS_MAX: u32 = 64;
/// Connections of a listener.
pub(super) const CONNECTIONS_MAX: usize = PEERS_MAX;
/// Calls that receive, in a row.
pub(super) const RECEIVES_MAX: usize = 16;
/// Runs that one connection sends in a row.
pub(super) const SENDS_MAX: usize = 64;
/// A connector that heard nothing for so long, though its peer says something each 5 s, goes on from
/// another socket.
pub(super) const REBIND_AFTER: Duration = Duration::from_secs(11);
/// Times that a connection fills the room for datagrams in a row.
pub(super) const FILLS_MAX: usize = 16;
/// How long a stream's last words may take.
pub(super) const CLOSING_TIMEOUT: Duration = Duration::from_secs(5);

impl Waited for QuicCarrier {
    fn readiness(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.epoll)
    }
}

/// One stream, of one topic.
pub(super) struct Slot {
    pub(super) id: StreamId,
    pub(super) stage: Stage,
    /// Words before those of a link, and how much of them left.
    pub(super) out: Vec<u8>,
    pub(super) out_sent: usize,
    /// There is no room to write, until it is told.
    pub(super) is_blocked: bool,
}

pub(super) enum Stage {
    /// The first frame is on its way; a connector said this.
    Greeting {
        door: Door,
        until: Timestamp,
        said: Option<(usize, Standing)>,
    },
    Up {
        seat: usize,
        link: LinkId,
    },
    /// The last words leave.
    Closing {
        until: Timestamp,
        is_finished: bool,
    },
}

pub(super) struct Conn {
    pub(super) connection: Connection,
    pub(super) slots: Vec<Slot>,
    pub(super) timeout: Timestamp,
    pub(super) is_lost: bool,
    /// Packets may wait to be sent.
    pub(super) is_dirty: bool,
    /// What goes beside its streams found no room.
    pub(super) is_crowded: bool,
    /// What goes by a stream waits until what goes beside it left.
    pub(super) is_held: bool,
    /// Bytes that there are for what goes beside its streams.
    pub(super) room_beside: usize,
}

/// What goes beside the streams of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// Messages of so many bytes at most; the discovery of the path (RFC 9000, 14.3) may raise it.
    UpTo(usize),
    /// The other end takes no datagrams.
    Nothing,
}

impl Conn {
    /// Whether more fits beside its streams than did.
    fn has_room_beside(&mut self) -> bool {
        let beside = self.connection.datagrams();
        beside.max_size().is_some_and(|max| beside.send_buffer_space() >= max)
    }

    /// Whether more can be written than was.
    pub(super) fn may_go_on(&mut self) -> bool {
        (self.is_crowded && self.has_room_beside()) || (self.is_held && !self.has_waiting_beside())
    }

    /// Whether something beside its streams has not left yet.
    pub(super) fn has_waiting_beside(&mut self) -> bool {
        self.connection.datagrams().send_buffer_space() < self.room_beside
    }

    /// Whether one of its streams is a link of a topic.
    pub(super) fn carries(&self, wanted: usize) -> bool {
        let is_it = |slot: &Slot| matches!(slot.stage, Stage::Up { seat, .. } if seat == wanted);
        self.slots.iter().any(is_it)
    }
}

/// One topic of a connector.
pub(super) struct Wanted {
    pub(super) seat: usize,
    pub(super) last_peer: Option<[u8; 16]>,
    pub(super) told: Option<Told>,
    pub(super) stream: Option<StreamId>,
    /// When another stream may be opened.
    pub(super) next_at: Timestamp,
    pub(super) backoff: Backoff,
    /// What is said may be said twice: it may leave before the handshake ended.
    pub(super) is_idempotent: bool,
}

impl Wanted {
    pub(super) fn new(seat: usize, is_idempotent: bool) -> Self {
        Self {
            seat,
            last_peer: None,
            told: None,
            stream: None,
            next_at: Timestamp::START,
            backoff: backoff(),
            is_idempotent,
        }
    }
}

/// Who goes to a listener.
pub(super) struct Connector {
    pub(super) config: ClientConfig,
    pub(super) server_name: String,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) attempt: usize,
    pub(super) backoff: Backoff,
    pub(super) next_at: Timestamp,
    pub(super) conn: Option<usize>,
    pub(super) wanted: Vec<Wanted>,
    /// Why the last connection was lost.
    pub(super) lost: Option<String>,
    /// Whether the present connection began with words before its handshake, and they were taken.
    pub(super) zero_rtt: ZeroRtt,
}

/// What became of words before the handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ZeroRtt {
    /// There were none: no earlier session is known, or no topic may.
    #[default]
    Unused,
    /// They were sent, and the handshake goes on.
    Sent,
    /// The listener took them.
    Taken,
    /// The listener did not; they were sent again.
    Refused,
}

impl Connector {
    pub(super) fn new(
        config: ClientConfig,
        server_name: String,
        addresses: Vec<SocketAddr>,
    ) -> Self {
        Self {
            config,
            server_name,
            addresses,
            attempt: 0,
            backoff: backoff(),
            next_at: Timestamp::START,
            conn: None,
            wanted: Vec::new(),
            lost: None,
            zero_rtt: ZeroRtt::Unused,
        }
    }
}

pub(super) fn backoff() -> Backoff {
    Backoff::new(RECONNECT_MIN, RECONNECT_MAX, RECONNECT_JITTER)
}

pub(super) fn until(stage: &Stage) -> Timestamp {
    match stage {
        Stage::Greeting { until, .. } | Stage::Closing { until, .. } => *until,
        Stage::Up { .. } => Timestamp::NEVER,
    }
}

/// Reads the first frame of a stream and no byte more.
pub(super) fn read_door(
    connection: &mut Connection,
    id: StreamId,
    door: &mut Door,
) -> Result<Option<Opening>, ()> {
    let mut stream = connection.recv_stream(id);
    let Ok(mut chunks) = stream.read(true) else { return Err(()) };
    let opening = loop {
        let space = match door.space() {
            Ok(space) => space,
            Err(_) => break Err(()),
        };
        match chunks.next(space.len()) {
            Ok(Some(chunk)) => {
                for (place, byte) in space.iter_mut().zip(&chunk.bytes) {
                    *place = *byte;
                }
                match door.filled(chunk.bytes.len()) {
                    Ok(None) => {}
                    Ok(opening) => break Ok(opening),
                    Err(_) => break Err(()),
                }
            }
            Err(ReadError::Blocked) => break Ok(None),
            Ok(None) | Err(ReadError::Reset(_)) => break Err(()),
        }
    };
    // What has to be said of it is sent with the next packets.
    let _ = chunks.finalize();
    opening
}

/// Reads a link as far as it goes; true when it ended.
pub(super) fn read_link(
    connection: &mut Connection,
    id: StreamId,
    place: &mut crate::stream::core::Seat,
    link: LinkId,
    now: Timestamp,
) -> bool {
    let mut stream = connection.recv_stream(id);
    let Ok(mut chunks) = stream.read(true) else { return true };
    let is_over = loop {
        let Some(space) = place.topic.space(link) else { break true };
        match chunks.next(space.len()) {
            Ok(Some(chunk)) => {
                let count = chunk.bytes.len();
                if let Some(space) = space.get_mut(..count) {
                    space.copy_from_slice(&chunk.bytes);
                }
                let outcome = place.topic.filled(now, link, count);
                place.has_news |= place.topic.has_messages();
                if outcome.is_err() {
                    break true;
                }
            }
            Err(ReadError::Blocked) => break false,
            Ok(None) | Err(ReadError::Reset(_)) => break true,
        }
    };
    let _ = chunks.finalize();
    is_over || place.topic.over(link).is_some_and(|reason| reason != EndReason::Silent)
}
