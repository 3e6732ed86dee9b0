//! A one-way link that loses, delays, reorders and doubles, in whole microseconds of virtual time.

use std::collections::BTreeMap;

use twinspan_core::random::Stream;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    pub(crate) loss: f64,
    pub(crate) duplicate: f64,
    pub(crate) delay_us: u64,
    pub(crate) jitter_us: u64,
}

impl Conditions {
    pub(crate) const ROUGH: Self =
        Self { loss: 0.2, duplicate: 0.05, delay_us: 30_000, jitter_us: 200_000 };
}

pub(crate) struct Link<T> {
    conditions: Conditions,
    random: Stream,
    /// By arrival, then by order of sending.
    under_way: BTreeMap<(u64, u64), T>,
    sent: u64,
}

impl<T: Clone> Link<T> {
    pub(crate) fn new(conditions: Conditions, random: Stream) -> Self {
        Self { conditions, random, under_way: BTreeMap::new(), sent: 0 }
    }

    pub(crate) fn set(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    pub(crate) fn send(&mut self, now_us: u64, message: &T) {
        let Conditions { loss, duplicate, delay_us, jitter_us } = self.conditions;
        let copies = 1 + u64::from(self.random.chance(duplicate));
        for _ in 0..copies {
            if self.random.chance(loss) {
                continue;
            }
            let at = now_us + delay_us + self.random.below(jitter_us + 1);
            self.sent += 1;
            self.under_way.insert((at, self.sent), message.clone());
        }
    }

    pub(crate) fn receive(&mut self, now_us: u64) -> Option<T> {
        let first = self.under_way.first_entry()?;
        (first.key().0 <= now_us).then(|| first.remove())
    }
}
