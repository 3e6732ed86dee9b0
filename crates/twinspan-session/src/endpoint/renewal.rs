//! Sessions that outlive their tickets get others in time: session 3.13.

use core::time::Duration;

use twinspan_core::time::Timestamp;

use super::{Endpoint, Session, SessionKey};
use crate::ticket::{Renewal, Ticket, TicketOrder};

/// When a ticket that could not be sent is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A ticket that is on its way to a client: until it is known to have arrived, the one before is
/// good too.
pub(super) struct Renewed {
    pub(super) ticket: [u8; 16],
    /// The control message that carries it.
    number: u64,
    /// When the next one is due.
    next_at: Timestamp,
}

/// When a ticket that is issued now is to be replaced: between 6/16 and 7/16 of its life, so that
/// what is left is more than an idle time-out and the window, and sessions that began together do
/// not renew together. The id, which is random, says where between.
pub(super) fn due(now: Timestamp, lifetime: Duration, ticket: &[u8; 16]) -> Timestamp {
    let [.., low, high] = *ticket;
    let spread = lifetime / 16 * u32::from(u16::from_le_bytes([low, high])) / (1 << 16);
    now.after(lifetime / 16 * 6 + spread)
}

impl Session {
    /// Whether this ticket lets its client back in while the session is open.
    pub(super) fn takes(&self, ticket: &[u8; 16]) -> bool {
        self.ticket == *ticket || self.renewal.as_deref().is_some_and(|new| new.ticket == *ticket)
    }

    /// The ticket that was on its way may have arrived: the one before is good no longer.
    pub(super) fn settle_renewal(&mut self) {
        let connection = &self.connection;
        if let Some(new) = self.renewal.take_if(|new| connection.has_arrived(new.number)) {
            self.ticket = new.ticket;
            self.renew_at = new.next_at;
        }
    }
}

impl Endpoint {
    /// Hands a session a fresh ticket when it is time. One is under way at most.
    pub(super) fn renew_ticket(&mut self, now: Timestamp, key: SessionKey) {
        let Some(session) = self.find_mut(key).filter(|session| now >= session.renew_at) else {
            return;
        };
        if session.connection.close_reason().is_some() {
            session.renew_at = Timestamp::NEVER;
            return;
        }
        session.renew_at = now.after(RETRY);
        let (follows, root, user) = (session.ticket, session.root, session.user);
        let lifetime = self.common.config.resume.lifetime;
        let door = &mut self.door;
        let (Some(sealing), Some(present)) = (door.keyring.ticket_key(), door.keyring.present())
        else {
            return;
        };
        let order = TicketOrder {
            key: sealing,
            server_key_id: present.key_id,
            follows: &follows,
            user,
            run: door.tickets.run(),
            root: Some(root),
            expires_at_unix_s: door.unix_s(now).saturating_add(lifetime.as_secs()),
        };
        let server_key = present.public_key();
        let Some((ticket, public)) = Ticket::issue(&order, door.secrets.as_mut()) else { return };
        let Some(session) = self.find_mut(key) else { return };
        let message = ticket.to_renewal(server_key);
        if let Some(number) = session.connection.send_ticket(now, Renewal(&message)) {
            let next_at = due(now, lifetime, &public.id);
            let renewed = Renewed { ticket: public.id, number, next_at };
            session.renewal = Some(Box::new(renewed));
            session.renew_at = Timestamp::NEVER;
            self.stats.tickets_renewed += 1;
        }
    }
}
