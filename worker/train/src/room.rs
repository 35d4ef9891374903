//! Micro-batches in pieces, where memory does not suffice for one as a whole.
//!
//! libtorch says so when it does not get the memory that it asks for: a GPU's, or what a limit on the process's address space
//! leaves (a container's limit is enforced by killing, which nobody survives). What is left of the micro-batch is then
//! computed in halves, as is whatever is as large from there on. A step's examples, its loss and the sums of its gradients
//! stay those of the spec, but for the order in which floats are added. On the CPU a piece has its rows' part of
//! the whole's dropout masks; on a GPU, whose masks are libtorch's, others.

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Range;

use squad_data::Batch;

use crate::error::TrainError;
use crate::memory::{Shape, about_to_compute, attempt};

/// What a rank has found out about how much can be computed at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    /// Tokens, padding included, though a CPU computes less where there is some; `None` until memory has run out.
    most: Option<usize>,
}

/// Some rows of a micro-batch that are computed at once.
#[derive(Debug)]
pub struct Piece {
    rows: Range<usize>,
    whole: bool,
    last: bool,
    /// Stages from here on have these rows' gradients: an attempt that failed further down brought them.
    wanted_below: Cell<usize>,
    taking: Cell<bool>,
}

impl Piece {
    /// The rows as a batch of their own, as wide as the whole, noted as what is under way.
    pub fn of<'a>(&self, batch: &'a Batch, training: bool) -> Cow<'a, Batch> {
        about_to_compute(Shape { windows: self.rows.len(), tokens: batch.width, training });
        if self.whole { Cow::Borrowed(batch) } else { Cow::Owned(batch.part(self.rows.clone())) }
    }

    /// The row of the micro-batch that the piece begins with.
    pub fn first_row(&self) -> usize {
        self.rows.start
    }

    /// Whether it is all of its micro-batch.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Whether nothing of its micro-batch is left after it.
    pub fn is_last(&self) -> bool {
        self.last
    }

    /// Takes what was computed for a stage, unless an earlier attempt has brought it. Stages come from the highest down.
    ///
    /// # Errors
    /// Those of `take`.
    pub fn take(
        &self,
        stage: usize,
        take: impl FnOnce() -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        if stage >= self.wanted_below.get() {
            return Ok(());
        }
        // What ends in the middle of this must not be done again.
        self.taking.set(true);
        take()?;
        self.taking.set(false);
        self.wanted_below.set(stage);
        Ok(())
    }
}

impl Room {
    /// Whether memory has run out before.
    pub fn has_run_out(&self) -> bool {
        self.most.is_some()
    }

    /// Computes a micro-batch: all at once, or in pieces if memory runs out, or has run out before. `compute` hands
    /// what it has to [`Piece::take`].
    ///
    /// # Errors
    /// Those of `compute`; also where memory does not suffice for one row.
    ///
    /// # Panics
    /// Where `compute` does, but for a lack of memory that pieces help against.
    pub fn in_pieces(
        &mut self,
        batch: &Batch,
        mut compute: impl FnMut(&Piece) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        // The next one is at the end.
        let mut waiting = self.cut(0..batch.rows, batch.width, usize::MAX);
        while let Some((rows, wanted_below)) = waiting.pop() {
            let piece = Piece {
                whole: rows.len() == batch.rows,
                last: waiting.is_empty(),
                rows,
                wanted_below: Cell::new(wanted_below),
                taking: Cell::new(false),
            };
            match attempt(|| compute(&piece)) {
                Ok(ended) => ended?,
                Err(_) if piece.rows.len() > 1 && !piece.taking.get() => {
                    self.most = Some(piece.rows.len().div_ceil(2) * batch.width);
                    waiting.push((piece.rows, piece.wanted_below.get()));
                    let smaller = |(rows, below)| self.cut(rows, batch.width, below);
                    waiting = waiting.into_iter().flat_map(smaller).collect();
                }
                Err(lack) => return lack.give_up(),
            }
        }
        Ok(())
    }

    /// Rows in pieces that there is room for, as alike as can be, the last first; each with the stages that lack it.
    fn cut(&self, rows: Range<usize>, width: usize, wanted_below: usize) -> Vec<(Range<usize>, usize)> {
        let at_once = self.most.map_or(usize::MAX, |tokens| tokens / width.max(1)).max(1);
        let (count, len) = (rows.len().div_ceil(at_once), rows.len());
        let border = |k: usize| rows.start + len * k / count;
        (0..count).rev().map(|k| (border(k)..border(k + 1), wanted_below)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    const STAGES: usize = 4;

    fn batch(rows: usize, width: usize) -> Batch {
        Batch {
            rows,
            width,
            input_ids: vec![0; rows * width],
            token_type_ids: vec![0; rows * width],
            lengths: vec![width as i64; rows],
            allowed: vec![true; rows * width],
            starts: vec![0; rows],
            ends: vec![0; rows],
            impossible: vec![0; rows],
            features: (0..rows).collect(),
        }
    }

    fn run_out() -> ! {
        panic!("Torch(\"CUDA out of memory. Tried to allocate 2.00 GiB.\")");
    }

    /// Computes a micro-batch in a machine that has room for so many rows, and for more above stage `at`; counts how often
    /// each stage got each row.
    fn compute(room: &mut Room, rows: usize, (fit, at): (usize, usize)) -> (Vec<Vec<u32>>, Vec<usize>) {
        let (mut got, mut attempts) = (vec![vec![0; rows]; STAGES], Vec::new());
        let mut launched = Vec::new();
        room.in_pieces(&batch(rows, 10), |piece| {
            attempts.push(piece.rows.len());
            assert_eq!(piece.of(&batch(rows, 10), true).features, piece.rows.clone().collect::<Vec<_>>());
            for stage in (0..STAGES).rev() {
                if piece.rows.len() > fit && stage == at {
                    run_out();
                }
                piece.take(stage, || {
                    got[stage][piece.rows.clone()].iter_mut().for_each(|times| *times += 1);
                    if piece.is_last() {
                        launched.push(stage);
                    }
                    Ok(())
                })?;
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(launched, [3, 2, 1, 0], "each stage is launched once, from the head down");
        (got, attempts)
    }

    #[test]
    fn every_stage_gets_every_row_once_wherever_memory_runs_out() {
        for at in 0..STAGES {
            for (rows, fit) in [(8, 8), (8, 4), (7, 3), (5, 1), (1, 1)] {
                let (got, _) = compute(&mut Room::default(), rows, (fit, at));
                assert!(
                    got.iter().flatten().all(|times| *times == 1),
                    "{rows} rows, room for {fit}: {got:?}"
                );
            }
        }
    }

    #[test]
    fn what_was_found_out_is_kept() {
        let mut room = Room::default();
        assert_eq!(compute(&mut room, 8, (3, 2)).1, [8, 4, 2, 2, 2, 2]);
        assert_eq!(compute(&mut room, 8, (3, 2)).1, [2, 2, 2, 2]);
        assert_eq!(compute(&mut room, 5, (3, 2)).1, [1, 2, 2], "pieces are as alike as can be");
        // Tokens count, not rows.
        assert_eq!(room.cut(0..8, 5, 9).len(), 2);
    }

    #[test]
    fn one_row_without_room_is_the_end() {
        let caught = catch_unwind(AssertUnwindSafe(|| compute(&mut Room::default(), 4, (0, 1)))).unwrap_err();
        assert!(caught.downcast_ref::<&str>().unwrap().contains("out of memory"));
    }

    #[test]
    fn what_ends_half_done_is_not_done_again() {
        let mut attempts = 0;
        let caught = catch_unwind(AssertUnwindSafe(|| {
            Room::default().in_pieces(&batch(4, 10), |piece| {
                attempts += 1;
                piece.take(3, || run_out())
            })
        }));
        assert!(caught.is_err());
        assert_eq!(attempts, 1);
    }

    #[test]
    fn other_ends_are_none_of_its_business() {
        let error = Room::default().in_pieces(&batch(4, 10), |_| Err(TrainError::Internal("x".into())));
        assert!(matches!(error, Err(TrainError::Internal(_))));
        let mut attempts = 0;
        let caught = catch_unwind(AssertUnwindSafe(|| {
            Room::default().in_pieces(&batch(4, 10), |_| {
                attempts += 1;
                panic!("something else")
            })
        }));
        assert!(caught.is_err());
        assert_eq!(attempts, 1);
    }
}
