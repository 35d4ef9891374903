//! Weights that a file lacks.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use serde_json::{Map, json};
use squad_model::load::assign;
use squad_model::{EncoderConfig, HeadKind, Network};
use tch::Device;

#[test]
fn a_head_that_the_file_lacks_starts_as_a_network_without_a_file_does() {
    let fields = json!({
        "model_type": "bert", "num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2,
        "intermediate_size": 16, "vocab_size": 30, "max_position_embeddings": 12, "type_vocab_size": 2,
        "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    });
    let config = EncoderConfig::from_fields(fields.as_object().unwrap()).unwrap();
    let network = || Network::new(config.clone(), Map::new(), HeadKind::CONDITIONAL, Device::Cpu);
    let mut drawn = network();
    (0..drawn.stages().len()).for_each(|index| drawn.initialise(index, 7));

    // A file with all of the encoder, each number 2.
    let head = drawn.stages().len() - 1;
    let parts = |index: usize| drawn.stages()[index].params().iter().flat_map(|param| param.parts());
    let file = (0..head)
        .flat_map(parts)
        .map(|(name, shape, span)| (name.to_owned(), (shape, vec![2.0; span.len()])))
        .collect();
    let mut loaded = network();
    let report = assign(&mut loaded, file, 7).unwrap();
    assert_eq!(report.missing.len(), parts(head).count());
    for index in 0..=head {
        let values = loaded.stages()[index].to_vec();
        let expected = if index == head { drawn.stages()[index].to_vec() } else { vec![2.0; values.len()] };
        assert_eq!(values, expected, "{}", loaded.stages()[index].name());
    }
}
