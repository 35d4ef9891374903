//! What can go wrong between a question file and a score.

use std::path::PathBuf;

/// Every failure of this crate. Each message is one sentence that names the
/// file or the question, what was found, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file could not be read at all.
    #[error("cannot read {file}: {source}", file = file.display())]
    Read {
        /// The file that was asked for.
        file: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// A file is not JSON, or a value in it has the wrong type.
    #[error("{file}, line {line}, column {column}: {reason}", file = file.display())]
    Json {
        /// The file that holds the mistake.
        file: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Column in bytes, counted from 1.
        column: usize,
        /// The parser's reason, without its own position.
        reason: String,
    },

    /// A required field of the SQuAD format is absent or null.
    #[error("{file}: {at} has no field \"{field}\", which the SQuAD format requires", file = file.display())]
    MissingField {
        /// The question file.
        file: PathBuf,
        /// Where in the document, such as `data[0].paragraphs[2]`.
        at: String,
        /// The name of the absent field.
        field: &'static str,
    },

    /// A question file without a single question.
    #[error("{file} holds no questions", file = file.display())]
    NoQuestions {
        /// The question file.
        file: PathBuf,
    },

    /// An answer that is not where its offset says, and not elsewhere either.
    #[error(
        "{file}: question {id}: answer_start {start} (in code points) does not match its context: \
         expected {expected:?}, found {found:?}",
        file = file.display()
    )]
    AnswerMismatch {
        /// The question file.
        file: PathBuf,
        /// The question's id.
        id: String,
        /// The offset found in the file, in code points.
        start: usize,
        /// The answer's text, shortened for display.
        expected: String,
        /// What the context holds at the offset (empty: the offset lies beyond its end).
        found: String,
    },

    /// Tokenizer files are absent, broken, or lack a special token.
    #[error("tokenizer in {folder}: {reason}", folder = folder.display())]
    Tokenizer {
        /// The model folder.
        folder: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The tokenizer refused a text.
    #[error("the tokenizer cannot encode {text:?}: {reason}")]
    Encode {
        /// The beginning of the text.
        text: String,
        /// The tokenizer's reason.
        reason: String,
    },

    /// Window settings that can never work, whatever the questions are.
    #[error("{name} = {value} cannot be used: {reason}")]
    Setting {
        /// The setting's name in the job specification.
        name: &'static str,
        /// Its value.
        value: usize,
        /// Why it cannot work and what to change.
        reason: String,
    },

    /// A part of the training questions was to be held out, but none can be spared.
    #[error(
        "eval.threshold_from {share}: none of the {questions} training questions can be held out, because all are \
         about one text and questions about one text stay together; set it to dev, or train on more texts"
    )]
    HoldOut {
        /// The share that was asked for.
        share: f64,
        /// Questions in the data set.
        questions: usize,
    },

    /// A question that leaves too few tokens of `max_seq_length` for its context.
    #[error(
        "question {id}: its {query} question tokens leave {capacity} of max_seq_length {max_seq_length} \
         for the context; {needs}"
    )]
    NoRoom {
        /// The question's id.
        id: String,
        /// Question tokens after truncation.
        query: usize,
        /// Context tokens that one window could hold.
        capacity: usize,
        /// The setting.
        max_seq_length: usize,
        /// What would be enough.
        needs: String,
    },

    /// The model's scores do not belong to the features, or hold NaN.
    #[error("scores of question {id}: {reason}")]
    Scores {
        /// The question's id.
        id: String,
        /// What is wrong with them.
        reason: String,
    },

    /// A prediction or no-answer-probability file that is JSON but not of the right form.
    #[error("{file}: {reason}", file = file.display())]
    Predictions {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl DataError {
    /// Wraps a parser's error, moving its position into fields of its own.
    pub(crate) fn json(file: &std::path::Path, error: &serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        let tail = format!(" at line {line} column {column}");
        let reason = text.strip_suffix(&tail).unwrap_or(&text).to_owned();
        Self::Json { file: file.to_path_buf(), line, column, reason }
    }
}
