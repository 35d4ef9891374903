//! Ranks that die, sleep, or do not belong here: everybody learns it, soon, and knows whom to blame.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail by panicking, in its helpers too")]

mod gang;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use gang::{LOOPBACK, TRANSPORTS, connect_each, each, each_way, gang, listeners, topology};
use squad_collective::{Collective, CollectiveError, Difference, RingListener, Topology, Transport, connect};

const LONG: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_dead_rank_is_named_by_all_others() {
    for (world, transport) in each_way([2, 3, 5, 8]) {
        let dead = [0, 0, 1, 0, 0, 2, 0, 0, 7][world];
        let errors = each(gang(world, LONG, transport), |mut rank| {
            let mut buffer = vec![1.0; 200_000];
            if rank.rank() == dead {
                rank.all_reduce(&mut buffer).unwrap();
                return None;
            }
            let start = Instant::now();
            // The news may overtake the end of the first one, which some ranks have already left.
            let error = (0..2).find_map(|_| rank.all_reduce(&mut buffer).err()).unwrap();
            assert!(start.elapsed() < SOON, "{error} came late");
            // The ring stays alive until all have answered: its end must not pass for a second death.
            Some((rank, error))
        });
        for (_rank, error) in errors.iter().flatten() {
            assert_eq!(error.blamed(), Some(dead), "world {world}: {error}");
        }
        assert_eq!(errors.iter().flatten().count(), world - 1);
    }
}

#[test]
fn a_rank_that_fails_and_leaves_at_once_does_not_take_the_blame() {
    for transport in TRANSPORTS {
        // As above, but each rank drops its ring as soon as it has failed.
        let errors = each(gang(6, LONG, transport), |mut rank| {
            let mut buffer = vec![1.0; 200_000];
            if rank.rank() == 3 {
                return None;
            }
            rank.all_reduce(&mut buffer).err()
        });
        for error in errors.iter().flatten() {
            assert_eq!(error.blamed(), Some(3), "{error}");
        }
        assert_eq!(errors.iter().flatten().count(), 5);
    }
}

#[test]
fn a_sleeping_rank_is_named_when_patience_is_over() {
    for transport in TRANSPORTS {
        let patience = Duration::from_millis(600);
        let sleeper = 2;
        let errors = each(gang(5, patience, transport), |mut rank| {
            if rank.rank() == sleeper {
                std::thread::sleep(3 * patience);
                // It, too, learns what the others think of it.
                return rank.all_reduce(&mut vec![1.0; 1000]).unwrap_err();
            }
            let start = Instant::now();
            let error = rank.all_reduce(&mut vec![1.0; 1000]).unwrap_err();
            let waited = start.elapsed();
            // Ranks that called a little later hear of it a little before their own patience is over.
            assert!(waited >= patience / 2 && waited < patience + SOON, "{error} after {waited:?}");
            error
        });
        for error in errors {
            assert_eq!(error.blamed(), Some(sleeper), "{error}");
        }
    }
}

#[test]
fn ranks_that_disagree_about_the_length_get_no_sum() {
    for transport in TRANSPORTS {
        let errors = each(gang(3, LONG, transport), |mut rank| {
            let len = if rank.rank() == 1 { 1001 } else { 1000 };
            rank.all_reduce(&mut vec![1.0; len]).unwrap_err().to_string()
        });
        for error in errors {
            assert!(error.contains("size 1001") && error.contains("size 1000"), "{error}");
        }
    }
}

#[test]
fn ranks_that_disagree_about_what_to_do_get_no_sum() {
    type Act = fn(&mut dyn Collective) -> Result<(), CollectiveError>;
    let two_buffers: [Act; 2] = [
        |rank| {
            let (mut one, _other) = (rank.buffer(5000)?, rank.buffer(5000)?);
            rank.all_reduce_buffer(&mut one, 5000)
        },
        |rank| {
            let (_one, mut other) = (rank.buffer(5000)?, rank.buffer(5000)?);
            rank.all_reduce_buffer(&mut other, 5000)
        },
    ];
    let pairs: [([Act; 2], [&str; 2]); 6] = [
        ([|rank| rank.all_reduce(&mut [1.0; 9]), |rank| rank.barrier()], ["all-reduce of size 9", "barrier"]),
        (
            [|rank| rank.broadcast(&mut [1.0; 9], 0), |rank| rank.broadcast(&mut [1.0; 9], 1)],
            ["9 elements from rank 0", "9 elements from rank 1"],
        ),
        (
            [|rank| rank.buffer(5).map(drop), |rank| rank.buffer(6).map(drop)],
            ["making of a buffer of size 5", "making of a buffer of size 6"],
        ),
        (
            [|rank| rank.buffer(5).map(drop), |rank| rank.gather_bytes(vec![]).map(drop)],
            ["making of a buffer", "gather of bytes"],
        ),
        (
            [
                |rank| rank.buffer(5000).and_then(|mut buffer| rank.all_reduce_buffer(&mut buffer, 5000)),
                |rank| rank.buffer(5000).and_then(|_| rank.all_reduce(&mut [0.0; 5000])),
            ],
            ["size 5000 as no. 4 in shared buffer 1", "size 5000 as no. 4"],
        ),
        (two_buffers, ["shared buffer 1", "shared buffer 2"]),
    ];
    for (acts, words) in pairs {
        let errors =
            each(gang(2, LONG, Transport::Shm), |mut rank| acts[rank.rank()](&mut *rank).unwrap_err());
        for error in errors {
            let text = error.to_string();
            assert!(matches!(error, CollectiveError::Disagreement { .. }), "{text}");
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
    }
}

#[test]
fn after_a_failure_a_buffer_is_its_owner_s_alone() {
    let patience = Duration::from_millis(400);
    let failed = std::sync::Barrier::new(2);
    each(gang(2, patience, Transport::Shm), |mut rank| {
        let mut buffer = rank.buffer(100_000).unwrap();
        let place = buffer.as_ptr();
        buffer.fill(1.0);
        if rank.rank() == 0 {
            // Rank 1 does not come in time; what it does later is no longer seen here.
            assert_eq!(rank.all_reduce_buffer(&mut buffer, 100_000).unwrap_err().blamed(), Some(1));
            assert_eq!((buffer.as_ptr(), buffer.len()), (place, 100_000));
            buffer.fill(5.0);
            failed.wait();
            failed.wait();
            assert!(buffer.iter().all(|value| *value == 5.0));
        } else {
            failed.wait();
            rank.all_reduce_buffer(&mut buffer, 100_000).unwrap_err();
            drop(rank);
            buffer.fill(7.0);
            failed.wait();
            assert!(buffer.iter().all(|value| *value == 7.0));
        }
    });
}

#[test]
fn one_rank_that_wishes_tcp_decides_for_all_and_one_that_insists_on_memory_says_so() {
    let wish = |wishes: [Transport; 2]| {
        connect_each(2, LONG, move |topology| topology.transport = wishes[topology.rank])
    };
    for wishes in [[Transport::Auto, Transport::Tcp], [Transport::Tcp, Transport::Auto]] {
        for rank in wish(wishes) {
            assert_eq!(rank.unwrap().transport(), "tcp");
        }
    }
    let [first, second] = <[_; 2]>::try_from(wish([Transport::Tcp, Transport::Shm])).ok().unwrap();
    assert_eq!(first.unwrap().transport(), "tcp");
    let Err(error) = second else { panic!("no error") };
    assert!(matches!(error, CollectiveError::Transport { rank: 1, wish: Transport::Shm, .. }), "{error}");
    assert!(error.to_string().contains("rank 0 wishes tcp"), "{error}");
}

#[test]
fn aborting_ends_a_blocked_operation_and_every_later_one() {
    for transport in TRANSPORTS {
        let outcomes = each(gang(3, LONG, transport), |mut rank| match rank.rank() {
            0 => {
                let handle = rank.abort_handle();
                let aborter = std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(100));
                    handle.abort();
                });
                let start = Instant::now();
                let error = rank.all_reduce(&mut [1.0; 10]).unwrap_err();
                assert!(start.elapsed() < SOON);
                aborter.join().unwrap();
                assert!(matches!(error, CollectiveError::Aborted { rank: 0 }), "{error}");
                assert!(matches!(rank.barrier(), Err(CollectiveError::Aborted { rank: 0 })));
                None
            }
            1 => Some(rank.all_reduce(&mut [1.0; 10]).unwrap_err()),
            // Comes too late; but it must stay alive for rank 0 to be the one who left.
            _ => {
                std::thread::sleep(Duration::from_millis(500));
                Some(rank.all_reduce(&mut [1.0; 10]).unwrap_err())
            }
        });
        for error in outcomes.iter().flatten() {
            assert_eq!(error.blamed(), Some(0), "{error}");
        }
    }
}

#[test]
fn an_abort_while_idle_counts_too_and_outlives_the_ring() {
    for transport in TRANSPORTS {
        let mut ranks = gang(2, LONG, transport);
        let handle = ranks[0].abort_handle();
        handle.abort();
        assert!(matches!(ranks[0].barrier(), Err(CollectiveError::Aborted { .. })));
        assert_eq!(ranks[1].barrier().unwrap_err().blamed(), Some(0));
        drop(ranks);
        handle.abort();
        assert!(handle.is_aborted());
    }
}

/// Rank 1 of 2 is `changed`; both must learn what differs, at once.
fn refused(change: fn(&mut Topology)) -> Vec<Vec<Difference>> {
    let start = Instant::now();
    let results = connect_each(2, LONG, |topology| {
        if topology.rank == 1 {
            change(topology)
        }
    });
    assert!(start.elapsed() < SOON);
    let difference = |result| match result {
        Err(CollectiveError::Refused { differences, .. }) => differences,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("they took each other"),
    };
    results.into_iter().map(difference).collect()
}

#[test]
fn those_who_do_not_belong_are_refused() {
    for found in refused(|topology| topology.fence.token = "guessed".into()) {
        assert_eq!(found, [Difference::Token]);
    }
    let found = refused(|topology| topology.fence.generation = 6);
    assert_eq!(found[0], [Difference::Generation { here: 7, there: 6 }]);
    assert_eq!(found[1], [Difference::Generation { here: 6, there: 7 }]);
    let found = refused(|topology| topology.fence.layout = [9; 32]);
    assert_eq!(found[0], [Difference::Layout { here: [5; 32], there: [9; 32] }]);
    let found = refused(|topology| topology.fence.job = "other".into());
    assert_eq!(found[0], [Difference::Job { here: "gang".into(), there: "other".into() }]);
}

#[test]
fn a_refusal_does_not_print_the_token() {
    for result in
        connect_each(2, LONG, |topology| topology.fence.token.push(char::from(b'0' + topology.rank as u8)))
    {
        let Err(error) = result else { panic!("they took each other") };
        let text = format!("{error} {error:?}");
        assert!(text.contains("token") && !text.contains("sesame"), "{text}");
    }
}

#[test]
fn a_neighbour_that_never_comes_is_named() {
    let (mut listeners, peers) = listeners(2);
    let patience = Duration::from_millis(400);
    // Rank 1 listens, but never accepts.
    let listener = listeners.remove(0);
    let start = Instant::now();
    let Err(error) = connect(listener, topology(0, &peers, patience)) else {
        panic!("connected with nobody")
    };
    assert!(matches!(error, CollectiveError::Connect { peer: 1, .. }), "{error}");
    assert!(start.elapsed() >= patience && start.elapsed() < patience + SOON);
    // And now it is not there at all.
    drop(listeners);
    let listener = RingListener::bind(LOOPBACK).unwrap();
    let Err(error) = connect(listener, topology(0, &peers, patience)) else {
        panic!("connected with nobody")
    };
    assert!(matches!(error, CollectiveError::Connect { peer: 1, .. }), "{error}");
}

#[test]
fn strangers_at_the_listener_do_not_disturb() {
    let (listeners, peers) = listeners(3);
    // Before the ranks start: somebody silent, somebody with half a hello, a web browser, a port scanner.
    let mut strangers = Vec::new();
    for address in &peers {
        strangers.push(TcpStream::connect(address).unwrap());
        let mut half = TcpStream::connect(address).unwrap();
        half.write_all(b"SQDRING2 and no more").unwrap();
        strangers.push(half);
        let mut browser = TcpStream::connect(address).unwrap();
        browser.write_all(b"GET / HTTP/1.1\r\nHost: ring\r\n\r\n").unwrap();
        strangers.push(browser);
        drop(TcpStream::connect(address).unwrap());
    }
    std::thread::scope(|scope| {
        for (rank, listener) in listeners.into_iter().enumerate() {
            let topology = topology(rank, &peers, LONG);
            scope.spawn(move || {
                // Late ranks are waited for.
                std::thread::sleep(Duration::from_millis(80 * rank as u64));
                let start = Instant::now();
                let mut ring = connect(listener, topology).unwrap();
                assert!(start.elapsed() < SOON);
                let mut buffer = vec![1.0; 100];
                ring.all_reduce(&mut buffer).unwrap();
                assert_eq!(buffer, [3.0; 100]);
            });
        }
    });
    // All of them were sent away, none was answered with a code.
    for mut stranger in strangers {
        stranger.set_read_timeout(Some(SOON)).unwrap();
        let mut answer = Vec::new();
        match stranger.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
        assert!(answer.len() < 128, "{} bytes for a stranger", answer.len());
    }
}

#[test]
fn a_topology_that_contradicts_itself_is_refused() {
    let listener = RingListener::bind(LOOPBACK).unwrap();
    let peers = [listener.local_addr(); 2];
    let wrong = Topology { world: 3, ..topology(0, &peers, LONG) };
    assert!(matches!(connect(listener, wrong), Err(CollectiveError::Topology { .. })));
    let nowhere = RingListener::bind([203, 0, 113, 1].into());
    assert!(matches!(nowhere, Err(CollectiveError::Bind { .. })));
}
