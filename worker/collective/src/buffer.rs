//! Memory for values that are to be reduced: on the heap, or where the other ranks of the host see it too.

use std::ops::{Deref, DerefMut};

use crate::shm::Area;

/// Floats that a collective can reduce. [`crate::Collective::buffer`] makes one in the best memory that the
/// transport knows; a `Vec<f32>` can be turned into one, and is then copied where a transport must.
///
/// Its elements stay at one address for its whole life, even while it moves from owner to owner.
#[derive(Debug)]
pub struct Buffer {
    memory: Memory,
    /// From where on elements are never compressed.
    exact: usize,
}

#[derive(Debug)]
enum Memory {
    Heap(Vec<f32>),
    Shared(Area),
}

impl Buffer {
    pub(crate) fn shared(area: Area) -> Buffer {
        Buffer { memory: Memory::Shared(area), exact: usize::MAX }
    }

    /// Zeros on the heap.
    pub(crate) fn heap(len: usize) -> Buffer {
        vec![0.0; len].into()
    }

    /// Where it is, if the other ranks of the host see it.
    pub(crate) fn area(&mut self) -> Option<&mut Area> {
        match &mut self.memory {
            Memory::Heap(_) => None,
            Memory::Shared(area) => Some(area),
        }
    }

    /// Elements from number `from` on travel as they are, whatever [`crate::Topology::compression`] says: what is no
    /// gradient. All ranks say the same.
    pub fn keep_exact(&mut self, from: usize) {
        self.exact = from;
    }

    /// How many of the first `len` elements may be compressed.
    pub(crate) fn compressible(&self, len: usize) -> usize {
        self.exact.min(len)
    }

    /// Whether the ranks of this host reduce it in place, without copying it first.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.memory, Memory::Shared(_))
    }
}

impl From<Vec<f32>> for Buffer {
    fn from(values: Vec<f32>) -> Buffer {
        Buffer { memory: Memory::Heap(values), exact: usize::MAX }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.memory {
            Memory::Heap(values) => values,
            Memory::Shared(area) => area.values(),
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.memory {
            Memory::Heap(values) => values,
            Memory::Shared(area) => area.values_mut(),
        }
    }
}
