//! The client's ids: those in reserve, and how it moves under them. Session 1.7 from its side.

use twinspan_core::time::Timestamp;

use super::{ClientSession, Connected, State, draw_id};
use crate::error::MigrateError;
use crate::frames::{IdPair, SPARE_IDS};

impl ClientSession {
    /// Tells the server that packets come from another address from now on: the owner of the socket
    /// has changed it or is about to. Both ends go on under ids that nobody has seen, and
    /// reaches the server with the next [`poll_transmit`](Self::poll_transmit).
    ///
    /// An address that changes unnoticed, behind a NAT, needs no call.
    ///
    /// # Errors
    /// [`MigrateError`], and the session goes on under its id.
    pub fn migrate(&mut self, now: Timestamp) -> Result<(), MigrateError> {
        let connected = match &mut self.state {
            State::Connecting(_) => return Err(MigrateError::NotConnected),
            State::Closed { reason, .. } => return Err(MigrateError::Closed(*reason)),
            State::Connected(connected) => connected,
        };
        if let Some(reason) = connected.connection.close_reason() {
            return Err(MigrateError::Closed(reason));
        }
        let place = connected.spare.iter_mut().find(|pair| pair.server != 0);
        let place = place.ok_or(MigrateError::NoSpareId)?;
        if !connected.connection.change_id(now, place.server) {
            return Err(MigrateError::NoSpareId);
        }
        if place.client != 0 {
            connected.before.rotate_right(1);
            if let Some(newest) = connected.before.first_mut() {
                *newest = core::mem::replace(&mut self.id, place.client);
            }
        }
        *place = IdPair::default();
        Ok(())
    }

    /// Keeps new ids of the server as far as there is room, and says which own ones go with them.
    pub(super) fn keep_ids(&mut self, now: Timestamp, ids: [u32; SPARE_IDS]) {
        let State::Connected(connected) = &mut self.state else { return };
        let mut told = [IdPair::default(); SPARE_IDS];
        for (server, told) in ids.into_iter().filter(|id| *id != 0).zip(&mut told) {
            let Some(place) = connected.spare.iter().position(|pair| pair.server == 0) else {
                break;
            };
            let mut client = 0;
            while !self.is_id_chosen
                && (client == 0 || client == self.id || connected.knows(client))
            {
                client = draw_id(self.secrets.as_mut());
            }
            *told = IdPair { server, client };
            if let Some(place) = connected.spare.get_mut(place) {
                *place = *told;
            }
        }
        let has_own = told.iter().any(|pair| pair.client != 0);
        if has_own && !connected.connection.send_own_ids(now, told) {
            // The server will not know them.
            for pair in connected.spare.iter_mut().filter(|pair| told.contains(pair)) {
                pair.client = 0;
            }
        }
    }
}

impl Connected {
    fn knows(&self, id: u32) -> bool {
        self.before.contains(&id) || self.spare.iter().any(|pair| pair.client == id)
    }

    /// The server used this own id: those before it are good no longer.
    pub(super) fn forget_before(&mut self, id: u32) {
        let older = self.before.iter().position(|before| *before == id).map_or(0, |at| at + 1);
        self.before.iter_mut().skip(older).for_each(|before| *before = 0);
    }
}
