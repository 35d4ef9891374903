//! `squad-coordinator serve`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use squad_coordinator::{
    Config, Limits, Reach, Server, StoreLocation, Tls, TraceError, TraceTarget, find_worker_program,
};
use tokio::signal::unix::{SignalKind, signal};

use super::{BadUsage, gpus};

/// What stands under its help.
pub(super) const EXAMPLES: &str = "\
Examples:
  squad-coordinator serve --root /data/jobs --state /data/state
  squad-coordinator serve --listen 127.0.0.1:0 --port-file port
  squad-coordinator serve --listen 0.0.0.0:7311 --tls-cert tls/server.pem --tls-key tls/server.key";

#[derive(clap::Args)]
pub(super) struct Serve {
    /// Address to listen on; one that other machines reach needs --tls-cert and --tls-key, and users need tokens.
    #[arg(long, default_value = "127.0.0.1:7311", env = "SQUAD_LISTEN")]
    listen: SocketAddr,
    /// Certificate to serve with, and those that vouch for it (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "SQUAD_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// Its key (PEM), which only its owner may be able to read.
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "SQUAD_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// Authority of users (PEM): each must then have a certificate of it besides a token.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    client_ca: Option<PathBuf>,
    /// How workers on other machines reach this daemon, such as https://train.example:7311.
    #[arg(long, value_name = "URL", env = "SQUAD_ADVERTISE")]
    advertise: Option<String>,
    /// Certificates (PEM) by which such workers know this daemon [default: those of their system].
    #[arg(long, value_name = "FILE", requires = "advertise")]
    advertise_ca: Option<PathBuf>,
    /// Address of the web page and /metrics, or `off` [default: that of --listen, one port on]. Tokens are needed
    /// there as at --listen, and TLS is used as there.
    #[arg(long, value_name = "ADDRESS", env = "SQUAD_WEB")]
    web: Option<Place>,
    /// A host name under which the page is asked for; `localhost` and addresses in figures always work.
    #[arg(long, value_name = "NAME")]
    web_host: Vec<String>,
    /// Address for probes: /healthz and nothing else, without TLS or tokens.
    #[arg(long, value_name = "ADDRESS")]
    health: Option<SocketAddr>,
    /// Folder that relative paths in submitted specs start at, and that jobs stay in.
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// Another folder whose files jobs may read and write; may be given more than once.
    #[arg(long, value_name = "FOLDER")]
    allow_path: Vec<PathBuf>,
    /// Folder for jobs.sqlite and tokens.json.
    #[arg(long, default_value = "squad-state")]
    state: PathBuf,
    /// How many worker processes may run at once; where GPUs are counted, those that compute on the CPU [default: the
    /// number of cores].
    #[arg(long)]
    slots: Option<u32>,
    /// How many GPUs jobs may use, each for one worker [default: those of CUDA_VISIBLE_DEVICES, or all that NVIDIA's
    /// driver shows; where it shows none they are not counted].
    #[arg(long)]
    gpus: Option<u32>,
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
    /// Collector that takes traces of jobs: OpenTelemetry's protocol over gRPC, such as http://127.0.0.1:4317.
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
    /// How to log.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(flatten)]
    limits: LimitArgs,
}

/// How much is taken in.
#[derive(clap::Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Largest message, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().message_bytes)]
    max_message: usize,
    /// Largest spec, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().spec_bytes)]
    max_spec: usize,
    /// Jobs that may wait for their turn.
    #[arg(long, value_name = "N", default_value_t = Limits::default().queued_jobs)]
    max_queued: usize,
    /// Bytes of each rank's output that are kept: of more, the newest.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().log_bytes)]
    max_log: u64,
    /// Bytes of a job's results and model that are taken from a machine whose output folder the daemon does not see; the
    /// model stays there where it is larger.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().results_bytes)]
    max_results: u64,
    /// Connections at once, to each address that is listened on.
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections)]
    max_connections: usize,
    /// The same from one address (of IPv6, from one network of 64 bits).
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections_per_address)]
    max_connections_per_address: usize,
    /// Seconds within which a new connection must have shown who it is.
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().first_request.as_secs(), value_parser = clap::value_parser!(u64).range(1..))]
    first_request_s: u64,
    /// Seconds that a connection may rest between requests.
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().idle.as_secs(), value_parser = clap::value_parser!(u64).range(1..))]
    idle_s: u64,
}

impl From<&LimitArgs> for Limits {
    fn from(args: &LimitArgs) -> Self {
        Self {
            message_bytes: args.max_message,
            spec_bytes: args.max_spec,
            queued_jobs: args.max_queued,
            log_bytes: args.max_log,
            results_bytes: args.max_results,
            connections: args.max_connections,
            connections_per_address: args.max_connections_per_address,
            first_request: Duration::from_secs(args.first_request_s),
            idle: Duration::from_secs(args.idle_s),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Where the web page is.
#[derive(Clone, Copy)]
enum Place {
    Off,
    At(SocketAddr),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| "write ADDRESS:PORT, such as 127.0.0.1:7312, or off".into())
    }
}

impl Place {
    /// Beside the address of the services: one port on, or a free port where that one is free.
    fn beside(listen: SocketAddr) -> Self {
        let port = if listen.port() == 0 { 0 } else { listen.port().wrapping_add(1) };
        Self::At(SocketAddr::new(listen.ip(), port))
    }
}

/// A folder of a flag, which must be there.
fn folder(flag: &str, path: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path).context(flag.to_owned())?;
    if path.is_dir() {
        return Ok(path);
    }
    Err(BadUsage(format!("{flag} {}: there is no such folder", path.display())).into())
}

impl Serve {
    pub(super) fn log_format(&self) -> LogFormat {
        self.log_format
    }

    /// Serves to the end.
    pub(super) fn perform(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        runtime.context("cannot start the runtime")?.block_on(Box::pin(self.serve()))
    }

    fn config(&self) -> anyhow::Result<Config> {
        let root = folder("--root", &self.root)?;
        let mut allowed = vec![root.clone()];
        for path in &self.allow_path {
            allowed.push(folder("--allow-path", path)?);
        }
        let worker_program = match &self.worker {
            Some(path) if path.is_file() => Some(path.clone()),
            Some(path) if path == Path::new("none") => None,
            Some(path) => {
                return Err(BadUsage(format!("--worker {}: there is no such file", path.display())).into());
            }
            None => Some(find_worker_program()?),
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Config {
            root,
            store: StoreLocation::File(self.state.join("jobs.sqlite")),
            worker_program,
            slots: self.slots.unwrap_or(cores as u32),
            gpus: gpus::offered(self.gpus)?,
            threads: self.threads,
            allowed: Some(allowed),
            limits: Limits::from(&self.limits),
            reach: self.reach()?,
        })
    }

    fn reach(&self) -> anyhow::Result<Option<Reach>> {
        let Some(url) = self.advertise.clone() else { return Ok(None) };
        if !url.starts_with("https://") {
            return Err(BadUsage(format!("--advertise {url}: write it as https://HOST:PORT")).into());
        }
        let read = |path: &PathBuf| {
            let wrong = |error| BadUsage(format!("--advertise-ca {}: {error}", path.display()));
            std::fs::read_to_string(path).map_err(wrong)
        };
        Ok(Some(Reach { url, certificates: self.advertise_ca.as_ref().map(read).transpose()? }))
    }

    /// Where traces go, if anywhere. The variable may be there for other programs, which speak another form of the protocol.
    fn traces(&self) -> anyhow::Result<Option<TraceTarget>> {
        let Some(url) = &self.otlp_endpoint else { return Ok(None) };
        match TraceTarget::new(url, |name| std::env::var(name).ok()) {
            Ok(target) => Ok(target),
            Err(error @ TraceError::Protocol(_)) => {
                tracing::warn!("no traces are sent: {error}");
                Ok(None)
            }
            Err(error) => Err(BadUsage(error.to_string()).into()),
        }
    }

    async fn serve(self) -> anyhow::Result<()> {
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(Tls::read(certificate, key, self.client_ca.as_deref())?),
            _ => None,
        };
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut server = Server::bind(self.config()?, self.listen, tls).await?;
        let address = server.local_addr();
        if let Some(target) = self.traces()? {
            server = server.with_traces(target)?;
        }
        if let Place::At(web) = self.web.unwrap_or_else(|| Place::beside(self.listen)) {
            server = server.with_web(web, self.web_host).await?;
        }
        if let Some(health) = self.health {
            server = server.with_health(health).await?;
        }
        if let Some(path) = &self.port_file {
            write_port(path, address).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let who = if server.is_open() {
            "whoever is on this machine may do everything"
        } else {
            "tokens are needed"
        };
        tracing::info!("listening on {address}; {who}");
        if let Some(url) = server.web_url() {
            tracing::info!("the page is at {url}");
        }
        if let Some(health) = server.health_addr() {
            tracing::info!("probes are answered at http://{health}/healthz");
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
}

/// Writes the address so that a reader sees all of it or nothing.
fn write_port(path: &Path, address: SocketAddr) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, format!("{address}\n"))?;
    std::fs::rename(&temporary, path)
}
