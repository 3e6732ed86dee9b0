//! What the numbers in a trace stand for.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use twinspan_core::link::FaultKind;
use xxhash_rust::xxh3::xxh3_64;

use super::{TraceEvent, TraceKind};

/// Names whose hash is in a trace, of hosts, tasks and notes, that are remembered; later ones are
/// told as numbers.
pub const WORDS_MAX: usize = 16_384;

/// Names by their hash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words(BTreeMap<u64, Box<str>>);

impl Words {
    /// The hash of a name, which is remembered for the legend.
    pub(crate) fn hash(&mut self, name: &str) -> u64 {
        let hash = xxh3_64(name.as_bytes());
        if !self.0.contains_key(&hash) && self.0.len() < WORDS_MAX {
            self.0.insert(hash, name.into());
        }
        hash
    }
}

/// What the numbers in the events of a trace stand for: hosts, flows, names.
#[derive(Clone, Debug, Default)]
pub struct TraceLegend {
    pub(crate) words: Words,
    /// Address and name of each host, by its number.
    pub(crate) hosts: Vec<(IpAddr, u64)>,
    /// From whom to whom a flow of datagrams goes.
    pub(crate) flows: BTreeMap<u64, (SocketAddr, SocketAddr)>,
}

impl TraceLegend {
    /// The name and the address of a host, by its number.
    pub fn host(&self, number: u64) -> Option<(&str, IpAddr)> {
        let (ip, name) = self.hosts.get(usize::try_from(number).ok()?)?;
        Some((self.word(*name).unwrap_or("host"), *ip))
    }

    /// All hosts, by number.
    pub fn hosts(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        (0..self.hosts.len() as u64).filter_map(|number| self.host(number))
    }

    /// From whom to whom a flow goes, by its key.
    pub fn flow(&self, key: u64) -> Option<(SocketAddr, SocketAddr)> {
        self.flows.get(&key).copied()
    }

    /// The name with this hash.
    pub fn word(&self, hash: u64) -> Option<&str> {
        self.words.0.get(&hash).map(AsRef::as_ref)
    }

    /// All that is known: the field that such a number stands in, the number, and what it stands for.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64, String)> {
        let hosts = (0_u64..).zip(self.hosts());
        let hosts = hosts.map(|(number, (name, ip))| ("host", number, format!("{name} ({ip})")));
        let flows = self.flows.iter();
        let flows = flows.map(|(key, (from, to))| ("flow", *key, format!("{from} > {to}")));
        let words = self.words.0.iter();
        let words = words.map(|(hash, word)| ("name", *hash, word.to_string()));
        hosts.chain(flows).chain(words)
    }

    /// An event in words, on one line.
    pub fn describe(&self, event: &TraceEvent<'_>) -> String {
        let mut text = format!("{} {} {}", event.number, seconds(event), event.kind);
        text.push_str(&self.details(event));
        // A string takes all that is written to it.
        let _ = write!(text, " [{:016x}]", event.hash);
        text
    }

    /// What an event is about, in words, each with a space before it.
    pub fn details(&self, event: &TraceEvent<'_>) -> String {
        let mut text = String::new();
        let fields = event.kind.fields();
        let mut high = None;
        for (field, id) in fields.iter().zip(event.ids).filter(|(field, _)| !field.is_empty()) {
            let word = match *field {
                "ip_high" | "from_high" | "to_high" => {
                    high = Some(id);
                    continue;
                }
                "ip_low" | "from_low" | "to_low" => {
                    let name = field.trim_end_matches("_low");
                    format!("{name}={}", address(high.take().unwrap_or(0), id))
                }
                _ => self.field(event.kind.0, field, id),
            };
            // A string takes all that is written to it.
            let _ = write!(text, " {word}");
        }
        for value in event.values {
            let _ = write!(text, " {value}");
        }
        text
    }

    /// One number in words.
    fn field(&self, kind: TraceKind, field: &str, id: u64) -> String {
        let named = match field {
            "host" => self.host(id).map(|(name, ip)| format!("{name} ({ip})")),
            "origin" => match id.checked_sub(1) {
                Some(host) => self.host(host).map(|(name, ip)| format!("{name} ({ip})")),
                None => Some("outside".to_owned()),
            },
            "flow" => self.flow(id).map(|(from, to)| format!("{from} > {to}")),
            "name" | "note" => self.word(id).map(str::to_owned),
            "cause" if kind == TraceKind::Drop => {
                let known = FaultKind::ALL.iter().find(|fault| fault.index() as u64 == id);
                known.map(|fault| fault.name().to_owned())
            }
            "by_ns" => Some(id.cast_signed().to_string()),
            "port" | "number" | "bytes" | "values" | "ordinal" | "task" | "timer" | "socket"
            | "resends" | "listener" | "end" => Some(id.to_string()),
            _ => None,
        };
        format!("{field}={}", named.unwrap_or_else(|| format!("{id:x}")))
    }
}

/// The time of an event in seconds, exact.
fn seconds(event: &TraceEvent<'_>) -> String {
    let nanos = event.at.as_nanos();
    format!("{}.{:09} s", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

/// An address of two words, as they are in a trace.
fn address(high: u64, low: u64) -> IpAddr {
    let ip = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
    ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)
}
