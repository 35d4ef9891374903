//! What can go wrong, said with the address, the file and the remedy.

use std::io;
use std::path::{Path, PathBuf};

use crate::hosts::{ENDPOINT_VARIABLE, OFFLINE_VARIABLE, TOKEN_VARIABLE};

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Network access is refused and something is missing.
    #[error(
        "{what} is not complete in {} (missing: {missing}), and {OFFLINE_VARIABLE} forbids fetching it; unset \
         {OFFLINE_VARIABLE}, or put the files there", folder.display()
    )]
    Offline {
        /// What was wanted.
        what: String,
        /// Where it would lie.
        folder: PathBuf,
        /// The files that are not there.
        missing: String,
    },

    /// The server does not have the file.
    #[error("{url} does not exist (404); check the repository's name and the revision")]
    NotFound {
        /// The address asked for.
        url: String,
    },

    /// The server refuses the file.
    #[error(
        "{url} was refused ({status}): the repository does not exist, is private, or asks for its terms to be \
         accepted; check its name, or set {TOKEN_VARIABLE} to a token that may read it"
    )]
    Denied {
        /// The address asked for.
        url: String,
        /// The answer's status.
        status: u16,
    },

    /// The network or the server failed, again and again.
    #[error(
        "cannot fetch {url} into {}: {reason} (tries: {tries}); run it again to go on from there, or name a mirror \
         by {ENDPOINT_VARIABLE}", target.display()
    )]
    Network {
        /// The address asked for.
        url: String,
        /// The file being written.
        target: PathBuf,
        /// What failed last.
        reason: String,
        /// How often it was tried without any headway.
        tries: u32,
    },

    /// What arrived is not what was expected.
    #[error(
        "{url} is not the expected file: {what} is {found}, expected {expected}; nothing was written to {}. The file \
         was changed at its source, or a proxy altered it: check the expected value and the revision", target.display()
    )]
    Mismatch {
        /// The address asked for.
        url: String,
        /// Where the file would have gone.
        target: PathBuf,
        /// SHA-256 or size.
        what: &'static str,
        /// What was expected.
        expected: String,
        /// What arrived.
        found: String,
    },

    /// An official question file cannot be had from where it was looked for.
    #[error(
        "cannot fetch {url} into {}: {reason}; run it again to go on from there, name another place by --mirror, or \
         put the file there", target.display()
    )]
    Questions {
        /// The address asked for.
        url: String,
        /// Where the file would have gone.
        target: PathBuf,
        /// What failed.
        reason: String,
    },

    /// A file that bears an official file's name is another one.
    #[error(
        "{} is not the official file ({difference}) and was left as it is; move it away, or replace it by --force",
        path.display()
    )]
    NotOfficial {
        /// The file.
        path: PathBuf,
        /// What differs: size or checksum, found and expected.
        difference: String,
    },

    /// Another process holds the lock and makes no headway.
    #[error(
        "another process has been fetching {} for {seconds} s without headway; end it (it holds {}) and try again",
        target.display(), lock.display()
    )]
    Locked {
        /// The file being fetched.
        target: PathBuf,
        /// The lock file.
        lock: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },

    /// A local file or folder cannot be used.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },

    /// The name is neither a repository's nor one of the zoo's.
    #[error(
        "{name:?} is no model's name{near}; name a repository, in the form owner/name of letters, digits, '-', '_' \
         and '.', or a model of `squadctl models list`"
    )]
    BadName {
        /// The name given.
        name: String,
        /// The name that was probably meant, as a question in brackets; or nothing.
        near: String,
    },

    /// A model of the zoo that no hub has.
    #[error(
        "{name} is on no model hub; turn GluonNLP's own file into a folder by `squadctl models convert {name}.params \
         --config model.yml --dir DIR`, and name that folder"
    )]
    NotOnHub {
        /// The model's name.
        name: String,
    },

    /// The repository is not one of a model that can be used.
    #[error(
        "repository {repository} has no {what} at revision {revision}: there is none of {wanted}; choose another \
         revision or repository"
    )]
    Lacking {
        /// The repository.
        repository: String,
        /// The revision asked for.
        revision: String,
        /// What it lacks.
        what: &'static str,
        /// The files of which one would have done.
        wanted: String,
    },

    /// The index of a model's shards cannot be used.
    #[error(
        "{} does not tell which files hold the weights: {reason}; remove it and fetch again, or choose another \
         revision or repository", path.display()
    )]
    BadIndex {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// One checksum is expected of weights that lie in several files.
    #[error(
        "the weights lie in several files ({index}), each of which is verified by the hub's own checksum, so none can \
         be expected of all; leave it out, and name a commit as the revision"
    )]
    ShardedChecksum {
        /// The index of the files.
        index: &'static str,
    },

    /// The expected checksum is not one.
    #[error("{text:?} is not a SHA-256 checksum; it has 64 hexadecimal digits")]
    BadChecksum {
        /// The text given.
        text: String,
    },

    /// A job's `model` means nothing that exists.
    #[error(
        "model {model:?} was not found: {tried}; a model is a folder in Hugging Face layout (config.json, \
         model.safetensors, tokenizer.json), a name of `squadctl models list`, or a repository owner/name on the \
         model hub"
    )]
    NoModel {
        /// The text given.
        model: String,
        /// What was tried, and what came of it.
        tried: String,
    },
}

impl FetchError {
    /// A mapper for `map_err`: `action` on `path` failed.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action, path: path.to_owned(), source }
    }

    /// Whether the server said that it has no such model, or none for us.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::Denied { .. } | Self::Lacking { .. })
    }
}
