//! The world of one: everything is its own sum.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::CollectiveError;
use crate::ring::check_root;
use crate::{AbortHandle, Buffer, Collective, Rows, check_table};

/// A collective without peers.
pub(crate) struct Solo {
    aborted: Arc<AtomicBool>,
}

impl Solo {
    pub(crate) fn new() -> Solo {
        Solo { aborted: Arc::default() }
    }

    fn check(&self) -> Result<(), CollectiveError> {
        if self.aborted.load(Ordering::SeqCst) {
            return Err(CollectiveError::Aborted { rank: 0 });
        }
        Ok(())
    }
}

impl Collective for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn transport(&self) -> &'static str {
        "solo"
    }

    fn all_reduce(&mut self, _buffer: &mut [f32]) -> Result<(), CollectiveError> {
        self.check()
    }

    fn all_reduce_table(
        &mut self,
        buffer: &mut Buffer,
        len: usize,
        rows: &Rows,
    ) -> Result<(), CollectiveError> {
        check_table(buffer, len, rows)?;
        self.check()
    }

    fn reduce_scatter(&mut self, buffer: &mut [f32]) -> Result<Range<usize>, CollectiveError> {
        self.check()?;
        Ok(0..buffer.len())
    }

    fn all_gather(&mut self, _buffer: &mut [f32]) -> Result<(), CollectiveError> {
        self.check()
    }

    fn broadcast(&mut self, _buffer: &mut [f32], root: usize) -> Result<(), CollectiveError> {
        check_root(root, 1)?;
        self.check()
    }

    fn gather_bytes(&mut self, mine: Vec<u8>) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.check()?;
        Ok(vec![mine])
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.check()
    }

    fn abort_handle(&self) -> AbortHandle {
        AbortHandle::new(Arc::clone(&self.aborted), || {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alone_everything_is_the_identity() {
        let mut solo = Solo::new();
        let mut buffer = vec![1.5, -2.0];
        solo.all_reduce(&mut buffer).unwrap();
        assert_eq!(solo.reduce_scatter(&mut buffer).unwrap(), 0..2);
        solo.all_gather(&mut buffer).unwrap();
        solo.broadcast(&mut buffer, 0).unwrap();
        solo.barrier().unwrap();
        assert_eq!(buffer, [1.5, -2.0]);
        assert_eq!(solo.gather_bytes(vec![7]).unwrap(), [vec![7]]);
        assert!(matches!(solo.broadcast(&mut buffer, 1), Err(CollectiveError::Usage { .. })));
    }

    #[test]
    fn an_aborted_solo_answers_so() {
        let mut solo = Solo::new();
        let handle = solo.abort_handle();
        assert!(!handle.is_aborted());
        handle.clone().abort();
        assert!(matches!(solo.barrier(), Err(CollectiveError::Aborted { rank: 0 })));
        assert!(matches!(solo.all_reduce(&mut []), Err(CollectiveError::Aborted { rank: 0 })));
    }
}
