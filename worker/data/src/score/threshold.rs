//! The search for the null odds above which to abstain.

use super::questions::Earned;

/// The best percentage that abstaining above some null odds reaches, and those odds.
///
/// Starts from abstaining always; questions are then answered in the given `order` of their null odds: an
/// answerable one earns its score, an unanswerable one that was attempted loses the point it had for abstaining.
/// `earned` holds all questions, those without null odds too.
pub(super) fn best_threshold(
    order: &[(f64, &Earned)],
    earned: &[Earned],
    score: fn(&Earned) -> f64,
) -> (f64, f64) {
    let mut current = earned.iter().filter(|e| !e.answerable).count() as f64;
    let (mut top, mut threshold) = (current, 0.0);
    for (odds, e) in order {
        current += match (e.answerable, e.attempted) {
            (true, _) => score(e),
            (false, true) => -1.0,
            (false, false) => 0.0,
        };
        if current > top {
            (top, threshold) = (current, *odds);
        }
    }
    (100.0 * top / (earned.len().max(1) as f64), threshold)
}
