//! Weights of parameters that no file holds.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Init {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// Normal with this standard deviation, as Hugging Face starts its heads.
    Normal(f64),
    /// The same, redrawn outside two standard deviations, as the replaced program starts its heads.
    TruncatedNormal(f64),
}

impl Init {
    /// Fills `values`. Equal seeds give equal values on every machine.
    pub(crate) fn fill(self, values: &mut [f32], seed: u64) {
        match self {
            Self::Zeros => values.fill(0.0),
            Self::Ones => values.fill(1.0),
            Self::Normal(deviation) => normal(values, seed, deviation, f64::INFINITY),
            Self::TruncatedNormal(deviation) => normal(values, seed, deviation, 2.0),
        }
    }
}

/// Box and Muller's transform; draws beyond `cut` standard deviations are drawn again.
fn normal(values: &mut [f32], seed: u64, deviation: f64, cut: f64) {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    // 53 bits, never 0, so that the logarithm is finite.
    let mut uniform = || ((random.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    for value in values {
        *value = loop {
            let draw = (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
            if draw.abs() <= cut {
                break (draw * deviation) as f32;
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_has_its_deviation_and_truncation_its_bounds() {
        let mut values = vec![0.0; 100_000];
        Init::Normal(0.02).fill(&mut values, 7);
        let deviation = (values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 1e5).sqrt();
        assert!((deviation - 0.02).abs() < 2e-4, "{deviation}");
        assert!(values.iter().any(|v| v.abs() > 0.04));
        Init::TruncatedNormal(0.02).fill(&mut values, 7);
        assert!(values.iter().all(|v| v.abs() <= 0.04));
        let again = values.clone();
        Init::TruncatedNormal(0.02).fill(&mut values, 7);
        assert_eq!(values, again);
    }
}
