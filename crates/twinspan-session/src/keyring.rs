//! The static keys that a server answers under: identities and token keys, and how they rotate.

use crate::identity::{KeyPair, PublicKey, ServerIdentity, TokenKey};
use crate::messages::PublicMacs;

/// Identities, and token keys, that are live at once: the present one and the one before.
pub(crate) const LIVE_KEYS_MAX: usize = 2;

/// A static key pair with what is made of it once.
pub(crate) struct Identity {
    identity: ServerIdentity,
    pub(crate) key_id: u32,
    pub(crate) macs: PublicMacs,
}

impl Identity {
    fn new(identity: ServerIdentity) -> Self {
        let macs = PublicMacs::new(&identity.public_key());
        Self { key_id: identity.key_id(), macs, identity }
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        self.identity.pair()
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.identity.public_key()
    }
}

/// What a key id in a HELLO leads to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sealed<'a> {
    /// The private part is a connect token's.
    Token(&'a TokenKey),
    /// The private part is a resume ticket's.
    Ticket(&'a TokenKey),
}

/// A token key, the ticket key that is made of it, and the names of both.
struct TokenKeys {
    token: TokenKey,
    token_id: u32,
    ticket: TokenKey,
    ticket_id: u32,
}

impl TokenKeys {
    fn new(token: TokenKey) -> Self {
        let ticket = token.ticket_key();
        Self { token_id: token.key_id(), ticket_id: ticket.key_id(), token, ticket }
    }
}

/// The live keys, newest first: never empty, at most [`LIVE_KEYS_MAX`] of a kind.
pub(crate) struct Keyring {
    identities: Vec<Identity>,
    tokens: Vec<TokenKeys>,
}

impl Keyring {
    pub(crate) fn new(identity: ServerIdentity, token_key: TokenKey) -> Self {
        Self { identities: vec![Identity::new(identity)], tokens: vec![TokenKeys::new(token_key)] }
    }

    /// The present identity.
    pub(crate) fn present(&self) -> Option<&Identity> {
        self.identities.first()
    }

    /// The live identity with this key id.
    pub(crate) fn identity(&self, key_id: u32) -> Option<&Identity> {
        self.identities.iter().find(|identity| identity.key_id == key_id)
    }

    /// What a private part under this key id is, and what opens it.
    pub(crate) fn sealed(&self, key_id: u32) -> Option<Sealed<'_>> {
        self.tokens.iter().find_map(|keys| match key_id {
            id if id == keys.token_id => Some(Sealed::Token(&keys.token)),
            id if id == keys.ticket_id => Some(Sealed::Ticket(&keys.ticket)),
            _ => None,
        })
    }

    /// The key under which new tickets are sealed, and its id.
    pub(crate) fn ticket_key(&self) -> Option<(&TokenKey, u32)> {
        self.tokens.first().map(|keys| (&keys.ticket, keys.ticket_id))
    }

    /// Makes `identity` the present one; returns the one that is live no longer. One that is live
    /// already becomes the present one and puts nobody out.
    pub(crate) fn rotate_identity(&mut self, identity: ServerIdentity) -> Option<PublicKey> {
        let new = Identity::new(identity);
        self.identities.retain(|live| live.key_id != new.key_id);
        self.identities.insert(0, new);
        let mut out = self.identities.drain(LIVE_KEYS_MAX.min(self.identities.len())..);
        out.next_back().map(|gone| gone.public_key())
    }

    /// The same with token keys; returns the id of the one that is live no longer.
    pub(crate) fn rotate_token_key(&mut self, token_key: TokenKey) -> Option<u32> {
        let new = TokenKeys::new(token_key);
        self.tokens.retain(|live| live.token_id != new.token_id);
        self.tokens.insert(0, new);
        let mut out = self.tokens.drain(LIVE_KEYS_MAX.min(self.tokens.len())..);
        out.next_back().map(|gone| gone.token_id)
    }

    /// Leaves the present keys alone live.
    pub(crate) fn retire_old(&mut self) {
        self.identities.truncate(1);
        self.tokens.truncate(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(secret: u8) -> ServerIdentity {
        ServerIdentity::from_secret(&[secret; 32])
    }

    fn token_key(secret: u8) -> TokenKey {
        TokenKey::from_bytes([secret; 32])
    }

    /// What a key id leads to: the id of the key, and whether it is a ticket's.
    fn kind(ring: &Keyring, key_id: u32) -> Option<(u32, bool)> {
        ring.sealed(key_id).map(|sealed| match sealed {
            Sealed::Token(key) => (key.key_id(), false),
            Sealed::Ticket(key) => (key.key_id(), true),
        })
    }

    #[test]
    fn the_present_key_and_the_one_before_are_live() {
        let mut ring = Keyring::new(identity(1), token_key(1));
        assert_eq!(ring.rotate_identity(identity(2)), None);
        assert_eq!(ring.rotate_token_key(token_key(2)), None);
        for secret in [1, 2] {
            assert!(ring.identity(identity(secret).key_id()).is_some());
            let key = token_key(secret).key_id();
            assert_eq!(kind(&ring, key), Some((key, false)));
            let ticket = token_key(secret).ticket_key().key_id();
            assert_eq!(kind(&ring, ticket), Some((ticket, true)));
        }
        assert_eq!(ring.ticket_key().unwrap().1, token_key(2).ticket_key().key_id());
        assert_eq!(ring.rotate_identity(identity(3)), Some(identity(1).public_key()));
        assert_eq!(ring.rotate_token_key(token_key(3)), Some(token_key(1).key_id()));
        assert!(ring.identity(identity(1).key_id()).is_none());
        assert!(ring.sealed(token_key(1).key_id()).is_none());
        assert!(ring.sealed(token_key(1).ticket_key().key_id()).is_none());
        ring.retire_old();
        assert!(ring.identity(identity(2).key_id()).is_none());
        assert!(ring.identity(identity(3).key_id()).is_some());
        assert!(ring.sealed(token_key(2).key_id()).is_none());
    }

    #[test]
    fn a_key_that_is_live_already_puts_nobody_out() {
        let mut ring = Keyring::new(identity(1), token_key(1));
        ring.rotate_identity(identity(2));
        ring.rotate_token_key(token_key(2));
        assert_eq!(ring.rotate_identity(identity(1)), None);
        assert_eq!(ring.rotate_token_key(token_key(1)), None);
        assert!(ring.identity(identity(2).key_id()).is_some());
        assert!(ring.sealed(token_key(2).key_id()).is_some());
        assert_eq!(ring.ticket_key().unwrap().1, token_key(1).ticket_key().key_id());
    }
}
