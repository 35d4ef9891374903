//! Sub-word tokenization with code-point offsets, from a model folder in Hugging Face layout.
//!
//! A folder's `tokenizer.json` is taken as it is. Where only the raw vocabulary
//! files exist, the tokenizer is assembled as Hugging Face's class of the family
//! does: `word_piece`, `byte_level` or `unigram`.

use std::path::Path;

use tokenizers::Tokenizer as Inner;

use crate::text::shortened;
use crate::{DataError, PairLayout};

mod byte_level;
mod charsmap;
mod family;
mod folder;
mod pairs;
mod sentencepiece;
mod special;
mod unigram;
mod word_piece;

use family::Family;
use folder::Folder;

/// The file that describes a whole tokenizer.
const COMPLETE: &str = "tokenizer.json";

/// A tokenizer without truncation, padding or special tokens: those are the features' business.
///
/// `tokenizer.json` files often carry truncation and padding of another task (the
/// sentence-embedding MiniLM truncates at 128); both are switched off on loading.
pub struct Tokenizer {
    inner: Inner,
    layout: PairLayout,
    cls: i32,
    sep: i32,
    pad: i32,
    digest: [u8; 32],
}

/// The tokens of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Vocabulary ids.
    pub ids: Vec<i32>,
    /// For every token its half-open span in the text, in code points. Starts never
    /// decrease; spans may be empty (a lone space of a byte-level tokenizer) or shared
    /// (the bytes of one character, the letters of a ligature).
    pub offsets: Vec<(u32, u32)>,
}

impl Tokenizer {
    /// Loads `tokenizer.json`, or else builds the family's tokenizer from its raw files:
    ///
    /// | family | files | settings of `tokenizer_config.json` (default) |
    /// |---|---|---|
    /// | BERT, ELECTRA, MobileBERT, DistilBERT | `vocab.txt` | `do_lower_case` (true), `strip_accents` (as lower-casing), `tokenize_chinese_chars` (true) |
    /// | RoBERTa | `vocab.json`, `merges.txt` | `add_prefix_space` (false), `trim_offsets` (true) |
    /// | ALBERT | `spiece.model` | `do_lower_case` (true), `keep_accents` (false), `add_prefix_space` (the file's) |
    /// | XLM-R | `sentencepiece.bpe.model` | `add_prefix_space` (the file's) |
    ///
    /// The family is `tokenizer_class` of `tokenizer_config.json` or `config.json`,
    /// else `model_type` of `config.json`, else told from the files' names.
    ///
    /// The classifier, separator and padding tokens are taken from
    /// `special_tokens_map.json` or `tokenizer_config.json`, else by their usual
    /// names; a vocabulary without a classifier token uses its sentence borders.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] when the files are absent or broken, belong to a
    /// family that cannot be built, or a special token is not in the vocabulary.
    pub fn from_folder(folder: &Path) -> Result<Self, DataError> {
        let folder = Folder::open(folder)?;
        let (mut inner, layout) = if folder.has(COMPLETE) {
            let inner = Inner::from_bytes(folder.bytes(COMPLETE)?).map_err(folder.broken(COMPLETE))?;
            let layout = inner.get_post_processor().and_then(pairs::layout);
            let usual = || Family::named(&folder).known().map_or(PairLayout::Single, Family::layout);
            (inner, layout.unwrap_or_else(usual))
        } else {
            let family = Family::of_raw_files(&folder)?;
            (family.build(&folder)?, family.layout())
        };
        inner.with_truncation(None).map_err(folder.broken(COMPLETE))?;
        inner.with_padding(None);
        let id = |role: &str, usual: &[&str]| special::id(&folder, &inner, role, usual).map(signed);
        let cls = id("cls_token", &["[CLS]", "<s>"])?;
        let sep = id("sep_token", &["[SEP]", "</s>"])?;
        let pad = id("pad_token", &["[PAD]", "<pad>"])?;
        Ok(Self { inner, layout, cls, sep, pad, digest: folder.digest() })
    }

    /// How Hugging Face joins two texts for this tokenizer: as the pair template of
    /// `tokenizer.json` says, else as is usual in the family.
    #[must_use]
    pub fn layout(&self) -> PairLayout {
        self.layout
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

    /// SHA-256 over the files that it was made from.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest
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
            .field("layout", &self.layout)
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
