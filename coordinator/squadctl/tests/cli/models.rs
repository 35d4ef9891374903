//! `models`: the zoo, fetching by its names, converting, and what is handed on to workers.

use std::fs;
use std::path::{Path, PathBuf};

use squad_weights::{read, read_folder};

use crate::run::with_worker;
use crate::{program, squadctl, squadctl_in};

#[test]
fn the_zoo_is_a_table_or_a_document() {
    let text = squadctl(&["models", "list"]);
    assert_eq!((text.code, text.stderr.as_str()), (0, ""));
    let line = |name: &str| text.stdout.lines().find(|line| line.starts_with(name)).unwrap();
    let words = |name: &str| line(name).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        words("google_albert_xlarge_v2"),
        "google_albert_xlarge_v2 albert 24 2048 32 30000 uncased 54.5 M 218 MB albert/albert-xlarge-v2"
    );
    assert!(words("gluon_en_cased_bert_base_v1").ends_with("431 MB none: squadctl models convert"));

    let document = squadctl(&["models", "list", "--output", "json"]).json();
    let all = document.as_array().unwrap();
    assert_eq!(all.len() + 1, text.stdout.lines().count());
    let xlmr = all.iter().find(|entry| entry["name"] == "fairseq_xlmr_base").unwrap();
    assert_eq!((&xlmr["vocabulary"], &xlmr["hidden"]), (&250_002.into(), &768.into()));
    assert_eq!(xlmr["download_bytes"], 4 * 277_450_752_u64);
    assert!(
        all.iter().find(|entry| entry["name"] == "gluon_en_cased_bert_base_v1").unwrap()["repository"]
            .is_null()
    );
}

#[test]
fn a_name_of_the_zoo_is_asked_for_at_its_repository() {
    let folder = tempfile::tempdir().unwrap();
    let mut fetch = program(&["models", "fetch", "google_albert_base_v2", "--dir", "m"]);
    // Nobody listens there.
    fetch.env("HF_ENDPOINT", "http://127.0.0.1:1").env_remove("HF_HUB_OFFLINE").current_dir(folder.path());
    let output = fetch.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("http://127.0.0.1:1/albert/albert-base-v2/resolve/main/config.json"), "{stderr}");
}

#[test]
fn names_that_cannot_be_fetched_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for (name, remedy) in [
        ("google_albert_bass_v2", "did you mean google_albert_base_v2?"),
        ("gluon_en_cased_bert_base_v1", "squadctl models convert gluon_en_cased_bert_base_v1.params"),
    ] {
        let call = squadctl_in(folder.path(), &["models", "fetch", name, "--dir", "m"]);
        assert_eq!((call.code, call.stdout.as_str()), (2, ""));
        assert!(call.stderr.contains(remedy), "{}", call.stderr);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_check_is_handed_on_and_its_verdict_back() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["m", "r"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let verify = ["models", "verify", "--model", "m", "--reference", "r"];
    let more = ["--tolerance", "0.001", "--gradient-tolerance=1e-2", "--output", "json"];
    let call = [&verify[..], &more].concat();
    let output = with_worker(&folder, "printf '<%s>' \"$@\"; exit 1", &call).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let seen = String::from_utf8(output.stdout).unwrap();
    let expected =
        "<verify><--model><m><--reference><r><--tolerance=1e-3><--gradient-tolerance=1e-2><--output><json>";
    assert_eq!(seen, expected);

    let output = with_worker(&folder, "printf '<%s>' \"$@\"", &verify).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "<verify><--model><m><--reference><r>");

    let missing = ["models", "verify", "--model", "m", "--reference", "x"];
    let output = with_worker(&folder, "exit 7", &missing).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.starts_with("error: --reference x: there is no such folder"), "{stderr}");
}

/// Files that other programs wrote, kept with the crate that reads them.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../worker/weights/tests/golden").join(name)
}

/// A folder with copies of golden files under new names.
fn laid_out(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (from, to) in files {
        let to = folder.path().join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(golden(from), to).unwrap();
    }
    folder
}

#[test]
fn gluons_files_become_a_folder() {
    let network = ("albert/qa_conditional_v1.params", "g/last.params");
    let folder = laid_out(&[network, ("albert/model.yml", "g/model.yml")]);
    fs::write(folder.path().join("g/spiece.model"), "pieces").unwrap();
    let convert = ["models", "convert", "g/last.params", "--dir", "deep/out"];
    let call = squadctl_in(folder.path(), &[&convert[..], &["--output", "json"]].concat());
    assert_eq!((call.code, call.stderr.as_str()), (0, ""));
    let (report, out) = (call.json(), folder.path().join("deep/out"));
    assert_eq!((&report["family"], &report["head"]), (&"albert".into(), &"conditional".into()));
    assert_eq!(report["tokenizer"], serde_json::json!(["spiece.model"]));
    let (tensors, _) = read_folder(&out).unwrap();
    assert_eq!(report["tensors"], tensors.len());
    let (_, start) = &tensors["start_scores.weight"];
    assert_eq!(report["parameters"], tensors.values().map(|(_, values)| values.len()).sum::<usize>());
    assert_eq!(start, &read(&golden(network.0)).unwrap()["start_scores.weight"].1);
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["squadron"]["units"], report["units"]);

    // A second time the files are in the way.
    let again = squadctl_in(folder.path(), &convert);
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("the file exists") && again.stderr.contains("--force"), "{}", again.stderr);
    let forced = squadctl_in(folder.path(), &[&convert[..], &["--force"]].concat());
    assert_eq!(forced.code, 0, "{}", forced.stderr);
    assert!(forced.stdout.starts_with("deep/out\n  albert, head conditional of "), "{}", forced.stdout);
}

#[test]
fn the_older_format_is_read_too_and_a_missing_tokenizer_named() {
    let folder =
        laid_out(&[("bert/backbone_legacy_v3.params", "old.params"), ("bert/model.yml", "bert.yml")]);
    let call = squadctl_in(
        folder.path(),
        &["models", "convert", "old.params", "--config", "bert.yml", "--dir", "out"],
    );
    assert_eq!(call.code, 0, "{}", call.stderr);
    assert!(call.stdout.starts_with("out\n  bert, head none: "), "{}", call.stdout);
    assert!(call.stderr.contains("out has no tokenizer yet"), "{}", call.stderr);
}

#[test]
fn pytorchs_files_keep_their_names_and_may_stay_where_they_are() {
    let folder = laid_out(&[("state.bin", "m/pytorch_model.bin")]);
    let config = r#"{"model_type": "electra"}"#;
    fs::write(folder.path().join("m/config.json"), config).unwrap();
    let expected = read(&golden("state.bin")).unwrap();
    for (source, dir) in [("m/pytorch_model.bin", "out"), ("m", "m")] {
        let call = squadctl_in(folder.path(), &["models", "convert", source, "--dir", dir]);
        assert_eq!(call.code, 0, "{}", call.stderr);
        assert_eq!(read(&folder.path().join(dir).join("model.safetensors")).unwrap(), expected);
        assert_eq!(fs::read_to_string(folder.path().join(dir).join("config.json")).unwrap(), config);
    }
}

#[test]
fn what_cannot_be_converted_is_named() {
    let folder = laid_out(&[("malicious.bin", "bad/pytorch_model.bin"), ("bert/model.yml", "bert.yml")]);
    let convert =
        |more: &[&str]| squadctl_in(folder.path(), &[&["models", "convert", "--dir", "out"], more].concat());
    for (arguments, code, words) in [
        (&["nowhere.params"][..], 2, "nowhere.params: there is no such file"),
        (
            &["bad/pytorch_model.bin"],
            2,
            "there is neither model.yml nor config.json beside bad/pytorch_model.bin",
        ),
        (&["bad/pytorch_model.bin", "--config", "x.yml"], 2, "--config x.yml: there is no such file"),
        (&["bad/pytorch_model.bin", "--config", "bert.yml"], 1, "refused to run"),
    ] {
        let call = convert(arguments);
        assert_eq!((call.code, call.stdout.as_str()), (code, ""), "{arguments:?}");
        assert!(call.stderr.contains(words), "{}", call.stderr);
    }
    assert!(!folder.path().join("out").exists());
}
