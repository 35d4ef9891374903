//! Where the compute thread is, for the control thread to tell.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use squad_proto::{Phase, Progress};
use squad_train::Report;
use squad_train::trace::Doing;
use tokio::sync::mpsc::UnboundedSender;

use crate::control::FromCompute;

/// The newest phase and count, readable at any time without waiting.
#[derive(Clone, Debug)]
pub(crate) struct Position(Arc<Place>);

#[derive(Debug)]
struct Place {
    position: AtomicU64,
    /// What is being done and one more, packed; 0 before anything was.
    doing: AtomicU64,
    /// When that began, in nanoseconds since `epoch`.
    since: AtomicU64,
    epoch: Instant,
}

impl Default for Position {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self(Arc::new(Place { position: zero(), doing: zero(), since: zero(), epoch: Instant::now() }))
    }
}

impl Position {
    /// Phase and finished units, which take 56 bits.
    pub(crate) fn get(&self) -> (Phase, u64) {
        let both = self.0.position.load(Ordering::Relaxed);
        let phase = match both >> 56 {
            1 => Phase::Train,
            2 => Phase::Evaluate,
            _ => Phase::Prepare,
        };
        (phase, both & ((1 << 56) - 1))
    }

    fn set(&self, phase: Phase, done: u64) {
        let number: u64 = match phase {
            Phase::Prepare => 0,
            Phase::Train => 1,
            Phase::Evaluate => 2,
        };
        self.0.position.store(number << 56 | done, Ordering::Relaxed);
    }

    /// What is being done in that phase, and for how long; `None` before anything was. (Both are read one after the
    /// other: what has just begun may seem to last as long as what came before.)
    pub(crate) fn doing(&self) -> Option<(Doing, Duration)> {
        let packed = self.0.doing.load(Ordering::Acquire).checked_sub(1)?;
        let since = Duration::from_nanos(self.0.since.load(Ordering::Acquire));
        Some((Doing::unpack(packed), self.0.epoch.elapsed().saturating_sub(since)))
    }

    fn set_doing(&self, doing: Doing) {
        self.0.since.store(self.0.epoch.elapsed().as_nanos() as u64, Ordering::Release);
        self.0.doing.store(doing.pack() + 1, Ordering::Release);
    }
}

/// Sends what training reports to the control thread; rank 0 writes train.log too.
pub(crate) struct Reporter {
    position: Position,
    to_control: UnboundedSender<FromCompute>,
    log: Mutex<Option<File>>,
}

impl Reporter {
    /// A reporter; with `output` it appends to train.log there, as far as that can be written: whether the
    /// folder can be is found out, and told, where results are written.
    pub(crate) fn new(
        position: Position,
        to_control: UnboundedSender<FromCompute>,
        output: Option<&Path>,
    ) -> Self {
        let log = output.and_then(|folder| {
            std::fs::create_dir_all(folder).ok()?;
            OpenOptions::new().create(true).append(true).open(folder.join("train.log")).ok()
        });
        Self { position, to_control, log: Mutex::new(log) }
    }

    fn log(&self, text: &str) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = log.as_mut()
            && writeln!(file, "{} {text}", jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S%.3f%:z")).is_err()
        {
            // A full disk: the run itself will say so.
            *log = None;
        }
    }

    fn tell(&self, message: FromCompute) {
        // Fails only when the control thread has ended, and the process with it.
        self.to_control.send(message).ok();
    }
}

impl Report for Reporter {
    fn tick(&self, phase: Phase, done: u64, total: u64) {
        let (before, _) = self.position.get();
        self.position.set(phase, done);
        if phase == Phase::Prepare || before != phase {
            self.tell(FromCompute::Progress(Progress::new(phase, done, total)));
        }
    }

    fn progress(&self, progress: Progress) {
        if progress.phase == Phase::Train {
            let figure = |value: Option<f64>| value.unwrap_or(f64::NAN);
            self.log(&format!(
                "step {}/{} loss {:.4} learning_rate {:.3e} grad_norm {:.3} examples/s {:.1}",
                progress.done,
                progress.total,
                figure(progress.loss),
                figure(progress.learning_rate),
                figure(progress.grad_norm),
                figure(progress.examples_per_second)
            ));
        }
        self.tell(FromCompute::Progress(progress));
    }

    fn doing(&self, doing: Doing) {
        self.position.set_doing(doing);
    }

    fn note(&self, text: String) {
        tracing::info!("{text}");
        self.log(&text);
        self.tell(FromCompute::Note(text));
    }

    fn own_note(&self, text: String) {
        tracing::info!("{text}");
        self.log(&text);
        self.tell(FromCompute::OwnNote(text));
    }
}
