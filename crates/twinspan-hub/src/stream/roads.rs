//! A connector with several roads to one listener: one is used, the others are watched, and another
//! takes over where the chooser says so. To the topic that is another stream of the same peer.
//!
//! //= hub 16.4

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use twinspan_core::time::Timestamp;
use twinspan_topic::{Dialect, Offer, OfferedRoads, Probed, Prober, ProberConfig};

use super::chooser::{ChangeReason, Chooser};
use super::core::{Carrier, Seats};
use super::datagrams::DatagramCarrier;
use super::memory::{self, MemoryCarrier};
use super::node::Waited;
use super::open::Told;
use super::tcp::{self, TcpCarrier};
use crate::discover::Host;
use crate::effect::SettingReport;
use crate::error::BuildError;
use crate::measure::{at_port, probing_socket, secret};
use crate::quic::{self, Fingerprint, Stranger};
use crate::report::Transport;
use crate::road::RoadConfig;
use crate::select::{Facts, SameHost};

/// Changes that are kept until they are asked for; older ones are forgotten.
const CHANGES_MAX: usize = 64;
/// How often roads over datagrams are probed, and when a probe is lost.
const WATCH: ProberConfig = ProberConfig {
    interval: Duration::from_millis(250),
    answer_timeout: Duration::from_millis(500),
    count: None,
    dialect: Dialect::Hub,
};
/// QUIC is probed with long packets, and less often.
const WATCH_QUIC: ProberConfig = ProberConfig {
    interval: Duration::from_millis(500),
    answer_timeout: Duration::from_millis(500),
    count: None,
    dialect: Dialect::Quic,
};
/// How often the choice is looked at while something is due that cannot be done.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long each road is tried until somebody was met.
const TRY: Duration = Duration::from_secs(2);
/// Answers to probes that are taken in a row.
const ANSWERS_MAX: usize = 64;
/// What is known of memory that opens: nothing on the way there is ever lost.
const OPEN: Probed =
    Probed { settled: u32::MAX, lost: 0, rtt_min: None, rtt_median: None, offer: None };
/// The longest answer to a probe that is looked at.
const ANSWER_BYTES_MAX: usize = 1_500;

/// A hub went from one road to another.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RoadChange {
    /// The road that was left.
    pub from: Transport,
    /// The road that was taken.
    pub to: Transport,
    /// Why.
    pub why: ChangeReason,
    /// When, since the hub was built.
    pub at: Duration,
}

impl fmt::Display for RoadChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} to {}: {}", self.from, self.to, self.why)
    }
}

/// Probes of one road.
struct Watch {
    socket: UdpSocket,
    prober: Prober,
}

/// One road.
struct Way {
    road: Transport,
    /// Where it leads; `None` while that is not known.
    address: Option<SocketAddr>,
    watch: Option<Watch>,
}

/// A connector's roads.
pub(crate) struct Roads {
    epoll: Arc<OwnedFd>,
    config: RoadConfig,
    started: Instant,
    seat: usize,
    ways: Vec<Way>,
    chooser: Chooser,
    current: Option<Box<dyn Waited>>,
    /// What the present carrier goes to is no longer there.
    is_stale: bool,
    /// Nobody has answered yet: probes that are lost say nothing of the way.
    is_first: bool,
    /// When another road is tried, as long as nobody was met.
    try_at: Timestamp,
    last_peer: Option<[u8; 16]>,
    /// Who was met on QUIC in place of who is believed.
    stranger: Option<Stranger>,
    told: Option<Told>,
    changes: VecDeque<RoadChange>,
    now: Timestamp,
}

impl Roads {
    /// The roads of an order, the best first, to a listener at an address. The seat is the first.
    pub(crate) fn new(
        config: &RoadConfig,
        started: Instant,
        order: &[Transport],
        (facts, offer): (&Facts, Option<Offer>),
    ) -> Result<Self, BuildError> {
        let address = config.first_address()?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from);
        let mut roads = Self {
            epoll: Arc::new(epoll.map_err(BuildError::Os)?),
            config: config.clone(),
            started,
            seat: 0,
            ways: Vec::new(),
            chooser: Chooser::new(Timestamp::START, order.len(), 0),
            current: None,
            is_stale: false,
            is_first: ![facts.udp, facts.quic, facts.tcp].iter().flatten().any(Probed::is_there),
            try_at: Timestamp::START.after(TRY),
            last_peer: None,
            stranger: None,
            told: None,
            changes: VecDeque::new(),
            now: Timestamp::START,
        };
        for (index, road) in order.iter().enumerate() {
            // What is watched goes on from what was measured.
            if let Some(probed) = facts.of(*road).filter(|_| *road != Transport::Tcp) {
                roads.chooser.probed(roads.now, index, probed);
            }
            if *road == Transport::Tcp && !facts.tcp.as_ref().is_some_and(Probed::is_there) {
                roads.chooser.rest(roads.now, index);
            }
            if *road == Transport::SharedMemory {
                let is_here = facts.same_host == SameHost::Opens;
                // Asked for alone it is tried until somebody is there.
                roads.chooser.usable(index, is_here || order.len() == 1);
                if is_here {
                    roads.chooser.probed(roads.now, index, &OPEN);
                }
                roads.ways.push(Way { road: *road, address: Some(address), watch: None });
                continue;
            }
            let to = (*road != Transport::Quic).then_some(address);
            let mut way = Way { road: *road, address: to, watch: None };
            if *road == Transport::BatchUdp {
                way.watch = Some(roads.watch(address, WATCH)?);
            }
            roads.chooser.usable(index, to.is_some());
            roads.ways.push(way);
        }
        if let Some(offer) = offer {
            roads.learn(offer).map_err(BuildError::Os)?;
        }
        Ok(roads)
    }

    fn watch(&self, address: SocketAddr, config: ProberConfig) -> Result<Watch, BuildError> {
        let open = || {
            let socket = probing_socket(address)?;
            let data = epoll::EventData::new_u64(0);
            epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN)?;
            let prober = Prober::new(config, self.now, secret()?);
            Ok(Watch { socket, prober })
        };
        open().map_err(BuildError::Os)
    }

    /// The listener told which roads it has, and where its QUIC is.
    fn learn(&mut self, offer: Offer) -> io::Result<()> {
        let offers = |road| offer.roads.contain(road);
        // One that names no road at all speaks of none behind `hub://`: its TCP is as it was found.
        let has_tcp = offer.roads == OfferedRoads::default() || offers(OfferedRoads::TCP);
        let is_here = offers(OfferedRoads::MEMORY)
            && Host::own().is_some_and(|host| host.digest() == offer.host);
        for (index, way) in self.ways.iter().enumerate() {
            match way.road {
                Transport::SharedMemory => {
                    let was_here = self.chooser.is_usable(index);
                    let is_there = || way.address.is_some_and(memory::is_there);
                    let is_usable = is_here && (was_here || is_there());
                    self.chooser.usable(index, is_usable || self.ways.len() == 1);
                    if is_usable {
                        self.chooser.probed(self.now, index, &OPEN);
                    }
                }
                Transport::BatchUdp => self.chooser.usable(index, offers(OfferedRoads::UDP)),
                Transport::Tcp => self.chooser.usable(index, has_tcp),
                _ => {}
            }
        }
        let has_quic = offer.roads.contain(OfferedRoads::QUIC) && offer.quic_port != 0;
        let Some(at) = self.ways.iter().position(|way| way.road == Transport::Quic) else {
            return Ok(());
        };
        let listener = self.config.addresses.first().copied();
        let address = listener.filter(|_| has_quic).map(|it| at_port(it, offer.quic_port));
        if self.ways.get(at).is_some_and(|way| way.address == address) {
            return Ok(());
        }
        let watch = address.map(|address| self.watch(address, WATCH_QUIC)).transpose();
        let watch = watch.map_err(|error| io::Error::other(error.to_string()))?;
        if let Some(way) = self.ways.get_mut(at) {
            // What was measured before anything was known of its place was measured there.
            let is_elsewhere = way.address.is_some() && way.address != address;
            (way.address, way.watch) = (address, watch);
            if is_elsewhere {
                self.chooser.forget(at);
            }
        }
        self.chooser.usable(at, address.is_some());
        self.is_stale |= self.chooser.active() == at;
        Ok(())
    }

    /// The road that is used.
    pub(crate) fn road(&self) -> Option<Transport> {
        self.ways.get(self.chooser.active()).map(|way| way.road)
    }

    /// The certificate that was met on QUIC in place of the one that is believed.
    pub(crate) fn stranger(&self) -> Option<(SocketAddr, Fingerprint)> {
        let quic = self.ways.iter().find(|way| way.road == Transport::Quic)?;
        Some((quic.address?, self.stranger.as_ref()?.seen()?))
    }

    /// The oldest change that was not told.
    pub(crate) fn take_change(&mut self) -> Option<RoadChange> {
        self.changes.pop_front()
    }

    /// Sends probes that are due, and takes in answers.
    fn probe(&mut self) {
        let now = self.now;
        let (mut probe, mut answer) = (Vec::new(), [0; ANSWER_BYTES_MAX]);
        let mut offer = None;
        for (index, way) in self.ways.iter_mut().enumerate() {
            let Some(Watch { socket, prober }) = &mut way.watch else {
                continue;
            };
            let mut has_news = false;
            for _ in 0..ANSWERS_MAX {
                match socket.recv(&mut answer) {
                    Ok(count) => {
                        let bytes = answer.get(..count).unwrap_or_default();
                        has_news |= prober.handle_datagram(now, bytes);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // What the kernel says of a port where nobody is: the probe is lost.
                    Err(_) => {}
                }
            }
            if prober.poll_transmit(now, &mut probe) {
                has_news = true;
                // One that cannot be sent is lost, as one that nobody answers.
                let _ = socket.send(&probe);
            }
            if has_news {
                let probed = prober.probed(now);
                offer = offer.or(probed.offer);
                self.chooser.probed(now, index, &probed);
            }
        }
        if let Some(offer) = offer {
            // Without a socket for it QUIC stays unknown, and is asked for again.
            let _ = self.learn(offer);
        }
    }

    /// The carrier of a road.
    fn make(&mut self, index: usize) -> Result<Box<dyn Waited>, BuildError> {
        let way = self.ways.get(index);
        let Some((road, address)) = way.and_then(|way| Some((way.road, way.address?))) else {
            return Err(BuildError::Os(io::ErrorKind::AddrNotAvailable.into()));
        };
        let Self { config, started, seat, stranger, .. } = self;
        let mut carrier: Box<dyn Waited> = match road {
            Transport::SharedMemory => {
                Box::new(MemoryCarrier::calling(tcp::seed(config), *seat, address)?)
            }
            Transport::Tcp => {
                Box::new(TcpCarrier::calling(tcp::seed(config), *seat, vec![address])?)
            }
            Transport::Quic => {
                let place = (address, *seat);
                let trust = &config.quic.trust;
                let (carrier, met) = quic::calling(config, *started, place, trust)?;
                *stranger = Some(met);
                Box::new(carrier)
            }
            _ => Box::new(DatagramCarrier::calling(config.id, *seat, address, &config.net)?),
        };
        if let Some(id) = self.last_peer {
            carrier.set_last_peer(id);
        }
        Ok(carrier)
    }

    /// Takes the chosen road, in place of the one that there is. The old stream ends before the new one
    /// begins: what it brings in between would not be known to the new one's greeting.
    fn take(&mut self, seats: &mut Seats) {
        self.is_stale = false;
        if let Some(mut old) = self.current.take() {
            self.note(&*old);
            old.vacate(seats, self.seat);
            old.close();
            // One that cannot be taken out was never in.
            let _ = epoll::delete(&self.epoll, old.readiness());
        }
        // A road that cannot be opened is one without a stream, which is left again.
        let Ok(carrier) = self.make(self.chooser.active()) else {
            return;
        };
        let data = epoll::EventData::new_u64(0);
        if epoll::add(&self.epoll, carrier.readiness(), data, epoll::EventFlags::IN).is_ok() {
            self.current = Some(carrier);
        }
    }

    /// Remembers what a carrier learned.
    fn note(&mut self, carrier: &dyn Carrier) {
        self.last_peer = carrier.last_peer().or(self.last_peer);
        self.told = self.told.clone().or_else(|| carrier.told(self.seat));
    }

    /// The first was met who is there: what probes said before was said of nobody.
    fn watch_anew(&mut self) {
        self.is_first = false;
        for index in 0..self.ways.len() {
            let Some(way) = self.ways.get(index) else { return };
            let config = match way.road {
                Transport::BatchUdp => WATCH,
                Transport::Quic => WATCH_QUIC,
                _ => continue,
            };
            // Without another socket the old one goes on, and forgets by itself, only later.
            if let Some(address) = way.address
                && let Ok(watch) = self.watch(address, config)
                && let Some(way) = self.ways.get_mut(index)
            {
                way.watch = Some(watch);
                self.chooser.forget(index);
            }
        }
    }

    /// Tries one road after the other, as long as nobody was met.
    fn try_next(&mut self) {
        let count = self.ways.len();
        let next = (1..=count).map(|step| (self.chooser.active() + step) % count);
        if let Some(next) = next.into_iter().find(|index| self.chooser.is_usable(*index)) {
            self.is_stale |= next != self.chooser.active();
            self.chooser.restart(self.now, next);
        }
        self.try_at = self.now.after(TRY);
    }

    fn choose(&mut self, seats: &mut Seats) {
        let now = self.now;
        if self.last_peer.is_none() {
            // The listener may have told that it does not have the one that is tried.
            if now >= self.try_at || !self.chooser.is_usable(self.chooser.active()) {
                self.try_next();
            }
            if self.current.is_none() || self.is_stale {
                self.take(seats);
            }
            return;
        }
        let is_up = self.current.as_ref().is_some_and(|it| !it.is_silent(self.seat));
        self.chooser.stream(now, is_up);
        if let Some(change) = self.chooser.poll(now) {
            let of = |index: usize| self.ways.get(index).map(|way| way.road);
            if let (Some(from), Some(to)) = (of(change.from), of(change.to)) {
                if self.changes.len() >= CHANGES_MAX {
                    self.changes.pop_front();
                }
                let at = now.since(Timestamp::START);
                self.changes.push_back(RoadChange { from, to, why: change.why, at });
            }
            self.take(seats);
        } else if self.current.is_none() || self.is_stale {
            self.take(seats);
        }
    }
}

impl Carrier for Roads {
    fn look(&mut self, now: Timestamp, seats: &mut Seats) {
        self.now = now;
        if let Some(carrier) = &mut self.current {
            carrier.look(now, seats);
        }
    }

    fn turn(&mut self, now: Timestamp, seats: &mut Seats) {
        self.now = now;
        self.probe();
        self.choose(seats);
        if let Some(mut carrier) = self.current.take() {
            carrier.turn(now, seats);
            self.note(&*carrier);
            self.current = Some(carrier);
            if self.is_first && self.last_peer.is_some() {
                self.watch_anew();
            }
        }
    }

    fn pump(&mut self, now: Timestamp, seats: &mut Seats, seat: usize) {
        self.now = now;
        if let Some(carrier) = &mut self.current {
            carrier.pump(now, seats, seat);
        }
    }

    fn poll_timeout(&self) -> Timestamp {
        let current = self.current.as_ref().map_or(Timestamp::NEVER, |it| it.poll_timeout());
        let probes = self.ways.iter().filter_map(|way| way.watch.as_ref());
        let probes = probes.map(|watch| watch.prober.poll_timeout()).min();
        // What is due and cannot be done is looked at now and then.
        let choice = self.chooser.poll_timeout();
        let choice = if self.last_peer.is_none() { self.try_at } else { choice };
        let choice = choice.max(self.now.after(LOOK_EVERY));
        current.min(probes.unwrap_or(Timestamp::NEVER)).min(choice)
    }

    fn arm(&mut self) -> bool {
        self.current.as_mut().is_none_or(|it| it.arm())
    }

    fn urgent_at(&self) -> Timestamp {
        self.current.as_ref().map_or(Timestamp::NEVER, |it| it.urgent_at())
    }

    fn settings(&self) -> Vec<SettingReport> {
        self.current.as_ref().map_or_else(Vec::new, |it| it.settings())
    }

    fn is_silent(&self, seat: usize) -> bool {
        self.current.as_ref().is_none_or(|it| it.is_silent(seat))
    }

    fn vacate(&mut self, seats: &mut Seats, seat: usize) {
        if let Some(carrier) = &mut self.current {
            carrier.vacate(seats, seat);
        }
    }

    fn close(&mut self) {
        if let Some(carrier) = &mut self.current {
            carrier.close();
        }
        self.current = None;
        self.ways.clear();
    }

    fn told(&self, _seat: usize) -> Option<Told> {
        self.told.clone()
    }
}

impl Waited for Roads {
    fn readiness(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.epoll)
    }
}
