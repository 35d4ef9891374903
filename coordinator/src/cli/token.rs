//! `squad-coordinator token`: who may come in.

use std::io::Write as _;
use std::path::PathBuf;

use squad_coordinator::{Role, TokenFile};

/// What stands under its help.
pub(super) const EXAMPLES: &str = "\
Examples:
  squad-coordinator token create --name ada --role submit --state state > ~/.squadron-token
  squad-coordinator token list --state state
  squad-coordinator token revoke --name ada --state state

A token is shown once, on standard output, and kept as a hash. A daemon that runs sees changes at once. With the
first token even a daemon on loopback asks for one.";

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Make a token, and print it.
    Create {
        /// Whose, or for what: jobs remember it.
        #[arg(long)]
        name: String,
        /// What its holder may do: read (look), submit (and cancel one's own jobs), admin (everything).
        #[arg(long)]
        role: Role,
        #[command(flatten)]
        place: Place,
    },
    /// Show names, roles and when each token was made.
    List {
        #[command(flatten)]
        place: Place,
    },
    /// End a token.
    Revoke {
        /// Which.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(clap::Args)]
pub(super) struct Place {
    /// The daemon's state folder.
    #[arg(long, default_value = "squad-state")]
    state: PathBuf,
}

impl Place {
    fn file(&self) -> TokenFile {
        TokenFile::of(&self.state)
    }
}

impl Command {
    /// Does it.
    pub(super) fn perform(self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        match self {
            Self::Create { name, role, place } => {
                let token = place.file().create(&name, role)?;
                writeln!(out, "{token}")?;
            }
            Self::List { place } => {
                for row in place.file().list()? {
                    let seconds = row.created_unix_ms / 1000;
                    writeln!(out, "{}\t{}\tmade {seconds} s after 1970", row.name, row.role)?;
                }
            }
            Self::Revoke { name, place } => {
                place.file().revoke(&name)?;
                tracing::info!("revoked {name}");
            }
        }
        Ok(out.flush()?)
    }
}
