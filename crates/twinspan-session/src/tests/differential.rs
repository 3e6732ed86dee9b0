//! Packet protection against a second crypto library, for every length of text.

use aes_gcm::{Aes128Gcm, Aes256Gcm};
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use twinspan_core::aead::{Cipher, NONCE_BYTES, TAG_BYTES};
use twinspan_core::random::{SecretSource, Stream};

use crate::header::HEADER_BYTES;
use crate::noise::Secret;
use crate::protection::{DirectionKey, key_and_iv};
use crate::suite::CryptoSuite;

/// Seals with the other library what comes after `header`.
fn theirs(cipher: Cipher, key: &[u8; 32], nonce: [u8; 12], header: &[u8], text: &[u8]) -> Vec<u8> {
    let mut out = text.to_vec();
    let nonce = nonce.into();
    let tag = match cipher {
        Cipher::ChaCha20Poly1305 => {
            ChaCha20Poly1305::new(key.into()).encrypt_in_place_detached(&nonce, header, &mut out)
        }
        Cipher::Aes128Gcm => Aes128Gcm::new_from_slice(&key[..16])
            .unwrap()
            .encrypt_in_place_detached(&nonce, header, &mut out),
        Cipher::Aes256Gcm => {
            Aes256Gcm::new(key.into()).encrypt_in_place_detached(&nonce, header, &mut out)
        }
        Cipher::SimulatorTag => unreachable!("no other library has it"),
    };
    out.extend(tag.unwrap());
    out
}

#[test]
fn packets_of_every_length_equal_those_of_another_library() {
    let mut random = Stream::new(1, "differential", 0);
    for cipher in [Cipher::ChaCha20Poly1305, Cipher::Aes128Gcm, Cipher::Aes256Gcm] {
        let mut secret = Secret::new([0; 32]);
        random.fill(secret.as_mut_slice());
        let ours = DirectionKey::new(&CryptoSuite::AES_FIRST, cipher, &secret).unwrap();
        let (key, iv) = key_and_iv(cipher, &secret).unwrap();
        for len in 0..=1_200 {
            let mut packet = vec![0; HEADER_BYTES + len];
            random.fill(&mut packet);
            let number = random.next_u64();
            let mut nonce: [u8; NONCE_BYTES] = iv;
            for (out, byte) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
                *out ^= byte;
            }
            let (header, text) = packet.split_at(HEADER_BYTES);
            let expected = theirs(cipher, &key, nonce, header, text);
            let text = text.to_vec();
            packet.extend([0; TAG_BYTES]);
            ours.seal(number, &mut packet);
            assert_eq!(packet[HEADER_BYTES..], expected, "{cipher:?} {len}");
            assert_eq!(ours.open(number, &mut packet), Some(&text[..]));
        }
    }
}
