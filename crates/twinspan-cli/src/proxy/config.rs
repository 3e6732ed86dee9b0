//! What a proxy is told: where it listens, where that leads, and what each way is like.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use twinspan_admission::settings::{Document, SettingsError, Table};
use twinspan_core::link::{Conditions, DELAY_MAX, QUEUE_BYTES_MIN};

use crate::args::parse_address;
use crate::settings_file::{self, SettingsFileError};

/// Ways of one proxy.
pub(super) const WAYS_MAX: usize = 64;

/// Bytes of a device's name at most.
const DEVICE_BYTES_MAX: usize = 15;

/// What is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Udp,
    Tcp,
}

impl Protocol {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// One way through the proxy.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Way {
    pub(super) protocol: Protocol,
    pub(super) listen: SocketAddr,
    pub(super) to: SocketAddr,
    /// From clients to where it leads.
    pub(super) up: Conditions,
    /// Back.
    pub(super) down: Conditions,
}

/// Two tun devices with a link between them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cable {
    /// The devices' names.
    pub(super) one: String,
    pub(super) other: String,
    /// From `one` to `other`.
    pub(super) up: Conditions,
    /// Back.
    pub(super) down: Conditions,
}

/// A proxy's file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    /// What befalls datagrams is drawn from it.
    pub(super) seed: u64,
    pub(super) ways: Vec<Way>,
    pub(super) cables: Vec<Cable>,
}

impl Config {
    pub(super) fn read(path: &Path) -> Result<Self, SettingsFileError> {
        settings_file::read(path, Self::parse)
    }

    pub(super) fn parse(text: &str) -> Result<Self, SettingsError> {
        let document = Document::parse(text)?;
        let root = document.root();
        root.allow(&["seed", "udp", "tcp", "tun"])?;
        let mut ways = Vec::new();
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            for table in root.tables(protocol.name(), WAYS_MAX)? {
                ways.push(way(protocol, &table)?);
            }
        }
        let tables = root.tables("tun", WAYS_MAX)?;
        let cables = tables.iter().map(cable).collect::<Result<Vec<_>, _>>()?;
        if ways.is_empty() && cables.is_empty() {
            let what = "there is no [[udp]] and no [[tcp]], which name `listen` and `to`, and no \
                        [[tun]], which names `one` and `other`";
            return Err(root.error(what));
        }
        Ok(Self { seed: root.whole("seed", 0..=u64::MAX >> 1)?.unwrap_or(1), ways, cables })
    }
}

fn cable(table: &Table<'_, '_>) -> Result<Cable, SettingsError> {
    table.allow(&["one", "other", "up", "down"])?;
    let device = |key| {
        let name: &str = table.require(key, table.text(key)?)?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > DEVICE_BYTES_MAX || !name.bytes().all(is_plain) {
            let what = format!("{name:?} names no device; use up to 15 letters, digits, '-'");
            return Err(table.error_at(key, what));
        }
        Ok(name.to_owned())
    };
    let (one, other) = (device("one")?, device("other")?);
    if one == other {
        return Err(table.error_at("other", "a device cannot lead to itself; name two"));
    }
    let direction = |name| match table.table(name)? {
        Some(table) => conditions(Protocol::Udp, &table),
        None => Ok(Conditions::CLEAN),
    };
    Ok(Cable { one, other, up: direction("up")?, down: direction("down")? })
}

fn way(protocol: Protocol, table: &Table<'_, '_>) -> Result<Way, SettingsError> {
    table.allow(&["listen", "to", "up", "down"])?;
    let listen = table.require("listen", table.parsed("listen", parse_address)?)?;
    let to: SocketAddr = table.require("to", table.parsed("to", parse_address)?)?;
    if to.port() == 0 || to.ip().is_unspecified() {
        let what = format!("nothing can be sent to {to}; name an address and a port");
        return Err(table.error_at("to", what));
    }
    let direction = |name| match table.table(name)? {
        Some(table) => conditions(protocol, &table),
        None => Ok(Conditions::CLEAN),
    };
    Ok(Way { protocol, listen, to, up: direction("up")?, down: direction("down")? })
}

fn conditions(protocol: Protocol, table: &Table<'_, '_>) -> Result<Conditions, SettingsError> {
    let known = [
        "preset",
        "loss",
        "delay_ms",
        "jitter_ms",
        "duplicate",
        "reorder",
        "rate_bytes_per_s",
        "queue_bytes_max",
    ];
    table.allow(&known)?;
    for key in ["duplicate", "reorder", "queue_bytes_max"] {
        if protocol == Protocol::Tcp && table.number(key, 0.0..=f64::MAX)?.is_some() {
            let what = format!("`{key}` means nothing to a stream, which its ends keep in order");
            return Err(table.error_at(key, what));
        }
    }
    let names = Conditions::PRESETS.map(|(name, preset)| (name, preset));
    let base = table.choice("preset", &names)?.unwrap_or(Conditions::CLEAN);
    let share = |key, otherwise| Ok(table.number(key, 0.0..=1.0)?.unwrap_or(otherwise));
    let time = |key, otherwise: Duration| {
        let most = DELAY_MAX.as_secs_f64() * 1e3;
        let given = table.number(key, 0.0..=most)?;
        Ok(given.map_or(otherwise, |ms| Duration::from_secs_f64(ms / 1e3)))
    };
    let queue = table.whole("queue_bytes_max", QUEUE_BYTES_MIN..=1 << 40)?;
    Ok(Conditions {
        loss: share("loss", base.loss)?,
        delay: time("delay_ms", base.delay)?,
        jitter: time("jitter_ms", base.jitter)?,
        duplicate: share("duplicate", base.duplicate)?,
        reorder: share("reorder", base.reorder)?,
        rate_bytes_per_s: table
            .whole("rate_bytes_per_s", 0..=1 << 40)?
            .unwrap_or(base.rate_bytes_per_s),
        queue_bytes_max: queue.unwrap_or(base.queue_bytes_max),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_each_way_and_what_it_is_like() {
        let config = Config::parse(
            "seed = 7\n[[udp]]\nlisten = \"127.0.0.1:7000\"\nto = \"127.0.0.1:9000\"\n\
             up = { preset = \"wifi\", loss = 0.05 }\ndown = { delay_ms = 2.5 }\n\
             [[tcp]]\nlisten = \"[::1]:0\"\nto = \"[::1]:80\"\n[tcp.up]\nrate_bytes_per_s = 1000\n",
        );
        let config = config.unwrap();
        assert_eq!((config.seed, config.ways.len()), (7, 2));
        let [udp, tcp] = &config.ways[..] else { panic!("two ways") };
        assert_eq!(udp.up, Conditions { loss: 0.05, ..Conditions::WIFI });
        let delay = Duration::from_micros(2_500);
        assert_eq!(udp.down, Conditions { delay, ..Conditions::CLEAN });
        assert_eq!((tcp.protocol, tcp.up.rate_bytes_per_s), (Protocol::Tcp, 1_000));
        assert_eq!(tcp.down, Conditions::CLEAN);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_the_nearest_word() {
        let way = "[[udp]]\nlisten = \"127.0.0.1:1\"\nto = \"127.0.0.1:2\"\n";
        for (text, line, words) in [
            ("", 1, &["[[udp]]"][..]),
            ("[[tun]]\none = \"a\"\n", 1, &["other"]),
            ("[[tun]]\none = \"a\"\nother = \"a\"\n", 3, &["itself"]),
            ("[[tun]]\none = \"a b\"\nother = \"a\"\n", 2, &["device"]),
            ("[[tun]]\none = \"a\"\nother = \"b\"\nup = { los = 0.1 }\n", 4, &["los", "loss"]),
            ("speed = 7\n", 1, &["speed", "seed"]),
            ("[[udp]]\nto = \"127.0.0.1:2\"\n", 1, &["listen"]),
            ("[[udp]]\nlisten = \"nowhere\"\nto = \"127.0.0.1:2\"\n", 2, &["nowhere"]),
            ("[[udp]]\nlisten = \"127.0.0.1:1\"\nto = \"127.0.0.1:0\"\n", 3, &["address"]),
            (&format!("{way}up = {{ los = 0.1 }}\n"), 4, &["los", "loss"]),
            (&format!("{way}up = {{ loss = 1.5 }}\n"), 4, &["loss"]),
            (&format!("{way}[udp.down]\ndelay_ms = -1\n"), 5, &["delay_ms"]),
            (&format!("{way}[udp.down]\npreset = \"wify\"\n"), 5, &["wifi"]),
            (&format!("{way}[udp.down]\nqueue_bytes_max = 5\n"), 5, &["queue_bytes_max"]),
            (
                "[[tcp]]\nlisten = \"127.0.0.1:1\"\nto = \"127.0.0.1:2\"\nup = { reorder = 0.1 }\n",
                4,
                &["reorder", "stream"],
            ),
        ] {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("line {line}")), "{text}: {error}");
            assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
        }
    }
}
