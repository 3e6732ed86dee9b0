//! Seven classes of throttle: rates as they travel, token buckets, and their adjustment.

use core::fmt;
use core::time::Duration;

use twinspan_core::time::Timestamp;

/// How many classes there are.
pub const THROTTLE_CLASSES: usize = 7;
/// Bytes of the rates in `AgentThrottle`.
pub const RATES_BYTES: usize = 4 * THROTTLE_CLASSES;
/// Bits a second that a class has at least: a full packet each second.
pub const RATE_MIN: f32 = 9_600.0;
/// Least and greatest sum of rates that a user may ask for, in bits a second.
pub const RATE_TOTAL_RANGE: (f32, f32) = (102_400.0, 10_240_000.0);
/// A bucket holds what its rate gives in this time.
const BURST: Duration = Duration::from_millis(100);
/// And at least this many bytes, so that a full packet always fits.
const BURST_BYTES_MIN: u64 = 3_000;

/// What a packet counts as where rates are kept; in the order in which rates travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ThrottleClass {
    /// Packets that leave again.
    Resend = 0,
    /// Terrain.
    Land = 1,
    /// Wind.
    Wind = 2,
    /// Clouds.
    Cloud = 3,
    /// Objects, avatars, chat: what happens.
    Task = 4,
    /// Pictures.
    Texture = 5,
    /// Other assets.
    Asset = 6,
}

impl ThrottleClass {
    /// All of them, in their order.
    pub const ALL: [Self; THROTTLE_CLASSES] =
        [Self::Resend, Self::Land, Self::Wind, Self::Cloud, Self::Task, Self::Texture, Self::Asset];

    /// Its place in the order.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Rates of the seven classes, in bits a second.
#[derive(Clone, Copy, PartialEq)]
pub struct Rates([f32; THROTTLE_CLASSES]);

/// Sums of rates and the share of each class at them, in kilobits of 1,024 bits a second; between
/// two rows shares are interpolated. Facts of what viewers ask for.
const PRESETS: [(f32, [f32; THROTTLE_CLASSES]); 4] = [
    (50.0, [5.0, 10.0, 3.0, 3.0, 10.0, 10.0, 9.0]),
    (300.0, [30.0, 40.0, 9.0, 9.0, 86.0, 86.0, 40.0]),
    (500.0, [50.0, 70.0, 14.0, 14.0, 136.0, 136.0, 80.0]),
    (1_000.0, [100.0, 100.0, 20.0, 20.0, 310.0, 310.0, 140.0]),
];

impl Rates {
    /// No limit.
    pub const UNLIMITED: Self = Self([f32::INFINITY; THROTTLE_CLASSES]);

    /// These rates, in the order of [`ThrottleClass`], held to [`RATE_MIN`] from below. What is no
    /// number is the least.
    pub fn new(bits_per_second: [f32; THROTTLE_CLASSES]) -> Self {
        // `max` gives the other of a number and no number.
        Self(bits_per_second.map(|rate| rate.max(RATE_MIN)))
    }

    /// The rates that a viewer asks for when its user allows `total` bits a second, held to
    /// [`RATE_TOTAL_RANGE`].
    pub fn of_total(total: f32) -> Self {
        let (least, most) = RATE_TOTAL_RANGE;
        let kilobits = total.max(least).min(most) / 1_024.0;
        let after = PRESETS.iter().position(|(at, _)| *at >= kilobits);
        let after = after.unwrap_or(PRESETS.len() - 1).max(1);
        let (low, high) = match PRESETS.get(after - 1..=after) {
            Some([low, high]) => (*low, *high),
            _ => (PRESETS[0], PRESETS[1]),
        };
        // Above the last row it extrapolates.
        let along = (kilobits - low.0) / (high.0 - low.0);
        let mut rates = [0.0; THROTTLE_CLASSES];
        for (rate, (low, high)) in rates.iter_mut().zip(low.1.iter().zip(high.1)) {
            *rate = (low + (high - low) * along) * 1_024.0;
        }
        Self::new(rates)
    }

    /// The rate of a class, in bits a second.
    pub fn get(&self, class: ThrottleClass) -> f32 {
        self.0.get(class.index()).copied().unwrap_or(RATE_MIN)
    }

    /// Their sum, in bits a second.
    pub fn total(&self) -> f32 {
        self.0.iter().sum()
    }

    /// The same shares of at most `total` bits a second; none falls below [`RATE_MIN`].
    #[must_use]
    pub fn capped(&self, total: f32) -> Self {
        let sum = self.total();
        if sum <= total {
            return *self;
        }
        if !sum.is_finite() {
            let each = total / THROTTLE_CLASSES as f32;
            return Self::new(self.0.map(|rate| rate.min(each)));
        }
        Self::new(self.0.map(|rate| rate * (total / sum)))
    }

    /// As they travel in `AgentThrottle`.
    //= lludp 6.6
    pub fn to_bytes(&self) -> [u8; RATES_BYTES] {
        let mut bytes = [0; RATES_BYTES];
        for (place, rate) in bytes.as_chunks_mut().0.iter_mut().zip(self.0) {
            *place = rate.to_le_bytes();
        }
        bytes
    }

    /// Takes them from `AgentThrottle`; `None` when there are not seven. Whatever the bytes say,
    /// each rate is a number of at least [`RATE_MIN`].
    //= lludp 6.6
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let chunks: &[[u8; 4]; THROTTLE_CLASSES] = bytes.as_chunks().0.try_into().ok()?;
        (bytes.len() == RATES_BYTES).then(|| Self::new(chunks.map(f32::from_le_bytes)))
    }
}

impl fmt::Debug for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(ThrottleClass::ALL.iter().map(|class| (class, self.get(*class))))
            .finish()
    }
}

/// Lets bytes pass at a rate, with bursts.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Nanoseconds that a byte takes, in 2^-10 of them; 0 without a limit.
    byte_cost: u64,
    /// How far ahead of the present the bucket may be booked.
    burst: Duration,
    /// Until when it is booked.
    booked: Timestamp,
}

impl Bucket {
    fn new(bits_per_second: f32) -> Self {
        let mut bucket = Self { byte_cost: 0, burst: BURST, booked: Timestamp::START };
        bucket.set(bits_per_second);
        bucket
    }

    fn set(&mut self, bits_per_second: f32) {
        if !bits_per_second.is_finite() {
            self.byte_cost = 0;
            return;
        }
        let cost = 8.0 * 1e9 * 1_024.0 / f64::from(bits_per_second.max(RATE_MIN));
        // At least one part: faster than that is beyond what a class can be asked for.
        self.byte_cost = (cost as u64).max(1);
        self.burst = BURST.max(self.time_of(BURST_BYTES_MIN));
    }

    const fn time_of(&self, bytes: u64) -> Duration {
        Duration::from_nanos(bytes.saturating_mul(self.byte_cost) >> 10)
    }

    /// When a packet may pass.
    const fn open_at(&self) -> Timestamp {
        if self.byte_cost == 0 { Timestamp::START } else { self.booked.before(self.burst) }
    }

    fn take(&mut self, now: Timestamp, bytes: usize) {
        if self.byte_cost > 0 {
            self.booked = self.booked.max(now).after(self.time_of(bytes as u64));
        }
    }
}

/// The seven buckets of one circuit.
#[derive(Clone, Debug)]
pub(crate) struct Throttles {
    buckets: [Bucket; THROTTLE_CLASSES],
    rates: Rates,
}

impl Throttles {
    pub(crate) fn new(rates: &Rates) -> Self {
        Self { buckets: rates.0.map(Bucket::new), rates: *rates }
    }

    /// Other rates from now on; what was booked stays booked.
    pub(crate) fn set(&mut self, rates: &Rates) {
        self.rates = *rates;
        for (bucket, rate) in self.buckets.iter_mut().zip(rates.0) {
            bucket.set(rate);
        }
    }

    pub(crate) const fn rates(&self) -> Rates {
        self.rates
    }

    /// When a packet of the class may leave.
    pub(crate) fn open_at(&self, class: ThrottleClass) -> Timestamp {
        self.buckets.get(class.index()).map_or(Timestamp::START, Bucket::open_at)
    }

    /// A packet of the class left.
    pub(crate) fn take(&mut self, now: Timestamp, class: ThrottleClass, bytes: usize) {
        if let Some(bucket) = self.buckets.get_mut(class.index()) {
            bucket.take(now, bytes);
        }
    }
}

/// How often a viewer looks whether its rates suit the path.
pub const ADJUST_INTERVAL: Duration = Duration::from_secs(5);
/// Share of lost packets above which rates fall by a tenth.
pub const LOSS_TOO_MUCH: f64 = 0.03;
/// Share of lost packets below which rates rise by a tenth, up to what the user allows.
pub const LOSS_LITTLE: f64 = 0.005;

/// Adjusts what a viewer asks simulators for to what the path bears.
#[derive(Clone, Debug)]
pub struct ThrottleControl {
    allowed: f32,
    asked: f32,
}

impl ThrottleControl {
    /// Begins with what the user allows, in bits a second, held to [`RATE_TOTAL_RANGE`].
    pub fn new(allowed: f32) -> Self {
        let (least, most) = RATE_TOTAL_RANGE;
        let allowed = allowed.max(least).min(most);
        Self { allowed, asked: allowed }
    }

    /// What is asked for now.
    pub fn rates(&self) -> Rates {
        Rates::of_total(self.asked)
    }

    /// The sum that is asked for now, in bits a second.
    pub const fn total(&self) -> f32 {
        self.asked
    }

    /// The user allows another sum.
    pub fn allow(&mut self, allowed: f32) {
        *self = Self::new(allowed);
    }

    /// An [`ADJUST_INTERVAL`] has passed in which this share of packets was lost, 0 to 1; says
    /// whether other rates are to be asked for.
    pub fn on_interval(&mut self, loss: f64) -> bool {
        let before = self.asked;
        if loss > LOSS_TOO_MUCH {
            self.asked = (self.asked * 0.9).max(RATE_TOTAL_RANGE.0);
        } else if loss < LOSS_LITTLE {
            self.asked = (self.asked * 1.1).min(self.allowed);
        }
        self.asked.to_bits() != before.to_bits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_have_their_golden_bytes() {
        let rates = Rates::new([9_600.0, 20_480.0, 9_600.0, 9_600.0, 40_960.0, 81_920.0, 1e6]);
        let hex: String = rates.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "000016460000a0460000164600001646000020470000a04700247449");
        assert_eq!(Rates::from_bytes(&rates.to_bytes()), Some(rates));
        assert_eq!(Rates::from_bytes(&[0; 27]), None);
        assert_eq!(Rates::from_bytes(&[0; 32]), None);
    }

    #[test]
    fn shares_follow_the_presets_and_lie_between_them() {
        let at = |kilobits: f32| Rates::of_total(kilobits * 1_024.0);
        let exact = at(500.0);
        assert_eq!(exact.get(ThrottleClass::Task), 136.0 * 1_024.0);
        assert_eq!(exact.get(ThrottleClass::Resend), 50.0 * 1_024.0);
        assert_eq!(at(400.0).get(ThrottleClass::Land), 55.0 * 1_024.0);
        assert_eq!(at(3_000.0).get(ThrottleClass::Task), 1_006.0 * 1_024.0);
        // What is asked for is held to what is allowed.
        assert_eq!(at(1.0), at(100.0));
        assert_eq!(at(1e9), at(10_000.0));
        assert_eq!(Rates::of_total(f32::NAN), at(100.0));
    }

    #[test]
    fn a_bucket_lets_its_rate_pass_and_a_burst() {
        let mut throttles = Throttles::new(&Rates::new([80_000.0; 7]));
        let mut now = Timestamp::START.after(Duration::from_secs(1));
        let (mut passed, end) = (0, now.after(Duration::from_secs(10)));
        while now < end {
            let open = throttles.open_at(ThrottleClass::Task);
            if open > now {
                now = open;
                continue;
            }
            throttles.take(now, ThrottleClass::Task, 1_000);
            passed += 1_000;
        }
        // 10,000 bytes a second for ten seconds, 3,000 at once, and the packet under way.
        assert!((100_000..=104_000).contains(&passed), "{passed}");
        assert_eq!(throttles.open_at(ThrottleClass::Land), Timestamp::START);
    }

    #[test]
    fn without_a_limit_everything_passes() {
        let mut throttles = Throttles::new(&Rates::UNLIMITED);
        for _ in 0..10_000 {
            throttles.take(Timestamp::START, ThrottleClass::Asset, 1_200);
        }
        assert_eq!(throttles.open_at(ThrottleClass::Asset), Timestamp::START);
    }

    #[test]
    fn a_sum_is_capped_in_proportion() {
        let capped = Rates::of_total(1_024_000.0).capped(512_000.0);
        assert!((capped.total() - 512_000.0).abs() < 10.0);
        assert!(capped.get(ThrottleClass::Task) > capped.get(ThrottleClass::Land));
        let from_endless = Rates::UNLIMITED.capped(700_000.0);
        assert_eq!(from_endless.get(ThrottleClass::Wind), 100_000.0);
    }

    #[test]
    fn loss_lowers_what_is_asked_for_and_its_end_raises_it_again() {
        let mut control = ThrottleControl::new(1_024_000.0);
        assert!(!control.on_interval(0.0), "as much as is allowed already");
        assert!(control.on_interval(0.05));
        assert!((control.total() - 921_600.0).abs() < 1.0);
        assert!(!control.on_interval(0.01), "neither much nor little");
        assert!(control.on_interval(0.0));
        for _ in 0..100 {
            control.on_interval(0.5);
        }
        assert_eq!(control.total(), RATE_TOTAL_RANGE.0);
        for _ in 0..100 {
            control.on_interval(0.0);
        }
        assert_eq!(control.total(), 1_024_000.0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_usable_rates(bytes in any::<[u8; RATES_BYTES]>(), total in any::<f32>()) {
            let rates = Rates::from_bytes(&bytes).unwrap();
            for class in ThrottleClass::ALL {
                prop_assert!(rates.get(class) >= RATE_MIN);
            }
            let capped = rates.capped(700_000.0);
            prop_assert!(capped.total() <= 700_000.0 + 7.0 * RATE_MIN);
            prop_assert!(Rates::of_total(total).total().is_finite());
            let mut throttles = Throttles::new(&rates);
            throttles.take(Timestamp::START, ThrottleClass::Task, 1_200);
            prop_assert!(throttles.open_at(ThrottleClass::Task) < Timestamp::NEVER);
        }
    }
}
