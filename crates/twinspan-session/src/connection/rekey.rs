//! A connection's part in its keys: fresh key pairs from its holder, the hard stop, hidden headers.

use twinspan_core::random::SecretSource;
use twinspan_core::time::Timestamp;

use super::{Connection, Notice, Phase};
use crate::frames::{CONTROL_SURE, Control};
use crate::identity::KeyPair;
use crate::reason::CloseReason;

impl Connection {
    /// Uncovers the header of a packet that came, where headers are hidden.
    pub(crate) fn reveal(&self, packet: &mut [u8]) {
        self.keys.reveal(packet);
    }

    /// Whether headers are hidden.
    pub(crate) const fn hides_headers(&self) -> bool {
        self.keys.hides_headers()
    }

    /// Whether the holder shall call [`exchange`](Self::exchange).
    pub(crate) fn wants_exchange(&self, now: Timestamp) -> bool {
        self.keys.wants_pair(now) && matches!(self.phase, Phase::Open)
    }

    /// Begins or answers an exchange of fresh keys, session 5.8.
    pub(crate) fn exchange(&mut self, now: Timestamp, secrets: &mut dyn SecretSource) {
        let Some(rekey) = self.keys.on_pair(KeyPair::generate(secrets)) else {
            return self.close(now, CloseReason::ProtocolViolation);
        };
        let message = Control::Rekey(rekey).to_bytes();
        let engine = self.desk.live(now, &self.common.config.reliable, &mut self.jitter);
        // The control stream takes 63 messages at once: only a peer that acknowledges nothing fills
        // it, and without this one the keys could never change again.
        if engine.sender.send(now, CONTROL_SURE, message.as_slice()).is_err() {
            self.close(now, CloseReason::QueueOverflow);
        }
    }

    /// Forgets the phase before; says whether the connection failed because its key is worn out.
    pub(super) fn keys_timed_out(
        &mut self,
        now: Timestamp,
        sink: &mut dyn FnMut(Notice<'_>),
    ) -> bool {
        self.keys.handle_timeout(now);
        let worn = self.keys.is_worn();
        if worn {
            self.fail(now, CloseReason::KeyWornOut, sink);
        }
        worn
    }
}
