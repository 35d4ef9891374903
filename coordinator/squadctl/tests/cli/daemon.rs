//! Commands that need a daemon, without one.

use std::fs;
use std::net::TcpListener;

use crate::{squadctl, squadctl_in};

/// An address where nobody listens: bound once, so that it was free, and given back.
fn deserted() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn a_daemon_that_is_not_there_is_one_sentence() {
    let url = deserted();
    for command in [&["list"][..], &["get", "a"], &["watch", "a"], &["logs", "a"], &["cancel", "a"]] {
        let call = squadctl(&[command, &["--server", &url]].concat());
        assert_eq!((call.code, call.stdout.as_str()), (1, ""), "{command:?}");
        assert_eq!(
            call.stderr,
            format!(
                "error: no daemon answers at {url}; start one with `squad-coordinator serve`, or name another with \
                 --server URL or SQUADCTL_SERVER\n"
            )
        );
    }
}

#[test]
fn a_spec_is_checked_before_the_daemon_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("job.yaml"), "name: a\nmodel: m\ndata: {train: t.json}\noutput_dir: out\n")
        .unwrap();
    let url = deserted();
    let submit = |more: &[&str]| {
        squadctl_in(folder.path(), &[&["submit", "job.yaml", "--server", url.as_str()], more].concat())
    };
    let call = submit(&["--set", "train.epochs=-1"]);
    assert_eq!(call.code, 2);
    assert!(call.stderr.contains("train.epochs: found -1"), "{}", call.stderr);
    let call = submit(&["--output", "json"]);
    assert_eq!((call.code, call.json()["exit_code"].as_i64()), (1, Some(1)));
}

#[test]
fn an_address_must_be_one() {
    for url in ["http://", "ftp://box"] {
        let call = squadctl(&["list", "--server", url]);
        assert_eq!(call.code, 2, "{url}: {}", call.stderr);
        assert!(call.stderr.contains("write it as http://HOST:PORT"), "{}", call.stderr);
    }
}

#[test]
fn following_logs_is_no_document() {
    let call = squadctl(&["logs", "a", "--follow", "--output", "json"]);
    assert_eq!(call.code, 2);
    assert!(call.stderr.contains("leave out one of the two"), "{}", call.stderr);
}
