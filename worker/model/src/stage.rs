//! Flat parameter storage.

use std::ops::{Index, Range};

use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use crate::dropout::mix;
use crate::init::Init;
use crate::network::StageSize;

/// One parameter of a stage: a view into the stage's flat storage.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Shape, outermost dimension first.
    pub shape: Vec<i64>,
    /// Where it starts in the flat storage, in elements.
    pub offset: i64,
    /// Whether weight decay applies: true for matrices, false for biases and layer norms.
    pub decay: bool,
    /// Names in Hugging Face files. More than one when rows of several tensors are kept together (query,
    /// key and value): each has an equal share of the rows, in this order.
    pub parts: Vec<String>,
    /// How it starts when no file holds it.
    pub(crate) init: Init,
}

impl Param {
    /// Number of elements.
    pub fn len(&self) -> i64 {
        self.shape.iter().product()
    }

    /// True for a parameter without elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True for a table in which rows are looked up.
    fn is_table(&self) -> bool {
        self.parts.iter().any(|name| name.ends_with("_embeddings.weight"))
    }

    /// Gives its elements of the stage's `values` their starting ones, derived from the numbers.
    pub(crate) fn initialise(&self, values: &mut [f32], from: [u64; 3]) {
        let span = self.offset as usize..(self.offset + self.len()) as usize;
        self.init.fill(&mut values[span], mix(&from));
    }

    /// Each part's name, its shape, and its elements in the flat storage.
    pub fn parts(&self) -> impl Iterator<Item = (&str, Vec<i64>, Range<usize>)> {
        let count = self.parts.len() as i64;
        let each = self.len() / count;
        self.parts.iter().enumerate().map(move |(k, name)| {
            let mut shape = self.shape.clone();
            shape[0] /= count;
            let start = (self.offset + k as i64 * each) as usize;
            (name.as_str(), shape, start..start + each as usize)
        })
    }
}

/// Parameters as they are declared, before they have storage.
#[derive(Debug)]
pub(crate) struct Declaration {
    name: String,
    params: Vec<Param>,
}

impl Declaration {
    /// A stage of this name without parameters yet.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), params: Vec::new() }
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> i64 {
        self.params.iter().map(Param::len).sum()
    }

    /// How large the stage will be.
    pub(crate) fn size(&self) -> StageSize {
        let of = |wanted: fn(&Param) -> bool| {
            self.params.iter().filter(|param| wanted(param)).map(Param::len).sum::<i64>() as u64
        };
        StageSize {
            name: self.name.clone(),
            parameters: of(|_| true),
            tables: of(Param::is_table),
            matrices: of(|param| param.decay && !param.is_table()),
        }
    }

    /// Declares a linear map's weight `[outputs, inputs]` and bias under one name.
    pub(crate) fn linear(&mut self, name: &str, outputs: i64, inputs: i64, weight: Init) -> &mut Self {
        self.matrix(&[format!("{name}.weight")], &[outputs, inputs], weight).vector(
            &[format!("{name}.bias")],
            &[outputs],
            Init::Zeros,
        )
    }

    /// Declares a norm's weight and bias under one name.
    pub(crate) fn norm(&mut self, name: &str, width: i64) -> &mut Self {
        self.vector(&[format!("{name}.weight")], &[width], Init::Ones).vector(
            &[format!("{name}.bias")],
            &[width],
            Init::Zeros,
        )
    }

    /// Declares a parameter that weight decay applies to.
    pub(crate) fn matrix(&mut self, parts: &[String], shape: &[i64], init: Init) -> &mut Self {
        self.push(parts, shape, init, true)
    }

    /// Declares a bias or a layer norm's vector.
    pub(crate) fn vector(&mut self, parts: &[String], shape: &[i64], init: Init) -> &mut Self {
        self.push(parts, shape, init, false)
    }

    fn push(&mut self, parts: &[String], shape: &[i64], init: Init, decay: bool) -> &mut Self {
        self.params.push(Param { shape: shape.into(), offset: 0, decay, parts: parts.to_vec(), init });
        self
    }
}

/// A run of parameters in one flat tensor.
///
/// Decayed parameters come first, so that decay is one operation on a contiguous half; otherwise the
/// order is that of declaration, on every machine.
#[derive(Debug)]
pub struct Stage {
    name: String,
    params: Vec<Param>,
    decayed: i64,
    flat: Tensor,
    /// What the leaves are views of, where that is not `flat`: its copy in a shorter format.
    rounded: Option<Tensor>,
    leaves: Vec<Tensor>,
}

impl Stage {
    /// Gives declared parameters storage on `device`, all zero.
    pub(crate) fn new(mut declared: Declaration, device: Device) -> Self {
        let mut offset = 0;
        let mut decayed = 0;
        for decay in [true, false] {
            for param in declared.params.iter_mut().filter(|p| p.decay == decay) {
                param.offset = offset;
                offset += param.len();
            }
            if decay {
                decayed = offset;
            }
        }
        let flat = Tensor::zeros([offset], (Kind::Float, device));
        let leaves = leaves(&declared.params, &flat);
        Self { name: declared.name, params: declared.params, decayed, flat, rounded: None, leaves }
    }

    /// Makes the leaves copies of the weights in `kind`. The weights stay in 32 bits: the optimizer's small
    /// steps would be lost in a shorter format (Micikevicius et al., 2018).
    pub(crate) fn compute_in(&mut self, kind: Kind) {
        self.rounded = (kind != Kind::Float).then(|| self.flat.to_kind(kind));
        self.leaves = leaves(&self.params, self.rounded.as_ref().unwrap_or(&self.flat));
    }

    /// Brings the leaves up to date after the weights were written through [`Self::flat`]. Costs nothing where
    /// they are views of the weights themselves.
    pub fn refresh(&mut self) {
        if let Some(rounded) = &mut self.rounded {
            tch::no_grad(|| rounded.copy_(&self.flat));
        }
    }

    /// What the stage is, such as `embeddings` or `layer 3`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The parameters, in order of declaration.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.flat.size()[0] as usize
    }

    /// True for a stage without parameters.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The leading elements that weight decay applies to.
    pub fn decayed(&self) -> i64 {
        self.decayed
    }

    /// All weights in 32 bits, shape `[len]`. Writing in place, without gradients, changes the parameters;
    /// [`Self::refresh`] belongs behind it.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// The parameters as leaves of the autograd graph, in order of declaration.
    pub fn leaves(&self) -> &[Tensor] {
        &self.leaves
    }

    /// Writes the gradients of [`Self::leaves`] into `into`, a flat tensor of the same layout; with `add`
    /// on top of what is there. A leaf that the loss does not reach has an undefined gradient: zero.
    pub fn collect_gradients(&self, gradients: &[Tensor], into: &Tensor, add: bool) {
        self.collect_gradients_but(None, gradients, into, add);
    }

    /// The same but for one parameter, whose gradient stays as it is in `into`.
    pub fn collect_gradients_but(
        &self,
        left_out: Option<usize>,
        gradients: &[Tensor],
        into: &Tensor,
        add: bool,
    ) {
        for (number, (param, gradient)) in self.params.iter().zip(gradients).enumerate() {
            if left_out == Some(number) {
                continue;
            }
            let mut target = into.narrow(0, param.offset, param.len()).view(param.shape.as_slice());
            match (gradient.defined(), add) {
                (true, true) => drop(target.g_add_(gradient)),
                (true, false) => target.copy_(gradient),
                (false, true) => {}
                (false, false) => drop(target.zero_()),
            }
        }
    }

    /// Feeds the layout into a hash: names, shapes and places of all parameters.
    pub(crate) fn hash_layout(&self, hash: &mut Sha256) {
        hash.update(self.name.as_bytes());
        for param in &self.params {
            hash.update(format!("{:?} {:?} {} {}\n", param.parts, param.shape, param.offset, param.decay));
        }
    }

    /// Copies the weights out, in the flat order.
    pub fn to_vec(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.len()];
        self.flat.copy_data(&mut values, self.len());
        values
    }

    /// Overwrites all weights, in the flat order; `values` has [`Self::len`] elements.
    pub fn set(&mut self, values: &[f32]) {
        tch::no_grad(|| self.flat.copy_(&Tensor::from_slice(values)));
        self.refresh();
    }
}

/// Views of a flat tensor, one for each parameter, that gradients are taken of.
fn leaves(params: &[Param], flat: &Tensor) -> Vec<Tensor> {
    let leaf = |p: &Param| {
        flat.narrow(0, p.offset, p.len()).view(p.shape.as_slice()).detach().set_requires_grad(true)
    };
    params.iter().map(leaf).collect()
}

impl Index<usize> for Stage {
    type Output = Tensor;

    /// The leaf of the parameter that was declared as number `index`.
    fn index(&self, index: usize) -> &Tensor {
        &self.leaves[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage() -> Stage {
        let mut declared = Declaration::new("test");
        declared.vector(&["b".into()], &[2], Init::Zeros);
        declared.matrix(&["q".into(), "k".into()], &[4, 3], Init::Normal(0.02));
        Stage::new(declared, Device::Cpu)
    }

    #[test]
    fn decayed_parameters_come_first() {
        let stage = stage();
        assert_eq!((stage.len(), stage.decayed()), (14, 12));
        assert_eq!((stage.params()[0].offset, stage.params()[1].offset), (12, 0));
        let parts: Vec<_> = stage.params()[1].parts().collect();
        assert_eq!(parts, [("q", vec![2, 3], 0..6), ("k", vec![2, 3], 6..12)]);
    }

    #[test]
    fn writing_the_flat_tensor_shows_in_the_leaves() {
        let mut stage = stage();
        stage.set(&(0..14).map(|v| v as f32).collect::<Vec<_>>());
        assert_eq!(stage[0].double_value(&[1]), 13.0);
        assert_eq!(stage[1].double_value(&[1, 0]), 3.0);
        assert!(stage[1].requires_grad() && stage[1].is_leaf());
    }

    #[test]
    fn shorter_leaves_follow_the_weights_which_stay_exact() {
        let mut stage = stage();
        stage.compute_in(Kind::BFloat16);
        let fine = 1.0 + f32::EPSILON;
        stage.set(&[fine; 14]);
        assert_eq!((stage[0].kind(), stage[0].double_value(&[0])), (Kind::BFloat16, 1.0));
        assert_eq!(stage.to_vec(), [fine; 14]);
        drop(tch::no_grad(|| stage.flat().shallow_clone().fill_(3.0)));
        assert_eq!(stage[1].double_value(&[0, 0]), 1.0);
        stage.refresh();
        assert_eq!(stage[1].double_value(&[0, 0]), 3.0);
        assert!(stage[1].requires_grad() && stage[1].is_leaf());

        // Gradients come in the leaves' format and are summed in 32 bits.
        let into = Tensor::zeros([14], (Kind::Float, Device::Cpu));
        let loss = (&stage[1] * 2.0).sum(Kind::Float);
        let gradients = Tensor::run_backward(&[loss], &[&stage[1]], false, false);
        assert_eq!(gradients[0].kind(), Kind::BFloat16);
        for add in [false, true] {
            stage.collect_gradients(&[Tensor::new(), gradients[0].shallow_clone()], &into, add);
        }
        assert_eq!((into.kind(), into.sum(Kind::Float).double_value(&[])), (Kind::Float, 48.0));
    }

    #[test]
    fn gradients_land_in_place_and_undefined_ones_are_zero() {
        let stage = stage();
        let into = Tensor::ones([14], (Kind::Float, Device::Cpu));
        let loss = (&stage[1] * 2.0).sum(Kind::Float);
        let gradients = Tensor::run_backward(&[loss], &[&stage[1]], false, false);
        stage.collect_gradients(&[Tensor::new(), gradients[0].shallow_clone()], &into, false);
        assert_eq!(into.sum(Kind::Float).double_value(&[]), 24.0);
        stage.collect_gradients(&[Tensor::new(), gradients[0].shallow_clone()], &into, true);
        assert_eq!(into.sum(Kind::Float).double_value(&[]), 48.0);
    }
}
