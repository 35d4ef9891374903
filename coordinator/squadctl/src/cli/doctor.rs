//! The arguments of `doctor`.

use std::path::PathBuf;

use clap::Args;

/// What is to be looked at.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// A job spec: what it needs is compared with what there is.
    #[arg(value_name = "SPEC")]
    pub(crate) spec: Option<PathBuf>,
    /// Worker processes that are to run here; -np works too [default: resources.workers of SPEC, else 1].
    #[arg(short = 'n', long = "np", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) processes: Option<u32>,
    /// Derive the deadlines from this many seconds [default: fault.patience_s of SPEC, else 60].
    #[arg(long, value_name = "SECONDS", value_parser = patience)]
    pub(crate) patience: Option<f64>,
}

fn patience(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (1.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("write a number of seconds from 1 to 86400".into()),
    }
}
