//! Certificates for those who have none: an authority of one's own, and what it vouches for.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose,
};
use thiserror::Error;

use crate::access::random;

/// How long a certificate is good for. Fixed: it is no wait.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why certificates cannot be made.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// A file is there already, or cannot be written.
    #[error("{}: {source}; nothing is overwritten, choose another folder with --dir", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The system has no random numbers.
    #[error("cannot make a certificate: {0}")]
    Random(std::io::Error),
    /// A host name is none, or the authority of the folder cannot be used.
    #[error("cannot make a certificate: {0}")]
    Making(#[from] rcgen::Error),
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// What every certificate has: a name, and from when until when.
fn parameters(hosts: &[String], name: &str, life: Duration) -> Result<CertificateParams, CertificateError> {
    let mut parameters = CertificateParams::new(hosts)?;
    parameters.distinguished_name = subject(name);
    // An hour back, for clocks that are behind.
    // Fixed: it is no wait.
    parameters.not_before = (SystemTime::now() - Duration::from_secs(3600)).into();
    parameters.not_after = (SystemTime::now() + life).into();
    Ok(parameters)
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>, CertificateError> {
    // Two authorities of one name would be taken for each other, and their certificates for forged ones.
    let name = format!("Squadron certificate authority {}", random(4).map_err(CertificateError::Random)?);
    let mut own = parameters(&[], &name, 10 * YEAR)?;
    own.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    own.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(CertifiedIssuer::self_signed(own, KeyPair::generate()?)?)
}

/// Writes a file that must not be there yet.
fn write(folder: &Path, name: &str, text: &str, mode: u32) -> Result<PathBuf, CertificateError> {
    let path = folder.join(name);
    let written =
        OpenOptions::new().create_new(true).write(true).mode(mode).open(&path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    match written {
        Ok(()) => Ok(path),
        Err(source) => Err(CertificateError::Io { path, source }),
    }
}

/// Makes, in a folder, an authority and what it vouches for: `ca.pem`, which clients are given; `server.pem` and
/// `server.key` for a coordinator that is reached under `hosts` (names, or addresses in figures); and for each of
/// `users` a `NAME.pem` and a `NAME.key`. The authority's own key is thrown away, so that nobody can make more: for
/// others, make all anew. Gives the files, in that order.
///
/// # Errors
/// When a host is no name, or a file is there already or cannot be written.
pub fn make_certificates(
    folder: &Path,
    hosts: &[String],
    users: &[String],
) -> Result<Vec<PathBuf>, CertificateError> {
    let io = |source| CertificateError::Io { path: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(io)?;
    let authority = authority()?;
    let mut made = vec![("ca.pem".to_owned(), authority.pem(), 0o644)];
    let one = |hosts: &[String], name: &str, purpose| -> Result<_, CertificateError> {
        let mut own = parameters(hosts, name, 2 * YEAR)?;
        own.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        own.extended_key_usages = vec![purpose];
        own.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok((own.signed_by(&key, &authority)?.pem(), key.serialize_pem()))
    };
    let server =
        one(hosts, hosts.first().map_or("coordinator", String::as_str), ExtendedKeyUsagePurpose::ServerAuth)?;
    made.push(("server.pem".into(), server.0, 0o644));
    made.push(("server.key".into(), server.1, 0o600));
    for user in users {
        let (certificate, key) = one(&[], user, ExtendedKeyUsagePurpose::ClientAuth)?;
        made.push((format!("{user}.pem"), certificate, 0o644));
        made.push((format!("{user}.key"), key, 0o600));
    }
    made.iter().map(|(name, text, mode)| write(folder, name, text, *mode)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tls;

    #[test]
    fn what_is_made_can_be_served_with() {
        let folder = tempfile::tempdir().unwrap();
        let hosts = ["train.example".to_owned(), "10.0.0.1".to_owned()];
        let files = make_certificates(folder.path(), &hosts, &["ada".into()]).unwrap();
        let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["ca.pem", "server.pem", "server.key", "ada.pem", "ada.key"]);
        let at = |name: &str| folder.path().join(name);
        Tls::read(&at("server.pem"), &at("server.key"), Some(&at("ca.pem"))).unwrap();
        let mixed = Tls::read(&at("server.pem"), &at("ada.key"), None).unwrap_err().to_string();
        assert!(mixed.contains("--tls-cert and --tls-key"), "{mixed}");
        let refused = make_certificates(folder.path(), &hosts, &[]).unwrap_err().to_string();
        assert!(refused.contains("ca.pem") && refused.contains("nothing is overwritten"), "{refused}");
    }

    #[test]
    fn a_key_that_others_read_is_not_taken() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        make_certificates(folder.path(), &["localhost".into()], &[]).unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::set_permissions(at("server.key"), fs::Permissions::from_mode(0o644)).unwrap();
        let refused = Tls::read(&at("server.pem"), &at("server.key"), None).unwrap_err().to_string();
        assert!(refused.contains("--tls-key") && refused.contains("chmod 600"), "{refused}");
        let none = Tls::read(&at("server.key"), &at("server.key"), None).unwrap_err().to_string();
        assert!(none.contains("--tls-cert"), "{none}");
    }
}
