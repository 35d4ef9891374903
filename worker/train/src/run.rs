//! A job on one rank, from Begin to its results.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use squad_collective::Background;
use squad_model::{load_network, save};
use squad_proto::{Deadlines, JobSpec, Task};

use crate::checkpoint::transfer::Received;
use crate::checkpoint::writer::{self, Writer};
use crate::checkpoint::{folder_of, write_file, write_json};
use crate::error::TrainError;
use crate::evaluate::{self, Evaluation, gather};
use crate::log::TrainSummary;
use crate::output;
use crate::prepare::{DevSet, Prepared, TrainSet, head_in, precision};
use crate::report::{Report, StopSignal};
use crate::resume;
use crate::schedule::total_steps;
use crate::storage;
use crate::threshold::{Revision, Threshold, TunedOn};
use crate::trace::{Activity, Trace};
use crate::trainer::{Trained, train};

/// How a job ended on this rank.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All was done. Rank 0 has the content of results.json.
    Completed(Option<Value>),
    /// Somebody asked for a stop; this many optimizer steps had been taken.
    Stopped(u64),
}

/// Does the task on this rank; all ranks call it at once.
///
/// # Errors
/// The first failure, of this rank or seen through the ring.
pub fn run(
    mut prepared: Prepared,
    collective: &Background,
    spec: &JobSpec,
    task: &Task,
    (report, stop): (&dyn Report, &StopSignal),
) -> Result<Outcome, TrainError> {
    let timeline = task.timeline();
    let trace = Trace::new(report, timeline.is_some(), collective)?;
    let session = Session { spec, collective, report, stop, trace: &trace, timeline };
    match task {
        Task::Train { resume, .. } => session.train(&mut prepared, *resume),
        Task::Evaluate { .. } => session.evaluate_checkpoints(prepared),
    }
}

fn no_second_copy(error: &TrainError) -> String {
    format!("no second copy of the checkpoints is kept: {error}")
}

/// What every part of a job needs.
struct Session<'a> {
    spec: &'a JobSpec,
    collective: &'a Background,
    report: &'a dyn Report,
    stop: &'a StopSignal,
    trace: &'a Trace<'a>,
    timeline: Option<&'a Path>,
}

impl Session<'_> {
    fn leads(&self) -> bool {
        self.collective.rank() == 0
    }

    fn train(&self, prepared: &mut Prepared, resume: bool) -> Result<Outcome, TrainError> {
        let Some(set) = prepared.train.take() else {
            return Err(TrainError::Unfit("there is nothing to train on: data.train is not set".into()));
        };
        let output = Path::new(&self.spec.output_dir);
        let claim = self.claim(output)?;
        self.check_timeline()?;
        let task = Task::Train { resume, timeline: None };
        let received = resume::agree(prepared, &set, (self.spec, &task), self.collective, self.report)?;
        if let Some(results) = self.complete(prepared, &set, resume)? {
            return Ok(Outcome::Completed(self.leads().then_some(results)));
        }
        let mut writer = match claim {
            Some(_) => self.writer(prepared, resume, received)?,
            None => {
                // It has been read.
                drop(received);
                None
            }
        };
        // Nobody writes before the folder is ready.
        self.collective.run(|c| c.barrier())?;
        let signals = (self.report, self.stop, self.trace);
        let trained = train(prepared, &set, self.spec, self.collective, writer.as_mut(), signals)?;
        self.write_timeline()?;
        // The last checkpoint may be under way while answers are scored; without it the run is not done.
        let settle = |writer: Option<Writer>| self.settle(writer);
        let mut summary = match trained {
            Trained::Finished(summary) => summary,
            Trained::Stopped(step) => return settle(writer).map(|()| Outcome::Stopped(step)),
        };
        drop(set);
        let evaluation = match &prepared.dev {
            Some(dev) => match self.evaluate(prepared, dev, "")? {
                Some(evaluation) => Some(evaluation),
                None if self.stop.is_set() => {
                    return settle(writer).map(|()| Outcome::Stopped(summary.steps));
                }
                None => None,
            },
            None => None,
        };
        if evaluation.is_some() || prepared.dev.is_some() {
            self.write_timeline()?;
        }
        let peaks: Vec<u64> = gather(self.collective, &[output::peak_rss_bytes()])?;
        summary.peak_rss_bytes = peaks.into_iter().max().unwrap_or(0);
        settle(writer)?;
        if !self.leads() {
            return Ok(Outcome::Completed(None));
        }
        let _finish = self.trace.span(Activity::Finish);
        self.finish(prepared, evaluation.as_ref(), &summary).map(|results| Outcome::Completed(Some(results)))
    }

    /// Takes the output folder of a rank that keeps checkpoints: of rank 0, and of the lowest rank that does not see
    /// that folder, if there is one. So a run outlives either of the two machines. All ranks call it at once.
    fn claim(&self, output: &Path) -> Result<Option<File>, TrainError> {
        let first = self.leads().then(|| output::claim(output)).transpose()?;
        let second = storage::second_keeper(output, self.collective)?;
        if second != Some(self.collective.rank()) {
            return Ok(first);
        }
        let place = format!("{} on {}", output.display(), storage::host());
        match output::claim(output) {
            Ok(claim) => {
                self.report.own_note(format!("a second copy of every checkpoint is kept in {place}"));
                Ok(Some(claim))
            }
            Err(error) => {
                self.report.own_note(no_second_copy(&error));
                Ok(None)
            }
        }
    }

    /// The writer of a rank that keeps checkpoints. The run does not need the second copy: only rank 0 fails.
    fn writer(
        &self,
        prepared: &mut Prepared,
        resume: bool,
        received: Option<Received>,
    ) -> Result<Option<Writer>, TrainError> {
        let opened = self.open(prepared, resume).and_then(|mut writer| {
            if let (Some(received), Some(resumed)) = (received, &prepared.resumed) {
                if !received.metrics().is_empty() {
                    write_file(&Path::new(&self.spec.output_dir).join(output::METRICS), received.metrics())?;
                }
                writer.adopt(resumed.state.step, received)?;
            }
            Ok(writer)
        });
        match opened {
            Err(error) if !self.leads() => {
                self.report.own_note(no_second_copy(&error));
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    /// Waits until the last checkpoint is written.
    fn settle(&self, writer: Option<Writer>) -> Result<(), TrainError> {
        match writer.map_or(Ok(()), |mut writer| writer.settle()) {
            Err(error) if !self.leads() => {
                self.report.own_note(format!("the last checkpoint has no second copy: {error}"));
                Ok(())
            }
            settled => settled,
        }
    }

    /// Finds out at the beginning, and not days later, that a timeline cannot be written.
    fn check_timeline(&self) -> Result<(), TrainError> {
        let Some(path) = self.timeline.filter(|_| self.leads()) else { return Ok(()) };
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(TrainError::output("create", folder))?;
        let probe = path.with_extension("probe");
        std::fs::write(&probe, []).map_err(TrainError::output("write", &probe))?;
        std::fs::remove_file(&probe).map_err(TrainError::output("remove", &probe))
    }

    /// Writes what all ranks have recorded so far, where a timeline is wished for. A later call writes it again, with
    /// what has come since.
    fn write_timeline(&self) -> Result<(), TrainError> {
        let Some(path) = self.timeline else { return Ok(()) };
        if let Some(sentence) = self.trace.write(path, self.collective)? {
            self.report.note(sentence);
        }
        Ok(())
    }

    /// The results of a run that is gone on with although nothing is left to do; rank 0 knows, and tells all.
    /// Results in a folder whose run is not gone on with are another run's.
    fn complete(
        &self,
        prepared: &Prepared,
        set: &TrainSet,
        resume: bool,
    ) -> Result<Option<Value>, TrainError> {
        let steps = total_steps(&self.spec.train, set.sampler.steps_per_epoch() as u64);
        if prepared.resumed.as_ref().is_none_or(|resumed| resumed.state.step < steps) {
            return Ok(None);
        }
        let path = Path::new(&self.spec.output_dir).join("results.json");
        let text = if self.leads() && resume { std::fs::read(&path).unwrap_or_default() } else { Vec::new() };
        let found: Option<Value> = serde_json::from_slice(&text).ok();
        let known = gather(self.collective, &[found])?.into_iter().next().flatten();
        if known.is_some() && self.leads() {
            self.report.note(format!("the run is complete: its results are in {}", path.display()));
        }
        Ok(known)
    }

    /// Makes the output folder ready, on a rank that keeps checkpoints. `resume` says that the run in it is to be gone
    /// on with where there is one.
    fn open(&self, prepared: &mut Prepared, resume: bool) -> Result<Writer, TrainError> {
        let output = Path::new(&self.spec.output_dir);
        match &prepared.resumed {
            Some(resumed) => {
                resumed.rounding(self.collective.world()).into_iter().for_each(|text| self.report.note(text));
            }
            None if resume => self.report.note(format!(
                "there is no checkpoint to go on from in {}: training starts afresh",
                folder_of(output).display()
            )),
            None => {}
        }
        if resume && (prepared.resumed.is_some() || !output::holds_a_run(output)?) {
            output::go_on(self.spec)?;
        } else if let Some(moved) = output::begin(self.spec)? {
            self.report.own_note(format!("an earlier run's files were moved to {}", moved.display()));
            // The model may have been that run's: its tokenizer files are still to be copied.
            if let Ok(rest) = prepared.model_folder.strip_prefix(output)
                && moved.join(rest).is_dir()
            {
                prepared.model_folder = moved.join(rest);
            }
        }
        // Only now: until here the folder may have held another job's checkpoints.
        output::own(output, &prepared.job)?;
        let patience = Duration::from_secs_f64(self.spec.fault.patience_s);
        Writer::new(writer::Place {
            output: output.to_owned(),
            model_folder: prepared.model_folder.clone(),
            keep: self.spec.train.keep_checkpoints as usize,
            // The other ranks wait in the next step meanwhile, for all of the patience.
            wait: Deadlines::from_patience(patience).checkpoint,
        })
    }

    fn finish(
        &self,
        prepared: &Prepared,
        evaluation: Option<&Evaluation>,
        summary: &TrainSummary,
    ) -> Result<Value, TrainError> {
        let sha256 = save::weights_sha256(&prepared.network);
        let results = output::results(evaluation, Some(summary), &sha256)?;
        output::write_final_model(&prepared.network, &prepared.model_folder, self.spec, &results)?;
        if let Some(evaluation) = evaluation {
            output::write_evaluation(evaluation, self.spec)?;
            output::write_final_scalars(Path::new(&self.spec.output_dir), summary.steps, &results)?;
        }
        // Last: who sees results.json may rely on everything else being there.
        write_json(&Path::new(&self.spec.output_dir).join("results.json"), &results)?;
        Ok(results)
    }

    /// Answers the dev set, after the held-out questions where there are any: the threshold of the revised
    /// answers comes from those, else from the dev set itself.
    fn evaluate(
        &self,
        prepared: &Prepared,
        dev: &DevSet,
        label: &str,
    ) -> Result<Option<Evaluation>, TrainError> {
        let (network, pad_id) = (&prepared.network, prepared.pad_id);
        let answer = |set: &DevSet, label: &str| {
            let who = (self.collective, label);
            evaluate::evaluate(network, set, self.spec, pad_id, who, (self.report, self.stop, self.trace))
        };
        let mut tuned = None;
        if let Some(set) = &prepared.held_out {
            tuned = answer(set, format!("{label} held out").trim_start())?;
            if self.stop.is_set() {
                return Ok(None);
            }
        }
        let Some(mut evaluation) = answer(dev, label)? else { return Ok(None) };
        let threshold = match (&tuned, self.spec.eval.threshold_from.held_out_share()) {
            (Some(tuned), Some(share)) => Threshold::suggested_by(tuned, TunedOn::Train { share }),
            _ => Threshold::suggested_by(&evaluation, TunedOn::Dev),
        };
        evaluation.revision = threshold.map(|threshold| Revision::new(&evaluation, &dev.dataset, threshold));
        Ok(Some(evaluation))
    }

    /// The replaced program's second command: evaluates one checkpoint or every one, and keeps the best by
    /// the mean of exact match and F1.
    fn evaluate_checkpoints(&self, mut prepared: Prepared) -> Result<Outcome, TrainError> {
        let Some(dev) = prepared.dev.take() else {
            return Err(TrainError::Unfit("there is nothing to evaluate on: data.dev is not set".into()));
        };
        let output = Path::new(&self.spec.output_dir);
        let _claim = self.leads().then(|| output::claim(output)).transpose()?;
        let mut all = Vec::new();
        let mut best: Option<(f64, PathBuf, Evaluation, String)> = None;
        for (turn, folder) in prepared.checkpoints.iter().enumerate() {
            if turn > 0 {
                let head = head_in(self.spec, folder)?;
                let (mut network, _) =
                    load_network(folder, head, self.spec.train.seed, prepared.network.device())?;
                network.compute_in(precision(self.spec));
                prepared.network = network;
            }
            let label = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let evaluation = self.evaluate(&prepared, &dev, &label)?;
            if self.stop.is_set() {
                return Ok(Outcome::Stopped(0));
            }
            let Some(evaluation) = evaluation else { continue };
            let (exact, f1) = evaluation.headline();
            self.report.note(format!("{label}: exact {exact:.2}, f1 {f1:.2}"));
            let mut metrics = output::results(Some(&evaluation), None, "")?;
            if let Value::Object(fields) = &mut metrics {
                // Those of the best one are enough.
                fields.shift_remove(output::CURVES);
            }
            all.push(json!({"checkpoint": label, "metrics": metrics}));
            let mean = f64::midpoint(exact, f1);
            if best.as_ref().is_none_or(|(highest, ..)| mean > *highest) {
                best = Some((mean, folder.clone(), evaluation, save::weights_sha256(&prepared.network)));
            }
        }
        let Some((_, folder, evaluation, sha256)) = best else { return Ok(Outcome::Completed(None)) };
        let mut results = output::results(Some(&evaluation), None, &sha256)?;
        if let Value::Object(fields) = &mut results {
            fields.insert("best_ckpt".into(), json!(folder.display().to_string()));
            fields.insert("checkpoints".into(), Value::Array(all));
        }
        output::write_evaluation(&evaluation, self.spec)?;
        write_json(&output.join("eval").join("results.json"), &results)?;
        Ok(Outcome::Completed(Some(results)))
    }
}
