//! Word, position and segment embeddings, as all families but MobileBERT have them.

use tch::Tensor;

use crate::config::EncoderConfig;
use crate::dropout::Noise;
use crate::family::Traits;
use crate::init::Init;
use crate::inputs::Inputs;
use crate::stage::{Declaration, Stage};

const WORD: usize = 0;
const POSITION: usize = 1;
const NORM_WEIGHT: usize = 2;
const NORM_BIAS: usize = 3;
/// The segment table where there is one, then the projection's weight and bias where there is one.
const OPTIONAL: usize = 4;

/// The stage's parameters, under Hugging Face's names.
pub(crate) fn declare(config: &EncoderConfig) -> Declaration {
    let (e, c) = (config.embedding_size, config.hidden_size);
    let name = |suffix: &str| [format!("embeddings.{suffix}")];
    let normal = Init::Normal(config.initializer_range);
    let mut d = Declaration::new("embeddings");
    d.matrix(&name("word_embeddings.weight"), &[config.vocab_size, e], normal)
        .matrix(&name("position_embeddings.weight"), &[config.max_position_embeddings, e], normal)
        .norm("embeddings.LayerNorm", e);
    if config.type_vocab_size > 0 {
        d.matrix(&name("token_type_embeddings.weight"), &[config.type_vocab_size, e], normal);
    }
    if let Some(projection) = projection(config) {
        d.linear(projection, c, e, normal);
    }
    d
}

/// ELECTRA has a projection only where the widths differ, ALBERT always.
fn projection(config: &EncoderConfig) -> Option<&'static str> {
    let needed = config.family.shares_layers() || config.embedding_size != config.hidden_size;
    config.family.projection().filter(|_| needed)
}

/// `[B, T]` ids to `[B, T, C]` hidden states: sum of the three, layer norm, dropout, projection.
pub(crate) fn forward(
    stage: &Stage,
    config: &EncoderConfig,
    inputs: &Inputs,
    noise: Option<(&Noise, f64)>,
) -> Tensor {
    let mut sum = lookup(&stage[WORD], &inputs.input_ids, config.pad_token_id);
    let mut next = OPTIONAL;
    if config.type_vocab_size > 0 {
        let table = &stage[next];
        next += 1;
        sum += match config.family.has_segments() {
            true => lookup(table, &inputs.token_type_ids, None),
            false => table.narrow(0, 0, 1),
        };
    }
    // In Hugging Face's order, whose rounding this keeps.
    let normed = (sum + positions(stage, config, inputs)).layer_norm(
        [config.embedding_size],
        Some(&stage[NORM_WEIGHT]),
        Some(&stage[NORM_BIAS]),
        config.layer_norm_eps,
        true,
    );
    let dropped = match noise {
        Some((noise, rate)) => noise.apply(&normed, rate, None),
        None => normed,
    };
    match projection(config) {
        Some(_) => dropped.linear(&stage[next], Some(&stage[next + 1])),
        None => dropped,
    }
}

/// Rows of `table`; the row `padding` learns nothing.
pub(crate) fn lookup(table: &Tensor, ids: &Tensor, padding: Option<i64>) -> Tensor {
    Tensor::embedding(table, ids, padding.unwrap_or(-1), false, false)
}

/// Position embeddings, `[T, E]`, or `[B, T, E]` where padding has a position of its own.
fn positions(stage: &Stage, config: &EncoderConfig, inputs: &Inputs) -> Tensor {
    let first = config.first_position();
    if inputs.attention_bias.is_none() || !config.family.is_roberta() {
        return stage[POSITION].narrow(0, first, inputs.width());
    }
    // fairseq gives every padding token the padding token's own number as its position.
    let index = (inputs.valid.cumsum(1, tch::Kind::Int64) + (first - 1)) * &inputs.valid
        + inputs.valid.logical_not() * (first - 1);
    lookup(&stage[POSITION], &index, config.pad_token_id)
}
