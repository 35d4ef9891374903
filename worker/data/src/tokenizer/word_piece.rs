//! BERT's tokenizer from `vocab.txt`.

use tokenizers::Tokenizer as Inner;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;

use super::folder::Folder;
use crate::DataError;

/// One piece to a line; the line's number is its id.
pub(super) const WORDS: &str = "vocab.txt";

pub(super) fn build(folder: &Folder) -> Result<Inner, DataError> {
    let broken = folder.broken(WORDS);
    let vocabulary = WordPiece::read_bytes(&folder.bytes(WORDS)?).map_err(&broken)?;
    let model = WordPiece::builder().vocab(vocabulary).build().map_err(&broken)?;
    let lower = folder.flag("do_lower_case").unwrap_or(true);
    let chinese = folder.flag("tokenize_chinese_chars").unwrap_or(true);
    let normalizer = BertNormalizer::new(true, chinese, folder.flag("strip_accents"), lower);
    let mut inner = Inner::new(model);
    inner.with_normalizer(Some(normalizer)).map_err(&broken)?;
    inner.with_pre_tokenizer(Some(BertPreTokenizer));
    Ok(inner)
}
