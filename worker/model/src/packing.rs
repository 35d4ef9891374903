//! Batches without their padding.
//!
//! Between embeddings and head nothing but attention looks at more than one token. So the layers compute the tokens of all
//! sequences as one long row, and attention is told where each begins. MobileBERT's embeddings, which look at a token's neighbours,
//! are computed before.

use tch::{Device, Tensor};

/// Where the tokens of a padded batch are that are no padding: N of `B · T`.
#[derive(Debug)]
pub struct Packing {
    /// `[N]`, int64: numbers of the tokens, row by row.
    places: Tensor,
    /// `[B + 1]`, int64: the token of the N that each row begins with, and N.
    starts: Tensor,
    lengths: Vec<usize>,
    width: i64,
}

impl Packing {
    /// Of rows of these lengths, padded to `width`, on the CPU.
    pub(crate) fn new(lengths: &[i64], width: i64) -> Self {
        let mut starts = vec![0];
        let mut places = Vec::new();
        for (row, length) in (0..).zip(lengths) {
            places.extend(row * width..row * width + length);
            starts.push(places.len() as i64);
        }
        Self {
            places: Tensor::from_slice(&places),
            starts: Tensor::from_slice(&starts),
            lengths: lengths.iter().map(|length| *length as usize).collect(),
            width,
        }
    }

    /// Tokens of each row.
    pub(crate) fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// How attention finds the rows.
    pub(crate) fn rows(&self) -> squad_attention::Rows<'_> {
        squad_attention::Rows::Packed { starts: &self.starts, width: self.width }
    }

    /// `[B, T, C]` to `[1, N, C]`.
    pub(crate) fn pack(&self, padded: &Tensor) -> Tensor {
        padded.flatten(0, 1).index_select(0, &self.places).unsqueeze(0)
    }

    /// `[1, N, C]` to `[B, T, C]`, zero at padding.
    pub(crate) fn unpack(&self, packed: &Tensor) -> Tensor {
        let (rows, size) = (self.lengths.len() as i64, packed.size()[2]);
        Tensor::zeros([rows * self.width, size], (packed.kind(), Device::Cpu))
            .index_copy_(0, &self.places, &packed.squeeze_dim(0))
            .view([rows, self.width, size])
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn tokens_come_back_to_their_places() {
        let packing = Packing::new(&[2, 0, 3, 1], 3);
        let padded = Tensor::arange(12, (Kind::Float, Device::Cpu)).view([4, 3, 1]).set_requires_grad(true);
        let packed = packing.pack(&padded);
        assert_eq!(packed, Tensor::from_slice(&[0f32, 1.0, 6.0, 7.0, 8.0, 9.0]).view([1, 6, 1]));
        let unpacked = packing.unpack(&packed);
        assert_eq!(
            unpacked.view([4, 3]),
            &padded.view([4, 3]) * Tensor::from_slice2(&[[1, 1, 0], [0, 0, 0], [1, 1, 1], [1, 0, 0]])
        );
        let gradient = Tensor::run_backward(&[(&unpacked * 2.0).sum(Kind::Float)], &[&padded], false, false);
        assert_eq!(gradient[0].sum(Kind::Float).double_value(&[]), 12.0);
    }
}
