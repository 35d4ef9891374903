//! Sums over steps: lines of metrics.jsonl, reports, the summary.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use squad_collective::Background;
use squad_proto::{JobSpec, Phase, Progress};

use crate::error::TrainError;
use crate::header::StepHeader;
use crate::output::{MetricsFile, MetricsLine};
use crate::report::Report;
use crate::step::StepOutcome;

/// How often rank 0 reports figures, at most. Fixed: it is no wait.
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
    /// The share of it that something was computed behind: 0 to 1.
    pub allreduce_hidden_share: f64,
    /// Time that steps waited for their batches, and made tensors of them, on rank 0.
    pub collate_seconds: f64,
    /// Bytes of gradients that were summed over the ranks; 0 with one rank.
    pub bytes_reduced: u64,
    /// Times that a step was computed in vain because half-precision gradients overflowed.
    pub overflows: u64,
    /// Micro-batches that were computed in pieces, since memory did not suffice.
    pub micro_batches_in_pieces: u64,
    /// Restarts of the gang.
    pub restarts: u32,
}

/// What a checkpoint keeps of the log, so that a run that is gone on with sums up as one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sums {
    /// Since the first step.
    pub total: Tally,
    /// Since the last line of metrics.jsonl.
    pub since_line: Tally,
    /// Mean losses of the last steps.
    pub recent_losses: VecDeque<f64>,
}

/// Sums over some steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Loss, examples and tokens over all ranks.
    pub header: StepHeader,
    /// Wall time.
    pub seconds: f64,
    /// Time inside all-reduces, on rank 0.
    pub allreduce_seconds: f64,
    /// The part of it that nothing was computed behind.
    pub exposed_seconds: f64,
    /// Time that steps waited for their batches, and made tensors of them, on rank 0.
    #[serde(default)]
    pub collate_seconds: f64,
    /// Times that a step was computed in vain.
    pub overflows: u64,
    /// Bytes of gradients that were summed over the ranks.
    #[serde(default)]
    pub bytes_reduced: u64,
}

/// A tally whose clock runs.
struct Running {
    since: Instant,
    tally: Tally,
}

impl Running {
    fn go_on(tally: Tally) -> Self {
        Self { since: Instant::now(), tally }
    }

    /// Starts at nothing; gives what there was.
    fn restart(&mut self) -> Tally {
        std::mem::replace(self, Self::go_on(Tally::default())).now()
    }

    fn add(&mut self, outcome: &StepOutcome) {
        self.tally.header.add(&outcome.header);
        self.tally.allreduce_seconds += outcome.allreduce.as_secs_f64();
        self.tally.exposed_seconds += outcome.exposed.as_secs_f64();
        self.tally.collate_seconds += outcome.collate.as_secs_f64();
        self.tally.overflows += u64::from(outcome.overflows);
        self.tally.bytes_reduced += outcome.bytes;
    }

    fn now(&self) -> Tally {
        Tally { seconds: self.tally.seconds + self.since.elapsed().as_secs_f64(), ..self.tally }
    }
}

impl Tally {
    fn rate(&self, count: u64) -> f64 {
        count as f64 / self.seconds.max(1e-9)
    }

    /// Share of the time inside all-reduces that something was computed behind. The exposed part may be longer by the
    /// time that a rank waits for another one's gradient.
    fn hidden_share(&self) -> f64 {
        (1.0 - self.exposed_seconds / self.allreduce_seconds.max(1e-9)).clamp(0.0, 1.0)
    }
}

fn without_lines(error: &TrainError) -> String {
    format!("no second copy of the figures is kept: {error}")
}

/// Sums up steps.
pub(crate) struct Log {
    steps: u64,
    per_epoch: u64,
    every: u64,
    /// Rank 0 speaks for all.
    leads: bool,
    file: Option<MetricsFile>,
    total: Running,
    since_line: Running,
    since_report: Running,
    recent: VecDeque<f64>,
}

impl Log {
    /// The log of a run of `steps` steps that goes on after step `done`, where `sums` are those of the steps before. A
    /// rank that `keeps` checkpoints keeps the lines too.
    pub(crate) fn new(
        spec: &JobSpec,
        (steps, per_epoch): (u64, u64),
        collective: &Background,
        (done, sums): (u64, Sums),
        (keeps, report): (bool, &dyn Report),
    ) -> Result<Self, TrainError> {
        let leads = collective.rank() == 0;
        let file = match keeps.then(|| MetricsFile::go_on(Path::new(&spec.output_dir), done)).transpose() {
            Err(error) if !leads => {
                report.own_note(without_lines(&error));
                None
            }
            file => file?,
        };
        Ok(Self {
            steps,
            per_epoch,
            every: spec.train.log_every,
            leads,
            file,
            total: Running::go_on(sums.total),
            since_line: Running::go_on(sums.since_line),
            since_report: Running::go_on(Tally::default()),
            recent: sums.recent_losses,
        })
    }

    /// What a checkpoint keeps.
    pub(crate) fn sums(&self) -> Sums {
        Sums {
            total: self.total.now(),
            since_line: self.since_line.now(),
            recent_losses: self.recent.clone(),
        }
    }

    /// Takes in a step.
    pub(crate) fn step(
        &mut self,
        step: u64,
        outcome: &StepOutcome,
        report: &dyn Report,
    ) -> Result<(), TrainError> {
        if self.leads && outcome.header.in_pieces > 0 && self.total.tally.header.in_pieces == 0 {
            report.note(format!(
                "step {step}: memory ran out, so {} of its micro-batches were computed in pieces, as others will be; the \
                 global batch stays. train.batch_size halved and train.accumulate doubled do the same from the start",
                outcome.header.in_pieces
            ));
        }
        self.total.add(outcome);
        self.since_line.add(outcome);
        self.since_report.add(outcome);
        if self.recent.len() == FINAL_STEPS {
            self.recent.pop_front();
        }
        self.recent.push_back(outcome.header.mean_loss());
        if self.file.is_none() && !self.leads {
            return Ok(());
        }
        let last = step == self.steps;
        if self.leads && (self.since_report.since.elapsed() >= REPORT_EVERY || last) {
            let tally = self.since_report.restart();
            let mut progress = Progress::new(Phase::Train, step, self.steps);
            progress.loss = Some(tally.header.mean_loss());
            progress.learning_rate = Some(outcome.learning_rate);
            progress.grad_norm = Some(outcome.grad_norm);
            progress.examples_per_second = Some(tally.rate(tally.header.examples));
            progress.tokens_per_second = Some(tally.rate(tally.header.tokens));
            progress.loss_scale = Some(outcome.loss_scale);
            progress.allreduce_share = Some(tally.allreduce_seconds / tally.seconds.max(1e-9));
            report.progress(progress);
        }
        if step.is_multiple_of(self.every) || last {
            let tally = self.since_line.restart();
            let line = MetricsLine {
                step,
                epoch: step as f64 / self.per_epoch.max(1) as f64,
                loss: tally.header.mean_loss(),
                learning_rate: outcome.learning_rate,
                grad_norm: outcome.grad_norm,
                loss_scale: outcome.loss_scale,
                examples_per_second: tally.rate(tally.header.examples),
                tokens_per_second: tally.rate(tally.header.tokens),
                allreduce_seconds: tally.allreduce_seconds,
                allreduce_exposed_seconds: tally.exposed_seconds,
                allreduce_hidden_share: tally.hidden_share(),
                collate_seconds: tally.collate_seconds,
                bytes_reduced: tally.bytes_reduced,
            };
            if let Some(Err(error)) = self.file.as_mut().map(|file| file.write(&line)) {
                if self.leads {
                    return Err(error);
                }
                // The run does not need the second copy.
                report.own_note(without_lines(&error));
                self.file = None;
            }
        }
        Ok(())
    }

    /// The `train` section of results.json.
    pub(crate) fn summary(&self, world_size: usize, restarts: u32) -> TrainSummary {
        let total = self.total.now();
        let Tally { header, seconds, allreduce_seconds, exposed_seconds, .. } = total;
        TrainSummary {
            steps: self.steps,
            examples: header.examples,
            seconds,
            examples_per_second: header.examples as f64 / seconds,
            tokens_per_second: header.tokens as f64 / seconds,
            padding: 1.0 - header.tokens as f64 / header.padded_tokens.max(1) as f64,
            world_size,
            final_loss: self.recent.iter().sum::<f64>() / self.recent.len().max(1) as f64,
            peak_rss_bytes: 0,
            allreduce_seconds,
            allreduce_exposed_seconds: exposed_seconds,
            allreduce_hidden_share: total.hidden_share(),
            collate_seconds: total.collate_seconds,
            bytes_reduced: total.bytes_reduced,
            overflows: total.overflows,
            micro_batches_in_pieces: header.in_pieces,
            restarts,
        }
    }
}
