//! Lives of jobs, without processes.

mod later;

use std::time::Duration;

use proptest::prelude::*;
use squad_proto::{Deadlines, EventBody, FailureCode, FailureReport, Generation, JobState, Phase, Progress};

use super::{Action, Event, Exit, Having, Input, Machine, Order};

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

fn machine(world: u32) -> Machine {
    Machine::new(world, Deadlines::from_patience(PATIENCE), 0)
}

pub(super) fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn of(slot: u32, input: Input) -> Event {
    Event::Worker { generation: Generation::FIRST, slot, input }
}

pub(super) fn hello(slot: u32) -> Event {
    of(slot, Input::Hello { ring: format!("127.0.0.1:{slot}") })
}

pub(super) fn ready(slot: u32, data: &str) -> Event {
    of(slot, Input::Ready(Having { data: data.into(), ..Having::default() }))
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

pub(super) fn records(actions: &[Action]) -> Vec<&EventBody> {
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
    assert!(begun.contains(&Action::Send { slot: 0, order: Order::Begin { peers, origin: None } }));
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
    assert!(machine.step(Event::Tick, at(35)).contains(&Action::Kill { slot: 0, hard: false }));
    assert!(machine.step(Event::Tick, at(37)).contains(&Action::Kill { slot: 0, hard: true }));
    machine.step(of(0, Input::Exited(Exit::Signal(9), vec![])), at(38));
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
    for wish in [Event::Cancel, Event::Shutdown { comes_back: false }, Event::Shutdown { comes_back: true }] {
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
            .prop_map(|d| Input::Ready(Having { data: d.into(), ..Having::default() })),
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

/// Runs a machine of three, restarted `max_restarts` times at most, through these events; then time passes, and all
/// processes end.
fn lives(max_restarts: u32, events: Vec<(Event, u64)>) -> Result<(), TestCaseError> {
    let mut machine = Machine::new(3, Deadlines::from_patience(PATIENCE), max_restarts);
    let mut now = Duration::ZERO;
    let (mut finals, mut causes, mut starts) = (0, 0, 0);
    let mut count = |actions: &[Action]| {
        for body in records(actions) {
            match body {
                EventBody::State { state, .. } if state.is_final() => finals += 1,
                EventBody::State { state: JobState::Starting, .. } => starts += 1,
                EventBody::Failure(_) => causes += 1,
                _ => {}
            }
        }
    };
    for (event, later) in events.into_iter().chain([(Event::Start, 0), (Event::Cancel, 0)]) {
        now += Duration::from_secs(later);
        let (before, life) = (machine.state(), machine.generation());
        let stale = matches!(&event, Event::Worker { generation, .. } if *generation != life);
        let actions = machine.step(event, now);
        if before.is_final() {
            prop_assert!(actions.is_empty() && machine.state() == before, "final states are final");
        }
        if stale {
            prop_assert!(actions.is_empty() && machine.state() == before, "stale messages change nothing");
        }
        let launches = actions.iter().filter(|a| matches!(a, Action::Launch { .. })).count();
        prop_assert!(launches == 0 || launches == 3, "a gang starts together");
        prop_assert!(machine.generation() == life || launches == 3, "a new life is a new gang");
        count(&actions);
    }
    // A stop was asked for: deadlines kill, and once the processes are gone the job has ended.
    for _ in 0..3 {
        now += Duration::from_secs(60);
        count(&machine.step(Event::Tick, now));
    }
    for slot in 0..3 {
        let input = Input::Exited(Exit::Signal(9), vec![]);
        count(&machine.step(Event::Worker { generation: machine.generation(), slot, input }, now));
    }
    prop_assert!(machine.state().is_final());
    prop_assert_eq!(finals, 1);
    prop_assert_eq!(causes, usize::from(machine.state() == JobState::Failed), "one root cause");
    prop_assert!(starts <= 1 + max_restarts, "{} lives, {} restarts allowed", starts, max_restarts);
    Ok(())
}

proptest! {
    #[test]
    fn whatever_happens_invariants_hold(
        max_restarts in 0u32..4,
        events in prop::collection::vec((any_event(), 0u64..20), 0..60),
    ) {
        lives(max_restarts, events)?;
    }
}

/// A running machine of two, with three restarts.
fn restartable() -> Machine {
    let mut machine = Machine::new(2, Deadlines::from_patience(PATIENCE), 3);
    machine.step(Event::Start, at(0));
    meet(&mut machine, at(1));
    machine
}

/// Takes the present life's workers to the beginning of the work.
fn meet(machine: &mut Machine, now: Duration) {
    let generation = machine.generation();
    for slot in 0..2 {
        let input = Input::Hello { ring: format!("127.0.0.1:{slot}") };
        machine.step(Event::Worker { generation, slot, input }, now);
    }
    for slot in 0..2 {
        machine.step(Event::Worker { generation, slot, input: Input::Ready(Having::default()) }, now);
    }
    assert_eq!(machine.state(), JobState::Running);
}

/// Rank 1 is killed at a step, rank 0 follows; gives what is done about the second end.
fn lose(machine: &mut Machine, step: u64, now: Duration) -> Vec<Action> {
    let generation = machine.generation();
    let inputs = [
        (1, Input::Beat { phase: Phase::Train, done: step }),
        (1, Input::Exited(Exit::Signal(9), vec!["last words".into()])),
        (0, Input::Exited(Exit::Signal(15), vec![])),
    ];
    let mut last = Vec::new();
    for (slot, input) in inputs {
        last = machine.step(Event::Worker { generation, slot, input }, now);
    }
    last
}

#[test]
fn a_lost_worker_is_a_new_life_after_a_while() {
    let mut machine = restartable();
    assert!(!machine.memory().trained);
    let generation = machine.generation();
    machine.step(of(1, Input::Beat { phase: Phase::Train, done: 17 }), at(5));
    let actions = machine.step(of(1, Input::Exited(Exit::Signal(9), vec![])), at(6));
    assert_eq!(machine.state(), JobState::Restarting);
    assert!(actions.contains(&Action::Kill { slot: 0, hard: false }), "the survivor ends");
    let [EventBody::State { reason, .. }] = records(&actions)[..] else { panic!("{actions:?}") };
    assert!(
        reason.starts_with("SQ-004 rank 1 in train at step 17:") && reason.contains("signal 9"),
        "{reason}"
    );
    let gone = machine.step(of(0, Input::Exited(Exit::Signal(15), vec![])), at(7));
    assert!(gone.contains(&Action::Wake(at(8))) && records(&gone).is_empty(), "{gone:?}");
    let again = machine.step(Event::Tick, at(8));
    assert_eq!((machine.state(), machine.generation()), (JobState::Starting, generation.next()));
    assert_eq!(again.iter().filter(|a| matches!(a, Action::Launch { .. })).count(), 2);
    let [EventBody::State { reason, .. }] = records(&again)[..] else { panic!("{again:?}") };
    assert_eq!(reason, "restart 1 of 3, from the newest checkpoint");
    assert!(machine.memory().trained);

    // Whoever is left of the old life changes nothing.
    assert!(
        machine.step(of(0, Input::Failure(FailureReport::new(FailureCode::Data, "x"))), at(9)).is_empty()
    );
    meet(&mut machine, at(10));
}

#[test]
fn a_life_lost_before_its_first_step_starts_from_the_start() {
    let mut machine = restartable();
    machine.step(of(1, Input::Exited(Exit::Signal(9), vec![])), at(6));
    machine.step(of(0, Input::Exited(Exit::Code(1), vec![])), at(6));
    let again = machine.step(Event::Tick, at(7));
    let [EventBody::State { reason, .. }] = records(&again)[..] else { panic!("{again:?}") };
    assert_eq!(reason, "restart 1 of 3, from the start");
    assert!(!machine.memory().trained, "the folder's checkpoints may be an older job's");
}

#[test]
fn the_budget_is_kept_and_the_last_cause_told() {
    let mut machine = restartable();
    for (step, second) in [(5, 10), (6, 20), (7, 30)] {
        lose(&mut machine, step, at(second));
        assert_eq!(machine.state(), JobState::Restarting);
        machine.step(Event::Tick, at(second + 5));
        meet(&mut machine, at(second + 6));
    }
    let last = lose(&mut machine, 8, at(40));
    assert_eq!(machine.state(), JobState::Failed);
    assert_eq!((failure(&last).step, failure(&last).rank), (Some(8), Some(1)));
}

#[test]
fn the_same_step_again_and_again_ends_with_the_first_cause() {
    let mut machine = restartable();
    for second in [10, 20] {
        lose(&mut machine, 5, at(second));
        machine.step(Event::Tick, at(second + 5));
        meet(&mut machine, at(second + 6));
    }
    let last = lose(&mut machine, 4, at(30));
    assert_eq!(machine.state(), JobState::Failed, "a restart is left, but it would not help");
    assert_eq!(failure(&last).step, Some(5), "{:?}", failure(&last));
    assert_eq!(failure(&last).stderr_tail, ["last words"]);
}

#[test]
fn what_would_come_again_is_not_tried_again() {
    let mut machine = restartable();
    machine.step(of(0, Input::Failure(FailureReport::new(FailureCode::NotFinite, "nan"))), at(5));
    assert_eq!(machine.state(), JobState::Stopping);
}

#[test]
fn a_cancel_ends_the_wait_for_a_new_life() {
    let mut waiting = restartable();
    lose(&mut waiting, 5, at(10));
    waiting.step(Event::Cancel, at(10));
    assert_eq!(waiting.state(), JobState::Cancelled);

    let mut ending = restartable();
    ending.step(of(1, Input::Exited(Exit::Signal(9), vec![])), at(10));
    ending.step(Event::Cancel, at(10));
    assert_eq!(ending.state(), JobState::Stopping);
    ending.step(of(0, Input::Exited(Exit::Signal(9), vec![])), at(11));
    assert_eq!(ending.state(), JobState::Cancelled);
}

#[test]
fn a_worker_that_was_asked_to_end_ends_the_job_with_a_checkpoint() {
    let mut machine = restartable();
    let actions = machine.step(of(1, Input::Stopped(7)), at(5));
    assert!(
        actions.iter().any(|a| matches!(a, Action::Send { slot: 0, order: Order::Stop { .. } })),
        "{actions:?}"
    );
    machine.step(of(0, Input::Stopped(7)), at(5));
    machine.step(of(0, Input::Exited(Exit::Code(0), vec![])), at(6));
    let last = machine.step(of(1, Input::Exited(Exit::Code(0), vec![])), at(6));
    assert_eq!(machine.state(), JobState::Cancelled);
    let [EventBody::State { reason, .. }] = records(&last)[..] else { panic!("{last:?}") };
    assert_eq!(reason, "stopped after step 7, with a checkpoint; --resume goes on from there");
}

#[test]
fn a_last_checkpoint_that_could_not_be_written_is_not_claimed() {
    let mut machine = restartable();
    machine.step(Event::Cancel, at(5));
    machine.step(of(1, Input::Stopped(7)), at(5));
    let full = FailureReport::new(FailureCode::Output, "the disk is full");
    machine.step(of(0, Input::Failure(full)), at(5));
    machine.step(of(0, Input::Exited(Exit::Code(1), vec![])), at(6));
    let last = machine.step(of(1, Input::Exited(Exit::Code(0), vec![])), at(6));
    assert_eq!(machine.state(), JobState::Cancelled);
    let [EventBody::State { reason, .. }] = records(&last)[..] else { panic!("{last:?}") };
    assert!(reason.contains("SQ-003") && reason.contains("the disk is full"), "{reason}");
    assert!(!reason.contains("--resume"), "{reason}");
}

#[test]
fn a_stop_of_an_earlier_life_is_not_claimed_by_a_later_one() {
    let mut machine = restartable();
    machine.step(of(1, Input::Exited(Exit::Signal(9), vec![])), at(5));
    // The survivor is told to stop, and can.
    machine.step(of(0, Input::Stopped(7)), at(5));
    machine.step(of(0, Input::Exited(Exit::Code(0), vec![])), at(6));
    machine.step(Event::Tick, at(20));
    assert_eq!(machine.state(), JobState::Starting);
    machine.step(Event::Cancel, at(21));
    let generation = machine.generation();
    let mut last = Vec::new();
    for slot in 0..2 {
        let input = Input::Exited(Exit::Signal(15), vec![]);
        last = machine.step(Event::Worker { generation, slot, input }, at(22));
    }
    let [EventBody::State { state: JobState::Cancelled, reason }] = records(&last)[..] else {
        panic!("{last:?}")
    };
    assert_eq!(reason, "all workers are gone");
}
