use std::collections::HashSet;

use proptest::prelude::*;
use squad_data::split::{Split, hold_out};
use squad_data::{DataError, Dataset};

use crate::fixture::{dataset, document, paragraph};

/// Contexts by number, with the number of their questions.
type Contexts = Vec<(usize, usize)>;

/// A data set of contexts `n` with so many questions each, `cN-0` and so on.
fn questions_about(contexts: &[(usize, usize)]) -> Dataset {
    let paragraphs: Vec<_> = contexts
        .iter()
        .map(|(context, count)| {
            let ids: Vec<String> = (0..*count).map(|k| format!("c{context}-{k}")).collect();
            let asked: Vec<_> = ids.iter().map(|id| (id.as_str(), "who ?", None)).collect();
            paragraph(&format!("text {context}"), &asked)
        })
        .collect();
    dataset(&document(&paragraphs))
}

fn ids(dataset: &Dataset) -> Vec<&str> {
    dataset.questions.iter().map(|q| q.id.as_str()).collect()
}

fn texts(dataset: &Dataset) -> HashSet<&str> {
    dataset.questions.iter().map(|q| &*q.context).collect()
}

/// Some contexts, and the same in another order.
fn two_orders() -> impl Strategy<Value = (Contexts, Contexts)> {
    proptest::collection::vec(1usize..7, 2..40).prop_flat_map(|counts| {
        let contexts: Contexts = counts.into_iter().enumerate().collect();
        (Just(contexts.clone()), Just(contexts).prop_shuffle())
    })
}

proptest! {
    #[test]
    fn every_question_is_in_one_part_with_all_others_about_its_text(
        (_, contexts) in two_orders(), share in 0.001f64..0.5, seed: u64
    ) {
        let all = questions_about(&contexts);
        let Split { rest, held_out } = hold_out(all.clone(), share, seed).unwrap();
        prop_assert!(!rest.questions.is_empty() && !held_out.questions.is_empty());
        prop_assert!(texts(&rest).is_disjoint(&texts(&held_out)));
        let (of_rest, of_held_out) = (ids(&rest), ids(&held_out));
        let (mut rest, mut held_out) = (of_rest.into_iter().peekable(), of_held_out.into_iter().peekable());
        for id in ids(&all) {
            let part = if rest.peek() == Some(&id) { &mut rest } else { &mut held_out };
            prop_assert_eq!(part.next(), Some(id), "parts keep the file's order");
        }
        prop_assert!(rest.next().is_none() && held_out.next().is_none());
    }

    #[test]
    fn the_share_is_reached_and_passed_by_less_than_a_context(
        (contexts, _) in two_orders(), share in 0.001f64..0.5, seed: u64
    ) {
        let Split { rest, held_out } = hold_out(questions_about(&contexts), share, seed).unwrap();
        let held = held_out.questions.len() as f64;
        let wanted = share * (held_out.questions.len() + rest.questions.len()) as f64;
        let largest = contexts.iter().map(|(_, count)| *count).max().unwrap();
        prop_assert!(held < wanted + largest as f64);
        prop_assert!(held >= wanted || texts(&rest).len() == 1);
    }

    #[test]
    fn the_order_of_the_file_does_not_matter(
        (contexts, shuffled) in two_orders(), share in 0.001f64..0.5, seed: u64
    ) {
        let held = |contexts: &[(usize, usize)]| {
            let split = hold_out(questions_about(contexts), share, seed).unwrap();
            ids(&split.held_out).into_iter().map(str::to_owned).collect::<HashSet<_>>()
        };
        prop_assert_eq!(held(&contexts), held(&shuffled));
    }
}

#[test]
fn the_seed_chooses_and_the_share_is_that_of_questions() {
    let contexts: Contexts = (0..1000).map(|n| (n, 1)).collect();
    let held = |seed| {
        let split = hold_out(questions_about(&contexts), 0.05, seed).unwrap();
        assert_eq!((split.held_out.questions.len(), split.rest.questions.len()), (50, 950));
        split.held_out.questions.into_iter().map(|q| q.id).collect::<HashSet<_>>()
    };
    assert_eq!(held(100), held(100));
    let both = held(100).intersection(&held(101)).count();
    assert!(both < 15, "two seeds hold out {both} of 50 alike");
}

#[test]
fn one_text_in_two_places_is_one_text() {
    let mut two = questions_about(&[(0, 1), (1, 1), (2, 1)]);
    let mut again = questions_about(&[(0, 1), (1, 1)]);
    again.questions.iter_mut().for_each(|question| question.id.push_str("-again"));
    two.questions.extend(again.questions);
    for seed in 0..20 {
        let split = hold_out(two.clone(), 0.3, seed).unwrap();
        assert!(texts(&split.held_out).is_disjoint(&texts(&split.rest)), "seed {seed}");
    }
}

#[test]
fn warnings_go_with_their_questions() {
    let mut all = questions_about(&(0..10).map(|n| (n, 1)).collect::<Contexts>());
    let kind = squad_data::squad::WarningKind::NoAnswer;
    all.warnings = all
        .questions
        .iter()
        .map(|q| squad_data::squad::Warning { id: q.id.clone(), kind: kind.clone() })
        .collect();
    let split = hold_out(all, 0.3, 1).unwrap();
    for part in [&split.held_out, &split.rest] {
        assert_eq!(part.warnings.iter().map(|w| w.id.as_str()).collect::<Vec<_>>(), ids(part));
    }
}

#[test]
fn questions_about_one_text_cannot_be_split() {
    let error = hold_out(questions_about(&[(0, 5)]), 0.2, 1).unwrap_err();
    assert!(matches!(error, DataError::HoldOut { questions: 5, .. }));
    let message = error.to_string();
    for part in ["eval.threshold_from 0.2", "none of the 5 training questions", "one text", "set it to dev"] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
}
