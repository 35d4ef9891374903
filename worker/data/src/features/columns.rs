//! Features as columns of plain numbers, in this process's memory or in a mapped file.
//!
//! ```text
//! rows      one for every feature: which question, where its window and its gold answer are
//! ids       the tokens of all features, one behind the other
//! questions which context every question of the data set asks about
//! contexts  the number of tokens of every distinct context
//! offsets   the code points of all contexts' tokens, one context behind the other
//! ```

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use memmap2::Mmap;

/// One window's numbers; 32 bits suffice since `validate`d sequences and data sets are far smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Row {
    pub(super) question: u32,
    /// Tokens of the whole sequence.
    pub(super) length: u32,
    pub(super) context_offset: u32,
    pub(super) chunk_start: u32,
    pub(super) chunk_length: u32,
    pub(super) start: u32,
    pub(super) end: u32,
    /// 0 or 1.
    pub(super) is_impossible: u32,
}

/// All columns of a data set.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) rows: Column<Row>,
    pub(super) ids: Column<i32>,
    pub(super) questions: Column<u32>,
    pub(super) contexts: Column<u32>,
    pub(super) offsets: Column<[u32; 2]>,
}

/// Numbers of one kind. Those of a mapped file are shared with every process that maps it.
pub(super) enum Column<T> {
    Owned(Vec<T>),
    /// The bytes have been seen to be aligned and a whole number of values.
    Mapped {
        file: Arc<Mmap>,
        bytes: Range<usize>,
    },
}

impl<T: Pod> Deref for Column<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Owned(values) => values,
            Self::Mapped { file, bytes } => bytemuck::cast_slice(&file[bytes.clone()]),
        }
    }
}

impl<T> fmt::Debug for Column<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owned(values) => write!(f, "{} values", values.len()),
            Self::Mapped { bytes, .. } => write!(f, "{} mapped bytes", bytes.len()),
        }
    }
}
