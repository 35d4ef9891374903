//! Event files that TensorBoard reads: `OUTPUT/tensorboard/events.out.tfevents.*`.
//!
//! A file is a sequence of records, each a little-endian length, the masked CRC-32C of the length, a protobuf `Event`, and
//! the masked CRC-32C of the event: TensorFlow's record format. Only the few fields that scalars need are declared
//! here, with the numbers that `tensorflow/core/util/event.proto` and `tensorflow/core/framework/summary.proto` give
//! them; protobuf leaves out what is not declared.
//!
//! A run that is gone on with begins a new file. Its first event says which step comes next, upon which
//! TensorBoard drops what older files have from that step on.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::error::TrainError;

/// The folder of the event files in an output folder.
pub const FOLDER: &str = "tensorboard";

/// What a file says first.
const VERSION: &str = "brain.Event:2";

/// `SessionLog.START`: events from this one's step on replace older ones.
const START: i32 = 1;

/// Something at a step.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    /// One of several forms of a value there: without presence a zero would be left out, and the point with it.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// One event file, open for writing.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventFile {
    /// A new file for the steps after `done`, whatever older files say of them.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn go_on(output: &Path, done: u64) -> Result<Self, TrainError> {
        let mut events = Self::create(output)?;
        events.event(done + 1, What::SessionLog(SessionLog { status: START }))?;
        events.flush()?;
        Ok(events)
    }

    /// A new file beside those that are there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(output: &Path) -> Result<Self, TrainError> {
        let folder = output.join(FOLDER);
        fs::create_dir_all(&folder).map_err(TrainError::output("create", &folder))?;
        // TensorBoard reads the files of a folder in the order of their names.
        let (nanoseconds, process) = (since_1970().as_nanos(), std::process::id());
        let path = folder.join(format!(
            "events.out.tfevents.{:010}.{:09}.{process}",
            nanoseconds / 1_000_000_000,
            nanoseconds % 1_000_000_000
        ));
        let file = File::create_new(&path).map_err(TrainError::output("create", &path))?;
        let mut events = Self { path, file: BufWriter::new(file) };
        events.event(0, What::FileVersion(VERSION.into()))?;
        Ok(events)
    }

    /// Appends one value for each name, and flushes them: somebody may be looking.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> Result<(), TrainError> {
        let value = scalars
            .iter()
            .map(|(tag, value)| Value { tag: (*tag).to_owned(), simple_value: Some(*value as f32) })
            .collect();
        self.event(step, What::Summary(Summary { value }))?;
        self.flush()
    }

    fn event(&mut self, step: u64, what: What) -> Result<(), TrainError> {
        let event = Event { wall_time: since_1970().as_secs_f64(), step: step as i64, what: Some(what) }
            .encode_to_vec();
        let length = (event.len() as u64).to_le_bytes();
        [&length, &masked_crc(&length)[..], &event, &masked_crc(&event)]
            .into_iter()
            .try_for_each(|part| self.file.write_all(part))
            .map_err(TrainError::output("write", &self.path))
    }

    fn flush(&mut self) -> Result<(), TrainError> {
        self.file.flush().map_err(TrainError::output("write", &self.path))
    }
}

fn since_1970() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The checksum of a record's part, rotated and shifted so that checksums of data with checksums in it stay good.
fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of all files, in the order that TensorBoard takes them.
    fn read(output: &Path) -> Vec<Event> {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(output.join(FOLDER)).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let mut events = Vec::new();
        for path in paths {
            let bytes = fs::read(path).unwrap();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (length, after) = rest.split_at(8);
                let size = u64::from_le_bytes(length.try_into().unwrap()) as usize;
                assert_eq!(after[..4], masked_crc(length));
                let event = &after[4..4 + size];
                assert_eq!(after[4 + size..8 + size], masked_crc(event));
                events.push(Event::decode(event).unwrap());
                rest = &after[8 + size..];
            }
        }
        events
    }

    #[test]
    fn checksums_are_tensorflows() {
        // Of 32 zero bytes, RFC 3720 B.4; the mask is that of tensorflow/core/lib/hash/crc32c.h.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(u32::from_le_bytes(masked_crc(&[0; 32])), 0x0fd7_fffa);
    }

    #[test]
    fn a_run_that_is_gone_on_with_says_from_which_step() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = EventFile::go_on(folder.path(), 0).unwrap();
        first.scalars(10, &[("train/loss", 2.5), ("train/learning_rate", 1e-4)]).unwrap();
        first.scalars(20, &[("train/loss", 0.0)]).unwrap();
        let mut second = EventFile::go_on(folder.path(), 10).unwrap();
        second.scalars(20, &[("train/loss", 1.75)]).unwrap();

        let events = read(folder.path());
        assert_eq!(events[0].what, Some(What::FileVersion("brain.Event:2".into())));
        let starts: Vec<i64> = events
            .iter()
            .filter(|event| matches!(event.what, Some(What::SessionLog(SessionLog { status: START }))))
            .map(|event| event.step)
            .collect();
        assert_eq!(starts, [1, 11]);
        let losses: Vec<(i64, Option<f32>)> = events
            .iter()
            .filter_map(|event| match &event.what {
                Some(What::Summary(summary)) => Some((event.step, summary.value[0].simple_value)),
                _ => None,
            })
            .collect();
        assert_eq!(losses, [(10, Some(2.5)), (20, Some(0.0)), (20, Some(1.75))]);
    }
}
