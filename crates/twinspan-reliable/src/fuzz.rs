//! Fuzz bodies of the reliability engine: what holds for any frames.

use core::time::Duration;

use twinspan_core::bytes::Reader;
use twinspan_core::fuzz::{Body, digest};
use twinspan_core::time::Timestamp;

use crate::{Channel, Config, Fragment, InFrame, Receiver};

/// Every body by its name.
pub const TARGETS: &[(&str, Body)] = &[("reliable-fragments", fuzz_fragments)];

/// Any frames in any order are delivered, kept or refused, and what is kept stays within credit.
///
/// The bytes are frames one behind the other: channel u8, number u16, index u8, last u8 (255: no
/// fragment), length u8, that many bytes.
pub fn fuzz_fragments(data: &[u8]) -> u64 {
    let config = Config::default();
    let limit = config.credit_bytes + config.partial_bytes_max as u64;
    let mut receiver = Receiver::new(&config);
    let mut reader = Reader::new(data);
    let mut now = Timestamp::START;
    let mut result = 0;
    while let Ok([channel, n0, n1, index, last, len]) = reader.array() {
        let Ok(body) = reader.take(usize::from(len).min(reader.rest().len())) else { break };
        let fragment = (last != u8::MAX).then_some(Fragment { index, last });
        let number = u16::from_le_bytes([n0, n1]);
        let frame = InFrame { channel: Channel::from_byte(channel), number, fragment, body };
        let mut delivered = 0;
        let taken = receiver.handle_frame(now, frame, &mut |channel, message| {
            assert!(message.len() <= config.message_bytes_max, "a message over the limit");
            delivered = digest(&(delivered, channel, message));
        });
        result = digest(&(result, taken, delivered, receiver.poll_credit()));
        let kept = receiver.held_bytes();
        assert!(kept <= limit, "{kept} bytes are kept where {limit} are allowed");
        now = now.after(Duration::from_millis(u64::from(index)));
        receiver.handle_timeout(now);
    }
    result
}
