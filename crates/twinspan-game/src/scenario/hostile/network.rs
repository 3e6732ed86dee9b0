//! A network of constant delay between the server and its clients.

use std::collections::VecDeque;
use std::time::Duration;

use twinspan_core::packet::Datagram;
use twinspan_core::time::Timestamp;

/// How long a datagram is under way.
const DELAY: Duration = Duration::from_millis(10);

/// Datagrams under way, in the order in which they were sent: with one delay for all they arrive in
/// that order too.
#[derive(Debug, Default)]
pub(super) struct Network {
    to_server: VecDeque<Datagram>,
    to_clients: VecDeque<Datagram>,
}

impl Network {
    /// `datagram.peer` is the client.
    pub(super) fn send_to_server(&mut self, now: Timestamp, datagram: Datagram) {
        self.to_server.push_back(Datagram { at: now.after(DELAY), ..datagram });
    }

    /// `datagram.peer` is the client.
    pub(super) fn send_to_client(&mut self, now: Timestamp, datagram: Datagram) {
        self.to_clients.push_back(Datagram { at: now.after(DELAY), ..datagram });
    }

    pub(super) fn next_for_server(&mut self, now: Timestamp) -> Option<Datagram> {
        take_due(&mut self.to_server, now)
    }

    /// The next datagram for any client that `is_wanted` knows; others stay.
    pub(super) fn next_for_client(
        &mut self,
        now: Timestamp,
        is_wanted: impl Fn(&Datagram) -> bool,
    ) -> Option<Datagram> {
        let due = self.to_clients.iter().take_while(|datagram| datagram.at <= now);
        let place = due.enumerate().find(|(_, datagram)| is_wanted(datagram))?.0;
        self.to_clients.remove(place)
    }

    /// Drops what came due for nobody.
    pub(super) fn drop_due(&mut self, now: Timestamp) {
        while take_due(&mut self.to_clients, now).is_some() {}
    }
}

fn take_due(queue: &mut VecDeque<Datagram>, now: Timestamp) -> Option<Datagram> {
    if queue.front()?.at <= now { queue.pop_front() } else { None }
}
