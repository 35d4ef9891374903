//! Weights of other programs as a folder in Hugging Face layout.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde::Serialize;
use squad_weights::gluon::{self, ConvertReport, Head};
use squad_weights::{Existing, WeightsError, write_safetensors};

use crate::cli::ConvertArgs;
use crate::fault::{BadUsage, Verdict};
use crate::output::Output;

/// What configurations are called: GluonNLP's, and Hugging Face's.
const CONFIGS: [&str; 2] = ["model.yml", CONFIG];
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";

/// What became of a conversion.
#[derive(Debug, Serialize)]
struct Converted {
    /// The folder in Hugging Face layout.
    folder: PathBuf,
    /// The architecture, as config.json has it.
    family: Option<String>,
    /// The head that GluonNLP's file holds: none, span or conditional.
    head: Option<&'static str>,
    /// Width of the conditional head's inner layers.
    units: Option<i64>,
    /// Tensors written, and numbers in them.
    tensors: usize,
    parameters: usize,
    /// Tensors that were left out.
    unused: Vec<String>,
    /// Files of the tokenizer that were copied.
    tokenizer: Vec<&'static str>,
}

/// Writes a model folder from GluonNLP's files, or from PyTorch's.
pub(super) fn convert(arguments: &ConvertArgs, output: Output) -> anyhow::Result<Verdict> {
    let source = &arguments.source;
    if !source.exists() {
        let text =
            format!("{}: there is no such file; it is GluonNLP's or PyTorch's weights", source.display());
        return Err(BadUsage(text).into());
    }
    let config = config(arguments)?;
    let existing = if arguments.force { Existing::Replace } else { Existing::Keep };
    let is_hugging_face = config.extension().is_some_and(|extension| extension == "json");
    let mut converted = if is_hugging_face {
        rewrite(source, &config, &arguments.dir, existing)?
    } else {
        let report = gluon::convert(source, &config, &arguments.dir, existing).map_err(fault)?;
        described(&arguments.dir, report)
    };
    converted.tokenizer = copy_tokenizer(arguments)?;
    if !squad_fetch::is_tokenizer(|name| arguments.dir.join(name).is_file()) {
        let (folder, choices) = (arguments.dir.display(), squad_fetch::tokenizer_choices());
        output.talk(&format!("{folder} has no tokenizer yet; put the model's there: one of {choices}"));
    }
    output.answer(&converted, || text(&converted))?;
    Ok(Verdict::Done)
}

/// The configuration: the one named, else the one beside the weights.
fn config(arguments: &ConvertArgs) -> anyhow::Result<PathBuf> {
    if let Some(config) = &arguments.config {
        return match config.is_file() {
            true => Ok(config.clone()),
            false => Err(BadUsage(format!("--config {}: there is no such file", config.display())).into()),
        };
    }
    let folder = folder_of(&arguments.source);
    let found = CONFIGS.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        let (source, names) = (arguments.source.display(), CONFIGS.join(" nor "));
        BadUsage(format!("there is neither {names} beside {source}; name the configuration by --config"))
            .into()
    })
}

/// The folder that a file of weights lies in; a folder of weights is its own.
fn folder_of(source: &Path) -> &Path {
    if source.is_dir() { source } else { source.parent().unwrap_or(Path::new("")) }
}

/// Writes weights whose names are Hugging Face's already as safetensors, and copies their configuration.
fn rewrite(source: &Path, config: &Path, dir: &Path, existing: Existing) -> anyhow::Result<Converted> {
    let targets = [dir.join(WEIGHTS), dir.join(CONFIG)];
    let stands = |target: &PathBuf| target.exists() && !is_same(target, config);
    if let (Existing::Keep, Some(path)) = (existing, targets.iter().find(|target| stands(target))) {
        return Err(fault(WeightsError::Exists { path: path.clone() }));
    }
    let text = fs::read_to_string(config).with_context(|| format!("cannot read {}", config.display()))?;
    let fields: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", config.display()))?;
    let read = if source.is_dir() {
        squad_weights::read_folder(source).map(|(tensors, _)| tensors)
    } else {
        squad_weights::read(source)
    };
    let tensors = read.map_err(fault)?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let views = tensors.iter().map(|(name, (shape, values))| (name.as_str(), &shape[..], &values[..]));
    write_safetensors(&targets[0], views, existing).map_err(fault)?;
    copy(config, &targets[1])?;
    Ok(Converted {
        folder: dir.to_owned(),
        family: fields["model_type"].as_str().map(str::to_owned),
        head: None,
        units: None,
        tensors: tensors.len(),
        parameters: tensors.values().map(|(_, values)| values.len()).sum(),
        unused: Vec::new(),
        tokenizer: Vec::new(),
    })
}

fn described(folder: &Path, report: ConvertReport) -> Converted {
    let (head, units) = match report.head {
        Head::None => ("none", None),
        Head::Span => ("span", None),
        Head::Conditional { units } => ("conditional", Some(units)),
    };
    Converted {
        folder: folder.to_owned(),
        family: Some(report.family.model_type().to_owned()),
        head: Some(head),
        units,
        tensors: report.tensors,
        parameters: report.numbers,
        unused: report.unused,
        tokenizer: Vec::new(),
    }
}

/// Copies what files of a tokenizer lie beside the weights under Hugging Face's names; others stay, unless forced.
fn copy_tokenizer(arguments: &ConvertArgs) -> anyhow::Result<Vec<&'static str>> {
    let mut copied = Vec::new();
    for name in squad_fetch::TOKENIZER_FILES {
        let (from, to) = (folder_of(&arguments.source).join(name), arguments.dir.join(name));
        if from.is_file() && (arguments.force || !to.exists()) && !is_same(&from, &to) {
            copy(&from, &to)?;
            copied.push(name);
        }
    }
    Ok(copied)
}

/// Copies a file, so that its new name stands for all of it at once.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if is_same(from, to) {
        return Ok(());
    }
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    fs::copy(from, &part)
        .and_then(|_| fs::rename(&part, to))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Whether two paths lead to one file: weights may be converted within their folder.
fn is_same(a: &Path, b: &Path) -> bool {
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

/// A file in the way is a matter of the arguments.
fn fault(error: WeightsError) -> anyhow::Error {
    match error {
        WeightsError::Exists { .. } => BadUsage(format!("{error} (--force)")).into(),
        _ => anyhow!(error),
    }
}

/// The folder, which is what scripts go on with; then what is in it.
fn text(converted: &Converted) -> String {
    let family = converted.family.as_deref().unwrap_or("unknown family");
    let head = match (converted.head, converted.units) {
        (None, _) => String::new(),
        (Some(head), None) => format!(", head {head}"),
        (Some(head), Some(units)) => format!(", head {head} of {units} units"),
    };
    let (tensors, parameters) = (converted.tensors, converted.parameters);
    let mut text = format!("{}\n", converted.folder.display());
    text += &format!("  {family}{head}: {tensors} tensors, {parameters} parameters\n");
    if !converted.unused.is_empty() {
        text += &format!("  left out: {}\n", converted.unused.join(", "));
    }
    if !converted.tokenizer.is_empty() {
        text += &format!("  tokenizer: {}\n", converted.tokenizer.join(", "));
    }
    text
}
