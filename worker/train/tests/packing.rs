//! Batches without their padding beside the same with it: loss and gradients of every family and head.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod support;

use std::path::{Path, PathBuf};

use squad_model::network::{Dropout, Precision};
use squad_model::{HeadKind, Inputs, LossForm, Network, Targets, load_network};
use squad_train::backward::{MicroBatch, Recipe, walk};
use squad_train::bucket::Bucket;
use squad_train::trace::Trace;
use support::relative;
use tch::Device;

const WIDTH: i64 = 16;
const LENGTHS: [i64; 5] = [16, 5, 12, 1, 8];

fn network(folder: &Path, head: HeadKind, precision: Precision) -> Network {
    let (mut network, _) = load_network(folder, head, 3, Device::Cpu).unwrap();
    network.compute_in(precision);
    network
}

/// Rows of some of the lengths, from one of them on, padded by the family's number.
fn batch(network: &Network, rows: std::ops::Range<usize>, packed: bool) -> MicroBatch {
    let lengths = &LENGTHS[rows.clone()];
    let pad = network.config().pad_token_id.unwrap_or(0);
    let (mut ids, mut types, mut allowed) = (Vec::new(), Vec::new(), Vec::new());
    for (row, length) in rows.clone().zip(lengths) {
        for token in 0..WIDTH {
            let real = token < *length;
            ids.push(if real { 5 + (7 * row as i64 + 3 * token) % 20 } else { pad });
            types.push(i64::from(real && network.config().type_vocab_size > 1 && token > 2));
            allowed.push(real && (token == 0 || token > 2));
        }
    }
    let inputs = Inputs::new(lengths, &ids, &types, &allowed, Device::Cpu);
    let targets = |part: i64| {
        lengths.iter().map(|length| if *length > 4 { length - part } else { 0 }).collect::<Vec<_>>()
    };
    MicroBatch {
        inputs: if packed { inputs.packed() } else { inputs },
        targets: Targets::new(&targets(2), &targets(1), &vec![0; lengths.len()], Device::Cpu),
    }
}

/// Loss and the gradients of all stages.
fn results(
    network: &Network,
    batch: &MicroBatch,
    first_row: usize,
    dropout: Dropout,
) -> (f64, Vec<Vec<f32>>) {
    let mut buckets: Vec<Bucket> = network.stages().iter().map(|s| Bucket::new(s.len(), 0)).collect();
    let recipe = Recipe {
        dropout,
        seed: 4,
        first_row,
        first_trainable: 0,
        divisor: 1.0,
        form: LossForm::Masked,
        recompute: false,
    };
    let sums = walk(network, batch, &recipe, &Trace::off(), |stage, gradients, _| {
        buckets[stage].collect(&network.stages()[stage], &gradients, false)
    })
    .unwrap();
    (sums.total, buckets.iter().map(|b| b.gradients().unwrap().to_vec()).collect())
}

fn folders() -> Vec<PathBuf> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families");
    let mut all: Vec<_> = std::fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|folder| folder.to_string_lossy().ends_with("-1"));
    all.sort();
    assert!(all.len() >= 6, "{all:?}");
    all
}

const DROPOUT: Dropout = Dropout { hidden: 0.2, attention: 0.2, classifier: 0.2 };

#[test]
fn loss_and_gradients_are_those_of_the_padded_batch() {
    for folder in folders() {
        for head in [HeadKind::Span, HeadKind::Conditional { units: 10 }] {
            for dropout in [Dropout::NONE, DROPOUT] {
                let network = network(&folder, head, Precision::Float32);
                let of = |packed| results(&network, &batch(&network, 0..5, packed), 0, dropout);
                let ((loss, gradients), (expected, padded)) = (of(true), of(false));
                let case = format!("{} {head:?} {dropout:?}", folder.display());
                assert!((loss / expected - 1.0).abs() < 1e-5, "{case}: loss {loss}, padded {expected}");
                for (stage, (ours, theirs)) in gradients.iter().zip(&padded).enumerate() {
                    let apart = relative(ours, theirs);
                    assert!(apart < 1e-4, "{case}: gradients of stage {stage} differ by {apart}");
                }
            }
        }
    }
}

#[test]
fn pieces_of_a_packed_batch_add_up_to_it() {
    // The first row is as wide as the batch: alone it has no padding.
    let pieces = [0..1, 1..3, 3..5];
    for folder in folders() {
        for head in [HeadKind::Span, HeadKind::Conditional { units: 10 }] {
            let network = network(&folder, head, Precision::Float32);
            let of = |rows: std::ops::Range<usize>| {
                results(&network, &batch(&network, rows.clone(), true), rows.start, DROPOUT)
            };
            let (whole, pieces) = (of(0..5), pieces.clone().map(of));
            let case = format!("{} {head:?}", folder.display());
            let loss: f64 = pieces.iter().map(|piece| piece.0).sum();
            assert!((loss / whole.0 - 1.0).abs() < 1e-5, "{case}: {loss} and {}", whole.0);
            for (stage, whole) in whole.1.iter().enumerate() {
                let sum: Vec<f32> =
                    (0..whole.len()).map(|at| pieces.iter().map(|piece| piece.1[stage][at]).sum()).collect();
                let apart = relative(&sum, whole);
                assert!(apart < 1e-4, "{case}: gradients of stage {stage} differ by {apart}");
            }
        }
    }
}

#[test]
fn half_formats_are_packed_alike() {
    for precision in [Precision::BFloat16, Precision::Float16] {
        for dropout in [Dropout::NONE, DROPOUT] {
            let network = network(&folders()[0], HeadKind::Span, precision);
            let of = |packed| results(&network, &batch(&network, 0..5, packed), 0, dropout);
            let ((loss, packed), (expected, padded)) = (of(true), of(false));
            assert!(
                (loss / expected - 1.0).abs() < 1e-2,
                "{precision:?} {dropout:?}: {loss}, padded {expected}"
            );
            for (stage, (packed, padded)) in packed.iter().zip(&padded).enumerate() {
                let apart = relative(packed, padded);
                assert!(
                    apart < 0.1,
                    "{precision:?} {dropout:?}: gradients of stage {stage} differ by {apart}"
                );
            }
        }
    }
}

#[test]
fn scores_are_those_of_the_padded_batch() {
    for folder in folders() {
        let network = network(&folder, HeadKind::Span, Precision::Float32);
        let of = |packed| network.encode(&batch(&network, 0..5, packed).inputs);
        let valid = batch(&network, 0..5, false).inputs.valid.unsqueeze(2);
        let apart = ((of(true) - of(false)) * &valid).abs().max().double_value(&[]);
        assert!(apart < 1e-4, "{}: {apart}", folder.display());
        assert_eq!((of(true) * valid.logical_not()).abs().max().double_value(&[]), 0.0);
    }
}
