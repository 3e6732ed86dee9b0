//! Keys against the same library's safe binding, on every length a packet can have.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use proptest::prelude::*;
use twinspan_core::aead::{Cipher, OpenError, PacketKey, TAG_BYTES};

use super::LibraryKey;

const CIPHERS: [Cipher; 3] = [Cipher::ChaCha20Poly1305, Cipher::Aes128Gcm, Cipher::Aes256Gcm];

fn safe_binding(cipher: Cipher, secret: &[u8; 32]) -> LessSafeKey {
    let algorithm = match cipher {
        Cipher::Aes128Gcm => &AES_128_GCM,
        Cipher::Aes256Gcm => &AES_256_GCM,
        _ => &CHACHA20_POLY1305,
    };
    LessSafeKey::new(UnboundKey::new(algorithm, &secret[..algorithm.key_len()]).unwrap())
}

#[test]
fn every_length_is_sealed_as_by_the_safe_binding() {
    let secret: [u8; 32] = core::array::from_fn(|i| i as u8);
    for cipher in CIPHERS {
        let (ours, theirs) =
            (LibraryKey::new(cipher, &secret).unwrap(), safe_binding(cipher, &secret));
        for length in 0..=1_500 {
            let nonce: [u8; 12] = core::array::from_fn(|i| (length + i) as u8);
            let mut sealed: Vec<u8> = (0..length + TAG_BYTES).map(|i| (i * 7) as u8).collect();
            let mut expected = sealed[..length].to_vec();
            let text = expected.clone();
            ours.seal(nonce, b"fourteen bytes", &mut sealed);
            theirs
                .seal_in_place_append_tag(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::from(b"fourteen bytes"),
                    &mut expected,
                )
                .unwrap();
            assert_eq!(sealed, expected, "{cipher:?}, {length} bytes");
            assert_eq!(ours.open(nonce, b"fourteen bytes", &mut sealed), Ok(length));
            assert_eq!(sealed[..length], text);
        }
    }
}

#[test]
fn what_was_changed_anywhere_does_not_open() {
    for cipher in CIPHERS {
        let key = LibraryKey::new(cipher, &[7; 32]).unwrap();
        let mut sealed = *b"some text and room for a tag....";
        key.seal([1; 12], b"header", &mut sealed);
        for bit in 0..sealed.len() * 8 {
            let mut forged = sealed;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open([1; 12], b"header", &mut forged), Err(OpenError));
        }
        assert_eq!(key.open([2; 12], b"header", &mut sealed.clone()), Err(OpenError));
        assert_eq!(key.open([1; 12], b"heaver", &mut sealed.clone()), Err(OpenError));
        let other = LibraryKey::new(cipher, &[8; 32]).unwrap();
        assert_eq!(other.open([1; 12], b"header", &mut sealed.clone()), Err(OpenError));
        for short in 0..TAG_BYTES {
            assert_eq!(key.open([1; 12], b"", &mut [0; 16][..short]), Err(OpenError));
        }
    }
}

#[test]
fn a_key_that_was_made_ready_is_the_same_key() {
    for cipher in CIPHERS {
        let key = LibraryKey::new(cipher, &[7; 32]).unwrap();
        key.prefetch();
        let mut packet = [3; 40];
        key.seal([1; 12], b"", &mut packet);
        key.prefetch();
        assert_eq!(key.open([1; 12], b"", &mut packet), Ok(24));
        assert_eq!(packet[..24], [3; 24]);
    }
}

#[test]
fn a_key_fits_ten_cache_lines() {
    assert!(size_of::<LibraryKey>() <= 640, "{} bytes", size_of::<LibraryKey>());
    assert_eq!(align_of::<LibraryKey>(), 64);
}

#[test]
fn the_simulators_tag_is_no_cipher_of_the_library() {
    assert!(LibraryKey::new(Cipher::SimulatorTag, &[7; 32]).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_open_or_do_not(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        nonce: [u8; 12],
        associated in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        for cipher in CIPHERS {
            let key = LibraryKey::new(cipher, &[7; 32]).unwrap();
            prop_assert_eq!(key.open(nonce, &associated, &mut bytes), Err(OpenError));
        }
    }
}
