//! Hugging Face folders to stages.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use squad_weights::Tensors;
use tch::Device;

use crate::config::{ConfigFile, EncoderConfig};
use crate::error::ModelError;
use crate::family::Traits;
use crate::heads::HeadKind;
use crate::network::Network;

/// What loading a folder found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Parameters that the file does not hold. Only a head's may be missing: it was new then.
    pub missing: Vec<String>,
    /// Tensors of the file that the network has no use for, such as a pooler's.
    pub unexpected: Vec<String>,
    /// What somebody should know: fields of `config.json` that were mended.
    pub warnings: Vec<String>,
}

impl LoadReport {
    /// True when the head came from the file.
    pub fn head_loaded(&self) -> bool {
        self.missing.is_empty()
    }
}

/// Whole-number tensors by name: shape and values.
pub type Integers = BTreeMap<String, (Vec<i64>, Vec<i64>)>;

/// Names that programs other than Hugging Face's put before the encoder's own.
const PREFIXES: &[&str] = &["", "model.", "backbone."];

/// Builds the network of a folder in Hugging Face layout.
///
/// The encoder must be there in full. A head that the file lacks starts from `seed`.
///
/// # Errors
/// When a file is missing or damaged, the architecture is unknown, or encoder tensors are missing or have
/// another shape.
pub fn load_network(
    folder: &Path,
    head: HeadKind,
    seed: u64,
    device: Device,
) -> Result<(Network, LoadReport), ModelError> {
    let ConfigFile { mut config, json, warnings } = EncoderConfig::read(folder)?;
    let (tensors, path) = squad_weights::read_folder(folder)?;
    if has_empty_segments(&config, &tensors) {
        config.type_vocab_size = 0;
    }
    let mut network = Network::new(config, json, head, device);
    let mut report =
        assign(&mut network, tensors, seed).map_err(|message| ModelError::Mismatch { path, message })?;
    report.warnings = warnings;
    Ok((network, report))
}

/// Whether the segment table of a family without segments is one row of zeros, as in all published files: the
/// replaced program has no such table, so it is left out of training, and written as zeros again.
fn has_empty_segments(config: &EncoderConfig, tensors: &Tensors) -> bool {
    let name = "embeddings.token_type_embeddings.weight";
    let own = config.family.prefix();
    let found =
        std::iter::once(&own).chain(PREFIXES).find_map(|prefix| tensors.get(&format!("{prefix}{name}")));
    let empty = |(shape, values): &(Vec<i64>, Vec<f32>)| {
        shape.first() == Some(&1) && values.iter().all(|v| *v == 0.0)
    };
    !config.family.has_segments() && found.is_none_or(empty)
}

/// Reads the 64-bit whole-number tensors of a safetensors file, such as token ids: shape and values.
///
/// # Errors
/// When the file cannot be read or is not a whole safetensors file.
pub fn read_integers(path: &Path) -> Result<Integers, ModelError> {
    let bytes = std::fs::read(path).map_err(ModelError::io(path))?;
    let damaged = |message: String| ModelError::Damaged { path: path.into(), message };
    let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(e.to_string()))?;
    let whole = file.iter().filter(|(_, view)| view.dtype() == Dtype::I64);
    Ok(whole
        .map(|(name, view)| {
            let values = view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
            (name.to_owned(), (view.shape().iter().map(|n| *n as i64).collect(), values))
        })
        .collect())
}

/// Writes `tensors` into the network's stages. See [`load_network`] for the rules.
///
/// # Errors
/// A sentence that names the tensors at fault.
pub fn assign(network: &mut Network, mut tensors: Tensors, seed: u64) -> Result<LoadReport, String> {
    let mut report = LoadReport::default();
    let head = network.stages().len() - 1;
    let own = network.config().family.prefix();
    for index in 0..network.stages().len() {
        let stage = &network.stages()[index];
        let mut values = vec![0.0; stage.len()];
        for (number, param) in stage.params().iter().enumerate() {
            let found: Vec<_> = param.parts().map(|(name, ..)| take(&mut tensors, own, name)).collect();
            if found.iter().any(Option::is_none) {
                // Drawing a large model's weights takes longer than reading them: only those that the file lacks.
                param.initialise(&mut values, [seed, index as u64, number as u64]);
            }
            for ((name, shape, span), found) in param.parts().zip(found) {
                let Some((found, data)) = found else {
                    report.missing.push(name.to_owned());
                    continue;
                };
                if found != shape {
                    return Err(format!(
                        "{name} has shape {found:?}, but config.json asks for {shape:?}: the two files do not belong together"
                    ));
                }
                values[span].copy_from_slice(&data);
            }
        }
        if index != head && !report.missing.is_empty() {
            return Err(missing_sentence(&report.missing));
        }
        network.stages_mut()[index].set(&values);
    }
    // Half a head is a mistake, not a new head.
    let parts: usize = network.head_stage().params().iter().map(|p| p.parts.len()).sum();
    if !report.missing.is_empty() && report.missing.len() < parts {
        return Err(missing_sentence(&report.missing));
    }
    report.unexpected = tensors.into_keys().collect();
    Ok(report)
}

fn missing_sentence(missing: &[String]) -> String {
    format!(
        "lacks {} (and so is no weights file of this architecture): {}",
        plural(missing.len()),
        missing.join(", ")
    )
}

fn plural(count: usize) -> String {
    if count == 1 { "a tensor".into() } else { format!("{count} tensors") }
}

/// Takes a tensor out under its family's prefix or another, or under its old name.
fn take(tensors: &mut Tensors, own: &str, name: &str) -> Option<(Vec<i64>, Vec<f32>)> {
    let old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
    for prefix in std::iter::once(&own).chain(PREFIXES) {
        if let Some(found) = tensors.remove(&format!("{prefix}{name}")) {
            return Some(found);
        }
        if old != name
            && let Some(found) = tensors.remove(&format!("{prefix}{old}"))
        {
            return Some(found);
        }
    }
    None
}
