//! The TCP road: sockets of this machine.
//!
//! //= hub 9.1

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use rustix::event::{Timespec, epoll};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::carrier::{Connector, Heed, READY_MAX, Ready, Sockets, StreamCarrier};
use super::core::Carrier;
use super::node::{Member, Node, Waited};
use super::open;
use super::topic::Topic;
use crate::error::BuildError;
use crate::road::{Opened, RoadConfig, Side};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// What is told of the listener; connections are told by their places behind it.
const LISTENER_KEY: u64 = 0;

/// Streams over TCP.
pub(crate) type TcpCarrier = StreamCarrier<KernelSockets>;

/// Sockets of this machine.
pub(crate) struct KernelSockets {
    epoll: Arc<OwnedFd>,
    listener: Option<TcpListener>,
}

impl KernelSockets {
    fn new() -> io::Result<Self> {
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        Ok(Self { epoll, listener: None })
    }

    fn listen(&mut self, address: SocketAddr) -> io::Result<SocketAddr> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener: TcpListener = socket.into();
        let flags = epoll::EventFlags::IN;
        epoll::add(&self.epoll, &listener, epoll::EventData::new_u64(LISTENER_KEY), flags)?;
        let local = listener.local_addr()?;
        self.listener = Some(listener);
        Ok(local)
    }
}

/// What the kernel is to tell, and under which key.
fn interest(place: usize, heed: Heed) -> (epoll::EventData, epoll::EventFlags) {
    let flags = match heed {
        Heed::Out => epoll::EventFlags::OUT,
        Heed::In => epoll::EventFlags::IN,
        Heed::Both => epoll::EventFlags::IN | epoll::EventFlags::OUT,
    };
    (epoll::EventData::new_u64(place as u64 + 1), flags)
}

impl Sockets for KernelSockets {
    type Stream = TcpStream;

    fn begin_connecting(&mut self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Ok(()) => {}
            // The kernel goes on with it.
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        Ok(socket.into())
    }

    fn is_made(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        match SockRef::from(&*stream).take_error()? {
            Some(error) => Err(error),
            None => Ok(stream.peer_addr().is_ok()),
        }
    }

    fn accept(&mut self) -> io::Result<TcpStream> {
        let Some(listener) = &self.listener else { return Err(io::ErrorKind::WouldBlock.into()) };
        let (stream, _) = listener.accept()?;
        // A stream that cannot be set up is that one's trouble, as if it had been cut.
        let made = stream.set_nonblocking(true);
        made.map_err(|_| io::ErrorKind::ConnectionAborted)?;
        Ok(stream)
    }

    fn heed_listener(&mut self, is_heeded: bool) {
        if let Some(listener) = &self.listener {
            let key = epoll::EventData::new_u64(LISTENER_KEY);
            let flags = if is_heeded { epoll::EventFlags::IN } else { epoll::EventFlags::empty() };
            // A failure leaves it as it was, which is asked again at the next turn.
            let _ = epoll::modify(&self.epoll, listener, key, flags);
        }
    }

    fn watch(&mut self, place: usize, stream: &TcpStream, heed: Heed) -> io::Result<()> {
        // Without it the kernel waits for the ack of the write before, up to 40 ms.
        let _ = stream.set_nodelay(true);
        let (key, flags) = interest(place, heed);
        Ok(epoll::add(&self.epoll, stream, key, flags)?)
    }

    fn heed(&mut self, place: usize, stream: &TcpStream, heed: Heed) -> io::Result<()> {
        let (key, flags) = interest(place, heed);
        Ok(epoll::modify(&self.epoll, stream, key, flags)?)
    }

    fn ready(&mut self, ready: &mut Vec<Ready>) {
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; READY_MAX];
        let found = epoll::wait(&self.epoll, &mut events[..], Some(&Timespec::default()));
        let found = found.unwrap_or(0);
        ready.extend(events.iter().take(found).map(|event| match event.data.u64() {
            LISTENER_KEY => Ready::Listener,
            key => Ready::Stream(usize::try_from(key - 1).unwrap_or(usize::MAX)),
        }));
    }

    #[inline]
    fn read(&mut self, stream: &mut TcpStream, space: &mut [u8]) -> io::Result<usize> {
        stream.read(space)
    }

    #[inline]
    fn write(&mut self, stream: &mut TcpStream, pieces: &[&[u8]; 3]) -> io::Result<usize> {
        match pieces {
            [one, [], []] | [[], one, []] | [[], [], one] => stream.write(one),
            [one, two, three] => {
                stream.write_vectored(&[IoSlice::new(one), IoSlice::new(two), IoSlice::new(three)])
            }
        }
    }

    fn shut(&mut self, stream: &mut TcpStream) {
        // Who is gone already hears nothing of it.
        let _ = stream.shutdown(Shutdown::Write);
    }

    fn close(&mut self) {
        self.listener = None;
    }
}

impl TcpCarrier {
    /// One that listens, and where.
    pub(crate) fn listening(
        seed: u64,
        address: SocketAddr,
    ) -> Result<(Self, SocketAddr), BuildError> {
        let mut sockets = KernelSockets::new().map_err(BuildError::Os)?;
        let bound = sockets.listen(address);
        let bound = bound.map_err(|source| BuildError::Bind { address, source })?;
        Ok((Self::new(sockets, seed), bound))
    }

    /// One that goes to an address for a topic.
    pub(crate) fn calling(
        seed: u64,
        seat: usize,
        addresses: Vec<SocketAddr>,
    ) -> Result<Self, BuildError> {
        let sockets = KernelSockets::new().map_err(BuildError::Os)?;
        let mut carrier = Self::new(sockets, seed);
        carrier.connector = Some(Connector::new(seat, addresses));
        Ok(carrier)
    }
}

impl Waited for TcpCarrier {
    fn readiness(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.sockets.epoll)
    }
}

/// Listeners of this process, which several topics share.
static LISTENERS: Mutex<Vec<(SocketAddr, Weak<Node<TcpCarrier>>)>> = Mutex::new(Vec::new());

/// Opens the TCP road.
pub(crate) fn open(config: &RoadConfig) -> Result<Opened, BuildError> {
    let topic = open::topic(config)?;
    match config.side {
        Side::Listen => listen(config, topic),
        Side::Connect => connect(config, topic),
    }
}

fn listen(config: &RoadConfig, mut topic: Topic) -> Result<Opened, BuildError> {
    let address = config.first_address()?;
    let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
    listeners.retain(|(_, node)| node.strong_count() > 0);
    let known = listeners.iter().find(|(known, _)| *known == address && address.port() != 0);
    if let Some(node) = known.and_then(|(_, node)| node.upgrade()) {
        match open::share(config, &node, address, topic)? {
            Ok(member) => return Ok(open::opened(config, &member, vec![])),
            // It was left by its last topic just now: its port is free.
            Err(back) => topic = back,
        }
    }
    let (carrier, bound) = TcpCarrier::listening(seed(config), address)?;
    let node = Node::start(carrier, Instant::now(), config.net.flush_interval, config.net.core);
    let node = node.map_err(BuildError::Os)?;
    let member = member_of(&node, topic)?;
    listeners.retain(|(known, _)| *known != bound);
    listeners.push((bound, Arc::downgrade(&node)));
    Ok(open::opened(config, &member, vec![format!("it listens at {bound}")]))
}

fn member_of(
    node: &Arc<Node<TcpCarrier>>,
    topic: Topic,
) -> Result<Arc<Member<TcpCarrier>>, BuildError> {
    let joined = node.join(topic).map_err(BuildError::Os)?;
    joined.map_err(|_| BuildError::Os(io::ErrorKind::NotConnected.into()))
}

/// A seed for waits that must not be those of other hubs.
pub(crate) fn seed(config: &RoadConfig) -> u64 {
    crate::road::publisher_of(config.id)
}

fn connect(config: &RoadConfig, topic: Topic) -> Result<Opened, BuildError> {
    let address = config.first_address()?;
    let sockets = KernelSockets::new().map_err(BuildError::Os)?;
    let carrier = TcpCarrier::new(sockets, seed(config));
    let node = Node::start(carrier, Instant::now(), config.net.flush_interval, config.net.core);
    let node = node.map_err(BuildError::Os)?;
    let member = member_of(&node, topic)?;
    let seat = member.seat();
    let connector = Connector::new(seat, config.addresses.clone());
    node.with(|_, carrier, _| carrier.connector = Some(connector));
    node.drive_until(open::ANSWER_TIMEOUT, |core| core.carrier.told(seat).is_some());
    let told = node.with(|_, carrier, _| carrier.told(seat));
    let note = open::judge(config, address, told)?;
    Ok(open::opened(config, &member, vec![note]))
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::super::testing::Setup;
    use super::*;
    use crate::report::Compression;

    #[test]
    fn what_was_begun_while_the_own_thread_slept_goes_on() {
        let carrier = TcpCarrier::new(KernelSockets::new().unwrap(), 1);
        let node = Node::start(carrier, Instant::now(), Duration::from_micros(100), None).unwrap();
        let setup = Setup {
            id: 1,
            is_reliable: true,
            depth: 8,
            history: 0,
            longest: 64,
            compression: Compression::None,
        };
        let member = member_of(&node, setup.topic()).unwrap();
        // It has found nothing to do, and sleeps for as long as nothing comes.
        thread::sleep(Duration::from_millis(100));
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(loopback).unwrap();
        let address = listener.local_addr().unwrap();
        let mut connector = Connector::new(member.seat(), vec![address]);
        node.with(|now, carrier, _| {
            // Nothing comes until somebody goes there, which is behind the drive.
            connector.next_at = now.after(Duration::from_secs(1));
            carrier.connector = Some(connector);
        });
        assert!(!node.drive_until(Duration::ZERO, |_| false));
        listener.set_nonblocking(true).unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while listener.accept().is_err() {
            assert!(Instant::now() < end, "nobody tries again");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
