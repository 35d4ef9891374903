//! Files are written whole or not at all.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::{assert_same, golden};
use squad_weights::{Existing, Tensors, WeightsError, read, write_safetensors};

fn write(path: &std::path::Path, tensors: &Tensors, existing: Existing) -> Result<(), WeightsError> {
    let views = tensors.iter().map(|(name, (shape, values))| (name.as_str(), &shape[..], &values[..]));
    write_safetensors(path, views, existing)
}

#[test]
fn what_is_written_is_read_back() {
    let tensors = read(&golden("state.bin")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path, &tensors, Existing::Keep).unwrap();
    assert_same(&read(&path).unwrap(), &tensors);
    let bytes = fs::read(&path).unwrap();
    let header: serde_json::Value =
        serde_json::from_slice(&bytes[8..8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize])
            .unwrap();
    assert_eq!(header["__metadata__"], serde_json::json!({"format": "pt"}));
    let others = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(others & 0o600, 0o600);
    let plain = folder.path().join("plain");
    fs::write(&plain, "").unwrap();
    assert_eq!(others, fs::metadata(&plain).unwrap().permissions().mode() & 0o777, "as any new file");
}

#[test]
fn an_existing_file_is_kept_unless_it_is_to_be_replaced() {
    let tensors = read(&golden("state.bin")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, "mine").unwrap();
    assert!(matches!(write(&path, &tensors, Existing::Keep), Err(WeightsError::Exists { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    write(&path, &tensors, Existing::Replace).unwrap();
    assert_same(&read(&path).unwrap(), &tensors);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
}

#[test]
fn a_shape_must_belong_to_its_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for shape in [vec![2, 2], vec![-3], vec![i64::MAX, i64::MAX, 4]] {
        let tensors = [("wrong".to_owned(), (shape, vec![0.0; 3]))].into();
        let error = write(&path, &tensors, Existing::Replace).unwrap_err().to_string();
        assert!(error.contains("wrong has 3 values"), "{error}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
