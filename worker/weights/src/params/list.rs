//! MXNet's list of arrays, in which the published models of the replaced program are.
//!
//! Little-endian: a number for the format, a zero, the arrays after their count, the names after theirs.

use super::Array;
use crate::contents::Contents;
use crate::cursor::Cursor;
use crate::error::Fault;
use crate::view::{Element, View};

/// What an array begins with: version 2, and version 3, which knows shapes as NumPy does.
const ARRAY: [u32; 2] = [0xF993_FAC9, 0xF993_FACA];

/// Reads all arrays of the file.
pub(crate) fn read(bytes: &[u8], contents: &mut Contents) -> Result<(), Fault> {
    let mut cursor = Cursor::new(bytes);
    cursor.take(16)?;
    let count = cursor.u64()?;
    let mut arrays = Vec::new();
    for _ in 0..count {
        arrays.push(array(&mut cursor)?);
    }
    if cursor.u64()? != count {
        return Fault::unsupported("its arrays have no names; save it as a dictionary of arrays");
    }
    for array in arrays {
        let length = cursor.u64()?;
        let name = cursor.text(length)?;
        let name = ["arg:", "aux:"].iter().find_map(|kind| name.strip_prefix(kind)).unwrap_or(name);
        contents.add(name, &array)?;
    }
    if cursor.left() > 0 {
        return Fault::damaged(format!("{} bytes follow its last name", cursor.left()));
    }
    Ok(())
}

fn array<'a>(cursor: &mut Cursor<'a>) -> Array<'a> {
    let at = cursor.at();
    let magic = cursor.u32()?;
    if !ARRAY.contains(&magic) {
        return Fault::unsupported(format!(
            "the array at byte {at} begins with 0x{magic:08X}; load and save it with MXNet 1.5 or later"
        ));
    }
    let storage = cursor.i32()?;
    if storage != 0 {
        return Fault::unsupported(format!("the array at byte {at} is sparse; save it as a dense one"));
    }
    let axes = cursor.i32()?;
    // Without an axis, version 2 means no array at all, and version 3 a single number, which no network has.
    if axes <= 0 {
        return Fault::unsupported(format!(
            "the array at byte {at} has {axes} axes; save it without that array"
        ));
    }
    let mut shape = Vec::new();
    for _ in 0..axes {
        let length = cursor.i64()?;
        let Ok(length) = u64::try_from(length) else {
            return Fault::damaged(format!("the array at byte {at} has an axis of length {length}"));
        };
        shape.push(length);
    }
    let _device = cursor.take(8)?;
    let kind = cursor.i32()?;
    let Some(element) = element(kind) else {
        return Fault::unsupported(format!(
            "the array at byte {at} is of type {kind}; save it as 16, 32 or 64-bit floats"
        ));
    };
    let size = shape.iter().try_fold(element.size(), |size, axis| size.checked_mul(*axis));
    let data = cursor.take(size.unwrap_or(u64::MAX))?;
    View::row_major(element, data, shape)
}

fn element(kind: i32) -> Option<Element> {
    Some(match kind {
        0 => Element::F32,
        1 => Element::F64,
        2 => Element::F16,
        3 | 5 | 7 => Element::Whole(1),
        4 => Element::Whole(4),
        6 => Element::Whole(8),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with one array of three 16-bit floats, shaped by `change`.
    fn file(change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut array = Vec::new();
        array.extend(ARRAY[0].to_le_bytes());
        for word in [0, 1, 3, 0, 1, 0, 2_i32] {
            array.extend(word.to_le_bytes());
        }
        array.extend([0, 0x3C, 0, 0xC0, 1, 0]);
        change(&mut array);
        let mut bytes = Vec::new();
        for word in [0x112, 0, 1_u64] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(array);
        for word in [1, 5_u64] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(b"arg:w");
        bytes
    }

    #[test]
    fn version_2_in_half_precision_is_read_and_its_prefix_taken_off() {
        let mut contents = Contents::of_file(0);
        read(&file(|_| ()), &mut contents).unwrap();
        let expected = (vec![3], vec![1.0, -2.0, 2_f32.powi(-24)]);
        assert_eq!(contents.tensors.into_iter().collect::<Vec<_>>(), [("w".to_owned(), expected)]);
    }

    #[test]
    fn what_is_no_dense_array_of_numbers_is_an_error() {
        for (at, byte) in [(0, 0xC8), (4, 1), (8, 0), (8, 2), (12, 4), (19, 0xFF), (28, 9)] {
            let bytes = file(|array| array[at] = byte);
            assert!(read(&bytes, &mut Contents::of_file(0)).is_err(), "byte {at} as {byte}");
        }
        for length in 0..file(|_| ()).len() {
            assert!(read(&file(|_| ())[..length], &mut Contents::of_file(0)).is_err(), "{length}");
        }
    }
}
