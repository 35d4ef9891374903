//! The world around a machine.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use squad_proto::{Deadlines, EventBody, FailureCode, FailureReport, Generation, JobState};

use super::checks::{Checks, hold, longest};
use super::life::Life;
use super::network::{Agenda, Happening};
use super::plan::Plan;
use super::process::{Doing, Process};
use crate::job::{Action, Event, Exit, Having, Held, Input, Machine, Memory, Order};

/// A world with one job.
pub(super) struct World {
    pub(super) rng: Xoshiro256PlusPlus,
    pub(super) plan: Plan,
    pub(super) deadlines: Deadlines,
    pub(super) now: Duration,
    pub(super) agenda: Agenda,
    pub(super) processes: Vec<Process>,
    /// The coordinator's machine and when it came; none while there is none.
    machine: Option<Machine>,
    came: Duration,
    /// Which coordinator it is, from 1.
    pub(super) coordinator: u64,
    /// It takes no more jobs.
    ending: bool,
    /// The coordinator's timer.
    timer: Option<Duration>,
    /// What is written down: survives every coordinator.
    stored: (Memory, JobState),
    /// The newest checkpoint; none before the folder is the job's.
    pub(super) disk: u64,
    checks: Checks,
    life: Life,
    told: bool,
}

impl World {
    /// The world of a seed.
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let plan = Plan::draw(&mut rng);
        let stored = (Memory::new(plan.max_restarts), JobState::Queued);
        let mut world = Self {
            deadlines: Deadlines::from_patience(plan.patience),
            rng,
            plan,
            now: Duration::ZERO,
            agenda: Agenda::default(),
            processes: Vec::new(),
            machine: None,
            came: Duration::ZERO,
            coordinator: 0,
            ending: false,
            timer: None,
            stored,
            disk: 0,
            checks: Checks::default(),
            life: Life::default(),
            told: false,
        };
        world.agenda.add(Duration::ZERO, Happening::Return);
        let plan = world.plan.clone();
        for (mean, what) in [
            (plan.death, Happening::Death),
            (plan.stall, Happening::Stall),
            (plan.preemption, Happening::Preemption),
            (plan.crash, Happening::Crash),
            (plan.shutdown, Happening::Shutdown),
        ] {
            world.again(mean, what);
        }
        if let Some(at) = plan.cancel {
            world.agenda.add(at, Happening::Cancel);
        }
        world
    }

    /// The same, which tells all that happens.
    pub(super) fn told(self) -> Self {
        println!("{:#?}", self.plan);
        Self { told: true, ..self }
    }

    /// Lets things happen until the job has ended.
    pub(super) fn run(mut self) -> Result<Life, String> {
        let limit = self.plan.faults_end + longest(&self.plan, &self.deadlines);
        while !self.stored.1.is_final() {
            let Some((at, what)) = self.agenda.next() else {
                return Err(format!("nothing happens any more in {}: {:#?}", self.stored.1, self.machine));
            };
            self.now = at;
            hold!(
                at <= limit,
                "still {} after {at:?}, {limit:?} should be enough: {:#?}\n{:#?}",
                self.stored.1,
                self.machine,
                self.processes.iter().filter(|p| p.lives()).collect::<Vec<_>>()
            );
            if self.told {
                println!("{:9.3} {what:?}", at.as_secs_f64());
            }
            self.happens(what)?;
        }
        match self.stored.1 {
            JobState::Succeeded => {
                self.life.succeeded += 1;
                hold!(self.disk == self.plan.steps, "succeeded with a checkpoint of step {}", self.disk);
            }
            JobState::Failed => self.life.failed += 1,
            _ => self.life.cancelled += 1,
        }
        self.life.smaller += u64::from(!self.stored.0.dropped.is_empty());
        Ok(self.life)
    }

    fn faulty(&self) -> bool {
        self.now < self.plan.faults_end
    }

    /// A time from now, most often soon.
    pub(super) fn soon(&mut self, seconds: f64) -> Duration {
        self.now + Duration::from_secs_f64(self.rng.random_range(0.0..seconds) + 1e-6)
    }

    /// Lets a fault happen, now and then until faults end.
    fn again(&mut self, mean: Duration, what: Happening) {
        if mean.is_zero() {
            return;
        }
        let at = self.now + mean.mul_f64(-self.rng.random_range(1e-9..1f64).ln());
        if at < self.plan.faults_end {
            self.agenda.add(at, what);
        }
    }

    fn happens(&mut self, what: Happening) -> Result<(), String> {
        let plan = self.plan.clone();
        match what {
            Happening::ToMachine { coordinator, event } if coordinator == self.coordinator => {
                return self.hears(event);
            }
            Happening::Timer { coordinator, at } => {
                if coordinator == self.coordinator && self.timer == Some(at) {
                    self.timer = None;
                    return self.hears(Event::Tick);
                }
            }
            Happening::Room { coordinator } if coordinator == self.coordinator => {
                if !self.ending {
                    return self.hears(Event::Start);
                }
            }
            Happening::Ended { coordinator } if coordinator == self.coordinator => self.leaves_the_scene(),
            Happening::ToMachine { .. } | Happening::Room { .. } | Happening::Ended { .. } => {}
            Happening::Death => {
                self.again(plan.death, Happening::Death);
                if let Some(victim) = self.any(|p| p.lives()) {
                    self.life.deaths += 1;
                    self.dies(victim, Exit::Signal(9));
                }
            }
            Happening::Stall => {
                self.again(plan.stall, Happening::Stall);
                if let Some(victim) = self.any(|p| p.lives()) {
                    self.life.stalls += 1;
                    self.processes[victim].frozen = true;
                }
            }
            Happening::Preemption => {
                self.again(plan.preemption, Happening::Preemption);
                if let Some(victim) = self.any(|p| p.lives()) {
                    self.signal(victim, false);
                }
            }
            Happening::Crash => {
                self.again(plan.crash, Happening::Crash);
                self.crash();
            }
            Happening::Shutdown => {
                self.again(plan.shutdown, Happening::Shutdown);
                if self.machine.is_some() && !self.ending {
                    self.life.shutdowns += 1;
                    self.ending = true;
                    return self.hears(Event::Shutdown { comes_back: true });
                }
            }
            Happening::Cancel => {
                if self.machine.is_some() {
                    return self.hears(Event::Cancel);
                }
            }
            Happening::Return => return self.comes(),
            other => self.process_happens(other),
        }
        Ok(())
    }

    /// Some process of which this holds.
    fn any(&mut self, holds: impl Fn(&Process) -> bool) -> Option<usize> {
        let found: Vec<usize> =
            self.processes.iter().enumerate().filter(|(_, p)| holds(p)).map(|(k, _)| k).collect();
        (!found.is_empty()).then(|| found[self.rng.random_range(0..found.len())])
    }

    /// The machine takes in an event, and what it decides is performed, unless the coordinator dies over it.
    fn hears(&mut self, event: Event) -> Result<(), String> {
        let Some(machine) = &mut self.machine else { return Ok(()) };
        let before = machine.clone();
        let now = self.now - self.came;
        let actions = machine.step(event.clone(), now);
        let after = machine.clone();
        self.checks.step((&before, &event), (&after, &actions), now)?;
        let fatal = self.faulty() && !self.plan.crash.is_zero() && self.rng.random_bool(0.002);
        let survives = if fatal { self.rng.random_range(0..=actions.len() + 1) } else { usize::MAX };
        if survives == 0 {
            self.crash();
            return Ok(());
        }
        self.stored.0 = after.memory().clone();
        if !actions.is_empty() || event == Event::Tick {
            self.timer = None;
        }
        // Once it is written down, and did not come too late.
        self.checks.cancelled |= event == Event::Cancel && after.memory().ending.is_some();
        let queued = actions
            .iter()
            .any(|action| matches!(action, Action::Record(EventBody::State { state: JobState::Queued, .. })));
        let mut recorded = false;
        for (number, action) in actions.into_iter().enumerate() {
            // What follows each other in the history is written down together.
            let together = recorded && matches!(action, Action::Record(_));
            recorded = matches!(action, Action::Record(_));
            if number + 1 >= survives && !together {
                self.crash();
                return Ok(());
            }
            if self.told {
                println!("          {action:?}");
            }
            self.checks.action(&action, (&after, &self.plan), &self.processes)?;
            self.perform(action, after.generation())?;
        }
        if self.ending && after.state() == JobState::Queued || after.state().is_final() {
            let coordinator = self.coordinator;
            self.agenda.add(self.now, Happening::Ended { coordinator });
        } else if queued {
            self.room();
        }
        Ok(())
    }

    fn perform(&mut self, action: Action, generation: Generation) -> Result<(), String> {
        match action {
            Action::Launch { slot, rank } => {
                if rank == 0 {
                    self.life.lives += 1;
                    self.checks.begins(self.disk)?;
                }
                let world = self.machine.as_ref().map_or(0, Machine::world);
                self.launch(generation, (slot, rank), world);
            }
            Action::Send { slot, order } => {
                let to = self
                    .processes
                    .iter()
                    .position(|p| p.generation == generation && p.slot == slot && p.session && p.lives());
                if let Some(process) = to {
                    for _ in 0..self.copies() {
                        let at = self.arrival();
                        self.agenda.add(at, Happening::ToProcess { process, order: order.clone() });
                    }
                }
            }
            Action::Kill { slot, hard } => {
                if let Some(process) = self.processes.iter().rposition(|p| p.slot == slot) {
                    let at = self.soon(0.01);
                    self.agenda.add(at, Happening::Signal { process, hard });
                }
            }
            Action::Record(EventBody::State { state, .. }) => self.stored.1 = state,
            Action::Record(_) => {}
            Action::Wake(at) => {
                let at = (self.came + at).max(self.now);
                self.timer = Some(at);
                self.agenda.add(at, Happening::Timer { coordinator: self.coordinator, at });
            }
        }
        Ok(())
    }

    fn launch(&mut self, generation: Generation, (slot, rank): (u32, u32), world: u32) {
        let bad = self.plan.bad_slot.filter(|(bad, since, _)| *bad == slot && self.now >= *since);
        let unlucky = self.faulty() && self.rng.random_bool(self.plan.launch_fails);
        if unlucky || bad.is_some_and(|(_, _, starts)| !starts) {
            let input = Input::LaunchFailed("no such program".into());
            let event = Event::Worker { generation, slot, input };
            self.agenda.add(self.now, Happening::ToMachine { coordinator: self.coordinator, event });
            return;
        }
        self.processes.push(Process {
            generation,
            slot,
            rank,
            world,
            doing: Doing::Starting,
            stop: false,
            frozen: false,
            waits_since: None,
            coordinator: self.coordinator,
            session: true,
            step: 0,
            writing: None,
        });
        let process = self.processes.len() - 1;
        let at = self.soon(1.0);
        self.agenda.add(at, Happening::Done { process });
        if bad.is_some() {
            let at = self.soon(5.0);
            self.agenda.add(at, Happening::Leaves { process, code: 3 });
        }
    }

    /// How often a message arrives.
    fn copies(&mut self) -> usize {
        if self.faulty() && self.rng.random_bool(self.plan.lost) {
            0
        } else if self.rng.random_bool(self.plan.doubled) {
            2
        } else {
            1
        }
    }

    fn arrival(&mut self) -> Duration {
        let late = self.faulty() && self.rng.random_bool(self.plan.late);
        let seconds = if late { self.plan.patience.as_secs_f64() } else { 0.01 };
        self.soon(seconds)
    }

    /// A process says something.
    pub(super) fn says(&mut self, process: usize, input: Input) {
        let from = &self.processes[process];
        if !from.session {
            return;
        }
        let (coordinator, generation, slot) = (from.coordinator, from.generation, from.slot);
        let copies = self.copies();
        for _ in 0..copies {
            let at = self.arrival();
            let event = Event::Worker { generation, slot, input: input.clone() };
            self.agenda.add(at, Happening::ToMachine { coordinator, event });
        }
    }

    /// A process ends; whoever started it, or watches it, sees that.
    pub(super) fn dies(&mut self, process: usize, exit: Exit) {
        let dead = &mut self.processes[process];
        if !dead.lives() {
            return;
        }
        dead.doing = Doing::Gone;
        let (generation, slot) = (dead.generation, dead.slot);
        let exit = if dead.coordinator == self.coordinator { exit } else { Exit::Unseen };
        let coordinator = self.coordinator;
        let at = self.soon(0.1);
        let event = Event::Worker { generation, slot, input: Input::Exited(exit, Vec::new()) };
        self.agenda.add(at, Happening::ToMachine { coordinator, event });
        for other in 0..self.processes.len() {
            let p = &self.processes[other];
            if p.generation == generation && p.doing == Doing::Training {
                let at = self.soon(0.2);
                self.agenda.add(at, Happening::RingBroke { process: other });
            }
        }
    }

    fn crash(&mut self) {
        if self.machine.is_some() {
            self.life.crashes += 1;
            self.leaves_the_scene();
        }
    }

    /// The coordinator is gone, and comes back some time.
    fn leaves_the_scene(&mut self) {
        self.machine = None;
        self.timer = None;
        // What is under way to it arrives nowhere.
        self.coordinator += 1;
        for process in 0..self.processes.len() {
            if self.processes[process].lives() {
                self.processes[process].session = false;
                let at = self.soon(0.01);
                self.agenda.add(at, Happening::LifelineEnds { process });
            }
        }
        if !self.stored.1.is_final() {
            let at = self.soon(self.plan.patience.as_secs_f64() * 1.5);
            self.agenda.add(at, Happening::Return);
        }
    }

    /// A coordinator comes, and goes on with the job.
    fn comes(&mut self) -> Result<(), String> {
        self.coordinator += 1;
        self.came = self.now;
        self.ending = false;
        let (memory, state) = self.stored.clone();
        let machine = Machine::recall(self.plan.slots, self.deadlines, memory);
        self.machine = Some(machine.with_fewest(self.plan.fewest));
        if state == JobState::Queued {
            self.room();
            return Ok(());
        }
        let left = self.processes.iter().filter(|p| p.lives()).map(|p| p.slot).collect();
        let room = self.rng.random_bool(0.9);
        self.hears(Event::TakeUp { left, room })
    }

    fn room(&mut self) {
        let at = self.soon(10.0);
        self.agenda.add(at, Happening::Room { coordinator: self.coordinator });
    }

    /// What a process finds that would come again, if it does.
    pub(super) fn finds_fault(&mut self) -> Option<FailureReport> {
        let found = self.faulty() && self.rng.random_bool(self.plan.not_finite);
        found.then(|| FailureReport::new(FailureCode::NotFinite, "the loss is NaN"))
    }

    /// What all ranks have alike.
    pub(super) fn having(&self) -> Having {
        let held = (self.disk > 0).then(|| Held { step: self.disk, identity: String::new() });
        Having { held, ..Having::default() }
    }
}

impl World {
    /// An order reaches a process.
    pub(super) fn obeys(&mut self, process: usize, order: &Order) {
        let now = self.now;
        let p = &mut self.processes[process];
        match order {
            Order::Assign { .. } if p.doing == Doing::Joining => {
                p.doing = Doing::Loading;
                let at = self.soon(4.0);
                self.agenda.add(at, Happening::Done { process });
            }
            Order::Begin { origin, .. } if p.doing == Doing::Ready => {
                p.doing = Doing::Training;
                p.step = origin.as_ref().map_or(0, |origin| origin.checkpoint.step);
                p.waits_since = Some(now);
                let generation = p.generation.0;
                let at = self.soon(1.0);
                self.agenda.add(at, Happening::Step { generation });
            }
            Order::Stop { .. } => self.asked_to_stop(process),
            _ => {}
        }
    }
}
