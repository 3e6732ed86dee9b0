//! Connect tokens: what a login service hands out and a server lets in.

use core::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use twinspan_core::aead::TAG_BYTES;
use twinspan_core::bytes::{ReadError, Reader};
use twinspan_core::random::SecretSource;
use zeroize::Zeroizing;

use crate::error::TokenError;
use crate::identity::{PublicKey, TokenKey, UserId, sha256};
use crate::noise::{OutputLen, Secret};

/// Bytes of a token.
pub const TOKEN_BYTES: usize = 218;
const CHECKSUM_BYTES: usize = 10;
const CHECKED_BYTES: usize = TOKEN_BYTES - CHECKSUM_BYTES;
const MAGIC: [u8; 4] = *b"TSTK";
const LAYOUT: u8 = 1;

/// Bytes of the public part.
pub(crate) const PUBLIC_PART_BYTES: usize = 32;
const PRIVATE_TEXT_BYTES: usize = 64;
/// Bytes of the private part's text behind psk and user.
pub(crate) const PRIVATE_REST_BYTES: usize = PRIVATE_TEXT_BYTES - 32 - 8;
/// Bytes of the sealed private part.
pub(crate) const PRIVATE_PART_BYTES: usize = PRIVATE_TEXT_BYTES + TAG_BYTES;

/// What everyone may see of a token, session 2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublicPart {
    pub(crate) id: [u8; 16],
    pub(crate) expires_at_unix_s: u64,
    pub(crate) token_key_id: u32,
    pub(crate) server_key_id: u32,
}

impl PublicPart {
    pub(crate) fn to_bytes(self) -> [u8; PUBLIC_PART_BYTES] {
        let mut out = [0; PUBLIC_PART_BYTES];
        let parts = self
            .id
            .into_iter()
            .chain(self.expires_at_unix_s.to_le_bytes())
            .chain(self.token_key_id.to_le_bytes())
            .chain(self.server_key_id.to_le_bytes());
        out.iter_mut().zip(parts).for_each(|(out, byte)| *out = byte);
        out
    }

    pub(crate) fn parse(bytes: &[u8; PUBLIC_PART_BYTES]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(bytes);
        Ok(Self {
            id: reader.array()?,
            expires_at_unix_s: reader.u64()?,
            token_key_id: reader.u32()?,
            server_key_id: reader.u32()?,
        })
    }
}

/// What the server alone reads of a token, session 2.3.
pub(crate) struct PrivatePart {
    pub(crate) psk: Secret,
    pub(crate) user: UserId,
    /// Zero in a token; a resume ticket has more to say.
    pub(crate) rest: [u8; PRIVATE_REST_BYTES],
}

/// Seals the private part under a key that this token alone has.
pub(crate) fn seal(
    key: &TokenKey,
    public: &[u8; PUBLIC_PART_BYTES],
    private: &PrivatePart,
) -> Option<Sealed> {
    let mut out = Zeroizing::new([0; PRIVATE_PART_BYTES]);
    let text = private.psk.iter().copied().chain(private.user.0.to_le_bytes()).chain(private.rest);
    out.iter_mut().zip(text).for_each(|(out, byte)| *out = byte);
    let (cipher, nonce) = token_cipher(key, public)?;
    let (text, room) = out.split_at_mut(PRIVATE_TEXT_BYTES);
    let tag = cipher.seal_in_place_separate_tag(nonce, Aad::from(public), text).ok()?;
    room.copy_from_slice(tag.as_ref());
    Some(*out)
}

type Sealed = [u8; PRIVATE_PART_BYTES];

/// Opens the private part; `None` when it was not sealed under `key` with this public part.
pub(crate) fn open(
    key: &TokenKey,
    public: &[u8; PUBLIC_PART_BYTES],
    sealed: &Sealed,
) -> Option<PrivatePart> {
    let mut text = Zeroizing::new(*sealed);
    let (cipher, nonce) = token_cipher(key, public)?;
    cipher.open_in_place(nonce, Aad::from(public), text.as_mut_slice()).ok()?;
    let mut reader = Reader::new(text.as_slice());
    let psk = Secret::new(reader.array().ok()?);
    let user = UserId(reader.u64().ok()?);
    Some(PrivatePart { psk, user, rest: reader.array().ok()? })
}

fn token_cipher(key: &TokenKey, public: &[u8; PUBLIC_PART_BYTES]) -> Option<(LessSafeKey, Nonce)> {
    let (id, _) = public.split_first_chunk::<16>()?;
    let prk = Salt::new(HKDF_SHA256, id).extract(key.as_bytes());
    let mut out = Zeroizing::new([0; 44]);
    prk.expand(&[b"twinspan token v1"], OutputLen(44)).ok()?.fill(out.as_mut_slice()).ok()?;
    let (key, nonce) = out.split_first_chunk::<32>()?;
    let cipher = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok()?);
    Some((cipher, Nonce::try_assume_unique_for_key(nonce).ok()?))
}

/// The login service's half: makes tokens that let users in at one server.
#[derive(Clone, Debug)]
pub struct TokenIssuer {
    key: TokenKey,
    server: PublicKey,
}

impl TokenIssuer {
    /// An issuer that shares `token_key` with the servers whose public key is `server`.
    pub const fn new(token_key: TokenKey, server: PublicKey) -> Self {
        Self { key: token_key, server }
    }

    /// A token that lets `user` set up one session with the server at `server` until it expires.
    pub fn issue(
        &self,
        secrets: &mut dyn SecretSource,
        user: UserId,
        server: SocketAddr,
        expires_at_unix_s: u64,
    ) -> ConnectToken {
        let mut id = [0; 16];
        let mut psk = Secret::new([0; 32]);
        secrets.fill(&mut id);
        secrets.fill(psk.as_mut_slice());
        let public = PublicPart {
            id,
            expires_at_unix_s,
            token_key_id: self.key.key_id(),
            server_key_id: self.server.key_id(),
        };
        let private = PrivatePart { psk, user, rest: [0; PRIVATE_REST_BYTES] };
        #[expect(clippy::expect_used, reason = "key, nonce and text have the cipher's fixed sizes")]
        let sealed = seal(&self.key, &public.to_bytes(), &private).expect("sizes are fixed");
        ConnectToken { server, server_key: self.server, psk: private.psk, user, public, sealed }
    }
}

/// What lets one user set up one session: a secret until it is spent or has expired.
#[derive(Clone)]
pub struct ConnectToken {
    server: SocketAddr,
    server_key: PublicKey,
    psk: Secret,
    user: UserId,
    public: PublicPart,
    sealed: Sealed,
}

impl ConnectToken {
    pub(crate) const fn of_parts(
        server: SocketAddr,
        server_key: PublicKey,
        psk: Secret,
        user: UserId,
        public: PublicPart,
        sealed: Sealed,
    ) -> Self {
        Self { server, server_key, psk, user, public, sealed }
    }

    /// Where the server is, as the issuer knows it.
    pub const fn server_addr(&self) -> SocketAddr {
        self.server
    }

    /// The server's static key.
    pub const fn server_key(&self) -> PublicKey {
        self.server_key
    }

    /// Whom it lets in.
    pub const fn user(&self) -> UserId {
        self.user
    }

    /// When it expires, in seconds since 1970.
    pub const fn expires_at_unix_s(&self) -> u64 {
        self.public.expires_at_unix_s
    }

    pub(crate) const fn psk(&self) -> &Secret {
        &self.psk
    }

    pub(crate) const fn public_part(&self) -> &PublicPart {
        &self.public
    }

    pub(crate) const fn private_part(&self) -> &Sealed {
        &self.sealed
    }

    /// Its bytes: a secret.
    pub fn to_bytes(&self) -> Zeroizing<[u8; TOKEN_BYTES]> {
        let (family, address) = match self.server.ip() {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                (4, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            }
            IpAddr::V6(address) => (6, address.octets()),
        };
        let mut out = Zeroizing::new([0; TOKEN_BYTES]);
        let parts = MAGIC
            .into_iter()
            .chain([LAYOUT, family])
            .chain(address)
            .chain(self.server.port().to_le_bytes())
            .chain(*self.server_key.as_bytes())
            .chain(self.psk.iter().copied())
            .chain(self.user.0.to_le_bytes())
            .chain(self.public.to_bytes())
            .chain(self.sealed);
        out.iter_mut().zip(parts).for_each(|(out, byte)| *out = byte);
        let (checked, checksum) = out.split_at_mut(CHECKED_BYTES);
        let digest = sha256(&[checked]);
        checksum.iter_mut().zip(digest).for_each(|(out, byte)| *out = byte);
        out
    }

    /// Reads a token's bytes.
    ///
    /// # Errors
    /// [`TokenError`] says what is wrong with them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenError> {
        let length = TokenError::Length { have: bytes.len(), need: TOKEN_BYTES };
        let bytes: &[u8; TOKEN_BYTES] = bytes.try_into().map_err(|_| length)?;
        let (checked, checksum) = bytes.split_at(CHECKED_BYTES);
        if !checked.starts_with(&MAGIC) || checked.get(MAGIC.len()) != Some(&LAYOUT) {
            return Err(TokenError::NotAToken);
        }
        if !sha256(&[checked]).starts_with(checksum) {
            return Err(TokenError::Damaged);
        }
        Self::read(checked).ok().flatten().ok_or(TokenError::NotAToken)
    }

    fn read(checked: &[u8]) -> Result<Option<Self>, ReadError> {
        let mut reader = Reader::new(checked);
        reader.take(MAGIC.len() + 1)?;
        let family = reader.u8()?;
        let address: [u8; 16] = reader.array()?;
        let ip = match (family, address) {
            (4, [a, b, c, d, rest @ ..]) if rest == [0; 12] => {
                IpAddr::V4(Ipv4Addr::new(a, b, c, d))
            }
            (6, octets) => IpAddr::V6(Ipv6Addr::from(octets)),
            _ => return Ok(None),
        };
        Ok(Some(Self {
            server: SocketAddr::new(ip, reader.u16()?),
            server_key: PublicKey::from_bytes(reader.array()?),
            psk: Secret::new(reader.array()?),
            user: UserId(reader.u64()?),
            public: PublicPart::parse(&reader.array()?)?,
            sealed: reader.array()?,
        }))
    }

    /// Its bytes in lower-case hexadecimal: a secret.
    pub fn to_text(&self) -> String {
        const DIGITS: [char; 16] =
            ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
        let bytes = self.to_bytes();
        let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        nibbles.filter_map(|nibble| DIGITS.get(usize::from(nibble))).collect()
    }

    /// Reads a token's text; white space around it does not matter.
    ///
    /// # Errors
    /// [`TokenError`] says what is wrong with it.
    pub fn from_text(text: &str) -> Result<Self, TokenError> {
        let text = text.trim().as_bytes();
        let length = TokenError::Length { have: text.len() / 2, need: TOKEN_BYTES };
        if text.len() != 2 * TOKEN_BYTES {
            return Err(length);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(TokenError::NotHexadecimal);
        let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
        for (out, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let [high, low] = *pair else { return Err(length) };
            *out = (digit(high)? << 4 | digit(low)?) as u8;
        }
        Self::from_bytes(bytes.as_slice())
    }
}

impl fmt::Debug for ConnectToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectToken")
            .field("server", &self.server)
            .field("user", &self.user)
            .field("expires_at_unix_s", &self.public.expires_at_unix_s)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use twinspan_core::random::Stream;

    fn key() -> TokenKey {
        TokenKey::from_bytes([5; 32])
    }

    fn token(server: &str) -> ConnectToken {
        let issuer = TokenIssuer::new(key(), PublicKey::from_bytes([6; 32]));
        let mut secrets = Stream::new(1, "secrets", 0);
        issuer.issue(&mut secrets, UserId(77), server.parse().unwrap(), 2_000_000_000)
    }

    #[test]
    fn a_token_survives_bytes_and_text() {
        for server in ["192.0.2.1:7700", "[2001:db8::1]:7700"] {
            let token = token(server);
            let again = ConnectToken::from_bytes(token.to_bytes().as_slice()).unwrap();
            assert_eq!(again.to_bytes(), token.to_bytes());
            assert_eq!(again.server_addr(), server.parse().unwrap());
            assert_eq!(again.user(), UserId(77));
            assert_eq!(again.expires_at_unix_s(), 2_000_000_000);
            let text = format!("  {}\n", token.to_text());
            assert_eq!(ConnectToken::from_text(&text).unwrap().to_bytes(), token.to_bytes());
        }
    }

    /// Another implementation reads tokens made by this one only while these bytes stay.
    #[test]
    fn a_token_has_its_golden_text() {
        assert_eq!(token("192.0.2.1:7700").to_text(), include_str!("golden/token.hex").trim());
    }

    #[test]
    fn the_private_part_opens_under_its_key_and_public_part_alone() {
        let token = token("192.0.2.1:7700");
        let public = token.public.to_bytes();
        let private = open(&key(), &public, &token.sealed).unwrap();
        assert_eq!(private.user, UserId(77));
        assert_eq!(private.psk, token.psk);
        assert!(open(&TokenKey::from_bytes([4; 32]), &public, &token.sealed).is_none());
        for index in 0..PUBLIC_PART_BYTES {
            let mut forged = public;
            forged[index] ^= 1;
            assert!(open(&key(), &forged, &token.sealed).is_none());
        }
        for index in 0..PRIVATE_PART_BYTES {
            let mut forged = token.sealed;
            forged[index] ^= 1;
            assert!(open(&key(), &public, &forged).is_none());
        }
    }

    #[test]
    fn a_damaged_token_is_named() {
        let bytes = token("192.0.2.1:7700").to_bytes();
        for index in 0..TOKEN_BYTES {
            let mut damaged = *bytes;
            damaged[index] ^= 1;
            let expected = if index < 5 { TokenError::NotAToken } else { TokenError::Damaged };
            assert_eq!(ConnectToken::from_bytes(&damaged).err(), Some(expected));
        }
        let length = TokenError::Length { have: 217, need: 218 };
        assert_eq!(ConnectToken::from_bytes(&bytes[..217]).err(), Some(length));
        let text = "g".repeat(436);
        assert_eq!(ConnectToken::from_text(&text).err(), Some(TokenError::NotHexadecimal));
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let token = token("192.0.2.1:7700");
        let text = format!("{token:?}");
        assert_eq!(
            text,
            "ConnectToken { server: 192.0.2.1:7700, user: UserId(77), expires_at_unix_s: \
             2000000000, .. }"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_token_or_name_a_reason(bytes: Vec<u8>, text: String) {
            prop_assert!(ConnectToken::from_bytes(&bytes).is_err());
            prop_assert!(ConnectToken::from_text(&text).is_err());
        }
    }
}
