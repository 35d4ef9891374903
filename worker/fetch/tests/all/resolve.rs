//! What a job's `model` means.

use std::fs;
use std::path::{Path, PathBuf};

use squad_fetch::{FetchError, FetchOptions, Hub, fetch_repository, resolve_model};

use crate::repository::{NAME, options, publish, publish_as};
use crate::server::Server;

const WEIGHTS: &str = "model.safetensors";

#[test]
fn a_folder_is_the_model_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["models/own", "google_albert_base_v2"] {
        let own = folder.path().join(name);
        fs::create_dir_all(&own).unwrap();
        let hub = Hub { offline: true, ..Hub::default() };
        let options = FetchOptions { hub, ..FetchOptions::default() };
        let resolve = |model: &str| resolve_model(model, folder.path(), Path::new("cache"), &options);
        assert_eq!(resolve(name).unwrap(), own);
        assert_eq!(resolve(own.to_str().unwrap()).unwrap(), own);
    }
}

#[test]
fn a_repository_lands_in_the_cache_each_revision_in_its_own_folder() {
    let server = Server::start();
    publish(&server, "main", "new");
    publish(&server, "refs%2Fpr%2F1", "old");
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let resolve = |model: &str| resolve_model(model, folder.path(), &cache, &options(&server)).unwrap();
    let (main, pinned) = (resolve(NAME), resolve(&format!("{NAME}@refs/pr/1")));
    assert_eq!(main, cache.join("some--model"));
    assert_eq!(resolve(&format!("{NAME}@main")), main);
    assert_eq!(pinned, cache.join("some--model@refs%2Fpr%2F1"));
    let config = |folder: &Path| fs::read_to_string(folder.join("config.json")).unwrap();
    assert_eq!((config(&main), config(&pinned)), ("config.json new".into(), "config.json old".into()));
}

#[test]
fn a_name_of_the_zoo_is_fetched_from_its_repository() {
    let server = Server::start();
    publish_as(&server, "albert/albert-base-v2", "main", "a");
    let folder = tempfile::tempdir().unwrap();
    let name = "google_albert_base_v2";
    let found = resolve_model(name, folder.path(), folder.path(), &options(&server)).unwrap();
    assert_eq!(found, folder.path().join("albert--albert-base-v2"));
    assert!(found.join(WEIGHTS).is_file());
    let report = fetch_repository(name, &folder.path().join("own"), &options(&server)).unwrap();
    assert_eq!(report.repository, "albert/albert-base-v2");
}

/// A repository as the hub's own client keeps it; the folder of its files.
fn keep(cache: &Path, commit: &str) -> PathBuf {
    let own = cache.join("models--some--model");
    let snapshot = own.join("snapshots").join(commit);
    for folder in [&own.join("refs"), &own.join("blobs"), &snapshot] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(own.join("refs/main"), commit).unwrap();
    for file in ["config.json", "vocab.txt", "pytorch_model.bin"] {
        fs::write(own.join("blobs").join(file), file).unwrap();
        std::os::unix::fs::symlink(own.join("blobs").join(file), snapshot.join(file)).unwrap();
    }
    snapshot
}

#[test]
fn what_the_hubs_own_client_has_brought_is_used_where_it_lies() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let (hub_cache, cache) = (folder.path().join("hub"), folder.path().join("cache"));
    let snapshot = keep(&hub_cache, "c0ffee");
    let options = FetchOptions { hub_cache: Some(hub_cache), ..options(&server) };
    let resolve = |model: &str| resolve_model(model, folder.path(), &cache, &options);
    assert_eq!(resolve(NAME).unwrap(), snapshot);
    assert_eq!(resolve("some/model@c0ffee").unwrap(), snapshot);
    assert!(server.take_requests().is_empty());
    // What a branch's file says is a commit's name, or nothing.
    let own = snapshot.ancestors().nth(2).unwrap();
    fs::rename(&snapshot, own.join("files")).unwrap();
    fs::write(own.join("refs/out"), "../files").unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    for elsewhere in ["some/model@../snapshots", "some/model@beef", "some/model@refs", "some/model@out"] {
        assert!(matches!(resolve(elsewhere), Err(FetchError::NoModel { .. })), "{elsewhere}");
    }
    fs::remove_dir(&snapshot).unwrap();
    fs::rename(own.join("files"), &snapshot).unwrap();

    // Half a model there is fetched here, and what is whole here stays in use.
    publish(&server, "main", "a");
    fs::remove_file(snapshot.join("vocab.txt")).unwrap();
    assert_eq!(resolve(NAME).unwrap(), cache.join("some--model"));
    fs::write(snapshot.join("vocab.txt"), "").unwrap();
    assert_eq!(resolve(NAME).unwrap(), cache.join("some--model"));
}

#[test]
fn what_is_no_model_says_what_was_tried() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let options = options(&server);
    let says =
        |model: &str| resolve_model(model, folder.path(), folder.path(), &options).unwrap_err().to_string();
    let base = folder.path().display().to_string();
    let text = says("no/where");
    assert!(text.contains(&format!("{base}/no/where does not exist")), "{text}");
    assert!(text.contains("/no/where/resolve/main/config.json does not exist (404)"), "{text}");
    assert!(says("file").contains("is not a folder"));
    assert!(says("../x/y").contains("owner/name"));
    assert!(says("").contains("owner/name"));
    assert!(says("google_albert_bace_v2").contains("did you mean google_albert_base_v2?"));
    assert!(says("gluon_en_cased_bert_base_v1").contains("squadctl models convert"));
    assert!(matches!(fetch_repository("x", folder.path(), &options), Err(FetchError::BadName { .. })));
}

#[test]
fn offline_a_name_says_where_its_files_would_lie() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub { offline: true, ..Hub::default() };
    let options = FetchOptions { hub, ..FetchOptions::default() };
    let error = resolve_model("google_electra_small", folder.path(), folder.path(), &options).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("google--electra-small-discriminator") && text.contains("HF_HUB_OFFLINE"),
        "{text}"
    );
}
