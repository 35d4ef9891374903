//! Randomness of the order of examples, spelled out: libraries may change theirs between versions, and a
//! checkpoint must resume with the same order.

use rand::{RngCore, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// The source of everything that is random in one epoch.
pub(super) fn generator(seed: u64, epoch: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(mix(seed, epoch))
}

/// The numbers `0..count` in random order.
pub(super) fn permutation(count: usize, rng: &mut impl RngCore) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    shuffle(&mut order, rng);
    order
}

/// Fisher and Yates.
pub(super) fn shuffle<T>(items: &mut [T], rng: &mut impl RngCore) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(last as u64 + 1, rng));
    }
}

/// `SplitMix64`'s finaliser over both numbers, so that neighbouring seeds and epochs share nothing.
fn mix(seed: u64, epoch: u64) -> u64 {
    let mut z = seed.wrapping_add(epoch.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in `0..bound` without bias (Lemire's multiplication method).
fn below(bound: u64, rng: &mut impl RngCore) -> usize {
    let reject = bound.wrapping_neg() % bound;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(bound);
        let (high, low) = ((product >> 64) as u64, product as u64);
        if low >= reject {
            // Below `bound`, which came from a usize.
            return high as usize;
        }
    }
}
