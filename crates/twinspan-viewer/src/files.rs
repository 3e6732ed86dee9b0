//! What a viewer reads from files and the environment, and what it keeps in files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use twinspan_xmlrpc::login::Platform;
use zeroize::Zeroizing;

use crate::credentials::{CREDENTIALS_BYTES_MAX, CredentialsError};

/// A variable of the environment, if it is set to a text.
pub(crate) fn variable(name: &'static str) -> Option<String> {
    std::env::var(name).ok()
}

/// What this program runs on, in the grid's words.
pub(crate) fn platform() -> Platform {
    let (name, text) = match std::env::consts::OS {
        "windows" => ("win", "Windows"),
        "macos" => ("mac", "macOS"),
        _ => ("lnx", "Linux"),
    };
    let address_size = if cfg!(target_pointer_width = "64") { 64 } else { 32 };
    Platform { name: name.into(), text: text.into(), version: String::new(), address_size }
}

/// Reads a short file that nobody else may read.
pub(crate) fn read_secret_file(path: &Path) -> Result<Zeroizing<String>, CredentialsError> {
    let file = File::open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A pipe or a descriptor handed over by a parent is nobody else's.
        let about = file.metadata()?;
        if about.is_file() && about.permissions().mode() & 0o077 != 0 {
            return Err(CredentialsError::Readable);
        }
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(CREDENTIALS_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > CREDENTIALS_BYTES_MAX {
        return Err(CredentialsError::TooLong);
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| CredentialsError::NotText)?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Reads a file, up to one byte more than this; `None` when it is not there.
pub(crate) fn read_text_file(path: &Path, max: u64) -> io::Result<Option<Zeroizing<String>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Zeroizing::new(String::new());
    file.take(max + 1).read_to_string(&mut text)?;
    Ok(Some(text))
}

/// Writes a file that nobody else may read, whole or not at all.
pub(crate) fn replace_secret_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
