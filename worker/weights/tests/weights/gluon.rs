//! Models of the replaced program become Hugging Face's, number for number.

use std::collections::BTreeMap;
use std::fs;

use crate::common::golden;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use squad_weights::gluon::{Family, Head, config_json, convert, hugging_face, names};
use squad_weights::{Existing, Tensors, WeightsError, read, read_folder};

const FAMILIES: [(&str, Family); 5] = [
    ("bert", Family::Bert),
    ("roberta", Family::Roberta),
    ("electra", Family::Electra),
    ("albert", Family::Albert),
    ("mobilebert", Family::MobileBert),
];

fn json_file<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&fs::read(golden(name)).unwrap()).unwrap()
}

fn config_of(folder: &str, family: Family) -> Map<String, Value> {
    config_json(&fs::read_to_string(golden(&format!("{folder}/model.yml"))).unwrap(), family).unwrap()
}

/// What expected.json says of each tensor.
fn digests(tensors: &Tensors) -> BTreeMap<String, Value> {
    let digest = |(shape, values): &(Vec<i64>, Vec<f32>)| {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        json!({"shape": shape, "sha256": hex::encode(Sha256::digest(bytes))})
    };
    tensors.iter().map(|(name, tensor)| (name.clone(), digest(tensor))).collect()
}

#[test]
fn every_name_of_every_family_maps_as_the_replaced_program_s_own_values_show() {
    for (folder, family) in FAMILIES {
        let expected: BTreeMap<String, Vec<String>> = json_file(&format!("{folder}/gluon_to_hf.json"));
        let bare = expected.keys().map(|name| name.strip_prefix("backbone.").unwrap());
        let found: BTreeMap<_, _> = names::encoder(family, bare)
            .into_iter()
            .map(|renaming| (format!("backbone.{}", renaming.from), renaming.to))
            .collect();
        assert_eq!(found, expected, "{folder}");
    }
}

#[test]
fn every_tensor_of_every_file_is_the_expected_one() {
    let mut files = 0;
    for (folder, family) in FAMILIES {
        let expected: BTreeMap<String, BTreeMap<String, Value>> =
            json_file(&format!("{folder}/expected.json"));
        for (file, expected) in expected {
            let tensors = read(&golden(&format!("{folder}/{file}"))).unwrap();
            assert_eq!(Family::of(&tensors), Some(family), "{folder}/{file}");
            let renamed = hugging_face(tensors, family).unwrap();
            assert_eq!(digests(&renamed.tensors), expected, "{folder}/{file}");
            assert_eq!(renamed.unused, Vec::<String>::new(), "{folder}/{file}");
            files += 1;
        }
    }
    assert_eq!(files, 12);
}

#[test]
fn both_formats_of_one_backbone_hold_the_same() {
    let newer = read(&golden("albert/backbone.params")).unwrap();
    assert_eq!(newer, read(&golden("albert/backbone_legacy_v3.params")).unwrap());
    assert_eq!(newer.len(), 19);
}

#[test]
fn a_conversion_is_a_folder_that_says_which_head_it_has() {
    for (folder, family) in FAMILIES {
        let out = tempfile::tempdir().unwrap();
        let out = out.path().join("new/folder");
        let source = golden(&format!("{folder}/qa_conditional_v1.params"));
        let report = convert(&source, &golden(&format!("{folder}/model.yml")), &out, Existing::Keep).unwrap();
        assert_eq!((report.family, report.head), (family, Head::Conditional { units: 24 }));
        let tensors = read_folder(&out).unwrap().0;
        assert_eq!(tensors, hugging_face(read(&source).unwrap(), family).unwrap().tensors);
        assert_eq!(report.tensors, tensors.len());
        assert_eq!(report.numbers, tensors.values().map(|(_, values)| values.len()).sum::<usize>());
        let config: Map<String, Value> =
            serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
        let mut own = json!({"head": "conditional", "units": 24});
        if family == Family::Roberta {
            own["separators"] = "single".into();
        }
        assert_eq!(config["squadron"], own);
        assert_eq!(config["architectures"], json!(["SquadronForConditionalQuestionAnswering"]));
        assert_eq!(config["model_type"], family.model_type());
    }
}

#[test]
fn the_other_heads_are_named_too() {
    let out = tempfile::tempdir().unwrap();
    let mut found = Vec::new();
    for file in ["qa_basic.params", "backbone.params", "backbone_legacy_v3.params"] {
        let source = golden(&format!("albert/{file}"));
        let report = convert(&source, &golden("albert/model.yml"), out.path(), Existing::Replace).unwrap();
        let config: Map<String, Value> =
            serde_json::from_slice(&fs::read(out.path().join("config.json")).unwrap()).unwrap();
        assert!(!config.contains_key("squadron"));
        let prefixed = read_folder(out.path()).unwrap().0.keys().filter(|n| n.starts_with("albert.")).count();
        found.push((report.head, config["architectures"][0].clone(), prefixed));
    }
    assert_eq!(
        found,
        [
            (Head::Span, json!("AlbertForQuestionAnswering"), 23),
            (Head::None, json!("AlbertModel"), 0),
            (Head::None, json!("AlbertModel"), 0),
        ]
    );
}

#[test]
fn configurations_have_the_fields_of_each_family() {
    let bert = config_of("bert", Family::Bert);
    for (field, value) in [
        ("model_type", json!("bert")),
        ("vocab_size", json!(64)),
        ("hidden_size", json!(16)),
        ("num_hidden_layers", json!(2)),
        ("num_attention_heads", json!(2)),
        ("intermediate_size", json!(32)),
        ("hidden_act", json!("gelu")),
        ("hidden_dropout_prob", json!(0.1)),
        ("attention_probs_dropout_prob", json!(0.1)),
        ("max_position_embeddings", json!(40)),
        ("type_vocab_size", json!(2)),
        ("initializer_range", json!(0.02)),
        ("layer_norm_eps", json!(1e-12)),
        ("pad_token_id", json!(0)),
    ] {
        assert_eq!(bert[field], value, "{field}");
    }
    let of = |folder, family, field: &str| config_of(folder, family)[field].clone();
    for (folder, family, field, value) in [
        ("roberta", Family::Roberta, "max_position_embeddings", json!(42)),
        ("roberta", Family::Roberta, "type_vocab_size", json!(1)),
        ("roberta", Family::Roberta, "pad_token_id", json!(1)),
        ("roberta", Family::Roberta, "layer_norm_eps", json!(1e-5)),
        ("roberta", Family::XlmRoberta, "model_type", json!("xlm-roberta")),
        ("electra", Family::Electra, "embedding_size", json!(8)),
        ("albert", Family::Albert, "hidden_act", json!("gelu_new")),
        ("albert", Family::Albert, "embedding_size", json!(8)),
        ("albert", Family::Albert, "num_hidden_groups", json!(1)),
        ("albert", Family::Albert, "inner_group_num", json!(1)),
        ("albert", Family::Albert, "hidden_dropout_prob", json!(0.0)),
        ("mobilebert", Family::MobileBert, "hidden_act", json!("relu")),
        ("mobilebert", Family::MobileBert, "hidden_size", json!(32)),
        ("mobilebert", Family::MobileBert, "embedding_size", json!(8)),
        ("mobilebert", Family::MobileBert, "intra_bottleneck_size", json!(8)),
        ("mobilebert", Family::MobileBert, "intermediate_size", json!(32)),
        ("mobilebert", Family::MobileBert, "num_feedforward_networks", json!(3)),
        ("mobilebert", Family::MobileBert, "key_query_shared_bottleneck", json!(true)),
        ("mobilebert", Family::MobileBert, "use_bottleneck_attention", json!(false)),
        ("mobilebert", Family::MobileBert, "normalization_type", json!("no_norm")),
        ("mobilebert", Family::MobileBert, "trigram_input", json!(true)),
    ] {
        assert_eq!(of(folder, family, field), value, "{folder} {field}");
    }
}

#[test]
fn a_configuration_s_fault_names_its_field() {
    let text = fs::read_to_string(golden("mobilebert/model.yml")).unwrap();
    for (from, to, expected) in [
        ("  units: 32\n", "", "units"),
        ("activation: relu", "activation: swish", "MODEL.activation is swish"),
        ("  embed_size: 8\n", "", "MODEL.embed_size is missing"),
        ("qk_sharing", "none", "MODEL.bottleneck_strategy is none"),
        ("learned", "sinusoidal", "MODEL.pos_embed_type"),
        ("MODEL:", "OTHER:", "MODEL"),
    ] {
        let changed = text.replace(from, to);
        assert_ne!(changed, text, "{from}");
        let error = config_json(&changed, Family::MobileBert).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_does_not_belong_together_is_an_error_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (out, config) = (folder.path().join("out"), folder.path().join("model.yml"));
    let text = fs::read_to_string(golden("mobilebert/model.yml")).unwrap();
    let source = golden("mobilebert/qa_conditional_v1.params");
    for (from, to, expected) in [
        ("num_layers: 2", "num_layers: 3", "it has 2 layers, but by its model.yml num_hidden_layers is 3"),
        ("vocab_size: 64", "vocab_size: 65", "64 rows in the table of words"),
        ("embed_size: 8", "embed_size: 16", "8 columns in the table of words"),
        ("max_length: 40", "max_length: 512", "40 rows in the table of positions"),
        ("  hidden_size: 32", "  hidden_size: 64", "32 rows in the first feed-forward layer"),
        ("inner_size: 8", "inner_size: 4", "8 columns in the first feed-forward layer"),
        ("num_stacked_ffn: 3", "num_stacked_ffn: 4", "it has 3 feed-forward networks"),
    ] {
        fs::write(&config, text.replace(from, to)).unwrap();
        let error = convert(&source, &config, &out, Existing::Keep).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = convert(&golden("state.bin"), &golden("bert/model.yml"), &out, Existing::Keep).unwrap_err();
    assert!(error.to_string().contains("its names are of no model"), "{error}");
    assert!(!out.exists());
}

#[test]
fn a_folder_in_use_is_left_alone() {
    let out = tempfile::tempdir().unwrap();
    fs::write(out.path().join("config.json"), "mine").unwrap();
    let run = |existing| {
        convert(&golden("bert/qa_conditional_v1.params"), &golden("bert/model.yml"), out.path(), existing)
    };
    assert!(matches!(run(Existing::Keep), Err(WeightsError::Exists { .. })));
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
    run(Existing::Replace).unwrap();
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 2);
}

#[test]
fn missing_tensors_are_named_and_poolers_reported() {
    let tensors = read(&golden("bert/qa_conditional_v1.params")).unwrap();
    for name in
        ["backbone.encoder.all_layers.1.ffn.ffn_2.bias", "end_scores.2.gamma", "backbone.word_embed.weight"]
    {
        let mut less = tensors.clone();
        less.remove(name);
        let error = hugging_face(less, Family::Bert).unwrap_err();
        assert!(error.contains(&format!("it lacks {name}, ")), "{error}");
    }
    // A layer's number that is left out shows too.
    let gap: Tensors =
        tensors.iter().map(|(n, t)| (n.replace("all_layers.1", "all_layers.7"), t.clone())).collect();
    assert!(hugging_face(gap, Family::Bert).unwrap_err().contains("all_layers.1.attn_qkv.weight"));

    let mut more = tensors.clone();
    more.insert("backbone.pooler.weight".into(), (vec![16, 16], vec![0.0; 256]));
    more.insert("mlm_decoder.bias".into(), (vec![64], vec![0.0; 64]));
    let renamed = hugging_face(more, Family::Bert).unwrap();
    assert_eq!(renamed.unused, ["backbone.pooler.weight", "mlm_decoder.bias"]);
    assert_eq!(renamed.tensors, hugging_face(tensors, Family::Bert).unwrap().tensors);
}

#[test]
fn query_key_and_value_are_the_rows_in_order() {
    let tensors = read(&golden("electra/backbone_legacy_v3.params")).unwrap();
    let (shape, rows) = tensors["encoder.all_encoder_layers.0.attn_qkv.weight"].clone();
    assert_eq!(shape, [48, 16]);
    let renamed = hugging_face(tensors, Family::Electra).unwrap().tensors;
    for (part, name) in ["query", "key", "value"].iter().enumerate() {
        let found = &renamed[&format!("encoder.layer.0.attention.self.{name}.weight")];
        assert_eq!(found, &(vec![16, 16], rows[part * 256..(part + 1) * 256].to_vec()));
    }
}

#[test]
fn many_word_pieces_make_a_roberta_xlm_r() {
    let mut tensors = read(&golden("roberta/backbone_legacy_v3.params")).unwrap();
    assert_eq!(Family::of(&tensors), Some(Family::Roberta));
    tensors.insert("word_embed.weight".into(), (vec![250_002, 0], Vec::new()));
    assert_eq!(Family::of(&tensors), Some(Family::XlmRoberta));
}
