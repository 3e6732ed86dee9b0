//! A server's configuration file.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use twinspan_admission::Rules;
use twinspan_admission::settings::{Document, SettingsError, Table};
use twinspan_game::{RelayDoor, ServerConfig, ServerError};
use twinspan_relay::{PEERS_MAX, PortConfig, TrunkKeys};

use crate::args::{BOTS_MAX, CORES_MAX, parse_address};
use crate::keys::{KeysError, read_trunk_key};

/// Names under which the figures may be asked for, at most.
const HOSTS_MAX: usize = 16;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{} {source}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: SettingsError,
    },
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
    /// How relays come in; `None` for not at all.
    pub relay: Option<RelayTable>,
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
        let text = read(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder)
            .map_err(|source| ConfigError::Text { path: path.to_owned(), source })
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
        let session = section(&root, "session", &["players_max", "idle_timeout_s"])?;
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
            relay: relay(&root, folder)?,
        })
    }

    /// The admission rules, as they are in their file now.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line and the nearest right word.
    pub fn read_rules(&self) -> Result<Rules, ConfigError> {
        let Some(path) = &self.rules else { return Ok(Rules::default()) };
        Rules::parse(&read(path)?)
            .map_err(|source| ConfigError::Text { path: path.clone(), source })
    }

    /// How relays come in, with the key from its file.
    ///
    /// # Errors
    /// [`KeysError`] says what to do about the key file.
    pub fn relay_door(&self) -> Result<Option<RelayDoor>, KeysError> {
        let Some(table) = &self.relay else { return Ok(None) };
        let present = read_trunk_key(&table.key)?;
        let before = table.previous_key.as_deref().map(read_trunk_key).transpose()?;
        let port = PortConfig::new(table.relays.clone(), TrunkKeys { present, before });
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

fn read(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
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
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("etc")).map_err(|error| error.to_string())
    }

    const LEAST: &str = "listen = \"127.0.0.1:7700\"\nkeys = \"k.toml\"\n";

    #[test]
    fn what_is_left_out_has_defaults_that_follow_the_number_of_players() {
        let config = parse(LEAST).unwrap();
        let sized = ServerConfig::for_players(1_000);
        assert_eq!(config.players_max, 1_000);
        assert_eq!((config.side_m, config.npcs), (sized.world.side, sized.npcs));
        assert_eq!(config.keys, Path::new("etc/k.toml"));
        let small = parse(&format!("{LEAST}[session]\nplayers_max = 10\n")).unwrap();
        assert!(small.side_m < config.side_m);
        let server = small.server(Rules::default());
        assert_eq!(server.session.sessions_max, 10);
        assert!(server.session.check().is_ok() && server.world.check().is_ok());
        let hasty = parse(&format!("{LEAST}[session]\nidle_timeout_s = 1\n")).unwrap();
        assert!(hasty.server(Rules::default()).session.check().is_ok());
    }

    #[test]
    fn what_is_printed_says_the_same() {
        for text in [
            LEAST.to_owned(),
            format!(
                "{LEAST}previous_keys = \"old.toml\"\nrules = 'a \"b\"\\c.toml'\nmetrics = \"[::1]:9\"\nmetrics_hosts = [\"a.b\"]\n\
                 drain_s = 3\ncores = 2\n[session]\nplayers_max = 7\nidle_timeout_s = 9\n[world]\n\
                 side_m = 96.5\nnpcs = 1\nprojectiles = 0\n[admission]\nnetworks_max = 128\n"
            ),
            format!(
                "{LEAST}[relay]\nlisten = \"[::1]:7800\"\nrelays = [\"[::2]:1\", \"[::3]:1\"]\n\
                 key = 't.toml'\nprevious_key = \"old.toml\"\nonly = true\n"
            ),
        ] {
            let config = parse(&text).unwrap();
            let again = Config::parse(&config.to_text(), Path::new("")).unwrap();
            assert_eq!(again, config, "{}", config.to_text());
        }
    }

    #[test]
    fn errors_name_the_line_and_what_to_write() {
        let cases = [
            ("", "line 1: key `listen` is missing here; add it"),
            (
                "listen = \"nowhere\"\n",
                "line 1: `listen` is \"nowhere\": give an address and a port",
            ),
            ("listn = \"127.0.0.1:1\"\n", "line 1: unknown key `listn`; did you mean `listen`?"),
            ("listen = \"127.0.0.1:1\"\n", "line 1: key `keys` is missing here; add it"),
            ("[world]\nside = 5\n", "line 1: key `listen` is missing"),
        ];
        for (text, wanted) in cases {
            let told = parse(text).unwrap_err();
            assert!(told.starts_with(wanted), "{told}");
        }
        for (text, wanted) in [
            ("[world]\nside = 5\n", "line 4: unknown key `side`; did you mean `side_m`?"),
            ("[wrld]\n", "line 3: unknown key `wrld`; did you mean `world`?"),
            (
                "[session]\nplayers_max = 0\n",
                "line 4: `players_max` is 0; write a whole number from 1",
            ),
            (
                "drain_s = \"5\"\n",
                "line 3: `drain_s` is \"5\"; write a whole number from 0 to 3600",
            ),
            ("metrics_hosts = [\"a:9\"]\n", "line 3: \"a:9\" is no host name; leave the port out"),
            ("[relay]\nlisten = \"1.2.3.4:5\"\n", "line 3: `relays` names nobody"),
            ("[relay]\nrelays = [\"here\"]\n", "line 4: \"here\": give an address and a port"),
            ("cores = 0\n", "line 3: `cores` is 0; write a whole number from 1 to 256"),
            (
                "cores = 2\n[relay]\nlisten = \"1.2.3.4:5\"\n",
                "line 3: `cores` is more than 1 and there is a `[relay]`",
            ),
            ("metrics = 9\n", "line 3: `metrics` is 9; write a text in quotes"),
        ] {
            let told = parse(&format!("{LEAST}{text}")).unwrap_err();
            assert!(told.starts_with(wanted), "{told}");
        }
    }
}
