//! Handshake messages: HELLO, RETRY, ACCEPT, REFUSE.

use core::time::Duration;

use twinspan_core::aead::Cipher;
use twinspan_core::bytes::{ReadError, Reader};
use twinspan_core::time::Timestamp;
use zeroize::Zeroizing;

use crate::header::{HEADER_BYTES, PACKET_BYTES_MAX, long_header};
use crate::header_protection::{from_byte, to_byte};
use crate::identity::{MacKey, PublicKey};
use crate::noise::{MESSAGE_1_BYTES, MESSAGE_2_BYTES, PAYLOAD_BYTES};
use crate::reason::RefuseReason;
use crate::stats::DropCause;
use crate::ticket::Ticket;
use crate::token::{PRIVATE_PART_BYTES, PUBLIC_PART_BYTES};

/// The protocol version that this crate speaks.
pub(crate) const VERSION: u16 = 1;

/// Kind bytes, session 3.2.
pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 1;
    pub(crate) const RETRY: u8 = 2;
    pub(crate) const ACCEPT: u8 = 3;
    pub(crate) const REFUSE: u8 = 4;
}

/// Bytes of a HELLO.
pub(crate) const HELLO_BYTES: usize = PACKET_BYTES_MAX;
/// Bytes of a HELLO before its Noise message: the prologue.
pub(crate) const PROLOGUE_BYTES: usize = 164;
/// Bytes of a HELLO that `mac1` covers.
const MAC1_AT: usize = PROLOGUE_BYTES + MESSAGE_1_BYTES;
const COOKIE_AT: usize = MAC1_AT + 16;
const TOKEN_AT: usize = PROLOGUE_BYTES - PRIVATE_PART_BYTES - PUBLIC_PART_BYTES;
const PADDING_AT: usize = COOKIE_AT + 16;
/// Places for versions in a HELLO.
pub(crate) const VERSIONS_MAX: usize = 3;
/// Places for suites in a HELLO.
pub(crate) const SUITES_MAX: usize = 8;
/// Bytes of a RETRY.
pub(crate) const RETRY_BYTES: usize = HEADER_BYTES + 48;
/// Bytes of an ACCEPT.
pub(crate) const ACCEPT_BYTES: usize = HEADER_BYTES + 16 + MESSAGE_2_BYTES;
/// Bytes of a REFUSE.
pub(crate) const REFUSE_BYTES: usize = HEADER_BYTES + 33;

// What session 3.3 to 3.10 say, and: no answer outgrows its request.
const _: () = assert!(TOKEN_AT == 52 && MAC1_AT == 212 && COOKIE_AT == 228 && PADDING_AT == 244);
const _: () = assert!(RETRY_BYTES == 62 && ACCEPT_BYTES == 246 && REFUSE_BYTES == 47);
const _: () = assert!(ACCEPT_BYTES <= 300 && RETRY_BYTES <= HELLO_BYTES);

/// The connection id at the front of a datagram; 0 marks the handshake form.
///
/// For routing before a session looks closer: it is not authenticated here.
pub fn connection_id(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|id| u32::from_le_bytes(*id))
}

/// The client's nonce in a handshake message, with which the server's answers are routed to one of
/// several clients behind a socket.
pub fn handshake_nonce(bytes: &[u8]) -> Option<[u8; 16]> {
    if connection_id(bytes) != Some(0) {
        return None;
    }
    bytes.get(HEADER_BYTES..)?.first_chunk().copied()
}

/// The three keys that everyone who knows a server's public key can make.
#[derive(Clone, Debug)]
pub(crate) struct PublicMacs {
    mac1: MacKey,
    retry: MacKey,
    refuse: MacKey,
}

impl PublicMacs {
    /// The mac of a HELLO's first bytes, for tests that change them as who knows the key could.
    #[cfg(test)]
    pub(crate) fn mac1_of(&self, covered: &[u8]) -> [u8; 16] {
        self.mac1.tag(&[covered])
    }

    pub(crate) fn new(server: &PublicKey) -> Self {
        Self {
            mac1: MacKey::of_server(b"twinspan mac1 v1", server),
            retry: MacKey::of_server(b"twinspan retry v1", server),
            refuse: MacKey::of_server(b"twinspan refuse v1", server),
        }
    }
}

/// What a client says first, as it says it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HelloParts<'a> {
    pub(crate) nonce: &'a [u8; 16],
    pub(crate) connection: u32,
    pub(crate) versions: &'a [u16],
    pub(crate) options: u16,
    /// Best first; those past [`SUITES_MAX`] are left out.
    pub(crate) suites: &'a [Cipher],
    pub(crate) token_public: &'a [u8; PUBLIC_PART_BYTES],
    pub(crate) token_private: &'a [u8; PRIVATE_PART_BYTES],
}

/// A HELLO in the making: its first bytes, which the Noise message binds.
pub(crate) fn hello_prologue(parts: HelloParts<'_>) -> [u8; PROLOGUE_BYTES] {
    let mut versions = [0; 2 * VERSIONS_MAX];
    let version_bytes = parts.versions.iter().take(VERSIONS_MAX).flat_map(|v| v.to_le_bytes());
    versions.iter_mut().zip(version_bytes).for_each(|(out, byte)| *out = byte);
    let mut suites = [0; SUITES_MAX];
    suites.iter_mut().zip(parts.suites).for_each(|(out, cipher)| *out = *cipher as u8);
    let bytes = long_header(kind::HELLO)
        .into_iter()
        .chain(*parts.nonce)
        .chain(parts.connection.to_le_bytes())
        .chain([parts.versions.len().min(VERSIONS_MAX) as u8])
        .chain(versions)
        .chain(parts.options.to_le_bytes())
        .chain([parts.suites.len().min(SUITES_MAX) as u8])
        .chain(suites)
        .chain(*parts.token_public)
        .chain(*parts.token_private);
    let mut out = [0; PROLOGUE_BYTES];
    out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte);
    out
}

/// A whole HELLO but for its padding.
#[derive(Clone, Debug)]
pub(crate) struct HelloBytes([u8; PADDING_AT]);

impl HelloBytes {
    pub(crate) fn new(
        prologue: &[u8; PROLOGUE_BYTES],
        noise: &[u8; MESSAGE_1_BYTES],
        macs: &PublicMacs,
    ) -> Self {
        let mac1 = macs.mac1.tag(&[prologue, noise]);
        let mut out = [0; PADDING_AT];
        let bytes = prologue.iter().chain(noise).chain(&mac1);
        out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = *byte);
        Self(out)
    }

    pub(crate) fn set_cookie(&mut self, cookie: &[u8; 16]) {
        let place = self.0.iter_mut().skip(COOKIE_AT);
        place.zip(cookie).for_each(|(out, byte)| *out = *byte);
    }

    /// Writes the HELLO with its padding; false when `room` is too short.
    pub(crate) fn write(&self, room: &mut [u8]) -> bool {
        let Some((head, padding)) =
            room.get_mut(..HELLO_BYTES).and_then(<[u8]>::split_first_chunk_mut::<PADDING_AT>)
        else {
            return false;
        };
        *head = self.0;
        padding.fill(0);
        true
    }
}

/// A HELLO as a server reads it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hello<'a> {
    pub(crate) nonce: [u8; 16],
    pub(crate) connection: u32,
    pub(crate) versions: [u16; VERSIONS_MAX],
    pub(crate) options: u16,
    pub(crate) suites: [u8; SUITES_MAX],
    pub(crate) token_public: [u8; PUBLIC_PART_BYTES],
    pub(crate) token_private: [u8; PRIVATE_PART_BYTES],
    pub(crate) prologue: &'a [u8],
    pub(crate) noise: [u8; MESSAGE_1_BYTES],
    pub(crate) mac1: [u8; 16],
    pub(crate) cookie: [u8; 16],
}

/// What a HELLO shows before any of it is believed or even read in full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HelloFront<'a> {
    pub(crate) token_id: &'a [u8; 16],
    pub(crate) cookie: &'a [u8; 16],
}

impl<'a> HelloFront<'a> {
    /// Looks at two fields of a HELLO whose header was looked at, session 3.3.
    pub(crate) fn of(bytes: &'a [u8]) -> Result<Self, DropCause> {
        if bytes.len() != HELLO_BYTES {
            return Err(DropCause::Malformed);
        }
        let at = |place: usize| bytes.get(place..)?.first_chunk();
        let front = at(TOKEN_AT).zip(at(COOKIE_AT));
        let (token_id, cookie) = front.ok_or(DropCause::Malformed)?;
        Ok(Self { token_id, cookie })
    }
}

impl<'a> Hello<'a> {
    /// Reads a HELLO whose header was looked at, session 3.3.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, DropCause> {
        if bytes.len() != HELLO_BYTES {
            return Err(DropCause::Malformed);
        }
        Self::read(bytes).map_err(|_| DropCause::Malformed)?.ok_or(DropCause::Malformed)
    }

    /// Verifies `mac1`: who sent this knows the server's public key.
    pub(crate) fn verify(&self, macs: &PublicMacs) -> Result<(), DropCause> {
        let verified = macs.mac1.verify(&[self.prologue, &self.noise], &self.mac1);
        if verified { Ok(()) } else { Err(DropCause::BadMac1) }
    }

    pub(crate) fn read(bytes: &'a [u8]) -> Result<Option<Self>, ReadError> {
        let mut reader = Reader::new(bytes);
        let prologue = Reader::new(bytes).take(PROLOGUE_BYTES)?;
        reader.take(HEADER_BYTES)?;
        let nonce = reader.array()?;
        let connection = reader.u32()?;
        let version_count = usize::from(reader.u8()?);
        let mut versions = [0; VERSIONS_MAX];
        for version in &mut versions {
            *version = reader.u16()?;
        }
        let options = reader.u16()?;
        let suite_count = usize::from(reader.u8()?);
        let suites: [u8; SUITES_MAX] = reader.array()?;
        let hello = Self {
            nonce,
            connection,
            versions,
            options,
            suites,
            token_public: reader.array()?,
            token_private: reader.array()?,
            prologue,
            noise: reader.array()?,
            mac1: reader.array()?,
            cookie: reader.array()?,
        };
        let (offered, unused) = (suites.get(..suite_count), suites.get(suite_count..));
        let (spoken, unspoken) = (versions.get(..version_count), versions.get(version_count..));
        // A zero inside the list would be taken for an unused place: it is no suite either way.
        let fits = connection != 0
            && spoken.is_some_and(|spoken| !spoken.is_empty())
            && unspoken.is_some_and(|rest| rest.iter().all(|version| *version == 0))
            && offered.is_some_and(|offered| !offered.is_empty())
            && unused.is_some_and(|rest| rest.iter().all(|suite| *suite == 0))
            // All of it, whatever comes first: this way it takes a few instructions of many bytes each.
            && reader.rest().iter().fold(0, |all, byte| all | byte) == 0;
        Ok(fits.then_some(hello))
    }
}

/// Makes a RETRY, session 3.4.
pub(crate) fn retry(nonce: &[u8; 16], cookie: &[u8; 16], macs: &PublicMacs) -> [u8; RETRY_BYTES] {
    let header = long_header(kind::RETRY);
    let mac = macs.retry.tag(&[&header, nonce, cookie]);
    let mut out = [0; RETRY_BYTES];
    let bytes = header.iter().chain(nonce).chain(cookie).chain(&mac);
    out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = *byte);
    out
}

/// Reads a RETRY that answers the HELLO with `nonce` and returns the cookie.
pub(crate) fn parse_retry(
    bytes: &[u8],
    nonce: &[u8; 16],
    macs: &PublicMacs,
) -> Result<[u8; 16], DropCause> {
    let bytes: &[u8; RETRY_BYTES] = bytes.try_into().map_err(|_| DropCause::Malformed)?;
    let (covered, mac) = bytes.split_last_chunk::<16>().ok_or(DropCause::Malformed)?;
    let cookie = covered.last_chunk::<16>().ok_or(DropCause::Malformed)?;
    if handshake_nonce(bytes).as_ref() != Some(nonce) || !macs.retry.verify(&[covered], mac) {
        return Err(DropCause::AnswerBad);
    }
    Ok(*cookie)
}

/// Makes a REFUSE, session 3.10.
pub(crate) fn refuse(
    nonce: &[u8; 16],
    cookie: &[u8; 16],
    reason: RefuseReason,
    macs: &PublicMacs,
) -> [u8; REFUSE_BYTES] {
    let header = long_header(kind::REFUSE);
    let reason = [reason as u8];
    let mac = macs.refuse.tag(&[&header, nonce, &reason, cookie]);
    let mut out = [0; REFUSE_BYTES];
    let bytes = header.iter().chain(nonce).chain(&reason).chain(&mac);
    out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = *byte);
    out
}

/// Reads a REFUSE that answers the HELLO with `nonce` and `cookie`.
pub(crate) fn parse_refuse(
    bytes: &[u8],
    nonce: &[u8; 16],
    cookie: &[u8; 16],
    macs: &PublicMacs,
) -> Result<RefuseReason, DropCause> {
    let bytes: &[u8; REFUSE_BYTES] = bytes.try_into().map_err(|_| DropCause::Malformed)?;
    let (covered, mac) = bytes.split_last_chunk::<16>().ok_or(DropCause::Malformed)?;
    let verified = macs.refuse.verify(&[covered, cookie], mac);
    if handshake_nonce(bytes).as_ref() != Some(nonce) || !verified {
        return Err(DropCause::AnswerBad);
    }
    covered.last().copied().and_then(RefuseReason::from_wire).ok_or(DropCause::Malformed)
}

/// The payload of an ACCEPT, session 3.8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accept {
    pub(crate) version: u16,
    pub(crate) suite: u8,
    /// Whether headers are hidden.
    pub(crate) hidden: bool,
    pub(crate) connection: u32,
    pub(crate) server_time: Timestamp,
    pub(crate) idle_timeout: Duration,
    /// For how long the ticket is good once the session is lost.
    pub(crate) resume_window: Duration,
}

impl Accept {
    pub(crate) fn to_payload(self, ticket: &Ticket) -> Zeroizing<[u8; PAYLOAD_BYTES]> {
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let ticket = ticket.to_bytes();
        let bytes = self
            .version
            .to_le_bytes()
            .into_iter()
            .chain([self.suite, to_byte(self.hidden)])
            .chain(self.connection.to_le_bytes())
            .chain(self.server_time.as_nanos().to_le_bytes())
            .chain(millis(self.idle_timeout).to_le_bytes())
            .chain(millis(self.resume_window).to_le_bytes())
            .chain(ticket.iter().copied());
        let mut out = Zeroizing::new([0; PAYLOAD_BYTES]);
        out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte);
        out
    }

    pub(crate) fn parse_payload(bytes: &[u8; PAYLOAD_BYTES]) -> Result<(Self, Ticket), ReadError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u16()?;
        let suite = reader.u8()?;
        let hidden = from_byte(reader.u8()?);
        let accept = Self {
            version,
            suite,
            hidden,
            connection: reader.u32()?,
            server_time: Timestamp::from_nanos(reader.u64()?),
            idle_timeout: Duration::from_millis(u64::from(reader.u32()?)),
            resume_window: Duration::from_millis(u64::from(reader.u32()?)),
        };
        Ok((accept, Ticket::read(&mut reader)?))
    }
}

/// Puts the parts of an ACCEPT together.
pub(crate) fn accept(nonce: &[u8; 16], noise: &[u8; MESSAGE_2_BYTES]) -> [u8; ACCEPT_BYTES] {
    let mut out = [0; ACCEPT_BYTES];
    let header = long_header(kind::ACCEPT);
    let bytes = header.iter().chain(nonce).chain(noise);
    out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = *byte);
    out
}

/// Reads an ACCEPT that answers the HELLO with `nonce` as far as that goes without keys.
pub(crate) fn parse_accept<'a>(
    bytes: &'a [u8],
    nonce: &[u8; 16],
) -> Result<&'a [u8; MESSAGE_2_BYTES], DropCause> {
    if bytes.len() != ACCEPT_BYTES {
        return Err(DropCause::Malformed);
    }
    if handshake_nonce(bytes).as_ref() != Some(nonce) {
        return Err(DropCause::AnswerBad);
    }
    bytes.last_chunk().ok_or(DropCause::Malformed)
}

#[cfg(test)]
mod tests;
