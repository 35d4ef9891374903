//! Names of files in an output folder that several parts speak of.

/// What a training run writes into its output folder; an earlier run's are moved aside.
pub const OF_A_RUN: &[&str] =
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Component, Path};

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
