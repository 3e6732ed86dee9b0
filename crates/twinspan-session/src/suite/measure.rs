//! Which cipher is quickest here, measured.

use core::time::Duration;

use twinspan_core::aead::{AeadSuite, Cipher, NONCE_BYTES, TAG_BYTES};

use super::CryptoSuite;
use crate::header::HEADER_BYTES;

/// The best of so many rounds counts: others were disturbed.
const ROUNDS: usize = 5;
/// Packets of each length that a round seals and opens.
const PACKETS: u64 = 64;
/// Texts as long as an input's and a state's.
const TEXT_BYTES: [usize; 2] = [48, 500];

impl CryptoSuite {
    /// Orders the ciphers by what sealing and opening packets costs here, in some three
    /// milliseconds. `clock` gives the time since any fixed moment; where it does not move in a
    /// round, the processor's features decide as in [`detect`](Self::detect).
    pub fn measure(clock: &mut dyn FnMut() -> Duration) -> Self {
        let guess = Self::detect();
        let costs = guess.ciphers.map(|cipher| (guess.cost(cipher, clock), cipher));
        if costs.iter().any(|(cost, _)| cost.is_zero()) {
            return guess;
        }
        let mut ordered = costs;
        // Equals stay as guessed.
        ordered.sort_by_key(|(cost, _)| *cost);
        Self::all(ordered.map(|(_, cipher)| cipher))
    }

    fn cost(&self, cipher: Cipher, clock: &mut dyn FnMut() -> Duration) -> Duration {
        let Some(key) = self.key(cipher, &[7; 32]) else { return Duration::MAX };
        let mut least = Duration::MAX;
        for _ in 0..ROUNDS {
            let began = clock();
            for len in TEXT_BYTES {
                let mut packet = vec![7; HEADER_BYTES + len + TAG_BYTES];
                let (header, body) = packet.split_at_mut(HEADER_BYTES);
                for number in 0..PACKETS {
                    let mut nonce = [0; NONCE_BYTES];
                    nonce.iter_mut().zip(number.to_le_bytes()).for_each(|(n, b)| *n = b);
                    key.seal(nonce, header, body);
                    if key.open(nonce, header, body).is_err() {
                        return Duration::MAX;
                    }
                }
            }
            least = least.min(clock().saturating_sub(began));
        }
        least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_stands_leaves_the_guess() {
        let suite = CryptoSuite::measure(&mut || Duration::from_secs(1));
        assert_eq!(suite.ciphers(), CryptoSuite::detect().ciphers());
    }

    #[test]
    fn the_least_cost_comes_first() {
        // Looks at the clock are two a round: the second cipher's rounds last least.
        let (mut looks, mut now) = (0, Duration::ZERO);
        let suite = CryptoSuite::measure(&mut || {
            let (cipher, ends) = (looks / (2 * ROUNDS), looks % 2 == 1);
            looks += 1;
            if ends {
                now += Duration::from_micros([30, 10, 20][cipher]);
            }
            now
        });
        let guess = CryptoSuite::detect();
        let [first, second, third] = *guess.ciphers() else { panic!("three ciphers") };
        assert_eq!(suite.ciphers(), [second, third, first]);
    }
}
