//! A question file as features.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;
use serde_json::json;
use squad_data::{
    Dataset, FeatureCache, FeatureCounts, FeatureSettings, Features, Opened, Origin, Purpose, Tokenizer,
    Window, squad,
};

use crate::cli::{FeaturesFor, FeaturizeArgs, WindowRule};
use crate::commands::{evaluate, worker};
use crate::fault::Verdict;
use crate::output::Output;

/// What was cut, and how fast.
#[derive(Serialize)]
struct Report {
    questions: usize,
    kept: usize,
    mismatched: usize,
    unreliable: usize,
    features: usize,
    impossible_features: usize,
    tokens: usize,
    /// Of cutting, or of opening the cache.
    seconds: f64,
    questions_per_second: f64,
    features_per_second: f64,
    /// Of reading the file and the tokenizer.
    load_seconds: f64,
    threads: usize,
    /// Whether nothing had to be cut.
    cached: bool,
    /// SHA-256 over the features: equal where they are.
    digest: String,
}

/// Cuts a question file, or finds that it was cut before.
pub(super) fn featurize(arguments: &FeaturizeArgs, output: Output) -> anyhow::Result<Verdict> {
    let begun = Instant::now();
    worker::folder("--model", &arguments.model, "squadctl models fetch brings one")?;
    let dataset = squad::read(&arguments.data).map_err(evaluate::fault)?;
    let tokenizer = Tokenizer::from_folder(&arguments.model)?;
    let load = begun.elapsed();
    evaluate::name(&dataset.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(), "", output);

    let cache = if arguments.no_cache {
        FeatureCache::Off
    } else {
        FeatureCache::from_env(squad_proto::Deadlines::default().features)
    };
    let (settings, purpose) = (settings(arguments, &tokenizer), purpose(arguments));
    // Zero threads mean one for each processor.
    let threads = usize::from(arguments.threads.unwrap_or(0));
    let pool =
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("cannot start threads")?;
    let begun = Instant::now();
    let opened =
        pool.install(|| Features::open_or_build(&dataset, &tokenizer, &settings, purpose, &cache))?;
    let took = begun.elapsed();
    if let Some(path) = &arguments.dump {
        dump(&dataset, &opened.features, path)
            .with_context(|| format!("cannot write --dump {}", path.display()))?;
    }
    let report = Report::new(&opened, took, load, pool.current_num_threads());
    output.answer(&report, || text(&report, &opened.origin))?;
    Ok(Verdict::Done)
}

fn settings(arguments: &FeaturizeArgs, tokenizer: &Tokenizer) -> FeatureSettings {
    FeatureSettings {
        max_seq_length: arguments.max_seq_length,
        doc_stride: arguments.doc_stride,
        max_query_length: arguments.max_query_length,
        window: match arguments.window {
            WindowRule::Step => Window::Step,
            WindowRule::Overlap => Window::Overlap,
        },
        layout: tokenizer.layout(),
    }
}

fn purpose(arguments: &FeaturizeArgs) -> Purpose {
    match arguments.purpose {
        FeaturesFor::Train => Purpose::Train,
        FeaturesFor::Evaluate => Purpose::Evaluate,
    }
}

/// Every feature, a line each.
fn dump(dataset: &Dataset, features: &Features, path: &Path) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for feature in (0..features.len()).map(|index| features.get(index)) {
        let line = json!({
            "id": dataset.questions[feature.question].id,
            "input_ids": feature.input_ids,
            "context_offset": feature.context_offset,
            "chunk_start": feature.chunk_start,
            "chunk_length": feature.chunk_length,
            "start": feature.start,
            "end": feature.end,
            "is_impossible": feature.is_impossible,
        });
        writeln!(file, "{line}")?;
    }
    file.flush()
}

impl Report {
    fn new(opened: &Opened, took: Duration, load: Duration, threads: usize) -> Self {
        let FeatureCounts { questions, kept, mismatched, unreliable, chunks, impossible_chunks } =
            opened.features.counts();
        let seconds = took.as_secs_f64();
        Self {
            questions,
            kept,
            mismatched,
            unreliable,
            features: chunks,
            impossible_features: impossible_chunks,
            tokens: opened.features.lengths().iter().sum(),
            seconds,
            questions_per_second: questions as f64 / seconds.max(1e-9),
            features_per_second: chunks as f64 / seconds.max(1e-9),
            load_seconds: load.as_secs_f64(),
            threads,
            cached: opened.origin == Origin::Cached,
            digest: hex::encode(opened.features.digest()),
        }
    }
}

fn text(report: &Report, origin: &Origin) -> String {
    let Report { questions, kept, mismatched, unreliable, features, impossible_features, tokens, .. } =
        report;
    format!(
        "{questions} questions: {kept} kept, {mismatched} mismatched, {unreliable} unreliable\n\
         {features} features of {tokens} tokens: {impossible_features} without an answer\n\
         {:.2} s on {} threads ({:.0} questions a second), after {:.2} s of reading; {origin}",
        report.seconds, report.threads, report.questions_per_second, report.load_seconds
    )
}
