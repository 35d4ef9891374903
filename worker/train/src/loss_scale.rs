//! Loss scaling (Micikevicius et al., 2018).
//!
//! Half precision loses gradients below 6e-8. The loss is therefore multiplied by a large power of two before the
//! backward pass, and the summed gradients are divided by it again. Where the scale was too large, a gradient is not
//! finite; then the step is taken again with half the scale. All ranks see the same summed gradients, so all decide
//! alike, and no example is lost.

use serde::{Deserialize, Serialize};
use squad_proto::spec::DataType;

const START: f64 = 65536.0;
const LEAST: f64 = 1.0;
/// Beyond this a 32-bit gradient could overflow where a half one would not.
const MOST: f64 = 16_777_216.0;
/// Good steps in a row after which a larger scale is tried.
const GROW_AFTER: u32 = 2000;

/// The factor on the loss, and what it goes by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    scale: f64,
    /// Steps since the scale changed.
    good_steps: u32,
    dynamic: bool,
}

impl LossScale {
    /// Dynamic for half precision; else always 1, for the other formats have the range of 32-bit numbers.
    pub fn new(dtype: DataType) -> Self {
        match dtype {
            DataType::Float16 => Self { scale: START, good_steps: 0, dynamic: true },
            DataType::Float32 | DataType::Bfloat16 => Self { scale: 1.0, good_steps: 0, dynamic: false },
        }
    }

    /// The factor on the loss: a power of two, so that multiplying and dividing by it are exact.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Notes a step whose gradients were finite.
    pub fn succeed(&mut self) {
        if !self.dynamic {
            return;
        }
        self.good_steps += 1;
        if self.good_steps >= GROW_AFTER {
            self.scale = (self.scale * 2.0).min(MOST);
            self.good_steps = 0;
        }
    }

    /// Notes gradients that were not finite. True where a smaller scale is worth another try.
    pub fn overflow(&mut self) -> bool {
        let can = self.dynamic && self.scale > LEAST;
        if can {
            self.scale = (self.scale / 2.0).max(LEAST);
            self.good_steps = 0;
        }
        can
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_at_once_and_doubles_after_long() {
        let mut scale = LossScale::new(DataType::Float16);
        assert_eq!(scale.scale(), 65536.0);
        assert!(scale.overflow() && scale.overflow());
        assert_eq!(scale.scale(), 16384.0);
        (0..1999).for_each(|_| scale.succeed());
        assert_eq!(scale.scale(), 16384.0);
        scale.succeed();
        assert_eq!(scale.scale(), 32768.0);
        // An overflow in between begins the count anew.
        (0..1999).for_each(|_| scale.succeed());
        assert!(scale.overflow());
        scale.succeed();
        assert_eq!(scale.scale(), 16384.0);
    }

    #[test]
    fn never_leaves_its_bounds() {
        let mut scale = LossScale::new(DataType::Float16);
        (0..16).for_each(|_| assert!(scale.overflow()));
        assert_eq!(scale.scale(), 1.0);
        assert!(!scale.overflow(), "a smaller scale would not help");
        (0..100 * GROW_AFTER).for_each(|_| scale.succeed());
        assert_eq!(scale.scale(), MOST);
    }

    #[test]
    fn other_formats_need_none() {
        for dtype in [DataType::Float32, DataType::Bfloat16] {
            let mut scale = LossScale::new(dtype);
            (0..5000).for_each(|_| scale.succeed());
            assert!(!scale.overflow());
            assert_eq!(scale.scale(), 1.0);
        }
    }
}
