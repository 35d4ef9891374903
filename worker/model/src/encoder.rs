//! One layer of a post-norm Transformer encoder (Devlin et al., 2019).

use tch::{Device, Tensor};

use crate::config::{Activation, EncoderConfig};
use crate::dropout::Noise;
use crate::init::Init;
use crate::inputs::Inputs;
use crate::network::Dropout;
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
pub(crate) fn declare(config: &EncoderConfig, index: i64, device: Device) -> Stage {
    let (c, f) = (config.hidden_size, config.intermediate_size);
    let name = |suffix: &str| [format!("encoder.layer.{index}.{suffix}")];
    let qkv = |suffix: &str| {
        ["query", "key", "value"].map(|part| format!("encoder.layer.{index}.attention.self.{part}.{suffix}"))
    };
    let normal = Init::Normal(config.initializer_range);
    let mut d = Declaration::default();
    d.matrix(&qkv("weight"), &[3 * c, c], normal)
        .vector(&qkv("bias"), &[3 * c], Init::Zeros)
        .matrix(&name("attention.output.dense.weight"), &[c, c], normal)
        .vector(&name("attention.output.dense.bias"), &[c], Init::Zeros)
        .vector(&name("attention.output.LayerNorm.weight"), &[c], Init::Ones)
        .vector(&name("attention.output.LayerNorm.bias"), &[c], Init::Zeros)
        .matrix(&name("intermediate.dense.weight"), &[f, c], normal)
        .vector(&name("intermediate.dense.bias"), &[f], Init::Zeros)
        .matrix(&name("output.dense.weight"), &[c, f], normal)
        .vector(&name("output.dense.bias"), &[c], Init::Zeros)
        .vector(&name("output.LayerNorm.weight"), &[c], Init::Ones)
        .vector(&name("output.LayerNorm.bias"), &[c], Init::Zeros);
    Stage::new(format!("layer {index}"), d, device)
}

/// `[B, T, C]` to `[B, T, C]`.
pub(crate) fn forward(
    stage: &Stage,
    config: &EncoderConfig,
    hidden: &Tensor,
    inputs: &Inputs,
    noise: Option<(&Noise, Dropout)>,
) -> Tensor {
    let drop_hidden = |x: Tensor| match noise {
        Some((noise, rates)) => noise.apply(&x, rates.hidden),
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
    let context = attention(stage, config, hidden, inputs, noise);
    let attended =
        drop_hidden(context.linear(&stage[ATTENTION_OUT_WEIGHT], Some(&stage[ATTENTION_OUT_BIAS])));
    let attended = norm(attended + hidden, ATTENTION_NORM_WEIGHT, ATTENTION_NORM_BIAS);
    let up = attended.linear(&stage[UP_WEIGHT], Some(&stage[UP_BIAS]));
    let up = match config.activation {
        Activation::GeluErf => up.gelu("none"),
        Activation::GeluTanh => up.gelu("tanh"),
        Activation::Relu => up.relu(),
    };
    let down = drop_hidden(up.linear(&stage[DOWN_WEIGHT], Some(&stage[DOWN_BIAS])));
    norm(down + attended, OUT_NORM_WEIGHT, OUT_NORM_BIAS)
}

/// Multi-head attention over keys that are no padding, before the output projection: `[B, T, C]`.
fn attention(
    stage: &Stage,
    config: &EncoderConfig,
    hidden: &Tensor,
    inputs: &Inputs,
    noise: Option<(&Noise, Dropout)>,
) -> Tensor {
    let (rows, width) = (inputs.rows(), inputs.width());
    let qkv = hidden
        .linear(&stage[QKV_WEIGHT], Some(&stage[QKV_BIAS]))
        .view([rows, width, 3, config.num_attention_heads, config.head_dim()])
        .permute([2, 0, 3, 1, 4]);
    let (query, key, value) = (qkv.get(0), qkv.get(1), qkv.get(2));
    let bias = inputs.attention_bias.as_ref();
    let context = match noise {
        // The fused kernels know no dropout on CPU, and elsewhere draw it from a generator's state.
        Some((noise, rates)) if rates.attention > 0.0 => {
            let scores = (query / (config.head_dim() as f64).sqrt()).matmul(&key.transpose(-2, -1));
            let scores = match bias {
                Some(bias) => scores + bias,
                None => scores,
            };
            noise.apply(&scores.softmax(-1, tch::Kind::Float), rates.attention).matmul(&value)
        }
        _ => Tensor::scaled_dot_product_attention(&query, &key, &value, bias, 0.0, false, None, false),
    };
    context.transpose(1, 2).reshape([rows, width, config.hidden_size])
}
