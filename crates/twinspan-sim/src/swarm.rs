//! What one run is made of: drawn from its seed, printed with a failure, and read again.
//!
//! Each seed turns whole families of faults on or off, and kinds within them, and draws how likely
//! each is, and sizes and times, down to the smallest that is legal: a run with few kinds of faults
//! and odd sizes reaches what a run with everything at once never does.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use twinspan_core::link::{Conditions, FaultFamily, FaultKind};
use twinspan_core::random::Stream;

use crate::chaos::{Scope, scope};
use crate::config::{OnPanic, SimConfig};
use crate::plan::{FaultError, Rates, planned_kind};

/// Families that take their draws from the one stream of all kinds.
const FAMILIES_FIRST: usize = 7;
/// Sizes of one run that are told by name.
pub const SIZES_MAX: usize = 256;

/// What one run is made of.
///
/// As text it is one line, `seed=7 loss=0.013 delay_us=2000`, and the same text gives the same run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Everything that is drawn is drawn from this.
    pub seed: u64,
    /// How likely each kind of fault is.
    pub rates: Rates,
    /// Sizes by name. Those that a scenario asks for and that are not there are drawn.
    sizes: RefCell<BTreeMap<String, u64>>,
    /// Whether a size that is not there is drawn; else it is the usual one.
    draws: bool,
}

/// Why text is no [`Options`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum OptionsError {
    /// A part has no `=` in it.
    Shape(String),
    /// The seed is missing.
    NoSeed,
    /// A value is no number, or a rate not from 0 to 1.
    Value {
        /// Of what.
        key: String,
        /// What it is.
        is: String,
    },
    /// A fault that no plan can ask for.
    Fault(FaultError),
    /// More than [`SIZES_MAX`] sizes.
    TooMany,
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(part) => write!(f, "\"{part}\" is no option; write key=value"),
            Self::NoSeed => f.write_str("the options have no seed; begin with seed=1"),
            Self::Value { key, is } => write!(
                f,
                "{key} is \"{is}\"; sizes are numbers from 0, rates of faults go from 0 to 1"
            ),
            Self::Fault(error) => error.fmt(f),
            Self::TooMany => write!(f, "there are more than {SIZES_MAX} options"),
        }
    }
}

impl std::error::Error for OptionsError {}

/// From how likely to how likely a kind is, where it is on.
fn rates_of(kind: FaultKind) -> (f64, f64) {
    match (scope(kind), kind) {
        // Once in many runs a knob, but then for the whole run.
        (_, FaultKind::Knob) => (0.2, 1.0),
        (_, FaultKind::ConnectHang | FaultKind::ConnectRefuse | FaultKind::AcceptExhausted) => {
            (0.05, 0.5)
        }
        (_, FaultKind::NameUnknown | FaultKind::NameFailure) => (0.05, 0.5),
        (_, FaultKind::NameTimeout | FaultKind::NameStale) => (0.05, 0.5),
        (_, FaultKind::TopicMemory) => (0.05, 0.5),
        (_, FaultKind::NameTruncated | FaultKind::NameForged) => (0.05, 0.5),
        (_, FaultKind::HalfOpen | FaultKind::StreamReset | FaultKind::EarlyEnd) => (0.005, 0.1),
        (_, FaultKind::HalfClose | FaultKind::ZeroWindow) => (0.005, 0.1),
        (_, FaultKind::ShortRead | FaultKind::ShortWrite) => (0.05, 1.0),
        (_, FaultKind::ProxyRefuse) => (0.05, 0.5),
        (Some(_), kind) if matches!(kind.family(), FaultFamily::Disk) => (0.01, 0.3),
        (Some(Scope::Each), _) => (0.001, 0.1),
        (Some(_), _) => (0.002, 0.1),
        (None, _) => (0.0, 0.0),
    }
}

impl Options {
    /// Without faults, and everything as usual.
    pub fn plain(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Drawn from the seed, of these kinds.
    pub fn drawn(seed: u64, kinds: &[FaultKind]) -> Self {
        let mut stream = Stream::new(seed, "swarm", 0);
        let families = FaultFamily::ALL.map(|family| {
            // Families that came later have draws of their own, so that seeds stay what they were.
            let is_first = family.index() < FAMILIES_FIRST;
            let mut own = Stream::new(seed, "swarm family", family.index() as u64);
            let drawn = if is_first { stream.next_u64() } else { own.next_u64() };
            drawn & 1 == 1
        });
        let mut rates = Rates::new();
        for kind in FaultKind::ALL {
            // Each kind takes its draws, also when it is off: others do not depend on it.
            let (is_on, level) = (stream.next_u64() & 1 == 1, stream.unit());
            let family = families.get(kind.family().index()).copied().unwrap_or_default();
            if !(is_on && family && kinds.contains(&kind)) {
                continue;
            }
            let (least, most) = rates_of(kind);
            rates = rates.with(kind, between_by_magnitude(least, most, level));
        }
        Self { seed, rates, sizes: RefCell::default(), draws: true }
    }

    /// The same with a size told.
    #[must_use]
    pub fn with_size(self, name: &str, value: u64) -> Self {
        self.sizes.borrow_mut().insert(name.to_owned(), value);
        self
    }

    /// The same with rates told.
    #[must_use]
    pub fn with_rates(mut self, rates: Rates) -> Self {
        self.rates = rates;
        self
    }

    /// A size of the run: what was told, held to its range; or drawn from it, the least of all as
    /// likely as any other quarter; or the usual one where nothing is drawn.
    pub fn size(&self, name: &str, usual: u64, range: RangeInclusive<u64>) -> u64 {
        let (least, most) = (*range.start(), (*range.end()).max(*range.start()));
        let mut sizes = self.sizes.borrow_mut();
        let value = sizes.get(name).copied().unwrap_or_else(|| {
            if !self.draws {
                return usual;
            }
            let mut stream = Stream::new(self.seed, name, 1);
            match stream.below(4) {
                0 => least,
                1 => usual,
                _ => {
                    // Small ones are as likely as large ones.
                    let span = most - least;
                    let bits = u64::from(u64::BITS - span.leading_zeros());
                    let top = 1_u64.checked_shl(stream.below(bits + 1) as u32);
                    least + stream.below(top.unwrap_or(u64::MAX).min(span).saturating_add(1))
                }
            }
        });
        let value = value.clamp(least, most);
        if sizes.len() < SIZES_MAX || sizes.contains_key(name) {
            sizes.insert(name.to_owned(), value);
        }
        value
    }

    /// A time of the run, in microseconds under its name.
    pub fn time(&self, name: &str, usual: Duration, range: RangeInclusive<Duration>) -> Duration {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let range = micros(*range.start())..=micros(*range.end());
        Duration::from_micros(self.size(name, micros(usual), range))
    }

    /// The simulation's part: delays, queues and times. Nothing goes wrong there by share: that is
    /// the plan's.
    pub fn config(&self) -> SimConfig {
        let ms = Duration::from_millis;
        let delay = self.time("delay_us", ms(5), Duration::ZERO..=ms(60));
        let jitter = self.time("jitter_us", Duration::ZERO, Duration::ZERO..=ms(30));
        SimConfig {
            seed: self.seed,
            conditions: Conditions { delay, jitter, ..Conditions::CLEAN },
            // The number fits: it is held to its range.
            in_flight_max: self.size("in_flight_max", 1 << 18, 64..=1 << 18) as usize,
            receive_queue_datagrams_max: self.size("receive_queue_max", 4_096, 1..=4_096) as usize,
            short_send: 0.0,
            short_stream: 0.0,
            stream_give_up: self.time("stream_give_up_us", ms(5_000), ms(1_000)..=ms(10_000)),
            name_delay: self.time("name_delay_us", ms(5), Duration::ZERO..=ms(500)),
            on_panic: OnPanic::CrashHost,
            ..SimConfig::default()
        }
    }
}

/// Between two numbers, by magnitude: as likely near the least as near the most. Halvings are told
/// apart, and within one it is even, so that no logarithm is needed.
fn between_by_magnitude(least: f64, most: f64, level: f64) -> f64 {
    let mut halvings = 0_u32;
    let mut bound = most;
    while bound / 2.0 > least && halvings < 60 {
        bound /= 2.0;
        halvings += 1;
    }
    let which = level * f64::from(halvings + 1);
    let (mut high, whole) = (most, which as u32);
    for _ in 0..whole.min(halvings) {
        high /= 2.0;
    }
    let low = (high / 2.0).max(least);
    // Four digits, so that what is printed is what was drawn.
    let value = low + (high - low) * (which - f64::from(whole));
    (value * 10_000.0).ceil() / 10_000.0
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed={}", self.seed)?;
        for (kind, rate) in self.rates.iter() {
            write!(f, " {}={rate}", kind.name())?;
        }
        for (name, value) in self.sizes.borrow().iter() {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

impl FromStr for Options {
    type Err = OptionsError;

    /// What is not named is as usual, not drawn.
    fn from_str(text: &str) -> Result<Self, OptionsError> {
        let mut options = Self::default();
        let mut seed = None;
        for part in text.split_whitespace() {
            let (key, value) =
                part.split_once('=').ok_or_else(|| OptionsError::Shape(part.to_owned()))?;
            let wrong = || OptionsError::Value { key: key.to_owned(), is: value.to_owned() };
            if key == "seed" {
                seed = Some(value.parse().map_err(|_| wrong())?);
            } else if FaultKind::named(key).is_some() {
                let kind = planned_kind(key).map_err(OptionsError::Fault)?;
                let rate: f64 = value.parse().map_err(|_| wrong())?;
                if !(0.0..=1.0).contains(&rate) {
                    return Err(wrong());
                }
                options.rates = options.rates.with(kind, rate);
            } else {
                let value = value.parse().map_err(|_| wrong())?;
                let sizes = options.sizes.get_mut();
                if sizes.len() >= SIZES_MAX {
                    return Err(OptionsError::TooMany);
                }
                sizes.insert(key.to_owned(), value);
            }
        }
        options.seed = seed.ok_or(OptionsError::NoSeed)?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::is_planned;

    fn kinds() -> Vec<FaultKind> {
        FaultKind::ALL.into_iter().filter(|kind| is_planned(*kind)).collect()
    }

    #[test]
    fn options_are_read_as_they_are_written() {
        for seed in 0..200 {
            let options = Options::drawn(seed, &kinds());
            options.config();
            options.size("clients", 2, 1..=5);
            let again: Options = options.to_string().parse().unwrap();
            assert_eq!(again.rates, options.rates);
            assert_eq!(again.to_string(), options.to_string());
            assert_eq!(again.config(), options.config());
        }
    }

    #[test]
    fn seeds_turn_families_on_and_off_and_reach_the_least_sizes() {
        let mut on = [0_u32; FaultFamily::ALL.len()];
        let (mut least, mut odd) = (0, 0);
        for seed in 0..400 {
            let options = Options::drawn(seed, &kinds());
            let mut families: Vec<_> =
                options.rates.iter().map(|(kind, _)| kind.family().index()).collect();
            families.dedup();
            families.sort_unstable();
            families.dedup();
            families.into_iter().for_each(|family| on[family] += 1);
            let config = options.config();
            least += u32::from(config.receive_queue_datagrams_max == 1);
            odd += u32::from(![1, 4_096].contains(&config.receive_queue_datagrams_max));
        }
        assert!(on.iter().all(|count| (80..260).contains(count)), "{on:?}");
        assert!(least > 70 && odd > 120, "{least} {odd}");
    }

    #[test]
    fn every_planned_kind_has_a_rate_and_no_other_has() {
        for kind in FaultKind::ALL {
            assert_eq!(rates_of(kind).1 > 0.0, is_planned(kind), "{}", kind.name());
        }
    }

    #[test]
    fn what_is_no_option_says_why() {
        let wrong = [
            ("loss=0.1", "the options have no seed; begin with seed=1"),
            ("seed", "\"seed\" is no option; write key=value"),
            ("seed=x", "seed is \"x\"; sizes are numbers from 0, rates of faults go from 0 to 1"),
            (
                "seed=1 loss=2",
                "loss is \"2\"; sizes are numbers from 0, rates of faults go from 0 to 1",
            ),
            ("seed=1 unbound=0.1", "no plan can ask for \"unbound\": it follows from other things"),
        ];
        for (text, message) in wrong {
            assert_eq!(text.parse::<Options>().unwrap_err().to_string(), message, "{text}");
        }
        let many = (0..=SIZES_MAX).map(|size| format!(" size{size}=1")).collect::<String>();
        assert_eq!(format!("seed=1{many}").parse::<Options>().unwrap_err(), OptionsError::TooMany);
    }

    #[test]
    fn a_told_size_is_held_to_its_range() {
        let options: Options = "seed=1 clients=99".parse().unwrap();
        assert_eq!(options.size("clients", 2, 1..=5), 5);
        assert_eq!(options.size("servers", 2, 1..=5), 2);
    }
}
