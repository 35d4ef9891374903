//! Lives of jobs in a simulated world: a seed decides what goes wrong, and when.
//!
//! The machine is the real one. Around it everything is simulated: the clock, the coordinator that performs its actions
//! and is killed in the middle of them, processes that load, train in step, write checkpoints and die, and a network that
//! delays, doubles, reorders and loses what they say. After every step `checks` looks whether what must hold holds.
//!
//! ```text
//! SQUAD_SIMULATION_SEEDS=100000 cargo nextest run -p squad-coordinator simulation     # more seeds
//! SQUAD_SIMULATION_SEED=4711 cargo nextest run -p squad-coordinator simulation --no-capture   # one, told in full
//! ```

mod checks;
mod gang;
mod life;
mod network;
mod plan;
mod process;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use self::life::Life;
use self::world::World;

/// Seeds of a usual test run.
const SEEDS: u64 = 3000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Runs seeds on all cores; gives the lowest one that failed with what was wrong, and what became of the others.
fn run(seeds: u64) -> (Option<(u64, String)>, Life) {
    let next = AtomicU64::new(0);
    let failed: Mutex<Option<(u64, String)>> = Mutex::new(None);
    let sum = Mutex::new(Life::default());
    let work = || {
        let mut own = Life::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds || failed.lock().unwrap().is_some() {
                break;
            }
            match World::of(seed).run() {
                Ok(life) => own.add(&life),
                Err(wrong) => {
                    let mut failed = failed.lock().unwrap();
                    if failed.as_ref().is_none_or(|(other, _)| seed < *other) {
                        *failed = Some((seed, wrong));
                    }
                }
            }
        }
        sum.lock().unwrap().add(&own);
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    (failed.into_inner().unwrap(), sum.into_inner().unwrap())
}

#[test]
fn whatever_goes_wrong_a_job_keeps_its_promises_and_ends() {
    if let Some(seed) = number("SQUAD_SIMULATION_SEED") {
        let verdict = World::of(seed).told().run();
        assert!(verdict.is_ok(), "seed {seed}: {}", verdict.unwrap_err());
        return;
    }
    let seeds = number("SQUAD_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let (failed, sum) = run(seeds);
    if let Some((seed, wrong)) = failed {
        panic!(
            "seed {seed}: {wrong}\nsee it in full: SQUAD_SIMULATION_SEED={seed} cargo nextest run -p \
             squad-coordinator simulation --no-capture"
        );
    }
    println!("{seeds} seeds: {sum:?}");
    // A world in which nothing happens would prove nothing.
    let enough = seeds / 100;
    for (what, count) in sum.counts() {
        assert!(count >= enough, "only {count} of {what} in {seeds} seeds: {sum:?}");
    }
}
