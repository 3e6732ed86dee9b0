//! The keys of a connection: the phases of both directions, when they change, and how they rest.

use core::time::Duration;

use twinspan_core::aead::{AeadSuite, Cipher};
use twinspan_core::buggify;
use twinspan_core::time::Timestamp;

use crate::exchange::{Exchange, Rekey};
use crate::frames::Violation;
use crate::header::{Header, flag};
use crate::header_protection::HeaderKeys;
use crate::identity::KeyPair;
use crate::key_config::{EXCHANGE_INTERVAL_MIN, KeyConfig};
use crate::noise::{Secret, Split};
use crate::protection::{DirectionKey, Role, mixed_secret, next_secret};
use crate::stats::DropCause;

/// For how many round trips the phase before stays open for packets that are late.
const OLD_PHASE_RTTS: u32 = 3;
/// The least that the phase before stays open.
const OLD_PHASE_MIN: Duration = Duration::from_millis(250);
/// The most that the phase before stays open.
const OLD_PHASE_MAX: Duration = Duration::from_secs(3);

/// How often an end asks for the ack that it needs before its next phase.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// Packets of a phase that a simulation makes short.
const EARLY_PACKETS: u64 = 40;

/// What keys are made with; the same for all connections of an end.
#[derive(Clone, Copy)]
pub(crate) struct Means<'a> {
    pub(crate) suite: &'a dyn AeadSuite,
    pub(crate) config: &'a KeyConfig,
}

/// The phase that this end seals with.
struct Sealing {
    secret: Secret,
    /// `None` while it rests: a cipher expands a key to some 600 bytes, half of what an idle session
    /// costs, and makes it again in a microsecond.
    key: Option<DirectionKey>,
    /// The next phase's secret, where an exchange was mixed into it.
    mixed: Option<Box<Secret>>,
    odd: bool,
    /// No ordinary step is taken: an exchange is under way.
    held: bool,
    /// Whether a packet of this phase was acknowledged.
    confirmed: bool,
    /// The number of the phase's first packet.
    first: u64,
    began: Timestamp,
    /// When an ack is asked for again.
    ask_at: Timestamp,
    /// An ack shall be asked for.
    ask: bool,
    /// From here on, or from then on, every packet asks whether the phase must end.
    look_number: u64,
    look_at: Timestamp,
}

/// The phase that the other end seals with, and the ones around it.
struct Opening {
    secret: Secret,
    key: DirectionKey,
    mixed: Option<Box<Secret>>,
    odd: bool,
    /// The least number that was opened in this phase. What has the other PHASE bit is of the phase
    /// before when its number is less, else of the next one.
    least: u64,
    /// Made when the first packet asks for it and then kept: a flipped bit costs one failed open,
    /// and at most once a phase the making of a key that will be needed anyway.
    next: Option<Box<DirectionKey>>,
    old: Option<Box<DirectionKey>>,
    /// Until when the old phase is open.
    old_until: Timestamp,
}

/// The keys of one end.
pub(crate) struct Keys {
    cipher: Cipher,
    role: Role,
    /// The sealing key has reached its hard stop, or cannot be made.
    worn: bool,
    /// A phase was opened since [`take_moved`](Self::take_moved).
    moved: bool,
    sealing: Sealing,
    opening: Opening,
    exchange: Exchange,
    /// Server: from when on an offer is taken.
    offers_from: Timestamp,
    /// Where headers are hidden.
    headers: Option<Box<HeaderKeys>>,
}

impl Keys {
    /// The keys of phase 0; `None` when the suite has no such cipher.
    pub(crate) fn new(
        now: Timestamp,
        means: Means<'_>,
        cipher: Cipher,
        split: &Split,
        role: Role,
    ) -> Option<Self> {
        let open = match role {
            Role::Client => &split.server_to_client,
            Role::Server => &split.client_to_server,
        };
        let open = DirectionKey::new(means.suite, cipher, open)?;
        Some(Self::with_open(now, means, cipher, split, role, open))
    }

    /// The same where the key to open with is made already.
    pub(crate) fn with_open(
        now: Timestamp,
        Means { suite, config }: Means<'_>,
        cipher: Cipher,
        split: &Split,
        role: Role,
        key: DirectionKey,
    ) -> Self {
        let (up, down) = (split.client_to_server.clone(), split.server_to_client.clone());
        let (seal, open) = match role {
            Role::Client => (up, down),
            Role::Server => (down, up),
        };
        Self {
            cipher,
            role,
            worn: false,
            moved: false,
            sealing: Sealing {
                key: DirectionKey::new(suite, cipher, &seal),
                secret: seal,
                mixed: None,
                odd: false,
                held: false,
                confirmed: false,
                first: 1,
                began: now,
                ask_at: Timestamp::START,
                ask: false,
                look_number: 1 + phase_packets(config),
                look_at: now.after(config.rekey_interval),
            },
            opening: Opening {
                secret: open,
                key,
                mixed: None,
                odd: false,
                least: 1,
                next: None,
                old: None,
                old_until: Timestamp::NEVER,
            },
            exchange: Exchange::new(role, now.after(config.exchange_interval)),
            offers_from: Timestamp::START,
            headers: None,
        }
    }

    /// From now on headers are hidden. `None` when the suite has no such cipher.
    pub(crate) fn hide_headers(&mut self, means: Means<'_>, split: &Split) -> Option<()> {
        let keys = HeaderKeys::new(means.suite, self.cipher, split, self.role)?;
        self.headers = Some(Box::new(keys));
        Some(())
    }

    /// Whether headers are hidden.
    pub(crate) const fn hides_headers(&self) -> bool {
        self.headers.is_some()
    }

    /// Uncovers the header of a packet, where headers are hidden.
    pub(crate) fn reveal(&self, packet: &mut [u8]) {
        if let Some(headers) = &self.headers {
            headers.reveal(packet);
        }
    }

    /// Before packet `number` is sealed: goes on to the next phase when its time has come. Returns
    /// the phase's flag.
    pub(crate) fn advance(&mut self, means: Means<'_>, now: Timestamp, number: u64) -> u8 {
        let sealing = &mut self.sealing;
        if number >= sealing.look_number || now >= sealing.look_at {
            self.worn |= !sealing.advance(means, self.cipher, now, number);
        }
        if self.sealing.odd { flag::PHASE } else { 0 }
    }

    /// Seals a packet whose first bytes are its header and whose last are room for the tag. `None`
    /// when there is no key to seal with: then the packet must not leave, and the keys are worn out.
    #[must_use]
    pub(crate) fn seal(&mut self, means: Means<'_>, number: u64, packet: &mut [u8]) -> Option<()> {
        let sealing = &mut self.sealing;
        if sealing.key.is_none() {
            sealing.key = DirectionKey::new(means.suite, self.cipher, &sealing.secret);
        }
        let Some(key) = &sealing.key else {
            // A suite that had the cipher before should have it now. Were that wrong, nothing
            // readable may leave, and nothing else can.
            self.worn = true;
            return None;
        };
        key.seal(number, packet);
        if let Some(headers) = &self.headers {
            headers.hide(packet);
        }
        Some(())
    }

    /// Opens a packet in place and returns its text. A packet of the next phase moves on to it; the
    /// one before then stays open for three times `rtt`.
    pub(crate) fn open<'a>(
        &mut self,
        means: Means<'_>,
        now: Timestamp,
        rtt: impl FnOnce() -> Duration,
        header: &Header,
        packet: &'a mut [u8],
    ) -> Result<&'a [u8], DropCause> {
        let number = header.number;
        let opening = &mut self.opening;
        if (header.flags & flag::PHASE != 0) == opening.odd {
            let text = opening.key.open(number, packet).ok_or(DropCause::NotAuthentic)?;
            opening.least = opening.least.min(number);
            return Ok(text);
        }
        if number < opening.least {
            let old = opening.old.as_ref().filter(|_| now < opening.old_until);
            let old = old.ok_or(DropCause::OldPhase)?;
            return old.open(number, packet).ok_or(DropCause::NotAuthentic);
        }
        let next = opening.next(means, self.cipher).ok_or(DropCause::NotAuthentic)?;
        let text = next.open(number, packet).ok_or(DropCause::NotAuthentic)?;
        let keep = (rtt() * OLD_PHASE_RTTS).clamp(OLD_PHASE_MIN, OLD_PHASE_MAX);
        opening.step(self.cipher, number, now.after(keep)).ok_or(DropCause::NotAuthentic)?;
        self.moved = true;
        self.on_opened_phase(means, now);
        Ok(text)
    }

    /// The peer's next phase was opened: what an exchange waited for may have come.
    fn on_opened_phase(&mut self, Means { config, .. }: Means<'_>, now: Timestamp) {
        let due = now.after(config.exchange_interval);
        match core::mem::replace(&mut self.exchange, Exchange::new(self.role, due)) {
            Exchange::Mixing => {}
            Exchange::Answered(secret) => self.sealing.mix(secret),
            other => self.exchange = other,
        }
    }

    /// The peer acknowledged packet `largest`, which was sent.
    pub(crate) const fn on_acked(&mut self, largest: u64) {
        if largest >= self.sealing.first {
            self.sealing.confirmed = true;
        }
    }

    /// Whether the peer shall be asked for an ack, which the next phase waits for.
    pub(crate) const fn take_ask(&mut self) -> bool {
        core::mem::replace(&mut self.sealing.ask, false)
    }

    /// Whether this end must close: its key reached the hard stop, or cannot be made.
    pub(crate) const fn is_worn(&self) -> bool {
        self.worn
    }

    /// Whether the peer's phase changed since the last call.
    pub(crate) const fn take_moved(&mut self) -> bool {
        core::mem::replace(&mut self.moved, false)
    }

    /// When [`handle_timeout`](Self::handle_timeout) or a fresh key pair is due; at once when worn.
    pub(crate) fn deadline(&self) -> Timestamp {
        if self.worn {
            return Timestamp::START;
        }
        self.opening.old_until.min(self.exchange.deadline())
    }

    /// Forgets the phase before when its time is over.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        if now >= self.opening.old_until {
            self.opening.forget_old();
        }
    }

    /// Whether the holder shall come with a fresh key pair.
    pub(crate) fn wants_pair(&self, now: Timestamp) -> bool {
        self.exchange.wants_pair(now)
    }

    /// Begins an exchange, or answers one, with a fresh key pair: what to send. `None` when the
    /// peer's key agrees on nothing.
    pub(crate) fn on_pair(&mut self, pair: KeyPair) -> Option<Rekey> {
        let public = *pair.public();
        match &self.exchange {
            Exchange::Resting { .. } => {
                self.sealing.held = true;
                self.exchange = Exchange::Offered(Box::new(pair));
                Some(Rekey::Offer(public))
            }
            Exchange::Asked(offer) => {
                let offer = **offer;
                let shared = pair.agree(&offer)?;
                let cipher = self.cipher;
                let mix = |next: &Secret| mixed_secret(cipher, next, &shared, &offer, &public);
                let own = mix(&next_secret(cipher, &self.sealing.secret)?)?;
                let theirs = mix(&next_secret(cipher, &self.opening.secret)?)?;
                self.sealing.held = true;
                self.opening.mix(theirs);
                self.exchange = Exchange::Answered(Box::new(own));
                Some(Rekey::Answer(public))
            }
            Exchange::Offered(_) | Exchange::Mixing | Exchange::Answered(_) => None,
        }
    }

    /// Takes a REKEY frame.
    pub(crate) fn on_rekey(&mut self, now: Timestamp, rekey: Rekey) -> Result<(), Violation> {
        match rekey {
            // A client that offers anew knows our mixed phase: we cannot be waiting to begin it.
            Rekey::Offer(_) if self.sealing.mixed.is_some() => Err(Violation),
            Rekey::Offer(_) if now < self.offers_from => Err(Violation),
            Rekey::Offer(offer) => {
                self.exchange.on_offer(offer)?;
                self.offers_from = now.after(EXCHANGE_INTERVAL_MIN);
                Ok(())
            }
            Rekey::Answer(answer) => {
                let agreed = self.exchange.on_answer(answer)?;
                let cipher = self.cipher;
                let mix = |secret: &Secret| {
                    let next = next_secret(cipher, secret)?;
                    mixed_secret(cipher, &next, &agreed.shared, &agreed.offer, &agreed.answer)
                };
                let own = mix(&self.sealing.secret).ok_or(Violation)?;
                let theirs = mix(&self.opening.secret).ok_or(Violation)?;
                self.sealing.mix(Box::new(own));
                self.opening.mix(theirs);
                Ok(())
            }
        }
    }

    /// Says that a packet to open comes soon.
    pub(crate) fn prefetch_to_open(&self) {
        self.opening.key.prefetch();
    }

    /// Says that a packet will be sealed soon.
    pub(crate) fn prefetch_to_seal(&self) {
        if let Some(key) = &self.sealing.key {
            key.prefetch();
        }
    }

    /// Gives back the memory of the sealing key until it is needed again.
    pub(crate) fn rest(&mut self) {
        self.sealing.key = None;
    }

    /// Whether [`rest`](Self::rest) would give memory back.
    pub(crate) const fn is_awake(&self) -> bool {
        self.sealing.key.is_some()
    }

    /// Whether a packet with these flags, which has an ack or a new phase, must be opened lest the
    /// phases stand still.
    #[cfg(feature = "load")]
    pub(crate) const fn wants_open(&self, flags: u8) -> bool {
        let unconfirmed = !self.sealing.confirmed && flags & flag::ACK != 0;
        unconfirmed || (flags & flag::PHASE != 0) != self.opening.odd
    }

    /// Whether the phase that this end seals with is an odd one.
    pub(crate) const fn is_sealed_odd(&self) -> bool {
        self.sealing.odd
    }

    /// Whether the phase of the other end that was opened last is an odd one.
    pub(crate) const fn is_opened_odd(&self) -> bool {
        self.opening.odd
    }

    /// Until when the phase before stays open; never when there is none.
    pub(crate) const fn old_phase_until(&self) -> Timestamp {
        self.opening.old_until
    }

    /// The phases of sealing and opening by their bits, and whether an exchange is under way.
    #[cfg(test)]
    pub(crate) const fn phases(&self) -> (bool, bool, bool) {
        let under_way = !matches!(self.exchange, Exchange::Resting { .. });
        (self.sealing.odd, self.opening.odd, under_way)
    }

    /// The secrets that seal and open, to compare two ends.
    #[cfg(test)]
    pub(crate) fn secrets(&self) -> [Secret; 2] {
        [self.sealing.secret.clone(), self.opening.secret.clone()]
    }
}

impl Sealing {
    /// Steps to the next phase when it is due and allowed; false when the key is worn out.
    #[cold]
    fn advance(
        &mut self,
        Means { config, .. }: Means<'_>,
        cipher: Cipher,
        now: Timestamp,
        number: u64,
    ) -> bool {
        // Without an ack under this phase the peer may not know it, and could not know the next.
        if self.confirmed && (!self.held || self.mixed.is_some()) {
            return self.step(config, cipher, now, number).is_some();
        }
        if !self.confirmed && now >= self.ask_at {
            // An end that only answers keep-alives sends nothing that is acknowledged.
            self.ask = true;
            self.ask_at = now.after(ASK_INTERVAL);
        }
        number - self.first + 1 < config.packets_max && now < self.began.after(config.age_max)
    }

    fn step(
        &mut self,
        config: &KeyConfig,
        cipher: Cipher,
        now: Timestamp,
        number: u64,
    ) -> Option<()> {
        self.secret = match self.mixed.take() {
            Some(mixed) => *mixed,
            None => next_secret(cipher, &self.secret)?,
        };
        self.key = None;
        self.odd = !self.odd;
        self.held = false;
        self.confirmed = false;
        self.first = number;
        self.began = now;
        self.ask_at = Timestamp::START;
        self.ask = false;
        self.look_number = number.saturating_add(phase_packets(config));
        self.look_at = now.after(config.rekey_interval);
        Some(())
    }

    /// The next phase is made from this secret, and is due.
    fn mix(&mut self, secret: Box<Secret>) {
        self.mixed = Some(secret);
        self.look_number = 0;
    }
}

/// Packets that a phase seals before the next is due. Now and then a simulation makes it few, so that
/// phases change while packets are late, lost and come again.
fn phase_packets(config: &KeyConfig) -> u64 {
    if buggify!("rekey after few packets") {
        config.rekey_packets.min(EARLY_PACKETS)
    } else {
        config.rekey_packets
    }
}

impl Opening {
    fn next(&mut self, means: Means<'_>, cipher: Cipher) -> Option<&DirectionKey> {
        if self.next.is_none() {
            let secret = self.next_secret(cipher)?;
            self.next = Some(Box::new(DirectionKey::new(means.suite, cipher, &secret)?));
        }
        self.next.as_deref()
    }

    fn next_secret(&self, cipher: Cipher) -> Option<Secret> {
        match &self.mixed {
            Some(mixed) => Some((**mixed).clone()),
            None => next_secret(cipher, &self.secret),
        }
    }

    /// The next phase's packet `number` verified.
    fn step(&mut self, cipher: Cipher, number: u64, old_until: Timestamp) -> Option<()> {
        let secret = self.next_secret(cipher)?;
        let mut key = self.next.take()?;
        core::mem::swap(&mut self.key, &mut key);
        self.old = Some(key);
        self.old_until = old_until;
        self.secret = secret;
        self.mixed = None;
        self.odd = !self.odd;
        self.least = number;
        Some(())
    }

    fn mix(&mut self, secret: Secret) {
        self.mixed = Some(Box::new(secret));
        self.next = None;
    }

    fn forget_old(&mut self) {
        self.old = None;
        self.old_until = Timestamp::NEVER;
    }
}

#[cfg(test)]
mod tests;
