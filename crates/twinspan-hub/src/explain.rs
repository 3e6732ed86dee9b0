//! What leads to an endpoint, why, and how good the way is: told without taking it.

use std::net::SocketAddr;

use twinspan_net::shm::{TakenBy, topic_taken_by};
use twinspan_topic::Probed;

use crate::auto;
use crate::choose::{Choice, Place, choose, occupant, place};
use crate::discover::{Host, announced};
use crate::endpoint::{Endpoint, Scheme};
use crate::error::BuildError;
use crate::measure::{Measured, at_port, measure};
use crate::report::Transport;
use crate::road::Side;
use crate::select::{AddressClass, Facts, SameHost, select};

/// What leads to an endpoint.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Explained {
    /// The road.
    pub transport: Transport,
    /// Why this one.
    pub reason: String,
    /// Whether anybody takes part in the topic now, or answers at the address; `None` where nobody can
    /// be asked: where the type's name is to be the topic, and in a multicast group.
    pub is_taken: Option<bool>,
    /// What was measured.
    pub measured: Vec<Measured>,
    /// Hubs that announce the topic on this machine, on roads over a network.
    pub found: Vec<FoundHub>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

/// A hub that announces itself on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundHub {
    /// Whether it publishes.
    pub publishes: bool,
    /// Whether it receives.
    pub receives: bool,
    /// What it carries.
    pub carries: String,
    /// Where it listens, by road.
    pub roads: Vec<(Transport, SocketAddr)>,
}

/// Tells which road leads to an endpoint, without taking it, and measures it: 16 probes in 30 ms on UDP
/// and QUIC, and at most a second for the last answers; three connections on TCP.
///
/// # Errors
/// [`BuildError`] where none does.
pub fn explain(endpoint: &Endpoint) -> Result<Explained, BuildError> {
    let Choice { road, reason } = choose(endpoint, None)?;
    if road == Transport::SharedMemory {
        return explain_memory(endpoint, reason);
    }
    let Place { addresses, side, is_group, reason: side_reason } = place(endpoint, None)?;
    let address = addresses.first().copied().ok_or(BuildError::NoHost { road })?;
    let asked = (endpoint.scheme != Some(Scheme::Hub)).then_some(road);
    let address = if is_group { address } else { occupant(address, asked) };
    let mut notes = vec![side_reason];
    if is_group && road == Transport::BatchUdp {
        notes.push(
            "nobody in a group answers probes: a hub that is built here joins it, and hears who publishes"
                .to_owned(),
        );
        let (measured, found) = (Vec::new(), Vec::new());
        return Ok(Explained { transport: road, reason, is_taken: None, measured, found, notes });
    }
    if endpoint.scheme == Some(Scheme::Hub) {
        return explain_choice(address, side, notes);
    }
    let probed = measure(road, address).unwrap_or_else(|error| {
        notes.push(format!("it cannot be probed: {error}"));
        Probed::default()
    });
    let is_there = probed.is_there();
    notes.push(presence(is_there, side).to_owned());
    notes.extend(advice(road, address, &probed));
    Ok(Explained {
        transport: road,
        reason,
        is_taken: Some(is_there),
        measured: vec![Measured::new(road, address, &probed)],
        found: Vec::new(),
        notes,
    })
}

/// Whether somebody is there, and what a hub would do.
const fn presence(is_there: bool, side: Side) -> &'static str {
    match (is_there, side) {
        (true, Side::Listen) => "somebody listens there: a hub that is built here connects",
        (true, Side::Connect) => "somebody answers there",
        (false, Side::Listen) => {
            "nobody is there: a hub that is built here listens, and waits for others"
        }
        (false, Side::Connect) => {
            "nobody is there, or nothing gets through: a hub that is built here tries again and again"
        }
    }
}

/// The choice between roads behind `hub://`.
fn explain_choice(
    address: SocketAddr,
    side: Side,
    mut notes: Vec<String>,
) -> Result<Explained, BuildError> {
    let (facts, offer) = auto::facts(address)?;
    let quic_port = offer.map_or(address.port(), |offer| offer.quic_port);
    let quic_address = at_port(address, quic_port);
    if ![0, address.port()].contains(&quic_port) {
        notes.push(format!(
            "QUIC has port {quic_port} there, not that of UDP: the listener's report says why"
        ));
    }
    let measured: Vec<Measured> = [
        (Transport::BatchUdp, address, facts.udp),
        (Transport::Quic, quic_address, facts.quic),
        (Transport::Tcp, address, facts.tcp),
    ]
    .into_iter()
    .filter_map(|(road, address, probed)| Some(Measured::new(road, address, &probed?)))
    .collect();
    let is_there = measured.iter().any(|it| it.lost < it.probes);
    notes.push(presence(is_there, side).to_owned());
    let selected = auto::choose(None, address, &facts)?;
    let order: Vec<String> = selected.order.iter().map(ToString::to_string).collect();
    notes.push(format!("the order in which roads are tried: {}", order.join(", ")));
    Ok(Explained {
        transport: selected.road,
        reason: selected.reasons.join("; "),
        is_taken: Some(is_there),
        measured,
        found: Vec::new(),
        notes,
    })
}

fn explain_memory(endpoint: &Endpoint, reason: String) -> Result<Explained, BuildError> {
    let mut explained = Explained {
        transport: Transport::SharedMemory,
        reason,
        is_taken: None,
        measured: Vec::new(),
        found: Vec::new(),
        notes: Vec::new(),
    };
    let Some(topic) = endpoint.topic.as_deref() else { return Ok(explained) };
    let taken = topic_taken_by(topic)?;
    explained.is_taken = Some(taken.is_some());
    explained.notes = taken.map_or_else(Vec::new, memory_notes);
    if endpoint.scheme.is_some() {
        return Ok(explained);
    }
    let (found, foreign) = announced(topic).map_err(BuildError::Os)?;
    explained.found = found
        .into_iter()
        .map(|it| FoundHub {
            publishes: it.greeting.publishes,
            receives: it.greeting.receives,
            carries: it.greeting.identity.to_string(),
            roads: it.roads.iter().map(|road| (road.road, road.address)).collect(),
        })
        .collect();
    if !explained.found.is_empty() {
        explained.notes.push(
            "hubs of this topic are on roads over a network: they are heard by who asks for one of these"
                .to_owned(),
        );
    }
    if foreign > 0 {
        explained
            .notes
            .push(format!("{foreign} hubs of other users announce it, and are not heard"));
    }
    Ok(explained)
}

/// What is known of a topic in this machine's memory by whose it is.
fn memory_notes(taken: TakenBy) -> Vec<String> {
    if let TakenBy::Another(uid) = taken {
        return vec![format!(
            "the same boot identity, but its memory is that of user {uid}, who lets nobody in but a group              that both name with `access`; `namesakes` has a topic beside it"
        )];
    }
    // Who has a name on this machine, and this user, has shown both.
    let class = AddressClass::Loopback;
    let facts = Facts { class, same_host: SameHost::Opens, udp: None, quic: None, tcp: None };
    select(None, &facts).map_or_else(|_| Vec::new(), |it| it.reasons)
}

/// What the selection says of the way: a scheme is an explicit choice, which is kept.
fn advice(road: Transport, address: SocketAddr, probed: &Probed) -> Vec<String> {
    if !probed.is_there() {
        return Vec::new();
    }
    let own = Host::own().map(|host| host.digest());
    let same_host = match probed.offer.map(|offer| offer.host).filter(|host| *host != [0; 16]) {
        None => SameHost::Unknown,
        Some(host) if Some(host) == own => {
            SameHost::Closed("the endpoint asks for a road over a network".to_owned())
        }
        Some(_) => SameHost::No,
    };
    let is_here = matches!(same_host, SameHost::Closed(_));
    let of = |wanted| (road == wanted).then_some(*probed);
    let facts = Facts {
        class: AddressClass::of(address.ip()),
        same_host,
        udp: of(Transport::BatchUdp),
        quic: of(Transport::Quic),
        tcp: of(Transport::Tcp),
    };
    let mut notes = select(None, &facts).map_or_else(|_| Vec::new(), |selected| selected.reasons);
    if is_here {
        notes.push("it is this machine: a bare topic at both ends takes shared memory".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::{Bytes, Hub};

    fn told(endpoint: &str) -> Explained {
        explain(&endpoint.parse().unwrap()).unwrap()
    }

    fn has(explained: &Explained, part: &str) -> bool {
        explained.notes.iter().any(|note| note.contains(part))
    }

    #[test]
    fn nobody_there_is_told_as_such_on_every_road() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for endpoint in
            [format!("udp://{udp}/a"), format!("tcp://{tcp}/a"), format!("quic://{udp}/a")]
        {
            let explained = told(&endpoint);
            assert_eq!(explained.is_taken, Some(false), "{endpoint}");
            assert!(has(&explained, "nobody is there: a hub that is built here listens"));
            let [measured] = explained.measured[..] else { panic!("one is measured") };
            assert_eq!((measured.probes, measured.rtt_min), (measured.lost, None));
        }
    }

    #[test]
    fn who_is_there_is_measured_on_every_road() {
        for (scheme, road) in
            [("udp", Transport::BatchUdp), ("tcp", Transport::Tcp), ("quic", Transport::Quic)]
        {
            let any = format!("{scheme}://127.0.0.1:0/explained");
            let hub = Hub::<Bytes>::builder(any).listen().build().unwrap();
            let text = hub.transport().to_string();
            let (_, rest) = text.split_once("it listens at 127.0.0.1:").unwrap();
            let port = rest.split(|it: char| !it.is_ascii_digit()).next().unwrap();
            let explained = told(&format!("{scheme}://127.0.0.1:{port}/explained"));
            assert_eq!((explained.transport, explained.is_taken), (road, Some(true)), "{road}");
            let [measured] = explained.measured[..] else { panic!("one is measured") };
            assert!(measured.rtt_min.is_some() && measured.lost < measured.probes, "{measured:?}");
            assert!(has(&explained, "somebody listens there"), "{explained:?}");
            assert!(has(&explained, "a loopback address suggests batched UDP"), "{explained:?}");
            assert_eq!(has(&explained, "it is this machine"), road == Transport::BatchUdp);
        }
    }

    #[test]
    fn a_group_is_not_said_to_be_empty_for_nobody_answers_probes_there() {
        let explained = told("udp://239.7.7.7:9/a");
        assert_eq!((explained.transport, explained.is_taken), (Transport::BatchUdp, None));
        assert!(explained.measured.is_empty(), "{explained:?}");
        assert!(has(&explained, "it takes part in a group"), "{explained:?}");
        assert!(has(&explained, "nobody in a group answers probes"), "{explained:?}");
    }

    #[test]
    fn memory_opens_to_its_user_alone() {
        let topic = format!("test/explain/memory/{}", std::process::id());
        let _hub = Hub::<u64>::builder(&topic).build().unwrap();
        let explained = told(&topic);
        assert_eq!(explained.is_taken, Some(true));
        assert!(has(&explained, "its memory opens"), "{explained:?}");
        let [note] = &memory_notes(TakenBy::Another(1_234))[..] else { panic!("one note") };
        assert!(note.contains("user 1234") && !note.contains("opens"), "{note}");
    }

    #[test]
    fn a_choice_is_told_with_all_that_was_measured() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let endpoint = format!("hub://{free}/explained");
        let explained = told(&endpoint);
        assert_eq!((explained.transport, explained.is_taken), (Transport::BatchUdp, Some(false)));
        assert!(explained.reason.contains("nobody answers at"), "{explained:?}");
        let _hub = Hub::<Bytes>::builder(&endpoint).listen().build().unwrap();
        let explained = told(&endpoint);
        assert_eq!(
            (explained.transport, explained.is_taken),
            (Transport::SharedMemory, Some(true))
        );
        assert!(explained.reason.contains("its memory opens"), "{explained:?}");
        let roads: Vec<_> = explained.measured.iter().map(|it| it.transport).collect();
        assert_eq!(roads, [Transport::BatchUdp, Transport::Quic, Transport::Tcp]);
        assert!(explained.measured.iter().all(|it| it.lost < it.probes), "{explained:?}");
        assert!(has(&explained, "batched UDP, QUIC, TCP"), "{explained:?}");
    }

    #[test]
    fn a_bare_topic_tells_who_announces_it() {
        let topic = format!("test/explain/{}", std::process::id());
        assert_eq!(told(&topic).is_taken, Some(false));
        let _hub = Hub::<u64>::builder(&topic).transport(Transport::Tcp).build().unwrap();
        let explained = told(&topic);
        assert_eq!(
            (explained.transport, explained.is_taken),
            (Transport::SharedMemory, Some(false))
        );
        let [found] = &explained.found[..] else { panic!("{explained:?}") };
        assert!(found.publishes && found.receives);
        assert_eq!(found.carries, "u64 of 8 bytes aligned to 8");
        assert!(matches!(found.roads[..], [(Transport::Tcp, _)]));
        assert!(has(&explained, "hubs of this topic are on roads over a network"));
    }
}
