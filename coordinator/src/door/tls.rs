//! Certificates and keys, from files to what rustls takes. Only TLS 1.3 is spoken.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, version};

use crate::private_file::check_private;

/// Why a certificate cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{flag} {}: {problem}", path.display())]
    File {
        /// The flag that names it.
        flag: &'static str,
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The files do not belong together.
    #[error("--tls-cert and --tls-key cannot be used: {0}; make a pair with squad-coordinator certificate")]
    Pair(String),
}

/// What a coordinator proves with who it is, and what it asks of users.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    asks_users: bool,
}

fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |problem: String| TlsError::File { flag, path: path.to_owned(), problem };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() { Err(wrong("there is no certificate in it".into())) } else { Ok(found) }
}

/// The key of a file that only its owner reads.
fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let wrong = |problem: String| TlsError::File { flag: "--tls-key", path: path.to_owned(), problem };
    check_private(path).map_err(|error| wrong(error.to_string()))?;
    PrivateKeyDer::from_pem_file(path).map_err(|error| wrong(error.to_string()))
}

impl Tls {
    /// Reads a certificate with those that vouch for it, its key, and the authority of users where they must have
    /// certificates too. All are PEM files.
    ///
    /// # Errors
    /// When a file cannot be read, others can read the key, or the two do not belong together.
    pub fn read(certificate: &Path, private_key: &Path, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        let (chain, key) = (certificates("--tls-cert", certificate)?, key(private_key)?);
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| TlsError::Pair(error.to_string()))?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let wrong =
                    |problem: String| TlsError::File { flag: "--client-ca", path: path.to_owned(), problem };
                let mut roots = RootCertStore::empty();
                for certificate in certificates("--client-ca", path)? {
                    roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
                }
                // Workers have none: they come with the token of their job. Who needs one is asked later.
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| wrong(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config =
            builder.with_single_cert(chain, key).map_err(|error| TlsError::Pair(error.to_string()))?;
        Ok(Self { config: Arc::new(config), asks_users: client_ca.is_some() })
    }

    /// Whether users must have certificates.
    pub(crate) fn asks_users(&self) -> bool {
        self.asks_users
    }

    /// What encrypts connections on which `protocol` is spoken.
    pub(super) fn acceptor(&self, protocol: &[u8]) -> TlsAcceptor {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}
