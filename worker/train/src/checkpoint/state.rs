//! What a run is, and what of it must not change when it is gone on with.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use squad_data::Cursor;
use squad_model::Network;
use squad_proto::JobSpec;
use squad_proto::spec::{Data, Train};

use crate::log::Sums;
use crate::loss_scale::LossScale;
use crate::prepare::TrainSet;
use crate::schedule::{Schedule, total_steps};

/// Fields of `train` that may change while a run is under way, or are compared in another form.
const FREE: &[&str] = &[
    // Nothing that is computed depends on these.
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "recompute",
    // Where the weights came from; they come from the checkpoint now.
    "init_from",
    // Compared as steps, warm-up steps and micro-batches of a step.
    "epochs",
    "steps",
    "warmup_ratio",
    "warmup_steps",
    "accumulate",
];

/// Everything about training but weights and moments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingState {
    /// Optimizer steps that were taken.
    pub step: u64,
    /// The same as a place in the data.
    pub cursor: Cursor,
    /// What the run is: [`identity`].
    pub run: Map<String, Value>,
    /// Ranks that took part.
    pub world: usize,
    /// Threads of each rank.
    pub threads: i32,
    /// The factor on the loss in half precision.
    pub loss_scale: LossScale,
    /// Sums of the log.
    pub sums: Sums,
}

/// What a run is, by field: what the weights after each step depend on, apart from rounding.
pub fn identity(spec: &JobSpec, network: &Network, set: &TrainSet) -> Map<String, Value> {
    let steps = total_steps(&spec.train, set.sampler.steps_per_epoch() as u64);
    let mut run = Map::new();
    run.insert("head".into(), json!(spec.head));
    run.insert("train.steps (from epochs, or given)".into(), json!(steps));
    run.insert("train.warmup_steps (from warmup_ratio, or given)".into(), json!(warmup(spec, steps)));
    run.insert("train.accumulate x resources.workers".into(), json!(spec.micro_batches_per_step()));
    let sections = [("train", json!(spec.train), FREE), ("data", json!(spec.data), &["train", "dev"][..])];
    for (section, fields, free) in sections {
        for (name, value) in fields.as_object().into_iter().flatten() {
            if !free.contains(&name.as_str()) {
                run.insert(format!("{section}.{name}"), value.clone());
            }
        }
    }
    run.insert("the training set's content (SHA-256)".into(), json!(hex::encode(set.features.digest())));
    run.insert("the parameters' layout (SHA-256)".into(), json!(hex::encode(network.layout_hash())));
    run
}

fn warmup(spec: &JobSpec, steps: u64) -> u64 {
    Schedule::new(&spec.train, steps).warmup()
}

/// The first field in which a run that is to be gone on with is not the one that was begun, as a sentence.
pub fn difference(began: &Map<String, Value>, now: &Map<String, Value>) -> Option<String> {
    now.keys().chain(began.keys()).find_map(|field| {
        // A run that was begun before there was the field is what the field's default says.
        let value = |run: &Map<String, Value>| run.get(field).cloned().unwrap_or_else(|| default_of(field));
        let (then, now) = (value(began), value(now));
        (then != now).then(|| format!("{field} was {then} and is now {now}"))
    })
}

/// What a spec has where it says nothing of `train.…` or `data.…`.
fn default_of(field: &str) -> Value {
    let (section, name) = field.split_once('.').unwrap_or_default();
    match section {
        "train" => json!(Train::default())[name].take(),
        "data" => json!(Data::default())[name].take(),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named_with_both_values() {
        let map = |value: Value| value.as_object().unwrap().clone();
        let began = map(json!({"train.seed": 1, "train.dropout": null}));
        assert_eq!(difference(&began, &began), None);
        let other = map(json!({"train.seed": 1, "train.dropout": 0.5}));
        assert_eq!(difference(&began, &other).unwrap(), "train.dropout was null and is now 0.5");
        let fewer = map(json!({"train.seed": 1}));
        assert_eq!(
            difference(&map(json!({"train.seed": 1, "x": 2})), &fewer).unwrap(),
            "x was 2 and is now null"
        );
        // Of before there was the field.
        let ungrouped = map(json!({"train.seed": 1, "data.group_by_length": false}));
        let sentence = "data.group_by_length was true and is now false";
        assert_eq!(difference(&fewer, &ungrouped).unwrap(), sentence);
        let grouped = map(json!({"train.seed": 1, "data.group_by_length": true}));
        assert_eq!(difference(&fewer, &grouped), None);
    }

    #[test]
    fn every_field_that_may_change_is_a_field() {
        let fields = json!(squad_proto::spec::Train::default());
        for name in FREE {
            assert!(fields.get(name).is_some(), "train.{name} is no field");
        }
    }
}
