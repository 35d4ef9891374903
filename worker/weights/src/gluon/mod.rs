//! The replaced program's models as Hugging Face's.
//!
//! GluonNLP keeps a model as a `.params` file, which [`crate::read`] reads, and a configuration, `model.yml`.
//! Parameters are named after its own layers; query, key and value are one matrix.
//!
//! | module | what it holds |
//! |---|---|
//! | [`family`] | the architectures, and how their names tell them apart |
//! | [`names`] | the names of every parameter on both sides |
//! | [`rename`] | tensors under their new names |
//! | [`config`] | `model.yml` as `config.json` |
//! | [`mod@convert`] | a folder in Hugging Face layout |
//!
//! The tokenizer's files are the same on both sides and are not touched.

pub mod config;
pub mod convert;
pub mod family;
pub mod names;
pub mod rename;

pub use config::config_json;
pub use convert::{ConvertReport, convert};
pub use family::Family;
pub use rename::{Head, Renamed, hugging_face};
