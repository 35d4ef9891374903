//! From a job spec to the objects that Kubernetes runs its workers by.
//!
//! | module | what it does |
//! |---|---|
//! | `label`, `quantity` | names and amounts as Kubernetes writes them |
//! | `gang` | how many pods, and what each gets: from the spec and the flags |
//! | `pod` | the pod |
//! | `objects` | what stands around it: Job or JobSet, Service, NetworkPolicy |
//!
//! The objects are typed (k8s-openapi), and become text in one place: a value can never change the shape of a
//! manifest.

mod gang;
mod label;
mod objects;
mod pod;
mod quantity;

pub(crate) use gang::Gang;
pub(crate) use label::Label;
pub(crate) use objects::Manifest;
pub(crate) use quantity::Quantity;
