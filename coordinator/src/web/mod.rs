//! The coordinator's web side: the page, its JSON API, `/metrics` and `/healthz`, over plain HTTP.
//!
//! | path | what |
//! |---|---|
//! | `/`, `/assets/*` | the page; everything it needs is in the program (`assets`) |
//! | `/api/jobs`, `/api/jobs/ID`, `/api/jobs/ID/logs`, `/api/codes/CODE` | what squadctl shows, as JSON (`api`) |
//! | `/api/live`, `/api/jobs/ID/live` | the same as it changes, as server-sent events (`live`) |
//! | `POST /api/jobs/ID/cancel`, `POST /api/jobs/ID/ask` | what changes something or costs work (`api`, `ask`) |
//! | `POST /api/login`, `POST /api/logout` | a token in, a cookie out, and back (`login`) |
//! | `/metrics`, `/healthz` | for Prometheus and for probes |
//!
//! The page itself and `/healthz` are for everybody. All else asks for a role, as the gRPC services do (`enter`): by
//! the token of the header `authorization`, or by the cookie of somebody who logged in with one.

mod api;
mod ask;
mod assets;
mod enter;
mod guard;
mod live;
mod login;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::{get, post};

use crate::access::{Access, Role};
use crate::registry::Registry;
use enter::enter;
use guard::Guard;
use login::Sessions;

/// What every request may need.
#[derive(Clone)]
struct Shared {
    registry: Registry,
    guard: Arc<Guard>,
    desk: Arc<ask::Desk>,
    access: Access,
    sessions: Arc<Sessions>,
}

/// Everything that is served. `names` are host names under which the page may be asked for, besides `localhost` and
/// addresses in figures.
pub(crate) fn routes(names: Vec<String>, encrypted: bool, registry: Registry, access: Access) -> Router {
    let guard = Arc::new(Guard::new(names, encrypted));
    let shared = Shared {
        registry,
        guard: Arc::clone(&guard),
        desk: Arc::default(),
        access,
        sessions: Arc::default(),
    };
    let same_origin = middleware::from_fn_with_state(Arc::clone(&guard), guard::same_origin);
    let asks = |role| middleware::from_fn_with_state((shared.clone(), role), enter);
    // The layer that is put on last looks first.
    let changes = Router::new()
        .route("/api/jobs/{id}/cancel", post(api::cancel))
        .route("/api/jobs/{id}/ask", post(ask::ask))
        .route_layer(asks(Role::Submit))
        .route_layer(same_origin.clone());
    let entrance = Router::new()
        .route("/api/login", post(login::login))
        .route("/api/logout", post(login::logout))
        .route_layer(same_origin);
    let reads = Router::new()
        .route("/metrics", get(metrics))
        .route("/api/about", get(api::about))
        .route("/api/jobs", get(api::list))
        .route("/api/jobs/{id}", get(api::job))
        .route("/api/jobs/{id}/logs", get(api::logs))
        .route("/api/jobs/{id}/live", get(live::job))
        .route("/api/live", get(live::list))
        .route("/api/codes/{code}", get(api::code))
        .route_layer(asks(Role::Read));
    Router::new()
        .route("/healthz", get(healthy))
        .route("/", get(assets::index))
        .route("/assets/{name}", get(assets::asset))
        .merge(reads)
        .merge(changes)
        .merge(entrance)
        .fallback(api::nothing)
        .layer(middleware::from_fn_with_state(guard, guard::watch))
        .with_state(shared)
}

/// What probes ask.
pub(crate) async fn healthy() -> &'static str {
    "ok\n"
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, form)], shared.registry.metrics().text())
}
