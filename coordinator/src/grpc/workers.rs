//! Workers' sessions. A worker shows the token of its job before anything else; it opens that job's session only.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use squad_proto::pb::from_worker::Body;
use squad_proto::{FailureReport, Fence, JobId, connect, pb};
use subtle::ConstantTimeEq as _;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{attend, deliver};
use crate::door::Peer;
use crate::driver::{Inbox, Seat};
use crate::job::{Doing, Event, Having, Held, Input};
use crate::metrics::Reason;
use crate::registry::{Credentials, Registry};

/// Numbers sessions, so that the end of one is not taken for that of the next.
static SESSIONS: AtomicU64 = AtomicU64::new(0);

/// The service of workers.
pub(crate) struct WorkersService {
    pub(crate) registry: Registry,
}

impl WorkersService {
    /// The job whose token the request carries. Who has another learns nothing of what jobs there are.
    fn job_of<T>(&self, request: &Request<T>) -> Option<(JobId, Credentials)> {
        let (job, token) = connect::shown_by_worker(request)?;
        let job = JobId(job.to_owned());
        let credentials = self.registry.credentials(&job)?;
        let right: bool = credentials.token.as_bytes().ct_eq(token.as_bytes()).into();
        right.then_some((job, credentials))
    }

    /// The same, or a refusal that is counted.
    fn admit<T>(&self, request: &Request<T>) -> Result<(JobId, Credentials), Box<Status>> {
        let peer = request.extensions().get::<Peer>();
        let Some(admitted) = self.job_of(request) else {
            self.registry.metrics().refusals().count(Reason::Worker);
            if let Some(peer) = peer {
                tracing::warn!("refused {}: a worker without the token of its job", peer.address);
            }
            return Err(Box::new(Status::permission_denied("no such job, or another token")));
        };
        if let Some(peer) = peer {
            peer.trust();
        }
        Ok(admitted)
    }
}

#[tonic::async_trait]
impl pb::workers_server::Workers for WorkersService {
    type SessionStream = UnboundedReceiverStream<Result<pb::ToWorker, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<pb::FromWorker>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (job, credentials) = self.admit(&request).map_err(|status| *status)?;
        let mut incoming = request.into_inner();
        let first = incoming.next().await.ok_or_else(|| Status::invalid_argument("no hello"))??;
        let fence: Fence = first.fence.ok_or_else(|| Status::invalid_argument("no fence"))?.into();
        let Some(Body::Hello(hello)) = first.body else {
            return Err(Status::invalid_argument("a session begins with hello"));
        };
        #[allow(clippy::result_large_err, reason = "tonic's own error type")]
        let gone = || Status::unavailable("the job has ended");
        if fence.job != job {
            return Err(Status::permission_denied("a message of another job"));
        }
        let (outbound, answers) = unbounded_channel();
        let (generation, slot, inbox) = (fence.generation, hello.slot, credentials.inbox);
        let (admit, admitted) = oneshot::channel();
        let number = SESSIONS.fetch_add(1, Ordering::Relaxed);
        let (seat, rejoins) = (Seat { number, outbound: Some(outbound) }, hello.rejoins);
        inbox.send(Inbox::Session { generation, slot, seat, rejoins, admit }).map_err(|_| gone())?;
        // Nothing that it says is passed on before the driver has let it in.
        admitted.await.map_err(|_| gone())?.map_err(|why| {
            self.registry.metrics().refusals().count(Reason::Worker);
            Status::failed_precondition(why)
        })?;
        let closed = inbox.clone();
        let tell =
            move |input| inbox.send(Inbox::Event(Event::Worker { generation, slot, input })).map_err(drop);
        tell(Input::Hello { ring: hello.ring_address }).map_err(|()| gone())?;
        tokio::spawn(async move {
            while let Some(Ok(message)) = incoming.next().await {
                if message.fence.map(Fence::from).as_ref() != Some(&fence) {
                    continue;
                }
                let Some(body) = message.body else { continue };
                let doing = doing_of(&body).map(Input::Doing);
                for input in doing.into_iter().chain(input_of(body)) {
                    if tell(input).is_err() {
                        return;
                    }
                }
            }
            // The job may have ended meanwhile.
            closed.send(Inbox::SessionClosed { generation, slot, number }).ok();
        });
        Ok(Response::new(UnboundedReceiverStream::new(answers)))
    }

    type AttendStream = UnboundedReceiverStream<Result<pb::ToAttendant, Status>>;

    async fn attend(
        &self,
        request: Request<Streaming<pb::FromAttendant>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        let admitted = self.admit(&request).map_err(|status| *status)?;
        attend::attend(&self.registry, admitted, request.into_inner()).await
    }

    async fn offer(&self, request: Request<pb::OfferRequest>) -> Result<Response<pb::OfferReply>, Status> {
        let admitted = self.admit(&request).map_err(|status| *status)?;
        Ok(Response::new(deliver::offer(&self.registry, admitted, request.into_inner()).await?))
    }

    type DeliverStream = deliver::Answers;

    async fn deliver(
        &self,
        request: Request<Streaming<pb::FilePart>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let admitted = self.admit(&request).map_err(|status| *status)?;
        Ok(Response::new(deliver::deliver(&self.registry, admitted, request.into_inner()).await?))
    }
}

/// What a beat says that the worker does.
fn doing_of(body: &Body) -> Option<Doing> {
    let Body::Beat(beat) = body else { return None };
    let lasts = Duration::from_millis(beat.doing_ms);
    (!beat.doing.is_empty()).then(|| Doing { what: beat.doing.clone(), lasts, waits: beat.waits })
}

/// What a message means to the machine; `None` for those that mean nothing.
fn input_of(body: Body) -> Option<Input> {
    Some(match body {
        Body::Hello(_) => return None,
        Body::Ready(ready) => {
            let held = ready.held.map(|held| Held { step: held.step, identity: held.identity });
            Input::Ready(Having {
                layout: ready.layout_sha256,
                data: ready.data_sha256,
                evaluated: ready.start,
                held,
                weights: ready.weights_sha256,
                contents: ready.contents.into_iter().map(|one| (one.what, one.sha256)).collect(),
            })
        }
        Body::Progress(progress) => Input::Progress(progress.try_into().ok()?),
        Body::Note(note) if note.alone => Input::OwnNote(note.text),
        Body::Note(note) => Input::Note(note.text),
        Body::Failure(report) => Input::Failure(FailureReport::from(report)),
        Body::Completed(done) => Input::Completed(serde_json::from_str(&done.results_json).ok()),
        Body::Stopped(stopped) => Input::Stopped(stopped.step),
        Body::Beat(beat) => Input::Beat { phase: beat.phase().try_into().ok()?, done: beat.done },
    })
}
