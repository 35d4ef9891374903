//! Features are built once on a host: files named by what went into them, mapped by every process.
//!
//! ```text
//! DIR/6f1c….features   complete, checked on opening, never written again
//! DIR/6f1c….partial    being written by the process that holds the lock
//! DIR/lock-6           held while features whose name begins with 6 are built
//! ```

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

use super::{FeatureSettings, Features, Purpose, build, file};
use crate::squad::Dataset;
use crate::{DataError, PairLayout, Tokenizer, Window};

/// Part of every name. To be raised when the same input gives other features or the file looks otherwise.
const VERSION: u32 = 1;

/// Names the folder, or is `off`.
const VARIABLE: &str = "SQUAD_FEATURE_CACHE";

/// How often a waiting process looks. Fixed: it only paces looks.
const LOOK: Duration = Duration::from_millis(20);

/// What nobody has written to for so long was left by a process that was killed. Fixed: nobody waits for it.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Bytes that are kept; beyond them the files that were used longest ago go.
const LIMIT: u64 = 4 << 30;

/// Where features are kept between runs, and shared by the ranks of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeatureCache {
    /// Nowhere: every process builds its own.
    Off,
    /// In a folder.
    In {
        /// The folder, which is made where it is missing.
        folder: PathBuf,
        /// Longest wait for another process that builds the same features; then each builds its own.
        wait: Duration,
    },
}

/// Where features came from; displays as a phrase for a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built, without a cache.
    Built,
    /// Built by this process, and kept.
    Saved,
    /// Found in the cache.
    Cached,
    /// What the cache held was damaged (it says how), so that it was built anew and replaced.
    Mended(String),
    /// Built, but it could not be kept, for the reason given.
    Unsaved(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Built => write!(f, "built"),
            Self::Saved => write!(f, "built and kept in the cache"),
            Self::Cached => write!(f, "from the cache"),
            Self::Mended(reason) => write!(f, "built anew, since the cache's file was damaged: {reason}"),
            Self::Unsaved(reason) => write!(f, "built, but not kept in the cache: {reason}"),
        }
    }
}

/// Features, and where they came from.
#[derive(Debug)]
pub struct Opened {
    /// The features.
    pub features: Features,
    /// Where they came from.
    pub origin: Origin,
}

impl FeatureCache {
    /// What `SQUAD_FEATURE_CACHE` says: a folder, or `off`. Where it is not set, `squadron/features` in the user's
    /// cache folder (`XDG_CACHE_HOME`, or `.cache` in the home folder); without one, [`Off`](Self::Off). `wait` is how
    /// long another process that builds the same features is waited for.
    #[must_use]
    pub fn from_env(wait: Duration) -> Self {
        let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        match named(VARIABLE) {
            Some(value) if value.as_os_str() == "off" => Self::Off,
            Some(folder) => Self::In { folder, wait },
            None => named("XDG_CACHE_HOME")
                .or_else(|| named("HOME").map(|home| home.join(".cache")))
                .map_or(Self::Off, |cache| Self::In { folder: cache.join("squadron/features"), wait }),
        }
    }
}

impl Features {
    /// [`build`](Self::build), unless the cache holds the features of just this input. Of processes that want the
    /// same features at once, one builds and the others wait for it. A cache that cannot be used costs nothing but
    /// time: it is never an error.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn open_or_build(
        dataset: &Dataset,
        tokenizer: &Tokenizer,
        settings: &FeatureSettings,
        purpose: Purpose,
        cache: &FeatureCache,
    ) -> Result<Opened, DataError> {
        settings.validate()?;
        let build = || build::build(dataset, tokenizer, settings, purpose);
        let FeatureCache::In { folder, wait } = cache else {
            return Ok(Opened { features: build()?, origin: Origin::Built });
        };
        let entry = Entry::new(folder, &key(dataset, tokenizer, settings, purpose));
        if let Ok(Some(features)) = entry.open() {
            return Ok(Opened { features, origin: Origin::Cached });
        }
        // Held until the end: who waits for it finds the file complete.
        let _lock = match entry.lock(*wait) {
            Ok(lock) => lock,
            Err(error) => {
                return Ok(Opened { features: build()?, origin: Origin::Unsaved(error.to_string()) });
            }
        };
        let damage = match entry.open() {
            Ok(Some(features)) => return Ok(Opened { features, origin: Origin::Cached }),
            Ok(None) => None,
            Err(damage) => Some(damage),
        };
        let features = build()?;
        Ok(match entry.keep(&features) {
            Ok(mapped) => {
                prune(folder, LIMIT);
                Opened { features: mapped, origin: damage.map_or(Origin::Saved, Origin::Mended) }
            }
            Err(reason) => Opened { features, origin: Origin::Unsaved(reason) },
        })
    }
}

/// One name in the cache.
struct Entry {
    folder: PathBuf,
    complete: PathBuf,
    partial: PathBuf,
    lock: PathBuf,
}

impl Entry {
    fn new(folder: &Path, key: &str) -> Self {
        let named = |end: &str| folder.join(format!("{key}.{end}"));
        // A few files that stay: deleting a lock that somebody may be about to take is a race.
        let lock = folder.join(format!("lock-{}", &key[..1]));
        Self { folder: folder.to_path_buf(), complete: named("features"), partial: named("partial"), lock }
    }

    fn open(&self) -> Result<Option<Features>, String> {
        let features = file::open(&self.complete)?;
        if features.is_some() {
            // So that what is used stays; a cache that may only be read is as good.
            let touched = File::open(&self.complete).and_then(|file| file.set_modified(SystemTime::now()));
            touched.ok();
        }
        Ok(features)
    }

    /// Waits for the lock, which its holder's end gives back however it ends.
    fn lock(&self, longest: Duration) -> io::Result<File> {
        fs::create_dir_all(&self.folder)
            .map_err(|e| io::Error::new(e.kind(), format!("cannot make {}: {e}", self.folder.display())))?;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.lock)
            .map_err(|e| io::Error::new(e.kind(), format!("cannot open {}: {e}", self.lock.display())))?;
        let deadline = Instant::now() + longest;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    let text = format!("another process has held {} for too long", self.lock.display());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK),
            }
        }
    }

    /// Writes the features and maps what was written, so that all processes share one copy.
    fn keep(&self, features: &Features) -> Result<Features, String> {
        let kept = file::write(features, &self.partial)
            .and_then(|()| fs::rename(&self.partial, &self.complete))
            .map_err(|error| format!("cannot write {}: {error}", self.partial.display()))
            .and_then(|()| file::open(&self.complete))
            .and_then(|mapped| mapped.ok_or_else(|| "it vanished at once".to_owned()));
        if kept.is_err() {
            // Half a file helps nobody; where it cannot be deleted, the next holder of the lock overwrites it.
            fs::remove_file(&self.partial).ok();
        }
        kept
    }
}

/// A name for everything that features depend on, in hex.
fn key(dataset: &Dataset, tokenizer: &Tokenizer, settings: &FeatureSettings, purpose: Purpose) -> String {
    let FeatureSettings { max_seq_length, doc_stride, max_query_length, window, layout } = *settings;
    let mut hash = Sha256::new();
    hash.update(b"squad-data feature cache");
    hash.update(VERSION.to_le_bytes());
    hash.update(env!("CARGO_PKG_VERSION"));
    hash.update(dataset.digest());
    hash.update(tokenizer.digest());
    for number in [max_seq_length, doc_stride, max_query_length] {
        hash.update((number as u64).to_le_bytes());
    }
    hash.update([
        u8::from(window == Window::Overlap),
        u8::from(layout == PairLayout::Double),
        u8::from(purpose == Purpose::Train),
    ]);
    hex::encode(hash.finalize())
}

/// Deletes what was abandoned, and what was used longest ago until the rest fits. Whoever has such a file mapped
/// keeps it.
fn prune(folder: &Path, limit: u64) {
    let now = SystemTime::now();
    for (written, _, path) in files(folder, "partial") {
        if now.duration_since(written).is_ok_and(|age| age > ABANDONED) {
            fs::remove_file(&path).ok();
        }
    }
    let mut files = files(folder, "features");
    files.sort();
    let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    // The newest one is what was just written: it stays however large it is.
    files.pop();
    for (_, bytes, path) in files {
        if total <= limit {
            break;
        }
        // Another process may have been quicker.
        fs::remove_file(&path).ok();
        total -= bytes;
    }
}

/// Files with this ending: when each was written, its size, its path.
fn files(folder: &Path, end: &str) -> Vec<(SystemTime, u64, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let about = |path: PathBuf| {
        let about = fs::metadata(&path).ok()?;
        Some((about.modified().ok()?, about.len(), path))
    };
    paths.filter(|path| path.extension().is_some_and(|found| found == end)).filter_map(about).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        for (age, name) in [(30, "old.features"), (20, "used.features"), (10, "new.features"), (40, "lock-1")]
        {
            let path = folder.path().join(name);
            fs::write(&path, [0; 100]).unwrap();
            let file = OpenOptions::new().append(true).open(&path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        let left = || {
            let mut names: Vec<String> = fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names.join(" ")
        };
        prune(folder.path(), 300);
        assert_eq!(left(), "lock-1 new.features old.features used.features");
        prune(folder.path(), 250);
        assert_eq!(left(), "lock-1 new.features used.features");
        prune(folder.path(), 0);
        assert_eq!(left(), "lock-1 new.features");
    }

    #[test]
    fn a_lock_that_never_comes_ends_the_wait() {
        let folder = tempfile::tempdir().unwrap();
        let entry = Entry::new(folder.path(), "ab");
        let held = entry.lock(Duration::ZERO).unwrap();
        let error = entry.lock(Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("for too long"), "{error}");
        drop(held);
        entry.lock(Duration::ZERO).unwrap();
    }
}
