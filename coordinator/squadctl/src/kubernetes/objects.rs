//! What stands around the pods, and the manifest of all.

use anyhow::Context;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobTemplateSpec};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Serialize;
use serde_json::{Value, json};

use super::gang::Gang;
use crate::cli::JobKind;

/// How long an ended Job is kept for those who look, in seconds: a day. Logs and results are with the coordinator.
const KEPT_S: i32 = 24 * 3600;

/// A JobSet as its version v1alpha2 has it: what is not written here keeps its default.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JobSet {
    api_version: &'static str,
    kind: &'static str,
    metadata: ObjectMeta,
    spec: JobSetSpec,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JobSetSpec {
    network: Network,
    failure_policy: FailurePolicy,
    ttl_seconds_after_finished: i32,
    replicated_jobs: Vec<ReplicatedJob>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Network {
    #[serde(rename = "enableDNSHostnames")]
    enable_dns_host_names: bool,
    subdomain: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FailurePolicy {
    max_restarts: u32,
}

#[derive(Serialize)]
struct ReplicatedJob {
    name: &'static str,
    replicas: u32,
    template: JobTemplateSpec,
}

/// The objects of a job, in the order in which they are made.
pub(crate) struct Manifest(Vec<Value>);

impl Manifest {
    /// The objects of a gang of pods.
    ///
    /// # Errors
    /// When one cannot be written.
    pub(crate) fn of(gang: &Gang) -> anyhow::Result<Self> {
        let policy = value(&network_policy(gang))?;
        Ok(Self(match gang.kind {
            JobKind::Job => vec![policy, value(&headless_service(gang))?, value(&indexed_job(gang))?],
            // Its controller makes the Service.
            JobKind::Jobset => vec![policy, value(&job_set(gang))?],
        }))
    }

    /// All objects as YAML documents.
    ///
    /// # Errors
    /// When one cannot be written.
    pub(crate) fn yaml(&self) -> anyhow::Result<String> {
        let documents: Result<Vec<String>, _> = self.0.iter().map(serde_norway::to_string).collect();
        Ok(documents.context("cannot write the manifest as YAML")?.join("---\n"))
    }

    /// All objects as one.
    pub(crate) fn list(&self) -> Value {
        json!({"apiVersion": "v1", "kind": "List", "items": self.0})
    }
}

fn value(object: &impl Serialize) -> anyhow::Result<Value> {
    serde_json::to_value(object).context("cannot write the manifest")
}

fn metadata(gang: &Gang) -> ObjectMeta {
    ObjectMeta {
        name: Some(gang.name.clone()),
        namespace: Some(gang.namespace.clone()),
        labels: Some(gang.labels()),
        ..ObjectMeta::default()
    }
}

fn selector(gang: &Gang) -> LabelSelector {
    LabelSelector { match_labels: Some(gang.labels()), match_expressions: None }
}

/// The pods of a job speak with each other; nobody else has anything to say to them.
fn network_policy(gang: &Gang) -> NetworkPolicy {
    let peer = NetworkPolicyPeer { pod_selector: Some(selector(gang)), ..NetworkPolicyPeer::default() };
    NetworkPolicy {
        metadata: metadata(gang),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(gang)),
            policy_types: Some(vec!["Ingress".into()]),
            // No port is named: a worker listens on whichever is free.
            ingress: Some(vec![NetworkPolicyIngressRule { from: Some(vec![peer]), ports: None }]),
            egress: None,
        }),
    }
}

/// Gives each pod a name in the cluster, as soon as it has an address.
fn headless_service(gang: &Gang) -> Service {
    Service {
        metadata: metadata(gang),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            publish_not_ready_addresses: Some(true),
            selector: Some(gang.labels()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn job_spec(gang: &Gang, subdomain: Option<&str>) -> JobSpec {
    let pods = Some(gang.pods() as i32);
    JobSpec {
        completion_mode: Some("Indexed".into()),
        completions: pods,
        parallelism: pods,
        backoff_limit: Some(gang.backoff_limit as i32),
        template: gang.pod(subdomain),
        ..JobSpec::default()
    }
}

fn indexed_job(gang: &Gang) -> Job {
    let spec = JobSpec { ttl_seconds_after_finished: Some(KEPT_S), ..job_spec(gang, Some(&gang.name)) };
    Job { metadata: metadata(gang), spec: Some(spec), status: None }
}

fn job_set(gang: &Gang) -> JobSet {
    let template = JobTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(gang.labels()), ..ObjectMeta::default() }),
        spec: Some(job_spec(gang, None)),
    };
    JobSet {
        api_version: "jobset.x-k8s.io/v1alpha2",
        kind: "JobSet",
        metadata: metadata(gang),
        spec: JobSetSpec {
            network: Network { enable_dns_host_names: true, subdomain: gang.name.clone() },
            // Restarts are the coordinator's: a Job that failed has failed.
            failure_policy: FailurePolicy { max_restarts: 0 },
            ttl_seconds_after_finished: KEPT_S,
            replicated_jobs: vec![ReplicatedJob { name: "workers", replicas: 1, template }],
        },
    }
}
