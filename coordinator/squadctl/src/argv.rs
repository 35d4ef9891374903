//! The habits of `mpirun`, before clap reads the arguments.

use std::ffi::OsString;

/// Turns `-np 4` and `-np=4` into `--np`: clap would read `-np` as `-n` with the value `p`. Arguments after
/// `--` stay as they are.
pub(crate) fn translate(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut literal = false;
    arguments
        .map(|argument| {
            literal |= argument == "--";
            match argument.to_str().and_then(|text| text.strip_prefix("-np")) {
                Some(rest) if !literal && (rest.is_empty() || rest.starts_with('=')) => {
                    format!("--np{rest}").into()
                }
                _ => argument,
            }
        })
        .collect()
}

/// Whether arguments that clap refused ask for JSON.
pub(crate) fn asks_for_json(arguments: &[OsString]) -> bool {
    arguments.iter().any(|a| a == "--output=json")
        || arguments.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(line: &str) -> String {
        let words: Vec<String> = translate(line.split(' ').map(OsString::from))
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect();
        words.join(" ")
    }

    #[test]
    fn np_of_mpirun_becomes_a_long_flag() {
        assert_eq!(translated("squadctl run -np 4 job.yaml"), "squadctl run --np 4 job.yaml");
        assert_eq!(translated("squadctl run -np=4 job.yaml"), "squadctl run --np=4 job.yaml");
    }

    #[test]
    fn everything_else_stays() {
        for line in ["squadctl run -n 4 --np 2 -npx a-np", "squadctl predict -- -np 4"] {
            assert_eq!(translated(line), line);
        }
    }

    #[test]
    fn json_is_seen_in_refused_arguments() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(asks_for_json(&words("squadctl --output json nonsense")));
        assert!(asks_for_json(&words("squadctl nonsense --output=json")));
        assert!(!asks_for_json(&words("squadctl run json")));
    }
}
