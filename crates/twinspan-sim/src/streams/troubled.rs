//! What planned faults need of streams.

use std::net::SocketAddr;

use twinspan_core::link::FaultKind;
use twinspan_core::time::Timestamp;

use super::{Segment, Status, Streams};
use crate::slab::Key;
use crate::world::{Event, HostId, State};

impl Streams {
    /// A listener's host and address, and how many connections somebody began to accept before;
    /// `None` when none waits.
    pub(crate) fn listener_calls(&mut self, key: Key) -> Option<(HostId, SocketAddr, u64)> {
        let listener = self.listeners.get_mut(key)?;
        if listener.queue.is_empty() {
            return None;
        }
        listener.accepts += 1;
        Some((listener.host, listener.local, listener.accepts - 1))
    }

    pub(crate) fn is_silenced(&self, key: Key) -> bool {
        self.ends.get(key).is_some_and(|end| end.is_silenced)
    }

    /// Nothing to or from an end comes any more.
    pub(crate) fn silence(&mut self, key: Key) {
        if let Some(end) = self.live(key) {
            end.is_silenced = true;
        }
    }

    /// Whether an end takes bytes from `offset` on now.
    pub(crate) fn takes_next(&mut self, key: Key, offset: u64) -> bool {
        self.live(key).is_some_and(|end| {
            end.status == Status::Open && end.received == offset && !end.ended && !end.orphan
        })
    }

    /// The way out of an end is over at `offset`; what was written beyond is lost.
    pub(crate) fn cut_short(&mut self, key: Key, offset: u64) {
        let Some(end) = self.live(key) else { return };
        let left = usize::try_from(offset.saturating_sub(end.acked)).unwrap_or(usize::MAX);
        end.outbox.truncate(left);
        end.end_at = Some(offset);
        end.sent = end.sent.min(offset.saturating_add(1));
        end.writer.wake();
    }

    /// Shuts the window of an end's peer; false when it is shut.
    pub(crate) fn shut_window(&mut self, key: Key) -> bool {
        self.live(key).is_some_and(|end| !std::mem::replace(&mut end.is_shut, true))
    }

    /// Opens it again; whether something waited for that.
    pub(crate) fn open_window(&mut self, key: Key) -> bool {
        let Some(end) = self.live(key) else { return false };
        end.is_shut = false;
        end.next_piece().is_some()
    }
}

impl State {
    /// Lets a piece that has come wait where it came.
    pub(super) fn hold_piece(&mut self, until: Timestamp, segment: Segment) {
        let from = segment.from;
        let is_bytes = matches!(segment.body, super::Body::Bytes { .. });
        let placed = self.streams.air.insert_with(|_| segment).is_some_and(|key| {
            let placed = self.wheel.insert(until, Event::Piece(key)).is_ok();
            if !placed {
                self.streams.air.remove(key);
            }
            placed
        });
        if !placed {
            // Lost, as where too many are on their way.
            self.faults.inject(FaultKind::QueueDrop);
            self.faults.observe(FaultKind::QueueDrop);
            if is_bytes && let Some(end) = self.streams.ends.get_mut(from) {
                end.pieces_in_air -= 1;
                if end.status == Status::Ghost {
                    self.streams.remove(from);
                }
            }
        }
    }
}
