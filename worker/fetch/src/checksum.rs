//! SHA-256 of files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::FetchError;

/// SHA-256 of the file at `path`, in lower-case hexadecimal digits.
pub fn sha256_of(path: &Path) -> Result<String, FetchError> {
    let mut file = File::open(path).map_err(FetchError::file("open", path))?;
    let mut hasher = Sha256::new();
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
        assert_eq!(parse(&expected.to_uppercase()).unwrap(), expected);
        assert!(parse("ba78").is_err() && parse(&"g".repeat(64)).is_err());
    }
}
