//! Folders of raw tokenizer files: which family they are, and what is said of broken ones.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};
use squad_data::{PairLayout, Tokenizer};

use crate::fixture::{folder, kind_folder, kind_without, vocabulary};

const RAW: [(&str, &str); 2] = [("albert", "spiece.model"), ("xlm_roberta", "sentencepiece.bpe.model")];

fn refusal(folder: &Path) -> String {
    let message = Tokenizer::from_folder(folder).unwrap_err().to_string();
    let place = format!("tokenizer in {}: ", folder.display());
    message.strip_prefix(&place).unwrap().to_owned()
}

/// Writes a JSON file into a folder.
fn put(folder: &Path, name: &str, value: &Value) {
    fs::write(folder.join(name), value.to_string()).unwrap();
}

/// A field of a protobuf message whose content has a length.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
    out.extend(content);
    out
}

/// A SentencePiece file of a few pieces, each with its type; `trainer` are the trainer's settings.
fn model(pieces: &[(&str, u8)], trainer: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (text, kind) in pieces {
        let mut piece = field(1, text.as_bytes());
        piece.extend([2 << 3 | 5, 0, 0, 0x80, 0xbf, 3 << 3, *kind]);
        out.extend(field(1, &piece));
    }
    out.extend(field(2, trainer));
    out
}

const UNK_ID_1: [u8; 3] = [0xc0, 0x02, 1];
const ALBERT: [(&str, u8); 6] =
    [("<pad>", 3), ("<unk>", 2), ("[CLS]", 3), ("[SEP]", 3), ("\u{2581}a", 1), ("b", 1)];

fn albert(bytes: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("spiece.model"), bytes).unwrap();
    dir
}

#[test]
fn a_minimal_sentencepiece_file_works() {
    let t = Tokenizer::from_folder(albert(&model(&ALBERT, &UNK_ID_1)).path()).unwrap();
    assert_eq!((t.pad(), t.cls(), t.sep(), t.vocabulary(), t.layout()), (0, 2, 3, 6, PairLayout::Single));
    assert_eq!(t.ids("Ab a [SEP]a?").unwrap(), [4, 5, 4, 3, 4, 1]);
}

#[test]
fn sentencepiece_files_that_do_not_fit_are_described() {
    let with = |bytes: Vec<u8>| refusal(albert(&bytes).path());
    let bpe = [&[3 << 3, 2], &UNK_ID_1[..]].concat();
    assert_eq!(
        with(model(&ALBERT, &bpe)),
        "spiece.model: this is a SentencePiece file of the BPE kind, while ALBERT and XLM-R have the unigram kind; \
         take the tokenizer file of the model itself"
    );
    assert!(with(b"version https://git-lfs.github.com/spec/v1".to_vec()).contains("no SentencePiece file"));
    assert!(with(Vec::new()).contains("piece 0 should be the unknown one"));
    assert!(with(model(&ALBERT, &[])).contains("piece 0 should be the unknown one"));
    let mut hollow = ALBERT;
    hollow[4].0 = "";
    assert!(
        with(model(&hollow, &UNK_ID_1)).contains("piece 4 has no text or no score; fetch the file again")
    );
    let sound = model(&ALBERT, &UNK_ID_1);
    let broken_map = field(3, &field(2, &[4, 0, 0, 0, 0, 0, 0, 0]));
    assert!(with([sound.clone(), broken_map].concat()).contains("point outside their trie"));
    let keeps_spaces = field(3, &[4 << 3, 0]);
    assert!(with([sound.clone(), keeps_spaces].concat()).contains("keeps runs of spaces"));
    assert!(with(model(&ALBERT[..3], &UNK_ID_1)).contains("no sep_token"));

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("sentencepiece.bpe.model"), sound).unwrap();
    assert!(
        refusal(dir.path()).contains("its first pieces are [\"<pad>\", \"<unk>\", \"[CLS]\"], not XLM-R's")
    );
}

#[test]
fn the_files_own_space_rule_holds_unless_the_folder_has_one() {
    let without_space = field(3, &[3 << 3, 0]);
    let dir = albert(&[model(&ALBERT, &UNK_ID_1), without_space].concat());
    assert_eq!(Tokenizer::from_folder(dir.path()).unwrap().ids("b").unwrap(), [5]);
    put(dir.path(), "tokenizer_config.json", &json!({"add_prefix_space": true}));
    assert_eq!(Tokenizer::from_folder(dir.path()).unwrap().ids("b").unwrap(), [1, 5]);
}

#[test]
fn figures_and_their_commas_are_apart_in_albert() {
    let mut pieces = ALBERT.to_vec();
    pieces.extend([("\u{2581}9,", 1), ("\u{2581}9", 1), (",", 1), ("b,", 1)]);
    let t = Tokenizer::from_folder(albert(&model(&pieces, &UNK_ID_1)).path()).unwrap();
    assert_eq!(t.ids("9, ab,").unwrap(), [7, 8, 4, 9]);
}

#[test]
fn accents_and_case_stay_where_the_folder_says_so() {
    let pieces = [&ALBERT[..], &[("\u{2581}\u{e9}", 1), ("B", 1)]].concat();
    let dir = albert(&model(&pieces, &UNK_ID_1));
    put(dir.path(), "tokenizer_config.json", &json!({"keep_accents": true, "do_lower_case": false}));
    assert_eq!(Tokenizer::from_folder(dir.path()).unwrap().ids("\u{e9}Bb").unwrap(), [6, 7, 5]);
}

#[test]
fn names_in_the_folder_come_before_names_of_files() {
    // The multilingual MiniLM: BERT's network, XLM-R's tokenizer. And a folder with a file too many.
    let dir = kind_without("xlm_roberta", &["tokenizer.json", "tokenizer_config.json"]);
    fs::write(dir.path().join("vocab.txt"), vocabulary().join("\n")).unwrap();
    let layout = || Tokenizer::from_folder(dir.path()).unwrap().layout();
    assert_eq!(layout(), PairLayout::Single, "vocab.txt is looked for first");
    put(dir.path(), "config.json", &json!({"model_type": "xlm-roberta"}));
    assert_eq!(layout(), PairLayout::Double);
    put(
        dir.path(),
        "config.json",
        &json!({"model_type": "bert", "tokenizer_class": "XLMRobertaTokenizerFast"}),
    );
    assert_eq!(layout(), PairLayout::Double);
    put(dir.path(), "tokenizer_config.json", &json!({"tokenizer_class": "ElectraTokenizer"}));
    assert_eq!(layout(), PairLayout::Single);
    put(dir.path(), "tokenizer_config.json", &json!({"tokenizer_class": "PreTrainedTokenizerFast"}));
    assert_eq!(layout(), PairLayout::Double, "a class for all says nothing");
}

#[test]
fn the_family_decides_where_a_complete_file_has_no_pair_template() {
    let dir = kind_without("byte_level", &["tokenizer_config.json"]);
    let bytes = fs::read(kind_folder("byte_level").join("tokenizer.json")).unwrap();
    let mut complete: Value = serde_json::from_slice(&bytes).unwrap();
    complete["post_processor"] = Value::Null;
    put(dir.path(), "tokenizer.json", &complete);
    let layout = || Tokenizer::from_folder(dir.path()).unwrap().layout();
    assert_eq!(layout(), PairLayout::Single);
    put(dir.path(), "config.json", &json!({"model_type": "roberta"}));
    assert_eq!(layout(), PairLayout::Double);
}

#[test]
fn families_without_raw_files_are_named() {
    let dir = folder(&vocabulary());
    put(dir.path(), "config.json", &json!({"model_type": "roberta"}));
    assert_eq!(
        refusal(dir.path()),
        "found neither tokenizer.json nor vocab.json with merges.txt; fetch the model's tokenizer files into it"
    );
    put(dir.path(), "config.json", &json!({"model_type": "mpnet"}));
    assert!(
        refusal(dir.path()).starts_with("found no tokenizer.json, and the tokenizer of \"mpnet\" cannot")
    );
}

#[test]
fn merges_are_checked_against_their_vocabulary() {
    let dir = kind_without("byte_level", &["tokenizer.json"]);
    let merges = dir.path().join("merges.txt");
    let sound = fs::read_to_string(&merges).unwrap();
    let with = |line: &str| {
        fs::write(&merges, format!("{sound}{line}\n")).unwrap();
        let message = refusal(dir.path());
        let at = sound.lines().count() + 1;
        message.strip_prefix(&format!("merges.txt, line {at}: ")).unwrap().to_owned()
    };
    assert_eq!(with("a"), "expected two pieces with one space between, found \"a\"");
    assert_eq!(with("a b c"), "expected two pieces with one space between, found \"a b c\"");
    let lacking = "vocab.json lacks \"zzzz\"; the two files belong to different models";
    assert_eq!(with("zzzz a"), lacking);
    // Pieces that are there, but not joined; longer than any piece, on which the library would stop.
    let long = "\u{120}lighthouse";
    assert!(
        with(&format!("{long} {long}"))
            .starts_with("vocab.json lacks \"\u{120}lighthouse\u{120}lighthouse\"")
    );
    fs::write(&merges, b"\xff").unwrap();
    assert!(refusal(dir.path()).starts_with("merges.txt: invalid utf-8"));
    fs::write(dir.path().join("vocab.json"), "[1]").unwrap();
    assert!(refusal(dir.path()).starts_with("vocab.json: "));
}

#[test]
fn spaces_before_words_and_in_offsets_are_settings() {
    let dir = kind_without("byte_level", &["tokenizer.json"]);
    let encode = |settings: Value| {
        put(dir.path(), "tokenizer_config.json", &settings);
        Tokenizer::from_folder(dir.path()).unwrap().encode("the the").unwrap()
    };
    let plain = encode(json!({}));
    let spaced = encode(json!({"add_prefix_space": true}));
    assert_eq!(spaced.ids[0], spaced.ids[1]);
    assert_eq!(plain.ids.last(), spaced.ids.last());
    assert_ne!(plain.ids[0], spaced.ids[0]);
    assert_eq!(plain.offsets.last(), Some(&(4, 7)));
    assert_eq!(encode(json!({"trim_offsets": false})).offsets.last(), Some(&(3, 7)));
}

#[test]
fn added_tokens_describe_or_append() {
    let words = vocabulary();
    let dir = folder(&words);
    let with = |id: usize, name: &str| {
        let entry = json!({"content": name, "lstrip": true, "special": false});
        put(dir.path(), "tokenizer_config.json", &json!({"added_tokens_decoder": {id.to_string(): entry}}));
    };
    with(words.len(), "<new>");
    let t = Tokenizer::from_folder(dir.path()).unwrap();
    let appended = i32::try_from(words.len()).unwrap();
    assert_eq!((t.vocabulary(), t.ids("blue <new>").unwrap()), (words.len() + 1, vec![9, appended]));
    assert_eq!(t.encode("blue <new>").unwrap().offsets, [(0, 4), (4, 10)], "it takes the space before it");
    with(4, "[MASK]");
    assert_eq!(
        Tokenizer::from_folder(dir.path()).unwrap().encode("a [MASK]").unwrap().offsets,
        [(0, 1), (1, 8)]
    );
    for (id, name) in [(words.len() + 1, "<new>"), (5, "[MASK]")] {
        with(id, name);
        let start = format!("tokenizer_config.json gives {name:?} the id {id}, which does not fit");
        assert!(refusal(dir.path()).starts_with(&start));
    }
}

proptest! {
    /// A damaged file is refused or read as something else, but nothing panics.
    #[test]
    fn damaged_sentencepiece_files_do_no_harm(
        which in 0usize..2, at: prop::sample::Index, byte: u8, cut: prop::sample::Index, shorten: bool
    ) {
        let (kind, name) = RAW[which];
        let dir = kind_without(kind, &["tokenizer.json"]);
        let mut bytes = fs::read(dir.path().join(name)).unwrap();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        if shorten {
            bytes.truncate(cut.index(bytes.len()));
        }
        fs::write(dir.path().join(name), bytes).unwrap();
        if let Ok(tokenizer) = Tokenizer::from_folder(dir.path()) {
            for text in ["", "The (old) bridge, 1,250", "\u{fb01}\u{ff21}\u{3000}e\u{301}\u{7}\u{1f600}\u{ffff}"] {
                prop_assert!(tokenizer.encode(text).is_ok(), "{text:?}");
            }
        }
    }
}
