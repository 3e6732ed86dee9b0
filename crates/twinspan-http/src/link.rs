//! One connection of a client: a request goes out, its response comes in, perhaps the next.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use twinspan_provider::{AsyncRead, AsyncWrite};

use crate::error::{HttpError, Part};
use crate::message::Response;
use crate::tls::TlsError;
use crate::transport::{Meter, Metered};

/// Bytes that a connection reads ahead at most, where heads are not allowed to be larger.
const BUFFER_BYTES: usize = 64 << 10;
/// Bytes of a body that are set aside before they came.
const BODY_BYTES_AHEAD: usize = 64 << 10;

type Driver<S> = http1::Connection<TokioIo<Metered<S>>, Full<Bytes>>;

/// A connection that HTTP/1.1 is spoken over, driven by who asks.
pub(crate) struct Link<S: AsyncRead + AsyncWrite + Unpin + 'static> {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Pin<Box<Driver<S>>>,
    meter: Rc<Meter>,
    head_bytes_max: usize,
    has_ended: bool,
}

/// The head of a response, and its body on its way.
pub(crate) struct Answer {
    head: http::response::Parts,
    body: Incoming,
}

/// Why an exchange failed, and how far it had come.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: HttpError,
    /// Whether any byte of the request was handed to the connection.
    pub(crate) was_sent: bool,
    /// Whether any byte of an answer came.
    pub(crate) was_answered: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Link<S> {
    /// Begins to speak HTTP over `stream`.
    pub(crate) async fn open(stream: S, head_bytes_max: usize) -> Result<Self, HttpError> {
        let meter = Rc::new(Meter::default());
        let io = TokioIo::new(Metered::new(stream, Rc::clone(&meter)));
        let opened = http1::Builder::new()
            .max_header_size(head_bytes_max)
            .max_buf_size(head_bytes_max.max(BUFFER_BYTES))
            .handshake(io)
            .await;
        let (sender, driver) = opened.map_err(|error| HttpError::Protocol(error.to_string()))?;
        let driver = Box::pin(driver);
        Ok(Self { sender, driver, meter, head_bytes_max, has_ended: false })
    }

    /// Moves bytes in both directions; ready when the connection has ended.
    pub(crate) fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.has_ended {
            // Why it ended is told by the exchange that it ended.
            self.has_ended = self.driver.as_mut().poll(cx).is_ready();
        }
        if self.has_ended { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether the next request may go over it, as far as is known here.
    pub(crate) async fn is_usable(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(self.poll_drive(cx).is_pending())).await && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of its response.
    pub(crate) async fn ask(
        &mut self,
        request: http::Request<Full<Bytes>>,
    ) -> Result<Answer, Failure> {
        let before = self.meter.reading();
        let mut asked = pin!(self.sender.try_send_request(request));
        let outcome = poll_fn(|cx| {
            // What the driver brings is looked at after it; when it has ended there is no more.
            for _ in 0..2 {
                if let Poll::Ready(outcome) = asked.as_mut().poll(cx) {
                    return Poll::Ready(Some(outcome));
                }
                if self.poll_drive(cx).is_pending() {
                    continue;
                }
                return match asked.as_mut().poll(cx) {
                    Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                    Poll::Pending => Poll::Ready(None),
                };
            }
            Poll::Pending
        })
        .await;
        match outcome {
            Some(Ok(response)) => {
                let (head, body) = response.into_parts();
                Ok(Answer { head, body })
            }
            Some(Err(mut unsent)) => {
                let kept = unsent.take_message().is_some();
                Err(self.failure(Some(&unsent.into_error()), before, kept))
            }
            None => Err(self.failure(None, before, false)),
        }
    }

    /// Reads the body of a response, of at most `bytes_max` bytes.
    pub(crate) async fn read(
        &mut self,
        answer: Answer,
        bytes_max: usize,
    ) -> Result<Response, HttpError> {
        let Answer { head, mut body } = answer;
        let too_large = || HttpError::TooLarge { part: Part::Body, limit: bytes_max };
        let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if declared > bytes_max {
            return Err(too_large());
        }
        let mut whole = Collected::default();
        while let Some(frame) = self.next_frame(&mut body).await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => return Err(self.sorted(&error, true)),
            };
            // Trailers are not handed on.
            let Ok(part) = frame.into_data() else { continue };
            if !whole.push(part, declared, bytes_max) {
                return Err(too_large());
            }
        }
        Ok(Response { status: head.status, headers: head.headers, body: whole.into_bytes() })
    }

    async fn next_frame(
        &mut self,
        body: &mut Incoming,
    ) -> Option<Result<hyper::body::Frame<Bytes>, hyper::Error>> {
        poll_fn(|cx| {
            for _ in 0..2 {
                if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
                    return Poll::Ready(frame);
                }
                if self.poll_drive(cx).is_pending() {
                    continue;
                }
                // A driver that has ended has told the body so.
                return Pin::new(&mut *body).poll_frame(cx);
            }
            Poll::Pending
        })
        .await
    }

    fn failure(&self, error: Option<&hyper::Error>, before: (u64, u64), kept: bool) -> Failure {
        let (read, written) = self.meter.reading();
        let was_sent = written > before.1 && !kept;
        let error = match error {
            Some(error) => self.sorted(error, was_sent),
            None => HttpError::Closed { request_sent: was_sent },
        };
        Failure { error, was_sent, was_answered: read > before.0 }
    }

    /// Sorts what went wrong on the connection.
    fn sorted(&self, error: &hyper::Error, request_sent: bool) -> HttpError {
        if error.is_parse_too_large() {
            return HttpError::TooLarge { part: Part::Head, limit: self.head_bytes_max };
        }
        if let Some(source) = source::<io::Error>(error) {
            return match TlsError::of_session(source) {
                Some(error) => error.into(),
                None if source.kind() == io::ErrorKind::InvalidData => {
                    HttpError::Protocol(source.to_string())
                }
                None if source.kind() == io::ErrorKind::InvalidInput => {
                    HttpError::Protocol(source.to_string())
                }
                None => HttpError::Closed { request_sent },
            };
        }
        if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
            return HttpError::Closed { request_sent };
        }
        HttpError::Protocol(error.to_string())
    }
}

/// The first cause of that type.
fn source<T: std::error::Error + 'static>(error: &hyper::Error) -> Option<&T> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// A body in parts: the only one as it came, several in one piece.
#[derive(Debug, Default)]
struct Collected {
    only: Bytes,
    several: BytesMut,
}

impl Collected {
    /// Adds a part; false when that would be more than `bytes_max`.
    #[must_use]
    fn push(&mut self, part: Bytes, declared: usize, bytes_max: usize) -> bool {
        let len = self.only.len() + self.several.len();
        if part.len() > bytes_max.saturating_sub(len) {
            return false;
        }
        if len == 0 {
            self.only = part;
            return true;
        }
        if self.several.is_empty() {
            // What the server announces it need not send.
            let ahead = declared.saturating_sub(len).min(BODY_BYTES_AHEAD);
            self.several.reserve(len + ahead.max(part.len()));
            self.several.extend_from_slice(&std::mem::take(&mut self.only));
        }
        self.several.extend_from_slice(&part);
        true
    }

    fn into_bytes(self) -> Bytes {
        if self.several.is_empty() { self.only } else { self.several.freeze() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_one_part_is_not_copied_and_several_are_joined() {
        let mut whole = Collected::default();
        let part = Bytes::from_static(b"abc");
        assert!(whole.push(part.clone(), 3, 3));
        assert_eq!(whole.into_bytes().as_ptr(), part.as_ptr());
        let mut whole = Collected::default();
        assert!(whole.push(part.clone(), 0, 7));
        assert!(whole.push(part.clone(), 0, 7));
        assert!(!whole.push(part.clone(), 0, 7), "nine bytes are more than seven");
        assert!(whole.push(Bytes::from_static(b"d"), 0, 7));
        assert_eq!(&*whole.into_bytes(), b"abcabcd");
        assert!(Collected::default().push(Bytes::new(), 0, 0));
    }

    #[test]
    fn an_announced_length_sets_little_aside() {
        let mut whole = Collected::default();
        for _ in 0..2 {
            assert!(whole.push(Bytes::from_static(b"abc"), usize::MAX, usize::MAX));
        }
        assert!(whole.several.capacity() < 2 * BODY_BYTES_AHEAD);
    }
}
