//! The UDP road's driver over a simulated socket.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use twinspan_core::packet::{Datagram, DatagramBatch, PacketBuf};
use twinspan_core::time::Timestamp;
use twinspan_provider::{
    NetworkProvider, RandomProvider, TaskProvider, TimeProvider, Timer, UdpOptions, UdpSocket,
};
use twinspan_sim::{SimEnv, SimTask, SimUdp};
use twinspan_topic::{
    Inbox, LINKS_MAX, Node, NodeConfig, NodeSide, Overflow, PIECES_PAST_MAX, Refusal,
};
use xxhash_rust::xxh3::xxh3_64;

use super::forger::Forger;
use super::{Bell, End, FLUSH_INTERVAL, Facts, HubConfig, LATE, Message, NAP_MIN, Road, TURNS_MAX};
use crate::ends::PairEnd;
use crate::road::More;
use crate::scenario::{RETRY, sleep};
use crate::udp::core::{Core, CoreParts};
use crate::udp::packing::Packing;
use crate::udp::wire::Wire;

/// What stands for UDP's checksum, which the simulator does not have: what was changed on its way is
/// not handed up.
pub(super) const CHECKSUM_BYTES: usize = 8;
/// Reliable chunks of one link at most, in the engine and before it.
const CHUNKS_OF_A_LINK_MAX: usize = 2 * 1_024;
/// Messages that one datagram brings at most.
const MESSAGES_OF_A_DATAGRAM_MAX: u64 = 1_024;

/// A simulated socket, as the driver has one of this machine.
struct SimWire {
    env: SimEnv,
    socket: SimUdp,
    bell: Rc<Bell>,
    batch_size: usize,
    room: Vec<u8>,
    out: DatagramBatch,
    came: DatagramBatch,
    current: Option<Datagram>,
    /// What the network makes of a multicast address.
    group: Option<(SocketAddr, Vec<SocketAddr>)>,
    /// Nothing stands for UDP's checksum: the topic's seal does.
    is_sealed: bool,
    /// Who is on the way of a sealed topic, and in whose name it may speak now.
    forger: Forger,
    speaks_for: Option<SocketAddr>,
}

impl SimWire {
    /// How many datagrams one for the group is.
    fn copies(&self) -> usize {
        self.group.as_ref().map_or(1, |(_, members)| members.len().max(1))
    }

    /// Sends a datagram to one address.
    fn push_to(&mut self, to: SocketAddr, bytes: usize) {
        let body = self.room.get(..bytes).unwrap_or_default();
        let packet = if self.is_sealed {
            self.forger.see_leave(body);
            plain(&self.socket, body)
        } else {
            sealed(&self.socket, body)
        };
        // Without a buffer it is lost, as with a kernel that has none.
        if let Some(packet) = packet {
            // There is room: the driver sends when the batch is full.
            drop(self.out.push(Datagram { peer: to, at: self.env.now(), packet }));
        }
    }
}

/// Writes a body into a packet of the pool.
fn plain(socket: &SimUdp, body: &[u8]) -> Option<PacketBuf> {
    let mut packet = socket.pool().take()?;
    packet.fill(body).then_some(packet)
}

/// Writes a body and its checksum into a packet of the pool.
fn sealed(socket: &SimUdp, body: &[u8]) -> Option<PacketBuf> {
    let mut packet = socket.pool().take()?;
    let length = body.len() + CHECKSUM_BYTES;
    let (place, sum) = packet.room_mut().get_mut(..length)?.split_at_mut(body.len());
    place.copy_from_slice(body);
    sum.copy_from_slice(&xxh3_64(body).to_le_bytes());
    packet.set_len(length);
    Some(packet)
}

/// What a packet brought, if it is as it was sent.
pub(super) fn opened(packet: &[u8]) -> Option<&[u8]> {
    let (body, sum) = packet.split_last_chunk::<CHECKSUM_BYTES>()?;
    let is_good = xxh3_64(body).to_le_bytes() == *sum;
    twinspan_core::sometimes!(!is_good, "a datagram was not as it was sent");
    is_good.then_some(body)
}

impl Wire for SimWire {
    fn now(&self) -> Timestamp {
        self.env.now()
    }

    fn is_full(&self) -> bool {
        self.out.len() + self.copies() > self.batch_size * self.copies()
    }

    fn waiting(&self) -> usize {
        self.out.len()
    }

    fn room(&mut self) -> &mut [u8] {
        &mut self.room
    }

    fn push(&mut self, to: SocketAddr, bytes: usize) {
        match self.group.take() {
            Some((group, members)) if group == to => {
                members.iter().for_each(|member| self.push_to(*member, bytes));
                self.group = Some((group, members));
            }
            group => {
                self.group = group;
                self.push_to(to, bytes);
            }
        }
    }

    fn send(&mut self) -> io::Result<bool> {
        let waker = self.bell.waker();
        let mut cx = Context::from_waker(&waker);
        while !self.out.is_empty() {
            match self.socket.poll_send(&mut cx, &mut self.out) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(io::Error::other(error)),
                Poll::Pending => return Ok(false),
            }
        }
        Ok(true)
    }

    fn receive(&mut self) -> io::Result<bool> {
        if !self.came.is_empty() {
            return Ok(true);
        }
        self.current = None;
        let waker = self.bell.waker();
        match self.socket.poll_recv(&mut Context::from_waker(&waker), &mut self.came) {
            Poll::Ready(Ok(count)) => Ok(count > 0),
            Poll::Ready(Err(error)) => Err(io::Error::other(error)),
            Poll::Pending => Ok(false),
        }
    }

    fn is_taken(&self) -> bool {
        self.came.is_empty()
    }

    fn may_wait(&mut self) -> io::Result<bool> {
        // It is told of everything: the road's task is woken.
        Ok(self.came.is_empty())
    }

    fn take_next(&mut self) -> Option<(SocketAddr, &[u8])> {
        self.current = None;
        if self.is_sealed {
            return self.take_sealed();
        }
        while let Some(datagram) = self.came.pop() {
            if opened(&datagram.packet).is_some() {
                self.current = Some(datagram);
                break;
            }
        }
        let datagram = self.current.as_ref()?;
        let (body, _) = datagram.packet.split_last_chunk::<CHECKSUM_BYTES>()?;
        Some((datagram.peer, body))
    }
}

impl SimWire {
    /// The next datagram as it came, or what somebody on the way says behind one.
    fn take_sealed(&mut self) -> Option<(SocketAddr, &[u8])> {
        // One word at most behind each that comes.
        if let Some(from) = self.speaks_for.take()
            && twinspan_core::buggify!("somebody on the way speaks")
        {
            twinspan_core::reachable!("a forged word was heard");
            let word = self.forger.forge(from);
            self.current = plain(&self.socket, &word).map(|packet| Datagram {
                peer: from,
                at: self.env.now(),
                packet,
            });
        }
        if self.current.is_none() {
            let datagram = self.came.pop()?;
            self.forger.see_come(datagram.peer, &datagram.packet);
            self.speaks_for = Some(datagram.peer);
            self.current = Some(datagram);
        }
        let datagram = self.current.as_ref()?;
        Some((datagram.peer, &datagram.packet))
    }
}

/// A hub on datagrams.
pub(crate) struct DatagramRoad {
    env: SimEnv,
    core: RefCell<Core<SimWire>>,
    bell: Rc<Bell>,
    chunks_max: usize,
    messages_max: u64,
    is_sealed: bool,
    is_over: Cell<bool>,
}

impl DatagramRoad {
    /// Whether its hub has ended, and nobody is looked for any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// Goes to a hub that was found.
    pub(super) fn go_to(&self, address: SocketAddr) {
        let mut core = self.core.borrow_mut();
        let is_called = core.node.call(self.env.now(), address);
        twinspan_core::always!(is_called, "there is room for all hubs that are found");
        core.transmit(self.env.now());
        drop(core);
        self.bell.ring();
    }

    /// Goes there no more.
    pub(super) fn hang_up(&self, address: SocketAddr) {
        self.core.borrow_mut().node.hang_up(address);
    }
}

/// Binds, however often that fails.
pub(super) async fn bind(env: &SimEnv, local: SocketAddr, pool_packets: usize) -> SimUdp {
    let options = UdpOptions { pool_packets, ..UdpOptions::default() };
    loop {
        if let Ok(socket) = env.bind_udp(local, &options).await {
            return socket;
        }
        sleep(env, RETRY).await;
    }
}

/// Opens a hub on datagrams, and the task that moves it on.
pub(crate) async fn open(env: &SimEnv, config: &HubConfig) -> (Rc<DatagramRoad>, SimTask) {
    let (local, side) = match config.end {
        End::Listen(local) => (local, NodeSide::Listen),
        End::Connect(to) => (SocketAddr::new(env.ip(), 0), NodeSide::Connect(to)),
        End::Group(local, group) => (local, NodeSide::Group(group)),
    };
    let group = match config.end {
        End::Group(_, group) => Some((group, config.members.clone())),
        _ => None,
    };
    // What goes to a group leaves as one datagram, which the network copies.
    let copies = config.members.len().max(1);
    let socket = bind(env, local, config.pool).await;
    let mut greeting = config.greeting.clone();
    let longest = greeting.message_bytes_max as usize;
    let packing = match config.end {
        End::Group(..) => None,
        _ => Packing::new(config.compression, None, || Duration::ZERO, longest).ok(),
    };
    if let Some(packing) = &packing {
        packing.greet(&mut greeting);
    }
    let node = NodeConfig {
        datagram_bytes_max: config.datagram_bytes,
        chunks_max: config.batch_size,
        depth: config.depth,
        overflow: if config.drops_oldest { Overflow::DropOldest } else { Overflow::DropNew },
        silence_max: config.datagram_silence,
        keepalive_interval: config.datagram_silence / 5,
        seal: config.seal.clone(),
        ..NodeConfig::new(greeting, side)
    };
    let bell = Rc::new(Bell::default());
    let limits = node.inbox_limits();
    let core = Core::new(CoreParts {
        inbox: Inbox::new(limits),
        node: Node::new(node, env.now(), &mut *env.secrets()),
        is_reliable: config.greeting.reliable,
        echo: None,
        batch_size: config.batch_size,
        flush_interval: FLUSH_INTERVAL,
        loss: None,
        packing,
        socket: SimWire {
            env: env.clone(),
            bell: Rc::clone(&bell),
            batch_size: config.batch_size,
            room: vec![0; config.datagram_bytes],
            out: DatagramBatch::new(config.batch_size * copies),
            came: DatagramBatch::new(config.batch_size),
            current: None,
            group,
            is_sealed: config.is_sealed,
            forger: Forger::default(),
            speaks_for: None,
            socket,
        },
    });
    let (chunks_max, messages_max) = (config.batch_size, limits.messages_max);
    let core = RefCell::new(core);
    let road = Rc::new(DatagramRoad {
        env: env.clone(),
        core,
        bell,
        chunks_max,
        messages_max,
        is_sealed: config.is_sealed,
        is_over: Cell::new(false),
    });
    let task = env.spawn("datagrams", drive(env.clone(), Rc::clone(&road)));
    (road, task)
}

/// What the road's own thread does.
async fn drive(env: SimEnv, road: Rc<DatagramRoad>) {
    let mut timer = env.timer();
    poll_fn(|cx| {
        road.bell.set(cx.waker());
        for _ in 0..TURNS_MAX {
            let mut core = road.core.borrow_mut();
            let mut due = env.now().after(LATE);
            if !twinspan_core::buggify!("a hub's thread comes late") {
                core.drive(true);
                if core.broken.is_some() {
                    return Poll::Ready(());
                }
                if !core.inbox.is_empty() {
                    core.wakers.wake();
                }
                due = core.node.poll_timeout().max(env.now().after(NAP_MIN));
            }
            timer.set((due != Timestamp::NEVER).then_some(due));
            if timer.poll_expired(cx).is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Road for DatagramRoad {
    fn publish(&self, bytes: &[u8], more: More) -> Option<u64> {
        let mut core = self.core.borrow_mut();
        let published = core.publish(bytes, more);
        if published == Err(Refusal::Full) {
            // As who waits for room does.
            core.drive(true);
            let now = core.socket.now();
            core.flush(now);
        }
        drop(core);
        self.bell.ring();
        published.ok()
    }

    fn flush(&self) {
        let mut core = self.core.borrow_mut();
        let now = core.socket.now();
        core.flush(now);
        drop(core);
        self.bell.ring();
    }

    fn take(&self, room: &mut Vec<u8>) -> Option<Message> {
        let taken = self.core.borrow_mut().take(room);
        self.bell.ring();
        taken.map(|it| Message { publisher: it.publisher, number: it.number, lost: it.lost })
    }

    fn wait(&self, waker: &Waker) {
        self.core.borrow_mut().wakers.leave(waker);
    }

    fn leave(&self) {
        self.flush();
    }

    fn has_left(&self) -> bool {
        !self.core.borrow().is_owed()
    }

    fn end(&self) {
        self.is_over.set(true);
        self.core.borrow_mut().close();
    }

    fn facts(&self) -> Facts {
        let core = self.core.borrow();
        let stats = core.node.stats();
        if self.is_sealed {
            twinspan_core::sometimes!(stats.unauthentic > 0, "what was sealed did not open");
        }
        let packed = core.compression().map_or(0, |stats| stats.packed);
        twinspan_core::sometimes!(packed > 0, "a message left packed in a datagram");
        let is_bounded = core.node.chunks_waiting() <= self.chunks_max + PIECES_PAST_MAX
            && core.node.subscribers() <= LINKS_MAX
            && core.node.unacknowledged() <= LINKS_MAX * CHUNKS_OF_A_LINK_MAX
            && core.inbox.messages()
                <= self.messages_max.saturating_add(MESSAGES_OF_A_DATAGRAM_MAX);
        Facts {
            ended: stats.ended + stats.left,
            refused: stats.refused,
            resumed: 0,
            is_bounded,
            packed,
        }
    }

    fn take_ends(&self) -> Vec<PairEnd> {
        self.core.borrow_mut().ends.take()
    }
}
