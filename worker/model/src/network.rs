//! The stages of a model in order, and how each runs.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use crate::config::EncoderConfig;
use crate::dropout::Noise;
use crate::heads::{HeadKind, Loss, LossForm, Scores, conditional, span};
use crate::inputs::{Inputs, Targets};
use crate::stage::{Declaration, Stage};
use crate::{embeddings, layer, mobilebert};

/// Dropout rates of a training run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Of hidden states.
    pub hidden: f64,
    /// Of attention weights.
    pub attention: f64,
    /// Of the answerability classifier.
    pub classifier: f64,
}

impl Dropout {
    /// None at all.
    pub const NONE: Self = Self { hidden: 0.0, attention: 0.0, classifier: 0.0 };
}

/// The parameters of all stages, in order.
fn declare(config: &EncoderConfig, head: HeadKind) -> Vec<Declaration> {
    let mut all = vec![match config.bottleneck {
        Some(_) => mobilebert::declare_embeddings(config),
        None => embeddings::declare(config),
    }];
    all.extend((0..config.layer_stages()).map(|index| match config.bottleneck {
        Some(sizes) => mobilebert::declare_layer(config, sizes, index),
        None => layer::declare(config, index),
    }));
    all.push(match head {
        HeadKind::Span => span::declare(config),
        HeadKind::Conditional { units } => conditional::declare(config, units),
    });
    all
}

/// How many parameters the encoder and the head of a network would have, in this order.
pub fn count_parameters(config: &EncoderConfig, head: HeadKind) -> (i64, i64) {
    let stages = declare(config, head);
    let head = stages.last().map_or(0, Declaration::len);
    (stages.iter().map(Declaration::len).sum::<i64>() - head, head)
}

/// How large a stage of a network would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageSize {
    /// What the stage is, such as `embeddings` or `layer 3`.
    pub name: String,
    /// Parameters.
    pub parameters: u64,
    /// Those of tables, in which rows are looked up.
    pub tables: u64,
    /// Those of matrices, by which every token is multiplied.
    pub matrices: u64,
}

/// The stages that a network would have, in order.
pub fn stage_sizes(config: &EncoderConfig, head: HeadKind) -> Vec<StageSize> {
    declare(config, head).iter().map(Declaration::size).collect()
}

/// The number format of the encoder layers' activations and matrix products. Weights, the embeddings, layer
/// norms' statistics, softmax, head and loss are in 32 bits whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    #[default]
    Float32,
    /// IEEE half precision: 11 bits of precision up to 65504, so that gradients need loss scaling.
    Float16,
    /// bfloat16: 8 bits of precision in the range of 32-bit numbers.
    BFloat16,
}

impl Precision {
    /// Its name in a spec.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::BFloat16 => "bfloat16",
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Float32 => Kind::Float,
            Self::Float16 => Kind::Half,
            Self::BFloat16 => Kind::BFloat16,
        }
    }
}

/// An encoder with a question-answering head.
///
/// [`Self::stages`] lists embeddings, then the encoder's layers, then the head: the order in which the
/// forward pass runs them, and in reverse the order in which gradients become known.
#[derive(Debug)]
pub struct Network {
    config: EncoderConfig,
    config_json: Map<String, Value>,
    head: HeadKind,
    stages: Vec<Stage>,
    device: Device,
    precision: Precision,
}

impl Network {
    /// A network with all parameters at zero; see [`Self::initialise`] and [`crate::load_network`].
    pub fn new(
        config: EncoderConfig,
        config_json: Map<String, Value>,
        head: HeadKind,
        device: Device,
    ) -> Self {
        let stages = declare(&config, head).into_iter().map(|d| Stage::new(d, device)).collect();
        Self { config, config_json, head, stages, device, precision: Precision::Float32 }
    }

    /// The encoder's shape.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The `config.json` that the encoder came with.
    pub fn config_json(&self) -> &Map<String, Value> {
        &self.config_json
    }

    /// The same, to note what a saved model has to say.
    pub fn config_json_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.config_json
    }

    /// Which head it has.
    pub fn head(&self) -> HeadKind {
        self.head
    }

    /// Where the parameters are.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Embeddings, layers (one stage where layers share their weights), head.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The same, to overwrite weights.
    pub fn stages_mut(&mut self) -> &mut [Stage] {
        &mut self.stages
    }

    /// Computes the encoder's layers in this format from now on.
    pub fn compute_in(&mut self, precision: Precision) {
        self.precision = precision;
        let layers = 1..self.stages.len() - 1;
        self.stages[layers].iter_mut().for_each(|stage| stage.compute_in(precision.kind()));
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.stages.iter().map(Stage::len).sum()
    }

    /// Dropout rates as the model's config says, or `rate` for the encoder where it is given.
    pub fn dropout(&self, rate: Option<f64>, classifier: f64) -> Dropout {
        Dropout {
            hidden: rate.unwrap_or(self.config.hidden_dropout),
            attention: rate.unwrap_or(self.config.attention_dropout),
            classifier,
        }
    }

    /// SHA-256 over the layout of all stages; equal on ranks whose gradients may be added.
    pub fn layout_hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.stages.iter().for_each(|stage| stage.hash_layout(&mut hash));
        hash.finalize().into()
    }

    /// Gives the parameters of stage `index` their starting values, derived from `seed`.
    pub fn initialise(&mut self, index: usize, seed: u64) {
        let stage = &mut self.stages[index];
        let mut values = vec![0.0; stage.len()];
        for (number, param) in stage.params().iter().enumerate() {
            param.initialise(&mut values, [seed, index as u64, number as u64]);
        }
        stage.set(&values);
    }

    /// Runs stage `index`, which is not the head: the embeddings (which ignore `hidden`) or a layer.
    /// Gives `[B, T, C]`, or `[1, N, C]` of the N tokens of packed inputs. Dropout is on when `noise` is given.
    pub fn forward(
        &self,
        index: usize,
        hidden: &Tensor,
        inputs: &Inputs,
        noise: Option<(&Noise, Dropout)>,
    ) -> Tensor {
        if index == 0 {
            return self.embed(inputs, noise);
        }
        // ALBERT's one layer stage is every layer.
        let repeats = self.config.num_hidden_layers / self.config.layer_stages();
        let mut hidden = hidden.shallow_clone();
        for _ in 0..repeats {
            hidden = self.layer(index, &hidden, inputs, noise);
        }
        hidden
    }

    fn embed(&self, inputs: &Inputs, noise: Option<(&Noise, Dropout)>) -> Tensor {
        let (stage, noise) = (&self.stages[0], noise.map(|(noise, rates)| (noise, rates.hidden)));
        let embedded = match self.config.bottleneck {
            Some(_) => mobilebert::embed(stage, &self.config, inputs, noise),
            None => embeddings::forward(stage, &self.config, inputs, noise),
        };
        inputs.pack(embedded).to_kind(self.precision.kind())
    }

    /// One layer with the weights of stage `index`.
    fn layer(
        &self,
        index: usize,
        hidden: &Tensor,
        inputs: &Inputs,
        noise: Option<(&Noise, Dropout)>,
    ) -> Tensor {
        let stage = &self.stages[index];
        match self.config.bottleneck {
            Some(sizes) => mobilebert::layer(stage, &self.config, sizes, hidden, inputs, noise),
            None => layer::forward(stage, &self.config, hidden, inputs, noise),
        }
    }

    /// The output of the embeddings and of each layer, without dropout: L + 1 tensors of `[B, T, C]`.
    pub fn hidden_states(&self, inputs: &Inputs) -> Vec<Tensor> {
        let mut all = vec![self.embed(inputs, None)];
        for depth in 0..self.config.num_hidden_layers {
            let index = 1 + depth.min(self.config.layer_stages() - 1) as usize;
            all.push(self.layer(index, &all[depth as usize], inputs, None));
        }
        all.into_iter().map(|states| inputs.unpack(states)).collect()
    }

    /// The head's loss, summed over examples.
    pub fn loss(
        &self,
        hidden: &Tensor,
        inputs: &Inputs,
        targets: &Targets,
        form: LossForm,
        noise: Option<(&Noise, Dropout)>,
    ) -> Loss {
        let (stage, hidden) = (self.head_stage(), &inputs.unpack(hidden.to_kind(Kind::Float)));
        match self.head {
            HeadKind::Span => span::loss(stage, hidden, inputs, targets, form),
            HeadKind::Conditional { .. } => conditional::loss(
                stage,
                hidden,
                inputs,
                targets,
                noise.map(|(n, rates)| (n, rates.classifier)),
            ),
        }
    }

    /// Runs everything without gradients. `top` is how many starts, and ends for each, the conditional head
    /// gives.
    pub fn scores(&self, inputs: &Inputs, top: (i64, i64)) -> Scores {
        tch::no_grad(|| {
            let hidden = self.encode(inputs);
            match self.head {
                HeadKind::Span => span::scores(self.head_stage(), &hidden),
                HeadKind::Conditional { .. } => conditional::scores(self.head_stage(), &hidden, inputs, top),
            }
        })
    }

    /// The encoder's output in 32 bits, `[B, T, C]`, without dropout.
    pub fn encode(&self, inputs: &Inputs) -> Tensor {
        let mut hidden = Tensor::new();
        for index in 0..self.stages.len() - 1 {
            hidden = self.forward(index, &hidden, inputs, None);
        }
        inputs.unpack(hidden.to_kind(Kind::Float))
    }

    /// The last stage.
    pub fn head_stage(&self) -> &Stage {
        &self.stages[self.stages.len() - 1]
    }
}
