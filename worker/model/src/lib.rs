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
//! | `family` | what the architectures differ in, and the names in their files |
//! | [`config`] | `config.json`, read strictly |
//! | `embeddings`, `layer`, `attention` | what five families share |
//! | [`products`] | matrix products in 16-bit formats |
//! | `mobilebert` | what the sixth has of its own |
//! | [`stage`] | flat storage, leaf views, layout hash |
//! | [`dropout`] | dropout from derived seeds |
//! | [`inputs`] | a batch as tensors |
//! | `packing` | a batch without its padding |
//! | [`network`] | the stages of a model in order, and how each runs |
//! | [`heads`] | `span` and `conditional` |
//! | [`load`], [`save`] | Hugging Face files to stages and back |
#![forbid(unsafe_code)]

mod attention;
pub mod config;
pub mod dropout;
mod embeddings;
pub mod error;
mod family;
pub mod heads;
mod init;
pub mod inputs;
mod layer;
pub mod load;
mod mobilebert;
pub mod network;
mod packing;
pub mod products;
pub mod save;
pub mod stage;

pub use config::{ConfigFile, EncoderConfig};
pub use dropout::Noise;
pub use error::ModelError;
pub use heads::{HeadKind, Loss, LossForm, Scores};
pub use inputs::{Inputs, Targets};
pub use load::{LoadReport, load_network};
pub use network::{Dropout, Network, Precision, StageSize, count_parameters, stage_sizes};
pub use packing::Packing;
pub use squad_weights::Family;
pub use stage::{Param, Stage};
