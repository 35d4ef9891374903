//! Parameter counts of the replaced program's models, from their configurations alone.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use serde_json::{Map, Value, json};
use squad_model::{EncoderConfig, HeadKind, StageSize, count_parameters, stage_sizes};

/// Layers, width, heads, feed-forward width, embedding width, vocabulary.
type Shape = (i64, i64, i64, i64, i64, i64);

fn config(model_type: &str, (layers, width, heads, inner, embedding, vocabulary): Shape) -> EncoderConfig {
    let Value::Object(mut fields) = json!({
        "model_type": model_type, "num_hidden_layers": layers, "hidden_size": width,
        "num_attention_heads": heads, "intermediate_size": inner, "vocab_size": vocabulary,
        "max_position_embeddings": 512, "type_vocab_size": 2, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    }) else {
        unreachable!()
    };
    let mut more = |value: Value| fields.extend(value.as_object().unwrap().clone());
    match model_type {
        "roberta" | "xlm-roberta" => {
            more(json!({"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1}));
        }
        "albert" => more(json!({"embedding_size": embedding, "hidden_act": "gelu_new"})),
        "electra" => more(json!({"embedding_size": embedding})),
        "mobilebert" => more(json!({
            "embedding_size": embedding, "intra_bottleneck_size": 128, "num_feedforward_networks": 4,
            "hidden_act": "relu",
        })),
        _ => {}
    }
    let fields: Map<String, Value> = fields;
    EncoderConfig::from_fields(&fields).unwrap()
}

#[test]
fn encoders_and_heads_of_the_zoo() {
    let base = |vocabulary| (12, 768, 12, 3072, 768, vocabulary);
    let large = |vocabulary| (24, 1024, 16, 4096, 1024, vocabulary);
    let (base_head, large_head) = (2_365_444, 3_152_132);
    let zoo: [(&str, Shape, i64, i64); 16] = [
        ("bert", base(28996), 107_719_680, base_head),
        ("bert", base(30522), 108_891_648, base_head),
        ("bert", large(28996), 332_529_664, large_head),
        ("bert", large(30522), 334_092_288, large_head),
        ("albert", (12, 768, 12, 3072, 128, 30000), 11_092_992, base_head),
        ("albert", (24, 1024, 16, 4096, 128, 30000), 16_634_368, large_head),
        ("albert", (24, 2048, 32, 8192, 128, 30000), 54_528_512, 6_298_884),
        ("albert", (12, 4096, 64, 16384, 128, 30000), 205_814_272, 12_592_388),
        ("electra", (12, 256, 4, 1024, 128, 30522), 13_483_008, 792_068),
        ("electra", base(30522), 108_891_648, base_head),
        ("electra", large(30522), 334_092_288, large_head),
        ("mobilebert", (24, 512, 4, 512, 128, 30522), 24_581_888, 1_578_756),
        ("roberta", base(50265), 124_052_736, base_head),
        ("roberta", large(50265), 354_307_072, large_head),
        ("xlm-roberta", base(250_002), 277_450_752, base_head),
        ("xlm-roberta", large(250_002), 558_837_760, large_head),
    ];
    for (family, shape, encoder, head) in zoo {
        let config = config(family, shape);
        let (ours, ours_head) = count_parameters(&config, HeadKind::CONDITIONAL);
        // Hugging Face's RoBERTa has two more positions, for padding, and a segment table of one row, where the
        // replaced program has neither.
        let rows =
            if config.first_position() > 0 { config.first_position() + config.type_vocab_size } else { 0 };
        assert_eq!(ours - rows * config.embedding_size, encoder, "{family} {shape:?}");
        assert_eq!(ours_head, head, "{family} {shape:?}");
        assert_eq!(count_parameters(&config, HeadKind::Span), (ours, 2 * config.hidden_size + 2));
    }
}

#[test]
fn stages_add_up_and_tell_tables_from_matrices() {
    let shape = (12, 768, 12, 3072, 768, 30522);
    let sizes = stage_sizes(&config("bert", shape), HeadKind::Span);
    let sum = |count: fn(&StageSize) -> u64| sizes.iter().map(count).sum::<u64>() as i64;
    let (encoder, head) = count_parameters(&config("bert", shape), HeadKind::Span);
    assert_eq!(sum(|stage| stage.parameters), encoder + head);
    assert_eq!((sizes.len(), sizes[0].name.as_str(), sizes[13].name.as_str()), (14, "embeddings", "head"));
    assert_eq!((sizes[0].tables, sizes[0].matrices), ((30522 + 512 + 2) * 768, 0));
    assert_eq!((sizes[1].tables, sizes[1].matrices), (0, 12 * 768 * 768));
    assert_eq!(sizes[13].matrices, 2 * 768);

    let shared = stage_sizes(&config("albert", (12, 768, 12, 3072, 128, 30000)), HeadKind::CONDITIONAL);
    assert_eq!((shared.len(), shared[0].matrices), (3, 128 * 768), "one layer for all, behind a projection");
    let mobile = stage_sizes(&config("mobilebert", (24, 512, 4, 512, 128, 30522)), HeadKind::Span);
    assert_eq!((mobile.len(), mobile[0].matrices), (26, 3 * 128 * 512));
}
