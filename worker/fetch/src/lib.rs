//! Downloads with checksums.
//!
//! [`download`] brings one file: resumable, verified, atomic, safe beside other processes.
//! [`fetch_repository`] brings a model from a model hub, and [`resolve_model`] turns what a job's `model`
//! says into a folder. Every public host name is in [`hosts`].
#![forbid(unsafe_code)]

mod checksum;
mod download;
mod error;
pub mod hosts;
mod http;
mod lock;
mod options;
mod record;
mod repository;

pub use checksum::sha256_of;
pub use download::{Download, Outcome, download};
pub use error::FetchError;
pub use hosts::{Hub, Token};
pub use options::{Event, FetchOptions, Patience, Progress};
pub use repository::{FetchReport, FileReport, FileState, fetch_repository, resolve_model};
