//! Failure reports: one root cause, where it happened, and what to do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::event::Phase;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal;)+) => {
        /// Stable names of kinds of failure. `codes/` has a page for each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum FailureCode {
            $($(#[doc = $doc])+ #[serde(rename = $code)] $name,)+
        }

        impl FailureCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The code as users see it, such as `SQ-004`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code),+ }
            }

            /// The page that explains the code: meaning, cause, remedy.
            pub fn page(self) -> &'static str {
                match self { $(Self::$name => include_str!(concat!("../codes/", $code, ".md"))),+ }
            }
        }
    };
}

codes! {
    /// The data files cannot be used.
    Data = "SQ-001";
    /// The model's folder or files cannot be used.
    Model = "SQ-002";
    /// The output folder cannot be written.
    Output = "SQ-003";
    /// A worker process ended without saying why.
    WorkerDied = "SQ-004";
    /// A worker was silent for too long.
    WorkerStalled = "SQ-005";
    /// A connection between workers failed.
    Collective = "SQ-006";
    /// The loss or the gradients are no longer finite.
    NotFinite = "SQ-007";
    /// Ranks disagree about parameters or data.
    Disagreement = "SQ-008";
    /// A worker could not be started.
    Launch = "SQ-009";
    /// The coordinator went away.
    CoordinatorLost = "SQ-010";
    /// A run cannot be gone on with from its checkpoints.
    Checkpoint = "SQ-011";
    /// The GPU that was asked for cannot be used.
    Device = "SQ-012";
    /// Memory ran out.
    OutOfMemory = "SQ-013";
    /// Nothing above: a defect of Squadron.
    Internal = "SQ-099";
}

impl FailureCode {
    /// Whether the same job may succeed when it is started again as it is: a process or a connection was lost,
    /// nothing that the job was given is wrong.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::WorkerDied | Self::WorkerStalled | Self::Collective)
    }

    /// What a user can do, in one sentence.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Data => "mend the data file that is named, or point data.train / data.dev elsewhere",
            Self::Model => {
                "check the model folder: config.json, model.safetensors and tokenizer.json must be whole"
            }
            Self::Output => "check that output_dir is writable and the disk is not full",
            Self::WorkerDied => {
                "read the worker's last lines (squadctl logs); killed by signal 9 often means out of memory"
            }
            Self::WorkerStalled => {
                "look for a stopped or starved machine; raise fault.patience_s if steps take this long"
            }
            Self::Collective => "look at the rank that is named and at the network between the hosts",
            Self::NotFinite => "lower train.learning_rate, or raise the warm-up",
            Self::Disagreement => "give all workers the same files and the same version of Squadron",
            Self::Launch => {
                "check that the worker program is there and can be executed (squad-worker --version)"
            }
            Self::CoordinatorLost => {
                "start the daemon again with the same --state, or the job with --resume: its workers left a checkpoint"
            }
            Self::Checkpoint => {
                "give the run the settings and the training file that it began with, or start afresh without --resume"
            }
            Self::Device => {
                "squad-worker probe shows what is there; or compute on the CPU with resources.device: cpu"
            }
            Self::OutOfMemory => {
                "lower train.batch_size (or data.tokens_per_batch) and raise train.accumulate as much, which keeps the global \
                 batch; or set train.recompute: true"
            }
            Self::Internal => "please report it with the log of the rank",
        }
    }
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FailureCode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("{text} is not a failure code; codes are SQ-001 to SQ-013 and SQ-099"))
    }
}

/// Why a job, or one of its ranks, failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureReport {
    /// The kind.
    pub code: FailureCode,
    /// One sentence: what happened, and where.
    pub summary: String,
    /// The rank it happened to, when it is one rank's.
    #[serde(default)]
    pub rank: Option<u32>,
    /// What that rank was doing.
    #[serde(default)]
    pub phase: Option<Phase>,
    /// Its optimizer step.
    #[serde(default)]
    pub step: Option<u64>,
    /// What the user can do.
    pub remedy: String,
    /// The last lines of that rank's standard error.
    #[serde(default)]
    pub stderr_tail: Vec<String>,
    /// True when it follows from another rank's failure, so that blame lies elsewhere.
    #[serde(default)]
    pub secondary: bool,
}

impl FailureReport {
    /// A report with the code's usual remedy.
    pub fn new(code: FailureCode, summary: impl Into<String>) -> Self {
        Self {
            code,
            summary: summary.into(),
            rank: None,
            phase: None,
            step: None,
            remedy: code.remedy().into(),
            stderr_tail: Vec::new(),
            // A broken ring is nearly always the echo of a peer's death; so is a lost coordinator.
            secondary: matches!(code, FailureCode::Collective),
        }
    }

    /// The same, said of a rank.
    pub fn of_rank(mut self, rank: u32) -> Self {
        self.rank = Some(rank);
        self
    }
}

impl fmt::Display for FailureReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(rank) = self.rank {
            write!(f, " rank {rank}")?;
        }
        if let Some(phase) = self.phase {
            write!(f, " in {phase}")?;
        }
        if let Some(step) = self.step {
            write!(f, " at step {step}")?;
        }
        write!(f, ": {}", self.summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_that_starts_with_its_name() {
        for code in FailureCode::ALL {
            let page = code.page();
            assert!(page.starts_with(&format!("# {code}")), "{code}");
            for section in ["## Meaning", "## Usual causes", "## What to do"] {
                assert!(page.contains(section), "{code} lacks {section}");
            }
        }
    }

    #[test]
    fn codes_parse_back() {
        for code in FailureCode::ALL {
            assert_eq!(code.as_str().parse::<FailureCode>().as_ref(), Ok(code));
        }
        assert!("SQ-500".parse::<FailureCode>().is_err());
    }
}
