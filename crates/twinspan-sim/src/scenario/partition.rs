//! The scenario `partition`: nodes tell one another what they know, and after any partition all know
//! the same.
//!
//! Each node writes down numbers of its own and sends what it knows of everybody to one other node
//! after another. Promises: a node knows of nobody more than that one wrote; what a node knew and
//! kept it does not forget; once faults are healed, all know everything.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_provider::{
    NetworkProvider, RandomProvider, TaskProvider, TimeProvider, Timer, UdpOptions, UdpSocket,
};
use xxhash_rust::xxh3::xxh3_64;

use super::{BOARD_KINDS, Hosted, Running, VAULT_KINDS, planned_kinds};
use crate::env::SimEnv;
use crate::sim::Sim;
use crate::swarm::Options;

/// Nodes at most.
const NODES_MAX: usize = 9;
const PORT: u16 = 9;
/// How long who found no descriptor waits.
const RETRY: Duration = Duration::from_millis(50);

/// The scenario.
#[derive(Clone, Copy, Debug)]
pub struct Partition;

/// How far each node's numbers are known.
type Known = [u64; NODES_MAX];

/// One node, as its disk has it.
#[derive(Default)]
struct Node {
    known: Known,
    wrong: u64,
}

impl Hosted for Partition {
    fn name(&self) -> &'static str {
        "partition"
    }

    /// Nodes keep what they wrote: a lost disk is another scenario's. They look at no wall clock.
    fn kinds(&self) -> Vec<FaultKind> {
        use FaultKind as K;
        let lost = [K::RestartEmpty, K::RestartOld];
        let clocks = [K::ClockForward, K::ClockBack, K::ClockDrift];
        // Nobody sends two datagrams to one peer at once.
        let unused = [&clocks[..], &[K::Buggify, K::Rekey, K::RunRefused]].concat();
        planned_kinds(&[&lost[..], &unused[..], VAULT_KINDS, BOARD_KINDS].concat())
            .into_iter()
            .filter(|kind| {
                use twinspan_core::link::FaultFamily as F;
                !matches!(kind.family(), F::Stream | F::Name)
            })
            .collect()
    }

    fn marks(&self) -> &'static [&'static str] {
        &["a node learns what it missed", "what came was older than what is known"]
    }

    fn settle_time(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn start(&self, sim: &mut Sim, options: &Options) -> Box<dyn Running> {
        // Nine at most.
        let count = options.size("nodes", 5, 2..=NODES_MAX as u64) as usize;
        let writes = options.size("writes", 20, 1..=60);
        let interval = options.time(
            "interval_us",
            Duration::from_millis(40),
            Duration::from_millis(5)..=Duration::from_millis(150),
        );
        let nodes: Vec<_> = (0..count).map(|_| Rc::new(RefCell::new(Node::default()))).collect();
        for (number, node) in nodes.iter().enumerate() {
            let kept = Rc::clone(node);
            sim.boot("node", address(number).ip(), move |env, _| {
                let all = (number, count);
                vec![
                    env.spawn("gossip", gossip(env.clone(), all, (writes, interval), kept.clone())),
                ]
            });
        }
        Box::new(Gossiping { nodes, writes })
    }
}

fn address(number: usize) -> SocketAddr {
    // Nine nodes at most.
    let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 1 + number as u8));
    SocketAddr::new(ip, PORT)
}

fn write(known: &Known) -> Vec<u8> {
    let mut bytes: Vec<u8> = known.iter().flat_map(|number| number.to_le_bytes()).collect();
    let tag = xxh3_64(&bytes);
    bytes.extend(tag.to_le_bytes());
    bytes
}

fn read(bytes: &[u8]) -> Option<Known> {
    let (body, tag) = bytes.split_last_chunk::<8>()?;
    if body.len() != NODES_MAX * 8 || u64::from_le_bytes(*tag) != xxh3_64(body) {
        return None;
    }
    let mut known = Known::default();
    for (number, word) in known.iter_mut().zip(body.as_chunks::<8>().0) {
        *number = u64::from_le_bytes(*word);
    }
    Some(known)
}

async fn gossip(
    env: SimEnv,
    (number, count): (usize, usize),
    (writes, interval): (u64, Duration),
    node: Rc<RefCell<Node>>,
) {
    let mut socket = loop {
        if let Ok(socket) = env.bind_udp(address(number), &UdpOptions::default()).await {
            break socket;
        }
        let mut timer = env.timer();
        timer.set(Some(env.now().after(RETRY)));
        poll_fn(|cx| timer.poll_expired(cx)).await;
    };
    let mut random = env.stream("peers", 0);
    let (mut received, mut out) = (DatagramBatch::new(8), DatagramBatch::new(2));
    let mut timer = env.timer();
    let fanout = env.knob("fanout", 1, 1..=2);
    loop {
        timer.set(Some(env.now().after(interval)));
        loop {
            let heard = poll_fn(|cx| match socket.poll_recv(cx, &mut received) {
                Poll::Ready(outcome) => Poll::Ready(outcome.map(|_| true)),
                Poll::Pending => timer.poll_expired(cx).map(|()| Ok(false)),
            });
            match heard.await {
                Ok(true) => {
                    while let Some(datagram) = received.pop() {
                        learn(&mut node.borrow_mut(), &datagram.packet, (number, count));
                    }
                }
                Ok(false) => break,
                Err(_) => return,
            }
        }
        let bytes = {
            let mut node = node.borrow_mut();
            if let Some(own) = node.known.get_mut(number).filter(|own| **own < writes) {
                *own += 1;
            }
            write(&node.known)
        };
        for _ in 0..fanout {
            // Any but itself.
            let step = 1 + random.below(count as u64 - 1) as usize;
            let peer = address((number + step) % count);
            if let Some(mut packet) = socket.pool().take()
                && packet.fill(&bytes)
            {
                // The batch was emptied before, and has room for all peers.
                let _ = out.push(Datagram { peer, at: env.now(), packet });
            }
        }
        while !out.is_empty() {
            if poll_fn(|cx| socket.poll_send(cx, &mut out)).await.is_err() {
                return;
            }
        }
    }
}

/// Takes over what is newer.
fn learn(node: &mut Node, bytes: &[u8], (own, count): (usize, usize)) {
    let Some(told) = read(bytes) else { return };
    if told.iter().skip(count).any(|number| *number > 0) {
        node.wrong += 1;
        return;
    }
    for (other, (known, told)) in node.known.iter_mut().zip(told).enumerate() {
        if other == own {
            // Nobody knows more of it than it does.
            crate::always!(told <= *known, "nobody knows more of a node than it wrote");
            continue;
        }
        crate::sometimes!(told > *known + 1, "a node learns what it missed");
        crate::sometimes!(told < *known, "what came was older than what is known");
        *known = (*known).max(told);
    }
}

struct Gossiping {
    nodes: Vec<Rc<RefCell<Node>>>,
    writes: u64,
}

impl Gossiping {
    fn behind(&self) -> usize {
        let all = |node: &&Rc<RefCell<Node>>| {
            let node = node.borrow();
            node.known.iter().take(self.nodes.len()).any(|number| *number < self.writes)
        };
        self.nodes.iter().filter(all).count()
    }
}

impl Running for Gossiping {
    fn is_settled(&self) -> bool {
        self.behind() == 0
    }

    fn unsettled(&self) -> String {
        format!("{} of {} nodes do not know everything", self.behind(), self.nodes.len())
    }

    fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let node = node.borrow();
            if node.wrong > 0 {
                broken.push(format!("node {number} was told of nodes that are not"));
            }
            let written = node.known.get(number).copied().unwrap_or_default();
            let more = self.nodes.iter().find(|other| {
                other.borrow().known.get(number).copied().unwrap_or_default() > written
            });
            if more.is_some() {
                broken.push(format!("somebody knows more of node {number} than it wrote"));
            }
        }
        broken
    }

    fn states(&self) -> Vec<(IpAddr, String)> {
        let state = |(node, number): (&Rc<RefCell<Node>>, usize)| {
            let known = node.borrow().known;
            let known = known.iter().take(self.nodes.len()).map(u64::to_string);
            let known = known.collect::<Vec<_>>().join(", ");
            (address(number).ip(), format!("knows {known} of {}", self.writes))
        };
        self.nodes.iter().zip(0..).map(state).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read_as_it_was_written() {
        let mut known = Known::default();
        known[3] = 7;
        let bytes = write(&known);
        assert_eq!(read(&bytes), Some(known));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 64;
            assert_eq!(read(&other), None);
            assert_eq!(read(&bytes[..at]), None);
        }
    }
}
