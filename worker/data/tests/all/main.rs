//! Tests of squad-data as its users see it: one binary, one module per station.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests fail the test by panicking, and a skipped test must say so"
)]

mod answers;
mod batches;
mod feature_cache;
mod features;
mod fixture;
mod golden;
mod reader;
mod sampler;
mod score;
mod score_golden;
mod score_properties;
mod shared_data;
mod split;
mod stats;
mod tokenizer;
mod tokenizer_files;
mod tokenizer_golden;
mod tokenizer_properties;
