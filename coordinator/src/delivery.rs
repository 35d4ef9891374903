//! Results that come from a machine whose output folder this one does not see.
//!
//! They are gathered in a hidden folder of the job's output folder, and moved to their places once all are there.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use squad_proto::JobId;
use squad_proto::outputs::{self, OWNER, deliverable, is_of_model, mark_name};

/// Of what is offered, what is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Names, in the order in which they are to come.
    pub(crate) wanted: Vec<String>,
    /// Why the rest is not.
    pub(crate) reason: String,
}

/// Chooses among offered files of these sizes, of which at most `most` bytes are taken. The model is taken whole or not
/// at all, and gives way to the results.
pub(crate) fn choose(offered: &[(String, u64)], most: u64) -> Choice {
    let known = deliverable();
    let size = |name: &String| offered.iter().find(|(other, _)| other == name).map(|(_, bytes)| *bytes);
    let (model, results): (Vec<_>, Vec<_>) = known
        .into_iter()
        .filter_map(|name| Some((size(&name)?, name)))
        .partition(|(_, name)| is_of_model(name));
    let total =
        |files: &[(u64, String)]| files.iter().fold(0_u64, |sum, (bytes, _)| sum.saturating_add(*bytes));
    let (of_model, of_results) = (total(&model), total(&results));
    let names = |files: Vec<(u64, String)>| files.into_iter().map(|(_, name)| name).collect::<Vec<_>>();
    if of_results > most {
        let reason = format!("the results have {of_results} bytes, and {most} are taken (--max-results)");
        return Choice { wanted: Vec::new(), reason };
    }
    if of_model > most - of_results {
        let reason = format!(
            "the model has {of_model} bytes, and {} are taken besides the results (--max-results)",
            most - of_results
        );
        return Choice { wanted: names(results), reason };
    }
    Choice { wanted: names(model).into_iter().chain(names(results)).collect(), reason: String::new() }
}

/// Where a job's results come in.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    output: PathBuf,
    job: JobId,
    /// Holds what has come.
    staging: PathBuf,
}

impl Delivery {
    /// Into this output folder.
    pub(crate) fn of(output: &Path, job: &JobId) -> Self {
        let staging = output.join(format!(".delivery-{job}"));
        Self { output: output.to_owned(), job: job.clone(), staging }
    }

    /// Where they come in, for people.
    pub(crate) fn folder(&self) -> std::path::Display<'_> {
        self.output.display()
    }

    /// Whether the output folder holds the mark that a worker left in its own.
    pub(crate) fn sees(&self, mark: &str) -> bool {
        let found = mark_name(mark).and_then(|name| fs::read(self.output.join(name)).ok());
        found.is_some_and(|found| found == mark.as_bytes())
    }

    /// Makes an empty place for what is to come.
    pub(crate) fn begin(&self) -> io::Result<()> {
        fs::create_dir_all(&self.output)?;
        match fs::remove_dir_all(&self.staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&self.staging)
    }

    /// A new file for a name of the fixed list, and how many bytes other files have that came before it.
    pub(crate) fn create(&self, name: &str) -> io::Result<(File, u64)> {
        if !deliverable().iter().any(|known| known == name) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name:?} is no file of results"),
            ));
        }
        let path = self.staging.join(name);
        if let Some(folder) = path.parent().filter(|folder| *folder != self.staging && !folder.exists()) {
            fs::create_dir(folder)?;
        }
        let before = size(&self.staging)?;
        Ok((File::create_new(path)?, before))
    }

    /// Puts all that has come into its place. A training run's takes that of an earlier run, which goes to `earlier/N`.
    /// Gives the names of what was brought.
    pub(crate) fn install(&self, trained: bool) -> io::Result<Vec<String>> {
        let owner = self.output.join(OWNER);
        if trained && fs::read(&owner).map_or(true, |owner| owner != self.job.as_str().as_bytes()) {
            outputs::move_earlier_aside(&self.output)
                .map_err(|error| io::Error::new(error.cause.kind(), error.to_string()))?;
            fs::write(&owner, self.job.as_str())?;
        }
        let mut brought = Vec::new();
        for entry in fs::read_dir(&self.staging)? {
            brought.push(entry?.file_name().to_string_lossy().into_owned());
        }
        // Last: who sees results.json may rely on everything else.
        brought.sort_by_key(|name| (name == "results.json", name.clone()));
        for name in &brought {
            self.replace(name)?;
        }
        fs::remove_dir(&self.staging)?;
        File::open(&self.output)?.sync_all()?;
        Ok(brought)
    }

    fn replace(&self, name: &str) -> io::Result<()> {
        let (from, to) = (self.staging.join(name), self.output.join(name));
        if !to.is_dir() {
            return fs::rename(from, to);
        }
        let old = self.output.join(format!(".{name}.old"));
        if old.exists() {
            fs::remove_dir_all(&old)?;
        }
        fs::rename(&to, &old)?;
        fs::rename(from, to)?;
        fs::remove_dir_all(old)
    }
}

/// Bytes of all files in a folder and its folders.
fn size(folder: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        sum += if about.is_dir() { size(&entry.path())? } else { about.len() };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn offered(files: &[(&str, u64)]) -> Vec<(String, u64)> {
        files.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect()
    }

    #[test]
    fn only_known_files_are_wanted_and_the_model_gives_way() {
        let all = offered(&[
            ("results.json", 10),
            ("../x", 1),
            ("model/model.safetensors", 100),
            ("model/../../x", 1),
            ("eval/predictions.json", 20),
            ("checkpoints/step-1/state.json", 1),
        ]);
        let whole = choose(&all, 130);
        assert_eq!(whole.wanted, ["model/model.safetensors", "eval/predictions.json", "results.json"]);
        assert_eq!(whole.reason, "");
        let small = choose(&all, 129);
        assert_eq!(small.wanted, ["eval/predictions.json", "results.json"]);
        assert_eq!(
            small.reason,
            "the model has 100 bytes, and 99 are taken besides the results (--max-results)"
        );
        let none = choose(&all, 29);
        assert!(none.wanted.is_empty() && none.reason.contains("30 bytes, and 29"), "{none:?}");
        let huge = offered(&[("model/config.json", u64::MAX), ("model/model.safetensors", u64::MAX)]);
        assert!(choose(&huge, 1 << 40).wanted.is_empty());
    }

    fn bring(delivery: &Delivery, name: &str, text: &str) {
        delivery.create(name).unwrap().0.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn what_has_come_appears_at_once_and_an_earlier_run_moves_aside() {
        let place = tempfile::tempdir().unwrap();
        let output = place.path().join("out");
        fs::create_dir_all(output.join("model")).unwrap();
        fs::write(output.join("model/old"), "").unwrap();
        let delivery = Delivery::of(&output, &JobId("a-1".into()));
        delivery.begin().unwrap();
        bring(&delivery, "results.json", "1");
        bring(&delivery, "eval/predictions.json", "2");
        assert_eq!(delivery.create("model/config.json").unwrap().1, 2);
        assert!(!output.join("results.json").exists());
        assert_eq!(delivery.install(true).unwrap(), ["eval", "model", "results.json"]);
        assert_eq!(fs::read_to_string(output.join("results.json")).unwrap(), "1");
        assert!(output.join("earlier/1/model/old").exists() && !output.join("model/old").exists());

        // Once more by the same job, whose first answer was lost: nothing moves aside.
        delivery.begin().unwrap();
        bring(&delivery, "results.json", "3");
        bring(&delivery, "eval/predictions.json", "4");
        delivery.install(true).unwrap();
        assert_eq!(fs::read_to_string(output.join("eval/predictions.json")).unwrap(), "4");
        assert!(!output.join("earlier/2").exists());
        // What an evaluation brings takes the place of its own kind only.
        let delivery = Delivery::of(&output, &JobId("a-2".into()));
        delivery.begin().unwrap();
        bring(&delivery, "eval/results.json", "5");
        delivery.install(false).unwrap();
        assert!(output.join("model/config.json").exists() && output.join("results.json").exists());
    }

    #[test]
    fn a_name_leads_nowhere_else_nor_does_a_link() {
        let place = tempfile::tempdir().unwrap();
        let output = place.path().join("out");
        let delivery = Delivery::of(&output, &JobId("a-1".into()));
        delivery.begin().unwrap();
        for name in ["", "../x", "/etc/passwd", "eval", "eval/../../x", "model/unknown", "checkpoints/x"] {
            assert!(delivery.create(name).is_err(), "{name}");
        }
        let elsewhere = place.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(elsewhere.join("file"), delivery.staging.join("results.json")).unwrap();
        assert!(delivery.create("results.json").is_err(), "what is there is not written through");
        // Nor is a link in the place of what is replaced: it goes itself.
        fs::remove_file(delivery.staging.join("results.json")).unwrap();
        std::os::unix::fs::symlink(elsewhere.join("file"), output.join("train.log")).unwrap();
        bring(&delivery, "train.log", "words");
        delivery.install(false).unwrap();
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(output.join("train.log")).unwrap(), "words");
    }
}
