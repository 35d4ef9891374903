//! What to say when memory runs out.
//!
//! libtorch panics, or answers with an error, in the middle of an operation that knows nothing of batches. So whoever is
//! about to compute one notes its shape here, on its thread.

use std::cell::Cell;

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
}

/// Notes what this thread is about to compute.
pub fn about_to_compute(shape: Shape) {
    UNDER_WAY.set(Some(shape));
}

/// The failure that libtorch's words tell of, in a sentence, with what to do about it; `None` where it is not about memory.
/// To be called on the thread that computed.
pub fn ran_out(words: &str) -> Option<(String, String)> {
    describe(words, UNDER_WAY.get(), crate::output::peak_rss_bytes())
}

fn describe(words: &str, shape: Option<Shape>, peak_bytes: u64) -> Option<(String, String)> {
    let gpu = words.find("CUDA out of memory");
    let host = words.contains("DefaultCPUAllocator") || words.contains("not enough memory");
    if gpu.is_none() && !host {
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
    fn other_words_are_of_something_else() {
        assert_eq!(describe("shape '[2, 3]' is invalid", None, 0), None);
    }
}
