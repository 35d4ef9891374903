use squad_data::answers::{assemble_conditional, assemble_span, predict_conditional, predict_span};
use squad_data::{AnswerSettings, ConditionalScores, Dataset, Features, Purpose, SpanScores, Window};

use crate::fixture::{build, dataset, document, paragraph, settings};

const SETTINGS: AnswerSettings = AnswerSettings { n_best: 3, max_answer_length: 2, null_threshold: None };

/// "who ?" about "Blue snow, 漢 blue": sequence positions 4 to 8.
fn short() -> (Dataset, Features) {
    let data = dataset(&document(&[paragraph("Blue snow, 漢 blue", &[("q", "who ?", None)])]));
    let features = build(&data, &settings(16, 4, Window::Step), Purpose::Evaluate);
    (data, features)
}

fn span(start: &[(usize, f32)], end: &[(usize, f32)]) -> SpanScores {
    let row = |set: &[(usize, f32)]| {
        let mut row = vec![-9.0; 10];
        set.iter().for_each(|(at, v)| row[*at] = *v);
        row
    };
    SpanScores { feature: 0, start: row(start), end: row(end) }
}

#[test]
fn the_best_valid_span_is_the_answer() {
    let (data, features) = short();
    // The question's tokens, reversed spans and spans of three tokens score highest and do not count.
    let scores = span(&[(1, 9.0), (7, 5.0), (4, 4.0)], &[(2, 9.0), (5, 3.0), (6, 5.0)]);
    let p = assemble_span(&data, &features, &SETTINGS, 0, &[scores]).unwrap();
    assert_eq!((p.id.as_str(), p.text.as_str()), ("q", "Blue snow"));
    assert!(p.null_odds < 1e-9);
    assert_eq!(p.n_best.len(), 1);
    assert!((p.n_best[0].probability - 1.0).abs() < 1e-12);
}

#[test]
fn abstaining_follows_the_threshold() {
    let (data, features) = short();
    let scores = [span(&[(0, 2.0), (7, 1.0)], &[(0, 1.0), (7, 1.0)])];
    let with = |null_threshold| {
        assemble_span(&data, &features, &AnswerSettings { null_threshold, ..SETTINGS }, 0, &scores).unwrap()
    };
    let never = with(None);
    assert_eq!(never.text, "漢");
    assert!((never.null_odds - 1.0 / (1.0 + (-1.0f64).exp())).abs() < 1e-9);
    assert!(never.n_best.iter().all(|c| !c.text.is_empty()));
    let half = with(Some(0.5));
    assert_eq!(half.text, "");
    assert_eq!(half.n_best[0].text, "", "no answer competes in the list");
    assert!((half.n_best.iter().map(|c| c.probability).sum::<f64>() - 1.0).abs() < 1e-12);
    assert_eq!(with(Some(0.8)).text, "漢");
}

#[test]
fn no_answer_is_listed_even_when_it_is_far_behind() {
    let (data, features) = short();
    let scores =
        [span(&[(0, -50.0), (4, 3.0), (7, 2.0), (8, 1.0)], &[(0, -50.0), (5, 3.0), (7, 2.0), (8, 1.0)])];
    let settings = AnswerSettings { null_threshold: Some(0.5), ..SETTINGS };
    let p = assemble_span(&data, &features, &settings, 0, &scores).unwrap();
    let texts: Vec<&str> = p.n_best.iter().map(|c| c.text.as_str()).collect();
    assert_eq!(texts, ["Blue snow", "漢", "漢 blue", ""]);
}

#[test]
fn without_a_valid_span_the_list_has_one_empty_entry() {
    let (data, features) = short();
    let p =
        assemble_span(&data, &features, &SETTINGS, 0, &[span(&[(1, 9.0), (2, 9.0), (3, 9.0)], &[(4, 0.0)])])
            .unwrap();
    assert_eq!((p.text.as_str(), p.null_odds.to_bits()), ("", 1.0f64.to_bits()));
    assert_eq!((p.n_best.len(), p.n_best[0].probability.to_bits()), (1, 1.0f64.to_bits()));
    let none = ConditionalScores {
        feature: 0,
        starts: vec![(0, -0.1)],
        ends: vec![vec![(0, -0.1)]],
        no_answer: -0.5,
    };
    let p = assemble_conditional(&data, &features, &SETTINGS, 0, &[none]).unwrap();
    assert_eq!(
        (p.text.as_str(), p.n_best.len(), p.n_best[0].probability.to_bits()),
        ("", 1, 1.0f64.to_bits())
    );
    assert!((p.null_odds - f64::from(-0.5f32).exp()).abs() < 1e-12);
}

#[test]
fn masked_positions_do_not_make_nan() {
    let (data, features) = short();
    let masked = span(&[(4, 1.0)], &[(4, f32::NEG_INFINITY), (5, f32::NEG_INFINITY), (6, f32::NEG_INFINITY)]);
    let settings = AnswerSettings { n_best: 20, null_threshold: Some(0.5), ..SETTINGS };
    let p = assemble_span(&data, &features, &settings, 0, &[masked]).unwrap();
    assert!(p.n_best.iter().all(|c| c.probability.is_finite()) && p.null_odds.is_finite());
    let all = SpanScores { feature: 0, start: vec![f32::NEG_INFINITY; 10], end: vec![f32::NEG_INFINITY; 10] };
    let p = assemble_span(&data, &features, &settings, 0, &[all]).unwrap();
    assert_eq!((p.text.as_str(), p.n_best.len(), p.n_best[0].probability.is_nan()), ("", 1, false));
}

#[test]
fn texts_of_the_list_are_distinct() {
    let data = dataset(&document(&[paragraph("snow blue snow", &[("q", "who ?", None)])]));
    let features = build(&data, &settings(16, 4, Window::Step), Purpose::Evaluate);
    let scores = ConditionalScores {
        feature: 0,
        starts: vec![(4, -0.1), (6, -0.2)],
        ends: vec![vec![(4, -0.1), (5, -3.0)], vec![(6, -0.1)]],
        no_answer: -2.0,
    };
    let p = assemble_conditional(&data, &features, &SETTINGS, 0, &[scores]).unwrap();
    let texts: Vec<&str> = p.n_best.iter().map(|c| c.text.as_str()).collect();
    assert_eq!(texts, ["snow", "snow blue"]);
    let odds = (p.n_best[1].probability / p.n_best[0].probability).ln();
    assert!((odds - (-3.1 + 0.2)).abs() < 1e-6, "{odds}");
}

/// 20 words, "w" + number, in windows 0..12, 4..16, 8..20.
fn long() -> (Dataset, Features) {
    let words: Vec<String> = ('a'..='t').map(String::from).collect();
    let data =
        dataset(&document(&[paragraph(&words.join(" "), &[("q", "who ?", None), ("r", "what ?", None)])]));
    let features = build(&data, &settings(17, 4, Window::Step), Purpose::Evaluate);
    assert_eq!(features.len(), 6);
    (data, features)
}

fn conditional(feature: usize, start: usize, end: usize, score: f32, no_answer: f32) -> ConditionalScores {
    ConditionalScores { feature, starts: vec![(start, score)], ends: vec![vec![(end, 0.0)]], no_answer }
}

#[test]
fn a_start_counts_only_where_it_has_most_context() {
    let (data, features) = long();
    // Token 10 ("k"): position 14 of window 0 (one neighbour), 10 of window 1 (five), 6 of window 2 (two).
    let scores = [
        conditional(2, 6, 7, -0.1, -3.0),
        conditional(0, 14, 14, -0.2, -1.0),
        conditional(1, 10, 11, -5.0, -2.0),
    ];
    let p = assemble_conditional(&data, &features, &SETTINGS, 0, &scores).unwrap();
    assert_eq!(p.text, "k l");
    assert_eq!(p.n_best.len(), 1, "the other windows' better scores do not count");
    assert!((p.null_odds - f64::from(-3.0f32).exp()).abs() < 1e-12, "the smallest over the windows");
}

#[test]
fn conditional_abstains_above_the_threshold() {
    let (data, features) = long();
    let scores: Vec<_> = (0..3).map(|f| conditional(f, 10, 11, -0.1, -0.2)).collect();
    let with = |null_threshold| {
        let settings = AnswerSettings { null_threshold, ..SETTINGS };
        assemble_conditional(&data, &features, &settings, 0, &scores).unwrap()
    };
    let odds = f64::from(-0.2f32).exp();
    assert_eq!(with(Some(odds - 1e-6)).text, "");
    assert_ne!(with(Some(odds)).text, "");
    assert!(with(Some(0.0)).n_best.iter().all(|c| !c.text.is_empty()), "it never competes in the list");
}

#[test]
fn questions_are_answered_in_order_whatever_the_order_of_windows() {
    let (data, features) = long();
    let score = |f: usize| {
        let n = features.length(f);
        let wave = |k: usize, by: usize| ((k * by + f * 31) % 17) as f32 / 3.0;
        SpanScores {
            feature: f,
            start: (0..n).map(|k| wave(k, 7)).collect(),
            end: (0..n).map(|k| wave(k, 5)).collect(),
        }
    };
    let forth: Vec<_> = (0..6).map(score).collect();
    let back: Vec<_> = (0..6).rev().map(score).collect();
    let answers = predict_span(&data, &features, &SETTINGS, forth.clone()).unwrap();
    assert_eq!(answers, predict_span(&data, &features, &SETTINGS, back).unwrap());
    assert_eq!(answers.iter().map(|p| p.id.as_str()).collect::<Vec<_>>(), ["q", "r"]);
    assert_eq!(answers[1], assemble_span(&data, &features, &SETTINGS, 1, &forth[3..]).unwrap());
    let few: Vec<_> = (3..6).map(|f| conditional(f, 10, 11, -0.1, -0.2)).collect();
    assert_eq!(predict_conditional(&data, &features, &SETTINGS, few).unwrap()[0].id, "r");
}

#[test]
fn scores_that_do_not_belong_are_refused() {
    let (data, features) = long();
    let check = |question: usize, windows: &[SpanScores]| {
        assemble_span(&data, &features, &SETTINGS, question, windows).unwrap_err().to_string()
    };
    let flat = |feature, n| SpanScores { feature, start: vec![0.0; n], end: vec![0.0; n] };
    assert_eq!(check(0, &[flat(3, 17)]), "scores of question q: feature 3 is not a window of it");
    assert_eq!(check(0, &[flat(99, 17)]), "scores of question q: feature 99 is not a window of it");
    assert_eq!(
        check(0, &[flat(0, 5)]),
        "scores of question q: 5 start and 5 end logits for a window of 17 tokens"
    );
    assert_eq!(check(1, &[]), "scores of question r: none of its windows was scored");
    assert_eq!(check(7, &[]), "scores of question number 7: the data set has no such question");
    let mut diverged = flat(0, 17);
    diverged.end[3] = f32::NAN;
    assert!(check(0, &[diverged]).contains("not finite; the model has diverged"));
    let uneven = ConditionalScores { feature: 0, starts: vec![(4, 0.0)], ends: vec![], no_answer: 0.0 };
    let error = assemble_conditional(&data, &features, &SETTINGS, 0, &[uneven]).unwrap_err();
    assert_eq!(error.to_string(), "scores of question q: 1 starts, but ends for 0 of them");
    let error = predict_span(&data, &features, &SETTINGS, vec![flat(99, 17)]).unwrap_err();
    assert!(error.to_string().contains("there are only 6 features"), "{error}");
}
