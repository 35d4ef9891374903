//! SQuAD data, from the question file to the score.
//!
//! The way of the data, one module per station:
//!
//! 1. [`squad`] reads a SQuAD 1.1 or 2.0 file and checks every answer offset, [`split`] holds a part out;
//! 2. [`tokenizer`] turns text into sub-word ids with offsets in code points;
//! 3. [`features`] cuts every context into windows ([`windows`]), joins them with the
//!    question ([`layout`]) and finds the gold answer's token positions ([`gold`]);
//! 4. [`sampler`] orders an epoch, and [`batch`] pads the chosen features;
//! 5. [`answers`] turns the model's scores into texts;
//! 6. [`score`] is the official metric, and [`baseline`] the best constant rule
//!    to hold a model against; [`stats`] counts and measures a file.
//!
//! Every text position in this crate is counted in **Unicode code points**, as
//! SQuAD's `answer_start` is; bytes appear only inside functions ([`text`]).
//!
//! This crate links no libtorch and opens no network connection. Its only `unsafe` maps the file of features that
//! the ranks of a host share.

pub mod answers;
pub mod baseline;
pub mod batch;
pub mod error;
pub mod features;
pub mod gold;
pub mod layout;
pub mod normalise;
pub mod sampler;
pub mod score;
pub mod split;
pub mod squad;
pub mod stats;
pub mod text;
pub mod tokenizer;
pub mod windows;

pub use answers::{AnswerSettings, Candidate, ConditionalScores, Prediction, SpanScores};
pub use batch::Batch;
pub use error::DataError;
pub use features::{
    Feature, FeatureCache, FeatureCounts, FeatureSettings, Features, Opened, Origin, Purpose,
};
pub use layout::PairLayout;
pub use sampler::{BatchSize, Cursor, Sampler, Step, TokenBudget};
pub use score::Metrics;
pub use squad::{Answer, Dataset, Question};
pub use tokenizer::Tokenizer;
pub use windows::Window;
