//! What a link of a topology is like: rate, queue, longest packet, latency, loss.

use std::sync::Arc;
use std::time::Duration;

use twinspan_core::link::{DELAY_MAX, QUEUE_BYTES_MIN};
use twinspan_core::random::{draw, unit};

/// The longest packet of a link unless it says another, in bytes with its headers: Ethernet's.
pub const MTU_DEFAULT: u32 = 1_500;
/// The least that it may be: what IPv4 wants every link to carry (RFC 791), and a header to spare.
pub const MTU_MIN: u32 = 576;
/// Points of a latency given as a table.
pub const QUANTILES_MAX: usize = 1_024;
/// The shortest mean of a channel's good and bad times.
pub const CHANNEL_MEAN_MIN: Duration = Duration::from_millis(1);
/// The longest.
pub const CHANNEL_MEAN_MAX: Duration = Duration::from_secs(86_400);

/// One direction of a link between two nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkSpec {
    /// Bytes that pass in a second, headers included; 0 for no limit, and then no queue.
    pub rate_bytes_per_s: u64,
    /// Where packets wait for their turn when there is a rate.
    pub queue: Queue,
    /// The longest packet in bytes, IP header included; longer ones are dropped and counted.
    pub mtu: u32,
    /// How long a packet takes besides its turn.
    pub latency: Latency,
    /// Which packets are lost.
    pub loss: LossModel,
    /// Share of packets that arrive a second time, 0 to 1.
    pub duplicate: f64,
    /// Share of packets that lag so that later ones may overtake them, 0 to 1.
    pub reorder: f64,
    /// Share of packets in which a bit is turned, 0 to 1. Datagrams arrive so, as if the checksum
    /// had missed it; segments of streams are dropped by theirs.
    pub corrupt: f64,
    /// What a route over this link costs, from 1: the cheapest route is taken.
    pub cost: u32,
}

impl LinkSpec {
    /// Nothing is lost, nothing takes time, and packets may be as long as on Ethernet.
    pub const CLEAN: Self = Self {
        rate_bytes_per_s: 0,
        queue: Queue::DEFAULT,
        mtu: MTU_DEFAULT,
        latency: Latency::Constant(Duration::ZERO),
        loss: LossModel::None,
        duplicate: 0.0,
        reorder: 0.0,
        corrupt: 0.0,
        cost: 1,
    };

    /// A clean link on which every packet takes `delay`.
    pub fn delay(delay: Duration) -> Self {
        Self { latency: Latency::Constant(delay), ..Self::CLEAN }
    }

    /// A clean link with a limited rate in bytes a second, on which every packet takes `delay`
    /// besides its turn.
    pub fn rated(rate_bytes_per_s: u64, delay: Duration) -> Self {
        Self { rate_bytes_per_s, ..Self::delay(delay) }
    }

    /// Whether every field is in its range.
    ///
    /// # Errors
    /// [`LinkSpecError`] names the first field that is not.
    pub fn check(&self) -> Result<(), LinkSpecError> {
        let shares =
            [("duplicate", self.duplicate), ("reorder", self.reorder), ("corrupt", self.corrupt)];
        let (names, values) = self.loss.shares();
        for (field, share) in shares.into_iter().chain(names.into_iter().zip(values)) {
            // Written so that what is not a number is refused as well.
            if !(0.0..=1.0).contains(&share) {
                return Err(LinkSpecError::Share { field, is: share });
            }
        }
        self.loss.check()?;
        self.latency.check()?;
        if self.rate_bytes_per_s > 0 {
            self.queue.check()?;
        }
        if self.mtu < MTU_MIN {
            return Err(LinkSpecError::Mtu { is: self.mtu });
        }
        if self.cost == 0 {
            return Err(LinkSpecError::Cost);
        }
        Ok(())
    }
}

impl Default for LinkSpec {
    fn default() -> Self {
        Self::CLEAN
    }
}

/// Where packets wait for a limited rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Bytes that wait at most; what comes on top is dropped. At least [`QUEUE_BYTES_MIN`].
    pub bytes_max: u64,
    /// What is done before the queue is full.
    pub discipline: Discipline,
}

impl Queue {
    /// A quarter of a megabyte that only its end bounds.
    pub const DEFAULT: Self = Self { bytes_max: 256 << 10, discipline: Discipline::TailDrop };

    /// A queue under CoDel with the figures of RFC 8289: 5 ms and 100 ms; packets of streams and sockets that
    /// can be marked are marked instead of dropped.
    pub const fn codel(bytes_max: u64) -> Self {
        let discipline = Discipline::CoDel {
            target: Duration::from_millis(5),
            interval: Duration::from_millis(100),
            marks: true,
        };
        Self { bytes_max, discipline }
    }

    fn check(&self) -> Result<(), LinkSpecError> {
        if self.bytes_max < QUEUE_BYTES_MIN {
            return Err(LinkSpecError::Queue { is: self.bytes_max });
        }
        if let Discipline::CoDel { target, interval, .. } = self.discipline
            && (target.is_zero() || interval < target || interval > DELAY_MAX)
        {
            return Err(LinkSpecError::CoDel { target, interval });
        }
        Ok(())
    }
}

/// What a queue does before it is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Discipline {
    /// Nothing.
    TailDrop,
    /// Controlled delay (RFC 8289): drops from the front while packets wait longer than `target`
    /// for longer than `interval`.
    CoDel {
        /// What packets may wait for long.
        target: Duration,
        /// For how long they may wait longer: about the longest usual round trip.
        interval: Duration,
        /// Whether packets that can be marked (ECN, RFC 3168) are marked instead of dropped.
        marks: bool,
    },
}

/// How long a packet takes over a link, besides waiting for its turn. Packets of one flow keep
/// their order.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Latency {
    /// Always as long, up to [`DELAY_MAX`].
    Constant(Duration),
    /// Evenly from `least` to `most`.
    Uniform {
        /// The least.
        least: Duration,
        /// The most.
        most: Duration,
    },
    /// About a mean as a bell curve (a sum of twelve even draws), clipped to what is possible.
    Normal {
        /// The mean.
        mean: Duration,
        /// The standard deviation.
        deviation: Duration,
        /// Nothing takes longer; and nothing less than no time, or the mean less six deviations.
        most: Duration,
    },
    /// A least with a long tail: rarely much longer, up to `most`.
    Pareto {
        /// The least.
        least: Duration,
        /// How fast the tail falls, 0.1 to 100: the smaller, the longer. From 1 down there would be
        /// no mean without `most`.
        shape: f64,
        /// Nothing takes longer.
        most: Duration,
    },
    /// As measured.
    Table(Quantiles),
}

impl Latency {
    fn check(&self) -> Result<(), LinkSpecError> {
        let bounds = match self {
            Self::Constant(delay) => [*delay, *delay],
            Self::Uniform { least, most } | Self::Pareto { least, most, .. } => [*least, *most],
            Self::Normal { mean, most, .. } => [*mean, *most],
            Self::Table(quantiles) => [quantiles.at(0.0), quantiles.at(1.0)],
        };
        let [least, most] = bounds;
        if most > DELAY_MAX || least > most {
            return Err(LinkSpecError::Latency { least, most });
        }
        match self {
            Self::Normal { deviation, .. } if *deviation > DELAY_MAX => {
                Err(LinkSpecError::Latency { least: *deviation, most: DELAY_MAX })
            }
            Self::Pareto { shape, .. } if !(0.1..=100.0).contains(shape) => {
                Err(LinkSpecError::Shape { is: *shape })
            }
            _ => Ok(()),
        }
    }

    /// How long a packet takes whose draws are keyed by `key`.
    pub(crate) fn sample(&self, key: u64) -> Duration {
        match self {
            Self::Constant(delay) => *delay,
            Self::Uniform { least, most } => between(*least, *most, unit(draw(key, &[0]))),
            Self::Normal { mean, deviation, most } => {
                // The sum of twelve even draws less six has mean 0 and deviation 1.
                let sum: f64 = (0..12).map(|number| unit(draw(key, &[number]))).sum();
                let nanos = mean.as_nanos() as f64 + (sum - 6.0) * deviation.as_nanos() as f64;
                from_nanos(nanos).min(*most)
            }
            Self::Pareto { least, shape, most } => {
                // Above 0, so that there is no division by it.
                let rest = 1.0 - unit(draw(key, &[0]));
                from_nanos(least.as_nanos() as f64 / libm::pow(rest, 1.0 / shape)).min(*most)
            }
            Self::Table(quantiles) => quantiles.at(unit(draw(key, &[0]))),
        }
    }
}

/// Of a duration in nanoseconds that may be anything; below none is none.
fn from_nanos(nanos: f64) -> Duration {
    // A conversion that saturates, and makes 0 of what is not a number.
    Duration::from_nanos(nanos as u64)
}

fn between(least: Duration, most: Duration, share: f64) -> Duration {
    least + from_nanos(most.saturating_sub(least).as_nanos() as f64 * share)
}

/// A distribution as measured: durations at evenly spaced quantiles, and straight lines between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantiles {
    points: Arc<[Duration]>,
}

impl Quantiles {
    /// `points` from the least to the most: the quantiles 0, 1/n, 2/n, .. 1.
    ///
    /// # Errors
    /// [`LinkSpecError::Table`] when there are less than two or more than [`QUANTILES_MAX`], or one
    /// is below the one before it.
    pub fn new(points: impl Into<Vec<Duration>>) -> Result<Self, LinkSpecError> {
        let points = points.into();
        if points.len() < 2 || points.len() > QUANTILES_MAX || !points.is_sorted() {
            return Err(LinkSpecError::Table { points: points.len() });
        }
        Ok(Self { points: points.into() })
    }

    /// The duration that a share of `quantile` do not exceed.
    fn at(&self, quantile: f64) -> Duration {
        let steps = self.points.len().saturating_sub(1);
        let place = quantile * steps as f64;
        let index = (place as usize).min(steps.saturating_sub(1));
        let point = |index: usize| self.points.get(index).copied().unwrap_or_default();
        between(point(index), point(index + 1), place - index as f64)
    }
}

/// Which packets a link loses. They are lost behind its queue: they used its rate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum LossModel {
    /// None.
    #[default]
    None,
    /// This share, 0 to 1, each packet by itself.
    Independent(f64),
    /// A Gilbert-Elliott channel in continuous time: good and bad times take turns, each as long as
    /// an exponential draw says, and each has its share of losses. Which times are bad is a function
    /// of the seed, the link and the moment alone, so all flows meet the same ones.
    GilbertElliott {
        /// How long good times last in the mean, [`CHANNEL_MEAN_MIN`] to [`CHANNEL_MEAN_MAX`].
        good_mean: Duration,
        /// How long bad times do.
        bad_mean: Duration,
        /// Share of packets lost in good times, 0 to 1.
        good_loss: f64,
        /// Share of packets lost in bad times, 0 to 1.
        bad_loss: f64,
    },
}

impl LossModel {
    fn shares(&self) -> ([&'static str; 2], [f64; 2]) {
        match *self {
            Self::None => (["loss", "loss"], [0.0; 2]),
            Self::Independent(share) => (["loss", "loss"], [share; 2]),
            Self::GilbertElliott { good_loss, bad_loss, .. } => {
                (["good_loss", "bad_loss"], [good_loss, bad_loss])
            }
        }
    }

    fn check(&self) -> Result<(), LinkSpecError> {
        if let Self::GilbertElliott { good_mean, bad_mean, .. } = self {
            for mean in [*good_mean, *bad_mean] {
                if !(CHANNEL_MEAN_MIN..=CHANNEL_MEAN_MAX).contains(&mean) {
                    return Err(LinkSpecError::Channel { is: mean });
                }
            }
        }
        Ok(())
    }
}

/// Which field of a [`LinkSpec`] is out of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkSpecError {
    /// A share that is not a number from 0 to 1.
    #[error("{field} is {is}; it is a share from 0 to 1")]
    Share {
        /// The field's name.
        field: &'static str,
        /// What it is.
        is: f64,
    },
    /// A latency that is too long, or whose least is above its most.
    #[error("latency goes from {least:?} to {most:?}; give a rising range within {DELAY_MAX:?}")]
    Latency {
        /// The least.
        least: Duration,
        /// The most.
        most: Duration,
    },
    /// The shape of a tail is out of its range.
    #[error("the shape of the tail is {is}; it is 0.1 to 100")]
    Shape {
        /// What it is.
        is: f64,
    },
    /// A table of quantiles that is none.
    #[error("the table has {points} points; give 2 to {QUANTILES_MAX} that never fall")]
    Table {
        /// How many points it has.
        points: usize,
    },
    /// A queue that not even one packet fits.
    #[error("the queue holds {is} bytes; with a rate it is {QUEUE_BYTES_MIN} at least")]
    Queue {
        /// Its size in bytes.
        is: u64,
    },
    /// Times of CoDel that do not go together.
    #[error("codel has target {target:?} and interval {interval:?}; give 0 < target <= interval")]
    CoDel {
        /// The target.
        target: Duration,
        /// The interval.
        interval: Duration,
    },
    /// A longest packet that is too short.
    #[error("mtu is {is}; it is {MTU_MIN} at least")]
    Mtu {
        /// What it is.
        is: u32,
    },
    /// The mean length of a channel's times is out of its range.
    #[error("a channel's times last {is:?}; they are {CHANNEL_MEAN_MIN:?} to {CHANNEL_MEAN_MAX:?}")]
    Channel {
        /// What it is.
        is: Duration,
    },
    /// A route over the link would cost nothing.
    #[error("cost is 0; it is 1 at least")]
    Cost,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Least, mean and most of many draws.
    fn drawn(latency: &Latency) -> [Duration; 3] {
        let draws: Vec<_> = (0..20_000).map(|key| latency.sample(draw(key, &[7]))).collect();
        let mean = draws.iter().sum::<Duration>() / 20_000;
        [*draws.iter().min().unwrap(), mean, *draws.iter().max().unwrap()]
    }

    fn close(is: Duration, wanted: Duration) -> bool {
        is.abs_diff(wanted) < wanted / 20
    }

    #[test]
    fn a_constant_latency_is_one_and_an_even_one_fills_its_range() {
        assert_eq!(drawn(&Latency::Constant(7 * MS)), [7 * MS; 3]);
        let [least, mean, most] = drawn(&Latency::Uniform { least: 10 * MS, most: 30 * MS });
        assert!(least >= 10 * MS && most <= 30 * MS);
        assert!(close(least, 10 * MS) && close(mean, 20 * MS) && close(most, 30 * MS));
    }

    #[test]
    fn a_bell_curve_has_its_mean_and_is_clipped() {
        let curve = Latency::Normal { mean: 50 * MS, deviation: 10 * MS, most: 70 * MS };
        let [least, mean, most] = drawn(&curve);
        assert!(close(mean, 50 * MS), "{mean:?}");
        assert_eq!(most, 70 * MS);
        assert!((5 * MS..25 * MS).contains(&least), "{least:?}");
        let wide = Latency::Normal { mean: MS, deviation: 50 * MS, most: 90 * MS };
        assert_eq!(drawn(&wide)[0], Duration::ZERO);
    }

    #[test]
    fn a_tail_is_long_and_ends_where_it_is_told() {
        let tail = Latency::Pareto { least: 10 * MS, shape: 1.5, most: 10_000 * MS };
        let mut draws: Vec<_> = (0..20_000).map(|key| tail.sample(draw(key, &[1]))).collect();
        draws.sort_unstable();
        assert!(draws[0] >= 10 * MS && draws[19_999] <= 10_000 * MS);
        // The median is least * 2^(1 / shape), the 99th percentile least * 100^(1 / shape).
        assert!(close(draws[10_000], 10 * MS * 1_587 / 1_000), "{:?}", draws[10_000]);
        assert!(draws[19_800].abs_diff(10 * MS * 2_154 / 100) < 40 * MS, "{:?}", draws[19_800]);
    }

    #[test]
    fn a_table_is_followed_in_straight_lines() {
        let table = Quantiles::new([10 * MS, 20 * MS, 100 * MS]).unwrap();
        assert_eq!(table.at(0.0), 10 * MS);
        assert_eq!(table.at(0.25), 15 * MS);
        assert_eq!(table.at(0.5), 20 * MS);
        assert_eq!(table.at(0.75), 60 * MS);
        assert_eq!(table.at(1.0), 100 * MS);
        assert_eq!(Quantiles::new([MS]), Err(LinkSpecError::Table { points: 1 }));
        assert_eq!(Quantiles::new([2 * MS, MS]), Err(LinkSpecError::Table { points: 2 }));
        assert!(Quantiles::new(vec![MS; QUANTILES_MAX + 1]).is_err());
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let wrong = [
            LinkSpec { duplicate: f64::NAN, ..LinkSpec::CLEAN },
            LinkSpec { loss: LossModel::Independent(1.5), ..LinkSpec::CLEAN },
            LinkSpec {
                loss: LossModel::GilbertElliott {
                    good_mean: Duration::ZERO,
                    bad_mean: MS,
                    good_loss: 0.0,
                    bad_loss: 1.0,
                },
                ..LinkSpec::CLEAN
            },
            LinkSpec { mtu: 100, ..LinkSpec::CLEAN },
            LinkSpec { cost: 0, ..LinkSpec::CLEAN },
            LinkSpec { latency: Latency::Constant(DELAY_MAX * 2), ..LinkSpec::CLEAN },
            LinkSpec { latency: Latency::Uniform { least: 2 * MS, most: MS }, ..LinkSpec::CLEAN },
            LinkSpec {
                latency: Latency::Pareto { least: MS, shape: 0.0, most: 2 * MS },
                ..LinkSpec::CLEAN
            },
            LinkSpec {
                queue: Queue { bytes_max: 1, ..Queue::DEFAULT },
                ..LinkSpec::rated(1_000, MS)
            },
        ];
        let texts: Vec<_> =
            wrong.iter().map(|spec| spec.check().unwrap_err().to_string()).collect();
        for (text, word) in texts.iter().zip([
            "duplicate",
            "loss",
            "channel",
            "mtu",
            "cost",
            "latency",
            "latency",
            "shape",
            "queue",
        ]) {
            assert!(text.contains(word), "{text}");
        }
        assert_eq!(LinkSpec::CLEAN.check(), Ok(()));
        let fair = LinkSpec { queue: Queue::codel(64 << 10), ..LinkSpec::rated(1_000, MS) };
        assert_eq!(fair.check(), Ok(()));
    }
}
