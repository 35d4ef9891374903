//! Gradients of word embeddings that travel as touched rows: fewer bytes, the same bits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod support;
#[path = "support/world.rs"]
mod world;

use serde_json::{Value, json};
use squad_train::run::Outcome;
use world::Place;

/// The figures of a run of 20 steps whose embedding gradients travel in this way.
fn run(place: &Place, travel: &str, world: usize, changes: &Value) -> Value {
    let mut changes = changes.clone();
    changes["comm"] = json!({"embedding_gradients": travel});
    changes["train"]["steps"] = json!(20);
    let spec = place.spec(&format!("{travel}-{world}"), changes);
    match place.run(&spec, world).unwrap() {
        Outcome::Completed(Some(results)) => results,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rows_and_the_whole_table_give_the_same_bits_with_fewer_bytes() {
    let place = Place::new(32, 1, 80);
    for (what, world, changes) in [
        ("two ranks", 2, json!({"train": {"batch_size": 1}})),
        ("three ranks", 3, json!({"train": {"batch_size": 1}})),
        ("accumulation, uneven shares", 3, json!({"train": {"batch_size": 1, "accumulate": 2}})),
        ("ranks without work", 3, json!({"resources": {"workers": 1}, "train": {"batch_size": 1}})),
        ("half precision", 2, json!({"train": {"batch_size": 1, "dtype": "float16"}})),
        ("a token budget", 2, json!({"data": {"tokens_per_batch": 96}, "train": {}})),
    ] {
        let [rows, auto, dense] =
            ["rows", "auto", "dense"].map(|travel| run(&place, travel, world, &changes));
        assert_eq!(rows["weights_sha256"], dense["weights_sha256"], "{what}");
        assert_eq!(auto["weights_sha256"], dense["weights_sha256"], "{what}");
        let bytes = |results: &Value| results["train"]["bytes_reduced"].as_u64().unwrap();
        println!("{what}: {} bytes as rows, {} as the table", bytes(&rows), bytes(&dense));
        assert!(bytes(&rows) < bytes(&dense), "{what}");
        assert_eq!(bytes(&auto), bytes(&rows), "{what}");
        assert_eq!(place.losses(&format!("rows-{world}")), place.losses(&format!("dense-{world}")), "{what}");
    }
}

#[test]
fn frozen_embeddings_do_not_travel() {
    let place = Place::new(32, 2, 40);
    let changes = json!({"train": {"batch_size": 1, "freeze_layers": 1}});
    let [rows, dense] = ["rows", "dense"].map(|travel| run(&place, travel, 2, &changes));
    assert_eq!(rows["weights_sha256"], dense["weights_sha256"]);
    assert_eq!(rows["train"]["bytes_reduced"], dense["train"]["bytes_reduced"]);
}

/// Not a test, only figures from real batches, as `docs/measurements.md` has them:
/// `SQUAD_TRAIN=train-v1.1.json cargo test -p squad-train --test rows -- bytes_a_step --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn bytes_a_step() {
    let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/all-MiniLM-L6-v2");
    let data = std::env::var("SQUAD_TRAIN").expect("SQUAD_TRAIN names a file of questions");
    let head = squad_model::HeadKind::Span;
    let parameters = |model_type: &str, vocabulary: i64, hidden: i64, layers: i64| {
        let fields = json!({
            "model_type": model_type, "vocab_size": vocabulary, "hidden_size": hidden, "num_hidden_layers": layers,
            "num_attention_heads": 12, "intermediate_size": 4 * hidden, "max_position_embeddings": 514,
            "type_vocab_size": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
        });
        let config = squad_model::EncoderConfig::from_fields(fields.as_object().unwrap()).unwrap();
        let (encoder, head) = squad_model::count_parameters(&config, head);
        encoder + head
    };
    for (workers, batch_size, length) in [(2, 4, 256), (2, 8, 384), (8, 8, 384)] {
        let spec = json!({
            "name": "bytes", "model": models, "head": "span", "output_dir": "unused",
            "data": {"train": data, "version": "1.1", "max_seq_length": length, "window": "overlap"},
            "train": {"batch_size": batch_size, "steps": 20}, "resources": {"workers": workers},
        });
        let spec = squad_proto::spec::validate(&spec, "bytes").unwrap().into_inner();
        let task = squad_proto::Task::default();
        let prepared = squad_train::prepare(&spec, &task, &models, &world::Notes::default()).unwrap();
        let set = prepared.train.as_ref().unwrap();
        let table = squad_train::touched::Table::of(&prepared.network).unwrap();
        let touched: usize = (0..20)
            .map(|step| {
                let plan = set.sampler.step(step);
                table.touched_by_step(&set.features, &plan.micro_batches, prepared.pad_id).len()
            })
            .sum();
        let touched = touched as f64 / 20.0;
        println!(
            "{workers} workers of batch {batch_size} x {length}: {touched:.0} rows of {} a step",
            table.rows
        );
        for (name, model_type, vocabulary, hidden, layers) in [
            ("MiniLM-L6", "bert", 30522, 384, 6),
            ("BERT-base", "bert", 30522, 768, 12),
            // Its own tokenizer is not at hand: as many distinct pieces as BERT's finds.
            ("XLM-R-base", "xlm-roberta", 250_002, 768, 12),
        ] {
            let all = 4.0 * parameters(model_type, vocabulary, hidden, layers) as f64;
            let dense = 4.0 * (vocabulary * hidden) as f64;
            let rows = 4.0 * touched * hidden as f64;
            println!(
                "  {name}: table {:.1} MB, rows {:.2} MB ({:.1} %); all gradients {:.1} MB, with rows {:.1} MB",
                dense / 1e6,
                rows / 1e6,
                100.0 * rows / dense,
                all / 1e6,
                (all - dense + rows) / 1e6
            );
        }
    }
}
