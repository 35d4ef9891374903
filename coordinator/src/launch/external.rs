//! Workers that mpirun, Slurm or Kubernetes place.
//!
//! The coordinator starts no process and sends no signal: it tells the attendant of a slot, which is there or will
//! come. What an attendant is to start waits for it.

use squad_proto::{Generation, JobState, pb};
use tokio::sync::mpsc::UnboundedSender;
use tonic::Status;

/// How an attendant is told something.
pub(crate) type ToAttendant = UnboundedSender<Result<pb::ToAttendant, Status>>;

/// An attendant that wants a slot.
#[derive(Clone)]
pub(crate) struct Attendant {
    /// Tells its process from any other.
    pub(crate) instance: String,
    /// Its machine's name.
    pub(crate) host: String,
    /// Its process id there.
    pub(crate) pid: u32,
    /// The slot's number among those of its host.
    pub(crate) local_rank: u32,
    /// The life whose worker it runs, if it runs one.
    pub(crate) running: Option<Generation>,
    /// The way to it.
    pub(crate) outbound: ToAttendant,
}

/// A worker that is to run in a slot.
struct Wanted {
    generation: Generation,
    ticket_json: String,
    /// An attendant was told.
    told: bool,
}

/// One slot.
#[derive(Default)]
struct Slot {
    attendant: Option<Attendant>,
    wanted: Option<Wanted>,
}

/// The attendants of one job, by slot.
pub(crate) struct Attendants {
    slots: Vec<Slot>,
}

impl Attendants {
    /// None is there yet.
    pub(crate) fn new(world: u32) -> Self {
        Self { slots: (0..world).map(|_| Slot::default()).collect() }
    }

    /// Lets an attendant take its slot, and tells it what it has missed.
    ///
    /// # Errors
    /// When the launcher's view of the job is another one, or somebody else has the slot.
    pub(crate) fn enlist(&mut self, slot: u32, world: u32, attendant: Attendant) -> Result<(), Status> {
        let expected = self.slots.len();
        if world as usize != expected {
            return Err(Status::failed_precondition(format!(
                "the job has {expected} workers, but the launcher started {world}; start {expected}, or submit the \
                 job with -np {world}"
            )));
        }
        let Some(place) = self.slots.get_mut(slot as usize) else {
            return Err(Status::failed_precondition(format!(
                "the job has ranks 0 to {}, not {slot}",
                expected.saturating_sub(1)
            )));
        };
        if let Some(present) = place.attendant.as_ref().filter(|a| a.instance != attendant.instance) {
            // Not a failed precondition: the present one may be gone soon, and is waited for.
            return Err(Status::already_exists(format!(
                "rank {slot} is taken by process {} on {}",
                present.pid, present.host
            )));
        }
        if let Some(wanted) = &mut place.wanted {
            wanted.told = attendant.running == Some(wanted.generation);
        }
        place.attendant = Some(attendant);
        place.tell();
        Ok(())
    }

    /// The connection to an attendant is gone. Whether a worker may be gone with it that was told to run.
    pub(crate) fn lost(&mut self, slot: u32, instance: &str) -> bool {
        let Some(place) = self.slots.get_mut(slot as usize) else { return false };
        if place.attendant.as_ref().is_none_or(|a| a.instance != instance) {
            return false;
        }
        place.attendant = None;
        place.wanted.as_ref().is_some_and(|wanted| wanted.told)
    }

    /// Whether a worker was told to run whose attendant is not there any more.
    pub(crate) fn is_orphan(&self, slot: u32) -> bool {
        self.slots.get(slot as usize).is_some_and(|place| {
            place.attendant.is_none() && place.wanted.as_ref().is_some_and(|wanted| wanted.told)
        })
    }

    /// Has a worker started, now or once an attendant is there.
    pub(crate) fn start(&mut self, slot: u32, generation: Generation, ticket_json: String) {
        if let Some(place) = self.slots.get_mut(slot as usize) {
            place.wanted = Some(Wanted { generation, ticket_json, told: false });
            place.tell();
        }
    }

    /// Has a worker killed; false when nobody is there who could.
    pub(crate) fn kill(&mut self, slot: u32, generation: Generation, hard: bool) -> bool {
        let Some(place) = self.slots.get_mut(slot as usize) else { return false };
        let told = place.wanted.as_ref().is_some_and(|wanted| wanted.told);
        let Some(attendant) = place.attendant.as_ref().filter(|_| told) else {
            // Nobody is to start it any more.
            place.wanted = None;
            return false;
        };
        let kill = pb::KillWorker { generation: generation.0, hard };
        attendant.tell(pb::to_attendant::Body::Kill(kill));
        true
    }

    /// A worker's end is known.
    pub(crate) fn gone(&mut self, slot: u32, with_its_attendant: bool) {
        if let Some(place) = self.slots.get_mut(slot as usize) {
            place.wanted = None;
            if with_its_attendant {
                // It does not answer: whoever comes in its place is welcome.
                place.attendant = None;
            }
        }
    }

    /// The slot's number among those of its host, as far as its attendant said.
    pub(crate) fn local_rank(&self, slot: u32) -> Option<u32> {
        self.slots.get(slot as usize)?.attendant.as_ref().map(|a| a.local_rank)
    }

    /// Tells all that the job has ended.
    pub(crate) fn end(&self, state: JobState, reason: &str) {
        for attendant in self.slots.iter().filter_map(|place| place.attendant.as_ref()) {
            attendant.tell(ended(state, reason));
        }
    }
}

/// What an attendant hears of a job in its final state.
pub(crate) fn ended(state: JobState, reason: &str) -> pb::to_attendant::Body {
    let state = pb::JobState::from(state).into();
    pb::to_attendant::Body::Ended(pb::JobEnded { state, reason: reason.into() })
}

impl Attendant {
    fn tell(&self, body: pb::to_attendant::Body) {
        // One that is gone is followed by the end of its stream.
        self.outbound.send(Ok(pb::ToAttendant { body: Some(body) })).ok();
    }
}

impl Slot {
    fn tell(&mut self) {
        if let (Some(attendant), Some(wanted)) = (&mut self.attendant, &mut self.wanted)
            && !wanted.told
        {
            wanted.told = true;
            attendant.running = Some(wanted.generation);
            attendant.tell(pb::to_attendant::Body::Start(pb::StartWorker {
                generation: wanted.generation.0,
                ticket_json: wanted.ticket_json.clone(),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
    use tonic::Code;

    type Heard = UnboundedReceiver<Result<pb::ToAttendant, Status>>;

    fn attendant(instance: &str, running: Option<u32>) -> (Attendant, Heard) {
        let (outbound, heard) = unbounded_channel();
        let running = running.map(Generation);
        let (host, instance) = (format!("host-of-{instance}"), instance.to_owned());
        (Attendant { instance, host, pid: 7, local_rank: 0, running, outbound }, heard)
    }

    fn next(heard: &mut Heard) -> Option<pb::to_attendant::Body> {
        heard.try_recv().ok().and_then(|message| message.unwrap().body)
    }

    fn started(heard: &mut Heard) -> Option<u32> {
        match next(heard) {
            Some(pb::to_attendant::Body::Start(start)) => Some(start.generation),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_worker_is_started_once_whoever_comes_first() {
        let mut all = Attendants::new(2);
        let (a, mut heard) = attendant("a", None);
        all.start(0, Generation(1), "ticket".into());
        all.enlist(0, 2, a.clone()).unwrap();
        assert_eq!((started(&mut heard), started(&mut heard)), (Some(1), None));
        assert!(all.lost(0, "a") && all.is_orphan(0));
        // It comes back with the worker, then without: only then the worker is to be started again.
        all.enlist(0, 2, Attendant { running: Some(Generation(1)), ..a.clone() }).unwrap();
        assert!(!all.is_orphan(0));
        assert_eq!(started(&mut heard), None);
        all.enlist(0, 2, a).unwrap();
        assert_eq!(started(&mut heard), Some(1));

        let (b, mut heard) = attendant("b", None);
        all.enlist(1, 2, b).unwrap();
        assert_eq!(started(&mut heard), None);
        all.start(1, Generation(3), "ticket".into());
        assert_eq!(started(&mut heard), Some(3));
        all.end(JobState::Succeeded, "done");
        assert!(matches!(next(&mut heard), Some(pb::to_attendant::Body::Ended(_))));
    }

    #[test]
    fn a_slot_has_one_attendant_until_that_is_gone() {
        let mut all = Attendants::new(2);
        let (a, _heard) = attendant("a", None);
        let (b, mut heard) = attendant("b", None);
        all.enlist(1, 2, a).unwrap();
        let refused = all.enlist(1, 2, b.clone()).unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists);
        assert!(refused.message().contains("process 7 on host-of-a"), "{refused}");
        assert_eq!(all.enlist(2, 2, b.clone()).unwrap_err().code(), Code::FailedPrecondition);
        assert!(all.enlist(1, 4, b.clone()).unwrap_err().message().contains("-np 4"));
        assert!(!all.lost(1, "b"), "another one's end is nobody's");
        all.start(1, Generation(2), "ticket".into());
        // Declared lost: nothing more is heard of it.
        all.gone(1, true);
        all.start(1, Generation(3), "ticket".into());
        all.enlist(1, 2, b).unwrap();
        assert_eq!(started(&mut heard), Some(3));
    }

    #[test]
    fn what_was_not_started_needs_no_killing() {
        let mut all = Attendants::new(1);
        all.start(0, Generation(1), "ticket".into());
        assert!(!all.kill(0, Generation(1), false));
        let (a, mut heard) = attendant("a", None);
        all.enlist(0, 1, a).unwrap();
        assert_eq!(started(&mut heard), None, "nor is it started afterwards");
        all.start(0, Generation(2), "ticket".into());
        assert!(all.kill(0, Generation(2), true));
        assert_eq!(started(&mut heard), Some(2));
        assert!(matches!(next(&mut heard), Some(pb::to_attendant::Body::Kill(kill)) if kill.hard));
    }
}
