//! Waiting for the other ranks, and what ends the wait.

use std::time::{Duration, Instant};

use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity, sched_yield};

use super::control::Head;
use super::rounds::{arrive, doze, has_arrived, is_complete};
use super::{Outside, Shm};
use crate::error::{CollectiveError, Operation, Scene};
use crate::frame::Notice;
use crate::link::Neighbour;

/// Longest sleep without a look whether the neighbours live. Fixed: it only paces looks.
const SLICE: Duration = Duration::from_millis(10);

/// Longest wait without sleep for ranks that have yet to begin an operation: they may be far from it. Fixed,
/// as the next one: the wait goes on after it, asleep.
const SPIN_BEFORE: Duration = Duration::from_micros(50);

/// Longest wait without sleep for ranks that are in the middle of an operation, and so will be there soon.
const SPIN_WITHIN: Duration = Duration::from_millis(1);

/// How long a gang goes without a look at its connections that never has to wait for anybody. Fixed: it only paces looks.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// How many looks at the other ranks' words there are between two at the clock.
const LOOKS: usize = 64;

impl Shm {
    /// The number of the round that comes next.
    pub(super) fn next_round(&self) -> u32 {
        self.round.wrapping_add(1)
    }

    /// The first round of an operation: all ranks say what they do, and it must be the same.
    pub(super) fn meet(&mut self) -> Result<(), CollectiveError> {
        self.control.announce(self.rank, self.next_round(), &self.head);
        self.arrive(SPIN_BEFORE)?;
        for peer in (0..self.world).filter(|peer| *peer != self.rank) {
            let Some(theirs) = self.control.announced(peer, self.round) else {
                let detail = "no operation of ours is announced".to_owned();
                return Err(CollectiveError::Garbage { scene: self.scene(peer), detail });
            };
            if !self.agrees(&theirs) {
                let detail = format!("here {}, there {}", self.head.describe(), theirs.describe());
                return Err(CollectiveError::Disagreement { scene: self.scene(peer), detail });
            }
        }
        Ok(())
    }

    /// Everybody gathers as many bytes as it likes; all else must be equal.
    fn agrees(&self, theirs: &Head) -> bool {
        let mut due = self.head;
        if due.call.operation == Operation::GatherBytes {
            due.call.total = theirs.call.total;
        }
        due == *theirs
    }

    /// The size that `rank` announced in the round that was just completed.
    pub(super) fn announced_total(&self, rank: usize) -> u64 {
        self.control.announced(rank, self.round).map_or(u64::MAX, |head| head.call.total)
    }

    /// Arrives in the next round and waits until all ranks have.
    pub(super) fn round(&mut self) -> Result<(), CollectiveError> {
        self.arrive(SPIN_WITHIN)
    }

    fn arrive(&mut self, spin: Duration) -> Result<(), CollectiveError> {
        self.round = self.next_round();
        self.control.set_core(self.rank, sched_getcpu());
        // In a crowd a rank that stays awake for long keeps others from their work.
        let spin = if self.crowded { spin.min(SPIN_BEFORE) } else { spin };
        if arrive(&*self.control, self.rank, self.round) || self.spin(spin) { Ok(()) } else { self.sleep() }
    }

    /// Looks for a while, without sleep, for the others to arrive. Cores that they need they get.
    fn spin(&self, longest: Duration) -> bool {
        let (begun, mut moved) = (Instant::now(), false);
        while begun.elapsed() < longest {
            for _ in 0..LOOKS {
                if is_complete(&*self.control, self.round) {
                    return true;
                }
                if self.crowded {
                    // Another rank runs at once, and is not woken from sleep first.
                    sched_yield();
                } else {
                    std::hint::spin_loop();
                }
            }
            if !self.crowded && !moved {
                moved = self.part();
            }
        }
        false
    }

    /// Where a rank that has not arrived shares this rank's core while there is one for each, the higher of the
    /// two moves. Left to the system they often stay together for long: while one waits the other runs, so that
    /// the core does not look crowded. Answers whether this rank has moved.
    fn part(&self) -> bool {
        let core = sched_getcpu();
        let together =
            |rank| self.control.core(rank) == core && !has_arrived(&*self.control, rank, self.round);
        let moves = (0..self.rank).any(together);
        if moves {
            leave(core);
        }
        moves
    }

    /// Sleeps until all ranks have arrived, or something is wrong.
    fn sleep(&self) -> Result<(), CollectiveError> {
        let begun = Instant::now();
        let mut looked = begun;
        let mut beats = vec![(0, begun); self.world];
        loop {
            if is_complete(&*self.control, self.round) {
                return Ok(());
            }
            self.check_alive()?;
            if looked.elapsed() >= SLICE {
                self.check_neighbours()?;
                looked = Instant::now();
            }
            let (peer, waited) = self.longest_silent(&mut beats);
            let left = self.patience.saturating_sub(waited);
            if left.is_zero() {
                let scene = self.scene(peer);
                return self.unless_complete(|_| CollectiveError::PeerStalled { scene, waited });
            }
            doze(&*self.control, self.rank, self.round, left.min(SLICE), || {
                self.control.is_over() || self.sockets.is_aborted()
            });
        }
    }

    /// The rank that has neither arrived nor shown that it lives for longest, and how long. `beats` are those seen
    /// last, and when they were new.
    fn longest_silent(&self, beats: &mut [(u32, Instant)]) -> (usize, Duration) {
        let late =
            beats.iter_mut().enumerate().filter(|(rank, _)| !has_arrived(&*self.control, *rank, self.round));
        let silent = late.map(|(rank, (seen, since))| {
            let now = self.control.beats(rank);
            if now != *seen {
                (*seen, *since) = (now, Instant::now());
            }
            (rank, since.elapsed())
        });
        silent.max_by_key(|(_, silent)| *silent).unwrap_or((self.rank, Duration::ZERO))
    }

    /// Whether this gang may go on, as far as this rank has been told.
    pub(super) fn check_alive(&self) -> Result<(), CollectiveError> {
        if self.sockets.is_aborted() {
            return Err(CollectiveError::Aborted { rank: self.name(self.rank) });
        }
        let Some(notice) = self.control.epitaph() else { return Ok(()) };
        Err(notice.reported(self.name(self.rank), self.head.call.operation))
    }

    /// Whether the neighbours' processes live. One that has ended its connection after the last round was
    /// complete is no loss; one that had a reason to fail has written it down before.
    fn check_neighbours(&self) -> Result<(), CollectiveError> {
        if let Outside::Hosts(watch) = &self.outside {
            return watch.look(&self.head.call).or_else(|error| self.unless_complete(|_| error));
        }
        let Some((peer, cause)) = self.lost_neighbour() else { return Ok(()) };
        self.check_alive()?;
        self.unless_complete(|_| CollectiveError::PeerLost { scene: self.scene(peer), cause })
    }

    /// Now and then, before an operation: whether the connections stand. Ranks that never wait for each other would
    /// not see that one has ended, and could not learn of a death through it later.
    pub(super) fn check_connections(&mut self) -> Result<(), CollectiveError> {
        if matches!(self.outside, Outside::Hosts(_)) || self.looked.elapsed() < BETWEEN_LOOKS {
            return Ok(());
        }
        self.looked = Instant::now();
        let Some((peer, cause)) = self.lost_neighbour() else { return Ok(()) };
        // Whoever had a reason to fail has written it down before.
        self.check_alive()?;
        Err(CollectiveError::PeerLost { scene: self.scene(peer), cause })
    }

    fn lost_neighbour(&self) -> Option<(usize, String)> {
        let (neighbour, cause) = self.sockets.lost()?;
        let peer = match neighbour {
            Neighbour::Next => (self.rank + 1) % self.world,
            Neighbour::Previous => (self.rank + self.world - 1) % self.world,
        };
        Some((peer, cause))
    }

    /// The error, given a rank that has not arrived, unless all have meanwhile.
    fn unless_complete(&self, error: impl FnOnce(usize) -> CollectiveError) -> Result<(), CollectiveError> {
        let late = (0..self.world).find(|rank| !has_arrived(&*self.control, *rank, self.round));
        late.map_or(Ok(()), |rank| Err(error(rank)))
    }

    /// Ends the gang: writes down why, for the others, wakes them, and ends the connections.
    pub(super) fn fail(&mut self, error: CollectiveError) -> CollectiveError {
        // An abort breaks the connections; what that looks like from here is not the cause.
        let error = if self.sockets.is_aborted() {
            CollectiveError::Aborted { rank: self.name(self.rank) }
        } else {
            error
        };
        tracing::debug!(%error, "the gang breaks");
        self.bury(&error);
        self.sockets.end();
        self.broken = Some(error.clone());
        error
    }

    /// Writes down for the others why the gang ends, and wakes them.
    pub(crate) fn bury(&self, error: &CollectiveError) {
        self.control.bury(&Notice::of(error, self.name(self.rank)));
    }

    /// The place of an error that concerns `peer`.
    pub(super) fn scene(&self, peer: usize) -> Scene {
        let call = self.head.call;
        let size = match call.operation {
            Operation::GatherBytes => 1,
            _ => size_of::<f32>() as u64,
        };
        Scene {
            rank: self.name(self.rank),
            peer: self.name(peer),
            address: self.addresses[self.name(peer)],
            operation: call.operation,
            bytes_done: self.done,
            bytes_total: call.total.saturating_mul(size),
        }
    }
}

/// Moves this thread to another core, if it may run on one.
fn leave(core: usize) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let mut others = allowed;
    others.unset(core);
    if others.count() > 0 && sched_setaffinity(None, &others).is_ok() {
        sched_setaffinity(None, &allowed).ok();
    }
}
