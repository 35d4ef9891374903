//! Results of a job whose rank 0 writes where the coordinator does not see it.

use sha2::{Digest, Sha256};
use squad_proto::pb::file_part::Part;
use squad_proto::{Fence, JobId, pb};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};

use crate::delivery::{Choice, Delivery, choose};
use crate::driver::Inbox;
use crate::job::{Event, Input};
use crate::registry::{Credentials, Registry};
use crate::store::Elsewhere;

/// Bytes of a file that count as progress.
const STRIDE: u64 = 4 << 20;

/// Longest name of a machine, as DNS has it.
const HOST: usize = 253;

/// What is answered on a file, once it is written.
pub(super) type Answers = UnboundedReceiverStream<Result<pb::Delivered, Status>>;

/// Whoever brings results: rank 0 of the present life.
struct Courier {
    registry: Registry,
    job: JobId,
    credentials: Credentials,
    fence: Fence,
    slot: u32,
    delivery: Delivery,
    /// Its task trains.
    trains: bool,
}

impl Courier {
    /// Lets rank 0 of the job's present life in.
    async fn admit(
        registry: &Registry,
        (job, credentials): (JobId, Credentials),
        fence: Option<pb::Fence>,
        slot: u32,
    ) -> Result<Self, Status> {
        let fence: Fence = fence.ok_or_else(|| Status::invalid_argument("no fence"))?.into();
        if fence.job != job {
            return Err(Status::permission_denied("a message of another job"));
        }
        let gone = || Status::unavailable("the job has ended");
        let record = registry.get(&job).ok_or_else(gone)?;
        let (admit, admitted) = oneshot::channel();
        let generation = fence.generation;
        credentials.inbox.send(Inbox::Courier { generation, slot, admit }).map_err(|_| gone())?;
        admitted.await.map_err(|_| gone())?.map_err(Status::failed_precondition)?;
        let delivery = Delivery::of(record.output_dir.as_ref(), &job);
        Ok(Self {
            registry: registry.clone(),
            trains: record.task.trains(),
            job,
            credentials,
            fence,
            slot,
            delivery,
        })
    }

    /// The job moves on.
    fn moves(&self) {
        let (generation, slot) = (self.fence.generation, self.slot);
        let event = Event::Worker { generation, slot, input: Input::Delivers };
        // The receiver is gone only when the job has ended.
        self.credentials.inbox.send(Inbox::Event(event)).ok();
    }

    fn cannot(&self, error: &std::io::Error) -> Status {
        Status::internal(format!("the coordinator cannot write into {}: {error}", self.delivery.folder()))
    }
}

/// Runs what blocks on a file where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// Answers which of a worker's results are wanted.
pub(super) async fn offer(
    registry: &Registry,
    admitted: (JobId, Credentials),
    offer: pb::OfferRequest,
) -> Result<pb::OfferReply, Status> {
    let courier = Courier::admit(registry, admitted, offer.fence, offer.slot).await?;
    let (delivery, mark) = (courier.delivery.clone(), offer.mark);
    if blocking(move || Ok(delivery.sees(&mark))).await.map_err(|error| courier.cannot(&error))? {
        return Ok(pb::OfferReply { seen: true, ..Default::default() });
    }
    let files: Vec<(String, u64)> = offer.files.into_iter().map(|file| (file.name, file.bytes)).collect();
    let Choice { wanted, reason } = choose(&files, registry.config().limits.results_bytes);
    let delivery = courier.delivery.clone();
    blocking(move || delivery.begin()).await.map_err(|error| courier.cannot(&error))?;
    let host = offer.host.chars().filter(|c| !c.is_control()).take(HOST).collect();
    registry.elsewhere(&courier.job, Elsewhere { host, brought: Vec::new() });
    Ok(pb::OfferReply { seen: false, wanted, reason })
}

/// Takes one file in; the answer comes once it is whole.
pub(super) async fn deliver(
    registry: &Registry,
    admitted: (JobId, Credentials),
    mut incoming: Streaming<pb::FilePart>,
) -> Result<Answers, Status> {
    let first = incoming.next().await.ok_or_else(|| Status::invalid_argument("no file"))??;
    let Some(Part::Head(head)) = first.part else {
        return Err(Status::invalid_argument("a file begins with its head"));
    };
    let courier = Courier::admit(registry, admitted, head.fence, head.slot).await?;
    let (answer, answers) = unbounded_channel();
    tokio::spawn(async move {
        let taken = take_in(&courier, (head.name, head.bytes), incoming).await;
        // Who has hung up asks again.
        answer.send(taken.map(|()| pb::Delivered {})).ok();
    });
    Ok(UnboundedReceiverStream::new(answers))
}

async fn take_in(
    courier: &Courier,
    (name, bytes): (String, u64),
    mut incoming: Streaming<pb::FilePart>,
) -> Result<(), Status> {
    let (delivery, of) = (courier.delivery.clone(), name.clone());
    let (file, before) = blocking(move || delivery.create(&of)).await.map_err(|e| courier.cannot(&e))?;
    let most = courier.registry.config().limits.results_bytes;
    if before.saturating_add(bytes) > most {
        let sentence = format!("{name} would make more than {most} bytes of results (--max-results)");
        return Err(Status::resource_exhausted(sentence));
    }
    let mut file = tokio::fs::File::from_std(file);
    let (mut hash, mut written, mut told) = (Sha256::new(), 0_u64, 0_u64);
    while let Some(part) = incoming.next().await {
        match part?.part {
            Some(Part::Data(data)) => {
                written += data.len() as u64;
                if written > bytes {
                    return Err(Status::invalid_argument(format!("{name} has more than its {bytes} bytes")));
                }
                hash.update(&data);
                file.write_all(&data).await.map_err(|e| courier.cannot(&e))?;
                if written - told >= STRIDE {
                    told = written;
                    courier.moves();
                }
            }
            Some(Part::End(end)) => {
                if written != bytes || hex::encode(hash.finalize()) != end.sha256 {
                    return Err(Status::data_loss(format!("{name} did not arrive as it was sent")));
                }
                file.sync_all().await.map_err(|e| courier.cannot(&e))?;
                courier.moves();
                return if end.last { install(courier).await } else { Ok(()) };
            }
            Some(Part::Head(_)) | None => {
                return Err(Status::invalid_argument("a file has one head, its bytes and its end"));
            }
        }
    }
    Err(Status::data_loss(format!("{name} ended in the middle")))
}

/// All has come.
async fn install(courier: &Courier) -> Result<(), Status> {
    let (delivery, trains) = (courier.delivery.clone(), courier.trains);
    let brought = blocking(move || delivery.install(trains)).await.map_err(|e| courier.cannot(&e))?;
    courier.registry.brought(&courier.job, brought);
    Ok(())
}
