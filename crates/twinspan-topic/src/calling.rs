//! Whom a node goes to, again and again while nobody is there.
//!
//! //= hub 8.3

use core::time::Duration;
use std::net::SocketAddr;

use twinspan_core::time::Timestamp;

use crate::config::LINKS_MAX;
use crate::wire::COOKIE_BYTES;

/// The longest wait between two hellos.
const HELLO_INTERVAL_MAX: Duration = Duration::from_secs(2);

/// One address that is gone to.
#[derive(Clone, Copy, Debug)]
struct Calling {
    to: SocketAddr,
    token: u64,
    cookie: [u8; COOKIE_BYTES],
    next_at: Timestamp,
    interval: Duration,
    /// Who was met there.
    peer: Option<[u8; 16]>,
    /// There is a link with this address, or with who was met there: it is not called while that lives.
    is_up: bool,
}

/// The addresses that a node goes to.
#[derive(Debug)]
pub(crate) struct Callings {
    list: Vec<Calling>,
    hello_interval: Duration,
}

/// A hello that is to be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) to: SocketAddr,
    pub(crate) token: u64,
    pub(crate) cookie: [u8; COOKIE_BYTES],
}

impl Callings {
    pub(crate) const fn new(hello_interval: Duration) -> Self {
        Self { list: Vec::new(), hello_interval }
    }

    fn at(&mut self, to: SocketAddr) -> Option<&mut Calling> {
        self.list.iter_mut().find(|calling| calling.to == to)
    }

    /// Goes to an address from now on; false when there are too many.
    pub(crate) fn add(&mut self, now: Timestamp, to: SocketAddr, token: u64, is_up: bool) -> bool {
        if self.at(to).is_some() {
            return true;
        }
        if self.list.len() >= LINKS_MAX {
            return false;
        }
        let interval = self.hello_interval;
        let cookie = [0; COOKIE_BYTES];
        self.list.push(Calling { to, token, cookie, next_at: now, interval, peer: None, is_up });
        true
    }

    /// Goes to an address no more.
    pub(crate) fn remove(&mut self, to: SocketAddr) {
        self.list.retain(|calling| calling.to != to);
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    /// Whether a datagram is an answer to a hello.
    pub(crate) fn is_answer(&self, from: SocketAddr, token: u64) -> bool {
        self.list.iter().any(|it| it.to == from && it.token == token && !it.is_up)
    }

    /// The listener gave its cookie.
    pub(crate) fn on_cookie(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        cookie: [u8; COOKIE_BYTES],
    ) {
        let interval = self.hello_interval;
        if let Some(calling) = self.at(from) {
            (calling.cookie, calling.next_at, calling.interval) = (cookie, now, interval);
        }
    }

    /// The listener refused: it is asked again much later.
    pub(crate) fn on_refused(&mut self, now: Timestamp, from: SocketAddr) {
        if let Some(calling) = self.at(from) {
            calling.interval = HELLO_INTERVAL_MAX;
            calling.next_at = now.after(HELLO_INTERVAL_MAX);
        }
    }

    /// There is a link with a hub at an address, whoever called whom.
    pub(crate) fn on_link(&mut self, to: SocketAddr, id: [u8; 16]) {
        if let Some(calling) = self.at(to) {
            calling.peer = Some(id);
        }
        // One that has two addresses is called at one of them.
        for calling in self.list.iter_mut().filter(|it| it.to == to || it.peer == Some(id)) {
            calling.is_up = true;
        }
    }

    /// The link with a hub at an address is over.
    pub(crate) fn on_end(
        &mut self,
        now: Timestamp,
        (address, id): (SocketAddr, [u8; 16]),
        mut token: impl FnMut() -> u64,
    ) {
        let interval = self.hello_interval;
        for calling in self.list.iter_mut().filter(|it| it.to == address || it.peer == Some(id)) {
            let (token, cookie) = (token(), [0; COOKIE_BYTES]);
            *calling = Calling { token, cookie, next_at: now, interval, is_up: false, ..*calling };
        }
    }

    /// Whether there is a link with an address that is called.
    pub(crate) fn is_up(&self, to: SocketAddr) -> bool {
        self.list.iter().any(|calling| calling.to == to && calling.is_up)
    }

    /// When the next hello is due.
    pub(crate) fn next_at(&self) -> Timestamp {
        let waiting = self.list.iter().filter(|calling| !calling.is_up);
        waiting.map(|calling| calling.next_at).min().unwrap_or(Timestamp::NEVER)
    }

    /// A hello that is due; the next one to the same address waits longer.
    pub(crate) fn due(&mut self, now: Timestamp) -> Option<Due> {
        let is_due = |calling: &&mut Calling| !calling.is_up && calling.next_at <= now;
        let calling = self.list.iter_mut().find(is_due)?;
        calling.next_at = now.after(calling.interval);
        calling.interval = (2 * calling.interval).min(HELLO_INTERVAL_MAX);
        let Calling { to, token, cookie, .. } = *calling;
        Some(Due { to, token, cookie })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::START.after(Duration::from_millis(millis))
    }

    fn to(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 7).into()
    }

    #[test]
    fn hellos_come_more_and_more_rarely_and_not_while_there_is_a_link() {
        let mut callings = Callings::new(Duration::from_millis(100));
        assert_eq!(callings.next_at(), Timestamp::NEVER);
        assert!(callings.add(at(0), to(1), 5, false) && callings.add(at(0), to(1), 6, false));
        let mut times = Vec::new();
        while times.len() < 7 {
            let now = callings.next_at();
            assert_eq!(callings.due(now).map(|due| (due.to, due.token)), Some((to(1), 5)));
            assert_eq!(callings.due(now), None);
            times.push(now.since(at(0)).as_millis());
        }
        assert_eq!(times, [0, 100, 300, 700, 1_500, 3_100, 5_100]);
        callings.on_cookie(at(5_200), to(1), [7; COOKIE_BYTES]);
        assert_eq!(callings.due(at(5_200)).map(|due| due.cookie), Some([7; COOKIE_BYTES]));
        callings.on_link(to(1), [9; 16]);
        assert!(callings.is_up(to(1)) && !callings.is_answer(to(1), 5));
        assert_eq!(callings.next_at(), Timestamp::NEVER);
        callings.on_end(at(6_000), (to(1), [9; 16]), || 9);
        assert!(callings.is_answer(to(1), 9) && !callings.is_answer(to(2), 9));
        assert_eq!(callings.due(at(6_000)).map(|due| due.cookie), Some([0; COOKIE_BYTES]));
        callings.on_refused(at(6_000), to(1));
        assert_eq!(callings.next_at(), at(8_000));
    }

    #[test]
    fn a_hub_with_two_addresses_is_called_at_one_of_them() {
        let mut callings = Callings::new(Duration::from_millis(100));
        assert!(callings.add(at(0), to(1), 1, false) && callings.add(at(0), to(2), 2, false));
        callings.on_link(to(1), [9; 16]);
        assert_eq!(callings.due(at(0)).map(|due| due.to), Some(to(2)));
        // The other address leads to the same hub, which takes the new link for the old one.
        callings.on_end(at(1), (to(1), [9; 16]), || 3);
        callings.on_link(to(2), [9; 16]);
        assert_eq!(callings.next_at(), Timestamp::NEVER);
        callings.on_end(at(2), (to(2), [9; 16]), || 4);
        assert!(callings.is_answer(to(1), 4) && callings.is_answer(to(2), 4));
    }

    #[test]
    fn addresses_are_bounded() {
        let mut callings = Callings::new(Duration::from_millis(100));
        let all = (0..=LINKS_MAX).map(|last| callings.add(at(0), to(last as u8), 1, false));
        assert_eq!(all.filter(|is_in| *is_in).count(), LINKS_MAX);
        callings.remove(to(3));
        assert!(callings.add(at(0), to(200), 1, true));
        assert!(!callings.is_answer(to(200), 1), "who is linked is not called");
    }
}
