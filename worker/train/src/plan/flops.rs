//! Floating-point operations of a micro-batch: two for each multiplication with an addition, in matrix products only.
//!
//! ```text
//! forward   2 N M                     M: parameters of matrices that every token is multiplied by
//!         + 4 N T W                   a layer's attention: T keys, W the width of all its heads together
//! training  3 times the forward pass: a product's gradients, by each of its factors, are products of the same size
//! ```
//! N tokens in windows of T, of padding as many as are computed. Frozen stages are run forward only; the lowest trained one passes no
//! gradient on, which is not taken into account.

use squad_model::{EncoderConfig, StageSize};

/// What the operations of a network's micro-batches follow from.
#[derive(Clone, Debug)]
pub struct Flops {
    /// For each token, forward, of stages that are trained and of those that are not.
    per_token: [f64; 2],
    /// For each token and key, forward, of the same.
    per_key: [f64; 2],
}

impl Flops {
    /// Of a network of these stages, where those below `first_trainable` are frozen.
    pub fn of(config: &EncoderConfig, stages: &[StageSize], first_trainable: usize) -> Self {
        let mut flops = Self { per_token: [0.0; 2], per_key: [0.0; 2] };
        let repeats = config.num_hidden_layers / config.layer_stages();
        let heads = config.num_attention_heads * config.head_dim();
        for (number, stage) in stages.iter().enumerate() {
            let frozen = usize::from(number < first_trainable);
            let is_layer = number > 0 && number + 1 < stages.len();
            let times = if is_layer { repeats as f64 } else { 1.0 };
            flops.per_token[frozen] += 2.0 * times * stage.matrices as f64;
            if is_layer {
                flops.per_key[frozen] += 4.0 * times * heads as f64;
            }
        }
        flops
    }

    /// Training on `windows` windows of `tokens` tokens each.
    pub fn training(&self, windows: u64, tokens: u64) -> f64 {
        let (all, keys) = ((windows * tokens) as f64, tokens as f64);
        let forward = |part: usize| all * (self.per_token[part] + keys * self.per_key[part]);
        3.0 * forward(0) + forward(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use squad_model::{HeadKind, stage_sizes};

    #[test]
    fn operations_of_bert_base() {
        let config = super::super::tests::bert(12, 768);
        let stages = stage_sizes(&config, HeadKind::Span);
        let flops = Flops::of(&config, &stages, 0);
        let (c, t) = (768.0, 384.0);
        // Query, key, value and output: 4; the two of the feed-forward network: 8.
        let forward = t * (12.0 * (2.0 * 12.0 * c * c + 4.0 * t * c) + 2.0 * 2.0 * c);
        assert_eq!(flops.training(1, 384), 3.0 * forward);
        assert_eq!(flops.training(4, 384), 12.0 * forward);
        let frozen = Flops::of(&config, &stages, 13).training(1, 384);
        assert_eq!(frozen, forward + 2.0 * t * 4.0 * c, "only the head is trained");
    }
}
