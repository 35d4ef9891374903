//! Arithmetic on rows of floats, compiled for the widest vectors that the processor may have; which it has is found
//! out when it runs. Lanes do not meet, so the width does not change a bit.

#![allow(unsafe_code, reason = "functions for processors that are only known at run time")]

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::topology::Compression;

/// Values that are worked on at a time: they stay in the innermost cache.
const BLOCK: usize = 1024;

/// Makes a function of the body of another one.
macro_rules! widened {
    ($(#[$doc:meta])* $name:ident = $body:ident($($argument:ident: $kind:ty),*)) => {
        $(#[$doc])*
        pub(crate) fn $name($($argument: $kind),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f")]
                fn with_avx512($($argument: $kind),*) {
                    $body($($argument),*)
                }
                #[target_feature(enable = "avx2")]
                fn with_avx2($($argument: $kind),*) {
                    $body($($argument),*)
                }
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the processor has it.
                    return unsafe { with_avx512($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has it.
                    return unsafe { with_avx2($($argument),*) };
                }
            }
            $body($($argument),*)
        }
    };
}

widened! {
    /// `to[i] += from[i]`.
    add = add_body(to: &mut [f32], from: &[f32])
}

widened! {
    /// `to[i] *= scale`.
    scale = scale_body(to: &mut [f32], scale: f32)
}

widened! {
    /// `to[i]` is what the bfloat16 with the bits `from[i]` stands for.
    from_bf16 = from_bf16_body(from: &[u16], to: &mut [f32])
}

widened! {
    /// `to[i]` are the bits of the bfloat16 nearest to `from[i]`; of two equally near the one that is even.
    to_bf16 = to_bf16_body(from: &[f32], to: &mut [u16])
}

#[inline(always)]
fn add_body(to: &mut [f32], from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}

#[inline(always)]
fn scale_body(to: &mut [f32], scale: f32) {
    for to in to {
        *to *= scale;
    }
}

#[inline(always)]
fn from_bf16_body(from: &[u16], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = f32::from_bits(u32::from(*from) << 16);
    }
}

#[inline(always)]
fn to_bf16_body(from: &[f32], to: &mut [u16]) {
    for (to, from) in to.iter_mut().zip(from) {
        let bits = from.to_bits();
        let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
        // Rounding could make infinity of what is no number; it stays what it is, and quiet.
        *to = if from.is_nan() { (bits >> 16) as u16 | 0x40 } else { rounded };
    }
}

/// The bits of `from` in 16-bit `format`, rounded to the nearest.
pub(crate) fn narrow(from: &[f32], to: &mut [u16], format: Compression) {
    match format {
        Compression::Fp16 => to.reinterpret_cast_mut::<f16>().convert_from_f32_slice(from),
        Compression::Bf16 | Compression::None => to_bf16(from, to),
    }
}

/// What the bits `from` in 16-bit `format` stand for.
pub(crate) fn widen(from: &[u16], to: &mut [f32], format: Compression) {
    match format {
        Compression::Fp16 => from.reinterpret_cast::<f16>().convert_to_f32_slice(to),
        Compression::Bf16 | Compression::None => from_bf16(from, to),
    }
}

/// `to[i]` plus what `from[i]` stands for.
pub(crate) fn add_wide(to: &mut [f32], from: &[u16], format: Compression) {
    let mut values = [0.0; BLOCK];
    for (to, from) in to.chunks_mut(BLOCK).zip(from.chunks(BLOCK)) {
        let values = &mut values[..from.len()];
        widen(from, values, format);
        add(to, values);
    }
}

/// Rounds `values` to what can be sent in `format`.
pub(crate) fn round(values: &mut [f32], format: Compression) {
    let mut bits = [0; BLOCK];
    for values in values.chunks_mut(BLOCK) {
        let bits = &mut bits[..values.len()];
        narrow(values, bits, format);
        widen(bits, values, format);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use proptest::prelude::*;

    const FORMATS: [Compression; 2] = [Compression::Fp16, Compression::Bf16];

    fn one_by_one(value: f32, format: Compression) -> (u16, f32) {
        match format {
            Compression::Fp16 => (f16::from_f32(value).to_bits(), f16::from_f32(value).to_f32()),
            _ => (bf16::from_f32(value).to_bits(), bf16::from_f32(value).to_f32()),
        }
    }

    proptest! {
        #[test]
        fn whole_rows_are_rounded_as_single_values_are(bits in proptest::collection::vec(any::<u32>(), 0..3000)) {
            let values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
            for format in FORMATS {
                let mut narrowed = vec![0; values.len()];
                narrow(&values, &mut narrowed, format);
                let mut widened = vec![0.0; values.len()];
                widen(&narrowed, &mut widened, format);
                for ((value, bits), wide) in values.iter().zip(&narrowed).zip(&widened) {
                    let (due_bits, due) = one_by_one(*value, format);
                    if value.is_nan() {
                        prop_assert!(wide.is_nan());
                    } else {
                        prop_assert_eq!((*bits, wide.to_bits()), (due_bits, due.to_bits()), "{}", value);
                    }
                }
                // What has been rounded once stays: so it can be passed on from rank to rank.
                let mut again = vec![0; values.len()];
                narrow(&widened, &mut again, format);
                prop_assert_eq!(&again, &narrowed);
                let mut rounded = values.clone();
                round(&mut rounded, format);
                prop_assert!(rounded.iter().zip(&widened).all(|(a, b)| a.to_bits() == b.to_bits()));
            }
        }

        #[test]
        fn sums_are_made_in_32_bits(pairs in proptest::collection::vec((-1e4_f32..1e4, -1e4_f32..1e4), 0..3000)) {
            let (one, other): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            for format in FORMATS {
                let mut bits = vec![0; other.len()];
                narrow(&other, &mut bits, format);
                let mut sum = one.clone();
                add_wide(&mut sum, &bits, format);
                for ((sum, one), other) in sum.iter().zip(&one).zip(&other) {
                    prop_assert_eq!(*sum, one + one_by_one(*other, format).1);
                }
            }
        }
    }

    #[test]
    fn what_is_too_large_for_half_precision_is_infinite() {
        let mut values = [65_519.0, 65_520.0, -1e30, f32::NAN, 1e-30, f32::INFINITY];
        round(&mut values, Compression::Fp16);
        assert_eq!(values[..3], [65_504.0, f32::INFINITY, f32::NEG_INFINITY]);
        assert!(values[3].is_nan() && values[4] == 0.0 && values[5] == f32::INFINITY);
        let mut values = [1e38, -1e38, f32::MAX, f32::NAN];
        round(&mut values, Compression::Bf16);
        assert!(
            values[..2].iter().all(|value| value.is_finite())
                && values[2] == f32::INFINITY
                && values[3].is_nan()
        );
    }
}
