//! Batches that are made beside the steps: the same weights, no more of them than said, and a thread that ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

#[path = "support/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use squad_data::{BatchSize, Sampler};
use squad_proto::{JobSpec, Task};
use squad_train::Prepared;
use squad_train::portion::{Collator, OnDemand, Portions};
use squad_train::prefetch::{AHEAD, Prefetch};
use squad_train::prepare::TrainSet;
use squad_train::schedule::Schedule;
use squad_train::step::Stepper;
use squad_train::trace::Trace;
use world::{Notes, Place, gang};

/// Enough for two epochs and a bit.
const STEPS: u64 = 12;

fn prepared(place: &Place, spec: &JobSpec) -> (Prepared, TrainSet) {
    let model = place.path().join("model");
    let mut prepared = squad_train::prepare(spec, &Task::default(), &model, &Notes::default()).unwrap();
    let set = prepared.train.take().unwrap();
    (prepared, set)
}

/// Every rank's weights and losses, bit by bit, after some steps.
fn train(place: &Place, changes: &Value, world: usize, beside: bool) -> Vec<(Vec<u32>, Vec<u64>)> {
    let spec = place.spec("out", changes.clone());
    gang(world, |collective| {
        let (mut prepared, set) = prepared(place, &spec);
        let schedule = Schedule::new(&spec.train, STEPS);
        let mut stepper = Stepper::new(&spec, &prepared.network, schedule, &collective).unwrap();
        let collator = Collator::new(&spec, &prepared.network, prepared.pad_id, &collective);
        let network = &mut prepared.network;
        let mut losses = Vec::new();
        let mut take = |portions: &mut dyn Portions| {
            for step in 1..=STEPS {
                let who = (&collective, &Trace::off());
                let outcome = stepper.take(step, network, portions, who, false).unwrap();
                losses.push(outcome.header.loss.to_bits());
            }
        };
        if beside {
            std::thread::scope(|scope| {
                take(&mut Prefetch::start(scope, collator, &set, 1..=STEPS).unwrap());
            });
        } else {
            take(&mut OnDemand::new(collator, &set));
        }
        let bits = |stage: &squad_model::Stage| stage.to_vec().into_iter().map(f32::to_bits);
        (prepared.network.stages().iter().flat_map(bits).collect(), losses)
    })
}

#[test]
fn who_makes_the_batches_changes_no_bit() {
    let place = Place::new(32, 2, 40);
    for (world, changes) in [
        (1, json!({"train": {"dropout": 0.1}})),
        (2, json!({"train": {"dropout": 0.1, "accumulate": 2}, "comm": {"embedding_gradients": "dense"}})),
        (3, json!({"train": {"batch_size": 1, "dtype": "float16"}, "resources": {"workers": 2}})),
        (2, json!({"train": {"freeze_layers": 1}, "data": {"tokens_per_batch": 128}})),
    ] {
        let (beside, between) = (train(&place, &changes, world, true), train(&place, &changes, world, false));
        assert!(beside == between, "{changes}, {world} ranks: weights or losses differ");
    }
}

#[test]
fn no_more_are_made_than_said_and_dropping_ends_the_thread() {
    let place = Place::new(32, 1, 40);
    let spec = place.spec("out", json!({"train": {}}));
    let made = AtomicU64::new(0);
    gang(1, |collective| {
        let (prepared, set) = prepared(&place, &spec);
        let collator = Collator::new(&spec, &prepared.network, prepared.pad_id, &collective);
        let counted = (1..=u64::MAX).inspect(|_| {
            made.fetch_add(1, Ordering::SeqCst);
        });
        // Ends only because the thread does.
        std::thread::scope(|scope| {
            let mut portions = Prefetch::start(scope, collator, &set, counted).unwrap();
            for step in 1..=20 {
                let portion = portions.portion(step).unwrap();
                assert!(portion.step == step && !portion.micro_batches.is_empty(), "{portion:?}");
                let begun = made.load(Ordering::SeqCst);
                assert!(begun <= step + AHEAD as u64 + 1, "{begun} were begun when {step} were taken");
            }
            let error = portions.portion(99).unwrap_err().to_string();
            assert!(error.contains("in place of those of step 99"), "{error}");
        });
    });
}

#[test]
fn steps_run_out_and_a_panic_is_passed_on() {
    let place = Place::new(32, 1, 40);
    let spec = place.spec("out", json!({"train": {}}));
    gang(1, |collective| {
        let (prepared, set) = prepared(&place, &spec);
        let collator = Collator::new(&spec, &prepared.network, prepared.pad_id, &collective);
        std::thread::scope(|scope| {
            let mut portions = Prefetch::start(scope, collator.clone(), &set, 1..=1).unwrap();
            portions.portion(1).unwrap();
            let error = portions.portion(2).unwrap_err().to_string();
            assert!(error.contains("no batches for step 2"), "{error}");
        });
        // More windows than there are: making a batch of them panics.
        let sampler = Sampler::new(&[9; 10_000], BatchSize::Examples(500), 1, 1).unwrap();
        let broken = TrainSet { features: set.features, sampler };
        let panic = std::thread::scope(|scope| {
            let mut portions = Prefetch::start(scope, collator, &broken, 1..=9).unwrap();
            catch_unwind(AssertUnwindSafe(|| portions.portion(1).map(drop))).unwrap_err()
        });
        let words = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(words.contains("index out of bounds"), "{words}");
    });
}
