//! Every operation on every world, against what a single process would compute.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking, in its helpers too")]

mod gang;

use std::time::Duration;

use gang::{bits, each, ring, values};
use proptest::prelude::*;
use squad_collective::spans;

const PATIENCE: Duration = Duration::from_secs(20);

fn lengths(world: usize) -> Vec<usize> {
    vec![0, 1, 2, world - 1, world, world + 1, 997, 100_003]
}

/// The sum in the order that the crate declares: from the owner's next rank to the owner.
fn declared_sum(len: usize, world: usize) -> Vec<f32> {
    let inputs: Vec<_> = (0..world).map(|rank| values(rank, len)).collect();
    let mut sum = vec![0.0; len];
    for (owner, span) in spans(len, world).into_iter().enumerate() {
        for index in span {
            let mut ranks = (1..=world).map(|step| inputs[(owner + step) % world][index]);
            let first = ranks.next().unwrap();
            sum[index] = ranks.fold(first, |sum, value| sum + value);
        }
    }
    sum
}

fn check_against_f64(sum: &[f32], world: usize) {
    let inputs: Vec<_> = (0..world).map(|rank| values(rank, sum.len())).collect();
    for (index, value) in sum.iter().enumerate() {
        let exact: f64 = inputs.iter().map(|input| f64::from(input[index])).sum();
        let bound = world as f64 * world as f64 * f64::from(f32::EPSILON);
        assert!((f64::from(*value) - exact).abs() <= bound, "{value} for {exact} at {index}");
    }
}

#[test]
fn all_reduce_has_the_declared_bits_on_all_ranks_and_in_all_runs() {
    for world in 1..=8 {
        for _run in 0..2 {
            let sums = each(ring(world, PATIENCE), |mut rank| {
                let reduce = |len| {
                    let mut buffer = values(rank.rank(), len);
                    rank.all_reduce(&mut buffer).unwrap();
                    buffer
                };
                lengths(world).into_iter().map(reduce).collect::<Vec<_>>()
            });
            for (index, len) in lengths(world).into_iter().enumerate() {
                let wanted = declared_sum(len, world);
                check_against_f64(&wanted, world);
                for sum in &sums {
                    assert_eq!(bits(&sum[index]), bits(&wanted), "world {world}, length {len}");
                }
            }
        }
    }
}

#[test]
fn messages_of_many_segments_and_beyond_all_socket_buffers() {
    // 48 MB: more than what lies in all socket buffers together, so that sending must not wait for receiving.
    for (world, len) in [(2, 12_000_001), (3, 1_500_007)] {
        let sums = each(ring(world, PATIENCE), |mut rank| {
            let mut buffer = values(rank.rank(), len);
            rank.all_reduce(&mut buffer).unwrap();
            buffer
        });
        let wanted = declared_sum(len, world);
        for sum in &sums {
            assert!(bits(sum) == bits(&wanted), "world {world}");
        }
    }
}

#[test]
fn reduce_scatter_and_all_gather_make_an_all_reduce() {
    for world in 1..=8 {
        each(ring(world, PATIENCE), |mut rank| {
            for len in lengths(world) {
                let mut buffer = values(rank.rank(), len);
                let own = rank.reduce_scatter(&mut buffer).unwrap();
                assert_eq!(own, spans(len, world)[rank.rank()]);
                let wanted = declared_sum(len, world);
                assert_eq!(bits(&buffer[own.clone()]), bits(&wanted[own.clone()]));
                // What is not its own must come from the others.
                for (index, value) in buffer.iter_mut().enumerate() {
                    if !own.contains(&index) {
                        *value = f32::NAN;
                    }
                }
                rank.all_gather(&mut buffer).unwrap();
                assert_eq!(bits(&buffer), bits(&wanted), "world {world}, length {len}");
            }
        });
    }
}

#[test]
fn broadcast_from_each_root() {
    for world in 1..=8 {
        each(ring(world, PATIENCE), |mut rank| {
            for root in 0..world {
                for len in [0, 1, 997, 100_003] {
                    let mut buffer = values(rank.rank(), len);
                    rank.broadcast(&mut buffer, root).unwrap();
                    assert_eq!(bits(&buffer), bits(&values(root, len)), "world {world}, root {root}");
                }
            }
        });
    }
}

#[test]
fn gather_bytes_of_different_lengths() {
    let blob = |rank: usize| vec![rank as u8; [0, 1, 300_000, 17, 0, 2, 600_001, 5][rank]];
    for world in 1..=8 {
        each(ring(world, PATIENCE), |mut rank| {
            for _ in 0..2 {
                let all = rank.gather_bytes(blob(rank.rank())).unwrap();
                assert!(all == (0..world).map(blob).collect::<Vec<_>>(), "world {world}");
            }
        });
    }
}

#[test]
fn nobody_leaves_a_barrier_before_all_have_entered() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    for world in [2, 5] {
        let entered = AtomicUsize::new(0);
        each(ring(world, PATIENCE), |mut rank| {
            for round in 1..=20 {
                if round % world == rank.rank() {
                    std::thread::sleep(Duration::from_millis(2));
                }
                entered.fetch_add(1, Ordering::SeqCst);
                rank.barrier().unwrap();
                assert!(entered.load(Ordering::SeqCst) >= round * world);
            }
        });
    }
}

#[test]
fn who_is_who() {
    for (world, transport) in [(1, "solo"), (3, "tcp")] {
        for (number, rank) in ring(world, PATIENCE).into_iter().enumerate() {
            assert_eq!((rank.rank(), rank.world(), rank.transport()), (number, world, transport));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_operations(
        world in 1_usize..6, operations in proptest::collection::vec((0_u8..5, 0_usize..3000), 1..12)
    ) {
        each(ring(world, PATIENCE), |mut rank| {
            for (operation, len) in &operations {
                let mut buffer = values(rank.rank(), *len);
                match operation {
                    0 => {
                        rank.all_reduce(&mut buffer).unwrap();
                        assert_eq!(bits(&buffer), bits(&declared_sum(*len, world)));
                    }
                    1 => {
                        let own = rank.reduce_scatter(&mut buffer).unwrap();
                        assert_eq!(bits(&buffer[own.clone()]), bits(&declared_sum(*len, world)[own]));
                    }
                    2 => {
                        rank.broadcast(&mut buffer, len % world).unwrap();
                        assert_eq!(bits(&buffer), bits(&values(len % world, *len)));
                    }
                    3 => {
                        let all = rank.gather_bytes(vec![rank.rank() as u8; len * rank.rank()]).unwrap();
                        assert_eq!(all.len(), world);
                        assert!(all.iter().enumerate().all(|(from, blob)| {
                            blob.len() == len * from && blob.iter().all(|byte| *byte == from as u8)
                        }));
                    }
                    _ => rank.barrier().unwrap(),
                }
            }
        });
    }
}
