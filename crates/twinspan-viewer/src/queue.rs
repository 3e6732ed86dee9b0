//! Event queues: long polls by HTTP, one at a time for each region, and what their answers mean.
//!
//! Real servers hold a request until there is something to tell, and then until they or something
//! in front of them loses patience. So most failures mean "nothing happened": the table of them is
//! [`QueuePolicy`].

mod events;
#[cfg(feature = "fuzz")]
mod fuzz;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use twinspan_http::{HttpError, Response, StatusCode};
use twinspan_llsd::{Limits, Map, ParseError, Value};

pub use events::{EventError, circuit_event};
#[cfg(feature = "fuzz")]
pub(crate) use fuzz::fuzz_queue;

/// How long an answer is waited for: longer than any server holds a request.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(90);
/// A failure after at least this time means that nothing happened.
pub const HELD_MIN: Duration = Duration::from_secs(10);
/// Failures in a row after which a queue is given up.
pub const ERRORS_MAX: u32 = 10;
/// How long to wait after a failure, and how much longer after each further one.
pub const ERROR_WAIT: Duration = Duration::from_secs(15);
/// How much longer after each further failure.
pub const ERROR_WAIT_STEP: Duration = Duration::from_secs(5);
/// An answer without events that comes sooner than this is followed by a pause until then.
pub const EMPTY_PACE: Duration = Duration::from_secs(1);
/// An answer with events that comes sooner than this is followed by a pause until then: no more
/// than 20 answers a second are read.
pub const BUSY_PACE: Duration = Duration::from_millis(50);
/// Bytes of an answer.
pub const POLL_BYTES_MAX: usize = 4 << 20;
/// Values of an answer, containers included, and keys: tiny ones take many times their bytes.
pub const POLL_ELEMENTS_MAX: usize = 65_536;
/// Events of one answer.
pub const EVENTS_PER_POLL_MAX: usize = 4_096;
/// Characters of an event's name.
pub const EVENT_NAME_BYTES_MAX: usize = 128;

/// One message from an event queue. Contents may have seeds in them: `Debug` shows the name alone.
#[derive(Clone, PartialEq)]
pub struct QueueMessage {
    /// Its name.
    pub name: String,
    /// Its content, as it came.
    pub body: Value,
}

impl fmt::Debug for QueueMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueMessage").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The content of a message from an event queue: reads as its [`Value`]. It may have seeds in it,
/// and `Debug` shows nothing of it. Clones share it.
#[derive(Clone, PartialEq)]
pub struct QueueBody {
    value: Arc<Value>,
    /// Bytes of memory that it takes, more or less.
    bytes: usize,
}

impl QueueBody {
    pub(crate) fn new(body: Value) -> Self {
        Self { bytes: memory_of(&body), value: Arc::new(body) }
    }

    /// Bytes of memory that it takes, more or less.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Bytes of memory that a value takes. It is as deep as LLSD that is read may be.
fn memory_of(value: &Value) -> usize {
    /// What a map takes for its first entries, and for so many more; its nodes are half full at
    /// least.
    const NODE: (usize, usize) = (768, 5);
    let beyond = match value {
        Value::String(text) => text.capacity(),
        Value::Binary(bytes) => bytes.capacity(),
        Value::Uri(uri) => uri.0.capacity(),
        Value::Array(values) => {
            let spare = (values.capacity() - values.len()) * size_of::<Value>();
            spare + values.iter().map(memory_of).sum::<usize>()
        }
        Value::Map(map) => {
            let nodes = if map.is_empty() { 0 } else { 1 + map.len() / NODE.1 };
            let entries = map.iter().map(|(key, value)| key.len() + memory_of(value));
            nodes * NODE.0 + entries.sum::<usize>()
        }
        _ => 0,
    };
    size_of::<Value>() + beyond
}

impl Deref for QueueBody {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.value
    }
}

impl fmt::Debug for QueueBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueueBody")
    }
}

/// Why an answer of a queue cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// It is no LLSD.
    #[error(transparent)]
    Llsd(#[from] ParseError),
    /// It is no map with events.
    #[error("no map with `events` and `id`")]
    Shape,
    /// It has more events than the limit.
    #[error("more than {EVENTS_PER_POLL_MAX} events")]
    TooMany,
}

/// What an answer has in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The events, oldest first. What is none is left out and counted.
    pub messages: Vec<QueueMessage>,
    /// Entries that were no events.
    pub broken: usize,
    /// What the next request acknowledges; opaque.
    pub id: Value,
}

impl Batch {
    /// Reads an answer.
    ///
    /// # Errors
    /// [`BatchError`]
    pub fn read(bytes: &[u8]) -> Result<Self, BatchError> {
        let limits = Limits {
            bytes_max: POLL_BYTES_MAX,
            elements_max: POLL_ELEMENTS_MAX,
            ..Limits::DEFAULT
        };
        let Value::Map(mut map) = twinspan_llsd::parse_any(bytes, &limits)? else {
            return Err(BatchError::Shape);
        };
        let (Some(Value::Array(events)), Some(id)) = (map.remove("events"), map.remove("id"))
        else {
            return Err(BatchError::Shape);
        };
        if events.len() > EVENTS_PER_POLL_MAX {
            return Err(BatchError::TooMany);
        }
        let all = events.len();
        let messages: Vec<QueueMessage> = events.into_iter().filter_map(message).collect();
        Ok(Self { broken: all - messages.len(), messages, id })
    }
}

fn message(event: Value) -> Option<QueueMessage> {
    let Value::Map(mut event) = event else { return None };
    let name = event.remove("message")?;
    let name = name.as_text().filter(|name| (1..=EVENT_NAME_BYTES_MAX).contains(&name.len()))?;
    Some(QueueMessage { name: name.to_owned(), body: event.remove("body").unwrap_or_default() })
}

/// The body of a request: what is acknowledged (undef at first), and whether it is the last.
pub fn poll_body(ack: &Value, done: bool) -> Value {
    let mut map = Map::new();
    map.insert("ack".into(), ack.clone());
    map.insert("done".into(), done.into());
    Value::Map(map)
}

/// What came of one poll.
#[derive(Clone, Debug, PartialEq)]
pub enum PollOutcome {
    /// There are events.
    Events(Batch),
    /// Nothing happened, or something in front of the server lost patience.
    Nothing,
    /// The queue is gone: the agent left the region.
    Gone,
    /// It failed, for this reason.
    Failed(String),
}

impl PollOutcome {
    /// What an answer means.
    pub fn of(answer: Result<Response, HttpError>) -> Self {
        match answer {
            Ok(response) => match response.status.as_u16() {
                // Types vary and are often wrong: the content decides.
                200..=299 => match Batch::read(&response.body) {
                    Ok(batch) => Self::Events(batch),
                    Err(error) => Self::Failed(error.to_string()),
                },
                404 => Self::Gone,
                499 | 500 | 502 | 503 | 504 => Self::Nothing,
                _ => Self::Failed(status_text(response.status)),
            },
            Err(error) if error.is_timeout() => Self::Nothing,
            Err(error) => Self::Failed(error.to_string()),
        }
    }
}

fn status_text(status: StatusCode) -> String {
    format!("status {status}")
}

/// When the next poll is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextPoll {
    /// After this time, which may be none.
    After(Duration),
    /// Never: the queue is gone, which is how they end.
    Gone,
    /// Never: it failed too often.
    GivenUp {
        /// What the last failure was.
        last: String,
    },
}

/// What to do after each answer: the whole table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuePolicy {
    /// Failures in a row.
    errors: u32,
}

impl QueuePolicy {
    /// What follows an answer that came this long after its request.
    pub fn after(&mut self, outcome: &PollOutcome, held: Duration) -> NextPoll {
        match outcome {
            PollOutcome::Events(batch) => {
                self.errors = 0;
                let pace = if batch.messages.is_empty() { EMPTY_PACE } else { BUSY_PACE };
                NextPoll::After(pace.saturating_sub(held))
            }
            PollOutcome::Gone => NextPoll::Gone,
            // Whatever it was, it was held: there was nothing to tell.
            PollOutcome::Nothing if held >= HELD_MIN => {
                self.errors = 0;
                NextPoll::After(Duration::ZERO)
            }
            PollOutcome::Nothing => self.fail("answered at once that nothing happened"),
            PollOutcome::Failed(reason) => self.fail(reason),
        }
    }

    fn fail(&mut self, reason: &str) -> NextPoll {
        self.errors += 1;
        if self.errors > ERRORS_MAX {
            return NextPoll::GivenUp { last: reason.to_owned() };
        }
        NextPoll::After(ERROR_WAIT + ERROR_WAIT_STEP * self.errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_http::{Bytes, HeaderMap};

    const LONG: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_millis(5);

    fn answer(status: u16, body: &str) -> PollOutcome {
        PollOutcome::of(Ok(Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }))
    }

    const ONE: &str = "<llsd><map><key>events</key><array><map><key>message</key>\
        <string>EnableSimulator</string><key>body</key><map/></map><undef/></array>\
        <key>id</key><integer>11405771</integer></map></llsd>";

    #[test]
    fn an_answer_has_events_and_an_id() {
        let PollOutcome::Events(batch) = answer(200, ONE) else { panic!("events") };
        assert_eq!((batch.messages.len(), batch.broken), (1, 1));
        assert_eq!(batch.messages[0].name, "EnableSimulator");
        assert_eq!(batch.id, Value::Integer(11_405_771));
        let body = poll_body(&batch.id, false);
        assert_eq!(body.get("ack"), Some(&Value::Integer(11_405_771)));
    }

    #[test]
    fn the_whole_table() {
        let mut policy = QueuePolicy::default();
        let now = NextPoll::After(Duration::ZERO);
        assert_eq!(policy.after(&answer(200, ONE), LONG), now);
        assert_eq!(policy.after(&answer(200, ONE), SHORT), NextPoll::After(BUSY_PACE - SHORT));
        for status in [499, 500, 502, 503, 504] {
            assert_eq!(policy.after(&answer(status, ""), LONG), now, "{status} after a while");
            let at_once = QueuePolicy::default().after(&answer(status, ""), SHORT);
            assert_eq!(at_once, NextPoll::After(Duration::from_secs(20)), "{status} at once");
        }
        assert_eq!(policy.after(&answer(404, ""), SHORT), NextPoll::Gone);
        let strange = QueuePolicy::default().after(&answer(403, ""), LONG);
        assert_eq!(strange, NextPoll::After(Duration::from_secs(20)));
        let broken = QueuePolicy::default().after(&answer(200, "<html>"), LONG);
        assert_eq!(broken, NextPoll::After(Duration::from_secs(20)));
    }

    #[test]
    fn ten_failures_in_a_row_are_borne_and_one_success_forgets_them() {
        let mut policy = QueuePolicy::default();
        let failed = PollOutcome::Failed("refused".into());
        for errors in 1..=9_u64 {
            let wait = Duration::from_secs(15 + 5 * errors);
            assert_eq!(policy.after(&failed, SHORT), NextPoll::After(wait));
        }
        policy.after(&answer(200, ONE), SHORT);
        for _ in 0..ERRORS_MAX {
            assert!(matches!(policy.after(&failed, SHORT), NextPoll::After(_)));
        }
        let end = policy.after(&failed, SHORT);
        assert_eq!(end, NextPoll::GivenUp { last: "refused".into() });
    }

    #[test]
    fn empty_answers_do_not_come_in_a_storm() {
        let empty = "<llsd><map><key>events</key><array/><key>id</key><integer/></map></llsd>";
        let next = QueuePolicy::default().after(&answer(200, empty), Duration::from_millis(300));
        assert_eq!(next, NextPoll::After(Duration::from_millis(700)));
    }

    #[test]
    fn tiny_values_count_with_the_memory_that_they_take() {
        let one = || Value::map([("k", Value::Undef)]);
        let maps = Value::Array((0..1_000).map(|_| one()).collect());
        let written = twinspan_llsd::Form::Binary.write(&maps).unwrap().len();
        let bytes = QueueBody::new(maps).bytes();
        assert!(bytes > 500_000 && bytes > 20 * written, "{bytes} bytes of {written}");
        let text = QueueBody::new(Value::from("x".repeat(100_000))).bytes();
        assert!((100_000..100_100).contains(&text), "{text} bytes");
        let most = Value::Array(vec![Value::Undef; POLL_ELEMENTS_MAX + 1]);
        let answer = Value::map([("events", most), ("id", 1.into())]);
        let read = Batch::read(&twinspan_llsd::Form::Binary.write(&answer).unwrap());
        assert!(matches!(read, Err(BatchError::Llsd(_))), "too many values");
    }

    #[test]
    fn what_a_queue_says_is_shown_nowhere() {
        let body = Value::map([("seed-capability", "http://grid/CAPS/secret".into())]);
        let message = QueueMessage { name: "TeleportFinish".into(), body: body.clone() };
        let batch = Batch { messages: vec![message], broken: 0, id: Value::Undef };
        let shown = format!("{:?} {:?}", PollOutcome::Events(batch), QueueBody::new(body));
        assert!(!shown.contains("secret"), "{shown}");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_batch_or_name_a_reason(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..256),
        ) {
            if let Err(error) = Batch::read(&bytes) {
                assert!(!error.to_string().is_empty());
            }
        }
    }
}
