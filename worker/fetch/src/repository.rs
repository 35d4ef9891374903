//! From a hub's repository into a folder.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::download::{Download, Outcome, download};
use crate::layout::{self, CONFIG, Form, TOKENIZER_FILES, WEIGHTS};
use crate::options::FetchOptions;
use crate::record::Record;
use crate::{FetchError, checksum, zoo};

/// The revision unless another is asked for.
pub(crate) const MAIN: &str = "main";

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
    pub name: String,
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

/// Brings the model `name` into the folder `dir`. The name is a repository's (`owner/name`) or one of the
/// [`zoo`]'s, which stands for a repository.
///
/// The folder holds config.json, a tokenizer and weights afterwards. Of the tokenizer every file comes that
/// the repository has; of the weights the first form that it has: model.safetensors, its shards,
/// pytorch_model.bin, its shards. Files that are there stay, unless the folder's own record says that they
/// belong to another repository or revision, or the weights do not have the expected checksum. A folder that
/// was once completed is not looked up again, so a branch stays at the commit it had then.
pub fn fetch_repository(name: &str, dir: &Path, options: &FetchOptions) -> Result<FetchReport, FetchError> {
    let repository = repository_of(name)?;
    let sha256 = options.weights_sha256.as_deref().map(checksum::parse).transpose()?;
    let revision = options.revision.as_deref().unwrap_or(MAIN);
    let belongs = |record: &Record| record.repository == repository && record.revision == revision;
    let (record, replaced) = match Record::load(dir) {
        Some(record) if belongs(&record) => (record, None),
        replaced => {
            let (repository, revision) = (repository.to_owned(), revision.to_owned());
            (Record { repository, revision, ..Record::default() }, replaced)
        }
    };
    let fetch = Fetch { dir, options, sha256, replaced, record, files: Vec::new() };
    let missing = fetch.missing()?;
    if missing.is_empty() && (fetch.record.complete || options.hub.offline) {
        return fetch.report_present();
    }
    if options.hub.offline {
        let (what, folder) = (format!("repository {repository}"), dir.to_owned());
        return Err(FetchError::Offline { what, folder, missing: missing.join(", ") });
    }
    fetch.all()
}

/// The repository that `name` means: itself, or that of the zoo's model of this name.
pub(crate) fn repository_of(name: &str) -> Result<&str, FetchError> {
    match zoo::find(name) {
        Some(entry) => entry.repository.ok_or_else(|| FetchError::NotOnHub { name: name.to_owned() }),
        None if is_repository(name) => Ok(name),
        None => {
            let near = zoo::nearest(name).map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
            Err(FetchError::BadName { name: name.to_owned(), near })
        }
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
    /// Expected checksum of weights that are one file.
    sha256: Option<String>,
    /// What the folder held before, where that is something else.
    replaced: Option<Record>,
    record: Record,
    files: Vec<FileReport>,
}

impl Fetch<'_> {
    /// What is not there, or not of this repository.
    fn missing(&self) -> Result<Vec<String>, FetchError> {
        if self.replaced.is_some() {
            return Ok([CONFIG, TOKENIZER_FILES[0], WEIGHTS[0].file].map(str::to_owned).into());
        }
        layout::missing(self.dir, self.sha256.as_deref())
    }

    /// Small files first, so that a repository that is no model is refused before its weights are fetched.
    fn all(mut self) -> Result<FetchReport, FetchError> {
        self.required(CONFIG, None)?;
        self.tokenizer()?;
        self.weights()?;
        self.remove_stale()?;
        self.record.complete = true;
        self.record.save(self.dir)?;
        Ok(self.report())
    }

    fn tokenizer(&mut self) -> Result<(), FetchError> {
        for name in TOKENIZER_FILES {
            self.optional(name, None)?;
        }
        if layout::is_tokenizer(|name| self.has(name)) {
            return Ok(());
        }
        Err(self.lacking("tokenizer", layout::tokenizer_choices()))
    }

    fn weights(&mut self) -> Result<(), FetchError> {
        let sha256 = self.sha256.clone();
        // Weights that are there stay; those with an expected checksum are found by it.
        let there = if self.replaced.is_some() || sha256.is_some() { None } else { Form::of(self.dir) };
        let forms = there.map_or_else(|| WEIGHTS.to_vec(), |form| vec![form]);
        for form in forms {
            let expected = sha256.as_deref().filter(|_| !form.sharded);
            if self.optional(form.file, expected)? {
                form.accepts(sha256.as_deref())?;
                for shard in form.shards(self.dir)? {
                    self.required(&shard, None)?;
                }
                return Ok(());
            }
        }
        Err(self.lacking("weights", WEIGHTS.map(|form| form.file).join(", ")))
    }

    /// Brings a file that the repository may have; whether it has it.
    fn optional(&mut self, name: &str, sha256: Option<&str>) -> Result<bool, FetchError> {
        match self.required(name, sha256) {
            Err(FetchError::NotFound { .. }) => {
                self.files.push(FileReport { name: name.to_owned(), state: FileState::Absent });
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }

    /// Brings a file that the repository must have. Without an expected checksum the hub's own is checked.
    fn required(&mut self, name: &str, sha256: Option<&str>) -> Result<(), FetchError> {
        let hub = &self.options.hub;
        // Once the hub has named the commit, all further files are of that commit.
        let revision = self.record.commit.as_ref().unwrap_or(&self.record.revision);
        let url = hub.file_url(&self.record.repository, revision, name);
        let wanted = Download {
            url: &url,
            target: &self.dir.join(name),
            token: hub.token.as_ref(),
            sha256,
            sha1: None,
            size: None,
            refresh: self.replaced.is_some() && !self.record.files.contains_key(name),
        };
        let state = match download(&wanted, &self.options.patience, &self.options.progress)? {
            Outcome::Present => FileState::Present,
            Outcome::Fetched { sha256, commit, .. } => {
                self.record.files.insert(name.to_owned(), sha256);
                if self.record.commit.is_none() {
                    self.record.commit = commit;
                }
                // A folder with files of two revisions is recognised as such only once none is left.
                if self.replaced.is_none() {
                    self.record.save(self.dir)?;
                }
                FileState::Fetched
            }
        };
        self.files.push(FileReport { name: name.to_owned(), state });
        Ok(())
    }

    /// Whether the folder has got the file.
    fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file.name == name && file.state != FileState::Absent)
    }

    /// Removes the files of what the folder held before that nothing has replaced.
    fn remove_stale(&self) -> Result<(), FetchError> {
        let Some(replaced) = &self.replaced else { return Ok(()) };
        let shards = replaced.files.keys().map(String::as_str).filter(|name| layout::is_shard(name));
        let known = TOKENIZER_FILES.into_iter().chain(WEIGHTS.map(|form| form.file)).chain(shards);
        for name in known.filter(|name| !self.has(name)) {
            let path = self.dir.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(FetchError::file("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn lacking(&self, what: &'static str, wanted: String) -> FetchError {
        let (repository, revision) = (self.record.repository.clone(), self.record.revision.clone());
        FetchError::Lacking { repository, revision, what, wanted }
    }

    fn report_present(mut self) -> Result<FetchReport, FetchError> {
        let form = Form::of(self.dir).unwrap_or(WEIGHTS[0]);
        let mut names: Vec<String> = [CONFIG].into_iter().chain(TOKENIZER_FILES).map(str::to_owned).collect();
        names.push(form.file.to_owned());
        names.extend(form.shards(self.dir)?);
        for name in names {
            let state = if self.dir.join(&name).is_file() { FileState::Present } else { FileState::Absent };
            self.files.push(FileReport { name, state });
        }
        Ok(self.report())
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
            assert_eq!(repository_of(good).unwrap(), good);
        }
        for bad in ["", "a", "a/", "/b", "a/b/c", "../b", "a/..", "./b", "a b/c", "a/b?c"] {
            assert!(matches!(repository_of(bad), Err(FetchError::BadName { .. })), "{bad}");
        }
    }

    #[test]
    fn a_name_of_the_zoo_stands_for_a_repository() {
        assert_eq!(repository_of("google_albert_base_v2").unwrap(), "albert/albert-base-v2");
        let text = repository_of("google_albert_bse_v2").unwrap_err().to_string();
        assert!(text.contains("did you mean google_albert_base_v2?"), "{text}");
        assert!(!repository_of("zzz").unwrap_err().to_string().contains("did you mean"));
        let text = repository_of("gluon_en_cased_bert_base_v1").unwrap_err().to_string();
        assert!(text.contains("squadctl models convert") && text.contains(".params"), "{text}");
    }
}
