//! How a coordinator is reached, and how one shows who one is.

use thiserror::Error;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::ids::JobId;

/// Header that names the job of a worker's call.
const JOB: &str = "squad-job";
/// Header that carries a token.
const TOKEN: &str = "authorization";

/// Why an address cannot be used.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// It is none.
    #[error("{0}: write it as http://HOST:PORT or https://HOST:PORT")]
    Address(String),
    /// The certificates cannot be used.
    #[error("the certificates for {url} cannot be used: {problem}")]
    Certificates {
        /// The address.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// A token would travel in the clear.
    #[error("{0}: a token is not sent over http to another machine, where others can read it; use https")]
    Clear(String),
    /// A token that cannot be sent.
    #[error("the token has characters that no token has")]
    Token,
}

/// What is needed for an `https` address.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Certificates (PEM) of those who vouch for the coordinator; the system's when `None`.
    pub certificates: Option<String>,
    /// One's own certificate and key (PEM), where the coordinator asks for one.
    pub identity: Option<(String, String)>,
}

/// Where and how to connect.
///
/// # Errors
/// When the address is none, or the certificates cannot be used.
pub fn endpoint(url: &str, trust: &Trust) -> Result<Endpoint, ConnectError> {
    let wrong = || ConnectError::Address(url.to_owned());
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| wrong())?;
    match endpoint.uri().scheme_str() {
        Some("http") => return Ok(endpoint),
        Some("https") => {}
        _ => return Err(wrong()),
    }
    let mut tls = match &trust.certificates {
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let Some((certificate, key)) = &trust.identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    endpoint
        .tls_config(tls)
        .map_err(|error| ConnectError::Certificates { url: url.to_owned(), problem: error.to_string() })
}

/// Whether what is sent there can be read by nobody else: it is encrypted, or does not leave this machine.
fn is_private(endpoint: &Endpoint) -> bool {
    let uri = endpoint.uri();
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    uri.scheme_str() == Some("https") || here
}

/// A user's token as it is sent.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    /// A token for calls to this endpoint.
    ///
    /// # Errors
    /// When it would travel in the clear, or cannot be sent.
    pub fn new(token: &str, endpoint: &Endpoint) -> Result<Self, ConnectError> {
        if !is_private(endpoint) {
            return Err(ConnectError::Clear(endpoint.uri().to_string()));
        }
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().map_err(|_| ConnectError::Token)?;
        // Keeps it out of what is printed of a request.
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// The request with the token.
    pub fn put<T>(&self, request: &mut Request<T>) {
        request.metadata_mut().insert(TOKEN, self.0.clone());
    }
}

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bearer")
    }
}

/// A worker's call, with its job and that job's token.
///
/// # Errors
/// When either has characters that neither has.
pub fn as_worker<T>(message: T, job: &JobId, token: &str) -> Result<Request<T>, ConnectError> {
    let mut request = Request::new(message);
    let text = |text: String| text.parse::<MetadataValue<Ascii>>().map_err(|_| ConnectError::Token);
    let mut token = text(format!("Bearer {token}"))?;
    token.set_sensitive(true);
    request.metadata_mut().insert(TOKEN, token);
    request.metadata_mut().insert(JOB, text(job.0.clone())?);
    Ok(request)
}

/// The job and the token that a worker's call carries.
pub fn shown_by_worker<T>(request: &Request<T>) -> Option<(&str, &str)> {
    let text = |name| request.metadata().get(name)?.to_str().ok();
    Some((text(JOB)?, text(TOKEN)?.strip_prefix("Bearer ")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> Result<Endpoint, ConnectError> {
        endpoint(url, &Trust { certificates: Some(String::new()), identity: None })
    }

    #[test]
    fn a_token_leaves_this_machine_only_encrypted() {
        for private in
            ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://train.example:1"]
        {
            let endpoint = at(private).unwrap();
            assert!(Bearer::new("squad_1", &endpoint).is_ok(), "{private}");
        }
        for open in ["http://10.0.0.1:1", "http://train.example", "http://localhost.example:1"] {
            let refused = Bearer::new("squad_1", &at(open).unwrap()).unwrap_err();
            assert!(matches!(refused, ConnectError::Clear(_)), "{open}: {refused}");
        }
    }

    #[test]
    fn addresses_say_how_they_are_spoken_to() {
        for wrong in ["ftp://host:1", "host:1", "", "http//x"] {
            assert!(matches!(at(wrong), Err(ConnectError::Address(_))), "{wrong}");
        }
    }

    #[test]
    fn what_a_worker_shows_is_read_and_not_printed() {
        let request = as_worker((), &JobId("a-1".into()), "very-secret").unwrap();
        assert_eq!(shown_by_worker(&request), Some(("a-1", "very-secret")));
        assert_eq!(shown_by_worker(&Request::new(())), None);
        assert!(!format!("{request:?}").contains("very-secret"), "{request:?}");
        assert!(as_worker((), &JobId("a-1".into()), "a\nb").is_err());
        let bearer = Bearer::new("very-secret", &at("http://127.0.0.1:1").unwrap()).unwrap();
        let mut request = Request::new(());
        bearer.put(&mut request);
        assert!(!format!("{request:?}{bearer:?}").contains("very-secret"), "{request:?}");
    }
}
