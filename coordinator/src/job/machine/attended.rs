//! What is different when something else places the workers: mpirun, Slurm, Kubernetes.

use std::time::Duration;

use squad_proto::JobState;

use super::{Action, Cause, Machine};

/// The wait before the life after one that ended in good order. Fixed: nobody is waited for, it keeps lives apart.
const FIRST_WAIT: Duration = Duration::from_secs(1);

impl Machine {
    /// The same job with workers that something else places. They are waited for longer, and a worker that was asked
    /// to leave does not end the job: its place will be taken.
    pub fn attended(mut self) -> Self {
        self.attended = true;
        self.deadlines.hello = self.deadlines.gather;
        self
    }

    /// Somebody asked a worker to stop, not us: its machine is wanted back, say. The others follow it.
    pub(in crate::job) fn left(&mut self, rank: u32, now: Duration, actions: &mut Vec<Action>) {
        let reason = format!("rank {rank} was asked to end by SIGTERM");
        if !self.attended {
            self.cancel(&reason, now, actions);
            return;
        }
        self.cause = Some(Cause::Restart(FIRST_WAIT));
        // Without a failure: it costs no restart.
        self.next_life = "once more".into();
        self.enter(
            JobState::Restarting,
            format!("{reason}; another one in its place is waited for"),
            actions,
        );
        self.stop_all(&reason, actions);
        self.term_at = Some(now + self.deadlines.stop_grace);
        self.kill_at = Some(now + self.deadlines.kill_after());
    }

    /// Which workers did not come.
    pub(in crate::job) fn absence(&self, now: Duration) -> String {
        let absent = self.workers.iter().enumerate().filter(|(_, worker)| worker.ring.is_none());
        let ranks: Vec<String> = absent.map(|(rank, _)| rank.to_string()).collect();
        let waited = (now - self.started).as_secs();
        format!(
            "of {} workers these ranks did not come within {waited} s: {}",
            self.workers.len(),
            ranks.join(", ")
        )
    }
}
