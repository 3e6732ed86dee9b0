//! The production cipher suite: AES-GCM and ChaCha20-Poly1305 from one library.

use aws_lc_rs::aead::quic::{self, HeaderProtectionKey};
use twinspan_aead::LibraryKey;
use twinspan_core::aead::{
    AeadSuite, Cipher, HeaderKey, MASK_BYTES, PacketKey, SAMPLE_BYTES, SECRET_BYTES,
};

mod measure;

/// The ciphers of this machine, quickest first.
///
/// With AES instructions AES-GCM costs less than half of ChaCha20-Poly1305; without them it is the
/// other way round.
#[derive(Clone, Copy, Debug)]
pub struct CryptoSuite {
    ciphers: [Cipher; 3],
    /// How many of them there are; the rest only fills the room.
    count: usize,
}

/// Why an order of ciphers cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CipherOrderError {
    /// It names none.
    #[error("an order of ciphers names none; name at least one")]
    Empty,
    /// It names one twice.
    #[error("an order of ciphers names {} twice; name it once", .0.name())]
    Twice(Cipher),
    /// It names one that only simulators have.
    #[error("an order of ciphers names the {}, which is for simulators alone", .0.name())]
    Simulated(Cipher),
}

impl CryptoSuite {
    /// Orders the ciphers by what this processor can do.
    pub fn detect() -> Self {
        if has_aes() { Self::AES_FIRST } else { Self::CHACHA_FIRST }
    }

    /// The order for processors with AES instructions.
    pub const AES_FIRST: Self =
        Self::all([Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305]);

    /// The order for processors without.
    pub const CHACHA_FIRST: Self =
        Self::all([Cipher::ChaCha20Poly1305, Cipher::Aes128Gcm, Cipher::Aes256Gcm]);

    const fn all(ciphers: [Cipher; 3]) -> Self {
        Self { ciphers, count: ciphers.len() }
    }

    /// The ciphers of `order` alone, the one that is liked best first: an order that was set by hand
    /// or measured elsewhere.
    ///
    /// # Errors
    /// [`CipherOrderError`] names what the order has too much or too little of.
    pub fn in_order(order: &[Cipher]) -> Result<Self, CipherOrderError> {
        let mut suite = Self { count: 0, ..Self::AES_FIRST };
        for cipher in order {
            if !cipher.encrypts() {
                return Err(CipherOrderError::Simulated(*cipher));
            }
            if suite.ciphers().contains(cipher) {
                return Err(CipherOrderError::Twice(*cipher));
            }
            // There are three that encrypt, and none came twice.
            if let Some(place) = suite.ciphers.get_mut(suite.count) {
                *place = *cipher;
                suite.count += 1;
            }
        }
        if suite.count == 0 { Err(CipherOrderError::Empty) } else { Ok(suite) }
    }
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
        self.ciphers.get(..self.count).unwrap_or(&self.ciphers)
    }

    fn key(&self, cipher: Cipher, secret: &[u8; SECRET_BYTES]) -> Option<Box<dyn PacketKey>> {
        let key = LibraryKey::new(cipher, secret)?;
        Some(key)
    }

    fn header_key(
        &self,
        cipher: Cipher,
        secret: &[u8; SECRET_BYTES],
    ) -> Option<Box<dyn HeaderKey>> {
        let algorithm = match cipher {
            Cipher::ChaCha20Poly1305 => &quic::CHACHA20,
            Cipher::Aes128Gcm => &quic::AES_128,
            Cipher::Aes256Gcm => &quic::AES_256,
            Cipher::SimulatorTag => return None,
        };
        let key = HeaderProtectionKey::new(algorithm, secret.get(..algorithm.key_len())?).ok()?;
        Some(Box::new(LibraryHeaderKey(key)))
    }
}

struct LibraryHeaderKey(HeaderProtectionKey);

impl HeaderKey for LibraryHeaderKey {
    fn mask(&self, sample: [u8; SAMPLE_BYTES]) -> [u8; MASK_BYTES] {
        #[expect(
            clippy::expect_used,
            reason = "a sample of 16 bytes is what every algorithm takes"
        )]
        self.0.new_mask(&sample).expect("the sample has its length")
    }
}

/// The cipher that costs both ends least, session 3.7: the sum of its places in the client's offer
/// and in our own order; of equal sums the one that we like better.
pub(crate) fn choose(offered: &[u8], own: &[Cipher]) -> Option<Cipher> {
    let places = offered.iter().enumerate().filter_map(|(theirs, number)| {
        let cipher = Cipher::from_wire(*number)?;
        let ours = own.iter().position(|own| *own == cipher)?;
        Some((theirs + ours, ours, cipher))
    });
    places.min_by_key(|(sum, ours, _)| (*sum, *ours)).map(|(.., cipher)| cipher)
}

#[cfg(test)]
mod tests {
    use twinspan_core::aead::OpenError;

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
    fn the_cipher_is_chosen_by_total_cost_and_ties_go_to_the_server() {
        use Cipher::{Aes128Gcm as Short, Aes256Gcm as Long, ChaCha20Poly1305 as Cha};
        for (offered, own, chosen) in [
            (&[1, 2, 3][..], &[Cha, Short, Long][..], Some(Cha)),
            (&[1, 2, 3], &[Short, Long, Cha], Some(Short)),
            (&[2, 3, 1], &[Cha, Short, Long], Some(Short)),
            (&[1, 2], &[Short, Cha], Some(Short)),
            (&[2, 1], &[Cha, Short], Some(Cha)),
            (&[1, 3, 2], &[Short, Long, Cha], Some(Short)),
            (&[3], &[Short, Long, Cha], Some(Long)),
            (&[77, 1, 0], &[Short, Cha], Some(Cha)),
            (&[1, 1, 2], &[Short, Cha], Some(Cha)),
            (&[77, 0xf0], &[Short, Cha], None),
        ] {
            assert_eq!(choose(offered, own), chosen, "{offered:?} {own:?}");
        }
    }

    #[test]
    fn an_order_has_its_ciphers_alone_and_what_is_wrong_with_one_is_named() {
        use Cipher::{Aes128Gcm as Short, ChaCha20Poly1305 as Cha, SimulatorTag as Tag};
        for order in [&[Cha][..], &[Cha, Short], &[Cipher::Aes256Gcm, Cha, Short]] {
            assert_eq!(CryptoSuite::in_order(order).unwrap().ciphers(), order);
        }
        for (order, error) in [
            (&[][..], CipherOrderError::Empty),
            (&[Cha, Short, Cha], CipherOrderError::Twice(Cha)),
            (&[Short, Tag], CipherOrderError::Simulated(Tag)),
        ] {
            assert_eq!(CryptoSuite::in_order(order).unwrap_err(), error);
        }
        let told = CipherOrderError::Twice(Cha).to_string();
        assert_eq!(told, "an order of ciphers names ChaCha20-Poly1305 twice; name it once");
    }

    #[test]
    fn the_simulators_tag_is_no_production_cipher() {
        let suite = CryptoSuite::detect();
        assert!(!suite.ciphers().contains(&Cipher::SimulatorTag));
        assert!(suite.key(Cipher::SimulatorTag, &[7; 32]).is_none());
    }
}
