//! Manifests of a job for systems that place its workers.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::SourceArgs;
use crate::kubernetes::{Label, Quantity};

/// The systems.
#[derive(Debug, Subcommand)]
pub(crate) enum RenderCommand {
    /// Write the Kubernetes manifest of a job's workers
    ///
    /// The manifest starts `squad-worker join` in as many pods as the job needs, for a coordinator that runs in the
    /// cluster already (deploy/kubernetes). Its pods wait for a Secret with the ticket of the job, which `squadctl submit
    /// --external` gives; docs/kubernetes.md has all steps. With --output json it is one List.
    #[command(
        verbatim_doc_comment,
        after_help = "\
Examples:
  squadctl render kubernetes job.yaml --image registry.example/squad-worker:0.1.0 | kubectl apply -f -
  squadctl render kubernetes job.yaml --image squad-worker:0.1.0 -np 8 --slots 4 --file job-pods.yaml
  squadctl render kubernetes job.yaml --image squad-worker-cuda:0.1.0 --gpu --threads 8 --memory 24Gi
  squadctl render kubernetes job.yaml --image squad-worker:0.1.0 --kind jobset"
    )]
    Kubernetes(Box<KubernetesArgs>),
}

/// What the pods of a job are like.
#[derive(Debug, Args)]
pub(crate) struct KubernetesArgs {
    /// The job, as it was or will be submitted.
    #[command(flatten)]
    pub(crate) job: SourceArgs,
    /// An Indexed Job, which every cluster knows, or a JobSet, which takes the JobSet controller.
    #[arg(long, value_enum, default_value_t = JobKind::Job)]
    pub(crate) kind: JobKind,
    /// Image with squad-worker.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: String,
    /// Name of all objects of this job [default: that of the spec].
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<Label>,
    /// Namespace.
    #[arg(long, value_name = "NAME", default_value = "squad")]
    pub(crate) namespace: Label,
    /// Secret whose key `ticket` is the job's ticket [default: NAME-ticket].
    #[arg(long, value_name = "NAME")]
    pub(crate) ticket_secret: Option<Label>,
    /// Claim of the volume that has the coordinator's --root.
    #[arg(long, value_name = "NAME", default_value = "squad-data")]
    pub(crate) claim: Label,
    /// Where the volume is mounted: the coordinator's --root.
    #[arg(long, value_name = "FOLDER", default_value = "/data")]
    pub(crate) mount: String,
    /// User and group that workers run as, by number; files on the volume belong to them.
    #[arg(long, value_name = "ID", default_value_t = 10001, value_parser = clap::value_parser!(i64).range(1..=i64::from(i32::MAX)))]
    pub(crate) user: i64,
    /// Workers in each pod; must divide their number.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) slots: u32,
    /// One GPU for each worker [default: where the spec says device: cuda].
    #[arg(long)]
    pub(crate) gpu: bool,
    /// What the cluster calls a GPU.
    #[arg(long, value_name = "RESOURCE", default_value = "nvidia.com/gpu")]
    pub(crate) gpu_resource: String,
    /// Threads of each worker, and cores that are asked for.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: u32,
    /// Memory of each worker.
    #[arg(long, value_name = "QUANTITY", default_value = "8Gi")]
    pub(crate) memory: Quantity,
    /// Size of each pod's /dev/shm, which is part of its memory.
    #[arg(long, value_name = "QUANTITY", default_value = "1Gi")]
    pub(crate) shared_memory: Quantity,
    /// Where the manifest is written [default: standard output].
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// What watches over the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum JobKind {
    /// A Job whose pods are numbered.
    Job,
    /// A JobSet of one such Job.
    Jobset,
}
