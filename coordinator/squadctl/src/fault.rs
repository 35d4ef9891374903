//! How a command ends.

use std::process::ExitCode;

use squad_proto::spec::{OverrideError, SpecError};
use thiserror::Error;

/// How a command that ran to its end went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// What was asked for is done.
    Done,
    /// The command worked, the job or check did not.
    Failed,
    /// Somebody pressed Ctrl-C.
    Interrupted,
    /// A child process, to which the command was handed on, ended with this code.
    Passed(u8),
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Done => Self::SUCCESS,
            Verdict::Failed => Self::from(1),
            Verdict::Interrupted => Self::from(130),
            Verdict::Passed(code) => Self::from(code),
        }
    }
}

/// Something that the user wrote cannot work: exit code 2.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct BadUsage(pub(crate) String);

/// The exit code of an error: 2 when the fault is in the arguments or the spec, 1 otherwise.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    let usage = error.chain().any(|e| e.is::<BadUsage>() || e.is::<SpecError>() || e.is::<OverrideError>());
    if usage { 2 } else { 1 }
}

/// An error and its causes in one text. Some errors name their cause already; it is not said twice.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        if text.is_empty() {
            cause
        } else if text.contains(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn usage_is_two_and_all_else_one() {
        let usage = anyhow::Error::from(BadUsage("no such file".into())).context("reading job.yaml");
        assert_eq!(exit_code(&usage), 2);
        assert_eq!(exit_code(&OverrideError::Form("x".into()).into()), 2);
        assert_eq!(exit_code(&anyhow!("the daemon went away")), 1);
    }

    #[test]
    fn a_cause_is_said_once() {
        let io = || std::io::Error::other("disk full");
        assert_eq!(
            sentence(&Err::<(), _>(io()).context("cannot write a").unwrap_err()),
            "cannot write a: disk full"
        );
        let said = Err::<(), _>(io()).context("cannot write a: disk full").unwrap_err();
        assert_eq!(sentence(&said), "cannot write a: disk full");
    }
}
