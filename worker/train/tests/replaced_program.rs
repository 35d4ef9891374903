//! The conditional head, its gradients, and four optimizer steps against values that the replaced program
//! itself computed (scripts/golden_replaced.py).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use squad_model::heads::conditional;
use squad_model::network::Dropout;
use squad_model::{HeadKind, Inputs, LossForm, Network, Targets};
use squad_proto::spec::Train;
use squad_train::adamw::{AdamW, Moments, sum_of_squares};
use squad_train::backward::{MicroBatch, Recipe, walk};
use squad_train::bucket::Bucket;
use squad_train::schedule::Schedule;
use support::{absolute, by_name, floats, integers, relative, values, weights, worst};
use tch::Device;

/// The replaced program's head had 24 inner units here, not its usual 768.
const HEAD: HeadKind = HeadKind::Conditional { units: 24 };

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/replaced")
}

fn network(weights: &str) -> Network {
    let (config, json) = squad_model::EncoderConfig::read(&folder()).unwrap();
    let mut network = Network::new(config, json, HEAD, Device::Cpu);
    let report = squad_model::load::assign(&mut network, floats(&folder().join(weights)), 0).unwrap();
    assert!(report.head_loaded() && report.unexpected.is_empty(), "{report:?}");
    network
}

fn batch() -> MicroBatch {
    let all = integers(&folder().join("io.safetensors"));
    let get = |name: &str| all[&format!("inputs.{name}")].1.as_slice();
    let allowed: Vec<bool> = get("p_mask").iter().map(|m| *m == 1).collect();
    MicroBatch {
        inputs: Inputs::new(get("valid_length"), get("tokens"), get("token_types"), &allowed, Device::Cpu),
        targets: Targets::new(get("gt_start"), get("gt_end"), get("is_impossible"), Device::Cpu),
    }
}

fn recipe(batch: &MicroBatch) -> Recipe {
    let divisor = batch.inputs.rows() as f64;
    Recipe { dropout: Dropout::NONE, seed: 0, first_trainable: 0, divisor, form: LossForm::Masked }
}

#[test]
fn log_probabilities_and_losses() {
    let (network, batch) = (network("weights.safetensors"), batch());
    let golden = floats(&folder().join("io.safetensors"));
    let hidden = network.encode(&batch.inputs);
    let ours =
        conditional::log_probabilities(network.head_stage(), &hidden, &batch.inputs, &batch.targets.starts);
    for (name, tensor) in ["v1.start_logits", "v1.end_logits", "v1.answerable_logits"].iter().zip(&ours) {
        // Forbidden positions are minus infinity in both.
        let finite =
            |all: &[f32]| all.iter().map(|v| if v.is_finite() { *v } else { -1.0 }).collect::<Vec<_>>();
        let (ours, theirs) = (values(tensor), &golden[*name].1);
        assert!(
            ours.iter().zip(theirs).all(|(a, b)| a.is_finite() == b.is_finite()),
            "{name}: other positions"
        );
        let difference = relative(&finite(&ours), &finite(theirs));
        println!("{name} differs by {difference:.1e}");
        assert!(difference < 1e-5, "{name}: {difference}");
    }
    let sums = walk(&network, &batch, &recipe(&batch), |_, _, _| Ok(())).unwrap();
    let rows = batch.inputs.rows() as f64;
    for (name, ours) in [
        ("v1.span_loss", sums.span / rows),
        ("v1.answerable_loss", sums.answerability / rows),
        ("v1.loss", sums.total / rows),
    ] {
        let theirs = f64::from(golden[name].1[0]);
        println!("{name}: {ours} against {theirs}");
        assert!((ours / theirs - 1.0).abs() < 1e-5, "{name}: {ours} against {theirs}");
    }
}

#[test]
fn span_logits_of_the_basic_head() {
    // ModelForQABasic is the span head with masked log-softmax over allowed positions; its encoder is shared.
    let (network, batch) = (network("weights.safetensors"), batch());
    let golden = floats(&folder().join("io.safetensors"));
    let hidden = network.encode(&batch.inputs);
    let (_, theirs) = &golden["contextual_embeddings"];
    // The replaced program zeroes padded positions.
    let keep = batch.inputs.valid.unsqueeze(2).to_kind(tch::Kind::Float);
    let difference = relative(&values(&(hidden * keep)), theirs);
    assert!(difference < 1e-5, "{difference}");
}

#[test]
fn every_gradient() {
    let (network, batch) = (network("weights.safetensors"), batch());
    let flat = gradients(&network, &batch);
    let golden = floats(&folder().join("grads.safetensors"));
    let (difference, name) = worst(&by_name(&network, &flat), &golden);
    println!("gradients differ by {difference:.1e} ({name})");
    assert!(difference < 1e-5, "{name}: {difference}");
}

fn gradients(network: &Network, batch: &MicroBatch) -> Vec<Vec<f32>> {
    let mut buckets: Vec<Bucket> = network.stages().iter().map(|s| Bucket::new(s.len(), 0)).collect();
    walk(network, batch, &recipe(batch), |stage, gradients, _| {
        buckets[stage].collect(&network.stages()[stage], &gradients, false)
    })
    .unwrap();
    buckets.iter().map(|b| b.gradients().unwrap().to_vec()).collect()
}

/// The replaced program's four steps: 5 steps in all, 2 of warm-up, peak 1e-2, clip 1.
fn spec() -> Train {
    Train { learning_rate: 1e-2, warmup_steps: Some(2), steps: Some(5), ..Train::default() }
}

/// Steps with gradients from `gradient`, compared after each step with the golden weights; gives the largest
/// differences.
fn four_steps(mut gradient: impl FnMut(u64, &Network) -> Vec<Vec<f32>>) -> Vec<(f64, String)> {
    let mut network = network("weights.safetensors");
    let (optimizer, schedule) = (AdamW::new(&spec()), Schedule::new(&spec(), 5));
    let mut moments: Vec<Moments> = network.stages().iter().map(|s| Moments::new(s.len())).collect();
    (1..=4u64)
        .map(|step| {
            let flat = gradient(step, &network);
            let norm = flat.iter().map(|g| sum_of_squares(g)).sum::<f64>().sqrt();
            let scale = (1.0 / norm).min(1.0);
            for (stage, g) in flat.iter().enumerate() {
                let at = (schedule.rate(step), step);
                optimizer
                    .update(&mut network.stages_mut()[stage], &mut moments[stage], g, scale, at)
                    .unwrap();
            }
            let golden = floats(&folder().join(format!("weights_after_step{step}.safetensors")));
            let ours: BTreeMap<String, Vec<f32>> = by_name(&network, &weights(&network));
            ours.iter()
                .map(|(name, values)| (absolute(values, &golden[name].1), name.clone()))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .unwrap()
        })
        .collect()
}

#[test]
fn optimizer_fed_with_the_golden_gradients() {
    let golden = floats(&folder().join("grads.safetensors"));
    let differences = four_steps(|_, network| {
        let mut flat: Vec<Vec<f32>> = network.stages().iter().map(|s| vec![0.0; s.len()]).collect();
        for (stage, values) in network.stages().iter().zip(&mut flat) {
            for param in stage.params() {
                for (name, _, span) in param.parts() {
                    values[span].copy_from_slice(&golden[name].1);
                }
            }
        }
        flat
    });
    println!("weights after the first step differ by {:.1e}", differences[0].0);
    // Later golden steps have gradients of their own, which were not kept.
    assert!(differences[0].0 < 1e-6, "{:?}", differences[0]);
}

#[test]
fn the_whole_chain_of_four_steps() {
    let batch = batch();
    let differences = four_steps(|_, network| gradients(network, &batch));
    for (step, (difference, name)) in (1..).zip(&differences) {
        println!("step {step}: weights differ by {difference:.1e} ({name})");
        assert!(*difference < 1e-4, "step {step}: {name}: {difference}");
    }
}
