//! The training loop.

use squad_collective::Background;
use squad_proto::{JobSpec, Phase};

use crate::checkpoint::state::{TrainingState, identity};
use crate::checkpoint::writer::{Snapshot, Writer};
use crate::engine::Engine;
use crate::error::TrainError;
use crate::log::{Log, TrainSummary};
use crate::portion::Collator;
use crate::prefetch::Prefetch;
use crate::prepare::{Prepared, TrainSet};
use crate::report::{Report, StopSignal};
use crate::schedule::{Schedule, total_steps};
use crate::trace::{Activity, Trace};

/// Whether the loop came to its end.
#[derive(Clone, Debug, PartialEq)]
pub enum Trained {
    /// All steps were taken.
    Finished(TrainSummary),
    /// All ranks stopped after this step, because one was asked to.
    Stopped(u64),
}

/// Runs the loop on one rank, from the start or from a checkpoint; all ranks run it alike. Ranks that keep
/// checkpoints have a `writer` of them, to which the last one may still be under way at the end.
///
/// # Errors
/// The first failure of a step or of a file.
pub fn train(
    prepared: &mut Prepared,
    set: &TrainSet,
    spec: &JobSpec,
    collective: &Background,
    mut writer: Option<&mut Writer>,
    (report, stop, trace): (&dyn Report, &StopSignal, &Trace<'_>),
) -> Result<Trained, TrainError> {
    let per_epoch = set.sampler.steps_per_epoch() as u64;
    let steps = total_steps(&spec.train, per_epoch);
    let schedule = Schedule::new(&spec.train, steps);
    let mut engine = Engine::new(spec, &prepared.network, schedule, collective)?;
    let (done, sums) = match prepared.resumed.take() {
        Some(resumed) => {
            engine.go_on(resumed.moments, resumed.state.loss_scale);
            (resumed.state.step, resumed.state.sums)
        }
        None => Default::default(),
    };
    let keeps = (writer.is_some(), report);
    let mut log = Log::new(spec, (steps, per_epoch), collective, (done, sums), keeps)?;
    let run = identity(spec, &prepared.network, set);
    if collective.rank() == 0 {
        report.note(format!(
            "training: {}{steps} steps of {:.1} examples on average ({per_epoch} an epoch), {} warm-up, {} ranks over {}",
            if done > 0 { format!("from step {done} on, ") } else { String::new() },
            set.sampler.mean_examples(),
            schedule.warmup(),
            collective.world(),
            engine.carrier(collective)
        ));
    }
    let every = spec.train.checkpoint_every.unwrap_or(per_epoch);
    let collator = Collator::new(spec, &prepared.network, prepared.pad_id, collective);
    std::thread::scope(|scope| {
        let mut portions = Prefetch::start(scope, collator, set, done + 1..=steps)?;
        for step in done + 1..=steps {
            let outcome = engine.take(
                step,
                &mut prepared.network,
                &mut portions,
                (collective, trace),
                stop.is_set(),
            )?;
            report.tick(Phase::Train, step, steps);
            let stopped = outcome.header.stop_votes > 0;
            log.step(step, &outcome, report)?;
            if let Some(writer) = &mut writer {
                writer.poll(report);
                if step.is_multiple_of(every) || step == steps || stopped {
                    let state = TrainingState {
                        step,
                        cursor: set.sampler.cursor(step as usize),
                        run: run.clone(),
                        world: collective.world(),
                        threads: tch::get_num_threads(),
                        loss_scale: engine.loss_scale(),
                        sums: log.sums(),
                    };
                    let last = step == steps || stopped;
                    let _copy = trace.span(Activity::Checkpoint);
                    writer.begin(
                        last,
                        || Snapshot::take(&prepared.network, engine.moments().into_owned(), state),
                        report,
                    )?;
                }
            }
            if stopped && step < steps {
                return Ok(Trained::Stopped(step));
            }
        }
        Ok(Trained::Finished(log.summary(collective.world(), prepared.restarts)))
    })
}
