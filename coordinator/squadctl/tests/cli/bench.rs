//! `bench`: real ranks, real sums.

use std::fs;

use crate::{squadctl, squadctl_in};

const QUICK: [&str; 8] = ["bench", "allreduce", "-np", "3", "--seconds", "0.02", "--sizes", "8,4KiB..64KiB"];

#[test]
fn ranks_sum_right_over_both_carriers_and_the_document_has_the_figures() {
    for (carrier, memory) in [("shm", "collective"), ("shm", "caller"), ("tcp", "collective")] {
        let more = ["--transport", carrier, "--memory", memory, "--output", "json"];
        let call = squadctl(&[&QUICK[..], &more].concat());
        assert_eq!(call.code, 0, "{}", call.stderr);
        let report = call.json();
        assert_eq!((&report["np"], &report["transport"]), (&3.into(), &carrier.into()));
        let rows = report["results"].as_array().unwrap();
        let sizes: Vec<u64> = rows.iter().map(|row| row["bytes"].as_u64().unwrap()).collect();
        assert_eq!(sizes, [8, 4096, 16384, 65536]);
        for row in rows {
            assert_eq!(row["correct"], true, "{row}");
            let (time, p99) = (row["median_s"].as_f64().unwrap(), row["p99_s"].as_f64().unwrap());
            let (alg, bus) = (row["algbw_GBps"].as_f64().unwrap(), row["busbw_GBps"].as_f64().unwrap());
            assert!(time > 0.0 && p99 >= time);
            assert!((alg - row["bytes"].as_f64().unwrap() / time / 1e9).abs() <= 1e-9 * alg);
            assert!((bus - alg * 4.0 / 3.0).abs() <= 1e-9 * bus, "2 (np - 1) / np of three ranks");
        }
    }
}

#[test]
fn people_get_a_table_and_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let call = squadctl_in(folder.path(), &[&QUICK[..], &["--plot", "rate.svg"]].concat());
    assert_eq!(call.code, 0, "{}", call.stderr);
    assert!(call.stdout.starts_with("3 ranks over shm\n"), "{}", call.stdout);
    assert!(call.stdout.contains("64 KiB") && call.stdout.contains("right"), "{}", call.stdout);
    let picture = fs::read_to_string(folder.path().join("rate.svg")).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("Bus bandwidth"));
}

#[test]
fn throttled_links_show_how_ring_and_server_scale() {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        ["bench", "allreduce", "--link-gbps", "1", "-np", "3", "--sizes", "64KiB", "--seconds", "0.01"];
    let more = ["--plot", "scaling.svg", "--output", "json"];
    let call = squadctl_in(folder.path(), &[&arguments[..], &more].concat());
    assert_eq!(call.code, 0, "{}", call.stderr);
    let scaling = call.json();
    let ways: Vec<(String, u64)> = scaling["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| (run["transport"].as_str().unwrap().to_owned(), run["np"].as_u64().unwrap()))
        .collect();
    let due = [("tcp", 2), ("tcp", 3), ("server", 2), ("server", 3)].map(|(way, np)| (way.to_owned(), np));
    assert_eq!(ways, due);
    for run in scaling["runs"].as_array().unwrap() {
        let row = &run["results"][0];
        assert_eq!(row["correct"], true);
    }
    let picture = fs::read_to_string(folder.path().join("scaling.svg")).unwrap();
    assert!(picture.contains("Ranks") && picture.contains("ring") && picture.contains("server"));
}

#[test]
fn what_cannot_be_measured_is_said() {
    for (arguments, words) in [
        (&["--sizes", "4TiB"][..], "\"4TiB\" is no size"),
        (&["--sizes", "64KiB..4KiB"], "the range ends before it begins"),
        (&["--seconds", "0"], "--seconds 0"),
        (&["--np", "0"], "--np"),
        (&["--link-gbps", "0"], "--link-gbps 0"),
        (&["--link-gbps", "1", "--transport", "shm"], "--transport tcp, server or auto"),
        (&["--link-gbps", "1", "--transport", "nccl"], "--transport tcp, server or auto"),
        (&["--transport", "nccl", "--memory", "caller"], "--transport nccl sums in the memory of GPUs"),
    ] {
        let call = squadctl(&[&["bench", "allreduce"], arguments].concat());
        assert_eq!((call.code, call.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(call.stderr.contains(words), "{}", call.stderr);
    }
}

#[test]
fn steps_that_cannot_be_measured_are_refused_before_a_worker_is_started() {
    for (arguments, words) in [
        (&["--seconds", "0"][..], "--seconds 0"),
        (&["--dropout", "1"], "--dropout 1"),
        (&["--lengths", "none.json"], "--lengths none.json: there is no such file"),
        (&["--tokenizer", "t"], "--lengths"),
        (&["--dtype", "int8"], "--dtype"),
        (&["--batch", "0"], "--batch"),
    ] {
        let call = squadctl(&[&["bench", "step", "--model", "m"], arguments].concat());
        assert_eq!((call.code, call.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(call.stderr.contains(words), "{}", call.stderr);
    }
    assert_eq!(squadctl(&["bench", "step"]).code, 2, "a model is needed");
}
