//! A client that goes on after its session was lost: session 3.12 from its side.

use super::{ClientSession, State, draw_id};
use crate::error::ComeBackError;
use crate::reason::CloseReason;

impl ClientSession {
    /// Begins anew with the ticket of the session that was lost: a handshake, then a session of its
    /// own under another id. What was queued and not acknowledged is gone; counters go on. The next
    /// [`poll_transmit`](Self::poll_transmit) begins the handshake.
    ///
    /// A handshake that was not answered in time may be tried again with the same ticket, as long as
    /// its [`window`](crate::ResumeTicket::window) lasts.
    ///
    /// # Errors
    /// [`ComeBackError`], and nothing changed.
    pub fn come_back(&mut self) -> Result<(), ComeBackError> {
        let State::Closed { reason, .. } = self.state else {
            return Err(ComeBackError::NotLost);
        };
        let is_unanswered = reason == CloseReason::HandshakeTimeout && self.entering.is_some();
        if !(is_unanswered || reason.may_resume()) {
            return Err(ComeBackError::Ended(reason));
        }
        // While the server was not heard, the ticket that it gave may be one of no session.
        let ticket = self.entering.take().or_else(|| self.ticket.take().map(Box::new));
        let ticket = ticket.ok_or(ComeBackError::NoTicket)?;
        self.token = ticket.as_token().clone();
        self.secrets.fill(&mut self.nonce);
        if !self.is_id_chosen {
            self.id = draw_id(self.secrets.as_mut());
        }
        self.entering = Some(ticket);
        self.backoff.reset();
        self.deadline = None;
        self.clocks = None;
        self.state = self.begin();
        Ok(())
    }
}
