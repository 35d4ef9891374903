//! What Squadron does with bytes that come from strangers, one function for each kind.
//!
//! `fuzz/` gives these functions whatever its fuzzers think of; `tests/corpus.rs` gives them the files of
//! `fuzz/corpus`, and changed ones, with every run of the tests. Each function must end, without a panic, in time and
//! memory that the bytes bear out, and what it takes must come out of it as it went in.
#![forbid(unsafe_code)]
#![allow(clippy::panic, clippy::expect_used, reason = "a panic is how a fuzzer learns of a fault")]

use std::path::Path;

use prost::Message;
use squad_proto::{Event, FailureReport, Fence, Progress, Task, Ticket, pb, spec};

/// A kind of bytes: the name of its corpus, and what is done with them.
pub type Target = (&'static str, fn(&[u8]));

/// Every kind.
pub const TARGETS: &[Target] = &[
    ("spec", job_spec),
    ("squad_json", squad_json),
    ("weights", weights),
    ("ring_frames", ring_frames),
    ("grpc", grpc),
    ("ticket", ticket),
    #[cfg(feature = "libtorch")]
    ("checkpoint_manifest", checkpoint_manifest),
];

/// A job spec, YAML or JSON, as a user submits it.
pub fn job_spec(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(value) = spec::parse(text, "fuzz") else { return };
    let Ok(valid) = spec::validate(&value, "fuzz") else { return };
    let mut once = valid.into_inner();
    // What was taken is taken again in the form in which it is kept.
    let again = spec::parse(&once.to_yaml(), "again").expect("what is written can be read");
    let twice = spec::validate(&again, "again").expect("what was valid stays so").into_inner();
    assert_eq!(once, twice);
    once.resolve_paths(Path::new("/base"));
}

/// A question file: read for training, and looked at by `data stats`.
pub fn squad_json(bytes: &[u8]) {
    let path = Path::new("fuzz.json");
    let read = squad_data::squad::parse(path, bytes);
    let surveyed = squad_data::squad::survey(path, bytes);
    let Ok(dataset) = read else { return };
    assert_eq!(dataset.questions.len(), surveyed.expect("what trains can be looked at").questions.len());
    for question in &dataset.questions {
        let letters: Vec<char> = question.context.chars().collect();
        for answer in &question.answers {
            let end = answer.start + answer.text.chars().count();
            let there: String =
                letters.get(answer.start..end).expect("an answer within its text").iter().collect();
            assert_eq!(there, answer.text);
        }
    }
}

/// A file of weights in any form.
pub fn weights(bytes: &[u8]) {
    let Ok(tensors) = squad_weights::read_bytes(bytes) else { return };
    let mut floats = 0;
    for (shape, values) in tensors.values() {
        let expected: i64 = shape.iter().product();
        assert_eq!(usize::try_from(expected).ok(), Some(values.len()));
        floats += values.len();
    }
    assert!(floats <= (1 << 20) + 4 * bytes.len(), "{floats} numbers of {} bytes", bytes.len());
}

/// What comes over a connection of the ring: a hello, headers of frames, notices.
pub fn ring_frames(bytes: &[u8]) {
    squad_collective::hostile(bytes);
}

/// Messages of both gRPC services. The first byte says which.
pub fn grpc(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 5 {
        0 => from_worker(bytes),
        1 => event(bytes),
        2 => {
            let Ok(request) = pb::SubmitRequest::decode(bytes) else { return };
            job_spec(request.spec_json.as_bytes());
            // Refused or not.
            serde_json::from_str::<Task>(&request.task_json).ok();
        }
        3 => drop(pb::ToWorker::decode(bytes)),
        _ => {
            let Ok(job) = pb::Job::decode(bytes) else { return };
            assert_eq!(
                pb::Job::decode(job.encode_to_vec().as_slice()).as_ref().ok().map(|j| &j.id),
                Some(&job.id)
            );
        }
    }
}

fn from_worker(bytes: &[u8]) {
    use pb::from_worker::Body;
    let Ok(message) = pb::FromWorker::decode(bytes) else { return };
    if let Some(fence) = message.fence {
        let fence = Fence::from(fence);
        assert_eq!(Fence::from(pb::Fence::from(&fence)), fence);
    }
    match message.body {
        Some(Body::Progress(progress)) => drop(Progress::try_from(progress)),
        Some(Body::Failure(report)) => {
            assert!(!FailureReport::from(report).to_string().is_empty());
        }
        Some(Body::Completed(done)) => drop(serde_json::from_str::<serde_json::Value>(&done.results_json)),
        _ => {}
    }
}

fn event(bytes: &[u8]) {
    let Ok(message) = pb::Event::decode(bytes) else { return };
    let Ok(event) = Event::try_from(message) else { return };
    let text = serde_json::to_string(&event).expect("an event has a JSON form");
    serde_json::from_str::<Event>(&text).expect("what is stored can be read");
}

/// A worker's ticket.
pub fn ticket(bytes: &[u8]) {
    let Ok(ticket) = serde_json::from_slice::<Ticket>(bytes) else { return };
    let text = format!("{ticket:?}");
    assert!(
        ticket.token.len() < 8 || text.len() < 40 || !text.contains(&ticket.token) || {
            // A token that is part of what may be said is nobody's fault.
            ticket.server.contains(&ticket.token) || ticket.job.0.contains(&ticket.token)
        }
    );
}

/// What a checkpoint says of itself.
#[cfg(feature = "libtorch")]
pub fn checkpoint_manifest(bytes: &[u8]) {
    let Ok(manifest) = squad_train::checkpoint::Manifest::read(bytes) else { return };
    for file in &manifest.files {
        let path = Path::new("/checkpoint").join(&file.name);
        assert_eq!(path.parent(), Some(Path::new("/checkpoint")), "{}", file.name);
    }
}
