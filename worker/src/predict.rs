//! `squad-worker predict`: one answer from a fine-tuned model.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use squad_data::batch::collate;
use squad_data::{
    AnswerSettings, Dataset, FeatureSettings, Features, PairLayout, Purpose, Tokenizer, Window,
};
use squad_model::{ConfigFile, EncoderConfig, HeadKind, load_network, save};
use squad_train::evaluate::WindowScores;
use tch::Device;

/// What to answer, and with what.
#[derive(Args)]
pub(crate) struct PredictArgs {
    /// Folder of a fine-tuned model, such as out/model.
    #[arg(long)]
    model: PathBuf,
    /// The question.
    #[arg(long)]
    question: String,
    /// The text that holds the answer.
    #[arg(long, required_unless_present = "context_file", conflicts_with = "context_file")]
    context: Option<String>,
    /// A file with the text.
    #[arg(long)]
    context_file: Option<PathBuf>,
    /// How many answers to list.
    #[arg(long, default_value_t = 3)]
    n_best: usize,
    /// Answer "no answer" where that is more probable than this.
    #[arg(long, value_name = "PROBABILITY")]
    null_threshold: Option<f64>,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

/// Prints the answer.
///
/// # Errors
/// When the model or the text cannot be used.
pub(crate) fn predict(args: &PredictArgs) -> anyhow::Result<ExitCode> {
    let context = match (&args.context, &args.context_file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        (None, None) => anyhow::bail!("give --context or --context-file"),
    };
    anyhow::ensure!(!context.trim().is_empty(), "the context is empty");
    anyhow::ensure!(!args.question.trim().is_empty(), "the question is empty");
    let ConfigFile { config, json, .. } = EncoderConfig::read(&args.model)?;
    let head = save::head_of(&json).with_context(|| {
        format!(
            "{} has no question-answering head; name the model folder of a finished run",
            args.model.display()
        )
    })?;
    let (network, loaded) = load_network(&args.model, head, 0, Device::Cpu)?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let tokenizer = Tokenizer::from_folder(&args.model)?;
    let settings = FeatureSettings {
        max_seq_length: (config.max_tokens() as usize).min(384),
        doc_stride: 128,
        max_query_length: 64,
        window: Window::Overlap,
        layout: if save::single_separator(&json) { PairLayout::Single } else { tokenizer.layout() },
    };
    let dataset = Dataset::ask(&args.question, &context);
    let features = Features::build(&dataset, &tokenizer, &settings, Purpose::Evaluate)?;
    let mut scores = WindowScores::default();
    for index in 0..features.len() {
        let batch = collate(&features, &[index], tokenizer.pad(), 1);
        scores.score(&network, &batch, (5, 5));
    }
    let chosen = AnswerSettings {
        n_best: args.n_best.max(1),
        max_answer_length: 30,
        null_threshold: args.null_threshold,
    };
    let prediction = scores
        .predict(&dataset, &features, &chosen, matches!(head, HeadKind::Span))?
        .into_iter()
        .next()
        .context("no window could be made of the context")?;
    print(args, &prediction)?;
    Ok(ExitCode::SUCCESS)
}

fn print(args: &PredictArgs, prediction: &squad_data::Prediction) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match args.output {
        Output::Json => {
            let document = serde_json::json!({
                "question": args.question,
                "answer": prediction.text,
                "null_odds": prediction.null_odds,
                "n_best": prediction.n_best,
            });
            writeln!(out, "{document}")?;
        }
        Output::Text => {
            let answer = if prediction.text.is_empty() { "(no answer)" } else { &prediction.text };
            writeln!(out, "{answer}")?;
            for candidate in &prediction.n_best {
                writeln!(out, "  {:.3}  {}", candidate.probability, candidate.text)?;
            }
        }
    }
    Ok(())
}
