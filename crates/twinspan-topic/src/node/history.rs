//! The last messages, for who joins late.

use std::collections::VecDeque;

use super::{BACKLOG_CHUNKS_MAX, Node};
use crate::chunk::{Packer, fits, write_piece};

impl Node {
    /// Remembers a message for who joins late.
    pub(super) fn keep(&mut self, message: &[u8]) {
        let most = self.config.greeting.history as usize;
        if most == 0 {
            return;
        }
        let mut bytes =
            if self.kept.len() >= most { self.kept.pop_front() } else { None }.unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(message);
        self.kept.push_back(bytes);
    }

    /// The last messages in chunks, as many as are wanted and kept, and the number of the first.
    pub(super) fn backlog(&self, wanted: u32) -> (u64, VecDeque<Vec<u8>>) {
        let count = self.kept.len().min(wanted as usize);
        let mut first = self.stats.published - count as u64;
        let mut chunks = VecDeque::new();
        let mut packer = Packer::default();
        for (number, message) in (first..).zip(self.kept.iter().skip(self.kept.len() - count)) {
            if fits(message.len(), self.chunk_bytes_max) {
                if !packer.push(number, message, self.chunk_bytes_max) {
                    chunks.extend(packer.seal(Vec::new()));
                    packer.push(number, message, self.chunk_bytes_max);
                }
                continue;
            }
            chunks.extend(packer.seal(Vec::new()));
            let (mut at, mut index) = (0, 0);
            while at < message.len() {
                let mut piece = Vec::new();
                at = write_piece(&mut piece, number, message, index, self.chunk_bytes_max);
                index += 1;
                chunks.push_back(piece);
            }
        }
        chunks.extend(packer.seal(Vec::new()));
        // Of more than a link takes the newest are kept, from the first whole message on.
        while chunks.len() > BACKLOG_CHUNKS_MAX {
            let left = chunks.pop_front().map(|chunk| crate::chunk::number_of(&chunk));
            while left.is_some() && chunks.front().map(|it| crate::chunk::number_of(it)) == left {
                chunks.pop_front();
            }
            first = chunks.front().map_or(self.stats.published, |it| crate::chunk::number_of(it));
        }
        (first, chunks)
    }
}
