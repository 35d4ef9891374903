//! Scaled dot-product attention over several heads.

use squad_attention::{Heads, Rows, attention};
use tch::{Device, Kind, Tensor};

use crate::dropout::Noise;
use crate::inputs::Inputs;
use crate::network::Dropout;
use crate::products::kind_for;

/// Attention over keys that are no padding: queries, keys and values of `[B, T, heads · D]`, or `[B, T, 3 · heads · D]` of all, give
/// `[B, T, heads · D]`; the same of `[1, N, …]` where inputs are packed.
pub(crate) fn attend(of: Heads<'_>, heads: i64, inputs: &Inputs, noise: Option<(&Noise, Dropout)>) -> Tensor {
    let drops = noise.filter(|(_, rates)| rates.attention > 0.0);
    let (device, format, kind) = match of {
        Heads::Together(all) | Heads::Apart([all, ..]) => (all.device(), all.kind(), kind_for(all)),
    };
    // libtorch's kernel for CPUs multiplies in a processor's own 16-bit format, but knows no dropout.
    if device == Device::Cpu && (kind == Kind::Float || drops.is_some()) {
        return on_cpu(of, heads, inputs, drops).to_kind(format);
    }
    by_libtorch(of, heads, inputs, drops)
}

/// By libtorch's kernels, which want rows of one length.
fn by_libtorch(of: Heads<'_>, heads: i64, inputs: &Inputs, drops: Option<(&Noise, Dropout)>) -> Tensor {
    let [query, key, value] = split(of, heads, inputs);
    // Rounded to a half, padding's number becomes minus infinity; every row has a token that is none.
    let bias = inputs.attention_bias.as_ref().map(|bias| bias.to_kind(query.kind()));
    let rate = drops.map_or(0.0, |(noise, rates)| {
        noise.seed_device();
        rates.attention
    });
    let context = Tensor::scaled_dot_product_attention(&query, &key, &value, bias, rate, false, None, false);
    inputs.pack(context.transpose(1, 2).flatten(2, 3))
}

#[expect(
    clippy::panic,
    reason = "as tch's operations do, with libtorch's words, by which a lack of memory is known"
)]
fn on_cpu(of: Heads<'_>, heads: i64, inputs: &Inputs, drops: Option<(&Noise, Dropout)>) -> Tensor {
    let dropout = drops.and_then(|(noise, rates)| noise.of_attention(rates.attention));
    let floats = |tensor: &Tensor| tensor.to_kind(Kind::Float);
    let rows = match inputs.packing() {
        Some(packing) => packing.rows(),
        None => Rows::Alike { bias: inputs.attention_bias.as_ref() },
    };
    let context = match of {
        Heads::Together(all) => attention(Heads::Together(&floats(all)), rows, heads, dropout),
        Heads::Apart(three) => {
            let [query, key, value] = three.map(floats);
            attention(Heads::Apart([&query, &key, &value]), rows, heads, dropout)
        }
    };
    context.unwrap_or_else(|error| panic!("{error}"))
}

/// Queries, keys and values as `[B, heads, T, D]`.
fn split(of: Heads<'_>, heads: i64, inputs: &Inputs) -> [Tensor; 3] {
    match of {
        Heads::Together(all) => {
            let all = inputs.unpack(all.shallow_clone());
            let size = all.size();
            let parts =
                all.view([size[0], size[1], 3, heads, size[2] / (3 * heads)]).permute([2, 0, 3, 1, 4]);
            [0, 1, 2].map(|part| parts.get(part))
        }
        Heads::Apart(three) => three.map(|x| {
            let x = inputs.unpack(x.shallow_clone());
            let size = x.size();
            x.view([size[0], size[1], heads, size[2] / heads]).transpose(1, 2)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [i64; 3] = [3, 16, 9];

    fn inputs() -> Inputs {
        let ids = [1; 3 * 16];
        Inputs::new(&LENGTHS, &ids, &ids, &[true; 3 * 16], Device::Cpu).packed()
    }

    /// Context and gradient of queries, keys and values together, or apart.
    fn results(all: &Tensor, apart: bool, run: impl Fn(Heads<'_>) -> Tensor) -> [Tensor; 2] {
        let all = all.copy().set_requires_grad(true);
        let three = all.chunk(3, -1);
        let context =
            run(if apart { Heads::Apart([&three[0], &three[1], &three[2]]) } else { Heads::Together(&all) });
        let sum = (&context * &context).sum(Kind::Float);
        let gradient = Tensor::run_backward(&[sum], &[&all], false, false);
        [context.detach(), gradient[0].shallow_clone()]
    }

    #[test]
    fn libtorchs_kernel_gives_packed_rows_what_ours_does() {
        let inputs = inputs();
        tch::manual_seed(1);
        let all = Tensor::randn([1, LENGTHS.iter().sum(), 3 * 24], (Kind::Float, Device::Cpu));
        for apart in [false, true] {
            let ours = results(&all, apart, |heads| on_cpu(heads, 2, &inputs, None));
            for (kind, allowed) in [(Kind::Float, 1e-5), (Kind::BFloat16, 0.05)] {
                let theirs = results(&all.to_kind(kind), apart, |heads| by_libtorch(heads, 2, &inputs, None));
                for (ours, theirs) in ours.iter().zip(&theirs) {
                    assert_eq!((theirs.kind(), theirs.size()), (kind, ours.size()));
                    let difference = (ours - theirs).abs().max().double_value(&[]);
                    assert!(difference < allowed, "{kind:?}, apart: {apart}: {difference}");
                }
            }
        }
    }
}
