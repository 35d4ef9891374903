//! What holds for the figures and curves of any predictions.

use std::collections::BTreeMap;

use proptest::prelude::*;
use squad_data::Dataset;
use squad_data::score::{Curve, Curves, Scores};

use crate::fixture::{Asked, dataset, document, paragraph};

/// Null odds, many of them equal.
fn odds() -> impl Strategy<Value = f64> {
    prop_oneof![prop::sample::select(vec![0.0, -0.0, 0.25, 0.5, 1.0]), -3.0..3.0f64]
}

/// Whether it is answerable, what is predicted, and its null odds where it has some.
type Drawn = (bool, Option<&'static str>, Option<f64>);

fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
    let guesses = vec![None, Some(""), Some("blue snow"), Some("snow"), Some("the snow fell"), Some("rain")];
    let question = (any::<bool>(), prop::sample::select(guesses), prop::option::weighted(0.9, odds()));
    prop::collection::vec(question, 1..20)
}

#[derive(Debug, Clone)]
struct Set {
    data: Dataset,
    predictions: BTreeMap<String, String>,
    odds: Vec<(String, f64)>,
}

fn set(drawn: &[Drawn]) -> Set {
    let ids: Vec<String> = (0..drawn.len()).map(|i| format!("q{i}")).collect();
    let asked: Vec<Asked<'_>> = ids
        .iter()
        .zip(drawn)
        .map(|(id, (answerable, ..))| (id.as_str(), "?", answerable.then_some(("blue snow", 0))))
        .collect();
    let named = || ids.iter().cloned().zip(drawn);
    Set {
        data: dataset(&document(&[paragraph("blue snow fell", &asked)])),
        predictions: named().filter_map(|(id, (_, text, _))| Some((id, (*text)?.to_owned()))).collect(),
        odds: named().filter_map(|(id, (_, _, odds))| Some((id, (*odds)?))).collect(),
    }
}

fn curves(set: &Set, odds: &[(String, f64)]) -> Option<Curves> {
    Scores::of(&set.data, &set.predictions).curves(odds)
}

fn close(a: &Curve, b: &Curve) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
    near(a.ap, b.ap)
        && a.points.len() == b.points.len()
        && a.points
            .iter()
            .zip(&b.points)
            .all(|(a, b)| near(a.recall, b.recall) && near(a.precision, b.precision))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn curves_stay_in_their_square_and_the_oracle_is_above(drawn in drawn()) {
        let set = set(&drawn);
        let Some(Curves { exact, f1, oracle }) = curves(&set, &set.odds) else {
            prop_assert!(drawn.iter().all(|(answerable, ..)| !answerable));
            return Ok(());
        };
        for curve in [&exact, &f1, &oracle] {
            prop_assert!((0.0..=100.0 + 1e-9).contains(&curve.ap), "{}", curve.ap);
            prop_assert!(curve.points.is_sorted_by(|a, b| a.recall <= b.recall), "{curve:?}");
            for point in &curve.points {
                prop_assert!((0.0..=1.0).contains(&point.precision) && (0.0..=1.0 + 1e-9).contains(&point.recall));
            }
        }
        prop_assert!(exact.ap <= f1.ap + 1e-9 && f1.ap <= oracle.ap + 1e-9, "{exact:?} {f1:?} {oracle:?}");
        // Each value of the odds ends a step: no threshold lies between equal ones.
        let mut values: Vec<u64> = set.odds.iter().map(|(_, odds)| (odds + 0.0).to_bits()).collect();
        values.sort_unstable();
        values.dedup();
        prop_assert_eq!(exact.points.len(), 1 + values.len());
    }

    #[test]
    fn the_order_of_ids_does_not_matter_for_curves(
        (set, shuffled) in drawn().prop_map(|drawn| set(&drawn)).prop_flat_map(|set| {
            let odds = set.odds.clone();
            (Just(set), Just(odds).prop_shuffle())
        })
    ) {
        match (curves(&set, &set.odds), curves(&set, &shuffled)) {
            (Some(a), Some(b)) => {
                prop_assert!(close(&a.exact, &b.exact) && close(&a.f1, &b.f1) && close(&a.oracle, &b.oracle));
            }
            (a, b) => prop_assert!(a.is_none() && b.is_none()),
        }
    }

    #[test]
    fn unknown_ids_change_nothing(drawn in drawn(), odds in odds(), at in any::<prop::sample::Index>()) {
        let set = set(&drawn);
        let mut more = set.odds.clone();
        more.insert(at.index(more.len() + 1), ("stranger".to_owned(), odds));
        let scores = Scores::of(&set.data, &set.predictions);
        prop_assert_eq!(scores.curves(&set.odds), scores.curves(&more));
        prop_assert_eq!(scores.metrics(Some(&set.odds), 1.0), scores.metrics(Some(&more), 1.0));
        for answerable in [true, false] {
            prop_assert_eq!(scores.odds_histogram(&set.odds, answerable), scores.odds_histogram(&more, answerable));
        }
    }

    /// The best threshold's promise is kept when it is applied, where every question has null odds.
    #[test]
    fn no_threshold_beats_the_best_one(drawn in drawn()) {
        let all = drawn.into_iter().map(|(answerable, text, odds)| (answerable, text, Some(odds.unwrap_or(0.5))));
        let drawn: Vec<Drawn> = all.collect();
        let set = set(&drawn);
        let scores = Scores::of(&set.data, &set.predictions);
        let best = scores.metrics(Some(&set.odds), 1.0).best_f1.unwrap();
        for (_, odds) in &set.odds {
            let applied = scores.metrics(Some(&set.odds), *odds);
            prop_assert!(applied.f1 <= best + 1e-9, "above {odds}: {} beats {best}", applied.f1);
        }
    }
}
