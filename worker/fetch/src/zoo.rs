//! The models that GluonNLP's `run_squad.py` knew by name, and where they are today.
//!
//! Shapes are those of its model registry. Parameters are those of the encoder without its pooler, at 512
//! positions; the hub's tables of RoBERTa and XLM-R have two rows more.

use serde::Serialize;

/// A model of the zoo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// GluonNLP's name for it.
    pub name: &'static str,
    /// Its family, as `model_type` of a config.json has it.
    pub family: &'static str,
    /// Its repository on the model hub; `None` where nobody has published it there.
    pub repository: Option<&'static str>,
    /// Its layers.
    #[serde(flatten)]
    pub shape: Shape,
    /// Its words.
    #[serde(flatten)]
    pub words: Words,
    /// Parameters of the encoder without its pooler.
    pub parameters: u64,
    /// What there is to download, about: 4 bytes for each parameter. Files that hold a pooler or a head of
    /// pre-training, too, are larger, those in half precision smaller.
    pub download_bytes: u64,
}

/// The layers of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Encoder layers, one after the other.
    pub layers: u32,
    /// Width of the hidden states.
    pub hidden: u32,
    /// Attention heads of a layer. For ALBERT-xlarge this is what it was trained with; the hub's config.json
    /// says 16, with which the same weights compute something else.
    pub heads: u32,
}

/// The words of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Words {
    /// Tokens that it knows.
    pub vocabulary: u32,
    /// Whether it tells upper from lower case.
    pub cased: bool,
}

const fn shape(layers: u32, hidden: u32, heads: u32) -> Shape {
    Shape { layers, hidden, heads }
}

const BASE: Shape = shape(12, 768, 12);
const LARGE: Shape = shape(24, 1024, 16);
const ELECTRA_SMALL: Shape = shape(12, 256, 4);

const CASED: Words = Words { vocabulary: 28_996, cased: true };
const UNCASED: Words = Words { vocabulary: 30_522, cased: false };
const CHINESE: Words = Words { vocabulary: 21_128, cased: false };
const MANY_CASED: Words = Words { vocabulary: 119_547, cased: true };
const ALBERT: Words = Words { vocabulary: 30_000, cased: false };
const ROBERTA: Words = Words { vocabulary: 50_265, cased: true };
const XLMR: Words = Words { vocabulary: 250_002, cased: true };

const fn entry(names: [&'static str; 3], shape: Shape, words: Words, parameters: u64) -> Entry {
    let [name, family, repository] = names;
    let repository = if repository.is_empty() { None } else { Some(repository) };
    Entry { name, family, repository, shape, words, parameters, download_bytes: 4 * parameters }
}

/// Every model of the zoo: name, family, repository; shape, words, parameters.
#[rustfmt::skip]
static ENTRIES: [Entry; 22] = [
    entry(["google_en_cased_bert_base", "bert", "google-bert/bert-base-cased"], BASE, CASED, 107_719_680),
    entry(["google_en_uncased_bert_base", "bert", "google-bert/bert-base-uncased"], BASE, UNCASED, 108_891_648),
    entry(["google_en_cased_bert_large", "bert", "google-bert/bert-large-cased"], LARGE, CASED, 332_529_664),
    entry(["google_en_uncased_bert_large", "bert", "google-bert/bert-large-uncased"], LARGE, UNCASED, 334_092_288),
    entry(["google_en_cased_bert_wwm_large", "bert", "google-bert/bert-large-cased-whole-word-masking"], LARGE, CASED, 332_529_664),
    entry(["google_en_uncased_bert_wwm_large", "bert", "google-bert/bert-large-uncased-whole-word-masking"], LARGE, UNCASED, 334_092_288),
    entry(["google_zh_bert_base", "bert", "google-bert/bert-base-chinese"], BASE, CHINESE, 101_677_056),
    entry(["google_multi_cased_bert_base", "bert", "google-bert/bert-base-multilingual-cased"], BASE, MANY_CASED, 177_262_848),
    entry(["gluon_en_cased_bert_base_v1", "bert", ""], BASE, CASED, 107_719_680),
    entry(["google_albert_base_v2", "albert", "albert/albert-base-v2"], BASE, ALBERT, 11_092_992),
    entry(["google_albert_large_v2", "albert", "albert/albert-large-v2"], LARGE, ALBERT, 16_634_368),
    entry(["google_albert_xlarge_v2", "albert", "albert/albert-xlarge-v2"], shape(24, 2048, 32), ALBERT, 54_528_512),
    entry(["google_albert_xxlarge_v2", "albert", "albert/albert-xxlarge-v2"], shape(12, 4096, 64), ALBERT, 205_814_272),
    entry(["google_electra_small", "electra", "google/electra-small-discriminator"], ELECTRA_SMALL, UNCASED, 13_483_008),
    entry(["google_electra_base", "electra", "google/electra-base-discriminator"], BASE, UNCASED, 108_891_648),
    entry(["google_electra_large", "electra", "google/electra-large-discriminator"], LARGE, UNCASED, 334_092_288),
    entry(["gluon_electra_small_owt", "electra", ""], ELECTRA_SMALL, UNCASED, 13_483_008),
    entry(["google_uncased_mobilebert", "mobilebert", "google/mobilebert-uncased"], shape(24, 512, 4), UNCASED, 24_581_888),
    entry(["fairseq_roberta_base", "roberta", "FacebookAI/roberta-base"], BASE, ROBERTA, 124_052_736),
    entry(["fairseq_roberta_large", "roberta", "FacebookAI/roberta-large"], LARGE, ROBERTA, 354_307_072),
    entry(["fairseq_xlmr_base", "xlm-roberta", "FacebookAI/xlm-roberta-base"], BASE, XLMR, 277_450_752),
    entry(["fairseq_xlmr_large", "xlm-roberta", "FacebookAI/xlm-roberta-large"], LARGE, XLMR, 558_837_760),
];

/// Below this likeness a name is no slip of another.
const LIKENESS: f64 = 0.4;

/// Every model of the zoo, families together.
pub fn entries() -> &'static [Entry] {
    &ENTRIES
}

/// The model that GluonNLP calls `name`.
pub fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}

/// The name that `name` is most likely a slip of, or a part. Likeness counts pairs of letters, wherever they
/// stand: people leave out the beginning and the end of these names, and change their order.
pub fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let likeness = |entry: &Entry| strsim::sorensen_dice(&name, entry.name);
    let best = ENTRIES.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) >= LIKENESS).then_some(best.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A dense layer's weights and biases.
    fn dense(from: u64, to: u64) -> u64 {
        from * to + to
    }

    /// A layer of all families but MobileBERT, `c` wide: attention, its norm, the two dense layers, their norm.
    fn layer(c: u64) -> u64 {
        4 * dense(c, c) + 2 * c + dense(c, 4 * c) + dense(4 * c, c) + 2 * c
    }

    /// Layers narrower inside (`i`) than outside (`c`): bottlenecks with norms, attention, four dense pairs.
    fn mobile_layer(c: u64, i: u64) -> u64 {
        let bottlenecks = 2 * (dense(c, i) + 2 * i) + dense(i, c) + 2 * c;
        let attention = 2 * dense(i, i) + dense(c, i) + dense(i, i) + 2 * i;
        bottlenecks + attention + 4 * (dense(i, c) + dense(c, i) + 2 * i)
    }

    /// Parameters counted from the shape, the other way to the figures of the table.
    fn counted(entry: &Entry) -> u64 {
        let (layers, c) = (u64::from(entry.shape.layers), u64::from(entry.shape.hidden));
        let words = u64::from(entry.words.vocabulary);
        let tables = |width: u64, types: u64| (words + 512 + types) * width + 2 * width;
        match entry.family {
            "bert" => tables(c, 2) + layers * layer(c),
            "albert" => tables(128, 2) + dense(128, c) + layer(c),
            "electra" if c == 256 => tables(128, 2) + dense(128, c) + layers * layer(c),
            "electra" => tables(c, 2) + layers * layer(c),
            "mobilebert" => {
                words * 128 + dense(3 * 128, c) + (512 + 2) * c + 2 * c + layers * mobile_layer(c, 128)
            }
            "roberta" | "xlm-roberta" => tables(c, 0) + layers * layer(c),
            family => panic!("{family}"),
        }
    }

    #[test]
    fn parameters_follow_from_the_shapes() {
        for entry in entries() {
            assert_eq!(entry.parameters, counted(entry), "{}", entry.name);
            assert_eq!(entry.download_bytes, 4 * entry.parameters);
            assert!(
                entry.family == "mobilebert" || entry.shape.hidden / entry.shape.heads == 64,
                "{}",
                entry.name
            );
        }
    }

    #[test]
    fn names_and_repositories_are_there_once() {
        let names: BTreeSet<_> = entries().iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), entries().len());
        let named: Vec<_> = entries().iter().filter_map(|entry| entry.repository).collect();
        assert_eq!(named.iter().collect::<BTreeSet<_>>().len(), named.len());
        let unpublished = entries().iter().filter(|entry| entry.repository.is_none());
        let unpublished: Vec<_> = unpublished.map(|entry| entry.name).collect();
        assert_eq!(unpublished, ["gluon_en_cased_bert_base_v1", "gluon_electra_small_owt"]);
    }

    #[test]
    fn a_slip_or_a_part_finds_the_name() {
        for (slip, name) in [
            ("google_albert_bse_v2", "google_albert_base_v2"),
            ("albert_base", "google_albert_base_v2"),
            ("albert-xxlarge-v2", "google_albert_xxlarge_v2"),
            ("google_en_bert_base_uncased", "google_en_uncased_bert_base"),
            ("bert-base-uncased", "google_en_uncased_bert_base"),
            ("bert-base-cased", "google_en_cased_bert_base"),
            ("roberta-large", "fairseq_roberta_large"),
            ("Mobilebert", "google_uncased_mobilebert"),
            ("xlmr_base", "fairseq_xlmr_base"),
        ] {
            assert_eq!(nearest(slip), Some(name), "{slip}");
        }
        for stranger in ["", "x", "minilm", "gpt2", "t5-small"] {
            assert_eq!(nearest(stranger), None, "{stranger}");
        }
        assert!(entries().iter().all(|entry| nearest(entry.name) == Some(entry.name)));
    }
}
