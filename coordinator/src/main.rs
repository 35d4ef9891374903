//! `squad-coordinator`: the daemon.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use squad_coordinator::{Config, ServeError, Server, StoreLocation, find_worker_program};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

/// Squadron's daemon: takes jobs, runs their workers, remembers what became of them.
#[derive(Parser)]
#[command(name = "squad-coordinator", version, propagate_version = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGINT or SIGTERM.
    #[command(
        after_help = "Examples:\n  squad-coordinator serve --root /data/jobs --state /data/state\n  squad-coordinator serve --listen 127.0.0.1:0 --port-file port"
    )]
    Serve(Serve),
}

#[derive(clap::Args)]
struct Serve {
    /// Address to listen on; only loopback addresses are possible yet.
    #[arg(long, default_value = "127.0.0.1:7311", env = "SQUAD_LISTEN")]
    listen: SocketAddr,
    /// Address of the web page, /metrics and /healthz, or `off` [default: that of --listen, one port on]. There is
    /// no password: on an address that other machines reach, anybody can read jobs and logs there, and nobody can
    /// change anything.
    #[arg(long, value_name = "ADDRESS", env = "SQUAD_WEB")]
    web: Option<Web>,
    /// A host name under which the page is asked for; `localhost` and addresses in figures always work.
    #[arg(long, value_name = "NAME")]
    web_host: Vec<String>,
    /// Folder that relative paths in submitted specs start at.
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// Folder for jobs.sqlite.
    #[arg(long, default_value = "squad-state")]
    state: PathBuf,
    /// How many worker processes may run at once [default: the number of cores].
    #[arg(long)]
    slots: Option<u32>,
    /// The worker program, or `none`: then only jobs are taken that are submitted with --external [default: beside
    /// this program, or on the PATH].
    #[arg(long, env = "SQUAD_WORKER")]
    worker: Option<PathBuf>,
    /// Threads of each worker [default: cores shared among a job's workers].
    #[arg(long)]
    threads: Option<usize>,
    /// Write the bound address to this file.
    #[arg(long)]
    port_file: Option<PathBuf>,
    /// How to log.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Where the web page is.
#[derive(Clone, Copy)]
enum Web {
    Off,
    At(SocketAddr),
}

impl FromStr for Web {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| "write ADDRESS:PORT, such as 127.0.0.1:7312, or off".into())
    }
}

impl Web {
    /// Beside the address of the services: one port on, or a free port where that one is free.
    fn beside(listen: SocketAddr) -> Self {
        let port = if listen.port() == 0 { 0 } else { listen.port().wrapping_add(1) };
        Self::At(SocketAddr::new(listen.ip(), port))
    }
}

/// A flag that cannot work: exit code 2.
#[derive(Debug, Error)]
#[error("{0}")]
struct BadUsage(String);

/// The exit code of an error: 2 when the fault is in the flags, 1 otherwise.
fn exit_code(error: &anyhow::Error) -> u8 {
    let address = matches!(error.downcast_ref(), Some(ServeError::NotLoopback(_)));
    if address || error.is::<BadUsage>() { 2 } else { 1 }
}

fn main() -> ExitCode {
    let Command::Serve(args) = Args::parse().command;
    let filter = tracing_subscriber::EnvFilter::try_from_env("SQUAD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        // Whoever reads may be gone: a line that nobody reads must not end the jobs.
        .log_internal_errors(false)
        .with_env_filter(filter);
    match args.log_format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => log.json().init(),
    }
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(serve(args)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

async fn serve(args: Serve) -> anyhow::Result<()> {
    let root = std::path::absolute(&args.root).context("--root")?;
    if !root.is_dir() {
        return Err(BadUsage(format!("--root {}: there is no such folder", root.display())).into());
    }
    let worker_program = match args.worker {
        Some(path) if path.is_file() => Some(path),
        Some(path) if path == Path::new("none") => None,
        Some(path) => {
            return Err(BadUsage(format!("--worker {}: there is no such file", path.display())).into());
        }
        None => Some(find_worker_program()?),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let config = Config {
        root,
        store: StoreLocation::File(args.state.join("jobs.sqlite")),
        worker_program,
        slots: args.slots.unwrap_or(cores as u32),
        threads: args.threads,
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut server = Server::bind(config, args.listen).await?;
    let address = server.local_addr();
    if let Web::At(web) = args.web.unwrap_or_else(|| Web::beside(args.listen)) {
        server = server.with_web(web, args.web_host).await?;
    }
    if let Some(path) = &args.port_file {
        write_port(path, address).with_context(|| format!("cannot write {}", path.display()))?;
    }
    tracing::info!("listening on {address}");
    if let Some(web) = server.web_addr() {
        let reach =
            if web.ip().is_loopback() { "" } else { "; other machines can read it, without a password" };
        tracing::info!("the page is at http://{web}/{reach}");
    }
    server
        .run(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            tracing::info!("ending: jobs are asked to stop");
        })
        .await?;
    Ok(())
}

/// Writes the address so that a reader sees all of it or nothing.
fn write_port(path: &Path, address: SocketAddr) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, format!("{address}\n"))?;
    std::fs::rename(&temporary, path)
}
