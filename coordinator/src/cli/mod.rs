//! Every command and flag of the daemon.

mod certificate;
mod gpus;
mod serve;
mod token;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use squad_coordinator::{ServeError, TlsError, TokenError};
use thiserror::Error;

/// Squadron's daemon: takes jobs, runs their workers, remembers what became of them.
#[derive(Parser)]
#[command(name = "squad-coordinator", version, propagate_version = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGINT or SIGTERM.
    #[command(after_help = serve::EXAMPLES)]
    Serve(Box<serve::Serve>),
    /// Make, list and revoke the tokens of users.
    #[command(arg_required_else_help = true, after_help = token::EXAMPLES)]
    Token {
        #[command(subcommand)]
        command: token::Command,
    },
    /// Make a certificate authority of one's own and a certificate for this daemon, for those who have none.
    #[command(after_help = certificate::EXAMPLES)]
    Certificate(certificate::Certificate),
    /// Write this program's manual pages into a folder.
    #[command(after_help = "Examples:\n  squad-coordinator man ~/.local/share/man/man1")]
    Man {
        /// Where; it is made if it is not there.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// Writes the manual pages, one for each command.
fn write_manual(folder: &Path) -> anyhow::Result<()> {
    let cannot = || format!("cannot write manual pages into {}", folder.display());
    std::fs::create_dir_all(folder).with_context(cannot)?;
    clap_mangen::generate_to(Args::command(), folder).with_context(cannot)
}

/// Something in the flags that cannot work: exit code 2.
#[derive(Debug, Error)]
#[error("{0}")]
struct BadUsage(String);

/// The exit code of an error: 2 when the fault is in the flags, 1 otherwise.
fn exit_code(error: &anyhow::Error) -> u8 {
    let address = matches!(error.downcast_ref(), Some(ServeError::NotLoopback(_)));
    let name = matches!(
        error.downcast_ref(),
        Some(TokenError::Name(_) | TokenError::Taken(_) | TokenError::Unknown(_))
    );
    if address || name || error.is::<TlsError>() || error.is::<BadUsage>() { 2 } else { 1 }
}

/// Does what the arguments ask for.
pub(crate) fn perform(args: Args) -> ExitCode {
    let outcome = match args.command {
        Command::Serve(serve) => serve.perform(),
        Command::Token { command } => command.perform(),
        Command::Certificate(certificate) => certificate.perform(),
        Command::Man { folder } => write_manual(&folder),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// How to log.
pub(crate) fn start_log(format: serve::LogFormat) {
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).with_env_filter(
        tracing_subscriber::EnvFilter::try_from_env("SQUAD_LOG")
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
    );
    // Whoever reads may be gone: a line that nobody reads must not end the jobs.
    let log = log.log_internal_errors(false);
    match format {
        serve::LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        serve::LogFormat::Json => log.json().init(),
    }
}

impl Args {
    /// How the command logs.
    pub(crate) fn log_format(&self) -> serve::LogFormat {
        match &self.command {
            Command::Serve(serve) => serve.log_format(),
            _ => serve::LogFormat::Text,
        }
    }
}

#[cfg(test)]
#[path = "../../../tests/src/usage.rs"]
mod usage;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_pages_and_examples_show_is_understood() {
        let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let (seen, wrong) = usage::misunderstood(&repository, &Args::command(), |words| words);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(seen > 15, "only {seen} commands were found");
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let parsed = |words: &[&str]| Args::try_parse_from([&["squad-coordinator", "serve"], words].concat());
        assert!(parsed(&["--tls-cert", "a"]).is_err() && parsed(&["--client-ca", "a"]).is_err());
        assert!(parsed(&["--tls-cert", "a", "--tls-key", "b", "--client-ca", "c"]).is_ok());
    }
}
