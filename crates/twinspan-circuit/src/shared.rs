//! What all circuits of a set work with: space, spare buffers, and what there is to tell.

use core::net::SocketAddr;
use std::collections::VecDeque;

use twinspan_lludp::{Encoder, Flags, MessageId, PAYLOAD_BYTES_MAX, Sequence, WriteError};

use crate::config::Config;
use crate::message::{CircuitEvent, DeliveryId, Outcome, SendError};

/// Buffers that are kept for the next message.
const SPARE_BUFFERS_MAX: usize = 512;
/// Longer ones are not kept.
const SPARE_BYTES_MAX: usize = 2_048;

/// Buffers that wait to be used again.
#[derive(Debug, Default)]
pub(crate) struct Spare(Vec<Vec<u8>>);

impl Spare {
    /// An empty buffer.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    pub(crate) fn put(&mut self, mut buffer: Vec<u8>) {
        if self.0.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= SPARE_BYTES_MAX {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

/// Messages that were sent together and of which some have no outcome yet.
#[derive(Clone, Copy, Debug)]
struct Group {
    id: DeliveryId,
    left: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) encoder: Encoder,
    /// Where payloads are expanded.
    pub(crate) space: Box<[u8; PAYLOAD_BYTES_MAX]>,
    pub(crate) spare: Spare,
    /// Messages whose order was asked for, and how often.
    pub(crate) ordered: Vec<(MessageId, u32)>,
    pub(crate) events: VecDeque<CircuitEvent>,
    groups: Vec<Group>,
    next_delivery: u64,
}

/// Marks the ids of groups, so that what is left of a group that failed tells nothing.
const GROUP_BIT: u64 = 1;

impl Shared {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            encoder: Encoder::default(),
            space: Box::new([0; PAYLOAD_BYTES_MAX]),
            spare: Spare::default(),
            ordered: Vec::new(),
            events: VecDeque::new(),
            groups: Vec::new(),
            next_delivery: 0,
        }
    }

    pub(crate) fn is_ordered(&self, id: MessageId) -> bool {
        self.ordered.iter().any(|(of, _)| *of == id)
    }

    pub(crate) fn recycle(&mut self, buffer: Vec<u8>) {
        self.spare.put(buffer);
    }

    /// A name for `count` messages that are sent together.
    pub(crate) fn delivery(&mut self, count: usize) -> DeliveryId {
        self.next_delivery += 1;
        let group = count > 1;
        let id = DeliveryId((self.next_delivery << 1) | u64::from(group));
        if group {
            self.groups.push(Group { id, left: count });
        }
        id
    }

    /// What became of one message; told when its group is through, if it has one.
    pub(crate) fn tell(&mut self, addr: SocketAddr, id: Option<DeliveryId>, outcome: Outcome) {
        let Some(id) = id else { return };
        if id.0 & GROUP_BIT != 0 {
            let Some(index) = self.groups.iter().position(|group| group.id == id) else { return };
            let Some(group) = self.groups.get_mut(index) else { return };
            group.left -= 1;
            if matches!(outcome, Outcome::Acked { .. }) && group.left > 0 {
                return;
            }
            self.groups.swap_remove(index);
        }
        self.events.push_back(CircuitEvent::Delivery { addr, id, outcome });
    }

    /// Writes a message as a packet with number 0 into a spare buffer, by `encode`.
    pub(crate) fn packet(
        &mut self,
        flags: Flags,
        encode: impl FnOnce(&mut Encoder, &mut [u8], Flags, Sequence) -> Result<usize, WriteError>,
    ) -> Result<Vec<u8>, SendError> {
        let max = self.config.datagram_bytes_max;
        let mut buffer = self.spare.take();
        buffer.resize(max, 0);
        match encode(&mut self.encoder, &mut buffer, flags, Sequence(0)) {
            Ok(len) => {
                buffer.truncate(len);
                Ok(buffer)
            }
            Err(error) => {
                self.spare.put(buffer);
                Err(match error {
                    WriteError::Message(error) => SendError::Message(error),
                    _ => SendError::TooLong { max: self.config.message_bytes_max() },
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    const ACKED: Outcome = Outcome::Acked { elapsed: Duration::ZERO };

    fn told(shared: &mut Shared) -> Vec<(DeliveryId, Outcome)> {
        let told = shared.events.drain(..).filter_map(|event| match event {
            CircuitEvent::Delivery { id, outcome, .. } => Some((id, outcome)),
            _ => None,
        });
        told.collect()
    }

    #[test]
    fn a_group_is_acknowledged_when_its_last_message_is() {
        let mut shared = Shared::new(Config::default());
        let addr = ([127, 0, 0, 1], 9).into();
        let (one, three) = (shared.delivery(1), shared.delivery(3));
        shared.tell(addr, Some(three), ACKED);
        shared.tell(addr, Some(one), ACKED);
        shared.tell(addr, None, ACKED);
        shared.tell(addr, Some(three), ACKED);
        assert_eq!(told(&mut shared), [(one, ACKED)]);
        shared.tell(addr, Some(three), ACKED);
        assert_eq!(told(&mut shared), [(three, ACKED)]);
    }

    #[test]
    fn a_group_fails_once_and_with_its_first_failure() {
        let mut shared = Shared::new(Config::default());
        let addr = ([127, 0, 0, 1], 9).into();
        let group = shared.delivery(3);
        let lost = Outcome::TimedOut { resends: Some(3) };
        shared.tell(addr, Some(group), lost);
        shared.tell(addr, Some(group), Outcome::Closed);
        shared.tell(addr, Some(group), ACKED);
        assert_eq!(told(&mut shared), [(group, lost)]);
        assert!(shared.groups.is_empty());
    }
}
