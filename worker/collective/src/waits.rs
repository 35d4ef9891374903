//! How long a rank waits for what is no operation yet, or none any more.

use std::time::Duration;

/// Waits beside those inside an operation, which have all of [`Topology::patience`](crate::Topology::patience).
///
/// They are parts of it. The rest of Squadron has them under the same names in its table of deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// One attempt to connect; a host that is down does not even refuse.
    pub connect: Duration,
    /// How long somebody who has come to the door may take to prove to be a rank.
    pub handshake: Duration,
    /// How long a failing rank tries to tell its neighbours, and how long the rest of such a notice is awaited.
    pub last_words: Duration,
    /// How long a rank that has found a difference stays at its door for its neighbours to find it too.
    pub blame: Duration,
}

impl Waits {
    /// The waits of a patience.
    #[must_use]
    pub fn of(patience: Duration) -> Self {
        Self {
            connect: (patience / 8).min(Duration::from_secs(2)),
            handshake: patience / 6,
            last_words: (patience / 8).min(Duration::from_millis(500)),
            blame: (patience / 4).min(Duration::from_secs(2)),
        }
    }
}
