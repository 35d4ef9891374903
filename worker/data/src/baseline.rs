//! The best constant rule: what a program earns that has learned nothing.
//!
//! A fine-tuned model is only worth its name above this figure; a model that has
//! collapsed to "no answer", or to one place in the context, is not.

use std::fmt;

use rayon::prelude::*;

use crate::score::{accepted, against};
use crate::squad::Dataset;
use crate::text;

/// The most words from either end of the context that a rule answers.
const WORDS: usize = 10;

/// A rule that answers every question without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The first so many words of the context.
    FirstWords(usize),
    /// The last so many words of the context.
    LastWords(usize),
    /// The context up to its first full stop, question or exclamation mark before white space.
    FirstSentence,
    /// The whole context.
    WholeContext,
    /// The empty answer, "no answer".
    Empty,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstWords(1) => f.write_str("always the first word of the context"),
            Self::FirstWords(k) => write!(f, "always the first {k} words of the context"),
            Self::LastWords(1) => f.write_str("always the last word of the context"),
            Self::LastWords(k) => write!(f, "always the last {k} words of the context"),
            Self::FirstSentence => f.write_str("always the first sentence of the context"),
            Self::WholeContext => f.write_str("always the whole context"),
            Self::Empty => f.write_str("always the empty answer"),
        }
    }
}

impl Rule {
    /// Every rule that is tried.
    pub fn all() -> impl Iterator<Item = Self> {
        let first = (1..=WORDS).map(Self::FirstWords);
        let last = (1..=WORDS).map(Self::LastWords);
        first.chain(last).chain([Self::FirstSentence, Self::WholeContext, Self::Empty])
    }

    /// The rule's answer to any question about `context`.
    #[must_use]
    pub fn answer(self, context: &str) -> String {
        match self {
            Self::FirstWords(k) => text::words(context).take(k).collect::<Vec<_>>().join(" "),
            Self::LastWords(k) => {
                let mut words: Vec<&str> = text::words(context).rev().take(k).collect();
                words.reverse();
                words.join(" ")
            }
            Self::FirstSentence => first_sentence(context).to_owned(),
            Self::WholeContext => context.to_owned(),
            Self::Empty => String::new(),
        }
    }
}

/// A constant rule and what it earns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Baseline {
    /// The rule; its `Display` says it in words.
    pub rule: Rule,
    /// Its mean F1 in percent.
    pub f1: f64,
    /// Its exact match in percent.
    pub exact: f64,
}

/// The rule of [`Rule::all`] with the highest F1 on a data set (the first of equals).
///
/// An empty data set yields the first rule with 0.
#[must_use]
pub fn constant_baseline(dataset: &Dataset) -> Baseline {
    let rules: Vec<Rule> = Rule::all().collect();
    // One row per question, so that its accepted answers are normalised once for all rules.
    let rows: Vec<Vec<(f64, f64)>> = dataset
        .questions
        .par_iter()
        .map(|q| {
            let golds = accepted(q);
            rules.iter().map(|rule| against(&golds, &rule.answer(&q.context))).collect()
        })
        .collect();
    let percent = |sum: f64| 100.0 * sum / rows.len().max(1) as f64;
    let score = |at: usize| {
        let exact: f64 = rows.iter().map(|row| row[at].0).sum();
        let f1: f64 = rows.iter().map(|row| row[at].1).sum();
        Baseline { rule: rules[at], f1: percent(f1), exact: percent(exact) }
    };
    let first = score(0);
    (1..rules.len()).map(score).fold(first, |best, next| if next.f1 > best.f1 { next } else { best })
}

fn first_sentence(context: &str) -> &str {
    let mut rest = context.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        let ends = matches!(c, '.' | '!' | '?') && rest.peek().is_none_or(|(_, next)| text::is_space(*next));
        if ends || matches!(c, '。' | '！' | '？') {
            return &context[..at + c.len_utf8()];
        }
    }
    context
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::squad::{Answer, Question};

    fn question(id: usize, context: &str, answers: &[&str]) -> Question {
        Question {
            id: id.to_string(),
            title: String::new(),
            text: "?".to_owned(),
            context: context.into(),
            answers: answers.iter().map(|t| Answer { text: (*t).to_owned(), start: 0 }).collect(),
            is_impossible: answers.is_empty(),
        }
    }

    fn dataset(questions: Vec<Question>) -> Dataset {
        Dataset { version: None, questions, warnings: Vec::new() }
    }

    #[test]
    fn rules_answer_as_they_say() {
        let text = "Dr. No  left 3.5 miles. Then he came! Why";
        assert_eq!(Rule::FirstWords(2).answer(text), "Dr. No");
        assert_eq!(Rule::LastWords(3).answer(text), "he came! Why");
        assert_eq!(Rule::FirstSentence.answer("It is 3.5 miles. Far."), "It is 3.5 miles.");
        assert_eq!(Rule::FirstSentence.answer("你好。再见。"), "你好。");
        assert_eq!(Rule::FirstSentence.answer("no end"), "no end");
        assert_eq!(Rule::WholeContext.answer("x y"), "x y");
        assert_eq!(Rule::all().count(), 23);
    }

    #[test]
    fn the_best_rule_is_found() {
        let data = dataset(vec![
            question(0, "blue is the colour", &["blue"]),
            question(1, "green is the colour", &["green"]),
            question(2, "we like red", &["red"]),
        ]);
        let best = constant_baseline(&data);
        assert_eq!(best.rule, Rule::FirstWords(1));
        assert!((best.f1 - 200.0 / 3.0).abs() < 1e-9 && (best.exact - best.f1).abs() < 1e-9);
        assert_eq!(best.rule.to_string(), "always the first word of the context");
    }

    #[test]
    fn abstaining_is_a_rule_too() {
        let data = dataset(vec![
            question(0, "some words here", &[]),
            question(1, "other words here", &[]),
            question(2, "blue sky", &["blue"]),
        ]);
        let best = constant_baseline(&data);
        assert_eq!((best.rule, best.f1 > 66.0), (Rule::Empty, true));
    }
}
