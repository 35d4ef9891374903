//! From a spec's file to a job that can be submitted.

use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::unistd::{AccessFlags, access};
use serde_json::Value;
use squad_fetch::zoo;
use squad_proto::spec::{Problem, SpecError, apply_override, parse, validate};
use squad_proto::task::Checkpoint;
use squad_proto::{JobSpec, Task, ValidSpec};

use crate::cli::{SourceArgs, SpecArgs};
use crate::fault::BadUsage;

/// A spec whose fields are all in order; its files have not been looked at.
#[derive(Debug)]
pub(crate) struct JobFile {
    /// The spec as written, with the overrides.
    value: Value,
    spec: ValidSpec,
    source: Source,
    task: Task,
}

/// Where a spec comes from.
#[derive(Clone, Debug)]
struct Source {
    /// What errors call it.
    name: String,
    /// The folder that its relative paths start at.
    folder: PathBuf,
    /// It has no file: it is a recipe.
    recipe: bool,
}

/// A job that can be started on this machine: its paths are absolute, and its files were there a moment ago.
#[derive(Debug)]
pub(crate) struct LocalJob {
    /// The spec.
    pub(crate) spec: JobSpec,
    /// What is to be done with it.
    pub(crate) task: Task,
    /// The spec's folder.
    pub(crate) folder: PathBuf,
}

impl JobFile {
    /// Reads the spec, changes it as `--set` says, and checks it.
    pub(crate) fn read(arguments: &SpecArgs) -> anyhow::Result<Self> {
        let (source, value, spec) = read_spec(&arguments.source)?;
        let task = match (arguments.eval_only, arguments.checkpoint.as_deref()) {
            (false, _) => Task::Train {
                resume: arguments.resume,
                timeline: arguments.timeline.as_deref().map(|file| file.to_string_lossy().into_owned()),
            },
            (true, None | Some("latest")) => Task::Evaluate { checkpoint: Checkpoint::Latest },
            (true, Some("all")) => Task::Evaluate { checkpoint: Checkpoint::All },
            (true, Some(path)) => Task::Evaluate { checkpoint: Checkpoint::Path(path.into()) },
        };
        let file = Self { value, spec, source, task };
        file.refuse_if(file.missing_sets())?;
        Ok(file)
    }

    /// The job's patience in seconds, and how many workers it asks for.
    pub(crate) fn gang(&self) -> (f64, u32) {
        let spec = self.spec.get();
        (spec.fault.patience_s, spec.resources.workers)
    }

    /// What is to be done with the spec.
    pub(crate) fn task(&self) -> &Task {
        &self.task
    }

    /// What a daemon gets, as JSON. It resolves a file's paths by its own root; those of a recipe are absolute.
    pub(crate) fn submission(&self) -> anyhow::Result<String> {
        let text = if self.source.recipe {
            let mut spec = self.spec.get().clone();
            spec.resolve_paths(&self.source.folder);
            // What is no folder is a name, for the daemon to find.
            place_model(&mut spec, &self.source.folder);
            serde_json::to_string(&spec)
        } else {
            serde_json::to_string(&self.value)
        };
        text.context("cannot write the spec as JSON")
    }

    /// The spec with absolute paths, after a look at the files that it names: a job that cannot start is
    /// refused here, in a second, and leaves nothing behind.
    pub(crate) fn resolve(self) -> anyhow::Result<LocalJob> {
        let base = self.source.folder.clone();
        let mut spec = self.spec.get().clone();
        spec.resolve_paths(&base);
        let mut problems = Vec::new();
        if let Err(problem) = resolve_model(&mut spec, &base) {
            problems.push(problem);
        }
        let train = spec.data.train.as_ref().filter(|_| self.task.trains());
        for (field, path) in [("data.train", train), ("data.dev", spec.data.dev.as_ref())] {
            problems.extend(path.and_then(|path| look_at_data(field, Path::new(path))));
        }
        if let Some(folder) = spec.train.init_from.as_ref().filter(|folder| !Path::new(folder).is_dir()) {
            problems.push(problem(
                "train.init_from",
                missing(Path::new(folder)),
                "a folder with a model's weights",
            ));
        }
        problems.extend(look_at_output(Path::new(&spec.output_dir)));
        self.refuse_if(problems)?;
        let task = match self.task {
            Task::Train { resume, timeline: Some(file) } => {
                let file = std::path::absolute(&file).with_context(|| format!("--timeline {file}"))?;
                let timeline = Some(file.to_string_lossy().into_owned());
                Task::Train { resume, timeline }
            }
            Task::Evaluate { checkpoint: Checkpoint::Path(path) } => Task::Evaluate {
                checkpoint: Checkpoint::Path(find_checkpoint(&path, Path::new(&spec.output_dir))?),
            },
            task => task,
        };
        Ok(LocalJob { spec, task, folder: base })
    }

    fn refuse_if(&self, problems: Vec<Problem>) -> anyhow::Result<()> {
        if problems.is_empty() {
            return Ok(());
        }
        Err(SpecError::Invalid { source_name: self.source.name.clone(), problems }.into())
    }

    /// The spec may leave out either file, but not the one that the task is about.
    fn missing_sets(&self) -> Vec<Problem> {
        let data = &self.spec.get().data;
        let nothing = |field, allowed| vec![problem(field, "nothing".into(), allowed)];
        match self.task {
            Task::Train { .. } if data.train.is_none() => {
                nothing("data.train", "a file to train on, or --eval-only to evaluate checkpoints")
            }
            Task::Evaluate { .. } if data.dev.is_none() => {
                nothing("data.dev", "a file to evaluate on (--eval-only)")
            }
            _ => Vec::new(),
        }
    }
}

/// The fields of a spec, changed as `--set` says and checked; nothing is said of what is to be done with it.
pub(crate) fn fields(arguments: &SourceArgs) -> anyhow::Result<JobSpec> {
    let (_, _, spec) = read_spec(arguments)?;
    Ok(spec.into_inner())
}

/// The same with absolute paths; its files have not been looked at.
pub(crate) fn placed(arguments: &SourceArgs) -> anyhow::Result<JobSpec> {
    let (source, _, spec) = read_spec(arguments)?;
    let mut spec = spec.into_inner();
    spec.resolve_paths(&source.folder);
    // What is no folder may be a name.
    place_model(&mut spec, &source.folder);
    Ok(spec)
}

fn read_spec(arguments: &SourceArgs) -> anyhow::Result<(Source, Value, ValidSpec)> {
    let (source, text) = read_source(arguments)?;
    let mut value = parse(&text, &source.name)?;
    for change in &arguments.overrides {
        apply_override(&mut value, change)?;
    }
    let spec = validate(&value, &source.name)?;
    Ok((source, value, spec))
}

/// The text of a spec, and where it comes from.
fn read_source(arguments: &SourceArgs) -> anyhow::Result<(Source, String)> {
    if let Some(recipe) = arguments.recipe {
        let folder = std::env::current_dir().context("cannot tell the current folder")?;
        return Ok((Source { name: recipe.source_name(), folder, recipe: true }, recipe.yaml.to_owned()));
    }
    let path = arguments.spec.as_deref().unwrap_or(Path::new(""));
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        BadUsage(format!(
            "cannot read {name}: {error}; SPEC is a job spec in YAML or JSON (squadctl run --help)"
        ))
    })?;
    let file = std::path::absolute(path).with_context(|| format!("cannot place {name}"))?;
    let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
    Ok((Source { name, folder, recipe: false }, text))
}

fn problem(path: &str, found: String, allowed: &str) -> Problem {
    Problem { path: path.into(), found, allowed: allowed.into() }
}

fn missing(path: &Path) -> String {
    let what = if path.exists() { "is something else" } else { "does not exist" };
    format!("{}, which {what}", path.display())
}

fn look_at_data(field: &str, path: &Path) -> Option<Problem> {
    let allowed = "a question file in SQuAD's JSON format; relative paths start at the spec's folder, a recipe's at the current one";
    (!path.is_file()).then(|| problem(field, missing(path), allowed))
}

/// Makes the path of the model absolute if it is a folder's; says whether it is.
fn place_model(spec: &mut JobSpec, base: &Path) -> bool {
    let folder = base.join(&spec.model);
    let found = folder.is_dir();
    if found {
        spec.model = folder.to_string_lossy().into_owned();
    }
    found
}

/// Makes the model's folder absolute. What is no folder may still be a name that can be fetched.
fn resolve_model(spec: &mut JobSpec, base: &Path) -> Result<(), Problem> {
    if place_model(spec, base) {
        return Ok(());
    }
    let model = &spec.model;
    match zoo::find(model) {
        Some(entry) if entry.repository.is_some() => return Ok(()),
        Some(_) => {
            let allowed = "a folder: squadctl models convert makes one of GluonNLP's .params file";
            return Err(problem("model", format!("{model}, which no model hub has"), allowed));
        }
        None => {}
    }
    let folder = base.join(model);
    let repository = !model.starts_with(['/', '.', '~']) && model.matches('/').count() == 1;
    if repository && !folder.exists() {
        return Ok(());
    }
    let near = zoo::nearest(model).map_or_else(String::new, |near| format!("; did you mean {near}?"));
    let allowed = "a folder in Hugging Face layout, a repository owner/name of the model hub, or a name that \
                   squadctl models list shows";
    Err(problem("model", missing(&folder), &format!("{allowed}{near}")))
}

/// Whether the output folder can be made and written in, without making it.
fn look_at_output(folder: &Path) -> Option<Problem> {
    let allowed = "a folder that can be written";
    let existing = folder.ancestors().find(|place| place.symlink_metadata().is_ok())?;
    if !existing.is_dir() {
        return Some(problem("output_dir", format!("{}, which is no folder", existing.display()), allowed));
    }
    let needed = AccessFlags::W_OK | AccessFlags::X_OK;
    let refused = access(existing, needed).err()?;
    Some(problem("output_dir", format!("{} ({})", existing.display(), refused.desc()), allowed))
}

/// The folder that `--checkpoint` means: a path from here, or the name of a checkpoint of the job.
fn find_checkpoint(given: &str, output: &Path) -> anyhow::Result<String> {
    let here = std::path::absolute(given).with_context(|| format!("cannot place {given}"))?;
    let places = [here, output.join("checkpoints").join(given), output.join(given)];
    match places.iter().find(|place| place.is_dir()) {
        Some(folder) => Ok(folder.to_string_lossy().into_owned()),
        None => Err(BadUsage(format!(
            "--checkpoint {given}: there is no such folder here and none in {}; say latest, all, or a folder",
            output.join("checkpoints").display()
        ))
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Case {
        folder: tempfile::TempDir,
    }

    impl Case {
        fn new(spec: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("job.yaml"), spec).unwrap();
            Self { folder }
        }

        fn put(&self, names: &[&str]) {
            for name in names {
                let path = self.folder.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "{}").unwrap();
            }
        }

        fn at(&self, name: &str) -> String {
            self.folder.path().join(name).to_str().unwrap().to_owned()
        }

        fn resolve(&self, flags: &[&str]) -> Result<LocalJob, String> {
            let checkpoint = flags.first().copied();
            let arguments = SpecArgs {
                eval_only: checkpoint.is_some(),
                checkpoint: checkpoint.map(str::to_owned),
                ..SpecArgs::of_file(&self.folder.path().join("job.yaml"))
            };
            JobFile::read(&arguments).and_then(JobFile::resolve).map_err(|e| crate::fault::sentence(&e))
        }
    }

    const SPEC: &str = "name: a\nmodel: m\ndata: {train: t.json, dev: d.json}\noutput_dir: out/deep\n";

    #[test]
    fn paths_start_at_the_specs_folder_and_nothing_is_made() {
        let case = Case::new(SPEC);
        case.put(&["t.json", "d.json", "m/config.json"]);
        let LocalJob { spec, task, folder } = case.resolve(&[]).unwrap();
        assert_eq!(folder, case.folder.path());
        assert_eq!(task, Task::default());
        assert_eq!(spec.data.train, Some(case.at("t.json")));
        assert_eq!((spec.model, spec.output_dir), (case.at("m"), case.at("out/deep")));
        assert!(!case.folder.path().join("out").exists());
    }

    #[test]
    fn a_model_may_be_a_name() {
        for (model, ok) in [
            ("bert-base", false),
            ("google/bert", true),
            ("./bert", false),
            ("a/b/c", false),
            ("google_albert_base_v2", true),
            ("gluon_en_cased_bert_base_v1", false),
        ] {
            let case = Case::new(&SPEC.replace("model: m", &format!("model: {model}")));
            case.put(&["t.json", "d.json"]);
            assert_eq!(case.resolve(&[]).is_ok(), ok, "{model}");
        }
        let slip = Case::new(&SPEC.replace("model: m", "model: google_albert_bse_v2"));
        slip.put(&["t.json", "d.json"]);
        let refusal = slip.resolve(&[]).unwrap_err();
        assert!(refusal.contains("did you mean google_albert_base_v2?"), "{refusal}");
    }

    #[test]
    fn all_files_that_are_not_there_are_named_at_once() {
        let case = Case::new(&SPEC.replace("out/deep", "job.yaml/out"));
        let refusal = case.resolve(&[]).unwrap_err();
        for part in
            ["4 problems", "model: found ", "data.train: found ", "data.dev: found ", "output_dir: found "]
        {
            assert!(refusal.contains(part), "{part} not in {refusal}");
        }
    }

    #[test]
    fn evaluation_needs_no_training_file_and_finds_checkpoints_by_name() {
        let case = Case::new(SPEC);
        case.put(&["d.json", "m/config.json", "out/deep/checkpoints/step-00000010/manifest.json"]);
        let checkpoint = |flag| case.resolve(&[flag]).map(|job| job.task);
        assert_eq!(checkpoint("all"), Ok(Task::Evaluate { checkpoint: Checkpoint::All }));
        assert_eq!(checkpoint("latest"), Ok(Task::Evaluate { checkpoint: Checkpoint::Latest }));
        let found = case.at("out/deep/checkpoints/step-00000010");
        assert_eq!(checkpoint("step-00000010"), Ok(Task::Evaluate { checkpoint: Checkpoint::Path(found) }));
        assert!(
            checkpoint("step-11").unwrap_err().starts_with("--checkpoint step-11: there is no such folder")
        );
    }

    #[test]
    fn a_task_needs_its_file() {
        let case = Case::new(&SPEC.replace("train: t.json, ", ""));
        assert!(case.resolve(&[]).unwrap_err().contains("data.train: found nothing"));
        let case = Case::new(&SPEC.replace(", dev: d.json", ""));
        assert!(case.resolve(&["all"]).unwrap_err().contains("data.dev: found nothing"));
    }
}
