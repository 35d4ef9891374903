//! What a rank is doing: for whoever asks when it is late, and, if wished for, for a timeline of the whole run.
//!
//! The compute thread opens a [`Span`] for everything that takes time. A span tells [`Report::doing`] at its
//! beginning, which costs two stores. Only with a recorder is its end looked at: then it becomes an event of the
//! timeline, which is kept in memory until all ranks' are gathered.

mod chrome;
mod clock;
mod recorder;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use squad_collective::Background;

pub use recorder::{MOST_OF_STEPS, MOST_OTHERS};

use crate::bucket::Reduction;
use crate::error::TrainError;
use crate::evaluate::gather;
use crate::report::Report;
use clock::{Clock, Reading};
use recorder::{Event, Recorder, Track};

/// What a rank can be doing. Stages are numbered from the embeddings, 0, to the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// Taking a whole optimizer step.
    Step,
    /// Waiting for the batches of a step, making them, or making tensors of one.
    Collate,
    /// Computing the outputs of a stage.
    Forward(usize),
    /// Computing the gradients of a stage.
    Backward(usize),
    /// Summing a stage's gradient over all ranks, beside everything else.
    Reduce(usize),
    /// Waiting until that is done.
    Wait(usize),
    /// Computing the norm of a stage's gradient.
    Norm(usize),
    /// Updating the weights.
    Optimizer,
    /// Copying the state for a checkpoint, after the one before is written.
    Checkpoint,
    /// Scoring a batch of an evaluation.
    Score,
    /// Meeting the other ranks.
    Meet,
    /// Writing the model and the results.
    Finish,
}

impl Activity {
    const KINDS: [fn(usize) -> Self; 12] = [
        |_| Self::Step,
        |_| Self::Collate,
        Self::Forward,
        Self::Backward,
        Self::Reduce,
        Self::Wait,
        Self::Norm,
        |_| Self::Optimizer,
        |_| Self::Checkpoint,
        |_| Self::Score,
        |_| Self::Meet,
        |_| Self::Finish,
    ];

    /// Its kind and its stage, or 0.
    fn parts(self) -> (u64, usize) {
        match self {
            Self::Step => (0, 0),
            Self::Collate => (1, 0),
            Self::Forward(stage) => (2, stage),
            Self::Backward(stage) => (3, stage),
            Self::Reduce(stage) => (4, stage),
            Self::Wait(stage) => (5, stage),
            Self::Norm(stage) => (6, stage),
            Self::Optimizer => (7, 0),
            Self::Checkpoint => (8, 0),
            Self::Score => (9, 0),
            Self::Meet => (10, 0),
            Self::Finish => (11, 0),
        }
    }

    /// Whether other ranks are waited for.
    pub fn waits(self) -> bool {
        matches!(self, Self::Wait(_) | Self::Meet)
    }

    /// Its name in a timeline.
    fn name(self) -> String {
        match self {
            Self::Step => "step".into(),
            Self::Collate => "collate".into(),
            Self::Forward(stage) => format!("forward {stage}"),
            Self::Backward(stage) => format!("backward {stage}"),
            Self::Reduce(stage) => format!("all-reduce {stage}"),
            Self::Wait(stage) => format!("wait {stage}"),
            Self::Norm(stage) => format!("norm {stage}"),
            Self::Optimizer => "optimizer".into(),
            Self::Checkpoint => "checkpoint copy".into(),
            Self::Score => "score".into(),
            Self::Meet => "meet".into(),
            Self::Finish => "finish".into(),
        }
    }
}

/// An activity and the optimizer step that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doing {
    /// What is done.
    pub activity: Activity,
    /// The step under way or, outside of one, the last; 0 before the first.
    pub step: u64,
}

impl Doing {
    /// As one number, to be stored atomically: 8 bits of kind, 16 of stage, 40 of step.
    pub fn pack(self) -> u64 {
        let (kind, stage) = self.activity.parts();
        kind << 56 | (stage as u64 & 0xffff) << 40 | (self.step & ((1 << 40) - 1))
    }

    /// What [`Doing::pack`] packed.
    pub fn unpack(packed: u64) -> Self {
        let kinds = &Activity::KINDS;
        let kind = kinds[(packed >> 56) as usize % kinds.len()];
        Self { activity: kind((packed >> 40 & 0xffff) as usize), step: packed & ((1 << 40) - 1) }
    }
}

impl fmt::Display for Doing {
    /// For people, as what follows "rank 1 is".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = self.step;
        match self.activity {
            Activity::Step => write!(f, "in step {step}"),
            Activity::Collate => write!(f, "making a batch of step {step}"),
            Activity::Forward(stage) => write!(f, "in forward of stage {stage} of step {step}"),
            Activity::Backward(stage) => write!(f, "in backward of stage {stage} of step {step}"),
            Activity::Reduce(stage) => write!(f, "in all-reduce of stage {stage} of step {step}"),
            Activity::Wait(stage) => write!(f, "waiting for the all-reduce of stage {stage} of step {step}"),
            Activity::Norm(stage) => write!(f, "in the gradient norm of stage {stage} of step {step}"),
            Activity::Optimizer => write!(f, "in the optimizer of step {step}"),
            Activity::Checkpoint => write!(f, "copying the checkpoint of step {step}"),
            Activity::Score => f.write_str("scoring a batch of the evaluation"),
            Activity::Meet => f.write_str("waiting for the other ranks"),
            Activity::Finish => f.write_str("writing the model and the results"),
        }
    }
}

/// How long the compute thread was at each kind of activity, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// Whole optimizer steps, all of the following included.
    pub step: f64,
    /// Waiting for batches, and making tensors of them.
    pub collate: f64,
    /// Computing the outputs of stages; without those that are computed again in the backward pass.
    pub forward: f64,
    /// Computing the gradients of stages.
    pub backward: f64,
    /// Waiting for the reduction of gradients; on a GPU, for everything that it was told before.
    pub wait: f64,
    /// The norm of the gradients, and the update of the weights.
    pub optimizer: f64,
}

/// Where the compute thread's spans go. It stays on that thread.
pub struct Trace<'a> {
    report: Option<&'a dyn Report>,
    recorder: Option<RefCell<Recorder>>,
    spent: Option<Cell<Spent>>,
    step: Cell<u64>,
}

impl fmt::Debug for Trace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("records", &self.recorder.is_some()).finish_non_exhaustive()
    }
}

impl<'a> Trace<'a> {
    /// Spans that nobody hears of.
    pub fn off() -> Self {
        Self { report: None, recorder: None, spent: None, step: Cell::new(0) }
    }

    /// Spans whose times are added up for [`Trace::spent`].
    pub fn adding_up() -> Self {
        Self { spent: Some(Cell::default()), ..Self::off() }
    }

    /// Spans that are reported, and recorded if a timeline is wished for: then all ranks call this at once, to
    /// compare their clocks.
    ///
    /// # Errors
    /// What broke the collective.
    pub fn new(report: &'a dyn Report, records: bool, collective: &Background) -> Result<Self, TrainError> {
        let recorder = records.then(|| {
            let epoch = Instant::now();
            let readings = clock::read(collective, epoch)?;
            Ok::<_, TrainError>(RefCell::new(Recorder::new(epoch, readings)))
        });
        Ok(Self { report: Some(report), recorder: recorder.transpose()?, ..Self::off() })
    }

    /// What was added up since this was asked for last.
    pub fn spent(&self) -> Spent {
        self.spent.as_ref().map(Cell::take).unwrap_or_default()
    }

    /// What follows belongs to this step.
    pub fn set_step(&self, step: u64) {
        self.step.set(step);
    }

    /// Begins an activity, which lasts as long as the answer lives.
    #[must_use = "the activity ends when this is dropped"]
    pub fn span(&self, activity: Activity) -> Span<'_> {
        if let Some(report) = self.report
            && activity != Activity::Step
        {
            report.doing(Doing { activity, step: self.step.get() });
        }
        let timed = self.recorder.is_some() || self.spent.is_some();
        Span { trace: self, begun: timed.then(Instant::now), activity, step: self.step.get() }
    }

    /// Takes in the reduction of a stage's gradient, which went on beside the compute thread.
    pub(crate) fn reduced(&self, stage: usize, reduction: Reduction) {
        if let Some(recorder) = &self.recorder {
            let times = (reduction.started, reduction.ended);
            recorder.borrow_mut().push((Activity::Reduce(stage), self.step.get()), Track::Reductions, times);
        }
    }

    /// Takes in when the batches of the step were made, beside the compute thread or on it.
    pub(crate) fn collated(&self, times: (Instant, Instant)) {
        if let Some(recorder) = &self.recorder {
            let what = (Activity::Collate, self.step.get());
            recorder.borrow_mut().push(what, Track::Batches, times);
        }
    }

    /// Gathers what all ranks have recorded so far, and writes it on rank 0. All ranks call this at once; without a
    /// recorder it does nothing. Gives a sentence for the log on rank 0.
    ///
    /// # Errors
    /// What broke the collective. That the file could not be written is in the sentence: the run itself is whole.
    pub(crate) fn write(&self, to: &Path, collective: &Background) -> Result<Option<String>, TrainError> {
        let Some(recorder) = &self.recorder else { return Ok(None) };
        let recorder = recorder.borrow();
        let readings = clock::read(collective, recorder.epoch())?;
        let own = RankEvents {
            before: recorder.readings().to_vec(),
            after: readings,
            events: recorder.events().copied().collect(),
            first_step: recorder.first_step(),
        };
        let all = gather(collective, &[own])?;
        if collective.rank() != 0 {
            return Ok(None);
        }
        Ok(Some(match chrome::write(to, &all) {
            Ok(what) => format!("timeline: {what}, in {}", to.display()),
            Err(error) => format!("the timeline could not be written: {error}"),
        }))
    }
}

/// What one rank contributes to a timeline.
#[derive(Debug, Serialize, Deserialize)]
struct RankEvents {
    before: Vec<Reading>,
    after: Vec<Reading>,
    events: Vec<Event>,
    /// The first step of which nothing was forgotten.
    first_step: u64,
}

impl Spent {
    fn add(&mut self, activity: Activity, seconds: f64) {
        match activity {
            Activity::Step => self.step += seconds,
            Activity::Collate => self.collate += seconds,
            Activity::Forward(_) => self.forward += seconds,
            Activity::Backward(_) => self.backward += seconds,
            Activity::Wait(_) => self.wait += seconds,
            Activity::Norm(_) | Activity::Optimizer => self.optimizer += seconds,
            Activity::Reduce(_)
            | Activity::Checkpoint
            | Activity::Score
            | Activity::Meet
            | Activity::Finish => {}
        }
    }
}

/// An activity that is under way.
pub struct Span<'a> {
    trace: &'a Trace<'a>,
    /// Known where somebody wants to know.
    begun: Option<Instant>,
    activity: Activity,
    step: u64,
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        let Some(begun) = self.begun else { return };
        let ended = Instant::now();
        if let Some(recorder) = &self.trace.recorder {
            recorder.borrow_mut().push((self.activity, self.step), Track::Compute, (begun, ended));
        }
        if let Some(spent) = &self.trace.spent {
            let mut all = spent.get();
            all.add(self.activity, (ended - begun).as_secs_f64());
            spent.set(all);
        }
    }
}

impl fmt::Debug for Span<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Span({:?})", self.activity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_added_up_by_kind() {
        let trace = Trace::adding_up();
        let step = trace.span(Activity::Step);
        for activity in [Activity::Forward(0), Activity::Forward(1), Activity::Norm(1)] {
            let _span = trace.span(activity);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        drop(step);
        let spent = trace.spent();
        assert!(spent.forward >= 2e-3 && spent.optimizer >= 1e-3 && spent.backward == 0.0, "{spent:?}");
        assert!(spent.step >= spent.forward + spent.optimizer, "{spent:?}");
        assert_eq!(trace.spent(), Spent::default(), "it was asked for");
        assert_eq!(Trace::off().spent(), Spent::default());
    }

    #[test]
    fn what_is_done_survives_being_packed() {
        for (kind, activity) in Activity::KINDS.iter().enumerate() {
            let doing =
                Doing { activity: activity(if (2..7).contains(&kind) { 13 } else { 0 }), step: 1 << 39 };
            assert_eq!(Doing::unpack(doing.pack()), doing);
            assert_eq!(doing.activity.parts().0 as usize, kind);
        }
        let late = Doing { activity: Activity::Backward(3), step: 17 };
        assert_eq!(late.to_string(), "in backward of stage 3 of step 17");
    }
}
