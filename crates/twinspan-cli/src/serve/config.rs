//! A server's configuration file.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use twinspan_admission::Rules;
use twinspan_admission::settings::{Document, SettingsError, Table, nearest};
use twinspan_core::aead::Cipher;
use twinspan_game::{RelayDoor, ServerConfig, ServerError};
use twinspan_relay::{PEERS_MAX, PortConfig};
use twinspan_session::{HeaderProtection, SessionConfig};

use crate::args::{BOTS_MAX, CORES_MAX, parse_address};
use crate::keys::{KeysError, read_trunk_keys};
use crate::settings_file::{self, SettingsFileError};

/// Names under which the figures may be asked for, at most.
const HOSTS_MAX: usize = 16;

/// The keys of `[session]`.
const SESSION_KEYS: [&str; 8] = [
    "players_max",
    "idle_timeout_s",
    "header_protection",
    "ciphers",
    "resume_window_s",
    "hello_answers_per_second",
    "packets_in_per_second",
    "control_in_per_second",
];

/// The words for what becomes of headers.
const HEADER_PROTECTION: [(&str, HeaderProtection); 3] = [
    ("forbid", HeaderProtection::Forbid),
    ("allow", HeaderProtection::Allow),
    ("require", HeaderProtection::Require),
];

/// The words for ciphers, as `--cipher` has them.
const CIPHERS: [(&str, Cipher); 3] = [
    ("aes128", Cipher::Aes128Gcm),
    ("aes256", Cipher::Aes256Gcm),
    ("chacha20", Cipher::ChaCha20Poly1305),
];

fn cipher_word(wanted: Cipher) -> &'static str {
    CIPHERS.iter().find(|(_, known)| *known == wanted).map_or("", |(word, _)| *word)
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// One of its files cannot be used.
    #[error(transparent)]
    File(#[from] SettingsFileError),
    /// Its settings do not fit together.
    #[error("{}: {source}", path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: ServerError,
    },
}

/// A server's configuration, as it takes effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the world listens for datagrams.
    pub listen: SocketAddr,
    /// The file with the server's keys.
    pub keys: PathBuf,
    /// The file with the keys that were in use before: tokens under them are let in too.
    pub previous_keys: Option<PathBuf>,
    /// The file with the admission rules; `None` for the default rules.
    pub rules: Option<PathBuf>,
    /// The file in which bans outlive the server; `None` for none.
    pub bans_file: Option<PathBuf>,
    /// Where figures are served; `None` for nowhere.
    pub metrics: Option<SocketAddr>,
    /// Host names under which figures may be asked for, besides addresses and `localhost`.
    pub metrics_hosts: Vec<String>,
    /// How long a drain waits, in seconds.
    pub drain_s: u64,
    /// Cores to run on, each with a thread of its own.
    pub cores: u64,
    /// Players that are let in at once.
    pub players_max: u32,
    /// A session that was not heard of for so many seconds is over.
    pub idle_timeout_s: u64,
    /// Side of the world in metres; what the world does not take is refused.
    pub side_m: f64,
    /// Characters that wander about.
    pub npcs: u32,
    /// Projectiles that fly about.
    pub projectiles: u32,
    /// Networks that the admission filter remembers.
    pub networks_max: u64,
    /// What sessions may do, and for how long.
    pub sessions: SessionTable,
    /// How relays come in; `None` for not at all.
    pub relay: Option<RelayTable>,
}

/// What sessions may do, as the configuration says it; ranges and defaults are those of
/// [`SessionConfig`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionTable {
    /// Whether packet headers are hidden.
    pub header_protection: HeaderProtection,
    /// The ciphers, the one that is liked best first; empty for all by their measured cost.
    pub ciphers: Vec<Cipher>,
    /// How long a lost session may be resumed, and its entity waits, in seconds.
    pub resume_window_s: u64,
    /// HELLOs without a cookie that are answered a second.
    pub hello_answers_per_second: u32,
    /// Packets that are taken a second from one session.
    pub packets_in_per_second: u32,
    /// Control frames that are taken a second from one session.
    pub control_in_per_second: u32,
}

/// How relays come in, as the configuration says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayTable {
    /// Where the server takes relays.
    pub listen: SocketAddr,
    /// From where relays may speak.
    pub relays: Vec<SocketAddr>,
    /// The file with the key that is shared with them.
    pub key: PathBuf,
    /// The file with the key before it, with which relays may still speak while keys change.
    pub previous_key: Option<PathBuf>,
    /// Whether clients come through relays alone.
    pub only: bool,
}

impl Config {
    /// Reads a configuration; file names in it are relative to its folder.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line and the nearest right word.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok(settings_file::read(path, |text| Self::parse(text, folder))?)
    }

    /// Reads the text of a configuration whose file lies in `folder`.
    ///
    /// # Errors
    /// [`SettingsError`] names the line and the nearest right word.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, SettingsError> {
        let document = Document::parse(text)?;
        let root = document.root();
        root.allow(&[
            "listen",
            "keys",
            "previous_keys",
            "rules",
            "bans_file",
            "metrics",
            "metrics_hosts",
            "drain_s",
            "cores",
            "session",
            "world",
            "admission",
            "relay",
        ])?;
        let file = |name: &str| folder.join(name);
        let listen = root.require("listen", root.parsed("listen", parse_address)?)?;
        let keys = file(root.require("keys", root.text("keys")?)?);
        let session = section(&root, "session", &SESSION_KEYS)?;
        let world = section(&root, "world", &["side_m", "npcs", "projectiles"])?;
        let admission = section(&root, "admission", &["networks_max"])?;
        let players_max = number(session, "players_max", 1..=u64::from(BOTS_MAX), 1_000)? as u32;
        let sized = ServerConfig::for_players(players_max);
        let crowd = 0..=100_000;
        let side = match world {
            Some(table) => table.number("side_m", 1.0..=1e9)?,
            None => None,
        };
        Ok(Self {
            listen,
            keys,
            previous_keys: root.text("previous_keys")?.map(file),
            rules: root.text("rules")?.map(file),
            bans_file: root.text("bans_file")?.map(file),
            metrics: root.parsed("metrics", parse_address)?,
            metrics_hosts: hosts(&root)?,
            drain_s: root.whole("drain_s", 0..=3_600)?.unwrap_or(10),
            cores: cores(&root)?,
            players_max,
            idle_timeout_s: number(session, "idle_timeout_s", 1..=600, 20)?,
            side_m: side.unwrap_or(sized.world.side),
            npcs: number(world, "npcs", crowd.clone(), u64::from(sized.npcs))? as u32,
            projectiles: number(world, "projectiles", crowd, u64::from(sized.projectiles))? as u32,
            networks_max: number(admission, "networks_max", 64..=1 << 24, 32_768)?,
            sessions: sessions(session)?,
            relay: relay(&root, folder)?,
        })
    }

    /// The admission rules, as they are in their file now.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line and the nearest right word.
    pub fn read_rules(&self) -> Result<Rules, ConfigError> {
        let Some(path) = &self.rules else { return Ok(Rules::default()) };
        Ok(settings_file::read(path, Rules::parse)?)
    }

    /// How relays come in, with the key from its file.
    ///
    /// # Errors
    /// [`KeysError`] says what to do about the key file.
    pub fn relay_door(&self) -> Result<Option<RelayDoor>, KeysError> {
        let Some(table) = &self.relay else { return Ok(None) };
        let keys = read_trunk_keys(&table.key, table.previous_key.as_deref())?;
        let port = PortConfig::new(table.relays.clone(), keys);
        Ok(Some(RelayDoor { listen: table.listen, port, only: table.only }))
    }

    /// The server that this calls for.
    pub fn server(&self, rules: Rules) -> ServerConfig {
        let mut config = ServerConfig::for_players(self.players_max);
        config.npcs = self.npcs;
        config.projectiles = self.projectiles;
        config.world.side = self.side_m;
        let population = self.players_max + self.npcs + self.projectiles;
        config.world.entities_max = config.world.entities_max.max(2 * population as usize);
        config.session.sessions_max = self.players_max as usize;
        config.session.idle_timeout = Duration::from_secs(self.idle_timeout_s);
        // A keep-alive must fit the time-out several times over.
        config.session.keepalive_interval =
            config.session.keepalive_interval.min(config.session.idle_timeout / 4);
        let SessionTable { header_protection, resume_window_s, .. } = self.sessions;
        config.session.header_protection = header_protection;
        config.session.resume.window = Duration::from_secs(resume_window_s);
        config.session.hello_answers_per_second = self.sessions.hello_answers_per_second;
        config.session.packets_in_per_second = self.sessions.packets_in_per_second;
        config.session.control_in_per_second = self.sessions.control_in_per_second;
        config.drain_time_max = Duration::from_secs(self.drain_s);
        config.admission.rules = rules;
        config.admission.networks_max = self.networks_max as usize;
        config
    }

    /// The configuration as a file that says everything.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let quoted = |path: &Path| quote(&path.to_string_lossy());
        // Writing into a text cannot fail.
        let _ = writeln!(text, "listen = {}", quote(&self.listen.to_string()));
        let _ = writeln!(text, "keys = {}", quoted(&self.keys));
        if let Some(previous) = &self.previous_keys {
            let _ = writeln!(text, "previous_keys = {}", quoted(previous));
        }
        if let Some(rules) = &self.rules {
            let _ = writeln!(text, "rules = {}", quoted(rules));
        }
        if let Some(bans) = &self.bans_file {
            let _ = writeln!(text, "bans_file = {}", quoted(bans));
        }
        if let Some(metrics) = &self.metrics {
            let _ = writeln!(text, "metrics = {}", quote(&metrics.to_string()));
        }
        let hosts: Vec<_> = self.metrics_hosts.iter().map(|host| quote(host)).collect();
        let _ = writeln!(text, "metrics_hosts = [{}]", hosts.join(", "));
        let _ = writeln!(text, "drain_s = {}\ncores = {}", self.drain_s, self.cores);
        let _ = writeln!(text, "\n[session]\nplayers_max = {}", self.players_max);
        let _ = writeln!(text, "idle_timeout_s = {}", self.idle_timeout_s);
        text += &self.sessions.to_text();
        let _ = writeln!(text, "\n[world]\nside_m = {:?}", self.side_m);
        let _ = writeln!(text, "npcs = {}\nprojectiles = {}", self.npcs, self.projectiles);
        let _ = writeln!(text, "\n[admission]\nnetworks_max = {}", self.networks_max);
        if let Some(relay) = &self.relay {
            let relays: Vec<_> =
                relay.relays.iter().map(|address| quote(&address.to_string())).collect();
            let listen = quote(&relay.listen.to_string());
            let _ = writeln!(text, "\n[relay]\nlisten = {listen}");
            let _ = writeln!(text, "relays = [{}]", relays.join(", "));
            let _ = writeln!(text, "key = {}", quoted(&relay.key));
            if let Some(previous) = &relay.previous_key {
                let _ = writeln!(text, "previous_key = {}", quoted(previous));
            }
            let _ = writeln!(text, "only = {}", relay.only);
        }
        text
    }
}

impl SessionTable {
    fn to_text(&self) -> String {
        let Self { hello_answers_per_second, packets_in_per_second, control_in_per_second, .. } =
            self;
        let word = |wanted: HeaderProtection| {
            HEADER_PROTECTION
                .iter()
                .find(|(_, known)| *known == wanted)
                .map_or("", |(word, _)| *word)
        };
        let ciphers: Vec<_> =
            self.ciphers.iter().map(|cipher| quote(cipher_word(*cipher))).collect();
        format!(
            "header_protection = {}\nciphers = [{}]\nresume_window_s = {}\n\
             hello_answers_per_second = {hello_answers_per_second}\n\
             packets_in_per_second = {packets_in_per_second}\n\
             control_in_per_second = {control_in_per_second}\n",
            quote(word(self.header_protection)),
            ciphers.join(", "),
            self.resume_window_s,
        )
    }
}

fn section<'d, 't>(
    root: &Table<'d, 't>,
    name: &str,
    known: &[&str],
) -> Result<Option<Table<'d, 't>>, SettingsError> {
    let table = root.table(name)?;
    if let Some(table) = &table {
        table.allow(known)?;
    }
    Ok(table)
}

fn number(
    table: Option<Table<'_, '_>>,
    key: &str,
    range: core::ops::RangeInclusive<u64>,
    default: u64,
) -> Result<u64, SettingsError> {
    let given = match table {
        Some(table) => table.whole(key, range)?,
        None => None,
    };
    Ok(given.unwrap_or(default))
}

fn sessions(table: Option<Table<'_, '_>>) -> Result<SessionTable, SettingsError> {
    let usual = SessionConfig::default();
    let protection = match table {
        Some(table) => table.choice("header_protection", &HEADER_PROTECTION)?,
        None => None,
    };
    let rate = |key: &str, range, default: u32| -> Result<u32, SettingsError> {
        Ok(number(table, key, range, u64::from(default))? as u32)
    };
    let window = usual.resume.window.as_secs();
    let (hellos, packets, control) =
        (usual.hello_answers_per_second, usual.packets_in_per_second, usual.control_in_per_second);
    Ok(SessionTable {
        header_protection: protection.unwrap_or(usual.header_protection),
        ciphers: ciphers(table)?,
        resume_window_s: number(table, "resume_window_s", 1..=600, window)?,
        hello_answers_per_second: rate("hello_answers_per_second", 16..=1_000_000, hellos)?,
        packets_in_per_second: rate("packets_in_per_second", 100..=10_000_000, packets)?,
        control_in_per_second: rate("control_in_per_second", 10..=1_000_000, control)?,
    })
}

/// The ciphers in their order, none twice.
fn ciphers(table: Option<Table<'_, '_>>) -> Result<Vec<Cipher>, SettingsError> {
    let Some(table) = table else { return Ok(Vec::new()) };
    let mut order = Vec::new();
    for word in table.texts("ciphers", CIPHERS.len())? {
        let known = CIPHERS.iter().find(|(known, _)| *known == word);
        let Some((_, cipher)) = known else {
            let words = CIPHERS.map(|(word, _)| word);
            let near = nearest(word, words).map_or_else(
                || format!("there are {}", words.map(|word| format!("`{word}`")).join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            let what = format!("`ciphers` names \"{}\"; {near}", word.escape_debug());
            return Err(table.error_at("ciphers", what));
        };
        if order.contains(cipher) {
            let what = format!("`ciphers` names \"{word}\" twice; name it once");
            return Err(table.error_at("ciphers", what));
        }
        order.push(*cipher);
    }
    Ok(order)
}

fn cores(root: &Table<'_, '_>) -> Result<u64, SettingsError> {
    let cores = root.whole("cores", 1..=u64::from(CORES_MAX))?.unwrap_or(1);
    if cores > 1 && root.table("relay")?.is_some() {
        let what = "`cores` is more than 1 and there is a `[relay]`: relays come in on one core";
        return Err(root.error_at("cores", what));
    }
    Ok(cores)
}

fn relay(root: &Table<'_, '_>, folder: &Path) -> Result<Option<RelayTable>, SettingsError> {
    let known = &["listen", "relays", "key", "previous_key", "only"];
    let Some(table) = section(root, "relay", known)? else { return Ok(None) };
    let mut relays = Vec::new();
    for text in table.texts("relays", PEERS_MAX)? {
        let address = parse_address(text).map_err(|what| {
            table.error_at("relays", format!("\"{}\": {what}", text.escape_debug()))
        })?;
        relays.push(address);
    }
    if relays.is_empty() {
        return Err(
            table.error_at("relays", "`relays` names nobody; name the relays' trunk addresses")
        );
    }
    Ok(Some(RelayTable {
        listen: table.require("listen", table.parsed("listen", parse_address)?)?,
        relays,
        key: folder.join(table.require("key", table.text("key")?)?),
        previous_key: table.text("previous_key")?.map(|name| folder.join(name)),
        only: table.flag("only")?.unwrap_or(false),
    }))
}

fn hosts(root: &Table<'_, '_>) -> Result<Vec<String>, SettingsError> {
    let hosts = root.texts("metrics_hosts", HOSTS_MAX)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    for host in &hosts {
        if host.is_empty() || !host.bytes().all(is_plain) {
            let what = format!("\"{}\" is no host name; leave the port out", host.escape_debug());
            return Err(root.error_at("metrics_hosts", what));
        }
    }
    Ok(hosts.into_iter().map(str::to_owned).collect())
}

/// A text as TOML writes it.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            control if control.is_control() => {
                // Writing into a text cannot fail.
                let _ = write!(quoted, "\\u{:04X}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests;
