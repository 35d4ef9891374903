//! Manifests of a job.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context;

use crate::cli::{KubernetesArgs, RenderCommand};
use crate::fault::Verdict;
use crate::job_file;
use crate::kubernetes::{Gang, Manifest};
use crate::output::Output;

/// Writes the manifest of a job's workers.
pub(super) fn perform(command: &RenderCommand, output: Output) -> anyhow::Result<Verdict> {
    let RenderCommand::Kubernetes(args) = command;
    kubernetes(args, output)
}

fn kubernetes(args: &KubernetesArgs, output: Output) -> anyhow::Result<Verdict> {
    let spec = job_file::fields(&args.job)?;
    let manifest = Manifest::of(&Gang::of(&spec, args)?)?;
    let text = if output.is_json() {
        let list = serde_json::to_string_pretty(&manifest.list());
        format!("{}\n", list.context("cannot write the manifest as JSON")?)
    } else {
        manifest.yaml()?
    };
    match &args.file {
        Some(path) => write(path, &text)?,
        None => output.data(&text)?,
    }
    Ok(Verdict::Done)
}

/// Writes a file so that a reader sees all of it or what was there before.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let written = tempfile::Builder::new().prefix(".manifest").tempfile_in(folder).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)
    });
    written.map(drop).with_context(|| format!("cannot write the manifest {}", path.display()))
}
