//! Streams of topics through shared memory, for who finds a listener of the own machine behind `hub://`.
//!
//! //= hub 16.5

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use twinspan_net::shm::{Pipe, PipeListener, sleep_on};

use super::carrier::{Connector, Heed, READY_MAX, Ready, Sockets, StreamCarrier};
use super::node::Waited;
use crate::error::BuildError;

/// What is told of the listener; connections are told by their places behind it.
const LISTENER_KEY: u64 = 0;
/// How long a listener that is there has to answer who looks whether its memory opens.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(250);

/// Streams through memory.
pub(crate) type MemoryCarrier = StreamCarrier<MemorySockets>;

/// Pipes of this machine.
pub(crate) struct MemorySockets {
    epoll: Arc<OwnedFd>,
    listener: Option<PipeListener>,
    /// Those that are watched, by their places.
    pipes: Vec<Weak<Pipe>>,
}

/// The names that a listener at an address may have: its own, or that of all addresses.
fn names(address: SocketAddr) -> [String; 2] {
    [address.to_string(), format!("*:{}", address.port())]
}

/// The name under which who is bound to an address listens.
fn name(bound: SocketAddr) -> String {
    let [own, all] = names(bound);
    if bound.ip().is_unspecified() { all } else { own }
}

/// Begins a pipe to who listens at an address.
fn begin(address: SocketAddr) -> io::Result<Pipe> {
    let [own, all] = names(address);
    match Pipe::begin(&own) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Pipe::begin(&all),
        pipe => pipe,
    }
}

/// Whether somebody of this user listens at an address, without waiting for an answer.
pub(crate) fn is_there(address: SocketAddr) -> bool {
    begin(address).is_ok()
}

/// Whether the memory of who listens at an address opens.
pub(crate) fn opens(address: SocketAddr) -> io::Result<()> {
    let end = Instant::now() + ANSWER_TIMEOUT;
    let pipe = begin(address)?;
    while !pipe.is_made()? {
        let left = end.checked_duration_since(Instant::now());
        let left =
            left.ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "it does not answer"))?;
        sleep_on(pipe.as_fd(), Some(left));
        pipe.hear();
    }
    Ok(())
}

impl MemorySockets {
    fn new() -> io::Result<Self> {
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        Ok(Self { epoll, listener: None, pipes: Vec::new() })
    }

    fn pipes(&self) -> impl Iterator<Item = (usize, Arc<Pipe>)> {
        let pipes = self.pipes.iter().enumerate();
        pipes.filter_map(|(place, pipe)| Some((place, pipe.upgrade()?)))
    }
}

impl Sockets for MemorySockets {
    type Stream = Arc<Pipe>;

    fn begin_connecting(&mut self, address: SocketAddr) -> io::Result<Arc<Pipe>> {
        begin(address).map(Arc::new)
    }

    fn is_made(&mut self, stream: &mut Arc<Pipe>) -> io::Result<bool> {
        stream.is_made()
    }

    fn accept(&mut self) -> io::Result<Arc<Pipe>> {
        let Some(listener) = &self.listener else { return Err(io::ErrorKind::WouldBlock.into()) };
        listener.accept().map(Arc::new)
    }

    fn heed_listener(&mut self, is_heeded: bool) {
        if let Some(listener) = &self.listener {
            let key = epoll::EventData::new_u64(LISTENER_KEY);
            let flags = if is_heeded { epoll::EventFlags::IN } else { epoll::EventFlags::empty() };
            // A failure leaves it as it was, which is asked again at the next turn.
            let _ = epoll::modify(&self.epoll, listener, key, flags);
        }
    }

    fn watch(&mut self, place: usize, stream: &Arc<Pipe>, heed: Heed) -> io::Result<()> {
        let key = epoll::EventData::new_u64(place as u64 + 1);
        epoll::add(&self.epoll, &**stream, key, epoll::EventFlags::IN)?;
        if self.pipes.len() <= place {
            self.pipes.resize_with(place + 1, Weak::new);
        }
        if let Some(known) = self.pipes.get_mut(place) {
            *known = Arc::downgrade(stream);
        }
        self.heed(place, stream, heed)
    }

    fn heed(&mut self, _place: usize, stream: &Arc<Pipe>, heed: Heed) -> io::Result<()> {
        stream.want_room(heed == Heed::Both);
        Ok(())
    }

    fn ready(&mut self, ready: &mut Vec<Ready>) {
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; READY_MAX];
        let found = epoll::wait(&self.epoll, &mut events[..], Some(&Timespec::default()));
        for event in events.iter().take(found.unwrap_or(0)) {
            let place = match event.data.u64() {
                LISTENER_KEY => {
                    ready.push(Ready::Listener);
                    continue;
                }
                key => usize::try_from(key - 1).unwrap_or(usize::MAX),
            };
            if let Some(pipe) = self.pipes.get(place).and_then(Weak::upgrade) {
                pipe.hear();
                ready.push(Ready::Stream(place));
            }
        }
        for (place, pipe) in self.pipes() {
            let place = Ready::Stream(place);
            if pipe.has_news() && !ready.contains(&place) {
                ready.push(place);
            }
        }
    }

    fn arm(&mut self) -> bool {
        self.pipes().all(|(_, pipe)| pipe.arm())
    }

    #[inline]
    fn read(&mut self, stream: &mut Arc<Pipe>, space: &mut [u8]) -> io::Result<usize> {
        stream.read(space)
    }

    #[inline]
    fn write(&mut self, stream: &mut Arc<Pipe>, pieces: &[&[u8]; 3]) -> io::Result<usize> {
        stream.write(pieces)
    }

    fn shut(&mut self, stream: &mut Arc<Pipe>) {
        stream.shut();
    }

    fn close(&mut self) {
        self.listener = None;
    }
}

impl MemoryCarrier {
    /// One that listens, for who is bound to an address.
    pub(crate) fn listening(seed: u64, bound: SocketAddr) -> io::Result<Self> {
        let mut sockets = MemorySockets::new()?;
        let listener = PipeListener::bind(&name(bound))?;
        let key = epoll::EventData::new_u64(LISTENER_KEY);
        epoll::add(&sockets.epoll, &listener, key, epoll::EventFlags::IN)?;
        sockets.listener = Some(listener);
        Ok(Self::new(sockets, seed))
    }

    /// One that goes to who listens at an address for a topic.
    pub(crate) fn calling(seed: u64, seat: usize, address: SocketAddr) -> Result<Self, BuildError> {
        let sockets = MemorySockets::new().map_err(BuildError::Os)?;
        let mut carrier = Self::new(sockets, seed);
        carrier.connector = Some(Connector::new(seat, vec![address]));
        Ok(carrier)
    }
}

impl Waited for MemoryCarrier {
    fn readiness(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.sockets.epoll)
    }
}
