//! The secret that a relay and its server share, and the tags made from it: relay spec, section 3.

use std::fmt;

use aws_lc_rs::constant_time;
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use twinspan_core::random::SecretSource;
use zeroize::Zeroizing;

/// Bytes of a tag.
pub const TAG_BYTES: usize = 8;

/// The secret that a server shares with its relays.
#[derive(Clone)]
pub struct TrunkKey(Zeroizing<[u8; 32]>);

impl TrunkKey {
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

    /// Whether this is the same key, in a time that tells nothing of where they differ.
    pub fn is_same(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(self.0.as_slice(), other.0.as_slice()).is_ok()
    }

    fn tag(&self, direction: Direction) -> TrunkTag {
        let key = hmac::Key::new(HMAC_SHA256, self.0.as_slice());
        let digest = hmac::sign(&key, direction.label());
        let mut bytes = [0; TAG_BYTES];
        bytes.iter_mut().zip(digest.as_ref()).for_each(|(out, byte)| *out = *byte);
        TrunkTag::from_bytes(bytes)
    }
}

impl fmt::Debug for TrunkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrunkKey")
    }
}

/// Which way a trunk datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a relay to a server.
    ToServer,
    /// From a server to a relay.
    ToRelay,
}

impl Direction {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::ToServer => b"twinspan trunk v1 to server",
            Self::ToRelay => b"twinspan trunk v1 to relay",
        }
    }
}

/// What every datagram of a trunk ends with: proof that its sender knows the key, or has seen such
/// a datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TrunkTag(u64);

impl TrunkTag {
    /// The tag with these bytes.
    pub const fn from_bytes(bytes: [u8; TAG_BYTES]) -> Self {
        Self(u64::from_le_bytes(bytes))
    }

    /// Its bytes: a secret.
    pub const fn to_bytes(self) -> [u8; TAG_BYTES] {
        self.0.to_le_bytes()
    }
}

impl fmt::Debug for TrunkTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrunkTag")
    }
}

/// The tags that are taken on one direction: the present key's, and while keys change also that of
/// the key before.
#[derive(Clone, Copy, Debug)]
pub struct TrunkTags {
    present: TrunkTag,
    before: TrunkTag,
}

impl TrunkTags {
    /// The tags of `direction` under `present`, and under `before` while that is still in use.
    pub fn new(present: &TrunkKey, before: Option<&TrunkKey>, direction: Direction) -> Self {
        let present = present.tag(direction);
        Self { present, before: before.map_or(present, |key| key.tag(direction)) }
    }

    /// The tag to send.
    pub const fn present(&self) -> TrunkTag {
        self.present
    }

    /// Whether `tag` is one of them.
    pub const fn match_one(&self, tag: TrunkTag) -> bool {
        tag.0 == self.present.0 || tag.0 == self.before.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_core::random::Stream;

    /// Made with another library.
    #[test]
    fn tags_have_golden_bytes() {
        let key = TrunkKey::from_bytes([7; 32]);
        let to_server = TrunkTags::new(&key, None, Direction::ToServer).present().to_bytes();
        let to_relay = TrunkTags::new(&key, None, Direction::ToRelay).present().to_bytes();
        assert_eq!(to_server, GOLDEN_TO_SERVER);
        assert_eq!(to_relay, GOLDEN_TO_RELAY);
    }
    const GOLDEN_TO_SERVER: [u8; 8] = [0xd3, 0xc5, 0x6b, 0xbb, 0x0d, 0xa9, 0x73, 0x4a];
    const GOLDEN_TO_RELAY: [u8; 8] = [0x9a, 0x3b, 0x2b, 0x46, 0xcb, 0xcb, 0x38, 0x11];

    #[test]
    fn while_keys_change_both_are_taken() {
        let mut secrets = Stream::new(1, "secrets", 0);
        let [old, new, other] = [(); 3].map(|()| TrunkKey::new(&mut secrets));
        let tag = |key| TrunkTags::new(key, None, Direction::ToRelay).present();
        let tags = TrunkTags::new(&new, Some(&old), Direction::ToRelay);
        assert_eq!(tags.present(), tag(&new));
        assert!(tags.match_one(tag(&new)) && tags.match_one(tag(&old)));
        assert!(!tags.match_one(tag(&other)));
        let turned = TrunkTags::new(&new, None, Direction::ToServer).present();
        assert!(!tags.match_one(turned), "a datagram sent back to its sender must not be taken");
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let key = TrunkKey::from_bytes([0xab; 32]);
        let tags = TrunkTags::new(&key, None, Direction::ToServer);
        assert_eq!(format!("{key:?} {:?}", tags.present()), "TrunkKey TrunkTag");
    }
}
