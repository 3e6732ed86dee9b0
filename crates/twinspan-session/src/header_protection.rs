//! Header protection, where both ends want it: flags and the low half of the number are masked.

use twinspan_core::aead::{AeadSuite, Cipher, HeaderKey, MASK_BYTES, SAMPLE_BYTES};

use crate::header::HEADER_BYTES;
use crate::noise::{Secret, Split};
use crate::protection::{Role, header_secret};

/// Where the flags are; the number follows them.
const FLAGS_AT: usize = 5;

/// Whether an end hides the headers of its packets, session 5.9.
///
/// What is masked are the flags and the low four bytes of the packet number; connection id, channel
/// byte and lengths stay visible. It costs both ends some 100 ns and a session some 500 bytes a
/// direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderProtection {
    /// It never does.
    Forbid,
    /// It does where the other end requires it.
    #[default]
    Allow,
    /// It does, and has no session with who does not.
    Require,
}

/// What a client says of it in HELLO.
const ABLE: u16 = 1;
const REQUIRED: u16 = 2;
/// What the server says of it in ACCEPT.
const HIDDEN: u8 = 1;

impl HeaderProtection {
    /// A client's options, session 3.3.
    pub(crate) const fn to_options(self) -> u16 {
        match self {
            Self::Forbid => 0,
            Self::Allow => ABLE,
            Self::Require => ABLE | REQUIRED,
        }
    }

    /// What a client's options say; those that are not known say nothing.
    pub(crate) const fn from_options(options: u16) -> Self {
        match (options & ABLE != 0, options & REQUIRED != 0) {
            (_, true) => Self::Require,
            (true, false) => Self::Allow,
            (false, false) => Self::Forbid,
        }
    }

    /// Whether two ends hide their headers; `None` where one requires what the other forbids.
    pub(crate) const fn agree(self, other: Self) -> Option<bool> {
        match (self, other) {
            (Self::Forbid, Self::Require) | (Self::Require, Self::Forbid) => None,
            (Self::Require, _) | (_, Self::Require) => Some(true),
            _ => Some(false),
        }
    }

    /// Whether a client takes what the server decided.
    pub(crate) const fn takes(self, hidden: bool) -> bool {
        match self {
            Self::Forbid => !hidden,
            Self::Allow => true,
            Self::Require => hidden,
        }
    }
}

/// The server's decision as a byte of ACCEPT.
pub(crate) const fn to_byte(hidden: bool) -> u8 {
    if hidden { HIDDEN } else { 0 }
}

/// Reads it; bits that are not known say nothing.
pub(crate) const fn from_byte(byte: u8) -> bool {
    byte & HIDDEN != 0
}

/// The header keys of both directions, as one end sees them. They stay for the whole session: the
/// phase is behind them.
pub(crate) struct HeaderKeys {
    seal: Box<dyn HeaderKey>,
    open: Box<dyn HeaderKey>,
}

impl HeaderKeys {
    /// `None` when the suite has no such cipher.
    pub(crate) fn new(
        suite: &dyn AeadSuite,
        cipher: Cipher,
        split: &Split,
        role: Role,
    ) -> Option<Self> {
        let up = header_key(suite, cipher, &split.client_to_server)?;
        let down = header_key(suite, cipher, &split.server_to_client)?;
        Some(match role {
            Role::Client => Self { seal: up, open: down },
            Role::Server => Self { seal: down, open: up },
        })
    }

    /// Hides the header of a packet that was sealed.
    pub(crate) fn hide(&self, packet: &mut [u8]) {
        mask(self.seal.as_ref(), packet);
    }

    /// Uncovers the header of a packet that was not opened yet.
    pub(crate) fn reveal(&self, packet: &mut [u8]) {
        mask(self.open.as_ref(), packet);
    }
}

/// The header key of a direction, from its secret of phase 0.
pub(crate) fn header_key(
    suite: &dyn AeadSuite,
    cipher: Cipher,
    secret: &Secret,
) -> Option<Box<dyn HeaderKey>> {
    suite.header_key(cipher, &*header_secret(cipher, secret)?)
}

/// Masks or unmasks: the same. The sample is the first of what was sealed, and a packet has at least
/// the tag of it; what is shorter is no packet and stays as it is.
pub(crate) fn mask(key: &dyn HeaderKey, packet: &mut [u8]) {
    let sample = packet.get(HEADER_BYTES..).and_then(<[u8]>::first_chunk::<SAMPLE_BYTES>);
    let Some(sample) = sample.copied() else { return };
    let mask: [u8; MASK_BYTES] = key.mask(sample);
    let hidden = packet.iter_mut().skip(FLAGS_AT);
    hidden.zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::CryptoSuite;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        core::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
    }

    /// RFC 9001, appendices A.2 and A.5.
    #[test]
    fn masks_equal_those_of_the_quic_specification() {
        let suite = CryptoSuite::AES_FIRST;
        let mut secret = [0; 32];
        secret[..16].copy_from_slice(&bytes::<16>("9f50449e04a0e810283a1e9933adedd2"));
        let key = suite.header_key(Cipher::Aes128Gcm, &secret).unwrap();
        let sample = bytes("d1b1c98dd7689fb8ec11d242b123dc9b");
        assert_eq!(key.mask(sample), bytes("437b9aec36"));

        let secret = bytes("25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4");
        let key = suite.header_key(Cipher::ChaCha20Poly1305, &secret).unwrap();
        let sample = bytes("5e5cd55c41f69080575d7999c25a5bfb");
        assert_eq!(key.mask(sample), bytes("aefefe7d03"));
    }

    #[test]
    fn flags_and_the_low_half_of_the_number_are_masked_and_nothing_else() {
        let split = Split {
            client_to_server: Secret::new([1; 32]),
            server_to_client: Secret::new([2; 32]),
        };
        for cipher in [Cipher::ChaCha20Poly1305, Cipher::Aes128Gcm, Cipher::Aes256Gcm] {
            let suite = &CryptoSuite::AES_FIRST;
            let client = HeaderKeys::new(suite, cipher, &split, Role::Client).unwrap();
            let server = HeaderKeys::new(suite, cipher, &split, Role::Server).unwrap();
            let packet: [u8; 30] = core::array::from_fn(|i| i as u8);
            let mut hidden = packet;
            client.hide(&mut hidden);
            assert_ne!(hidden[5..10], packet[5..10]);
            assert_eq!((&hidden[..5], &hidden[10..]), (&packet[..5], &packet[10..]));
            let mut reflected = hidden;
            client.reveal(&mut reflected);
            assert_ne!(reflected, packet, "each direction has its own mask");
            server.reveal(&mut hidden);
            assert_eq!(hidden, packet);
            let mut short = packet;
            client.hide(&mut short[..29]);
            assert_eq!(short, packet);
        }
    }

    #[test]
    fn what_two_ends_agree_on() {
        use HeaderProtection::{Allow, Forbid, Require};
        for (client, server, agreed) in [
            (Forbid, Forbid, Some(false)),
            (Forbid, Allow, Some(false)),
            (Forbid, Require, None),
            (Allow, Forbid, Some(false)),
            (Allow, Allow, Some(false)),
            (Allow, Require, Some(true)),
            (Require, Forbid, None),
            (Require, Allow, Some(true)),
            (Require, Require, Some(true)),
        ] {
            assert_eq!(client.agree(server), agreed);
            assert_eq!(HeaderProtection::from_options(client.to_options()), client);
            if let Some(hidden) = agreed {
                assert!(client.takes(hidden) && from_byte(to_byte(hidden)) == hidden);
            }
        }
        assert_eq!(HeaderProtection::from_options(0xfffc), Forbid);
        assert!(!Forbid.takes(true) && !Require.takes(false));
    }
}
