//! A bare topic over a network: each hub listens, and of two that learn of each other the one with the
//! greater id goes to the other.
//!
//! //= hub 15.3

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use twinspan_net::lock;
use twinspan_net::shm::{JoinError, Namesakes};
use twinspan_topic::{Compressions, Disagreement, Greeting};

use super::announcement::{Announcement, OfferedRoad};
use super::given::{self, Given};
use super::herald::{Ear, Herald, HeraldError};
use super::host::Host;
use super::meetings::Meetings;
use super::roster::Heard;
use crate::choose::is_own;
use crate::compress::CompressionStats;
use crate::effect::SettingReport;
use crate::error::BuildError;
use crate::measure::reachable;
use crate::quic::{self, Fingerprint, Stranger, Trust};
use crate::report::Transport;
use crate::road::{Callee, Opened, Peers, Reliability, RoadConfig, Ways};
use crate::seal::Declined;
use crate::stream::mix::Mix;
use crate::stream::node::{Node, Waited};
use crate::stream::open::{self, ANSWER_TIMEOUT};
use crate::stream::tcp::{self, TcpCarrier};
use crate::udp;

/// Opens a road on which hubs of a bare topic find each other.
pub(crate) fn open(
    road: Transport,
    config: &RoadConfig,
    Given { peers, only }: Given<'_>,
    namesakes: Namesakes,
) -> Result<Opened, BuildError> {
    given::check(road, config.first_address()?.ip(), peers, is_own)?;
    let mut opened = match road {
        Transport::Tcp | Transport::Quic => streams(road, config)?,
        _ => udp::open(config, road)?,
    };
    let Some(ways) = opened.ways.clone() else { return Err(BuildError::NotBuilt { road }) };
    let (bound, fingerprint) = ways.bound();
    opened.notes.insert(0, format!("it listens at {bound}"));
    let peers = given::others(bound, peers, is_own);
    for address in peers.iter().copied() {
        ways.call(&Callee { id: None, address, fingerprint: None })?;
    }
    let greeting = greeting(road, config);
    let met = Arc::new(Mutex::new(Meetings::new(road, greeting.clone())));
    let ear = Caller { ways: Arc::clone(&ways), met: Arc::clone(&met) };
    let herald = match Host::own() {
        _ if only => None,
        Some(host) => {
            let user = rustix::process::geteuid().as_raw();
            let roads = vec![OfferedRoad { road, address: reachable(bound), fingerprint }];
            let ours = Announcement { host, user, greeting, roads };
            Some(Herald::start(ours, Box::new(ear)).map_err(|error| failed(error, config))?)
        }
        None => {
            opened
                .notes
                .push("the system does not tell which machine this is: nobody is found".into());
            None
        }
    };
    judge(&lock(&met), herald.as_ref(), config, namesakes)?;
    if !peers.is_empty() {
        opened.notes.extend(ways.settle()?);
    }
    opened.notes.push(if only {
        "it is not announced, and speaks with peers that are given alone".to_owned()
    } else {
        lock(&met).to_string()
    });
    opened.peers = Arc::new(Found { herald, inner: opened.peers });
    Ok(opened)
}

fn failed(error: HeraldError, config: &RoadConfig) -> BuildError {
    match error {
        HeraldError::Full => BuildError::Join(JoinError::Full(config.topic.clone())),
        HeraldError::Os(error) => BuildError::Os(error),
    }
}

/// What the hub says of itself in its announcement: as on its road.
fn greeting(road: Transport, config: &RoadConfig) -> Greeting {
    let reliable = match road {
        Transport::Tcp | Transport::Quic => config.reliability != Some(Reliability::BestEffort),
        _ => config.reliability == Some(Reliability::Reliable),
    };
    Greeting {
        id: config.id,
        publishes: config.publishes(),
        receives: config.receives(),
        reliable,
        message_bytes_max: u32::try_from(config.message_bytes_max).unwrap_or(u32::MAX),
        history: config.history.min(twinspan_topic::HISTORY_MAX),
        compressions: Compressions::NONE,
        packs: Compressions::NONE,
        dictionary: 0,
        topic: config.topic.clone(),
        identity: config.identity.clone(),
    }
}

/// Refuses a topic that carries something else, or that others alone have.
fn judge(
    met: &Meetings,
    herald: Option<&Herald>,
    config: &RoadConfig,
    namesakes: Namesakes,
) -> Result<(), BuildError> {
    match met.disagreement.clone() {
        Some((_, Disagreement::Type(theirs))) => {
            return Err(BuildError::AnotherType {
                topic: config.topic.clone(),
                theirs: theirs.to_string(),
                ours: config.identity.to_string(),
            });
        }
        Some((address, other)) => {
            return Err(BuildError::Refused { address, why: other.to_string() });
        }
        None => {}
    }
    let foreign = herald.and_then(|it| it.counts.foreign_user());
    if let Some(uid) = foreign
        && met.hubs == 0
        && namesakes == Namesakes::Refuse
    {
        let topic = config.topic.clone();
        return Err(BuildError::Join(JoinError::AnotherUser { topic, uid }));
    }
    Ok(())
}

/// Goes to those who are heard of.
struct Caller {
    ways: Arc<dyn Ways>,
    met: Arc<Mutex<Meetings>>,
}

impl Ear for Caller {
    fn hears(&mut self, heard: &Heard) {
        match heard {
            Heard::Came(who) => {
                let callee = lock(&self.met).came(who);
                if let Some(callee) = callee {
                    // More than there is room for are not heard, as on any road.
                    let _ = self.ways.call(&callee);
                }
            }
            Heard::Gone(who) => {
                let callee = lock(&self.met).gone(who);
                if let Some(callee) = callee {
                    self.ways.hang_up(&callee);
                }
            }
        }
    }
}

/// The peers of a road, and what finds them: that ends before the road does.
struct Found {
    herald: Option<Herald>,
    inner: Arc<dyn Peers>,
}

impl Peers for Found {
    fn subscribers(&self) -> usize {
        self.inner.subscribers()
    }

    fn publishers(&self) -> usize {
        self.inner.publishers()
    }

    fn ended(&self) -> u64 {
        let malformed = self.herald.as_ref().map(|it| it.counts.malformed.load(Ordering::Relaxed));
        self.inner.ended() + malformed.unwrap_or(0)
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
}

/// A road of streams that listens, and goes to others beside that.
fn streams(road: Transport, config: &RoadConfig) -> Result<Opened, BuildError> {
    let topic = open::topic(config)?;
    let started = Instant::now();
    let mut mix = Mix::new().map_err(BuildError::Os)?;
    let (listener, bound, fingerprint): (Box<dyn Waited>, _, _) = match road {
        Transport::Tcp => {
            let (carrier, bound) =
                TcpCarrier::listening(tcp::seed(config), config.first_address()?)?;
            (Box::new(carrier), bound, None)
        }
        _ => {
            let listening = quic::listening(config, started, None)?;
            (Box::new(listening.carrier), listening.bound, listening.fingerprint)
        }
    };
    mix.add(listener).map_err(BuildError::Os)?;
    let node = Node::start(mix, started, config.net.flush_interval, config.net.core)
        .map_err(BuildError::Os)?;
    let joined = node.join(topic).map_err(BuildError::Os)?;
    let member = joined.map_err(|_| BuildError::Os(std::io::ErrorKind::NotConnected.into()))?;
    let ways = StreamWays {
        road,
        config: config.clone(),
        started,
        seat: member.seat(),
        bound: (bound, fingerprint),
        calls: Mutex::new(Vec::new()),
        node,
    };
    let mut opened = open::opened(config, &member, Vec::new());
    opened.ways = Some(Arc::new(ways));
    Ok(opened)
}

/// One that is gone to.
struct Call {
    to: Callee,
    key: u64,
    stranger: Option<Stranger>,
}

/// The ways of a road of streams.
struct StreamWays {
    road: Transport,
    config: RoadConfig,
    started: Instant,
    seat: usize,
    bound: (SocketAddr, Option<Fingerprint>),
    calls: Mutex<Vec<Call>>,
    node: Arc<Node<Mix>>,
}

impl Ways for StreamWays {
    fn bound(&self) -> (SocketAddr, Option<Fingerprint>) {
        self.bound
    }

    fn call(&self, to: &Callee) -> Result<(), BuildError> {
        let mut calls = lock(&self.calls);
        if calls.iter().any(|call| call.to == *to) {
            return Ok(());
        }
        let mut stranger = None;
        // Each has its own waits, so that not all come again at once.
        let seed = tcp::seed(&self.config).wrapping_add(u64::from(to.address.port()));
        let carrier: Box<dyn Waited> = match self.road {
            Transport::Tcp => Box::new(TcpCarrier::calling(seed, self.seat, vec![to.address])?),
            _ => {
                let trust = to.fingerprint.map(Trust::Pinned);
                let trust = trust.as_ref().unwrap_or(&self.config.quic.trust);
                let place = (to.address, self.seat);
                let (carrier, met) = quic::calling(&self.config, self.started, place, trust)?;
                stranger = Some(met);
                Box::new(carrier)
            }
        };
        let added = self.node.with(|_, mix, _| mix.add(carrier)).map_err(BuildError::Os)?;
        let Some(key) = added else {
            let (setting, value) = ("the number of peers", "more".to_owned());
            return Err(BuildError::Setting { setting, value, range: "64 at most" });
        };
        calls.push(Call { to: *to, key, stranger });
        drop(calls);
        self.node.nudge(self.seat);
        Ok(())
    }

    fn hang_up(&self, to: &Callee) {
        let mut calls = lock(&self.calls);
        let Some(at) = calls.iter().position(|call| call.to == *to) else { return };
        let Call { key, .. } = calls.swap_remove(at);
        drop(calls);
        self.node.with(|_, mix, _| mix.hang_up(key));
        self.node.nudge(self.seat);
    }

    fn settle(&self) -> Result<Vec<String>, BuildError> {
        let calls = lock(&self.calls);
        let given: Vec<&Call> = calls.iter().filter(|call| call.to.id.is_none()).collect();
        let told = |mix: &mut Mix, key| mix.with(key, |it| it.told(self.seat)).flatten();
        self.node.drive_until(ANSWER_TIMEOUT, |core| {
            given.iter().all(|call| {
                let seen = call.stranger.as_ref().and_then(Stranger::seen);
                seen.is_some() || told(&mut core.carrier, call.key).is_some()
            })
        });
        let mut notes = Vec::new();
        for call in given {
            let address = call.to.address;
            if let Some(seen) = call.stranger.as_ref().and_then(Stranger::seen) {
                return Err(BuildError::Stranger { address, seen });
            }
            let told = self.node.with(|_, mix, _| told(mix, call.key));
            notes.push(open::judge(&self.config, address, told)?);
        }
        Ok(notes)
    }
}
