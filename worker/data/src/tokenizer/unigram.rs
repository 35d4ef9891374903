//! ALBERT's and XLM-R's tokenizers from SentencePiece unigram files.
//!
//! Both are as in the published `tokenizer.json` files. ALBERT's differs from what
//! transformers 5 makes of a lone `spiece.model`, in which symbols of the training
//! command such as `(` become words of their own and figures keep their commas.

use tokenizers::Tokenizer as Inner;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::{Lowercase, NFKD, NormalizerWrapper, Replace, Sequence, StripAccents};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence as Steps;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;

use super::folder::Folder;
use super::sentencepiece::{self, Pieces};
use crate::DataError;

/// ALBERT's SentencePiece file.
pub(super) const ALBERT: &str = "spiece.model";
/// XLM-R's SentencePiece file; in spite of its name its pieces are unigram's.
pub(super) const XLM_ROBERTA: &str = "sentencepiece.bpe.model";

/// What stands for a space before a word.
const SPACE: char = '\u{2581}';
/// Added to the score of ALBERT's pieces that no text shall be cut into.
const UNWANTED: f64 = -100.0;

pub(super) fn albert(folder: &Folder) -> Result<Inner, DataError> {
    let broken = folder.broken(ALBERT);
    let mut file = sentencepiece::read(&folder.bytes(ALBERT)?).map_err(folder.broken(ALBERT))?;
    for (piece, score) in &mut file.pieces {
        if is_figure_with_comma(piece) {
            *score += UNWANTED;
        }
    }
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    for quotes in ["``", "''"] {
        steps.push(Replace::new(quotes, "\"").map_err(&broken)?.into());
    }
    if !folder.flag("keep_accents").unwrap_or(false) {
        steps.extend([NFKD.into(), StripAccents.into()]);
    }
    if folder.flag("do_lower_case").unwrap_or(true) {
        steps.push(Lowercase.into());
    }
    assemble(folder, ALBERT, file, steps)
}

pub(super) fn xlm_roberta(folder: &Folder) -> Result<Inner, DataError> {
    let mut file = sentencepiece::read(&folder.bytes(XLM_ROBERTA)?).map_err(folder.broken(XLM_ROBERTA))?;
    let first: Vec<&str> = file.pieces.iter().take(3).map(|(piece, _)| piece.as_str()).collect();
    if first != ["<unk>", "<s>", "</s>"] {
        return Err(folder.error(format!(
            "{XLM_ROBERTA}: its first pieces are {first:?}, not XLM-R's <unk>, <s> and </s>; \
             it belongs to another model"
        )));
    }
    // The model's embedding is in fairseq's order: four special tokens, the pieces, the mask.
    let special = |name: &str| (name.to_owned(), 0.0);
    let unknown = 3;
    file.pieces.splice(..unknown, ["<s>", "<pad>", "</s>", "<unk>"].map(special));
    file.pieces.push(special("<mask>"));
    assemble(folder, XLM_ROBERTA, Pieces { unknown, ..file }, Vec::new())
}

fn assemble(
    folder: &Folder,
    name: &str,
    file: Pieces,
    mut steps: Vec<NormalizerWrapper>,
) -> Result<Inner, DataError> {
    let broken = folder.broken(name);
    let model = Unigram::from(file.pieces, Some(file.unknown), false).map_err(&broken)?;
    let mut inner = Inner::new(model);
    steps.extend(file.charsmap.map(NormalizerWrapper::from));
    if !steps.is_empty() {
        inner.with_normalizer(Some(Sequence::new(steps))).map_err(&broken)?;
    }
    let prepend = match folder.flag("add_prefix_space").unwrap_or(file.space_first) {
        true => PrependScheme::Always,
        false => PrependScheme::Never,
    };
    // Splitting at white space first makes one space of many, and none at the ends.
    let metaspace = Metaspace::new(SPACE, prepend, true);
    inner.with_pre_tokenizer(Some(Steps::new(vec![WhitespaceSplit.into(), metaspace.into()])));
    Ok(inner)
}

/// ALBERT's program cuts `9,` into two pieces, although the vocabulary has some such ones.
fn is_figure_with_comma(piece: &str) -> bool {
    piece.strip_suffix(',').is_some_and(|head| head.ends_with(|c: char| c.is_ascii_digit()))
}
