//! A model of the replaced program as a folder in Hugging Face layout.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::config::config_json;
use super::family::Family;
use super::rename::{Head, Renamed, hugging_face};
use crate::error::WeightsError;
use crate::write::{Existing, place, tensors_beside, text_beside};
use crate::{Tensors, read};

/// What a conversion found and wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertReport {
    /// The architecture.
    pub family: Family,
    /// The head that the file holds.
    pub head: Head,
    /// Tensors written.
    pub tensors: usize,
    /// Numbers in them.
    pub numbers: usize,
    /// Old names of tensors that were left behind, since a question-answering model has no use for them.
    pub unused: Vec<String>,
}

/// Writes `config.json` and `model.safetensors` into the folder `out`, which is made where it is missing, from
/// the replaced program's parameters in `source` and its configuration (`model.yml`) in `config`.
///
/// Both are written beside their places and then given their names, the configuration last: no half-written file
/// is ever there. A folder with `existing` files is left alone unless they are to be replaced.
///
/// # Errors
/// When a file cannot be read or written, is there and to be kept, or when names, shapes and configuration are
/// not those of one known architecture.
pub fn convert(
    source: &Path,
    config: &Path,
    out: &Path,
    existing: Existing,
) -> Result<ConvertReport, WeightsError> {
    let targets = [out.join("model.safetensors"), out.join("config.json")];
    if let (Existing::Keep, Some(path)) = (existing, targets.iter().find(|path| path.exists())) {
        return Err(WeightsError::Exists { path: path.clone() });
    }
    let text = std::fs::read_to_string(config).map_err(WeightsError::io(config))?;
    let tensors = read(source)?;
    let mismatch = |message: String| WeightsError::Mismatch { path: source.into(), message };
    let family = Family::of(&tensors).ok_or_else(|| {
        mismatch(
            "its names are of no model of GluonNLP that is known here; they begin as backbone.encoder."
                .into(),
        )
    })?;
    let mut fields = config_json(&text, family)
        .map_err(|message| WeightsError::Config { path: config.into(), message })?;
    let renamed = hugging_face(tensors, family).map_err(mismatch)?;
    check(&renamed, &fields, family).map_err(mismatch)?;
    name_head(&mut fields, family, renamed.head);

    std::fs::create_dir_all(out).map_err(WeightsError::io(out))?;
    let [weights, json] = &targets;
    let views =
        renamed.tensors.iter().map(|(name, (shape, values))| (name.as_str(), &shape[..], &values[..]));
    let weights_file = tensors_beside(weights, views)?;
    let json_file = text_beside(json, &format!("{:#}\n", Value::Object(fields)))?;
    place(weights_file, weights, existing)?;
    place(json_file, json, existing)?;
    Ok(ConvertReport {
        family,
        head: renamed.head,
        tensors: renamed.tensors.len(),
        numbers: renamed.tensors.values().map(|(_, values)| values.len()).sum(),
        unused: renamed.unused,
    })
}

/// Compares the tensors with what the configuration says of their shapes.
fn check(renamed: &Renamed, fields: &Map<String, Value>, family: Family) -> Result<(), String> {
    let prefix = if renamed.head == Head::None { "" } else { family.prefix() };
    let number = |field: &str| fields.get(field).and_then(Value::as_i64).unwrap_or(0);
    let axis = |name: &str, axis: usize| {
        let shape = renamed.tensors.get(&format!("{prefix}{name}.weight")).map(|(shape, _)| shape);
        shape.and_then(|shape| shape.get(axis).copied()).unwrap_or(0)
    };
    let width = if fields.contains_key("embedding_size") { "embedding_size" } else { "hidden_size" };
    let (layer, layers, up) = match family {
        Family::Albert => ("encoder.albert_layer_groups.", "num_hidden_groups", "0.albert_layers.0.ffn"),
        _ => ("encoder.layer.", "num_hidden_layers", "0.intermediate.dense"),
    };
    let up = format!("{layer}{up}");
    let (inner, networks) = match family {
        Family::MobileBert => {
            let stacked = count(&renamed.tensors, &format!("{prefix}{layer}0.ffn."));
            (
                "intra_bottleneck_size",
                Some((stacked + 1, "num_feedforward_networks", "feed-forward networks")),
            )
        }
        _ => ("hidden_size", None),
    };
    let sizes = [
        (axis("embeddings.word_embeddings", 0), "vocab_size", "rows in the table of words"),
        (axis("embeddings.word_embeddings", 1), width, "columns in the table of words"),
        (
            axis("embeddings.position_embeddings", 0),
            "max_position_embeddings",
            "rows in the table of positions",
        ),
        (axis(&up, 0), "intermediate_size", "rows in the first feed-forward layer"),
        (axis(&up, 1), inner, "columns in the first feed-forward layer"),
        (count(&renamed.tensors, &format!("{prefix}{layer}")), layers, "layers"),
    ];
    for (found, field, what) in sizes.into_iter().chain(networks) {
        if found != number(field) {
            return Err(format!(
                "it has {found} {what}, but by its model.yml {field} is {}: the two files do not belong together",
                number(field)
            ));
        }
    }
    Ok(())
}

/// How many numbers follow `layer` in the names.
fn count(tensors: &Tensors, layer: &str) -> i64 {
    let mut numbers: Vec<&str> =
        tensors.keys().filter_map(|name| name.strip_prefix(layer)?.split('.').next()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers.len() as i64
}

/// Says in `config.json` which head the weights have, and that a head beside RoBERTa learned with one separator
/// between question and context, which is all that the replaced program knew.
fn name_head(fields: &mut Map<String, Value>, family: Family, head: Head) {
    let class = family.class();
    let mut own = Map::new();
    if head != Head::None && family.is_roberta() {
        own.insert("separators".into(), json!("single"));
    }
    let architecture = match head {
        Head::None => format!("{class}Model"),
        Head::Span => format!("{class}ForQuestionAnswering"),
        Head::Conditional { units } => {
            own.insert("head".into(), json!("conditional"));
            own.insert("units".into(), json!(units));
            "SquadronForConditionalQuestionAnswering".into()
        }
    };
    fields.insert("architectures".into(), json!([architecture]));
    if !own.is_empty() {
        fields.insert("squadron".into(), Value::Object(own));
    }
}
