//! The scenario `hub` for the simulator: hubs on several hosts publish and receive on every road over a
//! network, while all of it goes wrong.
//!
//! The drivers and machines are those of production: the UDP road's `udp::core` over a simulated
//! socket, `stream::core` and `stream::carrier` over simulated TCP, and over a simulated QUIC, whose
//! streams share a connection over datagrams. What is left out are threads and the waits between them.
//!
//! Some topics on datagrams are sealed, while somebody on the way speaks in others' names; some are
//! groups; and on some the hubs find each other by announcements, in spite of liars.
//!
//! Promises: a subscriber takes each message of a publisher once, in order and as it was published; on a
//! reliable topic it misses none, unless both ends saw their link end; on others what it missed is
//! counted exactly. Queues keep their limits. Once faults are healed everybody hears everybody again.

mod ledger;
mod road;
mod shape;
mod user;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::link::{FaultFamily, FaultKind};
use twinspan_provider::{TaskProvider, TimeProvider, Timer};
use twinspan_sim::scenario::{BOARD_KINDS, Hosted, Running, VAULT_KINDS, planned_kinds};
use twinspan_sim::swarm::Options;
use twinspan_sim::{Sim, SimConfig, SimEnv, SimTask, Start};

use self::ledger::Truth;
use self::road::{
    Doors, End, Endpoint, HubConfig, Road, announce, lie, open_datagrams, open_streams,
};
use self::shape::{Meeting, RoadKind, Shape};

/// How long who failed waits before it tries again.
const RETRY: Duration = Duration::from_millis(50);
/// How long a hub that is asked to stop waits until the others have what it published.
const LINGER: Duration = Duration::from_secs(1);
/// The port of a stranger in a group, and the address of groups.
const STRANGER_PORT: u16 = 9_900;
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
/// The port of the first topic on datagrams; that of streams, and that of QUIC, which topics share.
const DATAGRAM_PORT: u16 = 9_000;
const STREAM_PORT: u16 = 8_000;
const QUIC_PORT: u16 = 7_000;

/// The scenario.
#[derive(Clone, Copy, Debug)]
pub struct PlannedHub;

impl Hosted for PlannedHub {
    fn name(&self) -> &'static str {
        "hub"
    }

    /// What befalls datagrams, links, streams in pieces and in segments, hosts and their clocks. Hubs
    /// look names up once, before there is a machine, and nobody here has a disk, a box or a proxy. Runs
    /// that a kernel refuses are those of `echo`.
    fn kinds(&self) -> Vec<FaultKind> {
        use FaultKind as K;
        let is_of_segments = |kind: &FaultKind| {
            matches!(
                kind,
                K::SegmentLoss | K::SegmentDuplicate | K::SegmentReorder | K::SegmentDamage
            )
        };
        let others = VAULT_KINDS.iter().chain(BOARD_KINDS);
        let mut without: Vec<_> = others.filter(|kind| !is_of_segments(kind)).copied().collect();
        without.extend([K::Rekey, K::RunRefused]);
        let mut kinds = planned_kinds(&without);
        kinds.retain(|kind| kind.family() != FaultFamily::Name);
        kinds
    }

    fn marks(&self) -> &'static [&'static str] {
        &[
            "a datagram was not as it was sent",
            "a gap was counted exactly",
            "a gap of a group was counted exactly",
            "hubs found each other by announcements",
            "a place was visited once more",
            "too many waited at a door",
            "a liar at a door was not heard",
            "a hub of another user was not heard",
            "a forged word was heard",
            "what was sealed did not open",
            "a hub without the key was refused",
            "the keys of a link changed",
            "a late one got history",
            "a link went on where one had broken",
            "a hub of another type was refused",
            "a hub left in good order",
            "a connection of streams was lost",
            "a message left packed",
            "a message left packed in a datagram",
            "a reliable topic had an end that both sides named",
            "accepting failed for a while",
            "publishing found no room",
        ]
    }

    fn config(&self, options: &Options) -> SimConfig {
        shape::simulation(options)
    }

    fn fault_time(&self) -> Duration {
        Duration::from_secs(4)
    }

    fn settle_time(&self) -> Duration {
        Duration::from_secs(120)
    }

    fn start(&self, sim: &mut Sim, options: &Options) -> Box<dyn Running> {
        let shape = Rc::new(Shape::of(options));
        let truth = Rc::new(RefCell::new(Truth::new(shape.promises())));
        let doors = Rc::new(RefCell::new(Doors::default()));
        for host in 0..shape.hosts {
            let (shape, truth) = (Rc::clone(&shape), Rc::clone(&truth));
            let doors = Rc::clone(&doors);
            sim.boot("hub", ip(host), move |env, start| {
                if matches!(start, Start::Empty | Start::Old) {
                    truth.borrow_mut().forget(host, start == Start::Old);
                }
                let place = Place {
                    env: env.clone(),
                    shape: Rc::clone(&shape),
                    truth: Rc::clone(&truth),
                    doors: Rc::clone(&doors),
                    host,
                };
                vec![env.spawn("host", place.live(start))]
            });
        }
        Box::new(Talking { pairs: shape.pairs(), shape, truth })
    }
}

/// The address of a host; there are four at most.
fn ip(host: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1 + host as u8))
}

/// Where a host's hub of a topic on datagrams is.
fn datagram_address(host: usize, topic: usize) -> SocketAddr {
    SocketAddr::new(ip(host), DATAGRAM_PORT + topic as u16)
}

/// Waits.
async fn sleep(env: &SimEnv, duration: Duration) {
    let mut timer = env.timer();
    timer.set(Some(env.now().after(duration)));
    poll_fn(|cx| timer.poll_expired(cx)).await;
}

/// One hub and its user.
struct Hub {
    road: Rc<dyn Road>,
    /// The number that stands for it as a publisher.
    publisher: u64,
    topic: usize,
    /// It carries another type than the others, or has not their key: they must refuse it.
    is_stranger: bool,
    /// It is no stranger by its key.
    has_right_key: bool,
    is_stopping: Cell<bool>,
}

/// One start of one host.
struct Place {
    env: SimEnv,
    shape: Rc<Shape>,
    truth: Rc<RefCell<Truth>>,
    /// The sockets by which hubs find each other.
    doors: Rc<RefCell<Doors>>,
    host: usize,
}

/// What a host's hubs are opened with.
struct Opened {
    hubs: Vec<Rc<Hub>>,
    tasks: Vec<SimTask>,
}

impl Place {
    /// All that a host does from its start to its end.
    async fn live(self, start: Start) {
        if start == Start::First {
            sleep(&self.env, self.shape.start_of(self.host)).await;
        }
        let Opened { hubs, mut tasks } = self.open().await;
        for hub in &hubs {
            tasks.extend(user::spawn(&self.env, &self.shape, &self.truth, self.host, hub));
        }
        self.env.asked_to_stop().await;
        self.leave(&hubs).await;
        // The goodbyes are on their way; what is left of the host's time is nobody's.
        poll_fn(|_| std::task::Poll::<()>::Pending).await;
        drop(tasks);
    }

    /// Leaves all topics in good order.
    async fn leave(&self, hubs: &[Rc<Hub>]) {
        for hub in hubs {
            hub.is_stopping.set(true);
            hub.road.leave();
        }
        let until = self.env.now().after(LINGER);
        while self.env.now() < until && !hubs.iter().all(|hub| hub.road.has_left()) {
            sleep(&self.env, Duration::from_millis(5)).await;
        }
        for hub in hubs {
            let has_left = hub.road.has_left();
            twinspan_core::sometimes!(has_left, "a hub left in good order");
            hub.road.end();
            user::look(hub);
            self.truth.borrow_mut().end(hub.publisher);
        }
    }

    /// Opens the hubs of all topics, and what they share.
    async fn open(&self) -> Opened {
        let mut opened = Opened { hubs: Vec::new(), tasks: Vec::new() };
        for topic in 0..self.shape.topics.len() {
            if self.shape.kind_of(topic) == RoadKind::Datagrams {
                self.open_datagrams(&mut opened, topic).await;
            }
        }
        self.open_streams(&mut opened).await;
        self.open_quic(&mut opened).await;
        if self.shape.has_stranger && self.host + 1 == self.shape.hosts {
            self.open_stranger(&mut opened).await;
        }
        opened
    }

    async fn open_datagrams(&self, opened: &mut Opened, topic: usize) {
        let config = self.config(topic, false);
        let (road, task) = open_datagrams(&self.env, &config).await;
        opened.tasks.push(task);
        if self.shape.meeting_of(topic) == Meeting::Found {
            let place = (topic, datagram_address(self.host, topic));
            opened.tasks.push(announce(&self.env, &self.doors, place, &config, &road));
            if self.shape.has_liar && self.host == 0 {
                opened.tasks.push(lie(&self.env, &self.doors, topic, &config.greeting));
            }
        }
        self.add(opened, topic, &config, Some(road as Rc<dyn Road>), false);
    }

    async fn open_streams(&self, opened: &mut Opened) {
        let of_kind = |topic: &usize| self.shape.kind_of(*topic) == RoadKind::Streams;
        let topics: Vec<_> = (0..self.shape.topics.len()).filter(of_kind).collect();
        let seed = self.env.now().as_nanos();
        if topics.iter().any(|topic| self.shape.listener_of(*topic) == self.host) {
            let local = SocketAddr::new(self.env.ip(), STREAM_PORT);
            let (shared, task) = open_streams(&self.env, Some(local), seed).await;
            opened.tasks.push(task);
            for topic in &topics {
                if self.shape.listener_of(*topic) == self.host {
                    let config = self.config(*topic, false);
                    self.add(opened, *topic, &config, shared.join(&config), false);
                }
            }
        }
        for topic in topics {
            if self.shape.listener_of(topic) != self.host {
                let config = self.config(topic, false);
                let (own, task) = open_streams(&self.env, None, seed).await;
                opened.tasks.push(task);
                self.add(opened, topic, &config, own.join(&config), false);
            }
        }
    }

    async fn open_quic(&self, opened: &mut Opened) {
        let of_kind = |topic: &usize| self.shape.kind_of(*topic) == RoadKind::Quic;
        let topics: Vec<_> = (0..self.shape.topics.len()).filter(of_kind).collect();
        let seed = self.env.now().as_nanos();
        for listener in 0..self.shape.hosts {
            let at = |topic: &&usize| self.shape.listener_of(**topic) == listener;
            let topics: Vec<_> = topics.iter().filter(at).copied().collect();
            let Some(first) = topics.first() else { continue };
            let (is_here, there) =
                (listener == self.host, SocketAddr::new(ip(listener), QUIC_PORT));
            let local = if is_here { there } else { SocketAddr::new(self.env.ip(), 0) };
            let ends = (local, (!is_here).then_some(there));
            let config = self.config(*first, false);
            let (endpoint, task) = Endpoint::open(&self.env, ends, &config).await;
            opened.tasks.push(task);
            let mut shared = None;
            for topic in topics {
                let config = self.config(topic, false);
                // A listener's topics share what carries their streams, others a connection alone.
                let streams = match shared.take() {
                    Some(streams) => streams,
                    None => {
                        let (streams, task) = endpoint.streams(seed);
                        opened.tasks.push(task);
                        streams
                    }
                };
                self.add(opened, topic, &config, streams.join(&config), false);
                if is_here {
                    shared = Some(streams);
                }
            }
        }
    }

    /// A hub of another type at the first topic, which everybody must refuse.
    async fn open_stranger(&self, opened: &mut Opened) {
        let config = self.config(0, true);
        let road = match self.shape.kind_of(0) {
            RoadKind::Datagrams => {
                let (road, task) = open_datagrams(&self.env, &config).await;
                opened.tasks.push(task);
                Some(road as Rc<dyn Road>)
            }
            RoadKind::Streams => {
                let (own, task) = open_streams(&self.env, None, 1).await;
                opened.tasks.push(task);
                own.join(&config)
            }
            RoadKind::Quic => None,
        };
        let is_group = self.shape.meeting_of(0) == Meeting::Group;
        if road.is_some() && (is_group || self.shape.listener_of(0) != self.host) {
            self.add(opened, 0, &config, road, true);
        }
    }

    fn add(
        &self,
        opened: &mut Opened,
        topic: usize,
        config: &HubConfig,
        road: Option<Rc<dyn Road>>,
        is_stranger: bool,
    ) {
        let Some(road) = road else {
            let line = format!("host {} could not join topic {topic}", self.host);
            return self.truth.borrow_mut().break_promise(line);
        };
        let publisher = twinspan_topic::publisher_of(config.greeting.id);
        if !is_stranger {
            self.truth.borrow_mut().begin(publisher, topic, self.host, &road);
        }
        let is_stopping = Cell::new(false);
        let has_right_key = config.greeting.identity.version == 1;
        let hub = Hub { road, publisher, topic, is_stranger, has_right_key, is_stopping };
        opened.hubs.push(Rc::new(hub));
    }

    fn config(&self, topic: usize, is_stranger: bool) -> HubConfig {
        let listener = self.shape.listener_of(topic);
        let at = match self.shape.kind_of(topic) {
            RoadKind::Datagrams => datagram_address(listener, topic),
            RoadKind::Streams => SocketAddr::new(ip(listener), STREAM_PORT),
            RoadKind::Quic => SocketAddr::new(ip(listener), QUIC_PORT),
        };
        let mut members = Vec::new();
        let end = match self.shape.meeting_of(topic) {
            Meeting::Listener if listener == self.host && !is_stranger => End::Listen(at),
            Meeting::Found if !is_stranger => End::Listen(datagram_address(self.host, topic)),
            Meeting::Listener | Meeting::Found => End::Connect(at),
            Meeting::Group => {
                // A stranger is beside a hub of its host, where no two have one port.
                let strange = SocketAddr::new(ip(self.shape.hosts - 1), STRANGER_PORT);
                let hosts = 0..self.shape.hosts;
                members.extend(hosts.map(|host| datagram_address(host, topic)));
                members.extend((self.shape.has_stranger && topic == 0).then_some(strange));
                let own = if is_stranger { strange } else { datagram_address(self.host, topic) };
                End::Group(own, SocketAddr::new(GROUP.into(), DATAGRAM_PORT + topic as u16))
            }
        };
        self.shape.hub(&self.env, (topic, is_stranger), (end, members))
    }
}

/// The scenario in progress.
struct Talking {
    shape: Rc<Shape>,
    truth: Rc<RefCell<Truth>>,
    /// Topic, publishing host, receiving host: who hears whom.
    pairs: Vec<(usize, usize, usize)>,
}

impl Running for Talking {
    fn is_settled(&self) -> bool {
        self.truth.borrow().is_settled(&self.pairs, self.shape.messages)
    }

    fn unsettled(&self) -> String {
        self.truth.borrow().unsettled(&self.pairs, self.shape.messages)
    }

    fn broken(&self) -> Vec<String> {
        self.truth.borrow().broken()
    }

    fn states(&self) -> Vec<(IpAddr, String)> {
        let truth = self.truth.borrow();
        (0..self.shape.hosts).map(|host| (ip(host), truth.state(host))).collect()
    }
}
