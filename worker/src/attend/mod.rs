//! `squad-worker join --ticket FILE`: workers that mpirun, Slurm or Kubernetes place.
//!
//! What the launcher started stays for the whole job: an attendant for each of its ranks, which starts the worker of
//! each life as a process of its own. So a restart of the gang needs nothing from the launcher.

mod attendant;
mod invitation;
mod link;
mod place;
mod process;
mod rendezvous;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use squad_proto::JobState;
use squad_proto::threads::BINDING;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use attendant::{Attendant, Ended, Slot};
use link::Source;
use place::{Flags, Place};

/// Flags of `join` for workers that a coordinator does not start itself.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct JoinArgs {
    /// Ticket of a job that was submitted with --external: a file that others cannot read.
    #[arg(long, value_name = "FILE", conflicts_with = "rendezvous")]
    pub(crate) ticket: Option<PathBuf>,
    /// Without a coordinator: rank 0 runs one for this job, and leaves the ticket in this folder, which all ranks
    /// see.
    #[arg(long, value_name = "DIR", requires = "spec")]
    pub(crate) rendezvous: Option<PathBuf>,
    /// The job spec of --rendezvous.
    #[arg(long, value_name = "SPEC", requires = "rendezvous")]
    spec: Option<PathBuf>,
    /// Address of the coordinator as it is reached from here [default: the ticket's].
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// This process's first rank [default: what mpirun, srun or Kubernetes says].
    #[arg(long, value_name = "N")]
    rank: Option<u32>,
    /// How many ranks the job has [default: what mpirun or srun says; Kubernetes does not].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    world: Option<u32>,
    /// The number of this process's first rank among those of its machine [default: what mpirun or srun says, else 0].
    #[arg(long, value_name = "N")]
    local_rank: Option<u32>,
    /// Ranks of this process, with consecutive numbers.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: u32,
    /// Threads of each worker [default: OMP_NUM_THREADS, SLURM_CPUS_PER_TASK, or the cores shared out].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Do not repeat the workers' output on standard error; the job's logs have it.
    #[arg(long)]
    quiet: bool,
    /// Seconds to wait for the ticket and for the coordinator's first answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    /// After `--`: what rank 0 of --rendezvous passes on to squadctl run, such as --resume or --set FIELD=VALUE.
    #[arg(last = true, value_name = "FLAG", requires = "rendezvous")]
    run: Vec<String>,
}

/// Attends to this process's ranks until the job has ended.
///
/// # Errors
/// When the rank is not known, the ticket cannot be used, or the coordinator cannot be reached.
pub(crate) fn join(args: &JoinArgs) -> anyhow::Result<ExitCode> {
    let flags = Flags { rank: args.rank, world: args.world, local_rank: args.local_rank, slots: args.slots };
    let place = place::find(flags, |name| std::env::var(name).ok())?;
    if let Some(name) = BINDING.iter().find(|name| std::env::var_os(name).is_some()) {
        tracing::warn!(
            "{name} is set: OpenMP has bound this process to one core, and what it starts with it; start it without {name}"
        );
    }
    let threads = link::threads(args.threads, place.local_size)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let leave = leaving()?;
        match (&args.rendezvous, &args.spec, &args.ticket) {
            (Some(folder), Some(spec), _) => {
                rendezvous::join(args, (folder, spec), place, threads, leave).await
            }
            (_, _, Some(ticket)) => {
                let source = args.source(ticket.clone(), false);
                Ok(exit_code(&attend(place, threads, !args.quiet, (source, leave)).await?))
            }
            _ => bail!("say --ticket FILE, or --rendezvous DIR with --spec SPEC"),
        }
    });
    runtime.shutdown_background();
    code
}

impl JoinArgs {
    fn source(&self, path: PathBuf, awaited: bool) -> Source {
        Source {
            path,
            server: self.server.clone(),
            awaited,
            wait: Duration::from_secs(self.wait),
            instance: format!(
                "{}-{}-{}",
                link::host(),
                std::process::id(),
                jiff::Timestamp::now().as_nanosecond()
            ),
            known: None,
        }
    }
}

/// Turns true when a signal asks this process to end.
fn leaving() -> anyhow::Result<watch::Receiver<bool>> {
    let (asked, leave) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        asked.send_replace(true);
        // The channel stays open for those who are not asked yet.
        asked.closed().await;
    });
    Ok(leave)
}

/// Attends to every rank of this process; the first that ends in another way than the job's ends all.
async fn attend(
    place: Place,
    threads: usize,
    echo: bool,
    (source, leave): (Source, watch::Receiver<bool>),
) -> anyhow::Result<Ended> {
    let mut slots = JoinSet::new();
    for k in 0..place.slots {
        let slot = Slot {
            rank: place.rank + k,
            world: place.world,
            local_rank: place.local_rank + k,
            threads,
            echo,
        };
        slots.spawn(Attendant::new(slot, source.clone(), leave.clone()).run());
    }
    let mut ended = None;
    while let Some(one) = slots.join_next().await {
        ended = Some(one.context("an attendant broke down")??);
    }
    ended.context("there is no rank to attend to")
}

/// 0 when the job succeeded, 1 when it failed, 130 when it, or this process, was asked to stop.
fn exit_code(ended: &Ended) -> ExitCode {
    match ended {
        Ended::Job(state, reason) => {
            tracing::info!("the job is {state}: {reason}");
            match state {
                JobState::Succeeded => ExitCode::SUCCESS,
                JobState::Cancelled => ExitCode::from(130),
                _ => ExitCode::FAILURE,
            }
        }
        Ended::Left => ExitCode::from(130),
    }
}
