//! What has been read of a file so far.

use std::collections::BTreeSet;

use crate::Tensors;
use crate::error::Fault;
use crate::view::View;

/// Floats that a file may become for each of its bytes. A file of half precision becomes one for each two bytes;
/// more come from tensors that share their memory.
const FLOATS_A_BYTE: u64 = 4;

/// Floats that a file of any size may become.
const FLOATS_AT_LEAST: u64 = 1 << 20;

/// Tensors read, and a bound on those to come.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) tensors: Tensors,
    /// Tensors of whole numbers.
    pub(crate) left_out: BTreeSet<String>,
    /// Floats that may still be added.
    room: u64,
}

impl Contents {
    /// For a file of so many bytes, or several together.
    pub(crate) fn of_file(bytes: usize) -> Self {
        let room = FLOATS_AT_LEAST.saturating_add(FLOATS_A_BYTE.saturating_mul(bytes as u64));
        Self { tensors: Tensors::new(), left_out: BTreeSet::new(), room }
    }

    /// Adds a tensor as floats, or its name where it is of whole numbers.
    pub(crate) fn add(&mut self, name: &str, view: &View<'_>) -> Result<(), Fault> {
        let about = |fault| match fault {
            Fault::Damaged(message) => Fault::Damaged(format!("tensor {name}: {message}")),
            other => other,
        };
        let left = view.count().and_then(|count| self.room.checked_sub(count));
        let (Some(left), Some(shape)) = (left, signed(&view.shape)) else {
            return Fault::damaged(format!(
                "tensor {name} of shape {:?} is larger than a file of this size can hold",
                view.shape
            ));
        };
        let known = match view.floats().map_err(about)? {
            None => !self.left_out.insert(name.to_owned()),
            Some(floats) => {
                self.room = left;
                self.tensors.insert(name.to_owned(), (shape, floats)).is_some()
            }
        };
        if known {
            return Fault::damaged(format!("tensor {name} is there twice"));
        }
        Ok(())
    }
}

fn signed(shape: &[u64]) -> Option<Vec<i64>> {
    shape.iter().map(|axis| i64::try_from(*axis).ok()).collect()
}
