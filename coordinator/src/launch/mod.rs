//! Starting worker processes.
//!
//! A launcher only starts and kills; the worker itself says when it is there, and its end arrives as an
//! event. The pipe to its standard input carries the ticket and stays open: when this process dies, however
//! it dies, the worker sees the end.

mod lines;
mod local;

pub(crate) use local::{Launched, LocalLauncher};
