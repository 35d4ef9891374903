//! Sub-word tokenization with code-point offsets, from a model folder in Hugging Face layout.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Tokenizer as Inner};

use crate::DataError;
use crate::text::shortened;

/// A tokenizer without truncation, padding or special tokens: those are the features' business.
///
/// `tokenizer.json` files often carry truncation and padding of another task (the
/// sentence-embedding MiniLM truncates at 128); both are switched off on loading.
pub struct Tokenizer {
    inner: Inner,
    cls: i32,
    sep: i32,
    pad: i32,
}

/// The tokens of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Vocabulary ids.
    pub ids: Vec<i32>,
    /// For every token its half-open span in the text, in code points.
    pub offsets: Vec<(u32, u32)>,
}

impl Tokenizer {
    /// Loads `tokenizer.json`, or else builds BERT's WordPiece from `vocab.txt` with
    /// `do_lower_case`, `strip_accents` and `tokenize_chinese_chars` of
    /// `tokenizer_config.json` (by default: true, as lower-casing, true).
    ///
    /// The classifier, separator and padding tokens are taken from
    /// `special_tokens_map.json` or `tokenizer_config.json`, else by their usual
    /// names; a vocabulary without a classifier token uses its sentence borders.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] when neither file is there, one is broken, or a
    /// special token is not in the vocabulary.
    pub fn from_folder(folder: &Path) -> Result<Self, DataError> {
        let loader = Loader { folder: folder.to_path_buf() };
        let config = loader.json("tokenizer_config.json")?;
        let names = loader.json("special_tokens_map.json")?;
        let mut inner = if folder.join("tokenizer.json").exists() {
            let file = folder.join("tokenizer.json");
            Inner::from_file(&file).map_err(|e| loader.error(format!("tokenizer.json: {e}")))?
        } else if folder.join("vocab.txt").exists() {
            loader.word_piece(&config)?
        } else {
            return Err(loader.error("found neither tokenizer.json nor vocab.txt".to_owned()));
        };
        inner.with_truncation(None).map_err(|e| loader.error(e.to_string()))?;
        inner.with_padding(None);
        let special = |role: &str, usual: &[&str]| loader.special(&inner, [&names, &config], role, usual);
        let cls = special("cls_token", &["[CLS]", "<s>"])?;
        let sep = special("sep_token", &["[SEP]", "</s>"])?;
        let pad = special("pad_token", &["[PAD]", "<pad>"])?;
        Ok(Self { inner, cls, sep, pad })
    }

    /// Id of the token that starts a sequence; its position stands for "no answer".
    #[must_use]
    pub fn cls(&self) -> i32 {
        self.cls
    }

    /// Id of the token after the question and after the context.
    #[must_use]
    pub fn sep(&self) -> i32 {
        self.sep
    }

    /// Id that fills a batch's shorter rows.
    #[must_use]
    pub fn pad(&self) -> i32 {
        self.pad
    }

    /// Number of ids, added tokens included: the least size of the model's word embedding.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Tokens of the whole text, without special tokens.
    ///
    /// # Errors
    /// [`DataError::Encode`] when the tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Encoded, DataError> {
        let encoding = self.inner.encode_char_offsets(text, false).map_err(|e| refused(text, &e))?;
        let ids = encoding.get_ids().iter().map(|id| signed(*id)).collect();
        // Offsets of a text above 4 billion code points cannot occur in memory-bound question files.
        let short = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let offsets = encoding.get_offsets().iter().map(|(a, b)| (short(*a), short(*b))).collect();
        Ok(Encoded { ids, offsets })
    }

    /// The ids of [`encode`](Self::encode) without offsets, which is quicker.
    ///
    /// # Errors
    /// [`DataError::Encode`] when the tokenizer refuses the text.
    pub fn ids(&self, text: &str) -> Result<Vec<i32>, DataError> {
        let encoding = self.inner.encode_fast(text, false).map_err(|e| refused(text, &e))?;
        Ok(encoding.get_ids().iter().map(|id| signed(*id)).collect())
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocabulary", &self.vocabulary())
            .field("cls", &self.cls)
            .field("sep", &self.sep)
            .field("pad", &self.pad)
            .finish_non_exhaustive()
    }
}

fn refused(text: &str, error: &tokenizers::Error) -> DataError {
    DataError::Encode { text: shortened(text, 60), reason: error.to_string() }
}

/// Ids are positions in an embedding table: far below the sign bit.
fn signed(id: u32) -> i32 {
    i32::try_from(id).unwrap_or(i32::MAX)
}

struct Loader {
    folder: PathBuf,
}

impl Loader {
    fn error(&self, reason: String) -> DataError {
        DataError::Tokenizer { folder: self.folder.clone(), reason }
    }

    /// An optional JSON file; `Null` when absent.
    fn json(&self, name: &str) -> Result<Value, DataError> {
        match std::fs::read(self.folder.join(name)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| self.error(format!("{name}: {e}"))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
            Err(e) => Err(self.error(format!("{name}: {e}"))),
        }
    }

    fn word_piece(&self, config: &Value) -> Result<Inner, DataError> {
        let bytes = std::fs::read(self.folder.join("vocab.txt"))
            .map_err(|e| self.error(format!("vocab.txt: {e}")))?;
        let broken = |e: tokenizers::Error| self.error(format!("vocab.txt: {e}"));
        let vocabulary = WordPiece::read_bytes(&bytes).map_err(broken)?;
        let model = WordPiece::builder().vocab(vocabulary).build().map_err(broken)?;
        let flag = |name: &str| config.get(name).and_then(Value::as_bool);
        let lower = flag("do_lower_case").unwrap_or(true);
        let chinese = flag("tokenize_chinese_chars").unwrap_or(true);
        let normalizer = BertNormalizer::new(true, chinese, flag("strip_accents"), lower);
        let mut inner = Inner::new(model);
        inner.with_normalizer(Some(normalizer)).map_err(|e| self.error(e.to_string()))?;
        inner.with_pre_tokenizer(Some(BertPreTokenizer));
        // As in the fast tokenizers, a special token written out in a text is that token, not its letters.
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
            .into_iter()
            .filter(|t| inner.token_to_id(t).is_some())
            .map(|t| AddedToken::from(t, true))
            .collect::<Vec<_>>();
        inner.add_special_tokens(special).map_err(|e| self.error(e.to_string()))?;
        Ok(inner)
    }

    fn special(
        &self,
        inner: &Inner,
        files: [&Value; 2],
        role: &str,
        usual: &[&str],
    ) -> Result<i32, DataError> {
        // A token is written as a string or as an object that describes it.
        let named = files.iter().find_map(|file| {
            let entry = file.get(role)?;
            entry.as_str().or_else(|| entry.get("content")?.as_str())
        });
        if let Some(name) = named {
            let id = inner.token_to_id(name);
            return id.map(signed).ok_or_else(|| {
                self.error(format!("the vocabulary lacks {name:?}, which the folder names as its {role}"))
            });
        }
        usual.iter().find_map(|name| inner.token_to_id(name)).map(signed).ok_or_else(|| {
            self.error(format!("no {role}: the folder names none and the vocabulary has none of {usual:?}"))
        })
    }
}
