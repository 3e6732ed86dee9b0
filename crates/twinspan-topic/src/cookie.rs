//! Proof that an address receives, without a byte kept for it; and tokens that nobody guesses.
//!
//! //= hub 8.3

use core::fmt;
use core::time::Duration;
use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{HMAC_SHA256, Key, Tag, sign};
use twinspan_core::random::SecretSource;
use twinspan_core::time::Timestamp;
use zeroize::Zeroizing;

use crate::door::Door;
use crate::wire::COOKIE_BYTES;

/// How long cookies are good for at least; at most for twice as long.
const EPOCH: Duration = Duration::from_secs(30);

/// The secret of a node, and what is made with it.
pub(crate) struct Secret {
    key: Key,
    door: Door,
    tokens: u64,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").finish_non_exhaustive()
    }
}

const fn epoch(now: Timestamp) -> u64 {
    now.as_nanos() / EPOCH.as_nanos() as u64
}

impl Secret {
    pub(crate) fn new(secrets: &mut dyn SecretSource, door: Door) -> Self {
        let mut bytes = [0; 32];
        secrets.fill(&mut bytes);
        Self { key: Key::new(HMAC_SHA256, &bytes), door, tokens: 0 }
    }

    /// A number of the topic that nobody else knows.
    pub(crate) fn token(&mut self) -> u64 {
        self.tokens += 1;
        let mut text = [0; 9];
        text[0] = b't';
        text[1..].copy_from_slice(&self.tokens.to_le_bytes());
        let first = sign(&self.key, &text).as_ref().first_chunk::<8>().copied();
        self.door.token(u64::from_le_bytes(first.unwrap_or_default()))
    }

    pub(crate) fn cookie(
        &self,
        now: Timestamp,
        from: SocketAddr,
        token: u64,
    ) -> [u8; COOKIE_BYTES] {
        let tag = self.tag(epoch(now), from, token);
        tag.as_ref().first_chunk().copied().unwrap_or_default()
    }

    pub(crate) fn is_good(
        &self,
        now: Timestamp,
        from: SocketAddr,
        token: u64,
        cookie: &[u8; COOKIE_BYTES],
    ) -> bool {
        let epoch = epoch(now);
        [Some(epoch), epoch.checked_sub(1)].into_iter().flatten().any(|epoch| {
            let tag = self.tag(epoch, from, token);
            let wanted = tag.as_ref().get(..COOKIE_BYTES).unwrap_or_default();
            verify_slices_are_equal(wanted, cookie).is_ok()
        })
    }

    fn tag(&self, epoch: u64, from: SocketAddr, token: u64) -> Tag {
        let address = match from.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        let mut text = [0; 35];
        text[0] = b'c';
        text[1..9].copy_from_slice(&epoch.to_le_bytes());
        text[9..25].copy_from_slice(&address);
        text[25..27].copy_from_slice(&from.port().to_le_bytes());
        text[27..].copy_from_slice(&token.to_le_bytes());
        sign(&self.key, &text)
    }
}

/// Secret bytes for keys that live shortly. What it gave cannot be told from what it is: each step
/// forgets the one before.
pub(crate) struct Ephemerals(Zeroizing<[u8; 32]>);

impl fmt::Debug for Ephemerals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ephemerals(..)")
    }
}

impl Ephemerals {
    pub(crate) fn new(secrets: &mut dyn SecretSource) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        secrets.fill(bytes.as_mut_slice());
        Self(bytes)
    }
}

impl SecretSource for Ephemerals {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(32) {
            let key = Key::new(HMAC_SHA256, self.0.as_slice());
            let given = sign(&key, b"given");
            chunk.iter_mut().zip(given.as_ref()).for_each(|(out, byte)| *out = *byte);
            let kept = sign(&key, b"kept");
            self.0.iter_mut().zip(kept.as_ref()).for_each(|(out, byte)| *out = *byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use twinspan_core::random::Stream;

    use super::*;

    #[test]
    fn a_cookie_is_bound_to_address_port_token_and_time() {
        let secret = Secret::new(&mut Stream::new(1, "secrets", 0), Door::of("a"));
        let at = |seconds| Timestamp::START.after(Duration::from_secs(seconds));
        let here: SocketAddr = "10.0.0.1:5000".parse().unwrap();
        let cookie = secret.cookie(at(0), here, 7);
        assert!(secret.is_good(at(0), here, 7, &cookie));
        assert!(secret.is_good(at(59), here, 7, &cookie));
        assert!(!secret.is_good(at(60), here, 7, &cookie));
        assert!(!secret.is_good(at(0), here, 8, &cookie));
        assert!(!secret.is_good(at(0), "10.0.0.1:5001".parse().unwrap(), 7, &cookie));
        assert!(!secret.is_good(at(0), "10.0.0.2:5000".parse().unwrap(), 7, &cookie));
        let other = Secret::new(&mut Stream::new(2, "secrets", 0), Door::of("a"));
        assert!(!other.is_good(at(0), here, 7, &cookie));
    }

    #[test]
    fn tokens_differ() {
        let mut secret = Secret::new(&mut Stream::new(1, "secrets", 0), Door::of("a"));
        assert_ne!(secret.token(), secret.token());
    }

    #[test]
    fn ephemeral_secrets_differ_and_follow_from_their_source() {
        let make = || Ephemerals::new(&mut Stream::new(1, "secrets", 0));
        let (mut one, mut other) = (make(), make());
        let mut seen = Vec::new();
        for length in [32, 32, 5, 70] {
            let (mut first, mut second) = (vec![0; length], vec![0; length]);
            one.fill(&mut first);
            other.fill(&mut second);
            assert_eq!(first, second);
            assert!(!seen.contains(&first));
            seen.push(first);
        }
        assert_eq!(format!("{one:?}"), "Ephemerals(..)");
    }
}
