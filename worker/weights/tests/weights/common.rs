//! What several test files need.

use std::path::PathBuf;

use squad_weights::Tensors;

/// A file or folder that scripts/golden_weights.py made.
pub(crate) fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Asserts that the same tensors are there, bit for bit, also where they are no numbers.
pub(crate) fn assert_same(found: &Tensors, expected: &Tensors) {
    let names = |tensors: &Tensors| tensors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected));
    for (name, (shape, values)) in found {
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(shape, &expected[name].0, "{name}");
        assert_eq!(bits(values), bits(&expected[name].1), "{name}");
    }
}
