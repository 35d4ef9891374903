//! Ids, offsets and windows that Hugging Face's tokenizer classes gave (scripts/golden_tokenizers.py makes the files).

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use squad_data::{Dataset, FeatureSettings, Features, PairLayout, Purpose, Tokenizer, Window, squad};

use crate::fixture::{KINDS, golden, kind_folder, kind_without, list, number, settings, shared};

/// Ids, then starts and ends in turn.
type Expected = (Vec<i32>, Vec<u32>);

fn cases(kind: &str) -> Vec<(String, Expected)> {
    let texts: Vec<String> = list(&golden("tokenizers/texts.json"));
    let expected: Vec<Expected> = list(&golden(&format!("tokenizers/{kind}/expected.json")));
    assert_eq!(texts.len(), expected.len());
    assert!(texts.len() >= 200, "the golden file lost its cases");
    texts.into_iter().zip(expected).collect()
}

fn assert_golden(kind: &str, tokenizer: &Tokenizer, wanted: impl Fn(&str) -> bool) -> usize {
    let mut compared = 0;
    for (text, (ids, offsets)) in cases(kind).into_iter().filter(|(text, _)| wanted(text)) {
        let found = tokenizer.encode(&text).unwrap();
        let pairs: Vec<(u32, u32)> = offsets.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        assert_eq!(found.ids, ids, "{kind}: ids of {text:?}");
        assert_eq!(found.offsets, pairs, "{kind}: offsets of {text:?}");
        assert_eq!(tokenizer.ids(&text).unwrap(), ids, "{kind}: ids alone of {text:?}");
        compared += 1;
    }
    compared
}

#[test]
fn complete_files_tokenize_as_hugging_face() {
    for kind in KINDS {
        let tokenizer = Tokenizer::from_folder(&kind_folder(kind)).unwrap();
        assert_eq!(assert_golden(kind, &tokenizer, |_| true), 200);
    }
}

#[test]
fn raw_files_tokenize_as_hugging_face() {
    for kind in KINDS {
        let folder = kind_without(kind, &["tokenizer.json"]);
        let raw = Tokenizer::from_folder(folder.path()).unwrap();
        assert_eq!(assert_golden(kind, &raw, |_| true), 200);
        let complete = Tokenizer::from_folder(&kind_folder(kind)).unwrap();
        assert_eq!(format!("{raw:?}"), format!("{complete:?}"), "{kind}: size, layout, special tokens");
    }
}

#[test]
fn the_names_of_lone_raw_files_tell_the_family() {
    // A cased WordPiece is the one kind that differs from its family's defaults.
    for kind in KINDS.into_iter().filter(|kind| *kind != "cased") {
        let folder = kind_without(kind, &["tokenizer.json", "tokenizer_config.json"]);
        assert_golden(kind, &Tokenizer::from_folder(folder.path()).unwrap(), |_| true);
    }
}

#[test]
fn the_cases_are_hard() {
    for kind in KINDS {
        let all = cases(kind);
        let shared_spans = all.iter().filter(|(_, (_, o))| o.windows(4).any(|w| w[..2] == w[2..])).count();
        let wide =
            all.iter().filter(|(text, (ids, _))| text.len() > text.chars().count() && ids.len() > 1).count();
        assert!(wide > 50, "{kind}: {wide} texts beyond ASCII");
        assert!(kind == "cased" || kind == "uncased" || shared_spans > 20, "{kind}: {shared_spans}");
    }
}

#[test]
fn layouts_are_the_families() {
    for (kind, layout) in KINDS.into_iter().zip([
        PairLayout::Single,
        PairLayout::Single,
        PairLayout::Double,
        PairLayout::Single,
        PairLayout::Double,
    ]) {
        assert_eq!(Tokenizer::from_folder(&kind_folder(kind)).unwrap().layout(), layout, "{kind}");
        let raw = kind_without(kind, &["tokenizer.json"]);
        assert_eq!(Tokenizer::from_folder(raw.path()).unwrap().layout(), layout, "{kind}");
    }
}

#[test]
fn windows_in_both_layouts_are_hugging_faces() {
    let golden = golden("tokenizers/windows.json");
    let data = squad::parse(Path::new("golden"), golden["dataset"].to_string().as_bytes()).unwrap();
    let mut gold = 0;
    for (kind, runs) in golden["runs"].as_object().unwrap() {
        let tokenizer = Tokenizer::from_folder(&kind_folder(kind)).unwrap();
        for run in runs.as_array().unwrap() {
            let (length, stride) = (number(&run["max_seq_length"]), number(&run["doc_stride"]));
            let shape = settings(length, stride, Window::Overlap);
            let shape = FeatureSettings { layout: tokenizer.layout(), ..shape };
            gold += assert_windows(&data, &tokenizer, &shape, run, kind);
        }
    }
    assert!(gold > 100, "the golden file lost its cases: {gold} gold");
}

fn assert_windows(
    data: &Dataset,
    tokenizer: &Tokenizer,
    shape: &FeatureSettings,
    run: &serde_json::Value,
    kind: &str,
) -> usize {
    let features = Features::build(data, tokenizer, shape, Purpose::Train).unwrap();
    let expected = run["features"].as_array().unwrap();
    assert_eq!(features.len(), expected.len(), "{kind} {shape:?}");
    let mut gold = 0;
    for (index, row) in expected.iter().enumerate() {
        let f = features.get(index);
        let ids: Vec<i32> = list(&row["ids"]);
        assert_eq!((f.question, f.input_ids), (number(&row["question"]), &ids[..]), "{kind} {index}");
        assert_eq!(f.context_offset, number(&row["context_offset"]), "{kind} {index}");
        let (mut start, end) = (number(&row["start"]), number(&row["end"]));
        if start == ids.len() - 1 {
            // Their slip: an answer that starts in the last token is put on the separator behind it.
            start = end;
        }
        // Where several tokens share a character, theirs may start at its last and end at its first.
        let (start, end) = (start.min(end), start.max(end));
        assert_eq!((f.start, f.end, f.is_impossible), (start, end, end == 0), "{kind} {index} of {shape:?}");
        gold += usize::from(end > 0);
    }
    gold
}

/// SHA-256 over every paragraph's context, then its questions: number of tokens, then id, start
/// and end of each, in 32 bits, little endian.
fn digest(tokenizer: &Tokenizer, data: &Dataset) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        let encoded = tokenizer.encode(text).unwrap();
        hash.update(u32::try_from(encoded.ids.len()).unwrap().to_le_bytes());
        for (id, (start, end)) in encoded.ids.into_iter().zip(encoded.offsets) {
            hash.update(id.to_le_bytes());
            hash.update(start.to_le_bytes());
            hash.update(end.to_le_bytes());
        }
    };
    let mut context: Option<&Arc<str>> = None;
    for question in &data.questions {
        if context.is_none_or(|last| !Arc::ptr_eq(last, &question.context)) {
            add(&question.context);
            context = Some(&question.context);
        }
        add(&question.text);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_text_of_real_files_tokenizes_as_hugging_face() {
    let hashes = golden("tokenizers/shared.json");
    let hashes = hashes.as_object().unwrap();
    assert_eq!(hashes.len(), 4);
    for (name, of) in hashes {
        let Some(file) = shared(name) else { continue };
        let data = squad::read(&file).unwrap();
        for kind in KINDS {
            let complete = Tokenizer::from_folder(&kind_folder(kind)).unwrap();
            assert_eq!(digest(&complete, &data), of[kind].as_str().unwrap(), "{kind} on {name}");
        }
        let raw = kind_without("albert", &["tokenizer.json"]);
        let raw = Tokenizer::from_folder(raw.path()).unwrap();
        assert_eq!(digest(&raw, &data), of["albert"].as_str().unwrap(), "raw albert on {name}");
    }
}
