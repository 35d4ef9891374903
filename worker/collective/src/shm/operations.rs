//! What a rank does between the rounds of each operation.

use std::ops::Range;
use std::time::Instant;

use super::area::Area;
use super::lay::{Way, copy, lay};
use super::sum::{Order, add_other, gather, in_place, pieces, share};
use super::{SEGMENT, SLOT, Shm};
use crate::error::CollectiveError;
use crate::ring::MAX_BLOB;
use crate::{Rows, spans};

const FLOATS: usize = SEGMENT / size_of::<f32>();

/// Most floats of which every rank makes all sums for itself: sharing them out would take one more round.
const ALONE: usize = 64 * 1024 / size_of::<f32>();

/// Ranges of up to `size` elements; even nothing has one, so that ranks always meet and can compare what they do.
fn segments(total: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..total.div_ceil(size).max(1)).map(move |index| index * size..((index + 1) * size).min(total))
}

/// What two ranges have in common; empty, and within `one`, where that is nothing.
fn common(one: &Range<usize>, other: &Range<usize>) -> Range<usize> {
    let start = one.start.max(other.start).min(one.end);
    start..other.end.clamp(start, one.end)
}

/// The part of the segment `range` that `rank` sums for everybody.
fn shared_out(range: &Range<usize>, rank: usize, world: usize) -> Range<usize> {
    let share = share(range.len(), rank, world);
    range.start + share.start..range.start + share.end
}

/// `range` as seen from `origin`.
fn within(range: &Range<usize>, origin: &Range<usize>) -> Range<usize> {
    range.start - origin.start..range.end - origin.start
}

impl Shm {
    /// Elements of the slot in which this rank lays down what the next round is to bring to the others.
    fn slot<T>(&mut self, elements: Range<usize>) -> &mut [T] {
        let slot = self.next_round() as usize % 2 * (SLOT / size_of::<T>());
        // SAFETY: this rank's own slot of a round that it has not arrived in. It was last read after the round
        // before the last; all have arrived in the last one since.
        unsafe { self.staging.write(self.rank, slot + elements.start..slot + elements.end) }
    }

    /// Elements that `rank` laid down for the round that was just completed.
    fn laid_down<T>(&self, rank: usize, elements: Range<usize>) -> &[T] {
        let slot = self.round as usize % 2 * (SLOT / size_of::<T>());
        // SAFETY: the round is complete, so its owner has written it; it will not write it again before this
        // rank has arrived in the next round, which needs `self` exclusively.
        unsafe { self.staging.read(rank, slot + elements.start..slot + elements.end) }
    }

    /// Meets the others over the segment `range` of floats.
    fn pass(&mut self, range: &Range<usize>) -> Result<(), CollectiveError> {
        match range.start {
            0 => self.meet()?,
            _ => self.round()?,
        }
        self.done += (range.len() * size_of::<f32>()) as u64;
        Ok(())
    }

    /// Sums over all ranks what they laid down of `part`, which lies in the segment `range`, into `own`, which
    /// holds this rank's values.
    fn sum_laid_down(
        &self,
        part: Range<usize>,
        range: &Range<usize>,
        spans: &[Range<usize>],
        own: &mut [f32],
    ) {
        let slot = self.round as usize % 2 * (SLOT / size_of::<f32>());
        for (piece, order) in pieces(part.clone(), spans) {
            let (from, to) = (within(&piece, range), within(&piece, &part));
            let own = (self.rank, &mut own[to]);
            // SAFETY: as for `laid_down`.
            unsafe { gather(&self.staging, slot + from.start..slot + from.end, order, own) };
        }
    }

    pub(super) fn all_reduce_staged(
        &mut self,
        buffer: &mut [f32],
        spans: &[Range<usize>],
    ) -> Result<(), CollectiveError> {
        if buffer.len() > ALONE {
            return self.all_reduce_shared_out(buffer, spans);
        }
        let all = 0..buffer.len();
        lay(self.slot(all.clone()), buffer, Way::Cached);
        self.pass(&all)?;
        self.sum_laid_down(all.clone(), &all, spans, buffer);
        Ok(())
    }

    /// Each rank sums its share of every segment. What it has summed of one travels with what it lays down of the next.
    fn all_reduce_shared_out(
        &mut self,
        buffer: &mut [f32],
        spans: &[Range<usize>],
    ) -> Result<(), CollectiveError> {
        let mut earlier: Option<Range<usize>> = None;
        for range in segments(buffer.len(), FLOATS) {
            let (begun, way) = (Instant::now(), self.tuner.way());
            let mine = shared_out(&range, self.rank, self.world);
            for part in [range.start..mine.start, mine.end..range.end] {
                lay(self.slot(within(&part, &range)), &buffer[part], way);
            }
            self.pass(&range)?;
            if let Some(earlier) = &earlier {
                self.take_sums(earlier, buffer);
            }
            self.sum_share(mine.clone(), &range, spans, &mut buffer[mine.clone()]);
            lay(self.slot(FLOATS..FLOATS + mine.len()), &buffer[mine], way);
            self.tuner.done(range.len() * size_of::<f32>(), begun.elapsed());
            earlier = Some(range);
        }
        self.round()?;
        if let Some(earlier) = &earlier {
            self.take_sums(earlier, buffer);
        }
        Ok(())
    }

    /// As [`Shm::sum_laid_down`], where no other rank makes the same sums.
    fn sum_share(&self, part: Range<usize>, range: &Range<usize>, spans: &[Range<usize>], own: &mut [f32]) {
        if self.world != 2 {
            return self.sum_laid_down(part, range, spans, own);
        }
        let slot = self.round as usize % 2 * (SLOT / size_of::<f32>());
        let from = within(&part, range);
        // SAFETY: as for `laid_down`.
        unsafe { add_other(&self.staging, slot + from.start..slot + from.end, 1 - self.rank, own) };
    }

    /// Copies what the other ranks have summed of the segment `range`.
    fn take_sums(&self, range: &Range<usize>, buffer: &mut [f32]) {
        for rank in (0..self.world).filter(|rank| *rank != self.rank) {
            let theirs = shared_out(range, rank, self.world);
            let sums = self.laid_down(rank, FLOATS..FLOATS + theirs.len());
            copy(&mut buffer[theirs], sums);
        }
    }

    pub(super) fn all_reduce_in_place(
        &mut self,
        area: &mut Area,
        len: usize,
        scale: f32,
    ) -> Result<(), CollectiveError> {
        self.meet()?;
        for (piece, order) in pieces(share(len, self.rank, self.world), &spans(len, self.world)) {
            // SAFETY: all ranks have arrived, each with its own part given to this operation, and wait for the
            // next round while they are done with their shares. This is this rank's share.
            unsafe { in_place(&area.areas, piece, order, scale) };
        }
        self.round()
    }

    /// Sums the chosen rows, of which each rank takes an equal part, and what lies behind the table.
    pub(super) fn all_reduce_table_in_place(
        &mut self,
        area: &mut Area,
        len: usize,
        rows: &Rows,
    ) -> Result<(), CollectiveError> {
        self.meet()?;
        let (rank, world, table) = (self.rank, self.world, rows.table_elements());
        for row in rows.numbers(spans(rows.count(), world)[rank].clone()) {
            // SAFETY: as for `all_reduce_in_place`. A row is in the share of one rank.
            unsafe {
                in_place(&area.areas, rows.floats(row), Order { first: (row + 1) % world, world }, 1.0)
            };
        }
        let behind = len - table;
        for (piece, order) in pieces(share(behind, rank, world), &spans(behind, world)) {
            // SAFETY: as for `all_reduce_in_place`. No row reaches behind the table.
            unsafe { in_place(&area.areas, piece.start + table..piece.end + table, order, 1.0) };
        }
        self.round()
    }

    pub(super) fn reduce_scatter_staged(
        &mut self,
        buffer: &mut [f32],
    ) -> Result<Range<usize>, CollectiveError> {
        let total = buffer.len();
        let spans = spans(total, self.world);
        let own = spans[self.rank].clone();
        for range in segments(total, FLOATS) {
            lay(self.slot(0..range.len()), &buffer[range.clone()], Way::Streamed);
            self.pass(&range)?;
            let part = common(&range, &own);
            self.sum_laid_down(part.clone(), &range, &spans, &mut buffer[part]);
        }
        Ok(own)
    }

    pub(super) fn all_gather_staged(&mut self, buffer: &mut [f32]) -> Result<(), CollectiveError> {
        let spans = spans(buffer.len(), self.world);
        for range in segments(buffer.len(), FLOATS) {
            let mine = common(&range, &spans[self.rank]);
            lay(self.slot(within(&mine, &range)), &buffer[mine], Way::Streamed);
            self.pass(&range)?;
            for (rank, span) in spans.iter().enumerate().filter(|(rank, _)| *rank != self.rank) {
                let theirs = common(&range, span);
                copy(&mut buffer[theirs.clone()], self.laid_down(rank, within(&theirs, &range)));
            }
        }
        Ok(())
    }

    pub(super) fn broadcast_staged(
        &mut self,
        buffer: &mut [f32],
        root: usize,
    ) -> Result<(), CollectiveError> {
        for range in segments(buffer.len(), FLOATS) {
            if self.rank == root {
                lay(self.slot(0..range.len()), &buffer[range.clone()], Way::Streamed);
            }
            self.pass(&range)?;
            if self.rank != root {
                copy(&mut buffer[range.clone()], self.laid_down(root, 0..range.len()));
            }
        }
        Ok(())
    }

    pub(super) fn gather_bytes_staged(&mut self, mine: Vec<u8>) -> Result<Vec<Vec<u8>>, CollectiveError> {
        // The announcements of the first round tell how much each rank has.
        self.meet()?;
        let mut blobs = Vec::with_capacity(self.world);
        for rank in 0..self.world {
            let size = self.announced_total(rank);
            if size > MAX_BLOB {
                let detail = format!("rank {rank} wants to gather {size} bytes; at most {MAX_BLOB}");
                return Err(CollectiveError::Garbage { scene: self.scene(rank), detail });
            }
            blobs.push(vec![0; size as usize]);
        }
        blobs[self.rank] = mine;
        let longest = blobs.iter().map(Vec::len).max().unwrap_or(0);
        for range in (0..longest).step_by(SEGMENT).map(|start| start..start + SEGMENT) {
            let part = |blob: &[u8]| common(&(0..blob.len()), &range);
            let own = &blobs[self.rank];
            let own = &own[part(own)];
            self.slot(0..own.len()).copy_from_slice(own);
            self.round()?;
            self.done += range.len() as u64;
            for rank in (0..self.world).filter(|rank| *rank != self.rank) {
                let theirs = part(&blobs[rank]);
                let from = self.laid_down(rank, 0..theirs.len());
                blobs[rank][theirs].copy_from_slice(from);
            }
        }
        Ok(blobs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_everything_and_even_nothing_has_one() {
        assert_eq!((segments(0, 10).count(), segments(0, 10).last()), (1, Some(0..0)));
        assert_eq!(segments(20, 10).collect::<Vec<_>>(), [0..10, 10..20]);
        assert_eq!(segments(21, 10).last(), Some(20..21));
    }

    #[test]
    fn what_is_common_lies_in_the_first() {
        assert_eq!(common(&(10..20), &(5..12)), 10..12);
        assert_eq!(common(&(10..20), &(12..13)), 12..13);
        assert_eq!(common(&(10..20), &(0..3)), 10..10);
        assert_eq!(common(&(10..20), &(30..40)), 20..20);
        assert_eq!(common(&(0..5), &(8..16)), 5..5);
    }
}
