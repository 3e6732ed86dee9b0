//! Asking a silent peer whether it is there: where nothing is owed, nothing else would tell.

use std::io;
use std::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_provider::KEEPALIVE_PROBES_MAX;

use super::{Body, Status};
use crate::slab::Key;
use crate::world::{Event, State};

impl State {
    /// After how long a silence an end asks, if it does.
    fn keepalive_of(&mut self, key: Key) -> Option<Duration> {
        let usual = self.config.tcp_keepalive;
        self.streams.live(key).and_then(|end| end.sizes.keepalive.or(usual))
    }

    /// An end is open: from now on it looks after its peer, if that is wanted.
    pub(super) fn begin_keepalive(&mut self, now: Timestamp, key: Key) {
        let Some(after) = self.keepalive_of(key) else { return };
        if let Some(end) = self.streams.live(key) {
            end.alive_at = now;
        }
        self.arm_keepalive(now.after(after), key);
    }

    fn arm_keepalive(&mut self, at: Timestamp, key: Key) {
        // The wheel has room for one of each end; where it has not, the end waits for ever, as one does
        // that asks nothing.
        let _ = self.wheel.insert(at, Event::StreamAlive(key));
    }

    /// Time to see whether the peer is there.
    pub(crate) fn keepalive_timer(&mut self, now: Timestamp, key: Key) {
        let Some(after) = self.keepalive_of(key) else { return };
        let Some(end) = self.streams.live(key) else { return };
        // Who was let go of ends by what it owes.
        if end.status != Status::Open || end.orphan {
            return;
        }
        if now.since(end.alive_at) < after {
            end.asked = 0;
            let at = end.alive_at.after(after);
            self.arm_keepalive(at, key);
            return;
        }
        // Where something is unanswered that is asked after anyway.
        if !end.is_unanswered() {
            if end.asked >= KEEPALIVE_PROBES_MAX {
                self.take_reset(key, io::ErrorKind::TimedOut);
                return;
            }
            end.asked += 1;
            let offset = end.acked;
            self.send_body(now, key, Body::Bytes { offset, len: 0, end: false });
        }
        let every = (after / 4).max(Duration::from_millis(1));
        self.arm_keepalive(now.after(every), key);
    }
}
