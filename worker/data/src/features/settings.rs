//! How contexts are cut, and settings that can never work.

use crate::windows::Window;
use crate::{DataError, PairLayout};

/// How contexts are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureSettings {
    /// Longest sequence in tokens, the special ones included.
    pub max_seq_length: usize,
    /// Tokens; what they count is `window`'s meaning.
    pub doc_stride: usize,
    /// Question tokens kept under [`Window::Step`]; [`Window::Overlap`] keeps all, as Hugging Face does.
    pub max_query_length: usize,
    /// The meaning of `doc_stride`, and with it the rules of one of two programs.
    pub window: Window,
    /// Where the special tokens stand: [`Tokenizer::layout`](crate::Tokenizer::layout) is Hugging Face's
    /// choice, [`PairLayout::Single`] the replaced program's for every family.
    pub layout: PairLayout,
}

impl FeatureSettings {
    /// Refuses settings that no question could be cut with.
    ///
    /// # Errors
    /// [`DataError::Setting`], naming the setting and what would be allowed.
    pub fn validate(&self) -> Result<(), DataError> {
        let refuse = |name, value, reason: String| Err(DataError::Setting { name, value, reason });
        // One question token and one context token are the least that can be asked about.
        let special = self.layout.special_tokens();
        if self.max_seq_length < special + 2 {
            return refuse(
                "max_seq_length",
                self.max_seq_length,
                format!("it must be at least {}", special + 2),
            );
        }
        let capacity = self.max_seq_length - special - 1;
        let stride = self.doc_stride;
        match self.window {
            Window::Step if stride == 0 => {
                refuse("doc_stride", stride, "windows would never advance; it must be at least 1".to_owned())
            }
            Window::Step if stride > capacity => refuse(
                "doc_stride",
                stride,
                format!(
                    "a window holds at most {capacity} context tokens, so the tokens between two windows would never be seen"
                ),
            ),
            Window::Step if self.max_query_length == 0 => refuse(
                "max_query_length",
                0,
                "every question would be empty; it must be at least 1".to_owned(),
            ),
            Window::Overlap if stride >= capacity => refuse(
                "doc_stride",
                stride,
                format!(
                    "a window holds at most {capacity} context tokens and must advance, so the overlap has to be smaller"
                ),
            ),
            _ => Ok(()),
        }
    }
}

/// What features are built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// With gold positions; questions whose gold is unreliable are left out.
    Train,
    /// Every question, without gold positions (they are 0).
    Evaluate,
}
