//! The end of a connection: CLOSE, its repeats, and the time until nobody asks any more.

use twinspan_core::time::Timestamp;

use super::sending::Sealing;
use super::{Connection, Notice, Phase};
use crate::config::SessionConfig;
use crate::frames::{CONTROL_ONCE, Control, PacketBuilder, Text};
use crate::header::Header;
use crate::protection::Role;
use crate::reason::CloseReason;

/// How often a CLOSE is sent unasked.
const CLOSES: u8 = 3;
/// Bytes that may be sent for each byte of a peer that goes on sending.
const REPLY_RATIO: u32 = 3;

/// CLOSE is on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closing {
    pub(super) reason: CloseReason,
    sent: u8,
    /// Whether the holder knows.
    told: bool,
    began_at: Timestamp,
    /// No CLOSE leaves before.
    next_at: Timestamp,
    /// Bytes that came since and that no CLOSE has answered yet.
    unanswered: u32,
}

impl Closing {
    pub(super) const fn new(now: Timestamp, reason: CloseReason, told: bool) -> Self {
        Self { reason, sent: 0, told, began_at: now, next_at: now, unanswered: 0 }
    }

    /// When nothing more will be said: after a silence, and at the latest after a while.
    fn over_at(&self, heard_at: Timestamp, config: &SessionConfig) -> Timestamp {
        let silent = self.began_at.max(heard_at).after(config.close_linger);
        silent.min(self.began_at.after(config.close_linger_max))
    }

    /// When a CLOSE may leave; never when nobody asks for one.
    fn send_at(&self) -> Timestamp {
        let asked = self.unanswered > 0;
        if self.sent < CLOSES || asked { self.next_at } else { Timestamp::NEVER }
    }
}

impl Connection {
    /// The peer or the path is at fault: tell both sides and end.
    pub(super) fn fail(
        &mut self,
        now: Timestamp,
        reason: CloseReason,
        sink: &mut dyn FnMut(Notice<'_>),
    ) {
        self.begin_close(now, reason, true);
        sink(Notice::Closed { reason });
    }

    /// Ends the connection from this side. [`Notice::Closed`] follows in
    /// [`handle_timeout`](Self::handle_timeout).
    pub(crate) fn close(&mut self, now: Timestamp, reason: CloseReason) {
        self.begin_close(now, reason, false);
    }

    fn begin_close(&mut self, now: Timestamp, reason: CloseReason, told: bool) {
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::Closing(Closing::new(now, reason, told));
            self.ready = true;
        }
    }

    /// An authentic packet came although CLOSE was sent: the peer may not know yet. Session 8.4.
    pub(super) fn hear_while_closing(
        &mut self,
        now: Timestamp,
        mut closing: Closing,
        bytes: u64,
        (header, text): (&Header, &[u8]),
    ) {
        if says_close(header, text) {
            // Both ends wanted it: nobody has to be told.
            closing.sent = CLOSES;
            closing.unanswered = 0;
            self.phase = Phase::Closing(closing);
            return;
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        closing.unanswered = closing.unanswered.saturating_add(bytes);
        self.phase = Phase::Closing(closing);
        self.ready |= now >= closing.send_at();
    }

    pub(super) fn build_close(
        &mut self,
        now: Timestamp,
        mut closing: Closing,
        room: &mut [u8],
    ) -> Option<usize> {
        self.ready = false;
        let asked = closing.sent >= CLOSES;
        closing.sent = closing.sent.saturating_add(1);
        closing.next_at = now.after(self.common.config.close_interval);
        let limit = closing.unanswered.saturating_mul(REPLY_RATIO);
        closing.unanswered = 0;
        self.phase = Phase::Closing(closing);
        let mut builder = PacketBuilder::new(room)?;
        let control = Control::Close { reason: closing.reason.to_wire() }.to_bytes();
        builder.push(CONTROL_ONCE, None, None, control.as_slice()).ok()?;
        let built = builder.finish();
        let len = built.len + twinspan_core::aead::TAG_BYTES;
        if asked && u32::try_from(len).is_ok_and(|len| len > limit) {
            return None;
        }
        self.seal(now, built, Sealing::default(), room)
    }

    pub(super) fn closing_deadline(&self, closing: &Closing) -> Timestamp {
        if !closing.told && self.role == Role::Server {
            return Timestamp::START;
        }
        let over_at = closing.over_at(self.heard_at, &self.common.config);
        if self.ready { over_at } else { over_at.min(closing.send_at()) }
    }

    pub(super) fn handle_closing_timeout(
        &mut self,
        now: Timestamp,
        mut closing: Closing,
        sink: &mut dyn FnMut(Notice<'_>),
    ) {
        let reason = closing.reason;
        let over = now >= closing.over_at(self.heard_at, &self.common.config);
        // A server frees the player at once; a client stays until its CLOSEs have left.
        if !closing.told && (over || self.role == Role::Server) {
            closing.told = true;
            sink(Notice::Closed { reason });
        }
        self.ready |= now >= closing.send_at();
        self.phase = if over { Phase::Closed(reason) } else { Phase::Closing(closing) };
    }
}

fn says_close(header: &Header, text: &[u8]) -> bool {
    let Ok((_, mut text)) = Text::parse(header, text) else { return false };
    while let Ok(Some(frame)) = text.next_frame() {
        if frame.channel == CONTROL_ONCE
            && matches!(Control::parse(frame.channel, frame.body), Ok(Control::Close { .. }))
        {
            return true;
        }
    }
    false
}
