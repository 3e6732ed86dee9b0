//! What holds for any bytes that come on a stream.

use std::time::Duration;

use twinspan_core::time::Timestamp;

use super::link::Times;
use super::topic::{Topic, TopicConfig};
use super::wire::{Credit, Door, EndReason, Frame, HEAD_BYTES, Kind, Opened, head};
use super::{test_greeting, test_hello};
use crate::compress::Packer;
use crate::report::Compression;

/// Bytes of the longest message of the topic that is fed.
const LONGEST: usize = 1_000;

fn topic() -> Option<Topic> {
    let mut greeting = test_greeting(1, "t");
    greeting.message_bytes_max = LONGEST as u32;
    let config = TopicConfig {
        greeting,
        publishes: true,
        receives: true,
        is_reliable: true,
        message_bytes_max: LONGEST,
        depth: 8,
        history: 4,
        linger: Duration::ZERO,
        times: Times::default(),
    };
    let packer = Packer::new(Compression::Lz4, None, || Duration::ZERO).ok()?;
    Some(Topic::new(config, packer, None))
}

/// Feeds a topic as a peer would: a greeting, then frames. The pieces are as long as the first byte
/// says.
pub(crate) fn run(data: &[u8]) -> String {
    let Some((piece, mut rest)) = data.split_first() else { return String::new() };
    let piece = usize::from(*piece).max(1);
    let mut door = Door::default();
    let theirs = loop {
        let space = match door.space() {
            Ok(space) => space,
            Err(error) => return format!("{error}"),
        };
        let (bytes, behind) = rest.split_at(rest.len().min(piece).min(space.len()));
        if bytes.is_empty() {
            return "a greeting that does not end".to_owned();
        }
        for (place, byte) in space.iter_mut().zip(bytes) {
            *place = *byte;
        }
        rest = behind;
        match door.filled(bytes.len()) {
            Ok(Some(Opened::Hello(hello))) => break hello,
            Ok(Some(Opened::End(reason))) => return format!("{reason:?}"),
            Ok(None) => {}
            Err(error) => return format!("{error}"),
        }
    };
    let Some(mut topic) = topic() else { return String::new() };
    for number in 0..4_u8 {
        let _ = topic.publish(&[number; 100]);
    }
    let ours = topic.hello(Some(theirs.greeting.id));
    match topic.admit(Timestamp::START, &theirs, &ours.standing) {
        Ok(link) => feed(&mut topic, link, rest, piece),
        Err(refusal) => format!("{refusal:?}"),
    }
}

fn feed(topic: &mut Topic, link: super::topic::LinkId, mut rest: &[u8], piece: usize) -> String {
    let mut now = Timestamp::START;
    let (mut told, mut taken, mut written) = (String::new(), 0_u64, 0_u64);
    let mut room = Vec::new();
    while !rest.is_empty() && topic.over(link).is_none() {
        now = now.after(Duration::from_millis(1));
        let Some(space) = topic.space(link) else { break };
        let (bytes, behind) = rest.split_at(rest.len().min(piece).min(space.len()));
        for (place, byte) in space.iter_mut().zip(bytes) {
            *place = *byte;
        }
        rest = behind;
        if let Err(error) = topic.filled(now, link, bytes.len()) {
            told = error.to_string();
        }
        let length: usize = topic.transmit(now, link).iter().map(|piece| piece.len()).sum();
        topic.sent(now, link, length);
        written += length as u64;
        if !told.is_empty() {
            break;
        }
        if taken.is_multiple_of(2) {
            taken += u64::from(topic.take(&mut room).is_some());
            assert!(room.len() <= LONGEST, "a message is longer than the topic takes");
        }
    }
    let stats = topic.stats();
    format!("{told} {taken} {written} {} {}", stats.lost, stats.corrupt)
}

/// A peer that greets and says everything there is to say.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let frames = |piece: u8| {
        let mut bytes = vec![piece];
        test_hello(2, "t").write(&mut bytes);
        Frame::Next(7).write(&mut bytes);
        for body in [&b"a message"[..], b"", &[9; 300]] {
            bytes.extend_from_slice(&head(Kind::Message, body.len()));
            bytes.extend_from_slice(body);
        }
        Frame::Ping(5).write(&mut bytes);
        Frame::Pong(6).write(&mut bytes);
        Frame::Credit(Credit { received: 0, messages: 9, bytes: 9_000 }).write(&mut bytes);
        Frame::Next(20).write(&mut bytes);
        // Twelve zeros by LZ4: a literal, a match that covers itself, the last literals.
        let packed = [1, 12, 0, 0, 0, 0x12, 0, 1, 0, 0x50, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&head(Kind::Packed, packed.len()));
        bytes.extend_from_slice(&packed);
        Frame::End(EndReason::Left).write(&mut bytes);
        bytes
    };
    let refusal = [&[9_u8][..], &head(Kind::End, 1), &[3]].concat();
    debug_assert!(refusal.len() > HEAD_BYTES);
    vec![frames(1), frames(50), frames(255), refusal]
}
