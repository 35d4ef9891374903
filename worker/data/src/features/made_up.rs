//! Windows of given lengths whose tokens mean nothing, to measure with.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::build::digest;
use super::columns::{Column, Columns, Row};
use super::{FeatureCounts, Features};
use crate::DataError;

/// Special tokens, one word of a question, one of a context.
const SHORTEST: usize = 5;

/// A question's share of a window, as in SQuAD's files.
const QUESTION: usize = 12;

impl Features {
    /// Windows of these lengths, each of a question of its own. Tokens are drawn from `vocabulary` ids, evenly, so they
    /// touch more rows of a table than text does.
    ///
    /// # Errors
    /// [`DataError::Setting`] where a window has no room for a question and a context, or there are no words.
    pub fn made_up(lengths: &[usize], vocabulary: usize, seed: u64) -> Result<Self, DataError> {
        let refuse = |name, value, reason: String| Err(DataError::Setting { name, value, reason });
        if let Some(length) = lengths.iter().copied().find(|length| *length < SHORTEST) {
            return refuse("length", length, format!("a window has at least {SHORTEST} tokens"));
        }
        let words = i32::try_from(vocabulary).unwrap_or(i32::MAX);
        if words < 2 {
            return refuse("vocabulary", vocabulary, "there must be words besides padding".to_owned());
        }
        let mut random = StdRng::seed_from_u64(seed);
        let mut ids = Vec::with_capacity(lengths.iter().sum());
        let mut rows = Vec::with_capacity(lengths.len());
        for (question, length) in lengths.iter().enumerate() {
            let context_offset = 2 + (length / QUESTION).max(1);
            let chunk_length = length - context_offset - 1;
            let start = context_offset + random.random_range(0..chunk_length);
            ids.extend((0..*length).map(|_| random.random_range(1..words)));
            rows.push(Row {
                question: question as u32,
                length: *length as u32,
                context_offset: context_offset as u32,
                chunk_start: 0,
                chunk_length: chunk_length as u32,
                start: start as u32,
                end: start as u32,
                is_impossible: 0,
            });
        }
        let questions = rows.len();
        let counts =
            FeatureCounts { questions, kept: questions, chunks: questions, ..FeatureCounts::default() };
        let digest = digest(&rows, &ids);
        let columns = Columns {
            rows: Column::Owned(rows),
            ids: Column::Owned(ids),
            // All ask about one text, of which there are no tokens: nobody wants to know where an answer stands in it.
            questions: Column::Owned(vec![0; questions]),
            contexts: Column::Owned(vec![0]),
            offsets: Column::Owned(Vec::new()),
        };
        Ok(Self::over(columns, counts, digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::collate;

    #[test]
    fn lengths_are_as_given_and_answers_lie_in_the_context() {
        let lengths = [5, 384, 40, 17];
        let features = Features::made_up(&lengths, 100, 3).unwrap();
        assert_eq!(features.lengths(), lengths);
        for (index, length) in lengths.iter().enumerate() {
            let one = features.get(index);
            assert!(one.input_ids.iter().all(|id| (1..100).contains(id)));
            let context = one.context_offset..one.context_offset + one.chunk_length;
            assert!(context.contains(&one.start) && context.contains(&one.end), "{one:?}");
            assert_eq!(context.end + 1, *length, "a separator behind it");
        }
        let batch = collate(&features, &[2, 3], 0, 8);
        assert_eq!((batch.width, batch.real_tokens()), (40, 57));
        assert_eq!(features.digest(), Features::made_up(&lengths, 100, 3).unwrap().digest());
    }

    #[test]
    fn what_cannot_be_made_up_is_refused() {
        assert!(Features::made_up(&[4], 100, 0).unwrap_err().to_string().contains("length = 4"));
        assert!(Features::made_up(&[9], 1, 0).is_err());
    }
}
