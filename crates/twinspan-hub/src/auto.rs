//! `hub://`: the listener has several roads, and who connects takes the best, leaves a bad one and takes
//! it again.
//!
//! //= hub 16.1

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use twinspan_net::lock;
use twinspan_topic::{Offer, OfferedRoads, Probed};

use crate::compress::CompressionStats;
use crate::discover::Host;
use crate::effect::SettingReport;
use crate::error::BuildError;
use crate::measure::{at_port, measure};
use crate::quic;
use crate::report::Transport;
use crate::road::{Opened, Peers, RoadConfig, Side};
use crate::seal::Declined;
use crate::select::{AddressClass, Facts, SameHost, SelectError, Selected, select};
use crate::stream::core::Carrier;
use crate::stream::datagrams::DatagramCarrier;
use crate::stream::memory::{self, MemoryCarrier};
use crate::stream::mix::Mix;
use crate::stream::node::{Member, Node, Waited};
use crate::stream::open::{self, ANSWER_TIMEOUT, Datagrams};
use crate::stream::roads::{RoadChange, Roads};
use crate::stream::tcp::{self, TcpCarrier};

/// The roads that an endpoint has, the best first for a near network. Memory is one for who is on the
/// listener's machine.
const ROADS: [Transport; 4] =
    [Transport::SharedMemory, Transport::BatchUdp, Transport::Quic, Transport::Tcp];

/// What was chosen, and the road to it.
pub(crate) struct Chosen {
    pub(crate) road: Transport,
    pub(crate) reason: String,
    pub(crate) opened: Opened,
}

/// Opens an endpoint whose road is chosen; `asked` is the one that may be taken alone.
pub(crate) fn open(config: &RoadConfig, asked: Option<Transport>) -> Result<Chosen, BuildError> {
    match config.side {
        Side::Listen => listen(config, asked),
        Side::Connect => connect(config, asked),
    }
}

/// Listeners of this process, which several topics share: where, and which road was asked for.
type Listener = ((SocketAddr, Option<Transport>), Weak<Node<Mix>>);

static LISTENERS: Mutex<Vec<Listener>> = Mutex::new(Vec::new());

fn listen(config: &RoadConfig, asked: Option<Transport>) -> Result<Chosen, BuildError> {
    let mut topic = open::topic(config)?;
    let (started, mut address) = (Instant::now(), config.first_address()?);
    let has = |road| asked.is_none_or(|asked| asked == road);
    let (road, reason) = match asked {
        Some(road) => (road, "it was asked for".to_owned()),
        None => (
            Transport::BatchUdp,
            "who connects takes shared memory on this machine, else the best of UDP, QUIC and TCP, and \
             this one where it can"
                .to_owned(),
        ),
    };
    let by = over_datagrams(has(Transport::BatchUdp));
    let mut listeners = lock(&LISTENERS);
    listeners.retain(|(_, node)| node.strong_count() > 0);
    let known =
        listeners.iter().find(|(known, _)| *known == (address, asked) && address.port() != 0);
    if let Some(node) = known.and_then(|(_, node)| node.upgrade()) {
        match open::share(config, &node, address, topic)? {
            Ok(member) => {
                let notes =
                    vec![format!("it shares the listener at {address}, and its certificate")];
                return Ok(Chosen {
                    road,
                    reason,
                    opened: open::opened_by(config, &member, notes, by),
                });
            }
            // It was left by its last topic just now: its port is free.
            Err(back) => topic = back,
        }
    }
    let mut carriers: Vec<Box<dyn Waited>> = Vec::new();
    let (mut notes, mut offer) = (Vec::new(), Offer::NONE);
    offer.host = Host::own().map_or([0; 16], |host| host.digest());
    if has(Transport::Tcp) {
        let (carrier, bound) = TcpCarrier::listening(tcp::seed(config), address)?;
        address = bound;
        carriers.push(Box::new(carrier));
        offer.roads = offer.roads.and(OfferedRoads::TCP);
        notes.push(format!("it listens at {bound} for TCP"));
    }
    // Whoever asks learns by this one where the others are.
    if has(Transport::BatchUdp) {
        offer.roads = offer.roads.and(OfferedRoads::UDP);
    }
    let opened = DatagramCarrier::listening(config.id, address, &config.net, offer)?;
    let (mut datagrams, bound) = opened;
    if has(Transport::Quic) {
        let quic::Listening { carrier, bound, fingerprint, apart } =
            quic::listening(config, started, Some(bound))?;
        carriers.push(Box::new(carrier));
        offer.roads = offer.roads.and(OfferedRoads::QUIC);
        offer.quic_port = bound.port();
        datagrams.set_offer(offer);
        notes.push(format!("it listens at {bound} for QUIC"));
        notes.extend(apart.map(|why| {
            format!(
                "QUIC does not share the port of UDP, so let this one through firewalls too: {why}"
            )
        }));
        notes.extend(fingerprint.map(|it| format!("its certificate has the fingerprint {it}")));
    }
    if has(Transport::SharedMemory) {
        match MemoryCarrier::listening(tcp::seed(config), bound) {
            Ok(carrier) => {
                carriers.push(Box::new(carrier));
                offer.roads = offer.roads.and(OfferedRoads::MEMORY);
                datagrams.set_offer(offer);
                notes.push("this user's hubs on this machine take shared memory".to_owned());
            }
            // Somebody else has the name: nobody is kept from the other roads by that.
            Err(why) if asked.is_none() => {
                notes.push(format!("nobody is let in by shared memory: {why}"));
            }
            Err(source) => return Err(BuildError::Bind { address: bound, source }),
        }
    }
    carriers.push(Box::new(datagrams));
    notes.push(if has(Transport::BatchUdp) {
        format!("it listens at {bound} for UDP, and answers probes")
    } else {
        format!("it answers probes at {bound}, and lets nobody in by UDP")
    });
    let mut mix = Mix::new().map_err(BuildError::Os)?;
    for carrier in carriers {
        mix.add(carrier).map_err(BuildError::Os)?;
    }
    let node = Node::start(mix, started, config.net.flush_interval, config.net.core)
        .map_err(BuildError::Os)?;
    let member = member_of(&node, topic)?;
    let key = (bound, asked);
    listeners.retain(|(known, _)| *known != key);
    listeners.push((key, Arc::downgrade(&node)));
    Ok(Chosen { road, reason, opened: open::opened_by(config, &member, notes, by) })
}

const fn over_datagrams(are_possible: bool) -> Datagrams {
    if are_possible { Datagrams::Possible } else { Datagrams::Never }
}

fn member_of<C: Waited>(
    node: &Arc<Node<C>>,
    topic: crate::stream::topic::Topic,
) -> Result<Arc<Member<C>>, BuildError> {
    let joined = node.join(topic).map_err(BuildError::Os)?;
    joined.map_err(|_| BuildError::Os(io::ErrorKind::NotConnected.into()))
}

/// Finds out what there is to know of a listener.
pub(crate) fn facts(address: SocketAddr) -> Result<(Facts, Option<Offer>), BuildError> {
    let probe = |road, address| measure(road, address).map_err(BuildError::Os);
    let udp = probe(Transport::BatchUdp, address)?;
    let offer = udp.offer;
    let quic_port = offer.map(|offer| offer.quic_port).filter(|port| *port != 0);
    let quic = quic_port.map(|port| at_port(address, port));
    let quic = quic.map(|address| probe(Transport::Quic, address)).transpose()?;
    let tcp = probe(Transport::Tcp, address)?;
    let own = Host::own().map(|host| host.digest());
    let same_host = match offer.map(|offer| offer.host).filter(|host| *host != [0; 16]) {
        None => SameHost::Unknown,
        Some(host) if Some(host) == own => {
            let is_offered = offer.is_some_and(|it| it.roads.contain(OfferedRoads::MEMORY));
            match is_offered.then(|| memory::opens(address)) {
                Some(Ok(())) => SameHost::Opens,
                Some(Err(why)) => SameHost::Closed(why.to_string()),
                None => SameHost::Closed("its listener does not offer it".to_owned()),
            }
        }
        Some(_) => SameHost::No,
    };
    // One that answers probes alone has no road over datagrams.
    let has_udp = offer.is_none_or(|offer| offer.roads.contain(OfferedRoads::UDP));
    let udp = has_udp.then_some(udp);
    let class = AddressClass::of(address.ip());
    Ok((Facts { class, same_host, udp, quic, tcp: Some(tcp) }, offer))
}

/// The order of roads, and why; where nobody answers yet, the one that the address suggests.
pub(crate) fn choose(
    asked: Option<Transport>,
    address: SocketAddr,
    facts: &Facts,
) -> Result<Selected, BuildError> {
    let is_there = [facts.udp, facts.quic, facts.tcp].iter().flatten().any(Probed::is_there);
    let mut selected = match select(asked, facts) {
        Ok(selected) => selected,
        Err(SelectError::Asked(road, why)) if is_there => {
            return Err(BuildError::Impossible { road, address, why });
        }
        Err(_) => {
            let guess = asked.unwrap_or_else(|| AddressClass::of(address.ip()).guess());
            let reasons = vec![format!(
                "nobody answers at {address} yet, and {} suggests {guess}",
                AddressClass::of(address.ip())
            )];
            Selected { road: guess, order: vec![guess], reasons }
        }
    };
    if asked.is_none() {
        // What does not answer now may do so later, and memory is the best there is wherever it opens.
        let rest = ROADS.into_iter().filter(|road| !selected.order.contains(road));
        let (memory, rest): (Vec<_>, Vec<_>) =
            rest.partition(|road| *road == Transport::SharedMemory);
        selected.order.splice(0..0, memory);
        selected.order.extend(rest);
    }
    Ok(selected)
}

fn connect(config: &RoadConfig, asked: Option<Transport>) -> Result<Chosen, BuildError> {
    let topic = open::topic(config)?;
    let (started, address) = (Instant::now(), config.first_address()?);
    let (facts, offer) = facts(address)?;
    let Selected { road, order, reasons } = choose(asked, address, &facts)?;
    let roads = Roads::new(config, started, &order, (&facts, offer))?;
    let node = Node::start(roads, started, config.net.flush_interval, config.net.core)
        .map_err(BuildError::Os)?;
    let member = member_of(&node, topic)?;
    let seat = member.seat();
    node.drive_until(ANSWER_TIMEOUT, |roads| {
        roads.carrier.told(seat).is_some() || roads.carrier.stranger().is_some()
    });
    let (told, stranger) = node.with(|_, roads, _| (roads.told(seat), roads.stranger()));
    if let Some((address, seen)) = stranger {
        return Err(BuildError::Stranger { address, seen });
    }
    let mut notes = vec![open::judge(config, address, told)?];
    let rest: Vec<String> = order.iter().skip(1).map(ToString::to_string).collect();
    if !rest.is_empty() {
        notes.push(format!("should it grow bad, these are tried: {}", rest.join(", ")));
    }
    let by = over_datagrams(order.contains(&Transport::BatchUdp));
    let mut opened = open::opened_by(config, &member, notes, by);
    opened.peers = Arc::new(Changing { inner: opened.peers, node });
    Ok(Chosen { road, reason: reasons.join("; "), opened })
}

/// The peers of a hub whose road may change.
struct Changing {
    inner: Arc<dyn Peers>,
    node: Arc<Node<Roads>>,
}

impl Peers for Changing {
    fn subscribers(&self) -> usize {
        self.inner.subscribers()
    }

    fn publishers(&self) -> usize {
        self.inner.publishers()
    }

    fn ended(&self) -> u64 {
        self.inner.ended()
    }

    fn declined(&self) -> (u64, Option<Declined>) {
        self.inner.declined()
    }

    fn compression(&self) -> Option<CompressionStats> {
        self.inner.compression()
    }

    fn settings(&self) -> Vec<SettingReport> {
        self.inner.settings()
    }

    fn road(&self) -> Option<Transport> {
        self.node.with(|_, roads, _| roads.road())
    }

    fn take_change(&self) -> Option<RoadChange> {
        self.node.with(|_, roads, _| roads.take_change())
    }
}
