//! A batch as tensors.

use tch::{Device, Kind, Tensor};

use crate::packing::Packing;

/// What the encoder and the heads read. B examples, padded to T tokens.
#[derive(Debug)]
pub struct Inputs {
    /// Token ids, `[B, T]`, int64.
    pub input_ids: Tensor,
    /// Segment of each token, `[B, T]`, int64.
    pub token_type_ids: Tensor,
    /// True at tokens that are no padding, `[B, T]`.
    pub valid: Tensor,
    /// True where an answer may start or end, `[B, T]`; includes the first token, which stands for "no
    /// answer". Used by the conditional head.
    pub allowed: Tensor,
    /// Added to attention scores, `[B, 1, 1, T]`: 0 at tokens, a large negative number at padding. Absent
    /// when nothing is padded.
    pub attention_bias: Option<Tensor>,
    lengths: Vec<i64>,
    packing: Option<Packing>,
}

/// What the batch should be answered with.
#[derive(Debug)]
pub struct Targets {
    /// Token position of the answer's start, `[B]`, int64; 0 for no answer.
    pub starts: Tensor,
    /// Token position of the answer's end, inclusive, `[B]`, int64.
    pub ends: Tensor,
    /// 1 where the question has no answer in the window, `[B]`, int64.
    pub impossible: Tensor,
}

impl Inputs {
    /// Builds the tensors of `rows` sequences, each padded to the same width.
    ///
    /// `lengths` holds the unpadded length of each row; the other slices are row by row.
    pub fn new(
        lengths: &[i64],
        input_ids: &[i64],
        token_type_ids: &[i64],
        allowed: &[bool],
        device: Device,
    ) -> Self {
        let rows = lengths.len() as i64;
        let width = if rows == 0 { 0 } else { input_ids.len() as i64 / rows };
        let shaped = |t: Tensor| bring(t.view([rows, width]), device);
        let positions = Tensor::arange(width, (Kind::Int64, device)).unsqueeze(0);
        let valid = positions.lt_tensor(&bring(Tensor::from_slice(lengths), device).unsqueeze(1));
        let padded = lengths.iter().any(|length| *length < width);
        // Not minus infinity: a row that is padding altogether would become NaN.
        let attention_bias = padded.then(|| {
            valid
                .logical_not()
                .to_kind(Kind::Float)
                .g_mul_scalar(f64::from(f32::MIN) / 2.0)
                .view([rows, 1, 1, width])
        });
        Self {
            input_ids: shaped(Tensor::from_slice(input_ids)),
            token_type_ids: shaped(Tensor::from_slice(token_type_ids)),
            allowed: shaped(Tensor::from_slice(allowed)),
            valid,
            attention_bias,
            lengths: lengths.to_vec(),
            packing: None,
        }
    }

    /// Lets the encoder's layers pass over padding, where there is some, unless the device [computes it anyhow](computes_padding).
    /// What the head gives for padding is then what it gives for a hidden state of zeros.
    #[must_use]
    pub fn packed(mut self) -> Self {
        if !computes_padding(self.input_ids.device()) && self.attention_bias.is_some() {
            self.packing = Some(Packing::new(&self.lengths, self.width()));
        }
        self
    }

    /// Where tokens are that layers compute without padding.
    pub(crate) fn packing(&self) -> Option<&Packing> {
        self.packing.as_ref()
    }

    /// Of `[B, T, C]` what layers compute: the same, or `[1, N, C]` without padding.
    pub(crate) fn pack(&self, padded: Tensor) -> Tensor {
        match &self.packing {
            Some(packing) => packing.pack(&padded),
            None => padded,
        }
    }

    /// Of what layers computed `[B, T, C]`.
    pub(crate) fn unpack(&self, computed: Tensor) -> Tensor {
        match &self.packing {
            Some(packing) => packing.unpack(&computed),
            None => computed,
        }
    }

    /// Number of examples, B.
    pub fn rows(&self) -> i64 {
        self.input_ids.size()[0]
    }

    /// Padded length, T.
    pub fn width(&self) -> i64 {
        self.input_ids.size()[1]
    }
}

/// Whether layers on this device compute the padding of [packed](Inputs::packed) batches, too. On a CPU only attention does, where it is
/// libtorch's: in 16-bit formats that the processor multiplies, without dropout.
pub fn computes_padding(device: Device) -> bool {
    device != Device::Cpu
}

/// Brings a tensor of the CPU to `device`. From pinned memory, so that nobody waits until the device has done what it was
/// told before.
fn bring(tensor: Tensor, device: Device) -> Tensor {
    match device {
        Device::Cuda(_) => tensor.pin_memory(device).to_device_(device, tensor.kind(), true, false),
        _ => tensor.to_device(device),
    }
}

impl Targets {
    /// Builds the tensors; each slice has one element for each example.
    pub fn new(starts: &[i64], ends: &[i64], impossible: &[i64], device: Device) -> Self {
        let on = |values: &[i64]| bring(Tensor::from_slice(values), device);
        Self { starts: on(starts), ends: on(ends), impossible: on(impossible) }
    }
}
