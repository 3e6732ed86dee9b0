//! Packet protection: keys of one direction, and how a packet is sealed and opened with them.

use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use twinspan_core::aead::{AeadSuite, Cipher, NONCE_BYTES, PacketKey, TAG_BYTES};

use crate::header::HEADER_BYTES;
use crate::noise::{OutputLen, Secret};

/// The keys of one direction and phase, session 5.2.
pub(crate) struct DirectionKey {
    key: Box<dyn PacketKey>,
    iv: [u8; NONCE_BYTES],
}

impl DirectionKey {
    /// `None` when the suite has no such cipher.
    pub(crate) fn new(suite: &dyn AeadSuite, cipher: Cipher, secret: &Secret) -> Option<Self> {
        let (key, iv) = key_and_iv(cipher, secret)?;
        Some(Self { key: suite.key(cipher, &key)?, iv })
    }

    /// See [`PacketKey::prefetch`].
    pub(crate) fn prefetch(&self) {
        self.key.prefetch();
    }

    /// Nonce = IV xor the big-endian packet number, session 5.3.
    fn nonce(&self, number: u64) -> [u8; NONCE_BYTES] {
        let mut nonce = self.iv;
        let low = nonce.iter_mut().skip(NONCE_BYTES - 8);
        low.zip(number.to_be_bytes()).for_each(|(out, byte)| *out ^= byte);
        nonce
    }

    /// Seals a packet whose first bytes are its header and whose last are room for the tag.
    pub(crate) fn seal(&self, number: u64, packet: &mut [u8]) {
        let Some((header, body)) = packet.split_first_chunk_mut::<HEADER_BYTES>() else { return };
        debug_assert!(body.len() >= TAG_BYTES, "a packet has room for its tag");
        self.key.seal(self.nonce(number), header, body);
    }

    /// Opens a packet in place and returns its text; `None` when the tag does not verify.
    pub(crate) fn open<'a>(&self, number: u64, packet: &'a mut [u8]) -> Option<&'a [u8]> {
        let (header, body) = packet.split_first_chunk_mut::<HEADER_BYTES>()?;
        let len = self.key.open(self.nonce(number), header, body).ok()?;
        body.get(..len)
    }
}

/// Which end of the session this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

pub(crate) fn key_and_iv(cipher: Cipher, secret: &Secret) -> Option<(Secret, [u8; NONCE_BYTES])> {
    let mut key = Secret::new([0; 32]);
    let mut iv = [0; NONCE_BYTES];
    expand(secret, b"twinspan v1 key", cipher, key.as_mut_slice())?;
    expand(secret, b"twinspan v1 iv", cipher, &mut iv)?;
    Some((key, iv))
}

/// What the header key of a direction is made from, session 5.2.
pub(crate) fn header_secret(cipher: Cipher, secret: &Secret) -> Option<Secret> {
    let mut header = Secret::new([0; 32]);
    expand(secret, b"twinspan v1 header", cipher, header.as_mut_slice())?;
    Some(header)
}

/// The secret of the phase after the one of `secret`, session 5.2.
pub(crate) fn next_secret(cipher: Cipher, secret: &Secret) -> Option<Secret> {
    let mut next = Secret::new([0; 32]);
    expand(secret, b"twinspan v1 next", cipher, next.as_mut_slice())?;
    Some(next)
}

/// The next phase's secret with an exchange mixed into it, session 5.8.
pub(crate) fn mixed_secret(
    cipher: Cipher,
    next: &Secret,
    shared: &Secret,
    offer: &[u8; 32],
    answer: &[u8; 32],
) -> Option<Secret> {
    let prk = Salt::new(HKDF_SHA256, next.as_slice()).extract(shared.as_slice());
    let mut mixed = Secret::new([0; 32]);
    let info = [&b"twinspan v1 mix"[..], &[cipher as u8], offer, answer];
    prk.expand(&info, OutputLen(32)).ok()?.fill(mixed.as_mut_slice()).ok()?;
    Some(mixed)
}

/// HKDF-Expand with the secret as PRK and info = label ‖ suite.
fn expand(secret: &Secret, label: &[u8], cipher: Cipher, out: &mut [u8]) -> Option<()> {
    let prk = Prk::new_less_safe(HKDF_SHA256, secret.as_slice());
    prk.expand(&[label, &[cipher as u8]], OutputLen(out.len())).ok()?.fill(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::CryptoSuite;

    fn key(cipher: Cipher) -> DirectionKey {
        DirectionKey::new(&CryptoSuite::AES_FIRST, cipher, &Secret::new([9; 32])).unwrap()
    }

    #[test]
    fn the_nonce_is_the_iv_with_the_big_endian_number() {
        let key = DirectionKey { iv: [0; 12], ..key(Cipher::Aes128Gcm) };
        assert_eq!(key.nonce(0x0102), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        let key = DirectionKey { iv: [0xff; 12], ..key };
        assert_eq!(key.nonce(1)[11], 0xfe);
    }

    /// Made with another library: header, sealed text, tag.
    #[test]
    fn sealed_packets_have_their_golden_bytes() {
        const HEADER: [u8; 14] = [0x44, 0x33, 0x22, 0x11, 0x42, 0, 8, 7, 6, 5, 4, 3, 2, 1];
        for (cipher, golden) in [
            (Cipher::ChaCha20Poly1305, "caf42bdbb4685979c3068ac7f703739e7c0ebc620e1037"),
            (Cipher::Aes128Gcm, "16aaba4937910f2861bbcf1f8a9e89ce86e03a73972314"),
            (Cipher::Aes256Gcm, "10edc4d118c334a873b0eb6ba89ee4b94b3db79d7b902b"),
        ] {
            let mut packet = [0; 37];
            packet[..14].copy_from_slice(&HEADER);
            packet[14..21].copy_from_slice(b"\x07\x00state");
            key(cipher).seal(0x0102_0304_0506_0708, &mut packet);
            let hex: String = packet[14..].iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, golden, "{cipher:?}");
            let text = key(cipher).open(0x0102_0304_0506_0708, &mut packet);
            assert_eq!(text, Some(&b"\x07\x00state"[..]));
        }
    }

    #[test]
    fn every_header_byte_is_authenticated() {
        for cipher in [Cipher::ChaCha20Poly1305, Cipher::Aes128Gcm, Cipher::Aes256Gcm] {
            let key = key(cipher);
            let mut packet = [7; HEADER_BYTES + 5 + TAG_BYTES];
            key.seal(3, &mut packet);
            for index in 0..HEADER_BYTES {
                let mut forged = packet;
                forged[index] ^= 1;
                assert_eq!(key.open(3, &mut forged), None);
            }
            assert_eq!(key.open(4, &mut packet.clone()), None);
            assert_eq!(key.open(3, &mut packet), Some(&[7; 5][..]));
        }
    }

    #[test]
    fn ciphers_and_labels_lead_to_different_keys() {
        let mut seen = Vec::new();
        for cipher in [Cipher::ChaCha20Poly1305, Cipher::Aes128Gcm] {
            for label in [&b"twinspan v1 key"[..], b"twinspan v1 iv"] {
                let mut out = [0; 12];
                expand(&Secret::new([9; 32]), label, cipher, &mut out).unwrap();
                assert!(!seen.contains(&out));
                seen.push(out);
            }
        }
    }
}
