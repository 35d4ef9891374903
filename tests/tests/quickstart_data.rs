//! The question set of examples/quickstart keeps what its README promises.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

/// One question of a file.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    id: String,
    question: String,
    context: String,
    /// Text and code-point offset of each answer.
    answers: Vec<(String, usize)>,
    is_impossible: bool,
}

fn load(name: &str) -> Vec<Asked> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart").join(name);
    let document: Value = serde_json::from_slice(&fs::read(&path).expect(name)).expect(name);
    let list = |value: &Value, key: &str| {
        value[key].as_array().unwrap_or_else(|| panic!("{name}: no {key}")).clone()
    };
    let text = |value: &Value| value.as_str().expect(name).to_owned();
    let mut asked = Vec::new();
    for article in list(&document, "data") {
        assert!(!text(&article["title"]).is_empty());
        for paragraph in list(&article, "paragraphs") {
            for qa in list(&paragraph, "qas") {
                let answers = list(&qa, "answers");
                let start =
                    |answer: &Value| usize::try_from(answer["answer_start"].as_u64().unwrap()).unwrap();
                asked.push(Asked {
                    id: text(&qa["id"]),
                    question: text(&qa["question"]),
                    context: text(&paragraph["context"]),
                    answers: answers.iter().map(|answer| (text(&answer["text"]), start(answer))).collect(),
                    is_impossible: qa["is_impossible"].as_bool().unwrap_or(false),
                });
            }
        }
    }
    asked
}

/// Both parts of the set with unanswerable questions.
fn whole() -> Vec<Asked> {
    [load("train-v2.0.json"), load("dev-v2.0.json")].concat()
}

fn contexts(asked: &[Asked]) -> HashSet<&str> {
    asked.iter().map(|one| one.context.as_str()).collect()
}

#[test]
fn the_set_is_large_enough() {
    let asked = whole();
    let answerable = asked.iter().filter(|one| !one.is_impossible).count();
    assert!(contexts(&asked).len() >= 60, "{} paragraphs", contexts(&asked).len());
    assert!(answerable >= 500, "{answerable} answerable questions");
    assert!(asked.len() - answerable >= 120, "{} unanswerable questions", asked.len() - answerable);
}

#[test]
fn every_answer_is_where_it_is_said_to_be() {
    for one in whole() {
        let characters: Vec<char> = one.context.chars().collect();
        assert_eq!(one.answers.is_empty(), one.is_impossible, "{}", one.id);
        for (text, start) in &one.answers {
            let length = text.chars().count();
            let span: String = characters.iter().skip(*start).take(length).collect();
            assert_eq!(span, *text, "{}", one.id);
            let inside_a_word = |at: Option<&char>| at.is_some_and(|character| character.is_alphanumeric());
            assert!(!text.is_empty() && text.trim() == text, "{}: {text:?}", one.id);
            assert!(
                !inside_a_word(start.checked_sub(1).and_then(|before| characters.get(before))),
                "{}",
                one.id
            );
            assert!(!inside_a_word(characters.get(start + length)), "{}", one.id);
        }
    }
}

#[test]
fn questions_do_not_all_open_alike() {
    let mut opening: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in whole() {
        let words: Vec<String> = one.question.split_whitespace().take(4).map(str::to_lowercase).collect();
        opening.entry(words.join(" ")).or_default().push(one.id);
    }
    for (words, ids) in opening {
        assert!(ids.len() <= 5, "{} questions open with {words:?}: {ids:?}", ids.len());
    }
}

#[test]
fn no_question_comes_twice() {
    let (mut ids, mut questions) = (HashSet::new(), HashSet::new());
    for one in whole() {
        assert!(ids.insert(one.id.clone()), "id {} comes twice", one.id);
        assert!(questions.insert(one.question.to_lowercase()), "{:?} comes twice", one.question);
    }
}

#[test]
fn train_and_dev_share_no_paragraph() {
    let (train, dev) = (load("train-v2.0.json"), load("dev-v2.0.json"));
    assert!(contexts(&train).is_disjoint(&contexts(&dev)));
    let share = contexts(&dev).len() as f64 / (contexts(&train).len() + contexts(&dev).len()) as f64;
    assert!((0.15..0.25).contains(&share), "dev holds {share:.2} of the paragraphs");
}

#[test]
fn version_1_1_holds_exactly_the_answerable_questions() {
    for part in ["train", "dev"] {
        let answerable: HashMap<String, Asked> = load(&format!("{part}-v2.0.json"))
            .into_iter()
            .filter(|one| !one.is_impossible)
            .map(|one| (one.id.clone(), one))
            .collect();
        let version_1 = load(&format!("{part}-v1.1.json"));
        assert_eq!(version_1.len(), answerable.len(), "{part}");
        for one in version_1 {
            assert_eq!(answerable.get(&one.id), Some(&one));
        }
    }
}
