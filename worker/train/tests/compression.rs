//! Gradients that travel in 16 bits: ranks stay equal, and learn as they do with 32.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

#[path = "support/world.rs"]
mod world;

use serde_json::json;
use squad_collective::{Compression, Transport};
use squad_proto::Task;
use squad_train::schedule::Schedule;
use squad_train::step::{StepOutcome, Stepper};
use squad_train::trace::Trace;
use world::{Notes, Place, gang_over, on_demand};

const STEPS: u64 = 40;

/// Trains on two ranks over TCP; gives every rank's weights and outcomes.
fn train(place: &Place, compression: Compression) -> Vec<(Vec<f32>, Vec<StepOutcome>)> {
    let spec = place.spec("out", json!({"train": {"dropout": 0.1, "steps": STEPS}}));
    gang_over(2, (Transport::Tcp, compression), |collective| {
        assert_eq!(collective.transport(), "tcp");
        let model = place.path().join("model");
        let mut prepared = squad_train::prepare(&spec, &Task::default(), &model, &Notes::default()).unwrap();
        let set = prepared.train.take().unwrap();
        let schedule = Schedule::new(&spec.train, STEPS);
        let mut stepper = Stepper::new(&spec, &prepared.network, schedule, &collective).unwrap();
        let mut portions = on_demand(&spec, &prepared, &collective, &set);
        let outcomes = (1..=STEPS)
            .map(|step| {
                let who = (&collective, &Trace::off());
                stepper.take(step, &mut prepared.network, &mut portions, who, false).unwrap()
            })
            .collect();
        let weights = prepared.network.stages().iter().flat_map(|stage| stage.to_vec()).collect();
        (weights, outcomes)
    })
}

fn losses(outcomes: &[StepOutcome]) -> Vec<f64> {
    outcomes.iter().map(|outcome| outcome.header.mean_loss()).collect()
}

#[test]
fn ranks_stay_equal_and_losses_stay_close() {
    let place = Place::new(32, 2, 80);
    let exact = train(&place, Compression::None);
    let wanted = losses(&exact[0].1);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&wanted[30..]) < 0.97 * mean(&wanted[..10]), "it learns: {wanted:?}");
    // Of a gradient's element at most 2^-11 or 2^-8 is lost at each rounding; Adam's steps, which divide by the size
    // of gradients, move by about as much.
    for (compression, bound) in [(Compression::Fp16, 2e-3), (Compression::Bf16, 1e-2)] {
        let ranks = train(&place, compression);
        let bits = |weights: &[f32]| weights.iter().map(|weight| weight.to_bits()).collect::<Vec<_>>();
        assert!(bits(&ranks[0].0) == bits(&ranks[1].0), "{compression}: ranks differ");
        assert!(bits(&ranks[0].0) != bits(&exact[0].0), "{compression}: nothing was rounded");
        let found = losses(&ranks[0].1);
        assert_eq!(found[0], wanted[0], "what the header says is never rounded");
        for (one, other) in ranks[0].1.iter().zip(&ranks[1].1) {
            assert_eq!(one.grad_norm, other.grad_norm);
            assert_eq!(one.header, other.header);
        }
        let furthest = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs() / b).fold(0.0, f64::max);
        println!("{compression}: losses differ by up to {furthest:.1e}");
        assert!(furthest < bound, "{compression}: {furthest}");
    }
}
