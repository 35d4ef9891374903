//! Names of things: jobs, generations, ranks.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Identifies a job: its name and a random suffix, such as `quickstart-7f3a9c`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub String);

impl JobId {
    /// The identifier of a job named `name`, made unique by `suffix`.
    pub fn new(name: &str, suffix: &str) -> Self {
        Self(format!("{name}-{suffix}"))
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One life of a job's gang of workers, from 1. Messages of older generations are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl Generation {
    /// The first life of a job.
    pub const FIRST: Self = Self(1);

    /// How often the gang was restarted before this life.
    pub fn restarts(self) -> u32 {
        self.0.saturating_sub(1)
    }

    /// The life after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A worker's number in its gang, `0..world`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rank(pub u32);

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What every message carries, so that none of another job or an older life changes anything.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fence {
    /// The job.
    pub job: JobId,
    /// Its life.
    pub generation: Generation,
}
