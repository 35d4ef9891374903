//! Segments, and the buffers in which they travel.

use std::ops::Range;

use crate::frame::HEADER;
use crate::schedule::Absorb;

/// Bytes of payload in a full frame. Small enough that a segment is still in the cache when it is summed and
/// sent on, large enough that a system call is cheap against it; a multiple of the size of a float.
pub(crate) const SEGMENT: usize = 256 * 1024;

/// Bytes on their way in and out; kept from one operation to the next.
pub(crate) struct Wire {
    pub(crate) outgoing: Vec<u8>,
    /// Which part of `outgoing` is still to be written.
    pub(crate) unsent: Range<usize>,
    pub(crate) incoming: Vec<u8>,
    /// How much of `incoming` is filled.
    pub(crate) filled: usize,
    /// What the next rank has said.
    pub(crate) heard: Vec<u8>,
    /// Whether the next rank has ended its half of the connection.
    pub(crate) next_closed: bool,
}

impl Wire {
    pub(crate) fn new() -> Wire {
        Wire {
            outgoing: vec![0; HEADER + SEGMENT],
            unsent: 0..0,
            incoming: vec![0; HEADER + SEGMENT],
            filled: 0,
            heard: Vec::new(),
            next_closed: false,
        }
    }

    /// The rest of the frame that is being sent.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.outgoing[self.unsent.clone()]
    }
}

/// A part of a span that travels in one frame.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) span: usize,
    pub(crate) offset: usize,
    pub(crate) length: usize,
    pub(crate) how: Absorb,
}

/// Even an empty span has a segment, so that ranks always meet and can compare what they do.
pub(crate) fn cut(span: usize, size: usize, how: Absorb) -> impl Iterator<Item = Segment> {
    (0..size.div_ceil(SEGMENT).max(1)).map(move |index| {
        let offset = index * SEGMENT;
        Segment { span, offset, length: (size - offset).min(SEGMENT), how }
    })
}

pub(crate) fn bytes(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| segment.length as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_a_span_and_even_an_empty_one_has_a_segment() {
        for size in [0, 4, SEGMENT - 4, SEGMENT, SEGMENT + 4, 3 * SEGMENT] {
            let segments: Vec<_> = cut(2, size, Absorb::Add).collect();
            assert_eq!(segments.len(), size.div_ceil(SEGMENT).max(1));
            assert_eq!(bytes(&segments), size as u64);
            let mut at = 0;
            for segment in segments {
                assert_eq!((segment.span, segment.offset, segment.how), (2, at, Absorb::Add));
                assert!(segment.length <= SEGMENT);
                at += segment.length;
            }
        }
    }
}
