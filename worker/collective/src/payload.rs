//! What an operation moves: floats in the caller's buffer, as they are or rounded, or bytes of different lengths.

use std::ops::Range;

use crate::lanes;
use crate::schedule::Absorb;
use crate::topology::Compression;
use crate::wire::Segment;

#[cfg(target_endian = "big")]
compile_error!("what is sent is the memory of little-endian machines");

/// Spans of bytes that can be sent, and filled from what arrives. A segment's bytes either lie in memory as they
/// travel, or are made for sending and taken in after receiving.
pub(crate) trait Payload {
    /// Bytes of a span on the wire.
    fn size(&self, span: usize) -> usize;

    /// The bytes of a segment, where they lie in memory as they travel.
    fn lying(&self, segment: &Segment) -> Option<&[u8]>;

    /// Where the bytes of a segment are to lie, if they need not be seen before.
    fn place(&mut self, segment: &Segment) -> Option<&mut [u8]>;

    /// Makes the bytes of a segment that do not lie in memory; `out` is aligned as floats are.
    fn encode(&self, segment: &Segment, out: &mut [u8]);

    /// Takes in the bytes of a segment that has no place. They are aligned as floats are.
    fn absorb(&mut self, segment: &Segment, bytes: &[u8]);
}

/// The caller's buffer, cut into spans.
pub(crate) struct Floats<'a> {
    buffer: &'a mut [f32],
    spans: Vec<Range<usize>>,
    /// The sum is multiplied by it.
    scale: f32,
}

const FLOAT: usize = size_of::<f32>();

impl<'a> Floats<'a> {
    pub(crate) fn new(buffer: &'a mut [f32], spans: Vec<Range<usize>>) -> Floats<'a> {
        Floats { buffer, spans, scale: 1.0 }
    }

    /// Sums are multiplied by `scale` where they are finished.
    pub(crate) fn scaled(self, scale: f32) -> Floats<'a> {
        Floats { scale, ..self }
    }

    fn elements(&self, segment: &Segment) -> Range<usize> {
        let start = self.spans[segment.span].start + segment.offset / FLOAT;
        start..start + segment.length / FLOAT
    }
}

impl Payload for Floats<'_> {
    fn size(&self, span: usize) -> usize {
        self.spans[span].len() * FLOAT
    }

    fn lying(&self, segment: &Segment) -> Option<&[u8]> {
        Some(bytemuck::cast_slice(&self.buffer[self.elements(segment)]))
    }

    fn place(&mut self, segment: &Segment) -> Option<&mut [u8]> {
        let elements = self.elements(segment);
        (segment.how == Absorb::Replace).then(|| bytemuck::cast_slice_mut(&mut self.buffer[elements]))
    }

    fn encode(&self, segment: &Segment, out: &mut [u8]) {
        out.copy_from_slice(bytemuck::cast_slice(&self.buffer[self.elements(segment)]));
    }

    fn absorb(&mut self, segment: &Segment, bytes: &[u8]) {
        let elements = self.elements(segment);
        let (to, from) = (&mut self.buffer[elements], bytemuck::cast_slice(bytes));
        if segment.how == Absorb::Replace {
            to.copy_from_slice(from);
            return;
        }
        lanes::add(to, from);
        if segment.how == Absorb::Finish && self.scale != 1.0 {
            lanes::scale(to, self.scale);
        }
    }
}

/// The caller's buffer, cut into spans, sent in 16 bits for each value. Sums are made in 32 bits; who finishes one
/// keeps what can be sent of it, so that it is the same everywhere.
pub(crate) struct Halves<'a> {
    floats: Floats<'a>,
    format: Compression,
}

const HALF: usize = size_of::<u16>();

impl<'a> Halves<'a> {
    pub(crate) fn new(floats: Floats<'a>, format: Compression) -> Halves<'a> {
        Halves { floats, format }
    }

    fn elements(&self, segment: &Segment) -> Range<usize> {
        let start = self.floats.spans[segment.span].start + segment.offset / HALF;
        start..start + segment.length / HALF
    }
}

impl Payload for Halves<'_> {
    fn size(&self, span: usize) -> usize {
        self.floats.spans[span].len() * HALF
    }

    fn lying(&self, _segment: &Segment) -> Option<&[u8]> {
        None
    }

    fn place(&mut self, _segment: &Segment) -> Option<&mut [u8]> {
        None
    }

    fn encode(&self, segment: &Segment, out: &mut [u8]) {
        let from = &self.floats.buffer[self.elements(segment)];
        lanes::narrow(from, bytemuck::cast_slice_mut(out), self.format);
    }

    fn absorb(&mut self, segment: &Segment, bytes: &[u8]) {
        let elements = self.elements(segment);
        let (to, from) = (&mut self.floats.buffer[elements], bytemuck::cast_slice(bytes));
        match segment.how {
            Absorb::Replace => lanes::widen(from, to, self.format),
            Absorb::Add => lanes::add_wide(to, from, self.format),
            Absorb::Finish => {
                lanes::add_wide(to, from, self.format);
                if self.floats.scale != 1.0 {
                    lanes::scale(to, self.floats.scale);
                }
                lanes::round(to, self.format);
            }
        }
    }
}

/// Byte strings, one for each span.
pub(crate) struct Blobs {
    pub(crate) blobs: Vec<Vec<u8>>,
}

impl Payload for Blobs {
    fn size(&self, span: usize) -> usize {
        self.blobs[span].len()
    }

    fn lying(&self, segment: &Segment) -> Option<&[u8]> {
        self.blobs[segment.span].get(segment.offset..segment.offset + segment.length)
    }

    fn place(&mut self, segment: &Segment) -> Option<&mut [u8]> {
        self.blobs[segment.span].get_mut(segment.offset..segment.offset + segment.length)
    }

    fn encode(&self, segment: &Segment, out: &mut [u8]) {
        out.copy_from_slice(&self.blobs[segment.span][segment.offset..segment.offset + segment.length]);
    }

    fn absorb(&mut self, segment: &Segment, bytes: &[u8]) {
        self.blobs[segment.span][segment.offset..segment.offset + segment.length].copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(span: usize, offset: usize, length: usize, how: Absorb) -> Segment {
        Segment { span, offset, length, how, needs: 0 }
    }

    #[test]
    fn floats_keep_their_bits() {
        let odd = [f32::NAN, -0.0, f32::INFINITY, f32::MIN_POSITIVE / 2.0, 1.5, f32::MAX];
        let (mut from, mut to) = (odd, [0.0; 6]);
        let segment = segment(1, 4, 16, Absorb::Replace);
        let bytes = Floats::new(&mut from, vec![0..1, 1..6]).lying(&segment).unwrap().to_vec();
        Floats::new(&mut to, vec![0..1, 1..6]).place(&segment).unwrap().copy_from_slice(&bytes);
        assert_eq!(to.map(f32::to_bits)[2..], odd.map(f32::to_bits)[2..]);
        assert_eq!(to[..2], [0.0, 0.0]);
    }

    #[test]
    fn adding_adds_and_finishing_scales() {
        let mut to = [1.0, 2.0, 3.0];
        let values = [10.0_f32, 20.0];
        let mut floats = Floats::new(&mut to, vec![0..0, 0..3]).scaled(0.5);
        let add = segment(1, 4, 8, Absorb::Add);
        assert!(floats.place(&add).is_none());
        floats.absorb(&add, bytemuck::cast_slice(&values));
        floats.absorb(&segment(1, 0, 8, Absorb::Finish), bytemuck::cast_slice(&values));
        assert_eq!(to, [5.5, 16.0, 23.0]);
    }

    #[test]
    fn who_finishes_a_rounded_sum_keeps_what_it_sends() {
        for format in [Compression::Fp16, Compression::Bf16] {
            let (mut one, mut other) = ([1.0, 0.1, 1e-3], [0.0; 3]);
            let whole = std::iter::once(0..3).collect::<Vec<_>>();
            let arrived: [u16; 3] = [0x2e66; 3];
            let mut halves = Halves::new(Floats::new(&mut one, whole.clone()), format);
            let all = |how| segment(0, 0, 6, how);
            halves.absorb(&all(Absorb::Finish), bytemuck::cast_slice(&arrived));
            let mut sent = [0_u16; 3];
            halves.encode(&all(Absorb::Replace), bytemuck::cast_slice_mut(&mut sent));
            Halves::new(Floats::new(&mut other, whole), format)
                .absorb(&all(Absorb::Replace), bytemuck::cast_slice(&sent));
            assert_eq!(one.map(f32::to_bits), other.map(f32::to_bits));
            assert!(one[0] >= 1.0);
        }
    }
}
