//! Downloads with checksums.
//!
//! [`download`] brings one file: resumable, verified, atomic, safe beside other processes.
//! [`fetch_repository`] brings a model from a model hub, and [`resolve_model`] turns what a job's `model`
//! says into a folder. The models that GluonNLP knew by name are in [`zoo`], every public host name is in
//! [`hosts`].
//!
//! | module | what it holds |
//! |---|---|
//! | `download`, `http`, `checksum`, `lock` | one file: resumed, verified, atomic, one process at a time |
//! | `layout` | what a model's folder holds: forms of weights, files of tokenizers |
//! | `repository`, `record` | a repository into a folder, and what the folder says about itself |
//! | `resolve`, `folders` | a job's `model` to a folder; the folders that the environment names |
//! | `squad` | the official question files |
//! | `options`, `error` | how to fetch, and what can go wrong |
#![forbid(unsafe_code)]

mod checksum;
mod download;
mod error;
mod folders;
pub mod hosts;
mod http;
mod layout;
mod lock;
mod options;
mod record;
mod repository;
mod resolve;
pub mod squad;
pub mod zoo;

pub use checksum::sha256_of;
pub use download::{Download, Outcome, download};
pub use error::FetchError;
pub use folders::model_cache;
pub use hosts::{Hub, Token};
pub use layout::{TOKENIZER_FILES, is_tokenizer, tokenizer_choices};
pub use options::{Event, FetchOptions, Patience, Progress};
pub use repository::{FetchReport, FileReport, FileState, fetch_repository};
pub use resolve::resolve_model;
