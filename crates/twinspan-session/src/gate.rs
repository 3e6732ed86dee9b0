//! Who has a say in letting somebody in, besides the protocol itself.

use core::net::IpAddr;

use twinspan_core::time::Timestamp;

use crate::identity::UserId;
use crate::reason::RefuseReason;

/// Why a handshake came to nothing through the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeFault {
    /// Its token was refused.
    Token(RefuseReason),
    /// Its Noise message does not verify.
    HelloBad,
}

/// An application's say in who is let in, asked by
/// [`Endpoint::handle_datagram_gated`](crate::Endpoint::handle_datagram_gated).
///
/// All calls are about addresses that proved, by a right cookie, that they receive.
pub trait Gate {
    /// Whether to pay for a handshake: opening a token and a key exchange. When not, the HELLO is
    /// dropped and counted; the client tries again by itself.
    fn allow_handshake(&mut self, now: Timestamp, source: IpAddr) -> bool;

    /// Whether this user may have a session. When not, it is refused as
    /// [`RefuseReason::Banned`]. Asked twice: for the HELLO, before the key exchange, and when the
    /// handshake is confirmed, some round trips later.
    fn allow_user(&mut self, now: Timestamp, user: UserId) -> bool;

    /// Whether there is room for one session more, beside this endpoint's own limit: for endpoints that
    /// share one. Asked for the HELLO, before the key exchange, of those who do not take the place of
    /// a session; when not, they are refused as [`RefuseReason::Full`]. There is, unless said otherwise.
    fn has_room(&self) -> bool {
        true
    }

    /// Takes the room for one session more, as the last thing before its token is spent; when it says
    /// no, the client is refused as [`RefuseReason::Full`] and keeps its token. `Established` follows a
    /// yes. One that `replaces` a session of this endpoint is let in whatever room there is: that
    /// session's `Closed` comes next.
    fn take_room(&mut self, replaces: bool) -> bool {
        let _ = replaces;
        true
    }

    /// A handshake of this address came to nothing through the client's fault.
    fn on_failure(&mut self, now: Timestamp, source: IpAddr, fault: HandshakeFault);
}

/// A gate that lets everybody in.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenGate;

impl Gate for OpenGate {
    fn allow_handshake(&mut self, _: Timestamp, _: IpAddr) -> bool {
        true
    }

    fn allow_user(&mut self, _: Timestamp, _: UserId) -> bool {
        true
    }

    fn on_failure(&mut self, _: Timestamp, _: IpAddr, _: HandshakeFault) {}
}
