//! Job specs that are part of the program: the replaced program's settings for each of its models.
//!
//! Each is a file of the folder `recipes/`, valid as it stands. Its paths are relative, for its user to have the
//! data there or to say otherwise.

use serde::Serialize;
use thiserror::Error;

use crate::nearest::nearest;
use crate::spec::{SpecError, ValidSpec, parse, validate};

/// A job spec under a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Its name, which is the job's as well.
    pub name: &'static str,
    /// The spec as YAML, with a comment about what it is and where it comes from.
    pub yaml: &'static str,
    /// What was published for it.
    pub published: Published,
}

/// The figures on the dev file that were published for a recipe; `None` where there are none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Published {
    /// Of a run in 32-bit floats.
    pub float32: Option<Figures>,
    /// Of a run in mixed precision with 16-bit floats.
    pub float16: Option<Figures>,
}

/// The official metric at its best thresholds, in per cent: `best_exact` and `best_f1` of `results.json`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Exact match.
    pub exact: f64,
    /// F1.
    pub f1: f64,
}

/// There is no recipe of this name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there is no recipe {name}; {}squadctl recipes list shows all", .near.map_or_else(String::new, |near| format!("did you mean {near}? ")))]
pub struct UnknownRecipe {
    /// The name.
    pub name: String,
    /// The recipe that was most likely meant.
    pub near: Option<&'static str>,
}

const fn figures(exact: f64, f1: f64) -> Option<Figures> {
    Some(Figures { exact, f1 })
}

macro_rules! recipe {
    ($name:literal, $float32:expr, $float16:expr) => {
        Recipe {
            name: $name,
            yaml: include_str!(concat!("../recipes/", $name, ".yaml")),
            published: Published { float32: $float32, float16: $float16 },
        }
    };
}

/// Every recipe, in the order of the replaced program's table.
pub const ALL: &[Recipe] = &[
    recipe!("albert-base-squad2", figures(79.49, 82.38), figures(79.50, 82.40)),
    recipe!("albert-large-squad2", figures(82.18, 85.05), figures(82.19, 85.10)),
    recipe!("albert-xlarge-squad2", figures(84.79, 87.78), figures(85.29, 88.20)),
    recipe!("albert-xxlarge-squad2", figures(87.29, 90.29), figures(87.19, 90.13)),
    recipe!("electra-small-squad2", figures(71.36, 73.96), figures(71.38, 74.10)),
    recipe!("electra-base-squad2", figures(83.80, 86.49), figures(83.87, 86.50)),
    recipe!("electra-large-squad2", figures(88.18, 90.61), figures(88.07, 90.54)),
    recipe!("mobilebert-squad2", figures(77.76, 80.33), None),
    recipe!("roberta-large-squad2", figures(86.46, 89.35), figures(86.50, 89.44)),
    recipe!("bert-base-uncased-squad2", figures(73.52, 76.29), figures(73.60, 76.45)),
    recipe!("bert-large-uncased-squad2", figures(78.61, 81.41), figures(78.60, 81.52)),
    recipe!("bert-wwm-large-squad2", None, figures(82.21, 84.88)),
    recipe!("gluon-bert-base-cased-squad2", None, figures(75.22, 78.15)),
];

/// The recipe of this name.
///
/// # Errors
/// When there is none; the error names the one that was most likely meant.
pub fn find(name: &str) -> Result<&'static Recipe, UnknownRecipe> {
    ALL.iter().find(|recipe| recipe.name == name).ok_or_else(|| UnknownRecipe {
        name: name.into(),
        near: nearest(name, ALL.iter().map(|recipe| recipe.name)),
    })
}

impl Recipe {
    /// What it is, in one line: the first of its comment.
    pub fn summary(&self) -> &'static str {
        self.yaml.lines().next().unwrap_or_default().trim_start_matches("# ").trim_end_matches('.')
    }

    /// The spec, validated.
    ///
    /// # Errors
    /// When the file is no valid spec, which the tests of this crate rule out.
    pub fn spec(&self) -> Result<ValidSpec, SpecError> {
        let source = self.source_name();
        validate(&parse(self.yaml, &source)?, &source)
    }

    /// What errors call the text.
    pub fn source_name(&self) -> String {
        format!("recipe {}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Head, JobSpec, Separators, Train, Window};

    fn specs() -> Vec<JobSpec> {
        ALL.iter()
            .map(|recipe| match recipe.spec() {
                Ok(spec) => spec.into_inner(),
                Err(error) => panic!("{error}"),
            })
            .collect()
    }

    /// The replaced program's table: model, batch, accumulation, global batch, epochs, learning rate, warm-up,
    /// weight decay, sequence length, gradient norm, layer-wise decay. All of it with 4 workers.
    type Row = (&'static str, u32, u32, usize, f64, f64, f64, f64, u32, f64, Option<f64>);
    const TABLE: [Row; 13] = [
        ("google_albert_base_v2", 4, 3, 48, 3.0, 2e-5, 0.1, 0.01, 512, 1.0, None),
        ("google_albert_large_v2", 3, 4, 48, 3.0, 2e-5, 0.1, 0.01, 512, 1.0, None),
        ("google_albert_xlarge_v2", 1, 12, 48, 3.0, 2e-5, 0.1, 0.01, 512, 0.1, None),
        ("google_albert_xxlarge_v2", 1, 12, 48, 3.0, 2e-5, 0.1, 0.01, 512, 0.1, None),
        ("google_electra_small", 8, 1, 32, 2.0, 3e-4, 0.1, 0.0, 512, 1.0, Some(0.8)),
        ("google_electra_base", 8, 1, 32, 2.0, 1e-4, 0.1, 0.0, 512, 1.0, Some(0.8)),
        ("google_electra_large", 2, 4, 32, 2.0, 5e-5, 0.1, 0.0, 512, 1.0, Some(0.9)),
        ("google_uncased_mobilebert", 8, 1, 32, 5.0, 4e-5, 0.1, 0.01, 384, 1.0, None),
        ("fairseq_roberta_large", 2, 6, 48, 3.0, 3e-5, 0.2, 0.01, 512, 1.0, None),
        ("google_en_uncased_bert_base", 6, 2, 48, 3.0, 3e-5, 0.1, 0.01, 512, 1.0, None),
        ("google_en_uncased_bert_large", 2, 6, 48, 3.0, 3e-5, 0.1, 0.01, 512, 1.0, None),
        ("google_en_uncased_bert_wwm_large", 3, 2, 24, 2.0, 3e-5, 0.1, 0.01, 512, 1.0, None),
        ("gluon_en_cased_bert_base_v1", 6, 2, 48, 3.0, 3e-5, 0.1, 0.01, 512, 1.0, None),
    ];

    #[test]
    fn settings_are_those_of_the_replaced_programs_table() {
        let rows: Vec<_> = specs()
            .into_iter()
            .map(|spec| {
                let (batch, length, model) = (spec.global_batch(), spec.data.max_seq_length, spec.model);
                assert_eq!(spec.resources.workers, 4, "{model}");
                let t = spec.train;
                let optimizer = (t.learning_rate, t.warmup_ratio, t.weight_decay);
                (
                    model,
                    (t.batch_size, t.accumulate, batch),
                    t.epochs,
                    optimizer,
                    length,
                    t.max_grad_norm,
                    t.layerwise_decay,
                )
            })
            .collect();
        let table = TABLE.map(
            |(model, batch, accumulate, global, epochs, rate, warm_up, decay, length, norm, layers)| {
                (
                    model.to_owned(),
                    (batch, accumulate, global),
                    epochs,
                    (rate, warm_up, decay),
                    length,
                    norm,
                    layers,
                )
            },
        );
        assert_eq!(rows, table);
    }

    #[test]
    fn all_else_is_what_its_runs_had_in_common() {
        for spec in specs() {
            let data = &spec.data;
            assert_eq!((data.version.as_str(), data.doc_stride, data.max_query_length), ("2.0", 128, 64));
            assert_eq!((spec.head, data.window), (Head::Conditional, Window::Step), "{}", spec.name);
            assert_eq!(data.separators, Separators::Single, "{}", spec.name);
            assert_eq!(data.train.as_deref(), Some("squad/train-v2.0.json"));
            assert_eq!(data.dev.as_deref(), Some("squad/dev-v2.0.json"));
            assert_eq!(spec.output_dir, format!("out/{}", spec.name));
            // The spec's defaults are the replaced program's.
            let table = spec.train.clone();
            let rest = Train {
                epochs: table.epochs,
                batch_size: table.batch_size,
                accumulate: table.accumulate,
                learning_rate: table.learning_rate,
                warmup_ratio: table.warmup_ratio,
                weight_decay: table.weight_decay,
                max_grad_norm: table.max_grad_norm,
                layerwise_decay: table.layerwise_decay,
                ..Train::default()
            };
            assert_eq!(table, rest, "{}", spec.name);
            assert_eq!(spec.eval, crate::spec::Eval::default(), "{}", spec.name);
        }
    }

    #[test]
    fn the_comment_says_what_the_index_says() {
        for (recipe, spec) in ALL.iter().zip(specs()) {
            assert_eq!(recipe.name, spec.name);
            let line = |figures: Option<Figures>| {
                figures.map_or("not published".into(), |f| format!("EM {:.2}, F1 {:.2}", f.exact, f.f1))
            };
            let train = &spec.train;
            for part in [
                format!("#   float32: {}\n", line(recipe.published.float32)),
                format!("#   float16: {}\n", line(recipe.published.float16)),
                format!("{} x {} x 4 = {} windows", train.batch_size, train.accumulate, spec.global_batch()),
                "4 GPUs".into(),
            ] {
                assert!(recipe.yaml.contains(&part), "{part:?} not in {}", recipe.name);
            }
            assert!(recipe.summary().contains(" on SQuAD 2.0"), "{}", recipe.summary());
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        assert_eq!(find("mobilebert-squad2").map(|recipe| recipe.name), Ok("mobilebert-squad2"));
        let refusal = |name| find(name).unwrap_err().to_string();
        assert_eq!(
            refusal("elektra-base-squad2"),
            "there is no recipe elektra-base-squad2; did you mean electra-base-squad2? squadctl recipes list shows all"
        );
        assert!(refusal("roberta").contains("did you mean roberta-large-squad2?"), "{}", refusal("roberta"));
        assert_eq!(refusal("gpt"), "there is no recipe gpt; squadctl recipes list shows all");
    }
}
