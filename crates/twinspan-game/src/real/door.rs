//! A server's socket: clients come directly, through relays, or both.

use std::net::SocketAddr;
use std::task::{Context, Poll};

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_net::ReactorEnv;
use twinspan_provider::{NetworkProvider, SocketReport, UdpError, UdpOptions, UdpSocket};
use twinspan_relay::{PortConfig, RelayPort, trunk_options};

use super::server::ServeError;
use super::tap::RelaySide;

type Udp = <ReactorEnv as NetworkProvider>::Udp;

/// How relays come to a server.
#[derive(Clone, Debug)]
pub struct RelayDoor {
    /// Where the server takes relays; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Which relays, and the key shared with them.
    pub port: PortConfig,
    /// Whether clients come through relays alone: then the server has no other address.
    pub only: bool,
}

/// A server's socket.
pub(super) enum ServerSocket {
    Direct(Box<Udp>),
    Relayed(Box<RelayPort<Udp>>),
}

impl ServerSocket {
    pub(super) async fn bind(
        env: &ReactorEnv,
        address: SocketAddr,
        options: &UdpOptions,
        relay: Option<RelayDoor>,
    ) -> Result<Self, ServeError> {
        let Some(door) = relay else {
            return Ok(Self::Direct(Box::new(env.bind_udp(address, options).await?)));
        };
        door.port.check()?;
        let direct = if door.only { None } else { Some(env.bind_udp(address, options).await?) };
        let UdpOptions { gather, path, .. } = *options;
        let options = UdpOptions { gather, path, ..trunk_options() };
        let trunk = env.bind_udp(door.listen, &options).await;
        let trunk = trunk.map_err(ServeError::BindRelay)?;
        Ok(Self::Relayed(Box::new(RelayPort::new(direct, trunk, &door.port)?)))
    }

    /// Its side towards relays.
    pub(super) fn relay_side(&self) -> Option<RelaySide> {
        match self {
            Self::Direct(_) => None,
            Self::Relayed(port) => Some(RelaySide { counted: port.stats(), keys: port.keys() }),
        }
    }

    /// How the socket towards relays moves datagrams, where there is another too.
    pub(super) fn relay_report(&self) -> Option<SocketReport> {
        match self {
            Self::Direct(_) => None,
            Self::Relayed(port) => {
                let (open, trunk) = port.reports();
                open.map(|_| trunk)
            }
        }
    }

    /// How the socket that clients come to moves datagrams.
    pub(super) fn first_report(&self) -> SocketReport {
        match self {
            Self::Direct(socket) => socket.report(),
            Self::Relayed(port) => {
                let (open, trunk) = port.reports();
                open.unwrap_or(trunk)
            }
        }
    }

    /// Where relays find it.
    pub(super) fn relay_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Direct(_) => None,
            Self::Relayed(port) => Some(port.trunk_addr()),
        }
    }
}

impl UdpSocket for ServerSocket {
    fn local_addr(&self) -> SocketAddr {
        match self {
            Self::Direct(socket) => socket.local_addr(),
            Self::Relayed(port) => port.local_addr(),
        }
    }

    fn pool(&self) -> &PacketPool {
        match self {
            Self::Direct(socket) => socket.pool(),
            Self::Relayed(port) => port.pool(),
        }
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        match self {
            Self::Direct(socket) => socket.poll_recv(cx, batch),
            Self::Relayed(port) => port.poll_recv(cx, batch),
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        match self {
            Self::Direct(socket) => socket.poll_send(cx, batch),
            Self::Relayed(port) => port.poll_send(cx, batch),
        }
    }

    fn report(&self) -> SocketReport {
        match self {
            Self::Direct(socket) => socket.report(),
            Self::Relayed(port) => port.report(),
        }
    }
}
