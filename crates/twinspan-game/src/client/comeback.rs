//! A client whose session was lost, and that goes to another address.

use twinspan_core::time::Timestamp;
use twinspan_session::{CloseReason, MigrateError, ResumeTicket};

use super::{Client, Notice};

impl Client {
    /// Whether the session was lost and the client tries to come back.
    pub const fn is_away(&self) -> bool {
        self.away_until.is_some()
    }

    /// Tells the server that packets come from another address from now on, see
    /// [`ClientSession::migrate`](twinspan_session::ClientSession::migrate).
    ///
    /// # Errors
    /// [`MigrateError`], and the session goes on under its id: the server then follows as it follows
    /// a client behind a NAT.
    pub fn migrate(&mut self, now: Timestamp) -> Result<(), MigrateError> {
        self.session.migrate(now)
    }

    /// The session ended: comes back, or has ended too.
    pub(super) fn on_ended(&mut self, now: Timestamp, reason: CloseReason) {
        let window = self.session.ticket().map(ResumeTicket::window).unwrap_or_default();
        let until = self.away_until.unwrap_or_else(|| now.after(window));
        // Who took the session's place is this very user, elsewhere.
        let may = self.comes_back && reason != CloseReason::Replaced && now < until;
        if may && self.session.come_back().is_ok() {
            self.next_input_at = None;
            self.due.clear();
            (self.last_action, self.last_result) = (0, 0);
            if self.away_until.replace(until).is_none() {
                self.notice(Notice::Reconnecting { reason });
            }
            return;
        }
        self.away_until = None;
        self.closed = Some(reason);
        self.notice(Notice::Closed { reason });
    }

    fn notice(&mut self, notice: Notice) {
        if self.notices.len() == self.notices_max {
            self.notices.pop_front();
            self.stats.notices_lost += 1;
        }
        self.notices.push_back(notice);
    }
}
