//! Ending a blocked operation from another thread.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends the operation under way, and every later one, with [`crate::CollectiveError::Aborted`].
///
/// It may be kept and used after the collective is gone; it then does nothing.
#[derive(Clone)]
pub struct AbortHandle {
    inner: Arc<Inner>,
}

struct Inner {
    aborted: Arc<AtomicBool>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl AbortHandle {
    /// A handle that raises `aborted` and then calls `wake`, which makes blocked operations look at it.
    pub fn new(aborted: Arc<AtomicBool>, wake: impl Fn() + Send + Sync + 'static) -> AbortHandle {
        AbortHandle { inner: Arc::new(Inner { aborted, wake: Box::new(wake) }) }
    }

    /// Makes the operation under way and all later ones fail soon. Doing it again changes nothing.
    pub fn abort(&self) {
        self.inner.aborted.store(true, Ordering::SeqCst);
        (self.inner.wake)();
    }

    /// Whether somebody has called [`AbortHandle::abort`].
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        self.inner.aborted.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbortHandle").field("aborted", &self.is_aborted()).finish()
    }
}
