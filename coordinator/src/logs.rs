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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

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
