//! Regions by their names, as the grid's map knows them.

use std::time::Duration;

use tokio::sync::oneshot;
use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::{MapBlockReply, MapNameRequest};
use twinspan_lludp::{AnyMessage, Message, MessageId, Uuid, Var1};

/// Names that are looked up at a time.
pub const LOOKUPS_MAX: usize = 32;
/// How long an answer is waited for.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Metres along a region's side.
const REGION_METRES: u64 = 256;
/// What the map says of regions that are not there.
const ACCESS_NONE: [u8; 2] = [254, 255];

/// Why a region was not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// There is no connection.
    #[error("the client is not connected")]
    NotConnected,
    /// The name is empty, or longer than the protocol has room for.
    #[error("a name of {bytes} bytes, use 1 to 254")]
    Name {
        /// Its length.
        bytes: usize,
    },
    /// As many are looked up as may be at a time.
    #[error("{LOOKUPS_MAX} names are looked up, wait for some")]
    Full,
    /// It could not be asked.
    #[error(transparent)]
    Send(#[from] twinspan_circuit::SendError),
    /// The map has no region of this name.
    #[error("the map has no region of this name")]
    NotFound,
    /// The map did not answer.
    #[error("the map did not answer within {LOOKUP_TIMEOUT:?}")]
    TimedOut,
}

type Reply = oneshot::Sender<Result<u64, LookupError>>;

#[derive(Debug)]
struct Lookup {
    /// In small letters.
    name: String,
    until: Timestamp,
    reply: Reply,
}

/// Names that are looked up.
#[derive(Debug, Default)]
pub(crate) struct Lookups(Vec<Lookup>);

impl Lookups {
    /// Begins one: what is to be sent.
    pub(crate) fn begin(
        &mut self,
        now: Timestamp,
        (agent_id, session_id): (Uuid, Uuid),
        name: &str,
        reply: Reply,
    ) -> Result<AnyMessage, LookupError> {
        if self.0.len() >= LOOKUPS_MAX {
            return Err(LookupError::Full);
        }
        let bytes = name.len();
        let mut ask = MapNameRequest::default();
        ask.agent_data.agent_id = agent_id;
        ask.agent_data.session_id = session_id;
        ask.name_data.name = match Var1::text(name) {
            Ok(name) if bytes > 0 => name,
            _ => return Err(LookupError::Name { bytes }),
        };
        let until = now.after(LOOKUP_TIMEOUT);
        self.0.push(Lookup { name: name.to_lowercase(), until, reply });
        Ok(ask.into())
    }

    /// Takes a message, if it is of the map. Answers name regions whose names only begin so, too.
    pub(crate) fn handle_message(&mut self, id: MessageId, body: &[u8]) {
        if id != MapBlockReply::ID || self.0.is_empty() {
            return;
        }
        let Ok((reply, _)) = MapBlockReply::decode(body) else { return };
        for block in &reply.data {
            let name = block.name.to_text().to_lowercase();
            let metres = |place: u16| u64::from(place) * REGION_METRES;
            let handle = (metres(block.x) << 32) | metres(block.y);
            let is_there = !ACCESS_NONE.contains(&block.access) && handle != 0;
            let outcome = if is_there { Ok(handle) } else { Err(LookupError::NotFound) };
            self.end_where(&outcome, |one| one.name == name);
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        self.end_where(&Err(LookupError::TimedOut), |one| one.until <= now);
    }

    fn end_where(&mut self, outcome: &Result<u64, LookupError>, over: impl Fn(&Lookup) -> bool) {
        while let Some(index) = self.0.iter().position(&over) {
            // Who asked may have gone.
            let _ = self.0.swap_remove(index).reply.send(outcome.clone());
        }
    }

    pub(crate) fn poll_timeout(&self) -> Timestamp {
        self.0.iter().map(|one| one.until).min().unwrap_or(Timestamp::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_lludp::messages::MapBlockReplyData;

    fn begin(lookups: &mut Lookups, name: &str) -> oneshot::Receiver<Result<u64, LookupError>> {
        let (reply, answer) = oneshot::channel();
        let ids = (Uuid::nil(), Uuid::nil());
        assert!(lookups.begin(Timestamp::START, ids, name, reply).is_ok());
        answer
    }

    fn answer(lookups: &mut Lookups, name: &str, access: u8) {
        let mut reply = MapBlockReply::default();
        let name = Var1::text(name).unwrap();
        let block = MapBlockReplyData { x: 1_000, y: 1_001, name, access, ..Default::default() };
        reply.data.push(block);
        let mut body = [0; 512];
        let len = reply.encode(&mut body).unwrap();
        lookups.handle_message(MapBlockReply::ID, &body[..len]);
    }

    #[test]
    fn a_name_has_its_place_on_the_map() {
        let mut lookups = Lookups::default();
        let (mut alpha, mut other) = (begin(&mut lookups, "alpha"), begin(&mut lookups, "Other"));
        answer(&mut lookups, "Alpha", 13);
        assert_eq!(alpha.try_recv(), Ok(Ok((256_000 << 32) | 256_256)));
        answer(&mut lookups, "other", 254);
        assert_eq!(other.try_recv(), Ok(Err(LookupError::NotFound)));
    }

    #[test]
    fn a_map_that_is_silent_is_waited_for_no_longer_than_the_limit() {
        let mut lookups = Lookups::default();
        let mut alpha = begin(&mut lookups, "alpha");
        answer(&mut lookups, "alphabet", 13);
        lookups.handle_timeout(lookups.poll_timeout());
        assert_eq!(alpha.try_recv(), Ok(Err(LookupError::TimedOut)));
        assert_eq!(lookups.poll_timeout(), Timestamp::NEVER);
    }
}
