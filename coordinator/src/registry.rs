//! All jobs of a coordinator: who is queued, who runs, who may watch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rand::RngCore as _;
use squad_proto::{Deadlines, Event, EventBody, FailureCode, FailureReport, JobId, JobSpec, JobState, Task};
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use crate::config::Config;
use crate::driver::{self, Driver, Inbox};
use crate::job;
use crate::launch::{Attendants, Launching, LocalLauncher};
use crate::metrics::Metrics;
use crate::store::{Record, Store, StoreError};

/// All jobs. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Registry(Arc<Shared>);

struct Shared {
    config: Config,
    server: String,
    store: Store,
    jobs: Mutex<Jobs>,
    metrics: Metrics,
    /// Counts events of all jobs, for whoever watches the list.
    changes: watch::Sender<u64>,
}

/// What the lock guards.
#[derive(Default)]
struct Jobs {
    all: BTreeMap<JobId, Entry>,
    /// No more jobs are taken.
    ending: bool,
}

/// Why a job is not taken.
#[derive(Debug, Error)]
pub(crate) enum SubmitError {
    /// Nobody would be left to run it.
    #[error("the coordinator is ending and takes no more jobs; submit it again when it is back")]
    Ending,
    /// There is no program to run it with.
    #[error(
        "this coordinator has no squad-worker program; submit the job with --external, and start its workers"
    )]
    NoWorker,
    /// It could not be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A job as the registry knows it.
struct Entry {
    record: Record,
    /// Number of the last event, for whoever watches.
    sequence: watch::Sender<u64>,
    /// To the job's driver; none for jobs of an earlier life of the coordinator.
    inbox: Option<UnboundedSender<Inbox>>,
    token: String,
    /// Place in the queue.
    order: u64,
    started: bool,
    gang: Gang,
}

/// A job's workers when they were last looked at.
#[derive(Clone, Default)]
pub(crate) struct Gang {
    /// When that was.
    pub(crate) unix_ms: u64,
    /// By rank; none before they are launched.
    pub(crate) ranks: Vec<job::RankStatus>,
}

/// What a worker's first message is checked against.
pub(crate) struct Credentials {
    pub(crate) token: String,
    pub(crate) inbox: UnboundedSender<Inbox>,
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

fn random_hex(bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    rand::rng().fill_bytes(&mut buffer);
    buffer.iter().map(|b| format!("{b:02x}")).collect()
}

impl Registry {
    /// The registry of a store. Jobs that an earlier coordinator left running are failed: their workers saw
    /// their lifeline end.
    pub(crate) fn open(config: Config, server: String, store: Store) -> Result<Self, StoreError> {
        let metrics = Metrics::new(config.slots);
        let (jobs, changes) = (Mutex::default(), watch::Sender::new(0));
        let registry = Self(Arc::new(Shared { config, server, store, jobs, metrics, changes }));
        for record in registry.0.store.jobs()? {
            let last = registry.0.store.last_sequence(&record.id)?;
            let unfinished = !record.state.is_final();
            let id = record.id.clone();
            registry.0.metrics.know(&record);
            let entry = Entry {
                record,
                sequence: watch::Sender::new(last),
                inbox: None,
                token: String::new(),
                order: 0,
                started: true,
                gang: Gang::default(),
            };
            registry.lock().all.insert(id.clone(), entry);
            if unfinished {
                let report = FailureReport::new(
                    FailureCode::CoordinatorLost,
                    "the coordinator ended while the job was not done",
                );
                let reason = report.to_string();
                registry.record(&id, EventBody::Failure(report));
                registry.record(&id, EventBody::State { state: JobState::Failed, reason });
            }
        }
        Ok(registry)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Jobs> {
        self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the coordinator was configured.
    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    /// Queues a job; it starts when there is room, an external one at once. `spec` is resolved. Gives the job's
    /// name and its workers' token.
    pub(crate) fn submit(
        &self,
        spec: JobSpec,
        task: Task,
        processes: u32,
        external: bool,
    ) -> Result<(JobId, String), SubmitError> {
        let launching = match (&self.0.config.worker_program, external) {
            (_, true) => Launching::External(Attendants::new(processes)),
            (Some(program), false) => Launching::local(LocalLauncher::new(program.clone())),
            (None, false) => return Err(SubmitError::NoWorker),
        };
        let id = JobId::new(&spec.name, &random_hex(3));
        let (inbox, received) = unbounded_channel();
        let record = Record {
            id: id.clone(),
            name: spec.name.clone(),
            state: JobState::Queued,
            reason: "waiting for its turn".into(),
            created_unix_ms: unix_ms(),
            started_unix_ms: None,
            finished_unix_ms: None,
            processes,
            external,
            output_dir: spec.output_dir.clone(),
            progress: None,
            failure: None,
            results: None,
            spec: serde_json::to_value(&spec).map_err(StoreError::from)?,
        };
        let token = random_hex(16);
        {
            // Under one lock: whoever ends the coordinator either sees this job or has refused it.
            let mut jobs = self.lock();
            if jobs.ending {
                return Err(SubmitError::Ending);
            }
            self.0.store.write(&record, None)?;
            self.0.metrics.know(&record);
            let order = jobs.all.values().map(|e| e.order).max().unwrap_or(0) + 1;
            let entry = Entry {
                record,
                sequence: watch::Sender::new(0),
                inbox: Some(inbox),
                token: token.clone(),
                order,
                started: false,
                gang: Gang::default(),
            };
            jobs.all.insert(id.clone(), entry);
        }
        self.record(&id, EventBody::State { state: JobState::Queued, reason: "waiting for its turn".into() });
        let deadlines = Deadlines::from_patience(std::time::Duration::from_secs_f64(spec.fault.patience_s));
        let machine = job::Machine::new(processes, deadlines, spec.fault.max_restarts);
        let driver = Driver {
            registry: self.clone(),
            machine: if external { machine.attended() } else { machine },
            launching,
            silence: deadlines.silence,
            job: driver::Assignment {
                id: id.clone(),
                spec,
                task,
                token: token.clone(),
                server: self.0.server.clone(),
                threads: self.0.config.threads_of(processes),
                world: processes,
            },
        };
        tokio::spawn(driver.run(received));
        self.schedule();
        Ok((id, token))
    }

    /// Starts queued jobs in their order, as far as slots reach. A job that does not fit holds up those
    /// behind it, or it might wait for ever.
    pub(crate) fn schedule(&self) {
        let mut jobs = self.lock();
        let used: u32 = jobs
            .all
            .values()
            .filter(|e| e.started && !e.record.state.is_final())
            .map(|e| e.record.slots())
            .sum();
        let mut free = self.0.config.slots.saturating_sub(used);
        let mut waiting: Vec<&mut Entry> =
            jobs.all.values_mut().filter(|e| !e.started && !e.record.state.is_final()).collect();
        waiting.sort_by_key(|e| e.order);
        for entry in waiting {
            if entry.record.slots() > free {
                break;
            }
            free -= entry.record.slots();
            entry.started = true;
            if let Some(inbox) = &entry.inbox {
                // A driver that is gone has recorded the job's end.
                inbox.send(Inbox::Event(job::Event::Start)).ok();
            }
        }
    }

    /// Writes down an event, and tells whoever watches.
    pub(crate) fn record(&self, id: &JobId, body: EventBody) {
        let mut jobs = self.lock();
        let Some(entry) = jobs.all.get_mut(id) else { return };
        let event = Event { sequence: *entry.sequence.borrow() + 1, unix_ms: unix_ms(), body };
        self.0.metrics.observe(&entry.record, &event);
        entry.record.apply(&event);
        if let Err(error) = self.0.store.write(&entry.record, Some(&event)) {
            tracing::error!("{id}: an event could not be stored: {error}");
            self.0.metrics.lost_event();
        }
        entry.sequence.send_replace(event.sequence);
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Keeps what a job's workers do.
    pub(crate) fn set_ranks(&self, id: &JobId, ranks: Vec<job::RankStatus>) {
        if let Some(entry) = self.lock().all.get_mut(id) {
            entry.gang = Gang { unix_ms: unix_ms(), ranks };
        }
    }

    /// What a job's workers did last. Nothing is kept of them beyond the coordinator's own life.
    pub(crate) fn gang(&self, id: &JobId) -> Gang {
        self.lock().all.get(id).map(|entry| entry.gang.clone()).unwrap_or_default()
    }

    /// Counts and figures for Prometheus.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// One job.
    pub(crate) fn get(&self, id: &JobId) -> Option<Record> {
        self.lock().all.get(id).map(|entry| entry.record.clone())
    }

    /// Every job, oldest first.
    pub(crate) fn list(&self) -> Vec<Record> {
        let mut all: Vec<Record> = self.lock().all.values().map(|entry| entry.record.clone()).collect();
        all.sort_by(|a, b| (a.created_unix_ms, &a.id).cmp(&(b.created_unix_ms, &b.id)));
        all
    }

    /// The newest jobs, newest first, at most `limit`; and how many there are in all.
    pub(crate) fn newest(&self, limit: usize) -> (Vec<Record>, usize) {
        let jobs = self.lock();
        let mut all: Vec<&Record> = jobs.all.values().map(|entry| &entry.record).collect();
        all.sort_by(|a, b| (b.created_unix_ms, &b.id).cmp(&(a.created_unix_ms, &a.id)));
        (all.into_iter().take(limit).cloned().collect(), jobs.all.len())
    }

    /// The number of a job's newest event, now and whenever it changes.
    pub(crate) fn watch(&self, id: &JobId) -> Option<watch::Receiver<u64>> {
        self.lock().all.get(id).map(|entry| entry.sequence.subscribe())
    }

    /// Changes whenever anything happens to any job.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Events of a job after `sequence`.
    pub(crate) fn events(&self, id: &JobId, sequence: u64) -> Result<Vec<Event>, StoreError> {
        self.0.store.events(id, sequence, 256)
    }

    /// Sends a job's driver an event; false when the job is unknown or has none any more.
    pub(crate) fn send(&self, id: &JobId, event: job::Event) -> bool {
        let jobs = self.lock();
        let inbox = jobs.all.get(id).and_then(|entry| entry.inbox.as_ref());
        inbox.is_some_and(|inbox| inbox.send(Inbox::Event(event)).is_ok())
    }

    /// Asks a job to stop; one that has ended stays as it is.
    pub(crate) fn cancel(&self, id: &JobId) {
        if self.get(id).is_some_and(|record| !record.state.is_final()) && !self.send(id, job::Event::Cancel) {
            tracing::debug!("{id} ended before it could be cancelled");
        }
    }

    /// What a job's workers must know.
    pub(crate) fn credentials(&self, id: &JobId) -> Option<Credentials> {
        let jobs = self.lock();
        let entry = jobs.all.get(id)?;
        Some(Credentials { token: entry.token.clone(), inbox: entry.inbox.clone()? })
    }

    /// Takes no more jobs, tells those there are that the coordinator is ending, and waits until all have ended.
    pub(crate) async fn shut_down(&self) {
        self.lock().ending = true;
        let open: Vec<JobId> =
            self.list().into_iter().filter(|r| !r.state.is_final()).map(|r| r.id).collect();
        for id in &open {
            self.send(id, job::Event::Shutdown);
        }
        for id in open {
            let Some(mut changes) = self.watch(&id) else { continue };
            while self.get(&id).is_some_and(|r| !r.state.is_final()) {
                if changes.changed().await.is_err() {
                    break;
                }
            }
        }
    }
}

impl Record {
    /// How many of this machine's slots it takes.
    fn slots(&self) -> u32 {
        if self.external { 0 } else { self.processes }
    }

    /// Folds an event in.
    fn apply(&mut self, event: &Event) {
        match &event.body {
            EventBody::State { state, reason } => {
                self.state = *state;
                self.reason.clone_from(reason);
                if *state == JobState::Starting {
                    self.started_unix_ms.get_or_insert(event.unix_ms);
                }
                if state.is_final() {
                    self.finished_unix_ms = Some(event.unix_ms);
                }
            }
            EventBody::Progress(progress) => self.progress = Some(progress.clone()),
            EventBody::Failure(report) => self.failure = Some(report.clone()),
            EventBody::Results { results } => self.results = Some(results.clone()),
            EventBody::Note { .. } => {}
        }
    }
}
