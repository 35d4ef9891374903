//! What an operation moves: floats in the caller's buffer, or bytes of different lengths.

use std::ops::Range;

use crate::schedule::Absorb;

/// Spans of bytes that can be sent, and filled from what arrives.
pub(crate) trait Payload {
    /// Bytes of a span.
    fn size(&self, span: usize) -> usize;

    /// Copies bytes of a span, from `offset` on, into `out`.
    fn load(&self, span: usize, offset: usize, out: &mut [u8]);

    /// Takes in bytes that arrived for a span at `offset`.
    fn absorb(&mut self, span: usize, offset: usize, bytes: &[u8], how: Absorb);
}

const FLOAT: usize = size_of::<f32>();

/// The caller's buffer, cut into spans. Little-endian on the wire; offsets are multiples of four.
pub(crate) struct Floats<'a> {
    buffer: &'a mut [f32],
    spans: Vec<Range<usize>>,
}

impl<'a> Floats<'a> {
    pub(crate) fn new(buffer: &'a mut [f32], spans: Vec<Range<usize>>) -> Floats<'a> {
        Floats { buffer, spans }
    }

    fn elements(&self, span: usize, offset: usize, bytes: usize) -> Range<usize> {
        let start = self.spans[span].start + offset / FLOAT;
        start..start + bytes / FLOAT
    }
}

impl Payload for Floats<'_> {
    fn size(&self, span: usize) -> usize {
        self.spans[span].len() * FLOAT
    }

    // The loops below are memcpy and a vector addition after optimisation; the test `rate` measures them.

    fn load(&self, span: usize, offset: usize, out: &mut [u8]) {
        let values = &self.buffer[self.elements(span, offset, out.len())];
        for (bytes, value) in out.as_chunks_mut::<FLOAT>().0.iter_mut().zip(values) {
            *bytes = value.to_le_bytes();
        }
    }

    fn absorb(&mut self, span: usize, offset: usize, bytes: &[u8], how: Absorb) {
        let elements = self.elements(span, offset, bytes.len());
        let pairs = self.buffer[elements].iter_mut().zip(bytes.as_chunks::<FLOAT>().0);
        match how {
            Absorb::Add => pairs.for_each(|(value, bytes)| *value += f32::from_le_bytes(*bytes)),
            Absorb::Replace => pairs.for_each(|(value, bytes)| *value = f32::from_le_bytes(*bytes)),
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

    fn load(&self, span: usize, offset: usize, out: &mut [u8]) {
        out.copy_from_slice(&self.blobs[span][offset..offset + out.len()]);
    }

    fn absorb(&mut self, span: usize, offset: usize, bytes: &[u8], _how: Absorb) {
        self.blobs[span][offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn floats_keep_their_bits() {
        let odd = [f32::NAN, -0.0, f32::INFINITY, f32::MIN_POSITIVE / 2.0, 1.5, f32::MAX];
        let mut from = odd;
        let mut to = [0.0; 6];
        let mut bytes = [0; 16];
        Floats::new(&mut from, vec![0..1, 1..6]).load(1, 4, &mut bytes);
        Floats::new(&mut to, vec![0..1, 1..6]).absorb(1, 4, &bytes, Absorb::Replace);
        assert_eq!(to.map(f32::to_bits)[2..], odd.map(f32::to_bits)[2..]);
        assert_eq!(to[..2], [0.0, 0.0]);
    }

    #[test]
    fn adding_adds() {
        let mut to = [1.0, 2.0, 3.0];
        let bytes: Vec<u8> = [10.0_f32, 20.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        Floats::new(&mut to, vec![0..0, 0..3]).absorb(1, 4, &bytes, Absorb::Add);
        assert_eq!(to, [1.0, 12.0, 23.0]);
    }

    /// Not a limit, only a figure: `cargo test -p squad-collective rate -- --nocapture --ignored`.
    #[test]
    #[ignore = "a measurement"]
    fn rate() {
        let mut values = vec![1.0_f32; 1 << 16];
        let mut bytes = vec![0; values.len() * FLOAT];
        let (len, rounds) = (values.len(), 4000);
        let mut floats = Floats::new(&mut values, std::iter::once(0..len).collect());
        let start = Instant::now();
        for _ in 0..rounds {
            floats.load(0, 0, &mut bytes);
            std::hint::black_box(&mut bytes);
        }
        let loaded = start.elapsed();
        for _ in 0..rounds {
            floats.absorb(0, 0, std::hint::black_box(&bytes), Absorb::Add);
        }
        let added = start.elapsed() - loaded;
        let gigabytes = (rounds * len * FLOAT) as f64 / 1e9;
        println!("load {:.1} GB/s", gigabytes / loaded.as_secs_f64());
        println!("add {:.1} GB/s", gigabytes / added.as_secs_f64());
    }
}
