//! Damaged and hostile files: whatever the bytes are, reading them ends, with tensors or an error.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use crate::{format, whole};

/// Small golden files, one of each form.
const FILES: [&str; 8] = [
    "state.expected.safetensors",
    "state.bin",
    "state.protocol4.bin",
    "state.older.bin",
    "malicious.bin",
    "malicious.older.bin",
    "fortran.npz",
    "albert/backbone_legacy_v3.params",
];

fn golden(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap()
}

/// What is done to a file at a place that is a share of its length.
#[derive(Clone, Debug)]
enum Change {
    Set(f64, u8),
    Ones(f64, usize),
    Cut(f64),
    Remove(f64, usize),
    Repeat(f64, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let place = || 0.0..1.0_f64;
    prop_oneof![
        4 => (place(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        // Near the end, where archives keep their directory, and near the start, where headers are.
        2 => (0.8..1.0_f64, any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        2 => (0.0..0.1_f64, any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => (place(), 1..9_usize).prop_map(|(at, count)| Change::Ones(at, count)),
        1 => place().prop_map(Change::Cut),
        1 => (place(), 1..40_usize).prop_map(|(at, count)| Change::Remove(at, count)),
        1 => (place(), 1..40_usize).prop_map(|(at, count)| Change::Repeat(at, count)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let length = bytes.len();
    let span = |at: f64, count: usize| {
        let start = (at * length as f64) as usize;
        start.min(length)..(start + count).min(length)
    };
    match change {
        Change::Set(at, byte) => bytes[span(*at, 1)].fill(*byte),
        Change::Ones(at, count) => bytes[span(*at, *count)].fill(0xFF),
        Change::Cut(at) => bytes.truncate(span(*at, 0).start),
        Change::Remove(at, count) => drop(bytes.drain(span(*at, *count))),
        Change::Repeat(at, count) => {
            let span = span(*at, *count);
            let again = bytes[span.clone()].to_vec();
            bytes.splice(span.start..span.start, again);
        }
    }
}

/// Floats read of these bytes; `None` for an error.
fn floats(bytes: &[u8]) -> Option<usize> {
    let contents = whole(format::recognise(bytes), bytes).ok()?;
    Some(contents.tensors.values().map(|(_, values)| values.len()).sum())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_file_is_read_or_refused_within_bounds(
        file in 0..FILES.len(),
        changes in prop::collection::vec(change(), 1..6),
    ) {
        let mut bytes = golden(FILES[file]);
        for change in &changes {
            apply(&mut bytes, change);
        }
        if let Some(floats) = floats(&bytes) {
            prop_assert!(floats <= (1 << 20) + 4 * bytes.len());
        }
    }

    #[test]
    fn bytes_of_any_kind_are_read_or_refused(
        start in 0..6_usize,
        rest in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let list = [[0x12, 1, 0, 0, 0, 0, 0, 0], [0; 8]].concat();
        let starts: [&[u8]; 6] =
            [b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04\x95", b"\x40\0\0\0\0\0\0\0{", &list];
        let bytes = [starts[start], &rest].concat();
        floats(&bytes);
    }
}

#[test]
fn the_files_are_read_before_they_are_changed() {
    let read: Vec<bool> = FILES.iter().map(|file| floats(&golden(file)).is_some()).collect();
    assert_eq!(read, [true, true, true, true, false, false, true, true]);
}

#[test]
fn a_view_that_repeats_one_number_forever_is_refused() {
    // One tensor of 2^31 - 1 numbers, all of them the same four bytes: the older form, written by hand.
    let text = |text: &str| [&[b'X'][..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let huge = [&[b'J'][..], &i32::MAX.to_le_bytes()].concat();
    let state = [
        b"\x80\x02}".to_vec(),
        text("w"),
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text("0"),
        text("cpu"),
        b"K\x01tQK\0".to_vec(),
        huge,
        b"\x85K\0\x85\x89}tRs.".to_vec(),
    ]
    .concat();
    let keys = [b"\x80\x02](".to_vec(), text("0"), b"e.".to_vec()].concat();
    let older = golden("state.older.bin");
    let head = older.windows(3).position(|bytes| bytes == b"u.\x80").unwrap() + 2;
    let bytes = [&older[..head], &state, &keys, &1_u64.to_le_bytes(), &[0; 4]].concat();
    let error = whole(format::recognise(&bytes), &bytes).unwrap_err();
    assert!(format!("{error:?}").contains("larger than a file of this size can hold"), "{error:?}");
    let small = bytes.windows(5).position(|b| b == [b'J', 0xFF, 0xFF, 0xFF, 0x7F]).unwrap();
    let mut bytes = bytes;
    bytes[small + 1..small + 5].copy_from_slice(&3_i32.to_le_bytes());
    assert_eq!(floats(&bytes), Some(3), "but for its size it is a file like any other");
}
