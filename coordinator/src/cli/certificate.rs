//! `squad-coordinator certificate`: TLS for those who have no certificates.

use std::io::Write as _;
use std::path::PathBuf;

use squad_coordinator::make_certificates;

use super::BadUsage;

/// What stands under its help.
pub(super) const EXAMPLES: &str = "\
Examples:
  squad-coordinator certificate --host train.example --host 10.0.0.7 --dir tls
  squad-coordinator serve --listen 0.0.0.0:7311 --tls-cert tls/server.pem --tls-key tls/server.key
  squadctl list --server https://train.example:7311 --ca tls/ca.pem

Users get ca.pem, which is no secret. The authority's key is thrown away: nobody can make more certificates of it.";

#[derive(clap::Args)]
pub(super) struct Certificate {
    /// A name or address under which the daemon is reached; may be given more than once.
    #[arg(long, required = true, value_name = "NAME")]
    host: Vec<String>,
    /// Make a certificate for this user too, for serve --client-ca; may be given more than once.
    #[arg(long, value_name = "NAME")]
    user: Vec<String>,
    /// Folder for the files; nothing in it is overwritten.
    #[arg(long)]
    dir: PathBuf,
}

impl Certificate {
    /// Makes the files, and prints their names.
    pub(super) fn perform(self) -> anyhow::Result<()> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if let Some(bad) = self.user.iter().find(|name| name.is_empty() || !name.bytes().all(plain)) {
            let sentence = format!("--user {bad:?}: write lower-case letters, digits and hyphens");
            return Err(BadUsage(sentence).into());
        }
        let mut out = std::io::stdout().lock();
        for path in make_certificates(&self.dir, &self.host, &self.user)? {
            writeln!(out, "{}", path.display())?;
        }
        Ok(out.flush()?)
    }
}
