//! Jobs and their events, in SQLite.

use std::collections::BTreeMap;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use squad_proto::{Event, FailureReport, JobId, JobState, Progress, Task};
use thiserror::Error;

use crate::config::StoreLocation;
use crate::job::Memory;
use crate::launch::Identity;

/// Version of the tables.
const SCHEMA: i64 = 1;

/// What is remembered of a job, besides its events.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: JobId,
    pub(crate) name: String,
    pub(crate) state: JobState,
    pub(crate) reason: String,
    pub(crate) created_unix_ms: u64,
    pub(crate) started_unix_ms: Option<u64>,
    pub(crate) finished_unix_ms: Option<u64>,
    pub(crate) processes: u32,
    /// Of those that wait the greater is first.
    #[serde(default)]
    pub(crate) priority: i32,
    /// The how manieth job of the store it is: of equal priorities the lesser is first.
    #[serde(default)]
    pub(crate) order: u64,
    /// GPUs that it was given, by number.
    #[serde(default)]
    pub(crate) gpus: Vec<u32>,
    /// Something else places its workers.
    #[serde(default)]
    pub(crate) external: bool,
    /// What its attendants prove themselves with: they come back to another coordinator.
    #[serde(default)]
    pub(crate) worker_token: Option<WorkerToken>,
    pub(crate) output_dir: String,
    /// Name of the token that it was submitted with; none where no token was needed.
    #[serde(default)]
    pub(crate) submitter: Option<String>,
    pub(crate) progress: Option<Progress>,
    pub(crate) failure: Option<FailureReport>,
    pub(crate) results: Option<serde_json::Value>,
    /// The resolved spec.
    pub(crate) spec: serde_json::Value,
    #[serde(default)]
    pub(crate) task: Task,
    /// What another coordinator needs to go on with it.
    #[serde(default)]
    pub(crate) memory: Option<Memory>,
    /// The newest process of each slot.
    #[serde(default)]
    pub(crate) processes_born: BTreeMap<u32, Identity>,
    /// Where rank 0's output folder is another one than this coordinator's.
    #[serde(default)]
    pub(crate) elsewhere: Option<Elsewhere>,
}

impl Record {
    /// Leaves out what is long and a list does not show: the spec, and the points of curves.
    pub(crate) fn shorten(&mut self) {
        self.spec = serde_json::Value::Null;
        if let Some(serde_json::Value::Object(results)) = &mut self.results {
            results.shift_remove("precision_recall");
        }
    }
}

/// Results on another machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Elsewhere {
    /// Its name.
    pub(crate) host: String,
    /// What was brought from there.
    pub(crate) brought: Vec<String>,
}

/// The token of an external job's workers.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct WorkerToken(pub(crate) String);

impl std::fmt::Debug for WorkerToken {
    /// Records are logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WorkerToken")
    }
}

/// Why the store cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("the job store: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A row does not read back.
    #[error("the job store holds something unreadable: {0}")]
    Json(#[from] serde_json::Error),
    /// The file is of another version.
    #[error("the job store is of version {0}, this program reads version {SCHEMA}")]
    Version(i64),
    /// The state folder cannot be made.
    #[error("the job store: {0}")]
    Io(#[from] std::io::Error),
    /// Another coordinator keeps its jobs there.
    #[error("the state folder {} belongs to another coordinator that is running; stop that one, or choose another folder with --state", .0.display())]
    Taken(PathBuf),
}

/// What a write outlives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// This process.
    Process,
    /// The machine.
    Disk,
}

impl Durability {
    fn pragma(self) -> &'static str {
        match self {
            Self::Process => "NORMAL",
            Self::Disk => "FULL",
        }
    }
}

/// The store. Calls block for a file's write; they are short.
#[derive(Clone)]
pub(crate) struct Store(Arc<Mutex<Connection>>);

impl Store {
    /// Opens the store in a folder that is there, and makes its tables where they are not.
    pub(crate) fn open(location: &StoreLocation) -> Result<Self, StoreError> {
        let connection = match location {
            StoreLocation::Memory => Connection::open_in_memory()?,
            StoreLocation::File(path) => {
                // It holds workers' tokens; SQLite gives its other files the same mode.
                std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                Connection::open(path)?
            }
        };
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match version {
            0 => {
                connection.execute_batch(
                    "CREATE TABLE jobs (id TEXT PRIMARY KEY, created INTEGER NOT NULL, document TEXT NOT NULL);
                     CREATE TABLE events (job TEXT NOT NULL, sequence INTEGER NOT NULL, document TEXT NOT NULL,
                                          PRIMARY KEY (job, sequence)) WITHOUT ROWID;",
                )?;
                connection.pragma_update(None, "user_version", SCHEMA)?;
            }
            SCHEMA => {}
            other => return Err(StoreError::Version(other)),
        }
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        work(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes a job's record, new or changed, and what happened to it: all or nothing.
    pub(crate) fn write(
        &self,
        record: &Record,
        events: &[Event],
        durability: Durability,
    ) -> Result<(), StoreError> {
        let document = serde_json::to_string(record)?;
        self.with(|c| {
            c.pragma_update(None, "synchronous", durability.pragma())?;
            let transaction = c.unchecked_transaction()?;
            transaction.execute(
                "INSERT INTO jobs VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET document = ?3",
                params![record.id.as_str(), record.created_unix_ms as i64, document],
            )?;
            for event in events {
                transaction.execute(
                    "INSERT INTO events VALUES (?1, ?2, ?3)",
                    params![record.id.as_str(), event.sequence as i64, serde_json::to_string(event)?],
                )?;
            }
            Ok(transaction.commit()?)
        })
    }

    /// Every job, oldest first.
    pub(crate) fn jobs(&self) -> Result<Vec<Record>, StoreError> {
        self.with(|c| {
            let mut statement = c.prepare("SELECT document FROM jobs ORDER BY created, id")?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            rows.map(|row| Ok(serde_json::from_str(&row?)?)).collect()
        })
    }

    /// A job's events after `sequence`, in order, at most `limit`.
    pub(crate) fn events(&self, job: &JobId, sequence: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.with(|c| {
            let mut statement = c.prepare(
                "SELECT document FROM events WHERE job = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
            )?;
            let rows = statement.query_map(params![job.as_str(), sequence as i64, limit as i64], |row| {
                row.get::<_, String>(0)
            })?;
            rows.map(|row| Ok(serde_json::from_str(&row?)?)).collect()
        })
    }

    /// The number of a job's last event; 0 before the first.
    pub(crate) fn last_sequence(&self, job: &JobId) -> Result<u64, StoreError> {
        self.with(|c| {
            let last: Option<Option<i64>> = c
                .query_row("SELECT max(sequence) FROM events WHERE job = ?1", params![job.as_str()], |row| {
                    row.get(0)
                })
                .optional()?;
            Ok(last.flatten().unwrap_or(0) as u64)
        })
    }
}
