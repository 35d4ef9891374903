//! The protocol by which ranks of a host wait for each other, over any memory that has its words.
//!
//! Every rank counts rounds. To arrive in a round it posts the round's number; the round is complete when
//! all ranks have posted it. A rank that must wait for long sets its bell and sleeps on it. Whoever arrives
//! and finds the round complete rings the bells that are set: the last one, always, since each rank posts
//! before it looks (a fence lies between, so of two that arrive at one time at least one sees both).
//!
//! What a rank has written before it arrives, all see once the round is complete.

use std::time::Duration;

/// Words that all ranks of a host see. Numbers of rounds wrap around.
pub(crate) trait Words {
    /// Number of ranks.
    fn world(&self) -> usize;

    /// Says that `rank` has arrived in `round`; releases what it wrote before.
    fn post(&self, rank: usize, round: u32);

    /// The round in which `rank` has last arrived; acquires what it wrote before.
    fn posted(&self, rank: usize) -> u32;

    /// Sets or clears the bell of `rank`, and says whether it was set.
    fn set_bell(&self, rank: usize, set: bool) -> bool;

    /// Whether the bell of `rank` is set.
    fn bell(&self, rank: usize) -> bool;

    /// Nothing passes it, in either direction, on any rank.
    fn fence(&self);

    /// Sleeps while the bell of `rank` is set, at most for `longest`.
    fn sleep(&self, rank: usize, longest: Duration);

    /// Wakes `rank` from [`Words::sleep`].
    fn wake(&self, rank: usize);
}

/// Whether `rank` has arrived in `round`, or even in a later one.
pub(crate) fn has_arrived(words: &impl Words, rank: usize, round: u32) -> bool {
    words.posted(rank).wrapping_sub(round) as i32 >= 0
}

/// Whether all ranks have arrived in `round`.
pub(crate) fn is_complete(words: &impl Words, round: u32) -> bool {
    (0..words.world()).all(|rank| has_arrived(words, rank, round))
}

/// Lets `rank` arrive in `round`, and says whether that completes it.
pub(crate) fn arrive(words: &impl Words, rank: usize, round: u32) -> bool {
    words.post(rank, round);
    words.fence();
    let complete = is_complete(words, round);
    if complete {
        ring_all(words);
    }
    complete
}

/// Wakes everybody who sleeps, to look again. What they are to see must have been written before, and a fence
/// passed.
pub(crate) fn ring_all(words: &impl Words) {
    for rank in 0..words.world() {
        ring(words, rank);
    }
}

/// Wakes `rank` if it sleeps.
pub(crate) fn ring(words: &impl Words, rank: usize) {
    // The bell is cleared before the call: one who has set it but does not sleep yet will not fall asleep.
    if words.bell(rank) && words.set_bell(rank, false) {
        words.wake(rank);
    }
}

/// Sleeps until somebody rings, at most for `longest`, unless `round` is complete or there is an `alarm`. May
/// return early for no reason.
pub(crate) fn doze(
    words: &impl Words,
    rank: usize,
    round: u32,
    longest: Duration,
    alarm: impl FnOnce() -> bool,
) {
    words.set_bell(rank, true);
    words.fence();
    if !is_complete(words, round) && !alarm() {
        words.sleep(rank, longest);
    }
    words.set_bell(rank, false);
}

#[cfg(test)]
#[path = "rounds_tests.rs"]
mod tests;
