//! The node beside the same attention in libtorch's own operations: results, gradients, dropout.

use squad_attention::{AttentionError, Dropout, Heads, Rows, attention};
use tch::{Device, Kind, Tensor};

/// Rows of one length, without padding.
const ALIKE: Rows<'_> = Rows::Alike { bias: None };
const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Sizes of a case.
#[derive(Clone, Copy, Debug)]
struct Case {
    rows: i64,
    tokens: i64,
    heads: i64,
    size: i64,
    padded: bool,
    dropout: Option<Dropout>,
}

impl Case {
    fn width(self) -> i64 {
        self.heads * self.size
    }

    /// Keys from some token on are padding, in each row from another; of the last row all are.
    fn bias(self) -> Option<Tensor> {
        let lengths: Vec<i64> = (0..self.rows)
            .map(|row| if row + 1 < self.rows { (self.tokens - 3 * row).max(1) } else { 0 })
            .collect();
        let beyond = Tensor::arange(self.tokens, (Kind::Int64, Device::Cpu))
            .ge_tensor(&Tensor::from_slice(&lengths).unsqueeze(1));
        self.padded.then(|| {
            (beyond.to_kind(Kind::Float) * f64::from(f32::MIN) / 2.0).view([self.rows, 1, 1, self.tokens])
        })
    }

    /// In libtorch's operations, and in 64 bits.
    fn plain(self, all: &Tensor) -> Tensor {
        let parts = all
            .to_kind(Kind::Double)
            .view([self.rows, self.tokens, 3, self.heads, self.size])
            .permute([2, 0, 3, 1, 4]);
        let mut scores = parts.get(0).matmul(&parts.get(1).transpose(-2, -1)) / (self.size as f64).sqrt();
        if let Some(bias) = self.bias() {
            scores += bias.to_kind(Kind::Double);
        }
        let mut weights = scores.softmax(-1, Kind::Double);
        if let Some(dropout) = self.dropout {
            let mut stay = Vec::new();
            for (row, head) in (0..self.rows).flat_map(|row| (0..self.heads).map(move |head| (row, head))) {
                stay.extend(dropout.stay(row as usize, head as usize, self.tokens as usize));
            }
            let stay = Tensor::from_slice(&stay).view([self.rows, self.heads, self.tokens, self.tokens]);
            weights = weights * stay * f64::from(dropout.scale());
        }
        weights.matmul(&parts.get(2)).transpose(1, 2).reshape([self.rows, self.tokens, self.width()])
    }

    fn check(self) -> Result<(), AttentionError> {
        tch::manual_seed(self.tokens * 100 + self.size);
        let leaf = || Tensor::randn([self.rows, self.tokens, 3 * self.width()], CPU).set_requires_grad(true);
        let (all, into) = (leaf(), Tensor::randn([self.rows, self.tokens, self.width()], CPU));
        let results = |context: Tensor| {
            let sum = (&context * into.to_kind(context.kind())).sum(context.kind());
            let gradients = Tensor::run_backward(&[sum], &[&all], false, false);
            [context, gradients[0].shallow_clone()]
        };
        let bias = self.bias();
        let rows = Rows::Alike { bias: bias.as_ref() };
        let expected = results(self.plain(&all));
        let together = results(attention(Heads::Together(&all), rows, self.heads, self.dropout)?);
        let three = all.chunk(3, -1);
        let apart = Heads::Apart([&three[0], &three[1], &three[2]]);
        let apart = results(attention(apart, rows, self.heads, self.dropout)?);
        for (what, number) in [("context", 0), ("gradient", 1)] {
            let error =
                (together[number].to_kind(Kind::Double) - expected[number].to_kind(Kind::Double)).abs().max();
            let largest = expected[number].abs().max().double_value(&[]);
            assert!(error.double_value(&[]) <= 3e-6 * largest.max(1.0), "{what} of {self:?}: {error:?}");
            assert_eq!(together[number], apart[number], "{what} of {self:?}, apart");
        }
        Ok(())
    }
}

#[test]
fn agrees_with_libtorchs_operations() {
    let dropout = Some(Dropout { seed: 7, drops: 6554, first_row: 2 });
    for (tokens, size, heads) in [
        (1, 8, 1),
        (7, 4, 2),
        (48, 32, 3),
        (49, 32, 2),
        (64, 20, 2),
        (130, 64, 1),
        (200, 33, 1),
        (384, 32, 2),
    ] {
        for padded in [false, true] {
            for dropout in [None, dropout] {
                Case { rows: 3, tokens, heads, size, padded, dropout }.check().unwrap();
            }
        }
    }
}

/// Context, and the gradients of all parts where it is weighted by `into`.
fn results(
    all: &Tensor,
    into: &Tensor,
    apart: bool,
    rows: Rows<'_>,
    dropout: Option<Dropout>,
) -> Result<[Tensor; 2], AttentionError> {
    let all = all.copy().set_requires_grad(true);
    let three = all.chunk(3, -1);
    let of = if apart { Heads::Apart([&three[0], &three[1], &three[2]]) } else { Heads::Together(&all) };
    let context = attention(of, rows, 2, dropout)?;
    let gradient = Tensor::run_backward(&[(&context * into).sum(Kind::Float)], &[&all], false, false);
    Ok([context.detach(), gradient[0].shallow_clone()])
}

#[test]
fn packed_rows_have_the_bits_that_they_have_alone() {
    for lengths in [&[100, 3, 64, 0, 1, 77, 0][..], &[50], &[49, 100]] {
        let starts: Vec<i64> = (0..=lengths.len()).map(|row| lengths[..row].iter().sum()).collect();
        let (begins, tokens) = (Tensor::from_slice(&starts), starts[lengths.len()]);
        let (all, into) = (Tensor::randn([1, tokens, 3 * 40], CPU), Tensor::randn([1, tokens, 40], CPU));
        for dropout in [None, Some(Dropout { seed: 7, drops: 6554, first_row: 2 })] {
            for (apart, width) in [(false, 100), (true, 100), (false, 300)] {
                let rows = Rows::Packed { starts: &begins, width };
                let packed = results(&all, &into, apart, rows, dropout).unwrap();
                for (row, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
                    let own = |tensor: &Tensor| tensor.narrow(1, starts[row], *length).contiguous();
                    let dropout =
                        dropout.map(|dropout| Dropout { first_row: dropout.first_row + row, ..dropout });
                    let alone = results(&own(&all), &own(&into), apart, ALIKE, dropout).unwrap();
                    for (packed, alone) in packed.iter().zip(&alone) {
                        assert_eq!(own(packed), *alone, "row {row} of {lengths:?}, {dropout:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn where_rows_began_stays_as_it_was_in_the_forward_pass() {
    let starts = Tensor::from_slice(&[0i64, 5, 10]);
    let all = Tensor::randn([1, 10, 3 * 40], CPU).set_requires_grad(true);
    let context =
        attention(Heads::Together(&all), Rows::Packed { starts: &starts, width: 5 }, 2, None).unwrap();
    starts.data().copy_(&Tensor::from_slice(&[0i64, 8, 1_000_000]));
    let gradient = Tensor::run_backward(&[context.sum(Kind::Float)], &[&all], false, false);
    assert_eq!(gradient[0].isfinite().all().int64_value(&[]), 1);
}

#[test]
fn large_scores_are_no_trouble() {
    let all = Tensor::randn([1, 70, 3 * 32], CPU) * 40.0;
    let context = attention(Heads::Together(&all), ALIKE, 1, None).unwrap();
    let case = Case { rows: 1, tokens: 70, heads: 1, size: 32, padded: false, dropout: None };
    assert!((context - case.plain(&all)).abs().max().double_value(&[]) < 2e-2);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let all = Tensor::randn([3, 190, 3 * 64], CPU).set_requires_grad(true);
    let dropout = Some(Dropout { seed: 9, drops: 20_000, first_row: 0 });
    let before = tch::get_num_threads();
    let (packed, starts) = (all.view([1, 3 * 190, 3 * 64]), Tensor::from_slice(&[0i64, 100, 380, 570]));
    let on = |threads| {
        tch::set_num_threads(threads);
        let packing = Rows::Packed { starts: &starts, width: 280 };
        [(&all, ALIKE), (&packed, packing)].map(|(heads, rows)| {
            let context = attention(Heads::Together(heads), rows, 2, dropout).unwrap();
            let gradient =
                Tensor::run_backward(&[(&context * &context).sum(Kind::Float)], &[&all], false, false);
            (context, gradient[0].shallow_clone())
        })
    };
    let both = (on(1), on(4));
    tch::set_num_threads(before);
    assert_eq!(both.0, both.1);
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let of = |size: &[i64]| Tensor::zeros(size, CPU);
    let said = |heads: Heads<'_>, bias: Option<&Tensor>, count| {
        attention(heads, Rows::Alike { bias }, count, None).unwrap_err().to_string()
    };
    assert!(said(Heads::Together(&of(&[2, 3, 40])), None, 2).contains("width of 40"));
    assert!(said(Heads::Together(&of(&[2, 3])), None, 1).contains("[rows, tokens, width]"));
    assert!(said(Heads::Together(&of(&[2, 3, 24]).to_kind(Kind::Half)), None, 1).contains("32-bit"));
    assert!(said(Heads::Together(&of(&[2, 3, 24])), Some(&of(&[2, 2])), 1).contains("bias"));
    let packed = |starts: &[i64], width| {
        let (all, starts) = (of(&[1, 9, 24]), Tensor::from_slice(starts));
        attention(Heads::Together(&all), Rows::Packed { starts: &starts, width }, 1, None)
            .unwrap_err()
            .to_string()
    };
    assert!(packed(&[0, 4], 9).contains("from 0 to 4 do not fill"));
    assert!(packed(&[1, 9], 9).contains("from 1 to 9"));
    assert!(packed(&[0, 3, 9], 5).contains("row 1 has 6 of at most 5"));
    assert!(packed(&[0, 7, 5, 9], 9).contains("row 1 has -2"));
    assert!(packed(&[], 9).contains("packed rows begin"));
    let (a, b) = (of(&[2, 3, 8]), of(&[2, 4, 8]));
    assert!(said(Heads::Apart([&a, &b, &a]), None, 1).contains("differ"));
}

#[test]
fn what_is_no_number_stays_none() {
    // Tensor (query, key, value), token and number; each hidden by no other.
    for part in 0..3 {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let all = Tensor::randn([1, 50, 3 * 32], CPU);
            drop(all.get(0).get(20).get(32 * part + 5).fill_(number));
            let all = all.set_requires_grad(true);
            let context = attention(Heads::Together(&all), ALIKE, 1, None).unwrap();
            let finite = |tensor: &Tensor| tensor.isfinite().all().int64_value(&[]) == 1;
            let gradient = Tensor::run_backward(&[context.sum(Kind::Float)], &[&all], false, false);
            assert!(!finite(&context) || !finite(&gradient[0]), "{number} in part {part}");
            assert!(!number.is_nan() || !finite(&context), "NaN in part {part}");
        }
    }
}

#[test]
fn a_bias_may_be_as_low_as_numbers_go() {
    let all = Tensor::randn([1, 37, 3 * 32], CPU);
    let mean = all.narrow(2, 64, 32).mean_dim(1, true, Kind::Float);
    let context = attention(
        Heads::Together(&all),
        Rows::Alike { bias: Some(&Tensor::full([37], f64::from(f32::MIN), CPU)) },
        1,
        None,
    )
    .unwrap();
    assert!((context - mean).abs().max().double_value(&[]) < 1e-6, "all keys alike where all are padding");
}

#[test]
fn the_graph_may_be_kept_and_gradients_may_lie_anyhow() {
    let all = Tensor::randn([2, 60, 3 * 64], CPU).set_requires_grad(true);
    let context = attention(Heads::Together(&all), ALIKE, 2, None).unwrap();
    assert!(!tch::no_grad(|| attention(Heads::Together(&all), ALIKE, 2, None).unwrap()).requires_grad());
    // The gradient of the sum of a transposed tensor's products has strides of its own.
    let factors = Tensor::randn([2, 64, 60], CPU);
    let turned = (context.transpose(1, 2) * &factors).sum(Kind::Float);
    let plain = (&context * factors.transpose(1, 2).contiguous()).sum(Kind::Float);
    let of = |sum: &Tensor| Tensor::run_backward(&[sum], &[&all], true, false)[0].shallow_clone();
    assert_eq!(of(&turned), of(&plain));
    assert_eq!(of(&plain), of(&plain));
    let twice = Tensor::f_run_backward(&[&plain], &[&all], true, true);
    assert!(twice.unwrap_err().to_string().contains("no second derivative"));
}

#[test]
fn rows_alone_are_as_they_are_in_the_batch() {
    let all = Tensor::randn([5, 70, 3 * 64], CPU);
    let of = |all: Tensor, first_row| {
        let all = all.set_requires_grad(true);
        let dropout = Some(Dropout { seed: 4, drops: 9000, first_row });
        let context = attention(Heads::Together(&all), ALIKE, 2, dropout).unwrap();
        let gradient = Tensor::run_backward(&[(&context * &context).sum(Kind::Float)], &[&all], false, false);
        [context, gradient[0].shallow_clone()]
    };
    let (whole, piece) = (of(all.copy(), 0), of(all.narrow(0, 2, 3).copy(), 2));
    assert_eq!(whole.map(|tensor| tensor.narrow(0, 2, 3)), piece);
}

#[test]
fn only_what_wants_a_gradient_gets_one() {
    let [query, key, value] = [(); 3].map(|()| Tensor::randn([1, 20, 32], CPU));
    let value = value.set_requires_grad(true);
    let context = attention(Heads::Apart([&query, &key, &value]), ALIKE, 1, None).unwrap();
    let gradient = Tensor::run_backward(&[context.sum(Kind::Float)], &[&value], false, false);
    // Each query's weights sum to one.
    assert!((gradient[0].sum(Kind::Float).double_value(&[]) - 20.0 * 32.0).abs() < 1e-3);
}
