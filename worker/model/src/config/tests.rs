use serde_json::{Map, Value, json};
use squad_weights::Family;

use super::{EncoderConfig, mend};

fn fields(model_type: &str) -> Map<String, Value> {
    let Value::Object(mut fields) = json!({
        "model_type": model_type, "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 128,
        "type_vocab_size": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    }) else {
        unreachable!()
    };
    if matches!(model_type, "albert" | "electra" | "mobilebert") {
        fields.insert("embedding_size".into(), json!(16));
    }
    if model_type == "mobilebert" {
        fields.insert("intra_bottleneck_size".into(), json!(8));
    }
    fields
}

#[test]
fn reads_every_family() {
    for family in Family::ALL {
        let config = EncoderConfig::from_fields(&fields(family.model_type())).unwrap();
        assert_eq!(config.family, family);
        let (head_dim, tokens) = match family {
            Family::MobileBert => (2, 128),
            Family::Roberta | Family::XlmRoberta => (8, 126),
            _ => (8, 128),
        };
        assert_eq!((config.head_dim(), config.max_tokens()), (head_dim, tokens), "{family:?}");
    }
}

#[test]
fn names_the_field_at_fault() {
    for (model, field, value, words) in [
        ("bert", "hidden_size", Value::Null, "hidden_size"),
        ("bert", "hidden_size", json!(30), "multiple of num_attention_heads"),
        ("bert", "model_type", json!("t5"), "model_type is \"t5\""),
        ("bert", "hidden_act", json!("swish"), "hidden_act is swish"),
        ("bert", "position_embedding_type", json!("relative_key"), "position_embedding_type"),
        ("bert", "is_decoder", json!(true), "is_decoder"),
        ("bert", "pruned_heads", json!({"0": [1]}), "pruned_heads"),
        ("bert", "embedding_size", json!(16), "embedding_size is 16, a field that is not known"),
        ("bert", "rotary", json!(true), "rotary"),
        ("bert", "pad_token_id", json!(99), "pad_token_id is 99"),
        ("bert", "type_vocab_size", json!(1), "type_vocab_size"),
        ("roberta", "pad_token_id", Value::Null, "pad_token_id is null"),
        ("roberta", "max_position_embeddings", json!(2), "max_position_embeddings 2"),
        ("albert", "num_hidden_groups", json!(2), "num_hidden_groups is 2"),
        ("mobilebert", "normalization_type", json!("layer_norm"), "normalization_type"),
        ("mobilebert", "true_hidden_size", json!(32), "true_hidden_size differs"),
    ] {
        let mut fields = fields(model);
        fields.insert(field.into(), value);
        let error = EncoderConfig::from_fields(&fields).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn unknown_fields_that_are_off_pass() {
    let mut fields = fields("bert");
    fields.insert("rotary".into(), json!(false));
    fields.insert("transformers_version".into(), json!("5.0"));
    assert!(EncoderConfig::from_fields(&fields).is_ok());
}

#[test]
fn albert_xlarge_has_32_heads_whatever_its_file_says() {
    let mut xlarge = fields("albert");
    xlarge.insert("hidden_size".into(), json!(2048));
    xlarge.insert("num_attention_heads".into(), json!(16));
    let warnings = mend(&mut xlarge);
    assert!(warnings.len() == 1 && warnings[0].contains("32 heads"), "{warnings:?}");
    assert_eq!(EncoderConfig::from_fields(&xlarge).unwrap().num_attention_heads, 32);
    assert!(mend(&mut xlarge).is_empty() && mend(&mut fields("albert")).is_empty());
}
