//! Matrix products of blocks that lie in cache.

#![allow(unsafe_code, reason = "a tile's loop without checks")]

use pulp::{Simd, WithSimd};

/// A matrix whose element (i, j) is `data[i * row + j * column]`.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row: usize,
    pub(crate) column: usize,
}

impl<'a> View<'a> {
    /// Rows of `width` numbers, one behind the other.
    pub(crate) fn rows(data: &'a [f32], width: usize) -> Self {
        Self { data, row: width, column: 1 }
    }

    /// The same, transposed.
    pub(crate) fn columns(data: &'a [f32], width: usize) -> Self {
        Self { data, row: 1, column: width }
    }
}

/// A tile of this many rows and vectors stays in registers, of which there are 16: measured, 4 by 3 took half as long again.
const ROWS: usize = 6;
/// Rows of `b` and `c` are whole numbers of so many vectors.
pub(crate) const VECTORS: usize = 2;

/// `c (+)= a · b` for `a` of `m` by `k`, `b` of `k` by `n` and `c` of `m` by `n`. `b` and `c` have rows of `width` numbers, of which `n` are
/// taken; `n` is a multiple of [`VECTORS`] vectors.
pub(crate) struct Product<'a> {
    pub(crate) size: [usize; 3],
    pub(crate) a: View<'a>,
    pub(crate) b: &'a [f32],
    pub(crate) c: &'a mut [f32],
    pub(crate) width: usize,
    /// Whether what `c` holds is added to.
    pub(crate) add: bool,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [m, n, k] = self.size;
        let step = VECTORS * S::F32_LANES;
        if m == 0 || n == 0 {
            return;
        }
        assert!(k > 0, "a product of nothing");
        assert!(n.is_multiple_of(step) && n <= self.width, "{n} columns in vectors of {step}");
        assert!((m - 1) * self.a.row + (k - 1) * self.a.column < self.a.data.len(), "a is too short");
        assert!((k - 1) * self.width + n <= self.b.len(), "b is too short");
        assert!((m - 1) * self.width + n <= self.c.len(), "c is too short");
        for column in (0..n).step_by(step) {
            let mut row = 0;
            while row < m {
                let tile = Tile {
                    k,
                    a: self.a.data[row * self.a.row..].as_ptr(),
                    a_row: self.a.row,
                    a_column: self.a.column,
                    b: self.b[column..].as_ptr(),
                    c: self.c[row * self.width + column..].as_mut_ptr(),
                    width: self.width,
                    add: self.add,
                };
                // SAFETY: the asserted sizes hold for rows up to m and columns up to n; this tile ends within both.
                unsafe {
                    match m - row {
                        1 => tile.compute::<S, 1>(simd),
                        2 => tile.compute::<S, 2>(simd),
                        3 => tile.compute::<S, 3>(simd),
                        4 => tile.compute::<S, 4>(simd),
                        5 => tile.compute::<S, 5>(simd),
                        _ => tile.compute::<S, ROWS>(simd),
                    }
                }
                row += ROWS;
            }
        }
    }
}

/// One tile of a product.
#[derive(Clone, Copy)]
struct Tile {
    k: usize,
    a: *const f32,
    a_row: usize,
    a_column: usize,
    b: *const f32,
    c: *mut f32,
    width: usize,
    add: bool,
}

impl Tile {
    /// Computes `R` rows of [`VECTORS`] vectors.
    ///
    /// # Safety
    /// `a` has `R` rows of `k` elements at its strides, `b` has `k` rows and `c` has `R` rows of that many vectors, `width` apart.
    #[inline(always)]
    unsafe fn compute<S: Simd, const R: usize>(self, simd: S) {
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; R];
        let (mut a, mut b) = (self.a, self.b);
        for _ in 0..self.k {
            // SAFETY: k rows of so many vectors are there, and R rows of k elements.
            unsafe {
                let row: [S::f32s; VECTORS] =
                    std::array::from_fn(|v| b.add(v * S::F32_LANES).cast::<S::f32s>().read_unaligned());
                for (r, sums) in sums.iter_mut().enumerate() {
                    let factor = simd.splat_f32s(*a.add(r * self.a_row));
                    for (sum, row) in sums.iter_mut().zip(row) {
                        *sum = simd.mul_add_e_f32s(factor, row, *sum);
                    }
                }
                // The last step may leave what is pointed to, which wrapping arithmetic allows.
                a = a.wrapping_add(self.a_column);
                b = b.wrapping_add(self.width);
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                // SAFETY: R rows of so many vectors are there.
                unsafe {
                    let at = self.c.add(r * self.width + v * S::F32_LANES).cast::<S::f32s>();
                    let sum = if self.add { simd.add_f32s(at.read_unaligned(), *sum) } else { *sum };
                    at.write_unaligned(sum);
                }
            }
        }
    }
}
