//! What befalls a packet behind a link's queue: loss, damage, latency, reordering, duplicates.

use std::collections::BTreeMap;
use std::time::Duration;

use twinspan_core::link::{DUPLICATE_LAG_MAX, REORDER_LAG_MAX};
use twinspan_core::random::{draw, unit};
use twinspan_core::time::Timestamp;

use super::spec::{LinkSpec, LossModel};

/// Flows of one link whose order is kept at the same time; those beyond it may be reordered by
/// latency. A flow with nothing on the way does not count.
pub const ORDERED_FLOWS_MAX: usize = 65_536;
/// How long a link with that many busy flows waits before it looks again for one that is not.
const SWEEP_INTERVAL: Duration = Duration::from_millis(10);

/// Apart from one another: what is drawn for a packet on a link.
const LOSS: u64 = 1;
const LATENCY: u64 = 2;
const REORDER: u64 = 3;
const REORDER_LAG: u64 = 4;
const DUPLICATE: u64 = 5;
const DUPLICATE_LAG: u64 = 6;
const CORRUPT: u64 = 7;
const CORRUPT_BIT: u64 = 8;
const TIMES: u64 = 9;

/// The part of a link that comes after its queue. Every draw is keyed by (link, flow, number).
#[derive(Debug)]
pub(crate) struct Channel {
    key: u64,
    weather: Weather,
    /// Nothing of a flow that keeps its place arrives before this.
    ordered_at: BTreeMap<u64, Timestamp>,
    sweep_at: Timestamp,
}

/// Good and bad times of a Gilbert-Elliott channel.
#[derive(Debug)]
struct Weather {
    is_bad: bool,
    /// The number of the present time, from 0.
    number: u64,
    until: Timestamp,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    Lost,
    Arrives {
        at: Timestamp,
        /// When its copy does.
        copy_at: Option<Timestamp>,
        is_reordered: bool,
        /// A draw that picks the bit which is turned, where one is.
        turned_bit: Option<u64>,
    },
}

impl Channel {
    pub(crate) fn new(key: u64) -> Self {
        Self {
            key,
            weather: Weather { is_bad: true, number: 0, until: Timestamp::START },
            ordered_at: BTreeMap::new(),
            sweep_at: Timestamp::START,
        }
    }

    /// Decides about packet `number` of `flow`, which has left the queue.
    pub(crate) fn pass(
        &mut self,
        now: Timestamp,
        spec: &LinkSpec,
        flow: u64,
        number: u64,
    ) -> Passage {
        let key = draw(self.key, &[flow, number]);
        let chance = |what: u64, share: f64| share > 0.0 && unit(draw(key, &[what])) < share;
        if chance(LOSS, self.loss_share(now, &spec.loss)) {
            return Passage::Lost;
        }
        let latency = spec.latency.sample(draw(key, &[LATENCY]));
        let mut at = now.after(latency);
        if let Some(ordered_at) = self.ordered(flow, now) {
            at = at.max(*ordered_at);
            *ordered_at = at;
        }
        let is_reordered = chance(REORDER, spec.reorder);
        if is_reordered {
            // Those behind it do not wait for it.
            at = at.after(lag(draw(key, &[REORDER_LAG]), REORDER_LAG_MAX));
        }
        let copy_at = chance(DUPLICATE, spec.duplicate)
            .then(|| at.after(lag(draw(key, &[DUPLICATE_LAG]), DUPLICATE_LAG_MAX)));
        let turned_bit = chance(CORRUPT, spec.corrupt).then(|| draw(key, &[CORRUPT_BIT]));
        Passage::Arrives { at, copy_at, is_reordered, turned_bit }
    }

    fn loss_share(&mut self, now: Timestamp, loss: &LossModel) -> f64 {
        match *loss {
            LossModel::None => 0.0,
            LossModel::Independent(share) => share,
            LossModel::GilbertElliott { good_mean, bad_mean, good_loss, bad_loss } => {
                let weather = &mut self.weather;
                while weather.until <= now {
                    weather.is_bad = !weather.is_bad;
                    let mean = if weather.is_bad { bad_mean } else { good_mean };
                    let drawn = unit(draw(self.key, &[TIMES, weather.number]));
                    weather.number += 1;
                    // An exponential draw; the logarithm's argument is above 0.
                    let nanos = -libm::log(1.0 - drawn) * mean.as_nanos() as f64;
                    weather.until = weather.until.after(Duration::from_nanos(nanos as u64 + 1));
                }
                if weather.is_bad { bad_loss } else { good_loss }
            }
        }
    }

    /// Before when nothing of a flow may arrive; `None` when too many flows are busy.
    fn ordered(&mut self, flow: u64, now: Timestamp) -> Option<&mut Timestamp> {
        let order = &mut self.ordered_at;
        if order.len() >= ORDERED_FLOWS_MAX && !order.contains_key(&flow) {
            if now < self.sweep_at {
                return None;
            }
            self.sweep_at = now.after(SWEEP_INTERVAL);
            order.retain(|_, at| *at > now);
            if order.len() >= ORDERED_FLOWS_MAX {
                return None;
            }
        }
        Some(order.entry(flow).or_insert(Timestamp::START))
    }
}

/// Evenly from 1 ns to `most`.
fn lag(drawn: u64, most: Duration) -> Duration {
    let nanos = (u128::from(drawn) * most.as_nanos()) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::super::spec::Latency;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u32) -> Timestamp {
        Timestamp::START.after(MS * ms)
    }

    /// Whether each of `count` packets, one a millisecond, was lost.
    fn losses(spec: &LinkSpec, flow: u64, count: u32) -> Vec<bool> {
        let mut channel = Channel::new(1);
        let lost =
            |number: u32| channel.pass(at(number), spec, flow, u64::from(number)) == Passage::Lost;
        (0..count).map(lost).collect()
    }

    fn share(losses: &[bool]) -> f64 {
        losses.iter().filter(|lost| **lost).count() as f64 / losses.len() as f64
    }

    /// Of the losses, how many come right after another.
    fn clumps(losses: &[bool]) -> f64 {
        let pairs = losses.windows(2).filter(|two| two[0] && two[1]).count();
        pairs as f64 / losses.iter().filter(|lost| **lost).count() as f64
    }

    fn bursts() -> LinkSpec {
        let loss = LossModel::GilbertElliott {
            good_mean: 900 * MS,
            bad_mean: 100 * MS,
            good_loss: 0.0,
            bad_loss: 0.5,
        };
        LinkSpec { loss, ..LinkSpec::CLEAN }
    }

    #[test]
    fn independent_losses_have_their_share_and_no_clumps() {
        let spec = LinkSpec { loss: LossModel::Independent(0.05), ..LinkSpec::CLEAN };
        let losses = losses(&spec, 3, 50_000);
        assert!((0.045..0.055).contains(&share(&losses)));
        assert!((0.03..0.07).contains(&clumps(&losses)));
    }

    #[test]
    fn bursts_have_the_same_share_in_clumps() {
        let losses = losses(&bursts(), 3, 500_000);
        assert!((0.04..0.06).contains(&share(&losses)), "{}", share(&losses));
        assert!((0.45..0.55).contains(&clumps(&losses)), "{}", clumps(&losses));
    }

    #[test]
    fn bad_times_are_the_same_for_all_and_however_often_one_looks() {
        let dense = losses(&bursts(), 3, 100_000);
        let other = losses(&bursts(), 4, 100_000);
        // A second of ten packets that are lost together belongs to both.
        let bad = |losses: &[bool]| -> Vec<usize> {
            let lost = |chunk: &[bool]| chunk.iter().filter(|lost| **lost).count() > 5;
            (0..1_000).filter(|at| lost(&losses[at * 100..at * 100 + 100])).collect()
        };
        let (one, two) = (bad(&dense), bad(&other));
        let shared = one.iter().filter(|at| two.contains(at)).count();
        assert!(shared * 10 > one.len() * 8 && !one.is_empty());
        let mut channel = Channel::new(1);
        for number in (0..100_000).step_by(997) {
            let lost = channel.pass(at(number), &bursts(), 3, u64::from(number)) == Passage::Lost;
            assert_eq!(lost, dense[number as usize], "packet {number}");
        }
    }

    #[test]
    fn a_flow_keeps_its_order_unless_it_is_reordered() {
        let spec = LinkSpec {
            latency: Latency::Uniform { least: MS, most: 50 * MS },
            reorder: 0.01,
            duplicate: 0.1,
            corrupt: 0.1,
            ..LinkSpec::CLEAN
        };
        let mut channel = Channel::new(1);
        let (mut last, mut copies, mut turned, mut reordered) = (Timestamp::START, 0, 0, 0);
        for number in 0..10_000 {
            let Passage::Arrives { at: came, copy_at, is_reordered, turned_bit } =
                channel.pass(at(number), &spec, 1, u64::from(number))
            else {
                panic!("nothing is lost");
            };
            reordered += u32::from(is_reordered);
            if !is_reordered {
                assert!(came >= last, "packet {number}");
                last = came;
            }
            assert!(copy_at.is_none_or(|copy| copy > came));
            copies += u32::from(copy_at.is_some());
            turned += u32::from(turned_bit.is_some());
        }
        assert!((50..200).contains(&reordered), "{reordered}");
        assert!((800..1_200).contains(&copies) && (800..1_200).contains(&turned));
    }

    #[test]
    fn order_is_kept_for_a_bounded_number_of_flows() {
        let mut channel = Channel::new(1);
        let spec = LinkSpec::delay(MS);
        for flow in 0..3 * ORDERED_FLOWS_MAX as u64 {
            channel.pass(Timestamp::START, &spec, flow, 0);
        }
        assert_eq!(channel.ordered_at.len(), ORDERED_FLOWS_MAX);
        // Once those have arrived there is room again.
        channel.pass(at(100), &spec, u64::MAX, 0);
        assert_eq!(channel.ordered_at.len(), 1);
    }
}
