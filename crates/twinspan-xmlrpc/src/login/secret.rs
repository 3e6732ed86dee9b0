//! What no log may show.

use std::fmt;

use md5::{Digest, Md5};
use twinspan_llsd::{Uuid, base16};
use zeroize::Zeroizing;

/// A text that is shown nowhere: `Debug` tells only whether there is one. Its memory is overwritten
/// when it is dropped.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// A secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text, for the wire alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Compares in a time that does not depend on where two of equal length differ.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let (one, two) = (self.0.as_bytes(), other.0.as_bytes());
        let pairs = one.iter().zip(two);
        let difference = pairs.fold(0, |sum, (one, two)| sum | (one ^ two));
        one.len() == two.len() && core::hint::black_box(difference) == 0
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "none" } else { "..." })
    }
}

/// The characters of a password that Second Life uses; it drops what is behind them.
pub const PASSWORD_CHARS: usize = 16;

/// The beginning of a hashed password.
const MARK: &str = "$1$";

/// A password as it travels: `$1$` and the MD5 of the password in lower-case hex.
///
/// MD5 is what the protocol has; whoever knows this text can log in, so it is a secret as well.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Secret);

/// Why a text is no hashed password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no hashed password: `$1$` and 32 hexadecimal digits are expected")]
pub struct PasswordError;

impl Password {
    /// Hashes the first [`PASSWORD_CHARS`] characters of a password, as Second Life does. Grids that
    /// count all of them need [`whole`](Self::whole).
    pub fn new(password: &str) -> Self {
        let end = password.char_indices().nth(PASSWORD_CHARS).map_or(password.len(), |(at, _)| at);
        Self::whole(password.get(..end).unwrap_or(password))
    }

    /// Hashes a whole password.
    pub fn whole(password: &str) -> Self {
        let digest = Md5::digest(password.as_bytes());
        let hex = Zeroizing::new(base16(&digest));
        Self(Secret::new(format!("{MARK}{}", hex.as_str())))
    }

    /// A password that is hashed already: with or without `$1$`.
    ///
    /// # Errors
    /// [`PasswordError`]
    pub fn from_hash(text: &str) -> Result<Self, PasswordError> {
        let hex = text.strip_prefix(MARK).unwrap_or(text);
        if hex.len() != 32 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(PasswordError);
        }
        let hex = Zeroizing::new(hex.to_ascii_lowercase());
        Ok(Self(Secret::new(format!("{MARK}{}", hex.as_str()))))
    }

    /// The text for the wire alone.
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(...)")
    }
}

/// The id that two ids have together: the MD5 of both. An asset that is uploaded over UDP has that
/// of its transaction and of the login's secure session.
pub fn combined_id(first: Uuid, second: Uuid) -> Uuid {
    let digest = Md5::new().chain_update(first.as_bytes()).chain_update(second.as_bytes());
    Uuid::from_bytes(digest.finalize().into())
}

/// The MD5 of a text in hex, as ids of machines travel.
pub(super) fn md5_hex(text: &str) -> String {
    base16(&Md5::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ids_have_one_together() {
        let [first, second] = [1, 2].map(Uuid::from_u128);
        let both = "1ad7dfd342e37e2f608fa6a6aedb29d5";
        assert_eq!(combined_id(first, second).simple().to_string(), both);
        assert_ne!(combined_id(second, first), combined_id(first, second));
    }

    #[test]
    fn passwords_are_hashed_as_second_life_does() {
        let hash = "$1$5f4dcc3b5aa765d61d8327deb882cf99";
        assert_eq!(Password::new("password").reveal(), hash);
        assert_eq!(Password::from_hash(hash), Ok(Password::new("password")));
        assert_eq!(
            Password::from_hash("5F4DCC3B5AA765D61D8327DEB882CF99"),
            Ok(Password::new("password"))
        );
        assert_eq!(Password::from_hash("password"), Err(PasswordError));
        let (long, cut) = ("äöüäöüäöüäöüäöüäöü", "äöüäöüäöüäöüäöüä");
        assert_eq!(Password::new(long), Password::new(cut));
        assert_ne!(Password::whole(long), Password::new(long));
    }

    #[test]
    fn nothing_is_shown() {
        let shown =
            format!("{:?} {:?} {:?}", Password::new("x"), Secret::new("y"), Secret::default());
        assert_eq!(shown, "Password(...) ... none");
        assert_ne!(Secret::new("ab"), Secret::new("ac"));
        assert_ne!(Secret::new("ab"), Secret::new("abc"));
        assert_eq!(Secret::new("ab"), Secret::new("ab"));
    }
}
