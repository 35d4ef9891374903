//! Many workers at once on one daemon: nothing that they say is lost, none of them is.
//!
//! A usual run has a few for a few seconds. More:
//! `SQUAD_LOAD_WORKERS=1000 SQUAD_LOAD_SECONDS=60 cargo nextest run -p squad-tests --no-capture load`; also
//! `SQUAD_LOAD_JOBS` and `SQUAD_LOAD_PATIENCE`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]
#![allow(clippy::print_stderr, reason = "what is measured is said")]

use std::path::Path;
use std::time::Duration;

use squad_proto::JobState;
use squad_tests::load::{self, Load};
use squad_tests::{Daemon, Job};

fn number(name: &str, default: f64) -> f64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// What was asked for.
fn asked() -> Load {
    let workers = number("SQUAD_LOAD_WORKERS", 40.0) as u32;
    let jobs = number("SQUAD_LOAD_JOBS", (f64::from(workers) / 100.0).max(4.0)) as u32;
    let lasts = Duration::from_secs_f64(number("SQUAD_LOAD_SECONDS", 3.0));
    Load { workers, jobs, lasts, patience_s: number("SQUAD_LOAD_PATIENCE", 60.0) }
}

#[test]
fn nothing_that_many_workers_say_is_lost() {
    let load = asked();
    let job = Job::new();
    // Two connections a worker, one a watcher, and a few.
    let most = (load.workers * 2 + load.jobs * 2 + 64).to_string();
    let places = ["--listen", "127.0.0.1:0", "--web", "127.0.0.1:0"];
    let limits = ["--max-connections", &most, "--max-connections-per-address", &most];
    let arguments = [&places[..], &limits[..]].concat();
    let daemon = Daemon::start_with(&job, Path::new("none"), &arguments);
    let page = daemon.page();
    let outcome = load::run(load, (&daemon.url, &page, daemon.pid()), &job.spec());
    eprintln!("{outcome}");
    assert_eq!(outcome.seen.len() as u32, load.jobs);
    for seen in &outcome.seen {
        let lives = [JobState::Queued, JobState::Starting, JobState::Running, JobState::Succeeded];
        assert_eq!(seen.states, lives, "{seen:?}");
        assert_eq!(seen.came, seen.sent, "{seen:?}");
        assert!(seen.remarks.is_empty() && seen.sent > 0, "{seen:?}");
    }
    assert!(outcome.behind.is_empty(), "last beats that were not seen: {:?}", outcome.behind);
    assert_eq!(outcome.unstored, 0);
}
