//! One text against a question's accepted answers.

use std::collections::HashMap;

use crate::normalise::normalise;
use crate::squad::Question;

/// Exact match and F1 (0 to 1) of one text against a question's accepted answers.
#[must_use]
pub fn compare(question: &Question, guess: &str) -> (f64, f64) {
    against(&accepted(question), guess)
}

/// The accepted answers in normalised form; the empty text where none remains.
pub(crate) fn accepted(question: &Question) -> Vec<String> {
    let texts = question.answers.iter().map(|a| normalise(&a.text));
    let golds: Vec<String> = texts.filter(|t| !t.is_empty()).collect();
    if golds.is_empty() { vec![String::new()] } else { golds }
}

/// Exact match and F1 of one text against normalised answers, the best of each.
pub(crate) fn against(golds: &[String], guess: &str) -> (f64, f64) {
    let guess = normalise(guess);
    let exact = golds.contains(&guess);
    let f1 = golds.iter().map(|gold| overlap(gold, &guess)).fold(0.0, f64::max);
    (f64::from(u8::from(exact)), f1)
}

/// F1 of two normalised texts as bags of words.
fn overlap(gold: &str, guess: &str) -> f64 {
    let words = |text: &str| text.split(' ').filter(|w| !w.is_empty()).count();
    let (golds, guesses) = (words(gold), words(guess));
    if golds == 0 || guesses == 0 {
        return f64::from(u8::from(golds == guesses));
    }
    let mut bag: HashMap<&str, usize> = HashMap::new();
    for word in gold.split(' ') {
        *bag.entry(word).or_default() += 1;
    }
    let mut same = 0u32;
    for word in guess.split(' ') {
        if let Some(left) = bag.get_mut(word).filter(|left| **left > 0) {
            *left -= 1;
            same += 1;
        }
    }
    if same == 0 {
        return 0.0;
    }
    let (precision, recall) = (f64::from(same) / guesses as f64, f64::from(same) / golds as f64);
    2.0 * precision * recall / (precision + recall)
}
