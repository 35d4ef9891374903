//! Tensors under Hugging Face's names.

use super::family::Family;
use super::names::{self, Renaming};
use crate::Tensors;

/// What the replaced program puts before the encoder's names where a head stands beside it.
const BACKBONE: &str = "backbone.";

/// The question-answering head of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// None: an encoder alone.
    None,
    /// Start and end from one linear map: `ModelForQABasic`.
    Span,
    /// Start, end given the start, and answerability: `ModelForQAConditionalV1`.
    Conditional {
        /// Width of its inner layers.
        units: i64,
    },
}

/// Tensors under their new names.
#[derive(Clone, Debug, PartialEq)]
pub struct Renamed {
    /// By Hugging Face's names: beside a head, the encoder's have the family's prefix.
    pub tensors: Tensors,
    /// The head that was found.
    pub head: Head,
    /// Old names of tensors that a question-answering model has no use for, such as a pooler's.
    pub unused: Vec<String>,
}

/// Gives a file of the replaced program Hugging Face's names: a whole network's, or a backbone's.
///
/// Query, key and value become three. RoBERTa's position table gets the two rows at its top that Hugging Face
/// counts past, and a table for the one segment that it does not have; both are zero.
///
/// # Errors
/// A sentence that names the tensors that are missing or have a shape that cannot be.
pub fn hugging_face(mut tensors: Tensors, family: Family) -> Result<Renamed, String> {
    let before = if tensors.keys().any(|name| name.starts_with(BACKBONE)) { BACKBONE } else { "" };
    let encoder = names::encoder(family, tensors.keys().filter_map(|name| name.strip_prefix(before)));
    let (mut head, head_names) = if tensors.contains_key("qa_outputs.weight") {
        (Head::Span, names::span_head())
    } else if tensors.keys().any(|name| name.starts_with("start_scores.")) {
        (Head::Conditional { units: 0 }, names::conditional_head())
    } else {
        (Head::None, Vec::new())
    };
    let prefix = if head == Head::None { "" } else { family.prefix() };

    let mut renamed = Tensors::new();
    let mut missing = move_all(&mut tensors, before, &encoder, prefix, &mut renamed)?;
    missing.extend(move_all(&mut tensors, "", &head_names, "", &mut renamed)?);
    if !missing.is_empty() {
        let model = family.model_type();
        return Err(format!("it lacks {}, and so is no whole {model} model", missing.join(", ")));
    }
    if family.is_roberta() {
        complete_roberta(&mut renamed, prefix)?;
    }
    if let Head::Conditional { units } = &mut head {
        *units =
            renamed.get("end_scores.0.weight").and_then(|(shape, _)| shape.first().copied()).unwrap_or(0);
    }
    Ok(Renamed { tensors: renamed, head, unused: tensors.into_keys().collect() })
}

/// Moves tensors to their new names. `before` and `prefix` stand before the old and the new names. Gives back old
/// names that are missing.
fn move_all(
    from: &mut Tensors,
    before: &str,
    renamings: &[Renaming],
    prefix: &str,
    to: &mut Tensors,
) -> Result<Vec<String>, String> {
    let mut missing = Vec::new();
    for renaming in renamings {
        let old = format!("{before}{}", renaming.from);
        let Some(tensor) = from.remove(&old) else {
            if !renaming.optional {
                missing.push(old);
            }
            continue;
        };
        let parts = deal(tensor, renaming.to.len()).map_err(|shape| {
            format!("{old} has shape {shape:?}, whose rows cannot be dealt to {:?}", renaming.to)
        })?;
        to.extend(renaming.to.iter().map(|name| format!("{prefix}{name}")).zip(parts));
    }
    Ok(missing)
}

type Tensor = (Vec<i64>, Vec<f32>);

/// Deals the rows of a tensor evenly; its shape is the error.
fn deal((mut shape, mut values): Tensor, parts: usize) -> Result<Vec<Tensor>, Vec<i64>> {
    if parts == 1 {
        return Ok(vec![(shape, values)]);
    }
    match shape.first_mut() {
        Some(rows) if *rows % parts as i64 == 0 => *rows /= parts as i64,
        _ => return Err(shape),
    }
    let each = values.len() / parts;
    let mut dealt: Vec<Tensor> =
        (1..parts).rev().map(|part| (shape.clone(), values.split_off(part * each))).collect();
    dealt.push((shape, values));
    dealt.reverse();
    Ok(dealt)
}

/// Adds what Hugging Face's RoBERTa has besides.
fn complete_roberta(tensors: &mut Tensors, prefix: &str) -> Result<(), String> {
    let name = |table: &str| format!("{prefix}embeddings.{table}_embeddings.weight");
    let Some((shape, values)) = tensors.get_mut(&name("position")) else { return Ok(()) };
    let [rows, width] = shape[..] else {
        return Err(format!("the table of positions has shape {shape:?}; it must have two axes"));
    };
    let row = vec![0.0; usize::try_from(width).unwrap_or(0)];
    *shape = vec![rows + PADDING_ROWS, width];
    *values = [row.repeat(PADDING_ROWS as usize), std::mem::take(values)].concat();
    tensors.insert(name("token_type"), (vec![1, width], row));
    Ok(())
}

/// Rows of Hugging Face's position table that no token uses: up to the padding token's number, 1.
pub(super) const PADDING_ROWS: i64 = 2;
