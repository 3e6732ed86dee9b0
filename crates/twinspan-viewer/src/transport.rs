//! How datagrams travel: directly, or through an association of a SOCKS5 proxy.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::task::{Context, Poll};

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_http::socks5::{HEADER_BYTES_MAX, Socks5Config, Socks5Error, Socks5Udp};
use twinspan_provider::{BindError, Env, SocketReport, UdpError, UdpOptions, UdpSocket};

/// A socket for datagrams to simulators.
pub enum UdpTransport<E: Env> {
    /// Directly.
    Direct(E::Udp),
    /// Through a proxy.
    Socks5(Box<Socks5Udp<E>>),
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// There is none to be had here.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The proxy did not associate.
    #[error(transparent)]
    Socks5(#[from] Socks5Error),
}

/// Bytes of each datagram that a proxy takes for itself at most.
pub const PROXY_HEADER_BYTES_MAX: usize = HEADER_BYTES_MAX;

impl<E: Env> UdpTransport<E> {
    /// A socket, through the proxy if there is one.
    ///
    /// # Errors
    /// [`TransportError`]
    ///
    /// # Cancel safety
    /// Dropping the future binds nothing, and closes the connection to the proxy.
    pub async fn open(
        env: &E,
        proxy: Option<&Socks5Config>,
        options: &UdpOptions,
    ) -> Result<Self, TransportError> {
        let Some(proxy) = proxy else {
            // Regions are at IPv4 addresses; a proxy may be elsewhere.
            let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            return Ok(Self::Direct(env.bind_udp(any, options).await?));
        };
        let socket = Socks5Udp::associate_anywhere(env.clone(), proxy, options).await?;
        Ok(Self::Socks5(Box::new(socket)))
    }

    /// Where the proxy takes datagrams; `None` without one.
    pub fn relay(&self) -> Option<SocketAddr> {
        match self {
            Self::Direct(_) => None,
            Self::Socks5(socket) => Some(socket.relay()),
        }
    }
}

impl<E: Env> UdpSocket for UdpTransport<E> {
    fn local_addr(&self) -> SocketAddr {
        match self {
            Self::Direct(socket) => socket.local_addr(),
            Self::Socks5(socket) => socket.local_addr(),
        }
    }

    fn pool(&self) -> &PacketPool {
        match self {
            Self::Direct(socket) => socket.pool(),
            Self::Socks5(socket) => socket.pool(),
        }
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        match self {
            Self::Direct(socket) => socket.poll_recv(cx, batch),
            Self::Socks5(socket) => socket.poll_recv(cx, batch),
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        match self {
            Self::Direct(socket) => socket.poll_send(cx, batch),
            Self::Socks5(socket) => socket.poll_send(cx, batch),
        }
    }

    fn report(&self) -> SocketReport {
        match self {
            Self::Direct(socket) => socket.report(),
            Self::Socks5(socket) => socket.report(),
        }
    }
}

impl<E: Env> fmt::Debug for UdpTransport<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpTransport")
            .field("local", &self.local_addr())
            .field("relay", &self.relay())
            .finish()
    }
}
