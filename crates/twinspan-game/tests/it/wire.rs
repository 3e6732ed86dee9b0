//! Hosts that speak in raw datagrams: an outsider, and a man in the middle.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_provider::Machine;

/// Datagrams that wait to be sent.
type Outbox = VecDeque<(SocketAddr, Vec<u8>)>;

fn transmit(now: Timestamp, outbox: &mut Outbox, pool: &PacketPool, out: &mut DatagramBatch) {
    while out.room() > 0
        && let Some((peer, bytes)) = outbox.pop_front()
    {
        let mut packet = pool.take().unwrap();
        assert!(packet.fill(&bytes));
        out.push(Datagram { peer, at: now, packet }).unwrap();
    }
}

/// Sends what it was given, one datagram each `interval`, and keeps what comes back.
pub(crate) struct Outsider {
    outbox: Outbox,
    interval: Duration,
    next_at: Timestamp,
    pub(crate) sent: usize,
    pub(crate) sent_bytes: usize,
    pub(crate) received: Vec<Vec<u8>>,
}

impl Outsider {
    pub(crate) fn new(to: SocketAddr, datagrams: Vec<Vec<u8>>, interval: Duration) -> Self {
        Self {
            sent: datagrams.len(),
            sent_bytes: datagrams.iter().map(Vec::len).sum(),
            outbox: datagrams.into_iter().map(|bytes| (to, bytes)).collect(),
            interval,
            next_at: Timestamp::START,
            received: Vec::new(),
        }
    }

    pub(crate) fn received_bytes(&self) -> usize {
        self.received.iter().map(Vec::len).sum()
    }
}

impl Machine for Outsider {
    fn handle_datagrams(&mut self, _now: Timestamp, received: &mut DatagramBatch) {
        while let Some(datagram) = received.pop() {
            self.received.push(datagram.packet.to_vec());
        }
    }

    fn handle_timeout(&mut self, _now: Timestamp) {}

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        if now >= self.next_at {
            self.next_at = now.after(self.interval);
            let mut one = self.outbox.drain(..self.outbox.len().min(1)).collect();
            transmit(now, &mut one, pool, out);
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        (!self.outbox.is_empty()).then_some(self.next_at)
    }
}

/// What a man in the middle sends behind a datagram, to where it goes.
pub(crate) type Forge = Box<dyn FnMut(&[u8], &[Vec<u8>]) -> Vec<Vec<u8>>>;

/// Stands between one client and the server: forwards everything, records it, and once armed puts
/// datagrams of its own behind each.
pub(crate) struct Middle {
    client: SocketAddr,
    server: SocketAddr,
    outbox: Outbox,
    forge: Option<Forge>,
    /// What the client sent, oldest first.
    pub(crate) from_client: Vec<Vec<u8>>,
    /// What the server sent, oldest first.
    pub(crate) from_server: Vec<Vec<u8>>,
    pub(crate) injected_to_client: u64,
    pub(crate) injected_to_server: u64,
}

impl Middle {
    pub(crate) const fn new(client: SocketAddr, server: SocketAddr) -> Self {
        Self {
            client,
            server,
            outbox: VecDeque::new(),
            forge: None,
            from_client: Vec::new(),
            from_server: Vec::new(),
            injected_to_client: 0,
            injected_to_server: 0,
        }
    }

    /// From now on `forge` is asked at every datagram, with those recorded before it.
    pub(crate) fn arm(&mut self, forge: Forge) {
        self.forge = Some(forge);
    }

    /// Sends datagrams of its own to the server, behind the next that passes.
    pub(crate) fn inject_to_server(&mut self, datagrams: Vec<Vec<u8>>) {
        self.injected_to_server += datagrams.len() as u64;
        self.outbox.extend(datagrams.into_iter().map(|bytes| (self.server, bytes)));
    }

    /// Sends datagrams of its own to the client, behind the next that passes.
    pub(crate) fn inject_to_client(&mut self, datagrams: Vec<Vec<u8>>) {
        self.injected_to_client += datagrams.len() as u64;
        self.outbox.extend(datagrams.into_iter().map(|bytes| (self.client, bytes)));
    }

    /// No more forged datagrams.
    pub(crate) fn disarm(&mut self) {
        self.forge = None;
    }
}

impl Machine for Middle {
    fn handle_datagrams(&mut self, _now: Timestamp, received: &mut DatagramBatch) {
        while let Some(datagram) = received.pop() {
            let (to, record, injected) = if datagram.peer == self.server {
                (self.client, &mut self.from_server, &mut self.injected_to_client)
            } else {
                (self.server, &mut self.from_client, &mut self.injected_to_server)
            };
            let bytes = datagram.packet.to_vec();
            self.outbox.push_back((to, bytes.clone()));
            if let Some(forge) = &mut self.forge {
                for forged in forge(&bytes, record) {
                    self.outbox.push_back((to, forged));
                    *injected += 1;
                }
            }
            record.push(bytes);
        }
    }

    fn handle_timeout(&mut self, _now: Timestamp) {}

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        transmit(now, &mut self.outbox, pool, out);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }
}
