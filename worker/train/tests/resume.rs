//! Going on from checkpoints: the same run as if nothing had happened, or a sentence why not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

#[path = "support/world.rs"]
mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use squad_proto::task::Checkpoint;
use squad_proto::{FailureCode, JobSpec, Task};
use squad_train::StopSignal;
use squad_train::adamw::Moments;
use squad_train::checkpoint::state::{TrainingState, identity};
use squad_train::checkpoint::writer::{self, Snapshot, Writer};
use squad_train::checkpoint::{MANIFEST, find, write_json};
use squad_train::log::Sums;
use squad_train::run::Outcome;
use world::{Notes, Place, checkpoints};

const RESUME: Task = Task::Train { resume: true, timeline: None };

fn results(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Completed(Some(results)) => results,
        other => panic!("{other:?}"),
    }
}

fn said(notes: &[String], words: &str) -> bool {
    notes.iter().any(|note| note.contains(words))
}

/// A spec of 12 steps with checkpoints at 4, 8 and 12, whose log has lines at other steps than these.
fn spec(place: &Place) -> JobSpec {
    let train =
        json!({"steps": 12, "checkpoint_every": 4, "log_every": 3, "dropout": 0.1, "bias_correction": true});
    place.spec("out", json!({"train": train}))
}

/// Puts an output folder back to how a run left it that was killed while it wrote step 12's checkpoint.
fn interrupt(output: &Path) {
    for name in ["checkpoints/step-00000012", "model", "eval"] {
        fs::remove_dir_all(output.join(name)).unwrap();
    }
    fs::remove_file(output.join("results.json")).unwrap();
    fs::create_dir(output.join("checkpoints/.step-00000012.tmp")).unwrap();
    let metrics = fs::read_to_string(output.join("metrics.jsonl")).unwrap();
    fs::write(output.join("metrics.jsonl"), &metrics[..metrics.len() - 20]).unwrap();
}

#[test]
fn a_run_gone_on_with_is_the_undisturbed_run() {
    let place = Place::new(32, 2, 80);
    let spec = spec(&place);
    let whole = results(place.run(&spec, 2).unwrap());
    let losses = place.losses("out");
    let output = place.path().join("out");
    interrupt(&output);
    let (outcome, notes) = place.run_noted(&spec, &RESUME, 2);
    let again = results(outcome.unwrap());
    assert_eq!(again["weights_sha256"], whole["weights_sha256"], "bit for bit");
    assert!(said(&notes, "training: from step 8 on"), "{notes:?}");
    assert!(!said(&notes, "bit for bit"), "equal ranks, equal bits: {notes:?}");
    assert_eq!(place.losses("out"), losses, "the log too");
    let steps: Vec<_> = place.metrics("out").iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [3, 6, 9, 12], "every line once");
    for figure in ["examples", "steps", "final_loss", "padding"] {
        assert_eq!(again["train"][figure], whole["train"][figure], "{figure}");
    }
    assert!(!output.join("earlier").exists() && !output.join("checkpoints/.step-00000012.tmp").exists());
    assert_eq!(checkpoints(&place, "out").len(), 3);

    for world in [1, 4] {
        interrupt(&output);
        let (outcome, notes) = place.run_noted(&spec, &RESUME, world);
        outcome.unwrap();
        assert!(said(&notes, "not bit for bit"), "{notes:?}");
        for (a, b) in place.losses("out").iter().zip(&losses) {
            assert!((a - b).abs() < 1e-4 * b, "{world} ranks: {:?} against {losses:?}", place.losses("out"));
        }
    }
}

#[test]
fn a_stop_and_a_resume_change_nothing() {
    let place = Place::new(32, 2, 60);
    let steps = |output: &str| place.spec(output, json!({"train": {"steps": 400, "checkpoint_every": 150}}));
    let whole = results(place.run(&steps("whole"), 2).unwrap());
    let (spec, stop) = (steps("out"), StopSignal::new());
    let metrics = place.path().join("out/metrics.jsonl");
    let outcome = std::thread::scope(|scope| {
        let running = scope.spawn(|| place.run_task(&spec, &Task::default(), 2, &stop));
        while !running.is_finished() && fs::metadata(&metrics).map_or(0, |m| m.len()) == 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        stop.set();
        running.join().unwrap().unwrap()
    });
    let Outcome::Stopped(step) = outcome else { panic!("it was too quick to be stopped: {outcome:?}") };
    assert!(step < 400);
    let again = results(place.run_task(&spec, &RESUME, 2, &StopSignal::new()).unwrap());
    assert_eq!(again["weights_sha256"], whole["weights_sha256"], "stopped at step {step}");
}

#[test]
fn a_changed_byte_in_any_file_is_found_and_said() {
    let place = Place::new(32, 1, 30);
    let spec = spec(&place);
    let whole = results(place.run(&spec, 1).unwrap());
    let output = place.path().join("out");
    let newest = output.join("checkpoints/step-00000008");
    interrupt(&output);
    let files: Vec<PathBuf> = fs::read_dir(&newest).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let good = fs::read(&file).unwrap();
        // Of the manifest, which nothing else vouches for, every byte.
        let stride = if name == MANIFEST { 1 } else { good.len() / 3 };
        for place in (0..good.len()).step_by(stride) {
            let mut bad = good.clone();
            bad[place] ^= 1;
            fs::write(&file, bad).unwrap();
            let reason = find::verify(&newest).unwrap_err();
            assert!(reason.contains(&name) || name == MANIFEST, "{reason}");
        }
        for damage in [&good[..good.len() - 1], &[]] {
            fs::write(&file, damage).unwrap();
            find::verify(&newest).unwrap_err();
        }
        fs::remove_file(&file).unwrap();
        find::verify(&newest).unwrap_err();
        fs::write(&file, good).unwrap();
    }
    find::verify(&newest).unwrap();

    // The one before is taken, and the run is the same.
    let mut weights = fs::read(newest.join("model.safetensors")).unwrap();
    *weights.last_mut().unwrap() ^= 0x40;
    fs::write(newest.join("model.safetensors"), weights).unwrap();
    let (outcome, notes) = place.run_noted(&spec, &RESUME, 1);
    assert_eq!(results(outcome.unwrap())["weights_sha256"], whole["weights_sha256"]);
    let reason = "step-00000008 was passed over: model.safetensors is not as it was written";
    assert!(said(&notes, reason) && said(&notes, "from step 4 on"), "{notes:?}");
    find::verify(&newest).expect("it was written again");
}

#[test]
fn another_run_is_refused_by_field() {
    let place = Place::new(32, 1, 30);
    let began = spec(&place);
    place.run(&began, 1).unwrap();
    interrupt(&place.path().join("out"));
    let refusal = |spec: &JobSpec| place.run_task(spec, &RESUME, 1, &StopSignal::new()).unwrap_err();
    let mut other = began.clone();
    other.train.learning_rate = 2e-3;
    let error = refusal(&other);
    assert_eq!(error.code(), FailureCode::Checkpoint);
    assert!(error.to_string().contains("train.learning_rate was 0.001 and is now 0.002"), "{error}");
    let mut longer = began.clone();
    longer.train.steps = Some(20);
    let error = refusal(&longer).to_string();
    assert!(error.contains("train.steps (from epochs, or given) was 12 and is now 20"), "{error}");
    let mut ungrouped = began.clone();
    ungrouped.data.group_by_length = false;
    let error = refusal(&ungrouped).to_string();
    assert!(error.contains("data.group_by_length was true and is now false"), "{error}");
    let mut other_data = began.clone();
    other_data.data.train = began.data.dev.clone();
    let error = refusal(&other_data).to_string();
    assert!(error.contains("the training set's content"), "{error}");

    // Who shares the work, how often checkpoints are written, and the dev set are free.
    let mut free = began;
    (free.train.accumulate, free.resources.workers) = (4, 1);
    (free.train.checkpoint_every, free.data.dev) = (Some(5), None);
    let (outcome, notes) = place.run_noted(&free, &RESUME, 1);
    outcome.unwrap();
    assert!(said(&notes, "from step 8 on"), "{notes:?}");
}

#[test]
fn a_complete_run_is_not_run_again() {
    let place = Place::new(32, 1, 30);
    let spec = spec(&place);
    let whole = results(place.run(&spec, 2).unwrap());
    let (outcome, notes) = place.run_noted(&spec, &RESUME, 2);
    assert_eq!(results(outcome.unwrap()), whole);
    assert!(said(&notes, "the run is complete"), "{notes:?}");

    // Killed between the last step and the results: only these are made.
    let output = place.path().join("out");
    fs::remove_file(output.join("results.json")).unwrap();
    fs::remove_dir_all(output.join("eval")).unwrap();
    let again = results(place.run_task(&spec, &RESUME, 2, &StopSignal::new()).unwrap());
    for key in ["weights_sha256", "exact", "f1"] {
        assert_eq!(again[key], whole[key], "{key}");
    }
    assert_eq!(again["train"]["examples"], whole["train"]["examples"]);
    assert!(output.join("eval/predictions.json").is_file());
}

#[test]
fn without_a_checkpoint_it_starts_afresh_and_says_so() {
    let place = Place::new(32, 1, 20);
    let spec = spec(&place);
    let whole = results(place.run(&spec, 1).unwrap());
    let output = place.path().join("out");
    interrupt(&output);
    for checkpoint in checkpoints(&place, "out") {
        // As version 1 of the format wrote it: whole, but only the model.
        for name in ["optimizer.safetensors", "state.json"] {
            fs::remove_file(checkpoint.join(name)).unwrap();
        }
        let manifest = checkpoint.join(MANIFEST);
        let mut old: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
        old["schema"] = 1.into();
        let there = |file: &Value| checkpoint.join(file["name"].as_str().unwrap()).exists();
        old["files"].as_array_mut().unwrap().retain(there);
        write_json(&manifest, &old).unwrap();
    }
    let evaluate = Task::Evaluate { checkpoint: Checkpoint::Latest };
    results(place.run_task(&spec, &evaluate, 1, &StopSignal::new()).unwrap());
    let (outcome, notes) = place.run_noted(&spec, &RESUME, 1);
    assert_eq!(results(outcome.unwrap())["weights_sha256"], whole["weights_sha256"]);
    for words in ["it is of format 1, which held only the model", "training starts afresh", "moved to"] {
        assert!(said(&notes, words), "{words}: {notes:?}");
    }
    assert!(output.join("earlier/1/checkpoints/step-00000008").is_dir());
}

/// Puts a file where a leftover folder is to be deleted when this step's checkpoint is written: it fails, also for
/// a user who may write everywhere.
fn obstruct(output: &Path, step: u64) {
    let folder = output.join("checkpoints");
    fs::create_dir(folder.join(format!("step-{step:08}"))).unwrap();
    fs::write(folder.join(format!(".step-{step:08}.old")), "").unwrap();
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_a_note_and_the_last_an_error() {
    let place = Place::new(32, 1, 30);
    let spec = spec(&place);
    let notes = Notes::default();
    let mut prepared =
        squad_train::prepare(&spec, &Task::default(), &place.path().join("model"), &notes).unwrap();
    let set = prepared.train.take().unwrap();
    let stages = prepared.network.stages();
    let moments: Vec<Moments> = stages.iter().map(|stage| Moments::new(stage.len())).collect();
    let output = place.path().join("out");
    fs::create_dir(&output).unwrap();
    let model_folder = prepared.model_folder.clone();
    let mut writer = Writer::new(writer::Place {
        output: output.clone(),
        model_folder,
        keep: 2,
        wait: Duration::from_secs(60),
    })
    .unwrap();
    let snapshot = |step| {
        let state = TrainingState {
            step,
            cursor: set.sampler.cursor(step as usize),
            run: identity(&spec, &prepared.network, &set),
            world: 1,
            threads: 1,
            loss_scale: squad_train::loss_scale::LossScale::new(squad_proto::spec::DataType::Float32),
            sums: Sums::default(),
        };
        Snapshot::take(&prepared.network, moments.clone(), state)
    };
    obstruct(&output, 8);
    for step in [4, 8, 12] {
        writer.begin(false, || snapshot(step), &notes).unwrap();
    }
    writer.settle().unwrap();
    obstruct(&output, 16);
    writer.begin(false, || snapshot(16), &notes).unwrap();
    let error = writer.settle().unwrap_err();
    assert_eq!(error.code(), FailureCode::Output, "{error}");
    let notes = notes.0.into_inner().unwrap();
    assert!(said(&notes, "the checkpoint of step 8 could not be written: cannot delete"), "{notes:?}");
    let (newest, passed_over) = find::newest(&output, find::resumable).unwrap();
    assert_eq!(newest.unwrap().manifest.step, 12);
    assert_eq!(passed_over.len(), 1, "step 16's: {passed_over:?}");
}

#[test]
fn only_as_many_checkpoints_as_are_to_be_kept_stay() {
    let place = Place::new(32, 1, 30);
    let mut spec = spec(&place);
    spec.train.keep_checkpoints = 2;
    place.run(&spec, 1).unwrap();
    let kept: Vec<u64> =
        checkpoints(&place, "out").iter().map(|folder| find::verify(folder).unwrap().manifest.step).collect();
    assert_eq!(kept, [8, 12]);
}
