//! Word, position and segment embeddings.

use tch::{Device, Tensor};

use crate::config::EncoderConfig;
use crate::dropout::Noise;
use crate::init::Init;
use crate::inputs::Inputs;
use crate::stage::{Declaration, Stage};

const WORD: usize = 0;
const POSITION: usize = 1;
const SEGMENT: usize = 2;
const NORM_WEIGHT: usize = 3;
const NORM_BIAS: usize = 4;

/// The stage's parameters, under Hugging Face's names below `embeddings.`.
pub(crate) fn declare(config: &EncoderConfig, device: Device) -> Stage {
    let c = config.hidden_size;
    let name = |suffix: &str| [format!("embeddings.{suffix}")];
    let normal = Init::Normal(config.initializer_range);
    let mut d = Declaration::default();
    d.matrix(&name("word_embeddings.weight"), &[config.vocab_size, c], normal)
        .matrix(&name("position_embeddings.weight"), &[config.max_position_embeddings, c], normal)
        .matrix(&name("token_type_embeddings.weight"), &[config.type_vocab_size, c], normal)
        .vector(&name("LayerNorm.weight"), &[c], Init::Ones)
        .vector(&name("LayerNorm.bias"), &[c], Init::Zeros);
    Stage::new("embeddings", d, device)
}

/// `[B, T]` ids to `[B, T, C]` hidden states: sum of the three, layer norm, dropout.
pub(crate) fn forward(
    stage: &Stage,
    config: &EncoderConfig,
    inputs: &Inputs,
    noise: Option<(&Noise, f64)>,
) -> Tensor {
    let words = Tensor::embedding(&stage[WORD], &inputs.input_ids, config.pad_token_id, false, false);
    let segments = Tensor::embedding(&stage[SEGMENT], &inputs.token_type_ids, -1, false, false);
    let positions = stage[POSITION].narrow(0, 0, inputs.width());
    let normed = (words + segments + positions).layer_norm(
        [config.hidden_size],
        Some(&stage[NORM_WEIGHT]),
        Some(&stage[NORM_BIAS]),
        config.layer_norm_eps,
        true,
    );
    match noise {
        Some((noise, rate)) => noise.apply(&normed, rate),
        None => normed,
    }
}
