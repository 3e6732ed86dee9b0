//! Hidden headers are uncovered before anything is read of them but the connection id.

use std::net::SocketAddr;

use super::{Endpoint, Target};
use crate::handshakes::HalfOpen;
use crate::header_protection::{header_key, mask};
use crate::messages::connection_id;

impl Endpoint {
    /// Uncovers the header of a packet whose session hides them. One that confirms a handshake from
    /// another address than its own stays as it is: it is dropped, and shall cost no key.
    pub(super) fn reveal(&self, peer: SocketAddr, packet: &mut [u8]) {
        let target = connection_id(packet).and_then(|id| self.targets.get(id));
        match target {
            Some(Target::Session(slot)) => {
                let place = self.slots.get(slot as usize);
                if let Some(session) = place.and_then(|place| place.session.as_deref()) {
                    session.connection.reveal(packet);
                }
            }
            Some(Target::Handshake(order)) => {
                let half_open = self.door.handshakes.get(order);
                if let Some(half_open) = half_open.filter(|half_open| half_open.peer == peer) {
                    self.reveal_confirmation(half_open, packet);
                }
            }
            None => {}
        }
    }

    /// The key is made for each packet: few come before the session exists.
    fn reveal_confirmation(&self, half_open: &HalfOpen, packet: &mut [u8]) {
        if half_open.hidden {
            let secret = &half_open.split.client_to_server;
            let key = header_key(self.common.suites.as_ref(), half_open.cipher, secret);
            key.into_iter().for_each(|key| mask(key.as_ref(), packet));
        }
    }
}
