//! The server's static key, the token key, and the hashes made with them.

use core::fmt;
use std::sync::Arc;

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use twinspan_core::random::SecretSource;
use zeroize::Zeroizing;

use crate::noise::OutputLen;

/// A user, as the login service counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub u64);

/// A server's static X25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The short name that tokens carry, session 2.2.
    pub fn key_id(&self) -> u32 {
        key_id(b"twinspan server key id", &self.0)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:08x})", self.key_id())
    }
}

/// The key that a login service and its servers share, with which tokens are sealed.
#[derive(Clone)]
pub struct TokenKey(Zeroizing<[u8; 32]>);

impl TokenKey {
    /// A fresh key.
    pub fn new(secrets: &mut dyn SecretSource) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        secrets.fill(bytes.as_mut_slice());
        Self(bytes)
    }

    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes: a secret.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The short name that tokens carry, session 2.2.
    pub fn key_id(&self) -> u32 {
        key_id(b"twinspan token key id", self.as_bytes())
    }

    /// The key under which servers seal resume tickets, session 2.5.
    pub(crate) fn ticket_key(&self) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        let prk = Prk::new_less_safe(HKDF_SHA256, self.as_bytes());
        let filled = prk
            .expand(&[b"twinspan ticket key v1"], OutputLen(32))
            .and_then(|okm| okm.fill(bytes.as_mut_slice()));
        assert!(filled.is_ok(), "HKDF gives up to 8,160 bytes");
        Self(bytes)
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({:08x})", self.key_id())
    }
}

/// An X25519 key pair, static or ephemeral.
pub(crate) struct KeyPair {
    private: PrivateKey,
    public: [u8; 32],
}

impl KeyPair {
    /// The pair of this secret.
    pub(crate) fn from_secret(secret: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "any 32 bytes are an X25519 private key")]
        let private = PrivateKey::from_private_key(&X25519, secret).expect("32 bytes");
        #[expect(clippy::expect_used, reason = "every X25519 private key has a public one")]
        let computed = private.compute_public_key().expect("a private key");
        let mut public = [0; 32];
        public.iter_mut().zip(computed.as_ref()).for_each(|(out, byte)| *out = *byte);
        Self { private, public }
    }

    /// A fresh pair.
    pub(crate) fn generate(secrets: &mut dyn SecretSource) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        secrets.fill(secret.as_mut_slice());
        Self::from_secret(&secret)
    }

    pub(crate) const fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// What this pair and `peer` share; `None` for a peer key of small order.
    pub(crate) fn agree(&self, peer: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        let peer = UnparsedPublicKey::new(&X25519, peer);
        agreement::agree(&self.private, peer, (), |shared| {
            shared.try_into().map(Zeroizing::new).map_err(|_| ())
        })
        .ok()
    }
}

/// A server's static X25519 key pair. Clones, one for each shard, are of one pair.
#[derive(Clone)]
pub struct ServerIdentity {
    pair: Arc<KeyPair>,
}

impl ServerIdentity {
    /// A fresh identity.
    pub fn new(secrets: &mut dyn SecretSource) -> Self {
        Self { pair: Arc::new(KeyPair::generate(secrets)) }
    }

    /// The identity with this X25519 secret.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self { pair: Arc::new(KeyPair::from_secret(secret)) }
    }

    /// What tokens pin.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(*self.pair.public())
    }

    /// The short name that tokens carry, session 2.2.
    pub fn key_id(&self) -> u32 {
        self.public_key().key_id()
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.pair
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerIdentity({:08x})", self.key_id())
    }
}

/// SHA-256 over the parts.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.iter_mut().zip(context.finish().as_ref()).for_each(|(out, byte)| *out = *byte);
    out
}

fn key_id(label: &[u8], key: &[u8]) -> u32 {
    let [a, b, c, d, ..] = sha256(&[label, key]);
    u32::from_le_bytes([a, b, c, d])
}

/// An HMAC-SHA256 key whose tags are cut to 16 bytes.
#[derive(Clone)]
pub(crate) struct MacKey(hmac::Key);

impl MacKey {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(HMAC_SHA256, key))
    }

    /// The key that everyone who knows the server's public key can make.
    pub(crate) fn of_server(label: &[u8], server: &PublicKey) -> Self {
        Self::new(&sha256(&[label, server.as_bytes()]))
    }

    pub(crate) fn tag(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        let mut out = [0; 16];
        out.iter_mut().zip(context.sign().as_ref()).for_each(|(out, byte)| *out = *byte);
        out
    }

    /// Compares in constant time.
    pub(crate) fn verify(&self, parts: &[&[u8]], tag: &[u8; 16]) -> bool {
        verify_slices_are_equal(&self.tag(parts), tag).is_ok()
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with another library.
    #[test]
    fn x25519_agrees_with_its_golden_values() {
        let hex = |bytes: &[u8; 32]| -> String {
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let (alice, bob) = (KeyPair::from_secret(&[7; 32]), KeyPair::from_secret(&[9; 32]));
        assert_eq!(
            hex(alice.public()),
            "13be4feaeaf204c7fd3358fc9c00721881d174278128227ec674f37f7fe97b6d"
        );
        assert_eq!(
            hex(&alice.agree(bob.public()).unwrap()),
            "2ffe325b2a26611bf1911325d4a62b33749b8f350d0e88ba91e316acaae66554"
        );
        assert_eq!(alice.agree(bob.public()), bob.agree(alice.public()));
    }

    #[test]
    fn a_key_of_small_order_agrees_on_nothing() {
        assert!(KeyPair::from_secret(&[7; 32]).agree(&[0; 32]).is_none());
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let identity = ServerIdentity::from_secret(&[0xab; 32]);
        let key = TokenKey::from_bytes([0xcd; 32]);
        let text = format!("{identity:?} {key:?} {:?}", MacKey::new(&[0xef; 32]));
        for secret in ["abab", "cdcd", "efef", "171, 171", "205, 205", "239, 239"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
