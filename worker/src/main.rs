//! The training process: one for each GPU or CPU slot.
//!
//! Two threads matter: the control thread (this one) speaks with the coordinator and never computes, so that
//! it answers however long a step takes; the compute thread owns the network and never waits for the
//! network but in the ring.

mod attend;
mod bench;
mod control;
mod deliver;
mod device;
mod failure;
mod join;
mod kernels;
mod lifeline;
mod plan;
mod predict;
mod probe;
mod progress;
mod session;
mod shape;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};

/// Squadron's worker. Users start it through squadctl; join is for launchers.
#[derive(Parser)]
#[command(name = "squad-worker", version, about, propagate_version = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Take part in a job.
    ///
    /// Under mpirun, srun, or as pods of a Kubernetes job: with --ticket FILE of a job that was submitted with
    /// --external, or with --rendezvous DIR and --spec SPEC without a coordinator. The process goes through the
    /// restarts of the job and ends with it: 0 succeeded, 1 failed, 130 stopped.
    ///
    /// Without either it is started by a coordinator: it reads a ticket, one line of JSON, from standard input, which
    /// stays open as long as the launcher lives.
    #[command(
        verbatim_doc_comment,
        after_help = "Examples:\n  mpirun -np 2 squad-worker join --spec job.yaml --rendezvous run\n  \
                      srun --kill-on-bad-exit=0 squad-worker join --ticket shared/ticket\n  \
                      squad-worker join --ticket /etc/squad/ticket --world 4 --slots 2    in a pod of an Indexed Job"
    )]
    Join(Box<attend::JoinArgs>),
    /// Measure how fast steps of training are; squadctl bench step shows it.
    Bench(bench::BenchArgs),
    /// Tell what a job will need; squadctl plan shows it.
    Plan(plan::PlanArgs),
    /// Answer one question with a fine-tuned model.
    Predict(predict::PredictArgs),
    /// Be one of the ranks of squadctl bench allreduce --transport nccl. Reads what to do from standard input.
    #[command(hide = true)]
    Rank,
    /// Tell what this machine has: cores, kernels, libtorch, GPUs, NCCL.
    Probe(probe::ProbeArgs),
    /// Hold a model against values that another program computed with its weights.
    Verify(verify::VerifyArgs),
    /// Write this program's manual pages into a folder.
    #[command(after_help = "Examples:\n  squad-worker man ~/.local/share/man/man1")]
    Man {
        /// Where; it is made if it is not there.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// Writes the manual pages, one for each command.
fn write_manual(folder: &Path) -> anyhow::Result<ExitCode> {
    let cannot = || format!("cannot write manual pages into {}", folder.display());
    std::fs::create_dir_all(folder).with_context(cannot)?;
    clap_mangen::generate_to(Args::command(), folder).with_context(cannot)?;
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        // Whoever reads may be gone: a line that nobody reads must not end the work.
        .log_internal_errors(false)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("SQUAD_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .init();
    let outcome = match args.command {
        Command::Join(args) if args.ticket.is_some() || args.rendezvous.is_some() => attend::join(&args),
        Command::Join(_) => join::join(),
        Command::Bench(args) => bench::bench(&args),
        Command::Plan(args) => plan::tell(&args),
        Command::Predict(args) => predict::predict(&args),
        Command::Probe(args) => probe::probe(&args),
        // squadctl itself has nothing of GPUs.
        Command::Rank => {
            let libraries = squad_cuda::Places::of_process().beside("nccl", "libnccl.so.2");
            squad_collective::bench::live(libraries).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        Command::Verify(args) => verify::verify(&args),
        Command::Man { folder } => write_manual(&folder),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
#[path = "../../tests/src/usage.rs"]
mod usage;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_pages_and_examples_show_is_understood() {
        let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let (seen, wrong) = usage::misunderstood(&repository, &Args::command(), |words| words);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(seen > 10, "only {seen} commands were found");
    }
}
