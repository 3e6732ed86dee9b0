//! The AEAD suite as a trait, so that a simulator can put a cheap tag of the same size in its place.

/// Bytes that sealing adds to a packet.
pub const TAG_BYTES: usize = 16;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;
/// Bytes of the secret from which a packet key is made; suites with shorter keys use its first bytes.
pub const SECRET_BYTES: usize = 32;

/// How packets are protected. The number is the one on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Cipher {
    /// ChaCha20-Poly1305, RFC 8439.
    ChaCha20Poly1305 = 1,
    /// AES-128-GCM, NIST SP 800-38D.
    Aes128Gcm = 2,
    /// AES-256-GCM, NIST SP 800-38D.
    Aes256Gcm = 3,
    /// A keyed 128-bit hash without encryption: simulators alone provide it, no production suite does.
    SimulatorTag = 0xf0,
}

impl Cipher {
    /// The cipher with this number on the wire.
    pub const fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::ChaCha20Poly1305,
            2 => Self::Aes128Gcm,
            3 => Self::Aes256Gcm,
            0xf0 => Self::SimulatorTag,
            _ => return None,
        })
    }

    /// The name that people and summaries use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
            Self::Aes128Gcm => "AES-128-GCM",
            Self::Aes256Gcm => "AES-256-GCM",
            Self::SimulatorTag => "simulator tag (not encrypted)",
        }
    }

    /// Whether an observer is kept from reading packets.
    pub const fn encrypts(self) -> bool {
        !matches!(self, Self::SimulatorTag)
    }
}

/// The tag does not fit the bytes, the nonce, the associated data or the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenError;

impl core::fmt::Display for OpenError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("packet does not authenticate")
    }
}

impl core::error::Error for OpenError {}

/// Seals and opens packets under one key. A nonce must never repeat for `seal` under one key.
pub trait PacketKey: Send {
    /// Encrypts all but the last [`TAG_BYTES`] of `buffer` in place and writes the tag there.
    ///
    /// # Panics
    /// When `buffer` is shorter than a tag: the caller built the packet wrongly.
    fn seal(&self, nonce: [u8; NONCE_BYTES], associated: &[u8], buffer: &mut [u8]);

    /// Verifies and decrypts `buffer` in place and returns how many of its first bytes are the text.
    ///
    /// # Errors
    /// [`OpenError`] when the tag does not verify or there is none; `buffer` is then unspecified.
    fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        buffer: &mut [u8],
    ) -> Result<usize, OpenError>;

    /// Says that a packet for this key comes soon: whoever works through a batch says it a few
    /// packets ahead.
    fn prefetch(&self) {}
}

/// Bytes of ciphertext from which a header's mask is made.
pub const SAMPLE_BYTES: usize = 16;
/// Bytes of a header's mask.
pub const MASK_BYTES: usize = 5;

/// Makes the masks that hide parts of headers, under one key.
pub trait HeaderKey: Send {
    /// The mask for a packet whose ciphertext begins so.
    fn mask(&self, sample: [u8; SAMPLE_BYTES]) -> [u8; MASK_BYTES];
}

/// The ciphers that one end has, in the order that it likes them.
pub trait AeadSuite: Send + Sync {
    /// What is on offer, best first, without repeats.
    fn ciphers(&self) -> &[Cipher];

    /// The key for `cipher` made from `secret`, or `None` when the cipher is not on offer.
    fn key(&self, cipher: Cipher, secret: &[u8; SECRET_BYTES]) -> Option<Box<dyn PacketKey>>;

    /// The header key that goes with `cipher`, made from `secret`, or `None` when the cipher is not
    /// on offer.
    fn header_key(&self, cipher: Cipher, secret: &[u8; SECRET_BYTES])
    -> Option<Box<dyn HeaderKey>>;
}
