//! The timeline of a run, as whoever opens it sees it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use squad_proto::Task;
use squad_train::StopSignal;
use squad_train::run::Outcome;
use world::Place;

/// One event: rank, thread, name, begin and end in microseconds, step.
struct Event {
    rank: u64,
    thread: u64,
    name: String,
    begun: f64,
    ended: f64,
    step: u64,
}

fn events(path: &Path) -> (Value, Vec<Event>) {
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let of = |event: &Value| Event {
        rank: event["pid"].as_u64().unwrap(),
        thread: event["tid"].as_u64().unwrap(),
        name: event["name"].as_str().unwrap().to_owned(),
        begun: event["ts"].as_f64().unwrap(),
        ended: event["ts"].as_f64().unwrap() + event["dur"].as_f64().unwrap(),
        step: event["args"]["step"].as_u64().unwrap(),
    };
    let events = file["traceEvents"].as_array().unwrap().iter().filter(|e| e["ph"] == "X").map(of).collect();
    (file["otherData"].clone(), events)
}

fn task(path: &Path) -> Task {
    Task::Train { resume: false, timeline: Some(path.to_str().unwrap().to_owned()) }
}

/// On one thread, two events are apart, or one is within the other.
fn check_nesting(events: &[Event]) {
    // Times are rounded to a thousandth of a microsecond.
    let slack = 0.01;
    for one in events {
        for other in events.iter().filter(|e| (e.rank, e.thread) == (one.rank, one.thread)) {
            let apart = one.ended <= other.begun + slack || other.ended <= one.begun + slack;
            let within = |a: &Event, b: &Event| a.begun >= b.begun - slack && a.ended <= b.ended + slack;
            assert!(apart || within(one, other) || within(other, one), "{} across {}", one.name, other.name);
        }
    }
}

#[test]
fn every_rank_and_step_is_there_and_reductions_go_on_beside_the_backward_pass() {
    let place = Place::new(32, 3, 60);
    let spec = place.spec("out", json!({"train": {"steps": 6}}));
    let path = place.path().join("deep/timeline.json");
    let world = 3;
    let outcome = place.run_task(&spec, &task(&path), world, &StopSignal::new()).unwrap();
    assert!(matches!(outcome, Outcome::Completed(_)));
    let (about, events) = events(&path);
    assert_eq!(
        (about["ranks"].as_u64(), about["first_step"].as_u64(), about["last_step"].as_u64()),
        (Some(3), Some(1), Some(6))
    );
    assert_eq!(about["clock_error_us"].as_array().unwrap().len(), world);
    check_nesting(&events);
    let mut beside = 0;
    for rank in 0..world as u64 {
        let of_rank =
            |name: &str| events.iter().filter(|e| e.rank == rank && e.name == name).collect::<Vec<_>>();
        let steps: BTreeSet<u64> = of_rank("step").iter().map(|e| e.step).collect();
        assert_eq!(steps, (1..=6).collect());
        for name in [
            "collate",
            "forward 0",
            "backward 0",
            "backward 4",
            "all-reduce 0",
            "wait 0",
            "optimizer",
            "score",
            "meet",
        ] {
            assert!(!of_rank(name).is_empty(), "no {name} on rank {rank}");
        }
        let made =
            events.iter().filter(|e| e.rank == rank && e.thread == 2).map(|e| (e.name.as_str(), e.step));
        assert!(
            made.eq((1..=6).map(|step| ("collate", step))),
            "the batches of each step, on a track of their own"
        );
        // The head's gradient may be reduced while lower stages are differentiated. Whether it is, in one step, is up to
        // the system: a thread that is ready may have to wait for a core.
        for reduce in of_rank("all-reduce 4") {
            let lowest = of_rank("backward 0").into_iter().filter(|e| e.step == reduce.step).map(|e| e.ended);
            beside += usize::from(lowest.fold(0.0, f64::max) > reduce.begun);
        }
    }
    assert!(beside > 0, "all of the head's reductions begin only after the backward pass");
    assert!(!of_rank_0(&events, "checkpoint copy").is_empty());
    // Ranks as threads of one process have one clock: the same reduction ends at the same time on all of them.
    for step in 1..=6 {
        let mut overlap = (0.0f64, f64::INFINITY);
        for event in events.iter().filter(|e| e.name == "all-reduce 0" && e.step == step) {
            overlap = (overlap.0.max(event.begun), overlap.1.min(event.ended));
        }
        let error = about["clock_error_us"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e.as_f64().unwrap())
            .fold(0.0, f64::max);
        assert!(
            overlap.0 <= overlap.1 + 2.0 * error,
            "step {step}: ranks reduce at different times: {overlap:?}"
        );
    }
}

fn of_rank_0<'a>(events: &'a [Event], name: &str) -> Vec<&'a Event> {
    events.iter().filter(|e| e.rank == 0 && e.name == name).collect()
}

#[test]
fn a_stopped_run_has_its_timeline() {
    let place = Place::new(32, 1, 60);
    let spec = place.spec("out", json!({"train": {"steps": 40}}));
    let path = place.path().join("timeline.json");
    let stop = StopSignal::new();
    stop.set();
    let outcome = place.run_task(&spec, &task(&path), 2, &stop).unwrap();
    assert_eq!(outcome, Outcome::Stopped(1));
    let (about, events) = events(&path);
    assert_eq!(about["last_step"], 1);
    assert_eq!(events.iter().filter(|e| e.name == "step").count(), 2);
}

#[test]
fn a_place_that_cannot_be_written_is_told_before_the_first_step() {
    let place = Place::new(32, 1, 20);
    let spec = place.spec("out", json!({"train": {"steps": 2}}));
    let error = place.run_task(&spec, &task(Path::new("/proc/no/timeline.json")), 1, &StopSignal::new());
    assert!(error.unwrap_err().to_string().contains("/proc/no"));
    assert!(!place.path().join("out/metrics.jsonl").exists());
}
