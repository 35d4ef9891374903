//! One GET, redirects followed by hand: the hub tells a file's checksum only in the redirecting answer.

use std::time::Duration;

use ureq::http::{HeaderMap, Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::checksum::is_checksum;
use crate::hosts::Token;
use crate::options::Patience;

const MAX_REDIRECTS: usize = 10;
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// A server's answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// SHA-256 of the whole file, where the hub tells it.
    pub(crate) sha256: Option<String>,
    /// The commit that the revision means, where the hub tells it.
    pub(crate) commit: Option<String>,
    /// The entity tag, to see whether a file changed between two tries.
    pub(crate) etag: Option<String>,
    /// Bytes of the whole file.
    pub(crate) total: Option<u64>,
    /// First byte of the body within the file.
    pub(crate) start: u64,
    /// When the server would like to be asked again.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Body,
}

/// The client of all requests.
pub(crate) fn agent(patience: &Patience) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("squadron/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
        .timeout_resolve(Some(patience.connect))
        .timeout_connect(Some(patience.connect))
        .timeout_per_read(Some(patience.silence))
        .timeout_per_write(Some(patience.silence))
        .timeout_recv_response(Some(patience.silence))
        .build()
        .new_agent()
}

/// Asks for `url` from byte `start` on.
pub(crate) fn get(
    agent: &Agent,
    url: &str,
    token: Option<&Token>,
    start: u64,
) -> Result<Answer, ureq::Error> {
    let origin: Uri = url.parse().map_err(|_| ureq::Error::BadUri(url.to_owned()))?;
    let mut uri = origin.clone();
    let (mut sha256, mut commit) = (None, None);
    for _ in 0..=MAX_REDIRECTS {
        let mut request = agent.get(&uri);
        if start > 0 {
            request = request.header("range", format!("bytes={start}-"));
        }
        if let Some(token) = token.filter(|_| same_host(&uri, &origin)) {
            request = request.header("authorization", token.header());
        }
        let response = request.call()?;
        let headers = response.headers();
        sha256 = sha256.or_else(|| linked_checksum(headers));
        commit = commit.or_else(|| text(headers, "x-repo-commit"));
        let onward = text(headers, "location").filter(|_| REDIRECTS.contains(&response.status().as_u16()));
        match onward {
            Some(location) => uri = redirected(&uri, &location)?,
            None => return Ok(answer(response, sha256, commit)),
        }
    }
    Err(ureq::Error::TooManyRedirects)
}

fn answer(response: Response<Body>, sha256: Option<String>, commit: Option<String>) -> Answer {
    let status = response.status().as_u16();
    let headers = response.headers();
    let range = text(headers, "content-range").and_then(|range| parse_range(&range));
    let length = text(headers, "content-length").and_then(|length| length.parse().ok());
    let (start, total) = match range {
        Some((start, total)) if status == 206 => (start, total),
        _ => (0, length.filter(|_| status == 200)),
    };
    let retry_after =
        text(headers, "retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    let etag = text(headers, "etag");
    Answer { status, sha256, commit, etag, total, start, retry_after, body: response.into_body() }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The hub names a large file's SHA-256 as the tag of what it links to.
fn linked_checksum(headers: &HeaderMap) -> Option<String> {
    let tag = text(headers, "x-linked-etag")?;
    let digits = tag.trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
    is_checksum(&digits).then_some(digits)
}

/// First byte and total of `bytes 10-19/20`; the total may be `*`.
fn parse_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (span, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = span.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}

fn same_host(a: &Uri, b: &Uri) -> bool {
    (a.scheme(), a.authority()) == (b.scheme(), b.authority())
}

/// Where `location` leads from `base`; never from https to http.
fn redirected(base: &Uri, location: &str) -> Result<Uri, ureq::Error> {
    let scheme = base.scheme_str().unwrap_or("http");
    let text = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{}{location}", base.authority().map_or("", |authority| authority.as_str()))
    } else {
        location.to_owned()
    };
    let uri: Uri = text.parse().map_err(|_| ureq::Error::BadUri(text.clone()))?;
    if uri.scheme().is_none() || (scheme == "https" && uri.scheme_str() != Some("https")) {
        return Err(ureq::Error::RedirectFailed);
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_on_their_host_or_leave_it_but_never_lose_encryption() {
        let base: Uri = "https://hub.example/a".parse().unwrap();
        let follow = |location: &str| redirected(&base, location).map(|uri| uri.to_string());
        assert_eq!(follow("/b?c=d").unwrap(), "https://hub.example/b?c=d");
        assert_eq!(follow("//cdn.example/b").unwrap(), "https://cdn.example/b");
        assert_eq!(follow("https://cdn.example/b").unwrap(), "https://cdn.example/b");
        assert!(follow("http://hub.example/b").is_err());
        assert!(follow("b").is_err());
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(parse_range("bytes 10-19/20"), Some((10, Some(20))));
        assert_eq!(parse_range("bytes 10-19/*"), Some((10, None)));
        assert_eq!(parse_range("bytes */20"), None);
    }
}
