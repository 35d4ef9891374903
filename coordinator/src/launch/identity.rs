//! Which process is which, beyond the life of whoever started it.

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A worker's process, such that no other one, of this boot or another, is taken for it. It leads a process group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pid: i32,
    /// When it was started, in the system's ticks.
    started: u64,
    boot: String,
}

impl Identity {
    /// The identity of a process that runs.
    ///
    /// # Errors
    /// When the system does not tell, or it is gone.
    pub(crate) fn of(pid: i32) -> std::io::Result<Self> {
        let (_, started) = state_and_start(pid)?;
        Ok(Self { pid, started, boot: boot()? })
    }

    /// Whether the process still runs. One that only waits for its parent to take note of its end does not.
    pub(crate) fn lives(&self) -> bool {
        boot().is_ok_and(|boot| boot == self.boot)
            && state_and_start(self.pid)
                .is_ok_and(|(state, started)| started == self.started && !matches!(state, 'Z' | 'X'))
    }

    /// Signals the process's group, if the process still runs.
    pub(crate) fn kill(&self, hard: bool) {
        if self.lives() {
            kill_group(Pid::from_raw(self.pid), hard);
        }
    }
}

/// Sends SIGTERM, or SIGKILL, to a process group; one that is gone is no error.
pub(crate) fn kill_group(group: Pid, hard: bool) {
    let signal = if hard { Signal::SIGKILL } else { Signal::SIGTERM };
    if let Err(error) = killpg(group, signal)
        && error != Errno::ESRCH
    {
        tracing::warn!("cannot signal worker group {group}: {error}");
    }
}

fn boot() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn state_and_start(pid: i32) -> std::io::Result<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse(&text).ok_or_else(|| std::io::Error::other(format!("/proc/{pid}/stat cannot be read")))
}

/// The state and the start of a line of `/proc/PID/stat`: fields 3 and 22. The name, in parentheses, may hold anything.
fn parse(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_itself_until_it_ends_and_no_other_is() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let identity = Identity::of(child.id() as i32).unwrap();
        let text = serde_json::to_string(&identity).unwrap();
        assert_eq!(serde_json::from_str::<Identity>(&text).unwrap(), identity);
        assert!(identity.lives());
        for other in [
            Identity { started: identity.started + 1, ..identity.clone() },
            Identity { boot: "another".into(), ..identity.clone() },
        ] {
            assert!(!other.lives(), "{other:?}");
            other.kill(true);
        }
        assert!(identity.lives(), "no other's signal reached it");
        child.kill().unwrap();
        // Not waited for: it stays as a zombie.
        let begun = std::time::Instant::now();
        while identity.lives() {
            assert!(begun.elapsed().as_secs() < 20);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.wait().unwrap();
        assert!(Identity::of(child.id() as i32).is_err());
    }

    #[test]
    fn a_name_may_hold_anything() {
        let line = "7 (a) R) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 123456 9 9";
        assert_eq!(parse(line), Some(('S', 123_456)));
        assert_eq!(parse("7 (a"), None);
    }
}
