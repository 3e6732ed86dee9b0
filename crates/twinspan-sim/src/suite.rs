//! The AEAD suite of the simulator: a keyed 128-bit hash where a cipher would be.

use twinspan_core::aead::{
    AeadSuite, Cipher, HeaderKey, MASK_BYTES, NONCE_BYTES, OpenError, PacketKey, SAMPLE_BYTES,
    SECRET_BYTES, TAG_BYTES,
};
use twinspan_core::prefetch;
use twinspan_core::random::draw;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

/// A suite whose only cipher is [`Cipher::SimulatorTag`]: packets have the same sizes as under a
/// real suite and what was changed, replayed under another nonce or sealed with another key is
/// refused, but nothing is encrypted and an attacker could forge it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimSuite;

impl AeadSuite for SimSuite {
    fn ciphers(&self) -> &[Cipher] {
        &[Cipher::SimulatorTag]
    }

    fn key(&self, cipher: Cipher, secret: &[u8; SECRET_BYTES]) -> Option<Box<dyn PacketKey>> {
        if cipher != Cipher::SimulatorTag {
            return None;
        }
        let half = |number| xxh3_64_with_seed(secret, number);
        Some(Box::new(TagKey {
            seed: half(1),
            mask: u128::from(half(2)) << 64 | u128::from(half(3)),
        }))
    }

    fn header_key(
        &self,
        cipher: Cipher,
        secret: &[u8; SECRET_BYTES],
    ) -> Option<Box<dyn HeaderKey>> {
        let key = MaskKey(xxh3_64_with_seed(secret, 4));
        (cipher == Cipher::SimulatorTag).then(|| Box::new(key) as Box<dyn HeaderKey>)
    }
}

/// A hash of the sample: as little of a secret as the tag.
struct MaskKey(u64);

impl HeaderKey for MaskKey {
    fn mask(&self, sample: [u8; SAMPLE_BYTES]) -> [u8; MASK_BYTES] {
        let [a, b, c, d, e, ..] = xxh3_64_with_seed(&sample, self.0).to_le_bytes();
        [a, b, c, d, e]
    }
}

struct TagKey {
    seed: u64,
    mask: u128,
}

impl TagKey {
    fn tag(&self, nonce: [u8; NONCE_BYTES], associated: &[u8], text: &[u8]) -> [u8; TAG_BYTES] {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = nonce;
        let coordinates = [
            u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            u64::from(u32::from_le_bytes([i, j, k, l])),
            associated.len() as u64,
            xxh3_64_with_seed(associated, self.seed),
        ];
        let seed = draw(self.seed, &coordinates);
        (xxh3_128_with_seed(text, seed) ^ self.mask).to_le_bytes()
    }
}

impl PacketKey for TagKey {
    fn seal(&self, nonce: [u8; NONCE_BYTES], associated: &[u8], buffer: &mut [u8]) {
        let tag = buffer.split_last_chunk_mut::<TAG_BYTES>();
        assert!(tag.is_some(), "a buffer to seal holds at least a tag");
        if let Some((text, tag)) = tag {
            *tag = self.tag(nonce, associated, text);
        }
    }

    fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        buffer: &mut [u8],
    ) -> Result<usize, OpenError> {
        let (text, tag) = buffer.split_last_chunk::<TAG_BYTES>().ok_or(OpenError)?;
        if *tag != self.tag(nonce, associated, text) {
            return Err(OpenError);
        }
        Ok(text.len())
    }

    fn prefetch(&self) {
        prefetch::value(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; NONCE_BYTES] = [1; NONCE_BYTES];

    fn key(secret: u8) -> Box<dyn PacketKey> {
        SimSuite.key(Cipher::SimulatorTag, &[secret; SECRET_BYTES]).unwrap()
    }

    fn sealed() -> [u8; 20] {
        let mut buffer = *b"text................";
        key(1).seal(NONCE, b"head", &mut buffer);
        buffer
    }

    #[test]
    fn what_was_sealed_opens() {
        let mut buffer = sealed();
        assert_eq!(key(1).open(NONCE, b"head", &mut buffer), Ok(4));
        assert_eq!(buffer.get(..4), Some(&b"text"[..]));
    }

    #[test]
    fn any_changed_bit_is_refused() {
        for bit in 0..20 * 8 {
            let mut buffer = sealed();
            buffer[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key(1).open(NONCE, b"head", &mut buffer), Err(OpenError), "bit {bit}");
        }
        for byte in 0..NONCE_BYTES {
            let mut nonce = NONCE;
            nonce[byte] ^= 1;
            assert_eq!(key(1).open(nonce, b"head", &mut sealed()), Err(OpenError));
        }
        assert_eq!(key(1).open(NONCE, b"heae", &mut sealed()), Err(OpenError));
        assert_eq!(key(1).open(NONCE, b"hea", &mut sealed()), Err(OpenError));
        assert_eq!(key(2).open(NONCE, b"head", &mut sealed()), Err(OpenError));
    }

    #[test]
    fn what_is_shorter_than_a_tag_is_refused() {
        for len in 0..TAG_BYTES {
            assert_eq!(key(1).open(NONCE, b"", &mut vec![0; len]), Err(OpenError));
        }
    }

    #[test]
    fn masks_depend_on_key_and_sample() {
        let mask = |secret, sample| {
            let key = SimSuite.header_key(Cipher::SimulatorTag, &[secret; SECRET_BYTES]).unwrap();
            key.mask([sample; SAMPLE_BYTES])
        };
        assert_eq!(mask(1, 1), mask(1, 1));
        assert_ne!(mask(1, 1), mask(2, 1));
        assert_ne!(mask(1, 1), mask(1, 2));
        assert!(SimSuite.header_key(Cipher::Aes128Gcm, &[0; SECRET_BYTES]).is_none());
    }

    #[test]
    fn only_the_simulator_tag_is_on_offer() {
        assert_eq!(SimSuite.ciphers(), [Cipher::SimulatorTag]);
        assert!(SimSuite.key(Cipher::Aes128Gcm, &[0; SECRET_BYTES]).is_none());
    }

    /// Recorded traces stay valid only while this tag does.
    #[test]
    fn the_tag_is_pinned() {
        assert_eq!(sealed().split_last_chunk::<16>().unwrap().1, &PINNED);
    }
    const PINNED: [u8; 16] = [0, 23, 52, 47, 7, 170, 115, 203, 82, 200, 73, 197, 6, 70, 252, 32];
}
