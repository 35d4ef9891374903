//! What goes wrong in a world, and how often.

use std::time::Duration;

use rand::Rng;
use rand_xoshiro::Xoshiro256PlusPlus;

/// The settings of one world, drawn from its seed.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) slots: u32,
    pub(super) fewest: u32,
    pub(super) max_restarts: u32,
    pub(super) patience: Duration,
    /// Steps of the job, and between its checkpoints.
    pub(super) steps: u64,
    pub(super) checkpoint_every: u64,
    /// From the start of the world; nothing goes wrong later.
    pub(super) faults_end: Duration,
    /// Shares of what workers say, and of what they are told.
    pub(super) lost: f64,
    pub(super) doubled: f64,
    pub(super) late: f64,
    /// Share of launches that fail.
    pub(super) launch_fails: f64,
    /// A slot whose processes die soon from some moment on, or cannot be started.
    pub(super) bad_slot: Option<(u32, Duration, bool)>,
    /// Mean time between faults of each kind; zero for never.
    pub(super) death: Duration,
    pub(super) stall: Duration,
    pub(super) preemption: Duration,
    pub(super) crash: Duration,
    pub(super) shutdown: Duration,
    /// When a user cancels, if one does.
    pub(super) cancel: Option<Duration>,
    /// How often a worker finds what would come again, at a step.
    pub(super) not_finite: f64,
}

fn seconds(rng: &mut Xoshiro256PlusPlus, from: f64, to: f64) -> Duration {
    Duration::from_secs_f64(rng.random_range(from..to))
}

/// In half of all worlds a fault of a kind happens, about so often.
fn sometimes(rng: &mut Xoshiro256PlusPlus, from: f64, to: f64) -> Duration {
    if rng.random_bool(0.5) { Duration::ZERO } else { seconds(rng, from, to) }
}

impl Plan {
    /// The plan of a seed's world.
    pub(super) fn draw(rng: &mut Xoshiro256PlusPlus) -> Self {
        let slots = rng.random_range(1..=4);
        let rough = rng.random_bool(0.5);
        let share = |rng: &mut Xoshiro256PlusPlus, most: f64| {
            if rough { rng.random_range(0.0..most) } else { 0.0 }
        };
        Self {
            slots,
            fewest: rng.random_range(1..=slots),
            max_restarts: rng.random_range(0..=5),
            patience: seconds(rng, 2.0, 40.0),
            steps: rng.random_range(5..=20),
            checkpoint_every: rng.random_range(1..=6),
            faults_end: seconds(rng, 20.0, 200.0),
            lost: share(rng, 0.03),
            doubled: share(rng, 0.2),
            late: share(rng, 0.2),
            launch_fails: share(rng, 0.1),
            bad_slot: rng
                .random_bool(0.2)
                .then(|| (rng.random_range(0..slots), seconds(rng, 0.0, 20.0), rng.random_bool(0.5))),
            death: sometimes(rng, 4.0, 60.0),
            stall: sometimes(rng, 10.0, 100.0),
            preemption: if rng.random_bool(0.1) { seconds(rng, 20.0, 200.0) } else { Duration::ZERO },
            crash: sometimes(rng, 4.0, 60.0),
            shutdown: if rng.random_bool(0.3) { seconds(rng, 5.0, 60.0) } else { Duration::ZERO },
            cancel: rng.random_bool(0.2).then(|| seconds(rng, 0.0, 60.0)),
            not_finite: if rng.random_bool(0.1) { 0.05 } else { 0.0 },
        }
    }
}
