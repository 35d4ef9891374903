//! Zip archives whose entries are stored as they are, which is how PyTorch, NumPy and MXNet write them.
//!
//! An entry is a slice of the file: nothing is unpacked or copied. Sizes and places are those of the central
//! directory, since writers that stream leave them zero in the local headers.

use std::collections::BTreeMap;

use crate::cursor::Cursor;
use crate::error::Fault;

/// Bytes of the record that ends an archive, without its comment.
const END: usize = 22;
/// Bytes of the record that leads to the end record of large archives.
const LOCATOR: usize = 20;
/// Longest comment after the end record.
const LONGEST_COMMENT: usize = 0xFFFF;
/// Stands for a value that is in the extra field.
const ELSEWHERE: u32 = u32::MAX;

/// One file of an archive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    /// Its bytes.
    pub(crate) data: &'a [u8],
    crc: u32,
}

impl<'a> Entry<'a> {
    /// The bytes, compared with their checksum. PyTorch can leave checksums out, and does not look at them either.
    pub(crate) fn checked(&self) -> Result<&'a [u8], Fault> {
        if crc32fast::hash(self.data) != self.crc {
            return Fault::damaged("its checksum differs");
        }
        Ok(self.data)
    }
}

/// The entries of an archive by name.
pub(crate) fn entries(bytes: &[u8]) -> Result<BTreeMap<&str, Entry<'_>>, Fault> {
    let (mut cursor, count) = directory(bytes)?;
    let mut entries = BTreeMap::new();
    let mut total = 0_u64;
    for _ in 0..count {
        let (name, entry) = entry(bytes, &mut cursor)?;
        // Entries that overlap would be read again and again.
        total += entry.data.len() as u64;
        if total > bytes.len() as u64 || entries.insert(name, entry).is_some() {
            return Fault::damaged(format!("the archive's entry {name} overlaps another or is there twice"));
        }
    }
    Ok(entries)
}

/// The start of the central directory, and how many entries it has.
fn directory(bytes: &[u8]) -> Result<(Cursor<'_>, u64), Fault> {
    let earliest = bytes.len().saturating_sub(END + LONGEST_COMMENT);
    let last = bytes.len().saturating_sub(END);
    let found = (earliest..=last).rev().find(|at| bytes[*at..].starts_with(b"PK\x05\x06"));
    let Some(at) = found else {
        return Fault::damaged("the archive has no end record");
    };
    let mut cursor = Cursor::from(bytes, at as u64 + 10);
    let count = cursor.u16()?;
    let _size = cursor.u32()?;
    let start = cursor.u32()?;
    if let Some(locator) = at.checked_sub(LOCATOR)
        && bytes[locator..].starts_with(b"PK\x06\x07")
    {
        let end = Cursor::from(bytes, locator as u64 + 8).u64()?;
        let mut cursor = Cursor::from(bytes, end);
        expect(&mut cursor, b"PK\x06\x06", "large archive's end record")?;
        cursor.take(28)?;
        let count = cursor.u64()?;
        let _size = cursor.u64()?;
        return Ok((Cursor::from(bytes, cursor.u64()?), count));
    }
    Ok((Cursor::from(bytes, start.into()), count.into()))
}

/// The entry of the central directory that the cursor is at.
fn entry<'a>(bytes: &'a [u8], cursor: &mut Cursor<'a>) -> Result<(&'a str, Entry<'a>), Fault> {
    expect(cursor, b"PK\x01\x02", "directory entry")?;
    cursor.take(4)?;
    let flags = cursor.u16()?;
    let method = cursor.u16()?;
    cursor.take(4)?;
    let crc = cursor.u32()?;
    let (packed, size) = (cursor.u32()?, cursor.u32()?);
    let lengths = [cursor.u16()?, cursor.u16()?, cursor.u16()?];
    cursor.take(8)?;
    let start = cursor.u32()?;
    let name = cursor.text(lengths[0].into())?;
    let extra = cursor.take(lengths[1].into())?;
    cursor.take(lengths[2].into())?;
    if method != 0 || flags & 1 != 0 {
        return Fault::unsupported(format!(
            "the archive's entry {name} is compressed or encrypted; save it again without (numpy.savez, torch.save)"
        ));
    }
    // Large values follow in the extra field, in this order.
    let [size, packed, start] = large_values(extra, [size, packed, start])?;
    if size != packed {
        return Fault::damaged(format!("the archive's entry {name} has two sizes"));
    }
    let mut local = Cursor::from(bytes, start);
    expect(&mut local, b"PK\x03\x04", "local header")?;
    local.take(22)?;
    let lengths = [local.u16()?, local.u16()?];
    local.take(u64::from(lengths[0]) + u64::from(lengths[1]))?;
    Ok((name, Entry { data: local.take(size)?, crc }))
}

/// Replaces values of all ones by those of the extra field with number 1.
fn large_values(extra: &[u8], values: [u32; 3]) -> Result<[u64; 3], Fault> {
    let mut large = values.map(u64::from);
    if !values.contains(&ELSEWHERE) {
        return Ok(large);
    }
    let mut cursor = Cursor::new(extra);
    while cursor.left() > 0 {
        let (number, length) = (cursor.u16()?, cursor.u16()?);
        let mut field = Cursor::new(cursor.take(length.into())?);
        if number == 1 {
            for value in large.iter_mut().filter(|value| **value == u64::from(ELSEWHERE)) {
                *value = field.u64()?;
            }
            return Ok(large);
        }
    }
    Fault::damaged("an archive's entry lacks its large sizes")
}

fn expect(cursor: &mut Cursor<'_>, signature: &[u8; 4], what: &str) -> Result<(), Fault> {
    let at = cursor.at();
    if cursor.array::<4>()? != *signature {
        return Fault::damaged(format!("the archive has no {what} at byte {at}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_4_gib_come_from_the_extra_field() {
        let mut extra = vec![7, 0, 1, 0, 0xAB];
        extra.extend([1, 0, 16, 0]);
        extra.extend((5_u64 << 32).to_le_bytes());
        extra.extend((6_u64 << 32).to_le_bytes());
        assert_eq!(large_values(&extra, [ELSEWHERE, 9, ELSEWHERE]).unwrap(), [5 << 32, 9, 6 << 32]);
        assert_eq!(large_values(&[], [1, 2, 3]).unwrap(), [1, 2, 3]);
        assert!(large_values(&extra, [ELSEWHERE; 3]).is_err(), "a third value is missing");
        assert!(large_values(&extra[..5], [ELSEWHERE, 9, 9]).is_err());
    }

    #[test]
    fn an_archive_without_an_end_is_damaged() {
        for bytes in [&b""[..], b"PK\x03\x04", b"PK\x05\x06", &[0; 200]] {
            assert!(matches!(entries(bytes), Err(Fault::Damaged(_))));
        }
    }
}
