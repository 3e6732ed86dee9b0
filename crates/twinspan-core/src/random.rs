//! Named, counter-based random streams: draw `k` is a function of (seed, name, instance, `k`).
//!
//! ```
//! use twinspan_core::random::Stream;
//!
//! let mut walk = Stream::new(7, "walk", 3);
//! let turn = walk.between(-1.0, 1.0);
//! assert!((-1.0..1.0).contains(&turn));
//! assert_eq!(turn, Stream::new(7, "walk", 3).between(-1.0, 1.0));
//! ```

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The odd constant by which SplitMix64 advances; its author's choice, 2^64 divided by the golden ratio.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Scrambles `value` so that every input bit reaches every output bit (the SplitMix64 finaliser).
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// One draw keyed by stable coordinates: the same key and coordinates give the same value, whatever
/// else was drawn before.
pub fn draw(key: u64, coordinates: &[u64]) -> u64 {
    let mut state = key;
    for coordinate in coordinates {
        state = mix(state.wrapping_add(GAMMA) ^ coordinate.wrapping_mul(GAMMA));
    }
    mix(state.wrapping_add(GAMMA))
}

/// Turns 64 random bits into a number in `[0, 1)` with 53 bits of precision.
pub const fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// A named random stream.
///
/// Not for secrets in production: those come from a [`SecretSource`] of the operating system.
#[derive(Clone, Debug)]
pub struct Stream {
    key: u64,
    counter: u64,
}

impl Stream {
    /// The stream `name`, number `instance`, of a run with `seed`.
    pub fn new(seed: u64, name: &str, instance: u64) -> Self {
        let key = xxh3_64_with_seed(name.as_bytes(), seed);
        Self { key: draw(key, &[instance]), counter: 0 }
    }

    /// The next 64 random bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(1);
        mix(self.key.wrapping_add(self.counter.wrapping_mul(GAMMA)))
    }

    /// The next 32 random bits.
    pub const fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// A number in `[0, bound)`; 0 when `bound` is 0. The bias is below 2^-32 for bounds below 2^32.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next_u64() as u128 * bound as u128) >> 64) as u64
    }

    /// A number in `[0, 1)`.
    pub const fn unit(&mut self) -> f64 {
        unit(self.next_u64())
    }

    /// A number in `[low, high)`.
    pub const fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// True with this probability; never at 0 or below, always at 1 or above.
    pub const fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }
}

/// Where keys, nonces and cookies come from: the operating system in production, a keyed stream in
/// the simulator.
pub trait SecretSource: Send {
    /// Fills `out` with secret random bytes.
    fn fill(&mut self, out: &mut [u8]);
}

impl SecretSource for Stream {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.next_u64().to_le_bytes();
            chunk.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_a_function_of_its_coordinates() {
        let mut first = Stream::new(7, "walk", 3);
        let mut again = Stream::new(7, "walk", 3);
        let mut other_name = Stream::new(7, "talk", 3);
        let mut other_instance = Stream::new(7, "walk", 4);
        let mut other_seed = Stream::new(8, "walk", 3);
        let value = first.next_u64();
        assert_eq!(value, again.next_u64());
        assert_ne!(value, other_name.next_u64());
        assert_ne!(value, other_instance.next_u64());
        assert_ne!(value, other_seed.next_u64());
    }

    /// Recorded seeds stay valid only while these values do.
    #[test]
    fn draws_are_pinned() {
        let mut stream = Stream::new(1, "pinned", 0);
        let drawn = [stream.next_u64(), stream.next_u64(), draw(1, &[2, 3])];
        assert_eq!(drawn, PINNED);
    }
    const PINNED: [u64; 3] = [671524133575778079, 102428231249829086, 5785202442795934875];

    #[test]
    fn bounds_hold() {
        let mut stream = Stream::new(1, "bounds", 0);
        for _ in 0..10_000 {
            assert!(stream.below(10) < 10);
            let value = stream.between(-2.0, 3.0);
            assert!((-2.0..3.0).contains(&value));
        }
        assert_eq!(stream.below(0), 0);
        assert!(!stream.chance(0.0));
        assert!(stream.chance(1.0));
    }
}
