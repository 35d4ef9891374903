//! Rows of a table that are summed while the others stay as they are.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking, in its helpers too")]

mod gang;

use std::time::Duration;

use gang::{bits, each, each_way, gang, values};
use squad_collective::{Buffer, Collective, CollectiveError, Rows, Transport};

const PATIENCE: Duration = Duration::from_secs(20);
const TABLE: usize = 211;
const WIDTH: usize = 24;
/// Elements behind the table.
const BEHIND: usize = 1003;

/// What a rank has: a table that is zero but for the chosen rows, and something behind it.
fn own(rank: usize, chosen: &[u32]) -> Vec<f32> {
    let mut values = values(rank, TABLE * WIDTH + BEHIND);
    for row in 0..TABLE {
        if !chosen.contains(&(row as u32)) {
            values[row * WIDTH..(row + 1) * WIDTH].fill(0.0);
        }
    }
    values
}

/// The sum of a row in the declared order: from its owner's next rank to its owner.
fn declared(row: usize, world: usize) -> Vec<f32> {
    let inputs: Vec<_> = (0..world).map(|rank| values(rank, TABLE * WIDTH)).collect();
    let mut ranks = (1..=world).map(|step| &inputs[(row + step) % world][row * WIDTH..(row + 1) * WIDTH]);
    let first = ranks.next().unwrap().to_vec();
    ranks.fold(first, |sum, next| sum.iter().zip(next).map(|(sum, value)| sum + value).collect())
}

fn summed(mut rank: Box<dyn Collective>, rows: &Rows, chosen: &[u32], shared: bool) -> Vec<f32> {
    let own = own(rank.rank(), chosen);
    let mut buffer = if shared { rank.buffer(own.len()).unwrap() } else { Buffer::from(own.clone()) };
    buffer.copy_from_slice(&own);
    rank.all_reduce_table(&mut buffer, own.len(), rows).unwrap();
    buffer.to_vec()
}

#[test]
fn some_rows_and_all_rows_have_the_declared_bits_on_all_ranks() {
    let chosen: Vec<u32> = (0..TABLE as u32).filter(|row| row * row % 7 == 2).collect();
    let some = Rows::some(TABLE, WIDTH, &chosen).unwrap();
    for (world, transport) in each_way(1..=5) {
        for (rows, shared) in [(&some, true), (&some, false), (&Rows::all(TABLE, WIDTH), true)] {
            let sums = each(gang(world, PATIENCE, transport), |rank| summed(rank, rows, &chosen, shared));
            // What lies behind the table has the bits of an all-reduce of it alone.
            let behind = each(gang(world, PATIENCE, transport), |mut rank| {
                let mut behind = own(rank.rank(), &chosen)[TABLE * WIDTH..].to_vec();
                rank.all_reduce(&mut behind).unwrap();
                behind
            });
            for (sum, behind) in sums.iter().zip(behind) {
                for row in 0..TABLE {
                    let found = &sum[row * WIDTH..(row + 1) * WIDTH];
                    if chosen.contains(&(row as u32)) {
                        assert_eq!(
                            bits(found),
                            bits(&declared(row, world)),
                            "{transport}, {world} ranks, row {row}"
                        );
                    } else {
                        assert!(found.iter().all(|value| *value == 0.0));
                    }
                }
                assert_eq!(bits(&sum[TABLE * WIDTH..]), bits(&behind), "{transport}, {world} ranks");
            }
        }
    }
}

#[test]
fn rows_that_are_not_chosen_stay_as_they_are() {
    for (world, transport) in each_way([2, 3]) {
        let chosen = [3, 90, 210];
        let rows = Rows::some(TABLE, WIDTH, &chosen).unwrap();
        each(gang(world, PATIENCE, transport), |mut rank| {
            let own = values(rank.rank(), TABLE * WIDTH);
            let mut buffer = rank.buffer(own.len()).unwrap();
            buffer.copy_from_slice(&own);
            rank.all_reduce_table(&mut buffer, own.len(), &rows).unwrap();
            for row in (0..TABLE).filter(|row| !chosen.contains(&(*row as u32))) {
                assert_eq!(bits(&buffer[rows.floats(row)]), bits(&own[rows.floats(row)]));
            }
        });
    }
}

#[test]
fn nothing_chosen_and_nothing_behind_are_summed_too() {
    for (world, transport) in each_way([2, 4]) {
        each(gang(world, PATIENCE, transport), |mut rank| {
            let none = Rows::some(TABLE, WIDTH, &[]).unwrap();
            let mut buffer = rank.buffer(TABLE * WIDTH).unwrap();
            rank.all_reduce_table(&mut buffer, TABLE * WIDTH, &none).unwrap();
            assert!(buffer.iter().all(|value| *value == 0.0));
            // A table beyond the buffer breaks nothing.
            let usage = rank.all_reduce_table(&mut buffer, TABLE * WIDTH - 1, &none);
            assert!(matches!(usage, Err(CollectiveError::Usage { .. })));
            rank.barrier().unwrap();
        });
    }
}

#[test]
fn ranks_that_choose_other_rows_find_out() {
    for transport in gang::TRANSPORTS {
        let errors = each(gang(2, PATIENCE, transport), |mut rank| {
            let rows = Rows::some(TABLE, WIDTH, &[rank.rank() as u32]).unwrap();
            let mut buffer = rank.buffer(TABLE * WIDTH).unwrap();
            rank.all_reduce_table(&mut buffer, TABLE * WIDTH, &rows).unwrap_err()
        });
        assert!(
            errors.iter().any(|error| matches!(error, CollectiveError::Disagreement { .. })),
            "{transport}: {errors:?}"
        );
    }
}

#[test]
fn rows_of_many_segments() {
    // More than one segment for each owner over TCP, and in the staging area of shared memory.
    let (table, width) = (3000, 256);
    let chosen: Vec<u32> = (0..table as u32).filter(|row| row % 3 != 0).collect();
    for transport in [Transport::Tcp, Transport::Shm] {
        let sums = each(gang(3, PATIENCE, transport), |mut rank| {
            let rows = Rows::some(table, width, &chosen).unwrap();
            let own = values(rank.rank(), table * width);
            let mut buffer = Buffer::from(own);
            rank.all_reduce_table(&mut buffer, table * width, &rows).unwrap();
            (buffer.to_vec(), rows)
        });
        let inputs: Vec<_> = (0..3).map(|rank| values(rank, table * width)).collect();
        for (sum, rows) in &sums {
            for row in &chosen {
                let row = *row as usize;
                let index = rows.floats(row).start;
                let of = |step: usize| inputs[(row + step) % 3][index];
                assert_eq!(sum[index].to_bits(), (of(1) + of(2) + of(3)).to_bits(), "{transport}, row {row}");
            }
        }
    }
}
