//! Features in a file that every process of a host can map.
//!
//! A header, the columns as they lie in memory, and the SHA-256 of all before it. Numbers are in the machine's own
//! order: a file from a machine of the other order has no magic.
#![allow(unsafe_code, reason = "mapping a file into memory")]

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use memmap2::Mmap;
use sha2::{Digest, Sha256};

use super::columns::{Column, Columns};
use super::{FeatureCounts, Features};

/// A number rather than letters, so that the order of bytes is told as well.
const MAGIC: u64 = 0x5351_4446_4541_5401;
const HASH: usize = 32;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    magic: u64,
    counts: [u64; 6],
    /// Values in every column: rows, ids, questions, contexts, offsets.
    lengths: [u64; 5],
    digest: [u8; 32],
}

/// Writes all features; who reads must not find the file before this ends.
pub(super) fn write(features: &Features, path: &Path) -> io::Result<()> {
    let Features { columns, counts, digest, .. } = features;
    let long = |number: usize| number as u64;
    let header = Header {
        magic: MAGIC,
        counts: [
            counts.questions,
            counts.kept,
            counts.mismatched,
            counts.unreliable,
            counts.chunks,
            counts.impossible_chunks,
        ]
        .map(long),
        lengths: [
            columns.rows.len(),
            columns.ids.len(),
            columns.questions.len(),
            columns.contexts.len(),
            columns.offsets.len(),
        ]
        .map(long),
        digest: *digest,
    };
    let parts: [&[u8]; 6] = [
        bytemuck::bytes_of(&header),
        bytemuck::cast_slice(&columns.rows),
        bytemuck::cast_slice(&columns.ids),
        bytemuck::cast_slice(&columns.questions),
        bytemuck::cast_slice(&columns.contexts),
        bytemuck::cast_slice(&columns.offsets),
    ];
    let (mut file, mut hash) = (File::create(path)?, Sha256::new());
    for part in parts {
        hash.update(part);
        file.write_all(part)?;
    }
    file.write_all(&hash.finalize())
}

/// Maps a file of features after checking every byte of it. `None` where there is no such file.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn open(path: &Path) -> Result<Option<Features>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    // SAFETY: nobody writes into a file of the cache: it is complete before it gets its name, is replaced by
    // renaming another over it and deleted by unlinking, both of which leave mapped pages as they are.
    let map = unsafe { Mmap::map(&file) }.map_err(|error| error.to_string())?;
    over(Arc::new(map)).map(Some)
}

fn over(map: Arc<Mmap>) -> Result<Features, String> {
    let wrong = |what: &str| what.to_owned();
    let body = map.len().checked_sub(HASH).ok_or_else(|| wrong("it is too short"))?;
    let (content, hash) = map.split_at(body);
    let head = content.get(..size_of::<Header>()).ok_or_else(|| wrong("it is too short"))?;
    let header: Header = bytemuck::pod_read_unaligned(head);
    if header.magic != MAGIC {
        return Err(wrong("it is of another format"));
    }
    if Sha256::digest(content)[..] != *hash {
        return Err(wrong("its checksum is wrong"));
    }
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let mut cutter = Cutter { map: &map, at: size_of::<Header>(), end: body };
    let [rows, ids, questions, contexts, offsets] = header.lengths.map(number);
    let columns = Columns {
        rows: cutter.column(rows)?,
        ids: cutter.column(ids)?,
        questions: cutter.column(questions)?,
        contexts: cutter.column(contexts)?,
        offsets: cutter.column(offsets)?,
    };
    let [questions, kept, mismatched, unreliable, chunks, impossible_chunks] = header.counts.map(number);
    let counts = FeatureCounts { questions, kept, mismatched, unreliable, chunks, impossible_chunks };
    let features = Features::over(columns, counts, header.digest);
    if fits(&features) { Ok(features) } else { Err(wrong("its columns do not fit together")) }
}

/// Takes one column after the other.
struct Cutter<'a> {
    map: &'a Arc<Mmap>,
    at: usize,
    end: usize,
}

impl Cutter<'_> {
    fn column<T: Pod>(&mut self, values: usize) -> Result<Column<T>, String> {
        let bytes = values.checked_mul(size_of::<T>()).and_then(|bytes| self.at.checked_add(bytes));
        let range: Range<usize> = match bytes {
            Some(end) if end <= self.end => self.at..end,
            _ => return Err("its columns are cut off".to_owned()),
        };
        self.at = range.end;
        // A map begins at a page, and every column before this one is a multiple of four bytes.
        bytemuck::try_cast_slice::<u8, T>(&self.map[range.clone()]).map_err(|error| error.to_string())?;
        Ok(Column::Mapped { file: Arc::clone(self.map), bytes: range })
    }
}

/// Whether no access to a feature can leave the columns.
fn fits(features: &Features) -> bool {
    let Features { columns, starts, context_starts, counts, .. } = features;
    let contexts = columns.contexts.len();
    starts.last() == Some(&columns.ids.len())
        && context_starts.last() == Some(&columns.offsets.len())
        && counts.questions == columns.questions.len()
        && columns.questions.iter().all(|context| (*context as usize) < contexts)
        && columns.rows.iter().all(|row| {
            (row.question as usize) < counts.questions
                && row.context_offset.checked_add(row.chunk_length).is_some_and(|end| end < row.length)
                && row.start < row.length
                && row.end < row.length
        })
}
