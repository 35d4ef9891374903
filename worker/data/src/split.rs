//! Holding a part of the training questions out of training.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};

use crate::DataError;
use crate::squad::{Dataset, Question, Warning};

/// A data set in two parts that have no text in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// What is trained on, in file order.
    pub rest: Dataset,
    /// What is not, in file order.
    pub held_out: Dataset,
}

/// Holds out a share of the questions, by context: all questions about one context go together, since a
/// model that was trained on some of them knows the text of the others.
///
/// Contexts are taken in the order of a hash of their text and `seed` until they have `share` of the questions
/// (more than 0, less than 0.5), so the same contexts are held out however the file is ordered. One is always
/// left.
///
/// # Errors
/// [`DataError::HoldOut`] where that takes no question at all: in a data set of one context.
pub fn hold_out(dataset: Dataset, share: f64, seed: u64) -> Result<Split, DataError> {
    let questions = dataset.questions.len();
    let chosen = chosen(&dataset, share, seed);
    if chosen.is_empty() {
        return Err(DataError::HoldOut { share, questions });
    }
    let marks: Vec<bool> = dataset.questions.iter().map(|q| chosen.contains(&*q.context)).collect();
    let mut mark = marks.into_iter();
    let (held_out, rest): (Vec<Question>, Vec<Question>) =
        dataset.questions.into_iter().partition(|_| mark.next() == Some(true));

    let ids: HashSet<&str> = held_out.iter().map(|q| q.id.as_str()).collect();
    let (held_out_warnings, rest_warnings): (Vec<Warning>, Vec<Warning>) =
        dataset.warnings.into_iter().partition(|warning| ids.contains(warning.id.as_str()));
    let part = |questions, warnings| Dataset { version: dataset.version.clone(), questions, warnings };
    Ok(Split { rest: part(rest, rest_warnings), held_out: part(held_out, held_out_warnings) })
}

/// The contexts that are held out.
fn chosen(dataset: &Dataset, share: f64, seed: u64) -> HashSet<&str> {
    let mut questions_of: HashMap<&str, usize> = HashMap::new();
    for question in &dataset.questions {
        *questions_of.entry(&question.context).or_default() += 1;
    }
    let hash =
        |context: &str| Sha256::new().chain_update(seed.to_le_bytes()).chain_update(context).finalize();
    let mut contexts: Vec<_> =
        questions_of.into_iter().map(|(text, count)| (hash(text), text, count)).collect();
    contexts.sort_unstable();
    contexts.pop();

    let wanted = share * dataset.questions.len() as f64;
    let mut chosen = HashSet::new();
    let mut taken = 0;
    for (_, context, questions) in contexts {
        if taken as f64 >= wanted {
            break;
        }
        chosen.insert(context);
        taken += questions;
    }
    chosen
}
