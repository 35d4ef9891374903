//! What a model's folder holds: a configuration, a tokenizer, and weights in one of several forms.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::{FetchError, checksum};

/// The model's configuration.
pub(crate) const CONFIG: &str = "config.json";

/// Every file that can belong to a tokenizer; a model has some of them.
pub const TOKENIZER_FILES: [&str; 9] = [
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

/// Files that make a tokenizer by themselves, one group being enough.
const WHOLE_TOKENIZERS: [&[&str]; 5] = [
    &["tokenizer.json"],
    &["vocab.txt"],
    &["vocab.json", "merges.txt"],
    &["spiece.model"],
    &["sentencepiece.bpe.model"],
];

/// A way in which weights lie in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// The file that holds them, or that says which files do.
    pub(crate) file: &'static str,
    /// Whether the file is an index of shards.
    pub(crate) sharded: bool,
}

/// The forms of weights; the first that a repository has is taken.
pub(crate) const WEIGHTS: [Form; 4] = [
    Form { file: "model.safetensors", sharded: false },
    Form { file: "model.safetensors.index.json", sharded: true },
    Form { file: "pytorch_model.bin", sharded: false },
    Form { file: "pytorch_model.bin.index.json", sharded: true },
];

impl Form {
    /// The first form of which `folder` has the file.
    pub(crate) fn of(folder: &Path) -> Option<Self> {
        WEIGHTS.into_iter().find(|form| folder.join(form.file).is_file())
    }

    /// The shards that the file in `folder` lists; none where the file is the weights themselves.
    pub(crate) fn shards(self, folder: &Path) -> Result<BTreeSet<String>, FetchError> {
        if self.sharded { shards(&folder.join(self.file)) } else { Ok(BTreeSet::new()) }
    }

    /// Refuses an expected checksum of weights that are not one file.
    pub(crate) fn accepts(self, sha256: Option<&str>) -> Result<(), FetchError> {
        let refused = self.sharded && sha256.is_some();
        if refused { Err(FetchError::ShardedChecksum { index: self.file }) } else { Ok(()) }
    }
}

/// Whether the files that are `there` make a tokenizer.
pub fn is_tokenizer(there: impl Fn(&str) -> bool) -> bool {
    WHOLE_TOKENIZERS.iter().any(|files| files.iter().all(|file| there(file)))
}

/// The files that would make a tokenizer, for people.
pub fn tokenizer_choices() -> String {
    WHOLE_TOKENIZERS.map(|files| files.join(" with ")).join(", ")
}

/// What `folder` lacks of a model; of files that may stand for each other the usual one is named. Weights
/// that do not have the expected checksum are lacking, too.
pub(crate) fn missing(folder: &Path, sha256: Option<&str>) -> Result<Vec<String>, FetchError> {
    let there = |name: &str| folder.join(name).is_file();
    let mut missing = Vec::new();
    if !there(CONFIG) {
        missing.push(CONFIG.to_owned());
    }
    if !is_tokenizer(there) {
        missing.push(TOKENIZER_FILES[0].to_owned());
    }
    let Some(form) = Form::of(folder) else {
        missing.push(WEIGHTS[0].file.to_owned());
        return Ok(missing);
    };
    form.accepts(sha256)?;
    missing.extend(form.shards(folder)?.into_iter().filter(|name| !there(name)));
    if let Some(expected) = sha256
        && checksum::sha256_of(&folder.join(form.file))? != expected
    {
        missing.push(form.file.to_owned());
    }
    Ok(missing)
}

/// Whether `name` can be a shard's: a plain file name that can only be one of weights.
pub(crate) fn is_shard(name: &str) -> bool {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    plain && !name.starts_with('.') && [".safetensors", ".bin"].iter().any(|end| name.ends_with(end))
}

/// The files that an index names. Nothing outside the index's own folder is believed.
fn shards(index: &Path) -> Result<BTreeSet<String>, FetchError> {
    /// The part of an index that says which tensor lies in which file.
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let bad = |reason: String| FetchError::BadIndex { path: index.to_owned(), reason };
    let text = fs::read(index).map_err(FetchError::file("read", index))?;
    let parsed: Index = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    if let Some(name) = names.iter().find(|name| !is_shard(name)) {
        return Err(bad(format!("{name:?} is not the name of a file of weights beside it")));
    }
    if names.is_empty() { Err(bad("it names no file".into())) } else { Ok(names) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_names_files_beside_it_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.json");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            shards(&path)
        };
        let names = read(r#"{"metadata": {}, "weight_map": {"b": "2.bin", "a": "1.bin", "c": "2.bin"}}"#);
        assert_eq!(names.unwrap().into_iter().collect::<Vec<_>>(), ["1.bin", "2.bin"]);
        for name in ["../x.bin", "/x.bin", "a/b.bin", ".x.bin", "config.json", "a?b.bin", ""] {
            let error = read(&format!(r#"{{"weight_map": {{"a": {name:?}}}}}"#)).unwrap_err().to_string();
            assert!(error.contains("index.json") && error.contains(&format!("{name:?}")), "{error}");
        }
        for text in ["", "{}", r#"{"weight_map": {}}"#, r#"{"weight_map": {"a": 1}}"#] {
            assert!(matches!(read(text), Err(FetchError::BadIndex { .. })), "{text}");
        }
    }

    #[test]
    fn one_whole_tokenizer_is_enough_and_half_of_one_is_not() {
        for (files, enough) in [
            (&["tokenizer.json"][..], true),
            (&["vocab.json"], false),
            (&["merges.txt", "vocab.json"], true),
            (&["tokenizer_config.json", "special_tokens_map.json"], false),
            (&["spiece.model"], true),
        ] {
            assert_eq!(is_tokenizer(|name| files.contains(&name)), enough, "{files:?}");
        }
        let listed = WHOLE_TOKENIZERS.iter().flat_map(|files| files.iter());
        assert!(listed.into_iter().all(|file| TOKENIZER_FILES.contains(file)));
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let missing = |sha256| missing(folder.path(), sha256).unwrap();
        assert_eq!(missing(None), ["config.json", "tokenizer.json", "model.safetensors"]);
        put("config.json", "{}");
        put("spiece.model", "");
        put("pytorch_model.bin.index.json", r#"{"weight_map": {"a": "1.bin", "b": "2.bin"}}"#);
        put("2.bin", "");
        assert_eq!(missing(None), ["1.bin"]);
        put("pytorch_model.bin", "abc");
        assert!(missing(None).is_empty());
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(missing(Some(abc)).is_empty());
        put("pytorch_model.bin", "abd");
        assert_eq!(missing(Some(abc)), ["pytorch_model.bin"]);
    }

    #[test]
    fn one_checksum_is_not_that_of_many_files() {
        let error = WEIGHTS[1].accepts(Some("ab")).unwrap_err().to_string();
        assert!(error.contains("model.safetensors.index.json"), "{error}");
        assert!(WEIGHTS[1].accepts(None).is_ok() && WEIGHTS[0].accepts(Some("ab")).is_ok());
    }
}
