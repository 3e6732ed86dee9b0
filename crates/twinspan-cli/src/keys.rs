//! Key files, and `twinspan keys` and `twinspan token` that make and use them.
//!
//! A server's file holds its static secret and the token key; a login service's file only what it
//! needs to let users in: the server's public key and the token key. Both are secret.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use twinspan_admission::settings::{Document, SettingsError, Table};
use twinspan_core::random::SecretSource;
use twinspan_game::ServerKeys;
use twinspan_provider::OsSecrets;
use twinspan_relay::{TrunkKey, TrunkKeys};
use twinspan_session::{PublicKey, ServerIdentity, TokenIssuer, TokenKey, UserId};
use zeroize::Zeroizing;

use crate::args::{KeysArgs, KeysCommand, TokenArgs};
use crate::error::CommandError;

/// The longest key file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// It is not there.
    #[error("there is no key file {}; make one with `twinspan keys new {}`", .0.display(), .0.display())]
    Missing(PathBuf),
    /// The key for relays is not there.
    #[error("there is no key file {}; make one with `twinspan keys trunk {}`", .0.display(), .0.display())]
    MissingTrunk(PathBuf),
    /// The system does not let it be read or written.
    #[error("cannot use key file {}: {source}", path.display())]
    Os {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something is there already.
    #[error("{} is there already, and keys are never written over; choose another name", .0.display())]
    Exists(PathBuf),
    /// Others than its owner can read it.
    #[error(
        "key file {} can be read by others (mode {mode:04o}); run `chmod 600 {}`, and make new keys \
         if others may have read it", path.display(), path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is no key file.
    #[error("key file {}: {source}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: SettingsError,
    },
    /// It has not the server's secret.
    #[error("key file {} is for a login service: give the server's own file", .0.display())]
    LoginOnly(PathBuf),
}

/// The keys of a file.
pub struct KeyFile {
    server_secret: Option<Zeroizing<[u8; 32]>>,
    server_public: PublicKey,
    token_key: TokenKey,
}

impl KeyFile {
    /// Fresh keys.
    pub fn generate(secrets: &mut dyn SecretSource) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        secrets.fill(secret.as_mut_slice());
        let server_public = ServerIdentity::from_secret(&secret).public_key();
        let token_key = TokenKey::new(secrets);
        Self { server_secret: Some(secret), server_public, token_key }
    }

    /// Reads a file that nobody but its owner can read.
    ///
    /// # Errors
    /// [`KeysError`] says what to do about it. It names no secret.
    pub fn read(path: &Path) -> Result<Self, KeysError> {
        let text = read_private(path)?;
        Self::parse(&text).map_err(|source| KeysError::Text { path: path.to_owned(), source })
    }

    /// Reads the text of a key file.
    ///
    /// # Errors
    /// [`SettingsError`] names the line, and no secret.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let document = Document::parse(text)?;
        let root = document.root();
        root.allow(&["layout", "server_secret", "server_public", "token_key"])?;
        let layout = root.require("layout", root.whole("layout", 0..=u64::MAX)?)?;
        if layout != 1 {
            let what = format!("`layout` is {layout}; this program knows layout 1");
            return Err(root.error_at("layout", what));
        }
        let server_secret = key(&root, "server_secret")?;
        let server_public = root.require("server_public", key(&root, "server_public")?)?;
        let server_public = PublicKey::from_bytes(*server_public);
        let fits = |secret: &Zeroizing<[u8; 32]>| {
            ServerIdentity::from_secret(secret).public_key() == server_public
        };
        if !server_secret.as_ref().is_none_or(fits) {
            let what = "`server_public` does not belong to `server_secret`; make new keys";
            return Err(root.error_at("server_public", what));
        }
        let token_key = root.require("token_key", key(&root, "token_key")?)?;
        Ok(Self { server_secret, server_public, token_key: TokenKey::from_bytes(*token_key) })
    }

    /// The text of the file; without `for_server`, what a login service needs of it.
    pub fn to_text(&self, for_server: bool) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(512));
        let whose = if for_server { "a server" } else { "a login service" };
        // Writing into a text with room cannot fail.
        let _ =
            writeln!(text, "# Twinspan keys of {whose}. Secret: readable by their owner alone.");
        let _ = writeln!(text, "layout = 1");
        if for_server && let Some(secret) = &self.server_secret {
            let _ = writeln!(text, "server_secret = \"{}\"", hex(secret).as_str());
        }
        let _ =
            writeln!(text, "server_public = \"{}\"", hex(self.server_public.as_bytes()).as_str());
        let _ = writeln!(text, "token_key = \"{}\"", hex(self.token_key.as_bytes()).as_str());
        text
    }

    /// Writes a new file that only its owner can read.
    ///
    /// # Errors
    /// [`KeysError`] when something is there already, or the system does not let it.
    pub fn write(&self, path: &Path, for_server: bool) -> Result<(), KeysError> {
        write_private(path, &self.to_text(for_server))
    }

    /// What a server proves itself with.
    ///
    /// # Errors
    /// [`KeysError::LoginOnly`] when the file, at `path`, has not the server's secret.
    pub fn server_keys(&self, path: &Path) -> Result<ServerKeys, KeysError> {
        let Some(secret) = &self.server_secret else {
            return Err(KeysError::LoginOnly(path.to_owned()));
        };
        let identity = ServerIdentity::from_secret(secret);
        Ok(ServerKeys { identity, tokens: self.token_key.clone() })
    }

    /// What makes tokens for the server.
    pub fn issuer(&self) -> TokenIssuer {
        TokenIssuer::new(self.token_key.clone(), self.server_public)
    }

    /// Which keys these are, for people: no secret.
    pub fn names(&self) -> String {
        format!(
            "server key {:08x}, token key {:08x}",
            self.server_public.key_id(),
            self.token_key.key_id()
        )
    }
}

/// Reads a file that nobody but its owner can read.
fn read_private(path: &Path) -> Result<Zeroizing<String>, KeysError> {
    let os = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => KeysError::Missing(path.to_owned()),
        _ => KeysError::Os { path: path.to_owned(), source },
    };
    let file = File::open(path).map_err(os)?;
    // Of the open file, so that nobody can put another in its place in between.
    check_private(path, &file.metadata().map_err(os)?)?;
    let mut text = Zeroizing::new(String::new());
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(os)?;
    Ok(text)
}

/// Writes a new file that only its owner can read.
fn write_private(path: &Path, text: &str) -> Result<(), KeysError> {
    let os = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => KeysError::Exists(path.to_owned()),
        _ => KeysError::Os { path: path.to_owned(), source },
    };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(os)?;
    file.write_all(text.as_bytes()).map_err(os)?;
    file.sync_all().map_err(os)
}

/// The text of the file with the key of a server and its relays.
fn trunk_text(key: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(256));
    // Writing into a text with room cannot fail.
    let _ = writeln!(text, "# Twinspan key of a server and its relays. Secret.");
    let _ = writeln!(text, "layout = 1\ntrunk_key = \"{}\"", hex(key).as_str());
    text
}

/// Reads the key that a server and its relays share.
///
/// # Errors
/// [`KeysError`] says what to do about the file. It names no secret.
pub fn read_trunk_key(path: &Path) -> Result<TrunkKey, KeysError> {
    let text = read_private(path).map_err(|error| match error {
        KeysError::Missing(path) => KeysError::MissingTrunk(path),
        other => other,
    })?;
    parse_trunk_key(&text).map_err(|source| KeysError::Text { path: path.to_owned(), source })
}

/// The keys of a trunk as their files have them; without a file for the key before the present one
/// there is none.
///
/// # Errors
/// [`KeysError`] says what to do about a file.
pub fn read_trunk_keys(present: &Path, before: Option<&Path>) -> Result<TrunkKeys, KeysError> {
    let before = before.map(read_trunk_key).transpose()?;
    Ok(TrunkKeys { present: read_trunk_key(present)?, before })
}

/// The same files read again while the keys `in_use` are in use: other keys than those, or `None`
/// where they are the same. A key that gives way without a file for it stays good as the one before.
///
/// # Errors
/// [`KeysError`] says what to do about a file.
pub fn reread_trunk_keys(
    in_use: &TrunkKeys,
    present: &Path,
    before: Option<&Path>,
) -> Result<Option<TrunkKeys>, KeysError> {
    let mut keys = read_trunk_keys(present, before)?;
    if before.is_none() {
        let is_same = keys.present.is_same(&in_use.present);
        keys.before = if is_same { in_use.before.clone() } else { Some(in_use.present.clone()) };
    }
    Ok((!keys.are_same(in_use)).then_some(keys))
}

fn parse_trunk_key(text: &str) -> Result<TrunkKey, SettingsError> {
    let document = Document::parse(text)?;
    let root = document.root();
    root.allow(&["layout", "trunk_key"])?;
    let layout = root.require("layout", root.whole("layout", 0..=u64::MAX)?)?;
    if layout != 1 {
        let what = format!("`layout` is {layout}; this program knows layout 1");
        return Err(root.error_at("layout", what));
    }
    let bytes = root.require("trunk_key", key(&root, "trunk_key")?)?;
    Ok(TrunkKey::from_bytes(*bytes))
}

#[cfg(unix)]
fn check_private(path: &Path, metadata: &std::fs::Metadata) -> Result<(), KeysError> {
    let mode = std::os::unix::fs::MetadataExt::mode(metadata) & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(KeysError::Open { path: path.to_owned(), mode }) }
}

#[cfg(not(unix))]
fn check_private(_: &Path, _: &std::fs::Metadata) -> Result<(), KeysError> {
    Ok(())
}

/// A key of 32 bytes in hexadecimal digits; an error does not show it.
fn key(table: &Table<'_, '_>, name: &str) -> Result<Option<Zeroizing<[u8; 32]>>, SettingsError> {
    let Some(text) = table.text(name)? else { return Ok(None) };
    let wrong = || table.error_at(name, format!("`{name}` has not 64 hexadecimal digits"));
    if text.len() != 64 {
        return Err(wrong());
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or_else(wrong);
    let mut bytes = Zeroizing::new([0; 32]);
    for (out, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = *pair else { return Err(wrong()) };
        *out = (digit(high)? << 4 | digit(low)?) as u8;
    }
    Ok(Some(bytes))
}

fn hex(bytes: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(64));
    for byte in bytes {
        // Writing into a text with room cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// `twinspan keys`.
///
/// # Errors
/// [`CommandError`] says why there are no keys.
pub fn run(args: &KeysArgs) -> Result<u8, CommandError> {
    match &args.command {
        KeysCommand::New { file } => {
            let keys = KeyFile::generate(&mut OsSecrets);
            keys.write(file, true)?;
            print(&format!("{}: {}", file.display(), keys.names()))?;
        }
        KeysCommand::Login { file, out } => {
            let keys = KeyFile::read(file)?;
            keys.write(out, false)?;
            print(&format!("{}: {}", out.display(), keys.names()))?;
        }
        KeysCommand::Trunk { file } => {
            let mut bytes = Zeroizing::new([0; 32]);
            OsSecrets.fill(bytes.as_mut_slice());
            write_private(file, &trunk_text(&bytes))?;
            print(&format!("{}: for a server and its relays", file.display()))?;
        }
        KeysCommand::Show { file } => {
            let keys = KeyFile::read(file)?;
            let kind = if keys.server_secret.is_some() { "server" } else { "login service" };
            print(&format!("{}: of a {kind}, {}", file.display(), keys.names()))?;
        }
    }
    Ok(0)
}

/// `twinspan token`: one token a line.
///
/// # Errors
/// [`CommandError`] says why there is no token.
pub fn token(args: &TokenArgs) -> Result<u8, CommandError> {
    let keys = KeyFile::read(&args.key_file)?;
    let expires_at = expiry(Duration::from_secs(args.expires));
    let issuer = keys.issuer();
    let mut out = io::stdout().lock();
    for user in (args.user..).take(args.count as usize) {
        let token = issuer.issue(&mut OsSecrets, UserId(user), args.server, expires_at);
        let text = Zeroizing::new(token.to_text());
        writeln!(out, "{}", text.as_str()).map_err(CommandError::Output)?;
    }
    out.flush().map_err(CommandError::Output)?;
    Ok(0)
}

/// The moment so long from now, in seconds since 1970.
pub(crate) fn expiry(lifetime: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_add(lifetime).as_secs()
}

fn print(line: &str) -> Result<(), CommandError> {
    writeln!(io::stdout().lock(), "{line}").map_err(CommandError::Output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_core::random::Stream;

    fn keys() -> KeyFile {
        KeyFile::generate(&mut Stream::new(1, "keys", 0))
    }

    #[test]
    fn keys_survive_their_file() {
        let keys = keys();
        let again = KeyFile::parse(&keys.to_text(true)).unwrap();
        assert_eq!(again.names(), keys.names());
        assert_eq!(again.to_text(true).as_str(), keys.to_text(true).as_str());
        let login = KeyFile::parse(&keys.to_text(false)).unwrap();
        assert_eq!(login.names(), keys.names());
        let path = Path::new("login.keys");
        let Err(error) = login.server_keys(path) else { panic!("it has no secret") };
        assert!(error.to_string().contains("login.keys is for a login service"), "{error}");
        assert!(again.server_keys(path).is_ok());
    }

    #[test]
    fn a_trunk_key_survives_its_file_and_what_is_wrong_is_told() {
        let text = trunk_text(&[0xab; 32]);
        assert!(parse_trunk_key(&text).is_ok());
        for (changed, wanted) in [
            (text.replace("trunk_key", "trunk_kye"), "line 3: unknown key `trunk_kye`"),
            (text.replace("layout = 1", "layout = 3"), "line 2: `layout` is 3"),
            (text.replace("\"ab", "\"xy"), "line 3: `trunk_key` has not 64"),
        ] {
            let Err(error) = parse_trunk_key(&changed) else { panic!("{changed} is legal") };
            let told = error.to_string();
            assert!(told.starts_with(wanted), "{told}");
            assert!(!told.contains("abab"), "{told}");
        }
    }

    #[test]
    fn files_read_again_keep_the_key_that_gave_way_unless_they_name_another() {
        let folder = std::env::temp_dir().join(format!("twinspan-trunk-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, byte: u8| {
            let path = folder.join(name);
            let _ = std::fs::remove_file(&path);
            write_private(&path, &trunk_text(&[byte; 32])).unwrap();
            path
        };
        let (first, second) = (TrunkKey::from_bytes([1; 32]), TrunkKey::from_bytes([2; 32]));
        let in_use = TrunkKeys::from(first.clone());
        let present = file("present.toml", 1);
        assert!(reread_trunk_keys(&in_use, &present, None).unwrap().is_none());
        file("present.toml", 2);
        let changed = reread_trunk_keys(&in_use, &present, None).unwrap().unwrap();
        assert!(changed.present.is_same(&second));
        assert!(changed.before.as_ref().unwrap().is_same(&first));
        assert!(reread_trunk_keys(&changed, &present, None).unwrap().is_none(), "once is enough");
        // The file of the one before ends the old key.
        let before = file("before.toml", 2);
        let ended = reread_trunk_keys(&changed, &present, Some(&before)).unwrap().unwrap();
        assert!(ended.before.unwrap().is_same(&second));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(reread_trunk_keys(&changed, &present, None).is_err());
    }

    #[test]
    fn a_login_service_s_file_has_no_secret_of_the_server() {
        let keys = keys();
        let secret = hex(keys.server_secret.as_ref().unwrap());
        assert!(keys.to_text(true).contains(secret.as_str()));
        assert!(!keys.to_text(false).contains(secret.as_str()));
    }

    #[test]
    fn what_is_wrong_with_a_key_is_told_without_the_key() {
        let text = keys().to_text(true).to_string();
        let line = text.lines().find(|line| line.starts_with("token_key")).unwrap();
        let other = text.lines().find(|line| line.starts_with("server_public")).unwrap();
        let swapped = line.replace("token_key", "server_public");
        for (changed, wanted) in [
            (text.replace("layout = 1", "layout = 2"), "line 2: `layout` is 2"),
            (
                text.replace("token_key", "token_kye"),
                "line 5: unknown key `token_kye`; did you mean",
            ),
            (text.replace(line, ""), "key `token_key` is missing"),
            (text.replace(line, &line.replace("= \"", "= \"0")), "line 5: `token_key` has not 64"),
            (text.replace(line, &line.replace("= \"", "= \"zz").replace("zz00", "zz")), "line 5"),
            (text.replace(other, &swapped), "line 4: `server_public` does not belong"),
        ] {
            let Err(error) = KeyFile::parse(&changed) else { panic!("{changed} is legal") };
            let error = error.to_string();
            assert!(error.contains(wanted), "{error}");
            let digits = |word: &str| word.len() > 8 && word.chars().all(|c| c.is_ascii_hexdigit());
            let words = error.split(|c: char| !c.is_ascii_alphanumeric());
            assert_eq!(words.filter(|word| digits(word)).count(), 0, "{error}");
        }
    }
}
