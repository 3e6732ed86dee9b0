//! A datagram socket whose datagrams go by way of a proxy.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::pin::Pin;
use std::task::{Context, Poll};

use twinspan_core::packet::{Datagram, DatagramBatch, PACKET_BYTES_MAX, PacketBuf, PacketPool};
use twinspan_provider::{
    AsyncRead, Env, ReadBuf, SocketReport, TcpStream, UdpError, UdpOptions, UdpSocket,
};

use super::wire::{self, Bound, Dropped, Header, Place};
use super::{Socks5Config, Socks5Error, ask, greet, within};
use crate::target::Target;

/// Names that datagrams of one association may go to.
pub const NAMES_MAX: usize = 16;
/// Datagrams that wait in front of the socket.
const OUT_DATAGRAMS: usize = 64;
/// Reads of what the proxy says in one turn; it has nothing to say.
const READS_PER_TURN_MAX: u32 = 8;

/// What an association did so far, besides what its socket reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Socks5Report {
    /// Datagrams in pieces, dropped.
    pub fragments: u64,
    /// Datagrams that are not from the proxy, dropped.
    pub strangers: u64,
    /// Datagrams of the proxy that have no header, or one with an unknown name, dropped.
    pub garbled: u64,
    /// Datagrams to be sent that have no room for a header, dropped.
    pub too_long: u64,
}

/// A datagram socket whose datagrams go by way of a SOCKS5 proxy.
///
/// Peers are the addresses behind the proxy. A packet's bytes move up or down by its header, within
/// its buffer: buffers have no room in front, and so each datagram costs one move of its bytes and
/// no allocation. Datagrams that are longer than [`PACKET_BYTES_MAX`] with their header are dropped
/// and counted; so are fragments, and what does not come from where the proxy said.
///
/// The association lasts as long as its connection to the proxy. When that ends, each call returns
/// a [`UdpError`] of kind [`ConnectionAborted`](io::ErrorKind::ConnectionAborted), and
/// [`is_lost`](Self::is_lost) is true: associate again. Peers will see another address then.
pub struct Socks5Udp<E: Env> {
    socket: E::Udp,
    control: E::Tcp,
    relay: SocketAddr,
    /// With their headers, on their way to the proxy.
    out: DatagramBatch,
    /// Datagrams that were taken from a batch and not yet told as sent.
    taken: usize,
    names: Vec<Named>,
    report: Socks5Report,
    is_lost: bool,
}

/// A name that datagrams may go to.
struct Named {
    /// What stands for it.
    peer: SocketAddr,
    target: Target,
    header: Vec<u8>,
}

impl<E: Env> Socks5Udp<E> {
    /// Asks the proxy to relay datagrams, which leave from `local`.
    ///
    /// # Errors
    /// [`Socks5Error`] names what the proxy said, or why it said nothing.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection to the proxy, and with it the association.
    pub async fn associate(
        env: E,
        config: &Socks5Config,
        local: SocketAddr,
        options: &UdpOptions,
    ) -> Result<Self, Socks5Error> {
        let asked = negotiate(&env, config, Some(local.is_ipv4()));
        let (control, relay) = within(&env, config, asked).await?;
        if relay.is_ipv4() != local.is_ipv4() {
            return Err(Socks5Error::OtherFamily { relay, local });
        }
        let socket = env.bind_udp(local, options).await?;
        Ok(Self::of(socket, control, relay))
    }

    /// As [`associate`](Self::associate), from any free port of this node: over IPv4 or IPv6,
    /// whichever leads to where the proxy takes datagrams. Peers of both families and names can be
    /// reached through it, as far as the proxy reaches them.
    ///
    /// # Errors
    /// [`Socks5Error`] names what the proxy said, or why it said nothing.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection to the proxy, and with it the association.
    pub async fn associate_anywhere(
        env: E,
        config: &Socks5Config,
        options: &UdpOptions,
    ) -> Result<Self, Socks5Error> {
        let (control, relay) = within(&env, config, negotiate(&env, config, None)).await?;
        let any = match relay.ip() {
            IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = env.bind_udp(any, options).await?;
        Ok(Self::of(socket, control, relay))
    }

    fn of(socket: E::Udp, control: E::Tcp, relay: SocketAddr) -> Self {
        Self {
            socket,
            control,
            relay,
            out: DatagramBatch::new(OUT_DATAGRAMS),
            taken: 0,
            names: Vec::new(),
            report: Socks5Report::default(),
            is_lost: false,
        }
    }

    /// Where the proxy takes datagrams.
    pub fn relay(&self) -> SocketAddr {
        self.relay
    }

    /// Whether the proxy ended the association.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// What it dropped so far, and why.
    pub fn socks5_report(&self) -> Socks5Report {
        self.report
    }

    /// An address that stands for a name: what is sent to it goes to that name, which the proxy
    /// resolves. Answers come from the address that the name has, if the proxy says that. The same
    /// name has the same address.
    ///
    /// # Errors
    /// [`Socks5Error::Name`] for what cannot be a name, [`Socks5Error::TooManyNames`] when there are
    /// [`NAMES_MAX`].
    pub fn name(&mut self, target: &Target) -> Result<SocketAddr, Socks5Error> {
        if let Some(address) = target.address() {
            return Ok(address);
        }
        if let Some(named) = self.names.iter().find(|named| named.target == *target) {
            return Ok(named.peer);
        }
        if self.names.len() >= NAMES_MAX {
            return Err(Socks5Error::TooManyNames);
        }
        let header = wire::named_header(target)?;
        // From a block that no host has (240.0.0.0/4).
        let number = u8::try_from(self.names.len()).unwrap_or(u8::MAX);
        let peer = SocketAddr::new(Ipv4Addr::new(240, 0, 0, number).into(), target.port);
        self.names.push(Named { peer, target: target.clone(), header });
        Ok(peer)
    }

    /// Looks whether the connection to the proxy is still there.
    fn watch(&mut self, cx: &mut Context<'_>) -> Result<(), UdpError> {
        let mut bytes = [0; 64];
        for _ in 0..READS_PER_TURN_MAX {
            if self.is_lost {
                break;
            }
            let mut room = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.control).poll_read(cx, &mut room) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) if !room.filled().is_empty() => {}
                Poll::Ready(_) => self.is_lost = true,
            }
        }
        if self.is_lost {
            let text = "the proxy ended the association; associate again";
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, text).into());
        }
        // A proxy that talks on gets its next turn later.
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Puts headers on datagrams of `batch`, as many as there is room for.
    fn take(&mut self, batch: &mut DatagramBatch) -> usize {
        let mut taken = 0;
        while self.out.room() > 0 {
            let Some(Datagram { peer, at, mut packet }) = batch.pop() else { break };
            taken += 1;
            let named = self.names.iter().find(|named| named.peer == peer);
            let framed = match named {
                Some(named) => push_front(&mut packet, &named.header),
                None => push_front(&mut packet, Header::of(peer).bytes()),
            };
            if !framed {
                self.report.too_long += 1;
                continue;
            }
            // There is room.
            drop(self.out.push(Datagram { peer: self.relay, at, packet }));
        }
        taken
    }
}

impl<E: Env> UdpSocket for Socks5Udp<E> {
    fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    fn pool(&self) -> &PacketPool {
        self.socket.pool()
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        self.watch(cx)?;
        if !self.out.is_empty() {
            // Where a send was given up half-way, what it took goes on.
            let _ = self.socket.poll_send(cx, &mut self.out)?;
        }
        let before = batch.len();
        let Poll::Ready(came) = self.socket.poll_recv(cx, batch)? else { return Poll::Pending };
        if came == 0 {
            return Poll::Ready(Ok(0));
        }
        let (relay, names, report) = (self.relay, &self.names, &mut self.report);
        batch.retain_from(before, |datagram| unwrap(datagram, relay, names, report));
        match batch.len() - before {
            0 => {
                // Nothing of it was for us. A flood of such must not hold the thread.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            kept => Poll::Ready(Ok(kept)),
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        if self.is_lost {
            self.watch(cx)?;
        }
        loop {
            if self.out.is_empty() {
                // Those that the kernel has taken by now.
                let sent = std::mem::take(&mut self.taken);
                if sent > 0 || batch.is_empty() {
                    return Poll::Ready(Ok(sent));
                }
                self.taken = self.take(batch);
            }
            while !self.out.is_empty() {
                if self.socket.poll_send(cx, &mut self.out)?.is_pending() {
                    return Poll::Pending;
                }
            }
        }
    }

    fn report(&self) -> SocketReport {
        let Socks5Report { fragments, strangers, garbled, too_long } = self.report;
        let mut report = self.socket.report();
        report.path_reason = "to a SOCKS5 proxy, which relays";
        report.receive_errors += fragments + strangers + garbled;
        report.send_errors += too_long;
        report
    }
}

impl<E: Env> fmt::Debug for Socks5Udp<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socks5Udp")
            .field("relay", &self.relay)
            .field("is_lost", &self.is_lost)
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

/// Connects, asks for an association, and finds out where its datagrams go. They will leave over
/// IPv4 or not, where that is known; else over what leads to the proxy.
async fn negotiate<E: Env>(
    env: &E,
    config: &Socks5Config,
    over_ipv4: Option<bool>,
) -> Result<(E::Tcp, SocketAddr), Socks5Error> {
    let mut control = greet(env, config).await?;
    let over_ipv4 = over_ipv4.unwrap_or(control.peer_addr().is_ipv4());
    // From which port datagrams will come is not told: a box on the way may change it.
    let unknown = Target::new(if over_ipv4 { "0.0.0.0" } else { "::" }, 0);
    let relay = match ask(&mut control, wire::ASSOCIATE, &unknown).await? {
        // Where the proxy itself is.
        Bound::Address(address) if address.ip().is_unspecified() => {
            beside(control.peer_addr(), address.port())
        }
        Bound::Address(address) => reachable(address, control.peer_addr()),
        Bound::Name(name, port) => {
            let addresses = env.resolve(&name, port).await?.addresses;
            let fits = |address: &&SocketAddr| address.is_ipv4() == over_ipv4;
            let first = addresses.iter().find(fits).or(addresses.first());
            first.copied().unwrap_or_else(|| beside(control.peer_addr(), port))
        }
    };
    Ok((control, relay))
}

/// Another port of the same node, by the same way.
fn beside(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

/// An address of a single link says nothing without the link, which SOCKS5 has no room for: it is
/// the one that leads to the proxy.
fn reachable(relay: SocketAddr, proxy: SocketAddr) -> SocketAddr {
    match (relay, proxy) {
        (SocketAddr::V6(relay), SocketAddr::V6(proxy)) if relay.ip().is_unicast_link_local() => {
            SocketAddrV6::new(*relay.ip(), relay.port(), 0, proxy.scope_id()).into()
        }
        _ => relay,
    }
}

/// Moves a packet's bytes back and puts `header` in front; false, and no change, when that does not
/// fit.
fn push_front(packet: &mut PacketBuf, header: &[u8]) -> bool {
    let (len, whole) = (packet.len(), packet.len() + header.len());
    if whole > PACKET_BYTES_MAX {
        return false;
    }
    let room = packet.room_mut();
    room.copy_within(..len, header.len());
    let Some(front) = room.get_mut(..header.len()) else { return false };
    front.copy_from_slice(header);
    packet.set_len(whole);
    true
}

/// Takes the header off a datagram; false when it is dropped, and counted.
fn unwrap(
    datagram: &mut Datagram,
    relay: SocketAddr,
    names: &[Named],
    report: &mut Socks5Report,
) -> bool {
    if datagram.peer != relay {
        report.strangers += 1;
        return false;
    }
    let (from, at) = match wire::datagram(&datagram.packet) {
        Ok((Place::Address(address), at)) => (Some(address), at),
        Ok((Place::Name(name, port), at)) => {
            let is_it =
                |named: &&Named| named.target.port == port && named.target.host.as_bytes() == name;
            (names.iter().find(is_it).map(|named| named.peer), at)
        }
        Err(Dropped::Fragment) => {
            report.fragments += 1;
            return false;
        }
        Err(Dropped::Garbled) => (None, 0),
    };
    let Some(from) = from else {
        report.garbled += 1;
        return false;
    };
    let len = datagram.packet.len();
    datagram.packet.copy_within(at.min(len).., 0);
    datagram.packet.set_len(len.saturating_sub(at));
    datagram.peer = from;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_link_is_on_the_link_that_leads_to_the_proxy() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let proxy = SocketAddrV6::new(Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0, 1), 1_080, 0, 3);
        let on_link = SocketAddrV6::new(*proxy.ip(), 4_000, 0, 3);
        assert_eq!(beside(proxy.into(), 4_000), on_link.into());
        assert_eq!(reachable(at("[fe80::1]:4000"), proxy.into()), on_link.into());
        for other in ["[2001:db8::1]:4000", "10.0.0.9:4000"] {
            assert_eq!(reachable(at(other), proxy.into()), at(other));
        }
        assert_eq!(reachable(at("[fe80::1]:4000"), at("10.0.0.9:1080")), at("[fe80::1]:4000"));
    }

    fn packet(pool: &PacketPool, bytes: &[u8]) -> PacketBuf {
        let mut packet = pool.take().unwrap();
        assert!(packet.fill(bytes));
        packet
    }

    #[test]
    fn a_header_goes_in_front_where_it_fits() {
        let pool = PacketPool::new(1);
        let mut short = packet(&pool, b"hi");
        assert!(push_front(&mut short, &[1, 2, 3]));
        assert_eq!(&*short, [1, 2, 3, b'h', b'i']);
        drop(short);
        let mut longest = packet(&pool, &[7; PACKET_BYTES_MAX - HEADER]);
        assert!(push_front(&mut longest, &[9; HEADER]));
        assert_eq!((longest.len(), longest[HEADER - 1], longest[HEADER]), (PACKET_BYTES_MAX, 9, 7));
        assert!(!push_front(&mut longest, &[9]));
        assert_eq!(longest.len(), PACKET_BYTES_MAX);
    }
    const HEADER: usize = wire::HEADER_BYTES_MAX;

    #[test]
    fn only_what_the_proxy_relays_whole_is_taken() {
        let pool = PacketPool::new(1);
        let relay = SocketAddr::from(([10, 0, 0, 9], 4_000));
        let far = SocketAddr::from(([10, 0, 0, 2], 80));
        let peer = SocketAddr::from(([240, 0, 0, 0], 80));
        let target = Target::new("ab", 80);
        let names = [Named { peer, header: wire::named_header(&target).unwrap(), target }];
        let good = [Header::of(far).bytes(), b"hi"].concat();
        let mut fragment = good.clone();
        fragment[2] = 1;
        let named = [&names[0].header, &b"hi"[..]].concat();
        let other = [&[0, 0, 0, 3, 1, b'c', 0, 80][..], b"hi"].concat();
        let mut report = Socks5Report::default();
        let mut take = |peer, bytes: &[u8]| {
            let at = twinspan_core::time::Timestamp::START;
            let mut datagram = Datagram { peer, at, packet: packet(&pool, bytes) };
            let kept = unwrap(&mut datagram, relay, &names, &mut report);
            kept.then(|| (datagram.peer, datagram.packet.to_vec()))
        };
        assert_eq!(take(relay, &good), Some((far, b"hi".to_vec())));
        assert_eq!(take(relay, &named), Some((peer, b"hi".to_vec())));
        assert_eq!(take(relay, Header::of(far).bytes()), Some((far, Vec::new())));
        assert_eq!(take(far, &good), None);
        assert_eq!(take(relay, &fragment), None);
        assert_eq!(take(relay, &other), None);
        assert_eq!(take(relay, b"hi"), None);
        let wanted = Socks5Report { fragments: 1, strangers: 1, garbled: 2, too_long: 0 };
        assert_eq!(report, wanted);
    }
}
