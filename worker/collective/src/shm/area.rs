//! Equal parts of a region, one for each rank: staging slots, or a buffer of each rank.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::control::Control;
use super::region::{Region, whole_pages};

const FLOAT: usize = size_of::<f32>();

/// The parts of all ranks.
#[derive(Clone, Debug)]
pub(crate) struct Areas {
    region: Arc<Region>,
    /// Where the part of rank 0 begins.
    offset: usize,
    /// Bytes from one rank's part to the next one's.
    stride: usize,
}

impl Areas {
    /// Bytes of the parts of `world` ranks, of `bytes` bytes each: whole pages. `None` if there is no such number.
    pub(crate) fn bytes(world: usize, bytes: usize) -> Option<usize> {
        whole_pages(bytes)?.checked_mul(world)
    }

    /// Parts of `bytes` bytes each, from `offset` on, which is a whole number of pages.
    pub(crate) fn new(region: Arc<Region>, offset: usize, bytes: usize) -> Areas {
        Areas { region, offset, stride: whole_pages(bytes).unwrap_or(bytes) }
    }

    fn at<T>(&self, rank: usize, elements: &Range<usize>) -> usize {
        assert!(elements.end * size_of::<T>() <= self.stride, "{elements:?} in {} bytes", self.stride);
        self.offset + rank * self.stride + elements.start * size_of::<T>()
    }

    /// Prepares this process for touching floats of the part of `rank`.
    pub(crate) fn prepare(&self, rank: usize, elements: Range<usize>) {
        let start = self.at::<f32>(rank, &elements);
        self.region.prepare(start..start + elements.len() * FLOAT);
    }

    /// Elements of the part of `rank`, to be read.
    ///
    /// # Safety
    /// While the reference lives no rank writes them; all bits are valid for `T`.
    pub(crate) unsafe fn read<T>(&self, rank: usize, elements: Range<usize>) -> &[T] {
        // SAFETY: promised by the caller.
        unsafe { self.region.values(self.at::<T>(rank, &elements), elements.len()) }
    }

    /// Elements of the part of `rank`, to be read and written.
    ///
    /// # Safety
    /// While the reference lives no rank reads or writes them by other means; all bits are valid for `T`.
    #[allow(clippy::mut_from_ref, reason = "the caller promises what a borrow of the whole cannot express")]
    pub(crate) unsafe fn write<T>(&self, rank: usize, elements: Range<usize>) -> &mut [T] {
        // SAFETY: promised by the caller.
        unsafe { self.region.values_mut(self.at::<T>(rank, &elements), elements.len()) }
    }
}

/// One rank's own part of a buffer that all ranks of the host have. Outside of operations nobody else touches
/// it; in an operation its owner holds it exclusively, and so takes part in the operation.
pub(crate) struct Area {
    pub(crate) areas: Areas,
    /// The gang that the buffer belongs to.
    pub(crate) gang: Arc<Control>,
    /// Number of the buffer in its gang, from 1 on.
    pub(crate) number: u32,
    rank: usize,
    len: usize,
}

impl Area {
    /// The part of `rank`: `len` floats.
    ///
    /// # Safety
    /// It is the only `Area` of this rank and these `areas`, and other ranks touch these floats only between
    /// the rounds of an operation to which this `Area` is given.
    pub(crate) unsafe fn new(areas: Areas, gang: Arc<Control>, number: u32, rank: usize, len: usize) -> Area {
        Area { areas, gang, number, rank, len }
    }

    /// Bytes of a region in which each of `ranks` ranks has a part of `len` floats; too many if there is no such
    /// number.
    pub(crate) fn bytes_of(ranks: usize, len: usize) -> usize {
        let bytes = len.checked_mul(FLOAT).and_then(|bytes| Areas::bytes(ranks, bytes));
        bytes.unwrap_or(usize::MAX)
    }

    pub(crate) fn values(&self) -> &[f32] {
        // SAFETY: see `new`. No operation is under way while this borrow lives, since it would need the area.
        unsafe { self.areas.read(self.rank, 0..self.len) }
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { self.areas.write(self.rank, 0..self.len) }
    }

    /// After an operation that failed in its middle: others may go on with it a little longer, and write. From
    /// now on they do so somewhere else. The contents are lost.
    pub(crate) fn detach(&mut self) {
        let start = self.areas.at::<f32>(self.rank, &(0..self.len));
        let Some(bytes) = whole_pages(self.len * FLOAT) else { return };
        // SAFETY: the part is exclusively borrowed, so no reference into it exists here.
        if let Err(error) = unsafe { self.areas.region.detach(start..start + bytes) } {
            tracing::warn!(%error, "a shared buffer stays shared after a failure");
        }
    }
}

impl fmt::Debug for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Area").field("number", &self.number).field("len", &self.len).finish()
    }
}
