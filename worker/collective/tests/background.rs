//! Overlap by moving ownership: order, the same allocation, poison, and an end that leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking, in its helpers too")]

mod gang;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use gang::{TRANSPORTS, each, gang};
use squad_collective::{Background, CollectiveError, Transport};

const LONG: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(5);

fn solo() -> Background {
    Background::start(gang(1, LONG, Transport::Auto).remove(0))
}

#[test]
fn buckets_come_back_summed_and_are_the_same_allocation() {
    for transport in TRANSPORTS {
        each(gang(3, LONG, transport), |rank| {
            let background = Background::start(rank);
            let buckets: Vec<Vec<f32>> = (0..10).map(|index| vec![index as f32; 5000 + index]).collect();
            let addresses: Vec<_> = buckets.iter().map(|bucket| (bucket.as_ptr(), bucket.len())).collect();
            let pending: Vec<_> =
                buckets.into_iter().map(|bucket| background.all_reduce(bucket, 4000)).collect();
            let mut before = None;
            for (index, pending) in pending.into_iter().enumerate() {
                let reduced = pending.wait().unwrap();
                assert_eq!((reduced.bucket.as_ptr(), reduced.bucket.len()), addresses[index]);
                assert_eq!(reduced.bucket[..4000], vec![3.0 * index as f32; 4000]);
                assert_eq!(reduced.bucket[4000..], vec![index as f32; 1000 + index]);
                assert!(reduced.started <= reduced.ended);
                assert!(before.is_none_or(|before| before <= reduced.started), "bucket {index} out of order");
                before = Some(reduced.ended);
            }
        });
    }
}

#[test]
fn buckets_of_the_collective_s_own_are_reduced_where_they_are() {
    for transport in TRANSPORTS {
        each(gang(2, LONG, transport), |rank| {
            let background = Background::start(rank);
            let mut buckets: Vec<_> = (1..=5).map(|size| background.buffer(size * 10_000).unwrap()).collect();
            for turn in 0..3 {
                let pending: Vec<_> = buckets
                    .drain(..)
                    .map(|mut bucket| {
                        assert_eq!(bucket.is_shared(), transport == Transport::Shm);
                        bucket.fill(turn as f32);
                        let (place, len) = (bucket.as_ptr() as usize, bucket.len());
                        (place, background.all_reduce(bucket, len - 1))
                    })
                    .collect();
                for (place, pending) in pending {
                    let bucket = pending.wait().unwrap().bucket;
                    assert_eq!(bucket.as_ptr() as usize, place);
                    let (last, sums) = bucket.split_last().unwrap();
                    assert!(*last == turn as f32 && sums.iter().all(|sum| *sum == 2.0 * turn as f32));
                    buckets.push(bucket);
                }
            }
        });
    }
}

#[test]
fn an_abort_gives_a_shared_bucket_back() {
    let mut ranks = gang(2, LONG, Transport::Shm);
    let mut other = ranks.remove(1);
    let background = Background::start(ranks.remove(0));
    let making = thread::spawn(move || other.buffer(50_000).map(|bucket| (other, bucket)));
    let mut bucket = background.buffer(50_000).unwrap();
    let (mut other, mut theirs) = making.join().unwrap().unwrap();
    bucket.fill(1.0);
    let place = bucket.as_ptr() as usize;
    let pending = background.all_reduce(bucket, 50_000);
    background.abort_handle().abort();
    let settled = pending.settle().unwrap();
    assert!(matches!(settled.result, Err(CollectiveError::Aborted { rank: 0 })));
    assert_eq!((settled.bucket.as_ptr() as usize, settled.bucket.len()), (place, 50_000));
    assert_eq!(other.all_reduce_buffer(&mut theirs, 50_000).unwrap_err().blamed(), Some(0));
}

#[test]
fn the_caller_computes_while_a_bucket_is_on_its_way() {
    for transport in TRANSPORTS {
        let mut ranks = gang(2, LONG, transport);
        let late = ranks.remove(1);
        let background = Background::start(ranks.remove(0));
        // Rank 1 has not called yet, so this can only return at once if it does not wait.
        let pending = background.all_reduce(vec![1.0; 100], 100);
        let other = thread::spawn(move || {
            let mut late = late;
            let mut buffer = vec![2.0; 100];
            late.all_reduce(&mut buffer).unwrap();
            late.gather_bytes(vec![1]).unwrap();
        });
        assert_eq!(*pending.wait().unwrap().bucket, vec![3.0; 100]);
        assert_eq!(background.run(|ring| ring.gather_bytes(vec![0])).unwrap(), [vec![0], vec![1]]);
        other.join().unwrap();
        assert_eq!(
            (background.rank(), background.world(), background.transport()),
            (0, 2, transport.to_string().as_str())
        );
    }
}

#[test]
fn work_runs_in_order_on_the_named_thread() {
    let background = solo();
    let name = background.run(|_| Ok(thread::current().name().map(str::to_owned))).unwrap();
    assert_eq!(name.as_deref(), Some("squad-allreduce"));
    let (tell, told) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let background = &background;
        let gated = tell.clone();
        scope.spawn(move || {
            background.run(move |_| {
                gated.send("gate").unwrap();
                gate.recv().unwrap();
                Ok(())
            })
        });
        assert_eq!(told.recv().unwrap(), "gate");
        let pending = background.all_reduce(vec![1.0], 1);
        let last = scope.spawn(move || {
            background.run(move |_| {
                tell.send("last").unwrap();
                Ok(())
            })
        });
        assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "something overtook");
        release.send(()).unwrap();
        pending.wait().unwrap();
        last.join().unwrap().unwrap();
        assert_eq!(told.recv().unwrap(), "last");
    });
}

#[test]
fn after_the_first_error_all_fail_with_it_and_buckets_come_back() {
    for transport in TRANSPORTS {
        let mut ranks = gang(2, LONG, transport);
        drop(ranks.remove(1));
        let background = Background::start(ranks.remove(0));
        let bucket = vec![1.0; 10];
        let address = bucket.as_ptr();
        let pending = background.all_reduce(bucket, 10);
        let second = background.all_reduce(vec![1.0; 10], 10);
        let settled = pending.settle().unwrap();
        assert_eq!(settled.bucket.as_ptr(), address);
        let first = settled.result.unwrap_err();
        assert_eq!(first.blamed(), Some(1), "{first}");
        let start = Instant::now();
        assert_eq!(second.wait().unwrap_err().to_string(), first.to_string());
        let later = background.run(|ring| ring.barrier()).unwrap_err();
        assert_eq!(later.to_string(), first.to_string());
        assert!(start.elapsed() < SOON);
    }
}

#[test]
fn a_mistake_in_use_breaks_nothing() {
    let background = solo();
    let settled = background.all_reduce(vec![1.0; 3], 4).settle().unwrap();
    assert!(matches!(settled.result, Err(CollectiveError::Usage { .. })));
    assert_eq!(settled.bucket.len(), 3);
    assert_eq!(*background.all_reduce(vec![1.0; 3], 3).wait().unwrap().bucket, [1.0; 3]);
    assert!(background.run(|ring| ring.broadcast(&mut [0.0], 9)).is_err());
    background.run(|ring| ring.barrier()).unwrap();
}

#[test]
fn a_panic_is_an_error_here_and_an_end_for_the_neighbours() {
    for transport in TRANSPORTS {
        let mut ranks = gang(2, LONG, transport);
        let mut other = ranks.remove(1);
        let background = Background::start(ranks.remove(0));
        let error = background.run(|_| -> Result<(), CollectiveError> { panic!("oh dear") }).unwrap_err();
        assert!(error.to_string().contains("oh dear"), "{error}");
        assert!(matches!(background.all_reduce(Vec::new(), 0).wait(), Err(CollectiveError::Panicked { .. })));
        let start = Instant::now();
        assert_eq!(other.barrier().unwrap_err().blamed(), Some(0));
        assert!(start.elapsed() < SOON);
    }
}

#[test]
fn dropping_it_ends_the_thread_even_in_the_middle() {
    for transport in TRANSPORTS {
        let mut ranks = gang(2, LONG, transport);
        let background = Background::start(ranks.remove(0));
        let handle = background.abort_handle();
        let pending = background.all_reduce(vec![1.0; 10], 10);
        let queued = background.all_reduce(vec![1.0; 10], 10);
        let start = Instant::now();
        drop(background);
        assert!(start.elapsed() < SOON, "the drop hung");
        assert!(matches!(pending.wait(), Err(CollectiveError::Aborted { rank: 0 })));
        assert!(matches!(queued.wait(), Err(CollectiveError::Aborted { rank: 0 })));
        assert!(handle.is_aborted());
        assert_eq!(ranks[0].barrier().unwrap_err().blamed(), Some(0));
    }
}

#[test]
fn dropping_it_when_idle_lets_the_others_finish() {
    for transport in TRANSPORTS {
        for _ in 0..20 {
            each(gang(3, LONG, transport), |rank| {
                let background = Background::start(rank);
                let handle = background.abort_handle();
                let reduced = background.all_reduce(vec![1.0; 100_000], 100_000).wait().unwrap();
                assert_eq!(reduced.bucket[99_999], 3.0);
                drop(background);
                assert!(!handle.is_aborted(), "an idle drop aborts nothing");
            });
        }
    }
}

#[test]
fn an_abort_reaches_the_thread() {
    for transport in TRANSPORTS {
        let mut ranks = gang(2, LONG, transport);
        let background = Background::start(ranks.remove(0));
        let pending = background.all_reduce(vec![1.0; 10], 10);
        let start = Instant::now();
        background.abort_handle().abort();
        assert!(matches!(pending.wait(), Err(CollectiveError::Aborted { rank: 0 })));
        assert!(start.elapsed() < SOON);
    }
}
