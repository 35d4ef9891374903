//! Where the compute thread is, for the control thread to tell.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use squad_proto::{Phase, Progress};
use squad_train::Report;
use tokio::sync::mpsc::UnboundedSender;

use crate::control::FromCompute;

/// The newest phase and count, readable at any time without waiting.
#[derive(Clone, Debug, Default)]
pub(crate) struct Position(Arc<AtomicU64>);

impl Position {
    /// Phase and finished units, which take 56 bits.
    pub(crate) fn get(&self) -> (Phase, u64) {
        let both = self.0.load(Ordering::Relaxed);
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
        self.0.store(number << 56 | done, Ordering::Relaxed);
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

    fn note(&self, text: String) {
        tracing::info!("{text}");
        self.log(&text);
        self.tell(FromCompute::Note(text));
    }
}
