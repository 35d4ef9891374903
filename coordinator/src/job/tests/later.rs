//! Jobs that outlive their coordinator, or some of their slots.

use super::*;

/// A later coordinator's machine for the job of this one.
fn recalled(machine: &Machine, slots: u32) -> Machine {
    let text = serde_json::to_string(machine.memory()).unwrap();
    let memory = serde_json::from_str(&text).unwrap();
    Machine::recall(slots, Deadlines::from_patience(PATIENCE), memory)
}

#[test]
fn a_job_is_taken_up_when_the_workers_of_the_life_before_are_gone() {
    let mut before = restartable();
    lose(&mut before, 3, at(5));
    before.step(Event::Tick, at(10));
    meet(&mut before, at(11));
    before.step(
        Event::Worker {
            generation: Generation(2),
            slot: 0,
            input: Input::Beat { phase: Phase::Train, done: 9 },
        },
        at(12),
    );

    let mut machine = recalled(&before, 2);
    let actions = machine.step(Event::TakeUp { left: vec![1], room: true }, at(0));
    assert_eq!(machine.state(), JobState::Restarting);
    assert!(actions.contains(&Action::Wake(at(32))), "who stays is killed: {actions:?}");
    let left =
        Event::Worker { generation: Generation(2), slot: 1, input: Input::Exited(Exit::Unseen, vec![]) };
    machine.step(left, at(3));
    let again = machine.step(Event::Tick, at(3));
    assert_eq!((machine.state(), machine.generation()), (JobState::Starting, Generation(3)));
    let [EventBody::State { reason, .. }] = records(&again)[..] else { panic!("{again:?}") };
    assert_eq!(reason, "taken up again by the coordinator, from the newest checkpoint");
    // One restart was used before; the coordinator's end used none.
    lose(&mut machine, 12, at(20));
    let again = machine.step(Event::Tick, at(30));
    let [EventBody::State { reason, .. }] = records(&again)[..] else { panic!("{again:?}") };
    assert_eq!(reason, "restart 2 of 3, from the newest checkpoint");
}

#[test]
fn what_was_settled_stays_so_in_a_later_coordinator() {
    let mut cancelled = restartable();
    cancelled.step(Event::Cancel, at(5));
    let mut machine = recalled(&cancelled, 2);
    machine.step(Event::TakeUp { left: vec![], room: true }, at(0));
    assert_eq!(machine.state(), JobState::Cancelled);

    // Its coordinator wrote down the wish, and died before it wrote down the end.
    let mut waiting = Machine::new(2, Deadlines::from_patience(PATIENCE), 3);
    waiting.step(Event::Cancel, at(5));
    let mut machine = recalled(&waiting, 2);
    let last = machine.step(Event::Start, at(0));
    assert!(machine.state() == JobState::Cancelled && records(&last).len() == last.len(), "{last:?}");

    let mut failed = restartable();
    failed.step(of(0, Input::Failure(FailureReport::new(FailureCode::NotFinite, "nan"))), at(5));
    let mut machine = recalled(&failed, 2);
    let last = machine.step(Event::TakeUp { left: vec![], room: true }, at(0));
    assert_eq!(machine.state(), JobState::Failed);
    assert_eq!(failure(&last).code, FailureCode::NotFinite);
}

#[test]
fn a_coordinator_that_comes_back_puts_its_jobs_into_the_queue() {
    let mut machine = restartable();
    machine.step(of(0, Input::Beat { phase: Phase::Train, done: 6 }), at(4));
    let actions = machine.step(Event::Shutdown { comes_back: true }, at(5));
    assert!(actions.iter().any(|a| matches!(a, Action::Send { order: Order::Stop { .. }, .. })));
    for slot in [1, 0] {
        machine.step(of(slot, Input::Stopped(7)), at(6));
    }
    machine.step(of(0, Input::Exited(Exit::Code(0), vec![])), at(7));
    let last = machine.step(of(1, Input::Exited(Exit::Code(0), vec![])), at(7));
    let [EventBody::State { state: JobState::Queued, reason }] = records(&last)[..] else {
        panic!("{last:?}")
    };
    assert_eq!(
        reason,
        "stopped after step 7, with a checkpoint; the job goes on from there when its turn comes"
    );
    let mut machine = recalled(&machine, 2);
    let again = machine.step(Event::Start, at(0));
    assert_eq!((machine.state(), machine.generation()), (JobState::Starting, Generation(2)));
    assert_eq!(again.iter().filter(|a| matches!(a, Action::Launch { .. })).count(), 2);
    assert!(machine.memory().trained);
}

#[test]
fn a_slot_that_is_gone_for_good_is_left_out_where_one_can_be_spared() {
    let mut machine = Machine::new(3, Deadlines::from_patience(PATIENCE), 3).with_fewest(2);
    machine.step(Event::Start, at(0));
    let mut now = 0;
    for life in 1..=2 {
        let failed = Event::Worker {
            generation: Generation(life),
            slot: 0,
            input: Input::LaunchFailed("no such program".into()),
        };
        now += 10;
        machine.step(failed, at(now));
        assert_eq!(machine.state(), JobState::Restarting, "life {life}");
        for slot in [1, 2] {
            let input = Input::Exited(Exit::Signal(15), vec![]);
            machine.step(Event::Worker { generation: Generation(life), slot, input }, at(now));
        }
        now += 10;
        let again = machine.step(Event::Tick, at(now));
        let launched: Vec<(u32, u32)> = again
            .iter()
            .filter_map(|a| if let Action::Launch { slot, rank } = a { Some((*slot, *rank)) } else { None })
            .collect();
        let expected: &[_] = if life == 1 { &[(0, 0), (1, 1), (2, 2)] } else { &[(1, 0), (2, 1)] };
        assert_eq!(launched, expected, "life {life}");
        if life == 2 {
            let [EventBody::State { reason, .. }] = records(&again)[..] else { panic!("{again:?}") };
            assert_eq!(reason, "slot 0 is gone for good: with 2 of 3 workers, from the start");
        }
    }
    // The smaller gang meets, and its rank 0 is slot 1.
    let life = Generation(3);
    let mut of = |slot, input| machine.step(Event::Worker { generation: life, slot, input }, at(now));
    assert!(of(0, Input::Hello { ring: "x".into() }).is_empty(), "who was left out is nobody");
    let assigned = of(1, Input::Hello { ring: "a".into() });
    assert!(assigned.contains(&Action::Send { slot: 1, order: Order::Assign { rank: 0, world: 2 } }));
    of(2, Input::Hello { ring: "b".into() });
    of(1, Input::Ready(Having::default()));
    let begun = of(2, Input::Ready(Having::default()));
    let peers = vec!["a".to_owned(), "b".to_owned()];
    assert!(
        begun.contains(&Action::Send { slot: 2, order: Order::Begin { peers, origin: None } }),
        "{begun:?}"
    );
    // No other one can be spared, whatever coordinator goes on.
    let mut machine = recalled(&machine, 3).with_fewest(2);
    machine.step(Event::TakeUp { left: vec![], room: true }, at(0));
    machine.step(Event::Tick, at(0));
    assert_eq!((machine.world(), machine.state()), (2, JobState::Starting));
}

#[test]
fn a_worker_that_lives_and_finishes_nothing_is_stalled() {
    let mut machine = running(1);
    for second in (5..=600).step_by(5) {
        machine.step(of(0, Input::Beat { phase: Phase::Train, done: 0 }), at(second));
        assert_eq!(machine.state(), JobState::Running, "after {second} s");
    }
    machine.step(of(0, Input::Beat { phase: Phase::Train, done: 1 }), at(601));
    for second in (605..=1201).step_by(4) {
        machine.step(of(0, Input::Beat { phase: Phase::Train, done: 1 }), at(second));
    }
    assert_eq!(machine.state(), JobState::Stopping);
}

#[test]
fn a_process_that_cannot_be_killed_is_told_of() {
    let mut machine = running(1);
    machine.step(Event::Cancel, at(5));
    assert!(machine.step(Event::Tick, at(37)).contains(&Action::Kill { slot: 0, hard: true }));
    let again = machine.step(Event::Tick, at(70));
    assert!(again.contains(&Action::Kill { slot: 0, hard: true }));
    let [EventBody::Note { text, .. }] = records(&again)[..] else { panic!("{again:?}") };
    assert!(text.contains("slot 0 does not end though it was killed"), "{text}");
}

#[test]
fn a_gang_that_ends_without_a_word_is_started_again() {
    let mut machine = restartable();
    machine.step(of(0, Input::Exited(Exit::Code(1), vec![])), at(5));
    machine.step(of(1, Input::Exited(Exit::Code(1), vec![])), at(5));
    assert_eq!(machine.state(), JobState::Restarting, "nobody is left to wait for");
}
