//! Avatars that wait for a seat.

use std::time::Duration;

use tokio::sync::oneshot;
use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::AvatarSitResponse;
use twinspan_lludp::{Message, MessageId, Uuid};

/// Seats that are waited for at a time.
pub const SEATS_WAITED_FOR_MAX: usize = 8;
/// How long a region may take to offer a seat.
pub const SEAT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why an avatar does not sit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SeatError {
    /// There is no connection, or it ended.
    #[error("the client is not connected")]
    NotConnected,
    /// As many seats are waited for as may be.
    #[error("{SEATS_WAITED_FOR_MAX} seats are waited for, wait for some")]
    Full,
    /// The region offered none: there is no such object here, or it is taken or too far away.
    #[error("the region offered no seat on it within {SEAT_TIMEOUT:?}")]
    NotOffered,
}

pub(crate) type SeatReply = oneshot::Sender<Result<(), SeatError>>;

#[derive(Debug)]
struct Waiting {
    object: Uuid,
    until: Timestamp,
    reply: SeatReply,
}

/// Seats that are waited for.
#[derive(Debug, Default)]
pub(crate) struct SeatsWaitedFor(Vec<Waiting>);

impl SeatsWaitedFor {
    pub(crate) fn begin(
        &mut self,
        now: Timestamp,
        object: Uuid,
        reply: SeatReply,
    ) -> Result<(), SeatError> {
        if self.0.len() >= SEATS_WAITED_FOR_MAX {
            return Err(SeatError::Full);
        }
        self.0.push(Waiting { object, until: now.after(SEAT_TIMEOUT), reply });
        Ok(())
    }

    /// Takes a message, if it offers a seat.
    pub(crate) fn handle_message(&mut self, id: MessageId, body: &[u8]) {
        if id != AvatarSitResponse::ID || self.0.is_empty() {
            return;
        }
        let Ok((offer, _)) = AvatarSitResponse::decode(body) else { return };
        self.end_where(Ok(()), |waiting| waiting.object == offer.sit_object.id);
    }

    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        self.end_where(Err(SeatError::NotOffered), |waiting| waiting.until <= now);
    }

    fn end_where(&mut self, outcome: Result<(), SeatError>, over: impl Fn(&Waiting) -> bool) {
        while let Some(index) = self.0.iter().position(&over) {
            // Who asked may have gone.
            let _ = self.0.swap_remove(index).reply.send(outcome);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Timestamp {
        self.0.iter().map(|waiting| waiting.until).min().unwrap_or(Timestamp::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_waited_for_until_it_is_offered_or_too_late() {
        let mut seats = SeatsWaitedFor::default();
        let [bench, stone] = [1, 2].map(Uuid::from_u128);
        let mut begin = |object| {
            let (reply, answer) = oneshot::channel();
            (seats.begin(Timestamp::START, object, reply), answer)
        };
        let ((_, mut one), (_, mut two)) = (begin(bench), begin(stone));
        for _ in 2..SEATS_WAITED_FOR_MAX {
            assert!(begin(stone).0.is_ok());
        }
        assert_eq!(begin(stone).0, Err(SeatError::Full));
        let mut offer = AvatarSitResponse::default();
        offer.sit_object.id = bench;
        let mut body = [0; 128];
        let len = offer.encode(&mut body).unwrap();
        seats.handle_message(AvatarSitResponse::ID, &body[..len]);
        assert_eq!(one.try_recv(), Ok(Ok(())));
        assert!(two.try_recv().is_err());
        let end = seats.poll_timeout();
        assert_eq!(end, Timestamp::START.after(SEAT_TIMEOUT));
        seats.handle_timeout(end);
        assert_eq!(two.try_recv(), Ok(Err(SeatError::NotOffered)));
        assert_eq!(seats.poll_timeout(), Timestamp::NEVER);
    }
}
