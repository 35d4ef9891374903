//! Who sends which span at which step. Pure: nothing here knows of sockets.
//!
//! A plan is what one rank does in one operation. Its steps are chained: what is sent at step `t + 1` is
//! what was received at step `t`. So a segment can be forwarded as soon as it has arrived and been summed,
//! without waiting for the rest of its step.

use std::ops::Range;

/// Cuts `len` elements into `world` consecutive spans whose lengths differ by at most one; the longer ones
/// come first. Rank `r` owns span `r`. A world of 0 has no spans.
#[must_use]
pub fn spans(len: usize, world: usize) -> Vec<Range<usize>> {
    if world == 0 {
        return Vec::new();
    }
    let (base, longer) = (len / world, len % world);
    let mut start = 0;
    (0..world)
        .map(|rank| {
            let end = start + base + usize::from(rank < longer);
            let span = start..end;
            start = end;
            span
        })
        .collect()
}

/// What happens to a span that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absorb {
    /// It is added to what is here.
    Add,
    /// It is added to what is here, which makes the sum of all ranks.
    Finish,
    /// It replaces what is here.
    Replace,
}

/// What one rank sends and receives in one operation, by numbers of spans, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) sends: Vec<usize>,
    pub(crate) receives: Vec<(usize, Absorb)>,
    /// How many of the first sends need nothing to have been received. Each send after them forwards what
    /// the receive of the same position, counted from there, has brought.
    pub(crate) own: usize,
}

/// The span that lies `back` ranks behind `rank`.
fn behind(rank: usize, back: usize, world: usize) -> usize {
    (rank + 2 * world - back) % world
}

/// Leaves at each rank the sum of its own span. Span `k` starts at rank `k + 1` and ends at rank `k`.
pub(crate) fn reduce_scatter(rank: usize, world: usize) -> Plan {
    let steps = world - 1;
    Plan {
        sends: (0..steps).map(|step| behind(rank, step + 1, world)).collect(),
        receives: (0..steps)
            .map(|step| {
                let how = if step + 1 == steps { Absorb::Finish } else { Absorb::Add };
                (behind(rank, step + 2, world), how)
            })
            .collect(),
        own: steps.min(1),
    }
}

/// Brings each rank's own span to all ranks.
pub(crate) fn all_gather(rank: usize, world: usize) -> Plan {
    let steps = world - 1;
    Plan {
        sends: (0..steps).map(|step| behind(rank, step, world)).collect(),
        receives: (0..steps).map(|step| (behind(rank, step + 1, world), Absorb::Replace)).collect(),
        own: steps.min(1),
    }
}

/// [`reduce_scatter`] followed by [`all_gather`], chained: the gather's first send is the sum that the last
/// step of the reduction has finished.
pub(crate) fn all_reduce(rank: usize, world: usize) -> Plan {
    let mut plan = reduce_scatter(rank, world);
    let gather = all_gather(rank, world);
    plan.sends.extend(gather.sends);
    plan.receives.extend(gather.receives);
    plan
}

/// Passes span 0, the only one, from `root` along the ring; the rank before `root` keeps it.
pub(crate) fn broadcast(rank: usize, world: usize, root: usize) -> Plan {
    let last = (root + world - 1) % world;
    Plan {
        sends: if rank == last { Vec::new() } else { vec![0] },
        receives: if rank == root { Vec::new() } else { vec![(0, Absorb::Replace)] },
        own: usize::from(rank == root && rank != last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Plays plans with exact messages; each element is the list of ranks summed into it, in order.
    fn play(plans: &[Plan], mut state: Vec<Vec<Vec<usize>>>) -> Vec<Vec<Vec<usize>>> {
        let world = plans.len();
        let mut sent = vec![0; world];
        let mut received = vec![0; world];
        let mut wires: Vec<std::collections::VecDeque<Vec<usize>>> = vec![Default::default(); world];
        loop {
            let mut moved = false;
            for rank in 0..world {
                let plan = &plans[rank];
                while sent[rank] < plan.sends.len() && sent[rank] < plan.own + received[rank] {
                    wires[(rank + 1) % world].push_back(state[rank][plan.sends[sent[rank]]].clone());
                    sent[rank] += 1;
                    moved = true;
                }
                while received[rank] < plan.receives.len() {
                    let Some(mut value) = wires[rank].pop_front() else { break };
                    let (span, absorb) = plan.receives[received[rank]];
                    if absorb != Absorb::Replace {
                        value.append(&mut state[rank][span]);
                    }
                    state[rank][span] = value;
                    received[rank] += 1;
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        for rank in 0..world {
            assert_eq!(sent[rank], plans[rank].sends.len(), "rank {rank} could not send everything");
            assert_eq!(received[rank], plans[rank].receives.len(), "rank {rank} waits forever");
            assert!(wires[rank].is_empty(), "rank {rank} leaves something unread");
        }
        state
    }

    fn own_values(world: usize) -> Vec<Vec<Vec<usize>>> {
        (0..world).map(|rank| vec![vec![rank]; world]).collect()
    }

    /// The order that the crate's documentation declares.
    fn declared(span: usize, world: usize) -> Vec<usize> {
        (1..=world).map(|step| (span + step) % world).collect()
    }

    proptest! {
        #[test]
        fn spans_cover_everything_once(len in 0_usize..5000, world in 1_usize..40) {
            let spans = spans(len, world);
            prop_assert_eq!(spans.len(), world);
            let mut at = 0;
            for span in &spans {
                prop_assert_eq!(span.start, at);
                prop_assert!(span.len() == len / world || span.len() == len / world + 1);
                at = span.end;
            }
            prop_assert_eq!(at, len);
        }

        #[test]
        fn all_reduce_sums_in_the_declared_order(world in 1_usize..20) {
            let plans: Vec<_> = (0..world).map(|rank| all_reduce(rank, world)).collect();
            for state in play(&plans, own_values(world)) {
                for (span, order) in state.iter().enumerate() {
                    prop_assert_eq!(order, &declared(span, world));
                }
            }
        }

        #[test]
        fn reduce_scatter_leaves_each_rank_its_own_span(world in 1_usize..20) {
            let plans: Vec<_> = (0..world).map(|rank| reduce_scatter(rank, world)).collect();
            for (rank, state) in play(&plans, own_values(world)).iter().enumerate() {
                prop_assert_eq!(&state[rank], &declared(rank, world));
            }
        }

        #[test]
        fn all_gather_spreads_each_rank_s_span(world in 1_usize..20) {
            let plans: Vec<_> = (0..world).map(|rank| all_gather(rank, world)).collect();
            for state in play(&plans, own_values(world)) {
                for (span, value) in state.iter().enumerate() {
                    prop_assert_eq!(value, &vec![span]);
                }
            }
        }

        #[test]
        fn broadcast_reaches_everybody(world in 1_usize..20, root in 0_usize..20) {
            let root = root % world;
            let plans: Vec<_> = (0..world).map(|rank| broadcast(rank, world, root)).collect();
            for state in play(&plans, own_values(world)) {
                prop_assert_eq!(&state[0], &vec![root]);
            }
        }

        #[test]
        fn a_send_forwards_the_receive_before_it(world in 2_usize..20, rank in 0_usize..20) {
            let rank = rank % world;
            for plan in [all_reduce(rank, world), reduce_scatter(rank, world), all_gather(rank, world)] {
                for (send, receive) in plan.sends[plan.own..].iter().zip(&plan.receives) {
                    prop_assert_eq!(*send, receive.0);
                }
            }
        }

        #[test]
        fn neighbours_speak_of_the_same_span(world in 2_usize..20, rank in 0_usize..20) {
            let (rank, next) = (rank % world, (rank + 1) % world);
            for plan in [all_reduce, reduce_scatter, all_gather] {
                let received: Vec<_> = plan(next, world).receives.iter().map(|(span, _)| *span).collect();
                prop_assert_eq!(&plan(rank, world).sends, &received);
            }
        }
    }

    #[test]
    fn no_world_has_no_spans() {
        assert!(spans(10, 0).is_empty());
        assert_eq!(spans(5, 3), [0..2, 2..4, 4..5]);
    }
}
