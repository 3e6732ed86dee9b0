//! Who comes back with a ticket, and what becomes of the session that was lost.

use std::collections::BTreeMap;

use twinspan_core::random::SecretSource;
use twinspan_core::time::Timestamp;

use super::{Endpoint, EndpointEvent, SessionKey};
use crate::absent::Absent;
use crate::config::SessionConfig;
use crate::handshakes::HalfOpen;
use crate::identity::UserId;
use crate::reason::{CloseReason, RefuseReason};
use crate::ticket::{Origin, Ticket, TicketOrder};
use crate::token::PublicPart;

/// That a session goes on where one was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resumed {
    /// The session that it replaces, where that one had not ended yet: its `Closed`, with
    /// [`CloseReason::Replaced`], came right before. `None` when it had ended before, or in a run
    /// of the server before this one.
    pub old: Option<SessionKey>,
}

/// Whether a session takes the place of one that has not ended.
pub(super) fn replaces(resumed: Option<Resumed>) -> bool {
    resumed.is_some_and(|resumed| resumed.old.is_some())
}

/// What opens the door to a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Token,
    Ticket(Origin),
}

impl Entry {
    /// What is spent with it: a token itself, and of a ticket the first of its session.
    const fn spends<'a>(&'a self, id: &'a [u8; 16]) -> &'a [u8; 16] {
        match self {
            Self::Token => id,
            Self::Ticket(origin) => &origin.root,
        }
    }
}

/// The tickets of this run: whose sessions live, and whose were lost.
pub(super) struct Tickets {
    /// Names this run in the tickets that it issues.
    run: u64,
    /// By the sessions' first tickets.
    live: BTreeMap<[u8; 16], SessionKey>,
    absent: Absent,
}

impl Tickets {
    pub(super) fn new(config: &SessionConfig, secrets: &mut dyn SecretSource) -> Self {
        let mut run = [0; 8];
        secrets.fill(&mut run);
        let absent = Absent::new(config.resume.absent_max);
        Self { run: u64::from_le_bytes(run), live: BTreeMap::new(), absent }
    }

    pub(super) const fn run(&self) -> u64 {
        self.run
    }

    pub(super) fn add(&mut self, root: [u8; 16], session: SessionKey) {
        self.live.insert(root, session);
    }

    pub(super) fn forget(&mut self, root: &[u8; 16]) {
        self.live.remove(root);
    }
}

impl Endpoint {
    /// A ticket for a session that is about to be set up.
    pub(super) fn issue_ticket(
        &mut self,
        now: Timestamp,
        follows: &PublicPart,
        user: UserId,
    ) -> Option<(Ticket, PublicPart)> {
        let door = &mut self.door;
        let lifetime = self.common.config.resume.lifetime.as_secs();
        let order = TicketOrder {
            key: door.keyring.ticket_key()?,
            server_key_id: follows.server_key_id,
            follows: &follows.id,
            user,
            run: door.tickets.run,
            root: None,
            expires_at_unix_s: door.unix_s(now).saturating_add(lifetime),
        };
        Ticket::issue(&order, door.secrets.as_mut())
    }

    /// Whether the entry still lets in, and for a ticket what it resumes.
    pub(super) fn check_entry(
        &mut self,
        now: Timestamp,
        entry: Entry,
        id: &[u8; 16],
    ) -> Result<Option<Resumed>, RefuseReason> {
        let resumed = match entry {
            Entry::Token => None,
            Entry::Ticket(origin) => Some(self.check_ticket(now, origin, id)?),
        };
        self.check_place(now, entry.spends(id), replaces(resumed))?;
        Ok(resumed)
    }

    fn check_ticket(
        &self,
        now: Timestamp,
        origin: Origin,
        id: &[u8; 16],
    ) -> Result<Resumed, RefuseReason> {
        let tickets = &self.door.tickets;
        let Origin { run, root } = origin;
        if run != tickets.run {
            // What became of its session is not known here. Whoever was cut off by a restart comes
            // soon after it; the spent ones are remembered for as long.
            let in_time = now.since(Timestamp::START) <= self.common.config.resume.window;
            return if in_time { Ok(Resumed { old: None }) } else { Err(RefuseReason::Ticket) };
        }
        let old = tickets.live.get(&root).copied();
        let open = |key: &SessionKey| {
            let session = self.find(*key)?;
            session.connection.close_reason().is_none().then_some(session.takes(id))
        };
        match old.and_then(|old| Some((old, open(&old)?))) {
            Some((old, true)) => Ok(Resumed { old: Some(old) }),
            // Its client has had another for long.
            Some((_, false)) => Err(RefuseReason::Ticket),
            None if tickets.absent.contains(now, &root, id) => Ok(Resumed { old: None }),
            None => Err(RefuseReason::Ticket),
        }
    }

    /// Whether a session may begin with this token or ticket.
    fn check_place(
        &mut self,
        now: Timestamp,
        id: &[u8; 16],
        replaces: bool,
    ) -> Result<(), RefuseReason> {
        if self.door.draining {
            return Err(RefuseReason::Draining);
        }
        if self.door.spent.contains(id) {
            return Err(RefuseReason::TokenSpent);
        }
        let now_unix_s = self.door.unix_s(now);
        let full = self.live - usize::from(replaces) >= self.common.config.sessions_max;
        if full || !self.door.spent.has_room(now_unix_s) {
            return Err(RefuseReason::Full);
        }
        Ok(())
    }

    /// The keys of a handshake were confirmed: its token or ticket lets nobody in again, and the
    /// session that it replaces is over.
    pub(super) fn spend_entry(
        &mut self,
        half_open: &HalfOpen,
        resumed: Option<Resumed>,
        on_event: &mut dyn FnMut(EndpointEvent<'_>),
    ) {
        let id = half_open.token_id;
        match half_open.entry {
            // This run knows all its tickets: one that is neither live nor absent is good no longer.
            Entry::Ticket(Origin { run, root }) if run == self.door.tickets.run => {
                self.door.tickets.absent.forget(&root);
                self.door.tickets.live.remove(&root);
            }
            Entry::Token => self.door.spent.spend(id, half_open.token_expires_at_unix_s),
            // After the window none of that run is taken anyway. Of a session's tickets, whichever
            // they are, one lets in.
            Entry::Ticket(Origin { root, .. }) => {
                let window = self.common.config.resume.window.as_secs() + 1;
                let until = self.door.unix_s(Timestamp::START).saturating_add(window);
                self.door.spent.spend(root, until);
            }
        }
        if let Some(session) = resumed.and_then(|resumed| resumed.old) {
            let reason = CloseReason::Replaced;
            self.count_closed(reason);
            on_event(EndpointEvent::Closed { session, reason });
            // No CLOSE: its client is the one that came back.
            self.free(session.slot());
        }
    }

    /// A session ended: its ticket lets its client back in where it was lost.
    pub(super) fn keep_ticket(&mut self, now: Timestamp, slot: u32, reason: CloseReason) {
        if !reason.may_resume() {
            return;
        }
        let until = now.after(self.common.config.resume.window);
        if let Some((_, session)) = self.at(slot) {
            let under_way = session.renewal.as_deref().map_or(session.ticket, |new| new.ticket);
            let (root, tickets) = (session.root, [session.ticket, under_way]);
            self.door.tickets.absent.remember(now, root, tickets, until);
        }
    }
}
