//! Steps as a GPU takes them, on the CPU, beside the CPU's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

#[path = "support/world.rs"]
mod world;

use serde_json::{Value, json};
use squad_collective::Background;
use squad_proto::{JobSpec, Task};
use squad_train::adamw::Moments;
use squad_train::device::{DeviceStepper, Exchange};
use squad_train::loss_scale::LossScale;
use squad_train::schedule::Schedule;
use squad_train::step::{StepOutcome, Stepper};
use squad_train::trace::Trace;
use squad_train::{Prepared, TrainError, prepare::TrainSet};
use world::{Notes, Place, gang, on_demand};

const STEPS: u64 = 5;

/// What a rank has after some steps.
struct After {
    weights: Vec<f32>,
    moments: Vec<Moments>,
    outcomes: Vec<StepOutcome>,
}

/// Prepares a rank and has `steps` take steps with it.
fn run(
    place: &Place,
    spec: &JobSpec,
    world: usize,
    steps: impl Fn(&mut Prepared, &TrainSet, &Background) -> Result<(Vec<Moments>, Vec<StepOutcome>), TrainError>
    + Send
    + Sync,
) -> Vec<After> {
    gang(world, |collective| {
        let (task, model) = (Task::default(), place.path().join("model"));
        let mut prepared = squad_train::prepare(spec, &task, &model, &Notes::default()).unwrap();
        let set = prepared.train.take().unwrap();
        let (moments, outcomes) = steps(&mut prepared, &set, &collective).unwrap();
        let weights = prepared.network.stages().iter().flat_map(|stage| stage.to_vec()).collect();
        After { weights, moments, outcomes }
    })
}

fn on_host(place: &Place, spec: &JobSpec, world: usize, scale: Option<LossScale>) -> Vec<After> {
    run(place, spec, world, |prepared, set, collective| {
        let schedule = Schedule::new(&spec.train, STEPS);
        let mut stepper = Stepper::new(spec, &prepared.network, schedule, collective)?;
        scale.into_iter().for_each(|scale| stepper.set_loss_scale(scale));
        let mut portions = on_demand(spec, prepared, collective, set);
        let outcomes = (1..=STEPS)
            .map(|step| {
                let who = (collective, &Trace::off());
                stepper.take(step, &mut prepared.network, &mut portions, who, step == 3)
            })
            .collect::<Result<_, _>>()?;
        Ok((stepper.moments().to_vec(), outcomes))
    })
}

fn as_device(place: &Place, spec: &JobSpec, world: usize, scale: Option<LossScale>) -> Vec<After> {
    run(place, spec, world, |prepared, set, collective| {
        let schedule = Schedule::new(&spec.train, STEPS);
        let exchange = Exchange::over_ring(collective, &DeviceStepper::lens(&prepared.network))?;
        let mut stepper = DeviceStepper::new(spec, &prepared.network, schedule, exchange);
        scale.into_iter().for_each(|scale| stepper.set_loss_scale(scale));
        let mut portions = on_demand(spec, prepared, collective, set);
        let mut outcomes = Vec::new();
        for step in 1..=STEPS {
            let who = (collective, &Trace::off());
            outcomes.push(stepper.take(step, &mut prepared.network, &mut portions, who, step == 3)?);
            // As after a checkpoint: what is on the device comes back as it was.
            stepper.go_on(&stepper.moments(), stepper.loss_scale());
        }
        Ok((stepper.moments(), outcomes))
    })
}

/// Largest difference, as a share of the largest value.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

fn compare(ours: &After, theirs: &After, tolerance: f32, what: &str) {
    assert!(apart(&ours.weights, &theirs.weights) < tolerance, "{what}: weights");
    for (stage, (ours, theirs)) in ours.moments.iter().zip(&theirs.moments).enumerate() {
        let all = |both: &Moments| [both.first.clone(), both.second.clone()].concat();
        let (ours, theirs) = (all(ours), all(theirs));
        let frozen = theirs.iter().all(|value| *value == 0.0);
        assert!(
            frozen && ours == theirs || apart(&ours, &theirs) < 10.0 * tolerance,
            "{what}: moments of {stage}"
        );
    }
    for (ours, theirs) in ours.outcomes.iter().zip(&theirs.outcomes) {
        let near = |a: f64, b: f64| (a - b).abs() <= f64::from(tolerance) * b.abs().max(1e-3);
        let (a, b) = (&ours.header, &theirs.header);
        assert!(
            near(a.loss, b.loss) && near(a.span, b.span) && near(a.answerability, b.answerability),
            "{what}: loss"
        );
        assert!(
            near(ours.grad_norm, theirs.grad_norm),
            "{what}: norm {} {}",
            ours.grad_norm,
            theirs.grad_norm
        );
        assert_eq!(
            (a.examples, a.tokens, a.padded_tokens, a.stop_votes),
            (b.examples, b.tokens, b.padded_tokens, b.stop_votes)
        );
        assert_eq!((ours.overflows, ours.loss_scale), (theirs.overflows, theirs.loss_scale), "{what}");
        assert_eq!(ours.learning_rate, theirs.learning_rate);
    }
}

#[test]
fn a_devices_steps_are_the_hosts() {
    let place = Place::new(32, 3, 60);
    for (world, train) in [
        (1, json!({"dropout": 0.1})),
        (2, json!({"dropout": 0.1, "accumulate": 2, "bias_correction": true, "layerwise_decay": 0.8})),
        (3, json!({"freeze_layers": 1, "recompute": true, "max_grad_norm": 0.05})),
    ] {
        let spec = place.spec("out", json!({"train": train, "head": "conditional"}));
        let (ours, theirs) = (as_device(&place, &spec, world, None), on_host(&place, &spec, world, None));
        for rank in 0..world {
            compare(&ours[rank], &theirs[rank], 2e-5, &format!("{train}, rank {rank} of {world}"));
            assert_eq!(ours[rank].weights, ours[0].weights, "all ranks have the same weights");
        }
    }
}

#[test]
fn ranks_without_work_take_part() {
    let place = Place::new(32, 1, 20);
    let one = json!({"resources": {"workers": 1}});
    let spec = place.spec("out", one);
    let (ours, theirs) = (as_device(&place, &spec, 3, None), on_host(&place, &spec, 3, None));
    compare(&ours[2], &theirs[2], 2e-5, "the rank without work");
}

#[test]
fn overflows_are_handled_alike() {
    let place = Place::new(32, 1, 40);
    let spec = place.spec("out", json!({"train": {"dtype": "float16", "dropout": 0.1}}));
    let scale: Value = json!({"scale": 2f64.powi(40), "good_steps": 0, "dynamic": true});
    let scale: Option<LossScale> = Some(serde_json::from_value(scale).unwrap());
    let (ours, theirs) = (as_device(&place, &spec, 2, scale), on_host(&place, &spec, 2, scale));
    assert!(ours[0].outcomes[0].overflows > 5);
    compare(&ours[0], &theirs[0], 2e-3, "float16");
}

#[test]
fn libtorchs_cuda_half_loads_with_or_without_a_driver() {
    let Ok(folder) = squad_cuda::Places::of_process().find() else {
        eprintln!("skipped: no CUDA libraries here; scripts/setup.sh --cuda brings them");
        return;
    };
    squad_cuda::load(&folder).unwrap();
    let gpus = squad_cuda::Driver::open().and_then(squad_cuda::Driver::count).unwrap_or(0);
    assert_eq!(tch::Cuda::is_available(), gpus > 0);
    assert_eq!(tch::Cuda::device_count().max(0) as usize, gpus);
    // The CPU computes as before.
    assert_eq!(tch::Tensor::from_slice(&[1.0f32, 2.0]).sum(tch::Kind::Float).double_value(&[]), 3.0);
}
