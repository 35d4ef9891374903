//! Every form of weights that PyTorch, NumPy and safetensors write is read to the same tensors.

use std::fs;
use std::path::Path;

use crate::common::{assert_same, golden};
use squad_weights::{WeightsError, read, read_folder};

/// Copies golden files into a folder.
fn copy(files: &[&str], folder: &Path) {
    for file in files {
        let from = golden(file);
        fs::copy(&from, folder.join(from.file_name().unwrap())).unwrap();
    }
}

#[test]
fn views_shared_storages_and_half_precision_are_read_from_every_form_alike() {
    let expected = read(&golden("state.expected.safetensors")).unwrap();
    assert_eq!(expected.len(), 17, "floats alone");
    for file in ["state.bin", "state.protocol4.bin", "state.older.bin"] {
        assert_same(&read(&golden(file)).unwrap(), &expected);
    }
    for folder in ["sharded", "sharded_bin"] {
        assert_same(&read_folder(&golden(folder)).unwrap().0, &expected);
    }
}

#[test]
fn values_are_those_that_were_saved() {
    let tensors = read(&golden("state.bin")).unwrap();
    assert_eq!(tensors["scalar"], (vec![], vec![2.5]));
    assert_eq!(tensors["empty"], (vec![0, 3], vec![]));
    assert_eq!(tensors["bfloat16"].1[2], f32::INFINITY);
    assert_eq!(tensors["half"].1[5], 65504.0);
    assert_eq!(tensors["single"].1[1].to_bits(), (-0.0_f32).to_bits());
    let (shape, transposed) = &tensors["view.transposed"];
    assert_eq!(shape, &[8, 6]);
    let base = &tensors["shared.first"].1;
    assert!((0..48).all(|i| transposed[i] == base[i % 6 * 8 + i / 6]));
    assert!(!tensors.contains_key("position_ids") && !tensors.contains_key("flags"), "whole numbers");
}

#[test]
fn a_name_says_nothing_about_the_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::copy(golden("state.older.bin"), &path).unwrap();
    let (tensors, found) = read_folder(folder.path()).unwrap();
    assert_eq!((tensors.len(), found), (17, path));
}

#[test]
fn numpy_archives_are_read_in_both_orders() {
    let tensors = read(&golden("fortran.npz")).unwrap();
    assert_eq!(tensors.keys().collect::<Vec<_>>(), ["columns", "half", "rows"]);
    assert_eq!(tensors["columns"], tensors["rows"]);
    assert_eq!(tensors["rows"].0, [3, 4]);
    let half = |v: f32| half_of(v).to_bits();
    assert!(tensors["half"].1.iter().zip(&tensors["rows"].1).all(|(h, v)| h.to_bits() == half(*v)));
}

/// A single-precision number of moderate size, rounded to half precision's 11 binary digits, ties to even.
fn half_of(value: f32) -> f32 {
    let step = 2_f32.powi(value.abs().log2().floor() as i32 - 10);
    (value / step).round_ties_even() * step
}

#[test]
fn what_would_be_run_is_refused_by_name() {
    for (file, name) in [
        ("malicious.bin", "posix.system"),
        ("malicious.older.bin", "posix.system"),
        ("malicious.pickle", "os.system"),
    ] {
        let error = read(&golden(file)).unwrap_err();
        assert!(matches!(&error, WeightsError::Refused { global, .. } if global == name), "{error}");
        assert!(error.to_string().contains(&format!("refused to run {name}")), "{error}");
    }
}

#[test]
fn what_is_not_read_says_why() {
    let error = read(&golden("big_endian.bin")).unwrap_err().to_string();
    assert!(error.contains("big-endian"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pytorch_model.bin");
    for (text, expected) in [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        ("<!doctype html>", "not a weights file known here"),
        ("{\"hidden_size\": 8}", "weight_map"),
        ("", "not a weights file known here"),
        ("\u{1}\0\0\0\0\0\0\0{", "not a whole weights file"),
    ] {
        fs::write(&path, text).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("pytorch_model.bin"), "{error}");
    }
}

#[test]
fn a_flipped_bit_of_a_params_file_is_found_by_its_checksum() {
    let mut bytes = fs::read(golden("fortran.npz")).unwrap();
    let at = bytes.windows(5).position(|w| w == b"), }\x20").unwrap() + 100;
    bytes[at] ^= 1;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.params");
    fs::write(&path, bytes).unwrap();
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains("checksum"), "{error}");
}

#[test]
fn a_folder_s_first_form_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let error = read_folder(folder.path()).unwrap_err().to_string();
    for name in [
        "model.safetensors, ",
        "model.safetensors.index.json",
        "pytorch_model.bin, ",
        "pytorch_model.bin.index.json",
    ] {
        assert!(error.contains(name), "{error}");
    }
    let mut names = Vec::new();
    for file in [
        "sharded_bin/pytorch_model-00001-of-00002.bin",
        "sharded_bin/pytorch_model-00002-of-00002.bin",
        "sharded_bin/pytorch_model.bin.index.json",
    ] {
        copy(&[file], folder.path());
    }
    names.push(read_folder(folder.path()).unwrap().1);
    fs::copy(golden("state.bin"), folder.path().join("pytorch_model.bin")).unwrap();
    names.push(read_folder(folder.path()).unwrap().1);
    copy(&["sharded/model.safetensors.index.json"], folder.path());
    copy(
        &["sharded/model-00001-of-00002.safetensors", "sharded/model-00002-of-00002.safetensors"],
        folder.path(),
    );
    names.push(read_folder(folder.path()).unwrap().1);
    fs::copy(golden("state.expected.safetensors"), folder.path().join("model.safetensors")).unwrap();
    names.push(read_folder(folder.path()).unwrap().1);
    let names: Vec<_> = names.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "pytorch_model.bin.index.json",
            "pytorch_model.bin",
            "model.safetensors.index.json",
            "model.safetensors"
        ]
    );
}

#[test]
fn an_index_and_its_files_must_belong_together() {
    let folder = tempfile::tempdir().unwrap();
    copy(
        &["sharded/model.safetensors.index.json", "sharded/model-00001-of-00002.safetensors"],
        folder.path(),
    );
    let path = folder.path().join("model.safetensors.index.json");
    let error = || read(&path).unwrap_err().to_string();
    assert!(error().contains("model-00002-of-00002.safetensors is missing"), "{}", error());

    fs::copy(
        golden("sharded/model-00001-of-00002.safetensors"),
        folder.path().join("model-00002-of-00002.safetensors"),
    )
    .unwrap();
    assert!(error().contains("model-00002-of-00002.safetensors holds bfloat16, but"), "{}", error());

    fs::write(folder.path().join("outside"), "").unwrap();
    for file in ["../outside", "/etc/hostname", "sub/file"] {
        fs::write(&path, format!("{{\"weight_map\": {{\"a\": \"{file}\"}}}}")).unwrap();
        assert!(error().contains("leaves the folder"), "{}", error());
    }
    // An index that names itself.
    fs::write(&path, "{\"weight_map\": {\"a\": \"model.safetensors.index.json\"}}").unwrap();
    assert!(error().contains("not a weights file known here"), "{}", error());
}
