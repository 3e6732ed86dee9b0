//! The driver of roads made of streams, over simulated ones.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_provider::{NetworkProvider, TaskProvider, TcpOptions, TimeProvider, Timer};
use twinspan_sim::{SimEnv, SimTask};

use super::sockets::{SimSockets, Woken};
use super::{Bell, End, FLUSH_INTERVAL, Facts, HubConfig, LATE, Message, NAP_MIN, Road, TURNS_MAX};
use crate::compress::Packer;
use crate::ends::PairEnd;
use crate::road::More;
use crate::scenario::{RETRY, sleep};
use crate::stream::carrier::{Connector, StreamCarrier};
use crate::stream::core::{Carrier, Core, Gathering};
use crate::stream::link::Times;
use crate::stream::open::Told;
use crate::stream::topic::{PEERS_MAX, Topic, TopicConfig};

/// A carrier on one host, and the topics that it carries.
pub(crate) struct Streams<S: Woken> {
    env: SimEnv,
    core: RefCell<Core<StreamCarrier<S>>>,
    bell: Rc<Bell>,
}

impl<S: Woken + 'static> Streams<S> {
    /// With the task that does what the road's own thread does.
    pub(super) fn start(env: &SimEnv, sockets: S, seed: u64) -> (Rc<Self>, SimTask) {
        let bell = Rc::clone(sockets.bell());
        let core = RefCell::new(Core::new(StreamCarrier::new(sockets, seed)));
        let streams = Rc::new(Self { env: env.clone(), core, bell });
        let task = env.spawn("streams", drive(Rc::clone(&streams)));
        (streams, task)
    }

    /// A hub joins; `None` where all others have left, or no such topic can be.
    pub(crate) fn join(self: &Rc<Self>, config: &HubConfig) -> Option<Rc<dyn Road>> {
        let topic = topic(config)?;
        let seat = {
            let mut core = self.core.borrow_mut();
            let seat = core.join(topic, None).ok()?;
            if let End::Connect(to) = config.end {
                core.carrier.connector = Some(Connector::new(seat, vec![to]));
            }
            seat
        };
        self.bell.ring();
        let gathering = Gathering {
            batch_size: u32::try_from(config.batch_size).unwrap_or(u32::MAX),
            flush_interval: FLUSH_INTERVAL,
        };
        Some(Rc::new(Joined {
            streams: Rc::clone(self),
            seat,
            gathering,
            waiting_max: PEERS_MAX * config.depth as usize,
            last: Cell::new(Facts { is_bounded: true, ..Facts::default() }),
            ends: RefCell::default(),
        }))
    }
}

/// Opens streams over TCP on a host, at a port or to go to others.
pub(crate) async fn open(
    env: &SimEnv,
    local: Option<SocketAddr>,
    seed: u64,
) -> (Rc<Streams<SimSockets>>, SimTask) {
    let mut listener = None;
    while let (Some(local), None) = (local, &listener) {
        let options = TcpOptions { backlog: 128, ..TcpOptions::default() };
        match env.listen(local, &options).await {
            Ok(made) => listener = Some(made),
            Err(_) => sleep(env, RETRY).await,
        }
    }
    Streams::start(env, SimSockets::new(env, listener, Rc::new(Bell::default())), seed)
}

fn topic(config: &HubConfig) -> Option<Topic> {
    let greeting = config.greeting.clone();
    let packer = Packer::new(config.compression, None, || Duration::ZERO).ok()?;
    let topic = TopicConfig {
        publishes: true,
        receives: true,
        is_reliable: greeting.reliable,
        message_bytes_max: greeting.message_bytes_max as usize,
        depth: config.depth,
        history: greeting.history,
        linger: Duration::ZERO,
        times: Times {
            keepalive_interval: config.stream_silence / 3,
            silence_max: config.stream_silence,
            resume_timeout: config.resume_timeout,
        },
        greeting,
    };
    Some(Topic::new(topic, packer, None))
}

async fn drive<S: Woken + 'static>(streams: Rc<Streams<S>>) {
    let env = &streams.env;
    let mut timer = env.timer();
    poll_fn(|cx| -> Poll<()> {
        streams.bell.set(cx.waker());
        for _ in 0..TURNS_MAX {
            let mut core = streams.core.borrow_mut();
            let mut due = env.now().after(LATE);
            if !twinspan_core::buggify!("a hub's thread comes late") {
                core.turn(env.now());
                if core.carrier.sockets.take_progress() {
                    // Where something was found there may be more.
                    continue;
                }
                due = core.poll_timeout().max(env.now().after(NAP_MIN));
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

/// One hub's part.
struct Joined<S: Woken> {
    streams: Rc<Streams<S>>,
    seat: usize,
    gathering: Gathering,
    waiting_max: usize,
    /// What it was like when it was there last, and ends that nobody had asked for then.
    last: Cell<Facts>,
    ends: RefCell<Vec<PairEnd>>,
}

impl<S: Woken + 'static> Road for Joined<S> {
    fn publish(&self, bytes: &[u8], more: More) -> Option<u64> {
        let now = self.streams.env.now();
        let mut core = self.streams.core.borrow_mut();
        let published = core.publish(self.seat, bytes)?.ok();
        if published.is_some() {
            core.settle(|| now, self.seat, (now, bytes.len(), more), self.gathering);
        } else {
            // As who waits for room does.
            core.flush(now, self.seat);
            core.turn(now);
        }
        drop(core);
        self.streams.bell.ring();
        published
    }

    fn flush(&self) {
        self.streams.core.borrow_mut().flush_late(self.streams.env.now());
        self.streams.bell.ring();
    }

    fn take(&self, room: &mut Vec<u8>) -> Option<Message> {
        let env = &self.streams.env;
        let (taken, _) = self.streams.core.borrow_mut().take(|| env.now(), self.seat, room);
        self.streams.bell.ring();
        taken.map(|it| Message { publisher: it.publisher, number: it.number, lost: it.lost })
    }

    fn wait(&self, waker: &Waker) {
        if let Some(seat) = self.streams.core.borrow_mut().seats.get(self.seat) {
            seat.leave(waker);
        }
    }

    fn leave(&self) {
        self.streams.core.borrow_mut().leave(self.streams.env.now(), self.seat);
        self.streams.bell.ring();
    }

    fn has_left(&self) -> bool {
        self.streams.core.borrow_mut().has_left(self.seat)
    }

    fn end(&self) {
        self.facts();
        let ends = self.take_ends();
        self.ends.replace(ends);
        self.streams.core.borrow_mut().vacate(self.seat);
    }

    fn facts(&self) -> Facts {
        let mut core = self.streams.core.borrow_mut();
        let told = core.carrier.told(self.seat);
        let is_refused = matches!(told, Some(Told::Refused(_) | Told::Disagrees(_)));
        let Some(topic) = core.seats.topic(self.seat) else { return self.last.get() };
        let stats = topic.stats();
        let facts = Facts {
            ended: stats.ended,
            refused: u64::from(is_refused),
            resumed: stats.resumed,
            is_bounded: topic.waiting() <= self.waiting_max,
            packed: topic.compression().packed,
        };
        self.last.set(facts);
        facts
    }

    fn take_ends(&self) -> Vec<PairEnd> {
        let mut core = self.streams.core.borrow_mut();
        let mut ends = self.ends.take();
        if let Some(topic) = core.seats.topic(self.seat) {
            ends.extend(topic.take_ends());
        }
        ends
    }
}
