//! What goes into the machine, and what comes out.

use std::fmt;
use std::time::Duration;

use squad_proto::{EventBody, FailureReport, Generation, OutOfMemory, Phase, Progress};

use super::rendezvous::{Having, Origin};

/// Something that happened to the job, or at one of its workers.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// There is room for the job.
    Start,
    /// A user wants the job to end.
    Cancel,
    /// The coordinator is back, and the job was at work when the one before it ended.
    TakeUp {
        /// Slots whose workers still live: they saw the end of their lifeline, and are ending.
        left: Vec<u32>,
        /// Whether there is room for the job; if not, it waits for its turn.
        room: bool,
    },
    /// The coordinator is about to end.
    Shutdown {
        /// Another one will go on with the job.
        comes_back: bool,
    },
    /// Time has passed; some deadline may have.
    Tick,
    /// Something about one worker. Other generations change nothing.
    Worker {
        /// The life that the worker belongs to.
        generation: Generation,
        /// Which worker.
        slot: u32,
        /// What it did.
        input: Input,
    },
}

/// What a worker, or its process, did.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Its process could not be started.
    LaunchFailed(String),
    /// It opened its session; its token was right.
    Hello {
        /// Where its ring listens.
        ring: String,
    },
    /// Weights and features are there.
    Ready(Having),
    /// It lives.
    Beat {
        /// What it does.
        phase: Phase,
        /// How far it is.
        done: u64,
    },
    /// What it does at present.
    Doing(Doing),
    /// A phase went on.
    Progress(Progress),
    /// It has something to say, as all ranks have.
    Note(String),
    /// It has something to say that no other rank says.
    OwnNote(String),
    /// It brings results, and gets on with that.
    Delivers,
    /// It cannot go on.
    Failure(FailureReport),
    /// It has done all; rank 0 has results.
    Completed(Option<serde_json::Value>),
    /// It obeyed a stop after this step.
    Stopped(u64),
    /// Its session ended.
    SessionClosed,
    /// Its process is gone; with the last lines of its standard error.
    Exited(Exit, Vec<String>),
}

/// What a worker's compute thread does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doing {
    /// For people, as what follows "rank 1 is".
    pub what: String,
    /// For how long.
    pub lasts: Duration,
    /// Whether it waits for other ranks.
    pub waits: bool,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// By the kernel, because memory ran out.
    OutOfMemory(OutOfMemory),
    /// Nobody saw how: its coordinator had ended before.
    Unseen,
    /// Nobody knows: the connections to it and to its attendant ended.
    Lost,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with exit code {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(known) => write!(f, "was killed by signal {signal} ({known})"),
                Err(_) => write!(f, "was killed by signal {signal}"),
            },
            Self::OutOfMemory(cause) => write!(f, "{cause}"),
            Self::Unseen => f.write_str("ended unseen"),
            Self::Lost => f.write_str("was lost together with whatever launched it"),
        }
    }
}

/// Something to be done about the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start the process of this worker.
    Launch {
        /// Which.
        slot: u32,
        /// Its rank.
        rank: u32,
    },
    /// Tell a worker something.
    Send {
        /// Which.
        slot: u32,
        /// What.
        order: Order,
    },
    /// Send the worker's process group SIGTERM, or SIGKILL.
    Kill {
        /// Which.
        slot: u32,
        /// SIGKILL.
        hard: bool,
    },
    /// Write down what happened.
    Record(EventBody),
    /// Send [`Event::Tick`] at this time.
    Wake(Duration),
}

/// What a worker can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Its place.
    Assign {
        /// Its rank, which is its place among the slots that there are.
        rank: u32,
        /// How many ranks there are.
        world: u32,
    },
    /// All are ready.
    Begin {
        /// Ring addresses in the order of ranks.
        peers: Vec<String>,
        /// Where training goes on from, if not from the start.
        origin: Option<Origin>,
    },
    /// End at a step that all agree on.
    Stop {
        /// Why.
        reason: String,
    },
}
