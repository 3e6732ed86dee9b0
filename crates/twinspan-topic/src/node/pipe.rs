//! Pipes: bytes for one hub alone, on a node that publishes nothing to all.
//!
//! //= hub 16.2

use twinspan_core::time::Timestamp;

use super::Node;
use crate::chunk::{PIPED_HEAD_BYTES, write_piped};
use crate::link::Link;
use crate::wire::EndReason;

impl Node {
    fn link_of(&self, publisher: u64) -> Option<&Link> {
        self.links.iter().find(|link| link.peer.publisher() == publisher)
    }

    /// Bytes that [`send_to`](Self::send_to) takes now for a hub; 0 where it has no link, or no room.
    pub fn room_to(&self, publisher: u64) -> usize {
        let link = self.link_of(publisher).filter(|link| self.config.is_piped && link.has_room());
        link.map_or(0, |_| self.chunk_bytes_max - PIPED_HEAD_BYTES)
    }

    /// Queues bytes for one hub alone, on a node whose links are pipes: they come in order and once, or
    /// the link ends. False where there is no room for them.
    pub fn send_to(&mut self, now: Timestamp, publisher: u64, bytes: &[u8]) -> bool {
        if bytes.is_empty() || bytes.len() > self.room_to(publisher) {
            return false;
        }
        let mut chunk = self.spares.pop().unwrap_or_default();
        let link = self.links.iter_mut().find(|link| link.peer.publisher() == publisher);
        if let Some(link) = link {
            write_piped(&mut chunk, link.next_piped(), bytes);
            link.queue(now, &chunk);
        }
        self.spare(chunk);
        true
    }

    /// Chunks that one hub may not have got yet; none where there is no link with it.
    pub fn unacknowledged_by(&self, publisher: u64) -> usize {
        self.link_of(publisher).map_or(0, Link::unacknowledged)
    }

    /// Ends the link with a hub, which is told.
    pub fn drop_link(&mut self, now: Timestamp, publisher: u64) {
        let of = |link: &Link| link.peer.publisher() == publisher;
        if let Some(at) = self.links.iter().position(of) {
            self.end(now, at, EndReason::Replaced);
        }
    }
}
