//! Typed messages at the client: those sent, and those that wait to be read.

use std::collections::VecDeque;
use std::sync::Arc;

use twinspan_messages::{Encoder, MessageBuf, Refusals, Registry};
use twinspan_reliable::Channel;

/// Messages kept for the application; further ones are dropped and counted.
const WAITING_MAX: usize = 256;
/// Bytes of these messages.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// What a client counted of typed messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientMessageStats {
    /// Handed to the session.
    pub sent: u64,
    /// Tries to hand one to the session that it did not take.
    pub unsent: u64,
    /// Received and kept for the application.
    pub received: u64,
    /// Refused, by reason.
    pub refused: Refusals,
    /// Dropped because the application did not fetch them.
    pub lost: u64,
}

/// Messages received and not read yet, and what is needed to send.
#[derive(Debug)]
pub(super) struct Typed {
    pub(super) registry: Arc<Registry>,
    pub(super) encoder: Encoder,
    waiting: VecDeque<MessageBuf>,
    waiting_bytes: usize,
    /// Buffers that were read, to be filled again.
    spare: Vec<MessageBuf>,
    pub(super) stats: ClientMessageStats,
}

impl Typed {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            encoder: Encoder::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            spare: Vec::new(),
            stats: ClientMessageStats::default(),
        }
    }

    pub(super) fn receive(&mut self, channel: Channel, bytes: &[u8]) {
        let incoming = match self.registry.check(channel, bytes) {
            Ok(incoming) => incoming,
            Err(why) => return self.stats.refused.count(&why),
        };
        let bytes_then = self.waiting_bytes + bytes.len();
        if self.waiting.len() == WAITING_MAX || bytes_then > WAITING_BYTES_MAX {
            self.stats.lost += 1;
            return;
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        incoming.keep(&mut buffer);
        self.waiting_bytes += buffer.len();
        self.waiting.push_back(buffer);
        self.stats.received += 1;
    }

    /// Swaps the oldest message into `out`, whose buffer is used again.
    pub(super) fn poll(&mut self, out: &mut MessageBuf) -> bool {
        let Some(mut oldest) = self.waiting.pop_front() else { return false };
        self.waiting_bytes -= oldest.len();
        std::mem::swap(&mut oldest, out);
        if self.spare.len() < WAITING_MAX {
            self.spare.push(oldest);
        }
        true
    }
}
