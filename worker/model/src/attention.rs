//! Scaled dot-product attention over several heads.

use tch::{Device, Kind, Tensor};

use crate::dropout::Noise;
use crate::inputs::Inputs;
use crate::network::Dropout;
use crate::products::kind_for;

/// `[B, T, heads · D]` to `[B, heads, T, D]`.
pub(crate) fn split_heads(x: &Tensor, heads: i64) -> Tensor {
    let size = x.size();
    x.view([size[0], size[1], heads, size[2] / heads]).transpose(1, 2)
}

/// Attention over keys that are no padding: query, key and value of `[B, heads, T, D]` give `[B, T, heads · D]`.
pub(crate) fn attend(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    inputs: &Inputs,
    noise: Option<(&Noise, Dropout)>,
) -> Tensor {
    let (size, format, kind) = (query.size(), query.kind(), kind_for(query));
    let [query, key, value] = [query, key, value].map(|x| x.to_kind(kind));
    // Rounded to a half, padding's number becomes minus infinity; every row has a token that is none.
    let bias = inputs.attention_bias.as_ref().map(|bias| bias.to_kind(kind));
    let drops = noise.filter(|(_, rates)| rates.attention > 0.0);
    let context = match drops {
        // The CPU's fused kernel knows no dropout.
        Some((noise, rates)) if query.device() == Device::Cpu => {
            let scores = (&query / (size[3] as f64).sqrt()).matmul(&key.transpose(-2, -1));
            let scores = match &bias {
                Some(bias) => scores + bias,
                None => scores,
            };
            let weights = noise.apply(&scores.softmax(-1, Kind::Float), rates.attention);
            weights.to_kind(kind).matmul(&value)
        }
        _ => {
            let rate = drops.map_or(0.0, |(noise, rates)| {
                noise.seed_device();
                rates.attention
            });
            Tensor::scaled_dot_product_attention(&query, &key, &value, bias, rate, false, None, false)
        }
    };
    context.to_kind(format).transpose(1, 2).reshape([size[0], size[2], size[1] * size[3]])
}
