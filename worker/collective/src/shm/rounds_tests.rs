//! Every interleaving of the protocol within a bound, by loom. A sleep here has no end but the bell: a wake-up
//! that is lost shows as a deadlock.

use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::*;

struct Model {
    posted: Vec<AtomicU32>,
    bells: Vec<AtomicU32>,
    alarm: AtomicBool,
    /// The kernel's half of a futex: the value is compared and the sleeper queued under one lock.
    queues: Vec<(Mutex<()>, Condvar)>,
}

impl Model {
    fn new(world: usize) -> Arc<Model> {
        Arc::new(Model {
            posted: (0..world).map(|_| AtomicU32::new(0)).collect(),
            bells: (0..world).map(|_| AtomicU32::new(0)).collect(),
            alarm: AtomicBool::new(false),
            queues: (0..world).map(|_| (Mutex::new(()), Condvar::new())).collect(),
        })
    }

    fn alarmed(&self) -> bool {
        self.alarm.load(Ordering::Acquire)
    }

    /// As a rank does it: arrive, and doze until all are there. `false` after an alarm.
    fn round(&self, rank: usize, round: u32) -> bool {
        if arrive(self, rank, round) {
            return true;
        }
        loop {
            if is_complete(self, round) {
                return true;
            }
            if self.alarmed() {
                return false;
            }
            doze(self, rank, round, Duration::ZERO, || self.alarmed());
        }
    }
}

impl Words for Model {
    fn world(&self) -> usize {
        self.posted.len()
    }

    fn post(&self, rank: usize, round: u32) {
        self.posted[rank].store(round, Ordering::Release);
    }

    fn posted(&self, rank: usize) -> u32 {
        self.posted[rank].load(Ordering::Acquire)
    }

    fn set_bell(&self, rank: usize, set: bool) -> bool {
        self.bells[rank].swap(u32::from(set), Ordering::Relaxed) == 1
    }

    fn bell(&self, rank: usize) -> bool {
        self.bells[rank].load(Ordering::Relaxed) == 1
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    fn sleep(&self, rank: usize, _longest: Duration) {
        let (lock, queue) = &self.queues[rank];
        let guard = lock.lock().unwrap();
        if self.bells[rank].load(Ordering::Relaxed) == 1 {
            drop(queue.wait(guard).unwrap());
        }
    }

    fn wake(&self, rank: usize) {
        let (lock, queue) = &self.queues[rank];
        let _guard = lock.lock().unwrap();
        queue.notify_all();
    }
}

fn explore(preemptions: usize, scenario: impl Fn() + Sync + Send + 'static) {
    let mut explorer = loom::model::Builder::new();
    explorer.preemption_bound = Some(preemptions);
    explorer.check(scenario);
}

/// Ranks write a value of their own, meet, and read everybody's; then they meet again, and write anew. loom
/// ends the test if a read could fall together with a write.
fn exchange(world: usize, rounds: u32) {
    let model = Model::new(world);
    let values: Arc<Vec<_>> = Arc::new((0..world).map(|_| UnsafeCell::new(0_u32)).collect());
    let work = move |rank: usize| {
        let (model, values) = (model.clone(), values.clone());
        move || {
            for turn in 0..rounds {
                // SAFETY: all that `with` and `with_mut` hand out is used at once; loom watches who may.
                values[rank].with_mut(|value| unsafe { *value = turn + 1 });
                assert!(model.round(rank, 2 * turn + 1));
                for value in values.iter() {
                    // SAFETY: as above.
                    assert_eq!(value.with(|value| unsafe { *value }), turn + 1);
                }
                assert!(model.round(rank, 2 * turn + 2));
            }
        }
    };
    let others: Vec<_> = (1..world).map(|rank| thread::spawn(work(rank))).collect();
    work(0)();
    for other in others {
        other.join().unwrap();
    }
}

#[test]
fn two_ranks_lose_no_wake_up_and_see_each_other_s_writes() {
    explore(3, || exchange(2, 1));
}

/// As staging does it: one round for each exchange, and two places that alternate.
#[test]
fn two_places_are_enough_for_one_round_each() {
    explore(2, || {
        let model = Model::new(2);
        let places: Arc<Vec<_>> = Arc::new((0..4).map(|_| UnsafeCell::new(0_u32)).collect());
        let work = move |rank: usize| {
            let (model, places) = (model.clone(), places.clone());
            move || {
                for round in 1..=3 {
                    let place = |rank: usize| &places[2 * rank + round as usize % 2];
                    // SAFETY: all that `with` and `with_mut` hand out is used at once; loom watches who may.
                    place(rank).with_mut(|value| unsafe { *value = round });
                    assert!(model.round(rank, round));
                    // SAFETY: as above.
                    assert_eq!(place(1 - rank).with(|value| unsafe { *value }), round);
                }
            }
        };
        let other = thread::spawn(work(1));
        work(0)();
        other.join().unwrap();
    });
}

#[test]
fn three_ranks_lose_no_wake_up() {
    explore(1, || {
        let model = Model::new(3);
        let others: Vec<_> = (1..3)
            .map(|rank| {
                let model = model.clone();
                thread::spawn(move || assert!(model.round(rank, 1)))
            })
            .collect();
        assert!(model.round(0, 1));
        for other in others {
            other.join().unwrap();
        }
    });
}

#[test]
fn an_alarm_wakes_who_waits_for_a_rank_that_never_comes() {
    explore(3, || {
        let model = Model::new(3);
        let waiter = model.clone();
        let waiter = thread::spawn(move || assert!(!waiter.round(1, 1)));
        model.alarm.store(true, Ordering::Release);
        model.fence();
        ring_all(&*model);
        waiter.join().unwrap();
    });
}

#[test]
fn numbers_of_rounds_wrap_around() {
    loom::model(|| {
        let model = Model::new(1);
        model.post(0, u32::MAX);
        assert!(has_arrived(&*model, 0, u32::MAX) && !has_arrived(&*model, 0, 0));
        model.post(0, 1);
        assert!(has_arrived(&*model, 0, u32::MAX) && has_arrived(&*model, 0, 0));
    });
}
