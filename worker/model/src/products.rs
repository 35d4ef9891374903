//! Matrix products in 16-bit formats, on processors that have none.
//!
//! Without instructions for a format libtorch multiplies its numbers one by one, which takes tens of times as long as in 32
//! bits. There the same rounded numbers are multiplied in 32 bits, and the result is rounded once: what the instructions do, too,
//! whose sums are in 32 bits.

use tch::{Device, Kind, Tensor};

use crate::network::Precision;

/// Whether this machine's processor multiplies matrices in the format itself.
pub fn are_native(precision: Precision) -> bool {
    #[cfg(target_arch = "x86_64")]
    return match precision {
        Precision::Float32 => true,
        Precision::Float16 => is_x86_feature_detected!("avx512fp16"),
        Precision::BFloat16 => is_x86_feature_detected!("avx512bf16"),
    };
    #[cfg(not(target_arch = "x86_64"))]
    return precision == Precision::Float32;
}

/// What numbers of the format are multiplied as on a device.
pub fn multiplied_as(precision: Precision, device: Device) -> Kind {
    if device == Device::Cpu && !are_native(precision) { Kind::Float } else { precision.kind() }
}

/// What to multiply `x` as.
pub(crate) fn kind_for(x: &Tensor) -> Kind {
    match x.kind() {
        Kind::Half => multiplied_as(Precision::Float16, x.device()),
        Kind::BFloat16 => multiplied_as(Precision::BFloat16, x.device()),
        other => other,
    }
}

/// `x · weightᵀ + bias` in the format of `x`.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let kind = kind_for(x);
    x.to_kind(kind).linear(&weight.to_kind(kind), Some(bias.to_kind(kind))).to_kind(x.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_that_of_the_rounded_numbers_rounded_once() {
        tch::manual_seed(1);
        let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu));
        for (kind, step) in [(Kind::BFloat16, 2f64.powi(-8)), (Kind::Half, 2f64.powi(-11))] {
            let (x, weight, bias) = (
                random(&[3, 70, 96]).to_kind(kind),
                random(&[40, 96]).to_kind(kind),
                random(&[40]).to_kind(kind),
            );
            let exact = x
                .to_kind(Kind::Double)
                .linear(&weight.to_kind(Kind::Double), Some(bias.to_kind(Kind::Double)));
            let found = linear(&x, &weight, &bias);
            assert_eq!(found.kind(), kind);
            // Half a unit in the last place, and what sums in 32 bits may add where they cancel.
            let allowed = exact.abs() * step + 1e-4;
            let apart = (found.to_kind(Kind::Double) - exact).abs() - allowed;
            assert!(apart.max().double_value(&[]) <= 0.0, "{kind:?}");
        }
    }

    #[test]
    fn gradients_come_in_the_format_of_what_they_are_of() {
        let leaf = |size: &[i64]| {
            Tensor::ones(size, (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16).set_requires_grad(true)
        };
        let (x, weight, bias) = (leaf(&[5, 4]), leaf(&[3, 4]), leaf(&[3]));
        let sum = linear(&x, &weight, &bias).sum(Kind::Float);
        let gradients = Tensor::run_backward(&[&sum], &[&x, &weight, &bias], false, false);
        assert!(gradients.iter().all(|gradient| gradient.kind() == Kind::BFloat16));
        assert_eq!(gradients[0], Tensor::full([5, 4], 3, (Kind::BFloat16, Device::Cpu)));
        assert_eq!(gradients[1], Tensor::full([3, 4], 5, (Kind::BFloat16, Device::Cpu)));
    }
}
