//! What roads made of streams have in common when they are opened.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_net::shm::{Echo, Policy};
use twinspan_topic::{Compressions, Disagreement, Greeting};

use super::core::Seats;
use super::link::Times;
use super::node::{Member, Node, StreamIn, StreamOut, Waited};
use super::topic::{LinkId, Refusal, Topic, TopicConfig};
use super::wire::{EndReason, Frame, Hello};
use crate::compress::{Packer, Unpacks};
use crate::error::BuildError;
use crate::road::{
    BATCH_DEFAULT, Incoming, NetOptions, Opened, Outgoing, Peers, Reliability, RoadConfig,
};
use crate::system::stopwatch;

/// How long building waits for the first answer of who listens.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_millis(250);
/// How long the last words of a best-effort topic may take.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(1);

/// What the first answer was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Welcome,
    /// This side found that the ends do not agree.
    Disagrees(Refusal),
    /// The other side ended it with this reason.
    Refused(EndReason),
}

/// The topic of a hub.
pub(crate) fn topic(config: &RoadConfig) -> Result<Topic, BuildError> {
    let refused =
        |setting, value| BuildError::Setting { setting, value, range: "it works on udp:// alone" };
    if config.echo == Echo::On {
        return Err(refused("echo", "on".to_owned()));
    }
    if config.net.injected_loss > 0.0 {
        return Err(refused("injected_loss", config.net.injected_loss.to_string()));
    }
    let dictionary = config.dictionary.as_deref();
    let packer = Packer::new(config.compression, dictionary, stopwatch)?;
    let is_reliable = config.reliability != Some(Reliability::BestEffort);
    let greeting = Greeting {
        id: config.id,
        publishes: config.publishes(),
        receives: config.receives(),
        reliable: is_reliable,
        message_bytes_max: u32::try_from(config.message_bytes_max).unwrap_or(u32::MAX),
        history: config.history,
        compressions: Compressions(Unpacks::ours(dictionary).codecs),
        // Each frame says whether it is packed, and hello which dictionary there is.
        packs: Compressions::NONE,
        dictionary: 0,
        topic: config.topic.clone(),
        identity: config.identity.clone(),
    };
    let topic = TopicConfig {
        greeting,
        publishes: config.publishes(),
        receives: config.receives(),
        is_reliable,
        message_bytes_max: config.message_bytes_max,
        depth: config.depth,
        history: config.history,
        // A publisher's patience; without reliability what the kernels have is enough.
        linger: if is_reliable { config.publish_timeout } else { CLOSING_TIMEOUT },
        times: Times::default(),
    };
    Ok(Topic::new(topic, packer, dictionary))
}

/// Answers who came to a listener: `out` gets what to say. `None` where it is refused.
pub(crate) fn welcome(
    now: Timestamp,
    theirs: &Hello,
    seats: &mut Seats,
    out: &mut Vec<u8>,
) -> Option<(usize, LinkId)> {
    let Some((seat, topic)) = seats.named(&theirs.greeting.topic) else {
        // Who has no topic at all begins just now, or ends: it is worth another try.
        let is_empty = seats.each().next().is_none();
        Frame::End(if is_empty { EndReason::Left } else { EndReason::NoTopic }).write(out);
        return None;
    };
    let ours = topic.hello(Some(theirs.greeting.id));
    ours.write(out);
    match topic.admit(now, theirs, &ours.standing) {
        Ok(link) => Some((seat, link)),
        Err(refusal) => {
            Frame::End(refusal.reason()).write(out);
            None
        }
    }
}

/// Joins a listener of this process that is there already; the topic comes back where its last one
/// left just now.
pub(crate) fn share<C: Waited>(
    config: &RoadConfig,
    node: &Arc<Node<C>>,
    address: SocketAddr,
    topic: Topic,
) -> Result<Result<Arc<Member<C>>, Topic>, BuildError> {
    if node.with(|_, _, seats| seats.named(&config.topic).is_some()) {
        return Err(BuildError::Bind { address, source: io::ErrorKind::AddrInUse.into() });
    }
    node.join(topic).map_err(BuildError::Os)
}

/// Whether streams may go over datagrams of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Datagrams {
    Possible,
    Never,
}

/// What was asked for and has no effect on streams.
fn idle_options(config: &RoadConfig, datagrams: Datagrams) -> Vec<String> {
    let is_never = datagrams == Datagrams::Never;
    let usual = NetOptions::default();
    let net = &config.net;
    let idle = [
        (config.policy != Policy::default(), "policy"),
        (net.sqpoll != usual.sqpoll, "sqpoll"),
        (net.sqpoll_core != usual.sqpoll_core, "sqpoll_core"),
        (is_never && net.busy_poll != usual.busy_poll, "busy_poll"),
        (is_never && net.datagram_bytes != usual.datagram_bytes, "datagram_bytes"),
    ];
    let set = idle.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name);
    let set = set.chain(config.multicast.named());
    set.map(|name| format!("{name} has no effect on streams")).collect()
}

/// What became of the first answer: a note for the report.
pub(crate) fn judge(
    config: &RoadConfig,
    address: SocketAddr,
    told: Option<Told>,
) -> Result<String, BuildError> {
    let refused = |why: &str| BuildError::Refused { address, why: why.to_owned() };
    match told {
        None => Ok(format!("{address} has not answered yet, it is tried again and again")),
        Some(Told::Welcome) => Ok(format!("{address} answered")),
        Some(Told::Disagrees(Refusal::Disagreement(Disagreement::Type(theirs)))) => {
            Err(BuildError::AnotherType {
                topic: config.topic.clone(),
                theirs: theirs.to_string(),
                ours: config.identity.to_string(),
            })
        }
        Some(Told::Disagrees(Refusal::Disagreement(other))) => Err(refused(&other.to_string())),
        Some(Told::Disagrees(Refusal::Compression)) => Err(refused(
            "it cannot undo this hub's compression: give both the same dictionary, or none",
        )),
        Some(Told::Disagrees(Refusal::Oneself)) => Err(refused("it is this hub itself")),
        Some(Told::Disagrees(Refusal::Full)) => Err(refused("this hub has too many peers")),
        Some(Told::Refused(EndReason::NoTopic)) => Err(refused("nobody there has the topic")),
        Some(Told::Refused(EndReason::Full)) => Err(refused("it has as many peers as it may")),
        Some(Told::Refused(EndReason::Disagreement)) => {
            Err(refused("its topic, type, reliability or compression differs"))
        }
        Some(Told::Disagrees(Refusal::Outdated)) => {
            Ok(format!("{address} is connected in another way"))
        }
        // It left just now, and may come back.
        Some(Told::Disagrees(Refusal::Leaving) | Told::Refused(_)) => {
            Ok(format!("{address} left, it is tried again and again"))
        }
    }
}

/// The handles of a hub that has joined, on a road without datagrams of our own.
pub(crate) fn opened<C: Waited>(
    config: &RoadConfig,
    member: &Arc<Member<C>>,
    notes: Vec<String>,
) -> Opened {
    opened_by(config, member, notes, Datagrams::Never)
}

/// The handles of a hub that has joined.
pub(crate) fn opened_by<C: Waited>(
    config: &RoadConfig,
    member: &Arc<Member<C>>,
    mut notes: Vec<String>,
    datagrams: Datagrams,
) -> Opened {
    notes.extend(idle_options(config, datagrams));
    if let Some(core) = config.net.core {
        notes.push(format!("its thread runs on core {core}, unless it shares that of another hub"));
    }
    if config.depth > 0 && config.compression != crate::report::Compression::None {
        notes.push(format!("messages are packed where that pays: {:?}", config.compression));
    }
    let out = config.publishes().then(|| {
        let out = StreamOut {
            member: Arc::clone(member),
            message_bytes_max: config.message_bytes_max,
            batch_size: config.batch_size.unwrap_or(BATCH_DEFAULT),
            publish_timeout: config.publish_timeout,
            next: 0,
        };
        Box::new(out) as Box<dyn Outgoing>
    });
    let inlet = config.receives().then(|| {
        let inlet = StreamIn::new(Arc::clone(member));
        Box::new(inlet) as Box<dyn Incoming>
    });
    let peers: Arc<dyn Peers> = Arc::clone(member) as _;
    Opened { out, inlet, peers, ways: None, notes }
}

#[cfg(test)]
mod tests {
    use super::super::test_hello;
    use super::*;

    #[test]
    fn who_comes_before_the_first_topic_is_not_refused_for_good() {
        let (mut said, mut left) = (Vec::new(), Vec::new());
        let admitted =
            welcome(Timestamp::START, &test_hello(2, "t"), &mut Seats::default(), &mut said);
        assert!(admitted.is_none());
        Frame::End(EndReason::Left).write(&mut left);
        assert_eq!(said, left, "a listener that begins is no listener without the topic");
    }
}
