//! What a question file holds, counted and measured: the look before the training.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;
use serde::Serialize;

use crate::squad::{Dataset, Question, WarningKind};
use crate::text::{CodePoints, words};
use crate::{DataError, FeatureSettings, Features, PairLayout, Purpose, Tokenizer, Window};

/// Bars of a histogram; the last one takes all that is larger.
const BARS: usize = 24;
/// Questions that are named for each oddity; the rest is only counted.
const NAMED: usize = 5;
/// How windows are cut for [`Stats::windows`]: what fine-tuning on SQuAD usually takes.
const SETTINGS: FeatureSettings = FeatureSettings {
    max_seq_length: 384,
    doc_stride: 128,
    max_query_length: 64,
    window: Window::Step,
    layout: PairLayout::Single,
};

/// The figures of one question file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stats {
    /// The file's `version` field, where it has one.
    pub version: Option<String>,
    /// Articles that have questions: runs of questions under one title.
    pub articles: usize,
    /// Paragraphs that have questions.
    pub paragraphs: usize,
    /// Questions.
    pub questions: usize,
    /// Those that list an answer, as the official metric counts.
    pub answerable: Share,
    /// Those that list none.
    pub unanswerable: Share,
    /// Questions by their number of accepted answers.
    pub questions_by_answers: BTreeMap<usize, Share>,
    /// Every length: what is measured (contexts once per paragraph, every accepted answer), and in which unit.
    pub lengths: Vec<Measure>,
    /// Where accepted answers start, in code points of the context.
    pub answer_starts: Summary,
    /// How many accepted answers start in each tenth of their context. Only answers that are in their place count.
    pub answer_tenths: [usize; 10],
    /// Questions by windows, where a tokenizer was given.
    pub windows: Option<Windows>,
    /// What is wrong with the file: every kind, also those that do not occur.
    pub oddities: Vec<Oddity>,
}

/// A number of questions, and its part of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Share {
    /// Questions.
    pub count: usize,
    /// Of all questions, from 0 to 1.
    pub share: f64,
}

impl Share {
    fn of(count: usize, all: usize) -> Self {
        Self { count, share: count as f64 / all.max(1) as f64 }
    }
}

/// The lengths of one kind of text in one unit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measure {
    /// `contexts`, `questions` or `answers`.
    pub of: &'static str,
    /// `code points`, `words` (between white space) or `tokens`.
    pub unit: &'static str,
    /// The figures.
    #[serde(flatten)]
    pub summary: Summary,
    /// Their distribution.
    pub histogram: Histogram,
}

/// A list of numbers in a few.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Summary {
    /// How many there are.
    pub count: usize,
    /// The smallest; 0 where there is none.
    pub min: usize,
    /// The one in the middle; of an even number of them, the mean of the two in the middle.
    pub median: f64,
    /// Their mean.
    pub mean: f64,
    /// The smallest that at least 95 of 100 do not exceed.
    pub p95: usize,
    /// The largest.
    pub max: usize,
}

/// How many numbers lie in each of equally wide ranges from 0 on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Histogram {
    /// Bar `i` counts the numbers from `i * width` on, below `(i + 1) * width`.
    pub width: usize,
    /// The bars; the last also counts all numbers above, where there are 24.
    pub counts: Vec<usize>,
}

/// How many windows questions need.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Windows {
    /// Longest sequence in tokens, the special ones included.
    pub max_seq_length: usize,
    /// Tokens from one window's start to the next one's.
    pub doc_stride: usize,
    /// Windows of all questions.
    pub windows: usize,
    /// Questions that fit in one window.
    pub one: Share,
    /// Questions that need two.
    pub two: Share,
    /// Questions that need three or more.
    pub three_or_more: Share,
}

/// One kind of what can be wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Oddity {
    /// Its name for programs.
    pub kind: &'static str,
    /// How often it occurs.
    pub count: usize,
    /// The first questions that it occurs at.
    pub questions: Vec<String>,
    /// What is wrong with them, in words.
    #[serde(skip)]
    pub words: Vec<String>,
}

impl Stats {
    /// Counts and measures a file that [`survey`](crate::squad::survey) or [`read`](crate::squad::read) brought.
    /// With a tokenizer tokens are counted, too, and windows of 384 tokens that start every 128.
    ///
    /// # Errors
    /// [`DataError::Encode`] where the tokenizer refuses a text; [`DataError::NoRoom`] as
    /// [`Features::build`](crate::Features::build).
    pub fn of(dataset: &Dataset, tokenizer: Option<&Tokenizer>) -> Result<Self, DataError> {
        let (questions, all) = (&dataset.questions, dataset.questions.len());
        let paragraphs = firsts(questions, |a, b| Arc::ptr_eq(&a.context, &b.context));
        let answerable = questions.iter().filter(|question| question.has_answer()).count();
        let mut by_answers: BTreeMap<usize, usize> = BTreeMap::new();
        for question in questions {
            *by_answers.entry(question.answers.len()).or_default() += 1;
        }
        let mut lengths = lengths(questions, &paragraphs);
        let mut windows = None;
        if let Some(tokenizer) = tokenizer {
            let features = Features::build(dataset, tokenizer, &SETTINGS, Purpose::Evaluate)?;
            lengths.extend(tokens(questions, &paragraphs, &features, tokenizer)?);
            windows = Some(Windows::of(&features));
        }
        let (starts, tenths) = positions(questions);
        Ok(Self {
            version: dataset.version.clone(),
            articles: firsts(questions, |a, b| a.title == b.title).len(),
            paragraphs: paragraphs.len(),
            questions: all,
            answerable: Share::of(answerable, all),
            unanswerable: Share::of(all - answerable, all),
            questions_by_answers: by_answers
                .into_iter()
                .map(|(n, count)| (n, Share::of(count, all)))
                .collect(),
            lengths,
            answer_starts: Summary::of(starts),
            answer_tenths: tenths,
            windows,
            oddities: oddities(dataset),
        })
    }
}

impl Measure {
    fn of(of: &'static str, unit: &'static str, values: impl Iterator<Item = usize>) -> Self {
        let mut values: Vec<usize> = values.collect();
        let summary = Summary::of_sorted({
            values.sort_unstable();
            &values
        });
        Self { of, unit, summary, histogram: Histogram::of(&values, summary.p95) }
    }
}

impl Summary {
    /// The figures of a list in any order.
    #[must_use]
    pub fn of(mut values: Vec<usize>) -> Self {
        values.sort_unstable();
        Self::of_sorted(&values)
    }

    fn of_sorted(values: &[usize]) -> Self {
        let count = values.len();
        let (Some(min), Some(max)) = (values.first(), values.last()) else { return Self::default() };
        let middle = |at: usize| values[at] as f64;
        Self {
            count,
            min: *min,
            median: f64::midpoint(middle((count - 1) / 2), middle(count / 2)),
            mean: values.iter().sum::<usize>() as f64 / count as f64,
            p95: values[(count * 95).div_ceil(100) - 1],
            max: *max,
        }
    }
}

impl Histogram {
    /// Bars of a round width, such that 16 of them reach the 95th percentile: outliers do not flatten the rest.
    fn of(values: &[usize], p95: usize) -> Self {
        let wanted = p95.div_ceil(16).max(1);
        let round = |width: &usize| *width >= wanted;
        let widths = (0..18).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_usize.pow(power)));
        let width = widths.into_iter().find(round).unwrap_or(wanted);
        let mut counts = vec![0; BARS];
        for value in values {
            counts[(value / width).min(BARS - 1)] += 1;
        }
        let used = counts.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        counts.truncate(used);
        Self { width, counts }
    }
}

impl Windows {
    fn of(features: &Features) -> Self {
        let mut needed = vec![0_usize; features.questions()];
        for index in 0..features.len() {
            needed[features.get(index).question] += 1;
        }
        let share = |fits: fn(usize) -> bool| {
            Share::of(needed.iter().filter(|windows| fits(**windows)).count(), needed.len())
        };
        Self {
            max_seq_length: SETTINGS.max_seq_length,
            doc_stride: SETTINGS.doc_stride,
            windows: features.len(),
            one: share(|windows| windows == 1),
            two: share(|windows| windows == 2),
            three_or_more: share(|windows| windows > 2),
        }
    }
}

/// The first question of every run of questions that are alike.
fn firsts(questions: &[Question], alike: fn(&Question, &Question) -> bool) -> Vec<usize> {
    (0..questions.len()).filter(|at| *at == 0 || !alike(&questions[at - 1], &questions[*at])).collect()
}

/// Lengths in code points and words.
fn lengths(questions: &[Question], paragraphs: &[usize]) -> Vec<Measure> {
    let contexts = || paragraphs.iter().map(|at| &*questions[*at].context);
    let texts = || questions.iter().map(|question| question.text.as_str());
    let answers =
        || questions.iter().flat_map(|question| &question.answers).map(|answer| answer.text.as_str());
    let code_points = |text: &str| text.chars().count();
    let in_words = |text: &str| words(text).count();
    vec![
        Measure::of("contexts", "code points", contexts().map(code_points)),
        Measure::of("contexts", "words", contexts().map(in_words)),
        Measure::of("questions", "code points", texts().map(code_points)),
        Measure::of("questions", "words", texts().map(in_words)),
        Measure::of("answers", "code points", answers().map(code_points)),
        Measure::of("answers", "words", answers().map(in_words)),
    ]
}

/// Lengths in tokens, without special ones.
fn tokens(
    questions: &[Question],
    paragraphs: &[usize],
    features: &Features,
    tokenizer: &Tokenizer,
) -> Result<Vec<Measure>, DataError> {
    let count = |texts: Vec<&str>| -> Result<Vec<usize>, DataError> {
        texts.into_par_iter().map(|text| Ok(tokenizer.ids(text)?.len())).collect()
    };
    let answers = questions.iter().flat_map(|question| &question.answers);
    let asked = count(questions.iter().map(|question| question.text.as_str()).collect())?;
    let answered = count(answers.map(|answer| answer.text.as_str()).collect())?;
    let contexts = paragraphs.iter().map(|at| features.context_tokens(*at));
    Ok(vec![
        Measure::of("contexts", "tokens", contexts),
        Measure::of("questions", "tokens", asked.into_iter()),
        Measure::of("answers", "tokens", answered.into_iter()),
    ])
}

/// Where answers start: in code points, and in which tenth of the context.
fn positions(questions: &[Question]) -> (Vec<usize>, [usize; 10]) {
    let (mut starts, mut tenths) = (Vec::new(), [0; 10]);
    for question in questions.iter().filter(|question| question.has_answer()) {
        let context = CodePoints::new(&question.context);
        for answer in &question.answers {
            let end = answer.start.saturating_add(answer.text.chars().count());
            if !answer.text.trim().is_empty() && context.slice(answer.start, end) == answer.text {
                starts.push(answer.start);
                tenths[answer.start * 10 / context.len()] += 1;
            }
        }
    }
    (starts, tenths)
}

/// What reading found, by kind.
fn oddities(dataset: &Dataset) -> Vec<Oddity> {
    const KINDS: [&str; 7] = [
        "duplicate_id",
        "blank_question",
        "empty_answer",
        "no_answer",
        "answers_though_impossible",
        "offset_moved",
        "answer_nowhere",
    ];
    let index = |kind: &WarningKind| match kind {
        WarningKind::DuplicateId => 0,
        WarningKind::BlankQuestion => 1,
        WarningKind::EmptyAnswer => 2,
        WarningKind::NoAnswer => 3,
        WarningKind::AnswersThoughImpossible => 4,
        WarningKind::AnswerMoved { .. } => 5,
        WarningKind::AnswerNowhere { .. } => 6,
    };
    let none = |kind| Oddity { kind, count: 0, questions: Vec::new(), words: Vec::new() };
    let mut oddities: Vec<Oddity> = KINDS.map(none).into();
    for warning in &dataset.warnings {
        let oddity = &mut oddities[index(&warning.kind)];
        oddity.count += 1;
        if oddity.count <= NAMED {
            oddity.questions.push(warning.id.clone());
            oddity.words.push(warning.to_string());
        }
    }
    oddities
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_summed_up() {
        assert_eq!(Summary::of(Vec::new()), Summary::default());
        let four = Summary::of(vec![9, 1, 4, 2]);
        assert_eq!(
            (four.count, four.min, four.median, four.mean, four.p95, four.max),
            (4, 1, 3.0, 4.0, 9, 9)
        );
        let hundred = Summary::of((1..=100).rev().collect());
        assert_eq!((hundred.median, hundred.mean, hundred.p95, hundred.max), (50.5, 50.5, 95, 100));
    }

    #[test]
    fn bars_have_a_round_width_and_the_last_takes_the_rest() {
        assert_eq!(Histogram::of(&[0, 1, 1, 3], 3), Histogram { width: 1, counts: vec![1, 2, 0, 1] });
        let wide = Histogram::of(&[0, 49, 50, 1_000_000], 700);
        assert_eq!((wide.width, wide.counts.len()), (50, BARS));
        assert_eq!((wide.counts[0], wide.counts[1], wide.counts[BARS - 1]), (2, 1, 1));
        assert_eq!(Histogram::of(&[], 0), Histogram { width: 1, counts: Vec::new() });
    }
}
