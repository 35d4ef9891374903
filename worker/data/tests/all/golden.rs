//! Values that Python's programs gave (scripts/golden_data.py makes the files).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use squad_data::answers::predict_span;
use squad_data::normalise::normalise;
use squad_data::{AnswerSettings, Dataset, Features, Purpose, SpanScores, Tokenizer, Window, squad};

use crate::fixture::{folder, golden, list, number, settings};

fn prepared() -> (Value, Dataset, Tokenizer) {
    let golden = golden("features.json");
    let data = squad::parse(Path::new("golden"), golden["dataset"].to_string().as_bytes()).unwrap();
    let words: Vec<String> = list(&golden["vocabulary"]);
    let tokenizer = Tokenizer::from_folder(folder(&words).path()).unwrap();
    (golden, data, tokenizer)
}

fn shaped(run: &Value, data: &Dataset, tokenizer: &Tokenizer, purpose: Purpose) -> Features {
    let shape = settings(number(&run["max_seq_length"]), number(&run["doc_stride"]), Window::Overlap);
    Features::build(data, tokenizer, &shape, purpose).unwrap()
}

#[test]
fn overlap_windows_are_hugging_faces() {
    let (golden, data, tokenizer) = prepared();
    let (mut gold, mut slips) = (0, 0);
    for run in golden["runs"].as_array().unwrap() {
        let features = shaped(run, &data, &tokenizer, Purpose::Train);
        let expected = run["features"].as_array().unwrap();
        assert_eq!(features.len(), expected.len());
        for (index, row) in expected.iter().enumerate() {
            let f = features.get(index);
            let ids: Vec<i32> = list(&row["ids"]);
            let types: Vec<usize> = list(&row["types"]);
            assert_eq!((f.question, f.input_ids), (number(&row["question"]), &ids[..]));
            assert_eq!(f.context_offset, types.iter().take_while(|t| **t == 0).count());
            let (mut start, end) = (number(&row["start"]), number(&row["end"]));
            if start == ids.len() - 1 {
                // Their slip: an answer that starts in the last token is put on the separator behind it.
                slips += 1;
                start = end;
            }
            assert_eq!((f.start, f.end, f.is_impossible), (start, end, end == 0), "feature {index} of {run}");
            gold += usize::from(end > 0);
        }
    }
    assert!(gold > 50 && slips > 0, "the golden file lost its cases: {gold} gold, {slips} slips");
}

#[test]
fn span_answers_are_hugging_faces() {
    let (_, data, tokenizer) = prepared();
    let mut abstained = 0;
    for run in golden("answers.json").as_array().unwrap() {
        let features = shaped(run, &data, &tokenizer, Purpose::Evaluate);
        let (starts, ends): (Vec<Vec<f32>>, Vec<Vec<f32>>) = (list(&run["starts"]), list(&run["ends"]));
        let scores: Vec<SpanScores> = starts
            .into_iter()
            .zip(ends)
            .enumerate()
            .map(|(feature, (start, end))| SpanScores { feature, start, end })
            .collect();
        let (n_best, max_answer_length) = (number(&run["n_best"]), number(&run["max_answer_length"]));
        for (version, null_threshold) in [("v1", None), ("v2", Some(0.5))] {
            let settings = AnswerSettings { n_best, max_answer_length, null_threshold };
            let answers = predict_span(&data, &features, &settings, scores.clone()).unwrap();
            let expected: BTreeMap<String, String> = list(&run[version]);
            assert_eq!(answers.len(), expected.len());
            for answer in answers {
                let wanted = &expected[&answer.id];
                // Where no span is valid, their answer for version 1.1 is the word "empty".
                let wanted = if wanted == "empty" { "" } else { wanted };
                assert_eq!(answer.text, wanted, "{version} {}", answer.id);
                if version == "v2" {
                    let odds = run["null_odds"][&answer.id].as_f64().unwrap();
                    assert!(
                        (answer.null_odds - odds).abs() < 1e-5,
                        "{}: {} {odds}",
                        answer.id,
                        answer.null_odds
                    );
                    abstained += usize::from(answer.text.is_empty());
                }
            }
        }
    }
    assert!(abstained > 3, "the golden file lost its unanswered questions");
}

#[test]
fn texts_are_normalised_as_in_python() {
    let pairs: Vec<(String, String)> = list(&golden("normalise.json"));
    assert!(pairs.len() >= 150);
    for (text, expected) in pairs {
        assert_eq!(normalise(&text), expected, "{text:?}");
    }
}
