//! Files of settings: how they are read, and why one cannot be used.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use twinspan_admission::settings::SettingsError;

/// Bytes of a file of settings at most.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Why a file of settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsFileError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is too long.
    #[error("{} has more than {FILE_BYTES_MAX} bytes; leave something out", path.display())]
    Long {
        /// The file.
        path: PathBuf,
    },
    /// Something in it is wrong.
    #[error("{} {source}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: SettingsError,
    },
}

/// Reads a file, whose text means what `parse` says.
pub(crate) fn read<T>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, SettingsError>,
) -> Result<T, SettingsFileError> {
    let failed = |source| SettingsFileError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(SettingsFileError::Long { path: path.to_owned() });
    }
    parse(&text).map_err(|source| SettingsFileError::Text { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_end_is_refused() {
        let error = read(Path::new("/dev/zero"), |_| Ok(())).unwrap_err();
        assert!(matches!(error, SettingsFileError::Long { .. }), "{error}");
    }

    #[test]
    fn what_is_wrong_names_the_file() {
        let error = read(Path::new("/nowhere.toml"), |_| Ok(())).unwrap_err();
        assert!(error.to_string().starts_with("cannot read /nowhere.toml: "), "{error}");
    }
}
