//! All ranks' events as a file that chrome://tracing and Perfetto open.

use std::path::Path;

use serde_json::{Value, json};

use super::{Activity, Clock, Event, RankEvents, Track};
use crate::checkpoint::write_file;
use crate::error::TrainError;

/// Writes the file, whole or not at all. Gives what is in it, for people.
pub(super) fn write(to: &Path, ranks: &[RankEvents]) -> Result<String, TrainError> {
    let (file, what) = document(ranks);
    let bytes = serde_json::to_vec(&file).map_err(|e| TrainError::Internal(format!("the timeline: {e}")))?;
    write_file(to, &bytes)?;
    Ok(what)
}

/// The file's content, and what is in it.
fn document(ranks: &[RankEvents]) -> (Value, String) {
    // Ranks forget at different steps where they have different numbers of micro-batches.
    let first_step = ranks.iter().map(|rank| rank.first_step).max().unwrap_or(1);
    let clocks: Vec<Clock> = ranks
        .iter()
        .map(|rank| Clock::new((&rank.before, &rank.after), (&ranks[0].before, &ranks[0].after)))
        .collect();
    let kept = |rank: &RankEvents| -> Vec<Event> {
        rank.events.iter().filter(|event| event.step >= first_step || !in_step(event)).copied().collect()
    };
    let kept: Vec<Vec<Event>> = ranks.iter().map(kept).collect();
    let times = kept
        .iter()
        .zip(&clocks)
        .flat_map(|(events, clock)| events.iter().map(|event| clock.to_first(event.begun)));
    let zero = times.fold(f64::INFINITY, f64::min);
    let mut all = Vec::new();
    for (rank, (events, clock)) in kept.iter().zip(&clocks).enumerate() {
        all.push(
            json!({"ph": "M", "name": "process_name", "pid": rank, "args": {"name": format!("rank {rank}")}}),
        );
        all.push(json!({"ph": "M", "name": "process_sort_index", "pid": rank, "args": {"sort_index": rank}}));
        let tracks =
            [(Track::Compute, "compute"), (Track::Reductions, "all-reduce"), (Track::Batches, "batches")];
        for (track, name) in tracks {
            let name = json!({"name": name});
            all.push(
                json!({"ph": "M", "name": "thread_name", "pid": rank, "tid": number(track), "args": name}),
            );
        }
        for event in events {
            // Both on the first rank's clock: by a clock that drifts, what ends together would not.
            let [begun, ended] = [event.begun, event.ended].map(|time| (clock.to_first(time) - zero).round());
            all.push(json!({
                "ph": "X", "name": event.activity.name(), "cat": category(event.activity),
                "pid": rank, "tid": number(event.track), "ts": microseconds(begun),
                "dur": microseconds(ended - begun), "args": {"step": event.step},
            }));
        }
    }
    let error = clocks.iter().map(|clock| clock.error()).fold(0.0, f64::max);
    let events: usize = kept.iter().map(Vec::len).sum();
    let last_step = kept.iter().flatten().map(|event| event.step).max().unwrap_or(0);
    let first_kept = kept.iter().flatten().filter(|e| in_step(e)).map(|event| event.step).min().unwrap_or(0);
    let errors: Vec<f64> = clocks.iter().map(|clock| microseconds(clock.error())).collect();
    let file = json!({
        "displayTimeUnit": "ms",
        "otherData": {
            "program": "squadron", "ranks": ranks.len(), "first_step": first_kept, "last_step": last_step,
            "clock_error_us": errors,
        },
        "traceEvents": all,
    });
    let what = format!(
        "{events} events of {} ranks, steps {first_kept} to {last_step}, clocks equal within {:.0} us",
        ranks.len(),
        (error / 1e3).ceil()
    );
    (file, what)
}

fn in_step(event: &Event) -> bool {
    !matches!(event.activity, Activity::Score | Activity::Meet | Activity::Finish)
}

fn number(track: Track) -> u8 {
    match track {
        Track::Compute => 0,
        Track::Reductions => 1,
        Track::Batches => 2,
    }
}

fn category(activity: Activity) -> &'static str {
    match activity {
        Activity::Reduce(_) => "all-reduce",
        _ if activity.waits() => "wait",
        _ => "compute",
    }
}

/// Nanoseconds in the unit of the format, which keeps three places.
fn microseconds(nanos: f64) -> f64 {
    nanos.round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::super::Reading;
    use super::*;

    fn rank(ahead: i64, first_step: u64) -> RankEvents {
        let reading = |time: i64| vec![Reading { before: time + ahead, after: time + ahead + 2000 }];
        let at = |time: u64| (time as i64 + ahead) as u64;
        let event = |step, activity, begun, ended| Event {
            activity,
            step,
            track: if activity == Activity::Reduce(1) { Track::Reductions } else { Track::Compute },
            begun: at(begun),
            ended: at(ended),
        };
        RankEvents {
            before: reading(0),
            after: reading(1_000_000),
            events: vec![
                event(1, Activity::Step, 10_000, 20_000),
                event(2, Activity::Step, 30_000, 90_000),
                event(2, Activity::Reduce(1), 40_000, 50_000),
                event(2, Activity::Score, 95_000, 99_000),
            ],
            first_step,
        }
    }

    #[test]
    fn ranks_are_merged_on_one_clock_from_the_first_step_that_all_have() {
        let (file, what) = document(&[rank(0, 1), rank(700_000, 2)]);
        let events: Vec<&Value> =
            file["traceEvents"].as_array().unwrap().iter().filter(|e| e["ph"] == "X").collect();
        assert_eq!(events.len(), 6, "step 1 is not whole on rank 1: {events:?}");
        for rank in 0..2 {
            let steps: Vec<&&Value> =
                events.iter().filter(|e| e["pid"] == rank && e["name"] == "step").collect();
            assert_eq!((steps.len(), steps[0]["args"]["step"].as_u64()), (1, Some(2)));
            assert_eq!((steps[0]["ts"].as_f64(), steps[0]["dur"].as_f64()), (Some(0.0), Some(60.0)));
        }
        assert_eq!(file["otherData"]["first_step"], 2);
        assert_eq!(file["otherData"]["clock_error_us"], json!([2.0, 2.0]));
        assert!(what.contains("steps 2 to 2") && what.contains("within 2 us"), "{what}");
    }

    #[test]
    fn what_ends_together_does_so_on_a_clock_that_drifts() {
        let mut drifting = rank(0, 1);
        // A tenth faster.
        drifting.after = vec![Reading { before: 1_100_000, after: 1_102_000 }];
        let optimizer = Event { activity: Activity::Optimizer, begun: 80_001, ..drifting.events[1] };
        drifting.events.push(optimizer);
        let (file, _) = document(&[rank(0, 1), drifting]);
        let ended = |name: &str| {
            let events = file["traceEvents"].as_array().unwrap();
            let event = events.iter().rfind(|e| e["pid"] == 1 && e["name"] == name).unwrap();
            event["ts"].as_f64().unwrap() + event["dur"].as_f64().unwrap()
        };
        assert!((ended("optimizer") - ended("step")).abs() < 1e-6, "{file}");
    }
}
