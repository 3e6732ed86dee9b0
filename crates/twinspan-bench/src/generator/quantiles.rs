//! Sizes of states as a few of them that stand for all.

/// Quantiles at which the sizes of states are told.
const SIZES_TOLD: usize = 128;

/// The values at even quantiles of counts by value.
pub(super) fn quantiles(counts: &[u32]) -> Vec<u16> {
    let total: u64 = counts.iter().copied().map(u64::from).sum();
    let mut told = Vec::with_capacity(SIZES_TOLD);
    let mut below = 0;
    for (value, count) in (0_u16..).zip(counts) {
        below += u64::from(*count);
        while total > 0
            && told.len() < SIZES_TOLD
            && below * SIZES_TOLD as u64 * 2 > total * (told.len() as u64 * 2 + 1)
        {
            told.push(value);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_have_the_counts_mean() {
        let mut counts = vec![0; 1_000];
        counts[100] = 10;
        counts[300] = 30;
        let told = quantiles(&counts);
        assert_eq!(told.len(), SIZES_TOLD);
        assert_eq!(told.iter().filter(|value| **value == 100).count(), SIZES_TOLD / 4);
        assert!(quantiles(&[0; 10]).is_empty());
    }
}
