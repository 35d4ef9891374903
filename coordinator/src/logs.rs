//! Reading workers' output files.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A rank's file that is read as it grows.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) rank: u32,
    path: PathBuf,
    position: u64,
    rest: Vec<u8>,
}

impl Follower {
    /// The files of a job, by rank; only one rank's when `rank` is given.
    pub(crate) fn all(folder: &Path, processes: u32, rank: Option<u32>) -> Vec<Self> {
        (0..processes)
            .filter(|r| rank.is_none_or(|wanted| wanted == *r))
            .map(|rank| Self {
                rank,
                path: folder.join(format!("rank-{rank}.log")),
                position: 0,
                rest: Vec::new(),
            })
            .collect()
    }

    /// Whole lines that were not read yet. A file that is not there has none.
    pub(crate) fn lines(&mut self) -> Vec<String> {
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.position))?;
            file.read_to_end(&mut bytes)
        });
        let Ok(count) = read else { return Vec::new() };
        self.position += count as u64;
        self.rest.extend(bytes);
        let Some(end) = self.rest.iter().rposition(|b| *b == b'\n') else { return Vec::new() };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect()
    }
}

/// Most bytes of a file that are looked at for its last lines.
const TAIL_BYTES: u64 = 1 << 20;

/// The last lines of a rank's file, at most `count`. A file that is not there has none.
pub(crate) fn tail(folder: &Path, rank: u32, count: usize) -> Vec<String> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(folder.join(format!("rank-{rank}.log"))).and_then(|mut file| {
        let skipped = file.metadata()?.len().saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(skipped))?;
        file.read_to_end(&mut bytes)?;
        Ok(skipped > 0)
    });
    let Ok(cut) = read else { return Vec::new() };
    let text = String::from_utf8_lossy(&bytes);
    // The first line of a part is the rest of one.
    let lines: Vec<&str> = text.lines().skip(usize::from(cut)).collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_tail_has_whole_lines_of_a_file_of_any_size() {
        let folder = tempfile::tempdir().unwrap();
        assert!(tail(folder.path(), 0, 5).is_empty(), "no file, no lines");
        let long = format!("{}\n", "x".repeat(TAIL_BYTES as usize));
        std::fs::write(folder.path().join("rank-0.log"), format!("first\nsecond\n{long}one\ntwo\n")).unwrap();
        assert_eq!(tail(folder.path(), 0, 9), ["one", "two"], "what was cut is left out");
        assert_eq!(tail(folder.path(), 0, 1), ["two"]);
    }

    #[test]
    fn lines_come_whole_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut follower = Follower::all(folder.path(), 2, Some(1)).remove(0);
        assert!(follower.lines().is_empty());
        let mut file = std::fs::File::create(folder.path().join("rank-1.log")).unwrap();
        write!(file, "one\ntw").unwrap();
        assert_eq!(follower.lines(), ["one"]);
        writeln!(file, "o").unwrap();
        assert_eq!(follower.lines(), ["two"]);
        assert!(follower.lines().is_empty());
    }
}
