//! `mpirun squad-worker join --spec F --rendezvous DIR`: rank 0 runs `squadctl run --external`, which holds the
//! coordinator of this one job; all ranks find its ticket in a folder that they share.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::place::Place;
use super::{Ended, JoinArgs, attend, exit_code};

/// How long squadctl may take to print the results and end once the job has. Fixed: longer than squadctl's own waits
/// for its coordinator, and nothing is lost by then.
const FAREWELL: Duration = Duration::from_secs(15);

/// Attends to this process's ranks; rank 0 runs the coordinator beside.
pub(super) async fn join(
    args: &JoinArgs,
    (folder, spec): (&Path, &Path),
    place: Place,
    threads: usize,
    leave: watch::Receiver<bool>,
) -> anyhow::Result<ExitCode> {
    let ticket = folder.join(ticket_name(|name| std::env::var(name).ok()));
    let source = args.source(ticket.clone(), true);
    if place.rank != 0 {
        return Ok(exit_code(&attend(place, threads, false, (source, leave)).await?));
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut coordinator = start(spec, &ticket, place.world, &args.run)?;
    let mut asked = leave.clone();
    let attending = attend(place, threads, false, (source, leave));
    let mut attending = std::pin::pin!(attending);
    let early = tokio::select! {
        ended = &mut attending => ended.map(Some)?,
        status = coordinator.wait() => {
            // A spec that it refuses, say. What it was told stands above.
            let status = status.context("cannot wait for squadctl")?;
            if !status.success() {
                return Ok(code_of(status));
            }
            None
        }
        _ = asked.wait_for(|asked| *asked) => None,
    };
    let ended = match early {
        Some(ended) => ended,
        None => {
            terminate(&coordinator);
            attending.await?
        }
    };
    if ended == Ended::Left {
        terminate(&coordinator);
    }
    match tokio::time::timeout(FAREWELL, coordinator.wait()).await {
        Ok(status) => Ok(code_of(status.context("cannot wait for squadctl")?)),
        Err(_) => bail!("the job has ended, but squadctl has not within {} s", FAREWELL.as_secs()),
    }
}

/// The ticket's name, another one for each launch where the launcher gives launches names.
fn ticket_name(get: impl Fn(&str) -> Option<String>) -> String {
    let launch =
        ["PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "SLURM_STEP_ID"].iter().find_map(|name| get(name));
    let parts = [get("SLURM_JOB_ID"), launch];
    let name: Vec<String> = parts.into_iter().flatten().collect();
    let tidy = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    match name.is_empty() {
        true => "squad-ticket".into(),
        false => format!("squad-ticket-{}", name.join("-").chars().map(tidy).collect::<String>()),
    }
}

fn start(spec: &Path, ticket: &Path, world: u32, further: &[String]) -> anyhow::Result<Child> {
    let own = std::env::current_exe().context("cannot tell where squad-worker is")?;
    let squadctl = own.with_file_name("squadctl");
    if !squadctl.is_file() {
        bail!("rank 0 runs the job's coordinator, but there is no {}", squadctl.display());
    }
    let program = squadctl.display().to_string();
    let mut command = Command::new(squadctl);
    command.arg("run").arg(spec).arg("--np").arg(world.to_string()).arg("--external");
    command.arg("--ticket-file").arg(ticket).arg("--ends-with-parent").args(further);
    // A group of its own: the launcher's signals come to this process, which passes them on once.
    command.process_group(0).kill_on_drop(true);
    command.spawn().with_context(|| format!("cannot start {program}"))
}

fn terminate(coordinator: &Child) {
    if let Some(pid) = coordinator.id() {
        // It may have ended already.
        kill(Pid::from_raw(pid as i32), Signal::SIGTERM).ok();
    }
}

fn code_of(status: std::process::ExitStatus) -> ExitCode {
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_launch_has_its_own_ticket() {
        let name = |variables: &[(&str, &str)]| {
            ticket_name(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        assert_eq!(name(&[]), "squad-ticket");
        assert_eq!(name(&[("PMIX_NAMESPACE", "1234/1")]), "squad-ticket-1234-1");
        assert_eq!(name(&[("SLURM_JOB_ID", "7"), ("SLURM_STEP_ID", "2")]), "squad-ticket-7-2");
        assert!(
            !std::path::PathBuf::from(name(&[("PMIX_NAMESPACE", "../x")]))
                .components()
                .any(|c| c.as_os_str() == "..")
        );
    }
}
