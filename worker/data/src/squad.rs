//! Reading question files in the SQuAD 1.1 and 2.0 formats.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::DataError;
use crate::text::{CodePoints, shortened};

/// How many code points of an answer a message shows.
const SHOWN: usize = 60;

/// The questions of one file, in file order.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The file's `version` field (`1.1`, `v2.0`), where it has one.
    pub version: Option<String>,
    /// Every question; those of one paragraph share one context allocation.
    pub questions: Vec<Question>,
    /// Oddities that were mended or tolerated, in file order.
    pub warnings: Vec<Warning>,
}

/// One question about one paragraph.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Key of the question in prediction files.
    pub id: String,
    /// Title of the article; empty where the file gives none.
    pub title: String,
    /// The question as written.
    pub text: String,
    /// The paragraph that may hold the answer.
    pub context: Arc<str>,
    /// Accepted answers; the first one is trained on. Empty for unanswerable questions.
    pub answers: Vec<Answer>,
    /// The file's `is_impossible`; false where absent, as in version 1.1.
    pub is_impossible: bool,
}

/// One accepted answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The answer's text, a slice of the context.
    pub text: String,
    /// Where it starts in the context, in code points.
    pub start: usize,
}

/// A question that was read although something about it is odd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The question's id.
    pub id: String,
    /// What is odd.
    pub kind: WarningKind,
}

/// The oddities that reading tolerates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WarningKind {
    /// An earlier question has the same id; a prediction file can hold only one answer for both.
    DuplicateId,
    /// The question's text is blank.
    BlankQuestion,
    /// An accepted answer is blank; the metric ignores it.
    EmptyAnswer,
    /// Not marked impossible, yet without answers: treated as unanswerable.
    NoAnswer,
    /// Marked impossible, yet with answers: training treats it as unanswerable, the metric as answerable.
    AnswersThoughImpossible,
    /// The answer was not at its offset; its nearest occurrence was taken.
    AnswerMoved {
        /// The file's offset in code points.
        from: usize,
        /// The offset taken instead.
        to: usize,
    },
    /// The answer is nowhere in its context; only [`survey`] tolerates that.
    AnswerNowhere {
        /// The file's offset in code points.
        from: usize,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = &self.id;
        match self.kind {
            WarningKind::DuplicateId => write!(f, "question {id}: the id occurs more than once"),
            WarningKind::BlankQuestion => write!(f, "question {id}: the question is blank"),
            WarningKind::EmptyAnswer => write!(f, "question {id}: an answer is empty and is ignored"),
            WarningKind::NoAnswer => {
                write!(f, "question {id}: not marked impossible, but it has no answer; taken as unanswerable")
            }
            WarningKind::AnswersThoughImpossible => {
                write!(f, "question {id}: marked impossible, but it has answers; trained as unanswerable")
            }
            WarningKind::AnswerMoved { from, to } => {
                write!(
                    f,
                    "question {id}: the answer is not at answer_start {from}; its nearest occurrence, {to}, is used"
                )
            }
            WarningKind::AnswerNowhere { from } => {
                write!(
                    f,
                    "question {id}: the answer is neither at answer_start {from} nor elsewhere in its context"
                )
            }
        }
    }
}

impl Question {
    /// The answer that training points at: the first one that is not blank, unless
    /// the question is marked impossible. `None`: train as unanswerable.
    #[must_use]
    pub fn gold(&self) -> Option<&Answer> {
        if self.is_impossible { None } else { self.answers.iter().find(|a| !a.text.trim().is_empty()) }
    }

    /// Whether the official metric counts the question as answerable: it lists an answer.
    #[must_use]
    pub fn has_answer(&self) -> bool {
        !self.answers.is_empty()
    }
}

impl Dataset {
    /// A set of one question without a known answer, for asking a trained model.
    #[must_use]
    pub fn ask(question: &str, context: &str) -> Self {
        let question = Question {
            id: "question".to_owned(),
            title: String::new(),
            text: question.to_owned(),
            context: context.into(),
            answers: Vec::new(),
            is_impossible: false,
        };
        Self { version: None, questions: vec![question], warnings: Vec::new() }
    }

    /// SHA-256 over everything that features are made of: contexts, questions and answers, in order.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let number = |hash: &mut Sha256, number: usize| hash.update((number as u64).to_le_bytes());
        // With its length before it, no text can be taken for two.
        let text = |hash: &mut Sha256, text: &str| {
            number(hash, text.len());
            hash.update(text);
        };
        let mut last: Option<&Arc<str>> = None;
        for question in &self.questions {
            if last.is_some_and(|last| Arc::ptr_eq(last, &question.context)) {
                number(&mut hash, usize::MAX);
            } else {
                text(&mut hash, &question.context);
            }
            last = Some(&question.context);
            text(&mut hash, &question.text);
            number(&mut hash, usize::from(question.is_impossible));
            number(&mut hash, question.answers.len());
            for answer in &question.answers {
                text(&mut hash, &answer.text);
                number(&mut hash, answer.start);
            }
        }
        hash.finalize().into()
    }

    /// Whether any question lists no answer, as in version 2.0: only then does abstaining make sense.
    #[must_use]
    pub fn has_unanswerable(&self) -> bool {
        self.questions.iter().any(|q| !q.has_answer())
    }
}

/// Reads a question file.
///
/// # Errors
/// [`DataError::Read`], [`DataError::Json`] with line and column,
/// [`DataError::MissingField`] with the place in the document,
/// [`DataError::AnswerMismatch`] for an answer that cannot be found in its
/// context, [`DataError::NoQuestions`].
pub fn read(path: &Path) -> Result<Dataset, DataError> {
    let bytes = std::fs::read(path).map_err(|source| DataError::Read { file: path.to_path_buf(), source })?;
    parse(path, &bytes)
}

/// Parses a question file's content; `file` is only used in messages.
///
/// # Errors
/// As [`read`], except that no file is opened.
pub fn parse(file: &Path, bytes: &[u8]) -> Result<Dataset, DataError> {
    parse_as(file, bytes, false)
}

/// Parses a question file's content to look at it, not to train on it: an answer that
/// is nowhere in its context is a warning and stays, at its offset.
///
/// # Errors
/// As [`parse`], without [`DataError::AnswerMismatch`].
pub fn survey(file: &Path, bytes: &[u8]) -> Result<Dataset, DataError> {
    parse_as(file, bytes, true)
}

fn parse_as(file: &Path, bytes: &[u8], tolerant: bool) -> Result<Dataset, DataError> {
    let raw: RawFile = serde_json::from_slice(bytes).map_err(|e| DataError::json(file, &e))?;
    let mut reader =
        Reader { file, tolerant, ids: HashSet::new(), questions: Vec::new(), warnings: Vec::new() };
    let articles = reader.need(raw.data, "data", || "the document".to_owned())?;
    for (a, article) in articles.into_iter().enumerate() {
        let title = article.title.unwrap_or_default();
        let paragraphs = reader.need(article.paragraphs, "paragraphs", || format!("data[{a}]"))?;
        for (p, paragraph) in paragraphs.into_iter().enumerate() {
            reader.paragraph(&title, paragraph, &format!("data[{a}].paragraphs[{p}]"))?;
        }
    }
    if reader.questions.is_empty() {
        return Err(DataError::NoQuestions { file: file.to_path_buf() });
    }
    Ok(Dataset { version: raw.version, questions: reader.questions, warnings: reader.warnings })
}

// The format as it may arrive: every field optional, so that an absent one can be named with its place.
#[derive(Deserialize)]
struct RawFile {
    version: Option<String>,
    data: Option<Vec<RawArticle>>,
}

#[derive(Deserialize)]
struct RawArticle {
    title: Option<String>,
    paragraphs: Option<Vec<RawParagraph>>,
}

#[derive(Deserialize)]
struct RawParagraph {
    context: Option<String>,
    qas: Option<Vec<RawQuestion>>,
}

#[derive(Deserialize)]
struct RawQuestion {
    id: Option<String>,
    question: Option<String>,
    answers: Option<Vec<RawAnswer>>,
    is_impossible: Option<bool>,
}

#[derive(Deserialize)]
struct RawAnswer {
    text: Option<String>,
    answer_start: Option<usize>,
}

struct Reader<'a> {
    file: &'a Path,
    /// Whether answers that are nowhere are warnings.
    tolerant: bool,
    ids: HashSet<String>,
    questions: Vec<Question>,
    warnings: Vec<Warning>,
}

impl Reader<'_> {
    fn need<T>(
        &self,
        value: Option<T>,
        field: &'static str,
        at: impl FnOnce() -> String,
    ) -> Result<T, DataError> {
        value.ok_or_else(|| DataError::MissingField { file: self.file.to_path_buf(), at: at(), field })
    }

    fn warn(&mut self, id: &str, kind: WarningKind) {
        self.warnings.push(Warning { id: id.to_owned(), kind });
    }

    fn paragraph(&mut self, title: &str, raw: RawParagraph, at: &str) -> Result<(), DataError> {
        let context: Arc<str> = self.need(raw.context, "context", || at.to_owned())?.into();
        let index = CodePoints::new(&context);
        for (q, raw) in self.need(raw.qas, "qas", || at.to_owned())?.into_iter().enumerate() {
            let at = format!("{at}.qas[{q}]");
            let id = self.need(raw.id, "id", || at.clone())?;
            let text = self.need(raw.question, "question", || at.clone())?;
            let is_impossible = raw.is_impossible.unwrap_or(false);
            if !self.ids.insert(id.clone()) {
                self.warn(&id, WarningKind::DuplicateId);
            }
            if text.trim().is_empty() {
                self.warn(&id, WarningKind::BlankQuestion);
            }
            let mut answers = Vec::new();
            for (k, raw) in self.need(raw.answers, "answers", || at.clone())?.into_iter().enumerate() {
                let text = self.need(raw.text, "text", || format!("{at}.answers[{k}]"))?;
                let start = self.need(raw.answer_start, "answer_start", || format!("{at}.answers[{k}]"))?;
                answers.push(self.answer(&id, &index, text, start)?);
            }
            match (is_impossible, answers.is_empty()) {
                (false, true) => self.warn(&id, WarningKind::NoAnswer),
                (true, false) => self.warn(&id, WarningKind::AnswersThoughImpossible),
                _ => {}
            }
            let context = Arc::clone(&context);
            self.questions.push(Question {
                id,
                title: title.to_owned(),
                text,
                context,
                answers,
                is_impossible,
            });
        }
        Ok(())
    }

    /// Checks one answer against its context and mends its offset where that is possible.
    fn answer(
        &mut self,
        id: &str,
        context: &CodePoints<'_>,
        text: String,
        start: usize,
    ) -> Result<Answer, DataError> {
        if text.trim().is_empty() {
            self.warn(id, WarningKind::EmptyAnswer);
            return Ok(Answer { text, start: start.min(context.len()) });
        }
        let found = context.slice(start, start.saturating_add(text.chars().count()));
        if found == text {
            return Ok(Answer { text, start });
        }
        // An offset beyond the context is not a slip of a few characters: the file belongs to another text.
        let nearest = if start < context.len() {
            context.occurrences(&text).into_iter().min_by_key(|at| at.abs_diff(start))
        } else {
            None
        };
        match nearest {
            Some(to) => {
                self.warn(id, WarningKind::AnswerMoved { from: start, to });
                Ok(Answer { text, start: to })
            }
            None if self.tolerant => {
                self.warn(id, WarningKind::AnswerNowhere { from: start });
                Ok(Answer { text, start })
            }
            None => Err(DataError::AnswerMismatch {
                file: self.file.to_path_buf(),
                id: id.to_owned(),
                start,
                expected: shortened(&text, SHOWN),
                found: shortened(found, SHOWN),
            }),
        }
    }
}
