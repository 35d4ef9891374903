//! Models: from a hub's repository into a folder, and from a job's `model` to a folder.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::download::{Download, Outcome, download};
use crate::options::FetchOptions;
use crate::record::Record;
use crate::{FetchError, checksum};

const WEIGHTS: &str = "model.safetensors";
const REQUIRED: [&str; 3] = ["config.json", "tokenizer.json", WEIGHTS];
const OPTIONAL: [&str; 3] = ["tokenizer_config.json", "special_tokens_map.json", "vocab.txt"];
const MAIN: &str = "main";

/// What fetching a repository came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FetchReport {
    /// The repository.
    pub repository: String,
    /// The revision asked for.
    pub revision: String,
    /// The commit that it meant, where the hub tells it.
    pub commit: Option<String>,
    /// The folder that holds the files.
    pub folder: PathBuf,
    /// What became of each file.
    pub files: Vec<FileReport>,
}

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// Its name.
    pub name: &'static str,
    /// What became of it.
    pub state: FileState,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// It was there already.
    Present,
    /// It was fetched.
    Fetched,
    /// The repository does not have it, and a model can do without it.
    Absent,
}

/// Brings the repository `name` (`owner/name`) into the folder `dir`.
///
/// The folder must hold config.json, tokenizer.json and model.safetensors afterwards; the rest of the
/// tokenizer's files come where they exist. Files that are there stay, unless the folder's own record says that
/// they belong to another repository or revision, or the weights do not have the expected checksum. A folder
/// that was once completed is not looked up again, so a branch stays at the commit it had then.
pub fn fetch_repository(name: &str, dir: &Path, options: &FetchOptions) -> Result<FetchReport, FetchError> {
    if !is_repository(name) {
        return Err(FetchError::BadName { name: name.to_owned() });
    }
    let weights = options.weights_sha256.as_deref().map(checksum::parse).transpose()?;
    let revision = options.revision.clone().unwrap_or_else(|| MAIN.to_owned());
    let earlier = Record::load(dir);
    let other =
        earlier.as_ref().is_some_and(|record| record.repository != name || record.revision != revision);
    let record = earlier.filter(|_| !other).unwrap_or_else(|| Record {
        repository: name.to_owned(),
        revision,
        ..Record::default()
    });
    let fetch = Fetch { dir, options, weights, refresh: other, record, files: Vec::new() };
    let missing = fetch.missing()?;
    if missing.is_empty() && (fetch.record.complete || options.hub.offline) {
        return Ok(fetch.report_present());
    }
    if options.hub.offline {
        let (what, folder) = (format!("repository {name}"), dir.to_owned());
        return Err(FetchError::Offline { what, folder, missing: missing.join(", ") });
    }
    fetch.all()
}

/// The folder that a job's `model` means: a folder, relative to `base` or absolute, as it is; else a repository
/// `owner/name`, which is fetched into `cache`.
pub fn resolve_model(
    model: &str,
    base: &Path,
    cache: &Path,
    options: &FetchOptions,
) -> Result<PathBuf, FetchError> {
    let folder = base.join(model);
    if !model.is_empty() && folder.is_dir() {
        return Ok(folder);
    }
    let shown = folder.display();
    let kind = if folder.exists() { "is not a folder" } else { "does not exist" };
    let absent = |tried| FetchError::NoModel { model: model.to_owned(), tried };
    if !is_repository(model) {
        return Err(absent(format!("{shown} {kind}, and the text has not the form of a repository's name")));
    }
    let target = cache.join(model.replace('/', "--"));
    match fetch_repository(model, &target, options) {
        Ok(_) => Ok(target),
        Err(error) if error.is_absence() || matches!(error, FetchError::Offline { .. }) => {
            Err(absent(format!("{shown} {kind}; taken as a repository, {error}")))
        }
        Err(error) => Err(error),
    }
}

/// Whether `text` has the form `owner/name`.
fn is_repository(text: &str) -> bool {
    let part = |part: &str| {
        let plain =
            part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        plain && !part.is_empty() && part.len() <= 96 && !part.starts_with('.') && !part.contains("..")
    };
    text.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name))
}

/// A repository on its way into a folder.
struct Fetch<'a> {
    dir: &'a Path,
    options: &'a FetchOptions,
    weights: Option<String>,
    /// Whether the files in the folder belong to something else.
    refresh: bool,
    record: Record,
    files: Vec<FileReport>,
}

impl Fetch<'_> {
    /// The required files that are not there, or not the right ones.
    fn missing(&self) -> Result<Vec<&'static str>, FetchError> {
        let mut missing = Vec::new();
        for name in REQUIRED {
            let path = self.dir.join(name);
            let expected = self.weights.as_ref().filter(|_| name == WEIGHTS);
            let good = path.is_file()
                && match expected {
                    Some(expected) => checksum::sha256_of(&path)? == *expected,
                    None => !self.refresh,
                };
            if !good {
                missing.push(name);
            }
        }
        Ok(missing)
    }

    fn all(mut self) -> Result<FetchReport, FetchError> {
        for name in REQUIRED {
            self.one(name)?;
        }
        for name in OPTIONAL {
            match self.one(name) {
                Err(FetchError::NotFound { .. }) => {
                    if self.refresh {
                        self.remove_stale(name)?;
                    }
                    self.files.push(FileReport { name, state: FileState::Absent });
                }
                other => other?,
            }
        }
        self.record.complete = true;
        self.record.save(self.dir)?;
        Ok(self.report())
    }

    fn one(&mut self, name: &'static str) -> Result<(), FetchError> {
        let hub = &self.options.hub;
        // Once the hub has named the commit, all further files are of that commit.
        let revision = self.record.commit.as_ref().unwrap_or(&self.record.revision);
        let url = hub.file_url(&self.record.repository, revision, name);
        let wanted = Download {
            url: &url,
            target: &self.dir.join(name),
            token: hub.token.as_ref(),
            sha256: self.weights.as_deref().filter(|_| name == WEIGHTS),
            size: None,
            refresh: self.refresh && !self.record.files.contains_key(name),
        };
        let state = match download(&wanted, &self.options.patience, &self.options.progress)? {
            Outcome::Present => FileState::Present,
            Outcome::Fetched { sha256, commit, .. } => {
                self.record.files.insert(name.to_owned(), sha256);
                if self.record.commit.is_none() {
                    self.record.commit = commit;
                }
                // A folder with files of two revisions is recognised as such only once none is left.
                if !self.refresh {
                    self.record.save(self.dir)?;
                }
                FileState::Fetched
            }
        };
        self.files.push(FileReport { name, state });
        Ok(())
    }

    /// Removes a file of another revision that this one does not have.
    fn remove_stale(&self, name: &str) -> Result<(), FetchError> {
        let path = self.dir.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(FetchError::file("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    fn report_present(mut self) -> FetchReport {
        for name in REQUIRED.into_iter().chain(OPTIONAL) {
            let state = if self.dir.join(name).is_file() { FileState::Present } else { FileState::Absent };
            self.files.push(FileReport { name, state });
        }
        self.report()
    }

    fn report(self) -> FetchReport {
        let Record { repository, revision, commit, .. } = self.record;
        FetchReport { repository, revision, commit, folder: self.dir.to_owned(), files: self.files }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_owner_and_name() {
        for good in ["a/b", "sentence-transformers/all-MiniLM-L6-v2", "x_1/y.2"] {
            assert!(is_repository(good), "{good}");
        }
        for bad in ["", "a", "a/", "/b", "a/b/c", "../b", "a/..", "./b", "a b/c", "a/b?c"] {
            assert!(!is_repository(bad), "{bad}");
        }
    }
}
