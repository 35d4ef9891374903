//! Measuring all-reduce, with the method that the usual programs for it have: before each repetition all
//! ranks fill their buffers anew and meet; the slowest rank's time counts; the figure is the median.

mod rank;

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::error::CollectiveError;
use crate::pace::Pace;
use crate::{Buffer, Collective, RingListener, Topology};

/// Repetitions that are not counted, at each size.
pub(crate) const WARM_UP: usize = 2;

/// Bytes that the bound is measured over, about: the other ranks wait meanwhile.
const BOUND_BYTES: usize = 8 << 30;

/// Most repetitions at each size.
const MOST: f64 = 1000.0;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Sizes of the buffer, in bytes; each is rounded down to whole floats.
    pub sizes: Vec<usize>,
    /// About how long to measure each size, in seconds.
    pub seconds: f64,
    /// Whose memory is reduced.
    pub memory: Memory,
    /// How far a sum may be from the exact one, as a part of it: 0 unless values are rounded on their way.
    pub tolerance: f32,
}

/// Whose memory is reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// The collective's own, from [`Collective::buffer`], as gradients are.
    Collective,
    /// The caller's, as with MPI.
    Caller,
}

/// What came out; the same on all ranks but for the bound, which only rank 0 measures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Number of ranks.
    pub np: usize,
    /// What carried the bytes; see [`Collective::transport`].
    pub transport: String,
    /// One row for each size.
    pub results: Vec<Row>,
}

/// What came out for one size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Size of the buffer.
    pub bytes: usize,
    /// Repetitions.
    pub iters: usize,
    /// Median over the repetitions of the slowest rank's time.
    pub median_s: f64,
    /// The time that one repetition in a hundred exceeds.
    pub p99_s: f64,
    /// Bytes of the buffer in a second, in 10^9.
    #[serde(rename = "algbw_GBps")]
    pub algbw: f64,
    /// The same times 2 (np - 1) / np: what each rank must at least send and receive.
    #[serde(rename = "busbw_GBps")]
    pub busbw: f64,
    /// Whether every sum was right.
    pub correct: bool,
    /// What `busbw` would be if nothing but the sums in memory took time; see [`crate::bench::bound`]. On rank 0
    /// of a shared-memory gang.
    #[serde(rename = "bound_GBps", skip_serializing_if = "Option::is_none")]
    pub bound: Option<f64>,
    /// `busbw` as a part of the bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_of_bound: Option<f64>,
}

pub use crate::shm::bound;
pub use rank::{Orders, live};

/// As [`crate::connect`], with a link that lets so many gigabits a second pass each way, over all connections of this rank
/// together. Only what goes over TCP is held back.
///
/// # Errors
/// As [`crate::connect`].
pub fn connect_over_link(
    listener: RingListener,
    topology: Topology,
    gigabits: f64,
) -> Result<Box<dyn Collective>, CollectiveError> {
    crate::connect_at(listener, topology, Some(Arc::new(Pace::new(gigabits))))
}

/// Measures all-reduce on a gang whose other ranks do the same with the same plan.
///
/// # Errors
/// What broke the gang.
pub fn all_reduce(collective: &mut dyn Collective, plan: &Plan) -> Result<Report, CollectiveError> {
    let mut results = Vec::with_capacity(plan.sizes.len());
    for bytes in &plan.sizes {
        results.push(measure(collective, *bytes, plan)?);
    }
    Ok(Report { np: collective.world(), transport: collective.transport().to_owned(), results })
}

/// What rank `rank` puts at `index`: sums of it are exact.
fn value(rank: usize, index: usize) -> f32 {
    (index % 97 + rank) as f32
}

/// How often a buffer of so many bytes is reduced. Every rank must come to the same number: it depends on nothing that
/// a rank measures.
pub(crate) fn repetitions(plan: &Plan, bytes: usize) -> usize {
    (plan.seconds / (4e-9 * bytes as f64 + 1e-4)).clamp(5.0, MOST) as usize
}

/// Whether these are the sums of what the ranks of a world put there.
pub(crate) fn is_right(sums: &[f32], world: usize, tolerance: f32) -> bool {
    let sum = |index| (world * (index % 97) + world * (world - 1) / 2) as f32;
    let right = |(index, value): (usize, &f32)| (value - sum(index)).abs() <= tolerance * sum(index);
    sums.iter().enumerate().all(right)
}

/// What rank `rank` puts into `len` floats.
pub(crate) fn source(rank: usize, len: usize) -> Vec<f32> {
    (0..len).map(|index| value(rank, index)).collect()
}

fn measure(collective: &mut dyn Collective, bytes: usize, plan: &Plan) -> Result<Row, CollectiveError> {
    let (rank, world, len) = (collective.rank(), collective.world(), bytes / size_of::<f32>());
    let source = source(rank, len);
    let mut buffer = match plan.memory {
        Memory::Collective => collective.buffer(len)?,
        Memory::Caller => Buffer::from(vec![0.0; len]),
    };
    let iters = repetitions(plan, bytes);
    let (mut times, mut correct) = (Vec::with_capacity(iters), true);
    for repetition in 0..WARM_UP + iters {
        buffer.copy_from_slice(&source);
        collective.barrier()?;
        let begun = Instant::now();
        collective.all_reduce_buffer(&mut buffer, len)?;
        let took = begun.elapsed().as_secs_f64();
        if repetition < WARM_UP {
            correct &= is_right(&buffer, world, plan.tolerance);
        } else {
            times.push(took);
        }
    }
    let (times, correct) = slowest(collective, &times, correct)?;
    drop(buffer);
    let bound = (rank == 0 && collective.transport() == "shm" && plan.memory == Memory::Collective)
        .then(|| bound(world, bytes, iters.min(200).min(BOUND_BYTES.div_ceil((bytes * world).max(1))).max(3)))
        .and_then(Result::ok);
    collective.barrier()?;
    let row = Row::of(bytes, world, &times, correct);
    Ok(Row { bound, share_of_bound: bound.map(|bound| row.busbw / bound), ..row })
}

impl Row {
    /// From the times in order of length.
    pub(crate) fn of(bytes: usize, world: usize, times: &[f64], correct: bool) -> Row {
        let median = times[times.len() / 2];
        let algbw = bytes as f64 / median / 1e9;
        Row {
            bytes,
            iters: times.len(),
            median_s: median,
            p99_s: times[(times.len() * 99 / 100).min(times.len() - 1)],
            algbw,
            busbw: algbw * bus_factor(world),
            correct,
            bound: None,
            share_of_bound: None,
        }
    }
}

/// From bytes of the buffer to bytes that each rank sends.
pub(crate) fn bus_factor(world: usize) -> f64 {
    2.0 * (world as f64 - 1.0) / world as f64
}

/// Each repetition's time on its slowest rank, in order of length, and whether all ranks had right sums.
pub(crate) fn slowest(
    collective: &mut dyn Collective,
    times: &[f64],
    correct: bool,
) -> Result<(Vec<f64>, bool), CollectiveError> {
    let mut message = vec![u8::from(correct)];
    message.extend(times.iter().flat_map(|time| time.to_le_bytes()));
    let mut slowest = vec![0.0_f64; times.len()];
    let mut all_correct = true;
    for message in collective.gather_bytes(message)? {
        all_correct &= message.first() == Some(&1);
        let times = message.get(1..).unwrap_or_default().as_chunks::<8>().0;
        for (slowest, time) in slowest.iter_mut().zip(times) {
            *slowest = slowest.max(f64::from_le_bytes(*time));
        }
    }
    slowest.sort_by(f64::total_cmp);
    Ok((slowest, all_correct))
}
