//! One layer of a post-norm Transformer encoder (Devlin et al., 2019), as all families but MobileBERT have it.

use squad_attention::Heads;
use tch::Tensor;

use crate::attention::attend;
use crate::config::{Activation, EncoderConfig};
use crate::dropout::Noise;
use crate::family::Traits;
use crate::init::Init;
use crate::inputs::Inputs;
use crate::network::Dropout;
use crate::products::linear;
use crate::stage::{Declaration, Stage};

const QKV_WEIGHT: usize = 0;
const QKV_BIAS: usize = 1;
const ATTENTION_OUT_WEIGHT: usize = 2;
const ATTENTION_OUT_BIAS: usize = 3;
const ATTENTION_NORM_WEIGHT: usize = 4;
const ATTENTION_NORM_BIAS: usize = 5;
const UP_WEIGHT: usize = 6;
const UP_BIAS: usize = 7;
const DOWN_WEIGHT: usize = 8;
const DOWN_BIAS: usize = 9;
const OUT_NORM_WEIGHT: usize = 10;
const OUT_NORM_BIAS: usize = 11;

/// The parameters of layer `index`, under Hugging Face's names. Query, key and value lie together, so that
/// one matrix product makes all three.
pub(crate) fn declare(config: &EncoderConfig, index: i64) -> Declaration {
    let (c, f) = (config.hidden_size, config.intermediate_size);
    let (names, prefix) = (config.family.layer_names(), config.family.layer_prefix(index));
    let name = |part: &str| format!("{prefix}.{part}");
    let qkv = |suffix: &str| {
        ["query", "key", "value"].map(|part| format!("{prefix}.{}.{part}.{suffix}", names.attention))
    };
    let normal = Init::Normal(config.initializer_range);
    let shared = config.family.shares_layers();
    let mut d = Declaration::new(if shared { "shared layer".into() } else { format!("layer {index}") });
    d.matrix(&qkv("weight"), &[3 * c, c], normal)
        .vector(&qkv("bias"), &[3 * c], Init::Zeros)
        .linear(&name(names.attention_out), c, c, normal)
        .norm(&name(names.attention_norm), c)
        .linear(&name(names.up), f, c, normal)
        .linear(&name(names.down), c, f, normal)
        .norm(&name(names.out_norm), c);
    d
}

/// `[B, T, C]` to `[B, T, C]`, or `[1, N, C]` to the same where inputs are packed.
pub(crate) fn forward(
    stage: &Stage,
    config: &EncoderConfig,
    hidden: &Tensor,
    inputs: &Inputs,
    noise: Option<(&Noise, Dropout)>,
) -> Tensor {
    let drop_hidden = |x: Tensor| match noise {
        Some((noise, rates)) => noise.apply(&x, rates.hidden, inputs.packing()),
        None => x,
    };
    let norm = |x: Tensor, weight: usize, bias: usize| {
        x.layer_norm(
            [config.hidden_size],
            Some(&stage[weight]),
            Some(&stage[bias]),
            config.layer_norm_eps,
            true,
        )
    };
    let linear = |x: &Tensor, weight: usize, bias: usize| linear(x, &stage[weight], &stage[bias]);
    let qkv = linear(hidden, QKV_WEIGHT, QKV_BIAS);
    let context = attend(Heads::Together(&qkv), config.num_attention_heads, inputs, noise);
    let attended = drop_hidden(linear(&context, ATTENTION_OUT_WEIGHT, ATTENTION_OUT_BIAS));
    let attended = norm(attended + hidden, ATTENTION_NORM_WEIGHT, ATTENTION_NORM_BIAS);
    let up = activate(config.activation, &linear(&attended, UP_WEIGHT, UP_BIAS));
    let down = drop_hidden(linear(&up, DOWN_WEIGHT, DOWN_BIAS));
    norm(down + attended, OUT_NORM_WEIGHT, OUT_NORM_BIAS)
}

/// The feed-forward layers' activation.
pub(crate) fn activate(activation: Activation, x: &Tensor) -> Tensor {
    match activation {
        Activation::GeluErf => x.gelu("none"),
        Activation::GeluTanh => x.gelu("tanh"),
        Activation::Relu => x.relu(),
    }
}
