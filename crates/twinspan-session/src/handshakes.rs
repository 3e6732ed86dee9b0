//! Handshakes between ACCEPT and confirmation, and the tokens that were spent: both bounded.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use twinspan_core::aead::Cipher;
use twinspan_core::time::Timestamp;

use crate::endpoint::Entry;
use crate::identity::UserId;
use crate::messages::ACCEPT_BYTES;
use crate::noise::Split;

/// Handshakes in progress that one token may have.
pub(crate) const HANDSHAKES_PER_TOKEN_MAX: usize = 4;

/// A handshake whose ACCEPT is on its way, with all that the first sealed packet will need.
#[derive(Clone)]
pub(crate) struct HalfOpen {
    pub(crate) peer: SocketAddr,
    /// `mac1` of its HELLO: with the address, what tells a repeated HELLO from another.
    pub(crate) mac1: [u8; 16],
    pub(crate) token_id: [u8; 16],
    pub(crate) token_expires_at_unix_s: u64,
    pub(crate) entry: Entry,
    /// The id of the ticket that its ACCEPT brings.
    pub(crate) ticket: [u8; 16],
    pub(crate) user: UserId,
    /// The id that the client chose.
    pub(crate) client_id: u32,
    /// The id that the server issued.
    pub(crate) server_id: u32,
    pub(crate) cipher: Cipher,
    /// Whether headers are hidden.
    pub(crate) hidden: bool,
    pub(crate) split: Split,
    pub(crate) accept: [u8; ACCEPT_BYTES],
    pub(crate) created_at: Timestamp,
}

// What session 3.8 promises for each handshake in progress.
const _: () = assert!(size_of::<HalfOpen>() <= 512);

/// When it was begun: numbers grow, so the first is the oldest.
type Order = u64;

/// The bounded table of handshakes in progress.
pub(crate) struct Handshakes {
    entries: BTreeMap<Order, HalfOpen>,
    by_hello: BTreeMap<([u8; 16], SocketAddr), Order>,
    by_token: BTreeSet<([u8; 16], Order)>,
    next: Order,
    limit: usize,
    lifetime: Duration,
}

impl Handshakes {
    pub(crate) const fn new(limit: usize, lifetime: Duration) -> Self {
        Self {
            entries: BTreeMap::new(),
            by_hello: BTreeMap::new(),
            by_token: BTreeSet::new(),
            next: 0,
            limit,
            lifetime,
        }
    }

    /// Handshakes in progress.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The handshake that this very HELLO began.
    pub(crate) fn of_hello(&self, mac1: &[u8; 16], peer: SocketAddr) -> Option<&HalfOpen> {
        self.entries.get(self.by_hello.get(&(*mac1, peer))?)
    }

    pub(crate) fn get(&self, order: Order) -> Option<&HalfOpen> {
        self.entries.get(&order)
    }

    /// What must give way before a handshake of `token_id` is added: its own oldest when it has as
    /// many as it may, else the oldest of all when the table is full.
    pub(crate) fn surplus(&self, token_id: &[u8; 16]) -> Option<Order> {
        let mut own = self.by_token.range((*token_id, 0)..=(*token_id, Order::MAX));
        let oldest_own = own.next().map(|(_, order)| *order);
        if oldest_own.is_some() && 1 + own.count() >= HANDSHAKES_PER_TOKEN_MAX {
            return oldest_own;
        }
        let full = self.entries.len() >= self.limit;
        self.entries.first_key_value().filter(|_| full).map(|(order, _)| *order)
    }

    /// Adds a handshake; [`surplus`](Self::surplus) made room for it.
    pub(crate) fn add(&mut self, entry: HalfOpen) -> Order {
        let order = self.next;
        self.next += 1;
        self.by_hello.insert((entry.mac1, entry.peer), order);
        self.by_token.insert((entry.token_id, order));
        self.entries.insert(order, entry);
        order
    }

    pub(crate) fn remove(&mut self, order: Order) -> Option<HalfOpen> {
        let entry = self.entries.remove(&order)?;
        self.by_hello.remove(&(entry.mac1, entry.peer));
        self.by_token.remove(&(entry.token_id, order));
        Some(entry)
    }

    /// When the oldest runs out of time.
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        self.entries.first_key_value().map(|(_, entry)| entry.created_at.after(self.lifetime))
    }

    /// The oldest, when its time has run out.
    pub(crate) fn expired(&self, now: Timestamp) -> Option<Order> {
        let (order, entry) = self.entries.first_key_value()?;
        (entry.created_at.after(self.lifetime) <= now).then_some(*order)
    }
}

/// Spent tokens, each until it expires.
#[derive(Debug)]
pub(crate) struct SpentTokens {
    ids: BTreeSet<[u8; 16]>,
    by_expiry: BTreeSet<(u64, [u8; 16])>,
    limit: usize,
}

impl SpentTokens {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { ids: BTreeSet::new(), by_expiry: BTreeSet::new(), limit }
    }

    pub(crate) fn contains(&self, id: &[u8; 16]) -> bool {
        self.ids.contains(id)
    }

    /// Whether another may be spent, after those expired by `now_unix_s` were forgotten.
    pub(crate) fn has_room(&mut self, now_unix_s: u64) -> bool {
        while self.by_expiry.first().is_some_and(|(expires, _)| *expires <= now_unix_s) {
            if let Some((_, id)) = self.by_expiry.pop_first() {
                self.ids.remove(&id);
            }
        }
        self.ids.len() < self.limit
    }

    pub(crate) fn spend(&mut self, id: [u8; 16], expires_at_unix_s: u64) {
        self.ids.insert(id);
        self.by_expiry.insert((expires_at_unix_s, id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Secret;

    fn half_open(token: u8, hello: u8, created_s: u64) -> HalfOpen {
        HalfOpen {
            peer: SocketAddr::from(([10, 0, 0, 1], 5_000)),
            mac1: [hello; 16],
            token_id: [token; 16],
            token_expires_at_unix_s: 100,
            entry: Entry::Token,
            ticket: [0; 16],
            user: UserId(1),
            client_id: 2,
            server_id: 3,
            cipher: Cipher::Aes128Gcm,
            hidden: false,
            split: Split {
                client_to_server: Secret::new([0; 32]),
                server_to_client: Secret::new([0; 32]),
            },
            accept: [0; ACCEPT_BYTES],
            created_at: Timestamp::START.after(Duration::from_secs(created_s)),
        }
    }

    #[test]
    fn a_token_has_at_most_four_handshakes_and_its_own_oldest_gives_way() {
        let mut table = Handshakes::new(100, Duration::from_secs(10));
        let other = table.add(half_open(9, 90, 0));
        let oldest = table.add(half_open(1, 0, 0));
        for hello in 1..3 {
            table.add(half_open(1, hello, 0));
            assert_eq!(table.surplus(&[1; 16]), None);
        }
        table.add(half_open(1, 3, 0));
        assert_eq!(table.surplus(&[1; 16]), Some(oldest));
        assert!(table.remove(oldest).is_some());
        assert_eq!(table.surplus(&[1; 16]), None);
        assert!(table.get(other).is_some());
    }

    #[test]
    fn a_full_table_gives_up_its_oldest() {
        let mut table = Handshakes::new(2, Duration::from_secs(10));
        let first = table.add(half_open(1, 1, 0));
        table.add(half_open(2, 2, 1));
        assert_eq!(table.surplus(&[3; 16]), Some(first));
        assert_eq!(table.poll_timeout(), Some(Timestamp::START.after(Duration::from_secs(10))));
        assert_eq!(table.expired(Timestamp::START.after(Duration::from_secs(9))), None);
        assert_eq!(table.expired(Timestamp::START.after(Duration::from_secs(10))), Some(first));
    }

    #[test]
    fn a_hello_is_known_by_mac_and_address() {
        let mut table = Handshakes::new(2, Duration::from_secs(10));
        let order = table.add(half_open(1, 7, 0));
        let peer = SocketAddr::from(([10, 0, 0, 1], 5_000));
        assert!(table.of_hello(&[7; 16], peer).is_some());
        assert!(table.of_hello(&[8; 16], peer).is_none());
        assert!(table.of_hello(&[7; 16], SocketAddr::from(([10, 0, 0, 1], 5_001))).is_none());
        table.remove(order);
        assert!(table.of_hello(&[7; 16], peer).is_none());
    }

    #[test]
    fn spent_tokens_are_forgotten_when_they_expire_and_not_before() {
        let mut spent = SpentTokens::new(2);
        spent.spend([1; 16], 10);
        spent.spend([2; 16], 20);
        assert!(!spent.has_room(9));
        assert!(spent.contains(&[1; 16]));
        assert!(spent.has_room(10));
        assert!(!spent.contains(&[1; 16]));
        assert!(spent.contains(&[2; 16]));
    }
}
