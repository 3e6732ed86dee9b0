//! Why a request has no response.

use std::fmt;

use twinspan_provider::{ConnectError, ResolveError};

use crate::socks5::Socks5Error;
use crate::tls::TlsError;

/// Why a request has no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// It cannot be asked for.
    #[error("this cannot be asked for: {0}")]
    Url(#[from] UrlError),
    /// As many requests as may wait for a connection.
    #[error("{limit} requests wait for a connection already; wait for some of them")]
    Busy {
        /// How many may wait.
        limit: usize,
    },
    /// The name of the server stands for no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// There is no connection to the server.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The proxy does not let it through.
    #[error("by way of the proxy: {0}")]
    Proxy(#[from] ProxyError),
    /// There is no TLS with the server.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// It took too long.
    #[error("not in time: {phase}; allow more time or try again later")]
    TimedOut {
        /// What had not ended.
        phase: Phase,
    },
    /// The response is larger than it may be.
    #[error("the {part} of the response has more than {limit} bytes; allow more or ask for less")]
    TooLarge {
        /// Which part of it.
        part: Part,
        /// Bytes that it may have.
        limit: usize,
    },
    /// What the server said is not HTTP/1.1.
    #[error("the server does not keep to HTTP/1.1: {0}")]
    Protocol(String),
    /// The connection ended before the response did.
    #[error("the connection ended before the response was there; try again if that may be")]
    Closed {
        /// Whether any of the request may have left. If not, nobody has seen it.
        request_sent: bool,
    },
}

impl HttpError {
    /// Whether time ran out.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::TimedOut { .. }
            | Self::Resolve(ResolveError::TimedOut { .. })
            | Self::Connect(ConnectError::TimedOut(_)) => true,
            Self::Proxy(error) => error.is_timeout(),
            _ => false,
        }
    }

    /// Whether the server may have seen the request: to send it again may do it twice.
    pub fn may_have_been_sent(&self) -> bool {
        match self {
            Self::Url(_)
            | Self::Busy { .. }
            | Self::Resolve(_)
            | Self::Connect(_)
            | Self::Proxy(_) => false,
            Self::Tls(error) => error.is_after_handshake(),
            Self::TimedOut { phase } => matches!(phase, Phase::Head | Phase::Body),
            Self::TooLarge { .. } | Self::Protocol(_) => true,
            Self::Closed { request_sent } => *request_sent,
        }
    }
}

/// What a request does, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Waiting for a place among the connections.
    Place,
    /// Making a connection: names, proxies and TLS are part of it.
    Connect,
    /// Sending the request and waiting for the head of the response.
    Head,
    /// Reading the body of the response.
    Body,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Place => "no connection became free",
            Self::Connect => "no connection could be made",
            Self::Head => "no response began",
            Self::Body => "the response did not end",
        })
    }
}

/// A part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// Status and headers.
    Head,
    /// What follows them.
    Body,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head => "head",
            Self::Body => "body",
        })
    }
}

/// Why an address or a method cannot be asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// Neither `http` nor `https`.
    #[error("the scheme {0:?} is not spoken here; use http or https")]
    Scheme(String),
    /// No host in it.
    #[error("the address names no host")]
    NoHost,
    /// A user or a password in it.
    #[error("the address has a user or password in it; put them into a header")]
    Credentials,
    /// Too long, or with what no request line can hold.
    #[error("the address cannot stand in a request: {0}")]
    Unusable(String),
    /// A tunnel was asked for by method.
    #[error("the method CONNECT is for proxies; name the proxy in the configuration")]
    Tunnel,
}

/// Why a proxy does not let through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The proxy's name stands for no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// There is no connection to the proxy.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It wants a user and a password, or other ones.
    #[error("it wants credentials, or other ones; check user and password")]
    Credentials,
    /// It refuses to make a tunnel.
    #[error("it refuses the tunnel with status {status}; check its rules and the address")]
    Refused {
        /// The status of its answer.
        status: u16,
    },
    /// Its answer is no answer of an HTTP proxy.
    #[error("its answer is not HTTP: {0}; check that it is an HTTP proxy")]
    Garbled(String),
    /// The head of its answer is too large.
    #[error("the head of its answer has more than {limit} bytes; check that it is an HTTP proxy")]
    HeadTooLarge {
        /// Bytes that it may have.
        limit: usize,
    },
    /// It ended the connection.
    #[error("it ended the connection before it answered; try again")]
    Closed,
    /// What a SOCKS5 proxy said.
    #[error(transparent)]
    Socks5(#[from] Socks5Error),
}

impl ProxyError {
    /// Whether time ran out.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Resolve(ResolveError::TimedOut { .. })
            | Self::Connect(ConnectError::TimedOut(_)) => true,
            Self::Socks5(error) => error.is_timeout(),
            _ => false,
        }
    }
}
