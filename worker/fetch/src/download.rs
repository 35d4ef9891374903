//! One file: resumed, verified, and put in its place in one step.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ureq::Agent;

use crate::FetchError;
use crate::checksum::{self, sha1_of, sha256_of};
use crate::hosts::Token;
use crate::http::{self, Answer};
use crate::lock::{self, beside};
use crate::options::{Event, Patience, Progress};

const BLOCK: usize = 1 << 18;
/// The longest pause that a server may ask for. Fixed: what is fetched belongs to no job.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// Tries at a server that has never answered.
const UNREACHED_TRIES: u32 = 2;

/// What to download, and what is known about it.
#[derive(Clone, Copy, Debug)]
pub struct Download<'a> {
    /// Where it is.
    pub url: &'a str,
    /// Where it goes. Meanwhile its bytes lie beside it, under the same name with `.part` behind.
    pub target: &'a Path,
    /// Access token for the address's own host.
    pub token: Option<&'a Token>,
    /// Expected SHA-256; without it, the one that the server tells is checked.
    pub sha256: Option<&'a str>,
    /// Expected SHA-1, for files of which the publisher tells nothing better.
    pub sha1: Option<&'a str>,
    /// Expected size; without it, the one that the server tells is checked.
    pub size: Option<u64>,
    /// Replaces a file at the target about which nothing is known. One that has the expected checksum (or
    /// size, where only that is known) always stays.
    pub refresh: bool,
}

/// What a download came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The file was there already, and good.
    Present,
    /// The file was fetched.
    Fetched {
        /// Its size.
        bytes: u64,
        /// Its SHA-256.
        sha256: String,
        /// The commit that it belongs to, where the server tells it.
        commit: Option<String>,
    },
}

/// Downloads one file, unless a good one is there.
///
/// A broken connection is resumed, also by a later process. The target is written by renaming a whole,
/// verified and synchronised file: it is either the old one or the new one, never a part. Two processes that
/// want the same target take turns, and the second finds it done.
pub fn download(
    wanted: &Download<'_>,
    patience: &Patience,
    progress: &Progress,
) -> Result<Outcome, FetchError> {
    let sha256 = wanted.sha256.map(checksum::parse).transpose()?;
    if is_good(wanted, sha256.as_deref())? {
        return Ok(Outcome::Present);
    }
    if let Some(folder) = wanted.target.parent() {
        fs::create_dir_all(folder).map_err(FetchError::file("create", folder))?;
    }
    let name = wanted.target.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let part = beside(wanted.target, ".part");
    let mut waited = false;
    let _lock = lock::acquire(wanted.target, &part, patience.lock, || {
        waited = true;
        progress.tell(&Event::Waiting { file: &name });
    })?;
    // Whoever held the lock has probably done the work.
    let settled = Download { refresh: wanted.refresh && !waited, ..*wanted };
    if is_good(&settled, sha256.as_deref())? {
        return Ok(Outcome::Present);
    }
    let inherited = length(&part) > 0;
    let agent = http::agent(patience);
    let job = Job {
        wanted,
        name,
        part,
        agent,
        patience,
        progress,
        sha256,
        size: wanted.size,
        tag: None,
        inherited,
        commit: None,
        answered: false,
    };
    job.run()
}

/// Whether the target needs nothing.
fn is_good(wanted: &Download<'_>, sha256: Option<&str>) -> Result<bool, FetchError> {
    let Ok(meta) = fs::metadata(wanted.target) else { return Ok(false) };
    match (sha256, wanted.size) {
        (_, Some(size)) if meta.len() != size => Ok(false),
        (Some(expected), _) => Ok(sha256_of(wanted.target)? == expected),
        (None, _) if wanted.sha1.is_some() => Ok(wrong_sha1(wanted, wanted.target)?.is_none()),
        (None, Some(_)) => Ok(true),
        (None, None) => Ok(!wanted.refresh),
    }
}

/// The expected and the found SHA-1 of `path`, where one is expected and another found.
fn wrong_sha1(wanted: &Download<'_>, path: &Path) -> Result<Option<(String, String)>, FetchError> {
    let Some(expected) = wanted.sha1 else { return Ok(None) };
    let found = sha1_of(path)?;
    Ok((!expected.eq_ignore_ascii_case(&found)).then(|| (expected.to_owned(), found)))
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

/// Why a try failed.
enum Failure {
    /// Another try would fail as well.
    Final(FetchError),
    /// Another try may succeed, perhaps after the pause that the server asks for.
    Passing(String, Option<Duration>),
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self::Final(error)
    }
}

/// A download under way.
struct Job<'a> {
    wanted: &'a Download<'a>,
    name: String,
    part: PathBuf,
    agent: Agent,
    patience: &'a Patience,
    progress: &'a Progress,
    /// Expected values: the caller's, else the server's.
    sha256: Option<String>,
    size: Option<u64>,
    /// Entity tag of what this process has written into the part file.
    tag: Option<String>,
    /// Whether the part file holds bytes that an earlier process wrote.
    inherited: bool,
    commit: Option<String>,
    /// Whether the server has answered at all.
    answered: bool,
}

impl Job<'_> {
    fn run(mut self) -> Result<Outcome, FetchError> {
        let (mut failures, mut furthest) = (0, length(&self.part));
        loop {
            let (reason, asked) = match self.attempt() {
                Ok(sha256) => return self.finish(sha256),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(reason, asked)) => (reason, asked),
            };
            let reached = length(&self.part);
            if reached > furthest {
                (failures, furthest) = (0, reached);
            }
            failures += 1;
            // A server that never answered is not worth the whole patience.
            let tries =
                if self.answered { self.patience.tries } else { self.patience.tries.min(UNREACHED_TRIES) };
            if failures >= tries {
                return Err(self.network(reason, failures));
            }
            let pause =
                asked.unwrap_or_default().min(MAX_RETRY_AFTER).max(self.patience.pause_after(failures));
            tracing::debug!(url = self.wanted.url, reason, ?pause, "download interrupted");
            self.progress.tell(&Event::Retry { file: &self.name, reason: &reason, pause });
            thread::sleep(pause);
        }
    }

    /// Brings the rest of the file and verifies the whole; its SHA-256.
    fn attempt(&mut self) -> Result<String, Failure> {
        if self.size.is_none_or(|size| length(&self.part) != size) {
            let answer = self.open()?;
            self.copy(answer)?;
        }
        self.verify()
    }

    /// An answer whose body continues the part file, or starts anew.
    fn open(&mut self) -> Result<Answer, Failure> {
        let have = length(&self.part);
        let mut answer = self.ask(have)?;
        let useless = answer.status == 206 && !self.continues(&answer, have);
        if have > 0 && (answer.status == 416 || useless) {
            self.discard()?;
            answer = self.ask(0)?;
        }
        let url = self.wanted.url.to_owned();
        match answer.status {
            200 => {}
            206 if answer.start == length(&self.part) => {}
            404 | 410 => return Err(FetchError::NotFound { url }.into()),
            status @ (401 | 403) => return Err(FetchError::Denied { url, status }.into()),
            status @ (408 | 425 | 429 | 500..=599) => {
                return Err(Failure::Passing(format!("the server answered {status}"), answer.retry_after));
            }
            status => return Err(self.network(format!("the server answered {status}"), 1).into()),
        }
        self.learn(&answer)?;
        Ok(answer)
    }

    fn ask(&mut self, start: u64) -> Result<Answer, Failure> {
        let answer = http::get(&self.agent, self.wanted.url, self.wanted.token, start);
        self.answered |= answer.is_ok();
        answer.map_err(|error| match error {
            ureq::Error::Io(_)
            | ureq::Error::Timeout(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Protocol(_) => Failure::Passing(error.to_string(), None),
            _ => self.network(error.to_string(), 1).into(),
        })
    }

    /// Whether the body surely belongs to the file whose beginning is in the part file.
    fn continues(&self, answer: &Answer, have: u64) -> bool {
        let verifiable = self.sha256.is_some() || self.wanted.sha1.is_some() || answer.sha256.is_some();
        let same = !self.inherited && self.tag.is_some() && self.tag == answer.etag;
        answer.start == have && (verifiable || same)
    }

    /// Takes over what the server tells about the file.
    fn learn(&mut self, answer: &Answer) -> Result<(), FetchError> {
        if let (Some(expected), Some(found)) = (self.wanted.size, answer.total)
            && expected != found
        {
            return Err(self.mismatch("size", expected.to_string(), found.to_string()));
        }
        if self.wanted.sha256.is_none() && answer.sha256.is_some() {
            self.sha256.clone_from(&answer.sha256);
        }
        self.size = self.wanted.size.or(answer.total);
        self.tag.clone_from(&answer.etag);
        if answer.commit.is_some() {
            self.commit.clone_from(&answer.commit);
        }
        Ok(())
    }

    /// Writes the body behind what the part file holds, or over it when the body is the whole file.
    fn copy(&mut self, answer: Answer) -> Result<(), Failure> {
        let resumes = answer.status == 206;
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .append(resumes)
            .truncate(!resumes)
            .open(&self.part)
            .map_err(FetchError::file("create", &self.part))?;
        self.inherited &= resumes;
        let (mut done, mut block) = (answer.start, vec![0; BLOCK]);
        let mut body = answer.body.into_reader();
        loop {
            self.progress.tell(&Event::Bytes { file: &self.name, done, total: self.size });
            let read = match body.read(&mut block) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => return Err(Failure::Passing(format!("the connection broke: {error}"), None)),
            };
            file.write_all(&block[..read]).map_err(FetchError::file("write", &self.part))?;
            done += read as u64;
        }
        match self.size {
            Some(size) if done < size => {
                Err(Failure::Passing(format!("the connection ended after {done} of {size} bytes"), None))
            }
            _ => Ok(()),
        }
    }

    /// The part file's SHA-256, if it is what was expected; otherwise the part file is thrown away.
    fn verify(&mut self) -> Result<String, Failure> {
        let (bytes, found) = (length(&self.part), sha256_of(&self.part)?);
        let wrong = match (&self.sha256, self.size) {
            (Some(expected), _) if *expected != found => Some(("SHA-256", expected.clone(), found.clone())),
            (_, Some(size)) if bytes != size => Some(("size", size.to_string(), bytes.to_string())),
            _ => wrong_sha1(self.wanted, &self.part)?.map(|(expected, found)| ("SHA-1", expected, found)),
        };
        let Some((what, expected, got)) = wrong else { return Ok(found) };
        self.discard()?;
        if std::mem::take(&mut self.inherited) {
            return Err(Failure::Passing("what an earlier try had left was of another file".into(), None));
        }
        Err(self.mismatch(what, expected, got).into())
    }

    /// Puts the part file in its place.
    fn finish(self, sha256: String) -> Result<Outcome, FetchError> {
        let (part, target) = (&self.part, self.wanted.target);
        let synchronise = |path: &Path| File::open(path).and_then(|file| file.sync_all());
        synchronise(part).map_err(FetchError::file("synchronise", part))?;
        fs::rename(part, target).map_err(FetchError::file("write", target))?;
        if let Some(folder) = target.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            synchronise(folder).map_err(FetchError::file("synchronise", folder))?;
        }
        let bytes = length(target);
        self.progress.tell(&Event::Done { file: &self.name, bytes });
        Ok(Outcome::Fetched { bytes, sha256, commit: self.commit })
    }

    fn discard(&self) -> Result<(), FetchError> {
        match fs::remove_file(&self.part) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(FetchError::file("remove", &self.part)(error))
            }
            _ => Ok(()),
        }
    }

    fn network(&self, reason: String, tries: u32) -> FetchError {
        let (url, target) = (self.wanted.url.to_owned(), self.wanted.target.to_owned());
        FetchError::Network { url, target, reason, tries }
    }

    fn mismatch(&self, what: &'static str, expected: String, found: String) -> FetchError {
        let (url, target) = (self.wanted.url.to_owned(), self.wanted.target.to_owned());
        FetchError::Mismatch { url, target, what, expected, found }
    }
}
