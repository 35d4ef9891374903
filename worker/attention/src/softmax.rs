//! What is done to rows of scores: exponentials, sums, dropout.

use pulp::Simd;

/// Bit `k` of lane `k`.
const LANES: [u32; 16] = {
    let mut bits = [0; 16];
    let mut lane = 0;
    while lane < 16 {
        bits[lane] = 1 << lane;
        lane += 1;
    }
    bits
};

/// e to the power of x, for x up to 88: to about the last bit, 0 from -87 on downwards, and NaN where x is NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let splat = |value: f32| simd.splat_f32s(value);
    // Adding this number leaves the nearest integer in the last bits of the sum.
    let round = splat(12_582_912.0);
    let shifted = simd.mul_add_e_f32s(x, splat(std::f32::consts::LOG2_E), round);
    let n = simd.sub_f32s(shifted, round);
    // ln 2 in two parts, the first of so few bits that its product with n is exact.
    let rest = simd.mul_add_e_f32s(n, splat(-0.693_359_4), x);
    let rest = simd.mul_add_e_f32s(n, splat(2.121_944_4e-4), rest);
    // The Taylor series: at |rest| up to ln 2 / 2 its eighth term is below half a unit in the last place.
    let mut sum = splat(1.0 / 5040.0);
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = simd.mul_add_e_f32s(sum, rest, splat(coefficient));
    }
    let exponent = simd.add_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(127));
    let power = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(exponent, simd.splat_u32s(23)));
    let value = simd.mul_f32s(sum, power);
    simd.select_f32s(simd.less_than_or_equal_f32s(x, splat(-87.0)), splat(0.0), value)
}

/// Where the elements of vector `number` of a row stay.
#[inline(always)]
fn stays<S: Simd>(simd: S, kept: &[u64], number: usize) -> S::m32s {
    let first = number * S::F32_LANES;
    // Behind the last token nothing does.
    let bits = (kept.get(first / 64).map_or(0, |word| word >> (first % 64))) as u32;
    let lanes = simd.partial_load_u32s(&LANES[..S::F32_LANES]);
    simd.equal_u32s(simd.and_u32s(simd.splat_u32s(bits), lanes), lanes)
}

/// Turns a row of scores, to which `bias` is added, into exponentials below their largest, of which those that `kept` says stay.
/// Gives the largest, and one over the sum of all.
#[inline(always)]
pub(crate) fn exponentials<S: Simd>(
    simd: S,
    scores: &mut [f32],
    bias: &[f32],
    kept: Option<&[u64]>,
) -> [f32; 2] {
    let (scores, bias) = (S::as_mut_simd_f32s(scores).0, S::as_simd_f32s(bias).0);
    let mut largest = simd.splat_f32s(f32::MIN);
    for (score, bias) in scores.iter_mut().zip(bias) {
        *score = simd.add_f32s(*score, *bias);
        largest = simd.max_f32s(largest, *score);
    }
    let top = simd.reduce_max_f32s(largest);
    let largest = simd.splat_f32s(top);
    let (zero, mut sum) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
    for (number, score) in scores.iter_mut().enumerate() {
        let value = exp(simd, simd.sub_f32s(*score, largest));
        sum = simd.add_f32s(sum, value);
        *score = match kept {
            Some(kept) => simd.select_f32s(stays(simd, kept, number), value, zero),
            None => value,
        };
    }
    [top, 1.0 / simd.reduce_sum_f32s(sum)]
}

/// What the backward pass knows of one row.
pub(crate) struct Row<'a> {
    /// Added to the scores.
    pub(crate) bias: &'a [f32],
    /// The largest score, and one over the sum of the exponentials of all below it.
    pub(crate) largest: f32,
    pub(crate) share: f32,
    /// The product of the row's output and its gradient.
    pub(crate) delta: f32,
    /// Which weights stay.
    pub(crate) kept: Option<&'a [u64]>,
    /// What those are multiplied by.
    pub(crate) scale: f32,
}

impl Row<'_> {
    /// From scores and the gradients of the weights after dropout to these weights (in place of the scores) and the gradients of
    /// the scores.
    #[inline(always)]
    pub(crate) fn differentiate<S: Simd>(&self, simd: S, scores: &mut [f32], gradients: &mut [f32]) {
        let (scores, gradients) = (S::as_mut_simd_f32s(scores).0, S::as_mut_simd_f32s(gradients).0);
        let bias = S::as_simd_f32s(self.bias).0;
        let (zero, scale) = (simd.splat_f32s(0.0), simd.splat_f32s(self.scale));
        let [largest, share, delta] =
            [self.largest, self.share, self.delta].map(|number| simd.splat_f32s(number));
        let rows = scores.iter_mut().zip(gradients).zip(bias).enumerate();
        for (number, ((score, gradient), bias)) in rows {
            let weight = exp(simd, simd.sub_f32s(simd.add_f32s(*score, *bias), largest));
            let weight = simd.mul_f32s(weight, share);
            let factor = match self.kept {
                Some(kept) => simd.select_f32s(stays(simd, kept, number), scale, zero),
                None => scale,
            };
            *score = simd.mul_f32s(weight, factor);
            *gradient = simd.mul_f32s(weight, simd.sub_f32s(simd.mul_f32s(*gradient, factor), delta));
        }
    }
}
