//! The passes on vectors of every width, whatever this processor has.

use pulp::{Scalar, Scalar128b, Scalar256b, Scalar512b, WithSimd};

use super::*;
use crate::field::Strides;
use crate::scratch::{backward_len, forward_len};

const SHAPE: Shape = Shape { rows: 2, tokens: 101, heads: 3, size: 20 };
const TOKEN: usize = SHAPE.heads * SHAPE.size;
const LEN: usize = SHAPE.rows * SHAPE.tokens * TOKEN;

/// The numbers of a tensor, from -1 to 1, without any order.
fn numbers(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Context and the three gradients, by vectors of `simd`'s width.
fn both_passes<S: Simd>(simd: S) -> [Vec<f32>; 4] {
    let [query, key, value, gradient] = [1, 2, 3, 4].map(|seed| numbers(seed, LEN));
    let mut bias = vec![0.0; SHAPE.rows * SHAPE.tokens];
    bias[SHAPE.tokens + 70..].fill(f32::MIN / 2.0);
    let strides = Strides { row: SHAPE.tokens * TOKEN, token: TOKEN, head: SHAPE.size };
    let of_queries = |width: usize| Strides {
        row: SHAPE.heads * SHAPE.tokens * width,
        token: width,
        head: SHAPE.tokens * width,
    };
    let queries = SHAPE.tasks() * SHAPE.tokens;
    let (mut sums, mut kept) = (vec![0.0; 2 * queries], vec![0; SHAPE.words() * queries]);
    let [mut output, mut a, mut b, mut c] = [0; 4].map(|_| vec![f32::NAN; LEN]);
    let inputs = || {
        let [query, key, value] = [&query, &key, &value].map(|data| Source { data, strides });
        let dropout = Some(Dropout { seed: 3, drops: 9000, first_row: 0 });
        Inputs { shape: SHAPE, query, key, value, starts: None, bias: Some(&bias), dropout }
    };
    let forward = Forward {
        inputs: inputs(),
        output: Target::new(&mut output, strides),
        sums: Target::new(&mut sums, of_queries(2)),
        kept: Some(Target::new(&mut kept, of_queries(SHAPE.words()))),
    };
    let mut scratch = vec![f32::NAN; forward_len(SHAPE)];
    for index in 0..SHAPE.tasks() {
        ForwardTask { pass: &forward, index, scratch: &mut scratch }.with_simd(simd);
    }
    let backward = Backward {
        inputs: inputs(),
        output: Source { data: &output, strides },
        sums: Source { data: &sums, strides: of_queries(2) },
        kept: Some(Source { data: &kept, strides: of_queries(SHAPE.words()) }),
        gradient: Source { data: &gradient, strides },
        query_gradient: Target::new(&mut a, strides),
        key_gradient: Target::new(&mut b, strides),
        value_gradient: Target::new(&mut c, strides),
    };
    let mut scratch = vec![f32::NAN; backward_len(SHAPE)];
    for index in 0..SHAPE.tasks() {
        BackwardTask { pass: &backward, index, scratch: &mut scratch }.with_simd(simd);
    }
    [output, a, b, c]
}

#[test]
fn vectors_of_every_width_agree() {
    let expected = both_passes(Scalar);
    assert!(expected.iter().flatten().all(|number| number.is_finite()));
    let others = [both_passes(Scalar128b), both_passes(Scalar256b), both_passes(Scalar512b)];
    for (found, expected) in others.iter().flat_map(|found| found.iter().zip(&expected)) {
        let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 2e-6, "{apart}");
    }
}

#[test]
fn exponentials_are_right_to_the_last_bits() {
    struct Exp(f32);
    impl WithSimd for Exp {
        type Output = f32;
        fn with_simd<S: Simd>(self, simd: S) -> f32 {
            simd.reduce_max_f32s(crate::softmax::exp(simd, simd.splat_f32s(self.0)))
        }
    }
    for number in 0..=8800 {
        let x = -(number as f32) / 100.0;
        let exact = f64::from(x).exp();
        for found in [Exp(x).with_simd(Scalar), Arch::new().dispatch(Exp(x))] {
            let error = (f64::from(found) - exact).abs();
            assert!(if x > -87.0 { error <= 2e-7 * exact } else { found == 0.0 }, "exp({x}) = {found}");
        }
    }
}
