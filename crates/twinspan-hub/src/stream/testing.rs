//! Topics as tests have them.

use std::time::Duration;

use super::link::Times;
use super::test_greeting;
use super::topic::{Topic, TopicConfig};
use crate::compress::Packer;
use crate::report::Compression;

/// How an end is set up; it publishes and receives.
#[derive(Clone, Copy)]
pub(super) struct Setup {
    pub(super) id: u8,
    pub(super) is_reliable: bool,
    pub(super) depth: u32,
    pub(super) history: u32,
    /// Bytes of the longest message.
    pub(super) longest: usize,
    pub(super) compression: Compression,
}

impl Setup {
    /// A topic that is set up so.
    pub(super) fn topic(self) -> Topic {
        let mut greeting = test_greeting(self.id, "t");
        greeting.reliable = self.is_reliable;
        greeting.history = self.history;
        greeting.message_bytes_max = u32::try_from(self.longest).unwrap();
        let config = TopicConfig {
            greeting,
            publishes: true,
            receives: true,
            is_reliable: self.is_reliable,
            message_bytes_max: self.longest,
            depth: self.depth,
            history: self.history,
            linger: Duration::ZERO,
            times: Times::default(),
        };
        let packer = Packer::new(self.compression, None, || Duration::ZERO).unwrap();
        Topic::new(config, packer, None)
    }
}

/// A message that tells its number, of a length that follows from it.
pub(super) fn body(number: u64) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(8 + (number * 37 % 900) as usize, number as u8);
    body
}
