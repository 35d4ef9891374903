//! The bench measures, checks sums, and reports in the agreed shape.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking, in its helpers too")]

mod gang;

use std::time::Duration;

use gang::{TRANSPORTS, each, gang};
use squad_collective::bench::{Memory, Plan, all_reduce};

#[test]
fn each_size_is_measured_and_checked() {
    for transport in TRANSPORTS {
        for memory in [Memory::Collective, Memory::Caller] {
            let plan = Plan { sizes: vec![0, 4, 4096, 300_000], seconds: 0.0, memory, tolerance: 0.0 };
            let reports = each(gang(2, Duration::from_secs(20), transport), |mut rank| {
                all_reduce(&mut *rank, &plan).unwrap()
            });
            let in_place = transport.to_string() == "shm" && memory == Memory::Collective;
            for (rank, report) in reports.iter().enumerate() {
                assert_eq!((report.np, &report.transport), (2, &transport.to_string()));
                assert_eq!(report.results.iter().map(|row| row.bytes).collect::<Vec<_>>(), plan.sizes);
                for row in &report.results {
                    assert!(row.correct && row.iters == 5 && row.median_s <= row.p99_s, "{row:?}");
                    assert!((row.busbw - row.algbw).abs() <= 1e-9 * row.algbw, "{row:?}");
                    assert_eq!(row.bound.is_some(), in_place && rank == 0, "{row:?}");
                }
                assert_eq!(reports[0].results[2].median_s, report.results[2].median_s);
            }
        }
    }
}

#[test]
fn the_report_has_the_agreed_keys() {
    let plan = Plan { sizes: vec![4096], seconds: 0.0, memory: Memory::Collective, tolerance: 0.0 };
    let transport = squad_collective::Transport::Shm;
    let reports = each(gang(2, Duration::from_secs(20), transport), |mut rank| {
        serde_json::to_value(all_reduce(&mut *rank, &plan).unwrap()).unwrap()
    });
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&reports[0]), ["np", "transport", "results"]);
    let common = ["bytes", "iters", "median_s", "p99_s", "algbw_GBps", "busbw_GBps", "correct"];
    assert_eq!(keys(&reports[1]["results"][0]), common);
    assert_eq!(keys(&reports[0]["results"][0])[7..], ["bound_GBps", "share_of_bound"]);
}
