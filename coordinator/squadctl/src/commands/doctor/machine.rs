//! Cores, memory, limits, the clock.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::statvfs::statvfs;
use rustix::process::{Resource, getrlimit};
use squad_proto::MemoryGroup;
use squad_proto::plan::PROGRAM_BYTES;

use super::Check;
use super::job::Need;
use crate::sizes::approximate as size;

/// Room that NCCL's ranks of one machine want for what they pass each other.
const NCCL_SHARED: u64 = 64 << 20;
/// Open files of a coordinator with no worker, with room.
const FILES: u64 = 64;
/// Open files for each worker: its pipes, its log, its connections.
const FILES_PER_WORKER: u64 = 8;

/// A file of the system's, if it can be read.
fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn counted(workers: u32) -> String {
    if workers == 1 { "1 worker".into() } else { format!("{workers} workers") }
}

pub(super) fn cores(workers: u32) -> Check {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = squad_proto::threads_per_worker(cores, workers);
    let text = format!("{cores}; each of {} computes with {threads}", counted(workers));
    if workers as usize > cores {
        return Check::warning(
            "cores",
            text,
            "lower resources.workers or -np: workers that share a core wait for each other",
        );
    }
    Check::ok("cores", text)
}

/// What is free is compared with what weights, gradients and moments need; activations come on top.
pub(super) fn memory(workers: u32, need: Option<&Need>) -> Check {
    let group = MemoryGroup::of("self", &read);
    let limit = group.as_ref().and_then(|group| group.limit(&read));
    let left = group.as_ref().and_then(|group| group.left(&read));
    let system = read(Path::new("/proc/meminfo")).and_then(|text| available(&text));
    let Some(free) = system.into_iter().chain(left).min() else {
        return Check::warning("memory", "the system does not tell how much is free", "look at it yourself");
    };
    let limited =
        limit.map_or_else(String::new, |limit| format!(" (this control group may have {})", size(limit)));
    let model = need.map_or(0, |need| need.worker_bytes);
    let wanted = (model + PROGRAM_BYTES).saturating_mul(workers.into());
    let text = format!(
        "{} free{limited}; {} need {} and what their batches take",
        size(free),
        counted(workers),
        size(wanted)
    );
    let remedy =
        "start fewer workers, take a smaller model, or raise the limit of the container or the Slurm job";
    if free < wanted {
        return Check::bad("memory", text, remedy);
    }
    // Activations of a small batch take about as much again.
    if free / 2 < wanted { Check::warning("memory", text, remedy) } else { Check::ok("memory", text) }
}

/// Free memory of the machine, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

/// Free and all bytes of the file system that a path is on.
pub(super) fn room(path: &Path) -> nix::Result<(u64, u64)> {
    let disk = statvfs(path)?;
    let block = disk.fragment_size();
    Ok((disk.blocks_available() * block, disk.blocks() * block))
}

/// Ranks on CPUs share memory that has no file; NCCL's ranks share files there.
pub(super) fn shared_memory() -> Check {
    let name = "/dev/shm";
    let remedy = "only NCCL wants it: docker --shm-size=1g, or an emptyDir of medium Memory at /dev/shm";
    match room(Path::new(name)) {
        Ok((free, all)) if free >= NCCL_SHARED => {
            Check::ok(name, format!("{} of {} free; only NCCL wants it", size(free), size(all)))
        }
        Ok((free, all)) => Check::warning(name, format!("{} of {} free", size(free), size(all)), remedy),
        Err(error) => Check::warning(name, error.to_string(), remedy),
    }
}

/// A coordinator that starts the workers itself holds their pipes, logs and connections.
pub(super) fn open_files(workers: u32) -> Check {
    let name = "open files";
    let wanted = FILES + FILES_PER_WORKER * u64::from(workers);
    let limit = getrlimit(Resource::Nofile).current;
    let text = match limit {
        Some(limit) => format!("{limit} allowed; {wanted} wanted for {}", counted(workers)),
        None => "no limit".into(),
    };
    if limit.is_some_and(|limit| limit < wanted) {
        return Check::bad(name, text, format!("ulimit -n {wanted}, or LimitNOFILE={wanted} of the service"));
    }
    Check::ok(name, text)
}

/// Waits go by a clock that nobody sets; the time of day is in events, logs and certificates.
pub(super) fn clock() -> Check {
    // Fixed: it is no wait.
    const YEAR_2025: Duration = Duration::from_secs(1_735_689_600);
    let now = jiff::Timestamp::now();
    if SystemTime::now() < SystemTime::UNIX_EPOCH + YEAR_2025 {
        return Check::bad(
            "clock",
            format!("{now:.0} is in the past"),
            "set the clock: no certificate is valid yet",
        );
    }
    let source = read(Path::new("/sys/devices/system/clocksource/clocksource0/current_clocksource"));
    let source = source.map_or_else(String::new, |source| format!(", waits go by {}", source.trim()));
    let text = format!("{now:.0}, {}{source}", synchronised());
    Check::ok("clock", text)
}

/// Who keeps the clock right, as far as files tell.
fn synchronised() -> &'static str {
    let there = |path: &str| Path::new(path).exists();
    if there("/run/systemd/timesync/synchronized") {
        "set by systemd-timesyncd"
    } else if there("/run/chrony/chronyd.pid") || there("/run/chronyd.pid") {
        "kept by chronyd"
    } else if there("/run/ntpd.pid") {
        "kept by ntpd"
    } else {
        "who keeps it right is not to be seen here"
    }
}

#[cfg(test)]
mod tests {
    use super::super::Finding;
    use super::*;

    #[test]
    fn free_memory_is_what_the_kernel_says() {
        let text = "MemTotal:       24630000 kB\nMemFree:         1000000 kB\nMemAvailable:    2097152 kB\n";
        assert_eq!(available(text), Some(2 << 30));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn what_cannot_work_is_bad() {
        let need = Need { worker_bytes: 1 << 50, checkpoint_bytes: 0, kept: 0 };
        let check = memory(1, Some(&need));
        assert_eq!(check.finding, Finding::Bad, "{check:?}");
        assert!(check.remedy.unwrap().contains("fewer workers"));
        let check = open_files(u32::MAX);
        assert!(check.finding == Finding::Bad || check.text == "no limit", "{check:?}");
        assert_eq!(cores(u32::MAX).finding, Finding::Warning);
        assert_eq!(cores(1).finding, Finding::Ok);
    }
}
