//! From a job's `model` to a folder.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::hosts::escaped;
use crate::options::FetchOptions;
use crate::record::Record;
use crate::repository::{MAIN, fetch_repository, repository_of};
use crate::{FetchError, layout};

/// The folder that a job's `model` means: a folder, relative to `base` or absolute, as it is; else a name of
/// the [`zoo`](crate::zoo) or a repository `owner/name`, which is fetched into `cache`.
///
/// `@` and a revision may stand behind a name; it goes before the one in `options`. A repository that the
/// hub's own client has brought (`options.hub_cache`) is used where it lies, unless `cache` has it whole.
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
    let (name, revision) = match model.split_once('@') {
        Some((name, revision)) if !revision.is_empty() => (name, Some(revision.to_owned())),
        _ => (model, None),
    };
    let repository = repository_of(name).map_err(|error| match error {
        FetchError::BadName { near, .. } => absent(format!(
            "{shown} {kind}, and the text has neither the form of a repository's name nor is it one of the zoo's{near}"
        )),
        error => error,
    })?;
    let options = FetchOptions { revision: revision.or_else(|| options.revision.clone()), ..options.clone() };
    let target = cache.join(folder_name(repository, options.revision.as_deref()));
    if Record::load(&target).is_none_or(|record| !record.complete)
        && let Some(snapshot) = snapshot(repository, &options)
    {
        return Ok(snapshot);
    }
    match fetch_repository(repository, &target, &options) {
        Ok(_) => Ok(target),
        Err(error) if error.is_absence() || matches!(error, FetchError::Offline { .. }) => {
            Err(absent(format!("{shown} {kind}; taken as a repository, {error}")))
        }
        Err(error) => Err(error),
    }
}

/// The name of a repository's folder in the cache: each revision has its own, so that two jobs do not replace
/// each other's files.
fn folder_name(repository: &str, revision: Option<&str>) -> String {
    let name = repository.replace('/', "--");
    match revision {
        None | Some(MAIN) => name,
        Some(revision) => format!("{name}@{}", escaped(revision)),
    }
}

/// The folder into which the hub's own client has put the whole repository, if it has. Its layout:
/// `models--OWNER--NAME` with the commit of a branch in `refs/BRANCH` and the files in `snapshots/COMMIT`.
fn snapshot(repository: &str, options: &FetchOptions) -> Option<PathBuf> {
    let revision = options.revision.as_deref().unwrap_or(MAIN);
    if Path::new(revision).components().any(|part| !matches!(part, Component::Normal(_))) {
        return None;
    }
    let own = options.hub_cache.as_ref()?.join(format!("models--{}", repository.replace('/', "--")));
    // A revision without such a file is a commit already.
    let commit = fs::read_to_string(own.join("refs").join(revision));
    let commit = commit.map_or_else(|_| revision.to_owned(), |text| text.trim().to_owned());
    let folder = own.join("snapshots").join(&commit);
    let sha256 = options.weights_sha256.as_deref().map(str::to_ascii_lowercase);
    // What cannot be used here is no reason to fail: it can still be fetched.
    let whole = || layout::missing(&folder, sha256.as_deref()).is_ok_and(|missing| missing.is_empty());
    let found = commit.bytes().all(|byte| byte.is_ascii_hexdigit()) && folder.is_dir() && whole();
    found.then_some(folder)
}
