//! Who is let in to what the web side shows and does.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::api::Refusal;
use super::{Shared, login};
use crate::access::{Denied, Role, User, bearer, suffices};
use crate::door::Peer;

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        let status = match denied {
            Denied::NoToken | Denied::WrongToken | Denied::NoCertificate => StatusCode::UNAUTHORIZED,
            Denied::Role { .. } => StatusCode::FORBIDDEN,
            Denied::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, denied.to_string())
    }
}

/// The connection of a request.
pub(super) fn peer_of(request: &axum::http::Extensions) -> Result<Peer, Refusal> {
    // Every connection has one.
    let none = || Refusal(StatusCode::INTERNAL_SERVER_ERROR, "a request without a connection".into());
    request.get::<Peer>().cloned().ok_or_else(none)
}

/// Lets a request pass whose sender has at least the role that is asked for.
pub(super) async fn enter(
    State((shared, needed)): State<(Shared, Role)>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = match peer_of(request.extensions()) {
        Ok(peer) => peer,
        Err(refusal) => return refusal.into_response(),
    };
    match user_of(&shared, request.headers(), &peer, needed) {
        Ok(user) => request.extensions_mut().insert(user),
        Err(denied) => return Refusal::from(denied).into_response(),
    };
    next.run(request).await
}

/// Who asks. What is not found by a cookie is found as the gRPC services find it.
fn user_of(shared: &Shared, headers: &HeaderMap, peer: &Peer, needed: Role) -> Result<User, Denied> {
    let session = login::cookie(headers, shared.guard.is_encrypted());
    let token =
        session.filter(|_| bearer(headers).is_none()).and_then(|session| shared.sessions.token(session));
    let Some(token) = token else {
        return shared.access.admit(headers, peer, needed);
    };
    // The certificate and the token are looked at with every request: what is revoked ends at once.
    let judge = || {
        shared.access.certified(peer)?;
        let user = shared.access.holder(&token)?;
        peer.trust();
        suffices(user, needed)
    };
    judge().inspect_err(|denied| shared.access.tell(peer.address, denied))
}
