//! The control thread: one two-way session with the coordinator.

use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anyhow::Context;
use squad_proto::connect::{Trust, as_worker, endpoint};
use squad_proto::pb::from_worker::Body as Say;
use squad_proto::pb::to_worker::Body as Hear;
use squad_proto::{Deadlines, FailureReport, Fence, Ticket, pb};
use squad_train::run::Outcome;
use squad_train::{Origin, StopSignal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::Interval;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

use crate::control::{Begin, FromCompute, Place};
use crate::deliver::deliver;
use crate::progress::Position;

/// How the process should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Completed, or stopped when asked to.
    Well,
    /// Failed.
    Badly,
}

/// What the control thread has.
pub(crate) struct Session {
    /// Who it is and what to do.
    pub(crate) ticket: Ticket,
    /// Where its ring listens.
    pub(crate) ring_address: SocketAddr,
    /// The compute thread's wish to stop.
    pub(crate) stop: StopSignal,
    /// Where the compute thread is.
    pub(crate) position: Position,
    /// Tells the compute thread who it is.
    pub(crate) place: Sender<Place>,
    /// Tells the compute thread to begin.
    pub(crate) begin: Sender<Begin>,
}

/// Runs the session until the task has ended, the coordinator is gone, or a stop was obeyed.
///
/// # Errors
/// When the coordinator cannot be reached, or says something that makes no sense.
pub(crate) async fn run(
    session: Session,
    mut from_compute: UnboundedReceiver<FromCompute>,
    mut lifeline: oneshot::Receiver<()>,
) -> anyhow::Result<Ended> {
    let deadlines = Deadlines::from_patience(session.ticket.patience());
    let mut talk =
        Talk { fence: session.ticket.fence(), say: None, position: session.position.clone(), rank: None };
    let mut hear = tokio::select! {
        reached = reach(&session, &mut talk, false, deadlines.hello) => reached?,
        _ = &mut lifeline => {
            tracing::error!("the launcher is gone");
            return Ok(Ended::Badly);
        }
    };
    let mut beat = tokio::time::interval(deadlines.beat);
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut begun = false;
    loop {
        tokio::select! {
            message = hear.next() => {
                let Some(Ok(message)) = message else {
                    tracing::error!("the coordinator closed the session");
                    if !begun {
                        return Ok(Ended::Badly);
                    }
                    if let Some(again) = rejoin(&session, &mut talk, &mut lifeline).await {
                        hear = again;
                        continue;
                    }
                    return Ok(give_up(&session, &mut from_compute, deadlines.stop_grace).await);
                };
                if message.fence.map(Fence::from).as_ref() != Some(&talk.fence) {
                    continue;
                }
                match message.body {
                    Some(Hear::Assign(assign)) => {
                        talk.rank = Some(assign.rank);
                        session.place.send(Place { rank: assign.rank, world: assign.world, local_rank: assign.local_rank }).context("compute thread")?;
                    }
                    Some(Hear::Begin(order)) => {
                        session.begin.send(begin_of(order)?).context("compute thread")?;
                        begun = true;
                    }
                    Some(Hear::Stop(stop)) => {
                        tracing::info!("asked to stop: {}", stop.reason);
                        session.stop.set();
                        if !begun {
                            return Ok(leave_early(talk, hear, deadlines.farewell).await);
                        }
                    }
                    None => {}
                }
            }
            event = from_compute.recv() => {
                if let Some((last, ended)) = talk.pass_on(event.context("the compute thread ended without a word")?) {
                    if !session.hand_over(&talk, &last, &mut beat, &mut lifeline).await {
                        tracing::error!("the launcher is gone");
                        return Ok(Ended::Badly);
                    }
                    return Ok(session.farewell(talk, hear, (last, ended), &mut lifeline).await);
                }
            }
            _ = beat.tick() => {
                talk.beat();
            }
            _ = terminate.recv() => {
                tracing::info!("asked to stop by SIGTERM");
                // This rank's vote: all stop after the same step, with a checkpoint.
                session.stop.set();
                if !begun {
                    return Ok(leave_early(talk, hear, deadlines.farewell).await);
                }
            }
            _ = &mut lifeline => {
                tracing::error!("the launcher is gone");
                if !begun {
                    return Ok(Ended::Badly);
                }
                return Ok(give_up(&session, &mut from_compute, deadlines.stop_grace).await);
            }
        }
    }
}

impl Session {
    fn hello(&self, rejoins: bool) -> pb::Hello {
        pb::Hello {
            slot: self.ticket.slot,
            pid: std::process::id(),
            host: nix::unistd::gethostname().map(|h| h.to_string_lossy().into_owned()).unwrap_or_default(),
            ring_address: self.ring_address.to_string(),
            rejoins,
        }
    }

    /// Brings results to a coordinator that does not see them, before they are called complete. It hears meanwhile that
    /// this worker lives. False when the launcher is gone.
    async fn hand_over(
        &self,
        talk: &Talk,
        last: &Say,
        beat: &mut Interval,
        lifeline: &mut oneshot::Receiver<()>,
    ) -> bool {
        // Only rank 0 has results.
        if !matches!(last, Say::Completed(completed) if !completed.results_json.is_empty()) {
            return true;
        }
        let mut delivering = std::pin::pin!(deliver(&self.ticket));
        loop {
            tokio::select! {
                said = &mut delivering => {
                    if let Some(text) = said {
                        tracing::info!("{text}");
                        talk.say(Say::Note(pb::Note { rank: talk.rank, text, alone: true }));
                    }
                    return true;
                }
                _ = beat.tick() => talk.beat(),
                _ = &mut *lifeline => return false,
            }
        }
    }

    /// Says the last of it and ends the session. Where the connection breaks before all was taken in, a worker with an
    /// attendant comes back and says it again.
    async fn farewell(
        &self,
        mut talk: Talk,
        mut hear: Streaming<pb::ToWorker>,
        (last, ended): (Say, Ended),
        lifeline: &mut oneshot::Receiver<()>,
    ) -> Ended {
        let farewell = Deadlines::from_patience(self.ticket.patience()).farewell;
        loop {
            talk.say(last.clone());
            talk.end();
            if drained(&mut hear, farewell).await {
                return ended;
            }
            match rejoin(self, &mut talk, lifeline).await {
                Some(again) => hear = again,
                None => return ended,
            }
        }
    }
}

fn begin_of(order: pb::Begin) -> anyhow::Result<Begin> {
    let peers = order.peers.iter().map(|p| p.parse()).collect::<Result<_, _>>();
    Ok(Begin { peers: peers.context("ring addresses")?, origin: origin(order.origin) })
}

/// Where training goes on from, as the coordinator says it.
fn origin(said: Option<pb::Origin>) -> Option<Origin> {
    let pb::Origin { checkpoint, holder } = said?;
    let pb::HeldCheckpoint { step, identity } = checkpoint?;
    Some(Origin { step, identity, holder: holder as usize })
}

/// Comes back to a coordinator whose connection broke, while the compute thread goes on: the ring needs no
/// coordinator. `None` for a worker without an attendant, when the coordinator knows this life no more, and when patience
/// has run out.
async fn rejoin(
    session: &Session,
    talk: &mut Talk,
    lifeline: &mut oneshot::Receiver<()>,
) -> Option<Streaming<pb::ToWorker>> {
    if !session.ticket.attended {
        return None;
    }
    let patience = Deadlines::from_patience(session.ticket.patience()).collective;
    tokio::select! {
        reached = reach(session, talk, true, patience) => match reached {
            Ok(hear) => Some(hear),
            Err(error) => {
                tracing::info!("{error:#}");
                None
            }
        },
        // The attendant has been told that this life is over, or is gone itself.
        _ = lifeline => None,
    }
}

/// Opens a session, again and again until `patience` has run out: one lost packet must not cost a life.
///
/// # Errors
/// When the coordinator refuses, or does not answer in time.
async fn reach(
    session: &Session,
    talk: &mut Talk,
    rejoins: bool,
    patience: Duration,
) -> anyhow::Result<Streaming<pb::ToWorker>> {
    let deadlines = Deadlines::from_patience(session.ticket.patience());
    let begun = Instant::now();
    loop {
        let (say, outbound) = unbounded_channel();
        talk.say = Some(say);
        // The coordinator answers a session only once it has heard hello, which therefore waits in the channel.
        talk.say(Say::Hello(session.hello(rejoins)));
        let left = patience.saturating_sub(begun.elapsed());
        match open(&session.ticket, outbound, left).await {
            Ok(hear) => return Ok(hear),
            Err(error) if is_refusal(&error) || begun.elapsed() + deadlines.retry >= patience => {
                return Err(error);
            }
            Err(error) => tracing::debug!("{error:#}; trying again"),
        }
        tokio::time::sleep(deadlines.retry).await;
    }
}

/// Whether the coordinator has no place for this worker any more, such as one that came back without knowing its life.
fn is_refusal(error: &anyhow::Error) -> bool {
    use tonic::Code;
    let code = error.downcast_ref::<tonic::Status>().map(tonic::Status::code);
    matches!(
        code,
        Some(
            Code::FailedPrecondition
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::InvalidArgument
                | Code::Unimplemented
        )
    )
}

/// A connection to a coordinator.
///
/// # Errors
/// When nobody answers at that address.
pub(crate) async fn channel(
    server: &str,
    trust: &Trust,
    deadlines: &Deadlines,
) -> anyhow::Result<tonic::transport::Channel> {
    // A machine that is cut off says nothing: it is asked.
    let endpoint = endpoint(server, trust)?
        .connect_timeout(deadlines.connect)
        .http2_keep_alive_interval(deadlines.keep_alive)
        .keep_alive_timeout(deadlines.keep_alive);
    Ok(endpoint.connect().await?)
}

async fn open(
    ticket: &Ticket,
    outbound: UnboundedReceiver<pb::FromWorker>,
    patience: Duration,
) -> anyhow::Result<Streaming<pb::ToWorker>> {
    let connect = async {
        let trust = Trust { certificates: ticket.certificates.clone(), identity: None };
        let deadlines = Deadlines::from_patience(ticket.patience());
        let channel = channel(&ticket.server, &trust, &deadlines).await?;
        let mut client = pb::workers_client::WorkersClient::new(channel);
        let call = as_worker(UnboundedReceiverStream::new(outbound), &ticket.job, &ticket.token)?;
        let answer = client.session(call).await?;
        anyhow::Ok(answer.into_inner())
    };
    tokio::time::timeout(patience, connect)
        .await
        .map_err(|_| anyhow::anyhow!("no answer within {patience:?}"))
        .flatten()
        .with_context(|| format!("cannot reach the coordinator at {}", ticket.server))
}

/// Without a coordinator nobody would see the results: asks the compute thread to stop, and waits a while
/// for it to leave complete files behind.
async fn give_up(
    session: &Session,
    from_compute: &mut UnboundedReceiver<FromCompute>,
    grace: Duration,
) -> Ended {
    session.stop.set();
    let finished = async {
        while let Some(event) = from_compute.recv().await {
            if matches!(event, FromCompute::Finished(_)) {
                break;
            }
        }
    };
    if tokio::time::timeout(grace, finished).await.is_err() {
        tracing::warn!("ending in the middle of a step");
    }
    Ended::Badly
}

/// Ends before training has begun: loading cannot be interrupted, and nothing of it needs to be kept.
async fn leave_early(talk: Talk, hear: Streaming<pb::ToWorker>, farewell: Duration) -> Ended {
    talk.say(Say::Stopped(pb::Stopped { step: 0 }));
    close(talk, hear, farewell).await
}

/// Ends this side of the session and waits until the coordinator has taken in everything.
async fn close(mut talk: Talk, mut hear: Streaming<pb::ToWorker>, farewell: Duration) -> Ended {
    talk.end();
    drained(&mut hear, farewell).await;
    Ended::Well
}

/// Waits until the coordinator has taken in everything; false when the connection broke before.
async fn drained(hear: &mut Streaming<pb::ToWorker>, farewell: Duration) -> bool {
    let drained = async {
        loop {
            match hear.next().await {
                None => return true,
                Some(Ok(_)) => {}
                Some(Err(_)) => return false,
            }
        }
    };
    match tokio::time::timeout(farewell, drained).await {
        Ok(whole) => whole,
        Err(_) => {
            tracing::warn!("the coordinator did not close the session");
            true
        }
    }
}

/// The outgoing half of the session.
struct Talk {
    fence: Fence,
    /// Nothing once this side has said its last.
    say: Option<UnboundedSender<pb::FromWorker>>,
    position: Position,
    rank: Option<u32>,
}

impl Talk {
    fn say(&self, body: Say) {
        if let Some(say) = &self.say {
            // A closed session is noticed where it is read.
            say.send(pb::FromWorker { fence: Some((&self.fence).into()), body: Some(body) }).ok();
        }
    }

    fn beat(&self) {
        let (phase, done) = self.position.get();
        let (doing, doing_ms, waits) = match self.position.doing() {
            Some((doing, since)) => (doing.to_string(), since.as_millis() as u64, doing.activity.waits()),
            None => (String::new(), 0, false),
        };
        self.say(Say::Beat(pb::Beat { phase: pb::Phase::from(phase).into(), done, doing, doing_ms, waits }));
    }

    fn end(&mut self) {
        self.say = None;
    }

    /// Passes on what the compute thread says; if that is the last of it, gives what is to be said and how the process
    /// should end.
    fn pass_on(&self, event: FromCompute) -> Option<(Say, Ended)> {
        match event {
            FromCompute::Ready { layout, data, evaluated, held, contents } => {
                let content = |(what, sha256)| pb::Content { what, sha256 };
                self.say(Say::Ready(pb::Ready {
                    layout_sha256: layout,
                    data_sha256: data,
                    start: evaluated,
                    held: held.map(|(step, identity)| pb::HeldCheckpoint { step, identity }),
                    weights_sha256: contents.weights,
                    contents: contents.files.into_iter().map(content).collect(),
                }));
            }
            FromCompute::Progress(progress) => self.say(Say::Progress((&progress).into())),
            FromCompute::Note(text) => self.say(Say::Note(pb::Note { rank: self.rank, text, alone: false })),
            FromCompute::OwnNote(text) => {
                self.say(Say::Note(pb::Note { rank: self.rank, text, alone: true }))
            }
            FromCompute::Finished(outcome) => return Some(self.finish(outcome)),
        }
        None
    }

    fn finish(&self, outcome: Result<Outcome, FailureReport>) -> (Say, Ended) {
        match outcome {
            Ok(Outcome::Completed(results)) => {
                let results_json = results.map(|r| r.to_string()).unwrap_or_default();
                (Say::Completed(pb::Completed { results_json }), Ended::Well)
            }
            Ok(Outcome::Stopped(step)) => (Say::Stopped(pb::Stopped { step }), Ended::Well),
            Err(mut report) => {
                let (phase, done) = self.position.get();
                report.rank = self.rank;
                report.phase = Some(phase);
                report.step = (phase == squad_proto::Phase::Train).then_some(done);
                tracing::error!("{report}");
                (Say::Failure((&report).into()), Ended::Badly)
            }
        }
    }
}
