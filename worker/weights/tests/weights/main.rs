//! Weights of every form, read, converted and written; scripts/golden_weights.py made them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod common;
mod gluon;
mod reading;
mod writing;
