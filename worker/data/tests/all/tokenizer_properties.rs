//! What holds for any text and every kind of tokenizer.

use std::sync::LazyLock;

use proptest::prelude::*;
use squad_data::Tokenizer;
use squad_data::text::CodePoints;

use crate::fixture::{KINDS, kind_folder};

static TOKENIZERS: LazyLock<Vec<(&str, Tokenizer)>> = LazyLock::new(|| {
    KINDS.into_iter().map(|kind| (kind, Tokenizer::from_folder(&kind_folder(kind)).unwrap())).collect()
});

/// Pieces of text that tokenizers treat in ways of their own.
fn special() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9 ,.'`-]{0,12}",
        "[\u{300}-\u{345}\u{1100}-\u{11ff}\u{130}\u{df}\u{fb00}-\u{fb06}]{1,4}",
        "[\u{0}-\u{20}\u{7f}-\u{a0}\u{2000}-\u{200f}\u{3000}\u{feff}]{1,4}",
        "[\u{4e00}-\u{4e20}\u{ff00}-\u{ff60}\u{5d0}-\u{5ea}\u{627}-\u{64a}]{1,6}",
        "[\u{1f468}-\u{1f470}\u{200d}\u{fe0f}\u{1f1e6}-\u{1f1ff}]{1,6}",
        prop::sample::select(vec!["<s>", "</s>", " <mask>", "[SEP]", "[MASK] ", "\u{2581}", "##", "\u{120}"])
            .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), prop::collection::vec(special(), 0..12).prop_map(|parts| parts.concat())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn any_text_has_tokens_with_sound_offsets(text in text()) {
        let index = CodePoints::new(&text);
        for (kind, tokenizer) in TOKENIZERS.iter() {
            let encoded = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(&encoded.ids, &tokenizer.ids(&text).unwrap(), "{}", kind);
            prop_assert_eq!(encoded.ids.len(), encoded.offsets.len());
            let size = i32::try_from(tokenizer.vocabulary()).unwrap();
            prop_assert!(encoded.ids.iter().all(|id| (0..size).contains(id)), "{kind}: an id beyond the vocabulary");
            for (start, end) in &encoded.offsets {
                let (start, end) = (*start as usize, *end as usize);
                prop_assert!(start <= end && end <= index.len(), "{kind}: {start}..{end} of {}", index.len());
                // Byte positions taken for code points would differ here.
                prop_assert_eq!(index.slice(start, end).chars().count(), end - start);
            }
            let starts: Vec<u32> = encoded.offsets.iter().map(|(start, _)| *start).collect();
            prop_assert!(starts.is_sorted(), "{kind}: {starts:?}");
        }
    }

    /// No letter is lost between two tokens, so that every answer can be pointed at.
    #[test]
    fn letters_of_a_text_are_in_some_token(words in prop::collection::vec("[a-z]{1,8}|[0-9]{1,4}|\u{e9}t\u{e9}", 1..8)) {
        let text = words.join(" ");
        let letters = text.chars().enumerate().filter(|(_, c)| !c.is_whitespace()).map(|(at, _)| at);
        let letters: Vec<u32> = letters.map(|at| u32::try_from(at).unwrap()).collect();
        for (kind, tokenizer) in TOKENIZERS.iter() {
            let offsets = tokenizer.encode(&text).unwrap().offsets;
            for at in &letters {
                prop_assert!(offsets.iter().any(|(a, b)| (*a..*b).contains(at)), "{kind}: {at} of {text:?}");
            }
        }
    }
}
