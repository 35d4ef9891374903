//! What processes do by themselves, and together.

use std::time::Duration;

use squad_proto::{FailureCode, FailureReport, Progress};

use super::network::Happening;
use super::process::Doing;
use super::world::World;
use crate::job::{Exit, Input};

impl World {
    /// Something happens at a process, or in a gang.
    pub(super) fn process_happens(&mut self, what: Happening) {
        match what {
            Happening::Step { generation } => self.steps(generation),
            Happening::Signal { process, hard } => self.signal(process, hard),
            Happening::ToProcess { process, .. }
            | Happening::Done { process }
            | Happening::Beat { process }
            | Happening::Written { process, .. }
            | Happening::RingBroke { process }
            | Happening::LifelineEnds { process }
            | Happening::Leaves { process, .. }
                if !self.processes[process].lives() || self.processes[process].frozen => {}
            Happening::ToProcess { process, order } => self.obeys(process, &order),
            Happening::Done { process } => self.done(process),
            Happening::Beat { process } => self.beats(process),
            Happening::Written { process, step } => self.written(process, step),
            Happening::RingBroke { process } => self.ring_broke(process),
            Happening::LifelineEnds { process } => self.asked_to_stop(process),
            Happening::Leaves { process, code } => self.dies(process, Exit::Code(code)),
            _ => {}
        }
    }

    fn done(&mut self, process: usize) {
        match self.processes[process].doing {
            Doing::Starting => {
                if !self.processes[process].session {
                    // Nobody answers.
                    self.leaves(process, 1);
                    return;
                }
                self.processes[process].doing = Doing::Joining;
                let ring = format!("127.0.0.1:{process}");
                self.says(process, Input::Hello { ring });
                self.agenda.add(self.now, Happening::Beat { process });
            }
            Doing::Loading => {
                self.processes[process].doing = Doing::Ready;
                let having = self.having();
                self.says(process, Input::Ready(having));
            }
            _ => {}
        }
    }

    fn beats(&mut self, process: usize) {
        let p = &self.processes[process];
        let (phase, done) = p.position();
        // A rank that waits for another in a step loses patience.
        let late = p.doing == Doing::Training
            && p.waits_since.is_some_and(|since| since + self.deadlines.collective < self.now);
        self.says(process, Input::Beat { phase, done });
        if late {
            self.ring_broke(process);
        }
        self.agenda.add(self.now + self.deadlines.beat, Happening::Beat { process });
    }

    /// All of a gang that can take a step take it; it cannot if one is missing.
    fn steps(&mut self, generation: u32) {
        let gang: Vec<usize> = (0..self.processes.len())
            .filter(|k| self.processes[*k].generation.0 == generation)
            .filter(|k| self.processes[*k].doing == Doing::Training && !self.processes[*k].frozen)
            .collect();
        let Some(first) = gang.first().map(|k| &self.processes[*k]) else { return };
        if (gang.len() as u32) < first.world || first.waits_since.is_none() {
            return;
        }
        // A life may begin at the last one: then only its results are missing.
        let step = (first.step + 1).min(self.plan.steps);
        let stop = gang.iter().any(|k| self.processes[*k].stop);
        let last = step >= self.plan.steps;
        for process in gang.iter().copied() {
            self.processes[process].step = step;
            self.processes[process].waits_since = Some(self.now);
        }
        if let Some(report) = self.finds_fault() {
            for process in gang {
                self.says(process, Input::Failure(report.clone()));
                self.leaves(process, 1);
            }
            return;
        }
        let writes = last || stop || step.is_multiple_of(self.plan.checkpoint_every);
        for process in gang.iter().copied() {
            if self.processes[process].rank == 0 && writes {
                // One at a time; the last is waited for.
                self.processes[process].writing = Some(step);
                let at = self.soon(2.0);
                self.agenda.add(at, Happening::Written { process, step });
            } else if self.processes[process].rank != 0 && (last || stop) {
                let said = if last { Input::Completed(None) } else { Input::Stopped(step) };
                self.says(process, said);
                self.leaves(process, 0);
            }
            if last || stop {
                self.processes[process].doing = Doing::Ending;
            }
        }
        if let Some(leader) = gang.iter().copied().find(|k| self.processes[*k].rank == 0) {
            self.says(
                leader,
                Input::Progress(Progress::new(squad_proto::Phase::Train, step, self.plan.steps)),
            );
        }
        if !last && !stop {
            let at = self.now + Duration::from_millis(200) + (self.soon(1.5) - self.now);
            self.agenda.add(at, Happening::Step { generation });
        }
    }

    fn written(&mut self, process: usize, step: u64) {
        self.disk = self.disk.max(step);
        let p = &self.processes[process];
        if p.doing == Doing::Ending && p.writing == Some(step) {
            let last = step >= self.plan.steps;
            let said =
                if last { Input::Completed(Some(serde_json::json!({}))) } else { Input::Stopped(step) };
            self.says(process, said);
            self.leaves(process, 0);
        }
    }

    fn ring_broke(&mut self, process: usize) {
        if self.processes[process].doing == Doing::Training {
            self.processes[process].doing = Doing::Ending;
            let report = FailureReport::new(FailureCode::Collective, "a connection ended");
            self.says(process, Input::Failure(report));
            self.leaves(process, 1);
        }
    }

    /// A process is asked to stop: at a step that all agree on, or at once if it has not begun.
    pub(super) fn asked_to_stop(&mut self, process: usize) {
        let p = &mut self.processes[process];
        p.stop = true;
        match p.doing {
            Doing::Training => {
                if !p.session {
                    // It waits for a step no longer than it is given.
                    let at = self.now + self.deadlines.stop_grace;
                    self.agenda.add(at, Happening::Leaves { process, code: 1 });
                }
            }
            Doing::Ending | Doing::Gone => {}
            _ => {
                p.doing = Doing::Ending;
                self.says(process, Input::Stopped(0));
                self.leaves(process, 0);
            }
        }
    }

    /// Ends a little later.
    fn leaves(&mut self, process: usize, code: i32) {
        let at = self.soon(0.1);
        self.agenda.add(at, Happening::Leaves { process, code });
    }

    /// SIGTERM or SIGKILL.
    pub(super) fn signal(&mut self, process: usize, hard: bool) {
        if hard {
            self.dies(process, Exit::Signal(9));
        } else if self.processes[process].lives() && !self.processes[process].frozen {
            self.asked_to_stop(process);
        }
    }
}
