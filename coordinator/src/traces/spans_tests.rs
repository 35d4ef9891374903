use squad_proto::{FailureReport, Progress};

use super::*;

fn record() -> Record {
    serde_json::from_value(serde_json::json!({
        "id": "a-1", "name": "a", "state": "queued", "reason": "", "created_unix_ms": 5, "started_unix_ms": null,
        "finished_unix_ms": null, "processes": 2, "output_dir": "", "progress": null, "failure": null, "results": null,
        "spec": null,
    }))
    .unwrap()
}

fn state(state: JobState, reason: &str) -> EventBody {
    EventBody::State { state, reason: reason.into() }
}

/// The bodies of a history with a lost worker; each comes ten milliseconds after the one before.
fn history() -> Vec<EventBody> {
    let report = FailureReport::new(FailureCode::WorkerDied, "gone").of_rank(1);
    vec![
        state(JobState::Queued, "waiting for its turn"),
        state(JobState::Starting, "launching"),
        EventBody::Progress(Progress::new(Phase::Prepare, 0, 1)),
        state(JobState::Running, ""),
        EventBody::Progress(Progress::new(Phase::Train, 1, 9)),
        EventBody::Progress(Progress::new(Phase::Train, 4, 9)),
        EventBody::Note { rank: Some(1), text: "rank 1 is late".into() },
        state(JobState::Restarting, &report.to_string()),
        state(JobState::Starting, "restart 1 of 3, from the newest checkpoint"),
        EventBody::Progress(Progress::new(Phase::Train, 9, 9)),
        EventBody::Results { results: serde_json::json!({"exact": 50.0, "f1": 62.5}) },
        state(JobState::Succeeded, "done"),
    ]
}

fn observed(course: &mut Course, bodies: &[EventBody], first: u64) -> Vec<Span> {
    let numbered = (first..).zip(bodies);
    let event =
        |(sequence, body): (u64, &EventBody)| Event { sequence, unix_ms: sequence * 10, body: body.clone() };
    numbered.map(event).flat_map(|event| course.observe(&record(), &event)).collect()
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap()
}

#[test]
fn a_lost_worker_is_the_end_of_a_life_and_not_of_the_job() {
    let spans = observed(&mut Course::default(), &history(), 1);
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["queued", "prepare", "train", "generation 1", "train", "generation 2", "job a"]);
    let times: Vec<(u64, u64)> = spans.iter().map(|span| (span.begun, span.ended)).collect();
    assert_eq!(times, [(10, 20), (30, 50), (50, 80), (20, 80), (100, 120), (90, 120), (5, 120)]);
    let errors: Vec<Option<&str>> = spans.iter().map(|span| span.error.as_deref()).collect();
    assert_eq!(errors[3], Some("SQ-004 rank 1: gone"));
    assert!(errors.iter().enumerate().all(|(at, error)| at == 3 || error.is_none()), "{errors:?}");

    let job = named(&spans, "job a");
    assert_eq!(job.parent, None);
    for (key, value) in [
        ("squadron.generations", Value::Number(2)),
        ("squadron.f1", Value::Real(62.5)),
        ("squadron.job.state", text("succeeded")),
    ] {
        assert!(job.attributes.contains(&(key, value)), "{key}: {job:?}");
    }
    let life = named(&spans, "generation 1");
    assert_eq!((life.parent, life.trace), (Some(job.id), job.trace));
    let happened: Vec<&str> = life.events.iter().map(|event| event.name).collect();
    assert_eq!(happened, ["running", "note"]);
    assert_eq!(spans[2].parent, Some(life.id));
    assert!(spans[2].attributes.contains(&("squadron.done", Value::Number(4))));
    let mut ids: Vec<[u8; 8]> = spans.iter().map(|span| span.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), spans.len(), "each span has its own identifier");
}

#[test]
fn a_course_that_is_recalled_goes_on_with_the_same_trace() {
    let history = history();
    let whole = observed(&mut Course::default(), &history, 1);
    for cut in 0..history.len() {
        let (before, after) = history.split_at(cut);
        // What ended before the coordinator did was sent by it; the next one only reads it.
        let mut spans = observed(&mut Course::default(), before, 1);
        let mut recalled = Course::default();
        drop(observed(&mut recalled, before, 1));
        spans.extend(observed(&mut recalled, after, 1 + cut as u64));
        assert_eq!(spans, whole, "cut after {cut}");
    }
}

#[test]
fn a_failure_marks_the_life_and_the_job() {
    let report = FailureReport::new(FailureCode::NotFinite, "the loss is nan").of_rank(0);
    let reason = report.to_string();
    let bodies = [
        state(JobState::Queued, ""),
        state(JobState::Starting, ""),
        EventBody::Failure(report),
        state(JobState::Failed, &reason),
    ];
    let spans = observed(&mut Course::default(), &bodies, 1);
    for name in ["generation 1", "job a"] {
        assert_eq!(named(&spans, name).error.as_deref(), Some(reason.as_str()), "{name}");
    }
    assert!(named(&spans, "job a").attributes.contains(&("squadron.failure.code", text("SQ-007"))));
    let event = &named(&spans, "generation 1").events[0];
    assert_eq!((event.name, event.unix_ms), ("failure", 30));
}

#[test]
fn a_job_that_never_ran_has_waited_only() {
    let bodies = [state(JobState::Queued, ""), state(JobState::Cancelled, "asked to")];
    let spans = observed(&mut Course::default(), &bodies, 1);
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["queued", "job a"]);
}

#[test]
fn events_without_end_are_counted_and_not_kept() {
    let mut bodies = vec![state(JobState::Starting, "")];
    bodies.extend((0..200).map(|_| EventBody::Note { rank: None, text: "again".into() }));
    bodies.push(state(JobState::Cancelled, ""));
    let spans = observed(&mut Course::default(), &bodies, 1);
    assert_eq!((spans[0].events.len(), spans[0].dropped_events), (128, 72));
}
