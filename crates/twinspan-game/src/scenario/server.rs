//! The server of a scenario: on one core or on several.

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_provider::Machine;
use twinspan_session::{EndpointStats, UserId};
use twinspan_world::World;

use crate::server::{LinkStats, PlayerStats, ReliableCounts, Server, ServerStats, ShardedServer};

/// Either kind of server.
pub(super) enum AnyServer {
    One(Box<Server>),
    Many(Box<ShardedServer>),
}

/// What both can do.
macro_rules! either {
    ($self:expr, $server:ident => $work:expr) => {
        match $self {
            AnyServer::One($server) => $work,
            AnyServer::Many($server) => $work,
        }
    };
}

impl AnyServer {
    pub(super) fn world(&self) -> &World {
        either!(self, server => server.world())
    }

    pub(super) fn unacknowledged(&self) -> usize {
        either!(self, server => server.unacknowledged())
    }

    pub(super) fn reliable_counts(&self, user: UserId) -> Option<ReliableCounts> {
        either!(self, server => server.reliable_counts(user))
    }

    pub(super) fn stats(&self) -> ServerStats {
        match self {
            Self::One(server) => server.stats().clone(),
            Self::Many(server) => server.stats(),
        }
    }

    pub(super) fn player_stats(&self) -> PlayerStats {
        match self {
            Self::One(server) => server.player_stats().clone(),
            Self::Many(server) => server.player_stats(),
        }
    }

    pub(super) fn endpoint_stats(&self) -> EndpointStats {
        match self {
            Self::One(server) => *server.endpoint_stats(),
            Self::Many(server) => server.endpoint_stats(),
        }
    }

    pub(super) fn links(&self) -> LinkStats {
        match self {
            Self::One(_) => LinkStats::default(),
            Self::Many(server) => server.links(),
        }
    }

    /// Sessions of each shard.
    pub(super) fn sessions_by_shard(&self) -> Vec<usize> {
        match self {
            Self::One(server) => vec![server.sessions()],
            Self::Many(server) => server.sessions_by_shard(),
        }
    }

    pub(super) fn drain(&mut self, now: Timestamp) {
        either!(self, server => server.drain(now));
    }
}

impl Machine for AnyServer {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        either!(self, server => server.handle_datagrams(now, received));
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        either!(self, server => server.handle_timeout(now));
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        either!(self, server => server.poll_transmit(now, pool, out));
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        either!(self, server => server.poll_timeout())
    }

    fn is_done(&self) -> bool {
        either!(self, server => server.is_done())
    }

    fn on_elapsed(&mut self, began: Timestamp, ended: Timestamp) {
        either!(self, server => server.on_elapsed(began, ended));
    }
}
