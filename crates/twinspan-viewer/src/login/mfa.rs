//! What second factors left for the next login, by grid and account.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use twinspan_http::Url;
use twinspan_xmlrpc::login::{AccountName, Secret};
use zeroize::Zeroizing;

use crate::files::{read_text_file, replace_secret_file};

/// Accounts that are kept; the first by name gives way to another.
pub const MFA_HASHES_MAX: usize = 256;
/// Bytes of a file of them.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What second factors left for the next login. Nothing shows them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MfaStore(BTreeMap<String, Secret>);

/// Why such a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MfaStoreError {
    /// What the operating system says.
    #[error("the file with the second factors: {0}")]
    File(#[from] std::io::Error),
    /// It is no such file.
    #[error("line {line} of the file with the second factors is not `account<TAB>hash`")]
    Line {
        /// Its number, from 1.
        line: usize,
    },
    /// It is longer than any.
    #[error("the file with the second factors is longer than {FILE_BYTES_MAX} bytes")]
    TooLong,
}

/// Names an account of a grid.
pub(super) fn key(url: &Url, name: &AccountName) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    let (first, last) = (name.first.to_lowercase(), name.last.to_lowercase());
    format!("{host}:{port}/{first}.{last}").replace(['\t', '\n', '\r'], " ")
}

impl MfaStore {
    pub(super) fn get(&self, key: &str) -> Option<&Secret> {
        self.0.get(key)
    }

    pub(super) fn keep(&mut self, key: String, hash: Secret) {
        if self.0.len() >= MFA_HASHES_MAX && !self.0.contains_key(&key) {
            self.0.pop_first();
        }
        self.0.insert(key, hash);
    }

    /// Reads a file; one that is not there has nothing in it.
    ///
    /// # Errors
    /// [`MfaStoreError`]
    pub fn load(path: impl AsRef<Path>) -> Result<Self, MfaStoreError> {
        let Some(text) = read_text_file(path.as_ref(), FILE_BYTES_MAX)? else {
            return Ok(Self::default());
        };
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(MfaStoreError::TooLong);
        }
        let mut store = Self::default();
        for (index, line) in text.lines().enumerate() {
            let wrong = MfaStoreError::Line { line: index + 1 };
            let Some((key, hash)) = line.split_once('\t') else { return Err(wrong) };
            store.keep(key.to_owned(), Secret::new(hash));
        }
        Ok(store)
    }

    /// Writes a file that nobody else may read, whole or not at all.
    ///
    /// # Errors
    /// [`MfaStoreError::File`]
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), MfaStoreError> {
        let mut text = Zeroizing::new(String::new());
        for (key, hash) in &self.0 {
            // Writing to a text does not fail.
            let _ = writeln!(text, "{key}\t{}", hash.reveal());
        }
        Ok(replace_secret_file(path.as_ref(), text.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_brings_back_what_was_kept() {
        let url = Url::parse("https://login.example/").unwrap();
        let mut store = MfaStore::default();
        store.keep(key(&url, &AccountName::new("Ruth", "Resident")), Secret::new("cafe"));
        let path = std::env::temp_dir().join(format!("twinspan-mfa-{}", std::process::id()));
        store.save(&path).unwrap();
        let again = MfaStore::load(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(again, store);
        assert_eq!(again.get("login.example:443/ruth.resident"), Some(&Secret::new("cafe")));
        assert!(!format!("{again:?}").contains("cafe"));
        assert_eq!(MfaStore::load(&path).unwrap(), MfaStore::default());
    }

    #[test]
    fn no_more_are_kept_than_the_limit() {
        let mut store = MfaStore::default();
        for number in 0..MFA_HASHES_MAX + 5 {
            store.keep(format!("{number:05}"), Secret::new("x"));
        }
        assert_eq!(store.0.len(), MFA_HASHES_MAX);
        assert!(store.get("00000").is_none());
    }
}
