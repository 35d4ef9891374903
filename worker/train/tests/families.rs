//! Every family against Hugging Face transformers: hidden states, logits, loss and all gradients, in three sizes.
//!
//! The golden folders are made by scripts/golden_families.py. SQUAD_REFERENCES may name a folder of more of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::path::{Path, PathBuf};

use squad_model::{Family, HeadKind, load_network, save};
use squad_train::verify::{Tolerance, verify};
use tch::Device;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families")
}

fn folders() -> Vec<PathBuf> {
    let roots = std::iter::once(golden()).chain(std::env::var_os("SQUAD_REFERENCES").map(PathBuf::from));
    let mut all: Vec<PathBuf> =
        roots.flat_map(|root| std::fs::read_dir(root).unwrap()).map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

#[test]
fn values_and_gradients() {
    let mut seen = std::collections::BTreeMap::new();
    for folder in folders() {
        let found = verify(&folder, &folder, Tolerance::default()).unwrap();
        let worst = |gradients: bool| {
            let group = found.tensors.iter().filter(|t| t.name.contains('.') == gradients);
            group.max_by(|a, b| a.difference.total_cmp(&b.difference)).unwrap()
        };
        println!(
            "{}: values differ by {:.1e}, gradients by {:.1e} ({})",
            folder.display(),
            worst(false).difference,
            worst(true).difference,
            worst(true).name
        );
        let beyond: Vec<_> = found.tensors.iter().filter(|t| !t.within()).collect();
        assert!(found.passed, "{}: {beyond:?}", folder.display());
        *seen.entry(found.family).or_insert(0) += 1;
    }
    assert!(seen.len() == Family::ALL.len() && seen.values().all(|n| *n >= 3), "{seen:?}");
}

#[test]
fn a_wrong_weight_shows() {
    for family in Family::ALL {
        let folder = golden().join(format!("{}-1", family.model_type()));
        let other = tempfile::tempdir().unwrap();
        std::fs::copy(folder.join("config.json"), other.path().join("config.json")).unwrap();
        let (mut network, _) = load_network(&folder, HeadKind::Span, 0, Device::Cpu).unwrap();
        let mut values = network.stages()[1].to_vec();
        values[7] += 0.1;
        network.stages_mut()[1].set(&values);
        save::write_weights(&network, &other.path().join("model.safetensors")).unwrap();
        assert!(!verify(other.path(), &folder, Tolerance::default()).unwrap().passed, "{family:?}");
    }
}

#[test]
fn saving_gives_the_same_names_and_values_back() {
    for family in Family::ALL {
        let folder = golden().join(format!("{}-2", family.model_type()));
        let (network, report) = load_network(&folder, HeadKind::Span, 0, Device::Cpu).unwrap();
        assert!(report.unexpected.is_empty() && report.missing.is_empty(), "{family:?}: {report:?}");
        let theirs = squad_weights::read(&folder.join("model.safetensors")).unwrap();
        assert_eq!(save::named_weights(&network), theirs, "{family:?}");
        let written = save::config_json(&network);
        let original: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).unwrap()).unwrap();
        assert_eq!(written["architectures"], original["architectures"], "{family:?}");
    }
}

#[test]
fn an_empty_segment_table_is_left_out_and_written_again() {
    let folder = golden().join("roberta-1");
    let emptied = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("config.json"), emptied.path().join("config.json")).unwrap();
    let mut tensors = squad_weights::read(&folder.join("model.safetensors")).unwrap();
    let name = "roberta.embeddings.token_type_embeddings.weight";
    tensors.get_mut(name).unwrap().1.fill(0.0);
    save::write_tensors(&tensors, &emptied.path().join("model.safetensors")).unwrap();
    let (full, _) = load_network(&folder, HeadKind::Span, 0, Device::Cpu).unwrap();
    let (network, _) = load_network(emptied.path(), HeadKind::Span, 0, Device::Cpu).unwrap();
    assert_eq!(network.parameters() + 12, full.parameters());
    assert_eq!(save::named_weights(&network), tensors);
}

#[test]
fn a_reference_of_another_model_is_refused_in_a_sentence() {
    let (model, other) = (golden().join("bert-3"), golden().join("bert-2"));
    let error = verify(&model, &other, Tolerance::default()).unwrap_err().to_string();
    assert!(error.contains("that the model does not have"), "{error}");
}
