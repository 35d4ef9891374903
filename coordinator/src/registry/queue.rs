//! Who runs: jobs that come, wait, are gone on with, and end with the coordinator.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use squad_proto::{Deadlines, EventBody, FailureCode, FailureReport, JobId, JobSpec, JobState, Task};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{Entry, Jobs, Registry, SubmitError, random_hex, unix_ms};
use crate::config::StoreLocation;
use crate::driver::{Assignment, Driver, Inbox};
use crate::job::{self, Machine, Memory};
use crate::launch::{Attendants, Launching, LocalLauncher};
use crate::placement::{self, Free, Grant, Need, Offer, Verdict, Wait, Waiting};
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
        let need = Need::of(&spec, (processes, external), self.0.config.offer());
        if let Some(shortfall) = need.beyond(self.0.config.offer()) {
            return Err(SubmitError::TooLarge(shortfall));
        }
        let token = random_hex(16);
        let id = JobId::new(&spec.name, &random_hex(3));
        let (inbox, received) = unbounded_channel();
        let mut record = Record {
            id: id.clone(),
            name: spec.name.clone(),
            state: JobState::Queued,
            reason: "waiting for its turn".into(),
            created_unix_ms: unix_ms(),
            started_unix_ms: None,
            finished_unix_ms: None,
            processes,
            priority: spec.priority,
            order: 0,
            gpus: Vec::new(),
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
            record.order = jobs.all.values().map(|e| e.record.order).max().unwrap_or(0) + 1;
            self.0.store.write(&record, &[], Durability::Disk)?;
            self.0.metrics.know(&record);
            let entry = Entry { inbox: Some(inbox), token: token.clone(), ..Entry::of(record, need) };
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

    /// Goes on with the jobs that an earlier coordinator left: those at work as soon as their workers are gone, with what
    /// they had. Where there is not as much any more, those that come first have it.
    pub(crate) fn take_up(&self) {
        let offer = self.0.config.offer();
        let mut free = Free::all(offer);
        let mut open: Vec<Record> =
            self.list().into_iter().filter(|record| !record.state.is_final()).collect();
        open.sort_by_key(|record| (Reverse(record.priority), record.order));
        for record in open {
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
            let need = Need::of(&spec, (record.processes, record.external), offer);
            let Some((driver, received)) = self.adopt(&record.id, spec) else { continue };
            let at_work = record.state != JobState::Queued && record.memory.is_some();
            if at_work {
                let room = free.give_back(&need, &Grant::of(&need, &record.gpus));
                let left = driver.left.keys().copied().collect();
                self.send(&record.id, job::Event::TakeUp { left, room });
            } else if record.state != JobState::Queued {
                let reason = "the coordinator ended while the job was at work".into();
                self.record(&record.id, vec![EventBody::State { state: JobState::Queued, reason }]);
            }
            if let Some(shortfall) = need.beyond(offer) {
                let text = format!("the job waits for another coordinator: it wants {shortfall}");
                self.record(&record.id, vec![EventBody::Note { rank: None, text }]);
            }
            tokio::spawn(driver.run(received));
        }
        self.schedule();
    }

    /// Makes a job this coordinator's own.
    fn adopt(&self, id: &JobId, spec: JobSpec) -> Option<(Driver, UnboundedReceiver<Inbox>)> {
        let (inbox, received) = unbounded_channel();
        let mut jobs = self.lock();
        let entry = jobs.all.get_mut(id)?;
        entry.inbox = Some(inbox);
        // Attendants that come back have the old one.
        entry.token = entry.record.worker_token.clone().map_or_else(|| random_hex(16), |token| token.0);
        Some((self.driver(entry, spec), received))
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

    /// Starts those jobs that wait whose turn it is.
    pub(crate) fn schedule(&self) {
        let mut jobs = self.lock();
        if jobs.ending {
            return;
        }
        for (id, verdict) in jobs.verdicts(self.0.config.offer()) {
            let (Verdict::Starts(grant), Some(entry)) = (verdict, jobs.all.get_mut(&id)) else { continue };
            entry.started = true;
            // Its driver writes it down with the job's memory, before anything is launched.
            entry.record.gpus = grant.gpus;
            if let Some(inbox) = &entry.inbox {
                // A driver that is gone has recorded the job's end.
                inbox.send(Inbox::Event(job::Event::Start)).ok();
            }
        }
    }

    /// Why each job that waits does so.
    pub(crate) fn waits(&self) -> BTreeMap<JobId, Wait> {
        let wait = |(id, verdict)| match verdict {
            Verdict::Waits(wait) => Some((id, wait)),
            // Its start is under way.
            Verdict::Starts(_) => None,
        };
        self.lock().verdicts(self.0.config.offer()).into_iter().filter_map(wait).collect()
    }

    /// What all jobs at work hold together: slots, and GPUs.
    pub(crate) fn held(&self) -> (u32, u32) {
        let jobs = self.lock();
        let grants = jobs.all.values().filter_map(Entry::holds);
        grants.fold((0, 0), |(slots, gpus), grant| (slots + grant.slots, gpus + grant.gpus.len() as u32))
    }

    /// What a worker in each of these slots is to find in `CUDA_VISIBLE_DEVICES`; `None` where that is not the
    /// coordinator's business.
    pub(crate) fn visible_gpus(&self, id: &JobId, slots: impl Iterator<Item = u32>) -> Option<String> {
        let names = self.0.config.gpus.as_ref()?;
        let jobs = self.lock();
        let entry = jobs.all.get(id)?;
        match entry.need {
            // Workers choose those that the spec names, by their numbers.
            Need::Named(_) | Need::Nothing => None,
            Need::Slots(_) => Some(String::new()),
            Need::Gpus(_) => {
                let name = |slot: u32| names.get(*entry.record.gpus.get(slot as usize)? as usize).cloned();
                Some(slots.filter_map(name).collect::<Vec<_>>().join(","))
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

impl Jobs {
    /// What becomes of those that wait, the first one first.
    fn verdicts(&self, offer: Offer) -> Vec<(JobId, Verdict)> {
        let mut free = Free::all(offer);
        self.all.values().filter_map(Entry::holds).for_each(|held| free.hold(&held));
        let waits = |e: &&Entry| !e.started && !e.record.state.is_final() && e.inbox.is_some();
        let waiting = self.all.values().filter(waits).map(|e| Waiting {
            id: e.record.id.clone(),
            begun: e.record.memory.as_ref().is_some_and(|memory| memory.begun),
            priority: e.record.priority,
            order: e.record.order,
            need: e.need.clone(),
        });
        placement::decide(offer, free, waiting.collect())
    }
}
