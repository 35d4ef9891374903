//! Attendants: who starts workers where the coordinator cannot.

use squad_proto::pb::from_attendant::Body;
use squad_proto::{Generation, JobId, OutOfMemory, pb};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Response, Status, Streaming};

use crate::driver::Inbox;
use crate::job::{Event, Exit, Input};
use crate::launch::{Attendant, Sink, ended};
use crate::registry::{Credentials, Registry};

type Answers = UnboundedReceiverStream<Result<pb::ToAttendant, Status>>;

/// Lets an attendant in, which has shown its job's token, and passes on what it says.
pub(super) async fn attend(
    registry: &Registry,
    (id, credentials): (JobId, Credentials),
    mut incoming: Streaming<pb::FromAttendant>,
) -> Result<Response<Answers>, Status> {
    let first = incoming.next().await.ok_or_else(|| Status::invalid_argument("nobody enlists"))??;
    let Some(Body::Enlist(enlist)) = first.body else {
        return Err(Status::invalid_argument("an attendant enlists first"));
    };
    let (outbound, answers) = unbounded_channel();
    let answers = Response::new(UnboundedReceiverStream::new(answers));
    let final_state = || {
        let record = registry.get(&id).filter(|record| record.state.is_final())?;
        Some(pb::ToAttendant { body: Some(ended(record.state, &record.reason)) })
    };
    let (slot, world, instance) = (enlist.slot, enlist.world, enlist.instance.clone());
    let attendant = Attendant {
        instance: enlist.instance,
        host: enlist.host,
        pid: enlist.pid,
        local_rank: enlist.local_rank,
        running: enlist.running.map(Generation),
        outbound: outbound.clone(),
    };
    let inbox = credentials.inbox;
    let (admit, admitted) = oneshot::channel();
    let sent = inbox.send(Inbox::Enlist { slot, world, attendant, admit }).is_ok();
    let admitted = if sent { admitted.await.ok() } else { None };
    match (admitted, final_state()) {
        (Some(answer), None) => {
            let sink = answer?;
            tokio::spawn(listen(incoming, (slot, instance), inbox, sink));
        }
        // The job came to its end before, or meanwhile: it may not have been told by its driver.
        (_, Some(end)) => drop(outbound.send(Ok(end))),
        (None, None) => return Err(Status::unavailable("the job is ending; ask again")),
    }
    Ok(answers)
}

/// Passes on all that an attendant says, until it says no more.
async fn listen(
    mut incoming: Streaming<pb::FromAttendant>,
    (slot, instance): (u32, String),
    inbox: UnboundedSender<Inbox>,
    sink: Sink,
) {
    while let Some(Ok(message)) = incoming.next().await {
        let (generation, input) = match message.body {
            Some(Body::Exited(end)) => {
                let starved = end.out_of_memory.map(|cause| OutOfMemory { limit: cause.limit_bytes });
                let exit = match (end.code, end.signal, starved) {
                    (Some(code), ..) => Exit::Code(code),
                    (None, Some(_), Some(cause)) => Exit::OutOfMemory(cause),
                    (None, Some(signal), None) => Exit::Signal(signal),
                    (None, None, _) => Exit::Code(-1),
                };
                (end.generation, Input::Exited(exit, end.stderr_tail))
            }
            Some(Body::NotStarted(fault)) => (fault.generation, Input::LaunchFailed(fault.reason)),
            Some(Body::Output(output)) => {
                sink.lines(&output.lines);
                continue;
            }
            Some(Body::Enlist(_)) | None => continue,
        };
        let event = Event::Worker { generation: Generation(generation), slot, input };
        if inbox.send(Inbox::Event(event)).is_err() {
            return;
        }
    }
    // The job may have ended meanwhile.
    inbox.send(Inbox::AttendantGone { slot, instance }).ok();
}
