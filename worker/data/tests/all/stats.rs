use std::path::Path;

use serde_json::json;
use squad_data::squad;
use squad_data::stats::{Oddity, Share, Stats};

use crate::fixture::{dataset, document, paragraph, shared, tokenizer};

fn kind<'a>(stats: &'a Stats, kind: &str) -> &'a Oddity {
    stats.oddities.iter().find(|oddity| oddity.kind == kind).unwrap()
}

fn summary(stats: &Stats, of: &str, unit: &str) -> (usize, usize, f64, usize) {
    let found = stats.lengths.iter().find(|m| m.of == of && m.unit == unit).unwrap();
    (found.summary.count, found.summary.min, found.summary.mean, found.summary.max)
}

#[test]
fn figures_are_those_counted_by_hand() {
    let mut doc = document(&[
        // 11 code points, 3 words; the answer starts in the seventh tenth: 7 * 10 / 11 = 6.
        paragraph("Blue 😀 sky.", &[("a", "Which one?", Some(("sky", 7))), ("b", "Why?", None)]),
        paragraph("Snow.", &[("c", "What?", Some(("Snow", 0)))]),
    ]);
    let more = json!({"text": "Blue", "answer_start": 0});
    doc["data"][0]["paragraphs"][0]["qas"][0]["answers"].as_array_mut().unwrap().push(more);
    doc["data"].as_array_mut().unwrap().push(json!({"title": "U", "paragraphs": [
        paragraph("Snow.", &[("d", "What?", Some(("now", 1)))])]}));
    let stats = Stats::of(&dataset(&doc), None).unwrap();
    assert_eq!((stats.articles, stats.paragraphs, stats.questions), (2, 3, 4));
    assert_eq!(stats.answerable, Share { count: 3, share: 0.75 });
    assert_eq!(stats.unanswerable, Share { count: 1, share: 0.25 });
    let by: Vec<(usize, usize)> =
        stats.questions_by_answers.iter().map(|(n, share)| (*n, share.count)).collect();
    assert_eq!(by, [(0, 1), (1, 2), (2, 1)]);
    assert_eq!(summary(&stats, "contexts", "code points"), (3, 5, 7.0, 11));
    assert_eq!(summary(&stats, "contexts", "words"), (3, 1, 5.0 / 3.0, 3));
    assert_eq!(summary(&stats, "questions", "words"), (4, 1, 1.25, 2));
    assert_eq!(summary(&stats, "answers", "code points"), (4, 3, 3.5, 4));
    assert_eq!((stats.answer_starts.count, stats.answer_starts.mean), (4, 2.0));
    assert_eq!(stats.answer_tenths, [2, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    assert!(stats.windows.is_none() && stats.oddities.iter().all(|oddity| oddity.count == 0));
}

#[test]
fn what_is_wrong_is_counted_and_named_and_stops_nothing() {
    let doc = document(&[paragraph(
        "Blue sky.",
        &[
            ("a", "Which?", Some(("sky", 4))),
            ("b", " ", Some(("sea", 5))),
            ("c", "?", Some((" ", 4))),
            ("a", "?", Some(("sky", usize::MAX))),
        ],
    )]);
    let text = doc.to_string();
    assert!(squad::parse(Path::new("x"), text.as_bytes()).is_err());
    let stats = Stats::of(&squad::survey(Path::new("x"), text.as_bytes()).unwrap(), None).unwrap();
    for (name, questions) in [
        ("offset_moved", &["a"][..]),
        ("answer_nowhere", &["b", "a"]),
        ("empty_answer", &["c"]),
        ("blank_question", &["b"]),
        ("duplicate_id", &["a"]),
        ("no_answer", &[]),
    ] {
        let oddity = kind(&stats, name);
        assert_eq!(
            (oddity.count, &oddity.questions[..]),
            (questions.len(), &questions.iter().map(|q| (*q).to_owned()).collect::<Vec<_>>()[..]),
            "{name}"
        );
    }
    // The mended answer alone is in its place.
    assert_eq!((stats.answer_starts.count, stats.answer_starts.max), (1, 5));

    let ids: Vec<String> = (0..9).map(|n| n.to_string()).collect();
    let many: Vec<_> = ids.iter().map(|id| (id.as_str(), "?", Some(("sky", 4)))).collect();
    let stats = Stats::of(&dataset(&document(&[paragraph("Blue sky.", &many)])), None).unwrap();
    let moved = kind(&stats, "offset_moved");
    assert_eq!((moved.count, moved.questions.len(), moved.words.len()), (9, 5, 5));
}

#[test]
fn windows_are_those_that_training_would_cut() {
    // One token for each word; a question has one, and three are special: 380 context tokens fit.
    let text = |words: usize| vec!["blue"; words].join(" ");
    let paragraphs = [380, 381, 508, 509].map(|n| paragraph(&text(n), &[(&*n.to_string(), "who", None)]));
    let stats = Stats::of(&dataset(&document(&paragraphs)), Some(&tokenizer())).unwrap();
    let windows = stats.windows.unwrap();
    assert_eq!((windows.one.count, windows.two.count, windows.three_or_more.count), (1, 2, 1));
    assert_eq!((windows.windows, windows.two.share), (8, 0.5));
    assert_eq!(summary(&stats, "contexts", "tokens"), (4, 380, 444.5, 509));
    assert_eq!(summary(&stats, "questions", "tokens"), (4, 1, 1.0, 1));
    assert_eq!(summary(&stats, "answers", "tokens"), (0, 0, 0.0, 0));
}

#[test]
fn real_files_add_up() {
    for (name, questions, answerable) in [("dev-v1.1.json", 319, 319), ("dev-v2.0.json", 831, 319)] {
        let Some(file) = shared(name) else { continue };
        let stats = Stats::of(&squad::read(&file).unwrap(), None).unwrap();
        assert_eq!((stats.questions, stats.answerable.count), (questions, answerable), "{name}");
        for measure in &stats.lengths {
            assert_eq!(measure.histogram.counts.iter().sum::<usize>(), measure.summary.count, "{name}");
        }
        assert_eq!(stats.answer_tenths.iter().sum::<usize>(), stats.answer_starts.count, "{name}");
    }
}
