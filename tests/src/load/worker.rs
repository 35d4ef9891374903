//! One simulated rank: its attendant's connection and its worker's, as mpirun or Kubernetes would have them.

use std::time::{Duration, Instant};

use squad_proto::connect::{Trust, as_worker, endpoint};
use squad_proto::pb::workers_client::WorkersClient;
use squad_proto::pb::{self, from_attendant, from_worker, to_attendant, to_worker};
use squad_proto::{Deadlines, Fence, JobId, Phase, Progress, Ticket};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::{Act, LAST_STEP, Sent};

/// How often rank 0 tells of its progress: as often as a true one does at most.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// How long a step takes.
const STEP: Duration = Duration::from_millis(100);

/// A rank of a job.
pub(super) struct Rank {
    pub(super) url: String,
    pub(super) job: JobId,
    pub(super) token: String,
    pub(super) slot: u32,
    pub(super) world: u32,
    /// What all ranks are to do.
    pub(super) act: watch::Receiver<Act>,
    /// What was sent, for whoever looks whether it came in.
    pub(super) sent: Sent,
}

impl Rank {
    /// From the attendant's first word to the job's end; gives how many beats its worker sent.
    pub(super) async fn live(self) -> u64 {
        let (say, outbound) = unbounded_channel();
        let enlist = pb::Enlist {
            slot: self.slot,
            world: self.world,
            host: format!("host-{}", self.slot / 8),
            pid: self.slot + 1,
            local_rank: self.slot % 8,
            instance: format!("{}-{}", self.job, self.slot),
            running: None,
        };
        attendant_says(&say, from_attendant::Body::Enlist(enlist));
        let call = self.call(outbound);
        let mut hear = self.client().await.attend(call).await.expect("an attendant is let in").into_inner();
        let order = hear.next().await.expect("an order").expect("an order");
        let Some(to_attendant::Body::Start(start)) = order.body else { panic!("not to start: {order:?}") };
        let ticket: Ticket = serde_json::from_str(&start.ticket_json).expect("a ticket");
        let beats = self.work(&ticket).await;
        let exited = pb::WorkerExited {
            generation: ticket.generation.0,
            code: Some(0),
            signal: None,
            stderr_tail: vec!["done".into()],
            out_of_memory: None,
        };
        attendant_says(&say, from_attendant::Body::Exited(exited));
        let end = hear.next().await.expect("the job's end").expect("the job's end");
        assert!(matches!(end.body, Some(to_attendant::Body::Ended(_))), "{end:?}");
        beats
    }

    async fn client(&self) -> WorkersClient<Channel> {
        let endpoint = endpoint(&self.url, &Trust::default()).expect("an address");
        WorkersClient::new(endpoint.connect().await.expect("a connection"))
    }

    fn call<T>(
        &self,
        outbound: tokio::sync::mpsc::UnboundedReceiver<T>,
    ) -> tonic::Request<UnboundedReceiverStream<T>> {
        as_worker(UnboundedReceiverStream::new(outbound), &self.job, &self.token).expect("a token")
    }

    /// A worker's life, on a connection of its own.
    async fn work(&self, ticket: &Ticket) -> u64 {
        let deadlines = Deadlines::from_patience(ticket.patience());
        let (say, outbound) = unbounded_channel();
        let mut talk = Talk { fence: ticket.fence(), say, begun: Instant::now(), beats: 0, last: None };
        talk.say(from_worker::Body::Hello(pb::Hello {
            slot: self.slot,
            pid: self.slot + 1,
            host: format!("host-{}", self.slot / 8),
            ring_address: format!("127.0.0.1:{}", 10_000 + self.slot),
            rejoins: false,
        }));
        let call = self.call(outbound);
        let mut hear = self.client().await.session(call).await.expect("a worker is let in").into_inner();
        let listening = listen(&mut hear);
        let heard = beating(&mut talk, deadlines.beat, listening).await;
        assert!(matches!(heard, to_worker::Body::Assign(_)), "{heard:?}");
        let same = |text: &str| text.repeat(16);
        talk.say(from_worker::Body::Ready(pb::Ready {
            layout_sha256: same("1234"),
            data_sha256: same("5678"),
            ..pb::Ready::default()
        }));
        let listening = listen(&mut hear);
        let heard = beating(&mut talk, deadlines.beat, listening).await;
        let to_worker::Body::Begin(begin) = heard else { panic!("not to begin: {heard:?}") };
        assert_eq!(begin.peers.len() as u32, self.world);
        talk.begun = Instant::now();
        let lost = tokio::spawn(async move { hear.next().await });
        self.train(&mut talk, deadlines.beat, &lost).await;
        let results_json = if self.slot == 0 { r#"{"exact": 50.0, "f1": 60.0}"# } else { "" }.into();
        talk.say(from_worker::Body::Completed(pb::Completed { results_json }));
        let Talk { say, beats, .. } = talk;
        // The coordinator closes its half when it has taken in everything.
        drop(say);
        assert!(lost.await.expect("a listener").is_none(), "the session ended in good order");
        beats
    }

    /// Beats, and progress of rank 0, until all are to end.
    async fn train(
        &self,
        talk: &mut Talk,
        every: Duration,
        lost: &JoinHandle<Option<Result<pb::ToWorker, tonic::Status>>>,
    ) {
        let mut act = self.act.clone();
        // Ranks do not beat at one moment.
        let first = tokio::time::Instant::now() + every.mul_f64(f64::from(self.slot) / f64::from(self.world));
        let mut beat = tokio::time::interval_at(first, every);
        let mut report = tokio::time::interval(REPORT_EVERY);
        loop {
            tokio::select! {
                _ = beat.tick() => talk.beat(self.slot % 2 == 1),
                _ = report.tick(), if self.slot == 0 => self.report(talk),
                changed = act.changed() => {
                    changed.expect("the test lives");
                    match *act.borrow_and_update() {
                        Act::Work => {}
                        Act::LastWord => {
                            talk.last = Some(LAST_STEP);
                            talk.beat(false);
                        }
                        Act::End => return,
                    }
                }
            }
            assert!(!lost.is_finished(), "rank {} of {} lost its session", self.slot, self.job);
        }
    }

    fn report(&self, talk: &Talk) {
        if *self.act.borrow() != Act::Work {
            return;
        }
        let done = self.sent.next(&self.job);
        let mut progress = Progress::new(Phase::Train, done, LAST_STEP);
        (progress.loss, progress.learning_rate) = (Some(1.0 / done as f64), Some(2e-5));
        (progress.grad_norm, progress.examples_per_second) = (Some(1.5), Some(420.25));
        (progress.tokens_per_second, progress.allreduce_share) = (Some(161_280.5), Some(0.125));
        talk.say(from_worker::Body::Progress((&progress).into()));
    }
}

/// The outgoing half of a worker's session.
struct Talk {
    fence: Fence,
    say: UnboundedSender<pb::FromWorker>,
    begun: Instant,
    beats: u64,
    /// The step that it stays at, once it has said its last word.
    last: Option<u64>,
}

impl Talk {
    fn say(&self, body: from_worker::Body) {
        self.say
            .send(pb::FromWorker { fence: Some((&self.fence).into()), body: Some(body) })
            .expect("a session");
    }

    /// A beat as the control thread sends it.
    fn beat(&mut self, waits: bool) {
        let step =
            self.last.unwrap_or_else(|| self.begun.elapsed().as_millis() as u64 / STEP.as_millis() as u64);
        let doing = match waits {
            true => format!("waiting for the all-reduce of stage 5 of step {step}"),
            false => format!("in backward of stage 3 of step {step}"),
        };
        self.beats += 1;
        let phase = pb::Phase::from(Phase::Train).into();
        self.say(from_worker::Body::Beat(pb::Beat { phase, done: step, doing, doing_ms: 40, waits }));
    }
}

fn attendant_says(say: &UnboundedSender<pb::FromAttendant>, body: from_attendant::Body) {
    say.send(pb::FromAttendant { body: Some(body) }).expect("a connection");
}

async fn listen(hear: &mut Streaming<pb::ToWorker>) -> to_worker::Body {
    let order = hear.next().await.expect("an order").expect("an order");
    order.body.expect("a body")
}

/// Beats while the coordinator is waited for.
async fn beating<T>(talk: &mut Talk, every: Duration, waited: impl Future<Output = T>) -> T {
    let mut waited = std::pin::pin!(waited);
    let mut beat = tokio::time::interval(every);
    loop {
        tokio::select! {
            value = &mut waited => return value,
            _ = beat.tick() => talk.beat(false),
        }
    }
}
