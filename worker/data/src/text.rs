//! Positions in code points over UTF-8 strings, and Python's idea of white space.

/// Finds the bytes of a code-point position in one string.
///
/// Building it costs one pass over a string with non-ASCII characters and
/// nothing over an ASCII one, where both counts agree.
#[derive(Debug)]
pub struct CodePoints<'a> {
    text: &'a str,
    /// Byte offset of every code point, then the length; `None` for ASCII.
    bytes: Option<Vec<u32>>,
}

impl<'a> CodePoints<'a> {
    /// Indexes `text`.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        // A context of 4 GiB cannot occur: a question file of that size is refused by its reader's memory first.
        let short = |byte: usize| u32::try_from(byte).unwrap_or(u32::MAX);
        let bytes = (!text.is_ascii())
            .then(|| text.char_indices().map(|(b, _)| short(b)).chain([short(text.len())]).collect());
        Self { text, bytes }
    }

    /// Number of code points.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.as_ref().map_or(self.text.len(), |b| b.len() - 1)
    }

    /// Whether the string is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Byte offset of code point `position`, clamped to the end.
    #[must_use]
    pub fn byte(&self, position: usize) -> usize {
        match &self.bytes {
            None => position.min(self.text.len()),
            Some(bytes) => bytes.get(position).map_or(self.text.len(), |b| *b as usize),
        }
    }

    /// The code points `start..end`, clamped to the text; empty when `end <= start`.
    #[must_use]
    pub fn slice(&self, start: usize, end: usize) -> &'a str {
        let (from, to) = (self.byte(start), self.byte(end));
        if from < to { &self.text[from..to] } else { "" }
    }

    /// The code-point position of a byte offset that lies on a character border.
    #[must_use]
    pub fn position(&self, byte: usize) -> usize {
        match &self.bytes {
            None => byte,
            Some(bytes) => bytes.partition_point(|b| (*b as usize) < byte),
        }
    }

    /// Positions (in code points) of every occurrence of `needle`, overlapping ones
    /// included, ascending. An empty needle occurs nowhere.
    #[must_use]
    pub fn occurrences(&self, needle: &str) -> Vec<usize> {
        let Some(first) = needle.chars().next() else { return Vec::new() };
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(at) = self.text[from..].find(needle) {
            found.push(self.position(from + at));
            from += at + first.len_utf8();
        }
        found
    }
}

/// Whether Python's `str.isspace` (hence `split` and `strip`) counts this character.
///
/// Unicode's `White_Space` property plus the four separators U+001C to U+001F,
/// which Python takes by their bidirectional class.
#[must_use]
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Python's `str.split()`: the pieces between runs of white space.
pub fn words(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    text.split(is_space).filter(|piece| !piece.is_empty())
}

/// At most `limit` code points of `text`, with an ellipsis where it was cut. For messages.
#[must_use]
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some((byte, _)) => format!("{}…", &text[..byte]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_code_points() {
        let index = CodePoints::new("a😀e\u{301}漢z");
        assert_eq!(index.len(), 6);
        assert_eq!(index.slice(1, 2), "😀");
        assert_eq!(index.slice(2, 4), "e\u{301}");
        assert_eq!(index.slice(4, 99), "漢z");
        assert_eq!(index.slice(5, 2), "");
        assert_eq!(index.position(index.byte(4)), 4);
        assert!(CodePoints::new("").is_empty());
    }

    #[test]
    fn occurrences_overlap() {
        assert_eq!(CodePoints::new("aaaa").occurrences("aa"), [0, 1, 2]);
        assert_eq!(CodePoints::new("漢字漢字漢").occurrences("漢字漢"), [0, 2]);
        assert!(CodePoints::new("abc").occurrences("").is_empty());
    }

    #[test]
    fn white_space_is_pythons() {
        let pieces: Vec<&str> = words("\u{1c}a\u{a0}b\u{3000}c\u{200b}d \n").collect();
        assert_eq!(pieces, ["a", "b", "c\u{200b}d"]);
    }

    #[test]
    fn long_texts_are_cut_for_messages() {
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened("äöüß", 2), "äö…");
    }
}
