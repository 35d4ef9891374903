//! Who runs: jobs that come, wait, are gone on with, and end with the coordinator.

use std::time::Duration;

use squad_proto::{Deadlines, EventBody, FailureCode, FailureReport, JobId, JobSpec, JobState, Task};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{Entry, Registry, SubmitError, random_hex, unix_ms};
use crate::config::StoreLocation;
use crate::driver::{Assignment, Driver, Inbox};
use crate::job::{self, Machine, Memory};
use crate::launch::{Attendants, Launching, LocalLauncher};
use crate::store::{Durability, Record, StoreError, WorkerToken};

impl Registry {
    /// Queues a job; it starts when there is room, an external one at once. `spec` is resolved. Gives the job's
    /// name and its workers' token. `submitter` is the name of a token, where there are any.
    pub(crate) fn submit(
        &self,
        spec: JobSpec,
        task: Task,
        (processes, external): (u32, bool),
        submitter: Option<String>,
    ) -> Result<(JobId, String), SubmitError> {
        if self.0.config.worker_program.is_none() && !external {
            return Err(SubmitError::NoWorker);
        }
        let token = random_hex(16);
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
            worker_token: external.then(|| WorkerToken(token.clone())),
            output_dir: spec.output_dir.clone(),
            submitter,
            progress: None,
            failure: None,
            results: None,
            spec: serde_json::to_value(&spec).map_err(StoreError::from)?,
            task,
            memory: None,
            processes_born: Default::default(),
            elsewhere: None,
        };
        let driver = {
            // Under one lock: whoever ends the coordinator either sees this job or has refused it.
            let mut jobs = self.lock();
            if jobs.ending {
                return Err(SubmitError::Ending);
            }
            let most = self.0.config.limits.queued_jobs;
            let waiting = |entry: &&Entry| !entry.started && !entry.record.state.is_final();
            if jobs.all.values().filter(waiting).count() >= most {
                return Err(SubmitError::Full(most));
            }
            self.0.store.write(&record, &[], Durability::Disk)?;
            self.0.metrics.know(&record);
            let order = jobs.all.values().map(|e| e.order).max().unwrap_or(0) + 1;
            let entry = Entry { inbox: Some(inbox), token: token.clone(), order, ..Entry::of(record) };
            let driver = self.driver(&entry, spec);
            jobs.all.insert(id.clone(), entry);
            driver
        };
        let reason = "waiting for its turn".into();
        self.record(&id, vec![EventBody::State { state: JobState::Queued, reason }]);
        tokio::spawn(driver.run(received));
        self.schedule();
        Ok((id, token))
    }

    /// The driver of a job, of which the record may be another coordinator's.
    fn driver(&self, entry: &Entry, spec: JobSpec) -> Driver {
        let record = &entry.record;
        let deadlines = Deadlines::from_patience(Duration::from_secs_f64(spec.fault.patience_s));
        let memory = record.memory.clone().unwrap_or_else(|| Memory::new(spec.fault.max_restarts));
        let fewest = spec.resources.min_workers.unwrap_or(record.processes);
        let machine = Machine::recall(record.processes, deadlines, memory).with_fewest(fewest);
        let log_bytes = self.0.config.limits.log_bytes;
        let launching = match &self.0.config.worker_program {
            Some(program) if !record.external => {
                Launching::local(LocalLauncher::new(program.clone(), log_bytes))
            }
            _ => Launching::External(Attendants::new(record.processes)),
        };
        Driver {
            registry: self.clone(),
            machine: if record.external { machine.attended() } else { machine },
            launching,
            silence: deadlines.silence,
            job: Assignment {
                id: record.id.clone(),
                spec,
                task: record.task.clone(),
                token: entry.token.clone(),
                server: self.0.server.clone(),
                slots: record.processes,
            },
            left: record.processes_born.clone().into_iter().filter(|(_, process)| process.lives()).collect(),
        }
    }

    /// Goes on with the jobs that an earlier coordinator left: those at work as soon as their workers are gone, and
    /// before any that were waiting.
    pub(crate) fn take_up(&self) {
        let mut free = self.0.config.slots;
        let open = self.list().into_iter().filter(|record| !record.state.is_final());
        for (order, record) in (1..).zip(open) {
            if self.0.config.worker_program.is_none() && !record.external {
                self.give_up(&record.id, "this one has no squad-worker program (--worker)");
                continue;
            }
            let spec: JobSpec = match serde_json::from_value(record.spec.clone()) {
                Ok(spec) => spec,
                Err(error) => {
                    self.give_up(&record.id, &format!("its spec is of another version: {error}"));
                    continue;
                }
            };
            let (driver, received) = self.adopt(&record, spec, order);
            let at_work = record.state != JobState::Queued && record.memory.is_some();
            if at_work {
                let room = record.slots() <= free;
                free -= if room { record.slots() } else { 0 };
                let left = driver.left.keys().copied().collect();
                self.send(&record.id, job::Event::TakeUp { left, room });
            } else if record.state != JobState::Queued {
                let reason = "the coordinator ended while the job was at work".into();
                self.record(&record.id, vec![EventBody::State { state: JobState::Queued, reason }]);
            }
            if record.slots() > self.0.config.slots {
                let text = format!(
                    "the job needs {} slots, and the coordinator has {}: it waits for one that is started with --slots {}",
                    record.processes, self.0.config.slots, record.processes
                );
                self.record(&record.id, vec![EventBody::Note { rank: None, text }]);
            }
            tokio::spawn(driver.run(received));
        }
        self.schedule();
    }

    /// Makes a job this coordinator's own.
    fn adopt(&self, record: &Record, spec: JobSpec, order: u64) -> (Driver, UnboundedReceiver<Inbox>) {
        let (inbox, received) = unbounded_channel();
        let mut jobs = self.lock();
        let entry = jobs.all.entry(record.id.clone()).or_insert_with(|| Entry::of(record.clone()));
        entry.inbox = Some(inbox);
        // Attendants that come back have the old one.
        entry.token = record.worker_token.clone().map_or_else(|| random_hex(16), |token| token.0);
        entry.order = order;
        // Until its workers are gone it holds their slots.
        entry.started = record.state != JobState::Queued;
        (self.driver(entry, spec), received)
    }

    fn give_up(&self, id: &JobId, why: &str) {
        let report = FailureReport::new(
            FailureCode::CoordinatorLost,
            format!("the coordinator ended while the job was not done, and cannot go on with it: {why}"),
        );
        let reason = report.to_string();
        let state = EventBody::State { state: JobState::Failed, reason };
        self.record(id, vec![EventBody::Failure(report), state]);
    }

    /// Starts queued jobs in their order, as far as slots reach. A job that does not fit holds up those
    /// behind it, or it might wait for ever; one that never will does not.
    pub(crate) fn schedule(&self) {
        let mut jobs = self.lock();
        if jobs.ending {
            return;
        }
        let slots = self.0.config.slots;
        let used: u32 = jobs
            .all
            .values()
            .filter(|e| e.started && !e.record.state.is_final())
            .map(|e| e.record.slots())
            .sum();
        let mut free = slots.saturating_sub(used);
        let mut waiting: Vec<&mut Entry> = jobs
            .all
            .values_mut()
            .filter(|e| !e.started && !e.record.state.is_final() && e.record.slots() <= slots)
            .collect();
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

    /// Takes no more jobs, tells those there are that the coordinator is ending, and waits until all have ended, or can
    /// be gone on with by another coordinator of the same store.
    pub(crate) async fn shut_down(&self) {
        let open: Vec<_> = {
            let mut jobs = self.lock();
            jobs.ending = true;
            let open = jobs.all.values().filter(|entry| !entry.record.state.is_final());
            open.filter_map(|entry| entry.inbox.clone()).collect()
        };
        let comes_back = self.0.config.store != StoreLocation::Memory;
        for inbox in &open {
            // A driver that is gone has ended its job.
            inbox.send(Inbox::Event(job::Event::Shutdown { comes_back })).ok();
        }
        for inbox in open {
            inbox.closed().await;
        }
    }
}
