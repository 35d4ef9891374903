//! How many pods a job has, and what each of them gets.

use squad_proto::JobSpec;
use squad_proto::spec::DeviceKind;

use super::{Label, Quantity};
use crate::cli::{JobKind, KubernetesArgs};
use crate::fault::BadUsage;

/// How long a pod waits for the coordinator's first answer before it counts as failed, in seconds.
pub(super) const WAIT_S: u32 = 600;
/// Seconds that a pod has beyond the time in which its workers leave a checkpoint and end.
const MARGIN_S: f64 = 15.0;

/// A job's pods: all numbers and names are worked out, nothing of Kubernetes is in it.
#[derive(Clone, Debug)]
pub(crate) struct Gang {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) ticket_secret: String,
    pub(super) claim: String,
    pub(super) mount: String,
    pub(super) kind: JobKind,
    pub(super) image: String,
    pub(super) user: i64,
    pub(super) world: u32,
    pub(super) slots: u32,
    pub(super) threads: u32,
    pub(super) memory: Quantity,
    pub(super) shared_memory: Quantity,
    /// What a GPU is called, where each worker gets one.
    pub(super) gpu: Option<String>,
    /// Ends of pods after which Kubernetes gives the job up.
    pub(super) backoff_limit: u32,
    /// From a pod's SIGTERM to its SIGKILL.
    pub(super) grace_s: i64,
}

impl Gang {
    /// Works out the pods of a job.
    ///
    /// # Errors
    /// When spec and flags contradict each other.
    pub(crate) fn of(spec: &JobSpec, args: &KubernetesArgs) -> Result<Self, BadUsage> {
        let (world, slots) = (args.job.processes.unwrap_or(spec.resources.workers), args.slots);
        if world % slots != 0 {
            return Err(BadUsage(format!(
                "{world} workers do not fill pods of {slots}: choose --slots so that it divides them, or another -np"
            )));
        }
        let name = match &args.name {
            Some(name) => name.clone(),
            None => {
                spec.name.parse::<Label>().map_err(|why| BadUsage(format!("name: {why}; say --name NAME")))?
            }
        };
        let secret = args.ticket_secret.as_ref().map_or_else(|| format!("{name}-ticket"), Label::to_string);
        let too_much = || BadUsage(format!("{slots} times {} is more than any machine has", args.memory));
        let pods = world / slots;
        Ok(Self {
            ticket_secret: secret,
            name: name.to_string(),
            namespace: args.namespace.to_string(),
            claim: args.claim.to_string(),
            mount: mount(&args.mount)?,
            kind: args.kind,
            image: image(&args.image)?,
            user: args.user,
            world,
            slots,
            threads: args.threads,
            memory: args.memory.times(slots).ok_or_else(too_much)?,
            shared_memory: args.shared_memory,
            gpu: gpu(spec, args)?,
            // Each restart of the gang may have cost a pod; and all may end twice while the coordinator is away.
            backoff_limit: spec.fault.max_restarts + 2 * pods,
            grace_s: (spec.fault.patience_s + MARGIN_S).ceil() as i64,
        })
    }

    /// How many pods there are.
    pub(super) fn pods(&self) -> u32 {
        self.world / self.slots
    }
}

/// Whether workers get GPUs, and what those are called.
fn gpu(spec: &JobSpec, args: &KubernetesArgs) -> Result<Option<String>, BadUsage> {
    let device = spec.resources.device;
    if args.gpu && device == DeviceKind::Cpu {
        return Err(BadUsage("--gpu: the spec says resources.device: cpu; leave out one of the two".into()));
    }
    if !args.gpu && device != DeviceKind::Cuda {
        return Ok(None);
    }
    let beyond = spec.resources.gpus.iter().flatten().find(|gpu| **gpu >= args.slots);
    if let Some(beyond) = beyond {
        return Err(BadUsage(format!(
            "resources.gpus names GPU {beyond}, but a pod of {} has GPUs 0 to {}; leave resources.gpus out",
            args.slots,
            args.slots - 1
        )));
    }
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
    if args.gpu_resource.is_empty() || !args.gpu_resource.chars().all(known) {
        let found = &args.gpu_resource;
        return Err(BadUsage(format!("--gpu-resource {found:?}: write it as in nvidia.com/gpu")));
    }
    Ok(Some(args.gpu_resource.clone()))
}

fn image(text: &str) -> Result<String, BadUsage> {
    let blank = text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control());
    if blank {
        Err(BadUsage(format!("--image {text:?} is no name of an image")))
    } else {
        Ok(text.to_owned())
    }
}

fn mount(text: &str) -> Result<String, BadUsage> {
    let path = std::path::Path::new(text);
    let whole = path.is_absolute() && path.components().count() > 1 && !text.contains(':');
    let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
    if whole && !climbs {
        return Ok(text.to_owned());
    }
    Err(BadUsage(format!("--mount {text:?}: write the whole path of a folder, such as /data")))
}
