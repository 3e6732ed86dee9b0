//! How messages become chunks, and which links get them.

use twinspan_core::time::Timestamp;

use super::Node;
use crate::chunk::write_piece;
use crate::config::{CHUNKS_UNACKNOWLEDGED_MAX, PIECES_PAST_MAX};
use crate::link::Link;

/// Buffers that are kept for chunks: those of a full link and as many as wait beside it.
const SPARES_MAX: usize = 2 * CHUNKS_UNACKNOWLEDGED_MAX;

/// A message that is cut into pieces as there is room.
#[derive(Debug, Default)]
pub(super) struct Long {
    number: u64,
    bytes: Vec<u8>,
    at: usize,
    index: u32,
    pub(super) is_open: bool,
}

impl Node {
    pub(super) fn seal(&mut self) {
        if self.packer.count == 0 {
            return;
        }
        let bytes_max = self.chunk_bytes_max;
        let spare = self.spares.pop().unwrap_or_else(|| Vec::with_capacity(bytes_max));
        self.chunks.extend(self.packer.seal(spare));
    }

    /// Cuts a long message, and keeps it where there is no room for all of its pieces.
    pub(super) fn begin_long(&mut self, number: u64, message: &[u8]) {
        let mut bytes = core::mem::take(&mut self.long.bytes);
        bytes.clear();
        self.long = Long { number, bytes, at: 0, index: 0, is_open: true };
        self.cut_from(message, self.config.chunks_max + PIECES_PAST_MAX);
        if self.long.is_open {
            self.long.bytes.extend_from_slice(message);
        }
    }

    /// Cuts the long message while there is room for its pieces.
    pub(super) fn cut(&mut self) {
        if self.long.is_open {
            let bytes = core::mem::take(&mut self.long.bytes);
            self.cut_from(&bytes, self.config.chunks_max);
            self.long.bytes = bytes;
        }
    }

    /// Cuts the long message, which is in `bytes`, until so many chunks wait.
    fn cut_from(&mut self, bytes: &[u8], chunks_max: usize) {
        let bytes_max = self.chunk_bytes_max;
        while self.long.is_open && self.chunks.len() < chunks_max {
            let mut piece = self.spares.pop().unwrap_or_else(|| Vec::with_capacity(bytes_max));
            let Long { number, at, index, is_open, .. } = &mut self.long;
            *at = write_piece(&mut piece, *number, bytes, *index, bytes_max);
            *index += 1;
            *is_open = *at < bytes.len();
            self.chunks.push_back(piece);
        }
    }

    pub(super) fn spare(&mut self, chunk: Vec<u8>) {
        if self.spares.len() < SPARES_MAX {
            self.spares.push(chunk);
        }
    }

    /// All links have the chunks: makes room, and says whether there are new ones.
    pub(super) fn finish_chunks(&mut self) -> bool {
        while let Some(chunk) = self.chunks.pop_front() {
            self.spare(chunk);
        }
        self.links.iter_mut().for_each(|link| link.cursor = 0);
        if let Some(group) = &mut self.group {
            group.cursor = 0;
        }
        self.cut();
        !self.chunks.is_empty()
    }

    /// Moves chunks into the engines of all links while each has room.
    pub(super) fn pump(&mut self, now: Timestamp) {
        for link in &mut self.links {
            while let Some(chunk) = link.take_back() {
                if self.spares.len() < SPARES_MAX {
                    self.spares.push(chunk);
                }
            }
            if !link.backlog.is_empty() {
                link.queue_backlog(now);
            }
        }
        loop {
            let mut heard = self.links.iter().filter(|link| link.is_heard);
            if self.chunks.is_empty() || !heard.all(Link::has_room) {
                return;
            }
            let Some(chunk) = self.chunks.pop_front() else { return };
            let mut heard = self.links.iter_mut().filter(|link| link.is_heard);
            // One link keeps the chunk itself, the others have copies.
            let last = heard.next_back();
            heard.for_each(|link| link.queue(now, &chunk));
            let left = match last {
                Some(link) => link.queue_given(now, chunk),
                None => Some(chunk),
            };
            if let Some(chunk) = left {
                self.spare(chunk);
            }
            self.cut();
        }
    }
}
