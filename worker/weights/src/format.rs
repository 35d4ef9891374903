//! Which format some bytes are.

/// The formats, as their first bytes tell them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Safetensors,
    /// JSON that says which file has which tensor.
    Index,
    /// PyTorch's present form, or npy arrays.
    Zip,
    /// PyTorch's older form.
    Pickle,
    /// MXNet's list of arrays.
    ArrayList,
    /// What Git LFS leaves where a large file was not fetched.
    Pointer,
}

/// Longest safetensors header that its library reads, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;

/// What MXNet's list of arrays begins with, followed by a zero.
pub(crate) const ARRAY_LIST: u64 = 0x112;

/// The format of a file's bytes; `None` when it is none of these.
pub(crate) fn recognise(bytes: &[u8]) -> Option<Format> {
    let word = |at: usize| bytes.get(at..at + 8)?.first_chunk().map(|b| u64::from_le_bytes(*b));
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        return Some(Format::Zip);
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return Some(Format::Pointer);
    }
    if word(0) == Some(ARRAY_LIST) && word(8) == Some(0) {
        return Some(Format::ArrayList);
    }
    // Before the pickle: a header's length may begin with the same two bytes.
    if word(0).is_some_and(|header| header <= LONGEST_HEADER) && bytes.get(8) == Some(&b'{') {
        return Some(Format::Safetensors);
    }
    if matches!(bytes, [0x80, 2..=5, ..]) {
        return Some(Format::Pickle);
    }
    let first = bytes.iter().find(|b| !b.is_ascii_whitespace());
    (first == Some(&b'{')).then_some(Format::Index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_safetensors_header_of_640_bytes_is_no_pickle() {
        let mut bytes = 640_u64.to_le_bytes().to_vec();
        assert_eq!(recognise(&bytes), Some(Format::Pickle), "as it would be without what follows");
        bytes.extend(b"{\"a\":");
        assert_eq!(recognise(&bytes), Some(Format::Safetensors));
    }

    #[test]
    fn text_and_nothing_are_no_weights() {
        for bytes in [&b""[..], b"\x80", b"hello world, hello", b"\0\0\0\0\0\0\0\0\0", b"<html>"] {
            assert_eq!(recognise(bytes), None, "{bytes:?}");
        }
        assert_eq!(recognise(b" \n{\"weight_map\": {}}"), Some(Format::Index));
    }
}
