//! Static keys of a server change while it runs.

use super::Endpoint;
use crate::identity::{PublicKey, ServerIdentity, TokenKey};

impl Endpoint {
    /// Makes `identity` the server's present one. Tokens for the one before stay good, until the
    /// next rotation or [`retire_old_keys`](Self::retire_old_keys); returns the identity whose
    /// tokens are good no longer. Sessions and handshakes under way do not notice.
    pub fn rotate_identity(&mut self, identity: ServerIdentity) -> Option<PublicKey> {
        self.door.keyring.rotate_identity(identity)
    }

    /// Makes `key` the present token key. Tokens and resume tickets under the one before stay good,
    /// until the next rotation or [`retire_old_keys`](Self::retire_old_keys); returns the id of the
    /// key whose tokens are good no longer.
    pub fn rotate_token_key(&mut self, key: TokenKey) -> Option<u32> {
        self.door.keyring.rotate_token_key(key)
    }

    /// Ends the overlap of a rotation: the present identity and token key alone are good.
    pub fn retire_old_keys(&mut self) {
        self.door.keyring.retire_old();
    }
}
