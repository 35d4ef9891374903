//! Brings the results to a coordinator that does not see this machine's output folder.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use sha2::{Digest, Sha256};
use squad_proto::connect::{Trust, as_worker};
use squad_proto::outputs::{deliverable, is_of_model};
use squad_proto::pb::file_part::Part;
use squad_proto::pb::workers_client::WorkersClient;
use squad_proto::{Deadlines, Ticket, pb};
use squad_train::storage::{Mark, host};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

use crate::session;

/// Bytes that travel at once.
const CHUNK: usize = 256 << 10;
/// Chunks that are read ahead.
const AHEAD: usize = 4;

/// Brings what the coordinator lacks; gives what is worth saying of it: nothing where it sees the output folder. Tries
/// again within patience where the connection breaks. The results are whole here whatever comes of it.
pub(crate) async fn deliver(ticket: &Ticket) -> Option<String> {
    let Deadlines { collective: patience, retry, .. } = Deadlines::from_patience(ticket.patience());
    let mut broken_since = None;
    loop {
        let error = match attempt(ticket).await {
            Ok(said) => return said,
            Err(error) => error,
        };
        let since = *broken_since.get_or_insert_with(tokio::time::Instant::now);
        if !may_pass(&error) || since.elapsed() > patience {
            let (output, host) = (ticket.output_dir(), host());
            return Some(format!(
                "the results stay on {host} in {}: they could not be brought to the coordinator: {error:#}",
                output.display()
            ));
        }
        tracing::debug!("{error:#}; trying again");
        tokio::time::sleep(retry).await;
    }
}

/// Whether another attempt may go better.
fn may_pass(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<tonic::Status>().map(tonic::Status::code);
    match code {
        Some(code) => matches!(code, Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DataLoss),
        None => !error.is::<std::io::Error>() && !error.is::<squad_train::TrainError>(),
    }
}

async fn attempt(ticket: &Ticket) -> anyhow::Result<Option<String>> {
    let output = ticket.output_dir();
    let trust = Trust { certificates: ticket.certificates.clone(), identity: None };
    let deadlines = Deadlines::from_patience(ticket.patience());
    let mut client = WorkersClient::new(session::channel(&ticket.server, &trust, &deadlines).await?);
    let mark = Mark::leave(&output).context("no mark can be left")?;
    let files = deliverable().into_iter().filter_map(|name| {
        let about = std::fs::metadata(output.join(&name)).ok().filter(std::fs::Metadata::is_file)?;
        Some(pb::OfferedFile { bytes: about.len(), name })
    });
    let offer = pb::OfferRequest {
        fence: Some((&ticket.fence()).into()),
        slot: ticket.slot,
        mark: mark.token().to_owned(),
        files: files.collect(),
        host: host(),
    };
    let reply = client.offer(as_worker(offer.clone(), &ticket.job, &ticket.token)?).await?.into_inner();
    if reply.seen {
        return Ok(None);
    }
    for (turn, name) in reply.wanted.iter().enumerate() {
        let offered = offer.files.iter().find(|file| file.name == *name);
        let bytes = offered.with_context(|| format!("the coordinator wants {name:?}"))?.bytes;
        let last = turn + 1 == reply.wanted.len();
        send(&mut client, ticket, (name, bytes, last)).await?;
    }
    Ok(Some(told(&reply, &output)))
}

/// What was brought, and what stays.
fn told(reply: &pb::OfferReply, output: &Path) -> String {
    let here = format!("{} on {}", output.display(), host());
    let model = reply.wanted.iter().any(|name| is_of_model(name));
    let mut text = match (reply.wanted.is_empty(), model) {
        (true, _) => format!("the results stay in {here}"),
        (false, true) => {
            format!("results and model were brought to the coordinator; checkpoints stay in {here}")
        }
        (false, false) => {
            format!("the results were brought to the coordinator; everything else stays in {here}")
        }
    };
    if !reply.reason.is_empty() {
        text += &format!(": {}", reply.reason);
    }
    text
}

/// Sends one file, and waits until it is written.
async fn send(
    client: &mut WorkersClient<Channel>,
    ticket: &Ticket,
    (name, bytes, last): (&str, u64, bool),
) -> anyhow::Result<()> {
    let path = ticket.output_dir().join(name);
    let (parts, outbound) = channel(AHEAD);
    let head = pb::FileHead {
        fence: Some((&ticket.fence()).into()),
        slot: ticket.slot,
        name: name.to_owned(),
        bytes,
    };
    let reading = tokio::task::spawn_blocking(move || read(&path, head, last, &parts));
    let call = as_worker(ReceiverStream::new(outbound), &ticket.job, &ticket.token)?;
    let mut answers = client.deliver(call).await?.into_inner();
    let answer = answers.message().await;
    // A file that cannot be read is told before the coordinator's complaint about its missing end.
    reading.await.context("reading")?.with_context(|| format!("{name} cannot be read"))?;
    answer?.context("the coordinator did not say that it has the file")?;
    Ok(())
}

/// Reads a file as parts. A receiver that is gone is no error: it says why elsewhere.
fn read(path: &Path, head: pb::FileHead, last: bool, parts: &Sender<pb::FilePart>) -> std::io::Result<()> {
    let say = |part| parts.blocking_send(pb::FilePart { part: Some(part) }).is_ok();
    let mut left = head.bytes;
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    if !say(Part::Head(head)) {
        return Ok(());
    }
    while left > 0 {
        let mut data = vec![0; (CHUNK as u64).min(left) as usize];
        file.read_exact(&mut data)?;
        hash.update(&data);
        left -= data.len() as u64;
        if !say(Part::Data(data)) {
            return Ok(());
        }
    }
    say(Part::End(pb::FileEnd { sha256: hex::encode(hash.finalize()), last }));
    Ok(())
}
