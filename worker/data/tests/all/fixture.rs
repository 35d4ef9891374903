//! A small WordPiece vocabulary, data sets of our own sentences, and the shared folder.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use squad_data::{Dataset, FeatureSettings, Features, PairLayout, Purpose, Tokenizer, Window, squad};

/// Every lower-case letter and digit alone and as a continuation, so that any word of them has tokens.
pub(crate) fn vocabulary() -> Vec<String> {
    let mut words: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned).into();
    words.extend(["the", "who", "what", "##ing", "blue", "snow", "漢", "字"].map(str::to_owned));
    words.extend(".,?!".chars().map(String::from));
    for c in ('a'..='z').chain('0'..='9') {
        words.extend([c.to_string(), format!("##{c}")]);
    }
    words
}

/// Writes `vocab.txt` into a fresh folder.
pub(crate) fn folder(words: &[String]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("vocab.txt"), words.join("\n")).unwrap();
    folder
}

pub(crate) fn tokenizer() -> Tokenizer {
    Tokenizer::from_folder(folder(&vocabulary()).path()).unwrap()
}

/// Id, question, and the answer's text and offset.
pub(crate) type Asked<'a> = (&'a str, &'a str, Option<(&'a str, usize)>);

/// One paragraph as SQuAD JSON; a question without an answer is marked impossible.
pub(crate) fn paragraph(context: &str, asked: &[Asked<'_>]) -> Value {
    let qas: Vec<Value> = asked
        .iter()
        .map(|(id, question, answer)| {
            let answers: Vec<Value> =
                answer.iter().map(|(text, start)| json!({"text": text, "answer_start": start})).collect();
            json!({"id": id, "question": question, "answers": answers, "is_impossible": answer.is_none()})
        })
        .collect();
    json!({"context": context, "qas": qas})
}

pub(crate) fn document(paragraphs: &[Value]) -> Value {
    json!({"version": "test", "data": [{"title": "T", "paragraphs": paragraphs}]})
}

pub(crate) fn dataset(document: &Value) -> Dataset {
    squad::parse(Path::new("test.json"), document.to_string().as_bytes()).unwrap()
}

pub(crate) fn settings(max_seq_length: usize, doc_stride: usize, window: Window) -> FeatureSettings {
    FeatureSettings { max_seq_length, doc_stride, max_query_length: 64, window, layout: PairLayout::Single }
}

pub(crate) fn build(data: &Dataset, settings: &FeatureSettings, purpose: Purpose) -> Features {
    Features::build(data, &tokenizer(), settings, purpose).unwrap()
}

/// A JSON file under `tests/golden`.
pub(crate) fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub(crate) fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

pub(crate) fn list<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// The tokenizers under `tests/golden/tokenizers`.
pub(crate) const KINDS: [&str; 5] = ["uncased", "cased", "byte_level", "albert", "xlm_roberta"];

/// The folder of one of [`KINDS`].
pub(crate) fn kind_folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizers").join(kind)
}

/// A copy of a kind's folder without `left_out`.
pub(crate) fn kind_without(kind: &str, left_out: &[&str]) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(kind_folder(kind)).unwrap() {
        let entry = entry.unwrap();
        if !left_out.iter().any(|name| entry.file_name() == *name) {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    copy
}

/// A file under `shared/data/squad`, which lies beside the checkout on the development machines only.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = here.ancestors().map(|up| up.join("shared/data/squad").join(name)).find(|file| file.exists());
    if found.is_none() {
        eprintln!("SKIPPED: no shared/data/squad/{name} above {}: this test checked NOTHING", here.display());
    }
    found
}
