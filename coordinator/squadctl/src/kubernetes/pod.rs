//! The pod of some of a job's workers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, KeyToPath, PersistentVolumeClaimVolumeSource,
    PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile, SecretVolumeSource,
    SecurityContext, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::gang::{Gang, WAIT_S};

/// Name of the container.
const CONTAINER: &str = "worker";
/// Folder of the ticket.
const SECRET_FOLDER: &str = "/etc/squad";
/// Key of the Secret, and name of the file.
const TICKET: &str = "ticket";
/// Where programs may write; nothing in it outlives the pod.
const SCRATCH: &str = "/tmp";

impl Gang {
    /// What every object of the job is labelled with.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let pairs = [
            ("app.kubernetes.io/name", "squad-worker"),
            ("app.kubernetes.io/instance", &self.name),
            ("app.kubernetes.io/part-of", "squadron"),
        ];
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    /// The pod. `subdomain` gives it a name of its own in the cluster, with a headless Service of that name.
    pub(super) fn pod(&self, subdomain: Option<&str>) -> PodTemplateSpec {
        let metadata = ObjectMeta { labels: Some(self.labels()), ..ObjectMeta::default() };
        let tolerations = self.gpu.as_ref().map(|resource| {
            vec![Toleration {
                key: Some(resource.clone()),
                operator: Some("Exists".into()),
                effect: Some("NoSchedule".into()),
                ..Toleration::default()
            }]
        });
        let spec = PodSpec {
            // A container that ends before the job has is started again, on its node.
            restart_policy: Some("OnFailure".into()),
            subdomain: subdomain.map(str::to_owned),
            // Nothing here asks Kubernetes anything.
            automount_service_account_token: Some(false),
            // Else the cluster's Services would become variables, which could be taken for Squadron's.
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(self.grace_s),
            tolerations,
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(self.user),
                run_as_group: Some(self.user),
                // The ticket becomes readable for this group, which only the worker is in.
                fs_group: Some(self.user),
                fs_group_change_policy: Some("OnRootMismatch".into()),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            containers: vec![self.container()],
            volumes: Some(self.volumes()),
            ..PodSpec::default()
        };
        PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) }
    }

    fn container(&self) -> Container {
        let mut amounts = BTreeMap::from([
            ("cpu".to_owned(), Amount((self.threads * self.slots).to_string())),
            ("memory".to_owned(), Amount(self.memory.to_string())),
        ]);
        if let Some(resource) = &self.gpu {
            amounts.insert(resource.clone(), Amount(self.slots.to_string()));
        }
        let numbers = [
            ("--world", self.world),
            ("--slots", self.slots),
            ("--threads", self.threads),
            ("--wait", WAIT_S),
        ];
        let mut args = vec!["--ticket".to_owned(), format!("{SECRET_FOLDER}/{TICKET}")];
        args.extend(numbers.into_iter().flat_map(|(flag, number)| [flag.to_owned(), number.to_string()]));
        let mount = |name: &str, path: &str, read_only: Option<bool>| VolumeMount {
            name: name.into(),
            mount_path: path.into(),
            read_only,
            ..VolumeMount::default()
        };
        Container {
            name: CONTAINER.into(),
            image: Some(self.image.clone()),
            command: Some(vec!["squad-worker".into(), "join".into()]),
            args: Some(args),
            env: Some(vec![EnvVar {
                name: "XDG_CACHE_HOME".into(),
                value: Some(format!("{SCRATCH}/cache")),
                value_from: None,
            }]),
            // Requests and limits are the same, so that the pod is the last one that its node puts out.
            resources: Some(ResourceRequirements {
                requests: Some(amounts.clone()),
                limits: Some(amounts),
                ..ResourceRequirements::default()
            }),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                read_only_root_filesystem: Some(true),
                capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
                ..SecurityContext::default()
            }),
            volume_mounts: Some(vec![
                mount("ticket", SECRET_FOLDER, Some(true)),
                mount("data", &self.mount, None),
                mount("scratch", SCRATCH, None),
                mount("shared-memory", "/dev/shm", None),
            ]),
            ..Container::default()
        }
    }

    fn volumes(&self) -> Vec<Volume> {
        let of = |name: &str| Volume { name: name.into(), ..Volume::default() };
        let ticket = SecretVolumeSource {
            secret_name: Some(self.ticket_secret.clone()),
            // With fsGroup it becomes 0440: root's, readable for the worker's group, for nobody else.
            default_mode: Some(0o400),
            items: Some(vec![KeyToPath { key: TICKET.into(), path: TICKET.into(), mode: None }]),
            optional: None,
        };
        let data = PersistentVolumeClaimVolumeSource { claim_name: self.claim.clone(), read_only: None };
        let memory = EmptyDirVolumeSource {
            medium: Some("Memory".into()),
            size_limit: Some(Amount(self.shared_memory.to_string())),
        };
        vec![
            Volume { secret: Some(ticket), ..of("ticket") },
            Volume { persistent_volume_claim: Some(data), ..of("data") },
            Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..of("scratch") },
            Volume { empty_dir: Some(memory), ..of("shared-memory") },
        ]
    }
}
