//! From the gold answer's characters to token positions.
//!
//! Two rules exist because two programs are held against: the replaced one looks
//! for an occurrence whose tokens spell the answer ([`align`]); Hugging Face's
//! takes the annotated characters as they are, window by window ([`in_window`]).

use crate::normalise::normalise;
use crate::squad::Answer;
use crate::text::CodePoints;
use crate::windows::Span;

/// A token's half-open span of code points in its context.
pub type Offset = (u32, u32);

/// Where an answer lies among its context's tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gold {
    /// First token of the answer.
    pub first: usize,
    /// Last token of the answer (inclusive).
    pub last: usize,
    /// No occurrence's tokens spell the answer: the span only covers it.
    pub mismatched: bool,
    /// Mismatched and a bare number, so that the span is likely to teach a wrong
    /// figure; training drops such questions.
    pub unreliable: bool,
}

/// Hugging Face's token range of the code points `start..end`: from the last token
/// that starts at or before them to the first one that ends at or after them.
/// `None` for a context without tokens.
///
/// Where characters belong to no token (an accent that was stripped at the end of a
/// word) the range runs on to the next token.
#[must_use]
pub fn covering(offsets: &[Offset], start: usize, end: usize) -> Option<(usize, usize)> {
    let (head, tail) = (offsets.first()?, offsets.last()?);
    let start = start.max(head.0 as usize);
    let end = end.min(tail.1 as usize);
    let first = offsets.partition_point(|o| o.0 as usize <= start).saturating_sub(1);
    let last = offsets.partition_point(|o| (o.1 as usize) < end).min(offsets.len() - 1);
    // Byte-level tokens of one character share its offsets; then "first" is the group's last. Cover them all.
    Some((first.min(last), first.max(last)))
}

/// The tokens that hold any of the code points `start..end`; [`covering`] where none does.
/// `None` for a context without tokens.
///
/// Both agree wherever every character of the answer belongs to a token.
#[must_use]
pub fn holding(offsets: &[Offset], start: usize, end: usize) -> Option<(usize, usize)> {
    let first = offsets.partition_point(|o| o.1 as usize <= start);
    let after = offsets.partition_point(|o| (o.0 as usize) < end);
    if first < after { Some((first, after - 1)) } else { covering(offsets, start, end) }
}

/// Aligns an answer by the replaced program's rule, its weaknesses mended: the
/// annotated place is tried first, then every other occurrence of the text, the
/// **nearest** first; the first one whose tokens spell the answer (up to the
/// metric's normalisation) is taken. Where none does, the annotated place stays
/// and the answer is flagged, also when it occurs only once.
///
/// `None` for a context without tokens.
#[must_use]
pub fn align(answer: &Answer, context: &CodePoints<'_>, offsets: &[Offset]) -> Option<Gold> {
    let length = answer.text.chars().count();
    let wanted = normalise(&answer.text);
    let spelled = |(first, last): (usize, usize)| {
        normalise(context.slice(offsets[first].0 as usize, offsets[last].1 as usize)) == wanted
    };
    let gold = |(first, last)| Gold { first, last, mismatched: false, unreliable: false };

    let annotated = holding(offsets, answer.start, answer.start + length)?;
    if spelled(annotated) {
        return Some(gold(annotated));
    }
    let mut elsewhere = context.occurrences(&answer.text);
    elsewhere.sort_by_key(|at| at.abs_diff(answer.start));
    let found = elsewhere
        .into_iter()
        .filter(|at| *at != answer.start)
        .filter_map(|at| holding(offsets, at, at + length))
        .find(|span| spelled(*span));
    Some(found.map_or_else(
        || Gold { mismatched: true, unreliable: is_number(&answer.text), ..gold(annotated) },
        gold,
    ))
}

/// Hugging Face's rule for one window: the tokens around the annotated characters,
/// provided that the window covers all of them. `None`: the answer is not (wholly)
/// in this window, whose gold position is then the classifier token.
///
/// One slip of the public example is not repeated: there an answer that starts in
/// the window's very last token is said to start at the separator behind it.
#[must_use]
pub fn in_window(answer: &Answer, offsets: &[Offset], window: Span) -> Option<(usize, usize)> {
    let inside = &offsets[window.start..window.start + window.length];
    let (from, to) = (answer.start, answer.start + answer.text.chars().count());
    if (inside.first()?.0 as usize) > from || (inside.last()?.1 as usize) < to {
        return None;
    }
    let (first, last) = covering(inside, from, to)?;
    Some((window.start + first, window.start + last))
}

/// An integer or a decimal, such as `1990` or `3.14`.
fn is_number(text: &str) -> bool {
    let (whole, rest) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let fraction = rest.strip_prefix('.').unwrap_or(rest);
    !whole.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str, start: usize) -> Answer {
        Answer { text: text.to_owned(), start }
    }

    /// One token per word, spans in code points.
    fn word_offsets(text: &str) -> Vec<Offset> {
        let mut offsets = Vec::new();
        let mut at = 0u32;
        for word in text.split(' ') {
            let end = at + u32::try_from(word.chars().count()).unwrap();
            offsets.push((at, end));
            at = end + 1;
        }
        offsets
    }

    #[test]
    fn numbers_are_recognised() {
        for yes in ["7", "1990", "3.14", "3."] {
            assert!(is_number(yes), "{yes}");
        }
        for no in ["", ".5", "1,990", "12%", "a1", "1.2.3"] {
            assert!(!is_number(no), "{no}");
        }
    }

    #[test]
    fn the_annotated_place_is_taken_when_it_spells_the_answer() {
        let text = "in 1990 and 1990 again";
        let gold = align(&answer("1990", 12), &CodePoints::new(text), &word_offsets(text)).unwrap();
        assert_eq!((gold.first, gold.last, gold.mismatched), (3, 3, false));
    }

    #[test]
    fn the_nearest_other_occurrence_wins() {
        // The annotated 19 lies inside "x19y"; whole ones are at 0, 13 and 32.
        let text = "19 was x19y, 19 came before and 19";
        let gold = align(&answer("19", 8), &CodePoints::new(text), &word_offsets(text)).unwrap();
        assert_eq!((gold.first, gold.last), (3, 3));
        assert!(!gold.mismatched && !gold.unreliable);
    }

    #[test]
    fn a_bad_answer_is_flagged_even_when_it_occurs_once() {
        let text = "about 1990s music";
        let gold = align(&answer("1990", 6), &CodePoints::new(text), &word_offsets(text)).unwrap();
        assert_eq!((gold.first, gold.last, gold.mismatched, gold.unreliable), (1, 1, true, true));
        let gold = align(&answer("musi", 12), &CodePoints::new(text), &word_offsets(text)).unwrap();
        assert_eq!((gold.first, gold.mismatched, gold.unreliable), (2, true, false));
    }

    #[test]
    fn a_window_must_cover_the_whole_answer() {
        let text = "one two three four five";
        let offsets = word_offsets(text);
        let window = |start, length| Span { start, length };
        let three_four = answer("three four", 8);
        assert_eq!(in_window(&three_four, &offsets, window(1, 3)), Some((2, 3)));
        assert_eq!(in_window(&three_four, &offsets, window(0, 3)), None);
        assert_eq!(in_window(&three_four, &offsets, window(3, 2)), None);
        // The window's last token: Hugging Face's example would say 5, the separator.
        assert_eq!(in_window(&answer("five", 19), &offsets, window(3, 2)), Some((4, 4)));
        assert_eq!(in_window(&answer("five", 19), &offsets, window(0, 0)), None);
    }

    #[test]
    fn tokens_that_share_a_character_are_covered_together() {
        let offsets = [(0, 1), (1, 2), (1, 2), (2, 3)];
        assert_eq!(covering(&offsets, 1, 2), Some((1, 2)));
        assert_eq!(holding(&offsets, 1, 2), Some((1, 2)));
        assert_eq!((covering(&[], 0, 1), holding(&[], 0, 1)), (None, None));
    }

    #[test]
    fn a_stripped_accent_does_not_draw_in_the_next_token() {
        // "cafe\u{301} bar" with its accent stripped: tokens 0..4 and 6..9.
        let offsets = [(0, 4), (6, 9)];
        assert_eq!(holding(&offsets, 0, 5), Some((0, 0)));
        assert_eq!(covering(&offsets, 0, 5), Some((0, 1)));
        assert_eq!(holding(&offsets, 4, 5), Some((0, 1)), "nothing holds it");
        let gold = align(&answer("cafe\u{301}", 0), &CodePoints::new("cafe\u{301} bar"), &offsets).unwrap();
        assert_eq!((gold.first, gold.last), (0, 0));
    }
}
