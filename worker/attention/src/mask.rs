//! Which attention weights stay, as bits.

use rand_xoshiro::rand_core::{RngCore, SeedableRng};
use rand_xoshiro::{SplitMix64, Xoshiro256PlusPlus};

/// Dropout of attention weights. Which of them stay follows from the seed, the row of the batch and the head, and from nothing
/// else.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Where the masks come from.
    pub seed: u64,
    /// Of 65536 weights, so many are dropped.
    pub drops: u16,
    /// What is added to the number of a row of the batch: where it is a piece of one.
    pub first_row: usize,
}

impl Dropout {
    /// [`scale`] of what it drops.
    pub fn scale(&self) -> f32 {
        scale(self.drops)
    }

    /// Which weights stay of a row of the batch and a head: for each of `tokens` queries, `tokens` of them.
    pub fn stay(&self, row: usize, head: usize, tokens: usize) -> Vec<bool> {
        let words = tokens.div_ceil(64);
        let mut kept = vec![0; tokens * words];
        self.fill(row, head, &mut kept);
        let of_query =
            |query: &[u64]| (0..tokens).map(|key| query[key / 64] >> (key % 64) & 1 == 1).collect::<Vec<_>>();
        kept.chunks(words.max(1)).flat_map(of_query).collect()
    }

    /// Sets the bits of the weights that stay, for one row of the batch and one head. `kept` holds rows of whole words.
    pub(crate) fn fill(&self, row: usize, head: usize, kept: &mut [u64]) {
        let stream = ((self.first_row + row) as u64) << 16 | head as u64;
        // Mixed twice: the generator is seeded from consecutive outputs of SplitMix64, which neighbours would share.
        let mixed =
            SplitMix64::seed_from_u64(self.seed ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03)).next_u64();
        let mut random = Xoshiro256PlusPlus::seed_from_u64(mixed);
        let lowest = self.drops.trailing_zeros().min(16);
        for word in kept {
            // A bit is set with the probability 0.b15 b14 … b0, in binary: from the last digit on, each halves the probability
            // that was, and adds a half where it is 1.
            let mut dropped = 0;
            for digit in lowest..16 {
                let draw = random.next_u64();
                dropped = if self.drops >> digit & 1 == 1 { dropped | draw } else { dropped & draw };
            }
            *word = !dropped;
        }
    }
}

/// What numbers that stay are multiplied by, so that their expectation is as without dropout, where of 65536 `drops` are dropped.
pub fn scale(drops: u16) -> f32 {
    (1.0 / (1.0 - f64::from(drops) / 65536.0)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_dropped_as_the_rate_says() {
        for drops in [1 << 15, 6554, 1, 65535, 0] {
            let mut kept = vec![0; 20_000];
            Dropout { seed: 3, drops, first_row: 0 }.fill(2, 5, &mut kept);
            let dropped: u32 = kept.iter().map(|word| word.count_zeros()).sum();
            let (share, rate) = (f64::from(dropped) / 1.28e6, f64::from(drops) / 65536.0);
            assert!((share - rate).abs() <= 4.0 * (rate * (1.0 - rate) / 1.28e6).sqrt(), "{share} of {rate}");
        }
    }

    #[test]
    fn neighbours_are_independent() {
        let fill = |row, head| {
            let mut kept = vec![0; 20_000];
            Dropout { seed: 3, drops: 1 << 15, first_row: 0 }.fill(row, head, &mut kept);
            kept
        };
        let first = fill(0, 0);
        for other in [fill(0, 1), fill(0, 2), fill(1, 0)] {
            let alike: u32 = first.iter().zip(&other).map(|(a, b)| (a ^ b).count_zeros()).sum();
            assert!((f64::from(alike) / 1.28e6 - 0.5).abs() < 4.0 * 0.5 / 1.28e6f64.sqrt(), "{alike}");
        }
    }

    #[test]
    fn rows_and_heads_differ_and_pieces_agree() {
        let bits = |first_row, row, head| {
            let mut kept = [0; 4];
            Dropout { seed: 3, drops: 6554, first_row }.fill(row, head, &mut kept);
            kept
        };
        assert_ne!(bits(0, 0, 1), bits(0, 1, 0));
        assert_ne!(bits(0, 0, 0), bits(0, 0, 1));
        assert_eq!(bits(0, 5, 2), bits(3, 2, 2));
    }
}
