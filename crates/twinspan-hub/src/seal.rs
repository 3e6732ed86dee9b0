//! Keys of sealed topics.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use twinspan_topic::{Cipher, Disagreement, Seal, SharedKey};
use zeroize::Zeroizing;

/// Bytes of a key's file that are looked at: 64 hexadecimal digits, and some space behind them.
const FILE_BYTES_MAX: u64 = 128;

/// The key of a sealed topic: 32 secret bytes that all who take part were given.
///
/// ```
/// use twinspan_hub::{Bytes, Hub, TopicKey};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let port = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
/// # let endpoint = format!("udp://127.0.0.1:{port}/secret");
/// let key = TopicKey::from_bytes([7; 32]); // or TopicKey::from_file("/etc/robot/camera.key")?
/// let here = Hub::<Bytes>::builder(&endpoint).seal(key.clone()).reliable().listen().build()?;
/// let there = Hub::<Bytes>::builder(&endpoint).seal(key).reliable().connect().build()?;
/// there.publish_bytes(b"not for everybody")?;
/// assert_eq!(*here.recv()?, b"not for everybody"[..]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TopicKey(SharedKey);

impl fmt::Debug for TopicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TopicKey(..)")
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicKeyError {
    /// The file cannot be read or made.
    #[error("the key file {} cannot be used: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Others may read the file.
    #[error("others may read the key file {}, whose mode is {mode:03o}: set it to 600", .path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// What the file holds is no key.
    #[error("the key file {} holds no key: write 32 bytes, or 64 hexadecimal digits", .path.display())]
    Form {
        /// The file.
        path: PathBuf,
    },
    /// The operating system has no randomness.
    #[error("the operating system gives no random numbers for a key")]
    NoRandomness,
}

impl TopicKey {
    /// The key with these bytes, which nobody can guess.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(SharedKey::from_bytes(bytes))
    }

    /// The key in a file: 32 bytes, or 64 hexadecimal digits. Nobody but its owner may read the file.
    ///
    /// # Errors
    /// [`TopicKeyError`] names the file and what is wrong with it.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TopicKeyError> {
        let path = path.as_ref();
        let failed = |source| TopicKeyError::File { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(TopicKeyError::Mode { path: path.to_owned(), mode });
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize));
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
        parse(&bytes).ok_or_else(|| TopicKeyError::Form { path: path.to_owned() })
    }

    /// A fresh key in a new file, in hexadecimal digits, that nobody but its owner may read.
    ///
    /// # Errors
    /// [`TopicKeyError`]; a file that is there already is not touched.
    pub fn create_file(path: impl AsRef<Path>) -> Result<Self, TopicKeyError> {
        let path = path.as_ref();
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|_| TopicKeyError::NoRandomness)?;
        let mut text = Zeroizing::new(Vec::with_capacity(65));
        for byte in *bytes {
            text.extend(
                [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]),
            );
        }
        text.push(b'\n');
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        made.and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .map_err(|source| TopicKeyError::File { path: path.to_owned(), source })?;
        Ok(Self::from_bytes(*bytes))
    }
}

/// A key's bytes, or its digits with space behind them.
fn parse(bytes: &[u8]) -> Option<TopicKey> {
    if let Ok(bytes) = <&[u8; 32]>::try_from(bytes) {
        return Some(TopicKey::from_bytes(*bytes));
    }
    let digits = bytes.trim_ascii_end();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let mut key = Zeroizing::new([0; 32]);
    if digits.len() != 64 {
        return None;
    }
    for (out, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *out = digit(*high)? << 4 | digit(*low)?;
    }
    Some(TopicKey::from_bytes(*key))
}

/// How a topic is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SealCipher {
    /// AES-128-GCM, the quickest where the processor has AES.
    Aes128Gcm,
    /// AES-256-GCM.
    Aes256Gcm,
    /// ChaCha20-Poly1305, the quickest where it has not.
    ChaCha20Poly1305,
}

impl SealCipher {
    const fn wire(self) -> Cipher {
        match self {
            Self::Aes128Gcm => Cipher::Aes128Gcm,
            Self::Aes256Gcm => Cipher::Aes256Gcm,
            Self::ChaCha20Poly1305 => Cipher::ChaCha20Poly1305,
        }
    }
}

/// What links of a topic are made with.
pub(crate) fn seal(key: TopicKey, cipher: Option<SealCipher>) -> Seal {
    let seal = Seal::new(key.0);
    match cipher {
        Some(cipher) => Seal { cipher: cipher.wire(), ..seal },
        None => seal,
    }
}

/// Somebody whom this hub refused, or who refused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declined {
    /// Where it is, on UDP; streams are refused by what is said on them.
    pub address: Option<SocketAddr>,
    /// In what both ends differ, told by what the other end says of itself; `None` where one has no room
    /// for more.
    pub why: Option<Disagreement>,
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{address}: ")?,
            None => f.write_str("another hub: ")?,
        }
        match &self.why {
            Some(why) => write!(f, "{why}"),
            None => f.write_str("no room for more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("twinspan-key-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_a_key_file_must_be_is_told() {
        let folder = folder();
        let path = folder.join("made.key");
        let _ = std::fs::remove_file(&path);
        let made = TopicKey::create_file(&path).unwrap();
        assert_eq!(format!("{made:?}"), "TopicKey(..)");
        assert!(TopicKey::from_file(&path).is_ok());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!((text.len(), text.trim_end().len()), (65, 64));
        assert!(TopicKey::create_file(&path).is_err(), "it is not overwritten");
        let other = folder.join("other.key");
        for (bytes, is_good) in [
            (vec![9; 32], true),
            (b"0f".repeat(32), true),
            ([b"0F".repeat(32), b" \r\n".to_vec()].concat(), true),
            (b"0g".repeat(32), false),
            (vec![9; 31], false),
            (vec![9; 33], false),
            (vec![b'0'; 4_000], false),
            (Vec::new(), false),
        ] {
            std::fs::write(&other, &bytes).unwrap();
            std::fs::set_permissions(&other, PermissionsExt::from_mode(0o600)).unwrap();
            let read = TopicKey::from_file(&other);
            assert_eq!(read.is_ok(), is_good, "{bytes:?}");
            if let Err(error) = read {
                assert!(error.to_string().contains("64 hexadecimal digits"), "{error}");
            }
        }
        std::fs::set_permissions(&other, PermissionsExt::from_mode(0o640)).unwrap();
        let text = TopicKey::from_file(&other).unwrap_err().to_string();
        assert!(text.contains("whose mode is 640: set it to 600"), "{text}");
        let text = TopicKey::from_file(folder.join("none")).unwrap_err().to_string();
        assert!(text.contains("cannot be used"), "{text}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
