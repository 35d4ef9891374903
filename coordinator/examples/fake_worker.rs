//! A worker that computes nothing: a real process that speaks the real protocol, for tests.
//!
//! The first word of the job's name says what it does:
//!
//! | name | what happens |
//! |---|---|
//! | `succeed` | five steps, an evaluation, results |
//! | `show` | 240 steps with every figure, an evaluation, results of SQuAD 2.0, a model folder |
//! | `hold` | steps until it is stopped |
//! | `flee` | as `hold`, but a rank that loses a neighbour ends without a word |
//! | `frail` | as `succeed`, but in the job's first life rank 1 is killed at its third step |
//! | `crash` | rank 1 reports a loss that is not finite, and ends |
//! | `disagree` | rank 1 has other features |
//! | `broken` | rank 1 writes 30 lines and ends before it says Hello |
//! | `mute` | rank 1 never says Hello |
//! | `leave` | rank 1 ends with code 0 in the middle of the work |
//! | `stubborn` | as `hold`, but obeys neither Stop nor SIGTERM |
//! | `deaf` | as `stubborn`, and does not see the end of its lifeline |
//! | `revive` | as `hold` in the job's first life, as `succeed` in later ones |
//!
//! Asked to `predict`, it answers every question with the first word of the text.
//!
//! Each rank has a connection to each other one, as in a ring, and starts a `sleep` that inherits its
//! output: a killed worker must not leave it behind.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is what tests look at")]

use std::io::BufRead;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;
use squad_proto::connect::{Trust, as_worker, endpoint};
use squad_proto::pb::from_worker::Body as Say;
use squad_proto::pb::to_worker::Body as Hear;
use squad_proto::pb::{self, workers_client::WorkersClient};
use squad_proto::{FailureCode, FailureReport, Phase, Progress, Ticket};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

const STEPS: u64 = 5;
const STEP: Duration = Duration::from_millis(20);

/// Steps of `show`.
const SHOWN: u64 = 240;

fn main() -> anyhow::Result<ExitCode> {
    if std::env::args().nth(1).as_deref() == Some("predict") {
        return predict();
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("no ticket")?;
    let ticket: Ticket = serde_json::from_str(&line).context("not a ticket")?;
    // A thread, because a runtime waits for its own blocking reads before it ends.
    let (gone, lifeline) = oneshot::channel();
    std::thread::spawn(move || {
        std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).ok();
        gone.send(()).ok();
    });
    let deaf = ticket.spec.name.starts_with("deaf");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            code = live(ticket) => code,
            _ = lifeline, if !deaf => Ok(ExitCode::from(9)),
        }
    })
}

/// Answers with the first word of the text.
fn predict() -> anyhow::Result<ExitCode> {
    let context =
        std::env::args().find_map(|argument| argument.strip_prefix("--context=").map(str::to_owned));
    let context = context.context("no text")?;
    let word = context.split_whitespace().next().unwrap_or_default();
    if word == "Nothing" {
        eprintln!("2026-11-24T04:05:06Z ERROR the fake model knows nothing");
        return Ok(ExitCode::FAILURE);
    }
    let end = word.chars().count();
    let candidate = json!({"text": word, "start": 0, "end": end, "score": 5.0, "probability": 0.9});
    let answer = json!({
        "answer": word, "start": 0, "end": end, "score": 5.0, "probability": 0.9,
        "no_answer_probability": 0.05, "n_best": [candidate],
    });
    println!("{answer}");
    Ok(ExitCode::SUCCESS)
}

/// Everything between the ticket and the end.
async fn live(ticket: Ticket) -> anyhow::Result<ExitCode> {
    let mode = ticket.spec.name.split('-').next().unwrap_or_default().to_owned();
    let odd = ticket.slot == 1;
    println!("pid {}", std::process::id());
    println!("token {}", ticket.token);
    println!("task {}", serde_json::to_string(&ticket.task)?);
    println!("generation {}", ticket.generation);
    let frail = mode == "frail" && ticket.generation == squad_proto::Generation::FIRST;
    println!("gpus {}", std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_else(|_| "as they are".into()));
    println!("threads {}", std::env::var("OMP_NUM_THREADS").unwrap_or_default());
    eprintln!("slot {} complains", ticket.slot);
    if mode == "broken" && odd {
        (1..=30).for_each(|line| eprintln!("last words {line}"));
        return Ok(ExitCode::from(3));
    }
    if mode == "mute" && odd {
        std::future::pending::<()>().await;
    }
    let stubborn = matches!(mode.as_str(), "stubborn" | "deaf");
    let mut sigterm = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    if stubborn {
        tokio::spawn(async move { while sigterm.recv().await.is_some() {} });
    } else {
        tokio::spawn(async move {
            sigterm.recv().await;
            println!("SIGTERM");
            // Ends at once, as a program without a handler does.
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).ok();
        });
    }
    // Rank 0 of `flee` has no child that holds its output open, so its end is known before the end of rank 1
    // is, whose death it flees from.
    if mode != "flee" || odd {
        let child = std::process::Command::new("sleep").arg("600").spawn()?;
        println!("child {}", child.id());
    }

    let ring = TcpListener::bind("127.0.0.1:0").await?;
    let mut session = Session::open(&ticket, ring.local_addr()?.to_string()).await?;
    let Hear::Assign(place) = session.hear().await? else { bail!("expected Assign") };
    println!("rank {} of {}", place.rank, place.world);
    let data = if mode == "disagree" && odd { "other" } else { "same" };
    session
        .say(Say::Ready(pb::Ready {
            layout_sha256: "layout".into(),
            data_sha256: data.into(),
            ..pb::Ready::default()
        }))
        .await;
    let peers = match session.hear().await? {
        Hear::Begin(begin) => begin.peers,
        Hear::Stop(_) => return Ok(session.stopped(0).await),
        Hear::Assign(_) => bail!("assigned twice"),
    };
    let neighbours = Neighbours::meet(ring, peers, place.rank).await?;
    if mode == "show" {
        std::fs::create_dir_all(std::path::Path::new(&ticket.spec.output_dir).join("model"))?;
    }
    let mode = match (mode.as_str(), frail) {
        ("frail", true) => "frail",
        ("frail", false) => "succeed",
        ("revive", _) if ticket.generation > squad_proto::Generation::FIRST => "succeed",
        ("revive", _) => "hold",
        (other, _) => other,
    };
    work(mode, place.rank, session, neighbours).await
}

/// Steps until the work is done, or something ends it.
async fn work(mode: &str, rank: u32, mut session: Session, mut ring: Neighbours) -> anyhow::Result<ExitCode> {
    let mut tick = tokio::time::interval(STEP);
    for step in 1.. {
        tokio::select! {
            _ = tick.tick() => {}
            order = session.hear() => match order {
                Ok(Hear::Stop(_)) if !matches!(mode, "stubborn" | "deaf") => {
                    ring.part();
                    return Ok(session.stopped(step).await);
                }
                Ok(_) => {}
                Err(_) if mode == "deaf" => std::future::pending().await,
                Err(_) => return Ok(ExitCode::from(1)),
            },
            // A world of one has no neighbours: the branch is never taken.
            Some(lost) = ring.lost.recv(), if matches!(mode, "hold" | "flee" | "crash" | "leave" | "frail") => {
                if mode == "flee" {
                    return Ok(ExitCode::from(7));
                }
                let report = FailureReport::new(FailureCode::Collective, format!("rank {lost} closed its connection"));
                return Ok(session.failed(report).await);
            }
        }
        if rank == 1 && step == 3 {
            match mode {
                "crash" => {
                    let report = FailureReport::new(FailureCode::NotFinite, "the loss is not finite");
                    return Ok(session.failed(report).await);
                }
                "frail" => nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL)?,
                "leave" => return Ok(ExitCode::SUCCESS),
                _ => {}
            }
        }
        session.step.store(step, Ordering::Relaxed);
        if mode == "show" {
            session.say(Say::Progress((&shown(step)).into())).await;
            if rank == 0 && step % 40 == 0 {
                println!("checkpoint of step {step} written");
            }
        } else if mode == "succeed" || step == 1 {
            let mut progress = Progress::new(Phase::Train, step, STEPS);
            progress.loss = Some(1.0 / step as f64);
            session.say(Say::Progress((&progress).into())).await;
        }
        if (mode == "succeed" && step == STEPS) || step == SHOWN && mode == "show" {
            break;
        }
    }
    session.say(Say::Progress((&Progress::new(Phase::Evaluate, 10, 10)).into())).await;
    let results_json = match (rank, mode) {
        (0, "show") => include_str!("results.json").to_owned(),
        (0, _) => r#"{"exact": 50.0, "f1": 62.5}"#.to_owned(),
        _ => String::new(),
    };
    session.say(Say::Completed(pb::Completed { results_json })).await;
    session.part().await;
    Ok(ExitCode::SUCCESS)
}

/// Progress with every figure: a loss that falls and wavers, and the usual schedule.
fn shown(step: u64) -> Progress {
    let at = step as f64;
    let mut progress = Progress::new(Phase::Train, step, SHOWN);
    progress.loss = Some(0.6 + 4.0 * (-at / 40.0).exp() + 0.15 * (at * 1.7).sin());
    progress.learning_rate = Some(3e-5 * (at / 24.0).min((SHOWN as f64 - at) / (SHOWN as f64 - 24.0)));
    progress.grad_norm = Some(3.0 + 1.5 * (at * 0.9).sin());
    progress.examples_per_second = Some(31.0 + 2.0 * (at * 0.3).cos());
    progress.loss_scale = Some(if step < 100 { 65536.0 } else { 32768.0 });
    progress.allreduce_share = Some(0.08 + 0.02 * (at * 0.5).sin());
    progress.tokens_per_second = Some(4100.0 + 200.0 * (at * 0.3).cos());
    progress
}

/// The stream to the coordinator.
struct Session {
    fence: pb::Fence,
    out: mpsc::Sender<pb::FromWorker>,
    orders: tonic::Streaming<pb::ToWorker>,
    /// The last step, for the beats; 0 while it loads.
    step: Arc<AtomicU64>,
}

/// Says from Hello on that the worker lives.
async fn keep_beating(
    out: mpsc::WeakSender<pb::FromWorker>,
    fence: pb::Fence,
    step: Arc<AtomicU64>,
    every: Duration,
) {
    let mut tick = tokio::time::interval(every);
    loop {
        tick.tick().await;
        let done = step.load(Ordering::Relaxed);
        let phase = if done == 0 { pb::Phase::Prepare } else { pb::Phase::Train };
        let body = Some(Say::Beat(pb::Beat { phase: phase.into(), done, ..Default::default() }));
        let Some(out) = out.upgrade() else { return };
        if out.send(pb::FromWorker { fence: Some(fence.clone()), body }).await.is_err() {
            return;
        }
    }
}

impl Session {
    async fn open(ticket: &Ticket, ring_address: String) -> anyhow::Result<Self> {
        let trust = Trust { certificates: ticket.certificates.clone(), identity: None };
        let mut client = WorkersClient::new(endpoint(&ticket.server, &trust)?.connect().await?);
        let fence = pb::Fence::from(&ticket.fence());
        let (out, messages) = mpsc::channel(64);
        let hello = pb::Hello {
            slot: ticket.slot,
            pid: std::process::id(),
            host: "localhost".into(),
            ring_address,
            rejoins: false,
        };
        out.send(pb::FromWorker { fence: Some(fence.clone()), body: Some(Say::Hello(hello)) }).await?;
        let call = as_worker(ReceiverStream::new(messages), &ticket.job, &ticket.token)?;
        let orders = client.session(call).await?.into_inner();
        let step = Arc::new(AtomicU64::new(0));
        let beat = squad_proto::Deadlines::from_patience(ticket.patience()).beat;
        // A weak sender: the session ends with the worker's own.
        tokio::spawn(keep_beating(out.downgrade(), fence.clone(), step.clone(), beat));
        Ok(Self { fence, out, orders, step })
    }

    async fn hear(&mut self) -> anyhow::Result<Hear> {
        let message = self.orders.message().await?.context("the coordinator closed the session")?;
        anyhow::ensure!(message.fence.as_ref() == Some(&self.fence), "an order for another generation");
        message.body.context("an empty order")
    }

    async fn say(&self, body: Say) {
        // A coordinator that is gone is noticed by the lifeline.
        self.out.send(pb::FromWorker { fence: Some(self.fence.clone()), body: Some(body) }).await.ok();
    }

    async fn stopped(self, step: u64) -> ExitCode {
        println!("stopped at step {step}");
        self.say(Say::Stopped(pb::Stopped { step })).await;
        self.part().await;
        ExitCode::SUCCESS
    }

    async fn failed(self, report: FailureReport) -> ExitCode {
        eprintln!("{report}");
        self.say(Say::Failure((&report).into())).await;
        self.part().await;
        ExitCode::from(1)
    }

    /// Ends the stream and waits for the other side to do the same, so that no word is lost.
    async fn part(self) {
        let Self { out, mut orders, .. } = self;
        drop(out);
        let last = async { while let Ok(Some(_)) = orders.message().await {} };
        // A coordinator need not close its half before the process is gone.
        tokio::time::timeout(Duration::from_millis(200), last).await.ok();
    }
}

/// Connections to the other ranks: one that ends without a farewell is a rank lost.
struct Neighbours {
    lost: mpsc::Receiver<usize>,
    accepted: Arc<Mutex<Vec<TcpStream>>>,
    _listening: tokio::task::JoinHandle<()>,
}

impl Neighbours {
    async fn meet(ring: TcpListener, peers: Vec<String>, rank: u32) -> anyhow::Result<Self> {
        let (tell, lost) = mpsc::channel(peers.len());
        for (peer, address) in peers.into_iter().enumerate() {
            if peer != rank as usize {
                let mut connection =
                    TcpStream::connect(&address).await.with_context(|| format!("rank {peer}"))?;
                let tell = tell.clone();
                tokio::spawn(async move {
                    if connection.read_u8().await.is_err() {
                        tell.send(peer).await.ok();
                    }
                });
            }
        }
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let open = Arc::clone(&accepted);
        let listening = tokio::spawn(async move {
            while let Ok((connection, _)) = ring.accept().await {
                open.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            }
        });
        Ok(Self { lost, accepted, _listening: listening })
    }

    /// Says farewell: a rank that was stopped is not lost, and its neighbours' own Stop may still be on its way.
    fn part(&self) {
        for connection in self.accepted.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // One byte always fits; a neighbour that is gone needs no farewell.
            connection.try_write(&[0]).ok();
        }
    }
}
