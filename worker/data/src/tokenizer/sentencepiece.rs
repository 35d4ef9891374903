//! Reading SentencePiece's model files: a protobuf message with pieces, scores and normalisation.
//!
//! Field numbers and defaults are those of `sentencepiece_model.proto` in the
//! SentencePiece project; fields that are not needed are skipped.

use prost::Message;
use tokenizers::normalizers::Precompiled;

use super::charsmap;

/// `ModelProto`.
#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<Normalizer>,
}

/// `ModelProto.SentencePiece`.
#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3", default = "1")]
    kind: Option<i32>,
}

/// `TrainerSpec`.
#[derive(Clone, PartialEq, Message)]
struct Trainer {
    #[prost(int32, optional, tag = "3", default = "1")]
    model_type: Option<i32>,
    #[prost(int32, optional, tag = "40", default = "0")]
    unk_id: Option<i32>,
}

/// `NormalizerSpec`.
#[derive(Clone, PartialEq, Message)]
struct Normalizer {
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3", default = "true")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4", default = "true")]
    remove_extra_whitespaces: Option<bool>,
}

/// `TrainerSpec.ModelType`, from 1 on.
const MODEL_TYPES: [&str; 4] = ["unigram", "BPE", "word", "character"];
/// `ModelProto.SentencePiece.Type` of the unknown piece.
const UNKNOWN: i32 = 2;

/// What a unigram file holds.
#[derive(Debug)]
pub(super) struct Pieces {
    /// Pieces and their logarithmic probabilities, by id.
    pub(super) pieces: Vec<(String, f64)>,
    /// Id of the piece for everything that is in no piece.
    pub(super) unknown: usize,
    /// The file's own character replacements.
    pub(super) charsmap: Option<Precompiled>,
    /// Whether a text is given a space at its beginning.
    pub(super) space_first: bool,
}

/// Reads a unigram file, and refuses in one sentence what is none.
pub(super) fn read(bytes: &[u8]) -> Result<Pieces, String> {
    const AGAIN: &str = "fetch the file again";
    let model = Model::decode(bytes).map_err(|e| format!("this is no SentencePiece file ({e}); {AGAIN}"))?;
    let trainer = model.trainer.unwrap_or_default();
    if trainer.model_type() != 1 {
        let number = usize::try_from(trainer.model_type()).unwrap_or(0);
        let found = number.checked_sub(1).and_then(|at| MODEL_TYPES.get(at)).unwrap_or(&"unheard-of");
        return Err(format!(
            "this is a SentencePiece file of the {found} kind, while ALBERT and XLM-R have the unigram kind; \
             take the tokenizer file of the model itself"
        ));
    }
    let normalizer = model.normalizer.unwrap_or_default();
    if !normalizer.remove_extra_whitespaces() {
        return Err("the file keeps runs of spaces, which no ALBERT or XLM-R file does; \
                    save its tokenizer as tokenizer.json instead"
            .to_owned());
    }
    let unknown = usize::try_from(trainer.unk_id()).unwrap_or(usize::MAX);
    if model.pieces.get(unknown).is_none_or(|piece| piece.kind() != UNKNOWN) {
        return Err(format!("the file is damaged: piece {unknown} should be the unknown one; {AGAIN}"));
    }
    if let Some(at) = model.pieces.iter().position(|p| p.piece().is_empty() || !p.score().is_finite()) {
        return Err(format!("the file is damaged: piece {at} has no text or no score; {AGAIN}"));
    }
    let charsmap = match normalizer.precompiled_charsmap() {
        [] => None,
        map => Some(charsmap::read(map).map_err(|what| format!("the file is damaged: {what}; {AGAIN}"))?),
    };
    let space_first = normalizer.add_dummy_prefix();
    let text = |piece: Piece| {
        let score = f64::from(piece.score());
        (piece.piece.unwrap_or_default(), score)
    };
    Ok(Pieces { pieces: model.pieces.into_iter().map(text).collect(), unknown, charsmap, space_first })
}
