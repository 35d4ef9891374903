//! A worker's output: drained into a file, with the last lines at hand.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt as _, BufReader};

use crate::logs::earlier;

/// Lines of standard error that a failure report shows.
const TAIL: usize = 20;

/// Longest line that is kept whole.
const LONGEST: usize = 4096;

/// Longest line that is taken as one: of a longer one the rest is the next line.
const WHOLE: u64 = 64 << 10;

/// A file of lines that does not grow without end: when half of what may be kept is written, it becomes the earlier
/// part, in the place of the one before, and a new one is begun.
struct Kept {
    path: PathBuf,
    file: File,
    written: u64,
    most: u64,
}

impl Kept {
    fn open(path: &Path, most: u64) -> std::io::Result<Self> {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { path: path.to_owned(), written: file.metadata()?.len(), file, most })
    }

    fn write(&mut self, line: &str) -> std::io::Result<()> {
        let bytes = line.len() as u64 + 1;
        if self.written > 0 && self.written + bytes > self.most / 2 {
            let earlier = earlier(&self.path);
            let lost = earlier.exists();
            std::fs::rename(&self.path, earlier)?;
            *self = Self::open(&self.path, self.most)?;
            if lost {
                let note = format!(
                    "[coordinator] what was written before is gone: {} bytes are kept (--max-log)",
                    self.most
                );
                writeln!(self.file, "{note}")?;
                self.written += note.len() as u64 + 1;
            }
        }
        writeln!(self.file, "{line}")?;
        self.written += bytes;
        Ok(())
    }
}

/// Where one worker's lines go.
#[derive(Clone)]
pub(crate) struct Sink {
    file: Arc<Mutex<Option<Kept>>>,
    tail: Arc<Mutex<VecDeque<String>>>,
}

impl Sink {
    /// A sink that appends to `path` and keeps so many bytes; without a file when it cannot be created.
    pub(crate) fn new(path: &Path, most: u64) -> Self {
        let file = Kept::open(path, most);
        if let Err(error) = &file {
            tracing::warn!("{}: {error}; the worker's output is not kept", path.display());
        }
        Self { file: Arc::new(Mutex::new(file.ok())), tail: Arc::default() }
    }

    /// Reads `from` to its end, so that the worker never waits for a full pipe.
    pub(crate) async fn drain(self, from: impl AsyncRead + Unpin, keep_tail: bool) {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut reader).take(WHOLE).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => self.line(&line, keep_tail),
            }
        }
    }

    /// Takes in lines that came another way; their tail is kept where they come from.
    pub(crate) fn lines(&self, lines: &[String]) {
        lines.iter().for_each(|line| self.line(line.as_bytes(), false));
    }

    fn line(&self, bytes: &[u8], keep_tail: bool) {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_end_matches(['\n', '\r']);
        if keep_tail {
            let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(text.chars().take(LONGEST).collect());
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = file.as_mut()
            && open.write(text).is_err()
        {
            // A full disk must not stop the draining.
            *file = None;
        }
    }

    /// The last lines of standard error.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_kept_whole_and_the_tail_is_short() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/rank-0.log");
        let sink = Sink::new(&path, 1 << 20);
        let text: String = (0..50).map(|k| format!("line {k}\n")).collect::<String>() + "no newline";
        sink.clone().drain(text.as_bytes(), true).await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text + "\n");
        let tail = sink.tail();
        assert_eq!((tail.len(), tail[0].as_str(), tail[19].as_str()), (TAIL, "line 31", "no newline"));
    }

    #[tokio::test]
    async fn of_too_much_output_the_newest_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rank-0.log");
        let sink = Sink::new(&path, 2000);
        let text: String = (0..1000).map(|k| format!("line {k}\n")).collect();
        sink.clone().drain(text.as_bytes(), false).await;
        let (now, before) =
            (std::fs::read_to_string(&path).unwrap(), std::fs::read_to_string(earlier(&path)).unwrap());
        assert!(
            now.ends_with("line 999\n") && now.len() + before.len() <= 2000,
            "{} {}",
            now.len(),
            before.len()
        );
        assert!(
            before.starts_with("[coordinator] what was written before is gone: 2000 bytes are kept"),
            "{before}"
        );
        let count = now.matches("line ").count() + before.matches("line ").count();
        assert!(count > 100, "{count}");
        // A worker of a later life goes on in the same file, and a line without an end is cut.
        Sink::new(&path, 1 << 20).drain("x".repeat(200_000).as_bytes(), false).await;
        let longest = std::fs::read_to_string(&path).unwrap().lines().map(str::len).max();
        assert_eq!(longest, Some(WHOLE as usize));
    }
}
