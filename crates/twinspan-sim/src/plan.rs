//! Which faults a run has: drawn from its seed by rates, or told one by one.
//!
//! A fault is named by what it is, where it strikes and the how-manyth time that is: never by how
//! many other faults there were. So a run's own list of faults can be given back to it, whole or in
//! part, and those that are left strike as they did.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use twinspan_core::link::FaultKind;
use twinspan_core::random::draw;

use crate::world::ip_words;

/// Faults of one list, and faults that one run writes down; those beyond it strike, and are counted
/// by [`Sim::faults_unrecorded`](crate::Sim::faults_unrecorded).
pub const FAULTS_RECORDED_MAX: usize = 1 << 18;
/// Bytes of a fault in text.
const FAULT_TEXT_BYTES_MAX: usize = 256;

/// Where a fault strikes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Place {
    /// Everywhere.
    World,
    /// A host.
    Host(IpAddr),
    /// The way from one host to another.
    Link(IpAddr, IpAddr),
    /// A socket or listener.
    Socket(SocketAddr),
    /// What one socket address sends to another: datagrams, or one way of a connection.
    Flow(SocketAddr, SocketAddr),
    /// A fault point or a setting of a host.
    Site(IpAddr, String),
    /// A box of the topology, by its name.
    Node(String),
}

impl Place {
    /// What draws at this place are keyed by.
    pub fn key(&self) -> u64 {
        match self {
            Self::World => 0,
            Self::Host(ip) => host_key(*ip),
            Self::Link(from, to) => link_key(*from, *to),
            Self::Socket(local) => socket_key(*local),
            Self::Flow(from, to) => flow_key(*from, *to),
            Self::Site(ip, name) => site_key(*ip, name),
            Self::Node(name) => node_key(name),
        }
    }
}

pub(crate) fn host_key(ip: IpAddr) -> u64 {
    let [high, low] = ip_words(ip);
    draw(1, &[high, low])
}

pub(crate) fn link_key(from: IpAddr, to: IpAddr) -> u64 {
    let ([a, b], [c, d]) = (ip_words(from), ip_words(to));
    draw(2, &[a, b, c, d])
}

pub(crate) fn socket_key(local: SocketAddr) -> u64 {
    let [high, low] = ip_words(local.ip());
    draw(3, &[high, low, u64::from(local.port())])
}

pub(crate) fn flow_key(from: SocketAddr, to: SocketAddr) -> u64 {
    let ([a, b], [c, d]) = (ip_words(from.ip()), ip_words(to.ip()));
    draw(4, &[a, b, c, d, u64::from(from.port()) << 16 | u64::from(to.port())])
}

pub(crate) fn site_key(ip: IpAddr, name: &str) -> u64 {
    let [high, low] = ip_words(ip);
    draw(xxhash_rust::xxh3::xxh3_64(name.as_bytes()), &[high, low])
}

pub(crate) fn node_key(name: &str) -> u64 {
    draw(5, &[xxhash_rust::xxh3::xxh3_64(name.as_bytes())])
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::World => f.write_str("*"),
            Self::Host(ip) => write!(f, "{ip}"),
            Self::Link(from, to) => write!(f, "{from}>{to}"),
            Self::Socket(local) => write!(f, "{local}"),
            Self::Flow(from, to) => write!(f, "{from}>{to}"),
            Self::Site(ip, name) => write!(f, "{ip}/{name}"),
            Self::Node(name) => write!(f, "@{name}"),
        }
    }
}

/// One fault of a run, by coordinates that do not depend on other faults.
///
/// As text it is the kind's name, the number and the place: `loss 17 10.0.0.1:5000>10.0.0.2:7`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// The how-manyth time, from 0: of datagrams or pieces of a flow (each sending again counts), of
    /// calls of a socket, of lookups of a host, of evaluations of a site; for what befalls links and
    /// hosts, the [`SLOT`](crate::SLOT) of virtual time.
    pub number: u64,
    /// Where.
    pub place: Place,
}

impl Fault {
    /// What a list is searched by.
    pub(crate) fn coordinates(&self) -> Coordinates {
        (self.kind, self.place.key(), self.number)
    }
}

/// A kind, the key of a place and a number.
pub(crate) type Coordinates = (FaultKind, u64, u64);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, number, place } = self;
        write!(f, "{} {number} {place}", kind.name())
    }
}

/// Why text is no [`Fault`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultError {
    /// It has not three parts, or is too long.
    Shape,
    /// There is no such kind.
    Kind {
        /// What stands there.
        is: String,
        /// The nearest kind that there is.
        nearest: &'static str,
    },
    /// A plan cannot ask for this kind: it follows from conditions or is done by hand.
    Unplanned(FaultKind),
    /// The number is none.
    Number(String),
    /// The place is none.
    Place(String),
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape => {
                f.write_str("a fault is a kind, a number and a place with a blank between")
            }
            Self::Kind { is, nearest } => {
                write!(f, "no fault is called \"{is}\"; the nearest is \"{nearest}\"")
            }
            Self::Unplanned(kind) => {
                write!(f, "no plan can ask for \"{}\": it follows from other things", kind.name())
            }
            Self::Number(is) => write!(f, "\"{is}\" is no number from 0 to 2^64 - 1"),
            Self::Place(is) => {
                write!(f, "\"{is}\" is no place; say \"*\", an address, two with \">\" ")?;
                f.write_str("between, or \"@\" and a box")
            }
        }
    }
}

impl std::error::Error for FaultError {}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        if text.len() > FAULT_TEXT_BYTES_MAX {
            return Err(FaultError::Shape);
        }
        let mut parts = text.splitn(3, ' ');
        let (Some(kind), Some(number), Some(place)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(FaultError::Shape);
        };
        let kind = planned_kind(kind)?;
        let number = number.parse().map_err(|_| FaultError::Number(number.to_owned()))?;
        Ok(Self { kind, number, place: place.parse()? })
    }
}

/// The kind of this name that plans can ask for.
///
/// # Errors
/// [`FaultError`] names the nearest kind, or says that the kind follows from other things.
pub fn planned_kind(name: &str) -> Result<FaultKind, FaultError> {
    let Some(kind) = FaultKind::named(name) else {
        let nearest = nearest(name, FaultKind::ALL.iter().map(|kind| kind.name()));
        return Err(FaultError::Kind { is: name.to_owned(), nearest: nearest.unwrap_or_default() });
    };
    if crate::is_planned(kind) { Ok(kind) } else { Err(FaultError::Unplanned(kind)) }
}

/// Which of `names` is written most like `name`: by the fewest letters put in, left out or changed.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names.into_iter().min_by_key(|known| edits(name.as_bytes(), known.as_bytes()))
}

/// Letters to put in, leave out or change to come from one to the other.
fn edits(from: &[u8], to: &[u8]) -> usize {
    let from = from.get(..FAULT_TEXT_BYTES_MAX).unwrap_or(from);
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, a) in from.iter().enumerate() {
        let mut corner = line;
        let mut left = line + 1;
        for (b, cell) in to.iter().zip(row.iter_mut().skip(1)) {
            let above = *cell;
            let cost = (corner + usize::from(a != b)).min(above + 1).min(left + 1);
            corner = above;
            left = cost;
            *cell = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

impl FromStr for Place {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let wrong = || FaultError::Place(text.to_owned());
        if text == "*" {
            return Ok(Self::World);
        }
        if let Some(name) = text.strip_prefix('@') {
            return if name.is_empty() { Err(wrong()) } else { Ok(Self::Node(name.to_owned())) };
        }
        if let Some((ip, name)) = text.split_once('/') {
            let ip = ip.parse().map_err(|_| wrong())?;
            return if name.is_empty() {
                Err(wrong())
            } else {
                Ok(Self::Site(ip, name.to_owned()))
            };
        }
        if let Some((from, to)) = text.split_once('>') {
            if let (Ok(from), Ok(to)) = (from.parse(), to.parse()) {
                return Ok(Self::Link(from, to));
            }
            if let (Ok(from), Ok(to)) = (from.parse(), to.parse()) {
                return Ok(Self::Flow(from, to));
            }
            return Err(wrong());
        }
        if let Ok(ip) = text.parse() {
            return Ok(Self::Host(ip));
        }
        text.parse().map(Self::Socket).map_err(|_| wrong())
    }
}

/// Which faults a run has.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum FaultPlan {
    /// None but those of [`SimConfig`](crate::SimConfig) and those done by hand.
    #[default]
    None,
    /// Each place draws for itself, by how likely each kind is each time, 0 to 1.
    Drawn(Rates),
    /// These and no others.
    Listed(Vec<Fault>),
}

/// How likely each kind is each time that it could strike.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates {
    rates: Vec<(FaultKind, f64)>,
}

impl Rates {
    /// Nothing strikes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with another rate for one kind, held to 0 to 1; what is not a number is 0, and so
    /// is the rate of a kind that no plan can ask for.
    #[must_use]
    pub fn with(mut self, kind: FaultKind, rate: f64) -> Self {
        let rate =
            if rate.is_nan() || !crate::is_planned(kind) { 0.0 } else { rate.clamp(0.0, 1.0) };
        self.rates.retain(|(known, _)| *known != kind);
        if rate > 0.0 {
            self.rates.push((kind, rate));
            self.rates.sort_by_key(|(kind, _)| *kind);
        }
        self
    }

    /// The rate of one kind.
    pub fn of(&self, kind: FaultKind) -> f64 {
        let found = self.rates.iter().find(|(known, _)| *known == kind);
        found.map_or(0.0, |(_, rate)| *rate)
    }

    /// Each kind that strikes, with its rate.
    pub fn iter(&self) -> impl Iterator<Item = (FaultKind, f64)> {
        self.rates.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_they_are_written() {
        let lines = [
            "loss 17 10.0.0.1:5000>10.0.0.2:7",
            "partition_split 2 *",
            "crash 3 10.0.0.1",
            "partition_one_way 4 10.0.0.1>10.0.0.2",
            "short_send 9 10.0.0.1:7",
            "buggify 0 10.0.0.1/queue full",
            "loss 1 [fd00::1]:5000>[fd00::2]:7",
            "pause 18446744073709551615 fd00::1",
            "nat_rebind 3 @home gateway",
            "sync_failure 3 10.0.0.1",
        ];
        for line in lines {
            assert_eq!(line.parse::<Fault>().unwrap().to_string(), line);
        }
    }

    #[test]
    fn text_that_is_no_fault_says_why() {
        let wrong = [
            ("", "a fault is a kind, a number and a place with a blank between"),
            ("loss 1", "a fault is a kind, a number and a place with a blank between"),
            ("los 1 *", "no fault is called \"los\"; the nearest is \"loss\""),
            ("clok_drift 1 *", "no fault is called \"clok_drift\"; the nearest is \"clock_drift\""),
            ("unbound 1 *", "no plan can ask for \"unbound\": it follows from other things"),
            ("loss -1 *", "\"-1\" is no number from 0 to 2^64 - 1"),
            (
                "loss 1 moon",
                "\"moon\" is no place; say \"*\", an address, two with \">\" between, or \"@\" \
                 and a box",
            ),
            (
                "buggify 1 10.0.0.1/",
                "\"10.0.0.1/\" is no place; say \"*\", an address, two with \">\" between, or \"@\" \
                 and a box",
            ),
        ];
        for (line, message) in wrong {
            assert_eq!(line.parse::<Fault>().unwrap_err().to_string(), message, "{line}");
        }
        assert_eq!("x".repeat(1_000).parse::<Fault>(), Err(FaultError::Shape));
    }

    #[test]
    fn places_have_keys_of_their_own() {
        let places = ["*", "10.0.0.1", "10.0.0.2", "10.0.0.1>10.0.0.2", "10.0.0.2>10.0.0.1"];
        let more = ["10.0.0.1:1", "10.0.0.1:1>10.0.0.2:2", "10.0.0.1/a", "10.0.0.1/b", "@a", "@b"];
        let mut keys: Vec<_> =
            places.iter().chain(&more).map(|place| place.parse::<Place>().unwrap().key()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), places.len() + more.len());
    }

    #[test]
    fn rates_are_held_to_their_range() {
        let rates = Rates::new()
            .with(FaultKind::Loss, 2.0)
            .with(FaultKind::Crash, f64::NAN)
            .with(FaultKind::Unbound, 0.5)
            .with(FaultKind::Delay, -1.0);
        assert_eq!(rates.iter().collect::<Vec<_>>(), [(FaultKind::Loss, 1.0)]);
        assert_eq!(rates.with(FaultKind::Loss, 0.0), Rates::new());
    }

    #[test]
    fn the_nearest_name_is_the_one_with_the_fewest_changes() {
        assert_eq!(edits(b"kitten", b"sitting"), 3);
        assert_eq!(edits(b"", b"abc"), 3);
        assert_eq!(nearest("secnods", ["seconds", "seed"]), Some("seconds"));
        assert_eq!(nearest("x", []), None);
    }
}
