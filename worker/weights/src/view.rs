//! A tensor inside a file's bytes, and its way to 32-bit floats.

use half::{bf16, f16};

use crate::error::Fault;

/// Types of elements, all little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    F16,
    Bf16,
    F32,
    F64,
    /// Whole numbers or truth values of this many bytes: no weights.
    Whole(u8),
}

impl Element {
    /// Bytes of one element.
    pub(crate) fn size(self) -> u64 {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::Whole(size) => u64::from(size),
        }
    }
}

/// A tensor that lies in `data`. Offset and strides count elements; a stride of 0 repeats one element.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) element: Element,
    pub(crate) data: &'a [u8],
    pub(crate) offset: u64,
    pub(crate) shape: Vec<u64>,
    pub(crate) strides: Vec<u64>,
}

impl<'a> View<'a> {
    /// All of `data`, in row-major order.
    pub(crate) fn row_major(element: Element, data: &'a [u8], shape: Vec<u64>) -> Result<Self, Fault> {
        let strides = row_major(&shape);
        let view = Self { element, data, offset: 0, shape, strides };
        let bytes = view.count().and_then(|n| n.checked_mul(element.size()));
        if bytes != Some(data.len() as u64) {
            return Fault::damaged(format!(
                "it has {} bytes, which shape {:?} of elements of {} bytes does not fill",
                data.len(),
                view.shape,
                element.size()
            ));
        }
        Ok(view)
    }

    /// Number of elements; `None` when it is beyond all bounds.
    pub(crate) fn count(&self) -> Option<u64> {
        if self.shape.contains(&0) {
            return Some(0);
        }
        self.shape.iter().try_fold(1_u64, |product, axis| product.checked_mul(*axis))
    }

    /// The elements in row-major order as 32-bit floats; `None` for whole numbers. The caller has made sure that
    /// there is memory for [`Self::count`] of them.
    pub(crate) fn floats(&self) -> Result<Option<Vec<f32>>, Fault> {
        let floats = match self.element {
            Element::F16 => self.gather(|b| f16::from_le_bytes(b).to_f32()),
            Element::Bf16 => self.gather(|b| bf16::from_le_bytes(b).to_f32()),
            Element::F32 => self.gather(f32::from_le_bytes),
            Element::F64 => self.gather(|b| f64::from_le_bytes(b) as f32),
            Element::Whole(_) => return Ok(None),
        };
        match floats {
            Some(floats) => Ok(Some(floats)),
            None => Fault::damaged(format!(
                "shape {:?} with strides {:?} from element {} reaches beyond its {} bytes",
                self.shape,
                self.strides,
                self.offset,
                self.data.len()
            )),
        }
    }

    /// `None` when an element lies outside the data.
    fn gather<const N: usize>(&self, convert: impl Fn([u8; N]) -> f32) -> Option<Vec<f32>> {
        let (items, _) = self.data.as_chunks::<N>();
        let count = usize::try_from(self.count()?).ok()?;
        if count == 0 {
            return Some(Vec::new());
        }
        let offset = usize::try_from(self.offset).ok()?;
        if self.is_row_major() {
            let run = items.get(offset..offset.checked_add(count)?)?;
            return Some(run.iter().map(|item| convert(*item)).collect());
        }
        let mut floats = Vec::with_capacity(count);
        let mut index = vec![0; self.shape.len()];
        let mut at = self.offset;
        for _ in 0..count {
            floats.push(convert(*items.get(usize::try_from(at).ok()?)?));
            self.advance(&mut index, &mut at);
        }
        Some(floats)
    }

    /// To the next element in row-major order, as an odometer turns. Places are taken modulo 2^64: a stride that
    /// overflows leads outside the data, or back again with the digit's reset.
    fn advance(&self, index: &mut [u64], at: &mut u64) {
        for axis in (0..self.shape.len()).rev() {
            index[axis] += 1;
            *at = at.wrapping_add(self.strides[axis]);
            if index[axis] < self.shape[axis] {
                return;
            }
            *at = at.wrapping_sub(self.strides[axis].wrapping_mul(self.shape[axis]));
            index[axis] = 0;
        }
    }

    fn is_row_major(&self) -> bool {
        let expected = row_major(&self.shape);
        // The stride of an axis of one element is never used.
        let mut axes = self.shape.iter().zip(self.strides.iter().zip(&expected));
        axes.all(|(length, (stride, expected))| *length == 1 || stride == expected)
    }
}

/// Strides of elements that lie one after the other, the last axis running fastest.
fn row_major(shape: &[u64]) -> Vec<u64> {
    strides(shape.iter().rev()).into_iter().rev().collect()
}

/// Strides of elements that lie one after the other, the first axis running fastest.
pub(crate) fn column_major(shape: &[u64]) -> Vec<u64> {
    strides(shape.iter())
}

fn strides<'a>(fastest_first: impl Iterator<Item = &'a u64>) -> Vec<u64> {
    fastest_first
        .scan(1_u64, |next, length| {
            let stride = *next;
            *next = next.saturating_mul(*length);
            Some(stride)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn view<'a>(data: &'a [u8], offset: u64, shape: &[u64], strides: &[u64]) -> View<'a> {
        View { element: Element::F32, data, offset, shape: shape.into(), strides: strides.into() }
    }

    #[test]
    fn strides_and_offsets_choose_elements() {
        let data = bytes(&[0., 1., 2., 3., 4., 5.]);
        let floats = |offset, shape: &[u64], strides: &[u64]| {
            view(&data, offset, shape, strides).floats().unwrap().unwrap()
        };
        assert_eq!(floats(0, &[2, 3], &[3, 1]), [0., 1., 2., 3., 4., 5.]);
        assert_eq!(floats(0, &[3, 2], &[1, 3]), [0., 3., 1., 4., 2., 5.]);
        assert_eq!(floats(1, &[2], &[3]), [1., 4.]);
        assert_eq!(floats(5, &[2, 2], &[0, 0]), [5., 5., 5., 5.]);
        assert_eq!(floats(2, &[], &[]), [2.]);
        assert!(floats(9, &[0, 4], &[4, 1]).is_empty());
    }

    #[test]
    fn an_element_outside_the_data_is_an_error() {
        let data = bytes(&[0., 1., 2., 3.]);
        for (offset, shape, strides) in [
            (1, &[4][..], &[1][..]),
            (0, &[2, 2], &[3, 1]),
            (u64::MAX, &[1], &[1]),
            (0, &[3], &[u64::MAX]),
            (0, &[2, 2], &[u64::MAX / 2, u64::MAX / 2]),
        ] {
            assert!(view(&data, offset, shape, strides).floats().is_err(), "{offset} {shape:?} {strides:?}");
        }
    }

    #[test]
    fn a_row_major_view_must_fill_its_data() {
        assert!(View::row_major(Element::F16, &[0; 12], vec![2, 3]).is_ok());
        assert!(View::row_major(Element::F16, &[0; 12], vec![2, 4]).is_err());
        assert!(View::row_major(Element::F16, &[0; 12], vec![u64::MAX, u64::MAX]).is_err());
    }
}
