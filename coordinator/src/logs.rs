//! Reading workers' output files.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Most bytes that are read at once, unless a line is longer.
const PIECE: u64 = 1 << 20;

/// Where the earlier part of a file is that became too large.
pub(crate) fn earlier(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// A rank's file that is read as it grows.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) rank: u32,
    path: PathBuf,
    /// The file that is read, which may meanwhile have become the earlier part, and how far.
    reading: Option<(File, u64)>,
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
                reading: None,
                rest: Vec::new(),
            })
            .collect()
    }

    /// Whole lines that were not read yet, some megabytes at most; none when there are no more now. A file that is not
    /// there has none.
    pub(crate) fn lines(&mut self) -> Vec<String> {
        loop {
            let Ok(count) = self.piece() else { return Vec::new() };
            if count == 0 && !self.turn() {
                return Vec::new();
            }
            if let Some(end) = self.rest.iter().rposition(|b| *b == b'\n') {
                let whole: Vec<u8> = self.rest.drain(..=end).collect();
                return String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect();
            }
        }
    }

    /// Reads on in the present file; gives how many bytes came.
    fn piece(&mut self) -> std::io::Result<usize> {
        if self.reading.is_none() {
            let first = File::open(earlier(&self.path)).or_else(|_| File::open(&self.path))?;
            self.reading = Some((first, 0));
        }
        let Some((file, position)) = &mut self.reading else { return Ok(0) };
        file.seek(SeekFrom::Start(*position))?;
        let count = file.take(PIECE).read_to_end(&mut self.rest)?;
        *position += count as u64;
        Ok(count)
    }

    /// Goes on with the file after the one that was read to its end; false when that is the newest.
    fn turn(&mut self) -> bool {
        let inode = |file: &File| file.metadata().map(|metadata| metadata.ino()).ok();
        let Some((reading, _)) = &self.reading else { return false };
        let present = inode(reading);
        let next = [earlier(&self.path), self.path.clone()].map(|path| File::open(path).ok());
        let [before, newest] = next.each_ref().map(|file| file.as_ref().and_then(inode));
        if newest.is_none() || newest == present {
            return false;
        }
        // Written to so fast that what was read is neither: the earlier part comes first.
        let [before_file, newest_file] = next;
        let file = if before == present || before.is_none() { newest_file } else { before_file };
        self.reading = file.map(|file| (file, 0));
        true
    }
}

/// Most bytes of a file that are looked at for its last lines.
const TAIL_BYTES: u64 = 1 << 20;

/// The last lines of a rank's file, at most `count`. A file that is not there has none.
pub(crate) fn tail(folder: &Path, rank: u32, count: usize) -> Vec<String> {
    let path = folder.join(format!("rank-{rank}.log"));
    let lines = end_of(&path, count);
    let missing = count - lines.len();
    if missing == 0 { lines } else { [end_of(&earlier(&path), missing), lines].concat() }
}

fn end_of(path: &Path, count: usize) -> Vec<String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let skipped = file.metadata()?.len().saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(skipped))?;
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
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
        std::fs::write(folder.path().join("rank-0.log.1"), "earlier\n").unwrap();
        assert_eq!(tail(folder.path(), 0, 9), ["earlier", "one", "two"]);
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

    #[test]
    fn lines_are_followed_from_one_file_to_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rank-0.log");
        let mut follower = Follower::all(folder.path(), 1, None).remove(0);
        let mut all = || -> Vec<String> {
            let batches = std::iter::from_fn(|| Some(follower.lines()).filter(|lines| !lines.is_empty()));
            batches.flatten().collect()
        };
        std::fs::write(&path, "1\n2\n").unwrap();
        assert_eq!(all(), ["1", "2"]);
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"3\n").unwrap();
        std::fs::rename(&path, earlier(&path)).unwrap();
        std::fs::write(&path, "4\n").unwrap();
        assert_eq!(all(), ["3", "4"]);
        for number in [5, 6, 7] {
            std::fs::rename(&path, earlier(&path)).unwrap();
            std::fs::write(&path, format!("{number}\n")).unwrap();
        }
        assert_eq!(all(), ["6", "7"], "5 is gone for good");
        let mut late = Follower::all(folder.path(), 1, None).remove(0);
        assert_eq!([late.lines(), late.lines()].concat(), ["6", "7"]);
        assert!(all().is_empty());
    }
}
