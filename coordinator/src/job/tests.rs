//! Lives of jobs, without processes.

use std::time::Duration;

use proptest::prelude::*;
use squad_proto::{Deadlines, EventBody, FailureCode, FailureReport, Generation, JobState, Phase, Progress};

use super::{Action, Event, Exit, Input, Machine, Order};

const PATIENCE: Duration = Duration::from_secs(60);

fn machine(world: u32) -> Machine {
    Machine::new(world, Deadlines::from_patience(PATIENCE))
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn of(slot: u32, input: Input) -> Event {
    Event::Worker { generation: Generation::FIRST, slot, input }
}

fn hello(slot: u32) -> Event {
    of(slot, Input::Hello { ring: format!("127.0.0.1:{slot}") })
}

fn ready(slot: u32, data: &str) -> Event {
    of(slot, Input::Ready { layout: "l".into(), data: data.into() })
}

fn running(world: u32) -> Machine {
    let mut machine = machine(world);
    machine.step(Event::Start, at(0));
    for slot in 0..world {
        machine.step(hello(slot), at(1));
    }
    for slot in 0..world {
        machine.step(ready(slot, "d"), at(2));
    }
    assert_eq!(machine.state(), JobState::Running);
    machine
}

fn records(actions: &[Action]) -> Vec<&EventBody> {
    actions.iter().filter_map(|a| if let Action::Record(body) = a { Some(body) } else { None }).collect()
}

fn failure(actions: &[Action]) -> &FailureReport {
    records(actions)
        .into_iter()
        .find_map(|body| if let EventBody::Failure(report) = body { Some(report) } else { None })
        .expect("a failure")
}

#[test]
fn begin_comes_when_all_are_ready() {
    let mut machine = machine(2);
    let launched = machine.step(Event::Start, at(0));
    assert_eq!(launched.iter().filter(|a| matches!(a, Action::Launch { .. })).count(), 2);
    let assigned = machine.step(hello(1), at(1));
    assert!(assigned.contains(&Action::Send { slot: 1, order: Order::Assign { rank: 1, world: 2 } }));
    machine.step(hello(0), at(1));
    machine.step(ready(0, "d"), at(2));
    assert_eq!(machine.state(), JobState::Starting);
    let begun = machine.step(ready(1, "d"), at(3));
    let peers = vec!["127.0.0.1:0".to_owned(), "127.0.0.1:1".to_owned()];
    assert!(begun.contains(&Action::Send { slot: 0, order: Order::Begin { peers } }));
}

#[test]
fn success_needs_results_and_clean_exits() {
    let mut machine = running(2);
    machine.step(of(0, Input::Completed(Some(serde_json::json!({"f1": 1})))), at(5));
    machine.step(of(1, Input::Completed(None)), at(5));
    machine.step(of(0, Input::Exited(Exit::Code(0), vec![])), at(6));
    let last = machine.step(of(1, Input::Exited(Exit::Code(0), vec![])), at(6));
    assert_eq!(machine.state(), JobState::Succeeded);
    assert!(matches!(records(&last)[..], [EventBody::Results { .. }, EventBody::State { .. }]));
}

#[test]
fn ranks_that_differ_do_not_begin() {
    let mut machine = machine(2);
    machine.step(Event::Start, at(0));
    for slot in 0..2 {
        machine.step(hello(slot), at(0));
    }
    machine.step(ready(0, "d"), at(1));
    machine.step(ready(1, "other"), at(1));
    assert_eq!(machine.state(), JobState::Stopping);
    machine.step(of(0, Input::Exited(Exit::Signal(15), vec![])), at(2));
    let last = machine.step(of(1, Input::Exited(Exit::Signal(15), vec![])), at(2));
    assert_eq!(failure(&last).code, FailureCode::Disagreement);
}

#[test]
fn a_killed_rank_is_the_cause_even_when_its_neighbour_speaks_first() {
    let mut machine = running(2);
    machine.step(of(1, Input::Beat { phase: Phase::Train, done: 17 }), at(5));
    let echo = FailureReport::new(FailureCode::Collective, "peer 1 is gone");
    machine.step(of(0, Input::Failure(echo)), at(6));
    assert_eq!(machine.state(), JobState::Running, "an echo waits for its cause");
    let actions = machine.step(of(1, Input::Exited(Exit::Signal(9), vec!["last words".into()])), at(6));
    assert!(actions.contains(&Action::Kill { slot: 0, hard: false }));
    let last = machine.step(of(0, Input::Exited(Exit::Code(1), vec![])), at(7));
    assert_eq!(machine.state(), JobState::Failed);
    let root = failure(&last);
    assert_eq!((root.rank, root.step, root.code), (Some(1), Some(17), FailureCode::WorkerDied));
    assert_eq!(root.stderr_tail, ["last words"]);
}

#[test]
fn an_echo_alone_is_believed_after_a_while() {
    let mut machine = running(2);
    machine.step(of(0, Input::Failure(FailureReport::new(FailureCode::Collective, "x"))), at(6));
    machine.step(Event::Tick, at(9));
    assert_eq!(machine.state(), JobState::Stopping);
}

#[test]
fn silence_is_a_stall_with_its_step() {
    let mut machine = running(2);
    for second in 3..32 {
        machine.step(of(0, Input::Beat { phase: Phase::Train, done: second }), at(second));
    }
    assert_eq!(machine.state(), JobState::Running);
    let actions = machine.step(Event::Tick, at(33));
    assert_eq!(machine.state(), JobState::Stopping, "rank 1 was silent for 30 s");
    assert!(actions.iter().any(|a| matches!(a, Action::Kill { slot: 1, .. })));
    let actions = machine.step(Event::Tick, at(36));
    assert!(actions.contains(&Action::Kill { slot: 1, hard: true }), "a stopped process needs SIGKILL");
}

#[test]
fn cancel_stops_then_kills_then_is_final() {
    let mut queued = machine(1);
    queued.step(Event::Cancel, at(0));
    assert_eq!(queued.state(), JobState::Cancelled);

    let mut machine = running(1);
    let actions = machine.step(Event::Cancel, at(5));
    assert!(actions.iter().any(|a| matches!(a, Action::Send { order: Order::Stop { .. }, .. })));
    assert!(machine.step(Event::Tick, at(21)).contains(&Action::Kill { slot: 0, hard: false }));
    assert!(machine.step(Event::Tick, at(23)).contains(&Action::Kill { slot: 0, hard: true }));
    machine.step(of(0, Input::Exited(Exit::Signal(9), vec![])), at(24));
    assert_eq!(machine.state(), JobState::Cancelled);
}

/// Takes a running machine of two to its end through these; gives the records of the last step.
fn end(events: Vec<Event>) -> (JobState, Vec<EventBody>) {
    let mut machine = running(2);
    let mut last = Vec::new();
    for event in events {
        last = machine.step(event, at(5));
    }
    (machine.state(), records(&last).into_iter().cloned().collect())
}

#[test]
fn a_cancel_after_all_completed_takes_no_results_away() {
    let completed = |slot| of(slot, Input::Completed((slot == 0).then(|| serde_json::json!({"f1": 1}))));
    let killed = |slot| of(slot, Input::Exited(Exit::Signal(15), vec![]));
    for wish in [Event::Cancel, Event::Shutdown] {
        // Before the processes are gone, and while the second rank's last words are on their way.
        for order in [[completed(0), completed(1), wish.clone()], [completed(0), wish.clone(), completed(1)]]
        {
            let (state, last) = end([&order[..], &[killed(1), killed(0)]].concat());
            assert_eq!(state, JobState::Succeeded, "{order:?}");
            assert!(
                matches!(&last[..], [EventBody::Results { results }, _] if results["f1"] == 1),
                "{last:?}"
            );
        }
    }
}

#[test]
fn a_cancel_that_stopped_a_rank_is_a_cancel() {
    let results = Some(serde_json::json!({"f1": 1}));
    let (state, last) = end(vec![
        of(0, Input::Completed(results)),
        Event::Cancel,
        of(1, Input::Stopped(3)),
        of(0, Input::Exited(Exit::Code(0), vec![])),
        of(1, Input::Exited(Exit::Code(0), vec![])),
    ]);
    assert_eq!((state, last.len()), (JobState::Cancelled, 1), "{last:?}");
}

#[test]
fn a_cancel_in_the_blame_window_leaves_no_timer_behind() {
    let mut machine = running(2);
    machine.step(of(0, Input::Failure(FailureReport::new(FailureCode::Collective, "x"))), at(6));
    machine.step(Event::Cancel, at(7));
    for action in machine.step(Event::Tick, at(9)) {
        assert!(
            !matches!(action, Action::Wake(when) if when <= at(9)),
            "a timer in the past would fire for ever"
        );
    }
}

#[test]
fn a_worker_that_never_arrives_fails_the_job() {
    let mut machine = machine(1);
    machine.step(Event::Start, at(0));
    machine.step(Event::Tick, at(61));
    assert_eq!(machine.state(), JobState::Stopping);
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        Just(Input::LaunchFailed("no".into())),
        Just(Input::Hello { ring: "r".into() }),
        prop_oneof![Just("d"), Just("d"), Just("e")]
            .prop_map(|d| Input::Ready { layout: "l".into(), data: d.into() }),
        Just(Input::Beat { phase: Phase::Train, done: 3 }),
        Just(Input::Progress(Progress::new(Phase::Train, 1, 2))),
        Just(Input::Failure(FailureReport::new(FailureCode::Collective, "echo"))),
        Just(Input::Failure(FailureReport::new(FailureCode::NotFinite, "nan"))),
        Just(Input::Completed(Some(serde_json::json!({})))),
        Just(Input::Stopped(1)),
        Just(Input::SessionClosed),
        Just(Input::Exited(Exit::Code(0), vec![])),
        Just(Input::Exited(Exit::Signal(9), vec![])),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => Just(Event::Start),
        1 => Just(Event::Cancel),
        2 => Just(Event::Tick),
        12 => (1u32..3, 0u32..4, any_input()).prop_map(|(generation, slot, input)| Event::Worker {
            generation: Generation(generation), slot, input
        }),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_invariants_hold(events in prop::collection::vec((any_event(), 0u64..20), 0..60)) {
        let mut machine = machine(3);
        let mut now = Duration::ZERO;
        let mut finals = 0;
        let mut causes = 0;
        for (event, later) in events.into_iter().chain([(Event::Start, 0), (Event::Cancel, 0)]) {
            now += Duration::from_secs(later);
            let before = machine.state();
            let stale = matches!(&event, Event::Worker { generation, .. } if *generation != Generation::FIRST);
            let actions = machine.step(event, now);
            if before.is_final() {
                prop_assert!(actions.is_empty() && machine.state() == before, "final states are final");
            }
            if stale {
                prop_assert!(actions.is_empty() && machine.state() == before, "stale messages change nothing");
            }
            for body in records(&actions) {
                match body {
                    EventBody::State { state, .. } if state.is_final() => finals += 1,
                    EventBody::Failure(_) => causes += 1,
                    _ => {}
                }
            }
        }
        // A stop was asked for: deadlines kill, and once the processes are gone the job has ended.
        for _ in 0..3 {
            now += Duration::from_secs(60);
            machine.step(Event::Tick, now);
        }
        for slot in 0..3 {
            let actions = machine.step(of(slot, Input::Exited(Exit::Signal(9), vec![])), now);
            for body in records(&actions) {
                match body {
                    EventBody::State { state, .. } if state.is_final() => finals += 1,
                    EventBody::Failure(_) => causes += 1,
                    _ => {}
                }
            }
        }
        prop_assert!(machine.state().is_final());
        prop_assert_eq!(finals, 1);
        prop_assert_eq!(causes, usize::from(machine.state() == JobState::Failed), "one root cause");
    }
}
