//! Where a session's packets go, and how that changes: session 1.6.
//!
//! A client's address may change at any time, behind a NAT without its knowledge. The server follows
//! the packet with the highest number that authenticated, but trusts the new address only as far as
//! three times the bytes that came from it until it answers a challenge. Meanwhile the address
//! before it is asked too: who copies packets to move a session elsewhere is found out by its answer,
//! within a round trip.

use core::time::Duration;
use std::net::SocketAddr;

use twinspan_core::random::SecretSource;
use twinspan_core::time::Timestamp;

use crate::connection::CHALLENGE_BYTES;

/// Bytes that may go to an address that has not answered, for each that came from it.
const UNPROVEN_RATIO: u64 = 3;
/// Challenges that an address gets before it is given up.
const CHALLENGES_MAX: u8 = 4;
/// Least time between two challenges of one address; else it is two round trips.
const CHALLENGE_INTERVAL_MIN: Duration = Duration::from_millis(100);
const CHALLENGE_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// Least time between the beginnings of two moves; it doubles with each that failed in a row.
const MOVE_INTERVAL: Duration = Duration::from_millis(500);
/// How often it doubles: up to 8 s, so that who was raced by a copier of its packets and then really
/// moves is not left at its old address for long.
const DOUBLINGS_MAX: u32 = 4;

/// What a challenge asks to have back.
pub(crate) type Token = [u8; 8];

/// What came of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It began.
    Begun,
    /// The new address answered.
    Done,
    /// The session is back at the old address.
    Failed,
}

/// By which id the peer is addressed, which depends on the address that a packet goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aim {
    pub(crate) id: u32,
    /// The longest packet that has it.
    limit: u32,
    /// The id of longer ones: they go to the address before.
    beyond: u32,
}

impl Aim {
    /// All packets have this id.
    pub(crate) const fn at(id: u32) -> Self {
        Self { id, limit: u32::MAX, beyond: id }
    }

    pub(crate) const fn id_for(&self, bytes: usize) -> u32 {
        if bytes <= self.limit as usize { self.id } else { self.beyond }
    }
}

/// A move that is not decided.
#[derive(Clone, Debug)]
struct Move {
    /// The last address that is proven.
    proven: SocketAddr,
    /// The client's id there.
    proven_id: u32,
    /// The client said that it moves: what still reaches the old address proves nothing.
    deliberate: bool,
    token: Token,
    proven_token: Token,
    /// Challenges sent, to each of the two addresses as many.
    challenges: u8,
    /// The old address waits for its challenge of this round.
    ask_proven: bool,
    next_at: Timestamp,
    received: u64,
    sent: u64,
}

/// The address of a session's peer.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    peer: SocketAddr,
    /// The client's id there.
    peer_id: u32,
    moving: Option<Box<Move>>,
    /// No move begins before.
    moves_from: Timestamp,
    failures: u8,
}

impl Route {
    /// The handshake proved this address.
    pub(crate) const fn new(peer: SocketAddr, peer_id: u32) -> Self {
        Self { peer, peer_id, moving: None, moves_from: Timestamp::START, failures: 0 }
    }

    /// Where packets go.
    pub(crate) const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether this is the peer's address and it is proven.
    pub(crate) fn is_settled_at(&self, from: SocketAddr) -> bool {
        self.moving.is_none() && self.peer == from
    }

    /// An authentic packet came from `from`. `newest`: its number is above all before it;
    /// `deliberate`: it carries an id that the client had in reserve. `id` is the client's that goes
    /// with the one that it carries, 0 where there is none.
    pub(crate) fn on_packet(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        bytes: usize,
        (newest, deliberate): (bool, bool),
        id: u32,
        secrets: &mut dyn SecretSource,
    ) -> Option<Outcome> {
        let id = if id == 0 { self.peer_id } else { id };
        if from == self.peer {
            if newest {
                self.peer_id = id;
            }
            if let Some(moving) = &mut self.moving {
                moving.received += bytes as u64;
            }
            return None;
        }
        if !newest {
            return None;
        }
        if let Some(moving) = &self.moving {
            // The old address goes on speaking: what came from the new one was a copy.
            return (moving.proven == from).then(|| self.fail(now));
        }
        // An id in reserve is good for one move: whoever copies packets has none.
        if now < self.moves_from && !deliberate {
            return None;
        }
        let (mut token, mut proven_token) = ([0; 8], [0; 8]);
        secrets.fill(&mut token);
        secrets.fill(&mut proven_token);
        self.moving = Some(Box::new(Move {
            proven: self.peer,
            proven_id: self.peer_id,
            deliberate,
            token,
            proven_token,
            challenges: 0,
            ask_proven: false,
            next_at: now,
            received: bytes as u64,
            sent: 0,
        }));
        self.peer = from;
        self.peer_id = id;
        let wait = MOVE_INTERVAL * (1 << u32::from(self.failures).min(DOUBLINGS_MAX));
        self.moves_from = now.after(wait);
        Some(Outcome::Begun)
    }

    /// The peer sent a challenge's token back, from wherever.
    pub(crate) fn on_response(&mut self, now: Timestamp, token: Token) -> Option<Outcome> {
        let moving = self.moving.as_deref()?;
        if token == moving.token {
            self.moving = None;
            self.failures = 0;
            return Some(Outcome::Done);
        }
        (!moving.deliberate && token == moving.proven_token).then(|| self.fail(now))
    }

    /// Back to the address that is proven.
    fn fail(&mut self, now: Timestamp) -> Outcome {
        if let Some(moving) = self.moving.take() {
            self.peer = moving.proven;
            self.peer_id = moving.proven_id;
        }
        self.failures = self.failures.saturating_add(1);
        let wait = MOVE_INTERVAL * (1 << u32::from(self.failures).min(DOUBLINGS_MAX));
        self.moves_from = self.moves_from.max(now.after(wait));
        Outcome::Failed
    }

    /// The client said late which id of its goes with the one that it came under.
    pub(crate) const fn readdress(&mut self, id: u32) {
        self.peer_id = id;
    }

    /// By which id the next packet addresses the client: an id is seen on one path only, so this and
    /// [`destination`](Self::destination) decide alike.
    pub(crate) fn aim(&self) -> Aim {
        let Some(moving) = self.moving.as_deref() else { return Aim::at(self.peer_id) };
        let left = (UNPROVEN_RATIO * moving.received).saturating_sub(moving.sent);
        let limit = u32::try_from(left).unwrap_or(u32::MAX);
        Aim { id: self.peer_id, limit, beyond: moving.proven_id }
    }

    /// The same for a challenge to this address.
    pub(crate) fn aim_at(&self, address: SocketAddr) -> Aim {
        match self.moving.as_deref() {
            Some(moving) if moving.proven == address => Aim::at(moving.proven_id),
            _ => Aim::at(self.peer_id),
        }
    }

    /// Where a packet of `bytes` bytes goes: to the peer's address, or, when that may get no more
    /// before it answers, to the one that is proven.
    pub(crate) fn destination(&mut self, bytes: usize) -> SocketAddr {
        let Some(moving) = &mut self.moving else { return self.peer };
        let sent = moving.sent + bytes as u64;
        if sent > UNPROVEN_RATIO * moving.received {
            return moving.proven;
        }
        moving.sent = sent;
        self.peer
    }

    /// The challenge that is due, and where it goes; `bytes` is what it takes.
    pub(crate) fn poll_challenge(
        &mut self,
        now: Timestamp,
        bytes: usize,
        rtt: Duration,
    ) -> Option<(SocketAddr, Token)> {
        let moving = self.moving.as_deref_mut()?;
        if moving.ask_proven {
            moving.ask_proven = false;
            return Some((moving.proven, moving.proven_token));
        }
        let sent = moving.sent + bytes as u64;
        if now < moving.next_at
            || moving.challenges >= CHALLENGES_MAX
            || sent > UNPROVEN_RATIO * moving.received
        {
            return None;
        }
        moving.sent = sent;
        moving.challenges += 1;
        moving.ask_proven = !moving.deliberate;
        moving.next_at = now.after((rtt * 2).clamp(CHALLENGE_INTERVAL_MIN, CHALLENGE_INTERVAL_MAX));
        Some((self.peer, moving.token))
    }

    /// Whether [`poll_challenge`](Self::poll_challenge) has something.
    pub(crate) fn wants_challenge(&self, now: Timestamp) -> bool {
        self.moving.as_deref().is_some_and(|moving| {
            moving.ask_proven || now >= moving.next_at && moving.challenges < CHALLENGES_MAX
        })
    }

    /// Gives a move up that nobody answered.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) -> Option<Outcome> {
        let moving = self.moving.as_deref_mut()?;
        if now < moving.next_at {
            return None;
        }
        if moving.challenges >= CHALLENGES_MAX {
            return Some(self.fail(now));
        }
        // A challenge that found no room within the limit counts as one without an answer.
        if moving.sent + CHALLENGE_BYTES as u64 > UNPROVEN_RATIO * moving.received {
            moving.challenges += 1;
            moving.next_at = now.after(CHALLENGE_INTERVAL_MIN);
        }
        None
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and to look for challenges.
    pub(crate) fn deadline(&self) -> Timestamp {
        self.moving.as_deref().map_or(Timestamp::NEVER, |moving| moving.next_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_core::random::Stream;

    const RTT: Duration = Duration::from_millis(40);

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 5_000))
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::START.after(Duration::from_millis(ms))
    }

    fn hear(route: &mut Route, ms: u64, from: u8, newest: bool) -> Option<Outcome> {
        let mut secrets = Stream::new(ms, "tokens", 0);
        route.on_packet(at(ms), address(from), 90, (newest, false), 0, &mut secrets)
    }

    #[test]
    fn a_new_address_is_followed_and_proven_by_its_answer() {
        let mut route = Route::new(address(1), 11);
        assert_eq!(hear(&mut route, 0, 1, true), None);
        assert_eq!(hear(&mut route, 1, 2, false), None, "an old number moves nothing");
        assert_eq!(hear(&mut route, 2, 2, true), Some(Outcome::Begun));
        assert_eq!(route.peer(), address(2));
        let (to, token) = route.poll_challenge(at(2), 39, RTT).unwrap();
        assert_eq!(to, address(2));
        let (to, old) = route.poll_challenge(at(2), 39, RTT).unwrap();
        assert_eq!(to, address(1), "the old address is asked too");
        assert_ne!(old, token);
        assert_eq!(route.poll_challenge(at(2), 39, RTT), None);
        assert_eq!(route.on_response(at(40), [0; 8]), None);
        assert_eq!(route.on_response(at(42), token), Some(Outcome::Done));
        assert!(route.is_settled_at(address(2)));
        assert_eq!(route.on_response(at(43), old), None);
        assert_eq!((route.peer(), route.deadline()), (address(2), Timestamp::NEVER));
    }

    #[test]
    fn an_unproven_address_gets_three_times_what_came_from_it() {
        let mut route = Route::new(address(1), 11);
        hear(&mut route, 0, 2, true);
        let to: Vec<_> = (0..4).map(|_| route.destination(100)).collect();
        assert_eq!(to, [address(2), address(2), address(1), address(1)], "270 bytes at most");
        assert_eq!(route.poll_challenge(at(0), 71, RTT), None);
        hear(&mut route, 10, 2, false);
        assert_eq!(route.destination(300), address(2));
    }

    #[test]
    fn the_old_address_is_back_as_soon_as_it_speaks_or_answers() {
        for by_packet in [true, false] {
            let mut route = Route::new(address(1), 11);
            hear(&mut route, 0, 2, true);
            let _new = route.poll_challenge(at(0), 39, RTT);
            let (_, old) = route.poll_challenge(at(0), 39, RTT).unwrap();
            let outcome = match by_packet {
                true => hear(&mut route, 5, 1, true),
                false => route.on_response(at(5), old),
            };
            assert_eq!(outcome, Some(Outcome::Failed));
            assert_eq!(route.peer(), address(1));
        }
    }

    #[test]
    fn a_client_that_says_that_it_moves_is_not_held_by_its_old_address() {
        let mut route = Route::new(address(1), 11);
        let mut secrets = Stream::new(1, "tokens", 0);
        route.on_packet(at(0), address(2), 90, (true, true), 22, &mut secrets);
        assert_eq!(route.poll_challenge(at(0), 39, RTT).map(|(to, _)| to), Some(address(2)));
        assert_eq!(route.poll_challenge(at(0), 39, RTT), None, "the old one is not asked");
    }

    #[test]
    fn nobody_answers_and_the_session_returns() {
        let mut route = Route::new(address(1), 11);
        hear(&mut route, 0, 2, true);
        let mut challenges = 0;
        for ms in 0..1_000 {
            while let Some((to, _)) = route.poll_challenge(at(ms), 39, RTT) {
                challenges += u32::from(to == address(2));
            }
            if let Some(outcome) = route.handle_timeout(at(ms)) {
                assert_eq!((outcome, challenges), (Outcome::Failed, 4));
                assert_eq!((ms, route.peer()), (400, address(1)));
                return;
            }
        }
        panic!("the move never ended");
    }

    #[test]
    fn moves_that_fail_are_let_begin_ever_more_rarely() {
        let mut route = Route::new(address(1), 11);
        let mut begun = Vec::new();
        for ms in 0..60_000 {
            // A racer copies each packet of the client and is always first.
            let outcome = hear(&mut route, ms, 2, true);
            if outcome == Some(Outcome::Begun) {
                begun.push(ms);
            }
            if ms % 20 == 0 {
                hear(&mut route, ms, 1, true);
            }
        }
        // After 1, 2 and 4 s, and then every 8 s.
        assert_eq!(begun.len(), 10, "{begun:?}");
        assert!(begun.windows(2).all(|pair| pair[1] - pair[0] <= 8_100), "{begun:?}");
        assert_eq!(route.peer(), address(1));
        // A move that the client means begins at once.
        let mut secrets = Stream::new(1, "tokens", 0);
        let outcome = route.on_packet(at(60_000), address(3), 90, (true, true), 22, &mut secrets);
        assert_eq!(outcome, Some(Outcome::Begun));
    }

    #[test]
    fn a_limit_that_is_nearly_used_up_ends_all_the_same() {
        let mut route = Route::new(address(1), 11);
        hear(&mut route, 0, 2, true);
        // 10 bytes are left of 270, and a challenge takes 39.
        assert_eq!(route.destination(260), address(2));
        let failed = (0..3_000).find(|ms| {
            assert_eq!(route.poll_challenge(at(*ms), CHALLENGE_BYTES, RTT), None);
            let failed = route.handle_timeout(at(*ms)).is_some();
            assert!(failed || route.deadline() > at(*ms), "time stands still");
            failed
        });
        assert!(failed.is_some_and(|ms| ms <= 1_000), "{failed:?}");
    }

    #[test]
    fn what_finds_no_room_within_the_limit_ends_all_the_same() {
        let mut route = Route::new(address(1), 11);
        hear(&mut route, 0, 2, true);
        while route.destination(90) == address(2) {}
        let failed = (0..3_000).find(|ms| route.handle_timeout(at(*ms)).is_some());
        assert!(failed.is_some_and(|ms| ms <= 1_000), "{failed:?}");
    }

    #[test]
    fn each_address_has_an_id_of_its_own() {
        let mut route = Route::new(address(1), 11);
        let mut secrets = Stream::new(1, "tokens", 0);
        route.on_packet(at(0), address(2), 90, (true, true), 22, &mut secrets);
        for bytes in [200, 71, 70, 1] {
            let id = route.aim().id_for(bytes);
            let to = route.destination(bytes);
            assert_eq!((to, id), if to == address(2) { (to, 22) } else { (address(1), 11) });
        }
        assert_eq!(route.aim_at(address(1)).id_for(39), 11);
        assert_eq!(route.aim_at(address(2)).id_for(39), 22);
        route.on_packet(at(1), address(1), 90, (true, false), 22, &mut secrets);
        assert_eq!((route.peer(), route.aim().id_for(9)), (address(1), 11), "back, under its id");
    }
}
