//! The central server: the sums in the order of ranks, and the end of all when one is gone.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking, in its helpers too")]

mod gang;

use std::time::{Duration, Instant};

use gang::{bits, each, gang, values};
use squad_collective::{CollectiveError, Rows, Transport};

const PATIENCE: Duration = Duration::from_secs(20);

/// The sum from rank 0 to the last.
fn summed(len: usize, world: usize) -> Vec<f32> {
    let mut sum = values(0, len);
    for rank in 1..world {
        sum.iter_mut().zip(values(rank, len)).for_each(|(sum, value)| *sum += value);
    }
    sum
}

#[test]
fn sums_are_in_the_order_of_ranks_and_all_else_goes_round_the_ring() {
    for world in 2..=5 {
        each(gang(world, PATIENCE, Transport::Server), |mut rank| {
            assert_eq!((rank.world(), rank.transport()), (world, "server"));
            for len in [0, 1, 997, 100_003, (1 << 20) + 1] {
                let mut buffer = values(rank.rank(), len);
                rank.all_reduce(&mut buffer).unwrap();
                assert!(bits(&buffer) == bits(&summed(len, world)), "{world} ranks, {len} elements");
            }
            let gathered = rank.gather_bytes(vec![rank.rank() as u8; rank.rank()]).unwrap();
            assert_eq!(gathered.len(), world);
            let mut buffer = values(rank.rank(), 1000);
            rank.broadcast(&mut buffer, world - 1).unwrap();
            assert_eq!(bits(&buffer), bits(&values(world - 1, 1000)));
            rank.barrier().unwrap();
        });
    }
}

#[test]
fn rows_of_a_table_are_summed_too() {
    each(gang(3, PATIENCE, Transport::Server), |mut rank| {
        let rows = Rows::some(50, 8, &[1, 7, 49]).unwrap();
        let mut buffer = rank.buffer(500).unwrap();
        buffer.copy_from_slice(&values(rank.rank(), 500));
        rank.all_reduce_table(&mut buffer, 500, &rows).unwrap();
        let (wanted, own) = (summed(500, 3), values(rank.rank(), 500));
        for index in 0..500 {
            let chosen = [1, 7, 49].contains(&(index / 8)) || index >= 400;
            let due = if chosen { wanted[index] } else { own[index] };
            assert_eq!(buffer[index].to_bits(), due.to_bits(), "element {index}");
        }
    });
}

#[test]
fn when_a_rank_goes_all_others_end_and_the_server_names_it() {
    let errors = each(gang(4, Duration::from_secs(10), Transport::Server), |mut rank| {
        let mut buffer = vec![1.0; 1000];
        rank.all_reduce(&mut buffer).unwrap();
        if rank.rank() == 2 {
            return None;
        }
        let begun = Instant::now();
        let error = rank.all_reduce(&mut buffer).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(10), "a broken connection is seen at once");
        assert_eq!(rank.barrier().unwrap_err().to_string(), error.to_string(), "the first error stays");
        Some((rank.rank(), error))
    });
    for (rank, error) in errors.into_iter().flatten() {
        let text = error.to_string();
        if rank == 0 {
            assert!(matches!(&error, CollectiveError::PeerLost { scene, .. } if scene.peer == 2), "{text}");
        } else {
            assert!(text.contains("rank 2") || text.contains("rank 0"), "{text}");
        }
    }
}

#[test]
fn a_rank_that_stalls_is_named_by_the_server() {
    let errors = each(gang(3, Duration::from_secs(1), Transport::Server), |mut rank| {
        if rank.rank() == 1 {
            std::thread::sleep(Duration::from_secs(3));
            return None;
        }
        Some(rank.all_reduce(&mut [1.0; 10]).unwrap_err())
    });
    let server = errors[0].as_ref().unwrap();
    assert!(matches!(server, CollectiveError::PeerStalled { scene, .. } if scene.peer == 1), "{server}");
    assert!(errors[2].is_some());
}
