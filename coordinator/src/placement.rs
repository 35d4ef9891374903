//! Who of those that wait gets slots: a function of what is offered, what is held, and who waits.
//!
//! Slots for workers on the CPU and GPUs each have a line. In a line a job that had begun, and lost its place with an
//! earlier coordinator, is first; then the greater priority is, and of equal ones the job that came first. A job gets all that it needs at once, or nothing. None overtakes another one of its line: a
//! small job behind a wide one could be followed by the next small one, and the wide one would never have its turn. What
//! the other line waits for holds up nobody, and neither does a job that needs more than there is.
//!
//! Jobs at work are not disturbed, whatever the priority of those that wait. Jobs of one priority all have their turn;
//! those of a lower one have it when no higher one waits.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;

use squad_proto::spec::DeviceKind;
use squad_proto::{JobId, JobSpec};

/// What a coordinator offers to workers on its own machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Workers on the CPU at once; where GPUs are not counted, workers on whatever there is.
    pub(crate) slots: u32,
    /// GPUs, each for one worker; `None` where they are not counted.
    pub(crate) gpus: Option<u32>,
}

/// What a job takes, all at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Something else places its workers.
    Nothing,
    /// So many slots.
    Slots(u32),
    /// So many GPUs, whichever.
    Gpus(u32),
    /// These GPUs, by number.
    Named(BTreeSet<u32>),
}

/// What a job has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) slots: u32,
    /// By number, in the order of the workers that get them.
    pub(crate) gpus: Vec<u32>,
}

/// A job that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) id: JobId,
    /// It was at work before.
    pub(crate) begun: bool,
    /// The greater is first.
    pub(crate) priority: i32,
    /// Of equal priorities the lesser is first.
    pub(crate) order: u64,
    pub(crate) need: Need,
}

/// What becomes of a job that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It starts, with this.
    Starts(Grant),
    /// It waits on.
    Waits(Wait),
}

/// Why a job waits, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It is the first of its line, and too little is free.
    First(Lack),
    /// Others are before it.
    Behind {
        /// The first of its line.
        first: JobId,
        /// What that one waits for.
        lack: Lack,
        /// How many are before it.
        before: usize,
    },
    /// There is not as much as it needs, free or not.
    Never(Shortfall),
}

/// What is free is less than what is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// So many slots are needed, so many are free.
    Slots(u32, u32),
    /// So many GPUs are needed, so many are free.
    Gpus(u32, u32),
    /// These are needed, and in use.
    Named(Vec<u32>),
}

/// What is offered is less than what is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortfall {
    /// So many slots are needed, so many are there.
    Slots(u32, u32),
    /// So many GPUs are needed, so many are there.
    Gpus(u32, u32),
    /// This one is needed, so many are there.
    Named(u32, u32),
}

impl Grant {
    /// What a job with this need holds that was given these GPUs.
    pub(crate) fn of(need: &Need, gpus: &[u32]) -> Self {
        match need {
            Need::Nothing => Self::default(),
            Need::Slots(slots) => Self { slots: *slots, gpus: Vec::new() },
            Need::Gpus(_) | Need::Named(_) => Self { slots: 0, gpus: gpus.to_vec() },
        }
    }
}

impl Need {
    /// What a job of `processes` workers takes of an offer.
    pub(crate) fn of(spec: &JobSpec, (processes, external): (u32, bool), offer: Offer) -> Self {
        let on_gpus = match spec.resources.device {
            DeviceKind::Cpu => false,
            DeviceKind::Cuda => offer.gpus.is_some(),
            DeviceKind::Auto => offer.gpus.is_some_and(|gpus| gpus > 0),
        };
        match &spec.resources.gpus {
            _ if external => Self::Nothing,
            _ if !on_gpus => Self::Slots(processes),
            Some(gpus) => Self::Named(gpus.iter().copied().take(processes as usize).collect()),
            None => Self::Gpus(processes),
        }
    }

    /// What keeps it from ever being met.
    pub(crate) fn beyond(&self, offer: Offer) -> Option<Shortfall> {
        let gpus = offer.gpus.unwrap_or(0);
        match self {
            Self::Nothing => None,
            Self::Slots(wanted) => (*wanted > offer.slots).then_some(Shortfall::Slots(*wanted, offer.slots)),
            Self::Gpus(wanted) => (*wanted > gpus).then_some(Shortfall::Gpus(*wanted, gpus)),
            Self::Named(named) => {
                named.last().filter(|last| **last >= gpus).map(|last| Shortfall::Named(*last, gpus))
            }
        }
    }
}

/// What nobody holds.
#[derive(Clone, Debug)]
pub(crate) struct Free {
    slots: u32,
    gpus: BTreeSet<u32>,
}

impl Free {
    /// All of an offer.
    pub(crate) fn all(offer: Offer) -> Self {
        Self { slots: offer.slots, gpus: (0..offer.gpus.unwrap_or(0)).collect() }
    }

    /// Takes what somebody holds. More may be held than is there: an earlier coordinator had more, whose workers are
    /// ending.
    pub(crate) fn hold(&mut self, held: &Grant) {
        self.slots = self.slots.saturating_sub(held.slots);
        self.gpus.retain(|gpu| !held.gpus.contains(gpu));
    }

    /// Gives a job that was at work what it had, if all of that is free.
    pub(crate) fn give_back(&mut self, need: &Need, had: &Grant) -> bool {
        let as_much = match need {
            Need::Nothing => true,
            Need::Slots(wanted) => had.slots == *wanted,
            Need::Gpus(wanted) => had.gpus.len() == *wanted as usize,
            Need::Named(named) => had.gpus.iter().copied().collect::<BTreeSet<u32>>() == *named,
        };
        let there = had.slots <= self.slots && had.gpus.iter().all(|gpu| self.gpus.contains(gpu));
        if as_much && there {
            self.hold(had);
        }
        as_much && there
    }

    /// Gives a job all that it needs, or nothing.
    fn give(&mut self, need: &Need) -> Result<Grant, Lack> {
        let grant = match need {
            Need::Nothing => Grant::default(),
            Need::Slots(wanted) if *wanted > self.slots => return Err(Lack::Slots(*wanted, self.slots)),
            Need::Slots(wanted) => Grant { slots: *wanted, gpus: Vec::new() },
            Need::Gpus(wanted) if *wanted as usize > self.gpus.len() => {
                return Err(Lack::Gpus(*wanted, self.gpus.len() as u32));
            }
            Need::Gpus(wanted) => {
                Grant { slots: 0, gpus: self.gpus.iter().copied().take(*wanted as usize).collect() }
            }
            Need::Named(named) if !named.is_subset(&self.gpus) => {
                return Err(Lack::Named(named.difference(&self.gpus).copied().collect()));
            }
            Need::Named(named) => Grant { slots: 0, gpus: named.iter().copied().collect() },
        };
        self.hold(&grant);
        Ok(grant)
    }
}

/// The first of a line that waits, and how many do.
type Line = Option<(JobId, Lack, usize)>;

/// What becomes of those that wait, the first one first.
pub(crate) fn decide(offer: Offer, mut free: Free, mut waiting: Vec<Waiting>) -> Vec<(JobId, Verdict)> {
    waiting.sort_by_key(|job| (Reverse(job.begun), Reverse(job.priority), job.order));
    let (mut of_slots, mut of_gpus): (Line, Line) = (None, None);
    let mut verdict = |job: &Waiting| {
        if let Some(shortfall) = job.need.beyond(offer) {
            return Verdict::Waits(Wait::Never(shortfall));
        }
        let line = match job.need {
            Need::Nothing => return Verdict::Starts(Grant::default()),
            Need::Slots(_) => &mut of_slots,
            Need::Gpus(_) | Need::Named(_) => &mut of_gpus,
        };
        if let Some((first, lack, waiting)) = line {
            *waiting += 1;
            let (first, lack) = (first.clone(), lack.clone());
            return Verdict::Waits(Wait::Behind { first, lack, before: *waiting - 1 });
        }
        match free.give(&job.need) {
            Ok(grant) => Verdict::Starts(grant),
            Err(lack) => {
                *line = Some((job.id.clone(), lack.clone(), 1));
                Verdict::Waits(Wait::First(lack))
            }
        }
    };
    waiting.iter().map(|job| (job.id.clone(), verdict(job))).collect()
}

/// A number of things: `1 slot`, `2 slots`.
fn some(number: u32, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wanted, free, thing) = match self {
            Self::Slots(wanted, free) => (*wanted, *free, "slot"),
            Self::Gpus(wanted, free) => (*wanted, *free, "GPU"),
            Self::Named(taken) => {
                let numbers: Vec<String> = taken.iter().map(u32::to_string).collect();
                let thing = if taken.len() == 1 { "GPU" } else { "GPUs" };
                return write!(f, "{thing} {}, in use", numbers.join(" and "));
            }
        };
        let are = if free == 1 { "is" } else { "are" };
        write!(f, "{}, {free} {are} free", some(wanted, thing))
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First(lack) => write!(f, "waits for {lack}"),
            Self::Behind { first, lack, before } => {
                write!(f, "behind {first}, which waits for {lack}")?;
                if *before > 1 { write!(f, "; {before} jobs are before it") } else { Ok(()) }
            }
            Self::Never(shortfall) => write!(f, "wants {shortfall}"),
        }
    }
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slots(wanted, there) => write!(
                f,
                "{}, but the coordinator has {}; lower resources.workers or start it with --slots {wanted}",
                some(*wanted, "worker"),
                some(*there, "slot")
            ),
            Self::Gpus(wanted, there) => write!(
                f,
                "{}, but the coordinator has {there}; lower resources.workers, set resources.device to cpu, or start it with --gpus {wanted}",
                some(*wanted, "GPU")
            ),
            Self::Named(gpu, there) => write!(
                f,
                "GPU {gpu}, but the coordinator has {}, numbered from 0; change resources.gpus, or start it with --gpus {}",
                some(*there, "GPU"),
                gpu + 1
            ),
        }
    }
}
