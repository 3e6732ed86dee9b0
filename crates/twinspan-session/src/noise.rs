//! The handshake pattern `Noise_NKpsk2_25519_ChaChaPoly_SHA256`, and the state that other patterns
//! with a pre-shared key have too.
//!
//! ```text
//! <- s
//! ...
//! -> e, es
//! <- e, ee, psk
//! ```

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use twinspan_core::aead::TAG_BYTES;
use zeroize::Zeroizing;

use crate::identity::{KeyPair, PublicKey, sha256};
use crate::ticket::TICKET_BYTES;

const NAME: &[u8] = b"Noise_NKpsk2_25519_ChaChaPoly_SHA256";

/// Bytes of message 1: an ephemeral key and the tag of an empty payload.
pub(crate) const MESSAGE_1_BYTES: usize = 32 + TAG_BYTES;
/// Bytes of the payload of message 2.
pub(crate) const PAYLOAD_BYTES: usize = 24 + TICKET_BYTES;
/// Bytes of message 2.
pub(crate) const MESSAGE_2_BYTES: usize = 32 + PAYLOAD_BYTES + TAG_BYTES;

/// A 32-byte secret that is wiped when dropped.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// What the handshake leaves: one secret for each direction.
#[derive(Clone)]
pub(crate) struct Split {
    pub(crate) client_to_server: Secret,
    pub(crate) server_to_client: Secret,
}

/// A handshake message does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoiseError;

/// How many bytes HKDF shall give.
pub(crate) struct OutputLen(pub(crate) usize);

impl KeyType for OutputLen {
    fn len(&self) -> usize {
        self.0
    }
}

/// Chaining key, hash and the key of the next payload. Each key seals one payload, so the nonce is
/// always 0.
#[derive(Clone)]
pub(crate) struct Symmetric {
    chaining: Secret,
    hash: [u8; 32],
    key: Secret,
}

impl Symmetric {
    /// Protocol name, prologue and the responder's static key, which both ends know before.
    fn new(prologue: &[u8], server: &PublicKey) -> Self {
        let mut new = Self::named(NAME, prologue);
        new.mix_hash(server.as_bytes());
        new
    }

    /// Protocol name, of more than 32 bytes, and prologue.
    pub(crate) fn named(name: &[u8], prologue: &[u8]) -> Self {
        let name = sha256(&[name]);
        let hash = sha256(&[&name, prologue]);
        Self { chaining: Secret::new(name), hash, key: Secret::new([0; 32]) }
    }

    /// An ephemeral key: in a pattern with a psk it is mixed into the key too.
    pub(crate) fn mix_ephemeral(&mut self, public: &[u8; 32]) {
        self.mix_hash(public);
        self.mix_key(public);
    }

    fn mix_hash(&mut self, bytes: &[u8]) {
        self.hash = sha256(&[&self.hash, bytes]);
    }

    pub(crate) fn mix_key(&mut self, input: &[u8; 32]) {
        let [chaining, key] = self.hkdf(input);
        (self.chaining, self.key) = (chaining, key);
    }

    pub(crate) fn mix_key_and_hash(&mut self, input: &[u8; 32]) {
        let [chaining, hash, key] = self.hkdf(input);
        self.mix_hash(hash.as_slice());
        (self.chaining, self.key) = (chaining, key);
    }

    /// Noise's HKDF is RFC 5869 with an empty info.
    fn hkdf<const N: usize>(&self, input: &[u8]) -> [Secret; N] {
        let prk = Salt::new(HKDF_SHA256, self.chaining.as_slice()).extract(input);
        let mut bytes = Zeroizing::new([0; 96]);
        let filled = prk.expand(&[], OutputLen(32 * N)).ok().zip(bytes.get_mut(..32 * N));
        let done = filled.is_some_and(|(okm, out)| okm.fill(out).is_ok());
        assert!(done, "HKDF gives up to 8,160 bytes");
        core::array::from_fn(|index| {
            let mut out = Secret::new([0; 32]);
            out.iter_mut().zip(bytes.iter().skip(32 * index)).for_each(|(out, byte)| *out = *byte);
            out
        })
    }

    fn cipher(&self) -> Option<LessSafeKey> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, self.key.as_slice()).ok()?;
        Some(LessSafeKey::new(key))
    }

    /// Encrypts all but the last [`TAG_BYTES`] of `buffer` and puts the tag there.
    pub(crate) fn encrypt_and_hash(&mut self, buffer: &mut [u8]) -> Result<(), NoiseError> {
        let text_len = buffer.len().checked_sub(TAG_BYTES).ok_or(NoiseError)?;
        let (text, room) = buffer.split_at_mut(text_len);
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag = self
            .cipher()
            .and_then(|key| key.seal_in_place_separate_tag(nonce, Aad::from(&self.hash), text).ok())
            .ok_or(NoiseError)?;
        room.copy_from_slice(tag.as_ref());
        self.mix_hash(buffer);
        Ok(())
    }

    pub(crate) fn decrypt_and_hash(&mut self, buffer: &mut [u8]) -> Result<(), NoiseError> {
        let hash = sha256(&[&self.hash, buffer]);
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        self.cipher()
            .and_then(|key| {
                key.open_in_place(nonce, Aad::from(&self.hash), buffer).map(|_| ()).ok()
            })
            .ok_or(NoiseError)?;
        self.hash = hash;
        Ok(())
    }

    pub(crate) fn split(&self) -> Split {
        let [client_to_server, server_to_client] = self.hkdf(&[]);
        Split { client_to_server, server_to_client }
    }
}

/// The client between its message and the server's.
pub(crate) struct Initiator {
    symmetric: Symmetric,
    ephemeral: KeyPair,
    psk: Secret,
}

impl Initiator {
    /// Makes message 1.
    pub(crate) fn start(
        prologue: &[u8],
        server: &PublicKey,
        psk: Secret,
        ephemeral: KeyPair,
    ) -> Result<(Self, [u8; MESSAGE_1_BYTES]), NoiseError> {
        let mut symmetric = Symmetric::new(prologue, server);
        let mut message = [0; MESSAGE_1_BYTES];
        let (key, payload) = message.split_at_mut(32);
        key.copy_from_slice(ephemeral.public());
        symmetric.mix_hash(ephemeral.public());
        // In a pattern with a psk, every ephemeral key is mixed into the key too.
        symmetric.mix_key(ephemeral.public());
        let shared = ephemeral.agree(server.as_bytes()).ok_or(NoiseError)?;
        symmetric.mix_key(&shared);
        symmetric.encrypt_and_hash(payload)?;
        Ok((Self { symmetric, ephemeral, psk }, message))
    }

    /// Reads message 2. A forged one changes nothing, so the true one may still come.
    pub(crate) fn finish(
        &self,
        message: &[u8; MESSAGE_2_BYTES],
    ) -> Result<([u8; PAYLOAD_BYTES], Split), NoiseError> {
        let mut symmetric = self.symmetric.clone();
        let (theirs, sealed) = message.split_first_chunk::<32>().ok_or(NoiseError)?;
        symmetric.mix_hash(theirs);
        symmetric.mix_key(theirs);
        let shared = self.ephemeral.agree(theirs).ok_or(NoiseError)?;
        symmetric.mix_key(&shared);
        symmetric.mix_key_and_hash(&self.psk);
        let mut payload = [0; PAYLOAD_BYTES + TAG_BYTES];
        payload.copy_from_slice(sealed);
        symmetric.decrypt_and_hash(&mut payload)?;
        let (payload, _) = payload.split_first_chunk().ok_or(NoiseError)?;
        Ok((*payload, symmetric.split()))
    }
}

/// The server's whole part: reads message 1 and makes message 2.
pub(crate) fn respond(
    prologue: &[u8],
    server: &KeyPair,
    message_1: &[u8; MESSAGE_1_BYTES],
    psk: &Secret,
    ephemeral: &KeyPair,
    payload: &[u8; PAYLOAD_BYTES],
) -> Result<([u8; MESSAGE_2_BYTES], Split), NoiseError> {
    let mut symmetric = Symmetric::new(prologue, &PublicKey::from_bytes(*server.public()));
    let (theirs, sealed) = message_1.split_first_chunk::<32>().ok_or(NoiseError)?;
    symmetric.mix_hash(theirs);
    symmetric.mix_key(theirs);
    let shared = server.agree(theirs).ok_or(NoiseError)?;
    symmetric.mix_key(&shared);
    let mut empty = [0; TAG_BYTES];
    empty.copy_from_slice(sealed);
    symmetric.decrypt_and_hash(&mut empty)?;

    let mut message = [0; MESSAGE_2_BYTES];
    let (key, sealed) = message.split_at_mut(32);
    key.copy_from_slice(ephemeral.public());
    symmetric.mix_hash(ephemeral.public());
    symmetric.mix_key(ephemeral.public());
    let shared = ephemeral.agree(theirs).ok_or(NoiseError)?;
    symmetric.mix_key(&shared);
    symmetric.mix_key_and_hash(psk);
    sealed.iter_mut().zip(payload).for_each(|(out, byte)| *out = *byte);
    symmetric.encrypt_and_hash(sealed)?;
    Ok((message, symmetric.split()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROLOGUE: &[u8] = b"all of HELLO before the Noise message";
    const PAYLOAD: [u8; PAYLOAD_BYTES] = [0x5a; PAYLOAD_BYTES];

    struct Made {
        message_1: [u8; MESSAGE_1_BYTES],
        message_2: [u8; MESSAGE_2_BYTES],
        client: Split,
        server: Split,
    }

    fn ours() -> Made {
        let server = KeyPair::from_secret(&[1; 32]);
        let public = PublicKey::from_bytes(*server.public());
        let psk = Secret::new([4; 32]);
        let ephemeral = KeyPair::from_secret(&[2; 32]);
        let (initiator, message_1) =
            Initiator::start(PROLOGUE, &public, psk.clone(), ephemeral).unwrap();
        let ephemeral = KeyPair::from_secret(&[3; 32]);
        let (message_2, server) =
            respond(PROLOGUE, &server, &message_1, &psk, &ephemeral, &PAYLOAD).unwrap();
        let (payload, client) = initiator.finish(&message_2).unwrap();
        assert_eq!(payload, PAYLOAD);
        Made { message_1, message_2, client, server }
    }

    /// snow is the oracle: another implementation of Noise with other primitives.
    #[test]
    fn messages_and_keys_equal_those_of_snow() {
        let params = || std::str::from_utf8(NAME).unwrap().parse().unwrap();
        let public = *KeyPair::from_secret(&[1; 32]).public();
        let mut initiator = snow::Builder::new(params())
            .prologue(PROLOGUE)
            .and_then(|builder| builder.remote_public_key(&public))
            .and_then(|builder| builder.psk(2, &[4; 32]))
            .map(|builder| builder.fixed_ephemeral_key_for_testing_only(&[2; 32]))
            .and_then(snow::Builder::build_initiator)
            .unwrap();
        let mut responder = snow::Builder::new(params())
            .prologue(PROLOGUE)
            .and_then(|builder| builder.local_private_key(&[1; 32]))
            .and_then(|builder| builder.psk(2, &[4; 32]))
            .map(|builder| builder.fixed_ephemeral_key_for_testing_only(&[3; 32]))
            .and_then(snow::Builder::build_responder)
            .unwrap();
        let mut buffer = [0; 512];
        let mut read = [0; 512];

        let made = ours();
        let len = initiator.write_message(&[], &mut buffer).unwrap();
        assert_eq!(buffer[..len], made.message_1);
        responder.read_message(&made.message_1, &mut read).unwrap();
        let len = responder.write_message(&PAYLOAD, &mut buffer).unwrap();
        assert_eq!(buffer[..len], made.message_2);
        initiator.read_message(&made.message_2, &mut read).unwrap();

        for mut theirs in [initiator, responder] {
            let (first, second) = theirs.dangerously_get_raw_split();
            for ours in [&made.client, &made.server] {
                assert_eq!(first, *ours.client_to_server);
                assert_eq!(second, *ours.server_to_client);
            }
        }
    }

    #[test]
    fn a_changed_byte_or_prologue_fails() {
        let made = ours();
        let server = KeyPair::from_secret(&[1; 32]);
        let psk = Secret::new([4; 32]);
        let answer = |prologue: &[u8], message: &[u8; MESSAGE_1_BYTES]| {
            respond(prologue, &server, message, &psk, &KeyPair::from_secret(&[3; 32]), &PAYLOAD)
        };
        assert!(answer(b"another HELLO", &made.message_1).is_err());
        for index in 0..MESSAGE_1_BYTES {
            let mut forged = made.message_1;
            forged[index] ^= 1;
            assert!(answer(PROLOGUE, &forged).is_err(), "byte {index}");
        }
        let public = PublicKey::from_bytes(*server.public());
        let ephemeral = KeyPair::from_secret(&[2; 32]);
        let (initiator, _) =
            Initiator::start(PROLOGUE, &public, Secret::new([4; 32]), ephemeral).unwrap();
        for index in 0..MESSAGE_2_BYTES {
            let mut forged = made.message_2;
            forged[index] ^= 1;
            assert!(initiator.finish(&forged).is_err(), "byte {index}");
        }
        assert!(initiator.finish(&made.message_2).is_ok(), "forgeries changed nothing");
    }

    #[test]
    fn another_psk_fails_at_the_client() {
        let server = KeyPair::from_secret(&[1; 32]);
        let public = PublicKey::from_bytes(*server.public());
        let ephemeral = KeyPair::from_secret(&[2; 32]);
        let (initiator, message_1) =
            Initiator::start(PROLOGUE, &public, Secret::new([4; 32]), ephemeral).unwrap();
        let psk = Secret::new([5; 32]);
        let ephemeral = KeyPair::from_secret(&[3; 32]);
        let (message_2, _) =
            respond(PROLOGUE, &server, &message_1, &psk, &ephemeral, &PAYLOAD).unwrap();
        assert_eq!(initiator.finish(&message_2).err(), Some(NoiseError));
    }

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        assert_eq!(hex.len(), 2 * N);
        core::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
    }

    /// The vector of this pattern in the collection of the cacophony implementation, whose payloads
    /// have other lengths than ours.
    #[test]
    fn messages_equal_the_published_vector() {
        let prologue: [u8; 9] = bytes("4a6f686e2047616c74");
        let psk: [u8; 32] =
            bytes("54686973206973206d7920417573747269616e20706572737065637469766521");
        let client = KeyPair::from_secret(&bytes(
            "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a",
        ));
        let server = KeyPair::from_secret(&bytes(
            "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893",
        ));
        let answer = KeyPair::from_secret(&bytes(
            "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b",
        ));
        let public = bytes("31e0303fd6418d2f8c0e78b91f22e8caed0fbe48656dcf4767e4834f701b8f62");
        assert_eq!(server.public(), &public);

        // Both ends have the same symmetric state, so one stands for both.
        let mut state = Symmetric::new(&prologue, &PublicKey::from_bytes(public));
        let mut payload = [&b"Ludwig von Mises"[..], &[0; TAG_BYTES]].concat();
        state.mix_hash(client.public());
        state.mix_key(client.public());
        state.mix_key(&client.agree(server.public()).unwrap());
        state.encrypt_and_hash(&mut payload).unwrap();
        let message = [&client.public()[..], &payload].concat();
        assert_eq!(
            message,
            bytes::<64>(
                "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944\
                 acda3057fb216b0fb4c6d571e776b426612636e99cf4ac1de41442fb2128ca29"
            )
        );

        let mut payload = [&b"Murray Rothbard"[..], &[0; TAG_BYTES]].concat();
        state.mix_hash(answer.public());
        state.mix_key(answer.public());
        state.mix_key(&answer.agree(client.public()).unwrap());
        state.mix_key_and_hash(&psk);
        state.encrypt_and_hash(&mut payload).unwrap();
        let message = [&answer.public()[..], &payload].concat();
        assert_eq!(
            message,
            bytes::<63>(
                "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f14480884\
                 330fcb4ab2b68a6f612414145258aa079533be57174ec7ae7c76845312a3f07"
            )
        );
        let hash = bytes("5a0c1a79a0b863fe5d000e829b7e4ffc76200e5c08082d4494968e3f47d0ff61");
        assert_eq!(state.hash, hash);

        // The first transport messages, under the split keys.
        let split = state.split();
        for (key, text, sealed) in [
            (
                &split.client_to_server,
                &b"F. A. Hayek"[..],
                &bytes::<27>("129789ee959ffef891a580c6fc073cf91d706e26602cc096c35d84")[..],
            ),
            (
                &split.server_to_client,
                b"Carl Menger",
                &bytes::<27>("36b35298bc84e0a24644e309563b2d6c3f9a31dc142b122e0266db"),
            ),
        ] {
            let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_slice()).unwrap();
            let mut out = text.to_vec();
            let nonce = Nonce::assume_unique_for_key([0; 12]);
            LessSafeKey::new(key).seal_in_place_append_tag(nonce, Aad::empty(), &mut out).unwrap();
            assert_eq!(out, sealed);
        }
    }
}
