//! Help, version, schema, explanations, completions.

use crate::{program, squadctl, squadctl_in};

const COMMANDS: &[&str] = &[
    "run",
    "submit",
    "list",
    "top",
    "get",
    "watch",
    "logs",
    "cancel",
    "explain",
    "evaluate",
    "predict",
    "schema",
    "man",
    "completions",
    "models",
    "recipes",
    "render",
    "doctor",
    "plan",
    "bench",
];

#[test]
fn help_names_every_command_and_each_has_its_own() {
    let help = squadctl(&["--help"]);
    assert_eq!(help.code, 0);
    for command in COMMANDS {
        assert!(help.stdout.contains(&format!("\n  {command} ")), "{command}: {}", help.stdout);
        let own = squadctl(&[command, "--help"]);
        assert_eq!((own.code, own.stderr.as_str()), (0, ""), "{command}");
        assert!(own.stdout.contains("Examples:\n  squadctl "), "{command}: {}", own.stdout);
    }
}

#[test]
fn help_tells_what_json_output_is() {
    for command in ["run", "watch"] {
        let help = squadctl(&[command, "--help"]).stdout.replace('\n', " ");
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            help.contains("one JSON document on stdout at the end") && help.contains("JSON lines on stderr"),
            "{help}"
        );
    }
}

#[test]
fn version_is_the_workspaces() {
    assert_eq!(squadctl(&["--version"]).stdout.trim(), concat!("squadctl ", env!("CARGO_PKG_VERSION")));
    assert_eq!(squadctl(&["run", "--version"]).code, 0);
}

#[test]
fn bad_usage_is_two_with_words_on_stderr() {
    for arguments in
        [&["fly"][..], &["run"], &[], &["run", "a.yaml", "-np", "0"], &["run", "a.yaml", "-np", "many"]]
    {
        let call = squadctl(arguments);
        assert_eq!((call.code, call.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(!call.stderr.is_empty(), "{arguments:?}");
    }
    let call = squadctl(&["fly", "--output", "json"]);
    assert_eq!(call.code, 2);
    assert_eq!(call.json()["exit_code"], 2);
}

#[test]
fn schema_describes_the_spec() {
    let schema = squadctl(&["schema"]);
    assert_eq!(schema.code, 0);
    assert!(schema.json()["properties"]["train"].is_object());
    assert_eq!(squadctl(&["schema", "--output", "json"]).stdout, schema.stdout);
}

#[test]
fn explain_prints_the_page() {
    let page = squadctl(&["explain", "sq-004"]);
    assert_eq!(page.code, 0);
    assert!(
        page.stdout.starts_with("# SQ-004: A worker process ended without saying why\n"),
        "{}",
        page.stdout
    );
    let document = squadctl(&["explain", "SQ-004", "--output", "json"]).json();
    assert_eq!(document["title"], "A worker process ended without saying why");

    let unknown = squadctl(&["explain", "SQ-500"]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (2, ""));
    assert!(unknown.stderr.contains("SQ-500 is not a failure code"), "{}", unknown.stderr);
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let man = folder.path().join("share/man1");
    let call = squadctl(&["man", man.to_str().unwrap()]);
    assert_eq!(call.code, 0, "{}", call.stderr);
    for command in COMMANDS {
        let page = std::fs::read_to_string(man.join(format!("squadctl-{command}.1"))).unwrap();
        assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{command}: {page}");
    }
    let run = std::fs::read_to_string(man.join("squadctl-run.1")).unwrap();
    assert!(run.contains("eval\\-only") && run.contains("squadctl run job.yaml \\-np 4"), "{run}");
    assert!(man.join("squadctl-models-fetch.1").is_file());
    // What groff has to say about them, where it is there.
    let Ok(check) = std::process::Command::new("groff")
        .args(["-man", "-Tutf8", "-ww", "-z"])
        .arg(man.join("squadctl-run.1"))
        .output()
    else {
        eprintln!("skipped: the pages are not formatted, groff is not installed");
        return;
    };
    assert!(check.status.success() && check.stderr.is_empty(), "{}", String::from_utf8_lossy(&check.stderr));
    let nowhere = squadctl(&["man", "/dev/null/man"]);
    assert_eq!((nowhere.code, nowhere.stdout.as_str()), (1, ""));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = squadctl(&["completions", shell]);
        assert_eq!(script.code, 0);
        for word in ["explain", "eval-only", "electra-small-squad2"] {
            assert!(script.stdout.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(squadctl(&["completions", "tcsh-ish"]).code, 2);
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let binary = env!("CARGO_BIN_EXE_squadctl");
    let line = format!("set -o pipefail; '{binary}' completions bash | head -1");
    let status = std::process::Command::new("bash").args(["-c", &line]).output().unwrap();
    assert!(status.status.success(), "{status:?}");
}

#[test]
fn a_question_needs_a_model_and_a_text_that_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let ask =
        |more: &[&str]| squadctl_in(folder.path(), &[&["predict", "--question", "Who?"], more].concat());
    let no_model = ask(&["--model", "m", "--context", "Ada."]);
    assert_eq!(no_model.code, 2);
    assert!(no_model.stderr.starts_with("error: --model m: there is no such folder"), "{}", no_model.stderr);
    let no_text = ask(&["--model", ".", "--context-file", "page.txt"]);
    assert_eq!(no_text.code, 2);
    assert!(no_text.stderr.contains("--context-file page.txt: there is no such file"), "{}", no_text.stderr);
    assert_eq!(ask(&["--model", "."]).code, 2);
    assert_eq!(ask(&["--model", ".", "--context", "a", "--context-file", "b"]).code, 2);
}

#[test]
fn a_repositorys_name_has_an_owner() {
    let folder = tempfile::tempdir().unwrap();
    let call = squadctl_in(folder.path(), &["models", "fetch", "minilm", "--dir", "m"]);
    assert_eq!(call.code, 2);
    assert!(call.stderr.contains("owner/name"), "{}", call.stderr);
    let call = squadctl_in(folder.path(), &["models", "fetch", "a/b", "--dir", "m", "--sha256", "12"]);
    assert_eq!(call.code, 2);
    let mut offline = program(&["models", "fetch", "a/b", "--dir", "m"]);
    let call = offline.env("HF_HUB_OFFLINE", "1").current_dir(folder.path()).output().unwrap();
    assert_eq!(call.status.code(), Some(1));
    assert!(String::from_utf8(call.stderr).unwrap().contains("HF_HUB_OFFLINE forbids fetching it"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}
