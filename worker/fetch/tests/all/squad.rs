//! Question files from a server on this machine. The files are ours: only the table is the publisher's.

use std::fs;
use std::path::Path;

use sha1::{Digest, Sha1};
use squad_fetch::squad::{Release, SquadFile, SquadOptions, SquadReport, prepare};
use squad_fetch::{FetchError, FileState};

use crate::download::{bytes, names, quick};
use crate::server::{Fault, Route, Server};

const TRAIN: &str = "train-v0.9.json";
const DEV: &str = "dev-v0.9.json";

fn bodies() -> [Vec<u8>; 2] {
    [bytes(300_000), bytes(5_000)]
}

/// A release whose files have these contents.
fn release() -> Release {
    let [train, dev] = bodies();
    let file = |name, body: &[u8]| {
        let sha1: &'static str = hex::encode(Sha1::digest(body)).leak();
        SquadFile { name, bytes: body.len() as u64, sha1 }
    };
    Release { version: "0.9", files: [file(TRAIN, &train), file(DEV, &dev)] }
}

fn served() -> (Server, SquadOptions) {
    let server = Server::start();
    for (name, body) in [TRAIN, DEV].into_iter().zip(bodies()) {
        server.put_body(&format!("/mirror/{name}"), body);
    }
    let base = server.url("/mirror/");
    (server, SquadOptions { base, patience: quick(), ..SquadOptions::default() })
}

fn states(report: &SquadReport) -> [FileState; 2] {
    [report.files[0].state, report.files[1].state]
}

fn text(dir: &Path, options: &SquadOptions) -> String {
    prepare(&release(), dir, options).unwrap_err().to_string()
}

#[test]
fn both_files_arrive_and_are_verified_without_a_request_afterwards() {
    let (server, options) = served();
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("deep/squad");
    let report = prepare(&release(), &dir, &options).unwrap();
    assert_eq!(states(&report), [FileState::Fetched; 2]);
    assert_eq!(fs::read(dir.join(TRAIN)).unwrap(), bodies()[0]);
    assert_eq!(names(&dir), [DEV, TRAIN]);
    assert_eq!(server.take_requests().len(), 2);
    for offline in [false, true] {
        let again = prepare(&release(), &dir, &SquadOptions { offline, ..options.clone() }).unwrap();
        assert_eq!(states(&again), [FileState::Present; 2]);
    }
    assert!(server.take_requests().is_empty());
}

#[test]
fn an_earlier_try_is_gone_on_with_because_the_checksum_will_tell() {
    let (server, options) = served();
    let body = bodies()[0].clone();
    let faults = vec![Fault::Cut(100_000)];
    server.put(&format!("/mirror/{TRAIN}"), Route { body: body.clone(), faults, ..Route::default() });
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(format!("{TRAIN}.part")), &body[..50_000]).unwrap();
    prepare(&release(), folder.path(), &options).unwrap();
    let requests = server.take_requests();
    let ranges: Vec<Option<&str>> = requests.iter().take(2).map(|request| request.range.as_deref()).collect();
    assert_eq!(ranges, [Some("bytes=50000-"), Some("bytes=150000-")]);
    assert_eq!(fs::read(folder.path().join(TRAIN)).unwrap(), body);
}

#[test]
fn a_file_in_the_way_is_told_before_anything_is_fetched_and_stays() {
    let (server, options) = served();
    let folder = tempfile::tempdir().unwrap();
    let mut altered = bodies()[1].clone();
    altered[7] ^= 1;
    for (content, words) in
        [(b"mine".to_vec(), "its size is 4 bytes, expected 5000"), (altered, "its SHA-1 is ")]
    {
        fs::write(folder.path().join(DEV), &content).unwrap();
        let error = prepare(&release(), folder.path(), &options).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, FetchError::NotOfficial { .. }), "{text}");
        assert!(text.contains(words) && text.contains(DEV) && text.contains("--force"), "{text}");
        assert_eq!(fs::read(folder.path().join(DEV)).unwrap(), content);
        assert_eq!(names(folder.path()), [DEV]);
    }
    assert!(server.take_requests().is_empty());

    let forced = SquadOptions { force: true, ..options };
    assert_eq!(states(&prepare(&release(), folder.path(), &forced).unwrap()), [FileState::Fetched; 2]);
    assert_eq!(fs::read(folder.path().join(DEV)).unwrap(), bodies()[1]);
    // A good file is not replaced, however much force is used.
    assert_eq!(states(&prepare(&release(), folder.path(), &forced).unwrap()), [FileState::Present; 2]);
}

#[test]
fn offline_names_what_is_missing_and_replaces_nothing() {
    let (server, options) = served();
    let offline = SquadOptions { offline: true, force: true, ..options };
    let folder = tempfile::tempdir().unwrap();
    let error = text(folder.path(), &offline);
    assert!(error.contains("SQuAD 0.9") && error.contains(&format!("{TRAIN}, {DEV}")), "{error}");
    fs::write(folder.path().join(DEV), "mine").unwrap();
    assert!(text(folder.path(), &offline).contains("not the official file"));
    assert_eq!(fs::read(folder.path().join(DEV)).unwrap(), b"mine");
    assert!(server.take_requests().is_empty());
}

#[test]
fn a_mirror_without_the_right_files_leaves_nothing_and_is_told() {
    let (server, options) = served();
    let folder = tempfile::tempdir().unwrap();
    let mut altered = bodies()[0].clone();
    altered[7] ^= 1;
    server.put_body(&format!("/mirror/{TRAIN}"), altered.clone());
    let wrong = text(folder.path(), &options);
    let found = hex::encode(Sha1::digest(&altered));
    assert!(wrong.contains(&format!("SHA-1 is {found}")) && wrong.contains("--mirror"), "{wrong}");
    server.put_body(&format!("/mirror/{TRAIN}"), "short");
    assert!(text(folder.path(), &options).contains("size is 5, expected 300000"));
    let elsewhere = SquadOptions { base: server.url("/nothing"), ..options };
    let absent = text(folder.path(), &elsewhere);
    assert!(absent.contains("404") && absent.contains(&server.url("/nothing/train-v0.9.json")), "{absent}");
    assert!(!absent.contains("revision"), "{absent}");
    assert!(names(folder.path()).is_empty(), "{:?}", names(folder.path()));
}
