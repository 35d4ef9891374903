//! Rows of a table that are summed while the rest stays as it is: a batch touches few words of a vocabulary, and all
//! other rows of the word embeddings' gradient are zero.
//!
//! Row `r` belongs to rank `r % world` and is summed in the order of ranks `owner + 1, owner + 2, ..., owner`. That
//! depends on the row's number alone. So some rows or all of them, a rank's bits are the same.

use std::ops::Range;
use std::sync::Arc;

use crate::error::CollectiveError;
use crate::{Buffer, Collective, check_table};

/// Which rows of a table of floats are summed. The table lies row by row at the beginning of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    table: usize,
    width: usize,
    /// In ascending order; `None` for all.
    chosen: Option<Arc<[u32]>>,
}

impl Rows {
    /// All rows of a table of `table` rows of `width` floats.
    #[must_use]
    pub fn all(table: usize, width: usize) -> Rows {
        Rows { table, width, chosen: None }
    }

    /// Some of its rows.
    ///
    /// # Errors
    /// [`CollectiveError::Usage`] unless they ascend, each once, and are in the table.
    pub fn some(table: usize, width: usize, chosen: &[u32]) -> Result<Rows, CollectiveError> {
        let ascend = chosen.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascend || chosen.last().is_some_and(|last| *last as usize >= table) {
            let problem = format!("rows of a table of {table} that do not ascend, or are beyond its end");
            return Err(CollectiveError::Usage { problem });
        }
        Ok(Rows { table, width, chosen: Some(chosen.into()) })
    }

    /// Whether these are all rows.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.chosen.is_none()
    }

    /// Rows that are summed.
    #[must_use]
    pub fn count(&self) -> usize {
        self.chosen.as_ref().map_or(self.table, |chosen| chosen.len())
    }

    /// Floats that are summed.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.count() * self.width
    }

    /// Floats of the whole table.
    #[must_use]
    pub fn table_elements(&self) -> usize {
        self.table * self.width
    }

    /// The numbers of the rows with these places among those that are summed.
    pub fn numbers(&self, places: Range<usize>) -> impl Iterator<Item = usize> {
        places.map(|place| self.chosen.as_ref().map_or(place, |chosen| chosen[place] as usize))
    }

    /// The floats of a row in the buffer.
    #[must_use]
    pub fn floats(&self, row: usize) -> Range<usize> {
        row * self.width..(row + 1) * self.width
    }

    /// The rows of each owner, one owner after the other, and where each owner's begin and end when they are laid
    /// down in this order.
    pub(crate) fn by_owner(&self, world: usize) -> (Vec<usize>, Vec<Range<usize>>) {
        let mut order = Vec::with_capacity(self.count());
        let spans = (0..world)
            .map(|owner| {
                let start = order.len() * self.width;
                order.extend(self.numbers(0..self.count()).filter(|row| row % world == owner));
                start..order.len() * self.width
            })
            .collect();
        (order, spans)
    }

    /// 24 bits that tell one choice from another: ranks that sum different rows find out.
    pub(crate) fn digest(&self) -> usize {
        // FNV-1a.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut take = |value: u64| hash = (hash ^ value).wrapping_mul(0x0100_0000_01b3);
        take(self.table as u64);
        take(self.width as u64);
        self.chosen.iter().flat_map(|chosen| chosen.iter()).for_each(|row| take(u64::from(*row) + 1));
        (hash >> 40) as usize
    }
}

/// Sums a table's rows by way of a copy of them, then what lies behind the table.
pub(crate) fn all_reduce_by_copies<C: Collective + ?Sized>(
    collective: &mut C,
    buffer: &mut Buffer,
    len: usize,
    rows: &Rows,
) -> Result<(), CollectiveError> {
    check_table(buffer, len, rows)?;
    let (order, spans) = rows.by_owner(collective.world());
    let mut copies = Vec::with_capacity(rows.elements());
    order.iter().for_each(|row| copies.extend_from_slice(&buffer[rows.floats(*row)]));
    collective.all_reduce_spans(&mut copies, spans, rows.digest())?;
    for (row, sums) in order.iter().zip(copies.chunks(rows.width.max(1))) {
        buffer[rows.floats(*row)].copy_from_slice(sums);
    }
    collective.all_reduce_range(buffer, rows.table_elements()..len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_to_their_owners_in_order() {
        let rows = Rows::some(10, 4, &[1, 2, 5, 9]).unwrap();
        assert_eq!(rows.by_owner(3), (vec![9, 1, 2, 5], vec![0..4, 4..8, 8..16]));
        assert_eq!((rows.count(), rows.elements(), rows.table_elements()), (4, 16, 40));
        let all = Rows::all(3, 2);
        assert_eq!(all.by_owner(2), (vec![0, 2, 1], vec![0..4, 4..6]));
        assert_eq!(all.numbers(1..3).map(|row| all.floats(row)).collect::<Vec<_>>(), [2..4, 4..6]);
    }

    #[test]
    fn what_is_no_choice_is_refused_and_choices_differ() {
        for wrong in [&[2, 1][..], &[1, 1], &[10]] {
            assert!(Rows::some(10, 4, wrong).is_err(), "{wrong:?}");
        }
        assert!(Rows::some(10, 4, &[]).is_ok());
        let digest = |chosen: &[u32]| Rows::some(10, 4, chosen).unwrap().digest();
        assert_ne!(digest(&[1, 2]), digest(&[1, 3]));
        assert_ne!(digest(&[]), Rows::all(10, 4).digest() + 1);
        assert!(digest(&[1, 2]) < 1 << 24);
    }
}
