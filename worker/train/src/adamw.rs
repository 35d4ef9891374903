//! AdamW on flat memory (Loshchilov and Hutter, 2019).
//!
//! ```text
//! m ← β1 m + (1-β1) g      v ← β2 v + (1-β2) g²
//! w ← w - lr ( m̂ / (√v̂ + ε) + wd w )
//! ```
//! Without bias correction m̂ = m and v̂ = v, as in the replaced program; with it m̂ = m/(1-β1ᵗ) and
//! v̂ = v/(1-β2ᵗ), as in PyTorch. One pass over memory, which is what bounds it.

use rayon::prelude::*;
use squad_model::Stage;
use squad_proto::spec::Train;

use crate::bucket::with_weights;
use crate::error::TrainError;

/// Elements that one thread updates at a time.
const CHUNK: usize = 1 << 16;

/// The recipe's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    weight_decay: f64,
    bias_correction: bool,
}

/// The moments of one stage, in the layout of its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// First moment.
    pub first: Vec<f32>,
    /// Second moment.
    pub second: Vec<f32>,
}

impl Moments {
    /// Zero moments for `len` parameters.
    pub fn new(len: usize) -> Self {
        Self { first: vec![0.0; len], second: vec![0.0; len] }
    }
}

impl AdamW {
    /// The optimizer of a spec.
    pub fn new(train: &Train) -> Self {
        Self {
            beta1: train.adam_betas[0],
            beta2: train.adam_betas[1],
            epsilon: train.adam_epsilon,
            weight_decay: train.weight_decay,
            bias_correction: train.bias_correction,
        }
    }

    /// Updates a stage. `gradients` are multiplied by `scale` (clipping, unscaling) on the way; `rate` is the stage's
    /// learning rate; `step` counts from 1.
    ///
    /// # Errors
    /// When the stage is not on the CPU.
    pub fn update(
        &self,
        stage: &mut Stage,
        moments: &mut Moments,
        gradients: &[f32],
        scale: f64,
        (rate, step): (f64, u64),
    ) -> Result<(), TrainError> {
        let decayed = stage.decayed() as usize;
        let (decaying, constants) = self.constants(scale, (rate, step));
        with_weights(stage, |weights| {
            let (w_decayed, w_plain) = weights.split_at_mut(decayed);
            let (m_decayed, m_plain) = moments.first.split_at_mut(decayed);
            let (v_decayed, v_plain) = moments.second.split_at_mut(decayed);
            let (g_decayed, g_plain) = gradients.split_at(decayed);
            decaying.apply_parallel(w_decayed, m_decayed, v_decayed, g_decayed);
            constants.apply_parallel(w_plain, m_plain, v_plain, g_plain);
        })?;
        stage.refresh();
        Ok(())
    }

    /// The step's numbers for decayed parameters, and for the others.
    pub(crate) fn constants(&self, scale: f64, (rate, step): (f64, u64)) -> (Constants, Constants) {
        let (correction1, correction2) = if self.bias_correction {
            (1.0 - self.beta1.powf(step as f64), 1.0 - self.beta2.powf(step as f64))
        } else {
            (1.0, 1.0)
        };
        let constants = Constants {
            beta1: self.beta1 as f32,
            one_minus_beta1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            one_minus_beta2: (1.0 - self.beta2) as f32,
            inverse_root2: (1.0 / correction2.sqrt()) as f32,
            epsilon: self.epsilon as f32,
            scale: scale as f32,
            step_size: (rate / correction1) as f32,
            keep: 1.0,
        };
        (Constants { keep: (1.0 - rate * self.weight_decay) as f32, ..constants }, constants)
    }
}

/// The numbers of one step, as the arithmetic wants them.
#[derive(Clone, Copy)]
pub(crate) struct Constants {
    pub(crate) beta1: f32,
    pub(crate) one_minus_beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) one_minus_beta2: f32,
    pub(crate) inverse_root2: f32,
    pub(crate) epsilon: f32,
    pub(crate) scale: f32,
    pub(crate) step_size: f32,
    pub(crate) keep: f32,
}

impl Constants {
    /// Element-wise, so the cut into chunks and the number of threads change no bit.
    fn apply_parallel(&self, w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
        w.par_chunks_mut(CHUNK)
            .zip(m.par_chunks_mut(CHUNK))
            .zip(v.par_chunks_mut(CHUNK))
            .zip(g.par_chunks(CHUNK))
            .for_each(|(((w, m), v), g)| self.apply(w, m, v, g));
    }

    fn apply(&self, w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
        for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
            let g = g * self.scale;
            *m = self.beta1 * *m + self.one_minus_beta1 * g;
            *v = self.beta2 * *v + self.one_minus_beta2 * (g * g);
            let denominator = v.sqrt() * self.inverse_root2 + self.epsilon;
            *w = *w * self.keep - self.step_size * (*m / denominator);
        }
    }
}

/// Sum of squares, in double precision and an order that is the same on every rank.
pub fn sum_of_squares(values: &[f32]) -> f64 {
    let partial: Vec<f64> = values
        .par_chunks(CHUNK)
        .map(|chunk| {
            let (eights, rest) = chunk.as_chunks::<8>();
            let mut sums = [0.0f64; 8];
            for eight in eights {
                for (sum, value) in sums.iter_mut().zip(eight) {
                    *sum += f64::from(*value) * f64::from(*value);
                }
            }
            sums.iter().sum::<f64>() + rest.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>()
        })
        .collect();
    partial.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_of_squares_of_awkward_lengths() {
        for len in [0, 1, 7, 8, 9, CHUNK - 1, CHUNK + 3] {
            let values: Vec<f32> = (0..len).map(|k| (k % 13) as f32 - 6.0).collect();
            let expected: f64 = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
            assert_eq!(sum_of_squares(&values), expected);
        }
    }
}
