//! Sizes as people write them.

use std::str::FromStr;

/// Largest size: far beyond a bucket of gradients, and within reach of a machine's memory.
const MOST: usize = 16 << 30;

/// Sizes in bytes: `4KiB`, `1MiB,64MiB`, or `4KiB..256MiB`, which is the first, four times it, and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sizes(pub(crate) Vec<usize>);

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut sizes = Vec::new();
        for part in text.split(',') {
            match part.split_once("..") {
                None => sizes.push(size(part)?),
                Some((from, to)) => {
                    let (mut at, last) = (size(from)?, size(to)?);
                    if at > last {
                        return Err(format!("{part}: the range ends before it begins"));
                    }
                    while at <= last {
                        sizes.push(at);
                        at *= 4;
                    }
                }
            }
        }
        Ok(Self(sizes))
    }
}

/// One size, a multiple of four bytes.
fn size(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return Err(format!("{text:?} is no size: a number with KiB, MiB or GiB behind it")),
    };
    let bytes = number.parse::<usize>().ok().and_then(|number| number.checked_mul(factor));
    match bytes {
        Some(bytes) if (4..=MOST).contains(&bytes) && bytes.is_multiple_of(4) => Ok(bytes),
        _ => Err(format!("{text:?} is no size: a multiple of 4 bytes, from 4 to 16GiB")),
    }
}

/// A size as people write it, exact.
pub(crate) fn shown(bytes: usize) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{} {name}", bytes / unit);
        }
    }
    format!("{bytes} B")
}

/// A size as people read it, rounded.
pub(crate) fn approximate(bytes: u64) -> String {
    let in_units = |unit: u64| bytes as f64 / unit as f64;
    match bytes {
        0..0x10_0000 => format!("{:.0} KiB", in_units(1 << 10)),
        0x10_0000..0x4000_0000 => format!("{:.0} MiB", in_units(1 << 20)),
        _ => format!("{:.1} GiB", in_units(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        let sizes = |text: &str| text.parse::<Sizes>().unwrap().0;
        assert_eq!(sizes("4KiB"), [4096]);
        assert_eq!(sizes("8, 1k,2MiB"), [8, 1024, 2 << 20]);
        assert_eq!(sizes("4KiB..256KiB"), [4 << 10, 16 << 10, 64 << 10, 256 << 10]);
        assert_eq!(sizes("4KiB..100KiB,1MiB"), [4 << 10, 16 << 10, 64 << 10, 1 << 20]);
        for wrong in
            ["", "4TiB", "KiB", "3", "6", "-4", "64KiB..4KiB", "99999999999999999999", "17GiB", "4KiB.."]
        {
            assert!(wrong.parse::<Sizes>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn rounded_sizes_have_a_fitting_unit() {
        let shown = [2048, 3 << 20, 3 << 29].map(approximate);
        assert_eq!(shown, ["2 KiB", "3 MiB", "1.5 GiB"]);
    }

    #[test]
    fn what_is_shown_reads_back() {
        for bytes in [4, 1000, 4096, 3 << 20, 1 << 30] {
            assert_eq!(shown(bytes).parse::<Sizes>().unwrap().0, [bytes]);
        }
    }
}
