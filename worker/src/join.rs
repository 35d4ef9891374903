//! `squad-worker join`: one rank of one job, from ticket to exit code.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;

use anyhow::Context;
use squad_collective::{Background, Compression, Fence, RingListener, Topology, Transport};
use squad_proto::{FailureCode, FailureReport, Task, Ticket};
use squad_train::contents::Contents;
use squad_train::output::belongs_to;
use squad_train::run::Outcome;
use squad_train::{Prepared, Report, StopSignal, TrainError};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::control::{Begin, FromCompute, Place};
use crate::progress::{Position, Reporter};
use crate::session::{self, Ended, Session};
use crate::{device, failure, lifeline};

/// Takes part in the job of the ticket on standard input.
///
/// # Errors
/// When there is no ticket or the coordinator cannot be reached; failures of the job itself are reported to
/// the coordinator, and make the exit code 1.
pub(crate) fn join() -> anyhow::Result<ExitCode> {
    let ticket = lifeline::read_ticket()?;
    set_threads(ticket.threads);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(control(ticket))?;
    // The compute thread may be in the middle of something that nobody waits for any more.
    runtime.shutdown_background();
    Ok(match ended {
        Ended::Well => ExitCode::SUCCESS,
        Ended::Badly => ExitCode::FAILURE,
    })
}

/// Gives libtorch and the data crate their share of the cores.
pub(crate) fn set_threads(threads: usize) {
    tch::set_num_threads(threads as i32);
    tch::set_num_interop_threads(1);
    // Fails only if the pool exists already.
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().ok();
}

async fn control(ticket: Ticket) -> anyhow::Result<Ended> {
    let interface = ring_interface(&ticket.server);
    let listener = RingListener::bind(interface).context("cannot open a port for the ring")?;
    let stop = StopSignal::new();
    let (to_control, from_compute) = unbounded_channel();
    let (lost, lifeline) = tokio::sync::oneshot::channel();
    // The receiver is gone only when the session has ended.
    lifeline::watch(move || lost.send(()).unwrap_or_default()).context("cannot watch the lifeline")?;

    let (place_to, place) = mpsc::channel();
    let (begin_to, begin) = mpsc::channel();
    let position = Position::default();
    let session = Session {
        ticket: ticket.clone(),
        ring_address: listener.local_addr(),
        stop: stop.clone(),
        position: position.clone(),
        place: place_to,
        begin: begin_to,
    };
    let compute = Compute { ticket, listener, stop, position, to_control, place, begin };
    std::thread::Builder::new().name("squad-compute".into()).spawn(move || compute.run())?;
    session::run(session, from_compute, lifeline).await
}

/// The address that other workers reach this host at: that which this host reaches the coordinator from.
fn ring_interface(server: &str) -> IpAddr {
    let authority = server.rsplit("//").next().unwrap_or(server);
    let local = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        // Sends nothing: connecting a datagram socket only chooses the route.
        socket.connect(authority)?;
        socket.local_addr()
    });
    local.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

/// The compute thread.
struct Compute {
    ticket: Ticket,
    listener: RingListener,
    stop: StopSignal,
    position: Position,
    to_control: UnboundedSender<FromCompute>,
    place: mpsc::Receiver<Place>,
    begin: mpsc::Receiver<Begin>,
}

impl Compute {
    fn run(self) {
        let to_control = self.to_control.clone();
        // Only here, where what ends in a panic is reported whatever it leaves on standard error.
        squad_train::memory::keep_attempts_quiet();
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| self.task()))
            .unwrap_or_else(|payload| Some(Err(failure::of_panic(payload.as_ref()))));
        if let Some(outcome) = outcome {
            // Nobody listens when the process is about to end.
            to_control.send(FromCompute::Finished(outcome)).ok();
        }
    }

    /// `None` when the control thread is gone.
    fn task(self) -> Option<Result<Outcome, FailureReport>> {
        let place = self.place.recv().ok()?;
        let output = self.ticket.output_dir();
        let log = (place.rank == 0).then_some(output.as_path());
        let reporter = Reporter::new(self.position.clone(), self.to_control.clone(), log);
        let (spec, job) = (&self.ticket.spec, self.ticket.job.0.clone());
        let task = match &self.ticket.task {
            // A life of this job was lost before the coordinator heard that it trained.
            Task::Train { resume, timeline } => {
                let resume = *resume || belongs_to(&output, &job);
                Task::Train { resume, timeline: timeline.clone() }
            }
            evaluate => evaluate.clone(),
        };
        // Before libtorch is asked for anything: it looks for its CUDA half once.
        let chosen = device::choose(&spec.resources, place.local_rank);
        let prepared = chosen.map_err(|e| FailureReport::new(FailureCode::Device, e.to_string())).and_then(
            |(device, note)| {
                note.into_iter().for_each(|note| reporter.note(note));
                let folder = model_folder(&spec.model)?;
                squad_train::prepare_on(device, spec, &task, &folder, &reporter)
                    .map_err(|e| failure::report(&e))
            },
        );
        let prepared = match prepared {
            Ok(prepared) => Prepared { restarts: self.ticket.generation.restarts(), job, ..prepared },
            Err(report) => return Some(Err(report)),
        };
        let layout = prepared.network.layout_hash();
        let compared =
            if place.world > 1 { Contents::of(&prepared, spec, &task) } else { Ok(Contents::default()) };
        let contents = match compared {
            Ok(contents) => contents,
            Err(error) => return Some(Err(failure::report(&error))),
        };
        let ready = FromCompute::Ready {
            layout: hex::encode(layout),
            data: hex::encode(prepared.data_hash),
            evaluated: prepared.evaluated.clone(),
            held: prepared.held().map(|(step, identity)| (step, identity.to_owned())),
            contents,
        };
        self.to_control.send(ready).ok()?;
        let begin = self.begin.recv().ok()?;
        let prepared = Prepared { origin: begin.origin, ..prepared };

        let topology = Topology {
            rank: place.rank as usize,
            world: place.world as usize,
            peers: begin.peers,
            fence: Fence {
                job: self.ticket.job.0.clone(),
                generation: self.ticket.generation.0,
                token: self.ticket.token.clone(),
                layout,
            },
            patience: squad_proto::Deadlines::from_patience(self.ticket.patience()).collective,
            transport: transport(spec.comm.backend),
            compression: compression(spec.comm.compression),
            host: None,
        };
        let outcome =
            squad_collective::connect(self.listener, topology).map_err(TrainError::from).and_then(|ring| {
                let collective = Background::start(ring);
                squad_train::run(prepared, &collective, spec, &task, (&reporter, &self.stop))
            });
        Some(outcome.map_err(|e| failure::report(&e)))
    }
}

/// What carries the bytes of a backend on CPUs.
fn transport(backend: squad_proto::spec::Backend) -> Transport {
    match backend {
        squad_proto::spec::Backend::Server => Transport::Server,
        _ => Transport::Auto,
    }
}

/// What the spec calls it, as the collective does.
fn compression(of_spec: squad_proto::spec::Compression) -> Compression {
    match of_spec {
        squad_proto::spec::Compression::None => Compression::None,
        squad_proto::spec::Compression::Fp16 => Compression::Fp16,
        squad_proto::spec::Compression::Bf16 => Compression::Bf16,
    }
}

/// The folder of the spec's model, fetched where it is a repository's name.
fn model_folder(model: &str) -> Result<PathBuf, FailureReport> {
    let options = squad_fetch::FetchOptions::from_env();
    squad_fetch::resolve_model(model, Path::new("."), &squad_fetch::model_cache(), &options)
        .map_err(|e| FailureReport::new(FailureCode::Model, e.to_string()))
}
