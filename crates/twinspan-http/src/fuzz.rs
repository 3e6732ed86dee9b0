//! Fuzz bodies: what holds for any bytes.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::Full;
use twinspan_core::fuzz::{Body, digest};
use twinspan_provider::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connect_head::{Head, connect_head};
use crate::link::Link;
use crate::socks5::wire::{self, Header, Parsed, Place};

/// Every body by its name.
pub const TARGETS: &[(&str, Body)] = &[
    ("socks5-reply", fuzz_reply),
    ("socks5-datagram", fuzz_datagram),
    ("http-connect", fuzz_connect),
    ("http-response", fuzz_response),
];

/// Small, so that mutated seeds come to the limits.
const HEAD_BYTES_MAX: usize = 512;
const BODY_BYTES_MAX: usize = 1_024;
const POLLS_MAX: usize = 10_000;

/// Any bytes are what a proxy says in the three steps of a handshake, or name a reason; a reply asks
/// for more bytes until it is whole, and never for more than it can have.
pub fn fuzz_reply(data: &[u8]) -> u64 {
    let short = match data.first_chunk() {
        Some(answer) => {
            let (method, login) = (wire::method(*answer), wire::login_outcome(*answer));
            digest(&(method.map_err(|error| text(&error)), login.map_err(|error| text(&error))))
        }
        None => 0,
    };
    let mut came = 0;
    let reply = loop {
        match wire::reply(data.get(..came).unwrap_or_default()) {
            Ok(Parsed::Needs(needed)) => {
                assert!(needed > came && needed <= 262, "{needed} bytes after {came}");
                if needed > data.len() {
                    break Ok(Parsed::Needs(needed));
                }
                came = needed;
            }
            other => break other,
        }
    };
    digest(&(short, reply.map_err(|error| text(&error))))
}

fn text(error: &crate::socks5::Socks5Error) -> String {
    error.to_string()
}

/// Any bytes are a datagram of a proxy or name a reason; the header of one that was read is written
/// the same.
pub fn fuzz_datagram(data: &[u8]) -> u64 {
    let read = wire::datagram(data);
    if let Ok((from, at)) = read {
        assert!(at <= data.len(), "a header beyond its datagram");
        if let Place::Address(from) = from {
            assert_eq!(data.get(..at), Some(Header::of(from).bytes()));
        }
    }
    digest(&read)
}

/// Any bytes are the head of an answer to CONNECT, a part of one, or name a reason.
pub fn fuzz_connect(data: &[u8]) -> u64 {
    let read = connect_head(data, HEAD_BYTES_MAX);
    if let Ok(Head::Whole { bytes, .. }) = read {
        assert!(bytes <= data.len() && bytes <= HEAD_BYTES_MAX);
    }
    digest(&read.map_err(|error| error.to_string()))
}

/// Any bytes, and then the end, are a response within its limits or name a reason; nothing waits.
pub fn fuzz_response(data: &[u8]) -> u64 {
    let canned = Canned { left: Bytes::copy_from_slice(data), is_asked: false };
    let asked = async {
        let mut link = Link::open(canned, HEAD_BYTES_MAX).await?;
        let mut request = http::Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = http::Uri::from_static("/");
        let answer = link.ask(request).await.map_err(|failure| failure.error)?;
        link.read(answer, BODY_BYTES_MAX).await
    };
    let mut asked = pin!(asked);
    let mut cx = Context::from_waker(Waker::noop());
    // Everything there is to wait for has come, but it is asked again after it was written to, and
    // now and then lets others run.
    let polled = (0..POLLS_MAX).find_map(|_| match asked.as_mut().poll(&mut cx) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    });
    assert!(polled.is_some(), "an exchange waits after the end");
    let Some(outcome) = polled else { return 0 };
    if let Ok(response) = &outcome {
        assert!(response.body.len() <= BODY_BYTES_MAX);
    }
    let outcome = outcome.map(|response| {
        let headers: Vec<_> = response.headers.iter().collect();
        digest(&(response.status, headers, response.body))
    });
    digest(&outcome.map_err(|error| error.to_string()))
}

/// A peer that says all it says once it was asked, and takes everything.
struct Canned {
    left: Bytes,
    is_asked: bool,
}

impl AsyncRead for Canned {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_asked {
            return Poll::Pending;
        }
        let len = self.left.len().min(buffer.remaining());
        buffer.put_slice(&self.left.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Canned {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_asked = true;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
