//! Runs with several ranks: the same mathematics for any number of them, overlap, stop, evaluation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod support;
#[path = "support/world.rs"]
mod world;

use serde_json::json;
use squad_proto::Task;
use squad_proto::task::Checkpoint;
use squad_train::StopSignal;
use squad_train::run::Outcome;
use squad_train::trace::Trace;
use world::{Place, checkpoints, gang, on_demand};

fn results(outcome: Outcome) -> serde_json::Value {
    match outcome {
        Outcome::Completed(Some(results)) => results,
        other => panic!("{other:?}"),
    }
}

/// Largest relative difference of two loss curves.
fn furthest(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / b.abs()).fold(0.0, f64::max)
}

#[test]
fn losses_do_not_depend_on_the_number_of_ranks() {
    let place = Place::new(32, 2, 80);
    for dropout in [json!(0.0), json!(0.1)] {
        for world in [1, 2, 4] {
            let spec =
                place.spec(&format!("out-{world}"), json!({"train": {"dropout": dropout, "steps": 50}}));
            place.run(&spec, world).unwrap();
        }
        let one = place.losses("out-1");
        assert_eq!(one.len(), 50);
        assert!(one[45..].iter().sum::<f64>() < one[..5].iter().sum::<f64>() * 0.9, "it learns: {one:?}");
        for world in [2, 4] {
            let difference = furthest(&place.losses(&format!("out-{world}")), &one);
            println!("dropout {dropout}: {world} ranks differ from one by {difference:.1e}");
            assert!(difference < 1e-4, "dropout {dropout}, {world} ranks: {difference}");
        }
    }
}

#[test]
fn losses_over_any_batches_do_not_depend_on_the_number_of_ranks() {
    let place = Place::new(32, 1, 80);
    for (name, data) in [
        ("budget", json!({"tokens_per_batch": 160})),
        ("ungrouped", json!({"group_by_length": false})),
        ("wide", json!({"pad_to_multiple": 64})),
    ] {
        for world in [1, 3] {
            let fields = json!({"data": data, "train": {"epochs": 2, "dropout": 0.1}});
            place.run(&place.spec(&format!("{name}-{world}"), fields), world).unwrap();
        }
        let difference = furthest(&place.losses(&format!("{name}-3")), &place.losses(&format!("{name}-1")));
        assert!(difference < 1e-4, "{name}: {difference}");
    }
}

#[test]
fn wider_batches_have_the_losses_of_narrow_ones() {
    let place = Place::new(32, 1, 80);
    // Wide enough for dropout's bits of attention to take more words.
    for (name, multiple) in [("narrow", 1), ("wide", 96)] {
        let fields = json!({
            "data": {"pad_to_multiple": multiple, "max_seq_length": 96},
            "train": {"epochs": 2, "dropout": 0.1},
        });
        place.run(&place.spec(name, fields), 1).unwrap();
    }
    let difference = furthest(&place.losses("narrow"), &place.losses("wide"));
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn the_same_run_twice_gives_the_same_bits() {
    let place = Place::new(32, 2, 60);
    let twice: Vec<_> = ["a", "b"]
        .iter()
        .map(|out| {
            let spec = place.spec(out, json!({"train": {"steps": 12}}));
            results(place.run(&spec, 2).unwrap())["weights_sha256"].clone()
        })
        .collect();
    assert_eq!(twice[0], twice[1]);
    let other = place.spec("c", json!({"train": {"steps": 12, "seed": 101}}));
    assert_ne!(results(place.run(&other, 2).unwrap())["weights_sha256"], twice[0]);
}

#[test]
fn more_ranks_than_micro_batches_is_right_too() {
    let place = Place::new(32, 1, 30);
    for world in [1, 3] {
        let spec = place.spec(
            &format!("out-{world}"),
            json!({"resources": {"workers": 1}, "train": {"steps": 8, "batch_size": 8}}),
        );
        place.run(&spec, world).unwrap();
    }
    assert!(furthest(&place.losses("out-3"), &place.losses("out-1")) < 1e-4);
}

#[test]
fn accumulation_is_a_larger_batch() {
    let place = Place::new(32, 1, 64);
    for (out, changes) in [
        ("wide", json!({"resources": {"workers": 1}, "train": {"batch_size": 8, "steps": 8, "dropout": 0}})),
        (
            "deep",
            json!({"resources": {"workers": 1}, "train": {"batch_size": 2, "accumulate": 4, "steps": 8, "dropout": 0}}),
        ),
    ] {
        place.run(&place.spec(out, changes), 1).unwrap();
    }
    assert!(furthest(&place.losses("deep"), &place.losses("wide")) < 1e-4);
}

#[test]
fn conditional_head_trains_and_all_files_are_there() {
    let place = Place::new(32, 1, 60);
    let changes =
        json!({"head": "conditional", "train": {"epochs": 2, "checkpoint_every": 3, "keep_checkpoints": 2}});
    let spec = place.spec("out", changes);
    let results = results(place.run(&spec, 2).unwrap());
    for key in [
        "exact",
        "f1",
        "total",
        "HasAns_f1",
        "NoAns_f1",
        "best_exact",
        "best_exact_thresh",
        "best_f1",
        "best_f1_thresh",
    ] {
        assert!(results.get(key).is_some(), "{key} is missing in {results}");
    }
    for key in [
        "steps",
        "examples",
        "seconds",
        "examples_per_second",
        "tokens_per_second",
        "world_size",
        "final_loss",
        "peak_rss_bytes",
        "restarts",
    ] {
        assert!(results["train"].get(key).is_some(), "train.{key} is missing");
    }
    let out = place.path().join("out");
    for file in [
        "spec.yaml",
        "metrics.jsonl",
        "results.json",
        "model/config.json",
        "model/model.safetensors",
        "model/README.md",
        "eval/predictions.json",
        "eval/nbest_predictions.json",
        "eval/na_prob.json",
        "eval/revised_predictions.json",
    ] {
        assert!(out.join(file).is_file(), "{file}");
    }
    assert_eq!(checkpoints(&place, "out").len(), 2, "the oldest were deleted");

    // The second command: the last checkpoint alone scores what the run scored, and all of them are listed.
    for (checkpoint, count) in [(Checkpoint::Latest, 1), (Checkpoint::All, 2)] {
        let task = Task::Evaluate { checkpoint };
        let again = self::results(place.run_task(&spec, &task, 2, &StopSignal::new()).unwrap());
        assert_eq!(again["checkpoints"].as_array().unwrap().len(), count);
        let last = &again["checkpoints"][count - 1]["metrics"];
        assert_eq!((&last["exact"], &last["best_f1"]), (&results["exact"], &results["best_f1"]));
    }
}

#[test]
fn a_threshold_is_tuned_on_questions_that_were_not_trained_on() {
    let place = Place::new(32, 1, 60);
    let run = |out: &str, source: serde_json::Value| {
        let eval = json!({"threshold_from": source});
        let spec = place.spec(out, json!({"head": "conditional", "train": {"epochs": 1}, "eval": eval}));
        (results(place.run(&spec, 2).unwrap()), spec)
    };
    let (from_dev, _) = run("dev", json!("dev"));
    let threshold = &from_dev["threshold"];
    assert_eq!((&threshold["from"], &threshold["questions"]), (&json!("dev"), &json!(12)));
    assert!(threshold.get("share").is_none());

    let (from_train, spec) = run("train", json!(0.25));
    let threshold = &from_train["threshold"];
    assert_eq!((&threshold["from"], &threshold["questions"]), (&json!("train"), &json!(15)));
    assert_eq!(threshold["share"], 0.25);
    let examples = |results: &serde_json::Value| results["train"]["examples"].as_u64().unwrap();
    assert!(examples(&from_train) <= examples(&from_dev) - 15, "held-out questions were trained on");
    for (revised, best) in [("revised_exact", "best_exact"), ("revised_f1", "best_f1")] {
        let figure = |key: &str| from_train[key].as_f64().unwrap();
        assert!(figure(revised) <= figure(best) + 1e-9, "no threshold beats the best one of dev");
    }

    let task = Task::Evaluate { checkpoint: Checkpoint::Latest };
    let again = results(place.run_task(&spec, &task, 2, &StopSignal::new()).unwrap());
    for key in ["threshold", "revised_exact", "revised_f1"] {
        assert_eq!(again[key], from_train[key], "{key}");
    }
}

#[test]
fn an_earlier_run_is_moved_aside() {
    let place = Place::new(32, 1, 20);
    let spec = place.spec("out", json!({"train": {"steps": 2}}));
    place.run(&spec, 1).unwrap();
    let first = std::fs::read(place.path().join("out/results.json")).unwrap();
    place.run(&spec, 1).unwrap();
    assert_eq!(std::fs::read(place.path().join("out/earlier/1/results.json")).unwrap(), first);
}

#[test]
fn an_output_folder_serves_one_job_at_a_time() {
    let place = Place::new(32, 1, 20);
    let spec = place.spec("out", json!({"train": {"steps": 1}}));
    let other = squad_train::output::claim(&place.path().join("out")).unwrap();
    let error = place.run(&spec, 1).unwrap_err().to_string();
    assert!(error.contains("another job is at work in it"), "{error}");
    drop(other);
    place.run(&spec, 1).unwrap();
}

#[test]
fn a_stop_is_obeyed_at_one_step_by_all() {
    let place = Place::new(32, 1, 40);
    let spec = place.spec("out", json!({"train": {"steps": 100_000}}));
    let stop = StopSignal::new();
    let outcome = std::thread::scope(|scope| {
        let running = scope.spawn(|| place.run_task(&spec, &Task::default(), 2, &stop));
        while !running.is_finished()
            && std::fs::metadata(place.path().join("out/metrics.jsonl")).map_or(0, |m| m.len()) == 0
        {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        stop.set();
        running.join().unwrap().unwrap()
    });
    let Outcome::Stopped(step) = outcome else { panic!("{outcome:?}") };
    assert!(step > 0 && step < 100_000);
    let last = checkpoints(&place, "out").pop().unwrap();
    assert!(last.ends_with(format!("step-{step:08}")), "{last:?}");
}

#[test]
fn frozen_layers_stay_and_others_move() {
    let place = Place::new(32, 3, 20);
    let spec = place.spec("out", json!({"train": {"steps": 3, "freeze_layers": 1}}));
    place.run(&spec, 2).unwrap();
    let (before, after) = (
        support::floats(&place.path().join("model/model.safetensors")),
        support::floats(&place.path().join("out/model/model.safetensors")),
    );
    for (name, (_, values)) in &before {
        let frozen = name.contains("embeddings") || name.contains("layer.0.");
        assert_eq!(after[name].1 == *values, frozen, "{name}");
    }
}

/// Bucket k is on the wire while the stage below is still being differentiated.
#[test]
fn reductions_overlap_the_backward_pass() {
    use squad_train::schedule::Schedule;
    use squad_train::step::Stepper;

    let place = Place::new(256, 3, 64);
    let spec =
        place.spec("out", json!({"resources": {"workers": 2}, "train": {"batch_size": 8, "steps": 20}}));
    let model = place.path().join("model");
    let overlaps: Vec<Vec<bool>> = gang(2, |collective| {
        struct Silent;
        impl squad_train::Report for Silent {
            fn tick(&self, _: squad_proto::Phase, _: u64, _: u64) {}
            fn progress(&self, _: squad_proto::Progress) {}
            fn note(&self, _: String) {}
        }
        let mut prepared = squad_train::prepare(&spec, &Task::default(), &model, &Silent).unwrap();
        let set = prepared.train.take().unwrap();
        let schedule = Schedule::new(&spec.train, 20);
        let mut stepper = Stepper::new(&spec, &prepared.network, schedule, &collective).unwrap();
        let mut portions = on_demand(&spec, &prepared, &collective, &set);
        let mut seen = vec![false; prepared.network.stages().len() - 1];
        for step in 1..=20 {
            let marks = stepper
                .take(step, &mut prepared.network, &mut portions, (&collective, &Trace::off()), false)
                .unwrap()
                .marks;
            for (k, pair) in marks.windows(2).enumerate() {
                // From the head down: pair[1] is the stage below pair[0].
                seen[k] |= pair[0].reduction.started < pair[1].computed;
            }
        }
        seen
    });
    // On a busy machine one rank may always be late; the other then finds its neighbour ready.
    let stages = overlaps[0].len();
    let seen: Vec<bool> = (0..stages).map(|k| overlaps.iter().any(|rank| rank[k])).collect();
    assert!(
        seen.iter().all(|s| *s),
        "stages whose reduction never began in time, from the head down: {seen:?}"
    );
}
