//! A repository into a folder.

use std::fs;
use std::time::Duration;

use squad_fetch::{FetchError, FetchOptions, FetchReport, FileState, Hub, Token, fetch_repository};

use crate::download::{bytes, hash, names, quick};
use crate::server::{Route, Server};

pub(crate) const NAME: &str = "some/model";
const WEIGHTS: &str = "model.safetensors";

pub(crate) fn options(server: &Server) -> FetchOptions {
    FetchOptions { hub: Hub::at(&server.address), patience: quick(), ..FetchOptions::default() }
}

pub(crate) fn path(revision: &str, file: &str) -> String {
    format!("/{NAME}/resolve/{revision}/{file}")
}

/// The smallest repository that is a model.
pub(crate) fn publish(server: &Server, revision: &str, content: &str) {
    publish_as(server, NAME, revision, content);
}

/// The same under another name.
pub(crate) fn publish_as(server: &Server, name: &str, revision: &str, content: &str) {
    for file in ["config.json", "tokenizer.json", WEIGHTS] {
        server.put_body(&format!("/{name}/resolve/{revision}/{file}"), format!("{file} {content}"));
    }
}

pub(crate) fn state(report: &FetchReport, name: &str) -> FileState {
    report.files.iter().find(|file| file.name == name).unwrap().state
}

#[test]
fn a_whole_repository_arrives_and_is_not_asked_for_again() {
    let (hub, store) = (Server::start(), Server::start());
    let weights = bytes(700_000);
    let commit = ("X-Repo-Commit".to_owned(), "c0ffee".to_owned());
    let headers = vec![commit];
    hub.put(&path("main", "config.json"), Route { body: b"{}".into(), headers, ..Route::default() });
    for file in ["tokenizer.json", "vocab.txt"] {
        hub.put_body(&path("c0ffee", file), file);
    }
    let linked = vec![("X-Linked-ETag".to_owned(), format!("\"{}\"", hash(&weights)))];
    let location = Some(store.url("/blob"));
    hub.put(&path("c0ffee", WEIGHTS), Route { headers: linked, location, ..Route::default() });
    store.put_body("/blob", weights.clone());

    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&hub);
    options.hub.token = Some(Token::new("t0ken"));
    options.weights_sha256 = Some(hash(&weights).to_uppercase());
    let report = fetch_repository(NAME, folder.path(), &options).unwrap();
    assert_eq!(report.commit.as_deref(), Some("c0ffee"));
    assert_eq!(
        (state(&report, WEIGHTS), state(&report, "vocab.txt")),
        (FileState::Fetched, FileState::Fetched)
    );
    assert_eq!(state(&report, "special_tokens_map.json"), FileState::Absent);
    assert_eq!(fs::read(folder.path().join(WEIGHTS)).unwrap(), weights);
    let whole = [".squad-fetch.json", "config.json", WEIGHTS, "tokenizer.json", "vocab.txt"];
    assert_eq!(names(folder.path()), whole);
    // The token went to the hub and to nobody else.
    assert!(
        hub.take_requests().iter().all(|request| request.authorization.as_deref() == Some("Bearer t0ken"))
    );
    assert!(store.take_requests().iter().all(|request| request.authorization.is_none()));

    let again = fetch_repository(NAME, folder.path(), &options).unwrap();
    assert_eq!(state(&again, WEIGHTS), FileState::Present);
    assert!(hub.take_requests().is_empty());

    // Damaged weights are noticed, and only they are fetched.
    fs::write(folder.path().join(WEIGHTS), "damaged").unwrap();
    let mended = fetch_repository(NAME, folder.path(), &options).unwrap();
    assert_eq!(
        (state(&mended, WEIGHTS), state(&mended, "config.json")),
        (FileState::Fetched, FileState::Present)
    );
    assert_eq!(fs::read(folder.path().join(WEIGHTS)).unwrap(), weights);
}

#[test]
fn a_missing_required_file_is_named() {
    let server = Server::start();
    server.put_body(&path("main", "tokenizer.json"), "{}");
    let folder = tempfile::tempdir().unwrap();
    let error = fetch_repository(NAME, folder.path(), &options(&server)).unwrap_err();
    assert!(matches!(error, FetchError::NotFound { .. }));
    assert!(error.to_string().contains(&server.url(&path("main", "config.json"))), "{error}");
}

#[test]
fn wrong_weights_leave_nothing_at_their_place() {
    let server = Server::start();
    publish(&server, "main", "a");
    let folder = tempfile::tempdir().unwrap();
    let options = FetchOptions { weights_sha256: Some(hash(b"other")), ..options(&server) };
    let error = fetch_repository(NAME, folder.path(), &options).unwrap_err();
    assert!(matches!(error, FetchError::Mismatch { .. }), "{error}");
    assert!(!folder.path().join(WEIGHTS).exists());
    let no_checksum = FetchOptions { weights_sha256: Some("abc".into()), ..options };
    let error = fetch_repository(NAME, folder.path(), &no_checksum).unwrap_err();
    assert!(matches!(error, FetchError::BadChecksum { .. }), "{error}");
}

#[test]
fn offline_uses_what_is_there_and_names_what_is_not() {
    let server = Server::start();
    publish(&server, "main", "a");
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&server);
    options.hub.offline = true;
    let error = fetch_repository(NAME, folder.path(), &options).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("HF_HUB_OFFLINE") && text.contains("config.json, tokenizer.json"), "{text}");
    for file in ["config.json", "tokenizer.json", WEIGHTS] {
        fs::write(folder.path().join(file), "mine").unwrap();
    }
    let report = fetch_repository(NAME, folder.path(), &options).unwrap();
    assert_eq!(state(&report, WEIGHTS), FileState::Present);
    assert!(server.take_requests().is_empty());
}

#[test]
fn another_revision_replaces_the_files() {
    let server = Server::start();
    publish(&server, "main", "old");
    server.put_body(&path("main", "vocab.txt"), "old words");
    publish(&server, "refs%2Fpr%2F1", "new");
    let folder = tempfile::tempdir().unwrap();
    let (main, vocabulary) = (options(&server), folder.path().join("vocab.txt"));
    fetch_repository(NAME, folder.path(), &main).unwrap();
    assert!(vocabulary.exists());
    let pinned = FetchOptions { revision: Some("refs/pr/1".into()), ..main };
    fetch_repository(NAME, folder.path(), &pinned).unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("config.json")).unwrap(), "config.json new");
    assert!(!vocabulary.exists());
}

#[test]
fn two_at_once_fetch_a_repository_once() {
    let server = Server::start();
    let delay = Duration::from_millis(40);
    for file in ["config.json", "tokenizer.json", WEIGHTS] {
        server.put(&path("main", file), Route { body: bytes(5_000), delay, ..Route::default() });
    }
    let folder = tempfile::tempdir().unwrap();
    let options = options(&server);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| fetch_repository(NAME, folder.path(), &options).unwrap());
        }
    });
    let requests = server.take_requests();
    let count =
        |name: &str| requests.iter().filter(|request| request.path.ends_with(&format!("/{name}"))).count();
    assert_eq!(["config.json", "tokenizer.json", WEIGHTS].map(count), [1, 1, 1]);
    assert_eq!(names(folder.path()), [".squad-fetch.json", "config.json", WEIGHTS, "tokenizer.json"]);
}
