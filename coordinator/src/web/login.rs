//! From a token to a cookie: browsers cannot put a token into a header for every file that they load.
//!
//! The cookie is random, is kept as a hash, ends after half a day, with the coordinator, at logging out, or with its
//! token. Scripts cannot read it, other sites cannot make a browser send it (`SameSite=Strict`, and `guard` asks for
//! our own `Origin`), and over TLS it never travels in the clear.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::Shared;
use super::api::Refusal;
use super::enter::peer_of;
use crate::access::{Secret, random};

/// How long somebody stays logged in. Fixed: it is no wait.
const STAY: Duration = Duration::from_secs(12 * 3600);
/// How many may be logged in; of more, those who came first are logged out.
const MOST: usize = 1000;
/// Largest login, in bytes.
const LONGEST: usize = 4096;

/// Who is logged in, oldest first.
#[derive(Default)]
pub(super) struct Sessions(Mutex<VecDeque<Session>>);

struct Session {
    cookie: Secret,
    token: Secret,
    begun: Instant,
}

impl Sessions {
    /// A new cookie for the holder of a token.
    fn open(&self, token: Secret) -> std::io::Result<String> {
        let cookie = random(32)?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|session| session.begun.elapsed() < STAY);
        while all.len() >= MOST {
            all.pop_front();
        }
        all.push_back(Session { cookie: Secret::of(&cookie), token, begun: Instant::now() });
        Ok(cookie)
    }

    /// The token that a cookie was given for.
    pub(super) fn token(&self, cookie: &str) -> Option<Secret> {
        let cookie = Secret::of(cookie);
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.iter().find(|session| session.cookie.equals(&cookie))?;
        (found.begun.elapsed() < STAY).then(|| found.token.clone())
    }

    fn close(&self, cookie: &str) {
        let cookie = Secret::of(cookie);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|session| !session.cookie.equals(&cookie));
    }
}

/// The cookie's name. The longer one is taken by browsers only from where it is safe.
fn name(encrypted: bool) -> &'static str {
    if encrypted { "__Host-squadron" } else { "squadron" }
}

fn set_cookie(encrypted: bool, value: &str, seconds: u64) -> String {
    let secure = if encrypted { "; Secure" } else { "" };
    format!("{}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}", name(encrypted))
}

/// The cookie of a request.
pub(super) fn cookie(headers: &HeaderMap, encrypted: bool) -> Option<&str> {
    let values = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name(encrypted)).map(|(_, value)| value)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    token: String,
}

/// `POST /api/login` with `{"token": "..."}`.
pub(super) async fn login(State(shared): State<Shared>, request: Request) -> Result<Response, Refusal> {
    let peer = peer_of(request.extensions())?;
    let bad = |sentence: String| Refusal(StatusCode::BAD_REQUEST, sentence);
    let bytes = axum::body::to_bytes(request.into_body(), LONGEST)
        .await
        .map_err(|error| bad(format!("the login cannot be read: {error}")))?;
    // Not serde's own words: they may repeat what was sent.
    let login: Login =
        serde_json::from_slice(&bytes).map_err(|_| bad("a login is {\"token\": \"...\"}".into()))?;
    let token = Secret::of(login.token.trim());
    let user = shared
        .access
        .certified(&peer)
        .and_then(|()| shared.access.holder(&token))
        .inspect_err(|denied| shared.access.tell(peer.address, denied))?;
    let value = shared.sessions.open(token).map_err(|error| {
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("no cookie can be made: {error}"))
    })?;
    let cookie = set_cookie(shared.guard.is_encrypted(), &value, STAY.as_secs());
    Ok(([(header::SET_COOKIE, cookie)], Json(json!({"user": user.name, "role": user.role}))).into_response())
}

/// `POST /api/logout`.
pub(super) async fn logout(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let encrypted = shared.guard.is_encrypted();
    if let Some(value) = cookie(&headers, encrypted) {
        shared.sessions.close(value);
    }
    ([(header::SET_COOKIE, set_cookie(encrypted, "", 0))], Json(json!({}))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others() {
        let headers = |text: &str| HeaderMap::from_iter([(header::COOKIE, text.parse().unwrap())]);
        assert_eq!(cookie(&headers("a=b; squadron=12; c=d"), false), Some("12"));
        assert_eq!(cookie(&headers("a=b; squadron=12"), true), None, "over TLS only the safe one counts");
        assert_eq!(cookie(&headers("__Host-squadron=34"), true), Some("34"));
        assert_eq!(cookie(&headers("xsquadron=12; squadron"), false), None);
        assert_eq!(cookie(&HeaderMap::new(), false), None);
        let set = set_cookie(true, "12", 5);
        assert_eq!(set, "__Host-squadron=12; Path=/; HttpOnly; SameSite=Strict; Max-Age=5; Secure");
    }

    #[test]
    fn sessions_are_many_but_not_without_end() {
        let sessions = Sessions::default();
        let first = sessions.open(Secret::of("a")).unwrap();
        assert!(sessions.token(&first).unwrap().equals(&Secret::of("a")) && sessions.token("x").is_none());
        let last = (0..MOST).map(|_| sessions.open(Secret::of("b")).unwrap()).last().unwrap();
        assert!(sessions.token(&first).is_none() && sessions.token(&last).is_some());
        sessions.close(&last);
        assert!(sessions.token(&last).is_none());
    }
}
