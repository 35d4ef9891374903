//! All jobs of a coordinator: who is there, what happened, who may watch. `queue` has who runs.

mod queue;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rand::RngCore as _;
use squad_proto::{Event, EventBody, JobId, JobSpec, JobState, Pace};
use thiserror::Error;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use crate::config::Config;
use crate::driver::Inbox;
use crate::job;
use crate::launch::Identity;
use crate::metrics::Metrics;
use crate::placement::{Grant, Need, Shortfall};
use crate::store::{Durability, Elsewhere, Record, Store, StoreError};
use crate::traces::{TraceTarget, Traces};

/// All jobs. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Registry(Arc<Shared>);

struct Shared {
    config: Config,
    server: String,
    store: Store,
    jobs: Mutex<Jobs>,
    metrics: Metrics,
    /// Where somebody collects traces.
    traces: OnceLock<Traces>,
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
    /// There will never be room for it.
    #[error("the job wants {0}")]
    TooLarge(Shortfall),
    /// Too many wait already.
    #[error("{0} jobs wait for their turn, and no more may; submit it again later, or raise --max-queued")]
    Full(usize),
    /// It could not be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A job as the registry knows it.
struct Entry {
    record: Record,
    /// Number of the last event, for whoever watches.
    sequence: watch::Sender<u64>,
    /// To the job's driver; none for jobs that had ended when the coordinator came.
    inbox: Option<UnboundedSender<Inbox>>,
    token: String,
    need: Need,
    /// It holds what it needs.
    started: bool,
    gang: Gang,
    pace: Pace,
}

/// A job's workers when they were last looked at.
#[derive(Clone, Default)]
pub(crate) struct Gang {
    /// When that was.
    pub(crate) unix_ms: u64,
    /// By rank; none before they are launched.
    pub(crate) ranks: Vec<job::RankStatus>,
}

impl Entry {
    /// The entry of a job that nobody drives yet. One that was at work when its coordinator ended holds what it had: its
    /// workers may still be there.
    fn of(record: Record, need: Need) -> Self {
        Self {
            started: record.state != JobState::Queued,
            record,
            need,
            sequence: watch::Sender::new(0),
            inbox: None,
            token: String::new(),
            gang: Gang::default(),
            pace: Pace::default(),
        }
    }

    /// What it has, where it is at work.
    fn holds(&self) -> Option<Grant> {
        let at_work = self.started && !self.record.state.is_final();
        at_work.then(|| Grant::of(&self.need, &self.record.gpus))
    }
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
    /// The registry of a store. Jobs that an earlier coordinator left are gone on with by [`Self::take_up`].
    pub(crate) fn open(config: Config, server: String, store: Store) -> Result<Self, StoreError> {
        let metrics = Metrics::new(config.slots);
        let (jobs, changes) = (Mutex::default(), watch::Sender::new(0));
        let traces = OnceLock::new();
        let registry = Self(Arc::new(Shared { config, server, store, jobs, metrics, traces, changes }));
        let mut newest = 0;
        for mut record in registry.0.store.jobs()? {
            // Those of earlier versions have none, and come first.
            if record.order == 0 {
                record.order = newest + 1;
            }
            newest = record.order;
            let last = registry.0.store.last_sequence(&record.id)?;
            registry.0.metrics.know(&record);
            // What cannot be read is given up when jobs are taken up.
            let spec: Option<JobSpec> = serde_json::from_value(record.spec.clone()).ok();
            let gang = (record.processes, record.external);
            let need = spec.map_or(Need::Nothing, |spec| Need::of(&spec, gang, registry.0.config.offer()));
            let entry = Entry { sequence: watch::Sender::new(last), ..Entry::of(record, need) };
            registry.lock().all.insert(entry.record.id.clone(), entry);
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

    /// Writes down what happened, all of it or nothing, and tells whoever watches.
    pub(crate) fn record(&self, id: &JobId, bodies: Vec<EventBody>) {
        let mut queued = false;
        let mut durability = Durability::Process;
        {
            let mut jobs = self.lock();
            let Some(entry) = jobs.all.get_mut(id) else { return };
            let before = *entry.sequence.borrow();
            let mut events = Vec::with_capacity(bodies.len());
            for (sequence, body) in (before + 1..).zip(bodies) {
                queued |= matches!(body, EventBody::State { state: JobState::Queued, .. });
                if !matches!(body, EventBody::Progress(_) | EventBody::Note { .. }) {
                    durability = Durability::Disk;
                }
                let event = Event { sequence, unix_ms: unix_ms(), body };
                self.0.metrics.observe(&entry.record, &event);
                if let Some(traces) = self.0.traces.get() {
                    traces.observe(&entry.record, &event);
                }
                entry.record.apply(&event);
                if let EventBody::Progress(progress) = &event.body {
                    entry.pace.observe(event.unix_ms, progress);
                }
                events.push(event);
            }
            if queued {
                // It gives back what it had.
                entry.started = false;
                entry.record.gpus.clear();
            }
            if let Err(error) = self.0.store.write(&entry.record, &events, durability) {
                tracing::error!("{id}: an event could not be stored: {error}");
                events.iter().for_each(|_| self.0.metrics.lost_event());
                // Their numbers are those of the next ones: histories have no gaps. Whoever watches looks again all
                // the same.
                entry.sequence.send_modify(|_| {});
            } else {
                entry.sequence.send_replace(before + events.len() as u64);
            }
            self.0.changes.send_modify(|count| *count += 1);
        }
        if queued {
            self.schedule();
        }
    }

    /// Keeps what a later coordinator must know of a job.
    pub(crate) fn remember(&self, id: &JobId, memory: job::Memory) {
        self.change(id, |record| record.memory = Some(memory));
    }

    /// Keeps which process a slot has.
    pub(crate) fn born(&self, id: &JobId, slot: u32, process: Identity) {
        self.change(id, |record| drop(record.processes_born.insert(slot, process)));
    }

    /// Keeps where a job's results are that this coordinator does not see.
    pub(crate) fn elsewhere(&self, id: &JobId, elsewhere: Elsewhere) {
        self.change(id, |record| record.elsewhere = Some(elsewhere));
    }

    /// Keeps what of them was brought.
    pub(crate) fn brought(&self, id: &JobId, brought: Vec<String>) {
        self.change(id, |record| {
            if let Some(elsewhere) = &mut record.elsewhere {
                elsewhere.brought = brought;
            }
        });
    }

    fn change(&self, id: &JobId, change: impl FnOnce(&mut Record)) {
        let mut jobs = self.lock();
        let Some(entry) = jobs.all.get_mut(id) else { return };
        change(&mut entry.record);
        if let Err(error) = self.0.store.write(&entry.record, &[], Durability::Disk) {
            tracing::error!("{id}: its state could not be stored: {error}");
            self.0.metrics.lost_event();
        }
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

    /// How fast a job goes; nothing is known of what was before the coordinator's own life.
    pub(crate) fn pace(&self, id: &JobId) -> Pace {
        self.lock().all.get(id).map(|entry| entry.pace.clone()).unwrap_or_default()
    }

    /// Counts and figures for Prometheus.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Sends traces of what happens from now on; of jobs that are not done, what happened so far is read. Once only.
    pub(crate) fn trace(&self, target: TraceTarget) -> Result<(), StoreError> {
        let traces = Traces::to(target);
        for record in self.list().iter().filter(|record| !record.state.is_final()) {
            let mut after = 0;
            loop {
                let events = self.events(&record.id, after)?;
                let Some(last) = events.last() else { break };
                after = last.sequence;
                traces.recall(record, &events);
            }
        }
        // A second target is not asked for by anybody.
        drop(self.0.traces.set(traces));
        Ok(())
    }

    /// Sends what is left of traces.
    pub(crate) async fn finish_traces(&self) {
        if let Some(traces) = self.0.traces.get() {
            traces.finish().await;
        }
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
}

impl Record {
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
