//! A TLS stream that takes its randomness and its time from the seam.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use twinspan_provider::{AsyncRead, AsyncWrite, Env, ReadBuf};

use super::TlsError;
use super::node::Node;

/// One end of a TLS session over `S`.
pub(crate) struct SecureStream<E, S> {
    node: Node<E>,
    inner: TlsStream<S>,
}

/// Begins a session as the client of `host`.
pub(crate) async fn connect<E: Env, S: AsyncRead + AsyncWrite + Unpin>(
    env: &E,
    config: Arc<rustls::ClientConfig>,
    host: &str,
    stream: S,
) -> Result<SecureStream<E, S>, TlsError> {
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| TlsError::Name(host.to_owned()))?;
    let mut node = Node::new(env);
    // It draws from the first line on.
    let mut connecting = pin!(node.lend(|| TlsConnector::from(config).connect(name, stream)));
    let outcome = poll_fn(|cx| node.lend(|| connecting.as_mut().poll(cx))).await;
    let inner = outcome.map_err(|error| TlsError::of_handshake(host, &error))?;
    Ok(SecureStream { node, inner: TlsStream::from(inner) })
}

/// Begins a session as a server, with the client `peer`.
pub(crate) async fn accept<E: Env, S: AsyncRead + AsyncWrite + Unpin>(
    env: &E,
    config: Arc<rustls::ServerConfig>,
    peer: &str,
    stream: S,
) -> Result<SecureStream<E, S>, TlsError> {
    let mut node = Node::new(env);
    let mut accepting = pin!(node.lend(|| TlsAcceptor::from(config).accept(stream)));
    let outcome = poll_fn(|cx| node.lend(|| accepting.as_mut().poll(cx))).await;
    let inner = outcome.map_err(|error| TlsError::of_handshake(peer, &error))?;
    Ok(SecureStream { node, inner: TlsStream::from(inner) })
}

impl<E: Env, S: AsyncRead + AsyncWrite + Unpin> AsyncRead for SecureStream<E, S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { node, inner } = self.get_mut();
        node.lend(|| Pin::new(inner).poll_read(cx, buffer))
    }
}

impl<E: Env, S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for SecureStream<E, S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { node, inner } = self.get_mut();
        node.lend(|| Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { node, inner } = self.get_mut();
        node.lend(|| Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { node, inner } = self.get_mut();
        node.lend(|| Pin::new(inner).poll_shutdown(cx))
    }
}
