//! Amounts of memory.

use std::fmt;
use std::str::FromStr;

/// The units, longest first.
const UNITS: [&str; 9] = ["Ki", "Mi", "Gi", "Ti", "k", "M", "G", "T", ""];

/// An amount of memory as Kubernetes writes it: a whole number and a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quantity {
    number: u64,
    unit: &'static str,
}

impl Quantity {
    /// So many times as much; `None` where no machine has that.
    pub(crate) fn times(self, factor: u32) -> Option<Self> {
        let number = self.number.checked_mul(factor.into())?;
        Some(Self { number, ..self })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.number, self.unit)
    }
}

impl FromStr for Quantity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = UNITS.iter().find_map(|unit| {
            let digits = text.strip_suffix(unit)?;
            let whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let number = digits.parse().ok().filter(|number| whole && *number > 0)?;
            Some(Self { number, unit })
        });
        found.ok_or_else(|| {
            format!("{text:?} is no amount of memory; write a whole number and Mi or Gi, as in 8Gi")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_whole_numbers_of_a_unit() {
        for good in ["8Gi", "512Mi", "1000000", "3G", "16k"] {
            assert_eq!(good.parse::<Quantity>().unwrap().to_string(), good);
        }
        assert_eq!("3Gi".parse::<Quantity>().unwrap().times(4).unwrap().to_string(), "12Gi");
        assert_eq!(format!("{}Gi", u64::MAX).parse::<Quantity>().unwrap().times(2), None);
        for bad in ["", "0Gi", "Gi", "1.5Gi", "-1Gi", "+1Gi", "8gb", "8 Gi", "8Gi\n"] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad:?}");
        }
    }
}
