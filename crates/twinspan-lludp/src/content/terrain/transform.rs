//! The cosine transform of a patch, and the order in which its values travel.

use core::f64::consts::{FRAC_1_SQRT_2, PI};
use std::sync::OnceLock;

use super::PatchSize;

/// What does not change between patches of one size.
#[derive(Debug)]
pub(super) struct Tables {
    side: usize,
    /// `cosines[u * side + n]`: the cosine of frequency `u` at place `n`.
    cosines: Vec<f32>,
    /// The place of each value in the order of the wire, and its step.
    order: Vec<(usize, f32)>,
}

/// The tables of a size; made once.
pub(super) fn tables(size: PatchSize) -> &'static Tables {
    static P16: OnceLock<Tables> = OnceLock::new();
    static P32: OnceLock<Tables> = OnceLock::new();
    let place = match size {
        PatchSize::P16 => &P16,
        PatchSize::P32 => &P32,
    };
    place.get_or_init(|| Tables::new(size.side()))
}

impl Tables {
    fn new(side: usize) -> Self {
        let cosine = |u: usize, n: usize| {
            if u == 0 {
                FRAC_1_SQRT_2 as f32
            } else {
                libm::cos((2 * n + 1) as f64 * u as f64 * PI / (2 * side) as f64) as f32
            }
        };
        let cosines = (0..side * side).map(|at| cosine(at / side, at % side)).collect();
        let step = |(i, j): (usize, usize)| (j * side + i, (1 + 2 * (i + j)) as f32);
        Self { side, cosines, order: diagonals(side).map(step).collect() }
    }

    /// Places and steps in the order of the wire.
    pub(super) fn order(&self) -> impl Iterator<Item = (usize, f32)> {
        self.order.iter().copied()
    }

    /// From frequencies to heights. `values` is used up.
    pub(super) fn inverse(
        &self,
        values: &mut [f32; PatchSize::HEIGHTS_MAX],
        heights: &mut [f32; PatchSize::HEIGHTS_MAX],
    ) {
        self.columns(values, heights, |n, u| (u, n));
        self.rows(heights, values, |n, u| (u, n));
        let scale = 2.0 / self.side as f32;
        for (height, value) in heights.iter_mut().zip(values.iter()) {
            *height = value * scale;
        }
    }

    /// From heights to frequencies, in their steps and in the order of the wire. `values` is used
    /// up.
    pub(super) fn forward(
        &self,
        values: &mut [f32; PatchSize::HEIGHTS_MAX],
        transformed: &mut [i32; PatchSize::HEIGHTS_MAX],
    ) {
        let mut half = [0.0; PatchSize::HEIGHTS_MAX];
        self.rows(values, &mut half, |u, n| (u, n));
        self.columns(&half, values, |u, n| (u, n));
        let scale = 2.0 / self.side as f32;
        for (out, (place, step)) in transformed.iter_mut().zip(self.order()) {
            let value = values.get(place).copied().unwrap_or_default();
            *out = (value * scale / step).round() as i32;
        }
    }

    /// Transforms each row: `cosine` tells frequency and place for the indices of result and sum.
    fn rows(&self, from: &[f32], to: &mut [f32], cosine: impl Fn(usize, usize) -> (usize, usize)) {
        let side = self.side;
        for (from, to) in from.chunks_exact(side).zip(to.chunks_exact_mut(side)).take(side) {
            for (at, out) in to.iter_mut().enumerate() {
                let parts = from.iter().enumerate().map(|(index, value)| {
                    let (u, n) = cosine(at, index);
                    value * self.cosine(u, n)
                });
                *out = parts.sum();
            }
        }
    }

    /// Transforms each column.
    fn columns(
        &self,
        from: &[f32],
        to: &mut [f32],
        cosine: impl Fn(usize, usize) -> (usize, usize),
    ) {
        let side = self.side;
        for (row, to) in to.chunks_exact_mut(side).enumerate().take(side) {
            to.fill(0.0);
            for (index, from) in from.chunks_exact(side).enumerate().take(side) {
                let (u, n) = cosine(row, index);
                let factor = self.cosine(u, n);
                to.iter_mut().zip(from).for_each(|(sum, value)| *sum += value * factor);
            }
        }
    }

    #[inline]
    fn cosine(&self, u: usize, n: usize) -> f32 {
        self.cosines.get(u * self.side + n).copied().unwrap_or_default()
    }
}

/// The places of a square in the order of its diagonals, which go up and down by turns: (0, 0),
/// (1, 0), (0, 1), (0, 2), (1, 1), (2, 0) and so on.
fn diagonals(side: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..2 * side - 1).flat_map(move |sum| {
        let from = sum.saturating_sub(side - 1);
        let to = sum.min(side - 1);
        (from..=to).map(move |part| {
            // Odd ones begin at the right, where `i` is large.
            let i = if sum % 2 == 1 { from + to - part } else { part };
            (i, sum - i)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diagonals_go_up_and_down() {
        let first: Vec<_> = diagonals(4).take(10).collect();
        let golden =
            [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (2, 0), (3, 0), (2, 1), (1, 2), (0, 3)];
        assert_eq!(first, golden);
        let last: Vec<_> = diagonals(4).skip(10).collect();
        assert_eq!(last, [(1, 3), (2, 2), (3, 1), (3, 2), (2, 3), (3, 3)]);
        assert_eq!(diagonals(32).count(), 1_024);
    }

    #[test]
    fn frequencies_without_steps_come_back_exactly() {
        for size in [PatchSize::P16, PatchSize::P32] {
            let tables = tables(size);
            let mut values = [0.0; PatchSize::HEIGHTS_MAX];
            let before: Vec<f32> =
                (0..size.heights()).map(|at| (at * 37 % 101) as f32 - 50.0).collect();
            values[..size.heights()].copy_from_slice(&before);
            let (mut half, mut whole) = ([0.0; PatchSize::HEIGHTS_MAX], values);
            tables.rows(&values, &mut half, |u, n| (u, n));
            tables.columns(&half, &mut whole, |u, n| (u, n));
            let scale = 2.0 / size.side() as f32;
            whole.iter_mut().for_each(|value| *value *= scale);
            tables.inverse(&mut whole, &mut values);
            for (one, other) in values.iter().zip(&before) {
                assert!((one - other).abs() < 1e-3, "{one} {other}");
            }
        }
    }
}
