//! Lives of jobs whose workers something else places.

use squad_proto::{Deadlines, EventBody, FailureCode, FailureReport, JobState, Phase};

use super::tests::{PATIENCE, at, hello, of, ready, records};
use super::{Action, Event, Exit, Input, Machine, Order};

/// Two workers that something else places, in training.
fn attended() -> Machine {
    let mut machine = Machine::new(2, Deadlines::from_patience(PATIENCE), 3).attended();
    machine.step(Event::Start, at(0));
    for slot in 0..2 {
        machine.step(hello(slot), at(500));
        machine.step(ready(slot, "d"), at(501));
    }
    for slot in 0..2 {
        machine.step(of(slot, Input::Beat { phase: Phase::Train, done: 3 }), at(502));
    }
    machine
}

#[test]
fn workers_that_are_placed_elsewhere_are_waited_for_and_named_when_they_do_not_come() {
    assert_eq!(attended().state(), JobState::Running);
    let mut machine = Machine::new(3, Deadlines::from_patience(PATIENCE), 3).attended();
    machine.step(Event::Start, at(0));
    machine.step(hello(1), at(1));
    for second in (20..600).step_by(20) {
        machine.step(of(1, Input::Beat { phase: Phase::Prepare, done: 0 }), at(second));
    }
    machine.step(Event::Tick, at(600));
    assert_eq!(machine.state(), JobState::Stopping);
    for slot in 0..3 {
        machine.step(of(slot, Input::Exited(Exit::Lost, vec![])), at(601));
    }
    assert_eq!(machine.state(), JobState::Failed);
}

#[test]
fn a_lost_machine_costs_a_life_even_when_all_are_gone_at_once() {
    let mut machine = attended();
    machine
        .step(of(0, Input::Failure(FailureReport::new(FailureCode::Collective, "rank 1 is gone"))), at(510));
    machine.step(of(1, Input::Exited(Exit::Lost, vec![])), at(510));
    let actions = machine.step(of(0, Input::Exited(Exit::Code(1), vec![])), at(510));
    assert_eq!(machine.state(), JobState::Restarting);
    let why = records(&actions).into_iter().find_map(|body| match body {
        EventBody::State { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(why.unwrap().contains("rank 1 in train at step 3: the worker process was lost"));
}

#[test]
fn a_worker_that_is_asked_to_leave_is_replaced_and_costs_no_restart() {
    let mut machine = attended();
    machine.step(of(1, Input::Stopped(4)), at(510));
    machine.step(of(0, Input::Stopped(4)), at(510));
    assert_eq!(machine.state(), JobState::Restarting);
    for slot in 0..2 {
        machine.step(of(slot, Input::Exited(Exit::Code(0), vec![])), at(511));
    }
    let again = machine.step(Event::Tick, at(513));
    assert_eq!((machine.state(), machine.memory().trained), (JobState::Starting, true));
    assert_eq!(again.iter().filter(|a| matches!(a, Action::Launch { .. })).count(), 2);
    assert!(matches!(records(&again)[0], EventBody::State { reason, .. } if reason.starts_with("once more")));
}

#[test]
fn a_worker_that_comes_back_hears_what_it_missed() {
    let mut machine = attended();
    machine.step(Event::Cancel, at(510));
    let actions = machine.step(hello(1), at(511));
    assert!(matches!(&actions[0], Action::Send { slot: 1, order: Order::Stop { .. } }), "{actions:?}");
}
