//! Resume tickets: what lets a client that was lost back in without the login service.

use core::fmt;
use core::time::Duration;
use std::net::SocketAddr;

use twinspan_core::bytes::{ReadError, Reader};
use twinspan_core::random::SecretSource;
use zeroize::Zeroizing;

use crate::identity::{PublicKey, TokenKey, UserId};
use crate::noise::Secret;
use crate::token::{
    ConnectToken, PRIVATE_PART_BYTES, PRIVATE_REST_BYTES, PUBLIC_PART_BYTES, PrivatePart,
    PublicPart, seal,
};

/// Bytes of a ticket in an ACCEPT: psk, public part, private part.
pub(crate) const TICKET_BYTES: usize = 32 + PUBLIC_PART_BYTES + PRIVATE_PART_BYTES;

/// Bytes of a ticket in a TICKET frame: the same, then the server's public key.
pub(crate) const RENEWAL_BYTES: usize = TICKET_BYTES + 32;

/// Where a ticket comes from, session 2.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The run of the server that issued it.
    pub(crate) run: u64,
    /// The id of the first ticket of the session that it came with: all of a session's tickets
    /// name it, and one of them at most lets in.
    pub(crate) root: [u8; 16],
}

impl Origin {
    pub(crate) fn of(private: &PrivatePart) -> Self {
        let [a, b, c, d, e, f, g, h, root @ ..] = private.rest;
        Self { run: u64::from_le_bytes([a, b, c, d, e, f, g, h]), root }
    }

    fn to_rest(self) -> [u8; PRIVATE_REST_BYTES] {
        let mut rest = [0; PRIVATE_REST_BYTES];
        let bytes = self.run.to_le_bytes().into_iter().chain(self.root);
        rest.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte);
        rest
    }
}

/// What a TICKET frame carries, session 3.13: a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Renewal<'a>(pub(crate) &'a [u8; RENEWAL_BYTES]);

impl Renewal<'_> {
    /// The ticket, and the public key of the server that will take it.
    pub(crate) fn read(self) -> Result<(Ticket, PublicKey), ReadError> {
        let mut reader = Reader::new(self.0);
        let ticket = Ticket::read(&mut reader)?;
        Ok((ticket, PublicKey::from_bytes(reader.array()?)))
    }
}

impl fmt::Debug for Renewal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewal(..)")
    }
}

/// A ticket as a server issues it.
#[derive(Clone)]
pub(crate) struct Ticket {
    pub(crate) psk: Secret,
    pub(crate) public: [u8; PUBLIC_PART_BYTES],
    pub(crate) private: [u8; PRIVATE_PART_BYTES],
}

/// What a ticket is issued for.
pub(crate) struct TicketOrder<'a> {
    pub(crate) key: (&'a TokenKey, u32),
    pub(crate) server_key_id: u32,
    /// The id of the token, or ticket, that it follows.
    pub(crate) follows: &'a [u8; 16],
    pub(crate) user: UserId,
    /// The run of the server that issues it.
    pub(crate) run: u64,
    /// The first ticket of the session; `None` for the first itself.
    pub(crate) root: Option<[u8; 16]>,
    pub(crate) expires_at_unix_s: u64,
}

impl Ticket {
    /// Makes a ticket; with it, its public part.
    pub(crate) fn issue(
        order: &TicketOrder<'_>,
        secrets: &mut dyn SecretSource,
    ) -> Option<(Self, PublicPart)> {
        let mut id = *order.follows;
        let mut psk = Secret::new([0; 32]);
        // The first four bytes stay: handshakes are steered by them, and only the shard that holds
        // the session can know what became of it.
        secrets.fill(id.get_mut(4..)?);
        secrets.fill(psk.as_mut_slice());
        let (key, token_key_id) = order.key;
        let public = PublicPart {
            id,
            expires_at_unix_s: order.expires_at_unix_s,
            token_key_id,
            server_key_id: order.server_key_id,
        };
        let origin = Origin { run: order.run, root: order.root.unwrap_or(id) };
        let private = PrivatePart { psk, user: order.user, rest: origin.to_rest() };
        let bytes = public.to_bytes();
        let sealed = seal(key, &bytes, &private)?;
        Some((Self { psk: private.psk, public: bytes, private: sealed }, public))
    }

    pub(crate) fn to_bytes(&self) -> Zeroizing<[u8; TICKET_BYTES]> {
        let mut out = Zeroizing::new([0; TICKET_BYTES]);
        let bytes = self.psk.iter().chain(&self.public).chain(&self.private);
        out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = *byte);
        out
    }

    /// The body of a TICKET frame.
    pub(crate) fn to_renewal(&self, server_key: PublicKey) -> Zeroizing<[u8; RENEWAL_BYTES]> {
        let mut out = Zeroizing::new([0; RENEWAL_BYTES]);
        let ticket = self.to_bytes();
        let bytes = ticket.iter().chain(server_key.as_bytes());
        out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = *byte);
        out
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        Ok(Self {
            psk: Secret::new(reader.array()?),
            public: reader.array()?,
            private: reader.array()?,
        })
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

/// What lets a client whose session was lost back in, once and for a while: a secret.
///
/// A server gives one with every session, in its ACCEPT, and another in its place long before that
/// one expires; see [`ClientSession::ticket`](crate::ClientSession::ticket).
#[derive(Clone)]
pub struct ResumeTicket {
    token: ConnectToken,
    window: Duration,
}

impl ResumeTicket {
    pub(crate) fn new(
        ticket: &Ticket,
        server: SocketAddr,
        server_key: PublicKey,
        user: UserId,
        window: Duration,
    ) -> Option<Self> {
        let public = PublicPart::parse(&ticket.public).ok()?;
        let psk = ticket.psk.clone();
        let token = ConnectToken::of_parts(server, server_key, psk, user, public, ticket.private);
        Some(Self { token, window })
    }

    /// For how long after the session was lost the server takes it.
    pub const fn window(&self) -> Duration {
        self.window
    }

    /// Where the server that issued it is.
    pub const fn server_addr(&self) -> SocketAddr {
        self.token.server_addr()
    }

    /// Whom it lets in.
    pub const fn user(&self) -> UserId {
        self.token.user()
    }

    /// When it expires at the latest, in seconds since 1970.
    pub const fn expires_at_unix_s(&self) -> u64 {
        self.token.expires_at_unix_s()
    }

    /// It stands where a token stands.
    pub(crate) const fn as_token(&self) -> &ConnectToken {
        &self.token
    }
}

impl fmt::Debug for ResumeTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResumeTicket")
            .field("server", &self.server_addr())
            .field("user", &self.user())
            .field("expires_at_unix_s", &self.expires_at_unix_s())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::open;
    use twinspan_core::random::Stream;

    const RUN: u64 = 0x0102_0304_0506_0708;

    fn issued() -> (Ticket, PublicPart) {
        let key = TokenKey::from_bytes([5; 32]).ticket_key();
        let order = TicketOrder {
            key: (&key, key.key_id()),
            server_key_id: 9,
            follows: &[7; 16],
            user: UserId(77),
            run: RUN,
            root: None,
            expires_at_unix_s: 2_000_000_000,
        };
        Ticket::issue(&order, &mut Stream::new(1, "secrets", 0)).unwrap()
    }

    #[test]
    fn a_ticket_follows_its_tokens_shard_and_opens_under_the_ticket_key_alone() {
        let (ticket, PublicPart { id, .. }) = issued();
        assert_eq!(id[..4], [7; 4]);
        assert_ne!(id[4..], [7; 12]);
        let key = TokenKey::from_bytes([5; 32]);
        assert!(open(&key, &ticket.public, &ticket.private).is_none(), "a token key opens none");
        let private = open(&key.ticket_key(), &ticket.public, &ticket.private).unwrap();
        assert_eq!(
            (private.user, Origin::of(&private)),
            (UserId(77), Origin { run: RUN, root: id })
        );
        assert_eq!(private.psk, ticket.psk);
    }

    #[test]
    fn a_ticket_survives_its_bytes() {
        let (ticket, _) = issued();
        let again = Ticket::read(&mut Reader::new(ticket.to_bytes().as_slice())).unwrap();
        assert_eq!(again.to_bytes(), ticket.to_bytes());
        let key = PublicKey::from_bytes([6; 32]);
        let (again, with) = Renewal(&ticket.to_renewal(key)).read().unwrap();
        assert_eq!((again.to_bytes(), with), (ticket.to_bytes(), key));
    }

    #[test]
    fn later_tickets_of_a_session_name_its_first() {
        let key = TokenKey::from_bytes([5; 32]).ticket_key();
        let order = TicketOrder {
            key: (&key, key.key_id()),
            server_key_id: 9,
            follows: &[7; 16],
            user: UserId(77),
            run: RUN,
            root: Some([8; 16]),
            expires_at_unix_s: 2_000_000_000,
        };
        let (ticket, _) = Ticket::issue(&order, &mut Stream::new(1, "secrets", 0)).unwrap();
        let private = open(&key, &ticket.public, &ticket.private).unwrap();
        assert_eq!(Origin::of(&private), Origin { run: RUN, root: [8; 16] });
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let server = SocketAddr::from(([192, 0, 2, 1], 7_700));
        let key = PublicKey::from_bytes([6; 32]);
        let ticket =
            ResumeTicket::new(&issued().0, server, key, UserId(77), Duration::from_secs(30))
                .unwrap();
        assert_eq!(format!("{:?}", issued().0), "Ticket { .. }");
        assert_eq!(format!("{:?}", Renewal(&[9; RENEWAL_BYTES])), "Renewal(..)");
        assert_eq!(
            format!("{ticket:?}"),
            "ResumeTicket { server: 192.0.2.1:7700, user: UserId(77), expires_at_unix_s: \
             2000000000, .. }"
        );
    }
}
