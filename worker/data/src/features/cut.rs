//! One question: its windows and where the gold answer lies in each of them.

use super::settings::{FeatureSettings, Purpose};
use crate::gold::{self, Gold};
use crate::squad::Question;
use crate::text::{CodePoints, is_space};
use crate::tokenizer::Encoded;
use crate::windows::{self, Span, Window};
use crate::{DataError, Tokenizer};

/// One question's windows before they are laid into the arena.
pub(super) struct Cut {
    pub(super) query: Vec<i32>,
    pub(super) windows: Vec<Cutting>,
    pub(super) mismatched: bool,
    pub(super) unreliable: bool,
}

pub(super) struct Cutting {
    pub(super) span: Span,
    /// First and last gold token, counted in the whole context.
    pub(super) gold: Option<(usize, usize)>,
    pub(super) is_impossible: bool,
}

pub(super) struct Cutter<'a> {
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) settings: &'a FeatureSettings,
    pub(super) purpose: Purpose,
}

impl Cutter<'_> {
    pub(super) fn question(&self, question: &Question, context: &Encoded) -> Result<Cut, DataError> {
        let FeatureSettings { window, max_query_length, .. } = *self.settings;
        // Some questions start with blanks, which a byte-level tokenizer would turn into tokens.
        let mut query = self.tokenizer.ids(question.text.trim_start_matches(is_space))?;
        if window == Window::Step {
            query.truncate(max_query_length);
        }
        let (capacity, advance) = self.room(question, query.len(), context.ids.len())?;
        let spans = windows::spans(context.ids.len(), capacity, advance);

        let answer = question.gold().filter(|_| self.purpose == Purpose::Train);
        let aligned = match (window, answer) {
            (Window::Step, Some(answer)) => {
                gold::align(answer, &CodePoints::new(&question.context), &context.offsets)
            }
            _ => None,
        };
        let (mismatched, unreliable) = aligned.map_or((false, false), |g| (g.mismatched, g.unreliable));
        if unreliable {
            return Ok(Cut { query, windows: Vec::new(), mismatched, unreliable });
        }
        let place = |span: Span| match (window, answer) {
            (Window::Step, _) => aligned.and_then(|g| inside(g, span)),
            (Window::Overlap, Some(answer)) => gold::in_window(answer, &context.offsets, span),
            (Window::Overlap, None) => None,
        };
        let cutting = |span: Span| {
            let gold = place(span);
            Cutting { span, gold, is_impossible: gold.is_none() && self.purpose == Purpose::Train }
        };
        Ok(Cut { query, windows: spans.map(cutting).collect(), mismatched, unreliable })
    }

    /// Context tokens of one window and tokens between window starts.
    fn room(&self, question: &Question, query: usize, context: usize) -> Result<(usize, usize), DataError> {
        let FeatureSettings { max_seq_length, doc_stride, window, layout, .. } = *self.settings;
        let taken = query + layout.special_tokens();
        let capacity = max_seq_length.saturating_sub(taken);
        if taken + context <= max_seq_length {
            // Everything fits: one window, whatever the stride.
            return Ok((capacity, capacity.max(1)));
        }
        let refuse =
            |needs| DataError::NoRoom { id: question.id.clone(), query, capacity, max_seq_length, needs };
        let advance = window.advance(doc_stride, capacity).ok_or_else(|| {
            refuse(match window {
                Window::Step => format!(
                    "windows that start every {doc_stride} tokens (doc_stride) would skip tokens; \
                     lower doc_stride or max_query_length, or raise max_seq_length"
                ),
                Window::Overlap => format!(
                    "windows that share {doc_stride} tokens (doc_stride) cannot advance; \
                     lower doc_stride or raise max_seq_length"
                ),
            })
        })?;
        Ok((capacity, advance))
    }
}

/// The gold span, if the window holds all of it.
fn inside(gold: Gold, span: Span) -> Option<(usize, usize)> {
    (gold.first >= span.start && gold.last < span.start + span.length).then_some((gold.first, gold.last))
}
