//! Every command, flag and example.

mod bench;
mod data;
mod doctor;
mod machines;
mod models;
mod plan;
mod render;
mod spec;
mod top;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use bench::{AllReduceArgs, BenchCommand, Carrier, Owner, Rounding, StepArgs};
pub(crate) use data::{DataCommand, FeaturesFor, FeaturizeArgs, PrepareArgs, Release, StatsArgs, WindowRule};
pub(crate) use doctor::DoctorArgs;
pub(crate) use machines::{ExternalArgs, Hosts, RunArgs};
pub(crate) use models::{ConvertArgs, FetchArgs, ModelsCommand, VerifyArgs};
pub(crate) use plan::PlanArgs;
pub(crate) use render::{JobKind, KubernetesArgs, RenderCommand};
pub(crate) use spec::{RecipesCommand, SourceArgs, SpecArgs};
pub(crate) use top::TopArgs;

/// What stands under the help of the whole program.
const EXAMPLES: &str = "\
Examples:
  squadctl run job.yaml -np 2               fine-tune here, with two worker processes
  squadctl run --recipe albert-base-squad2  the replaced program's settings (squadctl recipes list)
  squadctl submit job.yaml --wait           the same on a daemon (squad-coordinator serve)
  squadctl predict --model out/model --question 'Who?' --context 'Ada wrote it.'
  squadctl explain SQ-004                   what a failure code means
  squadctl doctor job.yaml                  whether this machine has what the job needs
  squadctl plan job.yaml                    how much memory, how many steps and how long it will take

Exit codes: 0 done, 1 the job or check failed, 2 bad usage or spec, 130 interrupted.
Data goes to stdout, talk to stderr. With --output json stdout holds exactly one JSON document; events of
run, watch and submit --wait go to stderr as JSON lines. Colours: only on a terminal, and not with NO_COLOR.";

/// Fine-tunes BERT-like models on SQuAD questions with several worker processes.
#[derive(Debug, Parser)]
#[command(name = "squadctl", version, propagate_version = true, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// Shape of the answer: text, or json for exactly one JSON document on stdout.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, value_name = "FORMAT", hide_possible_values = true)]
    pub(crate) output: Format,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The shape of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// Exactly one JSON document.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a job here and wait for it: fine-tune, then evaluate
    ///
    /// Starts the workers of a job spec on this machine, shows their progress and prints the results. Relative
    /// paths in the spec, and in --set, start at the spec's folder, with --recipe at the current one. Ctrl-C asks the workers to stop; a second
    /// one does not wait for them. With --output json the job, with its results or its failure, is one JSON
    /// document on stdout at the end, and events are JSON lines on stderr.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  squadctl run job.yaml
  squadctl run job.yaml -np 4 --set train.epochs=1 --set train.learning_rate=2e-4
  squadctl run job.yaml -np 4 -H a:2,b:2                    on two machines, through Open MPI
  squadctl run --recipe electra-base-squad2 --set model=models/electra --set output_dir=out/electra
  squadctl run job.yaml --eval-only                         evaluate the newest checkpoint
  squadctl run job.yaml --eval-only --checkpoint all        every checkpoint; the best one is named
  squadctl run job.yaml --output json 2>events.jsonl >job.json"
    )]
    Run(Box<RunArgs>),
    /// Hand a job to a daemon
    ///
    /// Prints the job's identifier. Relative paths in the spec start at the daemon's root folder, with --recipe
    /// at the current one. With --wait it goes on as watch does.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  squadctl submit job.yaml
  squadctl submit job.yaml --wait --set name=second-try
  squadctl submit job.yaml --priority 10                     before those that wait with a lower one
  squadctl submit --recipe bert-base-uncased-squad2
  squadctl submit job.yaml --external --ticket-file ticket   for workers that Slurm or Kubernetes places
  squadctl submit job.yaml --server http://gpu-box:7311"
    )]
    Submit {
        /// The job.
        #[command(flatten)]
        spec: SpecArgs,
        /// Who places the workers.
        #[command(flatten)]
        external: ExternalArgs,
        /// Its priority among the jobs that wait, -100 to 100: the greatest is first [default: that of the spec, or 0].
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        priority: Option<i32>,
        /// Watch the job to its end.
        #[arg(long)]
        wait: bool,
        /// Where.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List the jobs of a daemon
    #[command(after_help = "Examples:\n  squadctl list\n  squadctl list --output json | jq -r '.[].id'")]
    List {
        /// Where.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show the jobs of a daemon as they change, on a terminal
    ///
    /// State, priority, slots, speed, loss and remaining time of each job, and what it waits for. Arrows choose a job, Enter
    /// shows its ranks, c cancels it after a question, q leaves. --once prints one picture as text, for which no
    /// terminal is needed; --output json prints what list gives.
    #[command(
        verbatim_doc_comment,
        after_help = "Examples:\n  squadctl top\n  squadctl top --once --server http://gpu-box:7311"
    )]
    Top(TopArgs),
    /// Show one job
    #[command(after_help = "Examples:\n  squadctl get quickstart-7f3a9c\n  squadctl get quick --output json")]
    Get {
        /// Which.
        #[command(flatten)]
        job: JobArgs,
    },
    /// Follow a job to its end
    ///
    /// Shows all that happened so far, then progress as it comes, then the results. Ctrl-C ends the watching,
    /// not the job. With --output json the job is one JSON document on stdout at the end, and events are JSON
    /// lines on stderr.
    #[command(
        verbatim_doc_comment,
        after_help = "Examples:\n  squadctl watch quickstart-7f3a9c\n  squadctl watch quick --output json"
    )]
    Watch {
        /// Which.
        #[command(flatten)]
        job: JobArgs,
    },
    /// Print what a job's workers wrote
    #[command(after_help = "\
Examples:
  squadctl logs quick --tail 20
  squadctl logs quick --rank 1 --follow")]
    Logs {
        /// Which.
        #[command(flatten)]
        job: JobArgs,
        /// Only this rank's lines.
        #[arg(long, value_name = "N")]
        rank: Option<u32>,
        /// Go on with new lines until the job has ended.
        #[arg(long, short)]
        follow: bool,
        /// Only the last lines of each rank.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        tail: Option<u32>,
    },
    /// Ask a job to stop
    #[command(after_help = "Examples:\n  squadctl cancel quick\n  squadctl cancel quick --wait")]
    Cancel {
        /// Which.
        #[command(flatten)]
        job: JobArgs,
        /// Wait until its workers are gone.
        #[arg(long)]
        wait: bool,
    },
    /// Explain a failure code
    #[command(after_help = "Examples:\n  squadctl explain SQ-004\n  squadctl explain all > docs/codes.md")]
    Explain {
        /// The code, such as SQ-004; or all, for every one of them.
        #[arg(value_name = "CODE")]
        code: String,
    },
    /// Score predictions with SQuAD's official metric
    ///
    /// Keys and figures are the official script's; stdout holds them as JSON in either output format. --curves
    /// adds pr_exact_ap, pr_f1_ap and pr_oracle_ap, and draws the official plots as SVG: pr_exact, pr_f1, pr_oracle,
    /// na_prob_hist_HasAns and na_prob_hist_NoAns. Questions without a probability are in no plot; probabilities
    /// of questions that are not in the data are passed over.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  squadctl evaluate --data dev-v1.1.json --predictions out/eval/predictions.json
  squadctl evaluate --data dev-v2.0.json --predictions p.json --na-prob na_prob.json --na-prob-thresh 0.5
  squadctl evaluate --data dev-v2.0.json --predictions p.json --na-prob na_prob.json --curves plots"
    )]
    Evaluate(EvaluateArgs),
    /// Ask a fine-tuned model one question
    ///
    /// Runs squad-worker, whose answer and exit code are passed on.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  squadctl predict --model out/model --question 'Who wrote it?' --context 'Ada wrote it in 1843.'
  squadctl predict --model out/model --question 'Who wrote it?' --context-file page.txt --output json"
    )]
    Predict(PredictArgs),
    /// Write the manifest of a job for what places its workers
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  squadctl render kubernetes job.yaml --image registry.example/squad-worker:0.1.0 | kubectl apply -f -"
    )]
    Render {
        /// For which system.
        #[command(subcommand)]
        command: RenderCommand,
    },
    /// List models, bring them from a model hub, convert and check them
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  squadctl models list
  squadctl models fetch google_albert_base_v2 --dir models/albert
  squadctl models fetch sentence-transformers/all-MiniLM-L6-v2 --dir models/minilm"
    )]
    Models {
        /// What to do with models.
        #[command(subcommand)]
        command: ModelsCommand,
    },
    /// Job specs that are part of this program: the replaced program's settings for each model
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  squadctl recipes list
  squadctl recipes show mobilebert-squad2 > job.yaml
  squadctl run --recipe mobilebert-squad2 -np 2"
    )]
    Recipes {
        /// What to do with recipes.
        #[command(subcommand)]
        command: RecipesCommand,
    },
    /// Bring SQuAD's question files, and look at question files
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  squadctl data prepare --version 2.0 --dir squad
  squadctl data stats --data squad/train-v2.0.json
  squadctl data baseline --data squad/dev-v1.1.json"
    )]
    Data {
        /// What to do with question files.
        #[command(subcommand)]
        command: DataCommand,
    },
    /// Measure this machine
    #[command(
        arg_required_else_help = true,
        after_help = "\
Examples:
  squadctl bench allreduce --np 2 --sizes 4KiB..64MiB
  squadctl bench step --model google_en_uncased_bert_base --batch 8 --seq 384"
    )]
    Bench {
        /// What to measure.
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// Tell what a job will need: parameters, memory, bytes, steps, time
    ///
    /// Nothing is fetched and nothing written. Files that are not here make the plan say less: without the training file or
    /// the tokenizer it tells no steps and no padding, and a name of squadctl models list does for the model. One worker
    /// process takes a few real steps for the times, on random weights, which takes up to a minute or so.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  squadctl plan job.yaml
  squadctl plan job.yaml -np 4 --set train.recompute=true --no-probe
  squadctl plan --recipe bert-large-uncased-squad2 --no-probe
  squadctl plan job.yaml --output json | jq .memory.worker"
    )]
    Plan(PlanArgs),
    /// Look for what would keep a run from working on this machine
    ///
    /// Each thing that is looked at is ok, to look at (warning) or BAD, with what to do about it; then come all the
    /// waits of a job, derived from its patience. The exit code is 1 when something is bad.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  squadctl doctor
  squadctl doctor job.yaml -np 4
  squadctl doctor --patience 300 --output json | jq .deadlines"
    )]
    Doctor(DoctorArgs),
    /// Print the JSON Schema of job specs
    #[command(after_help = "\
Examples:
  squadctl schema > job.schema.json
  squadctl schema --markdown > docs/spec.md")]
    Schema {
        /// As a page for people: every field, what it takes, its default and its meaning.
        #[arg(long)]
        markdown: bool,
    },
    /// Write this program's manual pages into a folder
    #[command(after_help = "\
Examples:
  squadctl man ~/.local/share/man/man1        then: man squadctl-run")]
    Man {
        /// Where; it is made if it is not there.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Print a completion script for a shell
    #[command(after_help = "\
Examples:
  squadctl completions bash > ~/.local/share/bash-completion/completions/squadctl
  squadctl completions zsh > ~/.zfunc/_squadctl")]
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// Which daemon, and how it is reached. A token is in SQUADCTL_TOKEN or in a file, never among the arguments, which
/// everybody on a machine can read.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServerArgs {
    /// The daemon's address: http://HOST:PORT, or https://HOST:PORT.
    #[arg(long, env = "SQUADCTL_SERVER", default_value = "http://127.0.0.1:7311", value_name = "URL")]
    pub(crate) server: String,
    /// Certificates (PEM) of those who vouch for an https daemon [default: those of the system].
    #[arg(long, env = "SQUADCTL_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Your own certificate (PEM), where the daemon asks for one.
    #[arg(long, env = "SQUADCTL_CERT", value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Its key (PEM), which only you may be able to read.
    #[arg(long, env = "SQUADCTL_KEY", value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// A file with your token, which only you may be able to read; SQUADCTL_TOKEN holds the token itself.
    #[arg(long, env = "SQUADCTL_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// Which job of which daemon.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// The job's identifier, or the beginning of one if it is the only such job.
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// Where.
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// The files of the official metric.
#[derive(Debug, Args)]
pub(crate) struct EvaluateArgs {
    /// Questions and answers in SQuAD's JSON format, version 1.1 or 2.0.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// Predictions: one JSON object, question id to text.
    #[arg(long, value_name = "FILE")]
    pub(crate) predictions: PathBuf,
    /// Probabilities that there is no answer: one JSON object, question id to number.
    #[arg(long, value_name = "FILE")]
    pub(crate) na_prob: Option<PathBuf>,
    /// Questions with a higher probability count as unanswered.
    #[arg(long, value_name = "T", default_value_t = 1.0, requires = "na_prob")]
    pub(crate) na_prob_thresh: f64,
    /// Draw precision-recall curves and histograms of the probabilities into this folder.
    #[arg(long, value_name = "DIR", requires = "na_prob")]
    pub(crate) curves: Option<PathBuf>,
}

/// A question to a model.
#[derive(Debug, Args)]
pub(crate) struct PredictArgs {
    /// A fine-tuned model's folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// The question.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) question: String,
    /// The text that may hold the answer.
    #[arg(
        long,
        value_name = "TEXT",
        required_unless_present = "context_file",
        conflicts_with = "context_file"
    )]
    pub(crate) context: Option<String>,
    /// A file with that text.
    #[arg(long, value_name = "FILE")]
    pub(crate) context_file: Option<PathBuf>,
    /// How many answers to list [default: 3].
    #[arg(long, value_name = "N")]
    pub(crate) n_best: Option<usize>,
    /// Answer "no answer" where that is more probable than this.
    #[arg(long, value_name = "PROBABILITY")]
    pub(crate) null_threshold: Option<f64>,
}

#[cfg(test)]
#[path = "../../../tests/src/usage.rs"]
mod usage;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_command_that_pages_and_examples_show_is_understood() {
        let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let translate = |words: Vec<String>| {
            let words = crate::argv::translate(words.into_iter().map(Into::into));
            words.into_iter().map(|word| word.into_string().unwrap()).collect()
        };
        let (seen, wrong) = usage::misunderstood(&repository, &Cli::command(), translate);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(seen > 100, "only {seen} commands were found");
    }

    #[test]
    fn a_command_that_is_not_understood_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let page =
            "`squadctl run --np`\n`squadctl fly`\n```\nsquadctl run\nsquadctl list --output json\n```\n";
        std::fs::write(folder.path().join("PAGE.md"), page).unwrap();
        let (_, wrong) = usage::misunderstood(folder.path(), &Cli::command(), |words| words);
        let lines: Vec<&str> =
            wrong.iter().filter_map(|line| line.split_once("PAGE.md:")?.1.split(':').next()).collect();
        assert_eq!(lines, ["4", "2"], "{wrong:?}");
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        fn check(command: &clap::Command, name: &str) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:") && help.contains(name), "{name}: {help}");
            for command in command.get_subcommands() {
                check(command, &format!("{name} {}", command.get_name()));
            }
        }
        check(&Cli::command(), "squadctl");
    }

    #[test]
    fn a_job_is_a_spec_or_a_recipe() {
        let parsed = |words: &[&str]| Cli::try_parse_from([&["squadctl"], words].concat());
        for command in ["run", "submit"] {
            assert!(
                parsed(&[command, "a.yaml"]).is_ok()
                    && parsed(&[command, "--recipe", "mobilebert-squad2"]).is_ok()
            );
            assert!(parsed(&[command]).is_err());
            assert!(parsed(&[command, "a.yaml", "--recipe", "mobilebert-squad2"]).is_err());
        }
    }

    #[test]
    fn checkpoint_needs_eval_only() {
        assert!(Cli::try_parse_from(["squadctl", "run", "a.yaml", "--checkpoint", "all"]).is_err());
        assert!(
            Cli::try_parse_from(["squadctl", "run", "a.yaml", "--eval-only", "--checkpoint", "all"]).is_ok()
        );
    }
}
