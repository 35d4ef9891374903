//! Segments, the order in which they travel, and the memory of a connection.

use crate::schedule::{Absorb, Plan};

/// Bytes of payload in a full frame. Small enough that a segment is still in the cache when it is summed and
/// sent on, large enough that calls and changes between sending and receiving are cheap against it; a multiple of the size
/// of a float. Of 64 KiB to 1 MiB, 512 KiB was the fastest for two ranks, and among the fastest for four.
pub(crate) const SEGMENT: usize = 512 * 1024;

/// Segments of each span that go round the ring before the next ones do. What was summed is passed on, and what was
/// passed on is out of the way, before the caches have forgotten it; and there is always something to send while
/// what was sent goes round.
pub(crate) const GROUP: usize = 2;

/// What is kept from one operation to the next.
pub(crate) struct Wire {
    /// A segment on its way out that does not lie in memory as it travels. Floats, for their alignment.
    pub(crate) outgoing: Vec<f32>,
    /// A segment on its way in that is not put where it belongs at once.
    pub(crate) incoming: Vec<f32>,
    /// What remained to be written of a frame when an operation failed.
    pub(crate) unsent: Vec<u8>,
    /// What the next rank has said.
    pub(crate) heard: Vec<u8>,
    /// Whether the next rank has ended its half of the connection.
    pub(crate) next_closed: bool,
}

impl Wire {
    pub(crate) fn new() -> Wire {
        Wire {
            outgoing: vec![0.0; SEGMENT / size_of::<f32>()],
            incoming: vec![0.0; SEGMENT / size_of::<f32>()],
            unsent: Vec::new(),
            heard: Vec::new(),
            next_closed: false,
        }
    }
}

/// A part of a span that travels in one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) span: usize,
    pub(crate) offset: usize,
    pub(crate) length: usize,
    pub(crate) how: Absorb,
    /// How many segments must have been received before this one can be sent.
    pub(crate) needs: usize,
}

/// Even an empty span has a segment, so that ranks always meet and can compare what they do.
fn count(size: usize) -> usize {
    size.div_ceil(SEGMENT).max(1)
}

/// All segments of a plan, to send and to receive, in order. `size` gives the bytes of a span.
pub(crate) fn order(plan: &Plan, size: impl Fn(usize) -> usize) -> (Vec<Segment>, Vec<Segment>) {
    let receives = plan.receives.iter().map(|(span, _)| *span);
    let most = plan.sends.iter().copied().chain(receives).map(|span| count(size(span))).max().unwrap_or(0);
    let (mut outgoing, mut incoming) = (Vec::new(), Vec::new());
    let mut begun = vec![0; plan.receives.len()];
    for first in (0..most).step_by(GROUP) {
        let cut = |span: usize, how, needs: Option<usize>| {
            let size = size(span);
            (first..count(size).min(first + GROUP)).map(move |index| {
                let offset = index * SEGMENT;
                let needs = needs.map_or(0, |before| before + index - first + 1);
                Segment { span, offset, length: (size - offset).min(SEGMENT), how, needs }
            })
        };
        for (step, (span, how)) in plan.receives.iter().enumerate() {
            begun[step] = incoming.len();
            incoming.extend(cut(*span, *how, None));
        }
        for (step, span) in plan.sends.iter().enumerate() {
            let forwarded = step.checked_sub(plan.own).map(|receive| begun[receive]);
            outgoing.extend(cut(*span, Absorb::Replace, forwarded));
        }
    }
    (outgoing, incoming)
}

pub(crate) fn bytes(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| segment.length as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{all_gather, all_reduce, broadcast, reduce_scatter};
    use proptest::prelude::*;

    #[test]
    fn segments_cover_a_span_and_even_an_empty_one_has_a_segment() {
        for size in [0, 4, SEGMENT - 4, SEGMENT, SEGMENT + 4, 9 * SEGMENT] {
            let (sent, received) = order(&broadcast(0, 2, 0), |_| size);
            assert_eq!((sent.len(), received.len()), (count(size), 0));
            assert_eq!(bytes(&sent), size as u64);
            let mut at = 0;
            for segment in sent {
                assert_eq!((segment.span, segment.offset, segment.needs), (0, at, 0));
                assert!(segment.length <= SEGMENT);
                at += segment.length;
            }
        }
    }

    proptest! {
        /// Plays the order with neighbours that send and receive as soon as they can.
        #[test]
        fn neighbours_agree_and_nobody_waits_for_ever(
            world in 2_usize..7, which in 0_usize..4, sizes in proptest::collection::vec(0..12 * SEGMENT, 7)
        ) {
            let plan = |rank| match which {
                0 => all_reduce(rank, world),
                1 => reduce_scatter(rank, world),
                2 => all_gather(rank, world),
                _ => broadcast(rank, world, 1),
            };
            let ranks: Vec<_> = (0..world).map(|rank| order(&plan(rank), |span| sizes[span])).collect();
            let (mut sent, mut received) = (vec![0; world], vec![0; world]);
            loop {
                let mut moved = false;
                for rank in 0..world {
                    let (outgoing, next) = (&ranks[rank].0, (rank + 1) % world);
                    while sent[rank] < outgoing.len() && outgoing[sent[rank]].needs <= received[rank] {
                        let (ours, theirs) = (outgoing[sent[rank]], ranks[next].1[sent[rank]]);
                        prop_assert_eq!((ours.span, ours.offset, ours.length), (theirs.span, theirs.offset, theirs.length));
                        if ours.needs > 0 {
                            let from = ranks[rank].1[ours.needs - 1];
                            prop_assert_eq!((ours.span, ours.offset), (from.span, from.offset));
                        }
                        sent[rank] += 1;
                        moved = true;
                    }
                    moved |= received[next] < sent[rank];
                    received[next] = sent[rank];
                }
                if !moved {
                    break;
                }
            }
            for rank in 0..world {
                prop_assert_eq!((sent[rank], received[rank]), (ranks[rank].0.len(), ranks[rank].1.len()));
            }
        }
    }
}
