//! Who may ask what, and what browsers may do with an answer.
//!
//! A page of another site can make a visitor's browser send requests here. Its script cannot read the answers, as
//! no answer permits it, unless its name is made to point at this machine: such requests carry that name in `Host`
//! and are refused. A request that changes something must in addition say that it comes from our own page.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::api::Refusal;
use crate::access::bearer;

/// On every answer. Nothing comes from elsewhere, nothing is inline, nobody frames the page, nothing is kept.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// The rules of one web side.
pub(super) struct Guard {
    /// Host names that are ours, in lower case.
    names: Vec<String>,
    /// Whether connections are encrypted.
    encrypted: bool,
}

impl Guard {
    pub(super) fn new(names: Vec<String>, encrypted: bool) -> Self {
        let names = names.into_iter().chain(["localhost".into()]).map(|name| name.to_ascii_lowercase());
        Self { names: names.collect(), encrypted }
    }

    /// Whether connections are encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Whether `Host` is ours. An address in figures always is: no foreign name can be made to point at it.
    fn is_ours(&self, host: &str) -> bool {
        let name = name_of(host).to_ascii_lowercase();
        name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() || self.names.contains(&name)
    }
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Refuses foreign hosts, and puts the headers on every answer.
pub(super) async fn watch(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    // Every browser names the host that it asks; old probes name none.
    let ours = host.is_none_or(|host| host.to_str().is_ok_and(|host| guard.is_ours(host)));
    let mut response = if ours {
        next.run(request).await
    } else {
        let name = host.map(|host| String::from_utf8_lossy(host.as_bytes())).unwrap_or_default();
        let sentence =
            format!("this server does not answer to the host name {name}; allow it with --web-host NAME");
        Refusal(StatusCode::MISDIRECTED_REQUEST, sentence).into_response()
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Refuses changes that a browser was made to ask for by another page. Programs that show a token in a header are
/// not asked where they come from: no page can make a browser send one.
pub(super) async fn same_origin(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = text(headers, &header::HOST).unwrap_or_default();
    let scheme = if guard.encrypted { "https" } else { "http" };
    let own = text(headers, &header::ORIGIN) == Some(format!("{scheme}://{host}").as_str());
    if !own && bearer(headers).is_none() {
        let sentence =
            "the request does not come from this server's own page; programs show a token, or are squadctl";
        return Refusal(StatusCode::FORBIDDEN, sentence.into()).into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_others_are_foreign() {
        let guard = Guard::new(vec!["Train.Example".into()], false);
        for ours in [
            "localhost",
            "LocalHost:7312",
            "127.0.0.1:7312",
            "[::1]:7312",
            "[::1]",
            "10.1.2.3:80",
            "train.example:1",
        ] {
            assert!(guard.is_ours(ours), "{ours}");
        }
        for foreign in
            ["", "evil.example", "localhost.evil.example:7312", "127.0.0.1.evil.example", "example"]
        {
            assert!(!guard.is_ours(foreign), "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn no_name_with_a_letter_beyond_hexadecimal_passes(name in "[a-z0-9.:-]{0,12}[g-z][a-z0-9.:-]{0,12}") {
            prop_assume!(!name.starts_with("localhost"));
            prop_assert!(!Guard::new(Vec::new(), false).is_ours(&name));
        }
    }
}
