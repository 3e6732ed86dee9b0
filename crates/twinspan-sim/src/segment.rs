//! TCP by segments: the second way in which streams travel, with everything that a real sender does.
//!
//! Handshake, sequence numbers, cumulative and selective acknowledgements, a retransmission timer,
//! fast retransmission, congestion control, windows with probes, resets as RFC 9293 wants them. An
//! end is a machine ([`connection::Connection`]); `host` gives it ports, links and timers.

mod connection;
mod header;
mod host;
mod inbound;
mod outbound;
#[cfg(test)]
mod tests;
mod user;

pub(crate) use host::{Conn, Segments, Wire};

/// How streams travel between two hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TcpMode {
    /// In pieces of up to 16 KiB, in order; what a link loses is late, and who sends holds back
    /// nothing but what the peer's window says. Fast.
    #[default]
    Streams,
    /// In segments, as TCP does: each may be lost, late, doubled or out of order, and congestion
    /// control (CUBIC, RFC 9438) decides how many are on their way. Over a topology always.
    Segments,
}

/// What all connections by segments did, up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpReport {
    /// Segments sent, those without bytes included.
    pub segments: u64,
    /// Segments with bytes sent again.
    pub resent: u64,
    /// Retransmission timers that ran out.
    pub timeouts: u64,
    /// Times that a closed window was asked for, or a silent peer.
    pub probes: u64,
    /// Times that a window shrank because of losses or marks, timeouts aside.
    pub reductions: u64,
    /// Answers to segments out of order that might have been forged (RFC 5961).
    pub challenges: u64,
    /// Segments for which nobody was there and that were answered with a reset.
    pub refused: u64,
    /// Segments that were damaged on the way and dropped.
    pub damaged: u64,
}
