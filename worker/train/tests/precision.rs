//! Half precision: as good as 32 bits, and an overflow that all ranks see alike.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

#[path = "support/world.rs"]
mod world;

use serde_json::{Value, json};
use squad_proto::{JobSpec, Phase, Progress, Task};
use squad_train::Report;
use squad_train::loss_scale::LossScale;
use squad_train::schedule::Schedule;
use squad_train::step::{StepOutcome, Stepper};
use squad_train::trace::Trace;
use world::{Place, gang, on_demand};

struct Silent;

impl Report for Silent {
    fn tick(&self, _: Phase, _: u64, _: u64) {}
    fn progress(&self, _: Progress) {}
    fn note(&self, _: String) {}
}

/// A loss scale that moves, from `scale` on.
fn dynamic(scale: f64) -> LossScale {
    serde_json::from_value(json!({"scale": scale, "good_steps": 0, "dynamic": true})).unwrap()
}

/// Takes `steps` steps on each of `world` ranks; gives every rank's weights and outcomes.
fn take(
    place: &Place,
    spec: &JobSpec,
    world: usize,
    steps: u64,
    scale: Option<LossScale>,
) -> Vec<(Vec<f32>, Vec<StepOutcome>)> {
    gang(world, |collective| {
        let mut prepared =
            squad_train::prepare(spec, &Task::default(), &place.path().join("model"), &Silent).unwrap();
        let set = prepared.train.take().unwrap();
        let schedule = Schedule::new(&spec.train, steps);
        let mut stepper = Stepper::new(spec, &prepared.network, schedule, &collective).unwrap();
        if let Some(scale) = scale {
            stepper.set_loss_scale(scale);
        }
        let mut portions = on_demand(spec, &prepared, &collective, &set);
        let outcomes = (1..=steps)
            .map(|step| {
                let who = (&collective, &Trace::off());
                stepper.take(step, &mut prepared.network, &mut portions, who, false).unwrap()
            })
            .collect();
        let weights = prepared.network.stages().iter().flat_map(|stage| stage.to_vec()).collect();
        (weights, outcomes)
    })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn half_formats_learn_as_32_bits_do() {
    let place = Place::new(32, 2, 80);
    let run = |dtype: &str, workers: usize| {
        let out = format!("{dtype}-{workers}");
        let changes = json!({"train": {"dtype": dtype, "steps": 60, "dropout": 0.1}});
        place.run(&place.spec(&out, changes), workers).unwrap();
        place.losses(&out)
    };
    let exact = run("float32", 1);
    assert!(mean(&exact[50..]) < 0.9 * mean(&exact[..10]), "it learns: {exact:?}");
    for dtype in ["float16", "bfloat16"] {
        let one = run(dtype, 1);
        let (end, wanted) = (mean(&one[50..]), mean(&exact[50..]));
        println!("{dtype}: mean of the last ten losses {end:.4}, in 32 bits {wanted:.4}");
        assert!((end / wanted - 1.0).abs() < 0.02, "{dtype}: {end} for {wanted}");
        let two = run(dtype, 2);
        assert!((mean(&two[50..]) / end - 1.0).abs() < 0.02, "{dtype} on two ranks");
        assert_ne!(one, exact, "{dtype} computes nothing in {dtype}");
    }
}

#[test]
fn scaling_by_a_power_of_two_changes_no_bit_in_32_bits() {
    let place = Place::new(32, 1, 40);
    let spec = place.spec("out", json!({"train": {"dropout": 0.1}}));
    let plain = take(&place, &spec, 2, 6, None);
    let scaled = take(&place, &spec, 2, 6, Some(dynamic(65536.0)));
    assert_eq!(plain[0].0, scaled[0].0);
    let norms = |outcomes: &[StepOutcome]| outcomes.iter().map(|o| o.grad_norm).collect::<Vec<_>>();
    assert_eq!(norms(&plain[0].1), norms(&scaled[0].1));
    assert_eq!((plain[0].1[5].loss_scale, scaled[0].1[5].loss_scale), (1.0, 65536.0));
}

#[test]
fn an_overflow_on_one_rank_makes_all_take_the_step_again() {
    let place = Place::new(32, 1, 40);
    // One micro-batch a step: only rank 0 computes, and only its gradients overflow.
    let spec = place.spec(
        "out",
        json!({"resources": {"workers": 1}, "train": {"dtype": "float16", "dropout": 0.1, "batch_size": 4}}),
    );
    let ranks = take(&place, &spec, 2, 4, Some(dynamic(2f64.powi(40))));
    let outcomes = &ranks[0].1;
    let (overflows, scale) = (outcomes[0].overflows, outcomes[0].loss_scale);
    assert!(overflows > 5, "{overflows} overflows");
    assert_eq!(scale, 2f64.powi(40 - overflows as i32));
    for (one, other) in outcomes.iter().zip(&ranks[1].1) {
        assert_eq!(
            (one.overflows, one.loss_scale, one.learning_rate),
            (other.overflows, other.loss_scale, other.learning_rate)
        );
        assert_eq!(one.header, other.header);
    }
    assert_eq!(ranks[0].0, ranks[1].0);

    // As if the right scale had been there from the start: no example, no step of the schedule was lost.
    let right = take(&place, &spec, 2, 4, Some(dynamic(scale)));
    assert_eq!(right[0].1[0].overflows, 0);
    assert_eq!(right[0].0, ranks[0].0);
}

#[test]
fn the_scale_is_in_the_metrics_and_evaluation_is_in_the_same_format() {
    let place = Place::new(32, 1, 40);
    for (dtype, scale) in [("float16", 65536.0), ("bfloat16", 1.0)] {
        let spec = place.spec(dtype, json!({"train": {"dtype": dtype, "steps": 4}, "head": "conditional"}));
        let outcome = place.run(&spec, 2).unwrap();
        let squad_train::run::Outcome::Completed(Some(results)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(results["train"]["overflows"], 0);
        assert!(results["exact"].is_number());
        let scales: Vec<Value> = place.metrics(dtype).iter().map(|l| l["loss_scale"].clone()).collect();
        assert_eq!(scales, vec![json!(scale); 4]);
    }
}

#[test]
fn recomputed_activations_give_the_same_bits() {
    let place = Place::new(32, 3, 40);
    for (dtype, frozen) in [("float32", 0), ("float32", 1), ("bfloat16", 0), ("float16", 2)] {
        let run = |recompute: bool| {
            let train = json!({
                "dtype": dtype, "dropout": 0.1, "freeze_layers": frozen, "recompute": recompute, "accumulate": 2,
            });
            let spec = place.spec("out", json!({"train": train, "head": "conditional"}));
            take(&place, &spec, 2, 4, None)
        };
        let (kept, again) = (run(false), run(true));
        assert_eq!(kept[0].0, again[0].0, "{dtype}, {frozen} frozen layers");
        let losses = |of: &[StepOutcome]| of.iter().map(|outcome| outcome.header.loss).collect::<Vec<_>>();
        assert_eq!(losses(&kept[0].1), losses(&again[0].1), "{dtype}, {frozen} frozen layers");
    }
}
