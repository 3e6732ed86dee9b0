//! The production cipher suite: AES-GCM and ChaCha20-Poly1305 from one library.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use twinspan_core::aead::{
    AeadSuite, Cipher, NONCE_BYTES, OpenError, PacketKey, SECRET_BYTES, TAG_BYTES,
};

/// The ciphers of this machine, quickest first.
///
/// With AES instructions AES-GCM costs less than half of ChaCha20-Poly1305; without them it is the
/// other way round.
#[derive(Clone, Copy, Debug)]
pub struct CryptoSuite {
    ciphers: [Cipher; 3],
}

impl CryptoSuite {
    /// Orders the ciphers by what this processor can do.
    pub fn detect() -> Self {
        if has_aes() { Self::AES_FIRST } else { Self::CHACHA_FIRST }
    }

    /// The order for processors with AES instructions.
    pub const AES_FIRST: Self =
        Self { ciphers: [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] };

    /// The order for processors without.
    pub const CHACHA_FIRST: Self =
        Self { ciphers: [Cipher::ChaCha20Poly1305, Cipher::Aes128Gcm, Cipher::Aes256Gcm] };
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

impl AeadSuite for CryptoSuite {
    fn ciphers(&self) -> &[Cipher] {
        &self.ciphers
    }

    fn key(&self, cipher: Cipher, secret: &[u8; SECRET_BYTES]) -> Option<Box<dyn PacketKey>> {
        let algorithm: &'static Algorithm = match cipher {
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Cipher::Aes128Gcm => &AES_128_GCM,
            Cipher::Aes256Gcm => &AES_256_GCM,
            Cipher::SimulatorTag => return None,
        };
        let key = UnboundKey::new(algorithm, secret.get(..algorithm.key_len())?).ok()?;
        Some(Box::new(LibraryKey(LessSafeKey::new(key))))
    }
}

struct LibraryKey(LessSafeKey);

impl PacketKey for LibraryKey {
    fn seal(&self, nonce: [u8; NONCE_BYTES], associated: &[u8], buffer: &mut [u8]) {
        assert!(buffer.len() >= TAG_BYTES, "a packet to be sealed has room for its tag");
        let (text, room) = buffer.split_at_mut(buffer.len() - TAG_BYTES);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self.0.seal_in_place_separate_tag(nonce, Aad::from(associated), text);
        match sealed {
            Ok(tag) => room.copy_from_slice(tag.as_ref()),
            // The library refuses only texts past 2^36 bytes. Were that wrong, nothing readable
            // may leave: a zeroed packet fails at the peer.
            Err(_) => buffer.fill(0),
        }
    }

    fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        buffer: &mut [u8],
    ) -> Result<usize, OpenError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.0.open_in_place(nonce, Aad::from(associated), buffer);
        opened.map(|text| text.len()).map_err(|_| OpenError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRODUCTION: [Cipher; 3] =
        [Cipher::ChaCha20Poly1305, Cipher::Aes128Gcm, Cipher::Aes256Gcm];

    #[test]
    fn every_cipher_opens_what_it_sealed_and_nothing_else() {
        let suite = CryptoSuite::detect();
        for cipher in PRODUCTION {
            let key = suite.key(cipher, &[7; 32]).unwrap();
            let mut packet = *b"some text and room for a tag....";
            key.seal([1; 12], b"header", &mut packet);
            assert_ne!(&packet[..16], b"some text and ro");
            let sealed = packet;
            assert_eq!(key.open([1; 12], b"header", &mut packet), Ok(16));
            assert_eq!(&packet[..16], b"some text and ro");
            for bit in 0..sealed.len() * 8 {
                let mut forged = sealed;
                forged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(key.open([1; 12], b"header", &mut forged), Err(OpenError));
            }
            assert_eq!(key.open([2; 12], b"header", &mut sealed.clone()), Err(OpenError));
            assert_eq!(key.open([1; 12], b"heaver", &mut sealed.clone()), Err(OpenError));
            let other = suite.key(cipher, &[8; 32]).unwrap();
            assert_eq!(other.open([1; 12], b"header", &mut sealed.clone()), Err(OpenError));
            assert_eq!(key.open([1; 12], b"header", &mut [0; 15]), Err(OpenError));
        }
    }

    #[test]
    fn the_simulators_tag_is_no_production_cipher() {
        let suite = CryptoSuite::detect();
        assert!(!suite.ciphers().contains(&Cipher::SimulatorTag));
        assert!(suite.key(Cipher::SimulatorTag, &[7; 32]).is_none());
    }
}
