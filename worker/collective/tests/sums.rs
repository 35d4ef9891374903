//! Every operation on every world, against what a single process would compute.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking, in its helpers too")]

mod gang;

use std::time::Duration;

use gang::{bits, each, each_way, gang, values};
use proptest::prelude::*;
use squad_collective::{Transport, spans};

const PATIENCE: Duration = Duration::from_secs(20);

fn lengths(world: usize) -> Vec<usize> {
    let powers = [4096, 16_384, 32_768, 65_536].into_iter().flat_map(|power| [power - 1, power, power + 1]);
    [0, 1, 2, world - 1, world, world + 1, 997, 100_003, 262_147].into_iter().chain(powers).collect()
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
    for (world, transport) in each_way(1..=9) {
        for _run in 0..2 {
            let sums = each(gang(world, PATIENCE, transport), |mut rank| {
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
    // 64 MiB: more than what lies in all socket buffers together, so that sending must not wait for receiving.
    // SQUAD_SUMS=full: in every world.
    let full = std::env::var("SQUAD_SUMS").as_deref() == Ok("full");
    for (world, transport) in each_way(if full { 1..=9 } else { 2..=3 }) {
        let len = if full || world == 2 { (16 << 20) + 1 } else { 1_500_007 };
        let sums = each(gang(world, PATIENCE, transport), |mut rank| {
            let mut own = values(rank.rank(), len);
            let mut buffer = rank.buffer(len).unwrap();
            buffer.copy_from_slice(&own);
            rank.all_reduce(&mut own).unwrap();
            rank.all_reduce_buffer(&mut buffer, len).unwrap();
            (own, buffer)
        });
        let wanted = declared_sum(len, world);
        for (own, buffer) in &sums {
            assert!(bits(own) == bits(&wanted) && bits(buffer) == bits(&wanted), "{transport}, {world}");
        }
    }
}

#[test]
fn reduce_scatter_and_all_gather_make_an_all_reduce() {
    for (world, transport) in each_way(1..=9) {
        each(gang(world, PATIENCE, transport), |mut rank| {
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
    for (world, transport) in each_way(1..=9) {
        each(gang(world, PATIENCE, transport), |mut rank| {
            for root in 0..world {
                for len in [0, 1, 997, 100_003, 262_147] {
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
    let blob = |rank: usize| vec![rank as u8; [0, 1, 300_000, 17, 0, 2, 600_001, 5, 9][rank]];
    for (world, transport) in each_way(1..=9) {
        each(gang(world, PATIENCE, transport), |mut rank| {
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
    for (world, transport) in each_way([2, 5]) {
        let entered = AtomicUsize::new(0);
        each(gang(world, PATIENCE, transport), |mut rank| {
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
    use Transport::{Auto, Shm, Tcp};
    for (world, wish, transport) in
        [(1, Auto, "solo"), (1, Shm, "solo"), (3, Tcp, "tcp"), (3, Shm, "shm"), (3, Auto, "shm")]
    {
        for (number, rank) in gang(world, PATIENCE, wish).into_iter().enumerate() {
            assert_eq!((rank.rank(), rank.world(), rank.transport()), (number, world, transport));
        }
    }
}

#[test]
fn buffers_of_the_collective_s_own_have_the_same_bits() {
    for (world, transport) in each_way(1..=9) {
        each(gang(world, PATIENCE, transport), |mut rank| {
            for len in lengths(world) {
                let mut buffer = rank.buffer(len + 3).unwrap();
                assert!(buffer.iter().all(|value| *value == 0.0) && buffer.len() == len + 3);
                assert_eq!(buffer.is_shared(), rank.transport() == "shm");
                let place = buffer.as_ptr();
                for _ in 0..2 {
                    buffer[..len].copy_from_slice(&values(rank.rank(), len));
                    buffer[len..].fill(0.25);
                    rank.all_reduce_buffer(&mut buffer, len).unwrap();
                    assert!(bits(&buffer[..len]) == bits(&declared_sum(len, world)), "{world}, {len}");
                    assert_eq!((buffer[len..] == [0.25; 3], buffer.as_ptr()), (true, place));
                }
            }
        });
    }
}

#[test]
fn infinities_and_what_is_no_number_pass_through() {
    let odd = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, -0.0, f32::MIN_POSITIVE / 4.0];
    for (world, transport) in each_way([2, 3, 5]) {
        for len in [odd.len(), 30_000] {
            let sums = each(gang(world, PATIENCE, transport), |mut rank| {
                let number = rank.rank();
                let fill = |buffer: &mut [f32]| {
                    for (index, value) in buffer.iter_mut().enumerate() {
                        // One rank has the odd value, wherever; the others have an ordinary one.
                        *value = if index % world == number { odd[index % odd.len()] } else { 0.0 };
                    }
                };
                let mut shared = rank.buffer(len).unwrap();
                let mut own = vec![0.0; len];
                fill(&mut shared);
                fill(&mut own);
                rank.all_reduce_buffer(&mut shared, len).unwrap();
                rank.all_reduce(&mut own).unwrap();
                assert_eq!(bits(&shared), bits(&own));
                own
            });
            for sum in sums {
                for (index, value) in sum.iter().enumerate() {
                    let wanted = odd[index % odd.len()];
                    assert!(*value == wanted || (value.is_nan() && wanted.is_nan()), "{value} for {wanted}");
                }
            }
        }
    }
}

#[test]
fn a_buffer_of_another_gang_is_summed_too() {
    each(gang(2, PATIENCE, Transport::Shm), |mut rank| {
        let mut own = rank.buffer(10_000).unwrap();
        let mut heap = squad_collective::Buffer::from(vec![2.0; 10_000]);
        own.fill(1.0);
        rank.all_reduce_buffer(&mut own, 10_000).unwrap();
        rank.all_reduce_buffer(&mut heap, 10_000).unwrap();
        assert!(own.iter().all(|value| *value == 2.0) && heap.iter().all(|value| *value == 4.0));
        assert!(rank.all_reduce_buffer(&mut own, 10_001).unwrap_err().to_string().contains("10001"));
        rank.barrier().unwrap();
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_operations(
        world in 1_usize..6, shm: bool,
        operations in proptest::collection::vec((0_u8..6, 0_usize..9000), 1..12)
    ) {
        let transport = if shm { Transport::Shm } else { Transport::Tcp };
        each(gang(world, PATIENCE, transport), |mut rank| {
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
                    4 => {
                        let mut shared = rank.buffer(*len).unwrap();
                        shared.copy_from_slice(&buffer);
                        rank.all_reduce_buffer(&mut shared, *len).unwrap();
                        assert_eq!(bits(&shared), bits(&declared_sum(*len, world)));
                    }
                    _ => rank.barrier().unwrap(),
                }
            }
        });
    }
}
