//! The coordinator's web side: the page, its JSON API, `/metrics` and `/healthz`, over plain HTTP.
//!
//! | path | what |
//! |---|---|
//! | `/`, `/assets/*` | the page; everything it needs is in the program (`assets`) |
//! | `/api/jobs`, `/api/jobs/ID`, `/api/jobs/ID/logs`, `/api/codes/CODE` | what squadctl shows, as JSON (`api`) |
//! | `/api/live`, `/api/jobs/ID/live` | the same as it changes, as server-sent events (`live`) |
//! | `POST /api/jobs/ID/cancel`, `POST /api/jobs/ID/ask` | what changes something or costs work (`api`, `ask`) |
//! | `/metrics`, `/healthz` | for Prometheus and for probes |
//!
//! There are no users and no passwords. So the page is for this machine unless it is told otherwise, and what can
//! be read by others can be changed by nobody (`guard`).

mod api;
mod ask;
mod assets;
mod guard;
mod live;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tokio::net::TcpListener;

use crate::registry::Registry;
use guard::Guard;

/// What every request may need.
#[derive(Clone)]
struct Shared {
    registry: Registry,
    guard: Arc<Guard>,
    desk: Arc<ask::Desk>,
}

/// The web side, listening.
pub(crate) struct Web {
    listener: TcpListener,
    address: SocketAddr,
    routes: Router,
}

impl Web {
    /// Opens the port. `names` are host names under which the page may be asked for, besides `localhost` and
    /// addresses in figures.
    pub(crate) async fn bind(
        address: SocketAddr,
        names: Vec<String>,
        registry: Registry,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let guard = Arc::new(Guard::new(names, address.ip().is_loopback()));
        let desk = Arc::new(ask::Desk::default());
        Ok(Self { listener, address, routes: routes(Shared { registry, guard, desk }) })
    }

    /// Where it listens.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until the future is dropped.
    pub(crate) async fn serve(self) {
        // It returns only when accepting fails for good, which axum never lets happen.
        if let Err(error) = axum::serve(self.listener, self.routes).await {
            tracing::error!("the web page is no longer served: {error}");
        }
    }
}

fn routes(shared: Shared) -> Router {
    let changes = Router::new()
        .route("/api/jobs/{id}/cancel", post(api::cancel))
        .route("/api/jobs/{id}/ask", post(ask::ask))
        .route_layer(middleware::from_fn_with_state(shared.guard.clone(), guard::same_origin));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .route("/api/about", get(api::about))
        .route("/api/jobs", get(api::list))
        .route("/api/jobs/{id}", get(api::job))
        .route("/api/jobs/{id}/logs", get(api::logs))
        .route("/api/jobs/{id}/live", get(live::job))
        .route("/api/live", get(live::list))
        .route("/api/codes/{code}", get(api::code))
        .route("/", get(assets::index))
        .route("/assets/{name}", get(assets::asset))
        .merge(changes)
        .fallback(api::nothing)
        .layer(middleware::from_fn_with_state(shared.guard.clone(), guard::watch))
        .with_state(shared)
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, form)], shared.registry.metrics().text())
}
