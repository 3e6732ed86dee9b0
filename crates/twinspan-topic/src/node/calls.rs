//! Whom a node goes to, beside hearing those who come.
//!
//! //= hub 8.3

use std::net::SocketAddr;

use twinspan_core::time::Timestamp;

use super::Node;
use crate::greet::Greeting;

impl Node {
    /// Goes to an address too, again and again while nobody is there, beside hearing those who come.
    /// False when it goes to as many as it may have links.
    pub fn call(&mut self, now: Timestamp, to: SocketAddr) -> bool {
        let is_up = self.links.iter().any(|link| link.address == to);
        !self.is_closed && self.callings.add(now, to, self.secret.token(), is_up)
    }

    /// Goes to an address no more; a link with it lives on.
    pub fn hang_up(&mut self, to: SocketAddr) {
        self.callings.remove(to);
    }

    /// Whether somebody is met at an address that is called, or who was met there at another one.
    pub fn is_met(&self, to: SocketAddr) -> bool {
        self.callings.is_up(to)
    }

    /// Of two that call each other the one with the greater id keeps its call. Another hub at the
    /// address is one that came in place of the first, which said no goodbye.
    pub(super) fn keeps_call(&self, from: SocketAddr, peer: &Greeting) -> bool {
        peer.id < self.config.greeting.id
            && self.callings.is_up(from)
            && self.links.iter().any(|link| link.peer.id == peer.id)
    }
}
