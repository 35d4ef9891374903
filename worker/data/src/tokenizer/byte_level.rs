//! RoBERTa's tokenizer, byte-level BPE, from `vocab.json` and `merges.txt`.

use tokenizers::Tokenizer as Inner;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::folder::Folder;
use crate::DataError;

/// Pieces and their ids.
pub(super) const IDS: &str = "vocab.json";
/// Pairs of pieces in the order in which they are joined.
pub(super) const MERGES: &str = "merges.txt";

pub(super) fn build(folder: &Folder) -> Result<Inner, DataError> {
    let vocabulary = ids(folder)?;
    let merges = merges(folder, &vocabulary)?;
    let model = BPE::builder().vocab_and_merges(vocabulary, merges).build().map_err(folder.broken(MERGES))?;
    let prefix = folder.flag("add_prefix_space").unwrap_or(false);
    let trim = folder.flag("trim_offsets").unwrap_or(true);
    let mut inner = Inner::new(model);
    let bytes = ByteLevel::new(prefix, trim, true);
    inner.with_pre_tokenizer(Some(bytes));
    // As post-processor the same type takes the spaces out of the offsets.
    inner.with_post_processor(Some(bytes));
    Ok(inner)
}

fn ids(folder: &Folder) -> Result<Vocab, DataError> {
    let ids: std::collections::HashMap<String, u32> =
        serde_json::from_slice(&folder.bytes(IDS)?).map_err(folder.broken(IDS))?;
    Ok(ids.into_iter().collect())
}

/// Checked here, since the library trusts that what a pair joins to is a piece.
fn merges(folder: &Folder, vocabulary: &Vocab) -> Result<Merges, DataError> {
    let text = String::from_utf8(folder.bytes(MERGES)?).map_err(folder.broken(MERGES))?;
    let lines =
        text.lines().enumerate().filter(|(_, line)| !line.starts_with("#version") && !line.is_empty());
    let pair = |(at, line): (usize, &str)| {
        let wrong = |what: String| folder.error(format!("{MERGES}, line {}: {what}", at + 1));
        let (left, right) = line
            .split_once(' ')
            .filter(|(_, right)| !right.contains(' '))
            .ok_or_else(|| wrong(format!("expected two pieces with one space between, found {line:?}")))?;
        let joined = format!("{left}{right}");
        match [left, right, &joined].into_iter().find(|piece| !vocabulary.contains_key(*piece)) {
            Some(piece) => {
                Err(wrong(format!("{IDS} lacks {piece:?}; the two files belong to different models")))
            }
            None => Ok((left.to_owned(), right.to_owned())),
        }
    };
    lines.map(pair).collect()
}
