//! A client: it pays by three ways, each payment until it is acknowledged.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_provider::{
    AsyncReadExt, AsyncWriteExt, NetworkProvider, TcpOptions, TimeProvider, Timer, UdpOptions,
    UdpSocket,
};

use super::super::echo::{sleep, within};
use super::{
    DATAGRAM_PORT, ENTRY_BYTES, Entry, NAME, RETRY, SERVER, STREAM_PORT, Shape, Truth, Within,
    proxy,
};
use crate::env::SimEnv;
use crate::tcp::SimTcp;
use crate::udp::SimUdp;

/// Ways to pay.
const WAYS: u64 = 3;
/// Payments that one connection carries.
const PAYMENTS_PER_CONNECTION: usize = 4;
/// How long a client waits for a connection, and for an answer over one.
const CONNECT_TIME: Duration = Duration::from_secs(2);
const ANSWER_TIME: Duration = Duration::from_millis(1_500);
/// SOCKS5: the version, two commands, and two kinds of addresses.
const VERSION: u8 = 5;
const CONNECT: u8 = 1;
const ASSOCIATE: u8 = 3;
const IPV4: u8 = 1;
const BY_NAME: u8 = 3;
/// What stands before a datagram to and from an IPv4 address.
const RELAY_HEADER_BYTES: usize = 10;

/// One way of one client.
pub(super) struct Payer {
    pub(super) env: SimEnv,
    pub(super) shape: Shape,
    pub(super) client: u64,
    pub(super) way: u64,
    pub(super) truth: Rc<RefCell<Truth>>,
}

impl Payer {
    /// What is not acknowledged yet of this way.
    fn open(&self) -> Vec<Entry> {
        let truth = self.truth.borrow();
        let numbers = (0..self.shape.payments).filter(|number| number % WAYS == self.way);
        let entries = numbers.map(|number| Entry { client: self.client, number });
        entries.filter(|entry| !truth.acknowledged.contains(entry)).collect()
    }

    /// Takes an answer. One to another client may come where the box gave his port to this one.
    fn take(&self, bytes: &[u8]) -> Option<Entry> {
        let entry = Entry::read(bytes, Within::Answer)?;
        let truth = &mut *self.truth.borrow_mut();
        if entry.client >= self.shape.clients || entry.number >= self.shape.payments {
            truth.wrong += 1;
        }
        if entry.client != self.client {
            return None;
        }
        truth.acknowledged.insert(entry);
        Some(entry)
    }

    async fn bind(&self) -> SimUdp {
        let local = SocketAddr::new(self.env.ip(), 0);
        loop {
            match self.env.bind_udp(local, &UdpOptions { ecn: true, ..UdpOptions::default() }).await
            {
                Ok(socket) => return socket,
                Err(_) => sleep(&self.env, RETRY).await,
            }
        }
    }

    /// Pays over datagrams to the server itself.
    pub(super) async fn by_datagrams(self) {
        let mut socket = self.bind().await;
        let server = SocketAddr::new(SERVER, DATAGRAM_PORT);
        for entry in self.open() {
            while !self.ask(&mut socket, (server, &[]), entry).await {
                crate::reachable!("a payment was asked for again");
            }
            sleep(&self.env, self.shape.spacing).await;
        }
    }

    /// Sends a request behind a header and waits for its answer, for as long as one is waited for.
    async fn ask(&self, socket: &mut SimUdp, to: (SocketAddr, &[u8]), entry: Entry) -> bool {
        let (peer, header) = to;
        let mut out = DatagramBatch::new(1);
        let request = [header, &entry.write(Within::Request)].concat();
        if let Some(mut packet) = socket.pool().take()
            && packet.fill(&request)
        {
            // An empty batch has room for one.
            let _ = out.push(Datagram { peer, at: self.env.now(), packet });
        }
        let (mut received, mut timer) = (DatagramBatch::new(8), self.env.timer());
        timer.set(Some(self.env.now().after(self.shape.interval)));
        loop {
            if !out.is_empty() {
                // What a socket refuses is lost like what a link loses.
                let _ = poll_fn(|cx| socket.poll_send(cx, &mut out)).await;
            }
            let heard = poll_fn(|cx| match socket.poll_recv(cx, &mut received) {
                Poll::Ready(outcome) => Poll::Ready(outcome.is_ok()),
                Poll::Pending => timer.poll_expired(cx).map(|()| false),
            });
            if !heard.await {
                return false;
            }
            let mut is_answered = false;
            while let Some(datagram) = received.pop() {
                let bytes = datagram.packet.get(header.len()..).unwrap_or_default();
                is_answered |= self.take(bytes) == Some(entry);
            }
            if is_answered {
                return true;
            }
        }
    }

    /// Pays over a stream through the proxy, made again whenever something breaks.
    pub(super) async fn by_stream(self) {
        while !self.open().is_empty() {
            if self.once_by_stream().await.is_err() {
                crate::reachable!("a way through the proxy was made again");
                sleep(&self.env, RETRY).await;
            }
        }
    }

    async fn once_by_stream(&self) -> io::Result<()> {
        let name = [&[BY_NAME, NAME.len() as u8][..], NAME.as_bytes()].concat();
        let (mut stream, _) = self.through_proxy(CONNECT, &name, STREAM_PORT).await?;
        for entry in self.open().into_iter().take(PAYMENTS_PER_CONNECTION) {
            let exchange = async {
                stream.write_all(&entry.write(Within::Request)).await?;
                let mut answer = [0; ENTRY_BYTES];
                stream.read_exact(&mut answer).await?;
                io::Result::Ok(answer)
            };
            let answer = within(&self.env, ANSWER_TIME, exchange).await;
            let answer = answer.ok_or(io::ErrorKind::TimedOut)??;
            if self.take(&answer) != Some(entry) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            sleep(&self.env, self.shape.spacing).await;
        }
        stream.shutdown().await
    }

    /// Pays over datagrams through an association of the proxy, made again when it is silent.
    pub(super) async fn by_association(self) {
        while !self.open().is_empty() {
            if self.once_by_association().await.is_err() {
                crate::reachable!("a way through the proxy was made again");
                sleep(&self.env, RETRY).await;
            }
        }
    }

    async fn once_by_association(&self) -> io::Result<()> {
        let anywhere = [IPV4, 0, 0, 0, 0];
        // The association lives as long as the stream.
        let (_stream, relay) = self.through_proxy(ASSOCIATE, &anywhere, 0).await?;
        let mut socket = self.bind().await;
        let IpAddr::V4(server) = SERVER else { return Err(io::ErrorKind::Unsupported.into()) };
        let mut header = vec![0, 0, 0, IPV4];
        header.extend(server.octets());
        header.extend(DATAGRAM_PORT.to_be_bytes());
        debug_assert_eq!(header.len(), RELAY_HEADER_BYTES);
        for entry in self.open() {
            // Without an answer for so long the association is taken for gone.
            let deadline = self.env.now().after(ANSWER_TIME);
            while !self.ask(&mut socket, (relay, &header), entry).await {
                crate::reachable!("a payment was asked for again");
                if self.env.now() >= deadline {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            sleep(&self.env, self.shape.spacing).await;
        }
        Ok(())
    }

    /// Asks the proxy for something; the stream to it, and the address that it answered with.
    async fn through_proxy(
        &self,
        command: u8,
        target: &[u8],
        port: u16,
    ) -> io::Result<(SimTcp, SocketAddr)> {
        let options = TcpOptions { connect_timeout: CONNECT_TIME, ..TcpOptions::default() };
        let mut stream = self.env.connect(proxy(), &options).await.map_err(io::Error::other)?;
        let exchange = async {
            // One way to say who it is: not at all.
            stream.write_all(&[VERSION, 1, 0]).await?;
            let mut chosen = [0; 2];
            stream.read_exact(&mut chosen).await?;
            let request = [&[VERSION, command, 0][..], target, &port.to_be_bytes()].concat();
            stream.write_all(&request).await?;
            let mut reply = [0; 4];
            stream.read_exact(&mut reply).await?;
            let mut address = [0; 6];
            stream.read_exact(&mut address).await?;
            io::Result::Ok((chosen, reply, address))
        };
        let told = within(&self.env, ANSWER_TIME, exchange).await;
        let (chosen, reply, address) = told.ok_or(io::ErrorKind::TimedOut)??;
        if chosen != [VERSION, 0] || reply[1] != 0 || reply[3] != IPV4 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let [a, b, c, d, high, low] = address;
        let ip = Ipv4Addr::new(a, b, c, d);
        Ok((stream, SocketAddr::new(ip.into(), u16::from_be_bytes([high, low]))))
    }
}
