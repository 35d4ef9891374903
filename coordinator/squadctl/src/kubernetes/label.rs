//! Names of objects.

use std::fmt;
use std::str::FromStr;

/// Longest name: what Kubernetes puts behind it for a pod's host name (`-workers-0-4095`) has to fit into 63 characters.
const LONGEST: usize = 48;

/// A name that every kind of object may have: lower-case letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label(String);

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let within = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
        if begins && !text.ends_with('-') && text.bytes().all(within) && text.len() <= LONGEST {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "{text:?} is no name that Kubernetes takes here: at most {LONGEST} lower-case letters, digits and hyphens, \
             beginning with a letter and not ending with a hyphen"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_host_names() {
        for good in ["a", "squad-2", &"a".repeat(48)] {
            assert_eq!(good.parse::<Label>().unwrap().to_string(), good);
        }
        for bad in ["", "2nd", "-a", "a-", "A", "a.b", "a b", "a\n", "ä", &"a".repeat(49)] {
            assert!(bad.parse::<Label>().is_err(), "{bad:?}");
        }
    }
}
