//! The tree's crypto provider for TLS, with a clock, randomness and an X25519 that ask the node.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret,
    SupportedKxGroup,
};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{Error, NamedGroup, PeerMisbehaved};
use zeroize::Zeroizing;

use super::node;

const X25519_BYTES: usize = 32;

/// The provider. Its first key exchange draws from the node, so that a simulated handshake is a
/// function of the seed; the others are for servers that know no X25519.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let made = PROVIDER.get_or_init(|| {
        Arc::new(CryptoProvider {
            kx_groups: vec![&NodeX25519, kx_group::SECP256R1, kx_group::SECP384R1],
            secure_random: &NodeRandom,
            ..default_provider()
        })
    });
    Arc::clone(made)
}

/// The wall clock of the node.
#[derive(Debug)]
pub(super) struct NodeTime;

impl TimeProvider for NodeTime {
    fn current_time(&self) -> Option<UnixTime> {
        let wall = node::wall()?;
        Some(UnixTime::since_unix_epoch(Duration::from_nanos(wall.unix_nanos())))
    }
}

/// The secrets of the node.
#[derive(Debug)]
struct NodeRandom;

impl SecureRandom for NodeRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), GetRandomFailed> {
        if node::fill(out) { Ok(()) } else { Err(GetRandomFailed) }
    }
}

/// X25519 with a key from the secrets of the node.
#[derive(Debug)]
struct NodeX25519;

impl SupportedKxGroup for NodeX25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut scalar = Zeroizing::new([0; X25519_BYTES]);
        NodeRandom.fill(scalar.as_mut_slice())?;
        let failed = |_| Error::General("no X25519 key can be made".to_owned());
        let private = PrivateKey::from_private_key(&X25519, scalar.as_slice())
            .map_err(|_| Error::General("no X25519 key can be made".to_owned()))?;
        let public = private.compute_public_key().map_err(failed)?;
        Ok(Box::new(Started { public: public.as_ref().to_vec(), private }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Started {
    private: PrivateKey,
    public: Vec<u8>,
}

impl ActiveKeyExchange for Started {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let wrong = || Error::from(PeerMisbehaved::InvalidKeyShare);
        if peer.len() != X25519_BYTES {
            return Err(wrong());
        }
        let peer = UnparsedPublicKey::new(&X25519, peer);
        agree(&self.private, peer, wrong(), |secret| Ok(SharedSecret::from(secret)))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

#[cfg(test)]
mod tests {
    use twinspan_provider::TokioEnv;

    use super::*;
    use crate::tls::node::Node;

    #[test]
    fn two_ends_agree_and_nonsense_is_refused() {
        let env = TokioEnv::new(Some(1)).unwrap();
        let mut node = Node::new(&env);
        let mut start = || node.lend(|| NodeX25519.start()).unwrap();
        let (one, other) = (start(), start());
        let (to_one, to_other) = (other.pub_key().to_vec(), one.pub_key().to_vec());
        assert_ne!(to_one, to_other);
        let (one, other) = (one.complete(&to_one).unwrap(), other.complete(&to_other).unwrap());
        assert_eq!(one.secret_bytes(), other.secret_bytes());
        for wrong in [&[0; 32][..], &[1; 31], &[]] {
            assert!(start().complete(wrong).is_err());
        }
    }

    #[test]
    fn without_a_node_there_is_no_key() {
        assert!(NodeX25519.start().is_err());
        assert!(NodeTime.current_time().is_none());
    }
}
