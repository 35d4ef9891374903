//! `squad-worker verify`: a model held against another program's values.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use squad_train::verify::{Tolerance, Verification};

use crate::predict::Output;

/// What to compare with what.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// Folder of a model with the span head.
    #[arg(long)]
    model: PathBuf,
    /// Folder with inputs, outputs and grads of the same weights.
    #[arg(long)]
    reference: PathBuf,
    /// Largest difference of hidden states, logits and the loss, relative to each tensor's largest value.
    #[arg(long, value_name = "RELATIVE", default_value_t = Tolerance::default().values)]
    tolerance: f64,
    /// The same for gradients.
    #[arg(long, value_name = "RELATIVE", default_value_t = Tolerance::default().gradients)]
    gradient_tolerance: f64,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Prints every tensor's difference; exit code 1 when one is beyond its tolerance.
///
/// # Errors
/// When a file cannot be used.
pub(crate) fn verify(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let tolerance = Tolerance { values: args.tolerance, gradients: args.gradient_tolerance };
    let found = squad_train::verify::verify(&args.model, &args.reference, tolerance)?;
    let mut out = std::io::stdout().lock();
    match args.output {
        Output::Json => writeln!(out, "{}", serde_json::to_string(&found)?)?,
        Output::Text => write!(out, "{}", text(&found))?,
    }
    Ok(if found.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(found: &Verification) -> String {
    let mut text = String::new();
    for tensor in &found.tensors {
        let mark = if tensor.within() { "  " } else { "! " };
        let kind = if tensor.absolute { " absolute" } else { "" };
        text += &format!("{mark}{:9.2e}{kind}  {}\n", tensor.difference, tensor.name);
    }
    let worst = |gradients: bool| {
        let group = found.tensors.iter().filter(|t| t.name.contains('.') == gradients);
        group.map(|t| t.difference).max_by(f64::total_cmp).unwrap_or(0.0)
    };
    text + &format!(
        "{}: {} parameters, {} tensors; largest difference {:.1e} of values, {:.1e} of gradients: {}\n",
        found.family,
        found.parameters,
        found.tensors.len(),
        worst(false),
        worst(true),
        if found.passed { "equal" } else { "NOT equal" }
    )
}
