//! Many workers at once: ranks that compute nothing and talk as much as true ones do, each over two connections of its
//! own, and users who watch.

mod process;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use squad_proto::pb::jobs_client::JobsClient;
use squad_proto::{Event, EventBody, JobId, JobState, pb};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tonic::transport::Channel;

use process::Usage;
use worker::Rank;

/// The step that every rank names last.
const LAST_STEP: u64 = 1_000_000;
/// How often a user asks for a job.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// How much load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Ranks in all.
    pub workers: u32,
    /// Jobs that they are shared among.
    pub jobs: u32,
    /// How long all of them work.
    pub lasts: Duration,
    /// The jobs' `fault.patience_s`: workers beat twelve times within it.
    pub patience_s: f64,
}

/// What ranks do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Work,
    /// Say where they are, one last time.
    LastWord,
    End,
}

/// When each report of progress was sent, by job.
#[derive(Clone, Debug, Default)]
struct Sent(Arc<Mutex<BTreeMap<JobId, Vec<Instant>>>>);

impl Sent {
    /// The number of a job's next report, from 1.
    fn next(&self, job: &JobId) -> u64 {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_job = sent.entry(job.clone()).or_default();
        of_job.push(Instant::now());
        of_job.len() as u64
    }

    fn at(&self, job: &JobId, number: u64) -> Option<Instant> {
        let sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sent.get(job)?.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
    }

    fn count(&self, job: &JobId) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(job).map_or(0, Vec::len)
    }
}

/// What a user who watches a job has seen.
#[derive(Debug)]
pub struct Seen {
    /// The job.
    pub job: String,
    /// Its states, in order.
    pub states: Vec<JobState>,
    /// Reports of progress that its rank 0 sent.
    pub sent: usize,
    /// Reports of progress that came, in the order that they were sent.
    pub came: usize,
    /// Notes and failures: there should be none.
    pub remarks: Vec<String>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    load: Load,
    /// From the first connection until every job trained.
    pub gathered: Duration,
    /// Beats of all workers.
    pub beats: u64,
    /// By job.
    pub seen: Vec<Seen>,
    /// From a report's departure to its arrival at a user who watches, sorted.
    pub handled: Vec<Duration>,
    /// What one question (`squadctl get`) took, sorted.
    pub answered: Vec<Duration>,
    /// Ranks, by job, that the coordinator did not see at their last word.
    pub behind: BTreeMap<String, usize>,
    /// Events that the coordinator could not write down.
    pub unstored: u64,
    /// Share of one core that the coordinator used while all worked.
    pub cpu: f64,
    /// Its resident memory before the first worker came, and the most there was, in bytes.
    pub memory: (u64, u64),
}

/// The value below which a share of all lies.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Load { workers, jobs, lasts, patience_s } = self.load;
        let ms = |sorted: &[Duration], share| quantile(sorted, share).as_secs_f64() * 1e3;
        let reports: usize = self.seen.iter().map(|seen| seen.came).sum();
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            f,
            "{workers} workers in {jobs} jobs for {} s, patience {patience_s} s: at work after {:.1} s",
            lasts.as_secs(),
            self.gathered.as_secs_f64()
        )?;
        writeln!(f, "{} beats, {reports} reports of progress at their watchers", self.beats)?;
        for (what, sorted) in [("report to watcher", &self.handled), ("question answered", &self.answered)] {
            let (count, half, most) = (sorted.len(), ms(sorted, 0.5), ms(sorted, 0.99));
            writeln!(
                f,
                "{what}: p50 {half:.2} ms, p99 {most:.2} ms, most {:.2} ms ({count})",
                ms(sorted, 1.0)
            )?;
        }
        let (before, most) = self.memory;
        write!(
            f,
            "coordinator: {:.1} % of a core, {:.1} MiB resident ({:.1} MiB before)",
            self.cpu * 100.0,
            mib(most),
            mib(before)
        )
    }
}

/// Puts the load on a daemon: its gRPC address, the page's address, its process. `spec` is what the jobs are made from.
pub fn run(load: Load, daemon: (&str, &str, i32), spec: &Value) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(carry(load, daemon, spec))
}

async fn carry(load: Load, (url, page, pid): (&str, &str, i32), spec: &Value) -> Outcome {
    let before = Usage::of(pid);
    let begun = Instant::now();
    let (act, acts) = watch::channel(Act::Work);
    let sent = Sent::default();
    let mut users = Vec::new();
    let mut ranks = JoinSet::new();
    let mut jobs = JobsClient::connect(url.to_owned()).await.expect("a connection");
    for number in 0..load.jobs {
        let world = load.workers / load.jobs + u32::from(number < load.workers % load.jobs);
        let (job, token) = submit(&mut jobs, spec, (number, world), load.patience_s).await;
        let (training, trains) = watch::channel(false);
        let user = User { job: job.clone(), sent: sent.clone(), training };
        users.push((tokio::spawn(user.watch(url.to_owned())), trains));
        for slot in 0..world {
            let (url, job, token) = (url.to_owned(), job.clone(), token.clone());
            let rank = Rank { url, job, token, slot, world, act: acts.clone(), sent: sent.clone() };
            ranks.spawn(rank.live());
        }
    }
    for (_, trains) in &mut users {
        unbroken(&mut ranks, trains.wait_for(|trains| *trains)).await.expect("a watcher");
    }
    let gathered = begun.elapsed();
    let (first, started) = (Usage::of(pid), Instant::now());
    let ids: Vec<JobId> = sent.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
    let answered = unbroken(&mut ranks, questions(&mut jobs, &ids, load.lasts)).await;
    let (last, worked) = (Usage::of(pid), started.elapsed());
    act.send_replace(Act::LastWord);
    let behind = last_words(page, &ids).await;
    act.send_replace(Act::End);
    let mut beats = 0;
    while let Some(rank) = ranks.join_next().await {
        beats += rank.expect("a rank that lived to the end");
    }
    let (seen, handled) = histories(users, &sent).await;
    let unstored = process::metric(page, "squadron_unstored_events_total").await;
    Outcome {
        load,
        gathered,
        beats,
        seen,
        handled,
        answered,
        behind,
        unstored,
        cpu: (last.cpu - first.cpu).as_secs_f64() / worked.as_secs_f64(),
        memory: (before.resident, Usage::of(pid).most_resident),
    }
}

/// Waits for something while no rank may end.
async fn unbroken<T>(ranks: &mut JoinSet<u64>, waited: impl Future<Output = T>) -> T {
    tokio::select! {
        value = waited => value,
        ended = ranks.join_next() => panic!("a rank ended too early: {ended:?}"),
    }
}

/// Submits a job of `world` workers; gives its name and its workers' token.
async fn submit(
    jobs: &mut JobsClient<Channel>,
    spec: &Value,
    (number, world): (u32, u32),
    patience_s: f64,
) -> (JobId, String) {
    let mut spec = spec.clone();
    spec["name"] = format!("load-{number}").into();
    spec["output_dir"] = format!("load-{number}").into();
    spec["resources"] = json!({"workers": world});
    spec["fault"] = json!({"patience_s": patience_s, "max_restarts": 0});
    let request = pb::SubmitRequest { spec_json: spec.to_string(), external: true, ..Default::default() };
    let reply = jobs.submit(request).await.expect("a job is taken").into_inner();
    (JobId(reply.job), reply.worker_token)
}

/// Asks for one job after the other, for a while; gives how long each answer took, sorted.
async fn questions(jobs: &mut JobsClient<Channel>, ids: &[JobId], lasts: Duration) -> Vec<Duration> {
    let begun = Instant::now();
    let mut took = Vec::new();
    let mut pace = tokio::time::interval(ASK_EVERY);
    for id in ids.iter().cycle() {
        pace.tick().await;
        if begun.elapsed() >= lasts {
            break;
        }
        let asked = Instant::now();
        jobs.get(pb::GetRequest { job: id.0.clone() }).await.expect("an answer");
        took.push(asked.elapsed());
    }
    took.sort_unstable();
    took
}

/// Waits until the coordinator has seen every rank's last word; gives what it has not seen after half a minute.
async fn last_words(page: &str, ids: &[JobId]) -> BTreeMap<String, usize> {
    let begun = Instant::now();
    let mut left: Vec<&JobId> = ids.iter().collect();
    let mut behind = BTreeMap::new();
    while !left.is_empty() && begun.elapsed() < Duration::from_secs(30) {
        tokio::time::sleep(ASK_EVERY).await;
        let mut open = Vec::new();
        for id in std::mem::take(&mut left) {
            let job: Value = process::get_json(page, &format!("/api/jobs/{id}")).await;
            let ranks = job["ranks"].as_array().expect("ranks");
            let missing = ranks.iter().filter(|rank| rank["done"] != LAST_STEP).count();
            behind.insert(id.0.clone(), missing);
            if missing > 0 || ranks.is_empty() {
                open.push(id);
            }
        }
        left = open;
    }
    behind.retain(|_, missing| *missing > 0);
    behind
}

/// Somebody who watches a job.
struct User {
    job: JobId,
    sent: Sent,
    training: watch::Sender<bool>,
}

/// A user at work, and whether the job trains.
type Watching = (JoinHandle<(Seen, Vec<Duration>)>, watch::Receiver<bool>);

async fn histories(users: Vec<Watching>, sent: &Sent) -> (Vec<Seen>, Vec<Duration>) {
    let (mut all, mut handled) = (Vec::new(), Vec::new());
    for (user, _) in users {
        let (mut seen, mut took) = user.await.expect("a user who watched to the end");
        seen.sent = sent.count(&JobId(seen.job.clone()));
        all.push(seen);
        handled.append(&mut took);
    }
    handled.sort_unstable();
    (all, handled)
}

impl User {
    /// Watches to the job's end.
    async fn watch(self, url: String) -> (Seen, Vec<Duration>) {
        let mut jobs = JobsClient::connect(url).await.expect("a connection");
        let request = pb::WatchRequest { job: self.job.0.clone(), after_sequence: 0 };
        let mut events = jobs.watch(request).await.expect("events").into_inner();
        let mut seen =
            Seen { job: self.job.0.clone(), states: Vec::new(), sent: 0, came: 0, remarks: Vec::new() };
        let mut took = Vec::new();
        while let Some(event) = events.message().await.expect("an event") {
            match Event::try_from(event).expect("an event").body {
                EventBody::State { state, .. } => seen.states.push(state),
                EventBody::Progress(progress) => {
                    seen.came += usize::from(progress.done == seen.came as u64 + 1);
                    took.extend(self.sent.at(&self.job, progress.done).map(|at| at.elapsed()));
                    self.training.send_replace(true);
                }
                EventBody::Note { text, .. } => seen.remarks.push(text),
                EventBody::Failure(report) => seen.remarks.push(report.to_string()),
                EventBody::Results { .. } => {}
            }
        }
        (seen, took)
    }
}
