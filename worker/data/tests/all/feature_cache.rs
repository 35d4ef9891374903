//! The cache of features: found again, never wrong, and safe when many want the same at once.

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::Duration;

use proptest::prelude::*;
use squad_data::{
    Dataset, Feature, FeatureCache, FeatureSettings, Features, Opened, Origin, PairLayout, Purpose,
    Tokenizer, Window,
};

use crate::fixture::{dataset, document, folder, paragraph, settings, tokenizer, vocabulary};

fn some_data() -> Dataset {
    let long = "snow blue the ".repeat(30);
    dataset(&document(&[
        paragraph(&long, &[("a", "who ?", Some(("blue", 5))), ("b", "what is blue ?", None)]),
        paragraph("the snow is blue", &[("c", "what ?", Some(("snow", 4)))]),
    ]))
}

fn open(data: &Dataset, cache: &FeatureCache) -> Opened {
    let shape = settings(24, 6, Window::Step);
    Features::open_or_build(data, &tokenizer(), &shape, Purpose::Train, cache).unwrap()
}

fn all(features: &Features) -> Vec<Feature<'_>> {
    (0..features.len()).map(|index| features.get(index)).collect()
}

fn assert_same(one: &Features, other: &Features) {
    assert_eq!(all(one), all(other));
    assert_eq!((one.digest(), one.counts()), (other.digest(), other.counts()));
    assert_eq!(one.lengths(), other.lengths());
    for question in 0..one.questions() {
        assert_eq!(one.context_tokens(question), other.context_tokens(question));
        for token in 0..one.context_tokens(question) {
            assert_eq!(one.offset(question, token), other.offset(question, token));
        }
    }
}

/// A cache in a folder.
fn cache_in(folder: &Path) -> FeatureCache {
    FeatureCache::In { folder: folder.to_owned(), wait: Duration::from_secs(120) }
}

fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|found| found == end)).collect()
}

#[test]
fn features_are_found_again_as_they_were_built() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache_in(&dir.path().join("deep/inside"));
    let data = some_data();
    let built = open(&data, &FeatureCache::Off);
    assert_eq!(built.origin, Origin::Built);
    for origin in [Origin::Saved, Origin::Cached, Origin::Cached] {
        let opened = open(&data, &cache);
        assert_eq!(opened.origin, origin);
        assert_same(&opened.features, &built.features);
    }
    assert_eq!(files(&dir.path().join("deep/inside"), "features").len(), 1);
    assert_eq!(files(&dir.path().join("deep/inside"), "partial").len(), 0);
}

#[test]
fn whatever_changes_the_features_has_a_name_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache_in(dir.path());
    let plain = settings(24, 6, Window::Step);
    let usual = tokenizer();
    let saved = |data: &Dataset, tokenizer: &Tokenizer, shape: FeatureSettings, purpose| {
        Features::open_or_build(data, tokenizer, &shape, purpose, &cache).unwrap().origin
    };
    let data = some_data();
    let mut others = vec![plain; 5];
    others[0].max_seq_length = 25;
    others[1].doc_stride = 5;
    others[2].max_query_length = 3;
    others[3].window = Window::Overlap;
    others[4].layout = PairLayout::Double;
    others.push(plain);
    for shape in others {
        assert_eq!(saved(&data, &usual, shape, Purpose::Train), Origin::Saved, "{shape:?}");
    }
    assert_eq!(saved(&data, &usual, plain, Purpose::Evaluate), Origin::Saved);
    let mut words = vocabulary();
    words.push("other".to_owned());
    let other = Tokenizer::from_folder(folder(&words).path()).unwrap();
    assert_eq!(saved(&data, &other, plain, Purpose::Train), Origin::Saved);

    let mut changed = vec![data.clone(); 5];
    changed[0].questions[0].context = "blue snow".into();
    changed[1].questions[0].text.push('s');
    changed[2].questions[0].answers[0].start += 1;
    changed[3].questions[0].is_impossible = true;
    changed[4].questions.swap(0, 1);
    for data in changed {
        assert_eq!(saved(&data, &usual, plain, Purpose::Evaluate), Origin::Saved, "{:?}", data.questions[0]);
    }
    // What features are not made of changes nothing.
    let mut renamed = data.clone();
    renamed.questions[0].id = "z".to_owned();
    renamed.questions[0].title = "Z".to_owned();
    assert_eq!(saved(&renamed, &usual, plain, Purpose::Train), Origin::Cached);
}

#[test]
fn of_many_that_want_the_same_at_once_one_builds() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache_in(dir.path());
    let data = some_data();
    let built = open(&data, &FeatureCache::Off).features;
    let start = Barrier::new(8);
    let opened: Vec<Opened> = std::thread::scope(|scope| {
        let one = || {
            start.wait();
            open(&data, &cache)
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(opened.iter().filter(|one| one.origin == Origin::Saved).count(), 1);
    assert_eq!(opened.iter().filter(|one| one.origin == Origin::Cached).count(), 7);
    opened.iter().for_each(|one| assert_same(&one.features, &built));
}

#[test]
fn other_features_from_the_same_input_need_another_version() {
    let found = [Window::Step, Window::Overlap].map(|window| {
        let shape = settings(24, 6, window);
        let features = Features::build(&some_data(), &tokenizer(), &shape, Purpose::Train).unwrap();
        hex::encode(features.digest())
    });
    assert_eq!(
        found, PINNED,
        "raise VERSION in features/cache.rs: old caches hold features that are cut no more"
    );
}

const PINNED: [&str; 2] = [
    "10d78a1416e9f2991342d9f5575ca066b0718248c70926f504d1890936f33f18",
    "f3c0966d0c40822b2538d9012deeb3bc2b5d986f2b4032664e580f3498b1d354",
];

#[test]
fn what_a_killed_process_left_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache_in(dir.path());
    open(&some_data(), &cache);
    let complete = files(dir.path(), "features").remove(0);
    std::fs::rename(&complete, complete.with_extension("partial")).unwrap();
    assert_eq!(open(&some_data(), &cache).origin, Origin::Saved);
    assert_eq!(open(&some_data(), &cache).origin, Origin::Cached);
}

#[test]
fn a_cache_that_cannot_be_used_costs_only_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a file");
    std::fs::write(&file, "").unwrap();
    let opened = open(&some_data(), &cache_in(&file));
    assert!(
        matches!(&opened.origin, Origin::Unsaved(reason) if reason.contains("a file")),
        "{}",
        opened.origin
    );
    assert_same(&opened.features, &open(&some_data(), &FeatureCache::Off).features);
}

#[test]
fn what_is_mapped_outlives_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache_in(dir.path());
    open(&some_data(), &cache);
    let mapped = open(&some_data(), &cache).features;
    drop(dir);
    assert_same(&mapped, &open(&some_data(), &FeatureCache::Off).features);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damage_anywhere_is_seen_and_mended(at in 0.0..1.0f64, flip in 1..=255u8, cut in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache_in(dir.path());
        let built = open(&some_data(), &cache).features;
        let path = files(dir.path(), "features").remove(0);
        let mut bytes = std::fs::read(&path).unwrap();
        let place = (at * bytes.len() as f64) as usize;
        if cut {
            bytes.truncate(place);
        } else {
            bytes[place] ^= flip;
        }
        // Another file in its place: the one that is mapped above is never written into.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let mended = open(&some_data(), &cache);
        prop_assert!(matches!(mended.origin, Origin::Mended(_)), "{:?}", mended.origin);
        assert_same(&mended.features, &built);
        prop_assert_eq!(open(&some_data(), &cache).origin, Origin::Cached);
    }
}
