//! Steps, windows, tokens and bytes of a run: counted in the order in which training will take them.

use squad_collective::Rows;
use squad_proto::JobSpec;
use squad_proto::plan::{Exchange, Work};
use squad_proto::spec::{Compression, EmbeddingGradients};

use super::flops::Flops;
use crate::header::StepHeader;
use crate::portion::touched_rows;
use crate::prepare::TrainSet;
use crate::schedule::total_steps;
use crate::touched::Table;

/// Epochs that are counted step by step; each further one is taken for their mean.
const COUNTED: u64 = 4;

/// What a step's gradients are.
#[derive(Clone, Copy, Debug)]
pub struct Gradients {
    /// Trained parameters.
    pub trained: u64,
    /// The word-embedding table, where it is trained and its rows can travel alone.
    pub table: Option<Table>,
    /// How it travels.
    pub travel: EmbeddingGradients,
    /// How floats travel between hosts, and over TCP.
    pub compression: Compression,
    /// Processes.
    pub workers: u32,
}

impl Gradients {
    /// Bytes of all of them, with the step's header.
    fn dense(&self) -> u64 {
        4 * (self.trained + StepHeader::LEN as u64)
    }

    /// Bytes of a step that touches these rows.
    fn bytes(&self, rows: Option<&Rows>) -> u64 {
        let left_out = rows.map_or(0, |rows| rows.table_elements() - rows.elements());
        if self.workers == 1 { 0 } else { self.dense() - 4 * left_out as u64 }
    }

    /// What is summed in a step, where `rows` and `bytes` are means, and `run` is the sum of a run.
    pub fn exchange(&self, rows: Option<f64>, bytes: Option<f64>, run: Option<u64>) -> Exchange {
        let bytes = bytes.unwrap_or_else(|| self.bytes(None) as f64);
        // The header is never rounded.
        let header = 4.0 * StepHeader::LEN as f64;
        let rounded =
            (self.compression != Compression::None).then(|| ((bytes - header) / 2.0 + header).max(0.0));
        let workers = f64::from(self.workers);
        Exchange {
            dense_bytes: self.dense(),
            touched_rows: rows,
            bytes,
            compressed_bytes: rounded.filter(|_| self.workers > 1),
            sent_bytes: 2.0 * (workers - 1.0) / workers * rounded.unwrap_or(bytes),
            run_bytes: run,
        }
    }
}

/// Counts a run over `set`, whose padding is computed or not.
pub fn count(
    spec: &JobSpec,
    (set, pad_id): (&TrainSet, i32),
    (flops, computes_padding): (&Flops, bool),
    gradients: &Gradients,
) -> (Work, Exchange) {
    let per_epoch = set.sampler.steps_per_epoch() as u64;
    let steps = total_steps(&spec.train, per_epoch);
    let counted = steps.min(COUNTED * per_epoch);
    let multiple = spec.data.pad_to_multiple.max(1) as usize;
    let (mut examples, mut tokens, mut padded, mut bytes) = (0u64, 0u64, 0u64, 0u64);
    let (mut operations, mut touched) = (0.0, 0u64);
    for step in 0..counted {
        let plan = set.sampler.step(step as usize);
        for windows in &plan.micro_batches {
            let lengths = || windows.iter().map(|window| set.features.length(*window));
            let width = lengths().max().unwrap_or(0).next_multiple_of(multiple) as u64;
            examples += windows.len() as u64;
            tokens += lengths().sum::<usize>() as u64;
            padded += windows.len() as u64 * width;
            operations += if computes_padding {
                flops.training(windows.len() as u64, width)
            } else {
                lengths().map(|length| flops.training(1, length as u64)).sum()
            };
        }
        let rows = gradients.table.and_then(|table| {
            touched_rows((&table, gradients.travel), &set.features, (&plan.micro_batches, pad_id)).ok()
        });
        touched += rows.as_ref().map_or(0, |rows| rows.count() as u64);
        bytes += gradients.bytes(rows.as_ref());
    }
    let whole = |sum: u64| (sum as f64 * steps as f64 / counted as f64).round() as u64;
    let whole = |sum: u64| if steps == counted { sum } else { whole(sum) };
    let (tokens, padded_tokens) = (whole(tokens), whole(padded));
    let work = Work {
        windows: set.features.len() as u64,
        steps_per_epoch: per_epoch,
        steps,
        examples: whole(examples),
        tokens,
        padded_tokens,
        padding: 1.0 - tokens as f64 / padded_tokens.max(1) as f64,
        flops: operations * steps as f64 / counted as f64,
    };
    let mean = |sum: u64| sum as f64 / counted as f64;
    let rows = gradients.table.map(|_| mean(touched));
    (work, gradients.exchange(rows, Some(mean(bytes)), Some(whole(bytes))))
}
