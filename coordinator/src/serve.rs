//! The server: opens its doors, registers both services, ends well.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use axum::routing::get;
use axum::{Router, middleware};
use squad_proto::pb::jobs_server::JobsServer;
use squad_proto::pb::workers_server::WorkersServer;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;

use crate::access::{Access, Secret, TokenFile, Tokens, guard_jobs, random};
use crate::config::{Config, StoreLocation};
use crate::door::{Door, Speech, Tls};
use crate::grpc::{JobsService, WorkersService};
use crate::registry::Registry;
use crate::state_lock::StateLock;
use crate::store::{Store, StoreError};
use crate::traces::TraceTarget;
use crate::web;

/// How long open streams may take to end once all jobs have. Fixed: no job is left whose patience it could be.
const DRAIN: Duration = Duration::from_secs(2);
/// Largest answer: the list of a coordinator with many jobs, whose results and specs come along.
const LARGEST_ANSWER: usize = 256 << 20;

/// Why a coordinator does not serve.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another with --listen")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The address of the web page cannot be listened on.
    #[error(
        "cannot serve the web page on {address}: {source}; choose another address with --web, or --web off"
    )]
    BindWeb {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The address for probes cannot be listened on.
    #[error("cannot answer probes on {address}: {source}; choose another address with --health")]
    BindHealth {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The address can be reached from other machines, and nothing protects it.
    #[error(
        "{0} is not a loopback address; listening there needs TLS: give --tls-cert and --tls-key (squad-coordinator certificate makes them)"
    )]
    NotLoopback(SocketAddr),
    /// About the job store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no random numbers.
    #[error("no secret can be made: {0}")]
    Random(std::io::Error),
    /// A part of the server ended by itself.
    #[error("the server broke down: {0}")]
    Broke(String),
}

/// A coordinator that listens.
pub struct Server {
    registry: Registry,
    state: StateLock,
    tls: Option<Tls>,
    tokens: Option<TokenFile>,
    secret: Option<String>,
    address: SocketAddr,
    web: Option<(SocketAddr, bool)>,
    health: Option<SocketAddr>,
    doors: Vec<(Door, Router)>,
}

/// An address that only this machine reaches needs no TLS.
fn checked(address: SocketAddr, tls: Option<&Tls>) -> Result<(), ServeError> {
    if address.ip().is_loopback() || tls.is_some() { Ok(()) } else { Err(ServeError::NotLoopback(address)) }
}

impl Server {
    /// Opens the store and the port. Port 0 takes a free one. With `tls` connections are encrypted; workers that are
    /// started on this machine then have a port of their own on loopback. A coordinator whose store is in memory
    /// serves whoever knows its [`Server::secret`], and nobody else.
    ///
    /// # Errors
    /// When the address is no loopback address and there is no TLS, or it is taken, another coordinator has the state
    /// folder, or the store cannot be opened.
    pub async fn bind(config: Config, address: SocketAddr, tls: Option<Tls>) -> Result<Self, ServeError> {
        checked(address, tls.as_ref())?;
        let cannot = |source| ServeError::Bind { address, source };
        let limits = config.limits.clone();
        let door = Door::open(address, Speech::Two, limits.clone()).await.map_err(cannot)?;
        let door = door.with_tls(tls.as_ref());
        let bound = door.address();
        let own = if door.is_encrypted() {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let cannot = |source| ServeError::Bind { address, source };
            Some(Door::open(address, Speech::Two, limits).await.map_err(cannot)?)
        } else {
            None
        };
        let for_workers = own.as_ref().map_or(bound, Door::address);
        let state = StateLock::take(&config.store)?;
        let store = Store::open(&config.store)?;
        let (tokens, secret) = match &config.store {
            StoreLocation::File(path) => (Some(TokenFile::of(path.parent().unwrap_or(Path::new(".")))), None),
            StoreLocation::Memory => (None, Some(random(32).map_err(ServeError::Random)?)),
        };
        let registry = Registry::open(config, format!("http://{for_workers}"), store)?;
        let mut server = Self {
            registry,
            state,
            tls,
            tokens,
            secret,
            address: bound,
            web: None,
            health: None,
            doors: Vec::new(),
        };
        let access = server.access(bound);
        server.add(door, server.services(&access));
        if let Some(own) = own {
            let router = Routes::new(server.workers()).into_axum_router();
            server.add(own, router.layer(middleware::from_fn_with_state(access, guard_jobs)));
        }
        Ok(server)
    }

    /// The same server with its web page and `/metrics` at `address`; port 0 takes a free one. `names` are the host
    /// names under which it is asked for; without any, addresses in figures are.
    ///
    /// # Errors
    /// When the address is taken, or is no loopback address and there is no TLS.
    pub async fn with_web(mut self, address: SocketAddr, names: Vec<String>) -> Result<Self, ServeError> {
        checked(address, self.tls.as_ref())?;
        let limits = self.registry.config().limits.clone();
        let door = Door::open(address, Speech::One, limits)
            .await
            .map_err(|source| ServeError::BindWeb { address, source })?
            .with_tls(self.tls.as_ref());
        let bound = door.address();
        let router = web::routes(names, door.is_encrypted(), self.registry.clone(), self.access(bound));
        self.web = Some((bound, door.is_encrypted()));
        self.add(door, router);
        Ok(self)
    }

    /// The same server with `/healthz`, and nothing else, at `address`, not encrypted: for probes that know neither
    /// certificates nor tokens. Port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn with_health(mut self, address: SocketAddr) -> Result<Self, ServeError> {
        let limits = self.registry.config().limits.clone();
        let door = Door::open(address, Speech::One, limits)
            .await
            .map_err(|source| ServeError::BindHealth { address, source })?;
        self.health = Some(door.address());
        self.add(door, Router::new().route("/healthz", get(web::healthy)));
        Ok(self)
    }

    /// The same server, sending traces of its jobs to `target`.
    ///
    /// # Errors
    /// When the histories of jobs that are not done cannot be read.
    pub fn with_traces(self, target: TraceTarget) -> Result<Self, ServeError> {
        self.registry.trace(target)?;
        Ok(self)
    }

    /// Where the web page is, if it is served.
    pub fn web_addr(&self) -> Option<SocketAddr> {
        self.web.map(|(address, _)| address)
    }

    /// The web page's address as a browser wants it, if it is served.
    pub fn web_url(&self) -> Option<String> {
        self.web.map(|(at, encrypted)| format!("{}://{at}/", if encrypted { "https" } else { "http" }))
    }

    /// Where probes are answered, if they have a port of their own.
    pub fn health_addr(&self) -> Option<SocketAddr> {
        self.health
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What a coordinator whose store is in memory asks for: the token of whoever started it.
    pub fn secret(&self) -> Option<&str> {
        self.secret.as_deref()
    }

    /// Whether users need no token.
    pub fn is_open(&self) -> bool {
        // Tokens that cannot be read let nobody in.
        self.access(self.address).is_open().unwrap_or(false)
    }

    /// The rules of an address.
    fn access(&self, address: SocketAddr) -> Access {
        let tokens = match (&self.tokens, &self.secret) {
            (Some(file), _) => Tokens::File(file.clone()),
            (None, secret) => Tokens::One(Secret::of(secret.as_deref().unwrap_or_default())),
        };
        let asks = self.tls.as_ref().is_some_and(Tls::asks_users);
        Access::new(tokens, !address.ip().is_loopback(), asks, self.registry.metrics().refusals().clone())
    }

    fn workers(&self) -> WorkersServer<WorkersService> {
        let most = self.registry.config().limits.message_bytes;
        WorkersServer::new(WorkersService { registry: self.registry.clone() }).max_decoding_message_size(most)
    }

    /// Both services, with the rules of their address.
    fn services(&self, access: &Access) -> Router {
        let jobs = JobsServer::new(JobsService { registry: self.registry.clone() })
            .max_decoding_message_size(self.registry.config().limits.message_bytes)
            .max_encoding_message_size(LARGEST_ANSWER);
        let routes = Routes::new(jobs).add_service(self.workers()).into_axum_router();
        routes.layer(middleware::from_fn_with_state(access.clone(), guard_jobs))
    }

    fn add(&mut self, door: Door, router: Router) {
        self.doors.push((door.counting(self.registry.metrics().refusals().clone()), router));
    }

    /// Goes on with the jobs that an earlier coordinator left, and serves until `shutdown` is ready; then stops all jobs,
    /// with a checkpoint, and ends.
    ///
    /// # Errors
    /// When a part of it breaks down.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), ServeError> {
        // Not in the registry: its last clones may outlive this call, but nothing is written through them any more.
        let _state = self.state;
        let (close, closing) = watch::channel(false);
        let mut serving = JoinSet::new();
        for (door, router) in self.doors {
            serving.spawn(door.serve(router, closing.clone()));
        }
        self.registry.take_up();
        let ended = async {
            shutdown.await;
            self.registry.shut_down().await;
        };
        tokio::select! {
            () = ended => {}
            // Each serves until it is told to close.
            Some(broken) = serving.join_next() => {
                let why = broken.err().map_or_else(|| "it stopped listening".into(), |error| error.to_string());
                return Err(ServeError::Broke(why));
            }
        }
        close.send_replace(true);
        // Streams of users that do not hang up must not keep it alive.
        let drained = async { while serving.join_next().await.is_some() {} };
        tokio::time::timeout(DRAIN, drained).await.ok();
        self.registry.finish_traces().await;
        Ok(())
    }
}
