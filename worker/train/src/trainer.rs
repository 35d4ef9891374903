//! The training loop.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use squad_collective::Background;
use squad_proto::{JobSpec, Phase, Progress};

use crate::checkpoint;
use crate::error::TrainError;
use crate::header::StepHeader;
use crate::output::{MetricsFile, MetricsLine};
use crate::prepare::{Prepared, TrainSet};
use crate::report::{Report, StopSignal};
use crate::schedule::{Schedule, total_steps};
use crate::step::{StepOutcome, Stepper};

/// How often rank 0 reports figures, at most.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// Steps whose mean loss is the run's final loss.
const FINAL_STEPS: usize = 50;

/// The `train` section of results.json.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TrainSummary {
    /// Optimizer steps taken.
    pub steps: u64,
    /// Examples seen, over all ranks.
    pub examples: u64,
    /// Wall time of the loop.
    pub seconds: f64,
    /// Examples a second over all ranks.
    pub examples_per_second: f64,
    /// Unpadded tokens a second over all ranks.
    pub tokens_per_second: f64,
    /// Share of the tokens that were padding.
    pub padding: f64,
    /// Processes.
    pub world_size: usize,
    /// Mean loss of the last 50 steps.
    pub final_loss: f64,
    /// Largest resident set of any rank.
    pub peak_rss_bytes: u64,
    /// Time inside all-reduces, on rank 0.
    pub allreduce_seconds: f64,
    /// The part of it that nothing was computed behind.
    pub allreduce_exposed_seconds: f64,
    /// Times that a step was computed in vain because half-precision gradients overflowed.
    pub overflows: u64,
    /// Restarts of the gang.
    pub restarts: u32,
}

/// Whether the loop came to its end.
#[derive(Clone, Debug, PartialEq)]
pub enum Trained {
    /// All steps were taken.
    Finished(TrainSummary),
    /// All ranks stopped after this step, because one was asked to.
    Stopped(u64),
}

/// Runs the loop on one rank; all ranks run it alike.
///
/// # Errors
/// The first failure of a step or of a file.
pub fn train(
    prepared: &mut Prepared,
    set: &TrainSet,
    spec: &JobSpec,
    collective: &Background,
    (report, stop): (&dyn Report, &StopSignal),
) -> Result<Trained, TrainError> {
    let per_epoch = set.sampler.steps_per_epoch() as u64;
    let steps = total_steps(&spec.train, per_epoch);
    let schedule = Schedule::new(&spec.train, steps);
    let mut stepper = Stepper::new(spec, &prepared.network, prepared.pad_id, schedule);
    let mut log = Log::new(spec, steps, per_epoch, collective)?;
    if collective.rank() == 0 {
        report.note(format!(
            "training: {steps} steps of {:.1} examples on average ({per_epoch} an epoch), {} warm-up, {} ranks over {}",
            set.sampler.mean_examples(),
            schedule.warmup(),
            collective.world(),
            collective.transport()
        ));
    }
    let every = spec.train.checkpoint_every.unwrap_or(per_epoch);
    for step in 1..=steps {
        let outcome = stepper.take(step, &mut prepared.network, set, collective, stop.is_set())?;
        report.tick(Phase::Train, step, steps);
        let stopped = outcome.header.stop_votes > 0;
        log.step(step, &outcome, report)?;
        if (step.is_multiple_of(every) || step == steps || stopped) && collective.rank() == 0 {
            let output = Path::new(&spec.output_dir);
            let keep = (step, spec.train.keep_checkpoints as usize);
            checkpoint::write(&prepared.network, &prepared.model_folder, output, keep)?;
        }
        if stopped && step < steps {
            return Ok(Trained::Stopped(step));
        }
    }
    Ok(Trained::Finished(log.summary(steps, collective.world())))
}

/// Sums up steps for lines of metrics.jsonl, reports and the summary.
struct Log {
    started: Instant,
    steps: u64,
    per_epoch: u64,
    every: u64,
    rank: usize,
    file: Option<MetricsFile>,
    total: StepHeader,
    since_line: Window,
    since_report: Window,
    recent: VecDeque<f64>,
    allreduce: Duration,
    exposed: Duration,
    overflows: u64,
}

/// Sums since some moment.
struct Window {
    since: Instant,
    header: StepHeader,
    allreduce: Duration,
    exposed: Duration,
}

impl Window {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            header: StepHeader::default(),
            allreduce: Duration::ZERO,
            exposed: Duration::ZERO,
        }
    }

    fn add(&mut self, outcome: &StepOutcome) {
        self.header.add(&outcome.header);
        self.allreduce += outcome.allreduce;
        self.exposed += outcome.exposed;
    }

    fn rate(&self, count: u64) -> f64 {
        count as f64 / self.since.elapsed().as_secs_f64().max(1e-9)
    }
}

impl Log {
    fn new(spec: &JobSpec, steps: u64, per_epoch: u64, collective: &Background) -> Result<Self, TrainError> {
        let file = match collective.rank() {
            0 => Some(MetricsFile::create(Path::new(&spec.output_dir))?),
            _ => None,
        };
        Ok(Self {
            started: Instant::now(),
            steps,
            per_epoch,
            every: spec.train.log_every,
            rank: collective.rank(),
            file,
            total: StepHeader::default(),
            since_line: Window::new(),
            since_report: Window::new(),
            recent: VecDeque::with_capacity(FINAL_STEPS),
            allreduce: Duration::ZERO,
            exposed: Duration::ZERO,
            overflows: 0,
        })
    }

    fn step(&mut self, step: u64, outcome: &StepOutcome, report: &dyn Report) -> Result<(), TrainError> {
        self.total.add(&outcome.header);
        self.since_line.add(outcome);
        self.since_report.add(outcome);
        self.allreduce += outcome.allreduce;
        self.exposed += outcome.exposed;
        self.overflows += u64::from(outcome.overflows);
        if self.recent.len() == FINAL_STEPS {
            self.recent.pop_front();
        }
        self.recent.push_back(outcome.header.mean_loss());
        if self.rank != 0 {
            return Ok(());
        }
        let last = step == self.steps;
        if self.since_report.since.elapsed() >= REPORT_EVERY || last {
            let window = std::mem::replace(&mut self.since_report, Window::new());
            let mut progress = Progress::new(Phase::Train, step, self.steps);
            progress.loss = Some(window.header.mean_loss());
            progress.learning_rate = Some(outcome.learning_rate);
            progress.grad_norm = Some(outcome.grad_norm);
            progress.examples_per_second = Some(window.rate(window.header.examples));
            progress.tokens_per_second = Some(window.rate(window.header.tokens));
            report.progress(progress);
        }
        if step.is_multiple_of(self.every) || last {
            let window = std::mem::replace(&mut self.since_line, Window::new());
            let line = MetricsLine {
                step,
                epoch: step as f64 / self.per_epoch.max(1) as f64,
                loss: window.header.mean_loss(),
                learning_rate: outcome.learning_rate,
                grad_norm: outcome.grad_norm,
                loss_scale: outcome.loss_scale,
                examples_per_second: window.rate(window.header.examples),
                tokens_per_second: window.rate(window.header.tokens),
                allreduce_seconds: window.allreduce.as_secs_f64(),
                allreduce_exposed_seconds: window.exposed.as_secs_f64(),
            };
            if let Some(file) = &mut self.file {
                file.write(&line)?;
            }
        }
        Ok(())
    }

    fn summary(&self, steps: u64, world_size: usize) -> TrainSummary {
        let seconds = self.started.elapsed().as_secs_f64();
        TrainSummary {
            steps,
            examples: self.total.examples,
            seconds,
            examples_per_second: self.total.examples as f64 / seconds,
            tokens_per_second: self.total.tokens as f64 / seconds,
            padding: 1.0 - self.total.tokens as f64 / self.total.padded_tokens.max(1) as f64,
            world_size,
            final_loss: self.recent.iter().sum::<f64>() / self.recent.len().max(1) as f64,
            peak_rss_bytes: 0,
            allreduce_seconds: self.allreduce.as_secs_f64(),
            allreduce_exposed_seconds: self.exposed.as_secs_f64(),
            overflows: self.overflows,
            restarts: 0,
        }
    }
}
