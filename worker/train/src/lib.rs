//! The training recipe: what happens between a valid spec and a fine-tuned model.
//!
//! ```text
//! prepare ─► Prepared{network, features} ─► (rendezvous, ring) ─► run ─► Outcome
//!                                                                  │
//!    each step: sampler ─► forward, stage by stage ─► loss ─► backward walked from the head down,
//!    each stage's gradient handed to the all-reduce while the next is differentiated ─► clip ─► AdamW
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`trainer`] | the loop; the file to read first |
//! | [`mod@step`], [`loss_scale`] | one optimizer step; the factor on the loss in half precision |
//! | [`backward`] | forward and backward of one micro-batch, stage by stage |
//! | [`portion`], [`prefetch`] | what a rank computes in a step, and the thread that makes it beforehand |
//! | [`engine`], [`device`] | the stepper of the network's device; steps on a GPU |
//! | [`bucket`] | gradient memory that libtorch writes and the ring reads (the crate's `unsafe`) |
//! | [`touched`] | which rows of the word-embedding table a step touches |
//! | [`header`] | loss sums and stop votes that ride along with the first bucket |
//! | [`adamw`], [`schedule`] | the optimizer on flat memory; the learning rate as a function of the step |
//! | [`log`], [`tensorboard`] | sums over steps: metrics.jsonl, event files, reports, the summary |
//! | [`mod@prepare`] | files to network and features |
//! | [`curves`] | precision against recall, as results.json has it |
//! | [`evaluate`] | sharded scoring, predictions, metric |
//! | [`threshold`] | the threshold between an answer and none, and the answers at it |
//! | [`checkpoint`], [`resume`], [`output`] | what is written, how it stays whole, and how a run goes on from it |
//! | [`contents`] | what a rank read, to be compared with what others did |
//! | [`storage`] | which ranks see the same output folder |
//! | [`trace`] | what a rank is doing; the timeline of all ranks |
//! | [`memory`], [`room`] | when memory runs out: what to say; micro-batches in pieces |
//! | [`mod@plan`], [`mod@measure`] | what a job will need; steps that are taken to be timed |
//! | [`report`] | progress to whoever listens, and the wish to stop |
//! | [`verify`] | a network held against another program's values |
//! | [`mod@run`] | a job from Begin to its results |

pub mod adamw;
pub mod backward;
pub mod bucket;
pub mod checkpoint;
pub mod contents;
pub mod curves;
pub mod device;
pub mod engine;
pub mod error;
pub mod evaluate;
pub mod header;
pub mod log;
pub mod loss_scale;
pub mod measure;
pub mod memory;
pub mod output;
pub mod plan;
pub mod portion;
pub mod prefetch;
pub mod prepare;
pub mod report;
pub mod resume;
pub mod room;
pub mod run;
pub mod schedule;
pub mod step;
pub mod storage;
pub mod tensorboard;
pub mod threshold;
pub mod touched;
pub mod trace;
pub mod trainer;
pub mod verify;

pub use error::TrainError;
pub use prepare::{Prepared, prepare, prepare_on};
pub use report::{Report, StopSignal};
pub use resume::Origin;
pub use run::{Outcome, run};
