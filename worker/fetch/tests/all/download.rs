//! One file.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use squad_fetch::{Download, Event, FetchError, Outcome, Patience, Progress, download};
use tempfile::TempDir;

use crate::server::{Fault, Route, Server};

/// Short waits, so that tests are.
pub(crate) fn quick() -> Patience {
    let short = Duration::from_millis(400);
    Patience { silence: short, tries: 3, pause: Duration::from_millis(5), ..Patience::default() }
}

/// Bytes that differ from place to place.
pub(crate) fn bytes(count: u32) -> Vec<u8> {
    (0..count).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(count as usize).collect()
}

pub(crate) fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Names in `folder`, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn wanted<'a>(url: &'a str, target: &'a Path, sha256: Option<&'a str>) -> Download<'a> {
    Download { url, target, token: None, sha256, sha1: None, size: None, refresh: false }
}

fn get(url: &str, target: &Path, sha256: Option<&str>) -> Result<Outcome, FetchError> {
    download(&wanted(url, target, sha256), &quick(), &Progress::default())
}

/// A server with one file at `/f`, and a folder to fetch it into.
fn setting(route: Route) -> (Server, TempDir) {
    let server = Server::start();
    server.put("/f", route);
    (server, tempfile::tempdir().unwrap())
}

#[test]
fn a_broken_connection_is_resumed_where_it_broke() {
    let body = bytes(900_000);
    let tag = vec![("ETag".to_owned(), "\"v1\"".to_owned())];
    let faults = vec![Fault::Cut(300_000), Fault::Cut(200_000)];
    let (server, folder) = setting(Route { body: body.clone(), headers: tag, faults, ..Route::default() });
    let target = folder.path().join("deep/f.bin");
    let retries = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&retries);
    let progress =
        Progress::new(move |event| *seen.lock().unwrap() += u32::from(matches!(event, Event::Retry { .. })));
    let outcome = download(&wanted(&server.url("/f"), &target, None), &quick(), &progress).unwrap();
    assert_eq!(outcome, Outcome::Fetched { bytes: 900_000, sha256: hash(&body), commit: None });
    assert_eq!(fs::read(&target).unwrap(), body);
    let ranges: Vec<_> = server.take_requests().into_iter().map(|request| request.range).collect();
    assert_eq!(ranges, [None, Some("bytes=300000-".into()), Some("bytes=500000-".into())]);
    assert_eq!(*retries.lock().unwrap(), 2);
    assert_eq!(names(target.parent().unwrap()), ["f.bin"]);
}

#[test]
fn a_server_without_ranges_is_asked_for_the_whole() {
    let body = bytes(300_000);
    let faults = vec![Fault::Cut(100_000)];
    let (server, folder) = setting(Route { body: body.clone(), faults, no_ranges: true, ..Route::default() });
    let target = folder.path().join("f");
    get(&server.url("/f"), &target, None).unwrap();
    assert_eq!(fs::read(&target).unwrap(), body);
}

#[test]
fn a_later_process_resumes_what_can_be_verified() {
    let body = bytes(200_000);
    let (server, folder) = setting(Route { body: body.clone(), ..Route::default() });
    let target = folder.path().join("f");
    fs::write(folder.path().join("f.part"), &body[..50_000]).unwrap();
    get(&server.url("/f"), &target, Some(&hash(&body))).unwrap();
    assert_eq!(server.take_requests()[0].range.as_deref(), Some("bytes=50000-"));
    assert_eq!(fs::read(&target).unwrap(), body);
}

#[test]
fn what_cannot_be_verified_is_fetched_anew() {
    let body = bytes(200_000);
    let (server, folder) = setting(Route { body: body.clone(), ..Route::default() });
    let target = folder.path().join("f");
    fs::write(folder.path().join("f.part"), vec![7; 50_000]).unwrap();
    get(&server.url("/f"), &target, None).unwrap();
    assert_eq!(fs::read(&target).unwrap(), body);
}

#[test]
fn a_rest_of_another_file_is_thrown_away() {
    let body = bytes(200_000);
    let (server, folder) = setting(Route { body: body.clone(), ..Route::default() });
    let target = folder.path().join("f");
    for rest in [vec![7; 50_000], vec![7; 200_000], vec![7; 300_000]] {
        fs::write(folder.path().join("f.part"), rest).unwrap();
        get(&server.url("/f"), &target, Some(&hash(&body))).unwrap();
        assert_eq!(fs::read(&target).unwrap(), body);
        fs::remove_file(&target).unwrap();
    }
}

#[test]
fn a_wrong_checksum_leaves_nothing_at_the_target() {
    let (server, folder) = setting(Route { body: bytes(1_000), ..Route::default() });
    let (url, target) = (server.url("/f"), folder.path().join("f"));
    let expected = hash(b"something else");
    let error = get(&url, &target, Some(&expected)).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, FetchError::Mismatch { .. }), "{text}");
    assert!(text.contains(&url) && text.contains(&expected) && text.contains(&hash(&bytes(1_000))), "{text}");
    assert!(names(folder.path()).is_empty(), "{:?}", names(folder.path()));

    let sized = Download { size: Some(999), ..wanted(&url, &target, None) };
    let error = download(&sized, &quick(), &Progress::default()).unwrap_err();
    assert!(error.to_string().contains("size is 1000, expected 999"), "{error}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_wrong_checksum_leaves_the_old_file_alone() {
    let (server, folder) = setting(Route { body: bytes(1_000), ..Route::default() });
    let target = folder.path().join("f");
    fs::write(&target, "old").unwrap();
    get(&server.url("/f"), &target, Some(&hash(b"other"))).unwrap_err();
    assert_eq!(fs::read(&target).unwrap(), b"old");
}

#[test]
fn the_checksum_that_the_hub_tells_is_checked_after_its_redirect() {
    let (server, folder) = setting(Route { body: bytes(1_000), ..Route::default() });
    let linked = |digest: String| Route {
        headers: vec![("X-Linked-ETag".into(), format!("\"{digest}\""))],
        location: Some("/f".into()),
        ..Route::default()
    };
    server.put("/good", linked(hash(&bytes(1_000))));
    server.put("/bad", linked(hash(b"other")));
    let target = folder.path().join("f");
    assert!(matches!(get(&server.url("/bad"), &target, None), Err(FetchError::Mismatch { .. })));
    assert!(!target.exists());
    get(&server.url("/good"), &target, None).unwrap();
    assert!(target.exists());
}

#[test]
fn a_good_file_stays_without_a_request() {
    let (server, folder) = setting(Route::default());
    let target = folder.path().join("f");
    fs::write(&target, "good").unwrap();
    let (url, digest) = (server.url("/f"), hash(b"good"));
    for sha256 in [None, Some(digest.as_str())] {
        assert_eq!(get(&url, &target, sha256).unwrap(), Outcome::Present);
    }
    assert!(server.take_requests().is_empty());
}

#[test]
fn passing_trouble_is_tried_again_and_lasting_trouble_reported() {
    let faults = vec![Fault::Status(503), Fault::Status(429), Fault::Status(500)];
    let (server, folder) = setting(Route { body: bytes(10), faults, ..Route::default() });
    let (url, target) = (server.url("/f"), folder.path().join("f"));
    let text = get(&url, &target, None).unwrap_err().to_string();
    assert!(text.contains(&url) && text.contains("500") && text.contains("tries: 3"), "{text}");
    get(&url, &target, None).unwrap();
}

#[test]
fn a_silent_server_is_given_up() {
    let faults = vec![Fault::Silence(Duration::from_secs(20)); 3];
    let (server, folder) = setting(Route { faults, ..Route::default() });
    let started = Instant::now();
    let error = get(&server.url("/f"), &folder.path().join("f"), None).unwrap_err();
    assert!(matches!(error, FetchError::Network { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_server_that_is_not_there_is_given_up_sooner() {
    let folder = tempfile::tempdir().unwrap();
    for url in ["http://127.0.0.1:1/f", "http://no-such-host.invalid/f"] {
        let text = get(url, &folder.path().join("f"), None).unwrap_err().to_string();
        assert!(text.contains(url) && text.contains("tries: 2") && text.contains("HF_ENDPOINT"), "{text}");
    }
    assert!(names(folder.path()).is_empty());
}

#[test]
fn refusals_are_final() {
    let faults = vec![Fault::Status(401), Fault::Status(410)];
    let (server, folder) = setting(Route { faults, ..Route::default() });
    let (url, target) = (server.url("/f"), folder.path().join("f"));
    let denied = get(&url, &target, None).unwrap_err();
    assert!(denied.to_string().contains("HF_TOKEN"), "{denied}");
    assert!(matches!(get(&url, &target, None), Err(FetchError::NotFound { .. })));
    assert_eq!(server.take_requests().len(), 2);
}

#[test]
fn two_at_once_fetch_once() {
    let body = bytes(400_000);
    let delay = Duration::from_millis(150);
    let (server, folder) = setting(Route { body: body.clone(), delay, ..Route::default() });
    let (url, target) = (server.url("/f"), folder.path().join("f"));
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| get(&url, &target, None).unwrap())).collect();
        starts.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Present).count(), 3);
    assert_eq!(server.take_requests().len(), 1);
    assert_eq!(fs::read(&target).unwrap(), body);
    assert_eq!(names(folder.path()), ["f"]);
}
