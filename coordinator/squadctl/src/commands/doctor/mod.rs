//! `squadctl doctor`: what would keep a run from working on this machine, and how long each party waits for another.

mod job;
mod machine;
mod network;
mod programs;
mod report;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use squad_proto::{Deadlines, JobSpec};

use crate::cli::{DoctorArgs, SpecArgs};
use crate::fault::{self, Verdict};
use crate::job_file::JobFile;
use crate::output::Output;

/// What came of a look at one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Finding {
    /// As it should be.
    Ok,
    /// A run works, but worse than it could, or may not work.
    Warning,
    /// A run does not work.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Check {
    /// What.
    name: &'static str,
    finding: Finding,
    /// What there is.
    text: String,
    /// What to do about it; none where all is well.
    remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, finding: Finding::Ok, text: text.into(), remedy: None }
    }

    fn warning(name: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, finding: Finding::Warning, text: text.into(), remedy: Some(remedy.into()) }
    }

    fn bad(name: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { finding: Finding::Bad, ..Self::warning(name, text, remedy) }
    }
}

/// A deadline of the table.
#[derive(Debug, Serialize)]
struct Wait {
    name: &'static str,
    seconds: f64,
    meaning: &'static str,
}

/// The document of `--output json`.
#[derive(Debug, Serialize)]
struct Document {
    /// Nothing is bad.
    ok: bool,
    workers: u32,
    checks: Vec<Check>,
    patience_s: f64,
    /// The shortest first.
    deadlines: Vec<Wait>,
}

/// Looks at this machine, and at what a spec needs of it where one is given.
pub(super) fn doctor(arguments: &DoctorArgs, output: Output) -> anyhow::Result<Verdict> {
    let mut checks = Vec::new();
    let (mut spec, mut gang) = (None, (60.0, 1));
    if let Some(path) = arguments.spec.as_deref() {
        let file = JobFile::read(&SpecArgs::of_file(path))?;
        gang = file.gang();
        match file.resolve() {
            Ok(job) => {
                checks.push(Check::ok("job spec", format!("{}: its files are there", path.display())));
                spec = Some(job.spec);
            }
            Err(error) => {
                let remedy =
                    "mend the spec, or bring the files (squadctl data prepare, squadctl models fetch)";
                checks.push(Check::bad("job spec", fault::sentence(&error).replace('\n', " "), remedy));
            }
        }
    }
    let workers = arguments.processes.unwrap_or(gang.1);
    let patience_s = arguments.patience.unwrap_or(gang.0);
    checks.extend(examine(spec.as_ref(), workers));
    let deadlines = Deadlines::from_patience(Duration::from_secs_f64(patience_s));
    let wait = |(name, wait, meaning): (_, Duration, _)| Wait { name, seconds: wait.as_secs_f64(), meaning };
    let document = Document {
        ok: checks.iter().all(|check| check.finding != Finding::Bad),
        workers,
        checks,
        patience_s,
        deadlines: deadlines.table().into_iter().map(wait).collect(),
    };
    output.answer(&document, || report::text(&document, output))?;
    Ok(if document.ok { Verdict::Done } else { Verdict::Failed })
}

fn examine(spec: Option<&JobSpec>, workers: u32) -> Vec<Check> {
    let (mut checks, probe) = programs::checks();
    checks.extend(programs::devices(probe.as_ref(), spec, workers));
    let need = spec.map(|spec| job::Need::of(spec, workers));
    checks.push(machine::cores(workers));
    checks.push(machine::memory(workers, need.as_ref()));
    checks.push(machine::shared_memory());
    checks.push(machine::open_files(workers));
    checks.push(machine::clock());
    checks.extend(network::checks());
    let disk = |spec: &JobSpec, need: &job::Need| job::disk(Path::new(&spec.output_dir), need);
    checks.extend(spec.zip(need.as_ref()).and_then(|(spec, need)| disk(spec, need)));
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use squad_collective::Waits;

    #[test]
    fn the_ring_waits_as_the_table_says() {
        for seconds in [1, 2, 10, 60, 3600] {
            let patience = Duration::from_secs(seconds);
            let (all, ring) = (Deadlines::from_patience(patience), Waits::of(patience));
            assert_eq!(ring.connect, all.connect);
            assert_eq!(ring.handshake, all.handshake);
            assert_eq!(ring.last_words, all.last_words);
            assert_eq!(ring.blame, all.blame);
        }
    }
}
