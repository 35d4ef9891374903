//! Memory of a worker. This is the one place where its formulas are.
//!
//! Every parameter takes 4 bytes for its weight and, where it is trained, 4 for its gradient and 8 for two moments; a
//! parameter of a layer takes 2 more in a 16-bit format. What the backward pass needs of the forward pass is counted
//! here tensor by tensor, as libtorch's functions keep them:
//!
//! | a layer of all families but MobileBERT | elements |
//! |---|---|
//! | query, key and value; attention's result; both sums before the norms; both norms' results | 8 N C |
//! | the feed-forward network, before and after its activation (once with ReLU) | 2 N F |
//! | with dropout: two masks of hidden states, a byte each | 2 N C bytes |
//! | on a CPU: each query's largest score and its sum, in 32 bits | 8 N A bytes |
//! | with dropout of attention on a CPU: a bit for each weight | B A T T / 8 bytes |
//! | in a 16-bit format that the processor multiplies, without dropout of attention: its result padded, too | 2 N C bytes |
//! | the same with dropout of attention: attention's four in 32 bits, its result also in 16 | 10 N C bytes |
//! | with products of 16-bit numbers in 32 bits: copies of what they read; attention's four | 4 (3 N C + N F); 2 (4 N C) bytes |
//!
//! N = B T tokens (on a CPU so many at most) in B windows, C wide, F in the feed-forward network, A heads. Elements have 4
//! bytes, or 2 in a 16-bit format. A frozen stage keeps nothing. With `recompute` only what lies between stages is kept, N C each, and one
//! stage's activations are there at a time.
//!
//! The peak is where most is there at once: at the head, at the uppermost layer, or at the embeddings, whose gradient is
//! a whole table. What the allocator keeps of freed memory is not known beforehand; `docs/measurements.md` has how far
//! that is from what was measured.

use squad_model::config::{Activation, Bottleneck};
use squad_model::network::Dropout;
use squad_model::{EncoderConfig, HeadKind, Precision, StageSize};
use squad_proto::plan::{MicroBatchShape, PROGRAM_BYTES, WorkerMemory};

use crate::header::StepHeader;

/// What memory follows from.
#[derive(Clone, Debug)]
pub struct Load<'a> {
    /// The encoder.
    pub config: &'a EncoderConfig,
    /// The head.
    pub head: HeadKind,
    /// Its stages.
    pub stages: Vec<StageSize>,
    /// Stages below this one are frozen.
    pub first_trainable: usize,
    /// Number format of the layers.
    pub precision: Precision,
    /// Dropout rates.
    pub dropout: Dropout,
    /// Whether layers are run again in the backward pass.
    pub recompute: bool,
    /// Whether matrices are multiplied in 32 bits though the format has 16.
    pub converts: bool,
    /// Whether it is a GPU's memory.
    pub gpu: bool,
}

/// Bytes that a stage keeps for its backward pass, and those that it needs for a while.
#[derive(Clone, Copy, Debug, Default)]
struct Stage {
    kept: u64,
    working: u64,
}

/// Bytes that are there at the end of the forward pass, and at most.
struct Walk {
    kept: u64,
    peak: u64,
}

impl Load<'_> {
    /// Memory of one of `workers` workers that sum `exchanged` bytes of gradients in each step.
    pub fn memory(&self, shape: MicroBatchShape, workers: u32, exchanged: u64) -> WorkerMemory {
        let count = |stages: &[StageSize]| stages.iter().map(|stage| stage.parameters).sum::<u64>();
        let (all, trained) = (count(&self.stages), count(&self.stages[self.first_trainable..]));
        let layers = count(&self.stages[1..self.stages.len() - 1]);
        let (kept, recomputed) = (self.walk(shape, false), self.walk(shape, true));
        let own = if self.recompute { &recomputed } else { &kept };
        let mut memory = WorkerMemory {
            weights: 4 * all,
            shadow_weights: if self.precision == Precision::Float32 { 0 } else { 2 * layers },
            gradients: 4 * (trained + StepHeader::LEN as u64),
            moments: 8 * trained,
            activations: own.kept,
            without_recompute: kept.peak,
            with_recompute: recomputed.peak,
            working: own.peak - own.kept,
            mapped: exchanged * u64::from(workers - 1) / u64::from(workers),
            program: PROGRAM_BYTES,
            worker: 0,
            checkpoint_copy: 12 * all,
            first_worker: 0,
        };
        memory.worker = memory.weights
            + memory.shadow_weights
            + memory.gradients
            + memory.moments
            + memory.activations
            + memory.working
            + memory.mapped
            + memory.program;
        memory.first_worker = memory.worker + memory.checkpoint_copy;
        memory
    }

    /// Bytes of an element of the layers.
    fn element(&self) -> u64 {
        if self.precision == Precision::Float32 { 4 } else { 2 }
    }

    fn walk(&self, shape: MicroBatchShape, recompute: bool) -> Walk {
        let tokens = shape.windows * shape.tokens;
        let boundary = tokens * self.config.hidden_size as u64 * self.element();
        let repeats = (self.config.num_hidden_layers / self.config.layer_stages()) as u64;
        let one = self.layer(shape);
        let layer = Stage { kept: one.kept * repeats, working: one.working };
        let (embeddings, head) = (self.embeddings(tokens), self.head(tokens));
        // Of the stages between the embeddings and the head, those that are trained.
        let trained = (self.stages.len() - 1 - self.first_trainable.max(1)) as u64;
        let embeds = self.first_trainable == 0;
        let (lowest, each) = if recompute {
            (boundary, boundary)
        } else {
            (if embeds { embeddings.kept } else { boundary }, layer.kept)
        };
        let below_head = lowest + trained * each;
        let again = if recompute { layer.kept } else { 0 };
        let at_layer = below_head + if trained > 0 { again + layer.working } else { 0 };
        let at_embeddings = if embeds { embeddings.kept + embeddings.working } else { 0 };
        let kept = below_head + head.kept;
        Walk { kept, peak: (kept + head.working).max(at_layer).max(at_embeddings) }
    }

    /// A layer's activations, with its result, which is what the next stage keeps of its input.
    fn layer(&self, shape: MicroBatchShape) -> Stage {
        let (windows, length) = (shape.windows, shape.tokens);
        let (tokens, element) = (windows * length, self.element());
        let config = self.config;
        let (wide, inner) = (config.hidden_size as u64, config.intermediate_size as u64);
        let queries = windows * config.num_attention_heads as u64 * length;
        let (mut kept, mut working) = match config.bottleneck {
            Some(Bottleneck { size, feed_forwards }) => {
                let (narrow, networks) = (size as u64, feed_forwards as u64);
                let kept = 9 * narrow + networks * (inner + 2 * narrow) + 2 * wide;
                (tokens * kept * element, tokens * (2 * inner + 3 * wide) * element)
            }
            None => {
                let activations = if config.activation == Activation::Relu { 1 } else { 2 };
                let kept = 8 * wide + activations * inner;
                (tokens * kept * element, tokens * (2 * inner + 3 * wide) * element)
            }
        };
        let mut parameters = self.stages[1].parameters * element;
        let attended = 4 * config.bottleneck.map_or(wide, |bottleneck| bottleneck.size as u64);
        if self.converts {
            let read = match config.bottleneck {
                Some(Bottleneck { size, feed_forwards }) => {
                    let (narrow, networks) = (size as u64, feed_forwards as u64);
                    3 * (wide + narrow) + networks * (narrow + inner)
                }
                None => 3 * wide + inner,
            };
            kept += tokens * (4 * read + 2 * attended) + 4 * self.stages[1].matrices;
            (working, parameters) = (2 * working, 3 * parameters);
        }
        if self.dropout.hidden > 0.0 {
            let masks = if config.bottleneck.is_some() { 1 } else { 2 };
            // The thread that draws masks keeps room for the largest.
            (kept, working) = (kept + masks * tokens * wide, working + tokens * wide);
        }
        if !self.gpu {
            kept += 8 * queries;
        }
        if self.dropout.attention == 0.0 && !self.gpu && element == 2 && !self.converts {
            kept += tokens * attended / 2;
        }
        if self.dropout.attention > 0.0 && !self.gpu {
            kept += queries * 8 * length.div_ceil(64);
            kept += if element == 2 && !self.converts { 5 * tokens * attended / 2 } else { 0 };
        }
        Stage { kept, working: working + parameters }
    }

    /// The embeddings' activations, with their result. Their gradient is a whole table in 32 bits.
    fn embeddings(&self, tokens: u64) -> Stage {
        let config = self.config;
        let (narrow, wide) = (4 * config.embedding_size as u64, 4 * config.hidden_size as u64);
        let drops = u64::from(self.dropout.hidden > 0.0);
        let projects = u64::from(self.stages[0].matrices > 0);
        let each = match config.bottleneck {
            Some(_) => 3 * narrow + wide + drops * wide / 4,
            None => narrow + drops * narrow / 4 + projects * narrow,
        };
        let result = config.hidden_size as u64 * self.element();
        Stage {
            kept: tokens * (each + result),
            working: 4 * self.stages[0].parameters + 2 * tokens * narrow.max(wide),
        }
    }

    /// The head's, which computes in 32 bits.
    fn head(&self, tokens: u64) -> Stage {
        let wide = 4 * self.config.hidden_size as u64;
        // A CPU's layers give tokens without padding, from which the head makes a padded batch.
        let copy = if self.precision == Precision::Float32 && self.gpu { 0 } else { wide };
        let (kept, working) = match self.head {
            // Logits, masked, and their logarithms, of start and end.
            HeadKind::Span => (24, wide),
            // The end's inner layer, before and after its norm.
            HeadKind::Conditional { units } => (2 * 4 * units as u64 + 24, 2 * 4 * units as u64 + 2 * wide),
        };
        Stage { kept: tokens * (copy + kept), working: tokens * working }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::bert;
    use super::*;
    use squad_model::stage_sizes;

    const SHAPE: MicroBatchShape = MicroBatchShape { windows: 8, tokens: 384, from_data: false };

    fn memory(change: impl Fn(&mut Load<'_>)) -> WorkerMemory {
        let config = bert(12, 768);
        let mut load = Load {
            config: &config,
            head: HeadKind::Span,
            stages: stage_sizes(&config, HeadKind::Span),
            first_trainable: 0,
            precision: Precision::Float32,
            dropout: Dropout::NONE,
            recompute: false,
            converts: false,
            gpu: false,
        };
        change(&mut load);
        load.memory(SHAPE, 2, 1000)
    }

    #[test]
    fn bytes_of_bert_base() {
        let plain = memory(|_| ());
        let parameters = 108_891_648 + 2 * 768 + 2;
        assert_eq!((plain.weights, plain.moments), (4 * parameters, 8 * parameters));
        assert_eq!((plain.gradients, plain.mapped), (4 * (parameters + 8), 500));
        assert_eq!((plain.shadow_weights, plain.checkpoint_copy), (0, 12 * parameters));
        // Of a token: 16 times the width in each layer and two floats for each of 12 heads, the embeddings' sum and result, what
        // the head reads, and six floats of it.
        let token = 4 * (12 * (16 * 768 + 2 * 12) + 3 * 768 + 6);
        assert_eq!(plain.activations, 8 * 384 * token);
        assert_eq!(plain.first_worker, plain.worker + plain.checkpoint_copy);
        assert_eq!(plain.activations + plain.working, plain.without_recompute);
    }

    #[test]
    fn what_saves_memory_and_what_takes_it() {
        let plain = memory(|_| ());
        let again = memory(|load| load.recompute = true);
        assert_eq!(again.activations + again.working, plain.with_recompute);
        assert_eq!(again.without_recompute, plain.without_recompute);
        assert!(again.activations * 8 < plain.activations && again.worker < plain.worker);
        assert!(again.activations + again.working < plain.activations);

        let half = memory(|load| load.precision = Precision::BFloat16);
        assert!(half.shadow_weights > 0 && half.activations < plain.activations * 6 / 10);

        let both = memory(|load| (load.precision, load.converts) = (Precision::BFloat16, true));
        // Of a token and layer: copies of what four products read, and of what attention reads and gives.
        let copies = 12 * 8 * 384 * (4 * (3 * 768 + 3072) + 2 * 4 * 768) + 12 * 4 * 12 * 768 * 768;
        // Where the processor multiplies them, attention's result is there padded, too.
        let padded = 12 * 8 * 384 * 2 * 768;
        assert_eq!(both.activations + padded - half.activations, copies);

        let rates = Dropout { hidden: 0.1, attention: 0.1, classifier: 0.1 };
        let drops = memory(|load| load.dropout = rates);
        let queries = 12 * 8 * 12 * 384;
        assert!(drops.activations > plain.activations + queries * 384 / 8);
        let on_gpu = memory(|load| (load.dropout, load.gpu) = (rates, true));
        // The bits, the sums, and the head's copy of what it reads.
        let more = queries * (384 / 8 + 8) + 8 * 384 * 4 * 768;
        assert_eq!(drops.activations - on_gpu.activations, more);
        let native =
            |rates| memory(|load| (load.dropout, load.precision) = (rates, Precision::BFloat16)).activations;
        let hidden = Dropout { attention: 0.0, ..rates };
        assert_eq!(native(rates) - native(hidden), queries * 384 / 8 + 12 * 8 * 384 * (10 - 2) * 768);

        let frozen = memory(|load| load.first_trainable = 13);
        assert_eq!(frozen.gradients, 4 * (2 * 768 + 2 + 8));
        assert!(frozen.activations * 10 < plain.activations);
        let conditional = memory(|load| load.head = HeadKind::CONDITIONAL);
        assert_eq!(conditional.activations - plain.activations, 8 * 384 * 2 * 768 * 4);
    }
}
