//! What sessions count, every dropped datagram by its cause.

use core::fmt;
use core::time::Duration;
use std::net::SocketAddr;

use crate::identity::UserId;
use crate::reason::CloseReason;

/// Makes the enum of drop causes, the counters that go with it and their names from one table.
macro_rules! drop_causes {
    ($($(#[doc = $doc:literal])+ $cause:ident, $field:ident;)+) => {
        /// Why a datagram was dropped without an answer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum DropCause { $($(#[doc = $doc])+ $cause,)+ }

        /// Datagrams dropped without an answer, by cause.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct DropCounts { $($(#[doc = $doc])+ pub $field: u64,)+ }

        impl DropCounts {
            pub(crate) const fn count(&mut self, cause: DropCause) {
                match cause { $(DropCause::$cause => self.$field += 1,)+ }
            }

            /// Adds what others counted.
            pub const fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)+
            }

            /// Every cause by name, with its count.
            pub fn by_name(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field),)+].into_iter()
            }

            /// All of them together.
            pub fn total(&self) -> u64 {
                self.by_name().map(|(_, count)| count).sum()
            }
        }
    };
}

drop_causes! {
    /// Too short for its form.
    Short, short;
    /// Longer than any packet.
    TooLong, too_long;
    /// Connection id 0 without the handshake form, or the other way round.
    BadLongForm, bad_long_form;
    /// A flag of a later version.
    UnsupportedFlag, unsupported_flag;
    /// Fields that contradict one another or the specification.
    Malformed, malformed;
    /// A handshake message that this end does not take, or does not take now.
    Unexpected, unexpected;
    /// HELLO whose `mac1` is not made with this server's public key.
    BadMac1, bad_mac1;
    /// HELLO whose cookie is wrong, too old or another address's.
    CookieBad, cookie_bad;
    /// HELLO whose Noise message does not verify.
    HelloBad, hello_bad;
    /// RETRY, ACCEPT or REFUSE that does not verify.
    AnswerBad, answer_bad;
    /// No session and no handshake has this connection id.
    UnknownConnection, unknown_connection;
    /// From another address than the session's.
    OtherAddress, other_address;
    /// A packet number seen before.
    Replayed, replayed;
    /// A packet number older than the replay window.
    TooOld, too_old;
    /// The tag does not verify.
    NotAuthentic, not_authentic;
    /// Of a key phase that is over.
    OldPhase, old_phase;
    /// The session is closing and takes nothing.
    Closing, closing;
    /// An answer that found no place in the bounded queue.
    AnswersFull, answers_full;
    /// HELLO without a cookie, while more of them come than are answered.
    Shed, shed;
    /// HELLO of an address that had as many handshakes as it may have.
    Throttled, throttled;
}

/// Numbers of reasons that are counted one by one.
const REASONS: usize = 64;

/// Sessions ended, by reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCounts([u64; REASONS]);

impl Default for CloseCounts {
    fn default() -> Self {
        Self([0; REASONS])
    }
}

impl CloseCounts {
    pub(crate) fn count(&mut self, reason: CloseReason) {
        // Only a peer can give a reason past the known ones: those share the last place.
        let place = usize::from(reason.to_wire()).min(REASONS - 1);
        if let Some(count) = self.0.get_mut(place) {
            *count += 1;
        }
    }

    /// Adds what others counted.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }

    /// How many ended for this reason; those past 62 share a count.
    pub fn of(&self, reason: CloseReason) -> u64 {
        self.0.get(usize::from(reason.to_wire()).min(REASONS - 1)).copied().unwrap_or(0)
    }

    /// Reasons that occurred, in the order of their numbers, with how often.
    pub fn iter(&self) -> impl Iterator<Item = (CloseReason, u64)> {
        let counts = (0_u8..).zip(self.0).filter(|(_, count)| *count > 0);
        counts.map(|(number, count)| (CloseReason::from_wire(number), count))
    }
}

/// What a server counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointStats {
    /// Datagrams handed in.
    pub packets_in: u64,
    /// Bytes handed in.
    pub bytes_in: u64,
    /// Datagrams handed out.
    pub packets_out: u64,
    /// Bytes handed out.
    pub bytes_out: u64,
    /// Datagrams dropped without an answer, by cause.
    pub drops: DropCounts,
    /// HELLOs without a cookie, answered by RETRY.
    pub cookie_missing: u64,
    /// HELLOs with a right cookie that were answered by ACCEPT.
    pub accepted: u64,
    /// Repeated HELLOs that got the ACCEPT made before.
    pub accepted_again: u64,
    /// Refused: no slot free.
    pub full: u64,
    /// Refused: the token had expired.
    pub token_expired: u64,
    /// Refused: the token was spent.
    pub token_spent: u64,
    /// Refused: the token does not open, or is for another server.
    pub token_bad: u64,
    /// Refused: no version in common.
    pub version_unknown: u64,
    /// Refused: no cipher in common.
    pub suite_unknown: u64,
    /// Refused: draining.
    pub draining: u64,
    /// Refused: the user is banned.
    pub banned: u64,
    /// Refused: the resume ticket was good no longer.
    pub ticket_bad: u64,
    /// Refused: options that exclude each other.
    pub options_unmet: u64,
    /// Sessions that were set up with a resume ticket.
    pub resumed: u64,
    /// Resume tickets sent to sessions that outlive theirs.
    pub tickets_renewed: u64,
    /// Handshakes in progress that gave way or ran out of time.
    pub handshakes_lost: u64,
    /// Sessions set up.
    pub established: u64,
    /// Sessions ended.
    pub closed: u64,
    /// Sessions closed because the peer acknowledged what was never sent.
    pub ack_of_unsent: u64,
    /// Sessions closed because the peer sent what the protocol forbids.
    pub violations: u64,
    /// Sessions closed because nothing was heard.
    pub idle_timeouts: u64,
    /// Sessions whose packets began to come from another address.
    pub moves_begun: u64,
    /// Of these, those whose new address answered.
    pub moves_done: u64,
    /// Of these, those that went back to the old address.
    pub moves_failed: u64,
    /// Sessions ended, by reason.
    pub closings: CloseCounts,
}

impl EndpointStats {
    /// Adds what others counted, as another shard of the same server.
    pub fn add(&mut self, other: &Self) {
        let Self {
            packets_in,
            bytes_in,
            packets_out,
            bytes_out,
            drops,
            cookie_missing,
            accepted,
            accepted_again,
            full,
            token_expired,
            token_spent,
            token_bad,
            version_unknown,
            suite_unknown,
            draining,
            banned,
            ticket_bad,
            options_unmet,
            resumed,
            tickets_renewed,
            handshakes_lost,
            established,
            closed,
            ack_of_unsent,
            violations,
            idle_timeouts,
            moves_begun,
            moves_done,
            moves_failed,
            closings,
        } = other;
        self.packets_in += packets_in;
        self.bytes_in += bytes_in;
        self.packets_out += packets_out;
        self.bytes_out += bytes_out;
        self.cookie_missing += cookie_missing;
        self.accepted += accepted;
        self.accepted_again += accepted_again;
        self.full += full;
        self.token_expired += token_expired;
        self.token_spent += token_spent;
        self.token_bad += token_bad;
        self.version_unknown += version_unknown;
        self.suite_unknown += suite_unknown;
        self.draining += draining;
        self.banned += banned;
        self.ticket_bad += ticket_bad;
        self.options_unmet += options_unmet;
        self.resumed += resumed;
        self.tickets_renewed += tickets_renewed;
        self.handshakes_lost += handshakes_lost;
        self.established += established;
        self.closed += closed;
        self.ack_of_unsent += ack_of_unsent;
        self.violations += violations;
        self.idle_timeouts += idle_timeouts;
        self.moves_begun += moves_begun;
        self.moves_done += moves_done;
        self.moves_failed += moves_failed;
        self.drops.add(drops);
        self.closings.add(closings);
    }
}

/// What a client counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ClientStats {
    /// Datagrams handed in.
    pub packets_in: u64,
    /// Bytes handed in.
    pub bytes_in: u64,
    /// Datagrams handed out.
    pub packets_out: u64,
    /// Bytes handed out.
    pub bytes_out: u64,
    /// Datagrams dropped, by cause.
    pub drops: DropCounts,
    /// HELLOs sent.
    pub hellos: u64,
    /// RETRYs taken.
    pub retries: u64,
    /// Reliable messages queued or not yet acknowledged.
    pub unacknowledged: usize,
    /// Smoothed round-trip time; zero before the first sample.
    pub rtt: Duration,
    /// What is known of the path to the server.
    pub path: PathStats,
    /// Packets declared lost on the way to the server.
    pub packets_lost: u64,
    /// Those of them that the server acknowledged after all, in time to be noticed.
    pub packets_late: u64,
    /// Share of the server's packets that did not arrive, 0 to 1, from gaps in their numbers.
    pub loss_in: f64,
}

/// What is known of the path from one end to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PathStats {
    /// Smoothed round-trip time; zero before the first sample.
    pub rtt: Duration,
    /// Mean deviation of the round trip; zero while nothing was sent for long.
    pub jitter: Duration,
    /// Share of the packets sent of late that were lost, 0 to 1.
    pub loss_out: f64,
    /// Bytes a second that the path bears: a congestion window each round trip. Reliable messages
    /// keep to it; what is written with `write_packet` should.
    pub budget_bytes_per_s: u64,
    /// Bytes that may be in flight; 0 while nothing was sent for long.
    pub window_bytes: u64,
    /// Of those, what is left now.
    pub window_left: u64,
}

/// The packet numbers of a session, which only ever grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketNumbers {
    /// That of the next packet to the peer.
    pub next: u64,
    /// The largest that was received; 0 before the first.
    pub received: u64,
}

impl PacketNumbers {
    /// Whether these can be those of a session whose numbers were `before` some time ago.
    pub const fn can_follow(self, before: Self) -> bool {
        self.next >= before.next && self.received >= before.received
    }
}

/// How the packets to a peer fare, for who sends states and shall not send more than arrive.
///
/// The counters begin anew after a session was idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlowStats {
    /// Smoothed round-trip time; zero before the first sample.
    pub rtt: Duration,
    /// The least round trip of the session; zero before the first sample.
    pub rtt_min: Duration,
    /// Bytes a second that congestion control allows; see [`PathStats::budget_bytes_per_s`].
    pub budget_bytes_per_s: u64,
    /// Packets acknowledged.
    pub packets_acked: u64,
    /// Bytes of them.
    pub bytes_acked: u64,
    /// Packets declared lost.
    pub packets_lost: u64,
}

/// What one session of a server counted.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SessionStats {
    /// Whose session it is.
    pub user: UserId,
    /// Where the client is.
    pub peer: SocketAddr,
    /// Smoothed round-trip time; zero before the first sample.
    pub rtt: Duration,
    /// Share of the client's packets that did not arrive, 0 to 1, from gaps in their numbers.
    pub loss_in: f64,
    /// Packets received that verified.
    pub packets_in: u64,
    /// Packets sent.
    pub packets_out: u64,
    /// Bytes received in packets that verified.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// What is known of the path to the client.
    pub path: PathStats,
    /// Packets declared lost on the way to the client.
    pub packets_lost: u64,
    /// Those of them that the client acknowledged after all, in time to be noticed.
    pub packets_late: u64,
    /// Reliable messages queued or not yet acknowledged.
    pub unacknowledged: usize,
}

impl fmt::Display for DropCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, count) in self.by_name().filter(|(_, count)| *count > 0) {
            write!(f, "{separator}{name} {count}")?;
            separator = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_counted_by_reason_and_unknown_ones_together() {
        let mut counts = CloseCounts::default();
        for number in [0, 2, 2, 63, 64, 200] {
            counts.count(CloseReason::from_wire(number));
        }
        assert_eq!(counts.of(CloseReason::IdleTimeout), 2);
        assert_eq!(counts.of(CloseReason::Other(200)), 3);
        let seen: Vec<_> = counts.iter().collect();
        let last = (CloseReason::Other(63), 3);
        assert_eq!(seen, [(CloseReason::Normal, 1), (CloseReason::IdleTimeout, 2), last]);
    }
}
