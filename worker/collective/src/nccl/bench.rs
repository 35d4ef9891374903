//! Measuring all-reduce on GPUs, as [`crate::bench`] does it between processors.

use std::time::Instant;

use super::device::Memory;
use super::{Communicator, Mark};
use crate::bench::{Plan, Report, Row, WARM_UP, is_right, repetitions, slowest, source};
use crate::{Background, CollectiveError};

/// Measures all-reduce on the ranks of `control`, which do the same with the same plan. The time is the host's, from all
/// ranks having met to the sum being there.
///
/// # Errors
/// What broke the gang, or the communicator; memory that the GPU does not have.
pub fn bench(
    control: &Background,
    communicator: &Communicator,
    plan: &Plan,
) -> Result<Report, CollectiveError> {
    let rows = plan.sizes.iter().map(|bytes| measure(control, communicator, *bytes, plan));
    let results = rows.collect::<Result<_, _>>()?;
    Ok(Report { np: control.world(), transport: "nccl".into(), results })
}

fn measure(
    control: &Background,
    communicator: &Communicator,
    bytes: usize,
    plan: &Plan,
) -> Result<Row, CollectiveError> {
    let len = bytes / size_of::<f32>();
    let (source, mut sums) = (source(control.rank(), len), vec![0.0; len]);
    let memory = communicator.memory(len)?;
    let (mut times, mut correct) = (Vec::new(), true);
    for repetition in 0..WARM_UP + repetitions(plan, bytes) {
        communicator.said(memory.write(&source))?;
        control.run(|collective| collective.barrier())?;
        let begun = Instant::now();
        reduce(communicator, &memory)?;
        let took = begun.elapsed().as_secs_f64();
        if repetition < WARM_UP {
            communicator.said(memory.read(&mut sums))?;
            // NCCL adds in an order of its own; these sums are exact in any.
            correct &= is_right(&sums, control.world(), 0.0);
        } else {
            times.push(took);
        }
    }
    let (times, correct) = control.run(move |collective| slowest(collective, &times, correct))?;
    Ok(Row::of(bytes, control.world(), &times, correct))
}

/// Sums, and waits until the sum is there.
fn reduce(communicator: &Communicator, memory: &Memory) -> Result<(), CollectiveError> {
    // SAFETY: `memory` outlives this call, which ends when the sum is there or the communicator is broken; then its kernels
    // have been ended. Nobody else has it.
    #[allow(unsafe_code, reason = "memory of a GPU")]
    let buffer = unsafe { memory.buffer() };
    let (_, done): (Mark, Mark) = communicator.settle(&communicator.all_reduce(buffer)?)?;
    loop {
        // After an abort the kernels end without sums.
        communicator.check()?;
        if communicator.said(done.is_reached())? {
            return communicator.check();
        }
        std::hint::spin_loop();
    }
}
