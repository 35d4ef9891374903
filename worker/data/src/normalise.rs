//! The metric's normalisation, character for character what the official Python script does.
//!
//! Lower case, then ASCII punctuation removed, then the whole words *a*, *an*, *the*
//! replaced by a space, then white space collapsed. The order matters: `"a-b"`
//! becomes `"ab"`, not `"b"`.

use unicode_normalization::char::is_combining_mark;

use crate::text;

/// The normalised form of an answer.
#[must_use]
pub fn normalise(answer: &str) -> String {
    let plain: String = answer.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let mut joined = String::with_capacity(plain.len());
    for word in text::words(&without_articles(&plain)) {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(word);
    }
    joined
}

/// Python's `re.sub(r"\b(a|an|the)\b", " ", text)`. Between word borders lies a whole
/// run of word characters, so the pattern matches exactly the runs that are articles.
fn without_articles(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = is_word(first);
        let end = rest.find(|c| is_word(c) != word).unwrap_or(rest.len());
        let (run, tail) = rest.split_at(end);
        out.push_str(if matches!(run, "a" | "an" | "the") { " " } else { run });
        rest = tail;
    }
    out
}

/// Python's `\w` for text: letters, numbers and the underscore.
///
/// Rust's `is_alphanumeric` also takes what Unicode lists as `Other_Alphabetic`:
/// vowel signs and other marks, and circled or squared Latin letters.
fn is_word(c: char) -> bool {
    const ENCLOSED: [std::ops::RangeInclusive<char>; 4] = [
        '\u{24b6}'..='\u{24e9}',
        '\u{1f130}'..='\u{1f149}',
        '\u{1f150}'..='\u{1f169}',
        '\u{1f170}'..='\u{1f189}',
    ];
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || c == '_';
    }
    c.is_alphanumeric() && !is_combining_mark(c) && !ENCLOSED.iter().any(|range| range.contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_and_punctuation_go() {
        assert_eq!(normalise("The  Cat's a-b, an (apple)!"), "cats ab apple");
        assert_eq!(normalise("a"), "");
        assert_eq!(normalise("theatre an1 _a_"), "theatre an1");
        // The letter before a combining mark stands alone for Python.
        assert_eq!(normalise("A\u{301}n"), "\u{301}n");
    }

    #[test]
    fn unicode_is_treated_as_python_treats_it() {
        assert_eq!(normalise("ΟΔΟΣ"), "οδος");
        assert_eq!(normalise("İ"), "i\u{307}");
        assert_eq!(normalise("«The» “a”"), "« » “ ”");
        assert_eq!(normalise("the漢"), "the漢");
        assert_eq!(normalise("x\u{1c}the\u{3000}y"), "x y");
        // A circled letter and a combining vowel sign are no word characters in Python.
        assert_eq!(normalise("aⓑ"), "ⓑ");
        assert_eq!(normalise("the\u{93f}"), "\u{93f}");
    }
}
