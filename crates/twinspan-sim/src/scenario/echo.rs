//! The scenario `echo`: clients ask one server over datagrams and over streams, each until it is
//! answered.
//!
//! Promises: every request is answered once faults are healed; what is answered was asked, and as it
//! was asked; a server that kept its state carries no request out twice.

mod datagrams;
mod streams;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_provider::{TaskProvider, TimeProvider, Timer};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{BOARD_KINDS, Hosted, Running, VAULT_KINDS, planned_kinds};
use crate::chaos::Start;
use crate::config::SimConfig;
use crate::env::SimEnv;
use crate::name_server::serve_names;
use crate::segment::TcpMode;
use crate::sim::Sim;
use crate::swarm::Options;

/// The server's address and its two ports.
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const DATAGRAM_PORT: u16 = 7;
const STREAM_PORT: u16 = 8;
/// The server's name, and where it was before.
const NAME: &str = "echo.test";
const FORMER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 9, 9));
/// The name server's address, in runs that have one.
const NAMES: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 53));
/// How long who failed waits before it tries again.
const RETRY: Duration = Duration::from_millis(50);
/// Requests after which the server's state is one that a later start may find as an old one.
const OLD_AFTER: usize = 16;

/// The scenario.
#[derive(Clone, Copy, Debug)]
pub struct Echo;

impl Hosted for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    /// All but those of disks, boxes, proxies and segments, which the scenario `vault` has, and those of
    /// topics, which `board` has.
    fn kinds(&self) -> Vec<FaultKind> {
        planned_kinds(&[VAULT_KINDS, BOARD_KINDS].concat())
    }

    fn marks(&self) -> &'static [&'static str] {
        &[
            "a request was sent again",
            "a request came twice",
            "a datagram was not as it was sent",
            "a stream broke and was made again",
            "accepting failed for a while",
            "the server was asked to stop",
        ]
    }

    /// Some runs have their streams travel in segments.
    fn config(&self, options: &Options) -> SimConfig {
        let by_segments = options.size("segments", 0, 0..=1) == 1;
        let tcp = if by_segments { TcpMode::Segments } else { TcpMode::Streams };
        SimConfig { tcp, ..options.config() }
    }

    fn start(&self, sim: &mut Sim, options: &Options) -> Box<dyn Running> {
        let clients = options.size("clients", 2, 1..=3);
        let shape = Shape {
            datagrams: options.size("datagrams", 30, 1..=60),
            streams: options.size("streams", 6, 1..=10),
            bytes_max: options.size("bytes_max", 3_000, 1..=40_000),
            interval: options.time(
                "interval_us",
                Duration::from_millis(60),
                Duration::from_millis(1)..=Duration::from_millis(200),
            ),
            spacing: options.time(
                "spacing_us",
                Duration::from_millis(50),
                Duration::ZERO..=Duration::from_millis(100),
            ),
            pool: options.size("pool_packets", 64, 1..=256),
            backlog: options.size("backlog", 16, 1..=16),
        };
        sim.set_name(NAME, &[FORMER], Duration::from_secs(1));
        sim.set_name(NAME, &[SERVER], Duration::from_secs(1));
        if options.size("name_server", 0, 0..=1) == 1 {
            sim.boot("names", NAMES, |env, _| serve_names(&env));
            sim.set_name_server(Some(NAMES));
        }
        let ledger = Rc::new(RefCell::new(Ledger::default()));
        let kept = Rc::clone(&ledger);
        sim.boot("server", SERVER, move |env, start| {
            kept.borrow_mut().start(start);
            vec![
                env.spawn("datagrams", datagrams::serve(env.clone(), shape, Rc::clone(&kept))),
                env.spawn("streams", streams::serve(env.clone(), shape, Rc::clone(&kept))),
            ]
        });
        let mut asked = Vec::new();
        for number in 0..clients {
            let ip = client_ip(number);
            let progress = Rc::new(RefCell::new(Progress::default()));
            let kept = Rc::clone(&progress);
            sim.boot("client", ip, move |env, start| {
                kept.borrow_mut().start(start);
                let (one, other) = (Rc::clone(&kept), Rc::clone(&kept));
                vec![
                    env.spawn("datagrams", datagrams::ask(env.clone(), shape, number, one)),
                    env.spawn("streams", streams::ask(env.clone(), shape, number, other)),
                ]
            });
            asked.push(progress);
        }
        Box::new(Echoing { shape, ledger, asked })
    }
}

/// The address of a client; there are three at most.
fn client_ip(number: u64) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1 + number as u8))
}

/// How much is asked, and how.
#[derive(Clone, Copy)]
struct Shape {
    /// Requests of one client over datagrams, and over streams.
    datagrams: u64,
    streams: u64,
    /// Bytes of a request over a stream at most.
    bytes_max: u64,
    /// How long a client leaves between two requests over datagrams.
    spacing: Duration,
    /// How long an answer is waited for before the request is sent again.
    interval: Duration,
    /// Packet buffers of a socket.
    pool: u64,
    /// Connections that wait to be accepted.
    backlog: u64,
}

/// One way to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Datagram,
    Stream,
}

/// What the server wrote down.
#[derive(Default)]
struct Ledger {
    /// What it knows to have carried out.
    known: BTreeSet<(Way, u64, u64)>,
    old: BTreeSet<(Way, u64, u64)>,
    since_old: usize,
    /// How often each was carried out in truth.
    carried_out: BTreeMap<(Way, u64, u64), u64>,
    /// How often it lost what it knew.
    losses: u64,
}

impl Ledger {
    fn start(&mut self, start: Start) {
        match start {
            Start::Empty => self.known.clear(),
            Start::Old => self.known.clone_from(&self.old),
            _ => return,
        }
        self.losses += 1;
    }

    /// Carries a request out, unless that is known to be done.
    fn carry_out(&mut self, request: (Way, u64, u64)) {
        if !self.known.insert(request) {
            crate::reachable!("a request came twice");
            return;
        }
        *self.carried_out.entry(request).or_default() += 1;
        self.since_old += 1;
        if self.since_old >= OLD_AFTER {
            self.since_old = 0;
            self.old.clone_from(&self.known);
        }
    }
}

/// What a client knows to be answered.
#[derive(Default)]
struct Progress {
    datagrams: BTreeSet<u64>,
    streams: BTreeSet<u64>,
    wrong: u64,
}

impl Progress {
    fn start(&mut self, start: Start) {
        // What it asks again is known to the server.
        if matches!(start, Start::Empty | Start::Old) {
            self.datagrams.clear();
            self.streams.clear();
        }
    }
}

/// The scenario in progress.
struct Echoing {
    shape: Shape,
    ledger: Rc<RefCell<Ledger>>,
    asked: Vec<Rc<RefCell<Progress>>>,
}

impl Echoing {
    fn open(&self) -> u64 {
        let open = |progress: &Rc<RefCell<Progress>>| {
            let progress = progress.borrow();
            let done = progress.datagrams.len() as u64 + progress.streams.len() as u64;
            (self.shape.datagrams + self.shape.streams).saturating_sub(done)
        };
        self.asked.iter().map(open).sum()
    }
}

impl Running for Echoing {
    fn is_settled(&self) -> bool {
        self.open() == 0
    }

    fn unsettled(&self) -> String {
        let all = (self.shape.datagrams + self.shape.streams) * self.asked.len() as u64;
        format!("{} of {all} requests are not answered", self.open())
    }

    fn states(&self) -> Vec<(IpAddr, String)> {
        let ledger = self.ledger.borrow();
        let (done, losses) = (ledger.carried_out.len(), ledger.losses);
        let server = format!("{done} requests carried out, its state lost {losses} times");
        let client = |(progress, number): (&Rc<RefCell<Progress>>, u64)| {
            let progress = progress.borrow();
            let (datagrams, streams) = (progress.datagrams.len(), progress.streams.len());
            let Shape { datagrams: of, streams: of_streams, .. } = self.shape;
            let text = format!(
                "{datagrams} of {of} answered over datagrams, {streams} of {of_streams} over streams"
            );
            (client_ip(number), text)
        };
        let clients = self.asked.iter().zip(0..).map(client);
        std::iter::once((SERVER, server)).chain(clients).collect()
    }

    fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let ledger = self.ledger.borrow();
        for ((way, client, number), times) in &ledger.carried_out {
            if *times > 1 + ledger.losses {
                let losses = ledger.losses;
                broken.push(format!(
                    "{way:?} request {number} of client {client} was carried out {times} times, \
                     with {losses} losses of the server's state"
                ));
            }
        }
        for (client, progress) in self.asked.iter().enumerate() {
            let wrong = progress.borrow().wrong;
            if wrong > 0 {
                broken.push(format!("client {client} got {wrong} answers to what it never asked"));
            }
        }
        broken
    }
}

/// Waits.
pub(crate) async fn sleep(env: &SimEnv, duration: Duration) {
    let mut timer = env.timer();
    timer.set(Some(env.now().after(duration)));
    poll_fn(|cx| timer.poll_expired(cx)).await;
}

/// What `work` ends with, unless that takes too long.
pub(crate) async fn within<T>(
    env: &SimEnv,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut timer = env.timer();
    timer.set(Some(env.now().after(limit)));
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => timer.poll_expired(cx).map(|()| None),
    })
    .await
}

/// What shows that bytes are as they were sent.
fn tag(epoch: u64, bytes: &[u8]) -> [u8; 8] {
    xxh3_64_with_seed(bytes, epoch).to_le_bytes()
}
