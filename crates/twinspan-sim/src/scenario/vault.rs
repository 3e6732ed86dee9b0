//! The scenario `vault`: clients behind a box that translates addresses pay into a server that keeps a
//! journal on its disk.
//!
//! A client has three ways to pay: datagrams to the server, a stream through a SOCKS5 proxy, and
//! datagrams through an association of that proxy. All streams travel as segments. Promises: what was
//! acknowledged is in the journal whatever crashes and whatever the disk does; every payment is
//! acknowledged once faults are healed; nobody is told of a payment that was never made.

mod client;
mod journal;
mod server;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_provider::TaskProvider;
use xxhash_rust::xxh3::xxh3_64;

use super::{Hosted, Running};
use crate::config::SimConfig;
use crate::env::SimEnv;
use crate::proxy::{SOCKS_PORT, SocksConfig, SocksProxy};
use crate::sim::Sim;
use crate::swarm::Options;
use crate::topology::{LinkSpec, NatConfig, Queue, Topology};
use journal::Journal;

/// Everybody's address and where they listen.
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9));
const OUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
const DATAGRAM_PORT: u16 = 20;
const STREAM_PORT: u16 = 21;
/// The server's name, which the proxy looks up.
const NAME: &str = "vault.test";
/// How long who failed waits before it tries again.
const RETRY: Duration = Duration::from_millis(50);
/// Bytes of a request, an answer and a record.
const ENTRY_BYTES: usize = 32;

/// The scenario.
#[derive(Clone, Copy, Debug)]
pub struct Vault;

impl Hosted for Vault {
    fn name(&self) -> &'static str {
        "vault"
    }

    /// Nobody loses a disk, and nobody looks at a wall clock; links between hosts are the topology's.
    fn kinds(&self) -> Vec<FaultKind> {
        use FaultKind as K;
        vec![
            K::Loss,
            K::LossBurst,
            K::Duplicate,
            K::Reorder,
            K::DelaySpike,
            K::BitFlip,
            K::Truncate,
            K::SegmentLoss,
            K::SegmentDuplicate,
            K::SegmentReorder,
            K::SegmentDamage,
            K::StreamReset,
            K::AcceptExhausted,
            K::EcnMark,
            K::NatTimeout,
            K::NatRebind,
            K::ProxyRefuse,
            K::ProxyDrop,
            K::NameUnknown,
            K::NameFailure,
            K::NameTimeout,
            K::Crash,
            K::GracefulStop,
            K::Pause,
            K::SlowCpu,
            K::ShortSend,
            K::SendStall,
            K::NoBuffers,
            K::SpuriousWake,
            K::Buggify,
            K::Knob,
            K::TaskOrder,
            K::TornWrite,
            K::SyncFailure,
            K::CorruptRead,
            K::DiskFull,
            K::DiskStall,
        ]
    }

    fn marks(&self) -> &'static [&'static str] {
        &[
            "a payment was asked for again",
            "a payment met a queue on its way",
            "the journal was written again",
            "the journal was read again",
            "a way through the proxy was made again",
        ]
    }

    fn config(&self, options: &Options) -> SimConfig {
        SimConfig { tcp_ecn: true, ..options.config() }
    }

    fn fault_time(&self) -> Duration {
        Duration::from_secs(4)
    }

    fn settle_time(&self) -> Duration {
        Duration::from_secs(120)
    }

    fn start(&self, sim: &mut Sim, options: &Options) -> Box<dyn Running> {
        let clients = options.size("clients", 2, 1..=3);
        let shape = Shape {
            clients,
            payments: options.size("payments", 24, 3..=45),
            interval: options.time(
                "interval_us",
                Duration::from_millis(120),
                Duration::from_millis(20)..=Duration::from_millis(300),
            ),
            spacing: options.time(
                "spacing_us",
                Duration::from_millis(100),
                Duration::from_millis(1)..=Duration::from_millis(400),
            ),
        };
        let nat_timeout = options.time(
            "nat_timeout_us",
            Duration::from_secs(5),
            Duration::from_millis(500)..=Duration::from_secs(30),
        );
        let placed = sim.set_topology(topology(clients, nat_timeout));
        assert!(placed.is_ok(), "the scenario's own topology: {placed:?}");
        sim.set_name(NAME, &[SERVER], Duration::from_secs(1));
        let truth = Rc::new(RefCell::new(Truth::default()));
        start_server(sim, &truth);
        sim.boot("proxy", PROXY, |env, _| {
            let inner = env.clone();
            vec![env.spawn("proxy", async move {
                let proxy = SocksProxy::start(&inner, SocksConfig::default());
                inner.asked_to_stop().await;
                drop(proxy);
            })]
        });
        for number in 0..clients {
            let truth = Rc::clone(&truth);
            sim.boot("client", client_ip(number), move |env, _| {
                let payer = |way| client::Payer {
                    env: env.clone(),
                    shape,
                    client: number,
                    way,
                    truth: Rc::clone(&truth),
                };
                vec![
                    env.spawn("datagrams", payer(0).by_datagrams()),
                    env.spawn("stream", payer(1).by_stream()),
                    env.spawn("association", payer(2).by_association()),
                ]
            });
        }
        Box::new(Paying { shape, truth })
    }
}

fn start_server(sim: &mut Sim, truth: &Rc<RefCell<Truth>>) {
    let truth = Rc::clone(truth);
    sim.boot("server", SERVER, move |env: SimEnv, _| {
        let journal = Rc::new(RefCell::new(Journal::default()));
        vec![
            env.spawn("journal", journal::keep(env.clone(), journal.clone(), Rc::clone(&truth))),
            env.spawn("datagrams", server::datagrams(env.clone(), Rc::clone(&journal))),
            env.spawn("streams", server::streams(env.clone(), journal)),
        ]
    });
}

/// The address of a client at home; there are three at most.
fn client_ip(number: u64) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 168, 0, 2 + number as u8))
}

/// Clients at home share a line with a queue; server and proxy stand in one place.
fn topology(clients: u64, nat_timeout: Duration) -> Topology {
    let home = NatConfig { udp_timeout: nat_timeout, ..NatConfig::default() };
    let line = LinkSpec {
        queue: Queue::codel(64 << 10),
        ..LinkSpec::rated(500_000, Duration::from_millis(4))
    };
    let mut topology = Topology::new()
        .host("server", SERVER)
        .host("proxy", PROXY)
        .router("place")
        .router("switch")
        .nat("home", OUTER, &["switch"], home)
        .cable("server", "server", "place", LinkSpec::CLEAN)
        .cable("proxy", "proxy", "place", LinkSpec::CLEAN)
        .cable("lan", "switch", "home", LinkSpec::CLEAN)
        .cable("line", "home", "place", line);
    for number in 0..clients {
        let name = format!("client-{number}");
        topology = topology.host(&name, client_ip(number));
        topology = topology.cable(&name, &name, "switch", LinkSpec::CLEAN);
    }
    topology
}

/// How much is paid, and how.
#[derive(Clone, Copy)]
struct Shape {
    clients: u64,
    /// Payments of one client, a third of them each way.
    payments: u64,
    /// How long an answer to a datagram is waited for.
    interval: Duration,
    /// How long a client leaves between two payments of one way.
    spacing: Duration,
}

/// A payment: whose, and which of his.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    client: u64,
    number: u64,
}

/// What an entry is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Request = 1,
    Answer = 2,
    Record = 3,
}

impl Entry {
    fn write(self, within: Within) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        let words = [within as u64, self.client, self.number];
        for (room, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *room = word.to_le_bytes();
        }
        if let Some((body, tag)) = bytes.split_last_chunk_mut::<8>() {
            *tag = xxh3_64(body).to_le_bytes();
        }
        bytes
    }

    /// `None` when it is not as it was written.
    fn read(bytes: &[u8], within: Within) -> Option<Self> {
        let (body, tag) = bytes.split_last_chunk::<8>()?;
        if bytes.len() != ENTRY_BYTES || u64::from_le_bytes(*tag) != xxh3_64(body) {
            return None;
        }
        let mut words = body.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let kind = words.next()?;
        let (client, number) = (words.next()?, words.next()?);
        (kind == within as u64).then_some(Self { client, number })
    }
}

/// What the scenario knows, whoever crashed.
#[derive(Default)]
struct Truth {
    /// Payments whose acknowledgement came.
    acknowledged: BTreeSet<Entry>,
    /// Records in the journal that the server opened last.
    recovered: usize,
    /// How often it opened one.
    openings: u64,
    /// Those that were not in the journal when the server opened it.
    lost: BTreeSet<Entry>,
    /// Acknowledgements of what was never paid.
    wrong: u64,
}

/// The scenario in progress.
struct Paying {
    shape: Shape,
    truth: Rc<RefCell<Truth>>,
}

impl Paying {
    fn open(&self) -> u64 {
        let all = self.shape.payments * self.shape.clients;
        all.saturating_sub(self.truth.borrow().acknowledged.len() as u64)
    }
}

impl Running for Paying {
    fn is_settled(&self) -> bool {
        self.open() == 0
    }

    fn unsettled(&self) -> String {
        let all = self.shape.payments * self.shape.clients;
        format!("{} of {all} payments are not acknowledged", self.open())
    }

    fn broken(&self) -> Vec<String> {
        let truth = self.truth.borrow();
        let lost = truth.lost.iter().map(|Entry { client, number }| {
            format!(
                "payment {number} of client {client} was acknowledged and is not in the journal"
            )
        });
        let wrong = (truth.wrong > 0)
            .then(|| format!("{} acknowledgements of what was never paid", truth.wrong));
        lost.chain(wrong).collect()
    }

    fn states(&self) -> Vec<(IpAddr, String)> {
        let truth = self.truth.borrow();
        let Truth { recovered, openings, .. } = &*truth;
        let server = format!("opened its journal {openings} times, last with {recovered} records");
        let client = |number| {
            let of = truth.acknowledged.iter().filter(|entry| entry.client == number).count();
            let text = format!("{of} of {} payments acknowledged", self.shape.payments);
            (client_ip(number), text)
        };
        std::iter::once((SERVER, server)).chain((0..self.shape.clients).map(client)).collect()
    }
}

/// Where the proxy listens.
fn proxy() -> SocketAddr {
    SocketAddr::new(PROXY, SOCKS_PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_not_as_it_was_written_is_none() {
        let entry = Entry { client: 2, number: 300 };
        let bytes = entry.write(Within::Record);
        assert_eq!(Entry::read(&bytes, Within::Record), Some(entry));
        assert_eq!(Entry::read(&bytes, Within::Answer), None);
        for at in 0..bytes.len() {
            let mut other = bytes;
            other[at] ^= 32;
            assert_eq!(Entry::read(&other, Within::Record), None, "{at}");
            assert_eq!(Entry::read(&bytes[..at], Within::Record), None, "{at}");
        }
    }
}
