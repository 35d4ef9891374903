//! `run -H`: workers on several machines, started by Open MPI's mpirun.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use squad_coordinator::find_worker_program;
use tokio::process::{Child, Command};

use crate::cli::Hosts;

/// Finds `mpirun` on the PATH.
///
/// # Errors
/// When it is not installed.
pub(super) fn find() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("mpirun")).find(|file| file.is_file());
    found.context(
        "-H starts workers with mpirun, which is not on the PATH: install Open MPI (Debian: openmpi-bin), or start \
         the workers yourself (--external)",
    )
}

/// Starts the workers of a ticket.
///
/// # Errors
/// When mpirun or the worker program cannot be started.
pub(super) fn start(mpirun: &Path, hosts: &Hosts, processes: u32, ticket: &Path) -> anyhow::Result<Child> {
    let worker = find_worker_program()?;
    if processes > hosts.slots() {
        bail!("{processes} workers do not fit on {hosts}, which has {} slots", hosts.slots());
    }
    let mut command = Command::new(mpirun);
    command.arg("-np").arg(processes.to_string()).arg("-H").arg(hosts.to_string());
    // Each worker's threads share its machine's cores; a rank bound to one core would have one.
    command.args(["--bind-to", "none"]).arg(&worker).arg("join").arg("--ticket").arg(ticket).arg("--quiet");
    if std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
        // Whoever runs this as root has decided so already.
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    }
    // Standard output is for results.
    command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0).kill_on_drop(true);
    command.spawn().with_context(|| format!("cannot start {}", mpirun.display()))
}
