//! Flags of `top`.

use clap::Args;

use super::ServerArgs;

/// Flags of `top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Print one picture as text, and end.
    #[arg(long)]
    pub(crate) once: bool,
    /// Where.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}
