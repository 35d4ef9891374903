//! AdamW as operations on whole stages; see [`crate::adamw`] for the recipe.

use squad_model::Stage;
use tch::{Device, Kind, Tensor};

use crate::adamw::{AdamW, Constants, Moments};

/// The moments of one stage on its device, in the layout of its weights.
#[derive(Debug)]
pub struct DeviceMoments {
    first: Tensor,
    second: Tensor,
}

impl DeviceMoments {
    /// Zero moments for `len` parameters.
    pub fn new(len: usize, device: Device) -> Self {
        let zeros = || Tensor::zeros([len as i64], (Kind::Float, device));
        Self { first: zeros(), second: zeros() }
    }

    /// Copies of moments on the host.
    pub fn from_host(moments: &Moments, device: Device) -> Self {
        let copy = |values: &[f32]| Tensor::from_slice(values).to_device(device);
        Self { first: copy(&moments.first), second: copy(&moments.second) }
    }

    /// Copies on the host. Waits for the device.
    pub fn to_host(&self) -> Moments {
        let copy = |tensor: &Tensor| {
            let mut values = vec![0.0; tensor.numel()];
            let count = values.len();
            tensor.copy_data(&mut values, count);
            values
        };
        Moments { first: copy(&self.first), second: copy(&self.second) }
    }
}

/// Updates a stage. `gradients`, flat as its weights, are multiplied by `scale` on the way; `rate` is the stage's learning
/// rate; `step` counts from 1.
pub fn update(
    optimizer: &AdamW,
    stage: &mut Stage,
    moments: &mut DeviceMoments,
    gradients: &Tensor,
    scale: f64,
    (rate, step): (f64, u64),
) {
    let (decaying, plain) = optimizer.constants(scale, (rate, step));
    let (decayed, len) = (stage.decayed(), stage.len() as i64);
    tch::no_grad(|| {
        for (constants, start, count) in [(decaying, 0, decayed), (plain, decayed, len - decayed)] {
            let part = |tensor: &Tensor| tensor.narrow(0, start, count);
            apply(
                &constants,
                part(stage.flat()),
                (part(&moments.first), part(&moments.second)),
                &part(gradients),
            );
        }
    });
    stage.refresh();
}

/// In place: every tensor is a view of the stage's own memory.
fn apply(c: &Constants, mut w: Tensor, (mut m, mut v): (Tensor, Tensor), gradients: &Tensor) {
    let g = gradients * f64::from(c.scale);
    m *= f64::from(c.beta1);
    m += &g * f64::from(c.one_minus_beta1);
    v *= f64::from(c.beta2);
    v += (&g * &g) * f64::from(c.one_minus_beta2);
    let mut denominator = v.sqrt();
    denominator *= f64::from(c.inverse_root2);
    denominator += f64::from(c.epsilon);
    w *= f64::from(c.keep);
    w -= (m / denominator) * f64::from(c.step_size);
}
