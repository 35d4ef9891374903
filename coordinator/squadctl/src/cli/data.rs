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
