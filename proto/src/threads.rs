//! Threads of workers that share a machine.

use std::process::Command;

/// How many threads each of `workers` processes computes with on a machine of `cores` cores, at least one.
pub fn threads_per_worker(cores: usize, workers: u32) -> usize {
    (cores / workers.max(1) as usize).max(1)
}

/// Variables by which OpenMP binds threads to cores. It binds the process's first thread as the program starts, and threads that are not
/// OpenMP's inherit that: all of them, and the other workers of the machine, share one core. A worker is started without.
pub const BINDING: [&str; 3] = ["OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY"];

/// Says in the environment of a `squad-worker` that is about to be started how it computes: with so many threads, where that is known,
/// which sleep while they wait (unless the user says otherwise) and are bound to no core.
pub fn prepare(command: &mut Command, threads: Option<usize>) {
    for (name, value) in variables(threads, |name| std::env::var_os(name).is_some()) {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
}

/// Names with their values, or with none where they are to be absent.
fn variables(threads: Option<usize>, is_set: impl Fn(&str) -> bool) -> Vec<(&'static str, Option<String>)> {
    let mut all: Vec<_> = BINDING.map(|name| (name, None)).into();
    if let Some(threads) = threads {
        all.extend(["OMP_NUM_THREADS", "MKL_NUM_THREADS"].map(|name| (name, Some(threads.to_string()))));
    }
    if !is_set("OMP_WAIT_POLICY") {
        // Threads that spin cost their neighbours more than they gain.
        all.push(("OMP_WAIT_POLICY", Some("PASSIVE".into())));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_wait_as_the_user_says_and_are_never_bound() {
        let of = |set: &[&str]| variables(Some(3), |name| set.contains(&name));
        let wait = ("OMP_WAIT_POLICY", Some("PASSIVE".to_owned()));
        assert!(of(&[]).contains(&wait) && !of(&["OMP_WAIT_POLICY"]).contains(&wait));
        assert!(of(&["OMP_PROC_BIND"]).contains(&("OMP_PROC_BIND", None)));
        assert!(of(&[]).contains(&("MKL_NUM_THREADS", Some("3".into()))));
        assert!(variables(None, |_| true).iter().all(|(_, value)| value.is_none()));
    }

    #[test]
    fn a_program_finds_it_in_its_environment() {
        let mut command = Command::new("env");
        command.env("OMP_PROC_BIND", "true");
        prepare(&mut command, Some(5));
        let found = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(found.lines().any(|line| line == "OMP_NUM_THREADS=5"), "{found}");
        assert!(!found.contains("OMP_PROC_BIND"), "{found}");
    }
}
