//! Adding up floats in a given order of ranks, as fast as memory allows.

use std::ops::Range;

use super::area::Areas;
use super::lay::copy;

/// Floats that are summed at a time: with a block of each of two ranks they fit into the innermost cache.
const BLOCK: usize = 2048;

/// `sum[i] = one[i] + other[i]`.
#[inline(always)]
fn add_into(sum: &mut [f32], one: &[f32], other: &[f32]) {
    for ((sum, one), other) in sum.iter_mut().zip(one).zip(other) {
        *sum = one + other;
    }
}

/// `one[i] = other[i] = one[i] + other[i]`.
#[inline(always)]
fn add_both(one: &mut [f32], other: &mut [f32]) {
    for (one, other) in one.iter_mut().zip(other) {
        let sum = *one + *other;
        *one = sum;
        *other = sum;
    }
}

/// `sum[i] += value[i]`.
#[inline(always)]
fn add(sum: &mut [f32], values: &[f32]) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += value;
    }
}

/// Who is summed, in which order: `world` ranks, from `first` upwards and around.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub(crate) first: usize,
    pub(crate) world: usize,
}

/// `one[i] = other[i] = (one[i] + other[i]) * scale`.
#[inline(always)]
fn scale_both(one: &mut [f32], other: &mut [f32], scale: f32) {
    for (one, other) in one.iter_mut().zip(other) {
        let sum = (*one + *other) * scale;
        *one = sum;
        *other = sum;
    }
}

impl Order {
    fn rank(self, step: usize) -> usize {
        (self.first + step) % self.world
    }
}

/// Makes a function of the name of a block, compiled for the widest vectors that the processor may have; which
/// it has is found out when it runs. Lanes do not meet, so the width does not change a bit of the sums.
macro_rules! widened {
    ($(#[$doc:meta])* $name:ident = $block:ident($($argument:ident: $kind:ty),*)) => {
        $(#[$doc])*
        pub(crate) unsafe fn $name($($argument: $kind),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f")]
                unsafe fn with_avx512($($argument: $kind),*) {
                    // SAFETY: promised by the caller.
                    unsafe { $block($($argument),*) }
                }
                #[target_feature(enable = "avx2")]
                unsafe fn with_avx2($($argument: $kind),*) {
                    // SAFETY: promised by the caller.
                    unsafe { $block($($argument),*) }
                }
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the processor has it; the rest is promised by the caller.
                    return unsafe { with_avx512($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has it; the rest is promised by the caller.
                    return unsafe { with_avx2($($argument),*) };
                }
            }
            // SAFETY: promised by the caller.
            unsafe { $block($($argument),*) }
        }
    };
}

widened! {
    /// Sums `elements` over all ranks' `areas` into `own.1`. The part of rank `own.0` is not read: `own.1` holds its
    /// values, and lies somewhere else.
    ///
    /// # Safety
    /// While this runs no rank writes these elements.
    gather = gather_block(areas: &Areas, elements: Range<usize>, order: Order, own: (usize, &mut [f32]))
}

widened! {
    /// Adds `elements` of the part of rank `other` to `own`, which lies somewhere else: the sum of two ranks.
    ///
    /// # Safety
    /// While this runs no rank writes these elements.
    add_other = add_other_block(areas: &Areas, elements: Range<usize>, other: usize, own: &mut [f32])
}

widened! {
    /// Sums `elements` of all ranks' `areas`, and writes the sum, times `scale`, to all of them.
    ///
    /// # Safety
    /// While this runs no other rank reads or writes these elements.
    in_place = in_place_block(areas: &Areas, elements: Range<usize>, order: Order, scale: f32)
}

widened! {
    /// Sums `elements` of all ranks' `areas` into the part of rank `to`.
    ///
    /// # Safety
    /// While this runs no other rank writes these elements, and none reads those of `to`.
    into_one = into_one_block(areas: &Areas, elements: Range<usize>, order: Order, to: usize)
}

/// See [`into_one`].
#[inline(always)]
unsafe fn into_one_block(areas: &Areas, elements: Range<usize>, order: Order, to: usize) {
    // SAFETY: promised by the caller.
    let part = |step, elements| unsafe { areas.read::<f32>(order.rank(step), elements) };
    let mut sum = [0.0; BLOCK];
    for block in blocks(elements) {
        let sum = &mut sum[..block.len()];
        sum.copy_from_slice(part(0, block.clone()));
        for step in 1..order.world {
            add(sum, part(step, block.clone()));
        }
        // SAFETY: promised by the caller; what was read of it is borrowed no longer.
        unsafe { areas.write::<f32>(to, block) }.copy_from_slice(sum);
    }
}

/// See [`add_other`].
#[inline(always)]
unsafe fn add_other_block(areas: &Areas, elements: Range<usize>, other: usize, own: &mut [f32]) {
    // SAFETY: promised by the caller.
    add(own, unsafe { areas.read::<f32>(other, elements) });
}

/// See [`gather`].
#[inline(always)]
unsafe fn gather_block(areas: &Areas, elements: Range<usize>, order: Order, (me, own): (usize, &mut [f32])) {
    let mut sum = [0.0; BLOCK];
    for block in blocks(elements.clone()) {
        let own = &mut own[block.start - elements.start..block.end - elements.start];
        let part = |step| match order.rank(step) {
            rank if rank == me => &*own,
            // SAFETY: promised by the caller.
            rank => unsafe { areas.read::<f32>(rank, block.clone()) },
        };
        // The same additions on all ranks, wherever the values lie: so even NaN comes out the same.
        let sum = &mut sum[..block.len()];
        add_into(sum, part(0), part(1));
        for step in 2..order.world {
            add(sum, part(step));
        }
        copy(own, sum);
    }
}

/// See [`in_place`].
#[inline(always)]
unsafe fn in_place_block(areas: &Areas, elements: Range<usize>, order: Order, scale: f32) {
    // SAFETY: promised by the caller; no two of these that live at one time are of one rank.
    let part = |step, elements| unsafe { areas.write::<f32>(order.rank(step), elements) };
    let mut sum = [0.0; BLOCK];
    for block in blocks(elements) {
        if order.world == 2 {
            let (one, other) = (part(0, block.clone()), part(1, block));
            if scale == 1.0 {
                add_both(one, other)
            } else {
                scale_both(one, other, scale)
            }
            continue;
        }
        let sum = &mut sum[..block.len()];
        add_into(sum, part(0, block.clone()), part(1, block.clone()));
        for step in 2..order.world {
            add(sum, part(step, block.clone()));
        }
        if scale != 1.0 {
            sum.iter_mut().for_each(|sum| *sum *= scale);
        }
        for step in 0..order.world {
            part(step, block.clone()).copy_from_slice(sum);
        }
    }
}

fn blocks(elements: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = elements.end;
    elements.step_by(BLOCK).map(move |start| start..(start + BLOCK).min(end))
}

/// Cuts `range` where the owner, and with it the order of summation, changes: parts and the rank that comes first.
pub(crate) fn pieces(
    range: Range<usize>,
    spans: &[Range<usize>],
) -> impl Iterator<Item = (Range<usize>, Order)> {
    let world = spans.len();
    spans.iter().enumerate().filter_map(move |(owner, span)| {
        let part = span.start.max(range.start)..span.end.min(range.end);
        (!part.is_empty()).then_some((part, Order { first: (owner + 1) % world, world }))
    })
}

/// Floats of a cache line: no two ranks write to one.
const LINE: usize = 16;

/// The part of `len` elements that `rank` sums for everybody: whole cache lines, as even as can be.
pub(crate) fn share(len: usize, rank: usize, world: usize) -> Range<usize> {
    let lines = crate::spans(len.div_ceil(LINE), world)[rank].clone();
    (lines.start * LINE).min(len)..(lines.end * LINE).min(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spans;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_cover_a_range_once_and_shares_cover_everything_on_whole_lines(
            len in 0_usize..5000, world in 2_usize..10, from: usize, to: usize
        ) {
            let range = from % (len + 1)..to % (len + 1);
            let mut at = range.start;
            for (piece, order) in pieces(range.clone(), &spans(len, world)) {
                prop_assert_eq!(piece.start, at);
                let owner = (order.first + world - 1) % world;
                let own = spans(len, world)[owner].clone();
                prop_assert!(own.start <= piece.start && piece.end <= own.end);
                at = piece.end;
            }
            prop_assert!(range.is_empty() || at == range.end);
            let mut at = 0;
            for rank in 0..world {
                let share = share(len, rank, world);
                prop_assert_eq!(share.start, at);
                prop_assert!(share.end == len || share.end.is_multiple_of(LINE));
                at = share.end;
            }
            prop_assert_eq!(at, len);
        }
    }
}
