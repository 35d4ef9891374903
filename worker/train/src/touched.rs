//! Which rows of the word-embedding table a step touches.
//!
//! Only the words of a step's examples have a gradient. Every rank knows all examples of a step from the sampler,
//! so every rank knows which rows all of them touch together, without a word between them.

use squad_data::Features;
use squad_model::{EncoderConfig, Network};

/// The word-embedding table, which the embeddings stage begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which of the stage's parameters it is.
    pub param: usize,
    /// Words.
    pub rows: usize,
    /// Floats of each.
    pub width: usize,
}

impl Table {
    /// The table of a network; `None` where the embeddings stage does not begin with it.
    pub fn of(network: &Network) -> Option<Self> {
        let params = network.stages().first()?.params();
        let param = params.iter().position(|param| {
            let named = param.parts.iter().any(|name| name.ends_with("word_embeddings.weight"));
            named && param.offset == 0 && param.parts.len() == 1
        })?;
        let [rows, width] = params[param].shape[..] else { return None };
        Some(Self { param, rows: rows as usize, width: width as usize })
    }

    /// The table that a network of this shape would have.
    pub fn of_config(config: &EncoderConfig) -> Self {
        Self { param: 0, rows: config.vocab_size as usize, width: config.embedding_size as usize }
    }

    /// The rows that these ids touch, each once, in ascending order. Ids beyond the table are left out: the lookup
    /// itself refuses them.
    pub fn touched(&self, ids: impl Iterator<Item = i64>) -> Vec<u32> {
        let mut seen = vec![0u64; self.rows.div_ceil(64)];
        for id in ids.filter(|id| (0..self.rows as i64).contains(id)) {
            seen[id as usize / 64] |= 1 << (id % 64);
        }
        let mut rows = Vec::new();
        for (word, bits) in seen.into_iter().enumerate() {
            let mut bits = bits;
            while bits != 0 {
                rows.push((word * 64) as u32 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
        rows
    }

    /// The rows that all micro-batches of a step touch together, on whichever ranks; padding may be among them.
    pub fn touched_by_step(
        &self,
        features: &Features,
        micro_batches: &[Vec<usize>],
        pad_id: i32,
    ) -> Vec<u32> {
        let ids =
            micro_batches.iter().flatten().flat_map(|index| features.get(*index).input_ids.iter().copied());
        self.touched(ids.chain(std::iter::once(pad_id)).map(i64::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_ascend_each_once_within_the_table() {
        let table = Table { param: 0, rows: 130, width: 4 };
        assert_eq!(table.touched([129, 3, 64, 3, 0, 130, -1].into_iter()), [0, 3, 64, 129]);
        assert!(table.touched(std::iter::empty()).is_empty());
    }
}
