//! What memory allows: the sums of an all-reduce without all else.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::area::Areas;
use super::region::Region;
use super::sum::{Order, in_place, share};
use crate::bench::bus_factor;

/// Looks at the other threads before the core is offered to somebody else.
const PATIENCE: u32 = 1 << 14;

/// The bus bandwidth, in 10^9 bytes a second, that `ranks` buffers of `bytes` bytes would have if an all-reduce
/// were nothing but its sums: as many threads as ranks, or as cores if they are fewer, fill the buffers and
/// then sum a part each over all of them, in place, with the widest instructions that the processor has. The
/// median of `repetitions`, of each the slowest thread's own time; the threads' waiting does not count.
///
/// # Errors
/// With fewer than two ranks, which have nothing to sum, and what the system says if there is not enough memory.
pub fn bound(ranks: usize, bytes: usize, repetitions: usize) -> io::Result<f64> {
    if ranks < 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let (len, repetitions) = (bytes / size_of::<f32>(), repetitions.max(1));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = ranks.min(cores);
    let size = Areas::bytes(ranks, bytes).ok_or(io::ErrorKind::OutOfMemory)?;
    let (_file, region) = Region::create(size, &[0; 32])?;
    region.prepare(0..region.bytes());
    let areas = Areas::new(Arc::new(region), 0, bytes);
    let arrived = AtomicUsize::new(0);
    let times: Vec<Vec<f64>> = thread::scope(|scope| {
        let work = |number| {
            let (areas, arrived) = (&areas, &arrived);
            scope.spawn(move || one_thread(areas, arrived, (number, threads, ranks), len, repetitions))
        };
        let threads: Vec<_> = (0..threads).map(work).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect()
    });
    let mut slowest: Vec<f64> = (0..repetitions)
        .map(|turn| times.iter().filter_map(|times| times.get(turn)).fold(0.0, |a: f64, b| a.max(*b)))
        .collect();
    slowest.sort_by(f64::total_cmp);
    Ok(bytes as f64 / slowest[repetitions / 2] / 1e9 * bus_factor(ranks))
}

fn one_thread(
    areas: &Areas,
    arrived: &AtomicUsize,
    (number, threads, ranks): (usize, usize, usize),
    len: usize,
    repetitions: usize,
) -> Vec<f64> {
    let mut rounds = 0;
    let mut meet = || {
        rounds += threads;
        arrived.fetch_add(1, Ordering::AcqRel);
        let mut looks = 0_u32;
        while arrived.load(Ordering::Acquire) < rounds {
            // Threads that yield at once end up on one core, where their buffers are in one cache.
            looks += 1;
            if looks.is_multiple_of(PATIENCE) { thread::yield_now() } else { std::hint::spin_loop() }
        }
    };
    let part = share(len, number, threads);
    let turn = |_| {
        for rank in (number..ranks).step_by(threads) {
            // SAFETY: between these meetings each buffer is one thread's.
            unsafe { areas.write::<f32>(rank, 0..len) }.fill(1.0);
        }
        meet();
        let begun = Instant::now();
        // SAFETY: between these meetings this part of all buffers is this thread's.
        unsafe { in_place(areas, part.clone(), Order { first: 0, world: ranks }, 1.0) };
        let took = begun.elapsed().as_secs_f64();
        meet();
        took
    };
    (0..repetitions).map(turn).collect()
}
