//! Fuzz bodies of the replication codec: what holds for any bytes.

use twinspan_core::fuzz::{Body, digest};

use crate::event::{ClientEvent, EVENT_BYTES_MAX, ServerEvent};
use crate::{InputBundle, REPLICA_ENTITIES_MAX, Replica};

/// Every body by its name.
pub const TARGETS: &[(&str, Body)] =
    &[("world-state", fuzz_state), ("world-input", fuzz_input), ("world-event", fuzz_event)];

/// Any bytes, cut into messages by length bytes, are states or change nothing.
pub fn fuzz_state(data: &[u8]) -> u64 {
    let mut replica = Replica::new();
    let mut result = digest(&replica.apply(data));
    // The same bytes as several messages: the second meets what the first left.
    let mut rest = data;
    while let Some((len, behind)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_le_bytes(*len)).min(behind.len());
        let (message, next) = behind.split_at(len);
        let before = replica.entities().count();
        let applied = replica.apply(message);
        let after = replica.entities().count();
        assert!(applied.is_ok() || before == after, "a refused state changed the replica");
        assert!(after <= REPLICA_ENTITIES_MAX, "more entities than a replica holds");
        result = digest(&(result, applied));
        rest = next;
    }
    result
}

/// Any bytes are inputs or name a reason.
pub fn fuzz_input(data: &[u8]) -> u64 {
    digest(&InputBundle::decode(data))
}

/// Any bytes are events of each side or name a reason; one that was read is written the same.
pub fn fuzz_event(data: &[u8]) -> u64 {
    let (client, server) = (ClientEvent::decode(data), ServerEvent::decode(data));
    let mut bytes = [0; EVENT_BYTES_MAX];
    if let Ok(event) = &client {
        let len = event.encode(&mut bytes).unwrap_or(0);
        assert_eq!(bytes.get(..len), Some(data), "an event was written anew");
    }
    if let Ok(event) = &server {
        let len = event.encode(&mut bytes).unwrap_or(0);
        assert_eq!(ServerEvent::decode(&bytes[..len]).as_ref(), Ok(event));
    }
    digest(&(client, server))
}
