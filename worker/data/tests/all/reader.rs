use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};
use squad_data::squad::{self, Warning, WarningKind};
use squad_data::{DataError, Dataset};

use crate::fixture::{dataset, document, paragraph};

fn failure(document: &Value) -> DataError {
    squad::parse(Path::new("set.json"), document.to_string().as_bytes()).unwrap_err()
}

#[test]
fn every_field_arrives() {
    let mut doc = document(&[
        paragraph("Blue 😀 sky.", &[("a", "Which?", Some(("sky", 7))), ("b", "Why?", None)]),
        paragraph("Snow.", &[("c", "What?", Some(("Snow", 0)))]),
    ]);
    let data = dataset(&doc);
    assert_eq!(data.version.as_deref(), Some("test"));
    let ids: Vec<&str> = data.questions.iter().map(|q| q.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    let [a, b, _] = &data.questions[..] else { panic!("three questions") };
    assert_eq!((a.title.as_str(), a.text.as_str(), &*a.context), ("T", "Which?", "Blue 😀 sky."));
    assert_eq!((a.gold().unwrap().text.as_str(), a.gold().unwrap().start), ("sky", 7));
    assert!(a.has_answer() && !b.has_answer() && b.is_impossible && b.gold().is_none());
    assert!(std::sync::Arc::ptr_eq(&a.context, &b.context), "one allocation per paragraph");
    assert!(data.has_unanswerable() && data.warnings.is_empty());

    // Version 1.1 knows no is_impossible, and some sets no title.
    doc["data"][0].as_object_mut().unwrap().remove("title");
    doc["data"][0]["paragraphs"][0]["qas"][0].as_object_mut().unwrap().remove("is_impossible");
    assert!(!dataset(&doc).questions[0].is_impossible);
}

#[test]
fn a_missing_field_is_named_with_its_place() {
    let whole = document(&[paragraph("Blue sky.", &[("a", "Which?", Some(("sky", 5)))])]);
    let places = [
        ("", "data", "the document"),
        ("/data/0", "paragraphs", "data[0]"),
        ("/data/0/paragraphs/0", "context", "data[0].paragraphs[0]"),
        ("/data/0/paragraphs/0", "qas", "data[0].paragraphs[0]"),
        ("/data/0/paragraphs/0/qas/0", "id", "data[0].paragraphs[0].qas[0]"),
        ("/data/0/paragraphs/0/qas/0", "question", "data[0].paragraphs[0].qas[0]"),
        ("/data/0/paragraphs/0/qas/0", "answers", "data[0].paragraphs[0].qas[0]"),
        ("/data/0/paragraphs/0/qas/0/answers/0", "text", "data[0].paragraphs[0].qas[0].answers[0]"),
        ("/data/0/paragraphs/0/qas/0/answers/0", "answer_start", "data[0].paragraphs[0].qas[0].answers[0]"),
    ];
    for (pointer, field, at) in places {
        let mut broken = whole.clone();
        broken.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(field);
        let expected = format!("set.json: {at} has no field \"{field}\", which the SQuAD format requires");
        assert_eq!(failure(&broken).to_string(), expected);
    }
}

#[test]
fn broken_json_is_located() {
    let bytes = b"{\"data\": [\n  {\"title\": \"x\",, }\n]}";
    let error = squad::parse(Path::new("dir/set.json"), bytes).unwrap_err();
    assert!(matches!(error, DataError::Json { line: 2, column: 17, .. }), "{error:?}");
    assert_eq!(error.to_string(), "dir/set.json, line 2, column 17: key must be a string");

    let error = failure(&json!({"data": [{"paragraphs": [{"context": 5, "qas": []}]}]}));
    assert!(error.to_string().contains("invalid type: integer `5`, expected a string"), "{error}");
    let error = squad::parse(Path::new("set.json"), b"{\"data\": [").unwrap_err();
    assert!(error.to_string().contains("EOF"), "{error}");
}

#[test]
fn files_that_hold_nothing_are_refused() {
    let error = squad::read(Path::new("/nowhere/set.json")).unwrap_err().to_string();
    assert!(error.starts_with("cannot read /nowhere/set.json: No such file"), "{error}");
    assert_eq!(failure(&document(&[])).to_string(), "set.json holds no questions");
}

fn with_answer(context: &str, text: &str, start: usize) -> Result<Dataset, DataError> {
    let doc = document(&[paragraph(context, &[("a", "?", Some((text, start)))])]);
    squad::parse(Path::new("set.json"), doc.to_string().as_bytes())
}

#[test]
fn a_shifted_offset_is_mended_to_the_nearest_occurrence() {
    // Offsets in UTF-16 units or bytes are the usual cause: here one too many for each 😀.
    let data = with_answer("sky 😀😀 sky and sky", "sky", 9).unwrap();
    assert_eq!(data.questions[0].answers[0].start, 7);
    let kind = WarningKind::AnswerMoved { from: 9, to: 7 };
    assert_eq!(data.warnings, [Warning { id: "a".to_owned(), kind }]);
    assert_eq!(
        data.warnings[0].to_string(),
        "question a: the answer is not at answer_start 9; its nearest occurrence, 7, is used"
    );
}

#[test]
fn an_answer_that_is_nowhere_is_an_error() {
    let error = with_answer("Blue sky.", "sea", 5).unwrap_err();
    assert_eq!(
        error.to_string(),
        "set.json: question a: answer_start 5 (in code points) does not match its context: \
         expected \"sea\", found \"sky\""
    );
    // Beyond the context: an error even though the text occurs.
    let error = with_answer("Blue sky.", "sky", 9).unwrap_err();
    assert!(
        matches!(&error, DataError::AnswerMismatch { start: 9, found, .. } if found.is_empty()),
        "{error}"
    );
    assert!(with_answer("Blue sky.", "sky", usize::MAX).is_err());
    let long = with_answer("Blue sky.", &"x".repeat(500), 0).unwrap_err().to_string();
    assert!(long.len() < 250 && long.contains('…'), "{long}");
}

#[test]
fn oddities_are_warnings() {
    let mut doc = document(&[paragraph(
        "Blue sky.",
        &[
            ("a", "Which?", Some(("sky", 5))),
            ("a", " ", Some((" ", 4))),
            ("b", "Why?", None),
            ("c", "?", Some(("sky", 5))),
        ],
    )]);
    doc["data"][0]["paragraphs"][0]["qas"][2]["is_impossible"] = json!(false);
    doc["data"][0]["paragraphs"][0]["qas"][3]["is_impossible"] = json!(true);
    let data = dataset(&doc);
    let kinds: Vec<WarningKind> = data.warnings.iter().map(|w| w.kind.clone()).collect();
    use WarningKind::{AnswersThoughImpossible, BlankQuestion, DuplicateId, EmptyAnswer, NoAnswer};
    assert_eq!(kinds, [DuplicateId, BlankQuestion, EmptyAnswer, NoAnswer, AnswersThoughImpossible]);
    for (warning, part) in
        data.warnings.iter().zip(["more than once", "blank", "empty", "no answer", "marked impossible"])
    {
        assert!(warning.to_string().contains(part), "{warning}");
    }
    assert_eq!(data.questions.len(), 4);
    assert!(data.questions[1].gold().is_none(), "a blank answer is no gold");
    assert!(data.questions[3].gold().is_none() && data.questions[3].has_answer());
}

#[test]
fn a_single_question_can_be_asked() {
    let data = Dataset::ask("Which?", "Blue sky.");
    assert_eq!((data.questions.len(), &*data.questions[0].context), (1, "Blue sky."));
}

proptest! {
    #[test]
    fn true_offsets_are_kept_whatever_the_script(
        before in "[a-z 漢字😀é\u{301}]{0,20}", answer in "[a-z漢😀\u{301}]{1,8}", after in "[a-z 漢字😀]{0,20}"
    ) {
        let context = format!("{before}{answer}{after}");
        let start = before.chars().count();
        let data = with_answer(&context, &answer, start).unwrap();
        prop_assert_eq!(data.questions[0].answers[0].start, start);
        prop_assert!(data.warnings.is_empty());
    }

    #[test]
    fn any_offset_is_mended_or_refused_but_never_kept_wrong(
        context in "[ab 漢😀]{1,30}", answer in "[ab漢😀]{1,3}", start in 0usize..40
    ) {
        if let Ok(data) = with_answer(&context, &answer, start) {
            let at = data.questions[0].answers[0].start;
            let found: String = context.chars().skip(at).take(answer.chars().count()).collect();
            prop_assert_eq!(found, answer);
        }
    }

    #[test]
    fn any_bytes_give_a_result_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        prop_assert!(squad::parse(Path::new("x"), &bytes).is_err());
    }
}
