//! What Prometheus is told. Labels are bounded: states, failure codes, and the jobs that are not done.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use squad_proto::{Event, EventBody, FailureCode, JobId, JobState, Phase, Progress};

use crate::store::Record;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCode {
    code: &'static str,
}

/// Not `job`: Prometheus itself calls what it reads from so.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfJob {
    job_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Too many connections.
    Connections,
    /// Too many connections from one address.
    ConnectionsOfAddress,
    /// No TLS, or a certificate of another authority.
    Handshake,
    /// Nothing whole came in time.
    Slow,
    /// A connection that rested for too long.
    Idle,
    /// No token or certificate, or a wrong one.
    Token,
    /// A token whose role is not enough.
    Role,
    /// A message that is too large.
    Message,
    /// A spec that is too large.
    Spec,
    /// A path outside of the folders that jobs may use.
    Path,
    /// Too many jobs wait.
    Queue,
    /// A worker with the token of another job, or none.
    Worker,
}

impl Reason {
    const ALL: [Self; 12] = [
        Self::Connections,
        Self::ConnectionsOfAddress,
        Self::Handshake,
        Self::Slow,
        Self::Idle,
        Self::Token,
        Self::Role,
        Self::Message,
        Self::Spec,
        Self::Path,
        Self::Queue,
        Self::Worker,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsOfAddress => "connections_per_address",
            Self::Handshake => "handshake",
            Self::Slow => "slow",
            Self::Idle => "idle",
            Self::Token => "token",
            Self::Role => "role",
            Self::Message => "message",
            Self::Spec => "spec",
            Self::Path => "path",
            Self::Queue => "queue",
            Self::Worker => "worker",
        }
    }
}

/// Counts what was refused. Cloning shares the counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals(Family<OfReason, Counter>);

impl Refusals {
    /// One more.
    pub(crate) fn count(&self, reason: Reason) {
        self.0.get_or_create(&OfReason { reason: reason.as_str() }).inc();
    }
}

type JobFigure = Family<OfJob, Gauge<f64, AtomicU64>>;

/// Counts and figures of one coordinator, kept up to date by the events of its jobs.
pub(crate) struct Metrics {
    registry: Registry,
    jobs: Family<OfState, Gauge>,
    failures: Family<OfCode, Counter>,
    restarts: Family<OfCode, Counter>,
    steps: Counter,
    unstored: Counter,
    refusals: Refusals,
    running: Running,
}

/// Figures of the jobs that are not done; a job's are dropped when it ends.
#[derive(Default)]
struct Running {
    step: JobFigure,
    steps: JobFigure,
    loss: JobFigure,
    learning_rate: JobFigure,
    examples_per_second: JobFigure,
    tokens_per_second: JobFigure,
    allreduce_share: JobFigure,
    reported: JobFigure,
}

impl Metrics {
    /// Metrics of a coordinator with so many slots, before its first job.
    pub(crate) fn new(slots: u32) -> Self {
        let mut registry = Registry::with_prefix("squadron");
        registry.register(
            "build",
            "The coordinator's version",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let room: Gauge = Gauge::default();
        room.set(slots.into());
        registry.register("slots", "Worker processes that may run at once", room);
        let metrics = Self {
            jobs: Family::default(),
            failures: Family::default(),
            restarts: Family::default(),
            steps: Counter::default(),
            unstored: Counter::default(),
            refusals: Refusals::default(),
            running: Running::default(),
            registry,
        };
        for reason in Reason::ALL {
            drop(metrics.refusals.0.get_or_create(&OfReason { reason: reason.as_str() }));
        }
        // A series that is there before its first failure lets a rule see the first one.
        for code in FailureCode::ALL {
            drop(metrics.failures.get_or_create(&OfCode { code: code.as_str() }));
            if code.may_pass() {
                drop(metrics.restarts.get_or_create(&OfCode { code: code.as_str() }));
            }
        }
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let all = &mut self.registry;
        all.register(
            "jobs",
            "Jobs by state, those of earlier lives of the coordinator included",
            self.jobs.clone(),
        );
        all.register("failures", "Jobs that failed, by failure code", self.failures.clone());
        all.register(
            "restarts",
            "Gangs of workers that were started again, by what was lost",
            self.restarts.clone(),
        );
        all.register("train_steps", "Optimizer steps that jobs reported", self.steps.clone());
        all.register(
            "unstored_events",
            "Events that could not be written to the job store",
            self.unstored.clone(),
        );
        all.register(
            "refused",
            "Connections and requests that were refused, by why",
            self.refusals.0.clone(),
        );
        let running = &self.running;
        let figures = [
            ("job_step", "Optimizer steps done", &running.step),
            ("job_steps", "Optimizer steps in all", &running.steps),
            ("job_loss", "Mean loss since the report before", &running.loss),
            ("job_learning_rate", "Learning rate of the last step", &running.learning_rate),
            ("job_examples_per_second", "Examples a second over all ranks", &running.examples_per_second),
            ("job_tokens_per_second", "Unpadded tokens a second over all ranks", &running.tokens_per_second),
            ("job_allreduce_share", "Share of the time inside all-reduces", &running.allreduce_share),
        ];
        for (name, help, figure) in figures {
            all.register(name, help, figure.clone());
        }
        let reported = running.reported.clone();
        all.register_with_unit(
            "job_reported_time",
            "When the job was last heard of",
            Unit::Seconds,
            reported,
        );
        self
    }

    /// Counts a job that is new, or was read from the store.
    pub(crate) fn know(&self, record: &Record) {
        self.of_state(record.state).inc();
    }

    /// Takes an event in; `before` is the job's record as it was without it.
    pub(crate) fn observe(&self, before: &Record, event: &Event) {
        match &event.body {
            EventBody::State { state, reason } => self.moved(before, *state, reason),
            EventBody::Progress(progress) => self.went_on(before, progress),
            EventBody::Failure(report) => {
                self.failures.get_or_create(&OfCode { code: report.code.as_str() }).inc();
            }
            EventBody::Note { .. } | EventBody::Results { .. } => {}
        }
        let ended = matches!(&event.body, EventBody::State { state, .. } if state.is_final());
        if ended {
            self.running.forget(&before.id);
        } else if !before.state.is_final() && before.state != JobState::Queued {
            set(&self.running.reported, &before.id, Some(event.unix_ms as f64 / 1000.0));
        }
    }

    /// Counts an event that the store did not take.
    pub(crate) fn lost_event(&self) {
        self.unstored.inc();
    }

    /// Where refusals are counted.
    pub(crate) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// All of it in the text form that Prometheus reads.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail; were it to, the scrape would be short, and the next one whole.
        text::encode(&mut out, &self.registry).ok();
        out
    }

    fn of_state(&self, state: JobState) -> Gauge {
        self.jobs.get_or_create_owned(&OfState { state: state.as_str() })
    }

    fn moved(&self, before: &Record, state: JobState, reason: &str) {
        self.of_state(before.state).dec();
        self.of_state(state).inc();
        if state == JobState::Restarting {
            // The reason is the failure's text, which begins with its code.
            let code = reason.split([' ', ':']).next().and_then(|word| word.parse().ok());
            let code = code.unwrap_or(FailureCode::Internal);
            self.restarts.get_or_create(&OfCode { code: code.as_str() }).inc();
        }
    }

    fn went_on(&self, before: &Record, progress: &Progress) {
        if progress.phase != Phase::Train {
            return;
        }
        let done_before = before.progress.as_ref().filter(|p| p.phase == Phase::Train).map_or(0, |p| p.done);
        // A gang that was restarted goes back; its steps are counted again as they are done again.
        self.steps.inc_by(progress.done.saturating_sub(done_before));
        let (id, running) = (&before.id, &self.running);
        set(&running.step, id, Some(progress.done as f64));
        set(&running.steps, id, Some(progress.total as f64));
        set(&running.loss, id, progress.loss);
        set(&running.learning_rate, id, progress.learning_rate);
        set(&running.examples_per_second, id, progress.examples_per_second);
        set(&running.tokens_per_second, id, progress.tokens_per_second);
        set(&running.allreduce_share, id, progress.allreduce_share);
    }
}

fn set(figure: &JobFigure, job: &JobId, value: Option<f64>) {
    if let Some(value) = value {
        figure.get_or_create(&OfJob { job_id: job.0.clone() }).set(value);
    }
}

impl Running {
    fn forget(&self, job: &JobId) {
        let label = OfJob { job_id: job.0.clone() };
        let all = [
            &self.step,
            &self.steps,
            &self.loss,
            &self.learning_rate,
            &self.examples_per_second,
            &self.tokens_per_second,
            &self.allreduce_share,
            &self.reported,
        ];
        for figure in all {
            figure.remove(&label);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use squad_proto::FailureReport;

    use super::*;

    fn record(state: JobState) -> Record {
        Record {
            id: JobId("a-1".into()),
            name: "a".into(),
            state,
            reason: String::new(),
            created_unix_ms: 0,
            started_unix_ms: None,
            finished_unix_ms: None,
            priority: 0,
            order: 1,
            gpus: Vec::new(),
            processes: 1,
            external: false,
            worker_token: None,
            output_dir: String::new(),
            submitter: None,
            progress: None,
            failure: None,
            results: None,
            spec: serde_json::Value::Null,
            task: Default::default(),
            memory: None,
            processes_born: Default::default(),
            elsewhere: None,
        }
    }

    fn event(body: EventBody) -> Event {
        Event { sequence: 1, unix_ms: 2500, body }
    }

    fn enter(state: JobState) -> Event {
        event(EventBody::State { state, reason: String::new() })
    }

    fn train(done: u64) -> Event {
        let mut progress = Progress::new(Phase::Train, done, 10);
        progress.loss = Some(1.25);
        event(EventBody::Progress(progress))
    }

    /// A report with every figure.
    fn whole_report() -> Event {
        let mut progress = Progress::new(Phase::Train, 1, 10);
        (progress.loss, progress.learning_rate) = (Some(1.0), Some(1e-5));
        (progress.examples_per_second, progress.tokens_per_second) = (Some(30.0), Some(4000.0));
        progress.allreduce_share = Some(0.1);
        event(EventBody::Progress(progress))
    }

    /// The value of a series, by its whole name with labels.
    fn value(metrics: &Metrics, series: &str) -> Option<f64> {
        metrics.text().lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    #[test]
    fn a_job_is_counted_in_one_state() {
        let metrics = Metrics::new(4);
        metrics.know(&record(JobState::Queued));
        metrics.observe(&record(JobState::Queued), &enter(JobState::Queued));
        assert_eq!(value(&metrics, "squadron_jobs{state=\"queued\"}"), Some(1.0));
        metrics.observe(&record(JobState::Queued), &enter(JobState::Starting));
        assert_eq!(value(&metrics, "squadron_jobs{state=\"queued\"}"), Some(0.0));
        assert_eq!(value(&metrics, "squadron_jobs{state=\"starting\"}"), Some(1.0));
        assert_eq!(value(&metrics, "squadron_slots"), Some(4.0));
    }

    #[test]
    fn restarts_are_counted_by_what_was_lost() {
        let metrics = Metrics::new(1);
        let counted = |code: &str| value(&metrics, &format!("squadron_restarts_total{{code=\"{code}\"}}"));
        assert_eq!(counted("SQ-004"), Some(0.0));
        for report in [
            FailureReport::new(FailureCode::WorkerDied, "gone").of_rank(1),
            FailureReport::new(FailureCode::WorkerDied, "gone"),
            FailureReport::new(FailureCode::Collective, "closed").of_rank(0),
        ] {
            let body = EventBody::State { state: JobState::Restarting, reason: report.to_string() };
            metrics.observe(&record(JobState::Running), &event(body));
        }
        assert_eq!((counted("SQ-004"), counted("SQ-006"), counted("SQ-099")), (Some(2.0), Some(1.0), None));
    }

    #[test]
    fn rules_and_dashboard_name_only_what_there_is() {
        let metrics = Metrics::new(1);
        metrics.know(&record(JobState::Running));
        metrics.observe(&record(JobState::Running), &whole_report());
        let text = metrics.text();
        let there: BTreeSet<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split(['{', ' ']).next())
            .collect();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/observability");
        let mut named = BTreeSet::new();
        for file in ["alerts.yml", "dashboard.json"] {
            let text = std::fs::read_to_string(folder.join(file)).unwrap();
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            named.extend(words.filter(|word| word.starts_with("squadron_")).map(str::to_owned));
        }
        let missing: Vec<_> = named.iter().filter(|name| !there.contains(name.as_str())).collect();
        assert!(named.len() > 10 && missing.is_empty(), "{missing:?} are not among {there:?}");
        let unseen: Vec<_> = there.iter().filter(|name| !named.contains(**name)).collect();
        assert!(unseen.is_empty(), "nothing shows {unseen:?}");
    }

    #[test]
    fn steps_add_up_and_a_step_back_takes_none_away() {
        let metrics = Metrics::new(1);
        let mut job = record(JobState::Running);
        for done in [4, 6, 2, 5] {
            metrics.observe(&job, &train(done));
            job.progress = Some(Progress::new(Phase::Train, done, 10));
        }
        assert_eq!(value(&metrics, "squadron_train_steps_total"), Some(9.0));
        assert_eq!(value(&metrics, "squadron_job_step{job_id=\"a-1\"}"), Some(5.0));
    }

    #[test]
    fn a_job_that_ended_leaves_no_series_but_its_failure() {
        let metrics = Metrics::new(1);
        assert_eq!(value(&metrics, "squadron_failures_total{code=\"SQ-004\"}"), Some(0.0));
        metrics.observe(&record(JobState::Running), &train(3));
        assert_eq!(value(&metrics, "squadron_job_loss{job_id=\"a-1\"}"), Some(1.25));
        assert_eq!(value(&metrics, "squadron_job_reported_time_seconds{job_id=\"a-1\"}"), Some(2.5));
        let report = FailureReport::new(FailureCode::WorkerDied, "gone");
        metrics.observe(&record(JobState::Stopping), &event(EventBody::Failure(report)));
        metrics.observe(&record(JobState::Stopping), &enter(JobState::Failed));
        assert!(!metrics.text().contains("a-1"), "{}", metrics.text());
        assert_eq!(value(&metrics, "squadron_failures_total{code=\"SQ-004\"}"), Some(1.0));
    }
}
