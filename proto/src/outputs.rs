//! What several parts know of an output folder: names of files in it, and how an earlier run makes room.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// What a training run writes into its output folder; an earlier run's are moved aside.
const OF_A_RUN: &[&str] =
    &["spec.yaml", "metrics.jsonl", "tensorboard", "checkpoints", "model", "eval", "results.json"];

/// The file that names the job whose run an output folder holds.
pub const OWNER: &str = ".job";

/// Files that make a tokenizer; those that are there are copied into every saved model.
pub const TOKENIZER_FILES: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
];

/// Results that travel to a coordinator which does not see them. The last one comes last: who sees it may rely on the
/// others.
const RESULTS: &[&str] = &[
    "spec.yaml",
    "train.log",
    "metrics.jsonl",
    "eval/predictions.json",
    "eval/nbest_predictions.json",
    "eval/na_prob.json",
    "eval/revised_predictions.json",
    "eval/results.json",
    "results.json",
];

/// The final model's files but for its tokenizer's.
const MODEL: &[&str] = &["model/config.json", "model/model.safetensors", "model/README.md"];

/// The folder of the final model.
const MODEL_FOLDER: &str = "model/";

/// Every file of an output folder that may travel, the model's first and `results.json` last.
pub fn deliverable() -> Vec<String> {
    let tokenizer = TOKENIZER_FILES.iter().map(|name| format!("{MODEL_FOLDER}{name}"));
    let others = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    others(MODEL).into_iter().chain(tokenizer).chain(others(RESULTS)).collect()
}

/// Whether a deliverable file is the model's.
pub fn is_of_model(name: &str) -> bool {
    name.starts_with(MODEL_FOLDER)
}

/// The name of the file by which it is found out whether two machines see the same output folder; `None` for what is no
/// token of such a file: 32 hexadecimal digits.
pub fn mark_name(token: &str) -> Option<String> {
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (token.len() == 32 && token.bytes().all(hexadecimal)).then(|| format!(".mark-{token}"))
}

/// What could not be made or moved, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot move an earlier run aside: {}: {cause}", .path.display())]
pub struct NotMoved {
    /// A folder, or what was to go there.
    pub path: PathBuf,
    /// The system's word.
    #[source]
    pub cause: io::Error,
}

/// Moves an earlier run's files to the first free `earlier/N` of its output folder, so that nothing is lost and nothing of
/// two runs is mixed. Gives the place they went to; `None` where there are none.
///
/// # Errors
/// When the folder cannot be written.
pub fn move_earlier_aside(output: &Path) -> Result<Option<PathBuf>, NotMoved> {
    let present: Vec<&&str> = OF_A_RUN.iter().filter(|name| output.join(name).exists()).collect();
    if present.is_empty() {
        return Ok(None);
    }
    let mut aside = output.join("earlier/1");
    for number in 2_u32.. {
        if !aside.exists() {
            break;
        }
        aside.set_file_name(number.to_string());
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        |cause| NotMoved { path, cause }
    };
    fs::create_dir_all(&aside).map_err(failed(&aside))?;
    for name in present {
        let from = output.join(name);
        fs::rename(&from, aside.join(name)).map_err(failed(&from))?;
    }
    Ok(Some(aside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Component;

    #[test]
    fn each_earlier_run_has_a_place_of_its_own() {
        let folder = std::env::temp_dir().join(format!("squad-proto-outputs-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        assert!(move_earlier_aside(&folder).unwrap().is_none());
        for run in ["1", "2"] {
            fs::write(folder.join("results.json"), run).unwrap();
            fs::write(folder.join("mine.txt"), run).unwrap();
            let aside = move_earlier_aside(&folder).unwrap().unwrap();
            assert_eq!(aside, folder.join("earlier").join(run));
            assert_eq!(fs::read_to_string(aside.join("results.json")).unwrap(), run);
            assert!(folder.join("mine.txt").exists() && !folder.join("results.json").exists());
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_mark_is_a_plain_name() {
        let token = "0123456789abcdef".repeat(2);
        assert_eq!(mark_name(&token).unwrap(), format!(".mark-{token}"));
        for other in ["", "..", "0123", &"A".repeat(32), &format!("../{}", "a".repeat(29)), &"a".repeat(33)] {
            assert_eq!(mark_name(other), None, "{other}");
        }
    }

    #[test]
    fn what_travels_stays_in_its_folder() {
        let all = deliverable();
        assert_eq!(all.last().unwrap(), "results.json");
        for name in &all {
            let parts: Vec<_> = Path::new(name).components().collect();
            assert!(parts.len() <= 2 && parts.iter().all(|p| matches!(p, Component::Normal(_))), "{name}");
        }
        assert!(is_of_model("model/vocab.txt") && !is_of_model("results.json"));
    }
}
