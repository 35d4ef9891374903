//! The commands about question files.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// The commands about question files.
#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Download SQuAD's official files, checked and resumable
    ///
    /// Files that are there are verified by size and checksum and kept. A file of that name which is another one
    /// is left as it is, and told, unless --force replaces it. HF_HUB_OFFLINE=1 forbids the network: what is there
    /// is verified, and what is missing named. SQuAD's licence is CC BY-SA 4.0.
    #[command(
        verbatim_doc_comment,
        disable_version_flag = true,
        after_help = "\
Examples:
  squadctl data prepare --version 2.0 --dir squad
  squadctl data prepare --version 1.1 --dir squad --mirror http://files.example/squad --output json"
    )]
    Prepare(PrepareArgs),
    /// Count and measure a question file, and say what is wrong with it
    ///
    /// Questions, articles and paragraphs; lengths of contexts, questions and answers; where answers stand; ids that
    /// occur twice, empty answers, answers that are not where the file says. What is wrong is told on stderr and
    /// changes no exit code: only a file that cannot be read does. With --model tokens are counted, too, and the
    /// windows of 384 tokens, starting every 128, that questions need.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  squadctl data stats --data squad/train-v2.0.json
  squadctl data stats --data squad/train-v2.0.json --model models/albert --plot lengths.svg
  squadctl data stats --data squad/dev-v1.1.json --output json | jq .unanswerable"
    )]
    Stats(StatsArgs),
    /// Cut a question file into a model's features, and say how fast
    ///
    /// What a job does before it trains, with the counts that it logs. Features go into the cache that all jobs of
    /// this machine share (SQUAD_FEATURE_CACHE names its folder, or is `off`), so that a job with the same file,
    /// tokenizer and settings starts at once. The settings are those of a job's `data` section. Seconds are those of
    /// cutting, or of opening the cache; reading the file and the tokenizer is told apart from them.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  squadctl data featurize --model models/minilm --data squad/train-v2.0.json
  squadctl data featurize --model models/minilm --data squad/dev-v2.0.json --purpose evaluate
  squadctl data featurize --model models/minilm --data squad/train-v2.0.json --no-cache --threads 1 --output json"
    )]
    Featurize(FeaturizeArgs),
    /// Print the best F1 of any rule that never reads the question: what a model must beat
    #[command(after_help = "Examples:\n  squadctl data baseline --data squad/dev-v1.1.json --output json")]
    Baseline {
        /// Questions and answers in SQuAD's JSON format, version 1.1 or 2.0.
        #[arg(long, value_name = "FILE")]
        data: PathBuf,
    },
}

/// Which files, and where they go.
#[derive(Debug, Args)]
pub(crate) struct PrepareArgs {
    /// The version of SQuAD; 2.0 has questions without an answer.
    #[arg(long, value_enum)]
    pub(crate) version: Release,
    /// The folder that the files go to; made where it is missing.
    #[arg(long, value_name = "DIR", default_value = "squad")]
    pub(crate) dir: PathBuf,
    /// The address of a folder that holds the files, in place of the publisher's.
    #[arg(long, value_name = "URL")]
    pub(crate) mirror: Option<String>,
    /// Replace files that are there and are not the official ones.
    #[arg(long)]
    pub(crate) force: bool,
}

/// A version of SQuAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Release {
    /// Every question has an answer.
    #[value(name = "1.1")]
    V1_1,
    /// With questions that have none.
    #[value(name = "2.0")]
    V2_0,
}

/// Which file, and what else is wanted.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Questions and answers in SQuAD's JSON format, version 1.1 or 2.0.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// A model's folder, whose tokenizer counts tokens.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// A picture to draw: histograms of the lengths and of where answers stand, as SVG.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

/// Which features.
#[derive(Debug, Args)]
pub(crate) struct FeaturizeArgs {
    /// A model's folder, with its tokenizer.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// Questions and answers in SQuAD's JSON format, version 1.1 or 2.0.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// Longest sequence in tokens, question and special tokens included.
    #[arg(long, value_name = "TOKENS", default_value_t = 512)]
    pub(crate) max_seq_length: usize,
    /// Tokens; what they count is --window's meaning.
    #[arg(long, value_name = "TOKENS", default_value_t = 128)]
    pub(crate) doc_stride: usize,
    /// Question tokens that are kept, with --window step.
    #[arg(long, value_name = "TOKENS", default_value_t = 64)]
    pub(crate) max_query_length: usize,
    /// Whether windows start every --doc-stride tokens, or share as many with the one before.
    #[arg(long, value_enum, default_value_t = WindowRule::Step)]
    pub(crate) window: WindowRule,
    /// With gold positions to train on, or every question without them.
    #[arg(long, value_enum, default_value_t = FeaturesFor::Train)]
    pub(crate) purpose: FeaturesFor,
    /// Threads that cut; by default one for each processor.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
    /// Neither look into the cache nor fill it.
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// A file to write the features to, one JSON object a line, to look at them.
    #[arg(long, value_name = "FILE")]
    pub(crate) dump: Option<PathBuf>,
}

/// The meaning of `--doc-stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WindowRule {
    /// The replaced program's rules.
    Step,
    /// Hugging Face's rules.
    Overlap,
}

/// What features are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FeaturesFor {
    /// Training.
    Train,
    /// Evaluation.
    Evaluate,
}
