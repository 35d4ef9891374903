//! MobileBERT's embeddings and layer (Sun et al., 2020): narrow inside, wide between the layers, and norms that
//! only scale and shift.

use squad_attention::Heads;
use tch::Tensor;

use crate::attention::attend;
use crate::config::{Bottleneck, EncoderConfig};
use crate::dropout::Noise;
use crate::embeddings::lookup;
use crate::family::Traits;
use crate::init::Init;
use crate::inputs::Inputs;
use crate::layer::activate;
use crate::network::Dropout;
use crate::stage::{Declaration, Stage};

const WORD: usize = 0;
const POSITION: usize = 1;
const SEGMENT: usize = 2;
const TRANSFORM: usize = 3;
const EMBEDDING_NORM: usize = 5;

/// Numbers of the first parameter (a weight, its bias is the next) of each part of a layer.
const IN: usize = 0;
const IN_NORM: usize = 2;
const SHARED: usize = 4;
const SHARED_NORM: usize = 6;
const QUERY_KEY: usize = 8;
const VALUE: usize = 10;
const ATTENTION_OUT: usize = 12;
const ATTENTION_NORM: usize = 14;
/// From here on six for each feed-forward network, then the four of the output's bottleneck.
const FEED_FORWARD: usize = 16;

/// The embeddings' parameters.
pub(crate) fn declare_embeddings(config: &EncoderConfig) -> Declaration {
    let (e, c) = (config.embedding_size, config.hidden_size);
    let name = |suffix: &str| [format!("embeddings.{suffix}")];
    let normal = Init::Normal(config.initializer_range);
    let mut d = Declaration::new("embeddings");
    d.matrix(&name("word_embeddings.weight"), &[config.vocab_size, e], normal)
        .matrix(&name("position_embeddings.weight"), &[config.max_position_embeddings, c], normal)
        .matrix(&name("token_type_embeddings.weight"), &[config.type_vocab_size, c], normal)
        .linear("embeddings.embedding_transformation", c, 3 * e, normal)
        .norm("embeddings.LayerNorm", c);
    d
}

/// `[B, T]` ids to `[B, T, C]`: each token's word embedding beside its neighbours' (zero beyond the row's ends),
/// projected, then position and segment.
pub(crate) fn embed(
    stage: &Stage,
    config: &EncoderConfig,
    inputs: &Inputs,
    noise: Option<(&Noise, f64)>,
) -> Tensor {
    let words = lookup(&stage[WORD], &inputs.input_ids, config.pad_token_id);
    let (width, last) = (inputs.width(), inputs.width() - 1);
    debug_assert!(width > 0, "a batch has tokens");
    let next = words.narrow(1, 1, last).constant_pad_nd([0, 0, 0, 1]);
    let previous = words.narrow(1, 0, last).constant_pad_nd([0, 0, 1, 0]);
    let transformed = linear(stage, TRANSFORM, &Tensor::cat(&[&next, &words, &previous], 2));
    let sum = transformed
        + stage[POSITION].narrow(0, 0, width)
        + lookup(&stage[SEGMENT], &inputs.token_type_ids, None);
    let normed = no_norm(stage, EMBEDDING_NORM, &sum);
    match noise {
        Some((noise, rate)) => noise.apply(&normed, rate, None),
        None => normed,
    }
}

/// The parameters of layer `index`; `sizes` are the config's own.
pub(crate) fn declare_layer(config: &EncoderConfig, sizes: Bottleneck, index: i64) -> Declaration {
    let (c, s, f) = (config.hidden_size, sizes.size, config.intermediate_size);
    let prefix = config.family.layer_prefix(index);
    let name = |part: &str| format!("{prefix}.{part}");
    let query_key =
        |suffix: &str| ["query", "key"].map(|part| format!("{prefix}.attention.self.{part}.{suffix}"));
    let normal = Init::Normal(config.initializer_range);
    let mut d = Declaration::new(format!("layer {index}"));
    d.linear(&name("bottleneck.input.dense"), s, c, normal)
        .norm(&name("bottleneck.input.LayerNorm"), s)
        .linear(&name("bottleneck.attention.dense"), s, c, normal)
        .norm(&name("bottleneck.attention.LayerNorm"), s)
        .matrix(&query_key("weight"), &[2 * s, s], normal)
        .vector(&query_key("bias"), &[2 * s], Init::Zeros)
        .linear(&name("attention.self.value"), s, c, normal)
        .linear(&name("attention.output.dense"), s, s, normal)
        .norm(&name("attention.output.LayerNorm"), s);
    for k in 0..sizes.feed_forwards {
        // The last one stands where BERT's only one does.
        let at = if k + 1 < sizes.feed_forwards { format!("{prefix}.ffn.{k}") } else { prefix.clone() };
        d.linear(&format!("{at}.intermediate.dense"), f, s, normal)
            .linear(&format!("{at}.output.dense"), s, f, normal)
            .norm(&format!("{at}.output.LayerNorm"), s);
    }
    d.linear(&name("output.bottleneck.dense"), c, s, normal).norm(&name("output.bottleneck.LayerNorm"), c);
    d
}

/// `[B, T, C]` to `[B, T, C]`, or `[1, N, C]` to the same where inputs are packed.
pub(crate) fn layer(
    stage: &Stage,
    config: &EncoderConfig,
    sizes: Bottleneck,
    hidden: &Tensor,
    inputs: &Inputs,
    noise: Option<(&Noise, Dropout)>,
) -> Tensor {
    let narrow = no_norm(stage, IN_NORM, &linear(stage, IN, hidden));
    let shared = no_norm(stage, SHARED_NORM, &linear(stage, SHARED, hidden));
    let query_key = linear(stage, QUERY_KEY, &shared).chunk(2, -1);
    let value = linear(stage, VALUE, hidden);
    let three = Heads::Apart([&query_key[0], &query_key[1], &value]);
    let context = attend(three, config.num_attention_heads, inputs, noise);
    let mut state = no_norm(stage, ATTENTION_NORM, &(linear(stage, ATTENTION_OUT, &context) + narrow));
    for k in 0..sizes.feed_forwards as usize {
        let first = FEED_FORWARD + 6 * k;
        let up = activate(config.activation, &linear(stage, first, &state));
        state = no_norm(stage, first + 4, &(linear(stage, first + 2, &up) + state));
    }
    let out = FEED_FORWARD + 6 * sizes.feed_forwards as usize;
    let wide = linear(stage, out, &state);
    let wide = match noise {
        Some((noise, rates)) => noise.apply(&wide, rates.hidden, inputs.packing()),
        None => wide,
    };
    no_norm(stage, out + 2, &(wide + hidden))
}

/// The linear map whose weight is parameter `first`.
fn linear(stage: &Stage, first: usize, x: &Tensor) -> Tensor {
    crate::products::linear(x, &stage[first], &stage[first + 1])
}

/// `x · weight + bias`; the weight is parameter `first`.
fn no_norm(stage: &Stage, first: usize, x: &Tensor) -> Tensor {
    x * &stage[first] + &stage[first + 1]
}
