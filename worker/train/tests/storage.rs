//! Ranks that do not see each other's output folder: two copies of every checkpoint, and a run that goes on from either.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

#[path = "support/world.rs"]
mod world;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use squad_proto::{JobSpec, Task};
use squad_train::checkpoint::find::{self, Verified};
use squad_train::evaluate::gather;
use squad_train::run::Outcome;
use squad_train::{Origin, StopSignal, TrainError};
use world::{Notes, Place, gang};

/// A spec of 12 steps with checkpoints at 4, 8 and 12, of which two are kept.
fn spec(place: &Place, output: &str) -> JobSpec {
    let train =
        json!({"steps": 12, "checkpoint_every": 4, "log_every": 3, "dropout": 0.1, "keep_checkpoints": 2});
    place.spec(output, json!({"train": train}))
}

/// Runs ranks of which each sees an output folder of its own, from the newest checkpoint that any of them holds: what the
/// coordinator would say.
fn run_apart(place: &Place, outputs: &[&str], resume: &[bool]) -> (Result<Outcome, TrainError>, Vec<String>) {
    let notes = Notes::default();
    let model = place.path().join("model");
    let mut outcomes = gang(outputs.len(), |collective| {
        let rank = collective.rank();
        let (spec, task) = (spec(place, outputs[rank]), Task::Train { resume: resume[rank], timeline: None });
        let mut prepared = squad_train::prepare(&spec, &task, &model, &notes)?;
        let held = prepared.held().map(|(step, identity)| (step, identity.to_owned()));
        let all = gather(&collective, &[held])?;
        let newest = all.iter().flatten().map(|(step, _)| *step).max();
        let holder = all.iter().position(|held| held.as_ref().map(|(step, _)| *step) == newest);
        prepared.origin = holder.and_then(|holder| {
            let (step, identity) = all[holder].clone()?;
            Some(Origin { step, identity, holder })
        });
        squad_train::run(prepared, &collective, &spec, &task, (&notes, &StopSignal::new()))
    });
    for outcome in outcomes.drain(1..) {
        outcome.unwrap();
    }
    (outcomes.remove(0), notes.0.into_inner().unwrap())
}

fn weights(outcome: Result<Outcome, TrainError>) -> Value {
    match outcome.unwrap() {
        Outcome::Completed(Some(results)) => results["weights_sha256"].clone(),
        other => panic!("{other:?}"),
    }
}

fn kept(place: &Place, output: &str) -> Vec<Verified> {
    let (whole, passed_over) = find::whole(&place.path().join(output)).unwrap();
    assert!(passed_over.is_empty(), "{passed_over:?}");
    whole
}

fn steps(place: &Place, output: &str) -> Vec<u64> {
    kept(place, output).iter().map(|one| one.manifest.step).collect()
}

/// As if the run had been lost after step 8's checkpoint.
fn interrupt(output: &Path) {
    for name in ["checkpoints/step-00000012", "model", "eval"] {
        fs::remove_dir_all(output.join(name)).ok();
    }
    fs::remove_file(output.join("results.json")).ok();
}

#[test]
fn two_machines_keep_the_same_checkpoints_and_either_is_enough() {
    let place = Place::new(32, 2, 60);
    let whole = weights(place.run(&spec(&place, "shared"), 3));
    // Ranks 1 and 2 are on one machine, rank 0 on another.
    let (outcome, notes) = run_apart(&place, &["a", "b", "b"], &[false; 3]);
    assert_eq!(weights(outcome), whole);
    assert_eq!(notes.iter().filter(|note| note.contains("a second copy of every checkpoint")).count(), 1);
    assert_eq!((steps(&place, "a"), steps(&place, "b")), (vec![8, 12], vec![8, 12]));
    for (one, other) in kept(&place, "a").iter().zip(kept(&place, "b")) {
        assert_eq!(one.identity, other.identity, "the same bits but for the log's times");
    }
    assert!(!place.path().join("b/results.json").exists(), "results are rank 0's");

    // Rank 0's machine is lost for good, with all that was on it.
    interrupt(&place.path().join("b"));
    let (outcome, notes) = run_apart(&place, &["new", "b", "b"], &[false, true, true]);
    assert_eq!(weights(outcome), whole, "bit for bit: {notes:?}");
    assert!(notes.iter().any(|note| note.contains("training: from step 8 on")), "{notes:?}");
    assert_eq!((steps(&place, "new"), steps(&place, "b")), (vec![8, 12], vec![8, 12]));
    let lines: Vec<_> = place.metrics("new").iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(lines, [3, 6, 9, 12], "the log came too");

    // The other machine is; in its place comes one with an older run of another job, which stays what it is.
    interrupt(&place.path().join("new"));
    let (outcome, _) = run_apart(&place, &["new", "shared", "shared"], &[true, false, false]);
    assert_eq!(weights(outcome), whole);
    assert_eq!(steps(&place, "shared"), [8, 12]);
    assert!(place.path().join("shared/earlier/1/results.json").exists());
    for output in ["a", "b", "new", "shared"] {
        let left = fs::read_dir(place.path().join(output)).unwrap();
        let left: Vec<String> =
            left.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        let odd = |name: &&String| name.starts_with(".received") || name.starts_with(".mark");
        assert_eq!(left.iter().find(odd), None, "{output}: {left:?}");
    }
}

#[test]
fn ranks_that_see_one_folder_keep_one_copy() {
    let place = Place::new(32, 1, 30);
    let (outcome, notes) = run_apart(&place, &["out", "out"], &[false; 2]);
    outcome.unwrap();
    assert!(!notes.iter().any(|note| note.contains("second copy")), "{notes:?}");
    assert_eq!(steps(&place, "out"), [8, 12]);
}

#[test]
fn a_second_copy_that_cannot_be_written_is_a_note() {
    let place = Place::new(32, 1, 30);
    let whole = weights(place.run(&spec(&place, "shared"), 2));
    // A file where the second machine's folder should be.
    fs::write(place.path().join("b"), "").unwrap();
    let (outcome, notes) = run_apart(&place, &["a", "b"], &[false; 2]);
    assert_eq!(weights(outcome), whole);
    assert!(
        notes.iter().any(|note| note.starts_with("no second copy of the checkpoints is kept: ")),
        "{notes:?}"
    );
}
