//! Forward, backward and one AdamW step against Hugging Face transformers and PyTorch.
//!
//! The golden folder is a tiny model (scripts/golden_model.py). SQUAD_FIXTURE may name another folder of the
//! same layout, such as one of a real model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod support;

use std::path::{Path, PathBuf};

use squad_model::network::Dropout;
use squad_model::{HeadKind, Inputs, LossForm, Network, Targets};
use squad_proto::spec::Train;
use squad_train::adamw::{AdamW, Moments, sum_of_squares};
use squad_train::backward::{MicroBatch, Recipe, walk};
use squad_train::bucket::Bucket;
use squad_train::trace::Trace;
use support::{absolute, by_name, differences_but, floats, integers, relative, values, weights};
use tch::Device;

/// Relative difference that 32-bit arithmetic in another order may make.
const TOLERANCE: f64 = 1e-4;

fn folders() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/huggingface");
    std::iter::once(own).chain(std::env::var_os("SQUAD_FIXTURE").map(PathBuf::from)).collect()
}

fn network(folder: &Path) -> Network {
    let squad_model::ConfigFile { config, json, .. } = squad_model::EncoderConfig::read(folder).unwrap();
    let mut network = Network::new(config, json, HeadKind::Span, Device::Cpu);
    let report =
        squad_model::load::assign(&mut network, floats(&folder.join("weights.safetensors")), 0).unwrap();
    assert!(report.head_loaded());
    network
}

fn batch(folder: &Path) -> MicroBatch {
    let all = integers(&folder.join("inputs.safetensors"));
    let shape = &all["input_ids"].0;
    let lengths: Vec<i64> =
        all["attention_mask"].1.chunks(shape[1] as usize).map(|row| row.iter().sum()).collect();
    let get = |name: &str| all[name].1.as_slice();
    let allowed = vec![true; (shape[0] * shape[1]) as usize];
    MicroBatch {
        inputs: Inputs::new(&lengths, get("input_ids"), get("token_type_ids"), &allowed, Device::Cpu),
        targets: Targets::new(
            get("start_positions"),
            get("end_positions"),
            &vec![0; shape[0] as usize],
            Device::Cpu,
        ),
    }
}

fn recipe(batch: &MicroBatch) -> Recipe {
    Recipe {
        dropout: Dropout::NONE,
        seed: 1,
        first_row: 0,
        first_trainable: 0,
        divisor: batch.inputs.rows() as f64,
        form: LossForm::HuggingFace,
        recompute: false,
    }
}

/// Gradients of all stages, and the mean loss.
fn gradients(network: &Network, batch: &MicroBatch) -> (Vec<Vec<f32>>, f64) {
    let mut buckets: Vec<Bucket> = network.stages().iter().map(|s| Bucket::new(s.len(), 0)).collect();
    let sums = walk(network, batch, &recipe(batch), &Trace::off(), |stage, gradients, _| {
        buckets[stage].collect(&network.stages()[stage], &gradients, false)
    })
    .unwrap();
    let flat = buckets.iter().map(|b| b.gradients().unwrap().to_vec()).collect();
    (flat, sums.total / batch.inputs.rows() as f64)
}

#[test]
fn logits_and_hidden_states() {
    for folder in folders() {
        let (network, batch) = (network(&folder), batch(&folder));
        let golden = floats(&folder.join("outputs.safetensors"));
        let squad_model::Scores::Span { start, end } = network.scores(&batch.inputs, (1, 1)) else {
            unreachable!()
        };
        for (name, tensor) in [("start_logits", &start), ("end_logits", &end)] {
            let difference = relative(&values(tensor), &golden[name].1);
            println!("{}: {name} differs by {difference:.1e}", folder.display());
            assert!(difference < TOLERANCE, "{name}: {difference}");
        }
        let mut hidden = tch::Tensor::new();
        for stage in 0..network.stages().len() - 1 {
            hidden = network.forward(stage, &hidden, &batch.inputs, None);
            let difference = relative(&values(&hidden), &golden[&format!("hidden_{stage}")].1);
            assert!(difference < TOLERANCE, "hidden_{stage}: {difference}");
        }
    }
}

#[test]
fn loss_and_every_gradient() {
    for folder in folders() {
        let (network, batch) = (network(&folder), batch(&folder));
        let (flat, loss) = gradients(&network, &batch);
        let golden_loss = floats(&folder.join("outputs.safetensors"))["loss"].1[0];
        assert!((loss / f64::from(golden_loss) - 1.0).abs() < TOLERANCE, "{loss} against {golden_loss}");
        let golden = floats(&folder.join("grads.safetensors"));
        // What reaches the last norm sums up to zero over the positions, as what reaches the head's bias does: this form
        // of the loss lets the softmax see all of them.
        let last = format!("layer.{}.output.LayerNorm.bias", network.stages().len() - 3);
        let ours = by_name(&network, &flat);
        let (difference, name) = &differences_but(&ours, &golden, |name| name.ends_with(&last))[0];
        println!(
            "{}: loss {loss} against {golden_loss}; gradients differ by {difference:.1e} ({name})",
            folder.display()
        );
        assert!(*difference < TOLERANCE, "{name}: {difference}");
    }
}

#[test]
fn padding_rows_matter_only_to_the_unmasked_form() {
    let folder = &folders()[0];
    let (network, batch) = (network(folder), batch(folder));
    let loss = |form| {
        walk(&network, &batch, &Recipe { form, ..recipe(&batch) }, &Trace::off(), |_, _, _| Ok(()))
            .unwrap()
            .total
    };
    assert!(
        (loss(LossForm::Masked) - loss(LossForm::HuggingFace)).abs() > 1e-3,
        "the golden batch has padding"
    );
}

#[test]
fn one_step_of_adamw() {
    for folder in folders() {
        let (mut network, batch) = (network(&folder), batch(&folder));
        let (flat, _) = gradients(&network, &batch);
        let meta: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join("meta.json")).unwrap()).unwrap();
        let number = |name: &str| meta["step"][name].as_f64().unwrap();
        let norm = flat.iter().map(|g| sum_of_squares(g)).sum::<f64>().sqrt();
        let golden_norm = meta["grad_norm_before_clip"].as_f64().unwrap();
        assert!((norm / golden_norm - 1.0).abs() < TOLERANCE, "{norm} against {golden_norm}");
        let optimizer = AdamW::new(&Train {
            adam_betas: [0.9, 0.999],
            adam_epsilon: number("eps"),
            weight_decay: number("weight_decay"),
            bias_correction: true,
            ..Train::default()
        });
        let scale = (number("clip") / norm).min(1.0);
        // The very gradients of PyTorch: a gradient near zero may have either sign in ours, and Adam's
        // first step keeps nothing but the sign.
        let golden_grads = floats(&folder.join("grads.safetensors"));
        for (stage, own) in flat.iter().enumerate() {
            let mut gradient = own.clone();
            for param in network.stages()[stage].params() {
                for (name, _, span) in param.parts() {
                    let found =
                        ["", "bert."].iter().find_map(|p| golden_grads.get(&format!("{p}{name}"))).unwrap();
                    gradient[span].copy_from_slice(&found.1);
                }
            }
            let mut moments = Moments::new(own.len());
            optimizer
                .update(&mut network.stages_mut()[stage], &mut moments, &gradient, scale, (number("lr"), 1))
                .unwrap();
        }
        let golden = floats(&folder.join("weights_after_step.safetensors"));
        let ours = by_name(&network, &weights(&network));
        let mut furthest: f64 = 0.0;
        for (name, values) in &ours {
            let found = ["", "bert."].iter().find_map(|p| golden.get(&format!("{p}{name}"))).unwrap();
            let size = found.1.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
            let difference = absolute(values, &found.1) / size.max(number("lr"));
            furthest = furthest.max(difference);
            assert!(difference < TOLERANCE, "{name}: {difference}");
        }
        println!("{}: weights after one step differ by {furthest:.1e}", folder.display());
    }
}
