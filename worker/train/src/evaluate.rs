//! Sharded scoring: every rank scores its share of the questions, rank 0 merges the answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use squad_collective::Background;
use squad_data::batch::{collate, evaluation_batches_of, share_of_questions};
use squad_data::{
    AnswerSettings, Candidate, ConditionalScores, Dataset, Features, Metrics, Prediction, SpanScores,
    answers, score,
};
use squad_model::{Network, Scores};
use squad_proto::spec::Head;
use squad_proto::{JobSpec, Phase, Progress};
use tch::{Kind, Tensor};

use crate::curves::PrecisionRecall;
use crate::error::TrainError;
use crate::prepare::DevSet;
use crate::report::{Report, StopSignal};
use crate::room::Room;
use crate::step::micro_batch;
use crate::threshold::{Revision, TunedOn};
use crate::trace::{Activity, Trace};

/// How often ranks meet during an evaluation.
const MEETINGS: usize = 64;

/// The answers to a dev set and what they are worth.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Answers in the order of the dev file.
    pub answers: Vec<Answered>,
    /// The official figures.
    pub metrics: Metrics,
    /// Precision against recall over all thresholds; absent for version 1.1.
    pub curves: Option<PrecisionRecall>,
    /// Answers at the threshold that the spec asks for; absent for version 1.1, and until one is chosen.
    pub revision: Option<Revision>,
    /// Windows that were scored.
    pub windows: usize,
}

/// The answer to one question, as it travels between ranks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answered {
    /// The question's id.
    pub id: String,
    /// The chosen text.
    pub text: String,
    /// Candidates: text and probability.
    pub n_best: Vec<(String, f64)>,
    /// Probability that there is no answer.
    pub null_odds: f64,
}

impl From<Prediction> for Answered {
    fn from(prediction: Prediction) -> Self {
        let n_best =
            prediction.n_best.into_iter().map(|Candidate { text, probability, .. }| (text, probability));
        Self {
            id: prediction.id,
            text: prediction.text,
            n_best: n_best.collect(),
            null_odds: prediction.null_odds,
        }
    }
}

impl Evaluation {
    /// Exact match and F1 that count: at the threshold where it was tuned on held-out questions, else after
    /// the best thresholds for version 2.0, plain for 1.1.
    pub fn headline(&self) -> (f64, f64) {
        match &self.revision {
            Some(Revision { threshold, exact, f1, .. }) if threshold.tuned_on != TunedOn::Dev => {
                (*exact, *f1)
            }
            _ => (
                self.metrics.best_exact.unwrap_or(self.metrics.exact),
                self.metrics.best_f1.unwrap_or(self.metrics.f1),
            ),
        }
    }
}

/// Scores a set of questions on all ranks. Rank 0 gets the evaluation, the others `None`; so does rank 0 when a stop
/// was asked for on the way.
///
/// # Errors
/// When a rank is lost or the scores are not finite.
pub fn evaluate(
    network: &Network,
    dev: &DevSet,
    spec: &JobSpec,
    pad_id: i32,
    (collective, label): (&Background, &str),
    (report, stop, trace): (&dyn Report, &StopSignal, &Trace<'_>),
) -> Result<Option<Evaluation>, TrainError> {
    let mine = share_of_questions(&dev.features, collective.rank(), collective.world());
    let batches = evaluation_batches_of(&dev.features, &mine, spec.eval.batch_size as usize);
    let mut collected = WindowScores::default();
    let mut done = 0;
    for round in 0..MEETINGS {
        for batch in &batches[batches.len() * round / MEETINGS..batches.len() * (round + 1) / MEETINGS] {
            if stop.is_set() {
                return Ok(None);
            }
            let _score = trace.span(Activity::Score);
            let batch = collate(&dev.features, batch, pad_id, spec.data.pad_to_multiple as usize);
            let top = (i64::from(spec.eval.start_top_n), i64::from(spec.eval.end_top_n));
            collected.score(network, &batch, top)?;
            done += batch.rows;
            report.tick(Phase::Evaluate, done as u64, mine.len() as u64);
            if collective.rank() == 0 {
                let mut progress = Progress::new(Phase::Evaluate, done as u64, mine.len() as u64);
                progress.label = label.into();
                report.progress(progress);
            }
        }
        // Ranks differ in speed: meeting now and then keeps the fast one's wait below the ring's patience.
        let _meet = trace.span(Activity::Meet);
        collective.run(|c| c.barrier())?;
    }
    if collected.in_pieces() {
        report.own_note(
            "memory ran out in the evaluation, so batches were scored in pieces, which changes no answer; a smaller \
             eval.batch_size does the same from the start"
                .into(),
        );
    }
    let settings = answer_settings(spec);
    let predictions = collected.predict(&dev.dataset, &dev.features, &settings, spec.head == Head::Span)?;
    let own: Vec<Answered> = predictions.into_iter().map(Answered::from).collect();
    let meet = trace.span(Activity::Meet);
    let all = gather(collective, &own)?;
    drop(meet);
    Ok((collective.rank() == 0).then(|| merge(dev, spec, all)))
}

/// How answers are chosen: the span head abstains as Hugging Face's example does, the conditional head
/// never, as in the replaced program. The threshold search follows either way.
pub fn answer_settings(spec: &JobSpec) -> AnswerSettings {
    let abstains = spec.data.version == "2.0" && spec.head == Head::Span;
    AnswerSettings {
        n_best: spec.eval.n_best as usize,
        max_answer_length: spec.eval.max_answer_length as usize,
        null_threshold: abstains.then_some(0.5),
    }
}

/// Everybody's items, in the order of ranks.
pub fn gather<T: Serialize + for<'a> Deserialize<'a>>(
    collective: &Background,
    own: &[T],
) -> Result<Vec<T>, TrainError> {
    let internal = |e: serde_json::Error| TrainError::Internal(format!("gathering: {e}"));
    let bytes = serde_json::to_vec(own).map_err(internal)?;
    let parts = collective.run(move |c| c.gather_bytes(bytes))?;
    let mut all = Vec::new();
    for part in parts {
        all.extend(serde_json::from_slice::<Vec<T>>(&part).map_err(internal)?);
    }
    Ok(all)
}

fn merge(dev: &DevSet, spec: &JobSpec, answered: Vec<Answered>) -> Evaluation {
    let mut by_id: BTreeMap<String, Answered> = answered.into_iter().map(|a| (a.id.clone(), a)).collect();
    let answers: Vec<Answered> = dev.dataset.questions.iter().filter_map(|q| by_id.remove(&q.id)).collect();
    let predictions: BTreeMap<String, String> =
        answers.iter().map(|a| (a.id.clone(), a.text.clone())).collect();
    let null_odds: Vec<(String, f64)> = answers.iter().map(|a| (a.id.clone(), a.null_odds)).collect();
    let abstaining = spec.data.version == "2.0";
    let null_odds = abstaining.then_some(&null_odds[..]);
    let scores = score::Scores::of(&dev.dataset, &predictions);
    // With a threshold of 1 nobody abstains beyond what the predictions say: the official default.
    let metrics = scores.metrics(null_odds, 1.0);
    let curves = null_odds.and_then(|null_odds| scores.curves(null_odds));
    let curves = curves.as_ref().map(PrecisionRecall::from);
    Evaluation { answers, metrics, curves, revision: None, windows: dev.features.len() }
}

/// Scores of windows, as the data crate wants them.
#[derive(Debug, Default)]
pub struct WindowScores {
    span: Vec<SpanScores>,
    conditional: Vec<ConditionalScores>,
    room: Room,
}

impl WindowScores {
    /// Scores a batch, in pieces where memory does not suffice. `top` is how many starts, and ends for each, the
    /// conditional head gives.
    ///
    /// # Errors
    /// When memory does not suffice for one window.
    pub fn score(
        &mut self,
        network: &Network,
        batch: &squad_data::Batch,
        top: (i64, i64),
    ) -> Result<(), TrainError> {
        let mut room = self.room;
        let scored = room.in_pieces(batch, |piece| {
            let part = piece.of(batch, false);
            let scores = network.scores(&micro_batch(&part, network.device()).inputs, top);
            piece.take(0, || {
                self.add(&part, scores);
                Ok(())
            })
        });
        self.room = room;
        scored
    }

    /// Whether memory ran out on the way.
    pub fn in_pieces(&self) -> bool {
        self.room.has_run_out()
    }

    /// Answers every question that has scores; `span` says which head they come from.
    ///
    /// # Errors
    /// When a score is not a number.
    pub fn predict(
        self,
        dataset: &Dataset,
        features: &Features,
        settings: &AnswerSettings,
        span: bool,
    ) -> Result<Vec<Prediction>, TrainError> {
        Ok(if span {
            answers::predict_span(dataset, features, settings, self.span)?
        } else {
            answers::predict_conditional(dataset, features, settings, self.conditional)?
        })
    }

    fn add(&mut self, batch: &squad_data::Batch, scores: Scores) {
        match scores {
            Scores::Span { start, end } => {
                let (start, end) = (rows(&start), rows(&end));
                for (row, (start, end)) in start.into_iter().zip(end).enumerate() {
                    let length = batch.lengths[row] as usize;
                    self.span.push(SpanScores {
                        feature: batch.features[row],
                        start: start[..length].to_vec(),
                        end: end[..length].to_vec(),
                    });
                }
            }
            Scores::Conditional { start, start_index, end, end_index, no_answer } => {
                let ends_per_start = end.size()[2] as usize;
                let flat = |t: &Tensor| t.flatten(1, -1);
                let starts: Vec<Vec<(usize, f32)>> = pairs(&start_index, &start);
                let ends: Vec<Vec<(usize, f32)>> = pairs(&flat(&end_index), &flat(&end));
                let no_answer = vector(&no_answer);
                for (row, (starts, ends)) in starts.into_iter().zip(ends).enumerate() {
                    // Candidates at forbidden positions, in windows with few allowed ones.
                    let possible = |(_, p): &(usize, f32)| p.is_finite();
                    let (starts, ends) = starts
                        .into_iter()
                        .zip(ends.chunks(ends_per_start))
                        .filter(|(start, _)| possible(start))
                        .map(|(start, ends)| {
                            (start, ends.iter().copied().filter(possible).collect::<Vec<_>>())
                        })
                        .unzip();
                    self.conditional.push(ConditionalScores {
                        feature: batch.features[row],
                        starts,
                        ends,
                        no_answer: no_answer[row],
                    });
                }
            }
        }
    }
}

/// A vector of floats out of a `[N]` tensor.
fn vector(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_kind(Kind::Float).contiguous();
    let mut values = vec![0.0; tensor.numel()];
    let count = values.len();
    tensor.copy_data(&mut values, count);
    values
}

/// The rows of a `[B, N]` tensor.
fn rows(tensor: &Tensor) -> Vec<Vec<f32>> {
    let width = tensor.size()[1].max(1) as usize;
    vector(tensor).chunks(width).map(<[f32]>::to_vec).collect()
}

/// The rows of `[B, N]` positions and values, paired. Positions are below 2^24, so floats hold them.
fn pairs(index: &Tensor, value: &Tensor) -> Vec<Vec<(usize, f32)>> {
    rows(index)
        .into_iter()
        .zip(rows(value))
        .map(|(index, value)| index.into_iter().map(|i| i as usize).zip(value).collect())
        .collect()
}
