//! Real questions, where the development machine has them (never copied into the project).

use squad_data::baseline::constant_baseline;
use squad_data::squad;

use crate::fixture::shared;

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
