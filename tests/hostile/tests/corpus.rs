//! Every file of the committed corpus, as it is and with changes: nothing may panic.
//!
//! `SQUAD_HOSTILE_ROUNDS=1000` changes each file so often; with every run of the tests it is 40 times.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::path::{Path, PathBuf};

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use squad_hostile::TARGETS;

fn files(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// One change of a few bytes.
fn change(bytes: &mut Vec<u8>, random: &mut impl Rng) {
    let at = random.random_range(0..=bytes.len());
    let span = at..(at + random.random_range(1..9)).min(bytes.len());
    match random.random_range(0..6) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(span)),
        2 => {
            let again = bytes[span.clone()].to_vec();
            bytes.splice(span.start..span.start, again);
        }
        3 => bytes[span].fill(0xff),
        4 => bytes.insert(at, random.random()),
        _ => bytes[span].iter_mut().for_each(|byte| *byte = random.random()),
    }
}

#[test]
fn the_corpus_and_what_is_near_it_end_well() {
    let rounds = std::env::var("SQUAD_HOSTILE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    let mut executions = 0_u64;
    for (name, target) in TARGETS {
        let files = files(name);
        assert!(files.len() >= 3, "{name} has {} files", files.len());
        for path in files {
            let whole = std::fs::read(&path).unwrap();
            // A fault is named by the file and the seed that it came from.
            println!("{}", path.display());
            target(&whole);
            for seed in 0..rounds {
                let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
                let mut bytes = whole.clone();
                for _ in 0..random.random_range(1..6) {
                    change(&mut bytes, &mut random);
                }
                println!("seed {seed}");
                target(&bytes);
                executions += 1;
            }
        }
    }
    println!("{executions} executions");
}

#[test]
fn the_corpus_has_what_is_taken_and_not_only_what_is_refused() {
    let spec = std::fs::read_to_string(files("spec").remove(0)).unwrap();
    let value = squad_proto::spec::parse(&spec, "corpus").unwrap();
    squad_proto::spec::validate(&value, "corpus").unwrap();
    let questions = std::fs::read(files("squad_json").remove(0)).unwrap();
    assert!(!squad_data::squad::parse(Path::new("corpus"), &questions).unwrap().questions.is_empty());
    let weights = std::fs::read(files("weights").remove(0)).unwrap();
    assert!(!squad_weights::read_bytes(&weights).unwrap().is_empty());
}
