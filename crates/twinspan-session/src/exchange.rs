//! The exchange of fresh X25519 keys inside a session, which both ends mix into their next secrets.
//!
//! ```text
//! client                              server
//! offers, holds its phase  ─────────▶ answers, holds its phase, awaits the mixed one
//! goes to its mixed phase  ◀─────────
//!                          ─────────▶ opens it: the client has the answer, so
//! opens it: done           ◀───────── goes to its own mixed phase
//! ```
//!
//! An end that holds takes no ordinary step, so that each knows from which secret the other's mixed
//! one is made.

use twinspan_core::time::Timestamp;

use crate::frames::Violation;
use crate::identity::KeyPair;
use crate::noise::Secret;
use crate::protection::Role;

/// How far the exchange is at this end.
pub(crate) enum Exchange {
    /// None is under way. A client offers at this time, a server never.
    Resting { due: Timestamp },
    /// Client: waits for the answer.
    Offered(Box<KeyPair>),
    /// Client: both next secrets are mixed; waits for the server's mixed phase.
    Mixing,
    /// Server: this offer waits for a key pair of ours.
    Asked(Box<[u8; 32]>),
    /// Server: waits for the client's mixed phase with our own mixed secret in hand.
    Answered(Box<Secret>),
}

/// A key that travels in a REKEY frame, session 8.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rekey {
    /// The client's fresh public key.
    Offer([u8; 32]),
    /// The server's.
    Answer([u8; 32]),
}

/// What both ends know after the two keys crossed.
pub(crate) struct Agreed {
    pub(crate) shared: Secret,
    pub(crate) offer: [u8; 32],
    pub(crate) answer: [u8; 32],
}

impl Exchange {
    pub(crate) const fn new(role: Role, due: Timestamp) -> Self {
        match role {
            Role::Client => Self::Resting { due },
            Role::Server => Self::Resting { due: Timestamp::NEVER },
        }
    }

    /// Whether the holder shall come with a fresh key pair.
    pub(crate) fn wants_pair(&self, now: Timestamp) -> bool {
        match self {
            Self::Resting { due } => now >= *due,
            Self::Asked(_) => true,
            Self::Offered(_) | Self::Mixing | Self::Answered(_) => false,
        }
    }

    /// When [`wants_pair`](Self::wants_pair) becomes true by time alone.
    pub(crate) const fn deadline(&self) -> Timestamp {
        match self {
            Self::Resting { due } => *due,
            _ => Timestamp::NEVER,
        }
    }

    /// Server: takes an offer.
    pub(crate) fn on_offer(&mut self, offer: [u8; 32]) -> Result<(), Violation> {
        // Only a client rests with a time, and only one exchange is under way at a time.
        if !matches!(self, Self::Resting { due: Timestamp::NEVER }) {
            return Err(Violation);
        }
        *self = Self::Asked(Box::new(offer));
        Ok(())
    }

    /// Client: takes the answer.
    pub(crate) fn on_answer(&mut self, answer: [u8; 32]) -> Result<Agreed, Violation> {
        let Self::Offered(pair) = self else { return Err(Violation) };
        let shared = pair.agree(&answer).ok_or(Violation)?;
        let agreed = Agreed { shared, offer: *pair.public(), answer };
        *self = Self::Mixing;
        Ok(agreed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_taken_by_a_resting_server_alone() {
        let mut server = Exchange::new(Role::Server, Timestamp::START);
        assert!(!server.wants_pair(Timestamp::from_nanos(u64::MAX - 1)), "a server never offers");
        assert_eq!(server.on_offer([1; 32]), Ok(()));
        assert!(server.wants_pair(Timestamp::START));
        assert_eq!(server.on_offer([1; 32]), Err(Violation));
        let mut client = Exchange::new(Role::Client, Timestamp::START);
        assert_eq!(client.on_offer([1; 32]), Err(Violation));
        assert!(client.wants_pair(Timestamp::START));
    }

    #[test]
    fn an_answer_is_taken_once_and_by_who_offered() {
        let mut client = Exchange::new(Role::Client, Timestamp::START);
        let answer = *KeyPair::from_secret(&[3; 32]).public();
        assert!(client.on_answer(answer).is_err());
        client = Exchange::Offered(Box::new(KeyPair::from_secret(&[2; 32])));
        assert!(client.on_answer([0; 32]).is_err(), "a key of small order");
        let agreed = client.on_answer(answer).unwrap();
        assert_eq!(agreed.offer, *KeyPair::from_secret(&[2; 32]).public());
        assert_eq!(agreed.shared, KeyPair::from_secret(&[3; 32]).agree(&agreed.offer).unwrap());
        assert!(client.on_answer(answer).is_err());
    }
}
