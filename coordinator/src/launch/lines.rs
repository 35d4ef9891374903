//! A worker's output: drained into a file, with the last lines at hand.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Lines of standard error that a failure report shows.
const TAIL: usize = 20;

/// Longest line that is kept whole.
const LONGEST: usize = 4096;

/// Where one worker's lines go.
#[derive(Clone)]
pub(crate) struct Sink {
    file: Arc<Mutex<Option<std::fs::File>>>,
    tail: Arc<Mutex<VecDeque<String>>>,
}

impl Sink {
    /// A sink that appends to `path`; without a file when it cannot be created.
    pub(crate) fn new(path: &Path) -> Self {
        let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let file = folder.and_then(|()| std::fs::OpenOptions::new().create(true).append(true).open(path));
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
            match reader.read_until(b'\n', &mut line).await {
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
        if let Some(open) = file.as_mut() {
            use std::io::Write;
            if writeln!(open, "{text}").is_err() {
                // A full disk must not stop the draining.
                *file = None;
            }
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
        let sink = Sink::new(&path);
        let text: String = (0..50).map(|k| format!("line {k}\n")).collect::<String>() + "no newline";
        sink.clone().drain(text.as_bytes(), true).await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text + "\n");
        let tail = sink.tail();
        assert_eq!((tail.len(), tail[0].as_str(), tail[19].as_str()), (TAIL, "line 31", "no newline"));
    }
}
