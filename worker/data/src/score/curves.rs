//! Precision against recall, when questions are answered in the order of their null odds.

use super::questions::Earned;

/// The three curves of the official version 2.0 script.
#[derive(Debug, Clone, PartialEq)]
pub struct Curves {
    /// An answered question counts by its exact match.
    pub exact: Curve,
    /// It counts by its F1.
    pub f1: Curve,
    /// It counts 1 if it is answerable, whatever was predicted: how well null odds tell the two kinds apart.
    pub oracle: Curve,
}

/// One precision-recall curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Average precision in percent: the area under the curve's steps, where a step has the precision of its end.
    pub ap: f64,
    /// The curve from recall 0 on; recall never falls. The first point, with precision 1, stands for no answer at
    /// all.
    pub points: Vec<Point>,
}

/// A place on a curve: what answering all questions up to some null odds gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Those null odds; `None` where nothing is answered.
    pub null_odds: Option<f64>,
    /// What was earned, as a part (0 to 1) of what all answerable questions could earn.
    pub recall: f64,
    /// What was earned, as a part (0 to 1) of the questions answered.
    pub precision: f64,
}

/// Stretches of recall of which each keeps four points at most.
const STRETCHES: usize = 50;

impl Curve {
    /// Points that [`Self::thinned`] gives at most.
    pub const THINNED: usize = 4 * STRETCHES;

    /// Enough of the curve's points to draw it, at most [`Self::THINNED`]: of each of 50 equal stretches of recall the first
    /// and the last one, and those with the least and the greatest precision.
    #[must_use]
    pub fn thinned(&self) -> Vec<Point> {
        if self.points.len() <= Self::THINNED {
            return self.points.clone();
        }
        let whole = self.points.last().map_or(0.0, |point| point.recall);
        let stretch = |point: &Point| {
            let part = if whole > 0.0 { point.recall / whole } else { 0.0 };
            ((part * STRETCHES as f64) as usize).min(STRETCHES - 1)
        };
        let mut kept = Vec::new();
        // Recall never falls, so the points of a stretch follow each other.
        for points in self.points.chunk_by(|a, b| stretch(a) == stretch(b)) {
            let precision = |at: &usize| points[*at].precision;
            let order = |a: &usize, b: &usize| precision(a).total_cmp(&precision(b));
            let (least, greatest) = ((0..points.len()).min_by(order), (0..points.len()).max_by(order));
            let mut places = [0, least.unwrap_or(0), greatest.unwrap_or(0), points.len() - 1];
            places.sort_unstable();
            let at = |place: &[usize]| points[place[0]];
            kept.extend(places.chunk_by(usize::eq).map(at));
        }
        kept
    }

    /// Answers the questions in the given order of their null odds. `answerable` is the number of answerable
    /// questions, those without null odds too; it must not be 0.
    pub(super) fn draw(order: &[(f64, &Earned)], answerable: usize, score: fn(&Earned) -> f64) -> Self {
        let mut points = vec![Point { null_odds: None, recall: 0.0, precision: 1.0 }];
        let (mut earned, mut answered, mut area, mut last_recall) = (0.0, 0usize, 0.0, 0.0);
        // No threshold can tell questions of equal null odds apart: together they make one point.
        for equals in order.chunk_by(|a, b| a.0 == b.0) {
            for (_, question) in equals.iter().filter(|(_, question)| question.answerable) {
                earned += score(question);
            }
            answered += equals.len();
            let (recall, precision) = (earned / answerable as f64, earned / answered as f64);
            let point = Point { null_odds: equals.last().map(|(odds, _)| *odds), recall, precision };
            area += point.precision * (point.recall - last_recall);
            last_recall = point.recall;
            points.push(point);
        }
        Self { ap: 100.0 * area, points }
    }
}
