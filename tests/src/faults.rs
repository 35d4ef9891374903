//! Processes that are stopped, killed and watched.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Job, wait_for};

/// Sends a signal to a process that lives.
pub fn signal(process: i32, signal: Signal) {
    kill(Pid::from_raw(process), signal).expect("it lives");
}

/// Whether a process is there, and not merely waiting for its parent to take note of its end.
pub fn lives(pid: i32) -> bool {
    // The state follows the name, which is in parentheses.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()))
        .is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Waits until a run has logged a step.
pub fn wait_for_step(job: &Job, output: &str, step: u64) {
    let metrics = job.path(output).join("metrics.jsonl");
    wait_for(&format!("step {step}"), || {
        std::fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() as u64 >= step)
    });
}

/// What a process says, line by line, and when.
pub struct Told(Arc<Mutex<Vec<(Instant, String)>>>);

impl Told {
    /// Reads a pipe to its end.
    pub fn listen(pipe: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&lines);
        // Ends with the pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                heard.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), line));
            }
        });
        Self(lines)
    }

    /// The first line that has these words, and when it came.
    pub fn find(&self, words: &str) -> Option<(Instant, String)> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().find(|(_, line)| line.contains(words)).cloned()
    }

    /// Waits for such a line.
    pub fn wait(&self, words: &str) -> (Instant, String) {
        let begun = Instant::now();
        loop {
            if let Some(found) = self.find(words) {
                return found;
            }
            let late = begun.elapsed() > Duration::from_secs(60);
            assert!(!late, "{words} was not said within a minute, but\n{}", self.all());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// All that was said.
    pub fn all(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|(_, line)| format!("{line}\n")).collect()
    }
}

/// A control group with a limit of memory; removed when dropped.
pub struct SmallMemory(PathBuf);

impl SmallMemory {
    /// A group of its own below the root; `None` where this user may not make one, or the system counts no memory.
    pub fn make(bytes: u64) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("/proc");
        let mut places = mounts.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let first = fields[2] == "cgroup" && fields[3].split(',').any(|option| option == "memory");
            (first || fields[2] == "cgroup2").then(|| PathBuf::from(fields[1]))
        });
        places.find_map(|place| {
            let group = Self(place.join(format!("squadron-test-{}", std::process::id())));
            std::fs::create_dir(&group.0).ok()?;
            // Version 2 or 1; the second of each keeps the kernel from swapping instead.
            let files = [
                ("memory.max", "memory.swap.max", "0".to_owned()),
                ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", bytes.to_string()),
            ];
            files.iter().find_map(|(limit, swap, most)| {
                std::fs::File::options().write(true).open(group.0.join(limit)).ok()?;
                std::fs::write(group.0.join(limit), bytes.to_string()).ok()?;
                // A system without swap has no such file.
                std::fs::write(group.0.join(swap), most).ok();
                Some(())
            })?;
            Some(group)
        })
    }

    /// A shell's words that put it into the group.
    pub fn enter(&self) -> String {
        format!("echo $$ > '{}'", self.processes().display())
    }

    fn processes(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for SmallMemory {
    fn drop(&mut self) {
        let empty = |file: &Path| std::fs::read_to_string(file).is_ok_and(|text| text.is_empty());
        let begun = Instant::now();
        while self.processes().exists()
            && !empty(&self.processes())
            && begun.elapsed() < Duration::from_secs(10)
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        // What cannot be removed is an empty folder of the system's.
        std::fs::remove_dir(&self.0).ok();
    }
}
