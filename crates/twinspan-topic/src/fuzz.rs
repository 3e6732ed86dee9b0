//! Fuzz bodies: what holds for any bytes.

use core::time::Duration;
use std::net::SocketAddr;

use twinspan_core::fuzz::digest;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;

use crate::config::{LINKS_MAX, NodeConfig, NodeSide, Seal};
use twinspan_core::aead::Cipher;
use twinspan_core::identity::{Form, Identity};
use twinspan_session::link::SharedKey;

use crate::greet::{Compressions, Greeting};
use crate::inbox::Inbox;
use crate::node::Node;

/// Datagrams of one input; those behind them are left out.
const DATAGRAMS_MAX: usize = 24;

const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);
const THERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 2);

fn greeting(id: u8, reliable: bool) -> Greeting {
    let name = "bytes".into();
    Greeting {
        id: [id; 16],
        publishes: true,
        receives: true,
        reliable,
        message_bytes_max: 10_000,
        history: 2,
        compressions: Compressions::NONE,
        packs: Compressions::NONE,
        dictionary: 0,
        topic: "fuzz".into(),
        identity: Identity { form: Form::Bytes, bytes: 0, align: 1, version: 0, name },
    }
}

fn node(id: u8, side: NodeSide, reliable: bool) -> (Node, Inbox) {
    let config = NodeConfig::new(greeting(id, reliable), side);
    let inbox = Inbox::new(config.inbox_limits());
    (Node::new(config, Timestamp::START, &mut Stream::new(1, "fuzz", u64::from(id))), inbox)
}

/// Any bytes are a greeting or name a reason; one that was read is written the same.
pub fn fuzz_greeting(data: &[u8]) -> u64 {
    let read = Greeting::parse(data);
    if let Ok((greeting, rest)) = &read {
        let mut again = Vec::new();
        greeting.write(&mut again);
        assert_eq!(again.len() + rest.len(), data.len(), "another length was written");
        assert!(data.starts_with(&again), "something else was written than read");
    }
    digest(&read)
}

/// A node that somebody speaks with takes any datagrams without a panic, and keeps to its limits.
///
/// The first byte says whether the topic is reliable; each datagram has its length in the byte before
/// it. Data gets the token of the link, or nothing behind it would ever be looked at.
pub fn fuzz_datagrams(data: &[u8]) -> u64 {
    let (reliable, mut rest) = match data.split_first() {
        Some((first, rest)) => (first % 2 == 1, rest),
        None => return 0,
    };
    let (mut here, mut heard) = node(1, NodeSide::Listen, reliable);
    let (mut there, mut answers) = node(2, NodeSide::Connect(HERE), reliable);
    let mut now = Timestamp::START;
    let mut out = [0; 1_200];
    for _ in 0..4 {
        while let Some(sent) = there.poll_transmit(now, &mut out) {
            here.handle_datagram(now, THERE, out.get(..sent.bytes).unwrap_or_default(), &mut heard);
        }
        while let Some(sent) = here.poll_transmit(now, &mut out) {
            there.handle_datagram(
                now,
                HERE,
                out.get(..sent.bytes).unwrap_or_default(),
                &mut answers,
            );
        }
    }
    let token = here.token_of(0).unwrap_or(0);
    let mut message = Vec::new();
    let mut left = DATAGRAMS_MAX;
    while let Some((length, behind)) = rest.split_first()
        && left > 0
    {
        left -= 1;
        let (datagram, behind) = behind.split_at(behind.len().min(usize::from(*length)));
        rest = behind;
        let mut datagram = datagram.to_vec();
        if matches!(datagram.first(), Some(5 | 6))
            && let Some(place) = datagram.get_mut(2..10)
        {
            place.copy_from_slice(&token.to_le_bytes());
        }
        here.handle_datagram(now, THERE, &datagram, &mut heard);
        let _ = here.publish(&datagram);
        here.flush();
        while here.poll_transmit(now, &mut out).is_some() {}
        while heard.take(&mut message).is_some() {
            assert!(message.len() <= 10_000, "a message longer than it takes");
        }
        now = now.after(Duration::from_millis(20));
        here.handle_timeout(now);
        assert!(here.subscribers() <= LINKS_MAX, "too many links");
    }
    digest(&here.stats())
}

/// A node of a sealed topic takes any datagrams without a panic, and keeps to its limits; nothing that
/// was not sealed by the other end ends their link.
///
/// The first byte says whether the topic is reliable; each piece has a byte before it that says whether
/// it is a text that the other end seals, and one with its length.
pub fn fuzz_sealed(data: &[u8]) -> u64 {
    let Some((first, mut rest)) = data.split_first() else { return 0 };
    let reliable = first % 2 == 1;
    let sealed = |id: u8, side| {
        let seal = Seal { cipher: Cipher::Aes128Gcm, ..Seal::new(SharedKey::from_bytes([5; 32])) };
        let config =
            NodeConfig { seal: Some(seal), ..NodeConfig::new(greeting(id, reliable), side) };
        let inbox = Inbox::new(config.inbox_limits());
        let mut secrets = Stream::new(1, "fuzz", u64::from(id));
        (Node::new(config, Timestamp::START, &mut secrets), inbox)
    };
    let (mut here, mut heard) = sealed(1, NodeSide::Listen);
    let (mut there, mut answers) = sealed(2, NodeSide::Connect(HERE));
    let mut now = Timestamp::START;
    let mut out = [0; 1_200];
    for _ in 0..4 {
        while let Some(sent) = there.poll_transmit(now, &mut out) {
            here.handle_datagram(now, THERE, out.get(..sent.bytes).unwrap_or_default(), &mut heard);
        }
        while let Some(sent) = here.poll_transmit(now, &mut out) {
            let datagram = out.get(..sent.bytes).unwrap_or_default();
            there.handle_datagram(now, HERE, datagram, &mut answers);
        }
    }
    assert_eq!(here.subscribers(), 1, "they did not meet");
    let token = here.token_of(0).unwrap_or(0);
    let mut message = Vec::new();
    let mut left = DATAGRAMS_MAX;
    let mut was_sealed = false;
    while let Some(([is_sealed, length], behind)) = rest.split_first_chunk::<2>()
        && left > 0
    {
        left -= 1;
        let (piece, behind) = behind.split_at(behind.len().min(usize::from(*length)));
        rest = behind;
        let text = (is_sealed % 2 == 1).then(|| there.seal_by(0, now, piece)).flatten();
        was_sealed |= text.is_some();
        let mut datagram = text.unwrap_or_else(|| piece.to_vec());
        if matches!(datagram.first(), Some(5 | 6 | 7 | 10))
            && let Some(place) = datagram.get_mut(2..10)
        {
            place.copy_from_slice(&token.to_le_bytes());
        }
        here.handle_datagram(now, THERE, &datagram, &mut heard);
        while here.poll_transmit(now, &mut out).is_some() {}
        while heard.take(&mut message).is_some() {
            assert!(message.len() <= 10_000, "a message longer than it takes");
        }
        assert!(was_sealed || here.subscribers() == 1, "something in the clear ended a link");
    }
    now = now.after(Duration::from_millis(20));
    here.handle_timeout(now);
    digest(&here.stats())
}

/// Good inputs for [`fuzz_sealed`]: data and an end that the other one seals, and clear ones.
pub fn sealed_seeds() -> Vec<Vec<u8>> {
    let texts: [(u8, &[u8]); 6] = [
        (1, &[5, 2, 0, 0, 0, 0, 0, 0, 0, 0]),
        (1, &[5, 16, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, b'h', b'i']),
        (0, &[7, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (0, &[6, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0, 0]),
        (1, &[5, 8, 9, 0, 0, 0, 0, 0, 0, 0]),
        (1, &[6, 0, 9, 0, 0, 0, 0, 0, 0, 0]),
    ];
    let seed = |reliable: u8, count: usize| {
        let mut seed = vec![reliable];
        for (is_sealed, text) in texts.iter().take(count) {
            seed.extend_from_slice(&[*is_sealed, text.len() as u8]);
            seed.extend_from_slice(text);
        }
        seed
    };
    vec![seed(0, 6), seed(1, 5), seed(0, 4)]
}

/// Good inputs for [`fuzz_greeting`].
pub fn greeting_seeds() -> Vec<Vec<u8>> {
    let seed = |reliable: bool| {
        let mut bytes = Vec::new();
        greeting(7, reliable).write(&mut bytes);
        bytes
    };
    vec![seed(false), seed(true)]
}

/// Good inputs for [`fuzz_datagrams`]: what a hub that connects says.
pub fn datagram_seeds() -> Vec<Vec<u8>> {
    [false, true].map(conversation).into()
}

fn conversation(reliable: bool) -> Vec<u8> {
    let (mut here, mut heard) = node(1, NodeSide::Listen, reliable);
    let (mut there, mut answers) = node(3, NodeSide::Connect(HERE), reliable);
    let mut now = Timestamp::START;
    let mut out = [0; 1_200];
    let mut seed = vec![u8::from(reliable)];
    for round in 0..8_u8 {
        if there.subscribers() > 0 {
            let _ = there.publish(&[round; 40]);
            let _ = there.publish(&vec![round; usize::from(round) * 300]);
            there.flush();
        }
        while let Some(sent) = there.poll_transmit(now, &mut out) {
            let datagram = out.get(..sent.bytes).unwrap_or_default();
            if let Ok(length) = u8::try_from(datagram.len()) {
                seed.push(length);
                seed.extend_from_slice(datagram);
            }
            here.handle_datagram(now, THERE, datagram, &mut heard);
        }
        while let Some(sent) = here.poll_transmit(now, &mut out) {
            there.handle_datagram(
                now,
                HERE,
                out.get(..sent.bytes).unwrap_or_default(),
                &mut answers,
            );
        }
        now = now.after(Duration::from_millis(5));
    }
    seed
}
