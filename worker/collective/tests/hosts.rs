//! Ranks that are on several hosts, as they say: every operation, whoever is where, and what ends it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail by panicking, in its helpers too")]

mod gang;

use std::time::{Duration, Instant};

use gang::{PLACES, bits, connect_each, each, gang_on, values};
use proptest::prelude::*;
use squad_collective::{Collective, CollectiveError, Compression, Rows, Transport, spans};

const LONG: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(10);

fn gang(hosts: &[char]) -> Vec<Box<dyn Collective>> {
    gang_on(hosts, LONG, Compression::None)
}

/// The sum in the order that is declared: within hosts from the lowest rank to the highest, then from host to host.
fn declared_sum(len: usize, hosts: &[char]) -> Vec<f32> {
    let mut names = hosts.to_vec();
    let mut seen = Vec::new();
    names.retain(|name| {
        !seen.contains(name) && {
            seen.push(*name);
            true
        }
    });
    let of_host = |name: char| (0..hosts.len()).filter(move |rank| hosts[*rank] == name);
    let rings = names.iter().map(|name| of_host(*name).count()).min().unwrap();
    let inputs: Vec<_> = (0..hosts.len()).map(|rank| values(rank, len)).collect();
    let mut of_hosts: Vec<Vec<f32>> = Vec::new();
    for name in &names {
        let mut ranks = of_host(*name).map(|rank| &inputs[rank]);
        let first = ranks.next().unwrap().clone();
        of_hosts.push(ranks.fold(first, |sum, own| sum.iter().zip(own).map(|(a, b)| a + b).collect()));
    }
    let mut sum = vec![0.0; len];
    for lines in spans(len.div_ceil(16), rings) {
        let part = (lines.start * 16).min(len)..(lines.end * 16).min(len);
        for (owner, span) in spans(part.len(), names.len()).into_iter().enumerate() {
            for index in part.start + span.start..part.start + span.end {
                let of = |step: usize| of_hosts[(owner + step) % names.len()][index];
                sum[index] = (2..=names.len()).fold(of(1), |sum, step| sum + of(step));
            }
        }
    }
    sum
}

/// Sums until it fails, twice at the most: a rank to which everything has come before another one fails is done, and
/// learns of it the next time.
fn fails(rank: &mut dyn Collective, len: usize) -> CollectiveError {
    (0..2).find_map(|_| rank.all_reduce(&mut vec![1.0; len]).err()).unwrap()
}

fn lengths() -> Vec<usize> {
    vec![0, 1, 15, 16, 17, 997, 4095, 4096, 4097, 32_769, 100_003]
}

#[test]
fn all_reduce_has_the_declared_bits_and_stays_near_the_exact_sum() {
    for hosts in PLACES {
        for _run in 0..2 {
            let sums = each(gang(hosts), |mut rank| {
                assert_eq!((rank.transport(), rank.world()), ("hierarchical", hosts.len()));
                let reduce = |len| {
                    let mut own = values(rank.rank(), len);
                    let mut buffer = rank.buffer(len).unwrap();
                    assert_eq!(buffer.is_shared(), len > 0);
                    buffer.copy_from_slice(&own);
                    rank.all_reduce(&mut own).unwrap();
                    rank.all_reduce_buffer(&mut buffer, len).unwrap();
                    assert_eq!(bits(&own), bits(&buffer));
                    own
                };
                lengths().into_iter().map(reduce).collect::<Vec<_>>()
            });
            for (index, len) in lengths().into_iter().enumerate() {
                let wanted = declared_sum(len, hosts);
                for sum in &sums {
                    assert_eq!(bits(&sum[index]), bits(&wanted), "{hosts:?}, length {len}");
                }
                for (index, value) in wanted.iter().enumerate() {
                    let exact: f64 = (0..hosts.len()).map(|rank| f64::from(values(rank, len)[index])).sum();
                    let bound = hosts.len().pow(2) as f64 * f64::from(f32::EPSILON);
                    assert!((f64::from(*value) - exact).abs() <= bound, "{value} for {exact}");
                    if index > 50 {
                        break;
                    }
                }
            }
        }
    }
}

#[test]
fn all_other_operations() {
    for hosts in PLACES {
        let world = hosts.len();
        each(gang(hosts), |mut rank| {
            let me = rank.rank();
            for len in [0, 1, 997, 100_003] {
                let mut buffer = values(me, len);
                let own = rank.reduce_scatter(&mut buffer).unwrap();
                assert_eq!(own, spans(len, world)[me]);
                rank.all_gather(&mut buffer).unwrap();
                let all =
                    rank.gather_bytes(bits(&buffer).iter().flat_map(|bits| bits.to_le_bytes()).collect());
                assert!(all.unwrap().windows(2).all(|pair| pair[0] == pair[1]));
                for root in 0..world {
                    let mut buffer = values(me, len);
                    rank.broadcast(&mut buffer, root).unwrap();
                    assert_eq!(bits(&buffer), bits(&values(root, len)));
                }
                assert!(matches!(rank.broadcast(&mut [0.0], world), Err(CollectiveError::Usage { .. })));
                rank.barrier().unwrap();
            }
        });
    }
}

#[test]
fn a_mean_is_the_sum_over_the_number_of_ranks() {
    each(gang(&['a', 'a', 'b', 'b']), |mut rank| {
        let mut buffer = rank.buffer(5000).unwrap();
        let mut heap = squad_collective::Buffer::from(vec![0.0; 5000]);
        for (index, (one, other)) in buffer.iter_mut().zip(heap.iter_mut()).enumerate() {
            (*one, *other) = ((index + rank.rank()) as f32, (index * rank.rank()) as f32);
        }
        rank.average_buffer(&mut buffer, 5000).unwrap();
        rank.average_buffer(&mut heap, 5000).unwrap();
        for (index, (one, other)) in buffer.iter().zip(heap.iter()).enumerate() {
            assert_eq!((*one, *other), (index as f32 + 1.5, index as f32 * 1.5));
        }
    });
}

#[test]
fn rows_of_a_table_are_summed_and_ranks_that_choose_others_find_out() {
    for hosts in [PLACES[1], PLACES[2]] {
        let world = hosts.len();
        each(gang(hosts), |mut rank| {
            let (rows, me) = (Rows::some(1000, 48, &[0, 7, 500, 999]).unwrap(), rank.rank());
            let mut buffer = rank.buffer(48_100).unwrap();
            for (index, value) in buffer.iter_mut().enumerate() {
                *value = (index % 100 + me) as f32;
            }
            rank.all_reduce_table(&mut buffer, 48_050, &rows).unwrap();
            for (index, value) in buffer.iter().enumerate() {
                let summed = [0, 7, 500, 999].contains(&(index / 48)) || (48_000..48_050).contains(&index);
                let sum = world * (index % 100) + world * (world - 1) / 2;
                assert_eq!(*value, if summed { sum } else { index % 100 + me } as f32, "{index}");
            }
        });
        // Another gang, since what a rank reports may reach one that has yet to end the operation before: here its buffer's.
        each(gang(hosts), |mut rank| {
            let mine = if rank.rank() == 1 { [1, 2] } else { [1, 3] };
            let rows = Rows::some(1000, 48, &mine).unwrap();
            let reduced =
                rank.buffer(48_100).and_then(|mut buffer| rank.all_reduce_table(&mut buffer, 48_000, &rows));
            let error = reduced.unwrap_err();
            assert!(error.to_string().contains("disagree"), "{error}");
        });
    }
}

#[test]
fn infinities_and_what_is_no_number_pass_through() {
    let odd = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, -0.0, f32::MIN_POSITIVE / 4.0];
    for hosts in [PLACES[1], PLACES[3]] {
        each(gang(hosts), |mut rank| {
            let mut own: Vec<f32> = (0..30_000)
                .map(|index| if index % hosts.len() == rank.rank() { odd[index % 6] } else { 0.0 })
                .collect();
            rank.all_reduce(&mut own).unwrap();
            for (index, value) in own.iter().enumerate() {
                let wanted = odd[index % 6];
                assert!(*value == wanted || (value.is_nan() && wanted.is_nan()), "{value} for {wanted}");
            }
        });
    }
}

#[test]
fn who_does_not_fit_says_so() {
    let alone = ['a', 'b'];
    for (hosts, wish, word) in [
        (&alone[..], Transport::Hierarchical, "different hosts"),
        (&['a', 'a'], Transport::Hierarchical, "one host"),
        (&['a', 'a', 'b'], Transport::Shm, "ranks 0 and 2 are on different hosts"),
    ] {
        for result in connect_each(hosts.len(), LONG, |topology| {
            topology.transport = wish;
            topology.host = Some(hosts[topology.rank].to_string());
        }) {
            let Err(error) = result else { panic!("connected") };
            assert!(error.to_string().contains(word), "{error}");
        }
    }
    for (hosts, transport) in [(&alone[..], "tcp"), (&['a', 'b', 'a'], "hierarchical"), (&['a', 'a'], "shm")]
    {
        for result in connect_each(hosts.len(), LONG, |topology| {
            topology.host = Some(hosts[topology.rank].to_string());
        }) {
            assert_eq!(result.unwrap().transport(), transport);
        }
    }
}

#[test]
fn a_rank_that_leaves_is_named_by_all_others() {
    for (hosts, dead) in PLACES.into_iter().zip([1, 2, 2, 3, 0, 8]) {
        let errors = each(gang(hosts), |mut rank| {
            rank.all_reduce(&mut [1.0; 1000]).unwrap();
            if rank.rank() == dead {
                return None;
            }
            let start = Instant::now();
            let error = fails(&mut *rank, 200_000);
            assert!(start.elapsed() < SOON, "{error} came late");
            assert_eq!(rank.barrier().unwrap_err().to_string(), error.to_string());
            Some((rank, error))
        });
        for (_rank, error) in errors.iter().flatten() {
            assert_eq!(error.blamed(), Some(dead), "{hosts:?}: {error}");
        }
        assert_eq!(errors.iter().flatten().count(), hosts.len() - 1);
    }
}

#[test]
fn a_rank_that_goes_when_it_has_done_its_part_is_no_loss() {
    for _ in 0..10 {
        for hosts in [PLACES[0], PLACES[2]] {
            each(gang(hosts), |mut rank| {
                let mut buffer = vec![1.0; 50_000];
                rank.all_reduce(&mut buffer).unwrap();
                assert_eq!(buffer[49_999], hosts.len() as f32);
            });
        }
    }
}

#[test]
fn a_sleeping_rank_is_named_when_patience_is_over() {
    let patience = Duration::from_millis(1000);
    for (hosts, sleeper) in PLACES.into_iter().zip([3, 0, 2, 1, 4, 5]) {
        let errors = each(gang_on(hosts, patience, Compression::None), |mut rank| {
            if rank.rank() == sleeper {
                std::thread::sleep(3 * patience);
                return fails(&mut *rank, 1000);
            }
            let start = Instant::now();
            let error = fails(&mut *rank, 1000);
            assert!(start.elapsed() < patience + SOON, "{error} after {:?}", start.elapsed());
            error
        });
        for error in errors {
            assert_eq!(error.blamed(), Some(sleeper), "{hosts:?}: {error}");
        }
    }
}

#[test]
fn ranks_that_disagree_get_no_sum_and_learn_it_at_once() {
    type Act = fn(&mut dyn Collective) -> Result<(), CollectiveError>;
    let acts: [(Act, Act); 4] = [
        (|rank| rank.all_reduce(&mut [1.0; 100]), |rank| rank.all_reduce(&mut [1.0; 101])),
        (|rank| rank.all_reduce(&mut [1.0; 100]), |rank| rank.barrier()),
        (|rank| rank.barrier(), |rank| rank.all_reduce(&mut [1.0; 100])),
        (|rank| rank.buffer(500).map(drop), |rank| rank.buffer(501).map(drop)),
    ];
    for hosts in [PLACES[0], PLACES[3]] {
        for (most, odd) in acts {
            for one in [0, 1, hosts.len() - 1] {
                let errors = each(gang(hosts), |mut rank| {
                    let start = Instant::now();
                    let act = if rank.rank() == one { odd } else { most };
                    let error = act(&mut *rank).unwrap_err();
                    assert!(start.elapsed() < SOON, "{error} came late");
                    error.to_string()
                });
                assert!(errors.iter().any(|error| error.contains("disagree")), "{errors:?}");
            }
        }
    }
}

#[test]
fn aborting_ends_a_blocked_operation_everywhere() {
    for hosts in [PLACES[0], PLACES[2]] {
        let outcomes = each(gang(hosts), |mut rank| {
            if rank.rank() == 0 {
                let handle = rank.abort_handle();
                let aborter = std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(100));
                    handle.abort();
                });
                let error = fails(&mut *rank, 10);
                aborter.join().unwrap();
                assert!(matches!(error, CollectiveError::Aborted { rank: 0 }), "{error}");
                return error;
            }
            if rank.rank() == 2 {
                // Comes too late; but it must stay alive for rank 0 to be the one who left.
                std::thread::sleep(Duration::from_millis(500));
            }
            fails(&mut *rank, 10)
        });
        for error in outcomes {
            assert_eq!(error.blamed(), Some(0), "{error}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_operations(
        place in 0..PLACES.len(), operations in proptest::collection::vec((0_u8..5, 0_usize..9000), 1..12)
    ) {
        let hosts = PLACES[place];
        let world = hosts.len();
        each(gang(hosts), |mut rank| {
            for (operation, len) in &operations {
                let mut buffer = values(rank.rank(), *len);
                match operation {
                    0 => {
                        rank.all_reduce(&mut buffer).unwrap();
                        assert_eq!(bits(&buffer), bits(&declared_sum(*len, hosts)));
                    }
                    1 => {
                        let mut shared = rank.buffer(*len).unwrap();
                        shared.copy_from_slice(&buffer);
                        rank.all_reduce_buffer(&mut shared, *len).unwrap();
                        assert_eq!(bits(&shared), bits(&declared_sum(*len, hosts)));
                    }
                    2 => {
                        rank.broadcast(&mut buffer, len % world).unwrap();
                        assert_eq!(bits(&buffer), bits(&values(len % world, *len)));
                    }
                    3 => {
                        let all = rank.gather_bytes(vec![rank.rank() as u8; len * rank.rank()]).unwrap();
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
