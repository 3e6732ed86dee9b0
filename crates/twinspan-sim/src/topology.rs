//! Networks of named nodes and links: who stands where, what is between, and which way leads on.
//!
//! Without a topology every pair of hosts has a link of its own. With one, what its hosts send goes
//! from node to node over named, directed links, by the cheapest route; several hosts that share a
//! link share its rate and its queue. Boxes on the way translate addresses (NAT) or let in only
//! what was asked for (firewalls).
//!
//! ```
//! use std::time::Duration;
//! use twinspan_sim::topology::{LinkSpec, NatConfig, Queue, Topology};
//! use twinspan_sim::{Sim, SimConfig};
//!
//! let ms = Duration::from_millis;
//! let mut sim = Sim::new(SimConfig::default());
//! // Two computers at home share a slow line with a queue under CoDel.
//! let up = LinkSpec { queue: Queue::codel(64 << 10), ..LinkSpec::rated(250_000, ms(8)) };
//! sim.set_topology(
//!     Topology::new()
//!         .host("desk", [192, 168, 0, 2].into())
//!         .host("sofa", [192, 168, 0, 3].into())
//!         .router("switch")
//!         .nat("home", [203, 0, 113, 7].into(), &["switch"], NatConfig::default())
//!         .host("server", [198, 51, 100, 1].into())
//!         .cable("desk-lan", "desk", "switch", LinkSpec::CLEAN)
//!         .cable("sofa-lan", "sofa", "switch", LinkSpec::CLEAN)
//!         .cable("lan", "switch", "home", LinkSpec::CLEAN)
//!         .link("up", "home", "server", up)
//!         .link("down", "server", "home", LinkSpec::rated(2_000_000, ms(8))),
//! )?;
//! let desk = sim.host("desk", [192, 168, 0, 2].into());
//! # let _ = desk;
//! assert_eq!(sim.link_report("up")?.sent, 0);
//! # Ok::<(), twinspan_sim::topology::TopologyError>(())
//! ```
//!
//! Lengths on the links of a topology include the headers of IP and of the transport. What the
//! pairs of hosts themselves do to datagrams ([`Sim::set_link`](crate::Sim::set_link), partitions)
//! happens before they enter the topology; streams of its hosts always travel as segments.

mod channel;
mod fabric;
mod hand;
mod nat;
mod queue;
mod routes;
mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

pub use channel::ORDERED_FLOWS_MAX;
pub use nat::{
    MAPPINGS_MAX, NatConfig, NatReport, PEERS_PER_MAPPING_MAX, PortChoice, Sameness, Transport,
};
pub use routes::CORE_NODES_MAX;
pub use spec::{
    CHANNEL_MEAN_MAX, CHANNEL_MEAN_MIN, Discipline, Latency, LinkSpec, LinkSpecError, LossModel,
    MTU_DEFAULT, MTU_MIN, QUANTILES_MAX, Quantiles, Queue,
};

pub(crate) use fabric::{Cargo, Fabric, Transit};
pub(crate) use nat::Ends;

/// Nodes of one topology.
pub const NODES_MAX: usize = 1 << 17;
/// Links of one topology.
pub const LINKS_MAX: usize = 1 << 19;
/// Packets between the nodes of a topology at the same time; what comes on top is dropped and
/// counted.
pub const PACKETS_MAX: usize = 1 << 18;
/// Links that a packet may take before it is dropped, as its time to live says.
pub const HOPS_MAX: u8 = 64;

/// The description of a network, built up call by call and then given to
/// [`Sim::set_topology`](crate::Sim::set_topology).
///
/// Nodes are named before the links between them; mistakes are told when it is given.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    nodes: Vec<(String, Node)>,
    links: Vec<Cable>,
}

/// What a node is.
#[derive(Clone, Debug)]
enum Node {
    Host(IpAddr),
    Router,
    Box { outer: Option<IpAddr>, inside: Vec<String>, config: NatConfig },
}

#[derive(Clone, Debug)]
struct Cable {
    name: String,
    from: String,
    to: String,
    spec: LinkSpec,
}

impl Topology {
    /// One without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a place for the host with this address. It forwards nothing.
    #[must_use]
    pub fn host(self, name: &str, ip: IpAddr) -> Self {
        self.node(name, Node::Host(ip))
    }

    /// Adds a router or switch.
    #[must_use]
    pub fn router(self, name: &str) -> Self {
        self.node(name, Node::Router)
    }

    /// Adds a box that gives the nodes behind it the address `outer` towards everybody else.
    /// `inside` names those of its neighbours that are behind it.
    #[must_use]
    pub fn nat(self, name: &str, outer: IpAddr, inside: &[&str], config: NatConfig) -> Self {
        self.guard(name, Some(outer), inside, config)
    }

    /// Adds a box that lets in only what was asked for from the inside, and changes no address.
    /// `inside` names those of its neighbours that are behind it.
    #[must_use]
    pub fn firewall(self, name: &str, inside: &[&str], config: NatConfig) -> Self {
        self.guard(name, None, inside, config)
    }

    /// Adds a link in one direction.
    #[must_use]
    pub fn link(mut self, name: &str, from: &str, to: &str, spec: LinkSpec) -> Self {
        let [name, from, to] = [name, from, to].map(str::to_owned);
        self.links.push(Cable { name, from, to, spec });
        self
    }

    /// Adds two links that are alike: `name` from `one` to `other`, and `name-back`.
    #[must_use]
    pub fn cable(self, name: &str, one: &str, other: &str, spec: LinkSpec) -> Self {
        let back = format!("{name}-back");
        self.link(name, one, other, spec.clone()).link(&back, other, one, spec)
    }

    fn node(mut self, name: &str, node: Node) -> Self {
        self.nodes.push((name.to_owned(), node));
        self
    }

    fn guard(self, name: &str, outer: Option<IpAddr>, inside: &[&str], config: NatConfig) -> Self {
        let inside = inside.iter().map(|&name| name.to_owned()).collect();
        self.node(name, Node::Box { outer, inside, config })
    }

    /// Whether all names are there once, all links are between nodes and all figures in range.
    ///
    /// # Errors
    /// [`TopologyError`] names the first mistake.
    pub fn check(&self) -> Result<(), TopologyError> {
        if self.nodes.len() > NODES_MAX || self.links.len() > LINKS_MAX {
            return Err(TopologyError::TooLarge {
                nodes: self.nodes.len(),
                links: self.links.len(),
            });
        }
        let (mut nodes, mut ips) = (BTreeMap::new(), BTreeMap::new());
        for (name, node) in &self.nodes {
            if nodes.insert(name.as_str(), node).is_some() {
                return Err(TopologyError::Twice { name: name.clone() });
            }
            let ip = match node {
                Node::Host(ip) => Some(*ip),
                Node::Router => None,
                Node::Box { outer, .. } => *outer,
            };
            if let Some(ip) = ip {
                if ip.is_loopback() || ip.is_unspecified() {
                    return Err(TopologyError::Address { name: name.clone(), ip });
                }
                if ips.insert(ip, name).is_some() {
                    return Err(TopologyError::Address { name: name.clone(), ip });
                }
            }
        }
        let mut links = BTreeMap::new();
        for Cable { name, from, to, spec } in &self.links {
            if links.insert(name.as_str(), (from, to)).is_some() {
                return Err(TopologyError::Twice { name: name.clone() });
            }
            for node in [from, to] {
                if !nodes.contains_key(node.as_str()) {
                    return Err(TopologyError::NoNode { name: node.clone(), of: name.clone() });
                }
            }
            spec.check().map_err(|source| TopologyError::Link { name: name.clone(), source })?;
        }
        let pairs = self.links.iter().map(|link| (link.from.as_str(), link.to.as_str()));
        let joined: BTreeSet<_> = pairs.flat_map(|(from, to)| [(from, to), (to, from)]).collect();
        for (name, node) in &self.nodes {
            let Node::Box { inside, .. } = node else { continue };
            for neighbour in inside {
                if !joined.contains(&(name.as_str(), neighbour.as_str())) {
                    let (name, of) = (neighbour.clone(), name.clone());
                    return Err(TopologyError::NoNode { name, of });
                }
            }
        }
        Ok(())
    }
}

/// Whether a link carries packets, and routes use it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkState {
    /// It does, and they do.
    #[default]
    Up,
    /// It swallows what it is given, and nobody has noticed: routes still use it. What was on the
    /// link does not arrive either.
    Cut,
    /// Routes go around it; what still waits in front of it is swallowed.
    Down,
}

/// What a link carried and what became of the rest. A packet that it is offered counts in `sent`,
/// `cut`, `too_long` or `queue_full`; one that was sent ends in `delivered`, `queue_early`, `lost`
/// or `cut`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkReport {
    /// Packets that it took.
    pub sent: u64,
    /// Bytes of those.
    pub sent_bytes: u64,
    /// Packets that came out at its end, copies included.
    pub delivered: u64,
    /// Bytes of those.
    pub delivered_bytes: u64,
    /// Packets that were longer than its longest.
    pub too_long: u64,
    /// Packets that found its queue full.
    pub queue_full: u64,
    /// Packets that its queue dropped early (CoDel).
    pub queue_early: u64,
    /// Packets that its queue marked (ECN).
    pub marked: u64,
    /// Packets that were lost on it.
    pub lost: u64,
    /// Packets that it swallowed because it was cut or down.
    pub cut: u64,
    /// Packets that came a second time.
    pub duplicated: u64,
    /// Packets that lagged so that others might overtake them.
    pub reordered: u64,
    /// Packets in which a bit was turned.
    pub corrupted: u64,
    /// The most bytes that ever waited for their turn.
    pub queue_bytes_high: u64,
    /// How long the packets that left the queue had waited there, all together.
    pub waited: Duration,
    /// The longest that one had waited there.
    pub waited_max: Duration,
}

/// Why a topology is none, or has not what was asked for.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// A name stands for two nodes, or two links.
    #[error("{name:?} is there twice; give each node and each link a name of its own")]
    Twice {
        /// The name.
        name: String,
    },
    /// A link or a box names a node that is not there or not its neighbour.
    #[error("{of:?} names the node {name:?}, which is not there or not next to it")]
    NoNode {
        /// The missing node.
        name: String,
        /// Who names it.
        of: String,
    },
    /// An address that another node has, or that no node may have.
    #[error("{name:?} cannot have the address {ip}; give it one that no other node has")]
    Address {
        /// The node.
        name: String,
        /// Its address.
        ip: IpAddr,
    },
    /// A link with a figure out of its range.
    #[error("link {name:?}: {source}")]
    Link {
        /// The link.
        name: String,
        /// What is wrong with it.
        source: LinkSpecError,
    },
    /// More than [`NODES_MAX`] nodes or [`LINKS_MAX`] links.
    #[error("{nodes} nodes and {links} links; {NODES_MAX} and {LINKS_MAX} are the most")]
    TooLarge {
        /// How many nodes.
        nodes: usize,
        /// How many links.
        links: usize,
    },
    /// More than [`CORE_NODES_MAX`] nodes lie on circles.
    #[error("{nodes} nodes lie on circles; {CORE_NODES_MAX} are the most, trees aside")]
    CoreTooLarge {
        /// How many do.
        nodes: usize,
    },
    /// The simulation has a topology already, or has carried something without one.
    #[error("the simulation has begun; give it its topology once, before anything is sent")]
    Begun,
    /// There is no link, or no box, of this name.
    #[error("the topology has no link or box named {name:?}; check the spelling")]
    Unknown {
        /// The name.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn two() -> Topology {
        Topology::new().host("a", ip(1)).host("b", ip(2))
    }

    #[test]
    fn mistakes_are_named() {
        let clean = LinkSpec::CLEAN;
        let wrong = [
            (two().host("a", ip(3)), "\"a\" is there twice"),
            (two().host("c", ip(2)), "\"c\" cannot have the address 10.0.0.2"),
            (two().host("c", [127, 0, 0, 1].into()), "\"c\" cannot have the address 127.0.0.1"),
            (two().link("l", "a", "x", clean.clone()), "\"l\" names the node \"x\""),
            (
                two().link("l", "a", "b", clean.clone()).link("l", "b", "a", clean.clone()),
                "\"l\" is there twice",
            ),
            (
                two().link("l", "a", "b", LinkSpec { corrupt: 2.0, ..clean.clone() }),
                "link \"l\": corrupt is 2",
            ),
            (
                two().cable("l", "a", "b", clean).firewall("f", &["a"], NatConfig::default()),
                "\"f\" names the node \"a\"",
            ),
        ];
        for (topology, text) in wrong {
            let error = topology.check().unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
        assert_eq!(two().check(), Ok(()));
    }
}
