//! The names of every parameter on both sides, as rules.

use std::collections::BTreeSet;

use super::family::Family;

/// A parameter on both sides, without what stands before the encoder's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renaming {
    /// The replaced program's name.
    pub from: String,
    /// Hugging Face's; where they are several, the rows are dealt out evenly, in this order.
    pub to: Vec<String>,
    /// Whether some models of the family do without.
    pub optional: bool,
}

/// Parameters of one layer on both sides.
struct Rule {
    from: &'static str,
    to: &'static [&'static str],
    kind: Kind,
    optional: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    /// One table, `weight`.
    Table,
    /// `weight` and `bias`.
    Linear,
    /// `gamma` and `beta` there, `weight` and `bias` here.
    Norm,
}

impl Kind {
    fn parameters(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Table => &[("weight", "weight")],
            Self::Linear => &[("weight", "weight"), ("bias", "bias")],
            Self::Norm => &[("gamma", "weight"), ("beta", "bias")],
        }
    }
}

const fn rule(kind: Kind, from: &'static str, to: &'static [&'static str]) -> Rule {
    Rule { from, to, kind, optional: false }
}

const fn optional(kind: Kind, from: &'static str, to: &'static [&'static str]) -> Rule {
    Rule { from, to, kind, optional: true }
}

/// What differs from family to family.
struct Rules {
    embeddings: &'static [Rule],
    /// Before a layer's number, on both sides.
    layers: [&'static str; 2],
    /// After a layer's number, here.
    inner: &'static str,
    layer: &'static [Rule],
    /// A layer's feed-forward networks, one after the other, where there are several.
    stacked: &'static [Rule],
}

use Kind::{Linear, Norm, Table};

const WORDS: Rule = rule(Table, "word_embed", &["embeddings.word_embeddings"]);
const SEGMENTS: Rule = rule(Table, "token_type_embed", &["embeddings.token_type_embeddings"]);
const POSITIONS: Rule = rule(Table, "token_pos_embed._embed", &["embeddings.position_embeddings"]);
const NORM: Rule = rule(Norm, "embed_layer_norm", &["embeddings.LayerNorm"]);
const PROJECTION: &str = "embed_factorized_proj";

const LAYER: &[Rule] = &[
    rule(Linear, "attn_qkv", &["attention.self.query", "attention.self.key", "attention.self.value"]),
    rule(Linear, "attention_proj", &["attention.output.dense"]),
    rule(Norm, "layer_norm", &["attention.output.LayerNorm"]),
    rule(Linear, "ffn.ffn_1", &["intermediate.dense"]),
    rule(Linear, "ffn.ffn_2", &["output.dense"]),
    rule(Norm, "ffn.layer_norm", &["output.LayerNorm"]),
];

const BERT: Rules = Rules {
    embeddings: &[WORDS, SEGMENTS, POSITIONS, NORM],
    layers: ["encoder.all_layers.", "encoder.layer."],
    inner: "",
    layer: LAYER,
    stacked: &[],
};

const ROBERTA: Rules = Rules {
    embeddings: &[
        WORDS,
        rule(Table, "pos_embed._embed", &["embeddings.position_embeddings"]),
        rule(Norm, "embed_ln", &["embeddings.LayerNorm"]),
    ],
    ..BERT
};

const ELECTRA: Rules = Rules {
    // Base and large have embeddings as wide as the encoder, and no projection.
    embeddings: &[WORDS, SEGMENTS, POSITIONS, NORM, optional(Linear, PROJECTION, &["embeddings_project"])],
    layers: ["encoder.all_encoder_layers.", "encoder.layer."],
    ..BERT
};

const ALBERT: Rules = Rules {
    embeddings: &[
        WORDS,
        SEGMENTS,
        POSITIONS,
        NORM,
        rule(Linear, PROJECTION, &["encoder.embedding_hidden_mapping_in"]),
    ],
    layers: ["encoder.all_encoder_groups.", "encoder.albert_layer_groups."],
    inner: "albert_layers.0.",
    layer: &[
        rule(Linear, "attn_qkv", &["attention.query", "attention.key", "attention.value"]),
        rule(Linear, "attention_proj", &["attention.dense"]),
        rule(Norm, "layer_norm", &["attention.LayerNorm"]),
        rule(Linear, "ffn.ffn_1", &["ffn"]),
        rule(Linear, "ffn.ffn_2", &["ffn_output"]),
        rule(Norm, "ffn.layer_norm", &["full_layer_layer_norm"]),
    ],
    stacked: &[],
};

const MOBILE_BERT: Rules = Rules {
    embeddings: &[
        WORDS,
        SEGMENTS,
        POSITIONS,
        NORM,
        rule(Linear, PROJECTION, &["embeddings.embedding_transformation"]),
    ],
    layer: &[
        rule(Linear, "in_bottleneck_proj", &["bottleneck.input.dense"]),
        rule(Norm, "in_bottleneck_ln", &["bottleneck.input.LayerNorm"]),
        rule(Linear, "out_bottleneck_proj", &["output.bottleneck.dense"]),
        rule(Norm, "out_bottleneck_ln", &["output.bottleneck.LayerNorm"]),
        rule(Linear, "shared_qk", &["bottleneck.attention.dense"]),
        rule(Norm, "shared_qk_ln", &["bottleneck.attention.LayerNorm"]),
        rule(Linear, "attn_query", &["attention.self.query"]),
        rule(Linear, "attn_key", &["attention.self.key"]),
        rule(Linear, "attn_value", &["attention.self.value"]),
        rule(Linear, "attention_proj", &["attention.output.dense"]),
        rule(Norm, "layer_norm", &["attention.output.LayerNorm"]),
    ],
    stacked: &[
        rule(Linear, "ffn_1", &["intermediate.dense"]),
        rule(Linear, "ffn_2", &["output.dense"]),
        rule(Norm, "layer_norm", &["output.LayerNorm"]),
    ],
    ..BERT
};

/// The conditional head, whose names stay but for the norm's.
const CONDITIONAL: &[Rule] = &[
    rule(Linear, "start_scores", &["start_scores"]),
    rule(Linear, "end_scores.0", &["end_scores.0"]),
    rule(Norm, "end_scores.2", &["end_scores.2"]),
    rule(Linear, "end_scores.3", &["end_scores.3"]),
    rule(Linear, "answerable_scores.0", &["answerable_scores.0"]),
    rule(Linear, "answerable_scores.3", &["answerable_scores.3"]),
];

/// The span head.
const SPAN: &[Rule] = &[rule(Linear, "qa_outputs", &["qa_outputs"])];

/// The encoder's parameters. `names` are the replaced program's, without what stands before them; they tell how
/// many layers there are.
pub fn encoder<'a>(family: Family, names: impl IntoIterator<Item = &'a str>) -> Vec<Renaming> {
    let rules = match family {
        Family::Bert => &BERT,
        Family::Roberta | Family::XlmRoberta => &ROBERTA,
        Family::Electra => &ELECTRA,
        Family::Albert => &ALBERT,
        Family::MobileBert => &MOBILE_BERT,
    };
    let mut layers = BTreeSet::new();
    let mut networks = BTreeSet::new();
    for name in names {
        let mut parts = name.strip_prefix(rules.layers[0]).into_iter().flat_map(|rest| rest.split('.'));
        layers.extend(parts.next());
        if parts.next() == Some("stacked_ffn") {
            networks.extend(parts.next());
        }
    }
    let mut all = expand(rules.embeddings, "", "");
    // Counted, so that a number that is left out shows as missing parameters.
    for layer in 0..layers.len() {
        let from = format!("{}{layer}.", rules.layers[0]);
        let to = format!("{}{layer}.{}", rules.layers[1], rules.inner);
        all.extend(expand(rules.layer, &from, &to));
        if rules.stacked.is_empty() {
            continue;
        }
        // The last has the place that other families' only one has.
        let last = networks.len().saturating_sub(1);
        for network in 0..=last {
            let from = format!("{from}stacked_ffn.{network}.");
            let to = if network == last { to.clone() } else { format!("{to}ffn.{network}.") };
            all.extend(expand(rules.stacked, &from, &to));
        }
    }
    all
}

/// The parameters of the conditional head.
pub fn conditional_head() -> Vec<Renaming> {
    expand(CONDITIONAL, "", "")
}

/// The parameters of the span head.
pub fn span_head() -> Vec<Renaming> {
    expand(SPAN, "", "")
}

fn expand(rules: &[Rule], from: &str, to: &str) -> Vec<Renaming> {
    let one = |rule: &Rule, (there, here): &(&str, &str)| Renaming {
        from: format!("{from}{}.{there}", rule.from),
        to: rule.to.iter().map(|name| format!("{to}{name}.{here}")).collect(),
        optional: rule.optional,
    };
    rules.iter().flat_map(|rule| rule.kind.parameters().iter().map(move |pair| one(rule, pair))).collect()
}
