//! Real questions, where the development machine has them (never copied into the project).

use squad_data::baseline::constant_baseline;
use squad_data::{BatchSize, Features, Purpose, Sampler, TokenBudget, Tokenizer, Window, squad};

use crate::fixture::{settings, shared};
use crate::sampler::padding;

#[test]
fn real_files_read_without_warnings() {
    for (name, questions, answerable) in [
        ("train-v1.1.json", 2237, 2237),
        ("dev-v1.1.json", 319, 319),
        ("train-v2.0.json", 4499, 2237),
        ("dev-v2.0.json", 831, 319),
    ] {
        let Some(file) = shared(name) else { continue };
        let data = squad::read(&file).unwrap();
        assert_eq!(data.questions.len(), questions, "{name}");
        assert_eq!(data.questions.iter().filter(|q| q.has_answer()).count(), answerable, "{name}");
        assert_eq!(data.warnings, [], "{name}");
    }
}

#[test]
fn a_constant_rule_earns_little_on_answerable_questions() {
    let Some(file) = shared("dev-v1.1.json") else { return };
    let best = constant_baseline(&squad::read(&file).unwrap());
    assert!((5.0..25.0).contains(&best.f1), "{} earns {}", best.rule, best.f1);
    let Some(file) = shared("dev-v2.0.json") else { return };
    let best = constant_baseline(&squad::read(&file).unwrap());
    assert_eq!(best.rule.to_string(), "always the empty answer");
}

/// Needs a tokenizer too: `SQUAD_TOKENIZER=FOLDER cargo test -p squad-data real_windows -- --nocapture`.
#[test]
fn real_windows_waste_less_than_a_twentieth_under_a_token_budget() {
    let Some(file) = shared("train-v2.0.json") else { return };
    let Some(folder) = std::env::var_os("SQUAD_TOKENIZER") else {
        eprintln!("SKIPPED: SQUAD_TOKENIZER names no model folder: this test checked NOTHING");
        return;
    };
    let data = squad::read(&file).unwrap();
    let tokenizer = Tokenizer::from_folder(folder.as_ref()).unwrap();
    let features =
        Features::build(&data, &tokenizer, &settings(384, 128, Window::Step), Purpose::Train).unwrap();
    let lengths = features.lengths();
    let of = |batch_size, per_step| {
        let sampler = Sampler::new(&lengths, batch_size, per_step, 100).unwrap();
        let share = padding(&sampler, &lengths, 0);
        eprintln!(
            "{batch_size:?} x {per_step}: {:.2} % padding, {} steps of {:.1} windows",
            100.0 * share,
            sampler.steps_per_epoch(),
            sampler.mean_examples()
        );
        share
    };
    let tokens = |tokens| BatchSize::Tokens(TokenBudget { tokens, pad_to_multiple: 8 });
    eprintln!("{} windows, {} tokens", lengths.len(), lengths.iter().sum::<usize>());
    of(BatchSize::Examples(1), 1);
    for (examples, per_step) in [(8, 1), (8, 4), (32, 1), (32, 4)] {
        of(BatchSize::Examples(examples), per_step);
    }
    for (budget, per_step) in [(1536, 1), (3072, 1), (3072, 4), (3072, 16), (6144, 1)] {
        assert!(of(tokens(budget), per_step) < 0.05, "a budget of {budget}, {per_step} micro-batches a step");
    }
}
