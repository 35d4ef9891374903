use proptest::prelude::*;
use squad_data::batch::{collate, evaluation_batches, evaluation_batches_of, share_of_questions};
use squad_data::{FeatureSettings, Features, PairLayout, Purpose, Window};

use crate::fixture::{build, dataset, document, paragraph, settings};

/// Questions whose contexts have `sizes` tokens each, in windows of at most 12 context tokens.
fn features(sizes: &[usize]) -> Features {
    let paragraphs: Vec<_> = sizes
        .iter()
        .enumerate()
        .map(|(n, size)| paragraph(&"blue ".repeat(*size), &[(&format!("q{n}"), "who ?", Some(("blue", 0)))]))
        .collect();
    build(&dataset(&document(&paragraphs)), &settings(17, 4, Window::Step), Purpose::Train)
}

#[test]
fn rows_are_padded_and_masked() {
    let features = features(&[2, 5]);
    let batch = collate(&features, &[1, 0], 77, 8);
    assert_eq!((batch.rows, batch.width, batch.features), (2, 16, vec![1, 0]));
    assert_eq!(batch.input_ids[..10], [2, 6, 15, 3, 9, 9, 9, 9, 9, 3].map(i64::from));
    assert!(batch.input_ids[10..16].iter().all(|id| *id == 77));
    let bits = |row: usize, of: &dyn Fn(usize) -> bool| -> String {
        (0..16).map(|at| if of(row * 16 + at) { '1' } else { '.' }).collect()
    };
    assert_eq!(bits(0, &|at| batch.token_type_ids[at] == 1), "....111111......");
    assert_eq!(bits(0, &|at| batch.allowed[at]), "1...11111.......");
    assert_eq!(bits(1, &|at| batch.token_type_ids[at] == 1), "....111.........");
    assert_eq!(bits(1, &|at| batch.allowed[at]), "1...11..........");
    assert_eq!((batch.lengths, batch.starts, batch.ends), (vec![10, 7], vec![4, 4], vec![4, 4]));
    assert_eq!(batch.impossible, [0, 0]);
}

#[test]
fn two_separators_between_belong_to_the_question() {
    let data = dataset(&document(&[paragraph("blue blue", &[("q", "who ?", Some(("blue", 5)))])]));
    let shape = FeatureSettings { layout: PairLayout::Double, ..settings(17, 4, Window::Step) };
    let batch = collate(&build(&data, &shape, Purpose::Train), &[0], 0, 1);
    assert_eq!(batch.input_ids, [2, 6, 15, 3, 3, 9, 9, 3]);
    assert_eq!(batch.token_type_ids, [0, 0, 0, 0, 0, 1, 1, 1]);
    assert_eq!(batch.allowed, [true, false, false, false, false, true, true, false]);
    assert_eq!((batch.starts, batch.ends), (vec![6], vec![6]));
}

#[test]
fn width_follows_the_longest_row() {
    let features = features(&[2, 5]);
    assert_eq!(collate(&features, &[0, 1], 0, 1).width, 10);
    assert_eq!(collate(&features, &[0, 1], 0, 0).width, 10);
    assert_eq!(collate(&features, &[0], 0, 4).width, 8);
    assert_eq!(collate(&features, &[0, 1], 0, 8).real_tokens(), 17);
    let empty = collate(&features, &[], 0, 8);
    assert_eq!((empty.rows, empty.width, empty.real_tokens()), (0, 0, 0));
}

#[test]
fn windows_without_the_answer_point_at_the_classifier() {
    let features = features(&[20]);
    let batch = collate(&features, &[0, 1, 2], 0, 8);
    assert_eq!(batch.impossible, [0, 1, 1]);
    assert_eq!((batch.starts, batch.ends), (vec![4, 0, 0], vec![4, 0, 0]));
}

proptest! {
    #[test]
    fn evaluation_covers_every_feature_once(sizes in proptest::collection::vec(1usize..40, 1..30), size in 1usize..7, world in 1usize..6) {
        let features = features(&sizes);
        let batches = evaluation_batches(&features, size);
        let order = batches.concat();
        prop_assert!(order.windows(2).all(|w| features.length(w[0]) >= features.length(w[1])));
        prop_assert!(batches.iter().all(|b| (1..=size).contains(&b.len())));
        let all: Vec<usize> = (0..features.len()).collect();
        let sorted = |mut v: Vec<usize>| { v.sort_unstable(); v };
        prop_assert_eq!(sorted(order), all.clone());

        let shares: Vec<Vec<usize>> = (0..world).map(|r| share_of_questions(&features, r, world)).collect();
        prop_assert_eq!(sorted(shares.concat()), all);
        let mut owner = vec![None; sizes.len()];
        for (rank, share) in shares.iter().enumerate() {
            prop_assert_eq!(&sorted(evaluation_batches_of(&features, share, size).concat()), share);
            for index in share {
                let q = features.get(*index).question;
                prop_assert!(owner[q].is_none_or(|r| r == rank), "question {q} is split");
                owner[q] = Some(rank);
            }
        }
        // Greedy dealing: no rank has more than the lightest one plus one question's tokens.
        let load = |share: &Vec<usize>| share.iter().map(|i| features.length(*i)).sum::<usize>();
        let loads: Vec<usize> = shares.iter().map(load).collect();
        let heaviest = (0..sizes.len())
            .map(|q| (0..features.len()).filter(|i| features.get(*i).question == q).map(|i| features.length(i)).sum::<usize>())
            .max().unwrap();
        prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= heaviest);
    }
}

#[test]
fn a_rank_outside_the_world_has_nothing() {
    assert!(share_of_questions(&features(&[3, 3]), 2, 2).is_empty());
}

#[test]
fn ranks_are_balanced_by_tokens_not_by_questions() {
    // The long question has 13 windows of 17 tokens, as much as some 24 short ones of 9.
    let mut sizes = vec![60];
    sizes.extend([4; 24]);
    let features = features(&sizes);
    let load =
        |rank| share_of_questions(&features, rank, 2).iter().map(|i| features.length(*i)).sum::<usize>();
    assert!(load(0).abs_diff(load(1)) <= 9, "{} and {}", load(0), load(1));
}
