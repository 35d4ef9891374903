//! Cutting a long context into windows that fit `max_seq_length`: plain arithmetic on token counts.

use serde::{Deserialize, Serialize};

/// What `doc_stride` counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    /// Tokens from one window's start to the next one's (the replaced program, Google's BERT).
    Step,
    /// Tokens that two successive windows share (Hugging Face).
    Overlap,
}

impl Window {
    /// Tokens from one window's start to the next one's when a window holds
    /// `capacity` context tokens. `None`: windows could not advance, or would
    /// leave tokens between them that no window covers.
    #[must_use]
    pub fn advance(self, doc_stride: usize, capacity: usize) -> Option<usize> {
        match self {
            Self::Step => (0 < doc_stride && doc_stride <= capacity).then_some(doc_stride),
            Self::Overlap => capacity.checked_sub(doc_stride).filter(|step| *step > 0),
        }
    }
}

/// One window over a context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// First context token.
    pub start: usize,
    /// Number of context tokens.
    pub length: usize,
}

/// Windows of at most `capacity` tokens over a context of `tokens`, starting every
/// `advance` tokens; the first one that reaches the end of the context is the last.
/// An empty context has one empty window, so that its question is still asked.
///
/// `advance` must be 1 or more (see [`Window::advance`]); 0 counts as 1.
pub fn spans(tokens: usize, capacity: usize, advance: usize) -> impl Iterator<Item = Span> {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let start = next?;
        let length = capacity.min(tokens - start);
        // Where capacity is below advance a start may lie beyond the end: stop there too.
        next = Some(start + advance.max(1)).filter(|after| start + length < tokens && *after < tokens);
        Some(Span { start, length })
    })
}

/// For every context token the window in which it has most context on both sides
/// (the max-context rule; the first window wins ties).
///
/// A token's score in a window is the smaller number of its neighbours on either
/// side plus a hundredth of the window's length.
#[must_use]
pub fn owners(windows: &[Span]) -> Vec<usize> {
    let tokens = windows.iter().map(|w| w.start + w.length).max().unwrap_or(0);
    let mut best = vec![(f64::NEG_INFINITY, 0); tokens];
    for (w, window) in windows.iter().enumerate() {
        for (inside, entry) in best[window.start..window.start + window.length].iter_mut().enumerate() {
            let sides = inside.min(window.length - 1 - inside);
            let score = sides as f64 + 0.01 * window.length as f64;
            if score > entry.0 {
                *entry = (score, w);
            }
        }
    }
    best.into_iter().map(|(_, w)| w).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(tokens: usize, capacity: usize, advance: usize) -> Vec<(usize, usize)> {
        spans(tokens, capacity, advance).map(|s| (s.start, s.length)).collect()
    }

    #[test]
    fn windows_stop_at_the_end_of_the_context() {
        assert_eq!(list(10, 10, 3), [(0, 10)]);
        assert_eq!(list(11, 10, 3), [(0, 10), (3, 8)]);
        assert_eq!(list(14, 10, 2), [(0, 10), (2, 10), (4, 10)]);
        assert_eq!(list(0, 10, 3), [(0, 0)]);
        assert_eq!(list(3, 0, 1), [(0, 0), (1, 0), (2, 0)]);
    }

    #[test]
    fn advance_is_refused_where_tokens_would_be_lost() {
        assert_eq!(Window::Step.advance(0, 9), None);
        assert_eq!(Window::Step.advance(9, 9), Some(9));
        assert_eq!(Window::Step.advance(10, 9), None);
        assert_eq!(Window::Overlap.advance(0, 9), Some(9));
        assert_eq!(Window::Overlap.advance(8, 9), Some(1));
        assert_eq!(Window::Overlap.advance(9, 9), None);
    }

    #[test]
    fn a_token_belongs_to_the_window_with_most_context() {
        let windows: Vec<Span> = spans(14, 8, 3).collect();
        assert_eq!(windows.len(), 3);
        // Window 0 holds 0..8, window 1 holds 3..11, window 2 holds 6..14.
        // Tokens 5 and 8 are ties.
        assert_eq!(owners(&windows), [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]);
    }
}
