//! Who may call what of the service of users.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tonic::{Code, Status};

use super::{Access, Denied, Role};
use crate::door::Peer;
use crate::metrics::Reason;

/// Calls of workers begin so.
const WORKERS: &str = "/squad.v1.Workers/";

/// A call's question has come whole within this, or is given up. Fixed: a stranger has no job whose patience it could be.
const WHOLE: Duration = Duration::from_secs(30);

/// What a method takes. One that is not known takes everything: it is refused before it is looked for.
fn needed(path: &str) -> Role {
    match path.rsplit('/').next().unwrap_or_default() {
        "Get" | "List" | "Watch" | "Logs" => Role::Read,
        // Whose job it is, Cancel looks at itself.
        "Submit" | "Cancel" => Role::Submit,
        _ => Role::Admin,
    }
}

impl From<&Denied> for Status {
    fn from(denied: &Denied) -> Self {
        let code = match denied {
            Denied::NoToken | Denied::WrongToken | Denied::NoCertificate => Code::Unauthenticated,
            Denied::Role { .. } => Code::PermissionDenied,
            Denied::Broken(_) => Code::Internal,
        };
        Self::new(code, denied.to_string())
    }
}

/// Lets those call the service of users who may, before a byte of what they say is read. Workers' sessions look at
/// their tokens themselves: each job has its own.
pub(crate) async fn guard(State(access): State<Access>, mut request: Request, next: Next) -> Response {
    // Every connection has a peer; one that had none would be nobody's.
    let Some(peer) = request.extensions().get::<Peer>().cloned() else {
        return Status::internal("a request without a connection").into_http();
    };
    let path = request.uri().path();
    if !path.starts_with(WORKERS) {
        match access.admit(request.headers(), &peer, needed(path)) {
            Ok(user) => request.extensions_mut().insert(user),
            Err(denied) => return Status::from(&denied).into_http(),
        };
    }
    let Ok(response) = tokio::time::timeout(WHOLE, next.run(request)).await else {
        access.refusals().count(Reason::Slow);
        let sentence = format!("the request did not come whole within {} s", WHOLE.as_secs());
        return Status::deadline_exceeded(sentence).into_http();
    };
    let too_large =
        Status::from_header_map(response.headers()).is_some_and(|status| status.code() == Code::OutOfRange);
    if too_large {
        access.refusals().count(Reason::Message);
        tracing::warn!("refused {}: a message that is too large", peer.address);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_service_has_a_role() {
        let text = include_str!("../../../proto/squad/v1/jobs.proto");
        let methods = text.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next());
        let roles: Vec<(&str, Role)> =
            methods.map(|name| (name, needed(&format!("/squad.v1.Jobs/{name}")))).collect();
        assert!(roles.len() >= 6 && roles.iter().all(|(_, role)| *role < Role::Admin), "{roles:?}");
        assert_eq!(needed("/squad.v1.Jobs/Erase"), Role::Admin);
    }
}
