//! What is shown, and what keys do.

use std::cmp::Reverse;
use std::time::{SystemTime, UNIX_EPOCH};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use squad_proto::{JobState, pb};

use super::news::News;
use crate::job::Job;

/// Rows that a page key moves by.
const PAGE: usize = 10;

/// What the screen knows.
pub(super) struct Screen {
    /// The daemon's address.
    pub(super) server: String,
    /// Those at work, those that wait in their order, those that ended, the last one first.
    pub(super) jobs: Vec<Job>,
    pub(super) room: Option<pb::Room>,
    /// The job that keys are about; it stays chosen where others come and go.
    chosen: Option<String>,
    /// The job whose ranks are shown in place of the list.
    pub(super) open: Option<Box<Job>>,
    /// The job that is to be cancelled if the user is sure.
    pub(super) asking: Option<String>,
    /// The daemon does not answer.
    pub(super) trouble: Option<String>,
    /// What came of the last wish, until the next key.
    pub(super) said: Option<String>,
    /// When the daemon was last heard of.
    pub(super) now_unix_ms: u64,
}

/// What a key asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Leave,
    /// As Ctrl-C does elsewhere.
    Interrupt,
    /// Ask for the ranks of this job, or of none any more.
    Open(Option<String>),
    Cancel(String),
}

/// Where a job stands in the list.
fn place(job: &Job) -> impl Ord + use<> {
    let at = |moment: Option<u64>| moment.unwrap_or(job.created_unix_ms);
    let (part, rank) = match job.state {
        JobState::Queued => (1, (Reverse(i64::from(job.priority)), job.created_unix_ms as i64)),
        state if state.is_final() => (2, (Reverse(at(job.finished_unix_ms) as i64), 0)),
        _ => (0, (Reverse(0), at(job.started_unix_ms) as i64)),
    };
    (part, rank, job.id.clone())
}

impl Screen {
    /// A screen that knows nothing yet of the daemon at this address.
    pub(super) fn new(server: String) -> Self {
        Self {
            server,
            jobs: Vec::new(),
            room: None,
            chosen: None,
            open: None,
            asking: None,
            trouble: None,
            said: None,
            now_unix_ms: 0,
        }
    }

    /// Takes in the jobs as they are now.
    pub(super) fn took(&mut self, mut jobs: Vec<Job>, room: Option<pb::Room>) {
        jobs.sort_by_cached_key(place);
        (self.jobs, self.room, self.trouble) = (jobs, room, None);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.now_unix_ms = now.map_or(0, |since| since.as_millis() as u64);
    }

    /// Takes in what is new.
    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::Jobs(jobs, room, whole) => {
                self.took(jobs, room);
                // It may have been closed meanwhile, or another one opened.
                if let (Some(open), Some(whole)) = (&mut self.open, whole)
                    && open.id == whole.id
                {
                    *open = whole;
                }
            }
            News::Trouble(sentence) => self.trouble = Some(sentence),
            News::Said(sentence) => self.said = Some(sentence),
        }
    }

    /// The row of the chosen job; the first where none was chosen, or it is gone.
    pub(super) fn row(&self) -> usize {
        let chosen = |id: &String| self.jobs.iter().position(|job| job.id == *id);
        self.chosen.as_ref().and_then(chosen).unwrap_or(0)
    }

    /// Takes in a key; nothing is a new size of the terminal.
    pub(super) fn press(&mut self, key: Option<KeyEvent>) -> Wish {
        let Some(KeyEvent { code, modifiers, .. }) = key else { return Wish::Nothing };
        self.said = None;
        if code == KeyCode::Char('c') && modifiers.contains(KeyModifiers::CONTROL) {
            return Wish::Interrupt;
        }
        if let Some(job) = self.asking.take() {
            return if code == KeyCode::Char('y') { Wish::Cancel(job) } else { Wish::Nothing };
        }
        let last = self.jobs.len().saturating_sub(1);
        match code {
            KeyCode::Char('q') => return Wish::Leave,
            KeyCode::Esc | KeyCode::Enter | KeyCode::Left if self.open.is_some() => {
                self.open = None;
                return Wish::Open(None);
            }
            KeyCode::Esc => return Wish::Leave,
            KeyCode::Enter | KeyCode::Right => return self.unfold(),
            KeyCode::Char('c') => self.asks(),
            _ if self.open.is_some() => {}
            KeyCode::Up | KeyCode::Char('k') => self.choose(self.row().saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.choose((self.row() + 1).min(last)),
            KeyCode::PageUp => self.choose(self.row().saturating_sub(PAGE)),
            KeyCode::PageDown => self.choose((self.row() + PAGE).min(last)),
            KeyCode::Home => self.choose(0),
            KeyCode::End => self.choose(last),
            _ => {}
        }
        Wish::Nothing
    }

    fn choose(&mut self, row: usize) {
        self.chosen = self.jobs.get(row).map(|job| job.id.clone());
    }

    /// Shows the ranks of the chosen job.
    fn unfold(&mut self) -> Wish {
        let Some(job) = self.jobs.get(self.row()).cloned() else { return Wish::Nothing };
        self.chosen = Some(job.id.clone());
        let id = job.id.clone();
        self.open = Some(Box::new(job));
        Wish::Open(Some(id))
    }

    /// Asks before the job that is looked at is cancelled.
    fn asks(&mut self) {
        let job = self.open.as_deref().or_else(|| self.jobs.get(self.row()));
        match job.map(|job| (job.id.clone(), job.state.is_final())) {
            Some((id, true)) => self.said = Some(format!("{id} has ended")),
            Some((id, false)) => self.asking = Some(id),
            None => {}
        }
    }
}
