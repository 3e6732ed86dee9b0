//! What a proxy does for a client that it let in: bytes both ways, or datagrams.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use twinspan_core::link::FaultKind;
use twinspan_core::packet::{Datagram, DatagramBatch, PACKET_BYTES_MAX};
use twinspan_provider::{
    AsyncRead, AsyncWrite, AsyncWriteExt, NetworkProvider, ReadBuf, TcpStream, TimeProvider,
    UdpOptions, UdpSocket,
};

use super::wire::{HEADER_BYTES_MAX, Target, header, parse, reply};
use super::{PEERS_PER_ASSOCIATION_MAX, Shared, SocksReply, resolve};
use crate::tcp::SimTcp;
use crate::udp::SimUdp;

/// Bytes that wait in each direction of a relayed connection.
const BUFFER_BYTES: usize = 16 << 10;
/// Datagrams that are taken at once.
const BATCH: usize = 32;

/// One direction of a relayed connection.
struct Way {
    buffer: Vec<u8>,
    from: usize,
    to: usize,
    has_ended: bool,
    is_shut: bool,
}

impl Way {
    fn new() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES], from: 0, to: 0, has_ended: false, is_shut: false }
    }

    /// Moves what can be moved; an error when either end is broken.
    fn pump(&mut self, cx: &mut Context<'_>, reads: &mut SimTcp, writes: &mut SimTcp) -> Moved {
        loop {
            if self.from < self.to {
                let bytes = self.buffer.get(self.from..self.to).unwrap_or_default();
                match Pin::new(&mut *writes).poll_write(cx, bytes) {
                    Poll::Ready(Ok(len @ 1..)) => self.from += len,
                    Poll::Ready(_) => return Moved::Broke,
                    Poll::Pending => return Moved::Waits,
                }
            } else if self.has_ended {
                if !self.is_shut {
                    self.is_shut = true;
                    if !matches!(Pin::new(&mut *writes).poll_shutdown(cx), Poll::Ready(Ok(()))) {
                        return Moved::Broke;
                    }
                }
                return Moved::Ended;
            } else {
                let mut room = ReadBuf::new(&mut self.buffer);
                match Pin::new(&mut *reads).poll_read(cx, &mut room) {
                    Poll::Ready(Ok(())) => {
                        (self.from, self.to) = (0, room.filled().len());
                        self.has_ended = self.to == 0;
                    }
                    Poll::Ready(Err(_)) => return Moved::Broke,
                    Poll::Pending => return Moved::Waits,
                }
            }
        }
    }
}

enum Moved {
    Waits,
    Ended,
    Broke,
}

/// Relays until both ways have ended or one end is broken; who is left sees a reset then.
pub(super) async fn both_ways(near: &mut SimTcp, far: &mut SimTcp) {
    let (mut out, mut back) = (Way::new(), Way::new());
    poll_fn(|cx| match (out.pump(cx, near, far), back.pump(cx, far, near)) {
        (Moved::Broke, _) | (_, Moved::Broke) | (Moved::Ended, Moved::Ended) => Poll::Ready(()),
        _ => Poll::Pending,
    })
    .await;
}

/// What an association waits for.
enum Next {
    /// The client closed its connection, or the proxy dropped it.
    End,
    Received,
}

/// Relays datagrams for a client until it closes its connection or the proxy is told to drop it.
pub(super) async fn associate(
    shared: &Shared,
    stream: &mut SimTcp,
    target: &Target,
) -> Result<(), SocksReply> {
    let env = &shared.env;
    let local = SocketAddr::new(env.ip(), 0);
    let options = UdpOptions { pool_packets: 4 * BATCH, ..UdpOptions::default() };
    let bound = env.bind_udp(local, &options).await;
    let mut socket = bound.map_err(|_| SocksReply::GeneralFailure)?;
    let told = reply(SocksReply::Succeeded, socket.local_addr());
    if stream.write_all(&told).await.is_err() {
        return Ok(());
    }
    shared.count(|report| report.associated += 1);
    // The port that the client will send from, where it said.
    let port = match target {
        Target::Address(address) if address.port() > 0 => Some(address.port()),
        _ => None,
    };
    let ip = stream.peer_addr().ip();
    let number = shared.report.get().associated;
    let peers = BTreeSet::new();
    let mut association = Association { shared, number, ip, port, peers, datagrams: 0 };
    let drops = shared.drops.get();
    let (mut received, mut out) = (DatagramBatch::new(BATCH), DatagramBatch::new(BATCH));
    loop {
        match association.next(drops, stream, &mut socket, &mut received).await {
            Next::End => return Ok(()),
            Next::Received => {}
        }
        while let Some(datagram) = received.pop() {
            if association.is_struck(socket.local_addr()) {
                shared.count(|report| report.dropped += 1);
                return Ok(());
            }
            if let Some(datagram) = association.turn(datagram).await {
                // As large as the other.
                drop(out.push(datagram));
            }
        }
        while !out.is_empty() {
            let sent = poll_fn(|cx| socket.poll_send(cx, &mut out)).await;
            if sent.is_err() {
                return Ok(());
            }
        }
    }
}

struct Association<'a> {
    shared: &'a Shared,
    number: u64,
    /// Whose it is, and from which port once that is known.
    ip: IpAddr,
    port: Option<u16>,
    /// Whom the client has sent to.
    peers: BTreeSet<SocketAddr>,
    /// Datagrams of either side so far, which planned ends are numbered by.
    datagrams: u64,
}

impl Drop for Association<'_> {
    fn drop(&mut self) {
        self.shared.wakers.borrow_mut().remove(&self.number);
    }
}

impl Association<'_> {
    /// Whether a planned fault ends it with the datagram that has come.
    fn is_struck(&mut self, local: SocketAddr) -> bool {
        self.datagrams += 1;
        let number = self.datagrams - 1;
        self.shared.env.strike_service(FaultKind::ProxyDrop, local, number).is_some()
    }

    async fn next(
        &self,
        drops: u64,
        stream: &mut SimTcp,
        socket: &mut SimUdp,
        received: &mut DatagramBatch,
    ) -> Next {
        poll_fn(|cx| {
            if self.shared.drops.get() != drops {
                self.shared.count(|report| report.dropped += 1);
                return Poll::Ready(Next::End);
            }
            let mut bytes = [0; 64];
            let mut room = ReadBuf::new(&mut bytes);
            // What a client says here means nothing; that it goes does.
            while let Poll::Ready(read) = Pin::new(&mut *stream).poll_read(cx, &mut room) {
                if read.is_err() || room.filled().is_empty() {
                    return Poll::Ready(Next::End);
                }
                room.clear();
            }
            match socket.poll_recv(cx, received) {
                Poll::Ready(Ok(_)) => Poll::Ready(Next::Received),
                Poll::Ready(Err(_)) => Poll::Ready(Next::End),
                Poll::Pending => {
                    let waker = cx.waker().clone();
                    self.shared.wakers.borrow_mut().insert(self.number, waker);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// What goes on of a datagram, with another header and to another end; `None` when it is dropped
    /// and counted.
    async fn turn(&mut self, datagram: Datagram) -> Option<Datagram> {
        let from = datagram.peer;
        let is_client = from.ip() == self.ip && self.port.is_none_or(|port| port == from.port());
        let turned = if is_client {
            self.port = Some(from.port());
            self.outward(datagram).await
        } else {
            self.inward(datagram)
        };
        self.shared.count(|report| match (turned.is_some(), is_client) {
            (false, _) => report.datagrams_dropped += 1,
            (true, true) => report.datagrams_out += 1,
            (true, false) => report.datagrams_in += 1,
        });
        turned
    }

    async fn outward(&mut self, mut datagram: Datagram) -> Option<Datagram> {
        let (target, bytes) = parse(&datagram.packet)?;
        let bytes = bytes.to_vec();
        let to = *resolve(self.shared, target).await.ok()?.first()?;
        if !self.peers.contains(&to) && self.peers.len() >= PEERS_PER_ASSOCIATION_MAX {
            return None;
        }
        self.peers.insert(to);
        let at = self.shared.env.now();
        let fits = datagram.packet.fill(&bytes);
        fits.then_some(Datagram { peer: to, at, packet: datagram.packet })
    }

    fn inward(&self, mut datagram: Datagram) -> Option<Datagram> {
        let len = datagram.packet.len();
        if !self.peers.contains(&datagram.peer) || len > PACKET_BYTES_MAX - HEADER_BYTES_MAX {
            return None;
        }
        let mut bytes = header(datagram.peer);
        bytes.extend_from_slice(&datagram.packet);
        let to = SocketAddr::new(self.ip, self.port?);
        let at = self.shared.env.now();
        let fits = datagram.packet.fill(&bytes);
        fits.then_some(Datagram { peer: to, at, packet: datagram.packet })
    }
}
