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
    /// What was earned, as a part (0 to 1) of what all answerable questions could earn.
    pub recall: f64,
    /// What was earned, as a part (0 to 1) of the questions answered.
    pub precision: f64,
}

impl Curve {
    /// Answers the questions in the given order of their null odds. `answerable` is the number of answerable
    /// questions, those without null odds too; it must not be 0.
    pub(super) fn draw(order: &[(f64, &Earned)], answerable: usize, score: fn(&Earned) -> f64) -> Self {
        let mut points = vec![Point { recall: 0.0, precision: 1.0 }];
        let (mut earned, mut answered, mut area, mut last_recall) = (0.0, 0usize, 0.0, 0.0);
        // No threshold can tell questions of equal null odds apart: together they make one point.
        for equals in order.chunk_by(|a, b| a.0 == b.0) {
            for (_, question) in equals.iter().filter(|(_, question)| question.answerable) {
                earned += score(question);
            }
            answered += equals.len();
            let point = Point { recall: earned / answerable as f64, precision: earned / answered as f64 };
            area += point.precision * (point.recall - last_recall);
            last_recall = point.recall;
            points.push(point);
        }
        Self { ap: 100.0 * area, points }
    }
}
