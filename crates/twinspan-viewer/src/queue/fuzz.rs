//! The fuzz body of event queues: answers one after the other.

use std::time::Duration;

use twinspan_core::fuzz::digest;
use twinspan_http::{Bytes, HeaderMap, Response};
use twinspan_llsd::{Form, Value};
use twinspan_lludp::Uuid;

use super::{
    ERROR_WAIT, ERROR_WAIT_STEP, ERRORS_MAX, EVENT_NAME_BYTES_MAX, EVENTS_PER_POLL_MAX, NextPoll,
    PollOutcome, QueuePolicy, circuit_event, poll_body,
};
use crate::fuzz::{parts, status};

/// How long a poll was held, from two bits.
const HELD: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(300), Duration::from_secs(10), Duration::from_secs(60)];

/// Any answers are events, nothing, the end or a failure; the next poll has a bounded wait, and what
/// it acknowledges can be written.
pub(crate) fn fuzz_queue(data: &[u8]) -> u64 {
    let mut policy = QueuePolicy::default();
    let (mut ack, mut seen) = (Value::Undef, 0_u64);
    let mut failures = 0;
    for (head, bytes) in parts(data) {
        assert!(Form::Xml.write(&poll_body(&ack, false)).is_ok(), "an ack that cannot be written");
        let body = Bytes::copy_from_slice(bytes);
        let answer = Response { status: status(head), headers: HeaderMap::new(), body };
        let held = HELD.get(usize::from(head >> 4) % HELD.len()).copied().unwrap_or_default();
        let outcome = PollOutcome::of(Ok(answer));
        let next = policy.after(&outcome, held);
        let mut told = 0_u64;
        if let PollOutcome::Events(batch) = outcome {
            assert!(batch.messages.len() + batch.broken <= EVENTS_PER_POLL_MAX);
            for message in &batch.messages {
                assert!((1..=EVENT_NAME_BYTES_MAX).contains(&message.name.len()));
                let event = circuit_event(message, Uuid::from_u128(1));
                told = told.wrapping_mul(31).wrapping_add(digest(&(&message.name, event)));
            }
            ack = batch.id;
            failures = 0;
        } else {
            failures += 1;
        }
        seen = seen.wrapping_mul(31).wrapping_add(digest(&(&next, told)));
        match next {
            NextPoll::After(wait) => assert!(wait <= ERROR_WAIT + ERROR_WAIT_STEP * ERRORS_MAX),
            NextPoll::Gone => break,
            NextPoll::GivenUp { .. } => {
                assert!(failures > ERRORS_MAX, "given up after {failures} failures");
                break;
            }
        }
    }
    seen
}
