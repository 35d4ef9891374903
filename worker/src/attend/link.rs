//! From a ticket file to a connection with the coordinator, again and again where it must be.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use squad_proto::connect::{Trust, as_worker};
use squad_proto::pb::from_attendant::Body as Say;
use squad_proto::{Deadlines, Generation, Invitation, Ticket, pb};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming};

use super::attendant::{Slot, deadlines};
use super::invitation;

/// A connection that the coordinator has accepted.
pub(crate) struct Link {
    /// To it.
    pub(crate) say: UnboundedSender<pb::FromAttendant>,
    /// From it.
    pub(crate) hear: Streaming<pb::ToAttendant>,
}

/// Where a job is found.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The ticket file.
    pub(crate) path: PathBuf,
    /// The coordinator's address, in place of the ticket's.
    pub(crate) server: Option<String>,
    /// The file may come, or be replaced: somebody else of this launch writes it.
    pub(crate) awaited: bool,
    /// How long the first connection may take.
    pub(crate) wait: Duration,
    /// Tells this process from any other.
    pub(crate) instance: String,
    /// The ticket that the coordinator took.
    pub(crate) known: Option<Invitation>,
}

/// A refusal.
enum Refusal {
    /// It may be another one later.
    Passing(anyhow::Error),
    /// Somebody else has the slot.
    Taken(anyhow::Error),
    /// It stays.
    Lasting(anyhow::Error),
}

impl Source {
    /// The job's deadlines.
    pub(crate) fn deadlines(&self) -> Deadlines {
        deadlines(self.known.as_ref().map(|known| known.patience_s))
    }

    /// A worker's ticket with what only this side knows.
    pub(crate) fn complete(&self, ticket: Ticket, threads: usize) -> Ticket {
        let Some(known) = &self.known else { return ticket };
        Ticket {
            // As it is reached from here.
            server: self.server.clone().unwrap_or_else(|| known.server.clone()),
            certificates: known.certificates.clone(),
            token: known.token.clone(),
            threads,
            ..ticket
        }
    }

    /// Connects, and enlists for the slot.
    ///
    /// # Errors
    /// When the coordinator refuses for good, or does not answer in time.
    pub(crate) async fn connect(&mut self, slot: &Slot, running: Option<Generation>) -> anyhow::Result<Link> {
        let begun = Instant::now();
        let first = self.known.is_none();
        loop {
            let (error, patience) = match self.attempt(slot, running).await {
                Ok(link) => return Ok(link),
                Err(Refusal::Lasting(error)) => return Err(error),
                Err(Refusal::Taken(error)) => (error, self.deadlines().gather),
                Err(Refusal::Passing(error)) if first => (error, self.wait),
                Err(Refusal::Passing(error)) => (error, self.deadlines().collective),
            };
            if begun.elapsed() >= patience {
                return Err(error.context(format!("gave up after {} s", begun.elapsed().as_secs())));
            }
            tracing::debug!("{error:#}; trying again");
            tokio::time::sleep(self.deadlines().retry).await;
        }
    }

    async fn attempt(&mut self, slot: &Slot, running: Option<Generation>) -> Result<Link, Refusal> {
        let invitation = match &self.known {
            Some(known) => known.clone(),
            None => invitation::read(&self.path).map_err(|error| match error.may_pass() && self.awaited {
                true => Refusal::Passing(error.into()),
                false => Refusal::Lasting(error.into()),
            })?,
        };
        if invitation.world != slot.world {
            let (ours, theirs) = (slot.world, invitation.world);
            let mismatch = anyhow::anyhow!(
                "the ticket is for {theirs} workers, but the launcher started {ours}; start {theirs}, or make the \
                 job with -np {ours}"
            );
            return Err(Refusal::Lasting(mismatch));
        }
        let server = self.server.clone().unwrap_or_else(|| invitation.server.clone());
        let (say, outbound) = unbounded_channel();
        let enlist = pb::Enlist {
            slot: slot.rank,
            world: slot.world,
            host: host(),
            pid: std::process::id(),
            local_rank: slot.local_rank,
            instance: self.instance.clone(),
            running: running.map(|generation| generation.0),
        };
        // Unbounded, and just made: it takes the message.
        say.send(pb::FromAttendant { body: Some(Say::Enlist(enlist)) }).ok();
        let deadlines = deadlines(Some(invitation.patience_s));
        let opened = open(&server, &invitation, &deadlines, UnboundedReceiverStream::new(outbound));
        let hear = match tokio::time::timeout(deadlines.hello, opened).await {
            Err(_) => return Err(Refusal::Passing(anyhow::anyhow!("{server} does not answer"))),
            Ok(Err(error)) => return Err(self.weigh(&server, error)),
            Ok(Ok(hear)) => hear,
        };
        self.known = Some(invitation);
        Ok(Link { say, hear })
    }

    /// How a refusal is to be taken.
    fn weigh(&self, server: &str, error: anyhow::Error) -> Refusal {
        let code = error.downcast_ref::<Status>().map(Status::code);
        let told = match error.downcast_ref::<Status>() {
            Some(status) => anyhow::anyhow!("the coordinator at {server} refused: {}", status.message()),
            None => error.context(format!("cannot reach the coordinator at {server}")),
        };
        match code {
            Some(Code::AlreadyExists) => Refusal::Taken(told),
            // A ticket of an earlier launch may still lie in the folder.
            Some(Code::PermissionDenied) if self.awaited && self.known.is_none() => Refusal::Passing(told),
            Some(
                Code::PermissionDenied
                | Code::Unauthenticated
                | Code::FailedPrecondition
                | Code::InvalidArgument
                | Code::Unimplemented,
            ) => Refusal::Lasting(told),
            _ => Refusal::Passing(told),
        }
    }
}

async fn open(
    server: &str,
    invitation: &Invitation,
    deadlines: &Deadlines,
    outbound: UnboundedReceiverStream<pb::FromAttendant>,
) -> anyhow::Result<Streaming<pb::ToAttendant>> {
    let trust = Trust { certificates: invitation.certificates.clone(), identity: None };
    let channel = crate::session::channel(server, &trust, deadlines).await?;
    let mut client = pb::workers_client::WorkersClient::new(channel);
    let call = as_worker(outbound, &invitation.job, &invitation.token)?;
    Ok(client.attend(call).await?.into_inner())
}

/// This machine's name.
pub(crate) fn host() -> String {
    nix::unistd::gethostname().map(|h| h.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The threads of each worker: what a flag or the environment says, else this process's share of the cores.
///
/// # Errors
/// When the environment says nonsense.
pub(crate) fn threads(flag: Option<usize>, local_size: u32) -> anyhow::Result<usize> {
    if let Some(threads) = flag {
        return Ok(threads);
    }
    for name in ["OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"] {
        if let Ok(text) = std::env::var(name) {
            match text.trim().parse() {
                Ok(threads) if threads > 0 => return Ok(threads),
                _ => bail!("the environment's {name} is {text:?}, which is no number of threads"),
            }
        }
    }
    let cores = std::thread::available_parallelism().context("cannot tell the number of cores")?;
    Ok((cores.get() / local_size.max(1) as usize).max(1))
}
