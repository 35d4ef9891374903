//! Dropout from derived seeds.
//!
//! A mask depends on a seed and a count, never on a generator's state: so it is the same whichever rank
//! computes a micro-batch, on any number of threads, and after a resume. It is also several times as fast
//! as libtorch's, which draws one number after the other on CPUs without Intel's library.
//!
//! On a GPU libtorch's own generator draws the masks (Philox: counters too, one for each thread), seeded anew for each
//! mask: they follow from seed and count as well, but are others than on the CPU.

use std::cell::{Cell, RefCell};

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};
use tch::{Device, Tensor};

thread_local! {
    /// Reused between masks: they are large.
    static MASK: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// The source of dropout masks for one forward pass of one stage.
#[derive(Debug)]
pub struct Noise {
    seed: u64,
    drawn: Cell<u64>,
}

impl Noise {
    /// Masks that follow from `seed` and from how many were drawn before.
    pub fn new(seed: u64) -> Self {
        Self { seed, drawn: Cell::new(0) }
    }

    /// Zeroes each element of `input` with probability `rate` (to the nearest 1/65536) and scales the
    /// others so that the expectation stays.
    pub fn apply(&self, input: &Tensor, rate: f64) -> Tensor {
        if rate <= 0.0 {
            return input.shallow_clone();
        }
        if input.device() != Device::Cpu {
            self.seed_device();
            return input.dropout(rate, true);
        }
        let seed = self.next_seed();
        let mask = MASK.with_borrow_mut(|mask| {
            mask.resize(input.numel(), 0.0);
            fill_mask(mask, seed, rate);
            Tensor::from_slice(mask)
        });
        // In 32 bits whatever the input's format: the scale, 1 / (1 - rate), is none of bfloat16's numbers.
        (input * mask.view(input.size().as_slice())).to_kind(input.kind())
    }

    /// Seeds the generators of all GPUs for the next mask. Costs no wait: the seed goes along with the next kernels.
    pub(crate) fn seed_device(&self) {
        tch::Cuda::manual_seed_all(self.next_seed());
    }

    fn next_seed(&self) -> u64 {
        let draw = self.drawn.replace(self.drawn.get() + 1);
        mix(&[self.seed, draw])
    }
}

/// Mixes numbers into one seed (SplitMix64's finaliser, Steele et al., 2014, over a running sum).
pub fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9E37_79B9_7F4A_7C15, |sum, part| {
        let mut z = (sum ^ part).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// Fills `mask` with 0 or the scale, four elements from each 64-bit draw.
fn fill_mask(mask: &mut [f32], seed: u64, rate: f64) {
    let cut = (rate * 65536.0).round() as u16;
    let scale = (1.0 / (1.0 - f64::from(cut) / 65536.0)) as f32;
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    for four in mask.chunks_mut(4) {
        let mut bits = random.next_u64();
        for value in four {
            *value = if (bits as u16) < cut { 0.0 } else { scale };
            bits >>= 16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn rate_and_expectation_hold() {
        let ones = Tensor::ones([1000, 1003], (Kind::Float, Device::Cpu));
        let dropped = Noise::new(1).apply(&ones, 0.1);
        let zeros = dropped.eq(0.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        assert!((zeros - 0.1).abs() < 2e-3, "{zeros}");
        assert!((dropped.mean(Kind::Double).double_value(&[]) - 1.0).abs() < 2e-3);
    }

    #[test]
    fn masks_follow_from_seed_and_count() {
        let ones = Tensor::ones([64, 3], (Kind::Float, Device::Cpu));
        let noise = Noise::new(5);
        let (first, second) = (noise.apply(&ones, 0.5), noise.apply(&ones, 0.5));
        assert_ne!(first, second);
        let again = Noise::new(5);
        assert_eq!((again.apply(&ones, 0.5), again.apply(&ones, 0.5)), (first, second));
    }

    #[test]
    fn no_dropout_is_no_work() {
        let noise = Noise::new(5);
        let ones = Tensor::ones([4], (Kind::Float, Device::Cpu));
        assert_eq!(noise.apply(&ones, 0.0).data_ptr(), ones.data_ptr());
    }
}
