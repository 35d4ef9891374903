//! A micro-batch that memory does not suffice for: under a real limit on the process's address space.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and say what it saw"
)]

#[path = "support/world.rs"]
mod world;

use std::sync::Once;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use squad_collective::Background;
use squad_proto::{JobSpec, Task};
use squad_train::Prepared;
use squad_train::device::{DeviceStepper, Exchange};
use squad_train::evaluate::{WindowScores, answer_settings};
use squad_train::portion::Portions;
use squad_train::prepare::TrainSet;
use squad_train::schedule::Schedule;
use squad_train::step::{StepOutcome, Stepper};
use squad_train::trace::Trace;
use world::{Notes, Place, gang, on_demand};

const MIB: u64 = 1 << 20;

/// Windows of the step's two micro-batches. The large tensors have over 32 MiB each: such memory is taken from the system and
/// given back, whatever was computed before.
const WINDOWS: u64 = 2048;

fn place() -> (Place, JobSpec) {
    let place = Place::new(64, 1, 2 * WINDOWS as usize);
    let spec = place.spec(
        "out",
        json!({
            "data": {"pad_to_multiple": 64},
            "train": {"steps": 1, "batch_size": WINDOWS, "accumulate": 2, "dropout": 0.1},
            "resources": {"workers": 1},
        }),
    );
    (place, spec)
}

/// More address space than anybody asks for.
const ALL: u64 = 1 << 40;

/// Less and less.
fn limits() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(1024 * MIB), |more| Some(more * 3 / 5)).take_while(|more| *more > 64 * MIB)
}

/// Bytes of address space that this process has.
fn address_space() -> u64 {
    let pages: u64 =
        std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').next().unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

/// Runs `work` with so much more address space than there is now.
fn within<T>(more: u64, work: impl FnOnce() -> T) -> T {
    static QUIET: Once = Once::new();
    QUIET.call_once(squad_train::memory::keep_attempts_quiet);
    let before = getrlimit(Resource::As);
    setrlimit(Resource::As, Rlimit { current: Some(address_space() + more), ..before }).unwrap();
    let done = work();
    setrlimit(Resource::As, before).unwrap();
    done
}

/// Takes a step with less and less memory until a micro-batch has to be computed in pieces; gives that outcome, and that
/// of all the memory there is, each with the gradients' running mean.
fn squeezed(device: bool) -> [(StepOutcome, Vec<f32>); 2] {
    let (place, spec) = place();
    gang(1, |collective| {
        let (task, model) = (Task::default(), place.path().join("model"));
        let mut prepared = squad_train::prepare(&spec, &task, &model, &Notes::default()).unwrap();
        let set = prepared.train.take().unwrap();
        let mut step = |more| one_step(&spec, &mut prepared, &set, &collective, (device, more));
        let whole = step(None);
        assert_eq!(whole.0.header.in_pieces, 0);
        for more in limits() {
            let found = step(Some(more));
            if found.0.header.in_pieces > 0 {
                println!("in pieces with {} MiB more", more / MIB);
                return [whole, found];
            }
        }
        panic!("64 MiB sufficed")
    })
    .remove(0)
}

fn one_step(
    spec: &JobSpec,
    prepared: &mut Prepared,
    set: &TrainSet,
    collective: &Background,
    (device, more): (bool, Option<u64>),
) -> (StepOutcome, Vec<f32>) {
    let before: Vec<Vec<f32>> = prepared.network.stages().iter().map(|stage| stage.to_vec()).collect();
    let mut portions = on_demand(spec, prepared, collective, set);
    let portions: &mut dyn Portions = &mut portions;
    let (schedule, who) = (Schedule::new(&spec.train, 1), (collective, &Trace::off()));
    let more = more.unwrap_or(ALL);
    let network = &mut prepared.network;
    let (outcome, moments) = if device {
        let exchange = Exchange::over_ring(collective, &DeviceStepper::lens(network)).unwrap();
        let mut stepper = DeviceStepper::new(spec, network, schedule, exchange);
        (within(more, || stepper.take(1, network, portions, who, false)), stepper.moments())
    } else {
        let mut stepper = Stepper::new(spec, network, schedule, collective).unwrap();
        (within(more, || stepper.take(1, network, portions, who, false)), stepper.moments().to_vec())
    };
    for (stage, values) in before.iter().enumerate() {
        prepared.network.stages_mut()[stage].set(values);
    }
    (outcome.unwrap(), moments.into_iter().flat_map(|both| both.first).collect())
}

fn is_the_same([(whole, means), (cut, cut_means)]: &[(StepOutcome, Vec<f32>); 2]) {
    let (one, other) = (whole.header, cut.header);
    assert_eq!(
        (one.examples, one.tokens, one.padded_tokens),
        (other.examples, other.tokens, other.padded_tokens)
    );
    assert!((one.mean_loss() / other.mean_loss() - 1.0).abs() < 1e-5, "{one:?} {other:?}");
    assert!((whole.grad_norm / cut.grad_norm - 1.0).abs() < 1e-4, "{} {}", whole.grad_norm, cut.grad_norm);
    let largest = means.iter().fold(0f32, |m, v| m.max(v.abs()));
    let apart = means.iter().zip(cut_means).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(apart < 1e-5 * largest.max(1e-30) * 10.0, "{apart} of {largest}");
}

#[test]
fn a_step_in_pieces_is_the_same_step() {
    is_the_same(&squeezed(false));
}

#[test]
fn so_is_one_as_a_gpu_takes_it() {
    is_the_same(&squeezed(true));
}

#[test]
fn windows_are_scored_in_pieces() {
    let (place, spec) = place();
    gang(1, |_| {
        let (task, model) = (Task::default(), place.path().join("model"));
        let mut prepared = squad_train::prepare(&spec, &task, &model, &Notes::default()).unwrap();
        let dev = prepared.dev.take().unwrap();
        let copies = WINDOWS as usize / dev.features.len() + 1;
        let indices: Vec<usize> = (0..dev.features.len()).flat_map(|index| vec![index; copies]).collect();
        let batch = squad_data::batch::collate(&dev.features, &indices, prepared.pad_id, 64);
        let answers = |more: u64| {
            let mut scores = WindowScores::default();
            within(more, || scores.score(&prepared.network, &batch, (5, 5))).unwrap();
            let in_pieces = scores.in_pieces();
            let predictions =
                scores.predict(&dev.dataset, &dev.features, &answer_settings(&spec), true).unwrap();
            let answers = predictions.into_iter().map(|one| (one.id, one.text, one.null_odds));
            (in_pieces, answers.collect::<Vec<_>>())
        };
        answers(ALL);
        let whole = answers(ALL);
        let cut = limits().map(answers).find(|(in_pieces, _)| *in_pieces).expect("64 MiB sufficed");
        assert!(!whole.0);
        for ((id, text, null), (cut_id, cut_text, cut_null)) in whole.1.iter().zip(&cut.1) {
            assert_eq!((id, text), (cut_id, cut_text));
            assert!((null - cut_null).abs() < 1e-5, "{id}: {null} {cut_null}");
        }
    });
}
