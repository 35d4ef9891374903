//! `squad-worker predict`: one answer from a fine-tuned model.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::{Args, ValueEnum};
use squad_data::batch::collate;
use squad_data::{
    AnswerSettings, Dataset, FeatureSettings, Features, PairLayout, Prediction, Purpose, Tokenizer, Window,
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
    let begun = Instant::now();
    let ConfigFile { config, json, .. } = EncoderConfig::read(&args.model)?;
    let head = save::head_of(&json).with_context(|| {
        format!(
            "{} has no question-answering head; name the model folder of a finished run",
            args.model.display()
        )
    })?;
    let (network, loaded) = load_network(&args.model, head, 0, Device::Cpu)?;
    anyhow::ensure!(
        loaded.head_loaded(),
        "{}: config.json names a question-answering head, but the weights hold none; name the model folder of a \
         finished run",
        args.model.display()
    );
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let tokenizer = Tokenizer::from_folder(&args.model)?;
    let loaded_s = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let longest = (config.max_tokens() as usize).min(384);
    let settings = FeatureSettings {
        max_seq_length: longest,
        // A third of 384; models with few positions need less.
        doc_stride: longest / 3,
        max_query_length: 64,
        window: Window::Overlap,
        layout: if save::single_separator(&json) { PairLayout::Single } else { tokenizer.layout() },
    };
    let dataset = Dataset::ask(&args.question, &context);
    let features = Features::build(&dataset, &tokenizer, &settings, Purpose::Evaluate)?;
    let mut scores = WindowScores::default();
    for index in 0..features.len() {
        let batch = collate(&features, &[index], tokenizer.pad(), 1);
        scores.score(&network, &batch, (5, 5))?;
    }
    let chosen = AnswerSettings {
        // As in training; fewer are printed.
        n_best: args.n_best.max(20),
        max_answer_length: 30,
        null_threshold: args.null_threshold,
    };
    let prediction = scores
        .predict(&dataset, &features, &chosen, matches!(head, HeadKind::Span))?
        .into_iter()
        .next()
        .context("no window could be made of the context")?;
    let seconds = serde_json::json!({"load": loaded_s, "answer": begun.elapsed().as_secs_f64()});
    print(args, &prediction, &seconds)?;
    Ok(ExitCode::SUCCESS)
}

fn print(args: &PredictArgs, prediction: &Prediction, seconds: &serde_json::Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let listed = &prediction.n_best[..args.n_best.clamp(1, prediction.n_best.len())];
    match args.output {
        Output::Json => {
            // None where the model abstains: then no candidate need have its text, which is empty.
            let chosen = prediction.n_best.iter().find(|c| c.text == prediction.text && !c.text.is_empty());
            let document = serde_json::json!({
                "question": args.question,
                "answer": prediction.text,
                "start": chosen.map(|c| c.start),
                "end": chosen.map(|c| c.end),
                "score": chosen.map(|c| c.score),
                "probability": chosen.map(|c| c.probability),
                "no_answer_probability": prediction.null_odds,
                "n_best": listed,
                "seconds": seconds,
            });
            writeln!(out, "{document}")?;
        }
        Output::Text => {
            let answer = if prediction.text.is_empty() { "(no answer)" } else { &prediction.text };
            writeln!(out, "{answer}")?;
            for candidate in listed {
                let span = format!("{}..{}", candidate.start, candidate.end);
                writeln!(out, "  {:.3}  {span:>11}  {}", candidate.probability, candidate.text)?;
            }
            writeln!(out, "  {:.3}  probability of no answer", prediction.null_odds)?;
        }
    }
    Ok(())
}
