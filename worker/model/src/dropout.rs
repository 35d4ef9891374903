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
use tch::{Device, Kind, Tensor};

use crate::packing::Packing;

thread_local! {
    /// Reused between masks: they are large.
    static MASK: RefCell<Vec<bool>> = const { RefCell::new(Vec::new()) };
}

/// The source of dropout masks for one forward pass of one stage.
#[derive(Debug)]
pub struct Noise {
    seed: u64,
    drawn: Cell<u64>,
    first_row: usize,
}

impl Noise {
    /// Masks that follow from `seed` and from how many were drawn before.
    pub fn new(seed: u64) -> Self {
        Self { seed, drawn: Cell::new(0), first_row: 0 }
    }

    /// The same for the rows from `first_row` on of a batch: on the CPU these rows' part of the batch's masks.
    #[must_use]
    pub fn from_row(self, first_row: usize) -> Self {
        Self { first_row, ..self }
    }

    /// Zeroes each element of `input` with probability `rate` (to the nearest 1/65536) and scales the
    /// others so that the expectation stays. The first dimension is the batch's rows, unless they are packed: these lose what they
    /// would padded.
    pub fn apply(&self, input: &Tensor, rate: f64, packing: Option<&Packing>) -> Tensor {
        if rate <= 0.0 {
            return input.shallow_clone();
        }
        if input.device() != Device::Cpu {
            self.seed_device();
            return input.dropout(rate, true);
        }
        let seed = self.next_seed();
        let rows = input.size().first().map_or(1, |rows| *rows);
        let keep = MASK.with_borrow_mut(|mask| {
            mask.resize(input.numel(), false);
            self.fill(mask, (seed, rate), rows as usize, packing);
            Tensor::from_slice(mask)
        });
        // What the backward pass keeps is a byte for each element, not a float.
        let nothing = Tensor::zeros([], (input.kind(), Device::Cpu));
        let mut kept = input.where_self(&keep.view(input.size().as_slice()), &nothing);
        if input.kind() != Kind::Float {
            // The scale is none of a 16-bit format's numbers.
            return (kept.to_kind(Kind::Float) * scale(rate)).to_kind(input.kind());
        }
        kept *= scale(rate);
        kept
    }

    /// Fills `mask` with whether elements stay. Each row's part follows from the row's number in its batch, so that it is the same
    /// alone and, from the first token on, whatever is padded.
    fn fill(&self, mask: &mut [bool], (seed, rate): (u64, f64), rows: usize, packing: Option<&Packing>) {
        let elements: Vec<usize> = match packing {
            None => vec![mask.len() / rows.max(1); rows],
            Some(packing) => {
                let of_token = mask.len() / packing.lengths().iter().sum::<usize>().max(1);
                packing.lengths().iter().map(|tokens| tokens * of_token).collect()
            }
        };
        let mut rest = mask;
        for (row, elements) in elements.into_iter().enumerate() {
            let (mask, behind) = rest.split_at_mut(elements);
            fill_row(mask, mix(&[seed, (self.first_row + row) as u64]), rate);
            rest = behind;
        }
    }

    /// The next dropout of attention weights on the CPU, at a rate to the nearest 1/65536; none where that is 0.
    pub(crate) fn of_attention(&self, rate: f64) -> Option<squad_attention::Dropout> {
        let seed = self.next_seed();
        let drops = cut(rate);
        (drops > 0).then_some(squad_attention::Dropout { seed, drops, first_row: self.first_row })
    }

    /// Seeds the generators of all GPUs for the next mask. Costs no wait: the seed goes along with the next kernels.
    pub(crate) fn seed_device(&self) {
        let seed = self.next_seed();
        let seed = if self.first_row == 0 { seed } else { mix(&[seed, self.first_row as u64]) };
        tch::Cuda::manual_seed_all(seed);
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

/// The rate as the number of 65536 draws of which one drops an element.
fn cut(rate: f64) -> u16 {
    (rate * 65536.0).round() as u16
}

/// What the elements that stay are multiplied by.
fn scale(rate: f64) -> f64 {
    f64::from(squad_attention::scale(cut(rate)))
}

/// Fills `mask` with whether elements stay, four from each 64-bit draw.
fn fill_row(mask: &mut [bool], seed: u64, rate: f64) {
    let cut = cut(rate);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    for four in mask.chunks_mut(4) {
        let mut bits = random.next_u64();
        for value in four {
            *value = bits as u16 >= cut;
            bits >>= 16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_expectation_hold() {
        let ones = Tensor::ones([1000, 1003], (Kind::Float, Device::Cpu));
        let dropped = Noise::new(1).apply(&ones, 0.1, None);
        let zeros = dropped.eq(0.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        assert!((zeros - 0.1).abs() < 2e-3, "{zeros}");
        assert!((dropped.mean(Kind::Double).double_value(&[]) - 1.0).abs() < 2e-3);
    }

    #[test]
    fn masks_follow_from_seed_and_count() {
        let ones = Tensor::ones([64, 3], (Kind::Float, Device::Cpu));
        let noise = Noise::new(5);
        let (first, second) = (noise.apply(&ones, 0.5, None), noise.apply(&ones, 0.5, None));
        assert_ne!(first, second);
        let again = Noise::new(5);
        assert_eq!((again.apply(&ones, 0.5, None), again.apply(&ones, 0.5, None)), (first, second));
    }

    #[test]
    fn rows_have_their_part_of_the_batchs_masks() {
        let ones = |rows: i64| Tensor::ones([rows, 5, 3], (Kind::Float, Device::Cpu));
        let whole = Noise::new(5);
        let parts = [(0, 3), (3, 1), (4, 2)]
            .map(|(first, rows)| (first, rows, Noise::new(5).from_row(first as usize)));
        for _ in 0..2 {
            let all = whole.apply(&ones(6), 0.5, None);
            for (first, rows, noise) in &parts {
                assert_eq!(
                    noise.apply(&ones(*rows), 0.5, None),
                    all.narrow(0, *first, *rows),
                    "from {first} on"
                );
            }
        }
    }

    #[test]
    fn packed_rows_have_the_masks_of_padded_ones() {
        let padded = Tensor::ones([3, 5, 7], (Kind::Float, Device::Cpu));
        let packing = Packing::new(&[2, 5, 1], 5);
        let packed = packing.pack(&padded);
        let (all, some) = (Noise::new(5).from_row(2), Noise::new(5).from_row(2));
        for _ in 0..2 {
            let expected = packing.pack(&all.apply(&padded, 0.5, None));
            assert_eq!(some.apply(&packed, 0.5, Some(&packing)), expected);
        }
    }

    #[test]
    fn what_stays_in_16_bits_is_rounded_once() {
        let numbers = Tensor::randn([500], (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16);
        let found = Noise::new(5).apply(&numbers, 0.1, None);
        let exact = Noise::new(5).apply(&numbers.to_kind(Kind::Float), 0.1, None);
        assert_eq!(found.kind(), Kind::BFloat16);
        assert_eq!(found, exact.to_kind(Kind::BFloat16));
    }

    #[test]
    fn no_dropout_is_no_work() {
        let noise = Noise::new(5);
        let ones = Tensor::ones([4], (Kind::Float, Device::Cpu));
        assert_eq!(noise.apply(&ones, 0.0, None).data_ptr(), ones.data_ptr());
    }
}
