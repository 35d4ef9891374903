//! Where traces go: an address, and what OpenTelemetry's environment variables say.

use std::time::Duration;

use squad_proto::connect::{ConnectError, Trust, endpoint};
use thiserror::Error;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::Endpoint;

/// How long a message, or a connection, may take. Fixed: OpenTelemetry's default; no job waits for it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why traces cannot be sent.
#[derive(Debug, Error)]
pub enum TraceError {
    /// The address, or the certificates for it.
    #[error("--otlp-endpoint {0}")]
    Connect(#[from] ConnectError),
    /// The file with certificates.
    #[error("OTEL_EXPORTER_OTLP_CERTIFICATE {path}: {source}")]
    Certificate {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another form of the protocol.
    #[error("OTEL_EXPORTER_OTLP_PROTOCOL is {0}, and only grpc is spoken here")]
    Protocol(String),
    /// A header or attribute that is none. Its value may be a secret.
    #[error("{variable}: {name:?} is no NAME=VALUE that can be sent")]
    Pair {
        /// The variable.
        variable: &'static str,
        /// What stands before the sign.
        name: String,
    },
}

/// Where traces go, and what is said with them.
#[derive(Clone, Debug)]
pub struct TraceTarget {
    pub(super) endpoint: Endpoint,
    pub(super) headers: MetadataMap,
    pub(super) resource: Vec<(String, String)>,
}

impl TraceTarget {
    /// The receiver at `url`, an OpenTelemetry collector's address for gRPC such as `http://127.0.0.1:4317`. `get` reads the
    /// environment: OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_EXPORTER_OTLP_PROTOCOL, OTEL_SERVICE_NAME
    /// and OTEL_RESOURCE_ATTRIBUTES. None when OTEL_SDK_DISABLED is true.
    ///
    /// # Errors
    /// When the address or one of the variables cannot be used.
    pub fn new(url: &str, get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, TraceError> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        if get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        if let Some(other) = get("OTEL_EXPORTER_OTLP_PROTOCOL").filter(|protocol| protocol != "grpc") {
            return Err(TraceError::Protocol(other));
        }
        let certificates = get("OTEL_EXPORTER_OTLP_CERTIFICATE").map(|path| {
            std::fs::read_to_string(&path).map_err(|source| TraceError::Certificate { path, source })
        });
        let trust = Trust { certificates: certificates.transpose()?, identity: None };
        let endpoint = endpoint(url, &trust)?.connect_timeout(TIMEOUT).timeout(TIMEOUT);
        let mut headers = MetadataMap::new();
        for (name, value) in pairs("OTEL_EXPORTER_OTLP_HEADERS", &get)? {
            let wrong = || TraceError::Pair { variable: "OTEL_EXPORTER_OTLP_HEADERS", name: name.clone() };
            let key = MetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes()).map_err(|_| wrong())?;
            let mut value: MetadataValue<_> = value.parse().map_err(|_| wrong())?;
            // Keeps it out of what is printed of a request.
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        Ok(Some(Self { endpoint, headers, resource: resource(&get)? }))
    }
}

/// Who sends.
fn resource(get: &impl Fn(&str) -> Option<String>) -> Result<Vec<(String, String)>, TraceError> {
    let mut all = pairs("OTEL_RESOURCE_ATTRIBUTES", get)?;
    let mut set = |key: &str, value: Option<String>, default: &str| {
        let there = all.iter().any(|(name, _)| name == key);
        if value.is_some() || !there {
            all.retain(|(name, _)| name != key);
            all.push((key.to_owned(), value.unwrap_or_else(|| default.to_owned())));
        }
    };
    set("service.name", get("OTEL_SERVICE_NAME"), "squadron");
    set("service.version", None, env!("CARGO_PKG_VERSION"));
    Ok(all)
}

/// `NAME=VALUE,NAME=VALUE` of a variable, with the values decoded as in addresses.
fn pairs(
    variable: &'static str,
    get: &impl Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, TraceError> {
    let text = get(variable).unwrap_or_default();
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let one = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8().ok();
        match value.filter(|_| part.contains('=') && !name.trim().is_empty()) {
            Some(value) => Ok((name.trim().to_owned(), value.into_owned())),
            None => Err(TraceError::Pair { variable, name: name.trim().to_owned() }),
        }
    };
    parts.map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(variables: &[(&str, &str)]) -> Result<Option<TraceTarget>, TraceError> {
        let get = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        TraceTarget::new("http://127.0.0.1:4317", get)
    }

    #[test]
    fn the_environment_says_what_goes_along() {
        let found = target(&[
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20very-secret, x-tenant=a"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=lab,service.name=other"),
            ("OTEL_SERVICE_NAME", "trainer"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ]);
        let found = found.unwrap().unwrap();
        assert_eq!(found.headers.get("authorization").unwrap().to_str().unwrap(), "Bearer very-secret");
        assert!(!format!("{found:?}").contains("very-secret"), "{found:?}");
        let of = |key: &str| -> Vec<&str> {
            found.resource.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str()).collect()
        };
        assert_eq!((of("service.name"), of("deployment.environment")), (vec!["trainer"], vec!["lab"]));
        let usual = target(&[]).unwrap().unwrap().resource;
        assert!(usual.contains(&("service.name".into(), "squadron".into())), "{usual:?}");
    }

    #[test]
    fn what_cannot_be_sent_is_refused_without_its_value() {
        for variables in [
            [("OTEL_EXPORTER_OTLP_HEADERS", "a b=very-secret")],
            [("OTEL_EXPORTER_OTLP_HEADERS", "very=secret,=very-secret")],
            [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")],
            [("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem")],
        ] {
            let refused = target(&variables).unwrap_err().to_string();
            assert!(!refused.contains("very-secret"), "{refused}");
        }
        assert!(target(&[("OTEL_SDK_DISABLED", "true")]).unwrap().is_none());
        assert!(TraceTarget::new("127.0.0.1:4317", |_| None).is_err());
    }
}
