//! The forms in which repositories hold weights and tokenizers.

use std::fs;
use std::path::Path;

use squad_fetch::{FetchError, FetchOptions, FileState, fetch_repository};
use tempfile::TempDir;

use crate::download::{bytes, hash, names};
use crate::repository::{NAME, options, path, state};
use crate::server::{Fault, Route, Server};

const INDEX: &str = "model.safetensors.index.json";
const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";

/// A server whose repository has these files, and a folder to fetch it into.
fn setting(files: &[&str]) -> (Server, TempDir) {
    let server = Server::start();
    for file in files {
        server.put_body(&path("main", file), format!("{file} of the hub"));
    }
    (server, tempfile::tempdir().unwrap())
}

/// A large file, of which the hub tells the checksum `told`.
fn linked(body: &[u8], told: &str, faults: Vec<Fault>) -> Route {
    let headers = vec![("X-Linked-ETag".to_owned(), format!("\"{told}\""))];
    Route { body: body.to_vec(), headers, faults, ..Route::default() }
}

/// Publishes the index of two shards.
fn publish_index(server: &Server, index: &str, shards: [&str; 2]) {
    let map = format!(r#"{{"weight_map": {{"a": "{}", "b": "{}", "c": "{0}"}}}}"#, shards[0], shards[1]);
    server.put_body(&path("main", index), map);
}

/// A sharded model: shards of 300 000 and 200 000 bytes.
fn sharded() -> (Server, TempDir, [Vec<u8>; 2]) {
    let (server, folder) = setting(&["config.json", "tokenizer.json"]);
    publish_index(&server, INDEX, [FIRST, SECOND]);
    let bodies = [bytes(300_000), bytes(200_000)];
    for (name, body) in [FIRST, SECOND].into_iter().zip(&bodies) {
        server.put(&path("main", name), linked(body, &hash(body), Vec::new()));
    }
    (server, folder, bodies)
}

/// How often each path's last part was asked for.
fn asked(server: &Server, name: &str) -> usize {
    server.take_requests().iter().filter(|request| request.path.ends_with(&format!("/{name}"))).count()
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join(name)).unwrap()
}

#[test]
fn shards_arrive_whole_and_are_not_asked_for_again() {
    let (server, folder, bodies) = sharded();
    let report = fetch_repository(NAME, folder.path(), &options(&server)).unwrap();
    for (name, body) in [FIRST, SECOND].into_iter().zip(&bodies) {
        assert_eq!(state(&report, name), FileState::Fetched);
        assert_eq!(&read(folder.path(), name), body);
    }
    assert_eq!(state(&report, "model.safetensors"), FileState::Absent);
    assert_eq!(
        names(folder.path()),
        [".squad-fetch.json", "config.json", FIRST, SECOND, INDEX, "tokenizer.json"]
    );
    server.take_requests();
    let again = fetch_repository(NAME, folder.path(), &options(&server)).unwrap();
    assert_eq!((state(&again, SECOND), server.take_requests().len()), (FileState::Present, 0));

    // A shard that is gone is noticed, and nothing else of the weights is fetched.
    fs::remove_file(folder.path().join(SECOND)).unwrap();
    let mended = fetch_repository(NAME, folder.path(), &options(&server)).unwrap();
    assert_eq!((state(&mended, FIRST), state(&mended, SECOND)), (FileState::Present, FileState::Fetched));
    assert_eq!(asked(&server, FIRST), 0);
}

#[test]
fn a_shard_is_resumed_where_it_broke_also_by_a_later_process() {
    let (server, folder, bodies) = sharded();
    let cut = vec![Fault::Cut(100_000)];
    server.put(&path("main", FIRST), linked(&bodies[0], &hash(&bodies[0]), cut));
    fs::write(folder.path().join(format!("{SECOND}.part")), &bodies[1][..50_000]).unwrap();
    fetch_repository(NAME, folder.path(), &options(&server)).unwrap();
    let requests = server.take_requests();
    let ranges = |name: &str| -> Vec<Option<String>> {
        let of = requests.iter().filter(|request| request.path.ends_with(name));
        of.map(|request| request.range.clone()).collect()
    };
    assert_eq!(ranges(FIRST), [None, Some("bytes=100000-".to_owned())]);
    assert_eq!(ranges(SECOND), [Some("bytes=50000-".to_owned())]);
    assert_eq!([read(folder.path(), FIRST), read(folder.path(), SECOND)], bodies);
}

#[test]
fn a_shard_with_another_checksum_is_not_written() {
    let (server, folder, bodies) = sharded();
    server.put(&path("main", SECOND), linked(&bodies[1], &hash(b"other"), Vec::new()));
    let error = fetch_repository(NAME, folder.path(), &options(&server)).unwrap_err();
    assert!(matches!(error, FetchError::Mismatch { .. }) && error.to_string().contains(SECOND), "{error}");
    assert!(folder.path().join(FIRST).exists() && !folder.path().join(SECOND).exists());
    let offline = {
        let mut options = options(&server);
        options.hub.offline = true;
        fetch_repository(NAME, folder.path(), &options).unwrap_err().to_string()
    };
    assert!(offline.contains(&format!("missing: {SECOND})")), "{offline}");

    server.put(&path("main", SECOND), linked(&bodies[1], &hash(&bodies[1]), Vec::new()));
    server.take_requests();
    fetch_repository(NAME, folder.path(), &options(&server)).unwrap();
    assert_eq!(asked(&server, FIRST), 0, "the good shard stayed");
    assert_eq!(read(folder.path(), SECOND), bodies[1]);
}

#[test]
fn one_checksum_cannot_be_expected_of_shards() {
    let (server, folder, _) = sharded();
    let options = FetchOptions { weights_sha256: Some(hash(b"any")), ..options(&server) };
    let error = fetch_repository(NAME, folder.path(), &options).unwrap_err();
    assert!(matches!(error, FetchError::ShardedChecksum { .. }), "{error}");
    assert!(!folder.path().join(FIRST).exists());
}

#[test]
fn an_index_that_leads_elsewhere_is_refused() {
    let (server, folder) = setting(&["config.json", "tokenizer.json", "x.bin"]);
    publish_index(&server, INDEX, ["x.bin", "../x.bin"]);
    let own = folder.path().join("m");
    let error = fetch_repository(NAME, &own, &options(&server)).unwrap_err();
    assert!(
        matches!(error, FetchError::BadIndex { .. }) && error.to_string().contains("../x.bin"),
        "{error}"
    );
    assert_eq!(names(folder.path()), ["m"]);
}

#[test]
fn the_first_form_of_weights_that_exists_is_taken() {
    let small = ["config.json", "tokenizer.json"];
    let bin_index = "pytorch_model.bin.index.json";
    for (forms, taken) in [
        (&["pytorch_model.bin"][..], "pytorch_model.bin"),
        (&["pytorch_model.bin", INDEX], INDEX),
        (&["pytorch_model.bin", INDEX, "model.safetensors"], "model.safetensors"),
        (&[bin_index], bin_index),
        (&[bin_index, "pytorch_model.bin"], "pytorch_model.bin"),
    ] {
        let (server, folder) = setting(&[&small, &["s1.bin", "s2.bin"][..]].concat());
        for form in forms {
            server.put_body(&path("main", form), "weights");
            if form.ends_with(".json") {
                publish_index(&server, form, ["s1.bin", "s2.bin"]);
            }
        }
        fetch_repository(NAME, folder.path(), &options(&server)).unwrap();
        let weights: Vec<_> =
            names(folder.path()).into_iter().filter(|name| name.contains("model")).collect();
        assert_eq!(weights, [taken], "{forms:?}");
        assert_eq!(folder.path().join("s2.bin").exists(), taken.ends_with(".json"), "{forms:?}");
    }
}

#[test]
fn weights_that_are_only_pickled_are_checked_and_used_offline() {
    let (server, folder) = setting(&["config.json", "vocab.txt"]);
    let weights = bytes(100_000);
    server.put(&path("main", "pytorch_model.bin"), linked(&weights, &hash(&weights), Vec::new()));
    let mut options = FetchOptions { weights_sha256: Some(hash(&weights)), ..options(&server) };
    fetch_repository(NAME, folder.path(), &options).unwrap();
    assert_eq!(read(folder.path(), "pytorch_model.bin"), weights);

    options.hub.offline = true;
    let report = fetch_repository(NAME, folder.path(), &options).unwrap();
    assert_eq!(state(&report, "pytorch_model.bin"), FileState::Present);
    options.weights_sha256 = Some(hash(b"other"));
    let error = fetch_repository(NAME, folder.path(), &options).unwrap_err().to_string();
    assert!(error.contains("missing: pytorch_model.bin)"), "{error}");
}

#[test]
fn weights_that_are_there_stay_whatever_their_form() {
    let (server, folder) = setting(&["config.json", "tokenizer.json", "model.safetensors"]);
    fs::write(folder.path().join("pytorch_model.bin"), "mine").unwrap();
    let report = fetch_repository(NAME, folder.path(), &options(&server)).unwrap();
    assert_eq!(state(&report, "pytorch_model.bin"), FileState::Present);
    assert!(!folder.path().join("model.safetensors").exists());
    assert_eq!(read(folder.path(), "pytorch_model.bin"), b"mine");
}

#[test]
fn every_file_of_the_tokenizer_comes() {
    let weights = ["config.json", "model.safetensors"];
    for tokenizer in [
        &["tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"][..],
        &["vocab.json", "merges.txt"],
        &["spiece.model"],
        &["sentencepiece.bpe.model", "added_tokens.json"],
    ] {
        let (server, folder) = setting(&[&weights, tokenizer].concat());
        let report = fetch_repository(NAME, folder.path(), &options(&server)).unwrap();
        for file in tokenizer {
            assert_eq!(state(&report, file), FileState::Fetched);
            assert_eq!(read(folder.path(), file), format!("{file} of the hub").as_bytes());
        }
    }
}

#[test]
fn a_repository_that_is_no_model_is_refused_before_its_weights_come() {
    let (server, folder) = setting(&["config.json", "vocab.json", "model.safetensors"]);
    let error = fetch_repository(NAME, folder.path(), &options(&server)).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, FetchError::Lacking { .. }) && text.contains("no tokenizer"), "{text}");
    assert!(text.contains("vocab.json with merges.txt"), "{text}");
    assert_eq!(asked(&server, "model.safetensors"), 0);

    let (server, folder) = setting(&["config.json", "tokenizer.json"]);
    let text = fetch_repository(NAME, folder.path(), &options(&server)).unwrap_err().to_string();
    assert!(text.contains("some/model has no weights") && text.contains("pytorch_model.bin,"), "{text}");
}

#[test]
fn another_repository_leaves_no_weights_of_the_first() {
    let (server, folder, _) = sharded();
    for file in ["config.json", "vocab.txt", "model.safetensors"] {
        server.put_body(&format!("/other/model/resolve/main/{file}"), "other");
    }
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    fetch_repository(NAME, folder.path(), &options(&server)).unwrap();
    fetch_repository("other/model", folder.path(), &options(&server)).unwrap();
    assert_eq!(
        names(folder.path()),
        [".squad-fetch.json", "config.json", "model.safetensors", "notes.txt", "vocab.txt"]
    );
    assert_eq!(read(folder.path(), "config.json"), b"other");
}
