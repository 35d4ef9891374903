use std::path::Path;

use serde_json::json;
use squad_data::Tokenizer;

use crate::fixture::{folder, tokenizer, vocabulary};

fn text_of(text: &str, offsets: &[(u32, u32)]) -> Vec<String> {
    let cut = |(a, b): &(u32, u32)| text.chars().skip(*a as usize).take((b - a) as usize).collect();
    offsets.iter().map(cut).collect()
}

#[test]
fn offsets_count_code_points() {
    let text = "😀 Cafe\u{301}, 漢字 the snowing";
    let encoded = tokenizer().encode(text).unwrap();
    let pieces = text_of(text, &encoded.offsets);
    // The accent goes with lower-casing; the span of its letter does not grow.
    assert_eq!(pieces, ["😀", "C", "a", "f", "e", ",", "漢", "字", "the", "snow", "ing"]);
    assert_eq!(encoded.ids, tokenizer().ids(text).unwrap());
    assert_eq!(encoded.ids[0], 1, "an emoji is not in the vocabulary");
    assert!(tokenizer().encode("").unwrap().ids.is_empty());
}

#[test]
fn special_tokens_are_found_and_written_ones_are_honoured() {
    let t = tokenizer();
    assert_eq!((t.pad(), t.cls(), t.sep()), (0, 2, 3));
    assert_eq!(t.vocabulary(), vocabulary().len());
    assert_eq!(t.ids("blue [SEP] snow").unwrap(), [9, 3, 10]);
    assert!(format!("{t:?}").contains("cls: 2"));
}

#[test]
fn the_case_setting_of_the_folder_holds() {
    let dir = folder(&vocabulary());
    std::fs::write(dir.path().join("tokenizer_config.json"), r#"{"do_lower_case": false}"#).unwrap();
    let cased = Tokenizer::from_folder(dir.path()).unwrap();
    assert_eq!(cased.ids("Blue blue").unwrap(), [1, 9]);
    assert_eq!(tokenizer().ids("Blue blue").unwrap(), [9, 9]);
}

/// A `tokenizer.json` with the truncation and padding that MiniLM's has.
fn with_truncation() -> serde_json::Value {
    let words = vocabulary();
    let vocab: serde_json::Map<_, _> = words.iter().enumerate().map(|(i, w)| (w.clone(), json!(i))).collect();
    json!({
        "version": "1.0",
        "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 6}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [], "normalizer": {"type": "BertNormalizer", "clean_text": true,
        "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocab}
    })
}

#[test]
fn truncation_and_padding_of_the_file_are_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), with_truncation().to_string()).unwrap();
    let t = Tokenizer::from_folder(dir.path()).unwrap();
    let text = "the snow blue snow blue snow blue";
    assert_eq!(t.ids(text).unwrap().len(), 7);
    assert_eq!(t.ids("snow").unwrap().len(), 1);
    assert_eq!(t.encode(text).unwrap(), tokenizer().encode(text).unwrap());
}

#[test]
fn the_folder_names_its_own_special_tokens() {
    let dir = folder(&vocabulary());
    let map = json!({"cls_token": {"content": "[MASK]", "lstrip": false}, "sep_token": "[UNK]"});
    std::fs::write(dir.path().join("special_tokens_map.json"), map.to_string()).unwrap();
    let t = Tokenizer::from_folder(dir.path()).unwrap();
    assert_eq!((t.cls(), t.sep(), t.pad()), (4, 1, 0));
}

#[test]
fn broken_folders_are_described() {
    let message = |path: &Path| Tokenizer::from_folder(path).unwrap_err().to_string();
    let dir = tempfile::tempdir().unwrap();
    let place = format!("tokenizer in {}: ", dir.path().display());
    assert_eq!(
        message(dir.path()),
        format!(
            "{place}found neither tokenizer.json nor one of vocab.txt, vocab.json with merges.txt, spiece.model, \
             sentencepiece.bpe.model"
        )
    );

    let without_sep: Vec<String> = vocabulary().into_iter().filter(|w| w != "[SEP]").collect();
    assert!(message(folder(&without_sep).path()).contains("no sep_token: the folder names none"));

    let named = folder(&vocabulary());
    std::fs::write(named.path().join("special_tokens_map.json"), r#"{"pad_token": "<none>"}"#).unwrap();
    assert!(message(named.path()).contains("the vocabulary lacks \"<none>\""));

    std::fs::write(dir.path().join("tokenizer_config.json"), "{").unwrap();
    assert!(message(dir.path()).contains("tokenizer_config.json: EOF"));
    std::fs::write(dir.path().join("tokenizer_config.json"), "{}").unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    assert!(message(dir.path()).contains("tokenizer.json: "));
}
