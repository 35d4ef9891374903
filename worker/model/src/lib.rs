//! BERT-family encoders and question-answering heads on flat parameter stages.
//!
//! A [`Stage`] is a run of parameters in one flat tensor: the embeddings, one encoder layer, or the head.
//! It is at once the unit of the backward walk, the gradient bucket that is all-reduced, and the unit of
//! the optimizer's state. A [`Network`] is a list of stages and the functions that run them:
//!
//! ```text
//! Inputs ─► embeddings ─► layer 0 ─► … ─► layer L-1 ─► head ─► loss or scores
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | `config.json`, read strictly |
//! | [`stage`] | flat storage, leaf views, layout hash |
//! | [`dropout`] | dropout from derived seeds |
//! | [`inputs`] | a batch as tensors |
//! | [`network`] | the stages of a model in order, and how each runs |
//! | [`heads`] | `span` and `conditional` |
//! | [`load`], [`save`] | Hugging Face files to stages and back |
#![forbid(unsafe_code)]

pub mod config;
pub mod dropout;
mod embeddings;
mod encoder;
pub mod error;
pub mod heads;
mod init;
pub mod inputs;
pub mod load;
pub mod network;
pub mod save;
pub mod stage;

pub use config::EncoderConfig;
pub use dropout::Noise;
pub use error::ModelError;
pub use heads::{HeadKind, Loss, LossForm, Scores};
pub use inputs::{Inputs, Targets};
pub use load::{LoadReport, load_network};
pub use network::{Dropout, Network};
pub use stage::{Param, Stage};
