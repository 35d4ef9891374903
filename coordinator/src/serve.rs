//! The server: binds, registers both services, ends well.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use squad_proto::pb::jobs_server::JobsServer;
use squad_proto::pb::workers_server::WorkersServer;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;

use crate::config::Config;
use crate::grpc::{JobsService, WorkersService};
use crate::registry::Registry;
use crate::state_lock::StateLock;
use crate::store::{Store, StoreError};
use crate::web::Web;

/// How long open streams may take to end once all jobs have.
const DRAIN: Duration = Duration::from_secs(2);

/// Largest message: a spec or results, with room.
const MAX_MESSAGE: usize = 16 << 20;

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
    /// The address can be reached from other machines, and nothing protects it yet.
    #[error("{0} is not a loopback address; listening there needs TLS, which is not available yet")]
    NotLoopback(SocketAddr),
    /// About the job store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The transport broke down.
    #[error("the server broke down: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// A coordinator that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    registry: Registry,
    state: StateLock,
    web: Option<Web>,
}

impl Server {
    /// Opens the store and the port. Port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is no loopback address or is taken, another coordinator has the state folder, or the
    /// store cannot be opened.
    pub async fn bind(config: Config, address: SocketAddr) -> Result<Self, ServeError> {
        if !address.ip().is_loopback() {
            return Err(ServeError::NotLoopback(address));
        }
        let cannot = |source| ServeError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let bound = listener.local_addr().map_err(cannot)?;
        let state = StateLock::take(&config.store)?;
        let store = Store::open(&config.store)?;
        let registry = Registry::open(config, format!("http://{bound}"), store)?;
        Ok(Self { listener, address: bound, registry, state, web: None })
    }

    /// The same server with its web page, `/metrics` and `/healthz` at `address`; port 0 takes a free one. On an
    /// address that other machines reach, the page shows and changes nothing. `names` are the host names under which
    /// it is asked for there; without any, addresses in figures are.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn with_web(mut self, address: SocketAddr, names: Vec<String>) -> Result<Self, ServeError> {
        let web = Web::bind(address, names, self.registry.clone()).await;
        self.web = Some(web.map_err(|source| ServeError::BindWeb { address, source })?);
        Ok(self)
    }

    /// Where the web page is, if it is served.
    pub fn web_addr(&self) -> Option<SocketAddr> {
        self.web.as_ref().map(Web::local_addr)
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Goes on with the jobs that an earlier coordinator left, and serves until `shutdown` is ready; then stops all jobs,
    /// with a checkpoint, and ends.
    ///
    /// # Errors
    /// When the transport breaks down.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), ServeError> {
        // Not in the registry: its last clones may outlive this call, but nothing is written through them any more.
        let _state = self.state;
        // Ends with this call: browsers need no farewell.
        let mut web = JoinSet::new();
        if let Some(page) = self.web {
            web.spawn(page.serve());
        }
        self.registry.take_up();
        let registry = self.registry.clone();
        let (ending, ended) = tokio::sync::oneshot::channel();
        let signal = async move {
            shutdown.await;
            registry.shut_down().await;
            // The receiver waits below.
            ending.send(()).ok();
        };
        let jobs = JobsServer::new(JobsService { registry: self.registry.clone() })
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let workers = WorkersServer::new(WorkersService { registry: self.registry })
            .max_decoding_message_size(MAX_MESSAGE);
        let serve = tonic::transport::Server::builder()
            .add_service(jobs)
            .add_service(workers)
            .serve_with_incoming_shutdown(TcpListenerStream::new(self.listener), signal);
        tokio::select! {
            done = serve => Ok(done?),
            // Streams of users that do not hang up must not keep it alive.
            () = async { if ended.await.is_ok() { tokio::time::sleep(DRAIN).await } else { std::future::pending().await } } => Ok(()),
        }
    }
}
