//! When memory runs out: telling it from other failures, and what to say.
//!
//! libtorch panics, or answers with an error, in the middle of an operation that knows nothing of batches. So whoever is
//! about to compute one notes its shape here, on its thread.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::error::TrainError;

/// The batch that is being computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Windows in it.
    pub windows: usize,
    /// Padded tokens of each.
    pub tokens: usize,
    /// Whether gradients are computed, too.
    pub training: bool,
}

thread_local! {
    static UNDER_WAY: Cell<Option<Shape>> = const { Cell::new(None) };
    static ATTEMPTING: Cell<bool> = const { Cell::new(false) };
}

/// Notes what this thread is about to compute.
pub fn about_to_compute(shape: Shape) {
    UNDER_WAY.set(Some(shape));
}

/// Memory ran out.
#[derive(Debug)]
pub enum Lack {
    /// So said a panic.
    Panic(Box<dyn Any + Send>),
    /// So said an error.
    Error(TrainError),
}

impl Lack {
    /// Goes on as if nobody had asked: panics, or gives the error.
    ///
    /// # Errors
    /// The error.
    ///
    /// # Panics
    /// With the panic.
    pub fn give_up<T>(self) -> Result<T, TrainError> {
        match self {
            Self::Panic(payload) => resume_unwind(payload),
            Self::Error(error) => Err(error),
        }
    }
}

/// Runs `work` with gradients recorded, and keeps a lack of memory apart from its other ends. After one, what `work` was changing is
/// as it left it.
///
/// # Errors
/// When memory ran out.
///
/// # Panics
/// Where `work` does for another reason.
pub fn attempt<T>(work: impl FnOnce() -> Result<T, TrainError>) -> Result<Result<T, TrainError>, Lack> {
    // tch's closures without gradients do not put the mode back when they panic; this guard does.
    let _mode = tch::no_grad_guard();
    let outer = ATTEMPTING.replace(true);
    let ended = catch_unwind(AssertUnwindSafe(|| tch::with_grad(work)));
    ATTEMPTING.set(outer);
    match ended {
        Ok(Err(error)) if is_lack(&error.to_string()) => Err(Lack::Error(error)),
        Ok(ended) => Ok(ended),
        Err(payload) if is_lack(words_of(&*payload)) => Err(Lack::Panic(payload)),
        Err(payload) => resume_unwind(payload),
    }
}

/// Has panics within [`attempt`] that tell of a lack of memory leave no message on standard error: most are made up for, and the
/// others are reported.
pub fn keep_attempts_quiet() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !(ATTEMPTING.get() && is_lack(words_of(info.payload()))) {
            before(info);
        }
    }));
}

/// What a panic says.
pub fn words_of(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

/// Whether libtorch's words tell of a lack of memory.
fn is_lack(words: &str) -> bool {
    ["CUDA out of memory", "DefaultCPUAllocator", "not enough memory", "std::bad_alloc"]
        .iter()
        .any(|known| words.contains(known))
}

/// The failure that libtorch's words tell of, in a sentence, with what to do about it; `None` where it is not about memory.
/// To be called on the thread that computed.
pub fn ran_out(words: &str) -> Option<(String, String)> {
    describe(words, UNDER_WAY.get(), crate::output::peak_rss_bytes())
}

fn describe(words: &str, shape: Option<Shape>, peak_bytes: u64) -> Option<(String, String)> {
    let gpu = words.find("CUDA out of memory");
    if !is_lack(words) {
        return None;
    }
    let mut sentence = String::from("memory ran out");
    if let Some(Shape { windows, tokens, .. }) = shape {
        sentence += &format!(" in a batch of {windows} windows of {tokens} tokens");
    }
    sentence += &match (gpu, asked_for(words)) {
        // libtorch names the GPU, its memory, and who has how much of it.
        (Some(at), _) => format!(": {}", words[at..].lines().next().unwrap_or_default().trim()),
        (None, Some(bytes)) => {
            format!(": {} more were asked for, by a process that has had {}", gib(bytes), gib(peak_bytes))
        }
        (None, None) => format!(", in a process that has had {}", gib(peak_bytes)),
    };
    let remedy = match shape {
        Some(Shape { training: false, windows, .. }) if windows > 1 => {
            format!("set eval.batch_size to {}, which changes no answer", windows / 2)
        }
        Some(Shape { training: true, windows, .. }) if windows > 1 => format!(
            "set train.batch_size to {} (or halve data.tokens_per_batch) and double train.accumulate, which keeps the \
             global batch, or set train.recompute: true",
            windows / 2
        ),
        Some(_) => {
            "set train.recompute: true, lower data.max_seq_length, or start fewer workers on this machine"
                .into()
        }
        None => "start fewer workers on this machine, or take a smaller model".into(),
    };
    Some((sentence, remedy))
}

/// The number of bytes in libtorch's `you tried to allocate N bytes`.
fn asked_for(words: &str) -> Option<u64> {
    let rest = words.split("tried to allocate ").nth(1)?;
    rest.split(' ').next()?.parse().ok()
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "called `Result::unwrap()` on an `Err` value: Torch(\"[enforce fail at alloc_cpu.cpp:121] err == 0. \
        DefaultCPUAllocator: can't allocate memory: you tried to allocate 34359738368 bytes. Error code 12\")";

    #[test]
    fn says_for_what_and_what_to_change() {
        let shape = |windows, training| Some(Shape { windows, tokens: 384, training });
        let (sentence, remedy) = describe(HOST, shape(32, true), 3 << 30).unwrap();
        assert_eq!(
            sentence,
            "memory ran out in a batch of 32 windows of 384 tokens: 32.0 GiB more were asked for, by a process that has \
             had 3.0 GiB"
        );
        assert!(remedy.contains("train.batch_size to 16") && remedy.contains("train.accumulate"), "{remedy}");
        assert!(describe(HOST, shape(16, false), 0).unwrap().1.contains("eval.batch_size to 8"));
        assert!(describe(HOST, shape(1, true), 0).unwrap().1.contains("train.recompute"));
        assert!(describe(HOST, None, 0).unwrap().0.starts_with("memory ran out:"));
    }

    #[test]
    fn a_gpus_words_are_kept() {
        let words = "Torch(\"CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB\n\
            Exception raised from malloc at ...";
        let (sentence, _) =
            describe(words, Some(Shape { windows: 8, tokens: 512, training: true }), 0).unwrap();
        assert!(sentence.ends_with("total capacity of 79.10 GiB"), "{sentence}");
    }

    #[test]
    fn gradients_are_recorded_after_a_lack_without_them() {
        let lack = attempt(|| tch::no_grad(|| -> Result<(), TrainError> { panic!("{HOST}") }));
        assert!(matches!(lack, Err(Lack::Panic(_))));
        let leaf = tch::Tensor::from(1.0f32).set_requires_grad(true);
        assert!((leaf * 2.0).requires_grad());
    }

    #[test]
    fn other_words_are_of_something_else() {
        assert_eq!(describe("shape '[2, 3]' is invalid", None, 0), None);
    }
}
