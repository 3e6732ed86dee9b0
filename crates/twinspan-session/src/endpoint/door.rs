//! The server's door: cookies, tokens, handshakes. Nobody has a session here yet.

use std::net::SocketAddr;

use twinspan_core::aead::{Cipher, HeaderKey, TAG_BYTES};
use twinspan_core::random::SecretSource;
use twinspan_core::steer::Steering;
use twinspan_core::time::Timestamp;

use super::resume::{Entry, Tickets, replaces};
use super::{Endpoint, Target};
use crate::config::SessionConfig;
use crate::cookie::{CookieSubject, Cookies};
use crate::frames::{CONTROL_ONCE, Control, PacketBuilder};
use crate::gate::{Gate, HandshakeFault};
use crate::handshakes::{HalfOpen, Handshakes, SpentTokens};
use crate::header::{HEADER_BYTES, Header};
use crate::header_protection::{HeaderProtection, mask};
use crate::identity::{KeyPair, ServerIdentity, TokenKey};
use crate::keyring::{Keyring, Sealed};
use crate::messages::{
    ACCEPT_BYTES, Accept, Hello, HelloFront, VERSION, accept, kind, refuse, retry,
};
use crate::noise::respond;
use crate::protection::DirectionKey;
use crate::reason::{CloseReason, RefuseReason};
use crate::shedding::{HelloBudget, Worth};
use crate::stats::DropCause;
use crate::suite::choose;
use crate::ticket::Origin;
use crate::token::{PublicPart, open};

/// A datagram that answers a handshake, until it is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) peer: SocketAddr,
    bytes: [u8; ACCEPT_BYTES],
    len: usize,
}

impl Answer {
    fn new(peer: SocketAddr, message: &[u8]) -> Self {
        let mut bytes = [0; ACCEPT_BYTES];
        let len = message.len().min(ACCEPT_BYTES);
        if let Some((out, message)) = bytes.get_mut(..len).zip(message.get(..len)) {
            out.copy_from_slice(message);
        }
        Self { peer, bytes, len }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// A sealed CLOSE for a client that confirmed but gets no session. The keys die with it.
    /// `hide` masks its header, where headers are hidden.
    pub(super) fn unborn(
        half_open: &HalfOpen,
        seal: &DirectionKey,
        hide: Option<&dyn HeaderKey>,
        reason: RefuseReason,
    ) -> Self {
        let reason = CloseReason::Refused(reason).to_wire();
        let control = Control::Close { reason }.to_bytes();
        let mut packet = [0; HEADER_BYTES + 2 + TAG_BYTES];
        if let Some(mut builder) = PacketBuilder::new(&mut packet)
            && builder.push(CONTROL_ONCE, None, None, control.as_slice()).is_ok()
        {
            let built = builder.finish();
            let (channel, flags) = (built.channel, built.flags);
            let header = Header { connection: half_open.client_id, channel, flags, number: 1 };
            if let Some(place) = packet.first_chunk_mut() {
                *place = header.to_bytes();
            }
        }
        seal.seal(1, &mut packet);
        if let Some(key) = hide {
            mask(key, &mut packet);
        }
        Self::new(half_open.peer, &packet)
    }
}

/// What decides who comes in.
pub(super) struct Door {
    pub(super) secrets: Box<dyn SecretSource>,
    pub(super) handshakes: Handshakes,
    pub(super) spent: SpentTokens,
    pub(super) tickets: Tickets,
    pub(super) draining: bool,
    pub(super) keyring: Keyring,
    cookies: Cookies,
    hellos: HelloBudget,
    unix_at_start_s: u64,
}

impl Door {
    pub(super) fn new(
        config: &SessionConfig,
        identity: ServerIdentity,
        token_key: TokenKey,
        mut secrets: Box<dyn SecretSource>,
        unix_at_start_s: u64,
    ) -> Self {
        Self {
            cookies: Cookies::new(Timestamp::START, secrets.as_mut()),
            tickets: Tickets::new(config, secrets.as_mut()),
            secrets,
            handshakes: Handshakes::new(config.handshakes_max, config.handshake_deadline),
            spent: SpentTokens::new(config.spent_tokens_max),
            draining: false,
            keyring: Keyring::new(identity, token_key),
            hellos: HelloBudget::new(config.hello_answers_per_second),
            unix_at_start_s,
        }
    }

    /// Whether a HELLO's token, or ticket, is one that was issued and has not expired.
    fn check_token(&self, now: Timestamp, hello: &Hello<'_>, public: &PublicPart) -> Option<()> {
        if public.expires_at_unix_s <= self.unix_s(now) {
            return None;
        }
        let (Sealed::Token(key) | Sealed::Ticket(key)) =
            self.keyring.sealed(public.token_key_id)?;
        open(key, &hello.token_public, &hello.token_private).map(|_| ())
    }

    /// The wall clock, in seconds since 1970.
    pub(super) const fn unix_s(&self, now: Timestamp) -> u64 {
        self.unix_at_start_s.saturating_add(now.as_nanos() / 1_000_000_000)
    }
}

impl Endpoint {
    /// A datagram in handshake form. Nothing of it is believed before its cookie verified.
    pub(super) fn handle_handshake(
        &mut self,
        now: Timestamp,
        peer: SocketAddr,
        kind: u8,
        bytes: &[u8],
        gate: &mut dyn Gate,
    ) -> Result<(), DropCause> {
        if kind != kind::HELLO {
            return Err(DropCause::Unexpected);
        }
        let front = HelloFront::of(bytes)?;
        if *front.cookie == [0; 16] {
            return self.greet(now, peer, bytes, front.token_id);
        }
        let hello = Hello::parse(bytes)?;
        let public = PublicPart::parse(&hello.token_public).map_err(|_| DropCause::Malformed)?;
        let door = &mut self.door;
        door.cookies.advance(now, door.secrets.as_mut());
        // The cookie first: it covers less than mac1, and only who got one here can have it.
        let subject = CookieSubject { peer, nonce: &hello.nonce, token_id: &public.id };
        if !door.cookies.verify(subject, &hello.cookie) {
            return Err(DropCause::CookieBad);
        }
        // The token names the key: one mac, however many keys are live.
        let identity = door.keyring.identity(public.server_key_id).ok_or(DropCause::BadMac1)?;
        hello.verify(&identity.macs)?;
        if let Some(known) = door.handshakes.of_hello(&hello.mac1, peer) {
            let again = Answer::new(peer, &known.accept);
            self.answer(again)?;
            self.stats.accepted_again += 1;
            return Ok(());
        }
        // The address is proven, and all that is dear comes after this.
        if !gate.allow_handshake(now, peer.ip()) {
            return Err(DropCause::Throttled);
        }
        let macs = identity.macs.clone();
        match self.admit(now, peer, &hello, &public, gate) {
            Ok(result) => {
                if result == Err(DropCause::HelloBad) {
                    gate.on_failure(now, peer.ip(), HandshakeFault::HelloBad);
                }
                result
            }
            Err(reason) => {
                if reason.is_about_token() {
                    gate.on_failure(now, peer.ip(), HandshakeFault::Token(reason));
                }
                let message = refuse(&hello.nonce, &hello.cookie, reason, &macs);
                self.answer(Answer::new(peer, &message))?;
                self.count_refusal(reason);
                Ok(())
            }
        }
    }

    /// A HELLO without a cookie, session 3.4: floods are of these, so what costs least comes first.
    fn greet(
        &mut self,
        now: Timestamp,
        peer: SocketAddr,
        bytes: &[u8],
        token_id: &[u8; 16],
    ) -> Result<(), DropCause> {
        let door = &mut self.door;
        let worth = door.hellos.worth(now, token_id, door.secrets.as_mut());
        if worth == Worth::Nothing {
            return Err(DropCause::Shed);
        }
        let hello = Hello::parse(bytes)?;
        let public = PublicPart::parse(&hello.token_public).map_err(|_| DropCause::Malformed)?;
        let identity = door.keyring.identity(public.server_key_id).ok_or(DropCause::BadMac1)?;
        hello.verify(&identity.macs)?;
        if worth == Worth::AnswerToToken {
            door.check_token(now, &hello, &public).ok_or(DropCause::Shed)?;
            door.hellos.take(now, token_id);
        }
        door.cookies.advance(now, door.secrets.as_mut());
        let cookie =
            door.cookies.make(CookieSubject { peer, nonce: &hello.nonce, token_id: &public.id });
        let message = retry(&hello.nonce, &cookie, &identity.macs);
        self.answer(Answer::new(peer, &message))?;
        self.stats.cookie_missing += 1;
        Ok(())
    }

    pub(super) fn answer(&mut self, answer: Answer) -> Result<(), DropCause> {
        if self.answers.len() >= self.common.config.answers_max {
            return Err(DropCause::AnswersFull);
        }
        self.answers.push_back(answer);
        Ok(())
    }

    pub(super) fn count_refusal(&mut self, reason: RefuseReason) {
        let stats = &mut self.stats;
        *match reason {
            RefuseReason::Full => &mut stats.full,
            RefuseReason::TokenExpired => &mut stats.token_expired,
            RefuseReason::TokenSpent => &mut stats.token_spent,
            RefuseReason::TokenInvalid => &mut stats.token_bad,
            RefuseReason::Version => &mut stats.version_unknown,
            RefuseReason::Suite => &mut stats.suite_unknown,
            RefuseReason::Draining => &mut stats.draining,
            RefuseReason::Banned => &mut stats.banned,
            RefuseReason::Ticket => &mut stats.ticket_bad,
            RefuseReason::Options => &mut stats.options_unmet,
        } += 1;
    }

    pub(super) fn forget_handshake(&mut self, order: u64) {
        if let Some(gone) = self.door.handshakes.remove(order) {
            self.targets.remove(gone.server_id);
            self.stats.handshakes_lost += 1;
        }
    }

    /// The address is proven: checks the token and makes the ACCEPT, session 3.7. The outer error is
    /// told to the client, the inner one is not.
    fn admit(
        &mut self,
        now: Timestamp,
        peer: SocketAddr,
        hello: &Hello<'_>,
        public: &PublicPart,
        gate: &mut dyn Gate,
    ) -> Result<Result<(), DropCause>, RefuseReason> {
        let cipher = self.choose(hello)?;
        let theirs = HeaderProtection::from_options(hello.options);
        let agreed = self.common.config.header_protection.agree(theirs);
        let hidden = agreed.ok_or(RefuseReason::Options)?;
        let door = &self.door;
        let sealed = door.keyring.sealed(public.token_key_id).ok_or(RefuseReason::TokenInvalid)?;
        if public.expires_at_unix_s <= door.unix_s(now) {
            return Err(RefuseReason::TokenExpired);
        }
        let (Sealed::Token(key) | Sealed::Ticket(key)) = sealed;
        let private = open(key, &hello.token_public, &hello.token_private)
            .ok_or(RefuseReason::TokenInvalid)?;
        let entry = match sealed {
            Sealed::Token(_) => Entry::Token,
            Sealed::Ticket(_) => Entry::Ticket(Origin::of(&private)),
        };
        if !gate.allow_user(now, private.user) {
            return Err(RefuseReason::Banned);
        }
        let resumed = self.check_entry(now, entry, &public.id)?;
        if !replaces(resumed) && !gate.has_room() {
            return Err(RefuseReason::Full);
        }
        // Were the queue full, the X25519 below would be for nothing.
        if self.answers.len() >= self.common.config.answers_max {
            return Ok(Err(DropCause::AnswersFull));
        }
        let server_id = self.draw_id();
        let payload = Accept {
            version: VERSION,
            suite: cipher as u8,
            hidden,
            connection: server_id,
            server_time: now,
            idle_timeout: self.common.config.idle_timeout,
            resume_window: self.common.config.resume.window,
        };
        let issued = self.issue_ticket(now, public, private.user);
        let (ticket, ticket_public) = issued.ok_or(RefuseReason::TokenInvalid)?;
        let ephemeral = KeyPair::generate(self.door.secrets.as_mut());
        let identity = self.door.keyring.identity(public.server_key_id);
        let pair = identity.ok_or(RefuseReason::TokenInvalid)?.pair();
        let payload = payload.to_payload(&ticket);
        let made = respond(hello.prologue, pair, &hello.noise, &private.psk, &ephemeral, &payload);
        let Ok((noise, split)) = made else { return Ok(Err(DropCause::HelloBad)) };
        while let Some(order) = self.door.handshakes.surplus(&public.id) {
            self.forget_handshake(order);
        }
        let message = accept(&hello.nonce, &noise);
        let order = self.door.handshakes.add(HalfOpen {
            peer,
            mac1: hello.mac1,
            token_id: public.id,
            token_expires_at_unix_s: public.expires_at_unix_s,
            entry,
            ticket: ticket_public.id,
            user: private.user,
            client_id: hello.connection,
            server_id,
            cipher,
            hidden,
            split,
            accept: message,
            created_at: now,
        });
        self.targets.insert(server_id, Target::Handshake(order));
        self.hiding |= hidden;
        self.stats.accepted += 1;
        Ok(self.answer(Answer::new(peer, &message)))
    }

    /// The cipher for a client with which there is a version in common.
    fn choose(&self, hello: &Hello<'_>) -> Result<Cipher, RefuseReason> {
        if self.door.draining {
            return Err(RefuseReason::Draining);
        }
        if !hello.versions.contains(&VERSION) {
            return Err(RefuseReason::Version);
        }
        choose(&hello.suites, self.common.suites.ciphers()).ok_or(RefuseReason::Suite)
    }

    /// A connection id that nobody has and that leads to this shard. Ids are spread evenly, so as
    /// many are drawn as there are shards, on average.
    pub(super) fn draw_id(&mut self) -> u32 {
        loop {
            let mut bytes = [0; 4];
            self.door.secrets.fill(&mut bytes);
            let id = u32::from_le_bytes(bytes);
            let here = |(rule, shard): (Steering, u16)| rule.shard_of_id(id) == shard;
            let here = self.common.config.steering.is_none_or(here);
            if id != 0 && here && !self.targets.contains(id) {
                return id;
            }
        }
    }
}
