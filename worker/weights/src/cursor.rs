//! Reading little-endian values from bytes, never past their end.

use crate::error::Fault;

/// A place in some bytes.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// At byte `at` of `bytes`; beyond their end nothing can be read.
    pub(crate) fn from(bytes: &'a [u8], at: u64) -> Self {
        Self { bytes, at: usize::try_from(at).unwrap_or(usize::MAX) }
    }

    /// Bytes before this place.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Bytes from this place on.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    pub(crate) fn take(&mut self, count: u64) -> Result<&'a [u8], Fault> {
        let end = usize::try_from(count).ok().and_then(|n| self.at.checked_add(n));
        match end.and_then(|end| self.bytes.get(self.at..end).map(|taken| (taken, end))) {
            Some((taken, end)) => {
                self.at = end;
                Ok(taken)
            }
            None => Fault::damaged(format!("{count} bytes are missing after byte {}", self.at)),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Fault> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Fault> {
        self.array().map(i32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Fault> {
        self.array().map(i64::from_le_bytes)
    }

    /// The next `count` bytes as text.
    pub(crate) fn text(&mut self, count: u64) -> Result<&'a str, Fault> {
        let at = self.at;
        let taken = self.take(count)?;
        text(taken, at)
    }

    /// The text up to the next line feed, which is passed over.
    pub(crate) fn line(&mut self) -> Result<&'a str, Fault> {
        let at = self.at;
        let rest = self.bytes.get(at..).unwrap_or_default();
        let Some(length) = rest.iter().position(|b| *b == b'\n') else {
            return Fault::damaged(format!("a line is not ended after byte {at}"));
        };
        self.at = at + length + 1;
        text(&rest[..length], at)
    }
}

fn text(bytes: &[u8], at: usize) -> Result<&str, Fault> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(_) => Fault::damaged(format!("the text at byte {at} is not UTF-8")),
    }
}
