//! Gradients that travel in 16 bits: the same on all ranks, near the exact sum, and what must be exact is.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking, in its helpers too")]

mod gang;

use std::time::Duration;

use gang::{PLACES, bits, connect_each, each, gang_on, values};
use proptest::prelude::*;
use squad_collective::{Collective, Compression, Rows, Transport};

const PATIENCE: Duration = Duration::from_secs(20);
const FORMATS: [Compression; 2] = [Compression::Fp16, Compression::Bf16];

fn ring(world: usize, transport: Transport, compression: Compression) -> Vec<Box<dyn Collective>> {
    let ranks = connect_each(world, PATIENCE, |topology| {
        (topology.transport, topology.compression) = (transport, compression);
    });
    ranks.into_iter().map(|rank| rank.unwrap()).collect()
}

/// Half a unit in the last place of 1.
fn rounding(format: Compression) -> f64 {
    match format {
        Compression::None => f64::from(f32::EPSILON) / 2.0,
        Compression::Fp16 => 2f64.powi(-11),
        Compression::Bf16 => 2f64.powi(-8),
    }
}

/// Sums `len` values and 8 more that are to be exact; gives each rank's result.
fn reduce(ranks: Vec<Box<dyn Collective>>, len: usize) -> Vec<Vec<f32>> {
    each(ranks, |mut rank| {
        let mut buffer = rank.buffer(len + 8).unwrap();
        buffer.keep_exact(len);
        buffer[..len].copy_from_slice(&values(rank.rank(), len));
        buffer[len..].fill(1.0 + 3.0_f32.powi(-8) * rank.rank() as f32);
        rank.all_reduce_buffer(&mut buffer, len + 8).unwrap();
        buffer.to_vec()
    })
}

/// All ranks have the same bits; the documented bound holds: a partial sum is rounded once for each rank but one (or
/// host but one), and once when it is finished, and is never larger than the number of ranks here.
fn check(sums: &[Vec<f32>], len: usize, format: Compression) {
    let world = sums.len();
    assert!(sums.iter().all(|sum| bits(sum) == bits(&sums[0])), "ranks differ");
    let inputs: Vec<_> = (0..world).map(|rank| values(rank, len)).collect();
    let bound = world as f64 * world as f64 * (rounding(format) + f64::from(f32::EPSILON));
    for (index, value) in sums[0][..len].iter().enumerate() {
        let exact: f64 = inputs.iter().map(|input| f64::from(input[index])).sum();
        assert!((f64::from(*value) - exact).abs() <= bound, "{format}, {world} ranks: {value} for {exact}");
    }
    let exact: f64 = (0..world).map(|rank| f64::from(1.0 + 3.0_f32.powi(-8) * rank as f32)).sum();
    for value in &sums[0][len..] {
        assert!((f64::from(*value) - exact).abs() <= 1e-6 * exact, "{value} for {exact}");
    }
}

fn lengths() -> Vec<usize> {
    vec![0, 1, 7, 997, 4096, 32_769, 100_003, 300_007]
}

#[test]
fn ranks_are_equal_and_near_the_exact_sum() {
    for format in FORMATS {
        for world in [2, 3, 4, 9] {
            for len in lengths() {
                let sums = reduce(ring(world, Transport::Tcp, format), len);
                check(&sums, len, format);
                if len > 4096 {
                    let exact = reduce(ring(world, Transport::Tcp, Compression::None), len);
                    assert_ne!(bits(&sums[0]), bits(&exact[0]), "nothing was rounded");
                }
            }
        }
    }
}

#[test]
fn between_hosts_values_are_rounded_and_inside_they_are_not() {
    for format in FORMATS {
        for hosts in PLACES {
            let sums = reduce(gang_on(hosts, PATIENCE, format), 100_003);
            check(&sums, 100_003, format);
            let again = reduce(gang_on(hosts, PATIENCE, format), 100_003);
            assert_eq!(bits(&sums[0]), bits(&again[0]));
            let exact = reduce(gang_on(hosts, PATIENCE, Compression::None), 100_003);
            assert_ne!(bits(&sums[0]), bits(&exact[0]), "nothing was rounded");
        }
        let memory = reduce(ring(3, Transport::Shm, format), 1000);
        assert_eq!(bits(&memory[0]), bits(&reduce(ring(3, Transport::Tcp, Compression::None), 1000)[0]));
    }
}

#[test]
fn what_overflows_is_infinite_on_all_ranks_alike() {
    for (format, wanted) in [(Compression::Fp16, f32::INFINITY), (Compression::Bf16, 80_000.0)] {
        let sums = each(ring(2, Transport::Tcp, format), |mut rank| {
            let mut buffer = rank.buffer(10_000).unwrap();
            buffer.fill(40_000.0);
            buffer[17] = if rank.rank() == 0 { f32::NAN } else { 1.0 };
            rank.all_reduce_buffer(&mut buffer, 10_000).unwrap();
            buffer.to_vec()
        });
        for sum in &sums {
            assert!((sum[0] - wanted).abs() < 400.0 || sum[0] == wanted, "{}", sum[0]);
            assert!(sum[17].is_nan());
            assert_eq!(bits(sum), bits(&sums[0]));
        }
    }
}

#[test]
fn what_is_no_bucket_is_never_rounded() {
    for world in [2, 3] {
        let sums = |format| {
            each(ring(world, Transport::Tcp, format), |mut rank| {
                let mut own = values(rank.rank(), 30_000);
                rank.all_reduce(&mut own).unwrap();
                let mut other = values(rank.rank(), 30_000);
                rank.broadcast(&mut other, 1).unwrap();
                (bits(&own), bits(&other))
            })
        };
        assert_eq!(sums(Compression::Bf16), sums(Compression::None));
    }
}

#[test]
fn ranks_with_different_formats_refuse_each_other() {
    let results = connect_each(2, PATIENCE, |topology| {
        topology.compression = [Compression::None, Compression::Fp16][topology.rank];
    });
    for result in results {
        let text = result.err().unwrap().to_string();
        assert!(text.contains("different compression (here"), "{text}");
    }
}

#[test]
fn rows_are_rounded_and_have_the_bits_of_all_rows() {
    for format in FORMATS {
        for world in [2, 3] {
            let tables = |rows: fn() -> Rows| {
                each(ring(world, Transport::Tcp, format), move |mut rank| {
                    let mut buffer = rank.buffer(100 * 64 + 8).unwrap();
                    buffer.keep_exact(6400);
                    let own = values(rank.rank(), 6408);
                    for (index, value) in buffer.iter_mut().enumerate() {
                        *value = if index / 64 % 3 == 0 || index >= 6400 { own[index] } else { 0.0 };
                    }
                    rank.all_reduce_table(&mut buffer, 6408, &rows()).unwrap();
                    bits(&buffer)
                })
            };
            let some = tables(|| {
                let third: Vec<u32> = (0..100).step_by(3).collect();
                Rows::some(100, 64, &third).unwrap()
            });
            let all = tables(|| Rows::all(100, 64));
            assert!(some.iter().chain(&all).all(|table| *table == some[0]));
            let sums: Vec<f32> = some[0].iter().map(|bits| f32::from_bits(*bits)).collect();
            let exact: Vec<f64> = (0..6408)
                .map(|index| (0..world).map(|rank| f64::from(values(rank, 6408)[index])).sum())
                .collect();
            let far = |index: usize| (f64::from(sums[index]) - exact[index]).abs();
            assert!((0..64).all(|index| far(index) < 9.0 * rounding(format)));
            assert!((0..64).any(|index| far(index) > 1e-5), "nothing was rounded");
            assert!((6400..6408).all(|index| far(index) < 1e-6));
        }
    }
}

#[test]
fn a_mean_is_rounded_once_more() {
    for format in [Compression::None, Compression::Fp16, Compression::Bf16] {
        for transport in [Transport::Tcp, Transport::Shm] {
            let means = each(ring(4, transport, format), |mut rank| {
                let mut buffer = rank.buffer(20_000).unwrap();
                buffer.fill(rank.rank() as f32);
                rank.average_buffer(&mut buffer, 20_000).unwrap();
                let mut heap = squad_collective::Buffer::from(vec![rank.rank() as f32; 1000]);
                rank.average_buffer(&mut heap, 1000).unwrap();
                buffer.iter().chain(heap.iter()).all(|mean| *mean == 1.5)
            });
            assert!(means.iter().all(|right| *right));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn any_values_are_the_same_on_all_ranks(
        world in 2_usize..6, fp16: bool, len in 0_usize..20_000, seed: u32, exact in 0_usize..20_000
    ) {
        let format = if fp16 { Compression::Fp16 } else { Compression::Bf16 };
        let sums = each(ring(world, Transport::Tcp, format), |mut rank| {
            let mut buffer = rank.buffer(len).unwrap();
            buffer.keep_exact(exact);
            for (index, value) in buffer.iter_mut().enumerate() {
                // Any bits: among them infinities, and what is no number.
                let mixed = (index as u32 ^ seed).wrapping_mul(0x9e37_79b9).wrapping_add(rank.rank() as u32);
                *value = f32::from_bits(mixed.wrapping_mul(0x85eb_ca6b));
            }
            rank.all_reduce_buffer(&mut buffer, len).unwrap();
            buffer.iter().map(|value| if value.is_nan() { u32::MAX } else { value.to_bits() }).collect::<Vec<_>>()
        });
        prop_assert!(sums.iter().all(|sum| *sum == sums[0]));
    }
}
