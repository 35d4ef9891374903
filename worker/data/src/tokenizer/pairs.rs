//! The layout of a pair, as the post-processor in a `tokenizer.json` has it.

use serde_json::Value;
use tokenizers::PostProcessorWrapper;

use crate::PairLayout;

/// `None` where the post-processor has no pair template, or one of another form.
pub(super) fn layout(processor: &PostProcessorWrapper) -> Option<PairLayout> {
    // The templates' parts are private to the library; their JSON is a format that files have.
    described(&serde_json::to_value(processor).ok()?)
}

fn described(processor: &Value) -> Option<PairLayout> {
    match processor.get("type")?.as_str()? {
        "BertProcessing" => Some(PairLayout::Single),
        "RobertaProcessing" => Some(PairLayout::Double),
        "TemplateProcessing" => of_template(processor.get("pair")?.as_array()?),
        "Sequence" => processor.get("processors")?.as_array()?.iter().find_map(described),
        _ => None,
    }
}

/// Counts the special tokens between the two texts.
fn of_template(pieces: &[Value]) -> Option<PairLayout> {
    let place = |text: &str| pieces.iter().position(|piece| piece["Sequence"]["id"] == text);
    match place("B")?.checked_sub(place("A")? + 1)? {
        1 => Some(PairLayout::Single),
        2 => Some(PairLayout::Double),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(pair: &[&str]) -> Value {
        let piece = |name: &&str| match *name {
            "A" | "B" => json!({"Sequence": {"id": name, "type_id": 0}}),
            _ => json!({"SpecialToken": {"id": name, "type_id": 0}}),
        };
        let tokens: Value = ["s", "e"]
            .map(|name| (name.to_owned(), json!({"id": name, "ids": [1], "tokens": [name]})))
            .into_iter()
            .collect();
        json!({"type": "TemplateProcessing", "single": [piece(&"A")],
               "pair": pair.iter().map(piece).collect::<Vec<_>>(), "special_tokens": tokens})
    }

    fn of(processor: Value) -> Option<PairLayout> {
        layout(&serde_json::from_value(processor).unwrap())
    }

    #[test]
    fn the_separators_between_the_texts_are_counted() {
        assert_eq!(of(template(&["s", "A", "e", "B", "e"])), Some(PairLayout::Single));
        assert_eq!(of(template(&["s", "A", "e", "e", "B", "e"])), Some(PairLayout::Double));
        assert_eq!(of(template(&["A", "B"])), None);
    }

    #[test]
    fn named_processors_have_their_own_layout() {
        let mut named = json!({"type": "BertProcessing", "sep": ["e", 1], "cls": ["s", 0]});
        assert_eq!(of(named.clone()), Some(PairLayout::Single));
        named["type"] = "RobertaProcessing".into();
        named["trim_offsets"] = true.into();
        named["add_prefix_space"] = false.into();
        assert_eq!(of(named.clone()), Some(PairLayout::Double));
        let bytes =
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
        assert_eq!(of(bytes.clone()), None);
        assert_eq!(of(json!({"type": "Sequence", "processors": [bytes, named]})), Some(PairLayout::Double));
    }
}
