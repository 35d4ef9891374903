//! A measurement, not a test: `cargo test --release -p squad-collective --test rate -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking, in its helpers too")]

mod gang;

use std::time::{Duration, Instant};

#[test]
#[ignore = "a measurement"]
fn two_ranks() {
    for mebibytes in [0, 1, 4, 16, 64] {
        let len = (mebibytes << 18).max(64);
        let ranks = gang::ring(2, Duration::from_secs(20));
        let times = gang::each(ranks, |mut rank| {
            let mut buffer = gang::values(rank.rank(), len);
            let rounds = if mebibytes == 0 { 2000 } else { 640 / (mebibytes + 8) };
            let mut times = Vec::new();
            for _ in 0..rounds {
                rank.barrier().unwrap();
                let start = Instant::now();
                rank.all_reduce(&mut buffer).unwrap();
                times.push(start.elapsed().as_secs_f64());
            }
            times.sort_by(f64::total_cmp);
            (times[0], times[times.len() / 2], times[times.len() * 99 / 100])
        });
        let (least, median, late) = times[0];
        let bytes = (len * 4) as f64;
        println!(
            "{bytes:>9} bytes: median {median:.6} s = {:.2} GB/s, best {:.2} GB/s, p99 {late:.6} s",
            bytes / median / 1e9,
            bytes / least / 1e9
        );
    }
}
