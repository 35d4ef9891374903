//! Gradient memory that libtorch writes and the ring reads.
//!
//! A bucket is one stage's flat gradient. Its memory belongs to Rust, so that it can be handed to the
//! collective's thread and back without a copy; a tensor over the same memory lets libtorch write it. Where
//! the ranks of a host share memory, a bucket lies in it.
//! This file holds all of the crate's `unsafe`.
#![allow(unsafe_code, reason = "tensors over Rust's memory, and slices over a tensor's")]

use std::time::Instant;

use squad_collective::{Background, Buffer, Pending, Rows};
use squad_model::Stage;
use tch::{Device, Kind, Tensor};

use crate::error::TrainError;
use crate::touched::Table;

/// One stage's flat gradient, with a few floats of company behind it.
#[derive(Debug)]
pub struct Bucket {
    /// Aliases the first `len` elements of the buffer; declared first, so that it is dropped first.
    tensor: Tensor,
    state: State,
    len: usize,
    /// With the company.
    total: usize,
    /// Rows of the table, where there is one, that may hold other values than zero; `None` for all.
    written: Option<Vec<u32>>,
}

#[derive(Debug)]
enum State {
    Home(Buffer),
    Away(Pending),
    /// A collective's thread died with the buffer.
    Lost,
}

/// When the reduction of a bucket began and ended.
#[derive(Clone, Copy, Debug)]
pub struct Reduction {
    /// When it began.
    pub started: Instant,
    /// When it ended.
    pub ended: Instant,
}

impl Bucket {
    /// A bucket of `len` gradients and `company` further floats, all zero, on the heap.
    pub fn new(len: usize, company: usize) -> Self {
        Self::over(vec![0.0; len + company].into(), len)
    }

    /// A bucket of `len` gradients and `company` further floats, all zero, where `collective` reduces it
    /// fastest. All ranks make the same buckets in the same order.
    ///
    /// # Errors
    /// What broke the collective.
    pub fn reduced_by(collective: &Background, len: usize, company: usize) -> Result<Self, TrainError> {
        let mut values = collective.buffer(len + company)?;
        // The company tells all ranks things that must come as they are.
        values.keep_exact(len);
        Ok(Self::over(values, len))
    }

    fn over(mut values: Buffer, len: usize) -> Self {
        assert!(len <= values.len(), "{len} gradients in a buffer of {}", values.len());
        // SAFETY: the memory holds `len` floats and lives as long as the tensor: a buffer's elements keep their
        // address, `tensor` is dropped before it, and no clone of `tensor` leaves this file's methods with a
        // longer life. While the buffer is away, the tensor is not handed out.
        let tensor = unsafe {
            Tensor::from_blob(values.as_mut_ptr().cast(), &[len as i64], &[1], Kind::Float, Device::Cpu)
        };
        let total = values.len();
        Self { tensor, state: State::Home(values), len, total, written: Some(Vec::new()) }
    }

    fn away<T>(&self) -> Result<T, TrainError> {
        Err(TrainError::Internal("a bucket was used while it was being reduced".into()))
    }

    /// Writes a stage's gradients, or adds them to what is there.
    ///
    /// # Errors
    /// When the bucket is being reduced.
    pub fn collect(&mut self, stage: &Stage, gradients: &[Tensor], add: bool) -> Result<(), TrainError> {
        let State::Home(_) = &self.state else { return self.away() };
        self.written = None;
        stage.collect_gradients(gradients, &self.tensor, add);
        Ok(())
    }

    /// The same where the stage begins with a table of which only these rows, in ascending order, have a gradient
    /// other than zero: only they are moved.
    ///
    /// # Errors
    /// When the bucket is being reduced.
    pub fn collect_rows(
        &mut self,
        stage: &Stage,
        gradients: &[Tensor],
        add: bool,
        (table, rows): (&Table, &[u32]),
    ) -> Result<(), TrainError> {
        let State::Home(values) = &mut self.state else { return self.away() };
        let Some(source) = gradients.get(table.param).and_then(|gradient| floats(gradient, table)) else {
            return self.collect(stage, gradients, add);
        };
        let span = |row: &u32| *row as usize * table.width..(*row as usize + 1) * table.width;
        if !add {
            match self.written.take() {
                Some(written) => written.iter().for_each(|row| values[span(row)].fill(0.0)),
                None => values[..table.rows * table.width].fill(0.0),
            }
            self.written = Some(Vec::new());
        }
        for row in rows {
            let (to, from) = (&mut values[span(row)], &source[span(row)]);
            if add {
                to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
            } else {
                to.copy_from_slice(from);
            }
        }
        if let Some(written) = &mut self.written {
            written.extend(rows);
        }
        stage.collect_gradients_but(Some(table.param), gradients, &self.tensor, add);
        Ok(())
    }

    /// Copies gradients in from a flat tensor on any device. Waits for that device.
    ///
    /// # Errors
    /// When the bucket is being reduced.
    pub fn take_from(&mut self, gradients: &Tensor) -> Result<(), TrainError> {
        let State::Home(_) = &self.state else { return self.away() };
        self.written = None;
        self.tensor.copy_(gradients);
        Ok(())
    }

    /// Copies the gradients out into a flat tensor on any device.
    ///
    /// # Errors
    /// When the bucket is being reduced.
    pub fn give_to(&self, gradients: &Tensor) -> Result<(), TrainError> {
        let State::Home(_) = &self.state else { return self.away() };
        gradients.shallow_clone().copy_(&self.tensor);
        Ok(())
    }

    /// The gradients, without the company.
    ///
    /// # Errors
    /// When the bucket is being reduced.
    pub fn gradients(&self) -> Result<&[f32], TrainError> {
        match &self.state {
            State::Home(values) => Ok(&values[..self.len]),
            _ => self.away(),
        }
    }

    /// Everything, to be written.
    ///
    /// # Errors
    /// When the bucket is being reduced.
    pub fn values_mut(&mut self) -> Result<&mut [f32], TrainError> {
        match &mut self.state {
            State::Home(values) => {
                self.written = None;
                Ok(values)
            }
            _ => Err(TrainError::Internal("a bucket was written while it was being reduced".into())),
        }
    }

    /// The floats behind the gradients.
    ///
    /// # Errors
    /// When the bucket is being reduced.
    pub fn company(&mut self) -> Result<&mut [f32], TrainError> {
        let len = self.len;
        match &mut self.state {
            State::Home(values) => Ok(&mut values[len..]),
            _ => Err(TrainError::Internal("a bucket was written while it was being reduced".into())),
        }
    }

    /// Bytes that a reduction of all of it, or of these rows and all behind the table, is about.
    pub fn bytes(&self, rows: Option<&Rows>) -> u64 {
        let left_out = rows.map_or(0, |rows| rows.table_elements() - rows.elements());
        ((self.total - left_out) * size_of::<f32>()) as u64
    }

    /// Hands the bucket to the collective. Where it begins with a table, that sums the chosen rows of it and all behind
    /// it: no rank has other values than zero in the other rows.
    ///
    /// # Errors
    /// When it is there already.
    pub fn launch(&mut self, collective: &Background, rows: Option<&Rows>) -> Result<(), TrainError> {
        let len = self.total;
        let Some(rows) = rows else { return self.hand_over(|values| collective.all_reduce(values, len)) };
        if let Some(written) = &mut self.written {
            written.extend(rows.numbers(0..rows.count()).map(|row| row as u32));
        }
        self.hand_over(|values| collective.all_reduce_table(values, len, rows.clone()))
    }

    fn hand_over(&mut self, launch: impl FnOnce(Buffer) -> Pending) -> Result<(), TrainError> {
        match std::mem::replace(&mut self.state, State::Lost) {
            State::Home(values) => {
                self.state = State::Away(launch(values));
                Ok(())
            }
            other => {
                self.state = other;
                self.away()
            }
        }
    }

    /// Waits until the bucket is back, summed over all ranks.
    ///
    /// # Errors
    /// What broke the collective.
    pub fn settle(&mut self) -> Result<Reduction, TrainError> {
        let pending = match std::mem::replace(&mut self.state, State::Lost) {
            State::Away(pending) => pending,
            other => {
                // Put back: dropping the buffer would leave the tensor over freed memory.
                self.state = other;
                return Err(TrainError::Internal("a bucket was awaited that was not being reduced".into()));
            }
        };
        let settled = match pending.settle() {
            Ok(settled) => settled,
            Err(error) => {
                // The buffer is gone: the tensor must not point at it any more.
                self.tensor = Tensor::new();
                return Err(error.into());
            }
        };
        self.state = State::Home(settled.bucket);
        settled.result?;
        Ok(Reduction { started: settled.started, ended: settled.ended })
    }
}

/// A table's gradient as a slice; `None` where it is not plain memory of this process.
fn floats<'a>(gradient: &'a Tensor, table: &Table) -> Option<&'a [f32]> {
    let len = table.rows * table.width;
    let plain = gradient.defined()
        && gradient.device() == Device::Cpu
        && gradient.kind() == Kind::Float
        && gradient.is_contiguous()
        && gradient.numel() == len;
    // SAFETY: the tensor holds `len` contiguous floats in this process's memory and lives as long as the slice. Nobody
    // writes through another handle of it meanwhile: it is fresh from the backward pass.
    plain.then(|| unsafe { std::slice::from_raw_parts(gradient.data_ptr().cast::<f32>(), len) })
}

/// A stage's flat gradients as what NCCL sums. For the exchange of a device's stepper only, which is dropped, and with it
/// NCCL's work aborted, before the gradients are.
///
/// # Errors
/// When they are not contiguous 32-bit floats on a GPU.
#[cfg(feature = "nccl")]
pub(crate) fn device_buffer(flat: &Tensor) -> Result<squad_collective::nccl::DeviceBuffer, TrainError> {
    if !flat.device().is_cuda() || flat.kind() != Kind::Float || !flat.is_contiguous() {
        return Err(TrainError::Internal("gradients are not contiguous 32-bit floats on a GPU".into()));
    }
    // SAFETY: the tensor's memory is there as long as the stepper, which has the exchange drop its communicator first.
    // Between launch and settle the stepper gives the device no work on these gradients; what it gave before is on the
    // stream that the communicator waits for.
    Ok(unsafe { squad_collective::nccl::DeviceBuffer::from_raw(flat.data_ptr() as u64, flat.numel()) })
}

/// Runs `work` on the weights of a stage as a slice. Only for stages on the CPU.
///
/// # Errors
/// When the stage is elsewhere.
pub fn with_weights<T>(stage: &mut Stage, work: impl FnOnce(&mut [f32]) -> T) -> Result<T, TrainError> {
    let flat = stage.flat();
    if flat.device() != Device::Cpu || flat.kind() != Kind::Float || !flat.is_contiguous() {
        return Err(TrainError::Internal("weights are not contiguous 32-bit floats on the CPU".into()));
    }
    let len = flat.numel();
    // SAFETY: the tensor holds `len` contiguous floats in this process's memory, which lives as long as the
    // stage. The stage is borrowed mutably, so nobody reads or writes through it meanwhile, and libtorch has
    // no work outstanding: its CPU operations end before they return.
    let weights = unsafe { std::slice::from_raw_parts_mut(flat.data_ptr().cast::<f32>(), len) };
    Ok(work(weights))
}

#[cfg(test)]
mod tests {
    use super::*;
    use squad_collective::{Fence, RingListener, Topology, Transport};

    fn solo() -> Background {
        let listener = RingListener::bind([127, 0, 0, 1].into()).unwrap();
        let peers = vec![listener.local_addr()];
        let fence = Fence { job: "j".into(), generation: 1, token: "t".into(), layout: [0; 32] };
        let (patience, transport) = (std::time::Duration::from_secs(5), Transport::Auto);
        let (compression, host) = Default::default();
        let topology = Topology { rank: 0, world: 1, peers, fence, patience, transport, compression, host };
        Background::start(squad_collective::connect(listener, topology).unwrap())
    }

    #[test]
    fn comes_back_and_cannot_be_touched_while_away() {
        let collective = solo();
        let mut bucket = Bucket::reduced_by(&collective, 3, 2).unwrap();
        bucket.values_mut().unwrap().copy_from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        bucket.launch(&collective, None).unwrap();
        assert!(
            bucket.gradients().is_err()
                && bucket.values_mut().is_err()
                && bucket.launch(&collective, None).is_err()
        );
        bucket.settle().unwrap();
        assert_eq!(bucket.gradients().unwrap(), [1.0, 2.0, 3.0]);
        assert_eq!(bucket.company().unwrap(), [4.0, 5.0]);
        assert!(bucket.settle().is_err());
        assert_eq!(bucket.tensor.double_value(&[2]), 3.0);
    }
}
