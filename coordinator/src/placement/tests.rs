//! Single decisions, and whole lives of queues drawn by chance.

use proptest::prelude::*;
use serde_json::json;
use squad_proto::spec;

use super::*;

fn id(number: usize) -> JobId {
    JobId(format!("job-{number}"))
}

fn waiting(number: usize, priority: i32, need: Need) -> Waiting {
    Waiting { id: id(number), begun: false, priority, order: number as u64, need }
}

/// What is decided when nothing is held: for each job, in the order of the lines, its number and what becomes of it.
fn told(offer: Offer, free: Free, jobs: Vec<Waiting>) -> Vec<(String, String)> {
    let text = |verdict| match verdict {
        Verdict::Starts(grant) => format!("starts with {} slots, GPUs {:?}", grant.slots, grant.gpus),
        Verdict::Waits(wait) => wait.to_string(),
    };
    decide(offer, free, jobs).into_iter().map(|(id, verdict)| (id.0, text(verdict))).collect()
}

const SLOTS: Offer = Offer { slots: 4, gpus: None };
const BOTH: Offer = Offer { slots: 2, gpus: Some(4) };

fn named(gpus: &[u32]) -> Need {
    Need::Named(gpus.iter().copied().collect())
}

#[test]
fn the_greater_priority_is_first_and_then_the_older_job() {
    let jobs = vec![
        waiting(1, 0, Need::Slots(2)),
        waiting(2, 5, Need::Slots(1)),
        waiting(3, 5, Need::Slots(1)),
        waiting(4, -3, Need::Slots(1)),
        Waiting { begun: true, ..waiting(5, -9, Need::Slots(1)) },
    ];
    let order: Vec<String> = told(SLOTS, Free::all(SLOTS), jobs).into_iter().map(|(id, _)| id).collect();
    assert_eq!(order, ["job-5", "job-2", "job-3", "job-1", "job-4"], "what had begun goes on first");
}

#[test]
fn a_job_has_all_at_once_and_nobody_overtakes_it() {
    let mut free = Free::all(SLOTS);
    free.hold(&Grant { slots: 2, gpus: Vec::new() });
    let jobs = vec![
        waiting(1, 0, Need::Slots(3)),
        waiting(2, 0, Need::Slots(1)),
        waiting(3, 0, Need::Slots(2)),
        waiting(4, 0, Need::Nothing),
    ];
    let expected = [
        ("job-1", "waits for 3 slots, 2 are free"),
        ("job-2", "behind job-1, which waits for 3 slots, 2 are free"),
        ("job-3", "behind job-1, which waits for 3 slots, 2 are free; 2 jobs are before it"),
        ("job-4", "starts with 0 slots, GPUs []"),
    ];
    assert_eq!(told(SLOTS, free, jobs), expected.map(|(id, text)| (id.to_owned(), text.to_owned())));
}

#[test]
fn gpus_have_a_line_of_their_own_and_each_worker_one() {
    let mut free = Free::all(BOTH);
    free.hold(&Grant { slots: 0, gpus: vec![1] });
    let jobs = vec![
        waiting(1, 0, Need::Gpus(2)),
        waiting(2, 0, named(&[0, 1])),
        waiting(3, 0, Need::Gpus(1)),
        waiting(4, 0, Need::Slots(1)),
        waiting(5, 0, Need::Slots(2)),
    ];
    let expected = [
        ("job-1", "starts with 0 slots, GPUs [0, 2]"),
        ("job-2", "waits for GPUs 0 and 1, in use"),
        ("job-3", "behind job-2, which waits for GPUs 0 and 1, in use"),
        ("job-4", "starts with 1 slots, GPUs []"),
        ("job-5", "waits for 2 slots, 1 is free"),
    ];
    assert_eq!(told(BOTH, free, jobs), expected.map(|(id, text)| (id.to_owned(), text.to_owned())));
}

#[test]
fn what_can_never_be_met_holds_up_nobody_and_says_what_to_change() {
    let jobs = vec![
        waiting(1, 9, Need::Slots(3)),
        waiting(2, 9, Need::Gpus(5)),
        waiting(3, 9, named(&[7])),
        waiting(4, 0, Need::Slots(2)),
        waiting(5, 0, Need::Gpus(4)),
    ];
    let told = told(BOTH, Free::all(BOTH), jobs);
    let starts = ["starts with 2 slots, GPUs []", "starts with 0 slots, GPUs [0, 1, 2, 3]"];
    assert_eq!([told[3].1.as_str(), told[4].1.as_str()], starts);
    for (at, words) in [
        "wants 3 workers, but the coordinator has 2 slots; lower resources.workers or start it with --slots 3",
        "wants 5 GPUs, but the coordinator has 4; lower resources.workers, set resources.device to cpu, or start it with --gpus 5",
        "wants GPU 7, but the coordinator has 4 GPUs, numbered from 0; change resources.gpus, or start it with --gpus 8",
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(told[at].1, words);
    }
}

#[test]
fn a_spec_needs_gpus_where_they_are_counted_and_it_may_use_them() {
    let need = |resources: serde_json::Value, offer| {
        let text = json!({"name": "a", "model": "m", "data": {"dev": "d"}, "output_dir": "o", "resources": resources});
        Need::of(spec::validate(&text, "a test").unwrap().get(), (2, false), offer)
    };
    let none = Offer { slots: 2, gpus: Some(0) };
    assert_eq!(need(json!({}), BOTH), Need::Gpus(2));
    assert_eq!(need(json!({}), SLOTS), Need::Slots(2));
    assert_eq!(need(json!({}), none), Need::Slots(2), "auto takes the CPU where there is no GPU");
    assert_eq!(need(json!({"device": "cuda"}), none), Need::Gpus(2));
    assert_eq!(need(json!({"device": "cuda"}), SLOTS), Need::Slots(2), "GPUs are not counted");
    assert_eq!(need(json!({"device": "cpu"}), BOTH), Need::Slots(2));
    let listed = json!({"device": "cuda", "gpus": [3, 1, 0]});
    assert_eq!(need(listed, BOTH), named(&[1, 3]), "one for each of two workers");
}

/// Something that happens to a queue.
#[derive(Clone, Debug)]
enum Step {
    /// A job comes: its need and priority, and how long it will be at work.
    Comes(Need, i32, u64),
    /// So much time passes.
    Passes(u64),
    /// The coordinator ends, and another one comes with this.
    Restarts(Offer),
}

fn offers() -> impl Strategy<Value = Offer> {
    (1..6u32, prop::option::of(0..5u32)).prop_map(|(slots, gpus)| Offer { slots, gpus })
}

fn needs() -> impl Strategy<Value = Need> {
    prop_oneof![
        1 => Just(Need::Nothing),
        6 => (1..7u32).prop_map(Need::Slots),
        4 => (1..5u32).prop_map(Need::Gpus),
        2 => prop::collection::btree_set(0..5u32, 1..3).prop_map(Need::Named),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (needs(), -2..3i32, 1..8u64).prop_map(|(need, priority, lasts)| Step::Comes(need, priority, lasts)),
        4 => (1..4u64).prop_map(Step::Passes),
        1 => offers().prop_map(Step::Restarts),
    ];
    prop::collection::vec(step, 1..60)
}

/// A job of a queue's life.
struct Job {
    seat: Waiting,
    lasts: u64,
    /// What it has, and when it will be done.
    at_work: Option<(Grant, u64)>,
    done: bool,
}

/// A queue, its jobs, and the clock.
struct Life {
    offer: Offer,
    jobs: Vec<Job>,
    now: u64,
}

impl Life {
    fn free(&self) -> Free {
        let mut free = Free::all(self.offer);
        self.jobs.iter().filter_map(|job| job.at_work.as_ref()).for_each(|(grant, _)| free.hold(grant));
        free
    }

    fn waiting(&self) -> Vec<Waiting> {
        let waits = |job: &&Job| job.at_work.is_none() && !job.done;
        self.jobs.iter().filter(waits).map(|job| job.seat.clone()).collect()
    }

    fn takes(&mut self, step: Step) {
        match step {
            Step::Comes(need, priority, lasts) => {
                let seat = waiting(self.jobs.len(), priority, need);
                self.jobs.push(Job { seat, lasts, at_work: None, done: false });
            }
            Step::Passes(time) => {
                self.now += time;
                for job in &mut self.jobs {
                    if job.at_work.as_ref().is_some_and(|(_, until)| *until <= self.now) {
                        (job.at_work, job.done) = (None, true);
                    }
                }
            }
            Step::Restarts(offer) => {
                self.offer = offer;
                let mut free = Free::all(offer);
                let mut order: Vec<usize> = (0..self.jobs.len()).collect();
                order.sort_by_key(|at| (Reverse(self.jobs[*at].seat.priority), self.jobs[*at].seat.order));
                for at in order {
                    let job = &mut self.jobs[at];
                    if job.at_work.as_ref().is_some_and(|(had, _)| !free.give_back(&job.seat.need, had)) {
                        job.at_work = None;
                    }
                }
            }
        }
    }

    /// Starts those whose turn it is, and looks whether what must hold holds.
    fn schedules(&mut self) -> Result<(), TestCaseError> {
        let before = self.waiting();
        let (offer, first) = (self.offer, decide(self.offer, self.free(), before.clone()));
        prop_assert_eq!(first.len(), before.len(), "everybody has an answer");
        let seat = |id: &JobId| before.iter().find(|seat| seat.id == *id).unwrap().clone();
        let line = |need: &Need| matches!(need, Need::Gpus(_) | Need::Named(_));
        for (id, verdict) in &first {
            let Verdict::Starts(grant) = verdict else { continue };
            let started = seat(id);
            let as_needed = match &started.need {
                Need::Nothing => *grant == Grant::default(),
                Need::Slots(slots) => (grant.slots, grant.gpus.len()) == (*slots, 0),
                Need::Gpus(gpus) => (grant.slots, grant.gpus.len()) == (0, *gpus as usize),
                Need::Named(named) => grant.gpus.iter().copied().collect::<BTreeSet<u32>>() == *named,
            };
            prop_assert!(as_needed, "{id} needs {:?} and has {grant:?}", started.need);
            for (other, verdict) in &first {
                let other = seat(other);
                let place = |seat: &Waiting| (Reverse(seat.begun), Reverse(seat.priority), seat.order);
                let ahead = place(&other) < place(&started);
                let same_line = line(&other.need) == line(&started.need) && started.need != Need::Nothing;
                let could = other.need.beyond(offer).is_none() && other.need != Need::Nothing;
                let waits = matches!(verdict, Verdict::Waits(_));
                prop_assert!(!(ahead && same_line && could && waits), "{id} overtakes {}", other.id);
            }
            let job = self.jobs.iter_mut().find(|job| job.seat.id == *id).unwrap();
            job.at_work = Some((grant.clone(), self.now + job.lasts));
            job.seat.begun = true;
        }
        self.holds_no_more_than_there_is()?;
        let mut reasons = decide(self.offer, self.free(), self.waiting()).into_iter();
        prop_assert!(
            reasons.all(|(_, verdict)| matches!(verdict, Verdict::Waits(_))),
            "somebody could start"
        );
        Ok(())
    }

    fn holds_no_more_than_there_is(&self) -> Result<(), TestCaseError> {
        let grants = || self.jobs.iter().filter_map(|job| job.at_work.as_ref()).map(|(grant, _)| grant);
        let slots: u32 = grants().map(|grant| grant.slots).sum();
        prop_assert!(slots <= self.offer.slots, "{slots} of {:?}", self.offer);
        let mut gpus: Vec<u32> = grants().flat_map(|grant| grant.gpus.iter().copied()).collect();
        gpus.sort_unstable();
        let known = self.offer.gpus.unwrap_or(0);
        prop_assert!(
            gpus.iter().all(|gpu| *gpu < known) && gpus.is_sorted_by(|a, b| a < b),
            "{gpus:?} of {known}"
        );
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever comes and goes: no more is held than is there, a gang has all or nothing, nobody overtakes, nothing
    /// stands idle that the first of a line could have, and everybody has a turn.
    #[test]
    fn a_queue_keeps_its_promises(offer in offers(), steps in steps()) {
        let mut life = Life { offer, jobs: Vec::new(), now: 0 };
        for step in steps {
            life.takes(step);
            life.schedules()?;
        }
        let longest: u64 = life.jobs.iter().map(|job| job.lasts).sum();
        for _ in 0..longest {
            life.takes(Step::Passes(1));
            life.schedules()?;
        }
        for job in &life.jobs {
            let never = job.seat.need.beyond(life.offer).is_some();
            prop_assert!(job.done || never, "{} never had its turn", job.seat.id);
        }
    }
}
