//! A checkpoint on its way from the rank that holds it to those that do not.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use squad_collective::Background;

use super::find::Verified;
use super::{MANIFEST, folder_of, is_plain, name_of, replace_folder};
use crate::error::TrainError;
use crate::evaluate::gather;
use crate::output::METRICS;

/// Values that travel at once: 16 MiB.
const CHUNK: usize = 4 << 20;

/// Where received files lie until they are read: a folder for each rank, as several may see the same output folder.
const RECEIVED: &str = ".received";

/// A file that travels.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Piece {
    name: String,
    bytes: u64,
}

/// A checkpoint that came from another rank. What nobody has taken over is deleted with it.
#[derive(Debug)]
pub struct Received {
    place: PathBuf,
    folder: PathBuf,
    metrics: Vec<u8>,
}

impl Received {
    /// An empty place for a step's checkpoint.
    fn at(output: &Path, rank: usize, step: u64) -> Result<Self, TrainError> {
        let place = output.join(RECEIVED).join(format!("rank-{rank}"));
        if place.exists() {
            fs::remove_dir_all(&place).map_err(TrainError::output("delete", &place))?;
        }
        let folder = place.join(name_of(step));
        fs::create_dir_all(&folder).map_err(TrainError::output("create", &folder))?;
        Ok(Self { place, folder, metrics: Vec::new() })
    }

    /// The checkpoint's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The sender's metrics.jsonl; empty where it has none.
    pub fn metrics(&self) -> &[u8] {
        &self.metrics
    }

    /// Puts the checkpoint among those of an output folder.
    ///
    /// # Errors
    /// When a file cannot be moved or synced.
    pub fn keep(self, output: &Path) -> Result<(), TrainError> {
        let target = folder_of(output).join(self.folder.file_name().unwrap_or_default());
        replace_folder(&target, |folder| {
            for entry in fs::read_dir(&self.folder).map_err(TrainError::output("list", &self.folder))? {
                let entry = entry.map_err(TrainError::output("list", &self.folder))?;
                let from = entry.path();
                fs::rename(&from, folder.join(entry.file_name()))
                    .map_err(TrainError::output("move", &from))?;
            }
            Ok(())
        })
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        // What stays is deleted by the next one of this rank.
        fs::remove_dir_all(&self.place).ok();
        if let Some(all) = self.place.parent() {
            // Only where no other rank's is in it.
            fs::remove_dir(all).ok();
        }
    }
}

/// The files of a checkpoint, the manifest among them.
fn pieces(checkpoint: &Verified) -> Result<Vec<Piece>, TrainError> {
    let manifest = checkpoint.folder.join(MANIFEST);
    let size = fs::metadata(&manifest).map_err(TrainError::output("read", &manifest))?.len();
    let files = checkpoint.manifest.files.iter();
    let mut pieces: Vec<Piece> =
        files.map(|file| Piece { name: file.name.clone(), bytes: file.bytes }).collect();
    pieces.push(Piece { name: MANIFEST.into(), bytes: size });
    Ok(pieces)
}

/// Sends a step's checkpoint from the rank that gives its own to all that want it. All ranks call it at once. What
/// arrives is not yet compared with its manifest.
///
/// # Errors
/// When a file cannot be read or written, and what broke the collective.
pub fn pass_on(
    (holder, step): (usize, u64),
    own: Option<&Verified>,
    wants: bool,
    output: &Path,
    collective: &Background,
) -> Result<Option<Received>, TrainError> {
    let source = own.filter(|_| collective.rank() == holder);
    let listed = source.map(pieces).transpose()?.unwrap_or_default();
    let listed = gather(collective, &listed)?;
    let metrics = source.map(|_| fs::read(output.join(METRICS)).unwrap_or_default());
    let metrics: Vec<u8> = collective
        .run(move |c| c.gather_bytes(metrics.unwrap_or_default()))?
        .into_iter()
        .nth(holder)
        .unwrap_or_default();
    let mut received = wants.then(|| Received::at(output, collective.rank(), step)).transpose()?;
    if let Some(received) = &mut received {
        received.metrics = metrics;
    }
    for piece in listed {
        if !is_plain(&piece.name) {
            return Err(TrainError::Internal(format!("rank {holder} sends a file named {:?}", piece.name)));
        }
        let from = source.map(|checkpoint| checkpoint.folder.join(&piece.name));
        let to = received.as_ref().map(|received| received.folder.join(&piece.name));
        pass_on_file((holder, piece.bytes), from.as_deref(), to.as_deref(), collective)?;
    }
    Ok(received)
}

fn pass_on_file(
    (holder, bytes): (usize, u64),
    from: Option<&Path>,
    to: Option<&Path>,
    collective: &Background,
) -> Result<(), TrainError> {
    let open = |path| File::open(path).map_err(TrainError::output("open", path));
    let create = |path| File::create(path).map_err(TrainError::output("create", path));
    let mut source = from.map(open).transpose()?;
    let mut sink = to.map(create).transpose()?;
    let mut left = bytes;
    while left > 0 {
        let now = left.min((CHUNK * 4) as u64) as usize;
        let mut chunk = vec![0; now.next_multiple_of(4)];
        if let (Some(file), Some(path)) = (&mut source, from) {
            file.read_exact(&mut chunk[..now]).map_err(TrainError::output("read", path))?;
        }
        // Values are carried bit by bit, whatever they would mean.
        let mut values: Vec<f32> =
            chunk.as_chunks().0.iter().map(|four| f32::from_bits(u32::from_le_bytes(*four))).collect();
        let values = collective.run(move |c| c.broadcast(&mut values, holder).map(|()| values))?;
        if let (Some(file), Some(path)) = (&mut sink, to) {
            let chunk: Vec<u8> = values.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect();
            file.write_all(&chunk[..now]).map_err(TrainError::output("write", path))?;
        }
        left -= now as u64;
    }
    Ok(())
}
