//! Meeting on a sealed topic, and datagrams that are sealed.
//!
//! //= hub 8.8

use core::fmt;
use core::time::Duration;
use std::net::SocketAddr;

use twinspan_core::aead::Cipher;
use twinspan_core::random::SecretSource;
use twinspan_core::time::Timestamp;
use twinspan_session::link::{LinkKeys, MESSAGE_OVERHEAD_BYTES, Opener, Opening};

use super::{Event, Node};
use crate::config::{LINKS_MAX, NodeSide, Seal};
use crate::cookie::Ephemerals;
use crate::greet::{Disagreement, Greeting, Sealing};
use crate::inbox::Inbox;
use crate::link::Proved;
use crate::wire::{COOKIE_BYTES, EndReason, Inner, Packet, RefusedFor, Verdict, sealed_head};

/// Hubs that said a good hello and have not shown yet that it was their own.
const PENDING_MAX: usize = LINKS_MAX;
/// How long that is waited for.
const PENDING_TIME: Duration = Duration::from_secs(5);

/// Who said a good hello: anybody can say again what was heard, so nothing goes there, and nobody gives
/// way to it, before something that it sealed came.
struct Pending {
    address: SocketAddr,
    token_in: u64,
    token_out: u64,
    peer: Greeting,
    keys: Box<LinkKeys>,
    /// The answer, to be said again as it is.
    welcome: Vec<u8>,
    until: Timestamp,
}

/// What a connecting node said.
struct Said {
    token: u64,
    cookie: [u8; COOKIE_BYTES],
    hello: Vec<u8>,
    opener: Opener,
}

/// What a node of a sealed topic has.
pub(super) struct Sealer {
    seal: Seal,
    ephemerals: Ephemerals,
    pending: Vec<Pending>,
    /// Those that were said to addresses that are called, a few at a time.
    said: Vec<Said>,
    /// Where datagrams are opened.
    scratch: Vec<u8>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

impl Sealer {
    pub(super) fn new(seal: Seal, secrets: &mut dyn SecretSource) -> Box<Self> {
        Box::new(Self {
            seal,
            ephemerals: Ephemerals::new(secrets),
            pending: Vec::new(),
            said: Vec::new(),
            scratch: Vec::with_capacity(9_216),
        })
    }

    /// Forgets who did not show itself in time.
    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        self.pending.retain(|pending| now < pending.until);
    }

    pub(super) fn poll_timeout(&self) -> Timestamp {
        self.pending.iter().map(|it| it.until).min().unwrap_or(Timestamp::NEVER)
    }

    /// A hello: without a cookie nothing of the topic is said, only that somebody is there.
    pub(super) fn hello(
        &mut self,
        greeting: &Greeting,
        token: u64,
        cookie: [u8; COOKIE_BYTES],
    ) -> Option<&[u8]> {
        let same = |said: &Said| said.token == token && said.cookie == cookie;
        if !self.said.iter().any(same) {
            let mut hello = sealed_head(token, &cookie, self.seal.cipher);
            let prologue = hello.clone();
            let mut payload = Vec::new();
            greeting.write(&mut payload);
            let key = &self.seal.key;
            let opener = Opener::new(key, &prologue, &payload, &mut self.ephemerals, &mut hello)?;
            self.said.retain(|said| said.token != token);
            if self.said.len() >= LINKS_MAX {
                self.said.remove(0);
            }
            self.said.push(Said { token, cookie, hello, opener });
        }
        self.said.iter().find(|said| same(said)).map(|said| said.hello.as_slice())
    }

    /// The same before a cookie came: as long as a message without a payload, so that no answer to it is
    /// longer.
    pub(super) fn knock(&self, token: u64) -> Vec<u8> {
        let mut hello = sealed_head(token, &[0; COOKIE_BYTES], self.seal.cipher);
        hello.extend_from_slice(&[0; MESSAGE_OVERHEAD_BYTES]);
        hello
    }
}

impl Node {
    /// Refuses a hello for how it is sealed, which is told at both ends.
    pub(super) fn decline(&mut self, to: SocketAddr, token: u64, what: Sealing) {
        self.stats.refused += 1;
        self.reply(to, &Packet::Mismatch { token, what });
        let theirs = match what {
            Sealing::Sealed => Sealing::Clear,
            Sealing::Clear => Sealing::Sealed,
            Sealing::Key => Sealing::Key,
        };
        self.tell(Event::Declined { address: to, why: Some(Disagreement::Sealing(theirs)) });
    }

    /// A sealed hello came.
    pub(super) fn handle_sealed_hello(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        (token, cookie): (u64, [u8; COOKIE_BYTES]),
        (cipher, message): (Cipher, &[u8]),
    ) {
        if self.config.side != NodeSide::Listen || self.is_closed {
            return;
        }
        // Before anything that costs more than a hash.
        if !self.secret.is_good(now, from, token, &cookie) {
            let cookie = self.secret.cookie(now, from, token);
            return self.reply(from, &Packet::Cookie { token, cookie });
        }
        let Some(mut sealer) = self.sealer.take() else {
            return self.decline(from, token, Sealing::Clear);
        };
        let said = sealer.pending.iter().find(|it| (it.address, it.token_out) == (from, token));
        if let Some(pending) = said {
            self.reply_bytes(from, pending.welcome.clone());
        } else if self.find(from, |link| link.token_out == token).is_none() {
            self.answer(now, from, (token, cookie), (cipher, message), &mut sealer);
        }
        self.sealer = Some(sealer);
    }

    /// Answers a hello whose address receives.
    fn answer(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        (token, cookie): (u64, [u8; COOKIE_BYTES]),
        (cipher, message): (Cipher, &[u8]),
        sealer: &mut Sealer,
    ) {
        let prologue = sealed_head(token, &cookie, cipher);
        let Some(opening) = Opening::read(&sealer.seal.key, &prologue, message) else {
            return self.decline(from, token, Sealing::Key);
        };
        let Ok((peer, [])) = Greeting::parse(opening.payload()) else {
            self.stats.malformed += 1;
            return;
        };
        let ours = self.config.greeting.clone();
        let has_place = self.links.len() < LINKS_MAX
            || self.links.iter().any(|link| link.address == from || link.peer.id == peer.id);
        let verdict = match ours.agrees_with(&peer) {
            Err(why) => {
                self.tell(Event::Declined { address: from, why: Some(why) });
                Verdict::Refused(RefusedFor::Disagreement)
            }
            Ok(()) if !has_place || peer.id == ours.id || self.keeps_call(from, &peer) => {
                self.tell(Event::Declined { address: from, why: None });
                Verdict::Refused(RefusedFor::Full)
            }
            Ok(()) => Verdict::Welcome { own_token: self.secret.token() },
        };
        sealer.handle_timeout(now);
        let has_room = sealer.pending.len() < PENDING_MAX;
        if !has_room {
            self.stats.replies_dropped += 1;
            return;
        }
        let mut payload = Vec::new();
        verdict.write(&ours, &mut payload);
        let mut message = Vec::new();
        let Some(secrets) = opening.answer(&payload, &mut sealer.ephemerals, &mut message) else {
            self.stats.malformed += 1;
            return;
        };
        let mut welcome = Vec::new();
        Packet::SealedWelcome { token, message: &message }.write(&mut welcome);
        match verdict {
            Verdict::Refused(_) => self.stats.refused += 1,
            Verdict::Welcome { own_token } => {
                let keys = LinkKeys::new(now, cipher, &sealer.seal.keys, secrets);
                let Some(keys) = keys.map(Box::new) else { return };
                sealer.pending.push(Pending {
                    address: from,
                    token_in: own_token,
                    token_out: token,
                    peer,
                    keys,
                    welcome: welcome.clone(),
                    until: now.after(PENDING_TIME),
                });
            }
        }
        self.reply_bytes(from, welcome);
    }

    /// The answer to a sealed hello of ours.
    pub(super) fn handle_sealed_welcome(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        token: u64,
        message: &[u8],
    ) {
        if !self.callings.is_answer(from, token) {
            return;
        }
        let Some(sealer) = &mut self.sealer else { return };
        let said = sealer.said.iter().find(|said| said.token == token);
        let opened = said.and_then(|said| said.opener.finish(message));
        let Some((payload, secrets)) = opened else {
            self.stats.unauthentic += 1;
            return;
        };
        let Ok((verdict, greeting)) = Verdict::parse(&payload) else {
            self.stats.malformed += 1;
            return;
        };
        let agreed = self.config.greeting.agrees_with(&greeting);
        match (verdict, agreed) {
            (Verdict::Welcome { own_token }, Ok(())) => {
                let (cipher, config) = (sealer.seal.cipher, &sealer.seal.keys);
                let keys = LinkKeys::new(now, cipher, config, secrets).map(Box::new);
                sealer.said.retain(|said| said.token != token);
                if keys.is_some() {
                    self.welcomed(now, from, (token, own_token), Proved { peer: greeting, keys });
                }
            }
            (_, agreed) => {
                self.stats.refused += 1;
                self.tell(Event::Refused { address: from, why: agreed.err() });
                self.callings.on_refused(now, from);
            }
        }
    }

    /// The listener is not sealed as this node is.
    pub(super) fn handle_mismatch(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        token: u64,
        what: Sealing,
    ) {
        if self.callings.is_answer(from, token) {
            self.stats.refused += 1;
            let why = Some(Disagreement::Sealing(what));
            self.tell(Event::Refused { address: from, why });
            self.callings.on_refused(now, from);
        }
    }

    /// A sealed datagram came.
    #[inline]
    pub(super) fn handle_sealed(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        (token, bytes): (u64, &[u8]),
        inbox: &mut Inbox,
    ) {
        if let Some(mut sealer) = self.sealer.take() {
            sealer.scratch.clear();
            sealer.scratch.extend_from_slice(bytes);
            let is_known = self.open(now, from, token, &mut sealer, inbox);
            self.sealer = Some(sealer);
            if is_known {
                return;
            }
        }
        self.forgot(from, token);
    }

    /// Opens the datagram in the scratch and takes it in; false when nobody here has its token.
    fn open(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        token: u64,
        sealer: &mut Sealer,
        inbox: &mut Inbox,
    ) -> bool {
        if let Some(at) = self.find(from, |link| link.token_in == token && link.is_sealed()) {
            let opened = self.links.get_mut(at).and_then(|it| it.open(now, &mut sealer.scratch));
            match opened {
                Some((number, text)) => self.take_in(now, at, (token, number, text), inbox),
                None => self.stats.unauthentic += 1,
            }
            return true;
        }
        let Sealer { pending, scratch, .. } = sealer;
        let which = pending.iter().position(|it| (it.address, it.token_in) == (from, token));
        let Some(which) = which else { return false };
        let opened = pending.get_mut(which).and_then(|it| it.keys.open(now, scratch).ok());
        let Some((number, text)) = opened else {
            self.stats.unauthentic += 1;
            return true;
        };
        // It has the keys, so it is who said hello: whom it was before gives way.
        let Pending { token_out, peer, keys, .. } = pending.swap_remove(which);
        if self.keeps_call(from, &peer) {
            return true;
        }
        let same = |link: &crate::link::Link| link.address == from || link.peer.id == peer.id;
        while let Some(before) = self.links.iter().position(same) {
            self.end(now, before, EndReason::Replaced);
        }
        if self.links.len() < LINKS_MAX {
            self.join(now, from, (token, token_out), Proved { peer, keys: Some(keys) });
            let at = self.links.len() - 1;
            self.take_in(now, at, (token, number, text), inbox);
        } else {
            self.stats.refused += 1;
        }
        true
    }

    /// Takes in what a datagram of a link held.
    fn take_in(
        &mut self,
        now: Timestamp,
        at: usize,
        (token, number, text): (u64, u64, &[u8]),
        inbox: &mut Inbox,
    ) {
        let Some(link) = self.links.get_mut(at) else { return };
        match Inner::parse(text, token, number) {
            Ok(Inner::Data(data)) => {
                if let Err(reason) = link.handle_data(now, &data, &mut self.departed, inbox) {
                    self.end(now, at, reason);
                }
            }
            Ok(Inner::End { reason, next }) => {
                link.handle_end(next, inbox);
                let reason =
                    if reason == EndReason::Closed { reason } else { EndReason::Forgotten };
                self.end(now, at, reason);
            }
            Err(_) => self.end(now, at, EndReason::Violation),
        }
    }

    /// A datagram for the other end of a link, with any content: for tests.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn seal_by(&mut self, link: usize, now: Timestamp, text: &[u8]) -> Option<Vec<u8>> {
        self.links.get_mut(link)?.seal_text(now, text)
    }
}
