//! The span head: two scores for each token from one linear layer.

use tch::{Kind, Tensor};

use super::{Loss, LossForm, Scores, masked_log_softmax, pick};
use crate::config::EncoderConfig;
use crate::init::Init;
use crate::inputs::{Inputs, Targets};
use crate::stage::{Declaration, Stage};

const WEIGHT: usize = 0;
const BIAS: usize = 1;

/// The parameters, under Hugging Face's names.
pub(crate) fn declare(config: &EncoderConfig) -> Declaration {
    let mut d = Declaration::new("head");
    d.linear("qa_outputs", 2, config.hidden_size, Init::Normal(config.initializer_range));
    d
}

fn logits(stage: &Stage, hidden: &Tensor) -> (Tensor, Tensor) {
    let both = hidden.linear(&stage[WEIGHT], Some(&stage[BIAS]));
    (both.select(2, 0), both.select(2, 1))
}

/// Start and end logits of all positions, `[B, T]` each.
pub(crate) fn scores(stage: &Stage, hidden: &Tensor) -> Scores {
    let (start, end) = logits(stage, hidden);
    Scores::Span { start, end }
}

/// Half the sum of the start's and the end's cross-entropy, summed over examples.
pub(crate) fn loss(
    stage: &Stage,
    hidden: &Tensor,
    inputs: &Inputs,
    targets: &Targets,
    form: LossForm,
) -> Loss {
    assert!(form == LossForm::Masked || inputs.packing().is_none(), "padding competes");
    let (start, end) = logits(stage, hidden);
    let log_probability = |logits: &Tensor, gold: &Tensor| {
        let all = match form {
            LossForm::Masked => masked_log_softmax(logits, &inputs.valid),
            LossForm::HuggingFace => logits.log_softmax(-1, Kind::Float),
        };
        pick(&all, gold)
    };
    let total = (log_probability(&start, &targets.starts) + log_probability(&end, &targets.ends))
        .sum(Kind::Float)
        * -0.5;
    Loss { span: total.detach(), total, answerability: None }
}
