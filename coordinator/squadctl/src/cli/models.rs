//! The commands about model folders.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// The commands about model folders.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// List the models that GluonNLP's run_squad.py knew by name, and their repositories today
    ///
    /// Their names can stand in a job spec's model field, and be fetched. Parameters are those of the encoder
    /// without its pooler; the download is about 4 bytes for each.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  squadctl models list
  squadctl models list --output json | jq -r '.[] | select(.family == \"albert\") | .repository'"
    )]
    List,
    /// Download a model's files, checked and resumable
    ///
    /// Brings config.json, every file of the tokenizer, and the weights: model.safetensors, else its shards,
    /// else pytorch_model.bin, else its shards. Files that are there stay; a download that broke off goes on
    /// where it was. HF_ENDPOINT names a mirror, HF_TOKEN a token for private repositories (else the one stored
    /// below HF_HOME is used), HF_HUB_OFFLINE=1 forbids the network.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  squadctl models fetch sentence-transformers/all-MiniLM-L6-v2 --dir models/minilm
  squadctl models fetch google_albert_base_v2 --dir models/albert
  squadctl models fetch google-bert/bert-base-uncased --dir models/bert --revision main --sha256 HEX"
    )]
    Fetch(FetchArgs),
    /// Turn GluonNLP's or PyTorch's weights into a folder in Hugging Face layout
    ///
    /// Writes config.json and model.safetensors, and copies what files of a tokenizer lie beside the weights.
    /// With GluonNLP's model.yml the weights are a .params file of its, of either format: a backbone, or a whole
    /// question-answering network with its head. With a config.json they are PyTorch's, and keep their names.
    /// No code that a file may hold is run.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  squadctl models convert gluon/model.params --config gluon/model.yml --dir models/gluon
  squadctl models convert squad_out/last.params --config gluon/model.yml --dir models/tuned --output json
  squadctl models convert download/pytorch_model.bin --dir models/electra --force"
    )]
    Convert(ConvertArgs),
    /// Hold a model against values that another program computed with the same weights
    ///
    /// Runs squad-worker, which lists the largest difference of every tensor: hidden states, logits, the loss
    /// and gradients, each relative to the tensor's largest value. Exit code 1 when one is beyond its tolerance.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  squadctl models verify --model models/albert --reference reference/albert
  squadctl models verify --model models/albert --reference reference/albert --tolerance 1e-3 --output json"
    )]
    Verify(VerifyArgs),
}

/// A repository and where it goes.
#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// The repository, as in owner/name, or a name of `squadctl models list`.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The folder that the files go to.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Expected SHA-256 of the weights, which must be one file then.
    #[arg(long, value_name = "HEX")]
    pub(crate) sha256: Option<String>,
    /// Branch, tag or commit [default: main].
    #[arg(long, value_name = "REVISION")]
    pub(crate) revision: Option<String>,
}

/// Weights and where their folder goes.
#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// The weights: a .params file, or a file or folder of PyTorch's (pytorch_model.bin, its index, safetensors).
    #[arg(value_name = "SOURCE")]
    pub(crate) source: PathBuf,
    /// Their configuration: GluonNLP's model.yml, or a config.json [default: the one beside SOURCE].
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The folder to write into; made where it is missing.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Replace files that are there.
    #[arg(long)]
    pub(crate) force: bool,
}

/// What to hold against what.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The model's folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// The folder of the other program's values: inputs.safetensors, outputs.safetensors, grads.safetensors.
    #[arg(long, value_name = "DIR")]
    pub(crate) reference: PathBuf,
    /// Largest relative difference of hidden states, logits and the loss [default: squad-worker's].
    #[arg(long, value_name = "RELATIVE")]
    pub(crate) tolerance: Option<f64>,
    /// Largest relative difference of gradients [default: squad-worker's].
    #[arg(long, value_name = "RELATIVE")]
    pub(crate) gradient_tolerance: Option<f64>,
}
