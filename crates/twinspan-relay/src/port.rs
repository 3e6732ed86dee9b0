//! A server's socket towards clients and relays: what is behind a relay looks like a client.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_provider::{SocketReport, UdpError, UdpSocket};

use crate::config::{PortConfig, TrunkKeys};
use crate::error::RelayConfigError;
use crate::frame::{FrameError, client_of, decode, encode, relayed_address};
use crate::key::{Direction, TrunkTags};
use crate::runs::Runs;
use crate::two_sided::{SideDrops, TwoSided};

/// Datagrams that are made ready for the kernel at once.
const READY_DATAGRAMS: usize = 256;

/// What a port counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Datagrams that came through relays.
    pub relayed_in: u64,
    /// Datagrams that went to relays.
    pub relayed_out: u64,
    /// From a relay, with a wrong tag: dropped.
    pub bad_tag: u64,
    /// From a relay, and no trunk datagram for another reason: dropped.
    pub bad_frame: u64,
    /// For a client behind a relay that is not in the list, or too long: dropped.
    pub unsendable: u64,
    /// What the two sockets dropped.
    pub sides: SideDrops,
}

/// What a port takes and sends, both ways.
#[derive(Clone, Copy, Debug)]
struct PortTags {
    to_server: TrunkTags,
    to_relay: TrunkTags,
}

/// The keys of a port, which may change while it is driven; for its own thread.
#[derive(Clone, Debug)]
pub struct PortKeys(Rc<Cell<PortTags>>);

impl PortKeys {
    fn new(keys: &TrunkKeys) -> Self {
        Self(Rc::new(Cell::new(Self::tags(keys))))
    }

    fn tags(keys: &TrunkKeys) -> PortTags {
        PortTags {
            to_server: keys.tags(Direction::ToServer),
            to_relay: keys.tags(Direction::ToRelay),
        }
    }

    fn get(&self) -> PortTags {
        self.0.get()
    }

    /// Takes other keys: the port sends with the present one and takes both, from the next datagram
    /// on. Sessions do not notice.
    pub fn replace(&self, keys: &TrunkKeys) {
        self.0.set(Self::tags(keys));
    }
}

/// A server's socket with a side towards relays, as a [`UdpSocket`].
///
/// A datagram of a client behind a relay comes with [`relayed_address`] as its peer; what is sent
/// to such an address goes to the relay, which hands it to the client. Datagrams of equal length to
/// one relay are put side by side, so that they leave in one call of the kernel; those to one
/// client keep their order among equal lengths, and longer ones go first.
pub struct RelayPort<U> {
    sockets: TwoSided<U>,
    relays: Box<[SocketAddr]>,
    tags: PortKeys,
    pad_to: usize,
    runs: Runs,
    /// What the sockets take next.
    ready: DatagramBatch,
    counted: Rc<Cell<PortStats>>,
}

impl<U: UdpSocket> RelayPort<U> {
    /// A port over `trunk`, where the relays of the configuration may speak, and `direct`, where
    /// clients may; without it clients come through relays alone.
    ///
    /// # Errors
    /// [`RelayConfigError`] names the setting that cannot be.
    pub fn new(direct: Option<U>, trunk: U, config: &PortConfig) -> Result<Self, RelayConfigError> {
        config.check()?;
        Ok(Self {
            sockets: TwoSided::new(direct, trunk, &config.relays),
            relays: config.relays.as_slice().into(),
            tags: PortKeys::new(&config.keys),
            pad_to: config.pad_to,
            runs: Runs::new(READY_DATAGRAMS),
            ready: DatagramBatch::new(READY_DATAGRAMS),
            counted: Rc::default(),
        })
    }

    /// The address that relays send to.
    pub fn trunk_addr(&self) -> SocketAddr {
        self.sockets.trunk_addr()
    }

    /// What the direct side, where there is one, and the trunk got and did.
    pub fn reports(&self) -> (Option<SocketReport>, SocketReport) {
        self.sockets.reports()
    }

    /// Its keys, to be replaced while the port is driven.
    pub fn keys(&self) -> PortKeys {
        self.tags.clone()
    }

    /// What was counted; stays readable while the port is driven.
    pub fn stats(&self) -> Rc<Cell<PortStats>> {
        Rc::clone(&self.counted)
    }

    /// Moves datagrams from `batch` to `ready`, those for clients behind relays as trunk datagrams.
    fn prepare(&mut self, batch: &mut DatagramBatch) {
        let mut stats = self.counted.get();
        let tag = self.tags.get().to_relay.present();
        while self.ready.room() > 0 {
            let Some(mut datagram) = batch.pop() else { break };
            let Some((client, index)) = client_of(datagram.peer) else {
                // There was room.
                drop(self.ready.push(datagram));
                continue;
            };
            let relay = self.relays.get(usize::from(index)).copied();
            let Some(relay) =
                relay.filter(|_| encode(&mut datagram.packet, client, self.pad_to, tag))
            else {
                stats.unsendable += 1;
                continue;
            };
            datagram.peer = relay;
            let key = Runs::key(index, datagram.packet.len());
            stats.relayed_out += 1;
            if self.runs.push(key, datagram).is_err() {
                stats.unsendable += 1;
            }
        }
        self.counted.set(stats);
    }
}

impl<U: UdpSocket> UdpSocket for RelayPort<U> {
    /// Where clients come directly, or the trunk where they do not.
    fn local_addr(&self) -> SocketAddr {
        self.sockets.local_addr()
    }

    fn pool(&self) -> &PacketPool {
        self.sockets.pool()
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        let before = batch.len();
        let received = self.sockets.poll_recv(cx, batch)?;
        let mut stats = self.counted.get();
        stats.sides = self.sockets.dropped();
        let tags = self.tags.get().to_server;
        batch.retain_from(before, |datagram| {
            let relay = self.relays.iter().position(|relay| *relay == datagram.peer);
            let Some(relay) = relay else { return true };
            match decode(&datagram.packet, &tags) {
                Ok((client, len)) => {
                    stats.relayed_in += 1;
                    datagram.packet.set_len(len);
                    // At most PEERS_MAX relays.
                    datagram.peer = relayed_address(client, relay as u16);
                    true
                }
                Err(FrameError::Tag) => {
                    stats.bad_tag += 1;
                    false
                }
                Err(_) => {
                    stats.bad_frame += 1;
                    false
                }
            }
        });
        self.counted.set(stats);
        match received {
            Poll::Ready(count) if count > 0 && batch.len() == before => {
                // All were dropped: others get their turn before more are looked at.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(_) => Poll::Ready(Ok(batch.len() - before)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        let before = batch.len();
        loop {
            while !self.ready.is_empty() {
                if self.sockets.poll_send(cx, &mut self.ready)?.is_pending() {
                    return Poll::Pending;
                }
            }
            if self.runs.is_empty() {
                if batch.is_empty() {
                    return Poll::Ready(Ok(before));
                }
                self.prepare(batch);
            }
            self.runs.drain_into(&mut self.ready);
        }
    }

    fn report(&self) -> SocketReport {
        self.sockets.report()
    }
}

impl<U: UdpSocket> std::fmt::Debug for RelayPort<U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayPort")
            .field("sockets", &self.sockets)
            .field("stats", &self.counted.get())
            .finish_non_exhaustive()
    }
}
