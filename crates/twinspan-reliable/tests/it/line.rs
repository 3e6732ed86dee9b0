//! One direction of a bad line: loses, duplicates and reorders, all by its seed.

use std::collections::BTreeMap;
use std::time::Duration;

use twinspan_core::{random::Stream, time::Timestamp};

/// How bad.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    pub(crate) loss: f64,
    pub(crate) duplicate: f64,
    pub(crate) delay_ms: f64,
    /// Each copy is late by up to this much more, so copies overtake one another.
    pub(crate) jitter_ms: f64,
}

/// Packets on their way.
#[derive(Debug)]
pub(crate) struct Line<T> {
    conditions: Conditions,
    random: Stream,
    /// By arrival, then by order of sending.
    travelling: BTreeMap<(Timestamp, u64), T>,
    sent: u64,
}

impl<T: Clone> Line<T> {
    pub(crate) fn new(conditions: Conditions, random: Stream) -> Self {
        Self { conditions, random, travelling: BTreeMap::new(), sent: 0 }
    }

    pub(crate) fn send(&mut self, now: Timestamp, packet: T) {
        let Conditions { loss, duplicate, delay_ms, jitter_ms } = self.conditions;
        let copies = 1 + u32::from(self.random.chance(duplicate));
        for _ in 0..copies {
            let late = delay_ms + self.random.between(0.0, jitter_ms);
            if !self.random.chance(loss) {
                let at = now.after(Duration::from_nanos((late * 1e6) as u64));
                self.travelling.insert((at, self.sent), packet.clone());
                self.sent += 1;
            }
        }
    }

    pub(crate) fn arrival(&self) -> Option<Timestamp> {
        self.travelling.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn receive(&mut self, now: Timestamp) -> Option<T> {
        let first = self.travelling.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}
