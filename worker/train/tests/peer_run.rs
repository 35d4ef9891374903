//! A whole training run of Hugging Face and PyTorch, step by step with the same examples.
//!
//! Runs where SQUAD_PEER_RUN names a folder with the run's `losses.jsonl` (loss, lr and the indices of the
//! windows of each global batch), `train.json`, `model/` (for its tokenizer) and `fixture/` (config.json and the
//! starting weights.safetensors). The run had dropout 0, windows of 256 tokens that overlap by 128, AdamW with bias
//! correction and epsilon 1e-8 without decay, and clipping at 1. docs/measurements.md says how one is made.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod support;

use std::path::{Path, PathBuf};

use squad_data::batch::collate;
use squad_data::{FeatureSettings, Features, PairLayout, Purpose, Tokenizer, Window};
use squad_model::network::Dropout;
use squad_model::{ConfigFile, EncoderConfig, HeadKind, LossForm, Network};
use squad_proto::spec::Train;
use squad_train::adamw::{AdamW, Moments, sum_of_squares};
use squad_train::backward::{Recipe, walk};
use squad_train::bucket::Bucket;
use squad_train::step::micro_batch;
use squad_train::trace::Trace;
use support::floats;
use tch::Device;

fn features(folder: &Path) -> (Features, i32) {
    let dataset = squad_data::squad::read(&folder.join("train.json")).unwrap();
    let tokenizer = Tokenizer::from_folder(&folder.join("model")).unwrap();
    let settings = FeatureSettings {
        max_seq_length: 256,
        doc_stride: 128,
        max_query_length: 64,
        window: Window::Overlap,
        layout: PairLayout::Single,
    };
    (Features::build(&dataset, &tokenizer, &settings, Purpose::Train).unwrap(), tokenizer.pad())
}

fn network(folder: &Path) -> Network {
    let ConfigFile { config, json, .. } = EncoderConfig::read(folder).unwrap();
    let mut network = Network::new(config, json, HeadKind::Span, Device::Cpu);
    squad_model::load::assign(&mut network, floats(&folder.join("weights.safetensors")), 0).unwrap();
    network
}

#[test]
#[allow(clippy::print_stderr, reason = "a skip has to be loud")]
fn losses_of_a_whole_run() {
    let Some(folder) = std::env::var_os("SQUAD_PEER_RUN").map(PathBuf::from) else {
        eprintln!("SKIPPED: SQUAD_PEER_RUN names no folder with a peer's run");
        return;
    };
    let (features, pad) = features(&folder);
    let mut network = network(&folder.join("fixture"));
    let optimizer = AdamW::new(&Train {
        adam_betas: [0.9, 0.999],
        adam_epsilon: 1e-8,
        weight_decay: 0.0,
        bias_correction: true,
        ..Train::default()
    });
    let mut moments: Vec<Moments> = network.stages().iter().map(|s| Moments::new(s.len())).collect();
    let mut buckets: Vec<Bucket> = network.stages().iter().map(|s| Bucket::new(s.len(), 0)).collect();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for (index, line) in std::fs::read_to_string(folder.join("losses.jsonl")).unwrap().lines().enumerate() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        let chosen: Vec<usize> = serde_json::from_value(entry["features"].clone()).unwrap();
        let batch = micro_batch(&collate(&features, &chosen, pad, 1), Device::Cpu);
        let divisor = chosen.len() as f64;
        let recipe = Recipe {
            dropout: Dropout::NONE,
            seed: 0,
            first_row: 0,
            first_trainable: 0,
            divisor,
            form: LossForm::HuggingFace,
            recompute: false,
        };
        let sums = walk(&network, &batch, &recipe, &Trace::off(), |stage, gradients, _| {
            buckets[stage].collect(&network.stages()[stage], &gradients, false)
        })
        .unwrap();
        let norm = buckets.iter().map(|b| sum_of_squares(b.gradients().unwrap())).sum::<f64>().sqrt();
        for (stage, bucket) in buckets.iter().enumerate() {
            let at = (entry["lr"].as_f64().unwrap(), index as u64 + 1);
            let gradient = bucket.gradients().unwrap();
            let scale = (1.0 / norm).min(1.0);
            optimizer
                .update(&mut network.stages_mut()[stage], &mut moments[stage], gradient, scale, at)
                .unwrap();
        }
        ours.push(sums.total / divisor);
        theirs.push(entry["loss"].as_f64().unwrap());
    }
    let apart = |k: usize| (ours[k] / theirs[k] - 1.0).abs();
    let first = (0..ours.len().min(20)).map(apart).fold(0.0, f64::max);
    let mean = |losses: &[f64]| losses[losses.len().saturating_sub(50)..].iter().sum::<f64>() / 50.0;
    let last = mean(&ours) / mean(&theirs) - 1.0;
    println!(
        "{} steps; the first 20 losses differ by {first:.1e}; means of the last 50: {:.4} and {:.4} ({:+.2} %)",
        ours.len(),
        mean(&ours),
        mean(&theirs),
        100.0 * last
    );
    assert!(first < 1e-4 && last.abs() < 0.02);
}
