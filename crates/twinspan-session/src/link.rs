//! Sealed links of other protocols: a handshake with a key that both ends were given, and the keys
//! that follow from it.
//!
//! The handshake is `Noise_NNpsk0_25519_ChaChaPoly_SHA256`; what travels behind it is sealed, checked
//! for repeats and rekeyed as a session's packets are. Topics of the hub travel on such links; see
//! `docs/spec/hub.md`, 8.8.
//!
//! ```
//! use twinspan_core::{aead::Cipher, random::Stream, time::Timestamp};
//! use twinspan_session::link::{HEAD_BYTES, LinkKeys, Opener, Opening, SharedKey};
//! use twinspan_session::KeyConfig;
//!
//! let key = SharedKey::from_bytes([7; 32]);
//! let mut secrets = Stream::new(1, "secrets", 0);
//! let (mut first, mut second) = (Vec::new(), Vec::new());
//! let opener = Opener::new(&key, b"what both know", b"hello", &mut secrets, &mut first);
//! let opener = opener.expect("the message has room");
//! let opening = Opening::read(&key, b"what both know", &first).expect("the key is the same");
//! assert_eq!(opening.payload(), b"hello");
//! let secrets_there = opening.answer(b"welcome", &mut secrets, &mut second).expect("a good key");
//! let (payload, secrets_here) = opener.finish(&second).expect("the key is the same");
//! assert_eq!(payload, b"welcome");
//!
//! let (now, cipher) = (Timestamp::START, Cipher::ChaCha20Poly1305);
//! let mut here = LinkKeys::new(now, cipher, &KeyConfig::default(), secrets_here).expect("a cipher");
//! let mut there = LinkKeys::new(now, cipher, &KeyConfig::default(), secrets_there).expect("a cipher");
//! let mut packet = [0; HEAD_BYTES + 4 + 16];
//! packet[HEAD_BYTES..HEAD_BYTES + 4].copy_from_slice(b"text");
//! here.seal(now, &mut packet).expect("a key that is not worn out");
//! assert_eq!(there.open(now, &mut packet).map(|(number, text)| (number, &*text)), Ok((1, &b"text"[..])));
//! ```

use core::fmt;
use core::time::Duration;

use twinspan_core::aead::{Cipher, TAG_BYTES};
use twinspan_core::number::{Sighting, Window, widen};
use twinspan_core::random::SecretSource;
use twinspan_core::time::Timestamp;

use crate::header::{HEADER_BYTES, Header, flag};
use crate::identity::KeyPair;
use crate::key_config::KeyConfig;
use crate::keys::{Keys, Means};
use crate::noise::{Secret, Split, Symmetric};
use crate::protection::Role;
use crate::suite::CryptoSuite;

const NAME: &[u8] = b"Noise_NNpsk0_25519_ChaChaPoly_SHA256";

/// Bytes that either message has besides its payload.
pub const MESSAGE_OVERHEAD_BYTES: usize = 32 + TAG_BYTES;
/// Bytes before what is sealed: one of the caller's, bits, eight of the caller's, the number.
pub const HEAD_BYTES: usize = HEADER_BYTES;
/// Bytes that sealing adds to a packet.
pub const OVERHEAD_BYTES: usize = TAG_BYTES;

/// Bits of a packet's second byte: the phase of the key that sealed it, and the one of the last packet
/// that was opened in the other direction.
const PHASE: u8 = 1;
const SEEN: u8 = 2;
/// Where bits and number are in a head.
const BITS_AT: usize = 1;
const NUMBER_AT: usize = 10;
/// A round trip, as far as late packets of the phase before are concerned.
const RTT: Duration = Duration::from_millis(200);

/// A key that both ends of a link were given: 32 secret bytes.
#[derive(Clone)]
pub struct SharedKey(Secret);

impl SharedKey {
    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Secret::new(bytes))
    }

    /// A fresh key.
    pub fn new(secrets: &mut dyn SecretSource) -> Self {
        let mut bytes = Secret::new([0; 32]);
        secrets.fill(bytes.as_mut_slice());
        Self(bytes)
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey(..)")
    }
}

/// What the handshake leaves at one end.
pub struct LinkSecrets {
    split: Split,
    role: Role,
}

impl fmt::Debug for LinkSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkSecrets").field("role", &self.role).finish_non_exhaustive()
    }
}

/// The state that both ends begin with.
fn begin(key: &SharedKey, prologue: &[u8]) -> Symmetric {
    let mut symmetric = Symmetric::named(NAME, prologue);
    symmetric.mix_key_and_hash(&key.0);
    symmetric
}

/// Appends an ephemeral key and the sealed payload.
fn write(symmetric: &mut Symmetric, public: &[u8; 32], payload: &[u8], out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(public);
    let from = out.len();
    out.extend_from_slice(payload);
    out.extend_from_slice(&[0; TAG_BYTES]);
    out.get_mut(from..).is_some_and(|sealed| symmetric.encrypt_and_hash(sealed).is_ok())
}

/// Opens what is behind an ephemeral key.
fn read(symmetric: &mut Symmetric, sealed: &[u8]) -> Option<Vec<u8>> {
    let mut payload = sealed.to_vec();
    symmetric.decrypt_and_hash(&mut payload).ok()?;
    payload.truncate(payload.len().checked_sub(TAG_BYTES)?);
    Some(payload)
}

/// Who begins a link, between its message and the answer.
pub struct Opener {
    symmetric: Symmetric,
    ephemeral: KeyPair,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}

impl Opener {
    /// Appends message 1 with a payload. `prologue` is what both ends know and nobody may change.
    pub fn new(
        key: &SharedKey,
        prologue: &[u8],
        payload: &[u8],
        secrets: &mut dyn SecretSource,
        out: &mut Vec<u8>,
    ) -> Option<Self> {
        let ephemeral = KeyPair::generate(secrets);
        let mut symmetric = begin(key, prologue);
        symmetric.mix_ephemeral(ephemeral.public());
        write(&mut symmetric, ephemeral.public(), payload, out)
            .then_some(Self { symmetric, ephemeral })
    }

    /// Reads message 2: its payload, and what keys are made from. A forged one changes nothing, so the
    /// true one may still come.
    pub fn finish(&self, message: &[u8]) -> Option<(Vec<u8>, LinkSecrets)> {
        let mut symmetric = self.symmetric.clone();
        let (theirs, sealed) = message.split_first_chunk::<32>()?;
        symmetric.mix_ephemeral(theirs);
        let shared = self.ephemeral.agree(theirs)?;
        symmetric.mix_key(&shared);
        let payload = read(&mut symmetric, sealed)?;
        Some((payload, LinkSecrets { split: symmetric.split(), role: Role::Client }))
    }
}

/// Message 1 at the other end.
pub struct Opening {
    symmetric: Symmetric,
    theirs: [u8; 32],
    payload: Vec<u8>,
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").finish_non_exhaustive()
    }
}

impl Opening {
    /// Reads message 1, without an agreement of keys: a forged one costs hashes and one failed open.
    /// `None` when it was not made with this key and prologue.
    pub fn read(key: &SharedKey, prologue: &[u8], message: &[u8]) -> Option<Self> {
        let (theirs, sealed) = message.split_first_chunk::<32>()?;
        let mut symmetric = begin(key, prologue);
        symmetric.mix_ephemeral(theirs);
        let payload = read(&mut symmetric, sealed)?;
        Some(Self { symmetric, theirs: *theirs, payload })
    }

    /// What message 1 carried.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Appends message 2 with a payload; `None` when the other end's key agrees on nothing.
    ///
    /// Message 1 can be said again by who heard it: only a packet that opens with these secrets shows
    /// that its sender has the key.
    pub fn answer(
        mut self,
        payload: &[u8],
        secrets: &mut dyn SecretSource,
        out: &mut Vec<u8>,
    ) -> Option<LinkSecrets> {
        let ephemeral = KeyPair::generate(secrets);
        let shared = ephemeral.agree(&self.theirs)?;
        self.symmetric.mix_ephemeral(ephemeral.public());
        self.symmetric.mix_key(&shared);
        let is_written = write(&mut self.symmetric, ephemeral.public(), payload, out);
        is_written.then(|| LinkSecrets { split: self.symmetric.split(), role: Role::Server })
    }
}

/// Why a packet is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkDrop {
    /// It is shorter than a head and a tag.
    Short,
    /// It came before, or is too late to tell.
    Repeated,
    /// It was not sealed by the other end, or by a key that is gone.
    NotAuthentic,
}

/// The keys of one end of a link.
pub struct LinkKeys {
    suite: CryptoSuite,
    config: KeyConfig,
    keys: Keys,
    /// The number of the last packet that was sealed.
    number: u64,
    seen: Window<16>,
    /// The newest packet that said which phase the other end saw.
    told_at: u64,
}

impl fmt::Debug for LinkKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkKeys").field("number", &self.number).finish_non_exhaustive()
    }
}

impl LinkKeys {
    /// Keys of phase 0; `None` for a cipher that no production suite has.
    pub fn new(
        now: Timestamp,
        cipher: Cipher,
        config: &KeyConfig,
        LinkSecrets { split, role }: LinkSecrets,
    ) -> Option<Self> {
        let suite = CryptoSuite::detect();
        let keys = Keys::new(now, Means { suite: &suite, config }, cipher, &split, role)?;
        let config = config.clone();
        Some(Self { suite, config, keys, number: 0, seen: Window::default(), told_at: 0 })
    }

    /// The number that the next packet gets, from 1.
    pub const fn next_number(&self) -> u64 {
        self.number + 1
    }

    /// Seals a packet: [`HEAD_BYTES`] in which bits and number are still missing, text, and
    /// [`OVERHEAD_BYTES`] of room. Returns its number.
    ///
    /// `None` when the key may seal no more, because the other end did not see it for too long, or the
    /// packet is too short: then nothing readable may leave, and the link is over.
    pub fn seal(&mut self, now: Timestamp, packet: &mut [u8]) -> Option<u64> {
        if packet.len() < HEAD_BYTES + OVERHEAD_BYTES {
            return None;
        }
        let number = self.number.checked_add(1)?;
        let means = Means { suite: &self.suite, config: &self.config };
        let phase = self.keys.advance(means, now, number);
        if self.keys.is_worn() {
            return None;
        }
        let bits = if phase & flag::PHASE != 0 { PHASE } else { 0 }
            | if self.keys.is_opened_odd() { SEEN } else { 0 };
        *packet.get_mut(BITS_AT)? = bits;
        let place = packet.get_mut(NUMBER_AT..)?.first_chunk_mut::<4>()?;
        *place = (number as u32).to_le_bytes();
        self.keys.seal(means, number, packet)?;
        self.number = number;
        Some(number)
    }

    /// Opens a packet in place: its number and its text.
    ///
    /// # Errors
    /// [`LinkDrop`]; nothing has changed then.
    pub fn open<'a>(
        &mut self,
        now: Timestamp,
        packet: &'a mut [u8],
    ) -> Result<(u64, &'a [u8]), LinkDrop> {
        if packet.len() < HEAD_BYTES + OVERHEAD_BYTES {
            return Err(LinkDrop::Short);
        }
        let head = packet.first_chunk::<HEAD_BYTES>().ok_or(LinkDrop::Short)?;
        let [_, bits, _, _, _, _, _, _, _, _, n0, n1, n2, n3] = *head;
        if bits & !(PHASE | SEEN) != 0 {
            return Err(LinkDrop::NotAuthentic);
        }
        let low = u64::from(u32::from_le_bytes([n0, n1, n2, n3]));
        let number = widen(low, 32, self.seen.largest().unwrap_or(0));
        if number == 0 || self.seen.look(number) != Sighting::Fresh {
            return Err(LinkDrop::Repeated);
        }
        let flags = if bits & PHASE != 0 { flag::PHASE } else { 0 };
        let header = Header { connection: 0, channel: 0, flags, number };
        let means = Means { suite: &self.suite, config: &self.config };
        let text = self.keys.open(means, now, || RTT, &header, packet);
        let text = text.map_err(|_| LinkDrop::NotAuthentic)?;
        self.seen.commit(number);
        // An older packet may speak of a phase that had the same parity.
        if number > self.told_at {
            self.told_at = number;
            if (bits & SEEN != 0) == self.keys.is_sealed_odd() {
                self.keys.on_acked(u64::MAX);
            }
        }
        Ok((number, text))
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub const fn poll_timeout(&self) -> Timestamp {
        self.keys.old_phase_until()
    }

    /// Forgets a key that is no longer used.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.keys.handle_timeout(now);
    }
}

#[cfg(test)]
mod tests;
