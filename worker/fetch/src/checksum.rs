//! Checksums of files: SHA-256, and SHA-1 where a publisher tells nothing better.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::FetchError;

/// SHA-256 of the file at `path`, in lower-case hexadecimal digits.
pub fn sha256_of(path: &Path) -> Result<String, FetchError> {
    digits_of::<Sha256>(path)
}

/// SHA-1 of the file at `path`, in lower-case hexadecimal digits. It tells damage and mix-ups, not forgeries.
pub(crate) fn sha1_of(path: &Path) -> Result<String, FetchError> {
    digits_of::<Sha1>(path)
}

fn digits_of<D: Digest>(path: &Path) -> Result<String, FetchError> {
    let mut file = File::open(path).map_err(FetchError::file("open", path))?;
    let mut hasher = D::new();
    let mut block = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut block).map_err(FetchError::file("read", path))?;
        if read == 0 {
            return Ok(hex::encode(hasher.finalize()));
        }
        hasher.update(&block[..read]);
    }
}

/// `text` as a checksum in lower-case digits.
pub(crate) fn parse(text: &str) -> Result<String, FetchError> {
    let digits = text.trim().to_ascii_lowercase();
    if is_checksum(&digits) { Ok(digits) } else { Err(FetchError::BadChecksum { text: text.to_owned() }) }
}

/// Whether `text` is 64 hexadecimal digits.
pub(crate) fn is_checksum(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_of(&path).unwrap(), expected);
        // The example of FIPS 180-4.
        assert_eq!(sha1_of(&path).unwrap(), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(parse(&expected.to_uppercase()).unwrap(), expected);
        assert!(parse("ba78").is_err() && parse(&"g".repeat(64)).is_err());
    }
}
