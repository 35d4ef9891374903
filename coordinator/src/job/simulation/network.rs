//! What is under way: in order of time, and among equals in that of sending.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::job::{Event, Order};

/// Something that will happen.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// The coordinator of this life hears something.
    ToMachine {
        coordinator: u64,
        event: Event,
    },
    /// A process hears something.
    ToProcess {
        process: usize,
        order: Order,
    },
    /// The coordinator's timer, if it is still set to this.
    Timer {
        coordinator: u64,
        at: Duration,
    },
    /// A process is done with what it is doing.
    Done {
        process: usize,
    },
    /// A process says that it lives.
    Beat {
        process: usize,
    },
    /// The gang of this generation takes a step, if all of it can.
    Step {
        generation: u32,
    },
    /// A checkpoint is on the disk.
    Written {
        process: usize,
        step: u64,
    },
    /// A process sees that another one is gone, or that nothing comes from it.
    RingBroke {
        process: usize,
    },
    /// A process sees the end of its lifeline.
    LifelineEnds {
        process: usize,
    },
    /// A process ends after what it had to say.
    Leaves {
        process: usize,
        code: i32,
    },
    /// SIGTERM or SIGKILL arrives.
    Signal {
        process: usize,
        hard: bool,
    },
    /// Faults.
    Death,
    Stall,
    Preemption,
    Crash,
    Shutdown,
    Cancel,
    /// A coordinator starts.
    Return,
    /// There is room for the job.
    Room {
        coordinator: u64,
    },
    /// The coordinator has ended well.
    Ended {
        coordinator: u64,
    },
}

#[derive(Debug)]
struct Due {
    at: Duration,
    number: u64,
    what: Happening,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    /// The earliest is the greatest: the heap gives it first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// All that is under way.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    due: BinaryHeap<Due>,
    number: u64,
}

impl Agenda {
    pub(super) fn add(&mut self, at: Duration, what: Happening) {
        self.number += 1;
        self.due.push(Due { at, number: self.number, what });
    }

    pub(super) fn next(&mut self) -> Option<(Duration, Happening)> {
        self.due.pop().map(|due| (due.at, due.what))
    }
}
