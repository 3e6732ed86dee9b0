//! What a fuzz body does, read from its bytes: time that passes, datagrams, wishes.

use core::net::SocketAddr;
use core::time::Duration;

/// Steps of one script that are taken.
const STEPS_MAX: usize = 64;
/// Peers that datagrams come from.
pub(super) const PEERS: u8 = 4;
/// How long a step may wait before it does something, in milliseconds.
pub const WAITS_MS: [u64; 8] = [0, 1, 40, 150, 600, 3_000, 20_000, 100_000];

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// A datagram comes from the step's peer.
    Datagram(&'a [u8]),
    /// The user, or an event queue, wants something; which is up to the body.
    Wish(u8),
}

/// One step: first time passes, then something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// Which of four peers.
    pub peer: u8,
    /// Which of [`WAITS_MS`].
    pub wait: u8,
    /// What happens.
    pub action: Action<'a>,
}

/// The bit that makes a step a wish.
const WISH: u8 = 0x80;

/// Writes a step, for seeds. Datagrams of more than 65,535 bytes are cut off.
pub fn write_step(step: Step<'_>, out: &mut Vec<u8>) {
    let head = (step.peer % PEERS) | ((step.wait & 7) << 2);
    match step.action {
        Action::Datagram(bytes) => {
            let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            out.push(head);
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(bytes.get(..usize::from(len)).unwrap_or_default());
        }
        Action::Wish(wish) => out.extend_from_slice(&[head | WISH, wish]),
    }
}

/// Reads steps until the bytes end; a datagram that is said to be longer than what is left ends
/// with it.
pub fn steps(mut data: &[u8]) -> impl Iterator<Item = Step<'_>> {
    core::iter::from_fn(move || {
        let (&head, rest) = data.split_first()?;
        let (peer, wait) = (head % PEERS, (head >> 2) & 7);
        if head & WISH != 0 {
            let (&wish, rest) = rest.split_first()?;
            data = rest;
            return Some(Step { peer, wait, action: Action::Wish(wish) });
        }
        let (len, rest) = rest.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
        let (datagram, rest) = rest.split_at_checked(len)?;
        data = rest;
        Some(Step { peer, wait, action: Action::Datagram(datagram) })
    })
    .take(STEPS_MAX)
}

/// Where a peer is.
pub fn peer_addr(peer: u8) -> SocketAddr {
    ([10, 0, 0, 1 + peer % PEERS], 9_000).into()
}

/// How long a step waits.
pub fn wait_of(step: &Step<'_>) -> Duration {
    Duration::from_millis(WAITS_MS.get(usize::from(step.wait & 7)).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_as_they_were_written() {
        let script = [
            Step { peer: 3, wait: 7, action: Action::Datagram(&[1, 2, 3]) },
            Step { peer: 0, wait: 0, action: Action::Wish(200) },
            Step { peer: 1, wait: 2, action: Action::Datagram(&[]) },
        ];
        let mut bytes = Vec::new();
        script.iter().for_each(|step| write_step(*step, &mut bytes));
        assert_eq!(steps(&bytes).collect::<Vec<_>>(), script);
    }

    #[test]
    fn a_length_beyond_the_end_stops_there() {
        let read: Vec<_> = steps(&[0, 9, 0, 5, 6]).collect();
        assert_eq!(read, [Step { peer: 0, wait: 0, action: Action::Datagram(&[5, 6]) }]);
        assert_eq!(steps(&[0, 9]).count(), 0);
    }
}
