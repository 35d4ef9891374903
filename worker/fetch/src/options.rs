//! How to fetch, and what is told meanwhile.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::folders::Folders;
use crate::hosts::Hub;

/// How to fetch a repository.
#[derive(Clone, Debug, Default)]
pub struct FetchOptions {
    /// Where from: endpoint, token, whether the network may be used.
    pub hub: Hub,
    /// Branch, tag or commit; `None` is `main`.
    pub revision: Option<String>,
    /// Expected SHA-256 of the weights, which must be one file then, in hexadecimal digits.
    pub weights_sha256: Option<String>,
    /// The cache of the hub's own client, in which [`resolve_model`](crate::resolve_model) looks, too.
    pub hub_cache: Option<PathBuf>,
    /// Deadlines and retries.
    pub patience: Patience,
    /// Whom to tell.
    pub progress: Progress,
}

impl FetchOptions {
    /// The defaults, with the hub and the hub's own cache that the environment describes.
    pub fn from_env() -> Self {
        let hub_cache = Folders(|name: &str| std::env::var_os(name)).hub_cache();
        Self { hub: Hub::from_env(), hub_cache, ..Self::default() }
    }
}

/// Deadlines and retries. No wait is without an end.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long a connection may take.
    pub connect: Duration,
    /// How long the server may stay silent.
    pub silence: Duration,
    /// Tries in a row without headway before giving up; two where the server never answered.
    pub tries: u32,
    /// Pause before the second try; doubled for each further one, at most half a minute.
    pub pause: Duration,
    /// How long another process may hold the file's lock without headway.
    pub lock: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        // Fixed: servers of the hub know nothing of a job's patience.
        Self {
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            tries: 5,
            pause: Duration::from_secs(1),
            lock: Duration::from_secs(120),
        }
    }
}

impl Patience {
    /// The pause after `failures` failed tries in a row.
    pub(crate) fn pause_after(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        // Fixed: it only paces attempts.
        self.pause.saturating_mul(1 << doublings).min(Duration::from_secs(30))
    }
}

/// What happens while a file is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Bytes arrive (or are about to).
    Bytes {
        /// The file's name.
        file: &'a str,
        /// Bytes that lie on disk.
        done: u64,
        /// Bytes of the whole file, where known.
        total: Option<u64>,
    },
    /// A try failed; another follows.
    Retry {
        /// The file's name.
        file: &'a str,
        /// What failed.
        reason: &'a str,
        /// The pause before the next try.
        pause: Duration,
    },
    /// Another process is fetching the same file; it is waited for.
    Waiting {
        /// The file's name.
        file: &'a str,
    },
    /// The file is whole, verified and in its place.
    Done {
        /// The file's name.
        file: &'a str,
        /// Its size.
        bytes: u64,
    },
}

/// Whom to tell of [`Event`]s; by default nobody.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<Callback>>);

type Callback = dyn Fn(&Event<'_>) + Send + Sync;

impl Progress {
    /// Calls `tell` for every event, on the fetching thread.
    pub fn new(tell: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    pub(crate) fn tell(&self, event: &Event<'_>) {
        if let Some(callback) = &self.0 {
            callback(event);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Progress(told)" } else { "Progress(silent)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute() {
        let patience = Patience::default();
        let seconds: Vec<u64> = (1..8).map(|failures| patience.pause_after(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
    }
}
